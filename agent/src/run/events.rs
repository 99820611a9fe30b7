//! Records Events: equal ones are counted, old ones fall out.

use crate::node::effect::EventRecord;
use crate::time::Wall;
use std::collections::VecDeque;
use std::time::Duration;

/// Events are kept as long as an API server keeps them, and never more than this many.
const KEEP: Duration = Duration::from_secs(3600);
const MOST: usize = 2000;

#[derive(Clone, Debug)]
pub struct Recorded {
    pub event: EventRecord,
    pub count: u32,
    pub first: Wall,
    pub last: Wall,
    /// Part of the object's name; unique while the daemon runs.
    pub serial: u64,
}

#[derive(Debug, Default)]
pub struct Recorder {
    events: VecDeque<Recorded>,
    serial: u64,
}

impl Recorder {
    pub fn record(&mut self, event: EventRecord, now: Wall) {
        tracing::info!(object = %format_args!("{} {}/{}", event.kind, event.namespace, event.name), field = %event.field_path, reason = %event.reason, "{}", event.message);
        if let Some(i) = self.events.iter().position(|r| r.event == event) {
            let mut r = self.events.remove(i).expect("just found");
            r.count += 1;
            r.last = now;
            self.events.push_back(r);
        } else {
            self.serial += 1;
            self.events.push_back(Recorded { event, count: 1, first: now, last: now, serial: self.serial });
        }
        while self.events.len() > MOST || self.events.front().is_some_and(|r| now.since(r.last) > KEEP) {
            self.events.pop_front();
        }
    }

    /// The one that was recorded last.
    pub fn last(&self) -> Option<&Recorded> {
        self.events.back()
    }

    /// Oldest first by the last time each happened.
    pub fn list(&self) -> impl Iterator<Item = &Recorded> {
        self.events.iter()
    }
}
