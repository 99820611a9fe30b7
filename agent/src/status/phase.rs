//! The phase of a pod (specification of the kubelet, 2.2).

use super::Input;
use crate::plan::view;
use crate::pod::status::{ContainerStatus, Phase, PodStatus};
use crate::pod::{Container, ContainerKind, Pod};

#[derive(Default)]
struct Count {
    pending_init: usize,
    failed_for_good: usize,
    pending_sidecar: usize,
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
    stopped_for_good: usize,
    unknown: usize,
}

/// `over` says that no container of the pod will run again.
pub(super) fn phase(i: &Input<'_>, s: &PodStatus, over: bool) -> Phase {
    let pod = &*i.desired.pod;
    let initialized = view::initialized(pod, i.observed);
    let mut n = Count::default();
    for (kind, spec) in pod.containers() {
        let list = if kind == ContainerKind::Main { &s.container_statuses } else { &s.init_container_statuses };
        let status = list.iter().find(|c| c.name == spec.name);
        match kind {
            ContainerKind::Init => init(pod, spec, status, &mut n),
            ContainerKind::Sidecar => sidecar(status, &mut n),
            ContainerKind::Main => main(i, spec, status, &mut n),
            ContainerKind::Ephemeral => {}
        }
    }
    decide(&n, initialized, over)
}

fn decide(n: &Count, initialized: bool, over: bool) -> Phase {
    if n.failed_for_good > 0 {
        return Phase::Failed;
    }
    if over {
        return if n.stopped > 0 && n.stopped == n.succeeded && n.waiting == 0 && n.unknown == 0 {
            Phase::Succeeded
        } else {
            Phase::Failed
        };
    }
    if n.pending_init > 0 || (n.pending_sidecar > 0 && !initialized) || n.waiting > 0 {
        return Phase::Pending;
    }
    if n.running > 0 && n.unknown == 0 {
        return Phase::Running;
    }
    if n.running == 0 && n.stopped > 0 && n.unknown == 0 {
        if n.stopped > n.stopped_for_good {
            return Phase::Running;
        }
        return if n.stopped == n.succeeded { Phase::Succeeded } else { Phase::Failed };
    }
    Phase::Pending
}

fn exit_of(s: &ContainerStatus) -> Option<(i32, bool)> {
    s.state.terminated.as_ref().or(s.last_state.terminated.as_ref()).map(|t| (t.exit_code, s.state.terminated.is_some()))
}

fn init(pod: &Pod, spec: &Container, status: Option<&ContainerStatus>, n: &mut Count) {
    let Some(s) = status else { return n.pending_init += 1 };
    match exit_of(s) {
        _ if s.state.running.is_some() => n.pending_init += 1,
        Some((0, true)) => {}
        Some((0, false)) | None => n.pending_init += 1,
        Some((code, _)) if spec.restarts_after(pod.spec.restart_policy, code) => n.pending_init += 1,
        Some(_) => n.failed_for_good += 1,
    }
}

fn sidecar(status: Option<&ContainerStatus>, n: &mut Count) {
    let Some(s) = status else { return };
    if s.state.running.is_some() {
        n.running += 1;
        if s.started != Some(true) {
            n.pending_sidecar += 1;
        }
    } else if s.state.waiting.is_some() && s.last_state.is_none() {
        n.waiting += 1;
        n.pending_sidecar += 1;
    }
}

fn main(i: &Input<'_>, spec: &Container, status: Option<&ContainerStatus>, n: &mut Count) {
    let Some(s) = status else { return n.unknown += 1 };
    if s.state.running.is_some() {
        n.running += 1;
        return;
    }
    match exit_of(s) {
        Some((code, _)) => {
            n.stopped += 1;
            n.succeeded += usize::from(code == 0);
            let pod = &*i.desired.pod;
            let again = i.observed.container(&spec.name).and_then(|r| Some(view::runs_again(pod, spec, r, r.state.exit()?, i.verdicts)));
            n.stopped_for_good += usize::from(!again.unwrap_or_else(|| spec.restarts_after(pod.spec.restart_policy, code)));
        }
        None if s.state.waiting.is_some() => n.waiting += 1,
        None => n.unknown += 1,
    }
}
