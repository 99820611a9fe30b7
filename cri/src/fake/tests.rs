//! The model keeps to what a strict runtime does.

use super::*;
use crate::container_config::{ContainerSpec, Image};
use crate::labels::PodIdentity;
use crate::sandbox_config::SandboxSpec;
use crate::snapshot::ContainerState;
use crate::v1;
use proptest::prelude::*;
use tonic::Code;

const MS: i64 = 1_000_000;

fn model() -> Model {
    let mut m = Model::new();
    m.preload("img:1");
    m
}

fn pod() -> PodIdentity {
    PodIdentity::new("u1", "ns", "web")
}

fn container(name: &str, restart_count: u32) -> v1::ContainerConfig {
    let mut spec = ContainerSpec::new(pod(), name, Image::named("img:1"));
    spec.facts.restart_count = restart_count;
    spec.to_cri()
}

fn sandbox(m: &mut Model, now: i64) -> String {
    m.run_sandbox(now, SandboxSpec::new(pod()).to_cri(), "").expect("nothing in the way")
}

fn running(m: &mut Model, behaviour: Behaviour) -> String {
    m.script(Subject::Image("img:1".into()), behaviour);
    let s = sandbox(m, 0);
    let c = m.create(0, &s, container("c", 0)).expect("nothing in the way");
    m.start(0, &c).expect("scripted to start");
    c
}

fn exit_of(m: &Model, id: &str) -> (i32, i64) {
    let pod = m.observe("u1").expect("there");
    let exit = pod.by_id(id).expect("there").state.exit().expect("exited").clone();
    (exit.exit_code, exit.finished_at / MS)
}

#[test]
fn names_are_reserved_until_removed() {
    let mut m = model();
    let s = sandbox(&mut m, 0);
    let again = m.run_sandbox(0, SandboxSpec::new(pod()).to_cri(), "").expect_err("taken");
    assert!(again.message.contains("is reserved for"), "{again:?}");
    let c = m.create(0, &s, container("c", 0)).expect("free");
    assert!(m.create(0, &s, container("c", 0)).expect_err("taken").message.contains("is reserved for"));
    m.create(0, &s, container("c", 1)).expect("another attempt");
    m.remove(0, &c).expect("never started");
    m.create(0, &s, container("c", 0)).expect("free again");
}

#[test]
fn a_container_starts_once() {
    let mut m = model();
    let c = running(&mut m, Behaviour::default());
    assert!(m.start(0, &c).expect_err("runs already").message.contains("CONTAINER_RUNNING"));
}

#[test]
fn a_stopped_sandbox_takes_no_containers() {
    let mut m = model();
    let s = sandbox(&mut m, 0);
    let c = m.create(0, &s, container("c", 0)).expect("ready");
    m.stop_sandbox(0, &s).expect("there");
    m.stop_sandbox(0, &s).expect("twice is fine");
    assert!(m.create(0, &s, container("d", 0)).is_err());
    assert!(m.start(0, &c).is_err());
    let seen = m.observe("u1").expect("there");
    assert!(!seen.sandboxes[0].ready && seen.sandboxes[0].ips.is_empty());
}

#[test]
fn what_runs_cannot_be_removed() {
    let mut m = model();
    let c = running(&mut m, Behaviour::default());
    assert_eq!(m.remove(0, &c).expect_err("runs").code, Code::FailedPrecondition);
    let s = m.list_sandboxes(None)[0].id.clone();
    assert!(m.remove_sandbox(0, &s).is_err());
    m.stop_sandbox(5 * MS, &s).expect("there");
    assert_eq!(exit_of(&m, &c), (137, 5));
    m.remove_sandbox(5 * MS, &s).expect("stopped");
    assert_eq!(m.observe("u1"), None);
    assert_eq!(m.remove(0, &c).expect_err("gone with its sandbox").code, Code::NotFound);
}

#[test]
fn unknown_ids_are_not_found() {
    let mut m = model();
    for refused in [
        m.start(0, "x").expect_err("unknown"),
        m.stop(0, "x", 1).map(drop).expect_err("unknown"),
        m.remove(0, "x").expect_err("unknown"),
        m.stop_sandbox(0, "x").expect_err("unknown"),
        m.remove_sandbox(0, "x").expect_err("unknown"),
        m.create(0, "x", container("c", 0)).map(drop).expect_err("unknown"),
    ] {
        assert_eq!(refused.code, Code::NotFound, "{refused:?}");
    }
}

#[test]
fn stop_waits_for_term_and_then_kills() {
    let mut m = model();
    let c = running(&mut m, Behaviour::ends_on_term(300, 7));
    assert_eq!(m.stop(0, &c, 1000), Ok(300 * MS));
    m.advance(299 * MS);
    assert!(m.observe("u1").expect("there").by_id(&c).expect("there").state.is_running());
    m.advance(300 * MS);
    assert_eq!(exit_of(&m, &c), (7, 300));

    let mut m = model();
    let c = running(&mut m, Behaviour::ignores_term());
    assert_eq!(m.stop(0, &c, 1000), Ok(1000 * MS));
    // A second stop with a shorter grace shortens the wait; a longer one does not stretch it.
    assert_eq!(m.stop(100 * MS, &c, 50), Ok(150 * MS));
    assert_eq!(m.stop(120 * MS, &c, 5000), Ok(150 * MS));
    m.advance(200 * MS);
    assert_eq!(exit_of(&m, &c), (137, 150));
    assert_eq!(m.stop(300 * MS, &c, 10), Ok(300 * MS));
}

#[test]
fn lives_end_as_scripted() {
    let mut m = model();
    let c = running(&mut m, Behaviour::exits(20, 3));
    assert_eq!(m.next_change_at(), Some(20 * MS));
    m.advance(30 * MS);
    assert_eq!(exit_of(&m, &c), (3, 20));

    let mut m = model();
    let c = running(&mut m, Behaviour::out_of_memory(5));
    m.advance(5 * MS);
    let pod = m.observe("u1").expect("there");
    let exit = pod.by_id(&c).expect("there").state.exit().expect("ended").clone();
    assert_eq!((exit.exit_code, &*exit.reason), (137, "OOMKilled"));

    let mut m = model();
    m.script(Subject::Image("img:1".into()), Behaviour::fails_to_start("no such file"));
    let s = sandbox(&mut m, 0);
    let c = m.create(0, &s, container("c", 0)).expect("creation is fine");
    assert_eq!(m.start(MS, &c).expect_err("scripted").message, "no such file");
    assert_eq!(exit_of(&m, &c), (128, 1));
}

#[test]
fn the_narrowest_script_counts() {
    let mut m = model();
    let of = |m: &Model, id: &str| m.observe("u1").expect("there").by_id(id).expect("there").state.clone();
    m.script(Subject::Image("img:1".into()), Behaviour::exits(1, 1));
    m.script(Subject::Run { pod: "web".into(), container: "c".into(), attempt: 1 }, Behaviour::default());
    let s = sandbox(&mut m, 0);
    let first = m.create(0, &s, container("c", 0)).expect("free");
    let second = m.create(0, &s, container("c", 1)).expect("free");
    m.start(0, &first).expect("starts");
    m.start(0, &second).expect("starts");
    m.advance(10 * MS);
    assert!(of(&m, &first).exit().is_some());
    assert_eq!(of(&m, &second), ContainerState::Running { started_at: 0 });
}

#[test]
fn a_failed_network_may_leave_a_sandbox_with_its_name_taken() {
    let mut m = model();
    m.network_ready = false;
    let spec = || SandboxSpec::new(pod()).to_cri();
    assert!(m.run_sandbox(0, spec(), "").expect_err("no network").message.contains("cni plugin"));
    assert_eq!(m.observe("u1"), None);
    m.keeps_failed_sandboxes = true;
    m.run_sandbox(0, spec(), "").expect_err("no network");
    assert!(!m.observe("u1").expect("left behind").sandboxes[0].ready);
    m.network_ready = true;
    assert!(m.run_sandbox(0, spec(), "").expect_err("taken").message.contains("is reserved for"));
}

#[test]
fn images_come_by_pull_and_are_needed() {
    let mut m = Model::new();
    let s = sandbox(&mut m, 0);
    assert_eq!(m.create(0, &s, container("c", 0)).expect_err("no image").code, Code::NotFound);
    assert_eq!(m.pull(0, "img:1", None).expect_err("not published").code, Code::NotFound);
    let credentials = Some(("me".to_owned(), "pw".to_owned()));
    m.publish("img:1", RemoteImage { pull_ms: 40, credentials, ..RemoteImage::default() });
    assert!(m.pull(0, "img:1", None).is_err());
    let auth = v1::AuthConfig { username: "me".into(), password: "pw".into(), ..Default::default() };
    let (image_ref, done) = m.pull(0, "img:1", Some(&auth)).expect("credentials are right");
    assert_eq!((m.image("img:1"), done), (None, 40 * MS));
    m.advance(done);
    assert_eq!(m.image("img:1").map(|i| i.id), Some(image_ref.clone()));
    assert!(m.image(&image_ref).is_some());
    m.create(done, &s, container("c", 0)).expect("present now");
    m.remove_image(done, &image_ref).expect("present");
    assert_eq!(m.remove_image(done, "img:1").expect_err("gone").code, Code::NotFound);
}

#[test]
fn faults_strike_whom_they_are_meant_for() {
    let mut m = model();
    let fault = Fault::Error(Code::Internal, "boom".into());
    m.add_fault(FaultRule { verb: crate::Verb::StartContainer, object: "abc".into(), times: Some(1), fault: fault.clone() });
    assert_eq!(m.arrive(crate::Verb::StopContainer, "abc"), None);
    assert_eq!(m.arrive(crate::Verb::StartContainer, "xyz"), None);
    assert_eq!(m.arrive(crate::Verb::StartContainer, "1abc2"), Some(fault));
    assert_eq!(m.arrive(crate::Verb::StartContainer, "1abc2"), None);
    assert_eq!(m.count(crate::Verb::StartContainer), 3);
}

#[test]
fn events_tell_a_life_in_order() {
    let mut m = model();
    let c = running(&mut m, Behaviour::exits(5, 0));
    m.advance(9 * MS);
    m.remove(9 * MS, &c).expect("ended");
    let of: Vec<_> = m.take_events().into_iter().filter(|e| e.id == c).map(|e| (e.kind, e.at / MS)).collect();
    use v1::ContainerEventType as T;
    assert_eq!(
        of,
        [(T::ContainerCreatedEvent, 0), (T::ContainerStartedEvent, 0), (T::ContainerStoppedEvent, 5), (T::ContainerDeletedEvent, 9),]
    );
}

#[derive(Debug, Clone)]
enum Op {
    Run(u32),
    StopSandbox(usize),
    RemoveSandbox(usize),
    Create(usize, u32),
    Start(usize),
    Stop(usize, i64),
    Remove(usize),
    Wait(i64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..3u32).prop_map(Op::Run),
        any::<prop::sample::Index>().prop_map(|i| Op::StopSandbox(i.index(64))),
        any::<prop::sample::Index>().prop_map(|i| Op::RemoveSandbox(i.index(64))),
        (any::<prop::sample::Index>(), 0..3u32).prop_map(|(i, n)| Op::Create(i.index(64), n)),
        any::<prop::sample::Index>().prop_map(|i| Op::Start(i.index(64))),
        (any::<prop::sample::Index>(), 0..50i64).prop_map(|(i, g)| Op::Stop(i.index(64), g)),
        any::<prop::sample::Index>().prop_map(|i| Op::Remove(i.index(64))),
        (0..30i64).prop_map(Op::Wait),
    ]
}

proptest! {
    /// Whatever is asked, in whatever order: nothing runs outside a ready sandbox, addresses are
    /// unique, and time leaves nothing overdue.
    #[test]
    fn the_model_stays_consistent(ops in prop::collection::vec(op(), 1..60)) {
        let mut m = model();
        m.script(Subject::Image("img:1".into()), Behaviour {
            life: Life::Exits { after_ms: 25, code: 1 },
            on_term: OnTerm::Exits { after_ms: 10, code: 0 },
            ..Behaviour::default()
        });
        let (mut now, mut sandboxes, mut containers) = (0, vec!["none".to_owned()], vec!["none".to_owned()]);
        for op in ops {
            let s = |i: usize| sandboxes[i % sandboxes.len()].clone();
            let c = |i: usize| containers[i % containers.len()].clone();
            match op {
                Op::Run(attempt) => {
                    let spec = SandboxSpec { attempt, ..SandboxSpec::new(pod()) };
                    sandboxes.extend(m.run_sandbox(now, spec.to_cri(), ""));
                }
                Op::StopSandbox(i) => { let _ = m.stop_sandbox(now, &s(i)); }
                Op::RemoveSandbox(i) => { let _ = m.remove_sandbox(now, &s(i)); }
                Op::Create(i, n) => containers.extend(m.create(now, &s(i), container("c", n))),
                Op::Start(i) => { let _ = m.start(now, &c(i)); }
                Op::Stop(i, grace) => {
                    if let Ok(until) = m.stop(now, &c(i), grace) {
                        prop_assert!(until >= now && until <= now + grace * MS);
                    }
                }
                Op::Remove(i) => { let _ = m.remove(now, &c(i)); }
                Op::Wait(ms) => { now += ms * MS; m.advance(now); }
            }
            prop_assert!(m.next_change_at().is_none_or(|at| at > now));
            let mut ips = Vec::new();
            for pod in m.observe_all() {
                for c in pod.running() {
                    let sandbox = pod.sandboxes.iter().find(|s| s.id == c.sandbox_id);
                    prop_assert!(sandbox.is_some_and(|s| s.ready), "runs outside a ready sandbox");
                }
                ips.extend(pod.sandboxes.iter().flat_map(|s| s.ips.to_vec()));
            }
            let all = ips.len();
            ips.sort();
            ips.dedup();
            prop_assert_eq!(ips.len(), all);
        }
    }
}
