//! Tables: what is observed, and the status that is told.

use super::*;
use crate::plan::{Host, ImageState, PresentImage, ProbeVerdicts, Verdict, backoff, plan, view};
use crate::pod::status::ContainerStatus;
use crate::pod::{Container, ImagePullPolicy, PodUid, Probe, RestartPolicy};
use crate::time::{Mono, Wall};
use longshore_cri::labels::{ContainerFacts, container_hash};
use longshore_cri::snapshot::{ContainerState, Exit, ObservedContainer, ObservedSandbox};
use std::sync::Arc;
use std::time::Duration;

struct World {
    desired: DesiredPod,
    observed: ObservedPod,
    verdicts: Verdicts,
    previous: Option<PodStatus>,
    messages: BTreeMap<Box<str>, Box<str>>,
}

fn now() -> Now {
    Now { mono: Mono(Duration::from_secs(1000)), wall: Wall::from_seconds(1000) }
}

impl World {
    /// One container `a`, running in a ready sandbox.
    fn new() -> World {
        let mut pod = Pod::default();
        (pod.metadata.name, pod.metadata.namespace, pod.metadata.uid) = ("web".into(), "default".into(), "1-2-3".into());
        let c = Container {
            name: "a".into(),
            image: "busybox:1".into(),
            image_pull_policy: Some(ImagePullPolicy::IfNotPresent),
            ..Container::default()
        };
        pod.spec.containers = vec![c];
        let mut observed = view::nothing(&PodUid::new("1-2-3"), "default", "web");
        observed.sandboxes = vec![Arc::new(ObservedSandbox {
            id: "s0".into(),
            attempt: 0,
            created_at: 0,
            ready: true,
            ips: [[10, 0, 0, 1].into()].into(),
            host_network: false,
            runtime_handler: "".into(),
            cgroup_parent: None,
            pid: None,
            annotations: Default::default(),
        })];
        observed.containers = vec![record("a0", ContainerState::Running { started_at: Wall::from_seconds(900).0 }, 0)];
        let image = ImageState::Present(PresentImage { image_ref: "sha".into(), ..PresentImage::default() });
        World {
            desired: DesiredPod { pod: Arc::new(pod), life: Life::Running, limits: backoff::Limits::default() },
            observed,
            verdicts: Verdicts { host: Host::Ready, images: [("busybox:1".into(), image)].into(), ..Verdicts::default() },
            previous: None,
            messages: BTreeMap::new(),
        }
    }

    fn edit(&mut self, f: impl FnOnce(&mut Pod)) {
        let mut pod = (*self.desired.pod).clone();
        f(&mut pod);
        self.desired.pod = Arc::new(pod);
    }

    fn status(&self) -> PodStatus {
        let plan = plan(&self.desired, &self.observed, &self.verdicts, now());
        let node = NodeFacts { host_ips: vec![[192, 0, 2, 1].into()], ..NodeFacts::default() };
        status(&Input {
            desired: &self.desired,
            observed: &self.observed,
            verdicts: &self.verdicts,
            plan: &plan,
            previous: self.previous.as_ref(),
            node: &node,
            runtime: "containerd",
            messages: &self.messages,
            now: now(),
        })
    }

    fn container(&self) -> ContainerStatus {
        self.status().container_statuses[0].clone()
    }
}

fn record(id: &str, state: ContainerState, restarts: u32) -> Arc<ObservedContainer> {
    Arc::new(ObservedContainer {
        id: id.into(),
        sandbox_id: "s0".into(),
        name: "a".into(),
        attempt: restarts,
        state,
        created_at: Wall::from_seconds(900).0,
        image: "busybox:1".into(),
        user_specified_image: "".into(),
        image_ref: "sha256:1".into(),
        image_id: "".into(),
        log_path: "".into(),
        facts: ContainerFacts {
            hash: Some(container_hash("a", "busybox:1")),
            restart_count: restarts,
            crash_streak: Some(restarts),
            ..ContainerFacts::default()
        },
        pid: None,
        user: None,
        mounts: [].into(),
        resources: None,
        stop_signal: None,
    })
}

fn exited(code: i32) -> ContainerState {
    let (started_at, finished_at) = (Wall::from_seconds(900).0, Wall::from_seconds(999).0);
    let reason = if code == 0 { "Completed" } else { "Error" };
    ContainerState::Exited(Box::new(Exit { exit_code: code, reason: reason.into(), message: "".into(), started_at, finished_at }))
}

fn condition<'a>(s: &'a PodStatus, kind: &str) -> (&'a str, &'a str, &'a str) {
    let c = s.conditions.iter().find(|c| c.kind == kind).expect("every condition is told");
    (&c.status, &c.reason, &c.message)
}

#[test]
fn a_running_pod_is_ready_with_its_address() {
    let s = World::new().status();
    assert_eq!((s.phase, s.pod_ip.as_str(), s.host_ip.as_str()), (Phase::Running, "10.0.0.1", "192.0.2.1"));
    assert_eq!(condition(&s, "Ready"), ("True", "", ""));
    let c = &s.container_statuses[0];
    assert_eq!((c.container_id.as_str(), c.ready, c.started, c.restart_count), ("containerd://a0", true, Some(true), 0));
    assert_eq!(
        s.conditions.iter().map(|c| c.kind.as_str()).collect::<Vec<_>>(),
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    );
}

#[test]
fn a_pod_without_a_container_yet_is_pending() {
    let mut w = World::new();
    w.observed.containers.clear();
    let s = w.status();
    assert_eq!(s.phase, Phase::Pending);
    assert_eq!(s.container_statuses[0].state.waiting.as_ref().unwrap().reason, "ContainerCreating");
    assert_eq!(condition(&s, "Ready"), ("False", "ContainersNotReady", "containers with unready status: [a]"));
    w.edit(|p| p.spec.init_containers = vec![Container { name: "i".into(), image: "busybox:1".into(), ..Container::default() }]);
    let s = w.status();
    assert_eq!(s.container_statuses[0].state.waiting.as_ref().unwrap().reason, "PodInitializing");
    assert_eq!(condition(&s, "Initialized"), ("False", "ContainersNotInitialized", "containers with incomplete status: [i]"));
}

#[test]
fn a_crash_shows_its_back_off_and_moves_the_end_to_the_last_state() {
    let mut w = World::new();
    w.observed.containers = vec![record("a1", exited(3), 1)];
    w.messages.insert("a1".into(), "bye".into());
    let s = w.status();
    let c = &s.container_statuses[0];
    let waiting = c.state.waiting.as_ref().unwrap();
    assert_eq!(waiting.reason, "CrashLoopBackOff");
    assert_eq!(waiting.message, "back-off 10s restarting failed container=a pod=web_default(1-2-3)");
    let last = c.last_state.terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_str(), last.message.as_str(), c.restart_count), (3, "Error", "bye", 1));
    assert_eq!(s.phase, Phase::Running, "a pod that restarts is running");
}

#[test]
fn phases_follow_exits_and_policy() {
    let rows = [
        (RestartPolicy::Never, 0, Phase::Succeeded),
        (RestartPolicy::Never, 1, Phase::Failed),
        (RestartPolicy::OnFailure, 0, Phase::Succeeded),
        (RestartPolicy::OnFailure, 1, Phase::Running),
        (RestartPolicy::Always, 0, Phase::Running),
    ];
    for (policy, code, phase) in rows {
        let mut w = World::new();
        w.edit(|p| p.spec.restart_policy = policy);
        w.observed.containers = vec![record("a0", exited(code), 0)];
        assert_eq!(w.status().phase, phase, "{policy:?} {code}");
    }
}

#[test]
fn a_terminal_phase_stays() {
    let mut w = World::new();
    w.previous = Some(PodStatus { phase: Phase::Failed, reason: "DeadlineExceeded".into(), ..PodStatus::default() });
    let s = w.status();
    assert_eq!((s.phase, s.reason.as_str()), (Phase::Failed, "DeadlineExceeded"));
}

#[test]
fn nothing_is_over_while_it_runs() {
    let mut w = World::new();
    w.desired.life = Life::Terminating(crate::plan::Termination::new(now().wall, 30, TerminationCause::DeadlineExceeded));
    assert_eq!(w.status().phase, Phase::Running);
    w.observed.containers = vec![record("a0", exited(137), 0)];
    let s = w.status();
    assert_eq!((s.phase, s.reason.as_str()), (Phase::Failed, "DeadlineExceeded"));
    assert_eq!(s.message, "Pod was active on the node longer than the specified deadline");
}

#[test]
fn readiness_is_the_probes_and_survives_a_restart_of_the_daemon() {
    let mut w = World::new();
    w.edit(|p| p.spec.containers[0].readiness_probe = Some(Probe::default()));
    let verdict = |readiness| ProbeVerdicts { readiness, ..ProbeVerdicts::default() };
    for (v, ready) in [(Verdict::Success, true), (Verdict::Failure, false), (Verdict::Unknown, false)] {
        w.verdicts.probes.insert("a0".into(), verdict(v));
        assert_eq!(w.container().ready, ready, "{v:?}");
    }
    w.verdicts.probes.insert("a0".into(), verdict(Verdict::Success));
    w.previous = Some(w.status());
    w.verdicts.probes.insert("a0".into(), verdict(Verdict::Unknown));
    assert!(w.container().ready, "no verdict yet: what was true stays true");
    w.observed.containers = vec![record("a1", ContainerState::Running { started_at: 0 }, 1)];
    assert!(!w.container().ready, "but only of the same container");
}

#[test]
fn a_startup_probe_holds_readiness_back() {
    let mut w = World::new();
    w.edit(|p| p.spec.containers[0].startup_probe = Some(Probe::default()));
    assert_eq!((w.container().started, w.container().ready), (Some(false), false));
    w.verdicts.probes.insert("a0".into(), ProbeVerdicts { startup: Verdict::Success, ..ProbeVerdicts::default() });
    assert_eq!((w.container().started, w.container().ready), (Some(true), true));
}

#[test]
fn transition_times_move_only_with_the_status() {
    let mut w = World::new();
    let mut before = w.status();
    for c in &mut before.conditions {
        c.last_transition_time = Some(Wall::from_seconds(1));
    }
    w.previous = Some(before);
    let s = w.status();
    assert!(s.conditions.iter().all(|c| c.last_transition_time == Some(Wall::from_seconds(1))));
    w.observed.containers.clear();
    let s = w.status();
    let at = |kind: &str| s.conditions.iter().find(|c| c.kind == kind).unwrap().last_transition_time;
    assert_eq!((at("Ready"), at("PodScheduled")), (Some(now().wall), Some(Wall::from_seconds(1))));
}

#[test]
fn a_container_that_vanished_is_told_as_lost() {
    let mut w = World::new();
    w.previous = Some(w.status());
    w.observed.containers.clear();
    let c = w.container();
    let last = c.last_state.terminated.as_ref().unwrap();
    assert_eq!((last.reason.as_str(), last.exit_code, c.restart_count), ("ContainerStatusUnknown", 137, 1));
    assert_eq!(last.message, "The container could not be located when the pod was deleted.  The container used to be Running");
}

#[test]
fn long_messages_are_cut_to_the_pods_budget() {
    let mut w = World::new();
    w.observed.containers = vec![record("a0", exited(0), 0)];
    w.edit(|p| p.spec.restart_policy = RestartPolicy::Never);
    w.messages.insert("a0".into(), "é".repeat(20_000).into());
    let message = w.container().state.terminated.unwrap().message;
    assert!(message.len() <= 12 * 1024 && message.len() > 12 * 1024 - 3);
}
