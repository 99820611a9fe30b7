//! The runtime's records read with the spec in hand: which record is current, what state it is in.

use super::Verdicts;
use super::backoff::LastRun;
use crate::pod::{Container, ContainerKind, ContainerRestartPolicy, Pod, PodUid, RestartPolicy};
use crate::time::Wall;
use longshore_cri::labels::container_hash;
use longshore_cri::snapshot::{ContainerState, Exit, ObservedContainer, ObservedPod};

/// `web_default(uid)`: how the kubelet names a pod in messages.
pub fn full_name(pod: &Pod) -> String {
    format!("{}_{}({})", pod.metadata.name, pod.metadata.namespace, pod.metadata.uid)
}

/// An observation of a pod that the runtime knows nothing of.
pub fn nothing(uid: &PodUid, namespace: &str, name: &str) -> ObservedPod {
    ObservedPod { uid: uid.0.clone(), namespace: namespace.into(), name: name.into(), sandboxes: Vec::new(), containers: Vec::new() }
}

/// The newest record of `name` in the newest sandbox, whatever its state.
pub fn current<'a>(o: &'a ObservedPod, name: &str) -> Option<&'a ObservedContainer> {
    o.containers.iter().find(|c| &*c.name == name).map(AsRef::as_ref)
}

/// A record belongs to the sandbox that is in use.
pub fn in_current_sandbox(o: &ObservedPod, c: &ObservedContainer) -> bool {
    o.sandboxes.first().is_some_and(|s| s.id == c.sandbox_id)
}

/// The spec's image or name changed since the container was created: the only change made in place. A
/// record without a readable hash counts as equal, so that another agent's containers are not restarted.
pub fn definition_changed(spec: &Container, record: &ObservedContainer) -> bool {
    record.facts.hash.is_some_and(|h| h != container_hash(&spec.name, &spec.image))
}

/// What back-off needs of a finished record.
pub fn last_run(c: &ObservedContainer, exit: &Exit) -> LastRun {
    LastRun { created: Wall(c.created_at), finished: Wall(exit.finished_at), streak: c.facts.crash_streak.unwrap_or(c.facts.restart_count) }
}

/// An ordinary init container that did its work.
pub fn succeeded(exit: &Exit) -> bool {
    exit.exit_code == 0 && &*exit.reason != "OOMKilled"
}

/// Whether the container may run again after `exit`.
pub fn restarts(pod: &Pod, kind: ContainerKind, spec: &Container, exit: &Exit) -> bool {
    match kind {
        ContainerKind::Sidecar => true,
        ContainerKind::Ephemeral => false,
        // "Always" for the pod means "until it succeeds" for an ordinary init container.
        ContainerKind::Init if succeeded(exit) => false,
        ContainerKind::Init => spec.restarts_after(pod.spec.restart_policy, exit.exit_code.max(1)),
        ContainerKind::Main => spec.restarts_after(pod.spec.restart_policy, exit.exit_code),
    }
}

/// Whether a main container that has ended is to run again: its policy says so, its definition changed, or we
/// ended it ourselves to start it anew.
pub fn runs_again(pod: &Pod, spec: &Container, record: &ObservedContainer, exit: &Exit, v: &Verdicts) -> bool {
    let never = match spec.restart_policy {
        Some(p) => p == ContainerRestartPolicy::Never,
        None => pod.spec.restart_policy == RestartPolicy::Never,
    };
    restarts(pod, ContainerKind::Main, spec, exit) || !never && (definition_changed(spec, record) || v.restart.contains(&record.id))
}

/// Any main container was created in the sandbox in use: initialisation is over.
pub fn initialized(pod: &Pod, o: &ObservedPod) -> bool {
    pod.spec.containers.iter().any(|spec| {
        o.records(&spec.name).any(|c| {
            in_current_sandbox(o, c)
                && matches!(c.state, ContainerState::Created | ContainerState::Running { .. } | ContainerState::Exited(_))
        })
    })
}

/// The restart count for the next container of this name.
pub fn next_attempt(o: &ObservedPod, name: &str) -> u32 {
    o.records(name).map(|c| c.facts.restart_count.max(c.attempt)).max().map_or(0, |n| n.saturating_add(1))
}
