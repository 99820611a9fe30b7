//! Mirror pods: what an API server shows of static pods, made and taken away by the node itself (specification of the
//! kubelet, 1.2).
//!
//! Tests: at the end of this file.

use crate::manifest::static_pod::HASH;
use crate::pod::Pod;
use serde_json::{Value, json};

/// It only shows a pod that comes from elsewhere; its value is the hash of that pod.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// A mirror as the server has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    pub hash: &'a str,
    /// Somebody deleted it.
    pub ends: bool,
}

/// What to do about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Nothing,
    Create,
    Delete,
}

/// `shown`: the hash of the static pod of this name that the node has. One that ends is shown until it has ended.
pub fn due(shown: Option<&str>, seen: Option<Seen<'_>>) -> Due {
    match (shown, seen) {
        (None, None) => Due::Nothing,
        (None, Some(_)) => Due::Delete,
        (Some(_), None) => Due::Create,
        // Another is made when it is gone.
        (Some(hash), Some(s)) if s.ends || s.hash != hash => Due::Delete,
        (Some(_), Some(_)) => Due::Nothing,
    }
}

/// The mirror of this pod, as it is sent; it belongs to the node.
pub fn mirror(pod: &Pod, node: &str, node_uid: &str) -> Value {
    let meta = &pod.metadata;
    let hash = meta.annotations.get(HASH).cloned().unwrap_or_default();
    let mut annotations = meta.annotations.clone();
    annotations.insert(MIRROR.into(), hash);
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": true});
    let mut metadata = json!({"name": meta.name, "namespace": meta.namespace, "annotations": annotations, "ownerReferences": [owner]});
    if !meta.labels.is_empty() {
        metadata["labels"] = json!(meta.labels);
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod.spec})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_made_kept_and_taken_away_as_its_pod_is() {
        let seen = |hash, ends| Some(Seen { hash, ends });
        for (shown, there, want) in [
            (None, None, Due::Nothing),
            (Some("h"), None, Due::Create),
            (Some("h"), seen("h", false), Due::Nothing),
            (Some("h"), seen("h", true), Due::Delete),
            (Some("h"), seen("old", false), Due::Delete),
            (None, seen("h", false), Due::Delete),
        ] {
            assert_eq!(due(shown, there), want, "{shown:?} {there:?}");
        }
    }

    #[test]
    fn a_mirror_says_whose_it_is() {
        let mut pod = Pod::default();
        (pod.metadata.name, pod.metadata.namespace, pod.metadata.uid) = ("etcd-n1".into(), "kube-system".into(), "h".into());
        pod.metadata.annotations.insert(HASH.into(), "h".into());
        pod.metadata.labels.insert("tier".into(), "control-plane".into());
        let m = mirror(&pod, "n1", "u-1");
        assert_eq!(m["metadata"]["annotations"][MIRROR], "h");
        assert_eq!(
            m["metadata"]["ownerReferences"][0],
            json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u-1", "controller": true})
        );
        assert_eq!(m["metadata"]["labels"]["tier"], "control-plane");
        assert!(m["metadata"]["uid"].is_null(), "the server gives it one of its own");
    }
}
