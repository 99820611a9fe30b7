//! The query for logs of the node: what is asked for, whether it may be, and the journal's command line for it.
//!
//! Must never run anything. No shell sees any of this: each parameter is one argument that says its own option, or it
//! is refused.

use crate::api::{Failure, Query};
use crate::time::Wall;

/// Letters of a service, a file name or a pattern at most.
const LONGEST: usize = 256;
/// Services asked for at once.
const MOST: usize = 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLogQuery {
    pub services: Vec<String>,
    /// Below `/var/log`.
    pub file: Option<String>,
    pub since: Option<Wall>,
    pub until: Option<Wall>,
    pub tail: Option<u64>,
    pub pattern: Option<String>,
    /// 0 is this boot, -1 the one before.
    pub boot: Option<i64>,
}

impl NodeLogQuery {
    /// None: nothing is queried, and `/logs/` is a directory.
    pub fn parse(query: &Query) -> Result<Option<NodeLogQuery>, Failure> {
        const PARAMETERS: [&str; 6] = ["query", "sinceTime", "untilTime", "tailLines", "pattern", "boot"];
        if PARAMETERS.iter().all(|p| query.all(p).is_empty()) {
            return Ok(None);
        }
        let wanted = query.all("query");
        let (files, services): (Vec<String>, Vec<String>) =
            wanted.into_iter().filter(|q| !q.trim().is_empty()).partition(|q| q.contains(['/', '\\']));
        let time = |name: &str| {
            let wrong = |t: &str| Failure::bad_request(format!("parameter {name}: {t:?} is not an RFC 3339 time"));
            query.get(name).map(|t| Wall::parse_rfc3339(t).ok_or_else(|| wrong(t))).transpose()
        };
        let boot =
            query.get("boot").map(|b| b.parse::<i64>().map_err(|_| Failure::bad_request(format!("parameter boot: {b:?} is no number"))));
        let asked = NodeLogQuery {
            services,
            file: files.first().cloned(),
            since: time("sinceTime")?,
            until: time("untilTime")?,
            tail: query.number("tailLines")?,
            pattern: query.get("pattern").map(str::to_owned),
            boot: boot.transpose()?,
        };
        asked.check(files.len()).map(|()| Some(asked))
    }

    fn check(&self, files: usize) -> Result<(), Failure> {
        let filters = self.since.is_some() || self.until.is_some() || self.tail.is_some() || self.pattern.is_some() || self.boot.is_some();
        let refuse = |message: String| Err(Failure::bad_request(message));
        match () {
            () if self.services.is_empty() && files == 0 => refuse("query: Required value: name a service or a file: query=kubelet".into()),
            () if files > 1 || (files == 1 && !self.services.is_empty()) => refuse("query: Invalid value: one file, or services".into()),
            () if files == 1 && filters => refuse("query: Forbidden: a file cannot be combined with options".into()),
            () if self.services.len() > MOST => refuse(format!("query: Too many: {MOST} services at most")),
            () if self.boot.is_some_and(|b| b > 0) => refuse("boot: Invalid value: must be 0 or less".into()),
            () if self.since.zip(self.until).is_some_and(|(s, u)| s > u) => {
                refuse("untilTime: Invalid value: must be after `sinceTime`".into())
            }
            () if self.pattern.as_ref().is_some_and(|p| p.len() > LONGEST || p.contains(['\n', '\0'])) => {
                refuse(format!("pattern: Invalid value: one line of {LONGEST} letters at most"))
            }
            () => match self.services.iter().find(|s| !is_service(s)) {
                Some(s) => refuse(format!("query: Invalid value: {s:?}: letters, digits and any of - _ . @ : make a service's name")),
                None => Ok(()),
            },
        }
    }

    /// Arguments of journalctl for these services.
    pub fn arguments(&self) -> Vec<String> {
        let mut out: Vec<String> = ["--utc", "--no-pager", "--output=short-precise"].map(str::to_owned).to_vec();
        out.extend(self.since.map(|t| format!("--since={}", journal_time(t))));
        out.extend(self.until.map(|t| format!("--until={}", journal_time(t))));
        out.extend(self.tail.map(|n| format!("--lines={n}")));
        out.extend(self.services.iter().map(|s| format!("--unit={s}")));
        out.extend(self.pattern.iter().flat_map(|p| [format!("--grep={p}"), "--case-sensitive=false".into()]));
        out.extend(self.boot.map(|b| format!("--boot={b}")));
        out
    }
}

fn is_service(name: &str) -> bool {
    let first = name.chars().next();
    name.len() <= LONGEST
        && first.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@:".contains(c))
}

/// In UTC, as the journal reads it.
fn journal_time(at: Wall) -> String {
    at.rfc3339().trim_end_matches('Z').replace('T', " ") + " UTC"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<NodeLogQuery>, String> {
        NodeLogQuery::parse(&Query::parse(text)).map_err(|f| f.message)
    }

    #[test]
    fn a_query_becomes_one_argument_each() {
        let q = parse("query=kubelet&query=containerd.service&sinceTime=2026-11-20T10:00:00Z&tailLines=5&pattern=Error+x&boot=-1")
            .unwrap()
            .unwrap();
        assert_eq!(
            q.arguments(),
            [
                "--utc",
                "--no-pager",
                "--output=short-precise",
                "--since=2026-11-20 10:00:00 UTC",
                "--lines=5",
                "--unit=kubelet",
                "--unit=containerd.service",
                "--grep=Error x",
                "--case-sensitive=false",
                "--boot=-1"
            ]
        );
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse("query=apt/history.log").unwrap().unwrap().file.as_deref(), Some("apt/history.log"));
    }

    #[test]
    fn log_queries_that_could_be_more_than_a_name_are_refused() {
        for service in ["--root", "a%20b", "a;id", "$(id)", "a%0Ab", "`id`", "a%27", "*", "-u"] {
            assert!(parse(&format!("query={service}")).unwrap_err().contains("a service's name"), "{service}");
        }
        assert!(parse(&format!("query={}", "a".repeat(300))).is_err());
        assert!(parse("query=a&pattern=a%0Ab").unwrap_err().contains("one line"));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (query, want) in [
            ("query=+", "Required value"),
            ("tailLines=5", "Required value"),
            ("query=a/b&query=c/d", "one file, or services"),
            ("query=a/b&query=c", "one file, or services"),
            ("query=a/b&tailLines=1", "cannot be combined"),
            ("query=a&boot=1", "0 or less"),
            ("query=a&boot=x", "is no number"),
            ("query=a&sinceTime=2026-11-20T10:00:00Z&untilTime=2026-11-19T10:00:00Z", "must be after"),
            ("query=a&sinceTime=now", "RFC 3339"),
        ] {
            assert!(parse(query).unwrap_err().contains(want), "{query}: {:?}", parse(query));
        }
    }
}
