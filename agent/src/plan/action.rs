//! The closed set of things that can be done for a pod.

/// One step for the pod runner. It names what to do; the node expands it with all that the executor needs
/// (`node::work`), so that executors look nothing up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the pod's cgroup, directories and volumes. Idempotent.
    SetUp,
    CreateSandbox {
        attempt: u32,
    },
    StopSandbox {
        id: Box<str>,
    },
    RemoveSandbox {
        id: Box<str>,
    },
    /// Ask the runtime whether it has `image`. Runs beside the pod's job.
    CheckImage {
        image: Box<str>,
    },
    /// Runs beside the pod's job, in the lane of pulls.
    PullImage {
        container: Box<str>,
        image: Box<str>,
    },
    /// Create, start, run postStart.
    StartContainer {
        name: Box<str>,
        sandbox: Box<str>,
        image_ref: Box<str>,
        /// The restart count of the new container.
        attempt: u32,
        /// The crash streak to write on it.
        streak: u32,
    },
    /// Start a container that was created and never started (the daemon died in between).
    ResumeContainer {
        name: Box<str>,
        id: Box<str>,
    },
    KillContainer {
        name: Box<str>,
        id: Box<str>,
        /// Seconds for the preStop hook and the stop together.
        grace: u32,
        why: KillReason,
    },
    RemoveContainer {
        name: Box<str>,
        id: Box<str>,
    },
    /// Write the final status down, before anything of the pod is collected.
    RecordOutcome,
    /// Take away volumes, directories and the cgroup.
    TearDown {
        /// The pod's object is gone: logs and records go too.
        forget: bool,
    },
}

/// Why a container is stopped. The text is the message of its `Killing` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// The pod ends.
    PodEnds,
    /// The sandbox is to be replaced.
    SandboxChanged,
    LivenessFailed,
    StartupFailed,
    DefinitionChanged,
    StateUnknown,
    /// Only restarted containers may run twice; the surplus one goes.
    Duplicate,
}

impl KillReason {
    /// `init` marks init containers and sidecars, which upstream's texts name differently.
    pub fn message(self, container: &str, init: bool, restarts: bool) -> String {
        let subject = if init { "Init container" } else { "Container" };
        let suffix = if restarts { ", will be restarted" } else { "" };
        match self {
            KillReason::PodEnds | KillReason::SandboxChanged | KillReason::Duplicate => format!("Stopping container {container}"),
            KillReason::LivenessFailed if init => format!("{subject} {container} failed liveness probe"),
            KillReason::StartupFailed if init => format!("{subject} {container} failed startup probe"),
            KillReason::DefinitionChanged if init => format!("{subject} {container} definition changed"),
            KillReason::LivenessFailed => format!("{subject} {container} failed liveness probe{suffix}"),
            KillReason::StartupFailed => format!("{subject} {container} failed startup probe{suffix}"),
            KillReason::DefinitionChanged => format!("{subject} {container} definition changed, will be restarted"),
            KillReason::StateUnknown => format!("{subject} is in \"unknown\" state, try killing it before restart"),
        }
    }

    /// Whether the container is wanted again afterwards: its preStop hook runs either way.
    pub fn is_restart(self) -> bool {
        !matches!(self, KillReason::PodEnds | KillReason::Duplicate)
    }
}

impl Action {
    /// For `longshore why`: what is done, in the infinitive.
    pub fn describe(&self) -> String {
        match self {
            Action::SetUp => "make its cgroup, directories and volumes".into(),
            Action::CreateSandbox { .. } => "create its sandbox".into(),
            Action::StopSandbox { .. } => "stop its sandbox".into(),
            Action::RemoveSandbox { .. } => "remove its sandbox".into(),
            Action::CheckImage { image } => format!("look for image {image}"),
            Action::PullImage { image, .. } => format!("pull image {image}"),
            Action::StartContainer { name, .. } | Action::ResumeContainer { name, .. } => format!("start container {name}"),
            Action::KillContainer { name, grace, .. } => format!("stop container {name} within {grace}s"),
            Action::RemoveContainer { name, .. } => format!("remove an ended container {name}"),
            Action::RecordOutcome => "write its outcome down".into(),
            Action::TearDown { .. } => "take its volumes, directories and cgroup away".into(),
        }
    }

    /// Runs in a lane of its own and leaves the pod free for other work.
    pub fn runs_beside(&self) -> bool {
        matches!(self, Action::CheckImage { .. } | Action::PullImage { .. })
    }
}
