#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Image references: their grammar, and the defaults that a short name takes. Tests: in this file.

/// The full form of a reference: registry and tag filled in, as the runtime stores it.
/// `busybox` reads `docker.io/library/busybox:latest`.
pub fn normalize(reference: &str) -> Result<String, &'static str> {
    const INVALID: &str = "invalid reference format";
    let (name, digest) = match reference.split_once('@') {
        Some((n, d)) => (n, Some(d)),
        None => (reference, None),
    };
    if digest.is_some_and(|d| !is_digest(d)) {
        return Err(INVALID);
    }
    let (name, tag) = match name.rsplit_once(':') {
        Some((n, t)) if !t.contains('/') => (n, Some(t)),
        _ => (name, None),
    };
    if tag.is_some_and(|t| !is_tag(t)) || name.is_empty() || name.len() > 255 {
        return Err(INVALID);
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
        Some(_) => ("docker.io", name.to_owned()),
        None => ("docker.io", format!("library/{name}")),
    };
    if !is_registry(registry) || !path.split('/').all(is_component) {
        return Err(if path.bytes().any(|b| b.is_ascii_uppercase()) { "repository name must be lowercase" } else { INVALID });
    }
    let tag = tag.map(|t| format!(":{t}")).or_else(|| digest.is_none().then(|| ":latest".to_owned())).unwrap_or_default();
    let digest = digest.map(|d| format!("@{d}")).unwrap_or_default();
    Ok(format!("{registry}/{path}{tag}{digest}"))
}

/// Whether the reference asks for a moving tag (`latest`, or none): then the default pull policy is Always.
pub fn is_latest(reference: &str) -> bool {
    !reference.contains('@') && normalize(reference).is_ok_and(|full| full.ends_with(":latest"))
}

/// The registry's host and port.
pub fn registry(normalized: &str) -> &str {
    normalized.split('/').next().unwrap_or_default()
}

fn is_registry(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
}

fn is_component(s: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(s.bytes().next())
        && edge(s.bytes().last())
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_tag(s: &str) -> bool {
    (1..=128).contains(&s.len())
        && !s.starts_with(['.', '-'])
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_digest(s: &str) -> bool {
    s.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_take_the_defaults() {
        let cases = [
            ("busybox", "docker.io/library/busybox:latest"),
            ("nginx:1.7.9", "docker.io/library/nginx:1.7.9"),
            ("kubeguide/tomcat-app:v1", "docker.io/kubeguide/tomcat-app:v1"),
            ("localhost/longshore/demo:1", "localhost/longshore/demo:1"),
            ("10.0.0.1:5000/a/b", "10.0.0.1:5000/a/b:latest"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ];
        for (short, full) in cases {
            assert_eq!(normalize(short).as_deref(), Ok(full));
        }
        let digest = format!("busybox@sha256:{}", "0".repeat(64));
        assert_eq!(normalize(&digest), Ok(format!("docker.io/library/{digest}")));
    }

    #[test]
    fn a_reference_that_cannot_be_parsed_is_refused() {
        for bad in ["", "UPPER", "a//b", "a:", "a b", "busybox:ta g", "-a", "a@sha256:xyz", "/a"] {
            assert!(normalize(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_a_moving_tag_is_latest() {
        assert!(is_latest("busybox") && is_latest("busybox:latest"));
        assert!(!is_latest("busybox:1") && !is_latest(&format!("busybox@sha256:{}", "0".repeat(64))));
    }
}
