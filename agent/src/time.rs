//! Time as values. Owns the two clocks' types; must never read a clock (only `run/` does).
//! Tests: in this file.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::ops::{Add, Sub};
use std::time::Duration;

/// Monotonic time: the span since an arbitrary start that survives nothing but the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub Duration);

/// Wall-clock time in nanoseconds since the Unix epoch, as the runtime reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub i64);

/// One instant on both clocks. Every decision takes it as an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub mono: Mono,
    pub wall: Wall,
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, d: Duration) -> Mono {
        Mono(self.0.saturating_add(d))
    }
}

impl Sub<Mono> for Mono {
    type Output = Duration;
    /// Zero when `other` is later.
    fn sub(self, other: Mono) -> Duration {
        self.0.saturating_sub(other.0)
    }
}

impl Add<Duration> for Wall {
    type Output = Wall;
    fn add(self, d: Duration) -> Wall {
        Wall(self.0.saturating_add(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl Wall {
    pub const SECOND: i64 = 1_000_000_000;

    /// The span from `earlier` to `self`; zero when the clock stepped backwards.
    pub fn since(self, earlier: Wall) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same instant with the fraction of a second cut off, as metav1.Time is serialised.
    pub fn truncated(self) -> Wall {
        Wall(self.0.div_euclid(Self::SECOND) * Self::SECOND)
    }

    pub fn from_seconds(s: i64) -> Wall {
        Wall(s.saturating_mul(Self::SECOND))
    }

    pub fn seconds(self) -> i64 {
        self.0.div_euclid(Self::SECOND)
    }

    /// RFC 3339 in UTC with whole seconds: `2026-11-20T10:58:09Z`.
    pub fn rfc3339(self) -> String {
        match jiff::Timestamp::from_second(self.seconds()) {
            Ok(t) => t.to_string(),
            Err(_) => String::new(),
        }
    }

    /// RFC 3339 in UTC with six fractional digits, as metav1.MicroTime is serialised.
    pub fn rfc3339_micro(self) -> String {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(t) => format!("{t:.6}"),
            Err(_) => String::new(),
        }
    }

    pub fn parse_rfc3339(s: &str) -> Option<Wall> {
        let t: jiff::Timestamp = s.parse().ok()?;
        i64::try_from(t.as_nanosecond()).ok().map(Wall)
    }
}

impl Serialize for Wall {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.rfc3339())
    }
}

impl<'de> Deserialize<'de> for Wall {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Wall, D::Error> {
        let s = String::deserialize(d)?;
        Wall::parse_rfc3339(&s).ok_or_else(|| D::Error::custom(format!("{s:?} is not an RFC 3339 time")))
    }
}

impl Now {
    /// The monotonic instant at which the wall clock will read `at`, if it is not stepped meanwhile.
    pub fn mono_at(self, at: Wall) -> Mono {
        self.mono + at.since(self.wall)
    }
}

/// A duration as Go prints it (`1m30s`, `10s`, `250ms`, `5m0s`): the form in kubelet messages.
pub fn go_duration(d: Duration) -> String {
    let nanos = d.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return format!("{}µs", trim_fraction(nanos, 1_000));
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", trim_fraction(nanos, 1_000_000));
    }
    let (total, frac) = (d.as_secs(), u128::from(d.subsec_nanos()));
    let (h, m, s) = (total / 3600, total / 60 % 60, u128::from(total % 60));
    let secs = trim_fraction(s * 1_000_000_000 + frac, 1_000_000_000);
    match (h, m) {
        (0, 0) => format!("{secs}s"),
        (0, m) => format!("{m}m{secs}s"),
        (h, m) => format!("{h}h{m}m{secs}s"),
    }
}

fn trim_fraction(value: u128, unit: u128) -> String {
    let (whole, frac) = (value / unit, value % unit);
    if frac == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{frac:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_read_as_go_prints_them() {
        let cases = [
            (0, "0s"),
            (10_000, "10s"),
            (40_000, "40s"),
            (300_000, "5m0s"),
            (90_000, "1m30s"),
            (250, "250ms"),
            (1_500, "1.5s"),
            (3_661_000, "1h1m1s"),
        ];
        for (ms, text) in cases {
            assert_eq!(go_duration(Duration::from_millis(ms)), text);
        }
        assert_eq!(go_duration(Duration::from_micros(1_234)), "1.234ms");
    }

    #[test]
    fn a_clock_that_steps_back_never_makes_a_span_negative() {
        assert_eq!(Wall(5).since(Wall(9)), Duration::ZERO);
        let now = Now { mono: Mono(Duration::from_secs(7)), wall: Wall::from_seconds(100) };
        assert_eq!(now.mono_at(Wall::from_seconds(40)), now.mono);
    }

    #[test]
    fn times_round_trip_through_rfc3339() {
        let w = Wall::from_seconds(1_795_000_000);
        assert_eq!(Wall::parse_rfc3339(&w.rfc3339()), Some(w));
        assert_eq!(Wall(1_500_000_000).rfc3339_micro(), "1970-01-01T00:00:01.500000Z");
    }
}
