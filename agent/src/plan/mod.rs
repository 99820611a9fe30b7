#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! What to do next for one pod: `plan(desired, observed, verdicts, now)`.
//!
//! Owns every decision about sandboxes and containers: order, restarts, back-off, kills, collection of dead
//! records. Plans are short: only actions that are valid right now; then the pod is observed and planned
//! again. Must never remember anything: what a plan needs is in its arguments, so that throwing the
//! daemon's state away and observing again gives the same plan.
//! Tests: `plan/tests.rs` (tables) and `node/simulator` (laws).

pub mod action;
pub mod backoff;
mod images;
mod init;
mod running;
mod sandbox;
mod terminating;
#[cfg(test)]
mod tests;
pub mod view;
pub mod wait;

pub use action::{Action, KillReason};
pub use longshore_probes::Verdict;
pub use wait::{Wait, WaitReason};

use crate::pod::Pod;
use crate::time::{Mono, Now, Wall};
use longshore_cri::snapshot::ObservedPod;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is wanted of one pod.
#[derive(Clone, Debug)]
pub struct DesiredPod {
    pub pod: Arc<Pod>,
    pub life: Life,
    pub limits: backoff::Limits,
}

/// The course of a pod's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// To be started and kept running.
    Running,
    Terminating(Termination),
    /// Nothing of it runs and nothing will: its outcome is recorded.
    Finished,
}

/// A pod on its way out. `grace` can only shrink, see [`Termination::shorten`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Termination {
    pub since: Wall,
    grace: u32,
    pub why: TerminationCause,
}

impl Termination {
    /// `grace` in seconds; at least one, as the kubelet rounds up.
    pub fn new(since: Wall, grace: i64, why: TerminationCause) -> Termination {
        Termination { since, grace: clamp_grace(grace), why }
    }

    pub fn grace(&self) -> u32 {
        self.grace
    }

    /// A later request may only hasten the end.
    pub fn shorten(&mut self, grace: i64) {
        self.grace = self.grace.min(clamp_grace(grace));
    }

    /// Whether the pod's object is gone, so that nothing of it is to be kept.
    pub fn removes_the_pod(&self) -> bool {
        matches!(self.why, TerminationCause::Deleted | TerminationCause::Replaced)
    }
}

fn clamp_grace(grace: i64) -> u32 {
    u32::try_from(grace.clamp(1, i64::from(u32::MAX))).expect("clamped to 32 bits")
}

/// Why a pod ends before its containers do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TerminationCause {
    /// Its object was removed.
    Deleted,
    /// Its object changed in a way that a running pod cannot follow.
    Replaced,
    /// It ran longer than `activeDeadlineSeconds`.
    DeadlineExceeded,
    /// A critical pod needs its room.
    Preempted,
    /// Its containers have all ended; sidecars and the sandbox follow.
    Completed,
}

/// What this node knows about a pod besides the runtime's snapshot.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    /// By container id.
    pub probes: BTreeMap<Box<str>, ProbeVerdicts>,
    pub host: Host,
    /// By image reference as the spec has it.
    pub images: BTreeMap<Box<str>, ImageState>,
    /// The last failed attempt to start a container, by container name; empty name: the sandbox.
    pub failures: BTreeMap<Box<str>, StartFailure>,
    /// Why the runtime's network is not ready.
    pub network: Option<Box<str>>,
    /// Configuration that cannot be made, by container name.
    pub config: BTreeMap<Box<str>, Box<str>>,
    /// Whether this node can say that `pod/<uid>` was finished earlier (its outcome is on record).
    pub finished_before: bool,
    /// The node's first address, for pods on its network.
    pub host_ip: Option<std::net::IpAddr>,
    /// When the pod's active deadline passes.
    pub deadline: Option<Mono>,
    /// Containers, by id, that were ended to be started anew whatever their exit code says.
    pub restart: std::collections::BTreeSet<Box<str>>,
    /// A piece of the pod's end failed: not again before this.
    pub retry_end: Option<Mono>,
}

/// Results of a container's probes; a probe that the container lacks reads as its neutral value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeVerdicts {
    pub startup: Verdict,
    pub liveness: Verdict,
    pub readiness: Verdict,
}

/// The pod's directories, volumes and cgroup on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Host {
    /// Not looked at since the daemon started.
    #[default]
    Unknown,
    Ready,
    /// The attempt failed and may be repeated at `retry`.
    Failed {
        message: Box<str>,
        retry: Mono,
    },
    /// Everything was taken away again.
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageState {
    /// In the runtime's store.
    Present(PresentImage),
    /// Asked for and not there.
    Absent,
    /// The runtime is being asked whether it is there.
    Checking,
    Pulling {
        since: Mono,
        /// Where the runtime tells.
        progress: Option<PullProgress>,
    },
    Failed(PullFailure),
}

/// How far a pull is, in bytes. The total grows while the runtime finds out what there is to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullProgress {
    pub done: u64,
    pub total: u64,
}

/// What the runtime says of an image that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresentImage {
    pub image_ref: Box<str>,
    /// The user that the image names, by number or by name.
    pub uid: Option<i64>,
    pub username: Box<str>,
}

/// What failed about an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageVerb {
    /// Asking the runtime whether it has it. Tells nothing about the image.
    Inspect,
    Pull,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullFailure {
    pub during: ImageVerb,
    /// `ErrImagePull`, `RegistryUnavailable`, `ImageInspectError`, ...
    pub reason: Box<str>,
    pub message: Box<str>,
    pub failures: u32,
    /// Not before this.
    pub retry: Mono,
    /// False until the first look after the failure: then it reads `ErrImagePull`, later `ImagePullBackOff`.
    pub backing_off: bool,
}

/// A start that failed before there was a record of it in the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    pub reason: Box<str>,
    pub message: Box<str>,
    pub retry: Mono,
}

/// The next step of a pod, and why each container that is not running waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub step: Step,
    pub waits: Vec<Wait>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reality is as desired.
    Converged,
    /// Look again at `until`, or when something changes (None: only then).
    Wait { until: Option<Mono> },
    /// Never empty.
    Act(Vec<Action>),
}

/// Decides the next step of one pod. Total: every input has an answer.
pub fn plan(d: &DesiredPod, o: &ObservedPod, v: &Verdicts, now: Now) -> Plan {
    match &d.life {
        Life::Running => running::plan(d, o, v, now),
        Life::Terminating(t) => terminating::plan(d, t, o, v, now),
        Life::Finished => terminating::collect(d, o, v),
    }
}

impl Plan {
    fn converged() -> Plan {
        Plan { step: Step::Converged, waits: Vec::new() }
    }

    fn act(actions: Vec<Action>, waits: Vec<Wait>) -> Plan {
        if !actions.is_empty() {
            return Plan { step: Step::Act(actions), waits };
        }
        if waits.is_empty() {
            return Plan::converged();
        }
        let until = waits.iter().filter_map(|w| w.until).min();
        Plan { step: Step::Wait { until }, waits }
    }
}
