//! Events: what a user should see on an object, for whoever records Kubernetes events.
//!
//! Owns the queue, which is bounded: when nobody listens, the oldest go. Tests are at the end of this file.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::model::ObjectName;

/// Most events that wait to be recorded.
const ROOM: usize = 1000;

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Regarding {
    Node,
    Service(ObjectName),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Of type Warning, else Normal.
    pub warning: bool,
    pub regarding: Regarding,
    /// `FailedToStartServiceHealthcheck`
    pub reason: &'static str,
    /// `Listen`
    pub action: &'static str,
    pub message: String,
}

impl Event {
    pub fn warning(service: &ObjectName, reason: &'static str, action: &'static str, message: String) -> Event {
        Event { warning: true, regarding: Regarding::Service(service.clone()), reason, action, message }
    }
}

/// Events that wait to be recorded.
#[derive(Debug, Default)]
pub struct Events {
    waiting: Mutex<VecDeque<Event>>,
    arrived: Notify,
}

impl Events {
    pub fn put(&self, event: Event) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == ROOM {
            waiting.pop_front();
        }
        waiting.push_back(event);
        self.arrived.notify_one();
    }

    pub fn try_next(&self) -> Option<Event> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Waits for the next one.
    pub async fn next(&self) -> Event {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            self.arrived.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_nobody_listens_the_oldest_go() {
        let events = Events::default();
        let event = |n: usize| Event::warning(&ObjectName::new("ns", "web"), "Reason", "Action", n.to_string());
        (0..ROOM + 2).for_each(|n| events.put(event(n)));
        assert_eq!(events.try_next(), Some(event(2)));
        assert_eq!(std::iter::from_fn(|| events.try_next()).count(), ROOM - 1);
    }
}
