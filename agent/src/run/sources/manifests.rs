//! The manifests directory: reads it, watches it, and tells what changed.

use crate::manifest::{self, Object};
use crate::pod::{ConfigData, Pod, PodUid, Referent};
use longshore_dataplane::wire::{EndpointSlice, Service};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything that the directory holds, by kind.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub pods: BTreeMap<PodUid, Arc<Pod>>,
    pub services: Vec<Arc<Service>>,
    pub slices: Vec<Arc<EndpointSlice>>,
    pub configs: BTreeMap<(Referent, String, String), Arc<ConfigData>>,
}

/// Files in order of their names.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json"))
        .filter(|p| p.file_name().is_some_and(|n| !n.to_string_lossy().starts_with('.')))
        .collect();
    out.sort();
    out
}

pub fn read(dir: &Path) -> Contents {
    let mut out = Contents::default();
    for path in files(dir) {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let (objects, problems) = manifest::read(&path.display().to_string(), &text);
        for p in problems {
            tracing::error!(file = %p.file, document = p.document, field = %p.field, "{}", p.message);
        }
        for o in objects {
            add(&mut out, o);
        }
    }
    out
}

fn add(out: &mut Contents, o: Object) {
    match o {
        Object::Pod(mut p) => {
            p.metadata.uid = uid(&p);
            out.pods.insert(p.uid(), Arc::new(*p));
        }
        Object::Service(s) => out.services.push(Arc::new(*s)),
        Object::EndpointSlice(s) => out.slices.push(Arc::new(*s)),
        Object::Config { kind, namespace, name, data } => {
            out.configs.insert((kind, namespace, name), Arc::new(data));
        }
    }
}

/// Stable for one name and everything that a running pod cannot change.
fn uid(p: &Pod) -> String {
    let mut fixed = p.clone();
    fixed.metadata = crate::pod::Meta { name: p.metadata.name.clone(), namespace: p.metadata.namespace.clone(), ..Default::default() };
    for c in fixed.spec.containers.iter_mut().chain(&mut fixed.spec.init_containers) {
        c.image.clear();
    }
    let digest = Sha256::digest(serde_json::to_vec(&fixed).expect("plain data serialises"));
    let hex: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
