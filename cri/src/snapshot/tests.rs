//! Reading messages into pictures.

use super::*;
use crate::v1;
use proptest::prelude::*;

fn labels(uid: &str, container: Option<&str>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    PodIdentity::new(uid, "ns", "pod").write(&mut labels);
    if let Some(name) = container {
        labels.insert(crate::labels::CONTAINER_NAME.into(), name.into());
    }
    labels
}

fn listed_sandbox(id: &str, uid: &str, attempt: u32, created_at: i64) -> v1::PodSandbox {
    v1::PodSandbox {
        id: id.into(),
        metadata: Some(v1::PodSandboxMetadata { attempt, ..Default::default() }),
        created_at,
        labels: labels(uid, None),
        ..Default::default()
    }
}

fn listed_container(id: &str, uid: &str, state: v1::ContainerState) -> v1::Container {
    v1::Container { id: id.into(), pod_sandbox_id: "s".into(), state: state as i32, labels: labels(uid, Some("c")), ..Default::default() }
}

fn sandbox_answer(id: &str, attempt: u32, created_at: i64) -> v1::PodSandboxStatusResponse {
    v1::PodSandboxStatusResponse {
        status: Some(v1::PodSandboxStatus {
            id: id.into(),
            metadata: Some(v1::PodSandboxMetadata { attempt, ..Default::default() }),
            created_at,
            labels: labels("u", None),
            network: Some(v1::PodSandboxNetworkStatus { ip: "10.0.0.1".into(), additional_ips: vec![v1::PodIp { ip: "fd00::1".into() }] }),
            annotations: BTreeMap::from([
                ("kubernetes.io/config.source".into(), "file".into()),
                ("kubectl.kubernetes.io/last-applied-configuration".into(), "long".into()),
            ]),
            ..Default::default()
        }),
        info: BTreeMap::from([("info".into(), r#"{"pid":42,"config":{"linux":{"cgroup_parent":"/kubepods/podu"}},"x":[{}]}"#.into())]),
        ..Default::default()
    }
}

fn container_answer(id: &str, state: v1::ContainerState) -> v1::ContainerStatusResponse {
    v1::ContainerStatusResponse {
        status: Some(v1::ContainerStatus {
            id: id.into(),
            state: state as i32,
            started_at: 5,
            finished_at: 7,
            exit_code: 3,
            reason: "Error".into(),
            labels: labels("u", Some("c")),
            ..Default::default()
        }),
        info: BTreeMap::from([("info".into(), r#"{"pid":77,"sandboxID":"s"}"#.into())]),
    }
}

fn read(id: &str, state: v1::ContainerState) -> ObservedContainer {
    container(container_answer(id, state), "s").expect("has the labels").1
}

#[test]
fn objects_without_a_kubelets_labels_are_left_out() {
    let stranger = v1::PodSandbox { id: "x".into(), ..Default::default() };
    let mut unnamed = listed_container("c0", "u", v1::ContainerState::ContainerRunning);
    unnamed.labels.remove(crate::labels::CONTAINER_NAME);
    let listing = Listing::new(vec![stranger, listed_sandbox("s", "u", 0, 1)], vec![unnamed]);
    let pods: Vec<_> = listing.pods.values().collect();
    assert_eq!(pods.len(), 1);
    assert_eq!((pods[0].sandboxes.len(), pods[0].containers.len()), (1, 0));
    assert_eq!(container(v1::ContainerStatusResponse::default(), "s"), None);
}

#[test]
fn a_sandbox_shows_addresses_cgroup_and_where_its_pod_came_from() {
    let (identity, s) = sandbox(sandbox_answer("s", 2, 9)).expect("has the labels");
    assert_eq!(&*identity.uid, "u");
    assert_eq!(s.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1", "fd00::1"]);
    assert_eq!(s.cgroup_parent.as_deref(), Some("/kubepods/podu"));
    assert_eq!(s.pid, Some(42));
    assert_eq!(s.annotations.keys().map(|k| &**k).collect::<Vec<_>>(), ["kubernetes.io/config.source"]);
}

#[test]
fn verbose_text_that_does_not_parse_tells_nothing() {
    let mut answer = container_answer("c", v1::ContainerState::ContainerRunning);
    answer.info.insert("info".into(), "not json".into());
    let (_, c) = container(answer, "s").expect("has the labels");
    assert_eq!(c.pid, None);
    assert_eq!(c.state, ContainerState::Running { started_at: 5 });
}

#[test]
fn only_a_running_container_has_a_first_process() {
    assert_eq!(read("c", v1::ContainerState::ContainerRunning).pid, Some(77));
    let ended = read("c", v1::ContainerState::ContainerExited);
    assert_eq!(ended.pid, None);
    let exit = ended.state.exit().expect("exited");
    assert_eq!((exit.exit_code, exit.started_at, exit.finished_at), (3, 5, 7));
}

#[test]
fn unchanged_objects_are_not_asked_again_and_stay_shared() {
    use v1::ContainerState::{ContainerExited, ContainerRunning};
    let sandboxes = vec![listed_sandbox("s", "u", 0, 1)];
    let listing =
        Listing::new(sandboxes.clone(), vec![listed_container("a", "u", ContainerRunning), listed_container("b", "u", ContainerExited)]);
    let pod = &listing.pods["u"];
    assert_eq!(pod.changes(None), Changes { sandboxes: vec!["s".into()], containers: vec![("a".into(), true), ("b".into(), false)] });
    let (_, s) = sandbox(sandbox_answer("s", 0, 1)).expect("has the labels");
    let first = pod.assemble(None, vec![s], vec![read("a", ContainerRunning), read("b", ContainerExited)]);
    assert!(pod.matches(&first));

    let later = Listing::new(sandboxes, vec![listed_container("a", "u", ContainerExited), listed_container("b", "u", ContainerExited)]);
    let pod = &later.pods["u"];
    assert!(!pod.matches(&first));
    let changes = pod.changes(Some(&first));
    assert_eq!(changes, Changes { sandboxes: vec![], containers: vec![("a".into(), false)] });
    let second = pod.assemble(Some(&first), vec![], vec![read("a", ContainerExited)]);
    assert!(Arc::ptr_eq(first.by_id("b").expect("there"), second.by_id("b").expect("there")));
    assert!(second.by_id("a").expect("there").state.exit().is_some());
}

#[test]
fn a_removed_object_leaves_the_picture() {
    use v1::ContainerState::ContainerExited;
    let full = Listing::new(vec![], vec![listed_container("a", "u", ContainerExited)]);
    let first = full.pods["u"].assemble(None, vec![], vec![read("a", ContainerExited)]);
    let fewer = Listing::new(vec![listed_sandbox("s", "u", 0, 1)], vec![]);
    assert!(!fewer.pods["u"].matches(&first));
    let second = fewer.pods["u"].assemble(Some(&first), vec![], vec![]);
    assert!(second.is_empty());
}

#[test]
fn a_ready_sandbox_without_an_address_is_asked_again() {
    let mut answer = sandbox_answer("s", 0, 1);
    answer.status.as_mut().expect("there").network = None;
    let (_, s) = sandbox(answer).expect("has the labels");
    let listing = Listing::new(vec![listed_sandbox("s", "u", 0, 1)], vec![]);
    let pod = &listing.pods["u"];
    let first = pod.assemble(None, vec![s], vec![]);
    assert_eq!(pod.changes(Some(&first)).sandboxes, ["s"]);
}

#[test]
fn the_termination_message_is_found_by_its_mount() {
    let mut c = read("a", v1::ContainerState::ContainerExited);
    assert_eq!(c.termination_message_file(), None);
    c.facts.termination_message_path = "/dev/termination-log".into();
    c.mounts = Box::new([ObservedMount {
        container_path: "/dev/termination-log".into(),
        host_path: "/var/lib/kubelet/pods/u/containers/a/1".into(),
        readonly: false,
        recursive_readonly: false,
    }]);
    assert_eq!(c.termination_message_file(), Some("/var/lib/kubelet/pods/u/containers/a/1"));
}

#[test]
fn a_hundred_pods_are_small() {
    // The fixed part; texts come on top.
    let fixed = size_of::<ObservedPod>() + size_of::<ObservedSandbox>() + size_of::<ObservedContainer>();
    assert!(fixed <= 1024, "{fixed} bytes per pod");
}

proptest! {
    #[test]
    fn newest_comes_first(order in Just(vec![(0u32, 5i64), (1, 4), (1, 6), (2, 1)]).prop_shuffle()) {
        let sandboxes = order.iter().map(|(a, t)| {
            sandbox(sandbox_answer(&format!("s{a}{t}"), *a, *t)).expect("has the labels").1
        }).collect();
        let containers = order.iter().map(|(a, t)| ObservedContainer {
            attempt: *a, created_at: *t, name: "c".into(), ..read(&format!("c{a}{t}"), v1::ContainerState::ContainerExited)
        }).chain([ObservedContainer { name: "b".into(), ..read("z", v1::ContainerState::ContainerCreated) }]).collect();
        let listing = Listing::new(vec![listed_sandbox("x", "u", 0, 0)], vec![]);
        let pod = listing.pods["u"].assemble(None, sandboxes, containers);
        let ids: Vec<_> = pod.sandboxes.iter().map(|s| &*s.id).collect();
        prop_assert_eq!(ids, ["s21", "s16", "s14", "s05"]);
        let ids: Vec<_> = pod.containers.iter().map(|c| &*c.id).collect();
        prop_assert_eq!(ids, ["z", "c21", "c16", "c14", "c05"]);
        prop_assert_eq!(&*pod.container("c").expect("there").id, "c21");
    }
}
