#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The pod as this node sees it: our own lean types, which are at once the wire form (serde) and what
//! every decision reads. Owns shapes and defaults that need no context; contextual defaulting and
//! validation are in `manifest`. Must never hold state of this node. Field names, defaults and units
//! are those of core/v1 1.36.

pub mod container;
pub mod meta;
pub mod qos;
pub mod resources;
pub mod security;
pub mod spec;
pub mod status;
pub mod volume;

pub use container::*;
pub use meta::Meta;
pub use qos::{QosClass, qos_class};
pub use security::*;
pub use spec::*;
pub use volume::*;

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A Pod: metadata and desired state. Its status is computed, never stored here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    pub metadata: Meta,
    pub spec: PodSpec,
}

/// A pod's identity for the life of its containers. Two pods of one name have different uids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(pub Arc<str>);

impl PodUid {
    pub fn new(s: &str) -> PodUid {
        PodUid(s.into())
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Namespace and name of an object: `default/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectName {
    pub fn new(namespace: &str, name: &str) -> ObjectName {
        ObjectName { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which list of a pod's spec a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerKind {
    /// An ordinary init container: runs to its end before the next starts.
    Init,
    /// A restartable init container (`restartPolicy: Always`).
    Sidecar,
    Main,
    Ephemeral,
}

impl Pod {
    pub fn uid(&self) -> PodUid {
        PodUid::new(&self.metadata.uid)
    }

    pub fn object_name(&self) -> ObjectName {
        ObjectName::new(&self.metadata.namespace, &self.metadata.name)
    }

    /// Every container with its kind: init containers and sidecars in spec order, then main, then ephemeral.
    pub fn containers(&self) -> impl Iterator<Item = (ContainerKind, &Container)> {
        let init = self.spec.init_containers.iter().map(|c| (c.init_kind(), c));
        let main = self.spec.containers.iter().map(|c| (ContainerKind::Main, c));
        let ephemeral = self.spec.ephemeral_containers.iter().map(|c| (ContainerKind::Ephemeral, c));
        init.chain(main).chain(ephemeral)
    }

    pub fn container(&self, name: &str) -> Option<(ContainerKind, &Container)> {
        self.containers().find(|(_, c)| c.name == name)
    }

    /// A kubelet's own: it came from a file or an address of the node's configuration, not from an API server nor the
    /// manifests directory.
    pub fn is_static(&self) -> bool {
        self.metadata.annotations.get("kubernetes.io/config.source").is_some_and(|s| s != "api")
    }

    /// Static, or `priority >= 2000000000` (system-critical classes): never evicted, admitted under pressure.
    pub fn is_critical(&self) -> bool {
        self.is_static() || self.spec.priority.is_some_and(|p| p >= 2_000_000_000)
    }
}

impl Container {
    fn init_kind(&self) -> ContainerKind {
        if self.restart_policy == Some(ContainerRestartPolicy::Always) { ContainerKind::Sidecar } else { ContainerKind::Init }
    }
}
