//! Init containers and sidecars (specification of the kubelet, 3.3).
//!
//! Read from the last to the first, so that the furthest progress decides: what came before the newest
//! record is over, sidecars excepted, which are kept running to the end of the pod.

use super::running::{self, Pass};
use super::{Action, DesiredPod, KillReason, Verdict, Verdicts, Wait, WaitReason, view};
use crate::pod::{Container, ContainerKind};
use crate::time::Now;
use longshore_cri::snapshot::{ContainerState, ObservedContainer, ObservedPod};

pub(super) enum Outcome {
    Done,
    /// An init container failed for good: the pod has failed.
    Failed,
    InProgress {
        on: Box<str>,
    },
}

/// Plans init containers and sidecars into `pass`.
pub(super) fn pass(d: &DesiredPod, o: &ObservedPod, v: &Verdicts, now: Now, pass: &mut Pass) -> Outcome {
    let pod = &*d.pod;
    let init: Vec<(ContainerKind, &Container)> = pod.containers().take(pod.spec.init_containers.len()).collect();
    let Some((_, first)) = init.first() else { return Outcome::Done };
    let mut outcome = if view::initialized(pod, o) { Outcome::Done } else { Outcome::InProgress { on: first.name.as_str().into() } };
    // `furthest` is the first record met from the back: older ordinary containers are over.
    let mut furthest_met = matches!(outcome, Outcome::Done);
    let mut starts: Vec<&Container> = Vec::new();
    for (i, (kind, spec)) in init.iter().enumerate().rev() {
        let sidecar = *kind == ContainerKind::Sidecar;
        let Some(record) = view::current(o, &spec.name).filter(|c| view::in_current_sandbox(o, c)) else {
            if furthest_met && sidecar {
                starts.push(spec);
            }
            continue;
        };
        if furthest_met && !sidecar {
            continue;
        }
        let next = init.get(i + 1).map(|(_, c)| *c);
        match step(d, v, *kind, spec, record, now, pass) {
            Progress::Passed if !furthest_met => match next {
                Some(n) => {
                    outcome = Outcome::InProgress { on: n.name.as_str().into() };
                    starts.push(n);
                }
                None => outcome = Outcome::Done,
            },
            Progress::Start => {
                if !furthest_met {
                    outcome = Outcome::InProgress { on: spec.name.as_str().into() };
                }
                starts.push(spec);
            }
            Progress::Failed => return Outcome::Failed,
            Progress::Pending if !furthest_met => outcome = Outcome::InProgress { on: spec.name.as_str().into() },
            Progress::Passed | Progress::Pending => {}
        }
        furthest_met = true;
    }
    if !furthest_met {
        starts.push(first);
    }
    for spec in starts.into_iter().rev() {
        running::start(d, o, v, spec, now, pass);
    }
    outcome
}

enum Progress {
    /// Done, or a sidecar that has started: the next may begin.
    Passed,
    /// To be started (again).
    Start,
    Pending,
    Failed,
}

fn step(
    d: &DesiredPod,
    v: &Verdicts,
    kind: ContainerKind,
    spec: &Container,
    record: &ObservedContainer,
    now: Now,
    pass: &mut Pass,
) -> Progress {
    let pod = &*d.pod;
    let sidecar = kind == ContainerKind::Sidecar;
    match &record.state {
        ContainerState::Created => {
            running::resume(v, spec, record, now, pass);
            Progress::Pending
        }
        ContainerState::Running { .. } if !sidecar => Progress::Pending,
        ContainerState::Running { .. } => {
            if let Some(why) = running::kill_reason(spec, record, v) {
                pass.actions.push(running::kill(pod, record, why));
                return Progress::Pending;
            }
            let started = v.probes.get(&record.id).map_or(Verdict::Unknown, |p| p.startup);
            if spec.startup_probe.is_some() && started != Verdict::Success {
                let reason = WaitReason::SidecarNotStarted { sidecar: spec.name.as_str().into() };
                pass.waits.push(Wait::pod(reason, None));
                return Progress::Pending;
            }
            Progress::Passed
        }
        ContainerState::Exited(exit) if !sidecar && view::succeeded(exit) => Progress::Passed,
        ContainerState::Exited(exit) if view::restarts(pod, kind, spec, exit) => Progress::Start,
        ContainerState::Exited(_) => Progress::Failed,
        ContainerState::Unknown => {
            pass.actions.push(Action::KillContainer {
                name: record.name.clone(),
                id: record.id.clone(),
                grace: u32::try_from(pod.spec.termination_grace_period_seconds.max(0)).unwrap_or(u32::MAX),
                why: KillReason::StateUnknown,
            });
            Progress::Pending
        }
    }
}
