//! The grammars of names, labels and ports, with the messages of `k8s.io/apimachinery/pkg/util/validation`.

pub const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
pub const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
pub const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
pub const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

pub type Messages = Vec<String>;

fn longer(text: &str, most: usize) -> Option<String> {
    (text.len() > most).then(|| format!("must be no more than {most} bytes"))
}

fn judge(text: &str, most: usize, good: bool, message: &str) -> Messages {
    longer(text, most).into_iter().chain((!good).then(|| message.to_owned())).collect()
}

/// Alphanumeric at both ends, and only these bytes within.
fn framed(text: &str, within: impl Fn(u8) -> bool, edge: impl Fn(u8) -> bool) -> bool {
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().last()) else { return false };
    edge(first) && edge(last) && text.bytes().all(within)
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    framed(text, |b| lower(b) || b == b'-', lower)
}

pub fn label(text: &str) -> Messages {
    judge(text, 63, is_label(text), LABEL)
}

pub fn label_1035(text: &str) -> Messages {
    judge(text, 63, is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase()), LABEL_1035)
}

/// What can stand between two slashes of a path, whatever it is.
pub fn path_segment(text: &str) -> Messages {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].iter().filter(|c| text.contains(*c)).map(|c| format!("may not contain '{c}'")).collect()
}

pub fn subdomain(text: &str) -> Messages {
    judge(text, 253, text.split('.').all(is_label), SUBDOMAIN)
}

/// `[prefix/]name`, as keys of labels and annotations are.
pub fn qualified(text: &str) -> Messages {
    let mut out = Messages::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, rest)) if rest.contains('/') => {
            return vec![format!("a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".into());
            } else {
                out.extend(subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            }
            name
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".into());
    } else if let Some(m) = longer(name, 63) {
        out.push(format!("name part {m}"));
    }
    if !is_free(name) {
        out.push(format!("name part {QUALIFIED}"));
    }
    out
}

fn is_free(text: &str) -> bool {
    framed(text, |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'), |b| b.is_ascii_alphanumeric())
}

pub fn label_value(text: &str) -> Messages {
    judge(text, 63, text.is_empty() || is_free(text), LABEL_VALUE)
}

/// Names of container ports.
pub fn port_name(text: &str) -> Messages {
    let mut out = Messages::new();
    out.extend((text.len() > 15).then(|| "must be no more than 15 characters".to_owned()));
    let mut say = |bad: bool, m: &str| out.extend(bad.then(|| m.to_owned()));
    say(
        !text.bytes().all(|b| lower(b) || b == b'-') || text.is_empty(),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    say(!text.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)");
    say(text.contains("--"), "must not contain consecutive hyphens");
    say(text.starts_with('-') || text.ends_with('-'), "must not begin or end with a hyphen");
    out
}

pub fn config_key(text: &str) -> Messages {
    let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let mut out = judge(text, 253, good, CONFIG_KEY);
    match text {
        "." => out.push("must not be '.'".into()),
        ".." => out.push("must not be '..'".into()),
        t if t.starts_with("..") => out.push("must not start with '..'".into()),
        _ => {}
    }
    out
}

/// Names of environment variables, in the relaxed form that is general since 1.34.
pub fn env_name(text: &str) -> Messages {
    let good = !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=');
    let message = "a valid environment variable name must consist only of printable ASCII characters other than '='";
    if good { Messages::new() } else { vec![message.to_owned()] }
}

/// Names of kernel parameters, with dots or slashes.
pub fn is_sysctl(text: &str) -> bool {
    let part = |p: &str| framed(p, |b| lower(b) || matches!(b, b'-' | b'_'), lower);
    !text.is_empty() && text.len() <= 253 && text.split(['.', '/']).all(part)
}

/// An IP address as the API takes it: no leading zeros, no zone.
pub fn ip(text: &str) -> Option<std::net::IpAddr> {
    text.parse().ok()
}

pub fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match ip(address) {
        Some(a) if a.is_ipv4() => 32,
        Some(_) => 128,
        None => return false,
    };
    !bits.starts_with('+') && bits.parse::<u8>().is_ok_and(|n| n <= most)
}

/// A relative path without `..`: paths of items, sub-paths.
pub fn local_path(text: &str) -> Option<&'static str> {
    if text.starts_with('/') {
        Some("must be a relative path")
    } else if text.split('/').any(|part| part == "..") {
        Some("must not contain '..'")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_the_api_judges_them() {
        let good = |m: Messages| m.is_empty();
        assert_eq!((path_segment("node-csr-A_b"), path_segment("..")), (vec![], vec!["may not be '..'".to_owned()]));
        assert_eq!(path_segment("a/%"), ["may not contain '/'", "may not contain '%'"]);
        for (text, label_ok, subdomain_ok, l1035) in [
            ("web", true, true, true),
            ("0web", true, true, false),
            ("web.example", false, true, false),
            ("Web", false, false, false),
            ("-web", false, false, false),
            ("web-", false, false, false),
            ("", false, false, false),
            ("a..b", false, false, false),
            ("wéb", false, false, false),
        ] {
            assert_eq!((good(label(text)), good(subdomain(text)), good(label_1035(text))), (label_ok, subdomain_ok, l1035), "{text}");
        }
        assert_eq!(label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
    }

    #[test]
    fn keys_of_labels_have_an_optional_prefix() {
        for good in ["app", "app.kubernetes.io/name", "A_b.C", "x/y"] {
            assert!(qualified(good).is_empty(), "{good}");
        }
        for (bad, start) in [
            ("/x", "prefix part must be non-empty"),
            ("x/", "name part must be non-empty"),
            ("a/b/c", "a qualified name must consist"),
            ("a b", "name part must consist"),
            ("X.y/z", "prefix part a lowercase RFC 1123 subdomain"),
        ] {
            assert!(qualified(bad)[0].starts_with(start), "{bad}: {:?}", qualified(bad));
        }
        assert!(label_value("").is_empty() && label_value("v1.2_3").is_empty());
        assert!(!label_value("a b").is_empty() && !label_value("-a").is_empty());
    }

    #[test]
    fn port_names_keys_and_variables() {
        assert!(port_name("http-2").is_empty());
        assert_eq!(port_name("80"), ["must contain at least one letter (a-z)"]);
        assert_eq!(port_name("a--b"), ["must not contain consecutive hyphens"]);
        assert_eq!(port_name("this-is-too-long"), ["must be no more than 15 characters"]);
        assert!(config_key("app.conf").is_empty() && config_key(".hidden").is_empty());
        assert_eq!(config_key("..x"), ["must not start with '..'"]);
        assert!(!config_key("a/b").is_empty());
        assert!(env_name("my.var-1 x").is_empty());
        assert!(!env_name("a=b").is_empty() && !env_name("").is_empty());
        assert!(is_sysctl("net.ipv4.tcp_syncookies") && is_sysctl("net/ipv4/conf") && !is_sysctl("net..x") && !is_sysctl("Net.x"));
    }

    #[test]
    fn paths_stay_below_their_root() {
        assert_eq!(local_path("/etc"), Some("must be a relative path"));
        assert_eq!(local_path("a/../b"), Some("must not contain '..'"));
        assert_eq!(local_path("a/..b/c..d"), None);
        assert!(
            is_cidr("10.0.0.0/8") && is_cidr("fd00::/64") && !is_cidr("10.0.0.0/33") && !is_cidr("10.0.0.0") && !is_cidr("010.0.0.1/8")
        );
    }
}
