#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Actions expanded to all that their executors need: CRI requests, file contents, paths, hooks.
//!
//! Owns the mapping from a pod's spec to the runtime (specification of the kubelet, 7, 9, 10). Must never
//! touch the world; what it reads comes in through [`Context`]. Tests: in each file.

pub mod container;
pub mod dns;
pub mod hooks;
pub mod hosts;
pub mod leftovers;
pub mod paths;
pub mod sandbox;
pub mod security;
pub mod setup;

use crate::cgroup::{CgroupPath, CgroupValues};
use crate::env::{ConfigError, ConfigSource, NodeFacts};
use crate::node::state::NodeConfig;
use crate::plan::PresentImage;
use crate::pod::status::PodStatus;
use crate::pod::{Pod, PodUid};
use crate::volume::VolumeWork;
use longshore_cri::container_config::ContainerSpec;
use longshore_cri::sandbox_config::SandboxSpec;
use std::net::IpAddr;
use std::sync::Arc;

/// All that a pod's work is made from.
pub struct Context<'a> {
    pub pod: &'a Pod,
    pub config: &'a NodeConfig,
    pub node: &'a NodeFacts,
    pub objects: &'a dyn ConfigSource,
    pub services: &'a [(String, String)],
    pub pod_ips: &'a [IpAddr],
}

/// One thing for an executor to do.
#[derive(Clone, Debug)]
pub enum Work {
    SetUp(Box<SetUp>),
    CreateSandbox(Box<SandboxSpec>),
    StopSandbox { id: Box<str> },
    RemoveSandbox { id: Box<str> },
    Start(Box<Start>),
    Resume { name: Box<str>, id: Box<str>, links: LogLink, post_start: Option<Box<hooks::PostStart>> },
    Kill(Box<Kill>),
    RemoveContainer { name: Box<str>, id: Box<str>, log_path: Box<str> },
    RecordOutcome { uid: PodUid, status: Arc<PodStatus> },
    TearDown(Box<TearDown>),
}

impl Work {
    /// Changes something that the runtime would show: afterwards the pod must be looked at again.
    pub fn touches_the_runtime(&self) -> bool {
        !matches!(self, Work::SetUp(_) | Work::RecordOutcome { .. } | Work::TearDown(_))
    }
}

/// The pod's cgroup, directories and volumes.
#[derive(Clone, Debug, PartialEq)]
pub struct SetUp {
    pub cgroup: CgroupPath,
    pub cgroup_values: CgroupValues,
    /// The parents' values, which this pod changes.
    pub qos: Option<(CgroupPath, CgroupValues)>,
    pub pod_dir: String,
    pub log_dir: String,
    pub volumes: Vec<VolumeWork>,
}

#[derive(Clone, Debug)]
pub struct Start {
    pub name: Box<str>,
    pub sandbox_id: Box<str>,
    pub spec: ContainerSpec,
    pub sandbox: Arc<SandboxSpec>,
    /// Written before the container is made: `/etc/hosts`.
    pub hosts: Option<hosts::HostsFile>,
    /// Created empty, world-writable, before the container is made.
    pub termination_log: Option<String>,
    pub sub_paths: Vec<SubPath>,
    pub links: LogLink,
    pub log_dir: String,
    pub post_start: Option<Box<hooks::PostStart>>,
}

/// A bind mount of a path inside a volume, made without following links out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubPath {
    /// The volume's name, for messages, and where it is on the host.
    pub volume: String,
    pub root: String,
    pub path: String,
    /// Where it is bound, and what the container mounts.
    pub target: String,
}

/// The link under `/var/log/containers` that log collectors follow. `{id}` stands for the container's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLink {
    pub directory: String,
    pub prefix: String,
    pub target: String,
}

#[derive(Clone, Debug)]
pub struct Kill {
    pub name: Box<str>,
    pub id: Box<str>,
    /// Seconds for the hook and the stop together.
    pub grace: u32,
    pub pre_stop: Option<hooks::Hook>,
    pub message: String,
    /// To be started anew afterwards, whatever code it leaves.
    pub restarts: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TearDown {
    pub cgroup: CgroupPath,
    pub qos: Option<(CgroupPath, CgroupValues)>,
    pub pod_dir: String,
    /// Logs and links go too.
    pub logs: Option<String>,
    pub log_links: (String, String),
}

/// Credentials of one image pull secret.
#[derive(Clone, PartialEq, Eq)]
pub struct PullSecret {
    /// Content of `.dockerconfigjson` or `.dockercfg`.
    pub json: Box<[u8]>,
    pub legacy: bool,
}

impl std::fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PullSecret")
    }
}

/// How one piece of work ended.
#[derive(Clone, Debug)]
pub enum WorkResult {
    Done(Work, Finished),
    Failed(Work, Failure),
    /// Not tried, because an earlier piece failed or the job was cancelled.
    Skipped(Work),
}

#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// The id of what was made.
    pub id: Box<str>,
    /// A hook that failed along the way.
    pub hook_failed: bool,
    /// A hook for https was answered in plain by this `host:port`, and was run so.
    pub http_fallback: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Failure {
    /// `CreateContainerError`, `RunContainerError`, `PostStartHookError`, `FailedCreatePodSandBox`, `FailedMount`, ...
    pub reason: &'static str,
    pub message: String,
    pub kind: FailureKind,
}

/// What the planner makes of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Whether it happened is not known; observe and plan again.
    Unknown,
    /// It did not happen; try again later.
    Retry,
    /// It did not happen and the same request never will.
    Invalid,
}

pub use container::start;
pub use sandbox::sandbox_spec;

/// The image as far as the container's configuration needs it.
pub type Image = PresentImage;

/// A container's configuration could not be made.
pub type Error = ConfigError;
