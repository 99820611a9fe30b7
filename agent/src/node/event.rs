//! Everything that can happen to the node, as one enum.

use crate::admit::Taint;
use crate::env::services::ServiceAddress;
use crate::node::JobId;
use crate::node::effect::EventRecord;
use crate::node::state::Token;
use crate::plan::{ImageState, PullProgress};
use crate::pod::status::PodStatus;
use crate::pod::{ConfigData, Pod, PodUid, Referent, TokenWish};
use crate::time::{Mono, Wall};
use crate::work::WorkResult;
use longshore_cri::snapshot::ObservedPod;
use longshore_probes::{Outcome, ProbeKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One look at one pod.
#[derive(Clone, Debug)]
pub struct Observation {
    pub pod: ObservedPod,
    /// When the read began: it tells nothing about actions that ended later.
    pub began: Mono,
    /// Termination messages of exited containers, by id.
    pub messages: BTreeMap<Box<str>, Box<str>>,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// A pod is wanted, or wanted differently.
    SetPod(Arc<Pod>),
    /// A pod is no longer wanted: it ends with its grace.
    RemovePod(PodUid),
    /// The same with a grace of its own, in seconds; of a pod that ends already it can only be shorter.
    EndPod {
        uid: PodUid,
        grace: i64,
    },
    /// All sources have told everything once: what nobody mentioned is not wanted.
    SourcesReady,
    SetConfig {
        kind: Referent,
        namespace: String,
        name: String,
        data: Arc<ConfigData>,
    },
    RemoveConfig {
        kind: Referent,
        namespace: String,
        name: String,
    },
    /// A token that the pod asked for, or why there is none.
    Token {
        uid: PodUid,
        wish: TokenWish,
        token: Token,
    },
    /// What the API server has of a pod. Of one that is not known yet this is where its life goes on; of one that is,
    /// what others wrote into its status.
    Reported {
        uid: PodUid,
        status: Arc<PodStatus>,
    },
    /// What others say of this node, whole.
    Node {
        labels: BTreeMap<String, String>,
        taints: Vec<Taint>,
    },
    /// The services that environments announce, whole.
    Services(Arc<Vec<ServiceAddress>>),
    /// A relist: every pod of the runtime that bears a kubelet's labels.
    Relisted(Vec<Observation>),
    Observed(Box<Observation>),
    /// The pod could not be looked at; whoever tried has told why.
    ObserveFailed {
        uid: PodUid,
    },
    /// The runtime or the kernel says that something changed in this pod.
    Changed {
        uid: PodUid,
    },
    /// A job ended; with it a fresh look at the pod, where one was possible.
    Done {
        uid: PodUid,
        job: JobId,
        results: Vec<WorkResult>,
        observation: Option<Box<Observation>>,
    },
    Image {
        uid: PodUid,
        image: Box<str>,
        container: Box<str>,
        state: ImageState,
        /// Set when this ends a pull: how long it took with and without waiting, and the size in bytes.
        pulled: Option<PullReport>,
    },
    /// How far a pull is. Changes no plan.
    PullProgress {
        uid: PodUid,
        image: Box<str>,
        progress: PullProgress,
    },
    /// An object of the manifests cannot be what its file says; what it was before goes on. No kind: it is about a
    /// file that tells of no object.
    Invalid {
        kind: String,
        namespace: String,
        name: String,
        message: String,
    },
    Probe {
        uid: PodUid,
        container_id: Box<str>,
        kind: ProbeKind,
        outcome: Outcome,
    },
    /// What the runtime says of itself.
    Runtime {
        ready: Option<String>,
        network: Option<String>,
    },
    /// The service proxy tells something that users are to see.
    Proxy(Box<EventRecord>),
    /// A wait may be over.
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullReport {
    pub took: std::time::Duration,
    pub with_waiting: std::time::Duration,
    pub bytes: u64,
}

/// What the state directory remembered of a pod from before the daemon started.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    pub status: Option<crate::pod::status::PodStatus>,
    /// A deletion in progress: when it began and its grace in seconds.
    pub deletion: Option<(Wall, i64)>,
}
