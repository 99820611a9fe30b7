//! Whether the proxy itself is well: `/healthz` and `/livez`.
//!
//! Owns the rule: each family's oldest change that is not programmed yet is younger than twice the sync period; and, for
//! `/healthz`, the node may get traffic. Never keeps a clock: time comes in. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use crate::model::{Family, time};

/// One family's progress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Progress {
    /// Since when the oldest change waits.
    queued: Option<SystemTime>,
    updated: Option<SystemTime>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHealth {
    /// Twice the sync period.
    pub timeout: Duration,
    /// False while the node must not get traffic from load balancers.
    pub node_eligible: bool,
    families: Vec<(Family, Progress)>,
}

/// An answer of the health server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub healthy: bool,
    /// JSON.
    pub body: String,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Is the proxy well, and may the node get traffic?
    Health,
    /// Is the proxy well?
    Life,
}

impl ProxyHealth {
    pub fn new(families: &[Family], timeout: Duration) -> ProxyHealth {
        ProxyHealth { timeout, node_eligible: true, families: families.iter().map(|f| (*f, Progress::default())).collect() }
    }

    /// A change waits to be programmed. Of several the oldest counts.
    pub fn queued(&mut self, now: SystemTime) {
        for (_, progress) in &mut self.families {
            progress.queued.get_or_insert(now);
        }
    }

    /// Everything that waited is programmed.
    pub fn updated(&mut self, family: Family, now: SystemTime) {
        for (_, progress) in self.families.iter_mut().filter(|(f, _)| *f == family) {
            *progress = Progress { queued: None, updated: Some(now) };
        }
    }

    fn is_live(&self, progress: &Progress, now: SystemTime) -> bool {
        let waits = progress.queued.map(|since| now.duration_since(since).unwrap_or_default());
        waits.is_none_or(|time| time <= self.timeout)
    }

    pub fn live(&self, now: SystemTime) -> bool {
        self.families.iter().all(|(_, progress)| self.is_live(progress, now))
    }

    pub fn answer(&self, question: Question, now: SystemTime) -> Answer {
        let healthy = self.live(now) && (question == Question::Life || self.node_eligible);
        // Clients of old expect the time of a healthy proxy to move on.
        let newest = self.families.iter().filter_map(|(_, progress)| progress.updated).max();
        let last = if healthy { Some(now) } else { newest };
        // The zero time, as Go writes it, for what never was.
        let text = |time: Option<SystemTime>| time.map_or("0001-01-01T00:00:00Z".to_string(), time::format);
        let mut body = format!("{{\"lastUpdated\":{},\"currentTime\":{}", json!(text(last)), json!(text(Some(now))));
        if question == Question::Health {
            body.push_str(&format!(",\"nodeEligible\":{}", self.node_eligible));
        }
        body.push_str(&format!(",\"healthy\":{healthy}"));
        let status: Map<String, Value> = self
            .families
            .iter()
            .filter(|(_, progress)| progress.queued.is_some() || progress.updated.is_some())
            .map(|(family, p)| (family.to_string(), json!({"lastUpdated": text(p.updated), "healthy": self.is_live(p, now)})))
            .collect();
        if !status.is_empty() {
            body.push_str(&format!(",\"status\":{}", status_text(&status)));
        }
        body.push('}');
        Answer { healthy, body }
    }
}

/// With the fields in upstream's order.
fn status_text(status: &Map<String, Value>) -> String {
    let entry = |(family, value): (&String, &Value)| {
        format!("\"{family}\":{{\"lastUpdated\":{},\"healthy\":{}}}", value["lastUpdated"], value["healthy"])
    };
    format!("{{{}}}", status.iter().map(entry).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_proxy_is_well_until_a_change_waits_too_long() {
        let mut health = ProxyHealth::new(&[Family::V4, Family::V6], Duration::from_secs(60));
        assert!(health.live(at(0)), "nothing was ever asked of it");
        health.queued(at(100));
        health.queued(at(150));
        assert!(health.live(at(160)));
        assert!(!health.live(at(161)), "the oldest change counts");
        health.updated(Family::V4, at(161));
        assert!(!health.live(at(162)), "the other family still waits");
        health.updated(Family::V6, at(162));
        assert!(health.live(at(100_000)));
    }

    #[test]
    fn a_node_on_its_way_out_is_unhealthy_but_alive() {
        let mut health = ProxyHealth::new(&[Family::V4], Duration::from_secs(60));
        health.node_eligible = false;
        assert!(!health.answer(Question::Health, at(0)).healthy);
        assert!(health.answer(Question::Life, at(0)).healthy);
    }

    #[test]
    fn answers_are_compact_json_with_fields_in_order() {
        let mut health = ProxyHealth::new(&[Family::V4], Duration::from_secs(60));
        let first = health.answer(Question::Health, at(10)).body;
        let wanted = r#"{"lastUpdated":"1970-01-01T00:00:10Z","currentTime":"1970-01-01T00:00:10Z","nodeEligible":true,"healthy":true}"#;
        assert_eq!(first, wanted);
        health.updated(Family::V4, at(20));
        health.queued(at(21));
        let late = health.answer(Question::Life, at(100)).body;
        let wanted = r#"{"lastUpdated":"1970-01-01T00:00:20Z","currentTime":"1970-01-01T00:01:40Z","healthy":false,"#;
        assert!(late.starts_with(wanted), "{late}");
        assert!(late.ends_with(r#""status":{"IPv4":{"lastUpdated":"1970-01-01T00:00:20Z","healthy":false}}}"#), "{late}");
    }
}
