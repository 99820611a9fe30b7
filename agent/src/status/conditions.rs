//! Conditions that the node owns (specification of the kubelet, 2.4).

use super::Input;
use crate::plan::{Life, TerminationCause, view};
use crate::pod::status::{Condition, ContainerStatus, Phase, PodStatus};
use crate::pod::{ContainerKind, Pod};

struct Finding {
    ok: bool,
    reason: String,
    message: String,
}

impl Finding {
    fn yes() -> Finding {
        Finding { ok: true, reason: String::new(), message: String::new() }
    }
    fn no(reason: &str, message: String) -> Finding {
        Finding { ok: false, reason: reason.into(), message }
    }
}

pub(super) fn fill(i: &Input<'_>, s: &mut PodStatus) {
    let pod = &*i.desired.pod;
    let containers_ready = containers_ready(pod, s);
    let ready = if containers_ready.ok { gates(pod, i) } else { Finding::no(&containers_ready.reason, containers_ready.message.clone()) };
    let sandbox = i.observed.sandbox().is_some_and(|b| b.ready && (b.host_network || !b.ips.is_empty()));
    let findings = [
        ("PodReadyToStartContainers", if sandbox { Finding::yes() } else { Finding::no("", String::new()) }),
        ("Initialized", initialized(i, s)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Finding::yes()),
    ];
    let foreign = i.previous.into_iter().flat_map(|p| &p.conditions).filter(|c| !findings.iter().any(|(k, _)| *k == c.kind));
    let mut all: Vec<Condition> = foreign.cloned().collect();
    for (kind, f) in findings {
        let before = i.previous.and_then(|p| p.conditions.iter().find(|c| c.kind == kind));
        let status = if f.ok { "True" } else { "False" };
        let changed = before.filter(|b| b.status == status).and_then(|b| b.last_transition_time);
        all.push(Condition {
            kind: kind.into(),
            status: status.into(),
            observed_generation: pod.metadata.generation,
            last_transition_time: changed.or(Some(i.now.wall.truncated())),
            reason: f.reason,
            message: f.message,
        });
    }
    disruption(i, &mut all);
    s.conditions = all;
}

/// The node itself ends the pod for something that the pod did not do.
fn disruption(i: &Input<'_>, all: &mut Vec<Condition>) {
    const KIND: &str = "DisruptionTarget";
    if !matches!(&i.desired.life, Life::Terminating(t) if t.why == TerminationCause::Preempted) || all.iter().any(|c| c.kind == KIND) {
        return;
    }
    all.push(Condition {
        kind: KIND.into(),
        status: "True".into(),
        observed_generation: i.desired.pod.metadata.generation,
        last_transition_time: Some(i.now.wall.truncated()),
        reason: "TerminationByKubelet".into(),
        message: "Pod was preempted by Kubelet to accommodate a critical pod.".into(),
    });
}

fn names(list: &[&str]) -> String {
    format!("[{}]", list.join(" "))
}

fn initialized(i: &Input<'_>, s: &PodStatus) -> Finding {
    let pod = &*i.desired.pod;
    if s.phase == Phase::Succeeded {
        return Finding { reason: "PodCompleted".into(), ..Finding::yes() };
    }
    if view::initialized(pod, i.observed) || s.container_statuses.iter().any(|c| c.state.running.is_some() || c.state.terminated.is_some())
    {
        return Finding::yes();
    }
    let done = |kind: ContainerKind, c: &ContainerStatus| match kind {
        ContainerKind::Sidecar => c.started == Some(true),
        _ => c.state.terminated.as_ref().is_some_and(|t| t.exit_code == 0),
    };
    let status = |name: &str| s.init_container_statuses.iter().find(|c| c.name == name);
    let init = pod.containers().take(pod.spec.init_containers.len());
    let incomplete: Vec<&str> =
        init.filter(|(kind, c)| !status(&c.name).is_some_and(|st| done(*kind, st))).map(|(_, c)| c.name.as_str()).collect();
    if incomplete.is_empty() {
        return Finding::yes();
    }
    Finding::no("ContainersNotInitialized", format!("containers with incomplete status: {}", names(&incomplete)))
}

fn containers_ready(pod: &Pod, s: &PodStatus) -> Finding {
    match s.phase {
        Phase::Succeeded => return Finding::no("PodCompleted", String::new()),
        Phase::Failed => return Finding::no("PodFailed", String::new()),
        _ => {}
    }
    let mut unready = Vec::new();
    for (kind, spec) in pod.containers() {
        let list = match kind {
            ContainerKind::Sidecar => &s.init_container_statuses,
            ContainerKind::Main => &s.container_statuses,
            _ => continue,
        };
        if !list.iter().any(|c| c.name == spec.name && c.ready) {
            unready.push(spec.name.as_str());
        }
    }
    if unready.is_empty() {
        return Finding::yes();
    }
    Finding::no("ContainersNotReady", format!("containers with unready status: {}", names(&unready)))
}

fn gates(pod: &Pod, i: &Input<'_>) -> Finding {
    let conditions = i.previous.map_or(&[][..], |p| &p.conditions);
    let mut messages = Vec::new();
    for gate in &pod.spec.readiness_gates {
        let kind = &gate.condition_type;
        match conditions.iter().find(|c| c.kind == *kind) {
            None => messages.push(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
            Some(c) if !c.is_true() => {
                messages.push(format!("the status of pod readiness gate {kind:?} is not \"True\", but {}", c.status));
            }
            Some(_) => {}
        }
    }
    if messages.is_empty() { Finding::yes() } else { Finding::no("ReadinessGatesNotReady", messages.join(", ")) }
}
