#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Addresses as Go's `net/url` reads, resolves and writes them: a kubelet's probes follow its rules, and
//! events show its spelling. Only what a probe can meet: no user information, no opaque addresses.
//! Must never look anything up. Tests: in this file.

use std::fmt;

/// An absolute address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub scheme: String,
    /// Host and, where one was given, port; IPv6 in brackets.
    pub authority: String,
    /// Escaped; empty or with a leading slash.
    path: String,
    query: Option<String>,
    fragment: String,
}

/// What a reference may leave out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reference {
    scheme: String,
    authority: Option<String>,
    path: String,
    query: Option<String>,
    fragment: String,
}

impl Url {
    /// The address of a probe: `path` with its query as the pod has it. A path that is no reference is
    /// taken as it stands, every odd byte escaped.
    pub fn of_probe(https: bool, host: &str, port: u16, path: &str) -> Url {
        let scheme = if https { "https" } else { "http" }.to_owned();
        let authority = join(host, port);
        let r = parse(path).unwrap_or_else(|_| Reference { path: escape(path.as_bytes()), ..Reference::default() });
        Url { scheme, authority, path: rooted(r.path), query: r.query, fragment: r.fragment }
    }

    /// Where a `Location` leads from here.
    pub fn join(&self, location: &str) -> Result<Url, &'static str> {
        let r = parse(location)?;
        if !r.scheme.is_empty() || r.authority.is_some() {
            let scheme = if r.scheme.is_empty() { self.scheme.clone() } else { r.scheme };
            let path = if r.path.is_empty() { r.path } else { resolve("", &r.path) };
            return Ok(Url { scheme, authority: r.authority.unwrap_or_default(), path, query: r.query, fragment: r.fragment });
        }
        let mut to = Url { query: r.query, fragment: r.fragment, ..self.clone() };
        if !r.path.is_empty() {
            to.path = resolve(&self.path, &r.path);
        } else if to.query.is_none() {
            to.query.clone_from(&self.query);
            if to.fragment.is_empty() {
                to.fragment.clone_from(&self.fragment);
            }
        }
        Ok(to)
    }

    /// The host without port and brackets.
    pub fn host(&self) -> &str {
        split(&self.authority).0
    }

    /// The port, the scheme's own where none was given.
    pub fn port(&self) -> Option<u16> {
        match split(&self.authority).1 {
            None | Some("") => Some(if self.scheme == "https" { 443 } else { 80 }),
            Some(port) => port.parse().ok(),
        }
    }

    /// What a request asks for: path and query, fit for a request line.
    pub fn target(&self) -> String {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        let mut out = String::with_capacity(path.len() + self.query.as_ref().map_or(0, |q| q.len() + 1));
        out.push_str(path);
        if let Some(q) = &self.query {
            out.push('?');
            for b in q.bytes() {
                // Go sends a query as it stands; what would break the request line cannot go on it.
                if b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'`' | b'#') {
                    out.push(b.into())
                } else {
                    percent(&mut out, b)
                }
            }
        }
        out
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)?;
        if let Some(q) = &self.query {
            write!(f, "?{q}")?;
        }
        if !self.fragment.is_empty() {
            write!(f, "#{}", self.fragment)?;
        }
        Ok(())
    }
}

/// `host:port`, with brackets where the host is IPv6.
pub(super) fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn split(authority: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port)))
}

fn rooted(path: String) -> String {
    if path.is_empty() || path.starts_with('/') { path } else { format!("/{path}") }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    if text.bytes().any(|b| b.is_ascii_control()) {
        return Err("net/url: invalid control character in URL");
    }
    unescape(fragment)?;
    let (scheme, rest) = scheme(text)?;
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(r, q)| (r, Some(q.to_owned())));
    let (authority, path) = match rest.strip_prefix("//") {
        Some(r) if !scheme.is_empty() || !rest.starts_with("///") => {
            let (authority, path) = r.find('/').map_or((r, ""), |i| r.split_at(i));
            (Some(host_part(authority)?), path)
        }
        _ => (None, rest),
    };
    if authority.is_none() && !path.starts_with('/') {
        let first = path.split('/').next().unwrap_or_default();
        if !scheme.is_empty() && !path.is_empty() {
            return Err("no Host in request URL");
        }
        if first.contains(':') {
            return Err("first path segment in URL cannot contain colon");
        }
    }
    let path = normal(path)?;
    Ok(Reference { scheme: scheme.to_ascii_lowercase(), authority, path, query, fragment: fragment.to_owned() })
}

fn scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if i > 0 => {}
            b':' if i == 0 => return Err("missing protocol scheme"),
            b':' => return Ok((&text[..i], &text[i + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn host_part(authority: &str) -> Result<String, &'static str> {
    let host = authority.rsplit_once('@').map_or(authority, |(_, h)| h);
    if host.bytes().any(|b| b == b' ' || matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')) {
        return Err("invalid character in host name");
    }
    match split(host).1 {
        Some(port) if !port.bytes().all(|b| b.is_ascii_digit()) => Err("invalid port after host"),
        _ => Ok(host.to_owned()),
    }
}

/// A path in its escaped spelling: as written where that is valid, else escaped anew.
fn normal(path: &str) -> Result<String, &'static str> {
    let plain = unescape(path)?;
    let valid = |b: u8| !odd(b) || matches!(b, b'%' | b'!' | b'\'' | b'(' | b')' | b'*' | b'[' | b']');
    Ok(if path.bytes().all(valid) { path.to_owned() } else { escape(&plain) })
}

fn unescape(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err("invalid URL escape") };
        out.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits are a byte"));
    }
    Ok(out)
}

/// Whether a path cannot hold this byte as it is.
fn odd(b: u8) -> bool {
    !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@'))
}

fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &b in bytes {
        if odd(b) { percent(&mut out, b) } else { out.push(b.into()) }
    }
    out
}

fn percent(out: &mut String, b: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(DIGITS[usize::from(b >> 4)].into());
    out.push(DIGITS[usize::from(b & 15)].into());
}

/// RFC 3986, 5.2.3 and 5.2.4: merges two paths and takes dots out.
fn resolve(base: &str, to: &str) -> String {
    let dir = if to.starts_with('/') { "" } else { &base[..base.rfind('/').map_or(0, |i| i + 1)] };
    let whole = format!("{dir}{to}");
    let mut out: Vec<&str> = Vec::new();
    let segments: Vec<&str> = whole.trim_start_matches('/').split('/').collect();
    let last = segments.len() - 1;
    for (i, s) in segments.into_iter().enumerate() {
        match s {
            "." => {}
            ".." => {
                out.pop();
            }
            s => {
                out.push(s);
                continue;
            }
        }
        if i == last {
            out.push("");
        }
    }
    format!("/{}", out.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(path: &str) -> String {
        Url::of_probe(false, "10.1.2.3", 80, path).to_string()
    }

    #[test]
    fn a_path_is_spelled_as_go_would() {
        for (path, want) in [
            ("/healthz", "/healthz"),
            ("healthz", "/healthz"),
            ("", ""),
            ("/a b", "/a%20b"),
            ("/a%20b", "/a%20b"),
            ("/a%2Fb(c)", "/a%2Fb(c)"),
            ("/ü", "/%C3%BC"),
            ("/x?a=b&c=%zz", "/x?a=b&c=%zz"),
            ("/x?y#z", "/x?y#z"),
            ("//other/x", "/x"),
            ("http://other/x", "/x"),
        ] {
            assert_eq!(shown(path), format!("http://10.1.2.3:80{want}"), "{path}");
        }
    }

    #[test]
    fn a_bad_path_goes_out_as_it_stands() {
        assert_eq!(shown("/%zz?a"), "http://10.1.2.3:80/%25zz%3Fa");
        assert_eq!(shown("/a\nb"), "http://10.1.2.3:80/a%0Ab");
        assert_eq!(shown("a:b/c"), "http://10.1.2.3:80/a:b/c");
        assert_eq!(Url::of_probe(false, "h", 1, "/%zz?a").target(), "/%25zz%3Fa");
    }

    #[test]
    fn a_request_asks_for_path_and_query_alone() {
        let target = |p| Url::of_probe(true, "fd00::1", 8443, p).target();
        assert_eq!([target(""), target("/x?a b#c"), target("?q")], ["/", "/x?a%20b", "/?q"]);
    }

    #[test]
    fn ipv6_hosts_stand_in_brackets() {
        let u = Url::of_probe(true, "fd00::1", 8443, "/");
        assert_eq!((u.to_string().as_str(), u.host(), u.port()), ("https://[fd00::1]:8443/", "fd00::1", Some(8443)));
    }

    #[test]
    fn locations_resolve_against_the_address_asked() {
        let base = Url::of_probe(false, "h", 8080, "/a/b?q#f");
        for (location, want) in [
            ("/x", "http://h:8080/x"),
            ("x", "http://h:8080/a/x"),
            ("../x", "http://h:8080/x"),
            ("../../../x/.", "http://h:8080/x/"),
            ("?n", "http://h:8080/a/b?n"),
            ("", "http://h:8080/a/b?q#f"),
            ("#g", "http://h:8080/a/b?q#g"),
            ("https://h/y", "https://h/y"),
            ("http://o", "http://o"),
            ("//o:1/y", "http://o:1/y"),
            ("///y", "http://h:8080/y"),
        ] {
            assert_eq!(base.join(location).map(|u| u.to_string()).as_deref(), Ok(want), "{location}");
        }
        for bad in ["http://a b/", "http://h:x/", "/%z", ":x"] {
            assert!(base.join(bad).is_err(), "{bad}");
        }
        assert_eq!(base.join("https://h/y").map(|u| (u.port(), u.host().to_owned())), Ok((Some(443), "h".into())));
    }

    proptest! {
        #[test]
        fn whatever_the_path_the_target_fits_a_request_line(path in ".{0,40}") {
            let u = Url::of_probe(false, "h", 80, &path);
            let target = u.target();
            prop_assert!(target.starts_with('/'), "{target}");
            prop_assert!(target.bytes().all(|b| b.is_ascii_graphic()), "{target}");
            prop_assert!(target.parse::<hyper::http::uri::PathAndQuery>().is_ok(), "{target}");
        }

        #[test]
        fn whatever_the_location_resolving_ends(location in ".{0,40}") {
            let base = Url::of_probe(false, "h", 80, "/a/b");
            if let Ok(to) = base.join(&location) {
                prop_assert!(to.target().starts_with('/'));
            }
        }
    }
}
