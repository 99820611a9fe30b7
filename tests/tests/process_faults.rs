//! The whole daemon while its runtime fails: errors, calls that are never answered, lost answers, broken
//! connections, a runtime that is gone for a while; and the daemon killed in the middle of each call.

use anyhow::{Context, Result, ensure};
use longshore_cri::error::Verb;
use longshore_cri::fake::{Fault, FaultRule, Model, Options as FakeOptions};
use longshore_cri::snapshot::ContainerState;
use longshore_tests::lab::FakeNode;
use longshore_tests::lab::daemon::Options;
use tonic::Code;

/// Calls that happen while a pod starts.
const STARTING: [Verb; 6] =
    [Verb::ImageStatus, Verb::RunPodSandbox, Verb::PodSandboxStatus, Verb::CreateContainer, Verb::StartContainer, Verb::ContainerStatus];
/// Those that happen while one ends. What a pod leaves behind is listed first.
const ENDING: [Verb; 4] = [Verb::StopContainer, Verb::RemoveContainer, Verb::StopPodSandbox, Verb::RemovePodSandbox];

const ONE: &str = "{ terminationGracePeriodSeconds: 1, containers: [ { name: main, image: 'app:1' } ] }";

fn node() -> Result<FakeNode> {
    let options = Options { arguments: vec!["--runtime-request-timeout".into(), "1s".into()], ..Options::default() };
    FakeNode::start(options, FakeOptions::default(), |_| {})
}

fn once(verb: Verb, fault: Fault) -> FaultRule {
    FaultRule { verb, object: String::new(), times: Some(1), fault }
}

/// Containers that run, over all pods of this name.
fn running(m: &Model, pod: &str) -> usize {
    let pods = m.observe_all();
    let containers = pods.iter().filter(|p| &*p.name == pod).flat_map(|p| &p.containers);
    containers.filter(|c| matches!(c.state, ContainerState::Running { .. })).count()
}

fn is_gone(m: &Model, pod: &str) -> bool {
    m.observe_all().iter().all(|p| &*p.name != pod)
}

/// The pod runs exactly once: one ready sandbox, one running container.
fn runs_once(node: &FakeNode, pod: &str) -> Result<()> {
    node.fake.with(|m, _| {
        let pods = m.observe_all();
        let ready = pods.iter().filter(|p| &*p.name == pod).flat_map(|p| &p.sandboxes).filter(|s| s.ready).count();
        ensure!((ready, running(m, pod)) == (1, 1), "{pod}: {ready} ready sandboxes, {} running containers", running(m, pod));
        Ok(())
    })
}

/// Starts a pod and takes it away while the runtime fails once.
fn one_life(node: &FakeNode, name: &str, verb: Verb, fault: &Fault) -> Result<()> {
    node.fake.with(|m, _| m.add_fault(once(verb, fault.clone())));
    node.apply(name, ONE)?;
    node.wait_for_phase(name, "Running")?;
    runs_once(node, name)?;
    node.remove(name)?;
    node.until("the pod is gone", |m| is_gone(m, name))?;
    // A rule that struck nothing would be a test of nothing.
    let struck = node.fake.with(|m, _| m.count(verb)) > 0;
    node.fake.with(|m, _| {
        m.clear_faults();
        m.forget_calls();
    });
    ensure!(struck, "no call of {verb:?} was made");
    Ok(())
}

fn every_call_fails_once(fault: &Fault) -> Result<()> {
    let node = node()?;
    for (n, verb) in STARTING.into_iter().chain(ENDING).enumerate() {
        one_life(&node, &format!("p{n}"), verb, fault).with_context(|| format!("{verb:?} with {fault:?}; log:\n{}", node.daemon.log()))?;
    }
    Ok(())
}

#[test]
fn a_refused_call_is_made_again() -> Result<()> {
    every_call_fails_once(&Fault::Error(Code::Internal, "not now".into()))
}

#[test]
fn a_call_that_is_never_answered_is_given_up_and_made_again() -> Result<()> {
    every_call_fails_once(&Fault::Hang)
}

#[test]
fn a_connection_that_breaks_is_made_anew() -> Result<()> {
    every_call_fails_once(&Fault::Disconnect)
}

#[test]
fn a_lost_answer_starts_nothing_twice() -> Result<()> {
    every_call_fails_once(&Fault::DisconnectAfter)
}

#[test]
fn a_hung_pod_holds_up_no_other() -> Result<()> {
    let node = node()?;
    node.fake.with(|m, _| m.add_fault(FaultRule { verb: Verb::RunPodSandbox, object: "stuck".into(), times: None, fault: Fault::Hang }));
    node.apply("stuck", ONE)?;
    node.until("the stuck pod's call is under way", |m| m.count(Verb::RunPodSandbox) > 0)?;
    for n in 0..5 {
        let name = format!("free{n}");
        node.apply(&name, ONE)?;
        node.wait_for_phase(&name, "Running")?;
    }
    assert_eq!(node.wait_for_phase("stuck", "Pending")?["status"]["phase"], "Pending");
    node.fake.with(|m, _| m.clear_faults());
    node.wait_for_phase("stuck", "Running")?;
    runs_once(&node, "stuck")
}

#[test]
fn a_runtime_that_went_away_and_came_back_restarts_nothing() -> Result<()> {
    let mut node = node()?;
    for name in ["a", "b"] {
        node.apply(name, ONE)?;
        node.wait_for_phase(name, "Running")?;
    }
    let started = node.fake.with(|m, _| m.count(Verb::StartContainer));
    node.stop_runtime();
    node.apply("late", ONE)?;
    node.remove("b")?;
    // Its manifest is read, and nothing can come of it yet.
    node.wait_for_phase("late", "Pending")?;
    node.start_runtime()?;
    node.wait_for_phase("late", "Running")?;
    node.until("b is gone", |m| is_gone(m, "b"))?;
    runs_once(&node, "a")?;
    assert_eq!(node.fake.with(|m, _| m.count(Verb::StartContainer)), started + 1);
    Ok(())
}

/// Kills the daemon while a call is under way (`Hang`: it had not happened; `DisconnectAfter`: it had) and
/// starts it again.
fn killed_in(node: &mut FakeNode, verb: Verb, fault: Fault, provoke: impl FnOnce(&FakeNode) -> Result<()>) -> Result<()> {
    node.fake.with(|m, _| {
        m.forget_calls();
        m.add_fault(FaultRule { verb, object: String::new(), times: None, fault });
    });
    provoke(node)?;
    node.until("the call arrives", |m| m.count(verb) > 0)?;
    node.daemon.kill_nine();
    node.fake.with(|m, _| m.clear_faults());
    node.daemon.launch()
}

fn killed_in_every_call(fault: &Fault) -> Result<()> {
    let mut node = node()?;
    for (n, verb) in STARTING.into_iter().enumerate() {
        let name = format!("start{n}");
        killed_in(&mut node, verb, fault.clone(), |node| node.apply(&name, ONE)).with_context(|| format!("{verb:?}"))?;
        let pod = node.wait_for_phase(&name, "Running").with_context(|| format!("after {verb:?}"))?;
        runs_once(&node, &name)?;
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "after {verb:?}");
    }
    for (n, verb) in ENDING.into_iter().enumerate() {
        let name = format!("end{n}");
        node.apply(&name, ONE)?;
        node.wait_for_phase(&name, "Running")?;
        killed_in(&mut node, verb, fault.clone(), |node| node.remove(&name)).with_context(|| format!("{verb:?}"))?;
        node.until("the pod is gone", |m| is_gone(m, &name)).with_context(|| format!("after {verb:?}"))?;
    }
    for n in 0..STARTING.len() {
        runs_once(&node, &format!("start{n}"))?;
    }
    Ok(())
}

#[test]
fn a_daemon_killed_before_the_runtime_acts_goes_on_where_it_was() -> Result<()> {
    killed_in_every_call(&Fault::Hang)
}

#[test]
fn a_daemon_killed_after_the_runtime_acted_finds_what_was_done() -> Result<()> {
    killed_in_every_call(&Fault::DisconnectAfter)
}
