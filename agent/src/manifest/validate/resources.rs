//! Requests and limits.

use super::names;
use crate::manifest::problem::{Fault, FaultKind, Faults, Path};
use crate::pod::Resources;
use crate::quantity::Quantity;
use std::collections::BTreeMap;

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Resources that may be requested and limited apart: cpu, memory and the disk.
fn is_overcommittable(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage")
}

pub fn check(r: &Resources, pod_claims: &[serde_json::Value], path: &Path, out: &mut Faults) {
    for (list, amounts) in [("limits", &r.limits), ("requests", &r.requests)] {
        for (name, q) in amounts {
            amount(name, q, &path.child(list).key(name), out);
        }
    }
    for (name, request) in &r.requests {
        let p = path.child("requests");
        match r.limits.get(name) {
            Some(limit) if !is_overcommittable(name) && request != limit => {
                out.invalid(&p, &request.to_string(), &format!("must be equal to {name} limit of {limit}"));
            }
            Some(limit) if request > limit => {
                out.invalid(&p, &request.to_string(), &format!("must be less than or equal to {name} limit of {limit}"));
            }
            None if !is_overcommittable(name) => {
                out.required(&path.child("limits"), "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    huge_pages(r, path, out);
    claims(r, pod_claims, &path.child("claims"), out);
}

fn amount(name: &str, q: &Quantity, path: &Path, out: &mut Faults) {
    for m in names::qualified(name) {
        out.invalid(path, name, &m);
    }
    if !name.contains('/') && !is_overcommittable(name) && !is_huge_page(name) {
        out.invalid(path, name, "must be a standard resource for containers");
    }
    if q.nanos() < 0 {
        out.invalid(path, &q.to_string(), "must be greater than or equal to 0");
    } else if !matches!(name, "cpu" | "memory") && q.milli() % 1000 != 0 && q.milli() != i64::MAX {
        out.invalid(path, &q.to_string(), "must be an integer");
    }
    let page = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok());
    if page.is_some_and(|page| page.nanos() > 0 && q.nanos() % page.nanos() != 0) {
        out.invalid(path, &q.to_string(), &format!("{q} is not positive integer multiple of {name}"));
    }
}

fn huge_pages(r: &Resources, path: &Path, out: &mut Faults) {
    let has = |map: &BTreeMap<String, Quantity>, f: fn(&str) -> bool| map.keys().any(|k| f(k));
    let either = |f: fn(&str) -> bool| has(&r.limits, f) || has(&r.requests, f);
    if either(is_huge_page) && !either(|k| matches!(k, "cpu" | "memory")) {
        out.forbidden(path, "HugePages require cpu or memory");
    }
}

fn claims(r: &Resources, known: &[serde_json::Value], path: &Path, out: &mut Faults) {
    for (i, c) in r.claims.iter().enumerate() {
        let name = c.get("name").and_then(serde_json::Value::as_str).unwrap_or_default();
        if name.is_empty() {
            out.required(&path.index(i), "");
        } else if !known.iter().any(|k| k.get("name").and_then(serde_json::Value::as_str) == Some(name)) {
            let names: Vec<&str> = known.iter().filter_map(|k| k.get("name")?.as_str()).collect();
            let among = if names.is_empty() { " which is empty".to_owned() } else { format!(": {}", names.join(", ")) };
            let message = format!("Not found: {name:?}: must be one of the names in pod.spec.resourceClaims{among}");
            out.0.push(Fault::new(FaultKind::NotFound, &path.index(i), message));
        }
    }
}
