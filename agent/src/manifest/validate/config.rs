//! ConfigMaps and Secrets.

use super::{meta, names};
use crate::manifest::problem::{Faults, Path};
use crate::pod::{ConfigData, Meta, Referent};

/// The most that all values together may take, in bytes.
const MOST: usize = 1 << 20;

pub fn check(kind: Referent, m: &Meta, data: &ConfigData, out: &mut Faults) {
    meta::check(&m.name, &m.generate_name, &m.namespace, &m.labels, &m.annotations, names::subdomain, out);
    let path = Path::root("data");
    for k in data.data.keys() {
        for message in names::config_key(k) {
            out.invalid(&path.key(k), k, &message);
        }
    }
    if data.data.values().map(|v| v.len()).sum::<usize>() > MOST {
        out.too_long(&Path::default(), MOST);
    }
    if kind == Referent::Secret {
        typed(data, &path, out);
    }
}

/// What each type of Secret must hold.
fn typed(data: &ConfigData, path: &Path, out: &mut Faults) {
    let json = |key: &str, out: &mut Faults| match data.data.get(key) {
        None => out.required(&path.key(key), ""),
        Some(bytes) if serde_json::from_slice::<serde_json::Value>(bytes).is_err() => {
            out.invalid(&path.key(key), "<secret contents redacted>", "must be valid JSON");
        }
        Some(_) => {}
    };
    match data.kind.as_str() {
        "kubernetes.io/dockercfg" => json(".dockercfg", out),
        "kubernetes.io/dockerconfigjson" => json(".dockerconfigjson", out),
        "kubernetes.io/basic-auth" if !data.data.contains_key("username") && !data.data.contains_key("password") => {
            out.required(&path.key("username"), "");
            out.required(&path.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if data.data.get("ssh-privatekey").is_none_or(|v| v.is_empty()) => {
            out.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|k| !data.data.contains_key(*k)) {
                out.required(&path.key(key), "");
            }
        }
        _ => {}
    }
}
