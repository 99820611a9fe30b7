//! The whole agent in virtual time: the node's step against a strict model of a runtime, with faults and
//! crashes of the daemon between any two steps, thousands of schedules a run.
//!
//! Each seed gives one world: pods with random specs and workloads, random delays, faults, edits of the
//! desired state and crashes. A violated law panics with the seed; `LONGSHORE_SEED=n` runs one alone.

mod laws;
mod workload;
mod world;

use world::World;
pub(crate) use world::config;

/// A small deterministic generator (splitmix64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, n).
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[allow(clippy::disallowed_methods, reason = "which worlds to run is asked of whoever runs the tests")]
fn seeds(default: u64) -> std::ops::Range<u64> {
    if let Some(seed) = std::env::var("LONGSHORE_SEED").ok().and_then(|s| s.parse::<u64>().ok()) {
        return seed..seed + 1;
    }
    let count = std::env::var("LONGSHORE_SCHEDULES").ok().and_then(|s| s.parse().ok()).unwrap_or(default);
    0..count
}

/// Each law has worlds of its own, so that one seed does not serve twice.
fn run(law: u64, seed: u64, with: impl Fn(&mut World)) {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut w = World::new(seed.wrapping_add(law << 32));
        with(&mut w);
    }));
    if let Err(cause) = outcome {
        eprintln!("law violated with LONGSHORE_SEED={seed}");
        std::panic::resume_unwind(cause);
    }
}

#[test]
fn every_pod_comes_to_rest_whatever_fails_on_the_way() {
    for seed in seeds(600) {
        run(0, seed, |w| {
            w.disturb(40);
            w.settle();
            laws::at_rest(w);
        });
    }
}

#[test]
fn a_crash_of_the_daemon_between_any_two_steps_restarts_nothing() {
    for seed in seeds(600) {
        run(1, seed, |w| {
            w.crashes = 25;
            w.disturb(40);
            w.settle();
            laws::at_rest(w);
        });
    }
}

#[test]
fn a_daemon_that_forgot_everything_plans_the_same() {
    for seed in seeds(500) {
        run(2, seed, |w| {
            w.faults = 0;
            w.disturb(15);
            w.quiesce();
            laws::restart_transparency(w);
        });
    }
}

#[test]
fn removed_pods_leave_nothing_behind() {
    for seed in seeds(500) {
        run(3, seed, |w| {
            w.crashes = 10;
            w.disturb(20);
            w.remove_all();
            w.settle();
            assert!(w.model.observe_all().is_empty(), "containers are left: {:?}", w.model.observe_all());
            assert!(w.node.pods.is_empty() && w.persisted.is_empty(), "records are left: {:?} {:#?}", w.persisted, w.course);
        });
    }
}

#[test]
fn the_same_seed_gives_the_same_course() {
    for seed in seeds(20) {
        let course = || {
            let mut w = World::new(seed);
            w.crashes = 10;
            w.disturb(30);
            w.course
        };
        assert_eq!(course(), course(), "seed {seed}");
    }
}
