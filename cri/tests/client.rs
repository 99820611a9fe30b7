//! The client against a runtime on a socket: every verb, every way to fail, the number of calls.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use longshore_cri::client::{CgroupDriver, Config};
use longshore_cri::container_config::{ContainerSpec, Image, Mount};
use longshore_cri::events::EventKind;
use longshore_cri::exec::Streams;
use longshore_cri::exit_watch::{ExitWatch, Watch};
use longshore_cri::fake::{Behaviour, ExecScript, FakeRuntime, Fault, Model, Options, RemoteImage, Subject, Usage};
use longshore_cri::images::Credentials;
use longshore_cri::labels::PodIdentity;
use longshore_cri::resources::Resources;
use longshore_cri::sandbox_config::SandboxSpec;
use longshore_cri::{Client, ContainerState, Kind, ObservedPod, Verb};
use tonic::Code;

/// How long a test waits for what must come.
const SOON: Duration = Duration::from_secs(20);

struct Bench {
    fake: FakeRuntime,
    client: Client,
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Bench::with(Options::default(), Duration::from_secs(20))
    }

    fn with(options: Options, request_timeout: Duration) -> Self {
        let directory = tempfile::tempdir().expect("a place for the socket");
        let mut model = Model::new();
        model.preload("img:1");
        let fake = FakeRuntime::serve(&directory.path().join("cri.sock"), model, options).expect("the socket is free");
        let config = Config { request_timeout, ..Config::new(&fake.endpoint()) };
        let client = Client::new(&config).expect("a unix socket");
        Bench { fake, client, directory }
    }

    fn pod(&self, n: u32) -> SandboxSpec {
        let mut spec = SandboxSpec::new(PodIdentity::new(&format!("uid-{n}"), "ns", &format!("pod-{n}")));
        spec.cgroup_parent = format!("/kubepods/poduid-{n}");
        spec.log_directory = self.directory.path().join(n.to_string()).to_string_lossy().into_owned();
        std::fs::create_dir_all(PathBuf::from(&spec.log_directory).join("c")).expect("our own");
        spec
    }

    fn container(spec: &SandboxSpec) -> ContainerSpec {
        let mut c = ContainerSpec::new(spec.pod.clone(), "c", Image::named("img:1"));
        c.facts.crash_streak = Some(2);
        c
    }

    /// A sandbox with one running container; their ids.
    async fn run(&self, n: u32) -> (String, String) {
        let spec = self.pod(n);
        let s = self.client.run_sandbox(&spec).await.expect("runs");
        let c = self.client.create(&s, &Self::container(&spec), &spec).await.expect("is created");
        self.client.start(&c).await.expect("starts");
        (s, c)
    }

    async fn observe(&self, n: u32) -> ObservedPod {
        let uid = format!("uid-{n}");
        self.client.observe(&uid, None).await.expect("answers").expect("is there")
    }

    fn count(&self, verb: Verb) -> usize {
        self.fake.with(|m, _| m.count(verb))
    }

    fn fail(&self, verb: Verb, fault: Fault) {
        self.fake.with(|m, _| m.fail_next(verb, fault));
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("in time")
}

#[tokio::test]
async fn a_pod_lives_from_sandbox_to_removal() {
    let b = Bench::new();
    let (s, c) = b.run(1).await;
    let pod = b.observe(1).await;
    assert_eq!((&*pod.namespace, &*pod.name), ("ns", "pod-1"));
    let sandbox = pod.sandbox().expect("one");
    assert!(sandbox.ready && sandbox.ips.len() == 1 && !sandbox.host_network);
    assert_eq!(sandbox.cgroup_parent.as_deref(), Some("/kubepods/poduid-1"));
    let seen = pod.container("c").expect("one");
    assert_eq!((&*seen.id, &*seen.sandbox_id), (c.as_str(), s.as_str()));
    assert!(seen.state.is_running());
    assert_eq!((seen.facts.crash_streak, &*seen.image), (Some(2), "img:1"));

    b.client.stop(&c, 5).await.expect("ends on TERM");
    assert_eq!(b.observe(1).await.container("c").expect("one").state.exit().expect("ended").exit_code, 0);
    b.client.stop_sandbox(&s).await.expect("stops");
    b.client.remove(&c).await.expect("is removed");
    b.client.remove_sandbox(&s).await.expect("is removed");
    assert_eq!(b.client.observe("uid-1", None).await.expect("answers"), None);

    // Gone is as good as deleted.
    b.client.stop(&c, 5).await.expect("gone");
    b.client.remove(&c).await.expect("gone");
    b.client.stop_sandbox(&s).await.expect("gone");
    b.client.remove_sandbox(&s).await.expect("gone");
    assert!(b.client.start(&c).await.expect_err("gone").is_not_found());
}

#[tokio::test]
async fn the_runtime_says_what_it_is() {
    let b = Bench::new();
    assert_eq!(b.client.version().await.expect("answers").runtime_name, "fake");
    assert_eq!(b.client.runtime_config().await.expect("answers"), CgroupDriver::Cgroupfs);
    b.client.update_runtime_config("10.0.0.0/24").await.expect("is taken");
    let conditions = b.client.status().await.expect("answers").status.expect("filled").conditions;
    assert!(conditions.iter().all(|c| c.status));

    let old = Bench::with(Options { events: false, cgroup_driver: None, ..Options::default() }, SOON);
    assert!(old.client.runtime_config().await.expect_err("too old").is_unimplemented());
    let resources = Resources::default();
    let refused = old.client.update_sandbox_resources("x", &resources, None).await;
    assert!(refused.expect_err("too old").is_unimplemented());
}

#[tokio::test]
async fn a_hung_call_ends_at_its_deadline_and_others_go_on() {
    let b = Bench::with(Options::default(), Duration::from_millis(300));
    let (_, c) = b.run(1).await;
    b.fail(Verb::StartContainer, Fault::Hang);
    let before = std::time::Instant::now();
    let (hung, other) = tokio::join!(b.client.start(&c), b.client.version());
    other.expect("the connection is fine");
    let e = hung.expect_err("hangs");
    assert_eq!((e.kind, e.verb, &*e.object), (Kind::Timeout, Verb::StartContainer, c.as_str()));
    let took = before.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(10), "{took:?}");
    b.client.version().await.expect("still fine");
}

#[tokio::test]
async fn a_stop_has_its_grace_on_top_of_the_deadline() {
    let b = Bench::with(Options::default(), Duration::from_millis(500));
    b.fake.with(|m, _| m.script(Subject::Image("img:1".into()), Behaviour::ignores_term()));
    let (_, c) = b.run(1).await;
    b.client.stop(&c, 1).await.expect("longer than the request timeout alone");
    assert_eq!(b.observe(1).await.container("c").expect("one").state.exit().expect("ended").exit_code, 137);
}

#[tokio::test]
async fn a_broken_connection_is_unavailable_and_then_works_again() {
    let mut b = Bench::new();
    b.fail(Verb::Version, Fault::Disconnect);
    let e = soon(b.client.version()).await.expect_err("the connection broke");
    assert_eq!(e.kind, Kind::Unavailable, "{e}");
    assert!(e.outcome_unknown());
    soon(b.client.version()).await.expect("connects anew");

    b.fake.stop();
    // The first call may still meet the broken connection; from then on there is none to be had.
    let mut e = soon(b.client.version()).await.expect_err("nobody is there");
    for _ in 0..2 {
        assert_eq!(e.kind, Kind::Unavailable, "{e}");
        e = soon(b.client.version()).await.expect_err("nobody is there");
    }
    assert!(e.to_string().contains("is the runtime running?"), "{e}");
    b.fake.start().expect("the socket is free");
    soon(b.client.version()).await.expect("it is back");

    b.fake.restart().expect("the socket is free");
    // The broken connection is noticed before or during the call; never after.
    if let Err(e) = soon(b.client.version()).await {
        assert_eq!(e.kind, Kind::Unavailable, "{e}");
        soon(b.client.version()).await.expect("connects anew");
    }
}

#[tokio::test]
async fn an_answer_lost_after_the_act_leaves_the_outcome_unknown() {
    let b = Bench::new();
    let spec = b.pod(1);
    b.fail(Verb::RunPodSandbox, Fault::DisconnectAfter);
    let e = soon(b.client.run_sandbox(&spec)).await.expect_err("the answer is lost");
    assert!(e.outcome_unknown(), "{e}");
    // It did happen: observation tells, and the name is taken.
    assert_eq!(b.observe(1).await.sandboxes.len(), 1);
    assert_eq!(b.client.run_sandbox(&spec).await.expect_err("taken").kind, Kind::Conflict);
}

#[tokio::test]
async fn refusals_keep_the_runtimes_words() {
    let b = Bench::new();
    b.fail(Verb::Version, Fault::Error(Code::PermissionDenied, "not you".into()));
    let e = b.client.version().await.expect_err("refused");
    assert_eq!((e.kind, &*e.description), (Kind::Denied, "not you"));
    assert_eq!(e.rpc_text(), "rpc error: code = PermissionDenied desc = not you");
    b.fail(Verb::Version, Fault::Error(Code::DeadlineExceeded, "too slow".into()));
    assert_eq!(b.client.version().await.expect_err("refused").kind, Kind::Timeout);
}

#[tokio::test]
async fn an_idle_relist_costs_two_calls_and_shares_all_pictures() {
    let b = Bench::new();
    for n in 0..20 {
        b.run(n).await;
    }
    let first = b.client.list_all(&[]).await.expect("answers");
    assert_eq!((first.pods.len(), first.unread.len()), (20, 0));
    assert_eq!(b.count(Verb::ContainerStatus), 20);

    b.fake.with(|m, _| m.forget_calls());
    let second = b.client.list_all(&first.pods).await.expect("answers");
    assert_eq!(b.fake.with(|m, _| m.calls().len()), 2);
    assert!(first.pods.iter().zip(&second.pods).all(|(a, b)| Arc::ptr_eq(a, b)));

    let id = second.pods[7].containers[0].id.to_string();
    b.fake.with(|m, now| m.crash(now, &id, 3)).expect("runs");
    b.fake.with(|m, _| m.forget_calls());
    let third = b.client.list_all(&second.pods).await.expect("answers");
    assert_eq!(b.fake.with(|m, _| m.calls().len()), 3);
    assert_eq!(third.pods[7].containers[0].state.exit().expect("crashed").exit_code, 3);
    assert!(Arc::ptr_eq(&second.pods[6], &third.pods[6]));
    assert!(Arc::ptr_eq(&second.pods[7].sandboxes[0], &third.pods[7].sandboxes[0]));
}

#[tokio::test]
async fn one_unreadable_pod_does_not_hide_the_others() {
    let b = Bench::new();
    for n in 0..3 {
        b.run(n).await;
    }
    b.fail(Verb::ContainerStatus, Fault::Error(Code::Internal, "stuck".into()));
    let relist = b.client.list_all(&[]).await.expect("the lists are fine");
    assert_eq!((relist.pods.len(), relist.unread.len()), (2, 1));
    assert_eq!(&*relist.unread[0].1.description, "stuck");
}

#[tokio::test]
async fn a_hung_pod_does_not_hold_up_a_relist() {
    let b = Bench::new();
    for n in 0..30 {
        b.run(n).await;
    }
    b.fail(Verb::ContainerStatus, Fault::Hang);
    let config = Config { relist_patience: Duration::from_millis(300), ..Config::new(&b.fake.endpoint()) };
    let client = Client::new(&config).expect("a unix socket");
    let relist = soon(client.list_all(&[])).await.expect("the lists are fine");
    assert_eq!((relist.pods.len(), relist.unread.len()), (29, 1));
    assert_eq!(relist.unread[0].1.kind, Kind::Timeout);
    assert!(relist.pods.is_sorted_by(|a, b| a.uid < b.uid));
}

#[tokio::test]
async fn observing_a_pod_asks_about_that_pod_alone() {
    let b = Bench::new();
    for n in 0..3 {
        b.run(n).await;
    }
    let (_, c) = b.run(3).await;
    b.client.stop(&c, 1).await.expect("ends");
    b.fake.with(|m, _| m.forget_calls());
    let pod = b.observe(3).await;
    assert_eq!(b.fake.with(|m, _| m.calls().len()), 4);
    // An exited container and a ready sandbox are settled: the second look is two lists.
    b.fake.with(|m, _| m.forget_calls());
    let again = b.client.observe("uid-3", Some(&pod)).await.expect("answers").expect("is there");
    assert_eq!(again, pod);
    assert_eq!(b.fake.with(|m, _| m.calls().len()), 2);
}

#[tokio::test]
async fn statuses_are_read_side_by_side() {
    let b = Bench::new();
    for n in 0..20 {
        b.run(n).await;
    }
    b.fake.with(|m, _| m.latency.insert(Verb::ContainerStatus, 20));
    let relist = b.client.list_all(&[]).await.expect("answers");
    assert_eq!(relist.pods.len(), 20);
    let peak = b.fake.peak(Verb::ContainerStatus);
    assert!((2..=8).contains(&peak), "{peak}");
}

#[tokio::test]
async fn strangers_are_not_seen() {
    let b = Bench::new();
    let config = longshore_cri::v1::PodSandboxConfig {
        metadata: Some(longshore_cri::v1::PodSandboxMetadata { name: "other".into(), uid: "other".into(), ..Default::default() }),
        ..Default::default()
    };
    b.fake.with(|m, now| m.run_sandbox(now, config, "")).expect("free");
    assert!(b.client.list_all(&[]).await.expect("answers").pods.is_empty());
}

#[tokio::test]
async fn commands_run_to_their_end_or_their_timeout() {
    let b = Bench::new();
    let (s, c) = b.run(1).await;
    b.fake.with(|m, _| {
        let fails = ExecScript { stdout: b"out".to_vec(), stderr: b"err".to_vec(), exit_code: 9, takes_ms: 0 };
        m.script_exec("c", &["false"], fails);
        m.script_exec("c", &["sleep"], ExecScript { takes_ms: 60_000, ..ExecScript::default() });
    });
    let command = |c: &str| vec![c.to_owned()];
    let out = b.client.exec_sync(&c, &command("false"), None).await.expect("ran");
    assert_eq!((out.stdout.as_slice(), out.stderr.as_slice(), out.exit_code), (&b"out"[..], &b"err"[..], 9));
    let sleep = command("sleep");
    let slow = b.client.exec_sync(&c, &sleep, Some(Duration::from_millis(10)));
    let e = soon(slow).await.expect_err("overruns");
    assert_eq!(e.kind, Kind::Timeout);
    assert!(e.description.contains("timeout 1s exceeded"), "{e}");
    assert_eq!(b.client.exec_sync(&c, &command("other"), None).await.expect("ran").exit_code, 0);

    let streams = Streams { stdout: true, ..Streams::default() };
    assert!(b.client.exec_url(&c, &command("sh"), streams).await.expect("running").contains("/exec/"));
    assert!(b.client.attach_url(&c, streams).await.expect("running").contains("/attach/"));
    assert!(b.client.port_forward_url(&s, &[80]).await.expect("there").contains("/portforward/"));
    b.client.reopen_log(&c).await.expect("running");
    assert_eq!(b.fake.with(|m, _| m.reopened_logs(&c)), 1);
}

#[tokio::test]
async fn resources_change_in_place() {
    let b = Bench::new();
    let (_, c) = b.run(1).await;
    let to = Resources::default().cpu(Some(200), Some(400), 100_000).memory(1 << 20);
    b.client.update_resources(&c, &to).await.expect("running");
    let pod = b.observe(1).await;
    let have = pod.container("c").and_then(|c| c.resources.as_deref()).expect("reported").clone();
    assert_eq!((have.cpu_shares, have.cpu_quota, have.memory_limit), (204, 40_000, 1 << 20));

    b.fake.with(|m, _| m.set_usage(&c, Usage { working_set_bytes: 4096, ..Usage::default() }));
    let all = b.client.list_container_stats().await.expect("answers");
    let one = b.client.container_stats(&c).await.expect("running");
    assert_eq!((all.len(), all[0].attributes == one.attributes), (1, true));
    assert_eq!(one.memory.and_then(|m| m.working_set_bytes).expect("reported").value, 4096);
}

#[tokio::test]
async fn pulls_try_one_credential_after_the_other() {
    let b = Bench::new();
    b.fake.with(|m, _| {
        let credentials = Some(("me".into(), "right".into()));
        m.publish("private:1", RemoteImage { credentials, pull_ms: 5, ..RemoteImage::default() });
    });
    let image = Image::named("private:1");
    assert_eq!(b.client.image_status(&image).await.expect("answers"), None);
    let without = b.client.pull_with_any(&image, &[], None).await.expect_err("is private");
    assert_eq!(without.len(), 1);
    assert!(without[0].pull_text().starts_with("failed to pull and unpack image"), "{}", without[0]);
    let both = [Credentials::basic("me", "wrong"), Credentials::basic("me", "right")];
    let pulled = b.client.pull_with_any(&image, &both, None).await.expect("the second works");
    assert_eq!(pulled.used, Some(1));
    let facts = b.client.image_status(&image).await.expect("answers").expect("present");
    assert_eq!(facts.id, pulled.image_ref);
    assert_eq!(b.client.list_images().await.expect("answers").len(), 2);
    assert_eq!(b.client.image_fs_info().await.expect("answers").image_filesystems.len(), 1);
    b.client.remove_image(&image).await.expect("present");
    b.client.remove_image(&image).await.expect("gone is fine");
}

#[tokio::test]
async fn a_pull_has_no_deadline() {
    let b = Bench::with(Options::default(), Duration::from_millis(50));
    b.fake.with(|m, _| m.publish("big:1", RemoteImage { pull_ms: 400, ..RemoteImage::default() }));
    soon(b.client.pull(&Image::named("big:1"), None, None)).await.expect("slow is fine");
}

#[tokio::test]
async fn events_arrive_until_the_connection_breaks() {
    let b = Bench::new();
    let (to, mut events) = tokio::sync::mpsc::channel(64);
    let client = b.client.clone();
    let forward = tokio::spawn(async move { client.forward_events(to).await });
    soon(b.fake.until(|m| m.count(Verb::GetContainerEvents) == 1)).await;
    let (_, c) = b.run(1).await;
    b.fake.with(|m, now| m.crash(now, &c, 1)).expect("runs");
    let mut seen = Vec::new();
    while seen.last() != Some(&EventKind::Stopped) {
        let e = soon(events.recv()).await.expect("open");
        assert_eq!(e.pod_uid.as_deref(), Some("uid-1"));
        if *e.container_id == *c {
            seen.push(e.kind);
        }
    }
    assert_eq!(seen, [EventKind::Created, EventKind::Started, EventKind::Stopped]);
    b.fake.disconnect();
    let e = soon(forward).await.expect("no panic").expect_err("the connection broke");
    assert_eq!(e.kind, Kind::Unavailable, "{e}");
}

#[tokio::test]
async fn a_runtime_without_events_says_so_and_a_dropped_receiver_ends_them() {
    let old = Bench::with(Options { events: false, ..Options::default() }, SOON);
    let (to, _events) = tokio::sync::mpsc::channel(1);
    assert!(soon(old.client.forward_events(to)).await.expect_err("too old").is_unimplemented());

    let b = Bench::new();
    let (to, events) = tokio::sync::mpsc::channel(1);
    drop(events);
    soon(b.client.forward_events(to)).await.expect("nobody listens");
}

#[tokio::test]
async fn exits_are_seen_without_events() {
    let b = Bench::with(Options { events: false, processes: true, ..Options::default() }, SOON);
    let (_, c) = b.run(1).await;
    let pod = b.observe(1).await;
    let seen = pod.container("c").expect("one");
    let ContainerState::Running { started_at } = seen.state else { panic!("{:?}", seen.state) };
    let (to, mut exits) = tokio::sync::mpsc::channel(1);
    let mut watch = ExitWatch::new(to);
    let pid = seen.pid.expect("a process of its own");
    assert_eq!(watch.watch(&c, pid, started_at).expect("pidfds exist"), Watch::Watching);
    b.fake.with(|m, now| m.crash(now, &c, 1)).expect("runs");
    assert_eq!(soon(exits.recv()).await.as_deref(), Some(c.as_str()));
    assert!(soon(b.client.await_exit(&c, SOON)).await.expect("answers"));
    assert_eq!(b.observe(1).await.container("c").expect("one").pid, None);
}

#[tokio::test]
async fn an_exit_is_awaited_until_the_runtime_knows_it() {
    let b = Bench::new();
    let (_, c) = b.run(1).await;
    let short = Duration::from_millis(30);
    assert!(!b.client.await_exit(&c, short).await.expect("answers"));
    let (known, ()) = tokio::join!(b.client.await_exit(&c, SOON), async {
        b.fake.with(|m, now| m.crash(now, &c, 1)).expect("runs");
    });
    assert!(known.expect("answers"));
    b.client.remove(&c).await.expect("ended");
    assert!(b.client.await_exit(&c, SOON).await.expect("gone is ended"));
}

#[tokio::test]
async fn containers_write_their_logs_and_last_words() {
    let b = Bench::new();
    let mut behaviour = Behaviour::exits(1, 4);
    behaviour.output = vec!["hello".into()];
    behaviour.termination_message = Some("bye".into());
    b.fake.with(|m, _| m.script(Subject::Image("img:1".into()), behaviour));
    let spec = b.pod(1);
    let words = b.directory.path().join("words");
    let mut c = Bench::container(&spec);
    c.facts.termination_message_path = "/dev/termination-log".into();
    c.mounts.push(Mount::bind(&words.to_string_lossy(), "/dev/termination-log", false));
    let s = b.client.run_sandbox(&spec).await.expect("runs");
    let id = b.client.create(&s, &c, &spec).await.expect("is created");
    b.client.start(&id).await.expect("starts");
    assert!(b.client.await_exit(&id, SOON).await.expect("answers"));
    let pod = b.observe(1).await;
    let seen = pod.container("c").expect("one");
    let log = std::fs::read_to_string(&*seen.log_path).expect("written");
    assert!(log.ends_with(" stdout F hello\n"), "{log}");
    let file = seen.termination_message_file().expect("mounted");
    assert_eq!(std::fs::read_to_string(file).expect("written"), "bye");
}

#[tokio::test]
async fn images_may_live_behind_another_socket() {
    let runtime = Bench::new();
    let images = Bench::new();
    images.fake.with(|m, _| m.publish("only-here:1", RemoteImage::default()));
    let config = Config { image_endpoint: Some(images.fake.endpoint()), ..Config::new(&runtime.fake.endpoint()) };
    let client = Client::new(&config).expect("unix sockets");
    client.pull(&Image::named("only-here:1"), None, None).await.expect("is there");
    client.version().await.expect("answers");
    assert_eq!(images.count(Verb::Version), 0);
    assert_eq!(runtime.count(Verb::PullImage), 0);
}
