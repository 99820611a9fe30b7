//! What a client wants of a log, from the query of its request: the API's and the node's port ask alike.

use super::Options;
use super::line::Stream;
use crate::api::{Failure, Query};
use crate::time::Wall;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub follow: bool,
    /// The run before.
    pub previous: bool,
    /// Lines from the end.
    pub tail: Option<u64>,
    pub options: Options,
}

impl Wish {
    /// As `PodLogOptions` are encoded. `tail` is an old name of `tailLines`; `all` is as good as none.
    pub fn parse(query: &Query, now: Wall) -> Result<Wish, Failure> {
        let seconds = query.number("sinceSeconds")?;
        let time = query.get("sinceTime").map(|t| {
            Wall::parse_rfc3339(t).ok_or_else(|| Failure::bad_request(format!("parameter sinceTime: {t:?} is not an RFC 3339 time")))
        });
        let since = match (seconds, time.transpose()?) {
            (Some(_), Some(_)) => return Err(Failure::bad_request("at most one of sinceSeconds and sinceTime may be given")),
            (Some(s), None) => Some(Wall(now.0.saturating_sub(i64::try_from(s).unwrap_or(i64::MAX).saturating_mul(Wall::SECOND)))),
            (None, time) => time,
        };
        let tail = match query.get("tail") {
            Some("all") => None,
            Some(_) => query.number("tail")?,
            None => query.number("tailLines")?,
        };
        let stream = match query.get("stream") {
            None | Some("All") => None,
            Some("Stdout") => Some(Stream::Stdout),
            Some("Stderr") => Some(Stream::Stderr),
            Some(other) => {
                let message = format!("stream: Unsupported value: {other:?}: supported values: \"All\", \"Stderr\", \"Stdout\"");
                return Err(Failure::bad_request(message));
            }
        };
        if tail.is_some() && stream.is_some() {
            return Err(Failure::bad_request("stream: Forbidden: `tailLines` and specific `stream` are mutually exclusive for now"));
        }
        let limit = query.number("limitBytes")?;
        if limit == Some(0) && query.get("limitBytes").is_some() {
            return Err(Failure::bad_request("limitBytes: Invalid value: 0: must be greater than 0"));
        }
        let options = Options { since, timestamps: query.flag("timestamps")?, limit, stream };
        Ok(Wish { follow: query.flag("follow")?, previous: query.flag("previous")?, tail, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Wish, String> {
        Wish::parse(&Query::parse(text), Wall::from_seconds(100)).map_err(|f| f.message)
    }

    #[test]
    fn every_option_is_read() {
        let wish = parse("follow=true&previous=1&tailLines=5&sinceSeconds=40&timestamps=true&limitBytes=9").unwrap();
        let options = Options { since: Some(Wall::from_seconds(60)), timestamps: true, limit: Some(9), stream: None };
        assert_eq!(wish, Wish { follow: true, previous: true, tail: Some(5), options });
        assert_eq!(parse("tail=all&tailLines=3").unwrap().tail, None);
        assert_eq!(parse("tail=2").unwrap().tail, Some(2));
        assert_eq!(parse("sinceTime=1970-01-01T00:00:09Z").unwrap().options.since, Some(Wall::from_seconds(9)));
        assert_eq!(parse("stream=Stderr").unwrap().options.stream, Some(Stream::Stderr));
        assert_eq!(parse("stream=All&tailLines=1").unwrap().options.stream, None);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (query, want) in [
            ("sinceSeconds=1&sinceTime=1970-01-01T00:00:09Z", "at most one of"),
            ("stream=Stdin", "Unsupported value"),
            ("stream=Stdout&tailLines=1", "mutually exclusive"),
            ("limitBytes=0", "must be greater than 0"),
            ("tailLines=-1", "tailLines"),
            ("sinceTime=yesterday", "RFC 3339"),
            ("follow=maybe", "follow"),
        ] {
            assert!(parse(query).unwrap_err().contains(want), "{query}");
        }
    }
}
