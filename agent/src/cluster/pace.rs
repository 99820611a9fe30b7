//! How fast requests may go, and how long to wait after one that failed.
//!
//! Every function takes the time and the chance (0 to 1) that it needs. Tests: at the end of this file.

use crate::time::Mono;
use std::time::Duration;

/// Waits that grow by a factor of two from `base` to `cap`, each stretched by up to half of itself, so that the
/// nodes of a cluster do not come back all at once.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    pub const fn new(base: Duration, cap: Duration) -> Backoff {
        Backoff { base, cap, failures: 0 }
    }

    /// The wait after one more failure.
    pub fn next(&mut self, chance: f64) -> Duration {
        let doubled = self.base.saturating_mul(1u32.checked_shl(self.failures.min(30)).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        stretched(doubled.min(self.cap), 0.5, chance)
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Longer by up to `most` times itself.
pub fn stretched(d: Duration, most: f64, chance: f64) -> Duration {
    d.mul_f64(1.0 + most * chance.clamp(0.0, 1.0))
}

/// So many requests a second, and a burst of them after a rest.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    per_second: f64,
    burst: f64,
    tokens: f64,
    as_of: Mono,
}

impl Limit {
    /// No limit with a rate of zero or less, as `kubeAPIQPS` has it.
    pub fn new(per_second: f64, burst: u32, now: Mono) -> Limit {
        Limit { per_second, burst: f64::from(burst.max(1)), tokens: f64::from(burst.max(1)), as_of: now }
    }

    fn refill(&mut self, now: Mono) {
        self.tokens = (self.tokens + (now - self.as_of).as_secs_f64() * self.per_second).min(self.burst);
        self.as_of = now;
    }

    /// Takes the place of one, if there is one.
    pub fn try_take(&mut self, now: Mono) -> bool {
        self.refill(now);
        let may = self.per_second <= 0.0 || self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(may));
        may
    }

    /// Nothing was taken for so long that it might be new.
    pub fn is_full(&mut self, now: Mono) -> bool {
        self.refill(now);
        self.tokens >= self.burst
    }

    /// Takes the place of one request; how long it has to wait for its turn.
    pub fn take(&mut self, now: Mono) -> Duration {
        if self.per_second <= 0.0 {
            return Duration::ZERO;
        }
        self.refill(now);
        self.tokens -= 1.0;
        if self.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.tokens / self.per_second) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_their_cap_and_begin_anew_after_a_success() {
        let mut b = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<u128> = (0..6).map(|_| b.next(0.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(b.next(1.0).as_millis(), 1500);
        b.reset();
        assert_eq!(b.next(0.0).as_millis(), 100);
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let at = |ms| Mono(Duration::from_millis(ms));
        let mut l = Limit::new(10.0, 3, at(0));
        let waits: Vec<u128> = (0..5).map(|_| l.take(at(0)).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200]);
        // Those two had their turns; a long rest gives a burst and no more.
        assert_eq!(l.take(at(10_000)).as_millis(), 0);
        assert_eq!((l.take(at(10_000)), l.take(at(10_000))), (Duration::ZERO, Duration::ZERO));
        assert_eq!(l.take(at(10_000)).as_millis(), 100);
        assert_eq!(Limit::new(0.0, 1, at(0)).take(at(0)), Duration::ZERO);
    }
}
