//! Query strings and escaped path segments.

use super::Failure;
use std::fmt::Write as _;

/// Parameters of a request, in order; a name may stand more than once (`command=`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, "")));
        Query(pairs.map(|(k, v)| (decode(k, true), decode(v, true))).collect())
    }

    pub fn push(&mut self, name: &str, value: impl ToString) {
        self.0.push((name.into(), value.to_string()));
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(k, _)| k == name).map(|(_, v)| v.clone()).collect()
    }

    /// `true`, `1`, or a parameter without a value; anything that Go's ParseBool refuses is an error.
    pub fn flag(&self, name: &str) -> Result<bool, Failure> {
        let Some((_, v)) = self.0.iter().find(|(k, _)| k == name) else { return Ok(false) };
        match v.as_str() {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            other => Err(Failure::bad_request(format!("parameter {name}: {other:?} is neither true nor false"))),
        }
    }

    /// A number that may not be negative.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(v) = self.get(name) else { return Ok(None) };
        v.parse().map(Some).map_err(|_| Failure::bad_request(format!("parameter {name}: {v:?} is not a whole number of 0 or more")))
    }

    /// With `?` in front, or empty.
    pub fn suffix(&self) -> String {
        let mut out = String::new();
        for (k, v) in &self.0 {
            let sign = if out.is_empty() { '?' } else { '&' };
            let _ = write!(out, "{sign}{}={}", encode(k), encode(v));
        }
        out
    }
}

/// Escapes everything but unreserved characters.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
    out
}

/// Undoes escapes; a lone percent sign stands for itself.
pub fn decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let escaped = (bytes[i] == b'%').then(|| text.get(i + 1..i + 3)).flatten().and_then(|h| u8::from_str_radix(h, 16).ok());
        match escaped {
            Some(b) => {
                out.push(b);
                i += 3;
                continue;
            }
            None if bytes[i] == b'+' && plus_is_space => out.push(b' '),
            None => out.push(bytes[i]),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_query_is_read_as_go_reads_it() {
        let q = Query::parse("command=sh&command=-c&command=echo+a%26b&stdin=1&tty=false&tailLines=10&follow");
        assert_eq!(q.all("command"), ["sh", "-c", "echo a&b"]);
        assert_eq!((q.flag("stdin"), q.flag("tty"), q.flag("follow"), q.flag("stdout")), (Ok(true), Ok(false), Ok(true), Ok(false)));
        assert_eq!(q.number("tailLines"), Ok(Some(10)));
        assert_eq!(Query::parse("tailLines=-1").number("tailLines").unwrap_err().code, 400);
        assert_eq!(Query::parse("follow=maybe").flag("follow").unwrap_err().code, 400);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(pairs in proptest::collection::vec(("[a-z]{1,5}", ".*"), 0..5)) {
            let mut q = Query::default();
            for (k, v) in &pairs {
                q.push(k, v);
            }
            prop_assert_eq!(Query::parse(q.suffix().trim_start_matches('?')), q);
        }
    }
}
