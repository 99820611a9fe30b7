//! Tables: a base pod, one change to what is desired or observed, and the plan that follows.

use super::*;
use crate::pod::{Container, ContainerRestartPolicy, ImagePullPolicy, Probe, RestartPolicy};
use longshore_cri::labels::{ContainerFacts, container_hash};
use longshore_cri::snapshot::{ContainerState, Exit, ObservedContainer, ObservedSandbox};
use std::time::Duration;

const SECOND: i64 = Wall::SECOND;

fn now() -> Now {
    Now { mono: Mono(Duration::from_secs(1000)), wall: Wall::from_seconds(1000) }
}

/// A pod with two main containers, `a` and `b`.
fn desired() -> DesiredPod {
    let mut pod = Pod::default();
    (pod.metadata.name, pod.metadata.namespace, pod.metadata.uid) = ("web".into(), "default".into(), "1-2-3".into());
    pod.spec.containers = vec![container("a"), container("b")];
    DesiredPod { pod: Arc::new(pod), life: Life::Running, limits: backoff::Limits::default() }
}

fn container(name: &str) -> Container {
    Container {
        name: name.into(),
        image: "busybox:1".into(),
        image_pull_policy: Some(ImagePullPolicy::IfNotPresent),
        ..Container::default()
    }
}

fn edit(d: &mut DesiredPod, f: impl FnOnce(&mut Pod)) {
    let mut pod = (*d.pod).clone();
    f(&mut pod);
    d.pod = Arc::new(pod);
}

fn sandbox(id: &str, attempt: u32, ready: bool) -> Arc<ObservedSandbox> {
    Arc::new(ObservedSandbox {
        id: id.into(),
        attempt,
        created_at: 0,
        ready,
        ips: [[10, 0, 0, 1].into()].into(),
        host_network: false,
        runtime_handler: "".into(),
        cgroup_parent: None,
        pid: None,
        annotations: Default::default(),
    })
}

fn record(name: &str, id: &str, state: ContainerState) -> Arc<ObservedContainer> {
    Arc::new(ObservedContainer {
        id: id.into(),
        sandbox_id: "s0".into(),
        name: name.into(),
        attempt: 0,
        state,
        created_at: 900 * SECOND,
        image: "busybox:1".into(),
        user_specified_image: "".into(),
        image_ref: "".into(),
        image_id: "".into(),
        log_path: "".into(),
        facts: ContainerFacts { hash: Some(container_hash(name, "busybox:1")), crash_streak: Some(0), ..ContainerFacts::default() },
        pid: None,
        user: None,
        mounts: [].into(),
        resources: None,
        stop_signal: None,
    })
}

fn running() -> ContainerState {
    ContainerState::Running { started_at: 900 * SECOND }
}

fn exited(code: i32, seconds_ago: i64) -> ContainerState {
    let finished_at = (1000 - seconds_ago) * SECOND;
    let reason = if code == 0 { "Completed" } else { "Error" };
    ContainerState::Exited(Box::new(Exit {
        exit_code: code,
        reason: reason.into(),
        message: "".into(),
        started_at: 900 * SECOND,
        finished_at,
    }))
}

/// Both containers run in a ready sandbox.
fn observed() -> ObservedPod {
    let mut o = view::nothing(&crate::pod::PodUid::new("1-2-3"), "default", "web");
    o.sandboxes = vec![sandbox("s0", 0, true)];
    o.containers = vec![record("a", "a0", running()), record("b", "b0", running())];
    o
}

fn verdicts() -> Verdicts {
    let image = ImageState::Present(PresentImage { image_ref: "sha".into(), ..PresentImage::default() });
    Verdicts { host: Host::Ready, images: [("busybox:1".into(), image)].into(), ..Verdicts::default() }
}

fn start(name: &str, attempt: u32, streak: u32) -> Action {
    Action::StartContainer { name: name.into(), sandbox: "s0".into(), image_ref: "sha".into(), attempt, streak }
}

fn kill(name: &str, id: &str, grace: u32, why: KillReason) -> Action {
    Action::KillContainer { name: name.into(), id: id.into(), grace, why }
}

#[track_caller]
fn acts(d: &DesiredPod, o: &ObservedPod, v: &Verdicts, want: &[Action]) {
    match plan(d, o, v, now()).step {
        Step::Act(actions) => assert_eq!(actions, want),
        other => panic!("{other:?} instead of {want:?}"),
    }
}

#[test]
fn a_pod_as_desired_needs_nothing() {
    assert_eq!(plan(&desired(), &observed(), &verdicts(), now()), Plan::converged());
    // Nor does it after a restart of the daemon, which knows nothing of directories and images.
    assert_eq!(plan(&desired(), &observed(), &Verdicts::default(), now()), Plan::converged());
}

#[test]
fn a_new_pod_is_set_up_then_given_a_sandbox_and_its_images_are_looked_for_meanwhile() {
    let mut o = observed();
    (o.sandboxes, o.containers) = (Vec::new(), Vec::new());
    let mut v = Verdicts::default();
    let check = Action::CheckImage { image: "busybox:1".into() };
    acts(&desired(), &o, &v, &[Action::SetUp, Action::CreateSandbox { attempt: 0 }, check.clone(), check.clone()]);
    v.host = Host::Ready;
    acts(&desired(), &o, &v, &[Action::CreateSandbox { attempt: 0 }, check.clone(), check]);
    v.network = Some("cni plugin not initialized".into());
    let p = plan(&desired(), &o, &v, now());
    assert_eq!(p.step, Step::Wait { until: None });
    assert!(matches!(&p.waits[0].reason, WaitReason::Network { .. }));
}

#[test]
fn a_sandbox_that_does_not_serve_is_replaced_after_all_is_stopped() {
    let dead = |o: &mut ObservedPod| o.sandboxes = vec![sandbox("s0", 0, false)];
    let mut o = observed();
    dead(&mut o);
    let both = [kill("a", "a0", 30, KillReason::SandboxChanged), kill("b", "b0", 30, KillReason::SandboxChanged)];
    acts(&desired(), &o, &verdicts(), &both);
    o.containers = vec![record("a", "a0", exited(137, 1)), record("b", "b0", exited(137, 1))];
    acts(&desired(), &o, &verdicts(), &[Action::CreateSandbox { attempt: 1 }]);
    // Two ready ones: both go.
    let mut o = observed();
    o.containers.clear();
    o.sandboxes = vec![sandbox("s1", 1, true), sandbox("s0", 0, true)];
    acts(&desired(), &o, &verdicts(), &[Action::StopSandbox { id: "s1".into() }, Action::StopSandbox { id: "s0".into() }]);
    // The network mode changed.
    let mut d = desired();
    edit(&mut d, |p| p.spec.host_network = true);
    acts(&d, &observed(), &verdicts(), &both);
}

#[test]
fn a_pod_that_never_restarts_is_over_with_its_sandbox() {
    let mut d = desired();
    edit(&mut d, |p| p.spec.restart_policy = RestartPolicy::Never);
    let mut o = observed();
    o.sandboxes = vec![sandbox("s0", 0, false)];
    o.containers = vec![record("a", "a0", exited(0, 1))];
    acts(&d, &o, &verdicts(), &[Action::RecordOutcome]);
}

#[test]
fn an_exited_container_restarts_by_policy_and_back_off() {
    let rows: [(RestartPolicy, i32, u32, i64, Option<u32>); 8] = [
        // policy, exit code, streak, seconds since the exit -> streak of the restart now, or none
        (RestartPolicy::Always, 1, 0, 0, Some(1)),
        (RestartPolicy::Always, 0, 0, 0, Some(1)),
        (RestartPolicy::Always, 1, 1, 9, None),
        (RestartPolicy::Always, 1, 1, 10, Some(2)),
        (RestartPolicy::Always, 1, 3, 39, None),
        (RestartPolicy::Always, 1, 9, 300, Some(10)),
        (RestartPolicy::OnFailure, 1, 0, 0, Some(1)),
        (RestartPolicy::OnFailure, 0, 0, 0, None),
    ];
    for row in rows {
        let (policy, code, streak, ago, again) = row;
        let mut d = desired();
        edit(&mut d, |p| p.spec.restart_policy = policy);
        let mut o = observed();
        let mut dead = (*record("a", "a0", exited(code, ago))).clone();
        dead.facts.crash_streak = Some(streak);
        dead.created_at = (1000 - ago - 5) * SECOND;
        o.containers[0] = Arc::new(dead);
        let p = plan(&d, &o, &verdicts(), now());
        match again {
            Some(streak) => assert_eq!(p.step, Step::Act(vec![start("a", 1, streak)]), "{row:?}"),
            None => assert!(matches!(p.step, Step::Wait { .. }), "{row:?} {p:?}"),
        }
    }
}

#[test]
fn a_record_of_another_agent_backs_off_by_its_restart_count() {
    let mut o = observed();
    let mut dead = (*record("a", "a0", exited(1, 5))).clone();
    (dead.facts.crash_streak, dead.facts.restart_count, dead.created_at) = (None, 2, 990 * SECOND);
    o.containers[0] = Arc::new(dead);
    let p = plan(&desired(), &o, &verdicts(), now());
    let WaitReason::BackOff { delay, .. } = &p.waits[0].reason else { panic!("{p:?}") };
    assert_eq!(delay.as_secs(), 20);
    assert_eq!(p.step, Step::Wait { until: Some(now().mono + Duration::from_secs(15)) });
}

#[test]
fn containers_that_have_all_ended_end_the_pod() {
    let mut d = desired();
    edit(&mut d, |p| p.spec.restart_policy = RestartPolicy::OnFailure);
    let mut o = observed();
    o.containers = vec![record("a", "a0", exited(0, 1)), record("b", "b0", exited(0, 1))];
    acts(&d, &o, &verdicts(), &[Action::StopSandbox { id: "s0".into() }]);
    o.sandboxes = vec![sandbox("s0", 0, false)];
    acts(&d, &o, &verdicts(), &[Action::RecordOutcome]);
    d.life = Life::Finished;
    acts(&d, &o, &verdicts(), &[Action::TearDown { forget: false }]);
    let v = Verdicts { host: Host::Gone, ..verdicts() };
    assert_eq!(plan(&d, &o, &v, now()), Plan::converged());
}

#[test]
fn a_changed_image_restarts_the_container_and_forgets_its_crashes() {
    let mut d = desired();
    edit(&mut d, |p| p.spec.containers[0].image = "busybox:2".into());
    acts(&d, &observed(), &verdicts(), &[kill("a", "a0", 30, KillReason::DefinitionChanged)]);
    let mut o = observed();
    let mut dead = (*record("a", "a0", exited(0, 0))).clone();
    dead.facts.crash_streak = Some(7);
    o.containers[0] = Arc::new(dead);
    let mut v = verdicts();
    let image = ImageState::Present(PresentImage { image_ref: "sha".into(), ..PresentImage::default() });
    v.images.insert("busybox:2".into(), image);
    acts(&d, &o, &v, &[start("a", 1, 0)]);
}

#[test]
fn a_failed_probe_kills_with_its_own_grace() {
    let mut d = desired();
    edit(&mut d, |p| {
        p.spec.containers[0].liveness_probe = Some(Probe { termination_grace_period_seconds: Some(3), ..Probe::default() });
        p.spec.containers[1].startup_probe = Some(Probe::default());
    });
    let mut v = verdicts();
    v.probes.insert("a0".into(), ProbeVerdicts { liveness: Verdict::Failure, ..ProbeVerdicts::default() });
    v.probes.insert("b0".into(), ProbeVerdicts { startup: Verdict::Failure, ..ProbeVerdicts::default() });
    acts(&d, &observed(), &v, &[kill("a", "a0", 3, KillReason::LivenessFailed), kill("b", "b0", 30, KillReason::StartupFailed)]);
}

#[test]
fn init_containers_run_one_after_the_other_before_the_rest() {
    let mut d = desired();
    edit(&mut d, |p| p.spec.init_containers = vec![container("i"), container("j")]);
    let mut o = observed();
    o.containers.clear();
    acts(&d, &o, &verdicts(), &[start("i", 0, 0)]);
    o.containers = vec![record("i", "i0", running())];
    let p = plan(&d, &o, &verdicts(), now());
    assert_eq!(p.step, Step::Wait { until: None });
    assert!(p.waits.iter().all(|w| matches!(&w.reason, WaitReason::Initializing { on } if &**on == "i")), "{p:?}");
    o.containers = vec![record("i", "i0", exited(0, 1))];
    acts(&d, &o, &verdicts(), &[start("j", 0, 0)]);
    o.containers.push(record("j", "j0", exited(0, 1)));
    acts(&d, &o, &verdicts(), &[start("a", 0, 0), start("b", 0, 0)]);
    // Once a main container was there, init containers are over whatever their records say.
    o.containers = vec![record("a", "a0", running()), record("b", "b0", running())];
    assert_eq!(plan(&d, &o, &verdicts(), now()), Plan::converged());
}

#[test]
fn a_failed_init_container_follows_the_pods_policy() {
    let mut o = observed();
    o.containers = vec![record("i", "i0", exited(1, 0))];
    for policy in [RestartPolicy::Always, RestartPolicy::OnFailure] {
        let mut d = desired();
        edit(&mut d, |p| (p.spec.init_containers, p.spec.restart_policy) = (vec![container("i")], policy));
        acts(&d, &o, &verdicts(), &[start("i", 1, 1)]);
    }
    let mut d = desired();
    edit(&mut d, |p| (p.spec.init_containers, p.spec.restart_policy) = (vec![container("i")], RestartPolicy::Never));
    acts(&d, &o, &verdicts(), &[Action::StopSandbox { id: "s0".into() }]);
}

#[test]
fn a_sidecar_starts_first_and_is_kept_running() {
    let mut d = desired();
    let sidecar =
        Container { restart_policy: Some(ContainerRestartPolicy::Always), startup_probe: Some(Probe::default()), ..container("side") };
    edit(&mut d, |p| p.spec.init_containers = vec![sidecar]);
    let mut o = observed();
    o.containers = vec![record("side", "x0", running())];
    let mut v = verdicts();
    assert!(matches!(plan(&d, &o, &v, now()).step, Step::Wait { .. }), "not before it has started");
    v.probes.insert("x0".into(), ProbeVerdicts { startup: Verdict::Success, ..ProbeVerdicts::default() });
    acts(&d, &o, &v, &[start("a", 0, 0), start("b", 0, 0)]);
    o.containers = vec![record("a", "a0", running()), record("b", "b0", running()), record("side", "x0", exited(0, 1))];
    acts(&d, &o, &verdicts(), &[start("side", 1, 1)]);
}

#[test]
fn an_image_is_looked_for_pulled_and_waited_for_by_policy() {
    let mut o = observed();
    o.containers.remove(0);
    let state = |s: Option<ImageState>| Verdicts { images: s.map(|s| ("busybox:1".into(), s)).into_iter().collect(), ..verdicts() };
    let with = |policy| {
        let mut d = desired();
        edit(&mut d, |p| p.spec.containers[0].image_pull_policy = Some(policy));
        d
    };
    let check = Action::CheckImage { image: "busybox:1".into() };
    let pull = Action::PullImage { container: "a".into(), image: "busybox:1".into() };
    acts(&with(ImagePullPolicy::IfNotPresent), &o, &state(None), std::slice::from_ref(&check));
    acts(&with(ImagePullPolicy::IfNotPresent), &o, &state(Some(ImageState::Absent)), std::slice::from_ref(&pull));
    acts(&with(ImagePullPolicy::Always), &o, &state(None), &[pull]);
    acts(&with(ImagePullPolicy::Never), &o, &state(None), &[check]);
    let waits = |d: &DesiredPod, v: &Verdicts| {
        plan(d, &o, v, now()).waits.iter().filter_map(|w| w.api_reason("x")).map(|(r, _)| r).collect::<Vec<_>>()
    };
    assert_eq!(waits(&with(ImagePullPolicy::Never), &state(Some(ImageState::Absent))), ["ErrImageNeverPull"]);
    let failed = |backing_off, waits: bool| {
        let retry = if waits { now().mono + Duration::from_secs(5) } else { now().mono };
        state(Some(ImageState::Failed(PullFailure {
            during: ImageVerb::Pull,
            reason: "ErrImagePull".into(),
            message: "not found".into(),
            failures: 1,
            retry,
            backing_off,
        })))
    };
    assert_eq!(waits(&desired(), &failed(false, true)), ["ErrImagePull"]);
    assert_eq!(waits(&desired(), &failed(true, true)), ["ImagePullBackOff"]);
    // It may have come in another way meanwhile.
    acts(&with(ImagePullPolicy::IfNotPresent), &o, &failed(true, false), &[Action::CheckImage { image: "busybox:1".into() }]);
    acts(
        &with(ImagePullPolicy::Always),
        &o,
        &failed(true, false),
        &[Action::PullImage { container: "a".into(), image: "busybox:1".into() }],
    );
    let mut bad = desired();
    edit(&mut bad, |p| p.spec.containers[0].image = "Not A Name".into());
    assert_eq!(waits(&bad, &state(None)), ["InvalidImageName"]);
}

#[test]
fn an_ending_pod_stops_what_runs_with_what_is_left_of_its_grace() {
    let mut d = desired();
    let begun = Wall::from_seconds(990);
    d.life = Life::Terminating(Termination::new(begun, 30, TerminationCause::Deleted));
    acts(&d, &observed(), &verdicts(), &[kill("a", "a0", 20, KillReason::PodEnds), kill("b", "b0", 20, KillReason::PodEnds)]);
    let mut o = observed();
    o.containers = vec![record("a", "a0", exited(0, 1)), record("b", "b0", exited(0, 1))];
    acts(&d, &o, &verdicts(), &[Action::StopSandbox { id: "s0".into() }]);
    o.sandboxes = vec![sandbox("s0", 0, false)];
    acts(&d, &o, &verdicts(), &[Action::RecordOutcome]);
    let v = Verdicts { finished_before: true, ..verdicts() };
    let remove = |n: &str, id: &str| Action::RemoveContainer { name: n.into(), id: id.into() };
    acts(&d, &o, &v, &[remove("a", "a0"), remove("b", "b0"), Action::RemoveSandbox { id: "s0".into() }]);
    (o.containers, o.sandboxes) = (Vec::new(), Vec::new());
    acts(&d, &o, &v, &[Action::TearDown { forget: true }]);
}

#[test]
fn sidecars_end_after_what_they_serve_from_the_last_to_the_first() {
    let mut d = desired();
    let sidecar = |n: &str| Container { restart_policy: Some(ContainerRestartPolicy::Always), ..container(n) };
    edit(&mut d, |p| p.spec.init_containers = vec![sidecar("x"), sidecar("y")]);
    d.life = Life::Terminating(Termination::new(now().wall, 30, TerminationCause::Deleted));
    let mut o = observed();
    o.containers.push(record("x", "x0", running()));
    o.containers.push(record("y", "y0", running()));
    acts(&d, &o, &verdicts(), &[kill("a", "a0", 30, KillReason::PodEnds), kill("b", "b0", 30, KillReason::PodEnds)]);
    o.containers.retain(|c| c.name.len() == 1 && (*c.name == *"x" || *c.name == *"y"));
    acts(&d, &o, &verdicts(), &[kill("y", "y0", 30, KillReason::PodEnds)]);
    o.containers.pop();
    acts(&d, &o, &verdicts(), &[kill("x", "x0", 30, KillReason::PodEnds)]);
}

#[test]
fn grace_only_shrinks() {
    let mut t = Termination::new(Wall::default(), 30, TerminationCause::Deleted);
    t.shorten(60);
    assert_eq!(t.grace(), 30);
    t.shorten(5);
    t.shorten(0);
    assert_eq!(t.grace(), 1);
}

#[test]
fn old_records_are_collected_when_nothing_else_is_to_be_done() {
    let mut o = observed();
    o.containers.insert(1, record("a", "a-1", exited(1, 50)));
    o.containers.insert(2, record("a", "a-2", exited(1, 90)));
    acts(&desired(), &o, &verdicts(), &[Action::RemoveContainer { name: "a".into(), id: "a-2".into() }]);
}

#[test]
fn a_container_made_and_never_started_is_started_as_it_is() {
    let mut o = observed();
    o.containers[0] = record("a", "a0", ContainerState::Created);
    acts(&desired(), &o, &verdicts(), &[Action::ResumeContainer { name: "a".into(), id: "a0".into() }]);
}

#[test]
fn of_two_running_instances_the_older_goes() {
    let mut o = observed();
    o.containers.insert(1, record("a", "a-old", running()));
    acts(&desired(), &o, &verdicts(), &[kill("a", "a-old", 30, KillReason::Duplicate)]);
}
