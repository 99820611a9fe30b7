//! One picture per pod of what the runtime holds.
//!
//! Owns the shapes, their order, and the reading of messages into them (`snapshot/read.rs`). Must
//! never call the runtime or judge what it sees. Unchanged parts are shared between pictures, so a
//! hundred pods cost little and a copy costs almost nothing. Tests: `snapshot/tests.rs`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub use crate::labels::{ContainerFacts, ContainerKind, ContainerPort, PodIdentity, TerminationMessagePolicy};
pub use crate::resources::Resources;
pub use read::{Changes, ListedPod, Listing, container, sandbox};

/// What the runtime holds of one pod.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedPod {
    pub uid: Arc<str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// Newest first: by attempt, then creation time, then id.
    pub sandboxes: Vec<Arc<ObservedSandbox>>,
    /// By name; within a name newest first as above.
    pub containers: Vec<Arc<ObservedContainer>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ObservedSandbox {
    pub id: Box<str>,
    pub attempt: u32,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    pub ready: bool,
    /// Primary address first. Empty with the host's network, and where the network is gone.
    pub ips: Box<[IpAddr]>,
    pub host_network: bool,
    pub runtime_handler: Box<str>,
    /// From the verbose status, where the runtime tells.
    pub cgroup_parent: Option<Box<str>>,
    /// First process of the sandbox, where the verbose status tells.
    pub pid: Option<i32>,
    /// Those that say where a pod came from (`kubernetes.io/config.*`) and Longshore's own.
    pub annotations: BTreeMap<Box<str>, Box<str>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ObservedContainer {
    pub id: Box<str>,
    pub sandbox_id: Box<str>,
    pub name: Box<str>,
    /// As the runtime knows it; equals the restart count.
    pub attempt: u32,
    pub state: ContainerState,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// `image` of a container status: a name where the runtime knows one.
    pub image: Box<str>,
    /// What the pod's specification said, where the runtime kept it.
    pub user_specified_image: Box<str>,
    /// `imageID` of a container status.
    pub image_ref: Box<str>,
    /// The runtime's own id of the image; empty on older runtimes.
    pub image_id: Box<str>,
    /// Absolute.
    pub log_path: Box<str>,
    /// Hash, restart count, hooks, ports, grace periods, crash streak: written at creation.
    pub facts: ContainerFacts,
    /// First process, on the host's numbering, while it runs and where the runtime tells.
    pub pid: Option<i32>,
    pub user: Option<User>,
    pub mounts: Box<[ObservedMount]>,
    pub resources: Option<Box<Resources>>,
    /// Empty where the runtime does not tell.
    pub stop_signal: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    Created,
    /// Nanoseconds since the epoch.
    Running {
        started_at: i64,
    },
    Exited(Box<Exit>),
    Unknown,
}

/// How a run ended. Times in nanoseconds since the epoch; `started_at` 0 if it never started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    pub exit_code: i32,
    pub reason: Box<str>,
    pub message: Box<str>,
    pub started_at: i64,
    pub finished_at: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: i64,
    pub gid: i64,
    pub supplemental_groups: Box<[i64]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedMount {
    pub container_path: Box<str>,
    /// Empty for images.
    pub host_path: Box<str>,
    pub readonly: bool,
    pub recursive_readonly: bool,
}

impl ObservedPod {
    pub fn identity(&self) -> PodIdentity {
        PodIdentity { uid: self.uid.clone(), namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// The newest sandbox, ready or not.
    pub fn sandbox(&self) -> Option<&Arc<ObservedSandbox>> {
        self.sandboxes.first()
    }

    /// All records of one container, newest first.
    pub fn records<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<ObservedContainer>> {
        self.containers.iter().filter(move |c| &*c.name == name)
    }

    /// The newest record of one container.
    pub fn container(&self, name: &str) -> Option<&Arc<ObservedContainer>> {
        self.containers.iter().find(|c| &*c.name == name)
    }

    pub fn by_id(&self, id: &str) -> Option<&Arc<ObservedContainer>> {
        self.containers.iter().find(|c| &*c.id == id)
    }

    /// Nothing of this pod is left in the runtime.
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    pub fn running(&self) -> impl Iterator<Item = &Arc<ObservedContainer>> {
        self.containers.iter().filter(|c| c.state.is_running())
    }
}

impl ObservedContainer {
    pub fn restart_count(&self) -> u32 {
        self.facts.restart_count
    }

    /// Host file behind the termination message path, if one is mounted there.
    pub fn termination_message_file(&self) -> Option<&str> {
        let path = &self.facts.termination_message_path;
        if path.is_empty() {
            return None;
        }
        self.mounts.iter().find(|m| m.container_path == *path).map(|m| &*m.host_path)
    }
}

impl ContainerState {
    pub fn is_running(&self) -> bool {
        matches!(self, ContainerState::Running { .. })
    }

    pub fn exit(&self) -> Option<&Exit> {
        match self {
            ContainerState::Exited(exit) => Some(exit),
            _ => None,
        }
    }
}
