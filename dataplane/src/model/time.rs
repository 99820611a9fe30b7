//! Points in time as Kubernetes writes them (RFC 3339).
//!
//! Owns both directions. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// Reads `2026-01-02T03:04:05.678Z` or with an offset; `None` before 1970 and for anything malformed.
pub fn parse(text: &str) -> Option<SystemTime> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<u64> {
        let digits = text.get(range)?;
        digits.bytes().all(|c| c.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let at = |index: usize, wanted: &[u8]| bytes.get(index).is_some_and(|c| wanted.contains(c)).then_some(());
    at(4, b"-")?;
    at(7, b"-")?;
    at(10, b"Tt ")?;
    at(13, b":")?;
    at(16, b":")?;
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let sane = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    (sane && hour < 24 && minute < 60 && second <= 60).then_some(())?;
    let (nanos, rest) = fraction(text.get(19..)?)?;
    let seconds = days_before(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    let seconds = match rest.as_bytes() {
        [b'Z' | b'z'] => seconds,
        [sign @ (b'+' | b'-'), ..] => {
            let (hours, minutes) = rest[1..].split_once(':')?;
            let offset = hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60;
            if *sign == b'+' { seconds.checked_sub(offset)? } else { seconds + offset }
        }
        _ => return None,
    };
    Some(UNIX_EPOCH + Duration::new(seconds, nanos))
}

/// Nanoseconds of a fraction, if there is one, and what follows.
fn fraction(text: &str) -> Option<(u32, &str)> {
    let Some(digits) = text.strip_prefix('.') else { return Some((0, text)) };
    let len = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let padded = format!("{:0<9}", digits.get(..len.min(9))?);
    Some((padded.parse().ok()?, &digits[len..]))
}

/// Days from 1970 to a date.
fn days_before(year: u64, month: u64, day: u64) -> u64 {
    // Years that begin in March have the leap day at their end.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719_468
}

/// Writes a time with nanoseconds, as Go's JSON does, in UTC.
pub fn format(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, rest) = (since.as_secs() / DAY + 719_468, since.as_secs() % DAY);
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    let nanos = format!(".{:09}", since.subsec_nanos());
    let nanos = nanos.trim_end_matches('0').trim_end_matches('.');
    format!("{year:04}-{month:02}-{day:02}T{clock}{nanos}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_with_fractions_and_offsets() {
        let at = |seconds: u64, nanos: u32| Some(UNIX_EPOCH + Duration::new(seconds, nanos));
        for (text, wanted) in [
            ("1970-01-01T00:00:00Z", at(0, 0)),
            ("2026-11-20T14:08:56Z", at(1_795_183_736, 0)),
            ("2026-11-20T16:08:56.5+02:00", at(1_795_183_736, 500_000_000)),
            ("2024-02-29T23:59:59.000000001Z", at(1_709_251_199, 1)),
            ("2026-13-20T14:08:56Z", None),
            ("2026-11-20 14:08", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(parse(text), wanted, "{text}");
        }
        assert_eq!(format(UNIX_EPOCH + Duration::new(1_709_251_199, 500)), "2024-02-29T23:59:59.0000005Z");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in 0u64..200_000_000_000, nanos in 0u32..1_000_000_000) {
            let time = UNIX_EPOCH + Duration::new(seconds, nanos);
            prop_assert_eq!(parse(&format(time)), Some(time));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
