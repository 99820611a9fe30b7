//! Container statuses: state, last state, readiness, counts (specification of the kubelet, 2.3).

use super::Input;
use crate::plan::{Life, Verdict, Wait, view};
use crate::pod::status::{ContainerState, ContainerStatus, LinuxUser, MountStatus, PodStatus, Running, Terminated, UserStatus, Waiting};
use crate::pod::{Container, ContainerKind};
use crate::time::Wall;
use longshore_cri::snapshot::{ContainerState as Observed, ObservedContainer};

/// Bytes of all termination messages of a pod together.
const MESSAGES_OF_POD: usize = 12 * 1024;

pub(super) fn fill(i: &Input<'_>, s: &mut PodStatus) {
    let pod = &*i.desired.pod;
    for (kind, spec) in pod.containers() {
        let previous = i.previous.and_then(|p| list(p, kind).iter().find(|c| c.name == spec.name));
        let status = one(i, kind, spec, previous);
        match kind {
            ContainerKind::Init | ContainerKind::Sidecar => s.init_container_statuses.push(status),
            ContainerKind::Main => s.container_statuses.push(status),
            ContainerKind::Ephemeral => s.ephemeral_container_statuses.push(status),
        }
    }
    s.container_statuses.sort_by(|a, b| a.name.cmp(&b.name));
    s.ephemeral_container_statuses.sort_by(|a, b| a.name.cmp(&b.name));
}

fn list(s: &PodStatus, kind: ContainerKind) -> &[ContainerStatus] {
    match kind {
        ContainerKind::Init | ContainerKind::Sidecar => &s.init_container_statuses,
        ContainerKind::Main => &s.container_statuses,
        ContainerKind::Ephemeral => &s.ephemeral_container_statuses,
    }
}

fn one(i: &Input<'_>, kind: ContainerKind, spec: &Container, previous: Option<&ContainerStatus>) -> ContainerStatus {
    let mut records = i.observed.records(&spec.name);
    let Some(record) = records.next() else { return without_record(i, kind, spec, previous) };
    let wait = i.plan.waits.iter().find(|w| *w.container == *spec.name);
    let mut s = ContainerStatus {
        name: spec.name.clone(),
        image: if record.image.is_empty() { spec.image.clone() } else { record.image.to_string() },
        image_id: record.image_ref.to_string(),
        container_id: format!("{}://{}", i.runtime, record.id),
        restart_count: i32::try_from(record.restart_count()).unwrap_or(i32::MAX),
        state: state(i, record),
        volume_mounts: mounts(spec),
        user: user(record),
        ..ContainerStatus::default()
    };
    if !spec.resources.is_empty() {
        s.resources = Some(spec.resources.clone());
        s.allocated_resources.clone_from(&spec.resources.requests);
    }
    if let Some(last) = records.find(|c| c.state.exit().is_some()) {
        s.last_state = state(i, last);
    } else if let Some(p) = previous.filter(|p| p.restart_count == s.restart_count) {
        // Its record was collected; what was once told stays told.
        s.last_state.clone_from(&p.last_state);
    }
    waiting_instead(i, wait, &mut s);
    readiness(i, kind, spec, record, previous, &mut s);
    s
}

/// The record's own state as the API shows it.
fn state(i: &Input<'_>, c: &ObservedContainer) -> ContainerState {
    match &c.state {
        Observed::Created => ContainerState::waiting("ContainerCreating", ""),
        Observed::Running { started_at } => {
            ContainerState { running: Some(Running { started_at: Some(Wall(*started_at).truncated()) }), ..ContainerState::default() }
        }
        Observed::Exited(exit) => ContainerState {
            terminated: Some(Terminated {
                exit_code: exit.exit_code,
                signal: 0,
                reason: exit.reason.to_string(),
                message: message(i, c, &exit.message),
                started_at: Some(Wall(exit.started_at).truncated()),
                finished_at: Some(Wall(exit.finished_at).truncated()),
                container_id: format!("{}://{}", i.runtime, c.id),
            }),
            ..ContainerState::default()
        },
        Observed::Unknown => lost(i, c, "The container could not be located when the pod was terminated"),
    }
}

fn lost(i: &Input<'_>, c: &ObservedContainer, message: &str) -> ContainerState {
    ContainerState {
        terminated: Some(Terminated {
            exit_code: 137,
            reason: "ContainerStatusUnknown".into(),
            message: message.into(),
            container_id: format!("{}://{}", i.runtime, c.id),
            ..Terminated::default()
        }),
        ..ContainerState::default()
    }
}

/// The runtime's message and the file's, joined and cut to the container's share of the pod's budget.
fn message(i: &Input<'_>, c: &ObservedContainer, from_runtime: &str) -> String {
    let from_file = i.messages.get(&c.id).map_or("", |m| m);
    let joined = match (from_runtime.is_empty(), from_file.is_empty()) {
        (_, true) => from_runtime.to_owned(),
        (true, false) => from_file.to_owned(),
        (false, false) => format!("{from_runtime}: {from_file}"),
    };
    let share = MESSAGES_OF_POD / i.desired.pod.containers().count().max(1);
    match joined.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= share).last() {
        Some(end) if end < joined.len() => joined[..end].to_owned(),
        _ => joined,
    }
}

/// A container that is to run again shows why it does not yet; how it ended moves to its last state.
fn waiting_instead(i: &Input<'_>, wait: Option<&Wait>, s: &mut ContainerStatus) {
    let Some(wait) = wait else { return };
    let Some((reason, message)) = wait.api_reason(&view::full_name(&i.desired.pod)) else { return };
    if s.state.running.is_some() {
        return;
    }
    if s.state.terminated.is_some() {
        s.last_state = std::mem::take(&mut s.state);
    }
    s.state = ContainerState { waiting: Some(Waiting { reason, message }), ..ContainerState::default() };
}

fn readiness(
    i: &Input<'_>,
    kind: ContainerKind,
    spec: &Container,
    record: &ObservedContainer,
    previous: Option<&ContainerStatus>,
    s: &mut ContainerStatus,
) {
    let running = s.state.running.is_some();
    let verdicts = i.verdicts.probes.get(&record.id).copied().unwrap_or_default();
    // A verdict that is not in yet after a restart of the daemon leaves what was true before it.
    let same = previous.filter(|p| p.container_id == s.container_id);
    let or_before = |v: Verdict, before: bool| match v {
        Verdict::Success => true,
        Verdict::Failure => false,
        Verdict::Unknown => before,
    };
    let started = running && (spec.startup_probe.is_none() || or_before(verdicts.startup, same.is_some_and(|p| p.started == Some(true))));
    s.started = Some(started);
    s.ready = match kind {
        ContainerKind::Init => s.state.terminated.as_ref().is_some_and(|t| t.exit_code == 0),
        ContainerKind::Ephemeral => false,
        _ => started && (spec.readiness_probe.is_none() || or_before(verdicts.readiness, same.is_some_and(|p| p.ready))),
    };
    if kind == ContainerKind::Init {
        s.started = Some(running);
    }
}

fn without_record(i: &Input<'_>, kind: ContainerKind, spec: &Container, previous: Option<&ContainerStatus>) -> ContainerStatus {
    let pod = &*i.desired.pod;
    let mut s = ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone(),
        started: Some(false),
        volume_mounts: mounts(spec),
        ..ContainerStatus::default()
    };
    if let Some(p) = previous {
        s.restart_count = p.restart_count;
        s.last_state.clone_from(&p.last_state);
        if p.state.terminated.is_some() && (matches!(i.desired.life, Life::Finished | Life::Terminating(_)) || kind == ContainerKind::Init)
        {
            return ContainerStatus { ready: kind == ContainerKind::Init && p.ready, ..p.clone() };
        }
        if p.state.running.is_some() {
            return vanished(i, s, p);
        }
        if p.state.terminated.is_some() {
            s.last_state.clone_from(&p.state);
        }
    }
    if kind == ContainerKind::Init && view::initialized(pod, i.observed) {
        s.ready = true;
        s.state.terminated = Some(Terminated {
            reason: "Completed".into(),
            message: "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally"
                .into(),
            ..Terminated::default()
        });
        return s;
    }
    let wait = i.plan.waits.iter().find(|w| *w.container == *spec.name);
    s.state = match wait.and_then(|w| w.api_reason(&view::full_name(pod))) {
        Some((reason, message)) => ContainerState { waiting: Some(Waiting { reason, message }), ..ContainerState::default() },
        None if pod.spec.init_containers.is_empty() => ContainerState::waiting("ContainerCreating", ""),
        None => ContainerState::waiting("PodInitializing", ""),
    };
    s
}

/// It ran, and the runtime has no trace of it.
fn vanished(i: &Input<'_>, mut s: ContainerStatus, p: &ContainerStatus) -> ContainerStatus {
    let ending = !matches!(i.desired.life, Life::Running);
    let terminated = Terminated {
        exit_code: 137,
        reason: "ContainerStatusUnknown".into(),
        message: "The container could not be located when the pod was deleted.  The container used to be Running".into(),
        container_id: p.container_id.clone(),
        ..Terminated::default()
    };
    if ending {
        s.state.terminated = Some(terminated);
    } else {
        s.restart_count += 1;
        s.state = ContainerState::waiting("ContainerCreating", "");
        s.last_state = ContainerState { terminated: Some(terminated), ..ContainerState::default() };
    }
    s
}

fn mounts(spec: &Container) -> Vec<MountStatus> {
    spec.volume_mounts
        .iter()
        .map(|m| MountStatus {
            name: m.name.clone(),
            mount_path: m.mount_path.clone(),
            read_only: m.read_only,
            recursive_read_only: m.read_only.then(|| m.recursive_read_only.clone().unwrap_or_else(|| "Disabled".into())),
        })
        .collect()
}

fn user(record: &ObservedContainer) -> Option<UserStatus> {
    let u = record.user.as_ref()?;
    Some(UserStatus { linux: Some(LinuxUser { uid: u.uid, gid: u.gid, supplemental_groups: u.supplemental_groups.to_vec() }) })
}
