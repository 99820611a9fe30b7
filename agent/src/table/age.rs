//! Spans of time as kubectl prints them: two units at most, coarser with age.

use crate::time::Wall;

/// The age of something made at `then`; `<unknown>` without a time.
pub fn age(then: Option<Wall>, now: Wall) -> String {
    match then {
        Some(t) => human(now.seconds() - t.seconds()),
        None => "<unknown>".into(),
    }
}

/// A span in seconds. A clock that is a little behind shows as `0s`, one that is far behind as invalid.
pub fn human(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".into();
    }
    let s = seconds.max(0);
    let (m, h) = (s / 60, s / 3600);
    let (days, years) = (h / 24, h / 24 / 365);
    let two = |big: i64, unit: char, small: i64, part: char| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{part}") }
    };
    match () {
        () if s < 120 => format!("{s}s"),
        () if m < 10 => two(m, 'm', s % 60, 's'),
        () if m < 180 => format!("{m}m"),
        () if h < 8 => two(h, 'h', m % 60, 'm'),
        () if h < 48 => format!("{h}h"),
        () if h < 192 => two(days, 'd', h % 24, 'h'),
        () if years < 2 => format!("{days}d"),
        () if years < 8 => two(years, 'y', days % 365, 'd'),
        () => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        let (m, h, d, y) = (60, 3600, 86_400, 86_400 * 365);
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (10 * m + 5, "10m"),
            (179 * m, "179m"),
            (3 * h, "3h"),
            (3 * h + 5 * m, "3h5m"),
            (8 * h + 5 * m, "8h"),
            (47 * h, "47h"),
            (48 * h, "2d"),
            (51 * h, "2d3h"),
            (8 * d + 3 * h, "8d"),
            (729 * d, "729d"),
            (2 * y + 3 * d, "2y3d"),
            (9 * y + 3 * d, "9y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human(seconds), text, "{seconds}");
        }
        assert_eq!(age(None, Wall::default()), "<unknown>");
    }
}
