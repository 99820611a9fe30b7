//! A pod that is to run: sandbox, init containers, main containers (specification of the kubelet, 3.1, 3.2).

use super::{Action, DesiredPod, Host, KillReason, Plan, Verdict, Verdicts, Wait, WaitReason};
use super::{backoff, images, init, sandbox, terminating, view};
use crate::pod::{Container, Pod};
use crate::time::Now;
use longshore_cri::snapshot::{ContainerState, ObservedContainer, ObservedPod};

/// What one pass over the containers found.
#[derive(Default)]
pub(super) struct Pass {
    pub actions: Vec<Action>,
    pub waits: Vec<Wait>,
    /// Main containers that run, start or wait for their restart: the pod goes on.
    pub alive: usize,
}

pub(super) fn plan(d: &DesiredPod, o: &ObservedPod, v: &Verdicts, now: Now) -> Plan {
    let pod = &*d.pod;
    match sandbox::need(pod, o, v) {
        sandbox::Need::Nothing => terminating::complete(d, o),
        sandbox::Need::Create { attempt } => create_sandbox(pod, o, v, attempt, now),
        sandbox::Need::Keep => in_sandbox(d, o, v, now),
    }
}

fn create_sandbox(pod: &Pod, o: &ObservedPod, v: &Verdicts, attempt: u32, now: Now) -> Plan {
    let kills: Vec<Action> = o.running().map(|c| kill(pod, c, KillReason::SandboxChanged)).collect();
    if !kills.is_empty() {
        return Plan::act(kills, Vec::new());
    }
    let stops: Vec<Action> = o.sandboxes.iter().filter(|s| s.ready).map(|s| Action::StopSandbox { id: s.id.clone() }).collect();
    if !stops.is_empty() {
        return Plan::act(stops, Vec::new());
    }
    let mut waits = initializing_waits(pod);
    if let Some(wait) = sandbox_wait(pod, v, now) {
        waits.push(wait);
        return Plan::act(Vec::new(), waits);
    }
    // Images are wanted the moment the sandbox stands: fetch them while it is made.
    let mut actions = Vec::new();
    if !matches!(v.host, Host::Ready) {
        actions.push(Action::SetUp);
    }
    actions.push(Action::CreateSandbox { attempt });
    actions.extend(first_starters(pod).filter_map(|c| prefetch(c, v, now)));
    Plan::act(actions, waits)
}

/// What stands in the way of a sandbox.
fn sandbox_wait(pod: &Pod, v: &Verdicts, now: Now) -> Option<Wait> {
    if let Host::Failed { message, retry } = &v.host
        && *retry > now.mono
    {
        return Some(Wait::pod(WaitReason::Host { message: message.clone() }, Some(*retry)));
    }
    if let Some(message) = v.network.as_ref().filter(|_| !pod.spec.host_network) {
        return Some(Wait::pod(WaitReason::Network { message: message.clone() }, None));
    }
    let f = v.failures.get("").filter(|f| f.retry > now.mono)?;
    let reason = WaitReason::StartFailed { reason: f.reason.clone(), message: f.message.clone() };
    Some(Wait::pod(reason, Some(f.retry)))
}

fn first_starters(pod: &Pod) -> impl Iterator<Item = &Container> {
    let main = if pod.spec.init_containers.is_empty() { &pod.spec.containers[..] } else { &[] };
    pod.spec.init_containers.iter().take(1).chain(main)
}

fn prefetch(c: &Container, v: &Verdicts, now: Now) -> Option<Action> {
    match images::image(c, v, now) {
        images::Image::Act(action, _) => Some(action),
        _ => None,
    }
}

fn initializing_waits(pod: &Pod) -> Vec<Wait> {
    let Some(first) = pod.spec.init_containers.first() else { return Vec::new() };
    let on = || WaitReason::Initializing { on: first.name.as_str().into() };
    pod.spec.containers.iter().map(|c| Wait::container(&c.name, on(), None)).collect()
}

fn in_sandbox(d: &DesiredPod, o: &ObservedPod, v: &Verdicts, now: Now) -> Plan {
    let pod = &*d.pod;
    let mut pass = Pass::default();
    duplicates(pod, o, &mut pass);
    ephemeral(d, o, v, now, &mut pass);
    let initialized = init::pass(d, o, v, now, &mut pass);
    match initialized {
        init::Outcome::Failed => return terminating::complete(d, o),
        init::Outcome::InProgress { on } => {
            let waiting = |c: &Container| Wait::container(&c.name, WaitReason::Initializing { on: on.clone() }, None);
            pass.waits.extend(pod.spec.containers.iter().map(waiting));
        }
        init::Outcome::Done => {
            for c in &pod.spec.containers {
                main(d, o, v, c, now, &mut pass);
            }
            if pass.alive == 0 {
                // Sidecars and ephemeral containers do not keep a pod alive.
                return terminating::complete(d, o);
            }
        }
    }
    if pass.actions.is_empty() {
        pass.actions = dead_records(pod, o);
    }
    set_up_first(v, now, &mut pass);
    Plan::act(pass.actions, pass.waits)
}

/// Nothing starts before this process has looked at the pod's directories and cgroup; a pod that needs no
/// start is left alone, so that a restart of the daemon writes nothing.
fn set_up_first(v: &Verdicts, now: Now, pass: &mut Pass) {
    let starts = |a: &Action| matches!(a, Action::StartContainer { .. } | Action::ResumeContainer { .. });
    if matches!(v.host, Host::Ready) || !pass.actions.iter().any(starts) {
        return;
    }
    match &v.host {
        Host::Failed { message, retry } if *retry > now.mono => {
            pass.actions.retain(|a| !starts(a));
            pass.waits.push(Wait::pod(WaitReason::Host { message: message.clone() }, Some(*retry)));
        }
        _ => pass.actions.insert(0, Action::SetUp),
    }
}

/// Two running containers of one name must never be; the older one goes.
fn duplicates(pod: &Pod, o: &ObservedPod, pass: &mut Pass) {
    for (_, spec) in pod.containers() {
        let surplus = o.records(&spec.name).filter(|c| c.state.is_running()).skip(1);
        pass.actions.extend(surplus.map(|c| kill(pod, c, KillReason::Duplicate)));
    }
}

fn ephemeral(d: &DesiredPod, o: &ObservedPod, v: &Verdicts, now: Now, pass: &mut Pass) {
    for spec in &d.pod.spec.ephemeral_containers {
        if view::current(o, &spec.name).is_none() {
            start(d, o, v, spec, now, pass);
        }
    }
}

fn main(d: &DesiredPod, o: &ObservedPod, v: &Verdicts, spec: &Container, now: Now, pass: &mut Pass) {
    let pod = &*d.pod;
    let Some(record) = view::current(o, &spec.name) else {
        pass.alive += 1;
        return start(d, o, v, spec, now, pass);
    };
    match &record.state {
        ContainerState::Running { .. } => {
            let reason = kill_reason(spec, record, v);
            if let Some(why) = reason {
                pass.actions.push(kill(pod, record, why));
            }
            pass.alive += 1;
        }
        ContainerState::Created if view::in_current_sandbox(o, record) => {
            pass.alive += 1;
            resume(v, spec, record, now, pass);
        }
        ContainerState::Created => {
            pass.alive += 1;
            start(d, o, v, spec, now, pass);
        }
        ContainerState::Unknown => {
            pass.alive += 1;
            pass.actions.push(kill(pod, record, KillReason::StateUnknown));
        }
        ContainerState::Exited(exit) => {
            if view::runs_again(pod, spec, record, exit, v) {
                pass.alive += 1;
                start(d, o, v, spec, now, pass);
            } else {
                pass.waits.push(Wait::container(&spec.name, WaitReason::Done, None));
            }
        }
    }
}

/// Why a running container has to be stopped, if it has to.
pub(super) fn kill_reason(spec: &Container, record: &ObservedContainer, v: &Verdicts) -> Option<KillReason> {
    if view::definition_changed(spec, record) {
        return Some(KillReason::DefinitionChanged);
    }
    let verdicts = v.probes.get(&record.id)?;
    if spec.liveness_probe.is_some() && verdicts.liveness == Verdict::Failure {
        return Some(KillReason::LivenessFailed);
    }
    if spec.startup_probe.is_some() && verdicts.startup == Verdict::Failure {
        return Some(KillReason::StartupFailed);
    }
    None
}

/// A container was created and the daemon died before it was started. Started as it is when its
/// definition still holds, removed and made anew otherwise.
pub(super) fn resume(v: &Verdicts, spec: &Container, record: &ObservedContainer, now: Now, pass: &mut Pass) {
    let (name, id) = (Box::from(spec.name.as_str()), record.id.clone());
    if view::definition_changed(spec, record) {
        pass.actions.push(Action::RemoveContainer { name, id });
        return;
    }
    if let Some(wait) = start_failure(v, spec, now) {
        pass.waits.push(wait);
        return;
    }
    pass.actions.push(Action::ResumeContainer { name, id });
}

fn start_failure(v: &Verdicts, spec: &Container, now: Now) -> Option<Wait> {
    let f = v.failures.get(spec.name.as_str()).filter(|f| f.retry > now.mono)?;
    let reason = WaitReason::StartFailed { reason: f.reason.clone(), message: f.message.clone() };
    Some(Wait::container(&spec.name, reason, Some(f.retry)))
}

/// Everything that must hold before a container may be created; the first that does not is the wait.
pub(super) fn start(d: &DesiredPod, o: &ObservedPod, v: &Verdicts, spec: &Container, now: Now, pass: &mut Pass) {
    let Some(sandbox) = o.sandbox() else { return };
    let last = view::current(o, &spec.name);
    let mut streak = 0;
    if let Some(record) = last
        && let ContainerState::Exited(exit) = &record.state
        && !view::definition_changed(spec, record)
    {
        let r = backoff::restart(view::last_run(record, exit), d.limits, now);
        if !r.wait.is_zero() {
            let reason = WaitReason::BackOff { exit_code: exit.exit_code, streak: r.streak.saturating_sub(1), delay: r.delay };
            pass.waits.push(Wait::container(&spec.name, reason, Some(now.mono + r.wait)));
            return;
        }
        streak = r.streak;
    }
    if let Some(wait) = start_failure(v, spec, now) {
        pass.waits.push(wait);
        return;
    }
    let image_ref = match images::image(spec, v, now) {
        images::Image::Ready(image_ref) => image_ref,
        images::Image::Act(action, wait) => {
            pass.actions.push(action);
            pass.waits.push(wait);
            return;
        }
        images::Image::Wait(wait) => {
            pass.waits.push(wait);
            return;
        }
    };
    if let Some(message) = v.config.get(spec.name.as_str()) {
        pass.waits.push(Wait::container(&spec.name, WaitReason::Config { message: message.clone() }, None));
        return;
    }
    pass.actions.push(Action::StartContainer {
        name: spec.name.as_str().into(),
        sandbox: sandbox.id.clone(),
        image_ref,
        attempt: view::next_attempt(o, &spec.name),
        streak,
    });
}

/// Stops one container with the grace that its spec and the reason give it.
pub(super) fn kill(pod: &Pod, record: &ObservedContainer, why: KillReason) -> Action {
    let spec = pod.container(&record.name).map(|(_, c)| c);
    let probe = match why {
        KillReason::LivenessFailed => spec.and_then(|c| c.liveness_probe.as_ref()),
        KillReason::StartupFailed => spec.and_then(|c| c.startup_probe.as_ref()),
        _ => None,
    };
    let grace = probe.and_then(|p| p.termination_grace_period_seconds).unwrap_or(pod.spec.termination_grace_period_seconds);
    let grace = u32::try_from(grace.max(0)).unwrap_or(u32::MAX);
    Action::KillContainer { name: record.name.clone(), id: record.id.clone(), grace, why }
}

/// Dead records that nobody reads any more: all but the newest of each container name, records of names that the
/// spec lost, and sandboxes that are neither in use nor hold a record (specification of the kubelet, 8.4).
fn dead_records(pod: &Pod, o: &ObservedPod) -> Vec<Action> {
    let mut out = Vec::new();
    for (_, spec) in pod.containers() {
        let dead = o.records(&spec.name).filter(|c| matches!(c.state, ContainerState::Exited(_)));
        out.extend(dead.skip(1).map(|c| Action::RemoveContainer { name: c.name.clone(), id: c.id.clone() }));
    }
    for s in o.sandboxes.iter().skip(1).filter(|s| !s.ready) {
        if !o.containers.iter().any(|c| c.sandbox_id == s.id) {
            out.push(Action::RemoveSandbox { id: s.id.clone() });
        }
    }
    out
}
