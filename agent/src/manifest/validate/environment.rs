//! Environment variables and where their values come from.

use super::names;
use super::probe::OneOf;
use crate::manifest::problem::{Faults, Path};
use crate::pod::{Container, EnvFrom, EnvSource, EnvVar, FieldRef, ResourceFieldRef};

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const FILE_FIELDS: &[&str] = &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

pub fn check(c: &Container, path: &Path, out: &mut Faults) {
    for (i, v) in c.env.iter().enumerate() {
        variable(v, &path.child("env").index(i), out);
    }
    for (i, f) in c.env_from.iter().enumerate() {
        from(f, &path.child("envFrom").index(i), out);
    }
}

fn variable(v: &EnvVar, path: &Path, out: &mut Faults) {
    if v.name.is_empty() {
        out.required(&path.child("name"), "");
    } else {
        for m in names::env_name(&v.name) {
            out.invalid(&path.child("name"), &v.name, &m);
        }
    }
    if let Some(s) = &v.value_from {
        source(s, v, &path.child("valueFrom"), out);
    }
}

fn source(s: &EnvSource, v: &EnvVar, path: &Path, out: &mut Faults) {
    let count = [
        s.field_ref.is_some(),
        s.resource_field_ref.is_some(),
        s.config_map_key_ref.is_some(),
        s.secret_key_ref.is_some(),
        s.file_key_ref.is_some(),
    ];
    let count = count.into_iter().filter(|b| *b).count();
    if let Some(f) = &s.field_ref {
        field_ref(f, ENV_FIELDS, true, &path.child("fieldRef"), out);
    }
    if let Some(r) = &s.resource_field_ref {
        resource_ref(r, false, &path.child("resourceFieldRef"), out);
    }
    for (name, k) in [("configMapKeyRef", &s.config_map_key_ref), ("secretKeyRef", &s.secret_key_ref)] {
        let Some(k) = k else { continue };
        let path = path.child(name);
        if k.name.is_empty() {
            out.required(&path.child("name"), "");
        }
        key(&k.key, &path.child("key"), out);
    }
    if let Some(f) = &s.file_key_ref {
        let path = path.child("fileKeyRef");
        if f.volume_name.is_empty() {
            out.required(&path.child("volumeName"), "");
        }
        relative(&f.path, &path.child("path"), out);
        if f.key.is_empty() {
            out.required(&path.child("key"), "");
        }
    }
    if count == 0 {
        let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        out.invalid(path, "", why);
    } else if !v.value.is_empty() {
        out.invalid(path, "", "may not be specified when `value` is not empty");
    } else if count > 1 {
        out.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn key(k: &str, path: &Path, out: &mut Faults) {
    if k.is_empty() {
        out.required(path, "");
    } else {
        for m in names::config_key(k) {
            out.invalid(path, k, &m);
        }
    }
}

/// A required relative path that stays below its root.
pub fn relative(text: &str, path: &Path, out: &mut Faults) {
    if text.is_empty() {
        out.required(path, "");
    } else if let Some(why) = names::local_path(text) {
        out.invalid(path, text, why);
    } else if text.starts_with("..") {
        out.invalid(path, text, "must not start with '..'");
    }
}

fn from(f: &EnvFrom, path: &Path, out: &mut Faults) {
    if !f.prefix.is_empty() {
        for m in names::env_name(&f.prefix) {
            out.invalid(&path.child("prefix"), &f.prefix, &m);
        }
    }
    let mut one = OneOf { seen: false, path, out, what: "may not have more than one field specified at a time" };
    for (name, r) in [("configMapRef", &f.config_map_ref), ("secretRef", &f.secret_ref)] {
        one.take(r.as_ref(), name, |r, path, out| {
            if r.name.is_empty() {
                out.required(&path.child("name"), "");
            }
        });
    }
    if !one.seen {
        out.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`");
    }
}

/// For a variable (`env`) or for a file of a downward API volume.
pub fn field_ref(f: &FieldRef, allowed: &[&str], env: bool, path: &Path, out: &mut Faults) {
    if f.field_path.is_empty() {
        out.required(&path.child("fieldPath"), "");
        return;
    }
    if f.api_version != "v1" {
        out.invalid(&path.child("apiVersion"), &f.api_version, "must be v1");
    }
    let path = path.child("fieldPath");
    if let Some((map, rest)) = f.field_path.split_once('[') {
        let name = rest.strip_suffix(']').map(|n| n.trim_matches(['\'', '"']));
        match (map, name) {
            ("metadata.labels" | "metadata.annotations", Some(name)) => {
                for m in names::qualified(&if map == "metadata.annotations" { name.to_lowercase() } else { name.to_owned() }) {
                    out.invalid(&path, name, &m);
                }
            }
            _ => out.invalid(&path, &f.field_path, "does not support subscript"),
        }
    } else if !allowed.contains(&f.field_path.as_str()) {
        let more = ["metadata.annotations['<key>']", "metadata.labels['<key>']"];
        let all: Vec<&str> = allowed.iter().copied().chain(if env { more.to_vec() } else { Vec::new() }).collect();
        out.unsupported(&path, &f.field_path, &all);
    }
}

pub fn file_field(f: &FieldRef, path: &Path, out: &mut Faults) {
    field_ref(f, FILE_FIELDS, false, path, out);
}

pub fn resource_ref(r: &ResourceFieldRef, container_required: bool, path: &Path, out: &mut Faults) {
    if container_required && r.container_name.is_empty() {
        out.required(&path.child("containerName"), "");
    }
    let known =
        ["limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"];
    let huge = r.resource.starts_with("limits.hugepages-") || r.resource.starts_with("requests.hugepages-");
    if r.resource.is_empty() {
        out.required(&path.child("resource"), "");
    } else if !huge && !known.contains(&r.resource.as_str()) {
        out.unsupported(&path.child("resource"), &r.resource, &known);
    } else if let Some(d) = r.divisor.as_ref().filter(|d| !d.is_zero()) {
        let (cpu, allowed): (bool, &[&str]) = if r.resource.ends_with(".cpu") {
            (true, &["1", "1m"])
        } else {
            (false, &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"])
        };
        if !allowed.iter().any(|a| crate::quantity::Quantity::parse(a).is_ok_and(|a| a == *d)) {
            let why = if cpu {
                "only divisor's values 1m and 1 are supported with the cpu resource"
            } else {
                "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource"
            };
            out.invalid(&path.child("divisor"), &d.to_string(), why);
        }
    }
}
