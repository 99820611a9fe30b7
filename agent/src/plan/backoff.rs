//! Crash back-off, derived from observation alone so that it survives a restart of the daemon.
//!
//! The kubelet keeps a table in memory: 10 s doubling to 300 s, first restart at once, forgotten when a
//! run lasted more than 600 s (specification of the kubelet, 4). Here the streak of quick exits is written
//! on each container when it is created; together with the last exit it gives the same waits.

use crate::time::{Now, Wall};
use std::time::Duration;

/// Limits of the doubling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub initial: Duration,
    pub max: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { initial: Duration::from_secs(10), max: Duration::from_secs(300) }
    }
}

/// A run longer than this clears the record, whatever the maximum is.
pub const RESET_AFTER: Duration = Duration::from_secs(600);

/// The last run of a container, as the runtime recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRun {
    pub created: Wall,
    pub finished: Wall,
    /// Quick exits in a row before this run began; from the restart count where it was not recorded.
    pub streak: u32,
}

/// When a container may start again and with which streak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Time still to wait; zero: start now.
    pub wait: Duration,
    /// The whole back-off that `wait` is the rest of.
    pub delay: Duration,
    /// To be written on the next container.
    pub streak: u32,
}

/// `delay` of the n-th quick exit in a row: none for the first, then initial, doubled up to the maximum.
pub fn delay(streak: u32, limits: Limits) -> Duration {
    let Some(doublings) = streak.checked_sub(1) else { return Duration::ZERO };
    let initial = limits.initial.min(limits.max);
    1_u32.checked_shl(doublings).and_then(|f| initial.checked_mul(f)).unwrap_or(limits.max).min(limits.max)
}

pub fn restart(last: LastRun, limits: Limits, now: Now) -> Restart {
    if last.finished.since(last.created) > RESET_AFTER {
        return Restart { wait: Duration::ZERO, delay: Duration::ZERO, streak: 1 };
    }
    let delay = delay(last.streak, limits);
    // The clock may have stepped either way since the exit: never wait longer than the back-off itself.
    let wait = if now.wall < last.finished { delay } else { delay.saturating_sub(now.wall.since(last.finished)) };
    Restart { wait, delay, streak: last.streak.saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Mono;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Now {
        Now { mono: Mono::default(), wall: Wall::from_seconds(seconds) }
    }

    fn ran(created: i64, finished: i64, streak: u32) -> LastRun {
        LastRun { created: Wall::from_seconds(created), finished: Wall::from_seconds(finished), streak }
    }

    #[test]
    fn crashed_container_waits_for_its_backoff() {
        let waits: Vec<u64> = (0..9).map(|s| restart(ran(0, 1, s), Limits::default(), at(1)).wait.as_secs()).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
        let half = restart(ran(0, 1, 3), Limits::default(), at(16));
        assert_eq!((half.wait.as_secs(), half.delay.as_secs(), half.streak), (25, 40, 4));
    }

    #[test]
    fn a_long_run_starts_the_record_anew() {
        assert_eq!(restart(ran(0, 601, 6), Limits::default(), at(601)), Restart { wait: Duration::ZERO, delay: Duration::ZERO, streak: 1 });
        assert_eq!(restart(ran(0, 600, 6), Limits::default(), at(600)).wait.as_secs(), 300);
    }

    #[test]
    fn a_smaller_maximum_bounds_the_first_wait_too() {
        let limits = Limits { max: Duration::from_secs(3), ..Limits::default() };
        assert_eq!(delay(1, limits).as_secs(), 3);
        assert_eq!(delay(40, limits).as_secs(), 3);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_its_backoff_whatever_the_clock_does(
            created in 0_i64..1_000_000, length in 0_i64..2_000, streak in 0_u32..100, skew in -1_000_000_i64..1_000_000,
        ) {
            let last = ran(created, created + length, streak);
            let r = restart(last, Limits::default(), at(created + length + skew));
            prop_assert!(r.wait <= r.delay && r.delay <= Duration::from_secs(300));
            prop_assert!(r.streak >= 1);
        }
    }
}
