//! Which events are told to the server, and as what: equal ones are counted, many that differ only in their text are
//! put together, and who tells too many is not listened to for a while. The constants are client-go's.
//!
//! Tests: at the end of this file.

use super::pace::Limit;
use crate::node::effect::EventRecord;
use crate::time::{Mono, Now, Wall};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// So many texts of one reason within this time are put together.
const SIMILAR: usize = 10;
const WITHIN: Duration = Duration::from_secs(600);
/// An object's events: a burst, and then one each five minutes.
const BURST: u32 = 25;
const PER_SECOND: f64 = 1.0 / 300.0;
/// Objects remembered at most.
const MOST: usize = 4096;

/// Everything that makes two events the same one, but for the text.
type Subject = (String, String, String, String, &'static str, bool, Cow<'static, str>, String);

fn subject(e: &EventRecord) -> Subject {
    (e.kind.clone(), e.namespace.clone(), e.name.clone(), e.uid.clone(), e.component, e.warning, e.reason.clone(), e.field_path.clone())
}

/// An event as it is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Unique to it: the object's name, a dot, and this.
    pub serial: u64,
    pub event: EventRecord,
    pub count: u32,
    pub first: Wall,
    pub last: Wall,
}

#[derive(Debug, Default)]
struct Similar {
    texts: BTreeSet<String>,
    since: Mono,
}

#[derive(Debug)]
struct Known {
    serial: u64,
    count: u32,
    first: Wall,
    as_of: Mono,
}

#[derive(Debug, Default)]
pub struct Correlator {
    similar: BTreeMap<Subject, Similar>,
    known: BTreeMap<(Subject, String), Known>,
    limits: BTreeMap<(&'static str, String, String, String), Limit>,
    serial: u64,
}

impl Correlator {
    /// None: its object has told too much.
    pub fn take(&mut self, event: &EventRecord, now: Now) -> Option<Posted> {
        self.forget(now.mono);
        let subject = subject(event);
        let mut event = event.clone();
        let s = self.similar.entry(subject.clone()).or_insert_with(|| Similar { since: now.mono, ..Similar::default() });
        if now.mono - s.since > WITHIN {
            *s = Similar { since: now.mono, ..Similar::default() };
        }
        if s.texts.len() < SIMILAR {
            s.texts.insert(event.message.clone());
        }
        // All that come from here on are one event.
        let together = s.texts.len() >= SIMILAR && !s.texts.contains(&event.message);
        if together {
            event.message = format!("(combined from similar events): {}", event.message);
        }
        let source = (event.component, event.namespace.clone(), event.name.clone(), event.uid.clone());
        let limit = self.limits.entry(source).or_insert_with(|| Limit::new(PER_SECOND, BURST, now.mono));
        if !limit.try_take(now.mono) {
            return None;
        }
        let text = if together { String::new() } else { event.message.clone() };
        self.serial += 1;
        let fresh = Known { serial: self.serial, count: 0, first: now.wall, as_of: now.mono };
        let known = self.known.entry((subject, text)).or_insert(fresh);
        known.count += 1;
        known.as_of = now.mono;
        Some(Posted { serial: known.serial, event, count: known.count, first: known.first, last: now.wall })
    }

    fn forget(&mut self, now: Mono) {
        if self.known.len() > MOST {
            self.known.retain(|_, k| now - k.as_of <= WITHIN);
        }
        if self.similar.len() > MOST {
            self.similar.retain(|_, s| now - s.since <= WITHIN);
        }
        if self.limits.len() > MOST {
            self.limits.retain(|_, l| !l.is_full(now));
        }
        if self.known.len() > 4 * MOST {
            self.known.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, message: String) -> EventRecord {
        EventRecord {
            kind: "Pod".into(),
            namespace: "a".into(),
            name: name.into(),
            uid: "1".into(),
            component: "kubelet",
            field_path: String::new(),
            warning: true,
            reason: "BackOff".into(),
            message,
        }
    }

    fn at(seconds: u64) -> Now {
        Now { mono: Mono(Duration::from_secs(seconds)), wall: Wall::from_seconds(i64::try_from(seconds).unwrap()) }
    }

    #[test]
    fn equal_events_are_counted_under_one_name() {
        let mut c = Correlator::default();
        let first = c.take(&event("p", "x".into()), at(1)).unwrap();
        let second = c.take(&event("p", "x".into()), at(5)).unwrap();
        assert_eq!((second.serial, second.count, second.first, second.last), (first.serial, 2, first.first, Wall::from_seconds(5)));
        assert_ne!(c.take(&event("p", "y".into()), at(6)).unwrap().serial, first.serial);
    }

    #[test]
    fn many_that_differ_in_their_text_become_one() {
        let mut c = Correlator::default();
        let told: Vec<Posted> = (0..15).map(|n| c.take(&event("p", format!("m{n}")), at(n)).unwrap()).collect();
        let serials: BTreeSet<u64> = told.iter().map(|p| p.serial).collect();
        assert_eq!(serials.len(), 11);
        assert_eq!((told[14].count, told[14].event.message.as_str()), (5, "(combined from similar events): m14"));
        // Later they are each their own again.
        assert_eq!(c.take(&event("p", "m99".into()), at(2000)).unwrap().event.message, "m99");
    }

    #[test]
    fn an_object_that_tells_too_much_is_not_heard_for_a_while() {
        let mut c = Correlator::default();
        let heard = (0..100).filter(|_| c.take(&event("p", "x".into()), at(1)).is_some()).count();
        assert_eq!(heard, 25);
        assert!(c.take(&event("q", "x".into()), at(1)).is_some(), "others are");
        assert!(c.take(&event("p", "x".into()), at(400)).is_some());
    }
}
