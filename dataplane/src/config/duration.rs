//! Durations as Go writes them: `15m0s`, `1h30m`, `300ms`.
//!
//! Owns both directions. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// Reads a duration that is not negative; `None` for anything else (`-1s` is [`parse_signed`]'s).
pub fn parse(text: &str) -> Option<Duration> {
    parse_signed(text).filter(|(negative, duration)| !negative || duration.is_zero()).map(|(_, duration)| duration)
}

/// Reads a duration; the first value says that it is negative.
pub fn parse_signed(text: &str) -> Option<(bool, Duration)> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some((negative, Duration::ZERO));
    }
    let mut rest = rest;
    let mut nanos: u128 = 0;
    let mut any = false;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        nanos = nanos.checked_add(part(number, unit_nanos(unit)?)?)?;
        any = true;
        rest = tail;
    }
    let longest = u128::from(i64::MAX.cast_unsigned());
    (any && nanos <= longest).then(|| (negative, Duration::from_nanos(nanos as u64)))
}

fn unit_nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn part(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let mut total = digits(whole)?.checked_mul(unit)?;
    let mut scale = unit;
    for digit in fraction.bytes() {
        scale /= 10;
        total += u128::from(char::from(digit).to_digit(10)?) * scale;
    }
    Some(total)
}

/// Writes a duration as Go's `Duration.String` does.
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    let fraction = |value: u128, unit: u128| {
        let whole = value / unit;
        let width = unit.ilog10() as usize;
        let rest = format!("{:0width$}", value % unit);
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() || unit == 1 { whole.to_string() } else { format!("{whole}.{rest}") }
    };
    match nanos {
        0..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000)),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let ms = Duration::from_millis;
        for (text, wanted) in [
            ("0", Some(ms(0))),
            ("30s", Some(ms(30_000))),
            ("1h15m30.5s", Some(ms(4_530_500))),
            (".5s", Some(ms(500))),
            ("1.5m", Some(ms(90_000))),
            ("100ms", Some(ms(100))),
            ("+2s", Some(ms(2_000))),
            ("-2s", None),
            ("2", None),
            ("", None),
            ("s", None),
            ("1x", None),
            ("9999999999h", None),
        ] {
            assert_eq!(parse(text), wanted, "{text}");
        }
        assert_eq!(parse_signed("-2s"), Some((true, ms(2_000))));
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        let nanos = Duration::from_nanos;
        for (duration, wanted) in [
            (nanos(0), "0s"),
            (nanos(1), "1ns"),
            (nanos(1_500), "1.5µs"),
            (nanos(100_000_000), "100ms"),
            (nanos(30_000_000_000), "30s"),
            (nanos(900_000_000_000), "15m0s"),
            (nanos(86_400_000_000_000), "24h0m0s"),
            (nanos(3_661_001_000_000), "1h1m1.001s"),
        ] {
            assert_eq!(format(duration), wanted);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos in 0u64..(i64::MAX as u64)) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Some(duration));
        }
    }
}
