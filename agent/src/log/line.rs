//! One line of a log: time, stream, tags, text.

use crate::time::Wall;
use std::borrow::Cow;

/// Where a container wrote a line to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A line of a log file, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    /// RFC 3339 with whatever digits and zone the runtime wrote.
    time: Cow<'a, str>,
    stream: Stream,
    /// The container wrote no end of line here; the next line goes on where this one stops.
    partial: bool,
    text: Cow<'a, [u8]>,
}

/// The CRI's form `<time> stdout|stderr F|P[:tags] <text>`, or Docker's JSON. `raw` has no end of line.
fn parse(raw: &[u8]) -> Option<Line<'_>> {
    if raw.first() == Some(&b'{') {
        return docker(raw);
    }
    let mut parts = raw.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = stream(parts.next()?)?;
    let tags = parts.next()?;
    if !time.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let partial = tags.split(|b| *b == b':').next() == Some(b"P");
    Some(Line { time: time.into(), stream, partial, text: parts.next().unwrap_or_default().into() })
}

fn stream(text: &[u8]) -> Option<Stream> {
    match text {
        b"stdout" => Some(Stream::Stdout),
        b"stderr" => Some(Stream::Stderr),
        _ => None,
    }
}

fn docker(raw: &[u8]) -> Option<Line<'_>> {
    let v: serde_json::Value = serde_json::from_slice(raw).ok()?;
    let text = v.get("log")?.as_str()?;
    let whole = text.strip_suffix('\n');
    let time = v.get("time").and_then(|t| t.as_str()).unwrap_or_default().to_owned();
    let bytes = whole.unwrap_or(text).as_bytes().to_vec();
    let of = v.get("stream").and_then(|s| s.as_str()).and_then(|s| stream(s.as_bytes())).unwrap_or(Stream::Stdout);
    Some(Line { time: time.into(), stream: of, partial: whole.is_none(), text: bytes.into() })
}

/// The time with nine digits of a second, so that prefixes line up.
fn fixed(time: &str) -> String {
    let Some((head, rest)) = time.split_once('.') else {
        let zone = time.find(['Z', '+']).or_else(|| time.rfind('-').filter(|i| *i > 10)).unwrap_or(time.len());
        return format!("{}.000000000{}", &time[..zone], &time[zone..]);
    };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    format!("{head}.{:0<9}{}", &rest[..digits.min(9)], &rest[digits..])
}

/// What of a log is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Nothing from before this.
    pub since: Option<Wall>,
    /// Each line with its time in front.
    pub timestamps: bool,
    /// Bytes of output at most.
    pub limit: Option<u64>,
    /// Of this stream alone.
    pub stream: Option<Stream>,
}

/// Turns lines of log files into output, file after file.
#[derive(Debug)]
pub struct Printer {
    options: Options,
    left: Option<u64>,
    mid_line: bool,
}

impl Printer {
    pub fn new(options: Options) -> Printer {
        Printer { options, left: options.limit, mid_line: false }
    }

    /// Adds what `raw` (a line without its end) comes to. A line that no runtime writes is left out.
    pub fn add(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        let Some(line) = parse(raw) else { return };
        if self.options.stream.is_some_and(|s| s != line.stream) {
            return;
        }
        if self.options.since.is_some_and(|since| Wall::parse_rfc3339(&line.time).is_some_and(|t| t < since)) {
            return;
        }
        let before = out.len();
        if self.options.timestamps && !self.mid_line {
            out.extend_from_slice(fixed(&line.time).as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(&line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.mid_line = line.partial;
        if let Some(left) = &mut self.left {
            let keep = usize::try_from(*left).unwrap_or(usize::MAX).min(out.len() - before);
            out.truncate(before + keep);
            *left -= keep as u64;
        }
    }

    /// The limit is reached: nothing more will come out.
    pub fn is_full(&self) -> bool {
        self.left == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOG: &[&str] = &[
        "2026-11-20T10:00:00.5Z stdout F first",
        "2026-11-20T10:00:01.123456789Z stdout P sec",
        "2026-11-20T10:00:02Z stdout P on",
        "2026-11-20T10:00:03.000000001+01:00 stdout F d",
        "2026-11-20T10:00:04Z stderr F:tag two  spaces ",
        "2026-11-20T10:00:05Z stdout F ",
        "what is this",
    ];

    fn print(options: Options, log: &[&str]) -> String {
        let (mut p, mut out) = (Printer::new(options), Vec::new());
        log.iter().for_each(|l| p.add(l.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn parts_of_a_line_are_joined_and_foreign_lines_left_out() {
        assert_eq!(print(Options::default(), LOG), "first\nsecond\ntwo  spaces \n\n");
    }

    #[test]
    fn times_stand_once_before_each_line_with_nine_digits() {
        let text = print(Options { timestamps: true, ..Options::default() }, &LOG[..5]);
        let want = "2026-11-20T10:00:00.500000000Z first\n2026-11-20T10:00:01.123456789Z second\n\
            2026-11-20T10:00:04.000000000Z two  spaces \n";
        assert_eq!(text, want);
        assert_eq!(fixed("2026-11-20T10:00:03-05:00"), "2026-11-20T10:00:03.000000000-05:00");
        assert_eq!(fixed("2026-11-20T10:00:03.25+05:00"), "2026-11-20T10:00:03.250000000+05:00");
    }

    #[test]
    fn older_lines_than_wanted_are_left_out() {
        let since = Wall::parse_rfc3339("2026-11-20T10:00:04Z");
        assert_eq!(print(Options { since, ..Options::default() }, LOG), "two  spaces \n\n");
    }

    #[test]
    fn one_stream_can_be_had_without_the_other() {
        let only = |stream| print(Options { stream: Some(stream), ..Options::default() }, LOG);
        assert_eq!((only(Stream::Stderr).as_str(), only(Stream::Stdout).as_str()), ("two  spaces \n", "first\nsecond\n\n"));
    }

    #[test]
    fn the_limit_cuts_within_a_line() {
        assert_eq!(print(Options { limit: Some(8), ..Options::default() }, LOG), "first\nse");
    }

    #[test]
    fn docker_lines_are_understood() {
        let log = [r#"{"log":"a\n","stream":"stdout","time":"2026-11-20T10:00:00Z"}"#, r#"{"log":"b","stream":"stderr","time":"x"}"#];
        assert_eq!(print(Options::default(), &log), "a\nb");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(raw in proptest::collection::vec(any::<u8>(), 0..60), limit in proptest::option::of(0u64..20)) {
            let mut p = Printer::new(Options { timestamps: true, since: Some(Wall(1)), limit, stream: None });
            let mut out = Vec::new();
            p.add(&raw, &mut out);
            prop_assert!(limit.is_none_or(|l| out.len() as u64 <= l));
        }
    }
}
