//! Namespaces, users, profiles and masks: what sandboxes and containers say about isolation.
//!
//! Owns the shapes and the path lists that kubelets send. Must never resolve a profile name or a
//! user: that needs the node. Tests: in `sandbox_config` and `container_config`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::v1;

/// Whose processes a container sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PidNamespace {
    #[default]
    Container,
    /// `shareProcessNamespace`.
    Pod,
    /// `hostPID`.
    Node,
    /// That of another container, by id (ephemeral containers with a target).
    Target(Box<str>),
}

/// Host ids that stand for ids 0 and up inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMapping {
    pub host_id: u32,
    pub container_id: u32,
    pub length: u32,
}

impl IdMapping {
    pub(crate) fn to_cri(self) -> v1::IdMapping {
        v1::IdMapping { host_id: self.host_id, container_id: self.container_id, length: self.length }
    }
}

/// `hostUsers: false`: the pod's own user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserNamespace {
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
}

/// How the pod shares the node's namespaces; the same on its sandbox and on each container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespaces {
    pub host_network: bool,
    pub host_ipc: bool,
    pub pid: PidNamespace,
    /// `None` sends no user namespace options, which old runtimes need.
    pub user: Option<UserNamespace>,
}

impl Namespaces {
    pub fn to_cri(&self) -> v1::NamespaceOption {
        let node_or_pod = |node| if node { v1::NamespaceMode::Node } else { v1::NamespaceMode::Pod } as i32;
        let (pid, target_id) = match &self.pid {
            PidNamespace::Container => (v1::NamespaceMode::Container, String::new()),
            PidNamespace::Pod => (v1::NamespaceMode::Pod, String::new()),
            PidNamespace::Node => (v1::NamespaceMode::Node, String::new()),
            PidNamespace::Target(id) => (v1::NamespaceMode::Target, id.to_string()),
        };
        v1::NamespaceOption {
            network: node_or_pod(self.host_network),
            pid: pid as i32,
            ipc: node_or_pod(self.host_ipc),
            target_id,
            userns_options: self.user.as_ref().map(|u| v1::UserNamespace {
                mode: v1::NamespaceMode::Pod as i32,
                uids: u.uids.iter().map(|m| m.to_cri()).collect(),
                gids: u.gids.iter().map(|m| m.to_cri()).collect(),
            }),
        }
    }
}

/// A seccomp or AppArmor profile. `Localhost` holds the path or name as the runtime takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    RuntimeDefault,
    Unconfined,
    Localhost(Box<str>),
}

impl Profile {
    pub(crate) fn to_cri(&self) -> v1::SecurityProfile {
        use v1::security_profile::ProfileType;
        let (kind, localhost_ref) = match self {
            Profile::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
            Profile::Unconfined => (ProfileType::Unconfined, String::new()),
            Profile::Localhost(at) => (ProfileType::Localhost, at.to_string()),
        };
        v1::SecurityProfile { profile_type: kind as i32, localhost_ref }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeLinux {
    pub user: Box<str>,
    pub role: Box<str>,
    pub r#type: Box<str>,
    pub level: Box<str>,
}

impl SeLinux {
    pub(crate) fn to_cri(&self) -> v1::SeLinuxOption {
        v1::SeLinuxOption {
            user: self.user.to_string(),
            role: self.role.to_string(),
            r#type: self.r#type.to_string(),
            level: self.level.to_string(),
        }
    }
}

/// Whether groups of the image's /etc/group are merged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupsPolicy {
    #[default]
    Merge,
    Strict,
}

impl GroupsPolicy {
    pub(crate) fn to_cri(self) -> i32 {
        match self {
            GroupsPolicy::Merge => v1::SupplementalGroupsPolicy::Merge as i32,
            GroupsPolicy::Strict => v1::SupplementalGroupsPolicy::Strict as i32,
        }
    }
}

/// `procMount`: which kernel files are hidden or read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcMount {
    /// The usual lists, plus paths that exist on this machine only (the per-CPU
    /// `thermal_throttle` directories).
    Default {
        also_masked: Vec<String>,
    },
    Unmasked,
}

impl Default for ProcMount {
    fn default() -> Self {
        ProcMount::Default { also_masked: Vec::new() }
    }
}

/// Hidden from containers.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Read-only in containers.
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

impl ProcMount {
    /// Masked and read-only paths.
    pub(crate) fn to_cri(&self) -> (Vec<String>, Vec<String>) {
        match self {
            ProcMount::Unmasked => (Vec::new(), Vec::new()),
            ProcMount::Default { also_masked } => (
                MASKED_PATHS.iter().map(|p| (*p).to_owned()).chain(also_masked.iter().cloned()).collect(),
                READONLY_PATHS.iter().map(|p| (*p).to_owned()).collect(),
            ),
        }
    }
}

pub(crate) fn int64(value: Option<i64>) -> Option<v1::Int64Value> {
    value.map(|value| v1::Int64Value { value })
}
