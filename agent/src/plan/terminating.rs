//! A pod on its way out, and what is left of one that is over (specification of the kubelet, 3.7, 6, 8.4).

use super::{Action, DesiredPod, Host, KillReason, Plan, Termination, Verdicts, Wait, WaitReason, running};
use crate::pod::{ContainerKind, Pod};
use crate::time::Now;
use longshore_cri::snapshot::{ContainerState, ObservedContainer, ObservedPod};
use std::time::Duration;

/// Whole seconds of grace that are left; never more than was granted.
fn remaining(t: &Termination, now: Now) -> u32 {
    let granted = t.grace();
    let spent = now.wall.since(t.since).min(Duration::from_secs(u64::from(granted))).as_secs();
    granted.saturating_sub(u32::try_from(spent).unwrap_or(granted))
}

pub(super) fn plan(d: &DesiredPod, t: &Termination, o: &ObservedPod, v: &Verdicts, now: Now) -> Plan {
    let pod = &*d.pod;
    let grace = remaining(t, now);
    let kills = kills(pod, o, |c| Action::KillContainer { name: c.name.clone(), id: c.id.clone(), grace, why: KillReason::PodEnds });
    if !kills.is_empty() {
        return Plan::act(kills, vec![Wait::pod(WaitReason::Stopping, None)]);
    }
    let stops: Vec<Action> = o.sandboxes.iter().filter(|s| s.ready).map(|s| Action::StopSandbox { id: s.id.clone() }).collect();
    if !stops.is_empty() {
        return Plan::act(stops, vec![Wait::pod(WaitReason::Stopping, None)]);
    }
    if !v.finished_before {
        return Plan::act(vec![Action::RecordOutcome], Vec::new());
    }
    if t.removes_the_pod() {
        return forget(o);
    }
    match v.host {
        Host::Gone => Plan::converged(),
        _ => Plan::act(vec![Action::TearDown { forget: false }], Vec::new()),
    }
}

/// Which containers to stop now: main ones together, then sidecars one by one from the last, so that each
/// outlives what it serves.
fn kills(pod: &Pod, o: &ObservedPod, action: impl Fn(&ObservedContainer) -> Action) -> Vec<Action> {
    let live = |c: &ObservedContainer| matches!(c.state, ContainerState::Running { .. } | ContainerState::Unknown);
    let sidecar = |c: &ObservedContainer| pod.container(&c.name).is_some_and(|(k, _)| k == ContainerKind::Sidecar);
    let mains: Vec<Action> = o.containers.iter().filter(|c| live(c) && !sidecar(c)).map(|c| action(c)).collect();
    if !mains.is_empty() {
        return mains;
    }
    for spec in pod.spec.init_containers.iter().rev() {
        let running: Vec<Action> = o.records(&spec.name).filter(|c| live(c)).map(|c| action(c)).collect();
        if !running.is_empty() {
            return running;
        }
    }
    Vec::new()
}

/// The containers have all ended: sidecars and the sandbox follow, the records stay for their logs.
pub(super) fn complete(d: &DesiredPod, o: &ObservedPod) -> Plan {
    let pod = &*d.pod;
    let kills = kills(pod, o, |c| running::kill(pod, c, KillReason::PodEnds));
    if !kills.is_empty() {
        return Plan::act(kills, Vec::new());
    }
    let stops: Vec<Action> = o.sandboxes.iter().filter(|s| s.ready).map(|s| Action::StopSandbox { id: s.id.clone() }).collect();
    if !stops.is_empty() {
        return Plan::act(stops, Vec::new());
    }
    Plan::act(vec![Action::RecordOutcome], Vec::new())
}

fn forget(o: &ObservedPod) -> Plan {
    let containers = o.containers.iter().map(|c| Action::RemoveContainer { name: c.name.clone(), id: c.id.clone() });
    let mut actions: Vec<Action> = containers.collect();
    actions.extend(o.sandboxes.iter().map(|s| Action::RemoveSandbox { id: s.id.clone() }));
    if actions.is_empty() {
        // Also after an earlier one that kept the logs: this one ends with the pod forgotten.
        actions.push(Action::TearDown { forget: true });
    }
    Plan::act(actions, Vec::new())
}

/// A finished pod keeps its newest records and its newest sandbox until its object goes; whatever still
/// runs of it (a start that raced with the end) is stopped, and its volumes and cgroup go.
pub(super) fn collect(d: &DesiredPod, o: &ObservedPod, v: &Verdicts) -> Plan {
    let pod = &*d.pod;
    let kills = kills(pod, o, |c| running::kill(pod, c, KillReason::PodEnds));
    if !kills.is_empty() {
        return Plan::act(kills, Vec::new());
    }
    let mut actions: Vec<Action> = o.sandboxes.iter().filter(|s| s.ready).map(|s| Action::StopSandbox { id: s.id.clone() }).collect();
    if actions.is_empty() && !matches!(v.host, Host::Gone) {
        actions.push(Action::TearDown { forget: false });
    }
    Plan::act(actions, Vec::new())
}
