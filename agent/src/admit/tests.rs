use super::*;
use serde_json::{Value, json};

fn pod(name: &str, spec: Value) -> Pod {
    crate::typed::read(&json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec})).unwrap()
}

fn asks(name: &str, cpu: &str, memory: &str, priority: i32) -> Pod {
    let requests = json!({"cpu": cpu, "memory": memory});
    pod(name, json!({"priority": priority, "containers": [{"name": "c", "image": "i", "resources": {"requests": requests}}]}))
}

fn guaranteed(name: &str, cpu: &str, memory: &str) -> Pod {
    let both = json!({"cpu": cpu, "memory": memory});
    pod(name, json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": both, "limits": both}}]}))
}

const CRITICAL: i32 = 2_000_000_000;

fn node() -> NodeFacts {
    let nano = crate::pod::resources::NANO;
    NodeFacts {
        name: "n1".into(),
        allocatable: [("cpu".to_owned(), 2 * nano), ("memory".to_owned(), (1 << 30) * nano)].into(),
        architecture: "amd64".into(),
        ..NodeFacts::default()
    }
}

fn config(max_pods: usize) -> NodeConfig {
    NodeConfig { max_pods, ..crate::node::simulator::config() }
}

fn on(pod: &Pod, active: &[Pod], node: &NodeFacts, max_pods: usize) -> Admission {
    admit(pod, active.iter(), node, &config(max_pods))
}

fn reason(a: Admission) -> (String, String) {
    match a {
        Admission::Rejected(r) => (r.reason, r.message),
        other => (format!("{other:?}"), String::new()),
    }
}

#[test]
fn what_is_short_is_told_with_how_much_there_is() {
    let there = [asks("a", "1500m", "100Mi", 0)];
    let (why, message) = reason(on(&asks("b", "600m", "10Mi", 0), &there, &node(), 110));
    assert_eq!(
        (why.as_str(), message.as_str()),
        ("OutOfcpu", "Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000")
    );
    let (why, message) = reason(on(&asks("b", "1", "2Gi", 0), &there, &node(), 1));
    assert_eq!(
        (why.as_str(), message.as_str()),
        ("OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 1, capacity: 1"),
        "the first counts"
    );
    assert_eq!(on(&asks("b", "500m", "10Mi", 0), &there, &node(), 110), Admission::Admitted);
}

#[test]
fn extended_resources_count_where_the_node_has_them_and_huge_pages_always() {
    let wants = |name: &str| pod("p", json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {name: "2"}}}]}));
    assert_eq!(on(&wants("example.com/gpu"), &[], &node(), 110), Admission::Admitted, "somebody else takes care");
    let mut with = node();
    with.allocatable.insert("example.com/gpu".into(), crate::pod::resources::NANO);
    assert_eq!(reason(on(&wants("example.com/gpu"), &[], &with, 110)).0, "OutOfexample.com/gpu");
    assert_eq!(reason(on(&wants("hugepages-2Mi"), &[], &node(), 110)).0, "OutOfhugepages-2Mi");
}

#[test]
fn what_is_wrong_here_is_told_in_the_schedulers_words() {
    let mut tainted = node();
    tainted.taints = vec![Taint { key: "gone".into(), effect: "NoExecute".into(), ..Taint::default() }];
    tainted.labels.insert("zone".into(), "a".into());
    let one = json!([{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 80}]}]);
    let taken = [pod("other", json!({"containers": one, "tolerations": [{"operator": "Exists"}]}))];
    for (spec, want, message) in [
        (
            json!({"nodeSelector": {"zone": "b"}, "nodeName": "n2"}),
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
        (json!({"nodeName": "n2"}), "NodeName", "Predicate NodeName failed: node(s) didn't match the requested node name"),
        (json!({"containers": one}), "NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"),
        (
            json!({"nodeSelector": {"zone": "a"}}),
            "TaintToleration",
            "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
        ),
        (json!({"os": {"name": "windows"}}), "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"),
    ] {
        assert_eq!(reason(on(&pod("p", spec), &taken, &tainted, 110)), (want.to_owned(), message.to_owned()));
    }
    let mut of_file = pod("p", json!({}));
    of_file.metadata.annotations.insert("kubernetes.io/config.source".into(), "file".into());
    assert_eq!(on(&of_file, &taken, &tainted, 110), Admission::Admitted, "a static pod is not driven off");
}

#[test]
fn a_critical_pod_gets_room_from_the_cheapest_that_will_do() {
    let critical = |cpu, memory| asks("critical", cpu, memory, CRITICAL);
    let best_effort = pod("best-effort", json!({"containers": [{"name": "c", "image": "i"}]}));
    let there =
        [best_effort, asks("small", "500m", "100Mi", 0), asks("large", "900m", "100Mi", 0), guaranteed("guaranteed", "600m", "100Mi")];
    let victims = |pod: &Pod, max| match on(pod, &there, &node(), max) {
        Admission::Preempts(v) => v.iter().map(ToString::to_string).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(victims(&critical("400m", "10Mi"), 110), ["small"], "the nearest, and of those the smaller");
    assert_eq!(victims(&critical("600m", "10Mi"), 110), ["large"], "one is less than two");
    assert_eq!(victims(&critical("1900m", "10Mi"), 110), ["large", "small", "guaranteed"]);
    assert_eq!(victims(&critical("0", "10Mi"), 4), ["best-effort"]);
    let mut lower = asks("lower", "400m", "10Mi", 5);
    lower.spec.priority = Some(5);
    assert_eq!(reason(on(&lower, &there, &node(), 110)).0, "OutOfcpu", "only a critical pod makes others go");
}

#[test]
fn a_critical_pod_is_rejected_where_room_is_not_what_it_lacks_or_none_can_be_made() {
    let of_peers = [asks("peer", "1500m", "100Mi", CRITICAL)];
    let (why, message) = reason(on(&asks("critical", "1", "10Mi", CRITICAL), &of_peers, &node(), 110));
    assert_eq!(why, "UnexpectedAdmissionError");
    assert!(message.ends_with("no set of running pods found to reclaim resources: [(res: cpu, q: 500), ]"), "{message}");
    let mut elsewhere = asks("critical", "4", "10Mi", CRITICAL);
    elsewhere.spec.node_name = "n2".into();
    assert_eq!(reason(on(&elsewhere, &[], &node(), 110)).0, "NodeName");
}
