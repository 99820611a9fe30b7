#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The headers of a check's request, by the rules of a kubelet and of Go's client. Must never do I/O.
//! Tests: in this file, and on the wire in `tests/http.rs`.

use super::http::Agent;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// Headers in the order in which they are sent, and the host to ask for.
#[derive(Clone, Debug)]
pub(super) struct Headers {
    pub host: Option<String>,
    pub map: HeaderMap,
    pub referer_given: bool,
}

impl Headers {
    /// `given` in order, a name may occur more than once.
    pub fn new(given: &[(String, String)], agent: Agent) -> Result<Headers, String> {
        let first = |name: &str| given.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim());
        let mut map = HeaderMap::with_capacity(given.len() + 4);
        match first("User-Agent") {
            None => drop(map.insert("user-agent", HeaderValue::from_static(agent.name()))),
            Some("") => {}
            Some(v) => drop(map.insert("user-agent", value("User-Agent", v)?)),
        }
        let accept = first("Accept");
        if accept.is_none() {
            map.insert("accept", HeaderValue::from_static("*/*"));
        }
        for (name, v) in given {
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("net/http: invalid header field name {name:?}"))?;
            match key.as_str() {
                // Go writes these by itself.
                "host" | "user-agent" | "content-length" | "transfer-encoding" | "trailer" => {}
                // The first value decides: empty, and no Accept is sent at all.
                "accept" if accept == Some("") => {}
                _ => drop(map.append(key, value(name, v)?)),
            }
        }
        Ok(Headers { host: first("Host").filter(|h| !h.is_empty()).map(str::to_owned), referer_given: map.contains_key("referer"), map })
    }
}

fn value(name: &str, v: &str) -> Result<HeaderValue, String> {
    // Go writes line ends as blanks.
    let v = v.replace(['\r', '\n'], " ");
    HeaderValue::from_bytes(v.trim().as_bytes()).map_err(|_| format!("net/http: invalid header field value for {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(given: &[(&str, &str)]) -> (Option<String>, Vec<String>) {
        let given: Vec<_> = given.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let h = Headers::new(&given, Agent::Probe).unwrap();
        (h.host, h.map.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect())
    }

    #[test]
    fn a_probe_tells_who_it_is_and_accepts_anything() {
        assert_eq!(sent(&[]), (None, vec!["user-agent: kube-probe/1.36".into(), "accept: */*".into()]));
    }

    #[test]
    fn given_headers_replace_the_defaults() {
        let (_, all) = sent(&[("user-agent", "me"), ("User-Agent", "not me"), ("Accept", "text/plain"), ("accept", "a/b")]);
        assert_eq!(all, ["user-agent: me", "accept: text/plain", "accept: a/b"]);
        assert_eq!(sent(&[("User-Agent", "")]).1, ["accept: */*"]);
    }

    #[test]
    fn an_empty_accept_takes_the_header_away() {
        assert_eq!(sent(&[("accept", ""), ("Accept", "a/b")]).1, ["user-agent: kube-probe/1.36"]);
    }

    #[test]
    fn host_is_not_a_header_but_whom_to_ask_for() {
        let (host, all) = sent(&[("Host", "example.com"), ("host", "other")]);
        assert_eq!((host.as_deref(), all.len()), (Some("example.com"), 2));
        assert_eq!(sent(&[("Host", "")]).0, None);
    }

    #[test]
    fn values_of_one_name_are_all_sent_in_order() {
        let (_, all) = sent(&[("X-A", "1"), ("X-B", " b "), ("x-a", "2")]);
        assert_eq!(all[2..], ["x-a: 1", "x-a: 2", "x-b: b"]);
    }

    #[test]
    fn what_cannot_be_a_header_is_refused_by_name() {
        let refused = |n: &str, v: &str| Headers::new(&[(n.into(), v.into())], Agent::Probe).unwrap_err();
        assert_eq!(refused("a b", ""), "net/http: invalid header field name \"a b\"");
        assert_eq!(refused("X", "a\0"), "net/http: invalid header field value for \"X\"");
    }
}
