#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! From single outcomes to a verdict: thresholds, order and pauses of one probe of one container
//! (specification of the kubelet, 5.1). Must never look at a clock: times come in as spans since the
//! caller's monotonic origin. Tests: in this file.

use crate::outcome::Outcome;
use crate::spec::{ProbeKind, Settings};
use std::time::Duration;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    #[default]
    Unknown,
    Success,
    Failure,
}

/// One probe of one running container.
#[derive(Clone, Debug)]
pub struct Machine {
    kind: ProbeKind,
    settings: Settings,
    verdict: Verdict,
    last: Option<bool>,
    in_a_row: u32,
    /// None: nothing more to ask of this container.
    due: Option<Duration>,
    in_flight: bool,
}

/// What an outcome meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// The verdict changed to this.
    pub changed: Option<Verdict>,
    /// How far a failure is on its way to count: (in a row, needed).
    pub failing: Option<(u32, u32)>,
}

impl Machine {
    /// `started` is when the container started, `adopted` says that it ran before this daemon did: then no
    /// verdict is assumed, and the first check is spread over a period by `spread` in [0, 1).
    pub fn new(kind: ProbeKind, settings: Settings, started: Duration, now: Duration, adopted: Option<f64>) -> Machine {
        let first = started.saturating_add(settings.initial_delay).max(now);
        let (verdict, due) = match adopted {
            None => (initial(kind), first),
            Some(spread) => (Verdict::Unknown, first.max(now + settings.period.mul_f64(spread.clamp(0.0, 0.999)))),
        };
        Machine { kind, settings, verdict, last: None, in_a_row: 0, due: Some(due), in_flight: false }
    }

    /// The startup probe of a container that had started before the daemon did: it is not asked again.
    pub fn passed(settings: Settings) -> Machine {
        Machine { kind: ProbeKind::Startup, settings, verdict: Verdict::Success, last: None, in_a_row: 0, due: None, in_flight: false }
    }

    pub fn kind(&self) -> ProbeKind {
        self.kind
    }

    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Failures in a row so far, and how many count.
    pub fn failing(&self) -> Option<(u32, u32)> {
        (self.last == Some(false)).then_some((self.in_a_row, self.settings.failure_threshold))
    }

    /// When the next check is due; None while one is under way or when there is nothing more to ask.
    pub fn due(&self) -> Option<Duration> {
        self.due.filter(|_| !self.in_flight)
    }

    /// A check begins.
    pub fn begin(&mut self, now: Duration) {
        self.in_flight = true;
        // The ticker keeps its pace whatever a check takes, and never fires twice for a missed tick.
        self.due = Some(now + self.settings.period);
    }

    /// Ask at once: readiness right after startup.
    pub fn hasten(&mut self, now: Duration) {
        if let Some(due) = &mut self.due {
            *due = now.min(*due);
        }
    }

    /// The pod ends: liveness and startup are not asked any more, readiness goes on.
    pub fn pod_is_ending(&mut self) {
        if self.kind != ProbeKind::Readiness {
            self.due = None;
            if self.verdict == Verdict::Failure || self.verdict == Verdict::Unknown {
                self.verdict = Verdict::Success;
            }
        }
    }

    pub fn observe(&mut self, outcome: &Outcome) -> Effect {
        self.in_flight = false;
        let ok = match outcome {
            Outcome::Success(_) | Outcome::Warning(_) => true,
            Outcome::Failure(_) => false,
            Outcome::Error(_) | Outcome::Unreadable(_) => return Effect::default(),
        };
        if self.due.is_none() {
            // The pod began to end while this check was under way: it decides nothing any more.
            return Effect::default();
        }
        if self.last == Some(ok) {
            self.in_a_row = self.in_a_row.saturating_add(1);
        } else {
            self.last = Some(ok);
            self.in_a_row = 1;
        }
        let needed = if ok { self.settings.success_threshold } else { self.settings.failure_threshold };
        let failing = (!ok).then_some((self.in_a_row, needed));
        if self.in_a_row < needed {
            return Effect { changed: None, failing };
        }
        let verdict = if ok { Verdict::Success } else { Verdict::Failure };
        let changed = (verdict != self.verdict).then_some(verdict);
        self.verdict = verdict;
        let done = match self.kind {
            ProbeKind::Startup => true,
            ProbeKind::Liveness => !ok,
            ProbeKind::Readiness => false,
        };
        if done {
            // Nothing more until another container takes its place.
            self.due = None;
        }
        Effect { changed, failing }
    }
}

/// What holds before the first verdict on a container that this daemon started.
fn initial(kind: ProbeKind) -> Verdict {
    match kind {
        ProbeKind::Startup => Verdict::Unknown,
        ProbeKind::Liveness => Verdict::Success,
        ProbeKind::Readiness => Verdict::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(success: u32, failure: u32) -> Settings {
        let s = Duration::from_secs;
        Settings { initial_delay: s(5), period: s(10), timeout: s(1), success_threshold: success, failure_threshold: failure }
    }

    fn fresh(kind: ProbeKind, success: u32, failure: u32) -> Machine {
        Machine::new(kind, settings(success, failure), Duration::from_secs(100), Duration::from_secs(100), None)
    }

    fn ok() -> Outcome {
        Outcome::Success(String::new())
    }

    fn bad() -> Outcome {
        Outcome::Failure(String::new())
    }

    #[test]
    fn the_first_check_waits_for_the_initial_delay_and_then_keeps_pace() {
        let mut m = fresh(ProbeKind::Readiness, 1, 3);
        assert_eq!(m.due(), Some(Duration::from_secs(105)));
        m.begin(Duration::from_secs(105));
        assert_eq!(m.due(), None);
        m.observe(&ok());
        assert_eq!(m.due(), Some(Duration::from_secs(115)));
    }

    #[test]
    fn failures_count_only_in_a_row() {
        let mut m = fresh(ProbeKind::Liveness, 1, 3);
        for o in [bad(), bad(), ok(), bad(), bad()] {
            assert_eq!(m.observe(&o).changed, None);
        }
        assert_eq!(m.failing(), Some((2, 3)));
        assert_eq!(m.observe(&bad()).changed, Some(Verdict::Failure));
        assert_eq!(m.due(), None, "a failed container is not asked again");
    }

    #[test]
    fn readiness_goes_back_and_forth() {
        let mut m = fresh(ProbeKind::Readiness, 2, 2);
        assert_eq!(m.verdict(), Verdict::Failure);
        let seen: Vec<_> = [ok(), ok(), bad(), bad(), ok(), ok()].iter().filter_map(|o| m.observe(o).changed).collect();
        assert_eq!(seen, [Verdict::Success, Verdict::Failure, Verdict::Success]);
    }

    #[test]
    fn a_startup_verdict_ends_the_startup_probe() {
        let mut m = fresh(ProbeKind::Startup, 1, 30);
        assert_eq!(m.verdict(), Verdict::Unknown);
        assert_eq!(m.observe(&ok()).changed, Some(Verdict::Success));
        assert_eq!(m.due(), None);
    }

    #[test]
    fn a_check_that_could_not_be_made_says_nothing() {
        let mut m = fresh(ProbeKind::Liveness, 1, 1);
        assert_eq!(m.observe(&Outcome::Error("x".into())), Effect::default());
        assert_eq!(m.verdict(), Verdict::Success);
    }

    #[test]
    fn a_check_under_way_when_the_pod_ends_kills_nothing() {
        for kind in [ProbeKind::Liveness, ProbeKind::Startup] {
            let mut m = fresh(kind, 1, 1);
            m.begin(Duration::from_secs(105));
            m.pod_is_ending();
            assert_eq!(m.observe(&bad()), Effect::default());
            assert_eq!((m.verdict(), m.due()), (Verdict::Success, None));
        }
    }

    #[test]
    fn readiness_is_asked_to_the_end() {
        let mut m = fresh(ProbeKind::Readiness, 1, 1);
        m.observe(&ok());
        m.begin(Duration::from_secs(105));
        m.pod_is_ending();
        assert_eq!(m.observe(&bad()).changed, Some(Verdict::Failure));
        assert_eq!(m.due(), Some(Duration::from_secs(115)));
    }

    #[test]
    fn an_adopted_container_keeps_its_verdict_until_asked() {
        let now = Duration::from_secs(1000);
        let m = Machine::new(ProbeKind::Readiness, settings(1, 3), Duration::from_secs(100), now, Some(0.5));
        assert_eq!((m.verdict(), m.due()), (Verdict::Unknown, Some(Duration::from_secs(1005))));
    }

    proptest! {
        #[test]
        fn a_verdict_needs_its_threshold(outcomes in prop::collection::vec(any::<bool>(), 0..60), success in 1_u32..5, failure in 1_u32..5) {
            let mut m = fresh(ProbeKind::Readiness, success, failure);
            let (mut last, mut run) = (None, 0);
            for good in outcomes {
                run = if last == Some(good) { run + 1 } else { 1 };
                last = Some(good);
                if let Some(v) = m.observe(&if good { ok() } else { bad() }).changed {
                    let (want, needed) = if good { (Verdict::Success, success) } else { (Verdict::Failure, failure) };
                    prop_assert_eq!(v, want);
                    prop_assert!(run >= needed);
                }
            }
        }
    }
}
