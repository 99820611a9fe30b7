//! Volumes of a pod.

use super::probe::OneOf;
use super::{environment, names};
use crate::manifest::problem::{Faults, Path};
use crate::pod::{DownwardApiFile, EmptyDir, HostPath, ImageVolume, KeyToPath, ProjectedSource, ProjectedVolume, TokenFile, Volume};
use std::collections::BTreeSet;

const HOST_PATH_TYPES: &[&str] = &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

pub fn check(volumes: &[Volume], path: &Path, out: &mut Faults) {
    let mut seen = BTreeSet::new();
    for (i, v) in volumes.iter().enumerate() {
        let path = path.index(i);
        if v.name.is_empty() {
            out.required(&path.child("name"), "");
        } else {
            let bad = names::label(&v.name);
            if bad.is_empty() && !seen.insert(&v.name) {
                out.duplicate(&path.child("name"), &v.name);
            }
            for m in bad {
                out.invalid(&path.child("name"), &v.name, &m);
            }
        }
        source(v, &path, out);
    }
}

fn source(v: &Volume, path: &Path, out: &mut Faults) {
    let mut one = OneOf { seen: false, path, out, what: "may not specify more than 1 volume type" };
    one.take(v.empty_dir.as_ref(), "emptyDir", empty_dir);
    one.take(v.host_path.as_ref(), "hostPath", host_path);
    one.take(v.config_map.as_ref(), "configMap", |c, path, out| {
        if c.name.is_empty() {
            out.required(&path.child("name"), "");
        }
        items(&c.items, path, out);
    });
    one.take(v.secret.as_ref(), "secret", |s, path, out| {
        if s.secret_name.is_empty() {
            out.required(&path.child("secretName"), "");
        }
        items(&s.items, path, out);
    });
    one.take(v.downward_api.as_ref(), "downwardAPI", |d, path, out| files(&d.items, path, out));
    one.take(v.projected.as_ref(), "projected", projected);
    one.take(v.image.as_ref(), "image", image);
    for name in v.other.keys() {
        one.take(Some(name), name, |name, path, out| {
            if let Some(why) = way_out(name) {
                out.forbidden(path, why);
            }
        });
    }
    if !one.seen {
        out.required(path, "must specify a volume type");
    }
}

/// Sources that need a control plane, and what to use in their place.
fn way_out(source: &str) -> Option<&'static str> {
    Some(match source {
        "persistentVolumeClaim" | "ephemeral" => {
            "a node without a control plane binds no claims: use hostPath for data that must last, emptyDir for data that need not"
        }
        "gitRepo" => "gitRepo volumes are disabled in Kubernetes: clone in an init container into an emptyDir",
        _ => return None,
    })
}

fn empty_dir(e: &EmptyDir, path: &Path, out: &mut Faults) {
    if !matches!(e.medium.as_str(), "" | "Memory" | "HugePages") && !e.medium.starts_with("HugePages-") {
        out.unsupported(&path.child("medium"), &e.medium, &["", "HugePages", "HugePages-<size>", "Memory"]);
    }
    if let Some(q) = e.size_limit.as_ref().filter(|q| q.nanos() < 0) {
        out.forbidden(&path.child("sizeLimit"), &format!("SizeLimit field must be a valid resource quantity, not {q}"));
    }
}

fn host_path(h: &HostPath, path: &Path, out: &mut Faults) {
    if h.path.is_empty() {
        out.required(&path.child("path"), "");
    } else if h.path.split('/').any(|p| p == "..") {
        out.invalid(&path.child("path"), &h.path, "must not contain '..'");
    } else if !h.path.starts_with('/') {
        out.invalid(&path.child("path"), &h.path, "must be an absolute path");
    }
    if !HOST_PATH_TYPES.contains(&h.kind.as_str()) {
        out.unsupported(&path.child("type"), &h.kind, HOST_PATH_TYPES);
    }
}

fn items(items: &[KeyToPath], path: &Path, out: &mut Faults) {
    for (i, item) in items.iter().enumerate() {
        let path = path.child("items").index(i);
        if item.key.is_empty() {
            out.required(&path.child("key"), "");
        }
        environment::relative(&item.path, &path.child("path"), out);
    }
}

fn files(items: &[DownwardApiFile], path: &Path, out: &mut Faults) {
    for (i, item) in items.iter().enumerate() {
        let path = path.child("items").index(i);
        environment::relative(&item.path, &path.child("path"), out);
        match (&item.field_ref, &item.resource_field_ref) {
            (None, None) => out.required(&path, "one of fieldRef and resourceFieldRef is required"),
            (Some(_), Some(_)) => out.invalid(&path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"),
            (Some(f), None) => environment::file_field(f, &path.child("fieldRef"), out),
            (None, Some(r)) => environment::resource_ref(r, true, &path.child("resourceFieldRef"), out),
        }
    }
}

fn projected(p: &ProjectedVolume, path: &Path, out: &mut Faults) {
    let mut paths = BTreeSet::new();
    for (i, s) in p.sources.iter().enumerate() {
        let path = path.child("sources").index(i);
        projection(s, &path, out);
        let keys = s.config_map.iter().chain(&s.secret).flat_map(|k| &k.items).map(|i| &i.path);
        let fields = s.downward_api.iter().flat_map(|d| &d.items).map(|i| &i.path);
        for p in keys.chain(fields).filter(|p| !p.is_empty()) {
            if !paths.insert(p) {
                out.invalid(&path, p, "conflicting duplicate paths");
            }
        }
    }
}

fn projection(s: &ProjectedSource, path: &Path, out: &mut Faults) {
    let mut one = OneOf { seen: false, path, out, what: "may not specify more than 1 volume type" };
    for (name, keys) in [("configMap", &s.config_map), ("secret", &s.secret)] {
        one.take(keys.as_ref(), name, |k, path, out| {
            if k.name.is_empty() {
                out.required(&path.child("name"), "");
            }
            items(&k.items, path, out);
        });
    }
    one.take(s.downward_api.as_ref(), "downwardAPI", |d, path, out| files(&d.items, path, out));
    one.take(s.service_account_token.as_ref(), "serviceAccountToken", token);
    one.take(s.cluster_trust_bundle.as_ref(), "clusterTrustBundle", |_, path, out| {
        out.forbidden(path, "a node without a control plane has no trust bundles: use a ConfigMap");
    });
    if !one.seen {
        out.required(path, "must specify a volume source");
    }
}

fn token(t: &TokenFile, path: &Path, out: &mut Faults) {
    if t.path.is_empty() {
        out.required(&path.child("path"), "");
    } else {
        environment::relative(&t.path, &path.child("path"), out);
    }
    match t.expiration_seconds {
        Some(s) if s < 600 => out.invalid_number(&path.child("expirationSeconds"), s, "may not specify a duration less than 10 minutes"),
        Some(s) if s > 1 << 32 => {
            out.invalid_number(&path.child("expirationSeconds"), s, "may not specify a duration larger than 2^32 seconds")
        }
        _ => {}
    }
}

/// What a machine without a control plane cannot give.
pub fn alone(volumes: &[Volume], path: &Path, out: &mut Faults) {
    for (i, v) in volumes.iter().enumerate() {
        let sources = path.index(i).child("projected").child("sources");
        for (n, _) in v.projected.iter().flat_map(|p| &p.sources).enumerate().filter(|(_, s)| s.service_account_token.is_some()) {
            let path = sources.index(n).child("serviceAccountToken");
            out.forbidden(&path, "a node without a control plane has nobody who issues tokens");
        }
    }
}

fn image(i: &ImageVolume, path: &Path, out: &mut Faults) {
    if i.reference.is_empty() {
        out.required(&path.child("reference"), "");
    } else if let Err(why) = crate::image::normalize(&i.reference) {
        out.invalid(&path.child("reference"), &i.reference, why);
    }
}
