//! Whether the pod needs a new sandbox (specification of the kubelet, 3.1).

use super::{Verdicts, view};
use crate::pod::{Container, Pod, RestartPolicy};
use longshore_cri::snapshot::{ContainerState, ObservedPod};

pub(super) enum Need {
    /// The newest sandbox serves.
    Keep,
    /// A new one, after everything else of the pod is stopped.
    Create { attempt: u32 },
    /// The old one is gone and nothing is left to start: the pod is over.
    Nothing,
}

pub(super) fn need(pod: &Pod, o: &ObservedPod, v: &Verdicts) -> Need {
    let Some(newest) = o.sandbox() else { return create(pod, o, v, 0) };
    let ready = o.sandboxes.iter().filter(|s| s.ready).count();
    let next = newest.attempt.saturating_add(1);
    if ready > 1 || !newest.ready || newest.host_network != pod.spec.host_network {
        return create(pod, o, v, next);
    }
    if !pod.spec.host_network && newest.ips.is_empty() {
        return create(pod, o, v, next);
    }
    Need::Keep
}

fn create(pod: &Pod, o: &ObservedPod, v: &Verdicts, attempt: u32) -> Need {
    let any_record = !o.containers.is_empty();
    if pod.spec.restart_policy == RestartPolicy::Never && attempt != 0 && any_record {
        return Need::Nothing;
    }
    let created = pod.spec.containers.iter().any(|c| view::current(o, &c.name).is_some());
    if created && !pod.spec.containers.iter().any(|c| starts_again(pod, o, v, c)) {
        return Need::Nothing;
    }
    Need::Create { attempt }
}

fn starts_again(pod: &Pod, o: &ObservedPod, v: &Verdicts, spec: &Container) -> bool {
    let Some(record) = view::current(o, &spec.name) else { return true };
    match &record.state {
        ContainerState::Created | ContainerState::Unknown | ContainerState::Running { .. } => true,
        ContainerState::Exited(exit) => view::runs_again(pod, spec, record, exit, v),
    }
}
