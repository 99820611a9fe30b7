//! Metadata: names, labels, annotations.

use super::names::{self, Messages};
use crate::manifest::problem::{Faults, Path};
use std::collections::BTreeMap;

/// The most that all annotations of an object may take, in bytes.
const ANNOTATIONS: usize = 256 << 10;

/// What every kind's metadata must keep to; `name_rule` is the kind's own.
pub fn check(
    name: &str,
    generate_name: &str,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    name_rule: fn(&str) -> Messages,
    out: &mut Faults,
) {
    let path = Path::root("metadata");
    if name.is_empty() {
        let why = if generate_name.is_empty() {
            "name or generateName is required"
        } else {
            "generateName alone will not do here: a file needs a name"
        };
        out.required(&path.child("name"), why);
    } else {
        for m in name_rule(name) {
            out.invalid(&path.child("name"), name, &m);
        }
    }
    for m in names::label(namespace) {
        out.invalid(&path.child("namespace"), namespace, &m);
    }
    check_labels(labels, &path.child("labels"), out);
    check_annotations(annotations, &path.child("annotations"), out);
}

pub fn check_labels(labels: &BTreeMap<String, String>, path: &Path, out: &mut Faults) {
    for (k, v) in labels {
        for m in names::qualified(k) {
            out.invalid(path, k, &m);
        }
        for m in names::label_value(v) {
            out.invalid(path, v, &m);
        }
    }
}

fn check_annotations(annotations: &BTreeMap<String, String>, path: &Path, out: &mut Faults) {
    for k in annotations.keys() {
        // Keys are taken in any case.
        for m in names::qualified(&k.to_lowercase()) {
            out.invalid(path, k, &m);
        }
    }
    if annotations.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > ANNOTATIONS {
        out.too_long(path, ANNOTATIONS);
    }
}
