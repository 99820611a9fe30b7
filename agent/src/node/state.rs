//! What the node knows. Written by `step` alone.

use super::event::Recovered;
use super::probing::Probes;
use super::{Job, JobId};
use crate::cgroup::Layout;
use crate::env::services::ServiceAddress;
use crate::env::{ConfigSource, NodeFacts};
use crate::plan::{Action, DesiredPod, Life, Plan, Step, Verdicts, backoff};
use crate::pod::status::PodStatus;
use crate::pod::{ConfigData, ObjectName, Pod, PodUid, Referent, TokenWish};
use crate::time::{Mono, Wall};
use longshore_cri::snapshot::ObservedPod;
use longshore_probes::{Machine, ProbeKind};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// What does not change while the daemon runs.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub root_dir: String,
    pub pod_logs_dir: String,
    pub container_logs_dir: String,
    pub cgroups: Layout,
    pub cgroup_v2: bool,
    pub pod_pids_limit: i64,
    pub cluster_domain: String,
    pub cluster_dns: Vec<IpAddr>,
    /// Content of the host's resolver configuration.
    pub host_resolv: crate::work::dns::Resolv,
    pub limits: backoff::Limits,
    pub max_pods: usize,
    pub seccomp_default: bool,
    pub allowed_unsafe_sysctls: Vec<String>,
    pub single_process_oom_kill: bool,
    /// `containerd`, as container ids spell it.
    pub runtime_name: String,
    /// When this process began to watch.
    pub started: Wall,
}

/// ConfigMaps and Secrets by namespace and name, and tokens by pod.
#[derive(Clone, Debug, Default)]
pub struct ConfigObjects {
    pub config: BTreeMap<(Referent, ObjectName), Arc<ConfigData>>,
    pub tokens: BTreeMap<(PodUid, TokenWish), Token>,
}

/// A token, or why there is none.
pub type Token = Result<Arc<str>, Arc<str>>;

impl ConfigSource for ConfigObjects {
    fn get(&self, kind: Referent, namespace: &str, name: &str) -> Option<&ConfigData> {
        self.config.get(&(kind, ObjectName::new(namespace, name))).map(AsRef::as_ref)
    }

    fn token(&self, pod: &PodUid, wish: &TokenWish) -> Option<Result<&str, &str>> {
        let token = self.tokens.get(&(pod.clone(), wish.clone()))?;
        Some(token.as_deref().map_err(AsRef::as_ref))
    }
}

#[derive(Debug)]
pub struct NodeState {
    pub config: NodeConfig,
    pub facts: NodeFacts,
    pub pods: BTreeMap<PodUid, PodEntry>,
    /// Pods that wait for another of their name to end.
    pub queued: BTreeMap<ObjectName, Arc<Pod>>,
    /// Pods that wait for others to make room.
    pub held: BTreeMap<PodUid, Held>,
    pub objects: ConfigObjects,
    pub services: Arc<Vec<ServiceAddress>>,
    /// From before the daemon started, until the pod is met.
    pub recovered: BTreeMap<PodUid, Recovered>,
    pub sources_ready: bool,
    /// The runtime was listed at least once.
    pub listed: bool,
    pub runtime_error: Option<String>,
    pub network_error: Option<String>,
    pub(super) next_job: u64,
    pub(super) next_order: u64,
}

/// A pod that comes when others have gone for it.
#[derive(Debug)]
pub struct Held {
    pub pod: Arc<Pod>,
    pub victims: BTreeSet<PodUid>,
}

/// One pod on this node.
#[derive(Debug)]
pub struct PodEntry {
    pub desired: DesiredPod,
    pub order: u64,
    pub observed: ObservedPod,
    /// When the read behind `observed` began; None: never looked.
    pub as_of: Option<Mono>,
    /// Snapshots from before this are too old to plan from.
    pub(super) not_before: Mono,
    pub(super) observing: bool,
    pub(super) job: Option<RunningJob>,
    pub verdicts: Verdicts,
    pub messages: BTreeMap<Box<str>, Box<str>>,
    pub status: Option<Arc<PodStatus>>,
    pub plan: Plan,
    pub(super) probes: Probes,
    /// Events told once until the situation changes, by reason and container.
    pub(super) told: BTreeMap<(Box<str>, &'static str), Box<str>>,
    pub(super) admitted: bool,
    /// Failed pulls in a row, by image.
    pub(super) pull_failures: BTreeMap<Box<str>, u32>,
    /// Looks in a row that the runtime did not answer, by image.
    pub(super) inspect_failures: BTreeMap<Box<str>, u32>,
    /// When a failed pull stops reading `ErrImagePull` and reads `ImagePullBackOff`.
    pub(super) pull_shown: Option<Mono>,
    /// For `why`: the last failed check of a probe that has not succeeded since.
    pub last_probe_failure: Option<ProbeFailure>,
}

/// Kind, container, text, and how far it is on its way to count.
pub type ProbeFailure = (ProbeKind, Box<str>, Box<str>, Option<(u32, u32)>);

#[derive(Debug)]
pub(super) struct RunningJob {
    pub id: JobId,
    /// The grace that its kills were given, if it kills for the pod's end.
    pub ends_with_grace: Option<u32>,
    /// For `why`.
    pub since: Mono,
    pub doing: Vec<Action>,
}

impl NodeState {
    pub fn new(config: NodeConfig, facts: NodeFacts, recovered: BTreeMap<PodUid, Recovered>) -> NodeState {
        NodeState {
            config,
            facts,
            pods: BTreeMap::new(),
            queued: BTreeMap::new(),
            held: BTreeMap::new(),
            objects: ConfigObjects::default(),
            services: Arc::default(),
            recovered,
            sources_ready: false,
            listed: false,
            runtime_error: Some("container runtime status check may not have completed yet".into()),
            network_error: Some("network state unknown".into()),
            next_job: 0,
            next_order: 0,
        }
    }

    /// When `step` wants to be called with a tick, if nothing happens before.
    pub fn next_wake(&self) -> Option<Mono> {
        let planning = self.runtime_error.is_none();
        self.pods.values().filter_map(|e| e.next_wake(planning)).min()
    }

    pub fn by_name(&self, namespace: &str, name: &str) -> Option<&PodEntry> {
        self.pods.values().find(|e| e.desired.pod.metadata.namespace == namespace && e.desired.pod.metadata.name == name)
    }

    pub(super) fn job_id(&mut self) -> JobId {
        self.next_job += 1;
        JobId(self.next_job)
    }
}

impl PodEntry {
    pub(super) fn new(desired: DesiredPod, order: u64) -> PodEntry {
        let pod = &desired.pod;
        let observed = crate::plan::view::nothing(&pod.uid(), &pod.metadata.namespace, &pod.metadata.name);
        PodEntry {
            desired,
            order,
            observed,
            as_of: None,
            not_before: Mono::default(),
            observing: false,
            job: None,
            verdicts: Verdicts::default(),
            messages: BTreeMap::new(),
            status: None,
            plan: Plan { step: Step::Converged, waits: Vec::new() },
            probes: Probes::default(),
            told: BTreeMap::new(),
            admitted: false,
            pull_failures: BTreeMap::new(),
            inspect_failures: BTreeMap::new(),
            pull_shown: None,
            last_probe_failure: None,
        }
    }

    /// The job under way: which, since when, and what it does.
    pub fn job_under_way(&self) -> Option<(JobId, Mono, Vec<String>)> {
        self.job.as_ref().map(|j| (j.id, j.since, j.doing.iter().map(Action::describe).collect()))
    }

    /// A probe of a running container.
    pub fn probe(&self, id: &str, kind: ProbeKind) -> Option<&Machine> {
        self.probes.get(id, kind)
    }

    pub fn is_ready(&self) -> bool {
        self.status.as_ref().is_some_and(|s| s.conditions.iter().any(|c| c.kind == "Ready" && c.is_true()))
    }

    pub fn is_over(&self) -> bool {
        matches!(self.desired.life, Life::Finished) || self.status.as_ref().is_some_and(|s| s.phase.is_terminal())
    }

    pub(super) fn wakes_by(&self, now: Mono) -> bool {
        self.next_wake(true).is_some_and(|t| t <= now)
    }

    /// Its snapshot says what is now, and nothing is under way that would change it.
    fn can_be_planned(&self) -> bool {
        self.job.is_none() && !self.observing && self.verdicts.retry_end.is_none() && self.as_of.is_some_and(|t| t >= self.not_before)
    }

    /// `planning` is false while the runtime does not answer: then a wait that is over changes nothing.
    fn next_wake(&self, planning: bool) -> Option<Mono> {
        let wait = match &self.plan.step {
            _ if !planning || !self.can_be_planned() => None,
            Step::Wait { until } => *until,
            // A start may succeed while another container of the pod waits.
            Step::Act(_) => self.plan.waits.iter().filter_map(|w| w.until).min(),
            Step::Converged => None,
        };
        [wait, self.probes.next_due(), self.deadline(), self.pull_shown, self.verdicts.retry_end].into_iter().flatten().min()
    }

    fn deadline(&self) -> Option<Mono> {
        self.verdicts.deadline.filter(|_| matches!(self.desired.life, Life::Running))
    }
}

/// A job as `step` hands it out, remembered as running.
pub(super) fn running(job: &Job, ends_with_grace: Option<u32>, doing: &[Action], since: Mono) -> RunningJob {
    RunningJob { id: job.id, ends_with_grace, since, doing: doing.to_vec() }
}
