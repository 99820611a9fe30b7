//! What the node wants done, as values.

use crate::pod::PodUid;
use crate::pod::status::PodStatus;
use crate::time::Wall;
use crate::work::Work;
use longshore_probes::ProbeKind;
use std::borrow::Cow;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Work for one pod, in order; kills that stand side by side run together. At most one job per pod runs.
#[derive(Clone, Debug)]
pub struct Job {
    pub uid: PodUid,
    pub id: JobId,
    /// Pods start in the order in which they came.
    pub order: u64,
    /// Ends something: never waits behind starts.
    pub urgent: bool,
    pub works: Vec<Work>,
}

#[derive(Clone, Debug)]
pub enum Effect {
    /// Look at one pod in the runtime.
    Observe {
        uid: PodUid,
    },
    Run(Box<Job>),
    /// Drop what is left of a job: a shorter grace replaces it.
    Cancel {
        uid: PodUid,
        job: JobId,
    },
    CheckImage {
        uid: PodUid,
        container: Box<str>,
        image: Box<str>,
    },
    Pull {
        uid: PodUid,
        container: Box<str>,
        image: Box<str>,
        secrets: Vec<crate::work::PullSecret>,
    },
    Probe(Box<ProbeRun>),
    /// The status changed. Also written to the state directory.
    Status {
        uid: PodUid,
        status: Arc<PodStatus>,
    },
    /// Written before the pod's termination begins.
    RecordDeletion {
        uid: PodUid,
        since: Wall,
        grace: i64,
    },
    /// Nothing is left of the pod.
    Forget {
        uid: PodUid,
    },
    Event(Box<EventRecord>),
    /// Rewrite the configuration volumes of a running pod.
    RefreshVolumes {
        uid: PodUid,
        volumes: Vec<crate::volume::VolumeWork>,
    },
}

/// One check to make now.
#[derive(Clone, Debug)]
pub struct ProbeRun {
    pub uid: PodUid,
    pub container_id: Box<str>,
    pub kind: ProbeKind,
    pub check: longshore_probes::Check,
    pub timeout: std::time::Duration,
}

/// A Kubernetes Event to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// Kind of the object that it is about: `Pod`, `Service`, `Node`, or another whose manifest is refused.
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Who tells it: `kubelet`, `kube-proxy`.
    pub component: &'static str,
    /// `spec.containers{web}`, or empty.
    pub field_path: String,
    pub warning: bool,
    pub reason: Cow<'static, str>,
    pub message: String,
}
