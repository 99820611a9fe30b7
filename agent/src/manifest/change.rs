//! What an API server lets change in a pod that runs: labels and annotations, images, a deadline that
//! comes nearer, more tolerations, more ephemeral containers. Anything else makes another pod of it.

use crate::pod::{Meta, Pod, Toleration};
use sha2::{Digest as _, Sha256};

/// What an edit of a pod's manifest means for the pod that runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Same,
    /// The pod goes on under its uid, as this.
    InPlace(Box<Pod>),
    /// The pod ends, and another of its name starts.
    Replace,
}

pub fn change(old: &Pod, new: &Pod) -> Change {
    if bare(&old.metadata) == bare(&new.metadata) && old.spec == new.spec {
        return Change::Same;
    }
    let may = fixed_part(old) == fixed_part(new)
        && deadline_may_become(old.spec.active_deadline_seconds, new.spec.active_deadline_seconds)
        && tolerations_may_become(&old.spec.tolerations, &new.spec.tolerations)
        && old.spec.ephemeral_containers.iter().all(|c| new.spec.ephemeral_containers.contains(c));
    if !may {
        return Change::Replace;
    }
    let mut pod = new.clone();
    pod.metadata.uid.clone_from(&old.metadata.uid);
    pod.metadata.creation_timestamp = old.metadata.creation_timestamp;
    Change::InPlace(Box::new(pod))
}

/// Metadata without what the node gives.
fn bare(m: &Meta) -> Meta {
    Meta { uid: String::new(), generation: 0, creation_timestamp: None, ..m.clone() }
}

/// It may be set, and come nearer; never go away or recede.
fn deadline_may_become(old: Option<i64>, new: Option<i64>) -> bool {
    match (old, new) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(old), Some(new)) => new <= old,
    }
}

/// They may grow; of those that are there only the time may change.
fn tolerations_may_become(old: &[Toleration], new: &[Toleration]) -> bool {
    let timeless = |t: &Toleration| Toleration { toleration_seconds: None, ..t.clone() };
    old.iter().all(|o| new.iter().any(|n| timeless(n) == timeless(o)))
}

/// The pod without all that may change in place.
fn fixed_part(p: &Pod) -> Pod {
    let mut fixed = p.clone();
    fixed.metadata = Meta { name: p.metadata.name.clone(), namespace: p.metadata.namespace.clone(), ..Meta::default() };
    for c in fixed.spec.containers.iter_mut().chain(&mut fixed.spec.init_containers) {
        c.image.clear();
    }
    // They are only added; whether one was changed or taken away is looked at apart.
    fixed.spec.ephemeral_containers.clear();
    fixed.spec.active_deadline_seconds = None;
    fixed.spec.tolerations.clear();
    fixed
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// A digest of what cannot change in place.
pub fn fixed(p: &Pod) -> String {
    hex(&serde_json::to_vec(&fixed_part(p)).expect("plain data serialises"))
}

/// A digest of the whole spec: `metadata.generation` counts its changes.
pub fn spec(p: &Pod) -> String {
    hex(&serde_json::to_vec(&p.spec).expect("plain data serialises"))
}

/// A uid that follows from its arguments alone.
pub fn uid(kind: &str, namespace: &str, name: &str, fixed: &str, incarnation: u32) -> String {
    let mut bytes = Sha256::digest(format!("{kind}\0{namespace}\0{name}\0{fixed}\0{incarnation}")).to_vec();
    // Version 8 of RFC 9562: whoever makes it chooses how.
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().take(16).map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
