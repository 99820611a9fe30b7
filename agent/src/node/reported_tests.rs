//! What an API server says of pods, and how the node takes it.

use super::simulator::config;
use super::{Effect, Event, NodeState, step};
use crate::env::{ConfigSource as _, NodeFacts};
use crate::pod::status::PodStatus;
use crate::pod::{Pod, PodUid};
use crate::time::{Now, Wall};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

fn node() -> NodeState {
    NodeState::new(config(), NodeFacts { name: "n".into(), ..NodeFacts::default() }, BTreeMap::new())
}

fn pod(node_name: &str) -> (PodUid, Arc<Pod>) {
    let v = json!({"metadata": {"name": "web", "namespace": "default", "uid": "u"}, "spec": {"nodeName": node_name,
        "readinessGates": [{"conditionType": "example.com/gate"}], "containers": [{"name": "main", "image": "app:1"}]}});
    (PodUid::new("u"), Arc::new(crate::typed::read(&v).unwrap()))
}

fn reported(status: Value) -> Event {
    Event::Reported { uid: PodUid::new("u"), status: Arc::new(crate::typed::read::<PodStatus>(&status).unwrap()) }
}

fn now() -> Now {
    Now { wall: Wall::from_seconds(100), ..Now::default() }
}

#[test]
fn a_pod_that_was_over_stays_over_though_nothing_was_written_down_here() {
    let (mut n, (uid, pod)) = (node(), pod("n"));
    step(&mut n, reported(json!({"phase": "Failed", "reason": "Evicted", "startTime": "1970-01-01T00:00:01Z"})), now());
    step(&mut n, Event::SetPod(pod), now());
    let e = &n.pods[&uid];
    assert!(e.is_over() && e.status.as_ref().is_some_and(|s| s.reason == "Evicted"));
}

#[test]
fn a_pod_that_no_kubelet_has_begun_with_is_admitted_as_new() {
    let (mut n, (uid, pod)) = (node(), pod("elsewhere"));
    step(&mut n, reported(json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]})), now());
    let effects = step(&mut n, Event::SetPod(pod), now());
    let refused = effects.iter().any(|e| matches!(e, Effect::Event(e) if e.reason == "NodeName"));
    assert!(refused && n.pods[&uid].is_over(), "{effects:?}");
}

#[test]
fn conditions_of_others_are_taken_and_ours_are_not() {
    let (mut n, (uid, pod)) = (node(), pod("n"));
    let begun = json!({"phase": "Running", "startTime": "1970-01-01T00:00:01Z", "conditions": [{"type": "Ready", "status": "False"}]});
    step(&mut n, reported(begun), now());
    step(&mut n, Event::SetPod(pod), now());
    step(
        &mut n,
        reported(json!({"conditions": [{"type": "example.com/gate", "status": "True"}, {"type": "Ready", "status": "True"}]})),
        now(),
    );
    let status = n.pods[&uid].status.clone().unwrap();
    let of = |kind: &str| status.conditions.iter().find(|c| c.kind == kind).map(|c| c.status.as_str());
    assert_eq!((of("example.com/gate"), of("Ready")), (Some("True"), Some("False")));
}

#[test]
fn a_token_is_its_pods_alone() {
    let (mut n, (uid, pod)) = (node(), pod("n"));
    step(&mut n, Event::SetPod(pod), now());
    let wish = crate::pod::TokenFile::default().wish();
    step(&mut n, Event::Token { uid: uid.clone(), wish: wish.clone(), token: Ok("secret".into()) }, now());
    assert_eq!(n.objects.token(&uid, &wish), Some(Ok("secret")));
    assert_eq!(n.objects.token(&PodUid::new("other"), &wish), None);
}
