//! Critical pods that come to a node which is full.

use super::simulator::config;
use super::{Effect, Event, NodeState, step};
use crate::env::NodeFacts;
use crate::pod::{Pod, PodUid};
use crate::time::Now;
use crate::work::{Finished, WorkResult};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

fn node() -> NodeState {
    let allocatable = [("cpu".to_owned(), crate::pod::resources::NANO)].into();
    let mut n = NodeState::new(config(), NodeFacts { name: "n".into(), allocatable, ..NodeFacts::default() }, BTreeMap::new());
    step(&mut n, Event::Runtime { ready: None, network: None }, Now::default());
    step(&mut n, Event::SourcesReady, Now::default());
    n
}

fn pod(name: &str, cpu: &str, priority: i32) -> Arc<Pod> {
    let resources = json!({"requests": {"cpu": cpu}});
    let v = json!({"metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"priority": priority, "containers": [{"name": "main", "image": "app:1", "resources": resources}]}});
    Arc::new(crate::typed::read(&v).unwrap())
}

fn has(n: &NodeState, uid: &str) -> bool {
    n.pods.contains_key(&PodUid::new(uid))
}

#[test]
fn a_critical_pod_comes_when_those_that_made_room_have_gone() {
    let mut n = node();
    step(&mut n, Event::SetPod(pod("low", "800m", 0)), Now::default());
    let effects = step(&mut n, Event::SetPod(pod("critical", "500m", 2_000_000_000)), Now::default());
    let told = |e: &Effect| matches!(e, Effect::Event(e) if e.reason == "Preempting" && e.name == "low" && e.message == "Preempted in order to admit critical pod");
    assert!(effects.iter().any(told), "{effects:?}");
    assert!(!has(&n, "critical") && n.held.len() == 1, "it waits");
    // The runtime has nothing of the other: it is over when that is written down.
    let later = Now { mono: crate::time::Mono::default() + std::time::Duration::from_secs(1), ..Now::default() };
    let effects = step(&mut n, Event::Relisted(Vec::new()), later);
    let job = effects.iter().find_map(|e| if let Effect::Run(job) = e { Some(job) } else { None }).expect("work");
    let results = job.works.iter().map(|w| WorkResult::Done(w.clone(), Finished::default())).collect();
    let effects = step(&mut n, Event::Done { uid: job.uid.clone(), job: job.id, results, observation: None }, later);
    let low = n.pods[&PodUid::new("low")].status.clone().unwrap();
    assert_eq!((low.phase.as_str(), low.reason.as_str()), ("Failed", "Preempting"));
    let target = low.conditions.iter().find(|c| c.kind == "DisruptionTarget").expect("a condition");
    assert_eq!((target.reason.as_str(), target.status.as_str()), ("TerminationByKubelet", "True"));
    assert!(has(&n, "critical") && n.held.is_empty(), "{effects:?}");
}

#[test]
fn one_that_is_removed_while_it_waits_never_was() {
    let mut n = node();
    step(&mut n, Event::SetPod(pod("low", "800m", 0)), Now::default());
    step(&mut n, Event::SetPod(pod("critical", "500m", 2_000_000_000)), Now::default());
    let effects = step(&mut n, Event::RemovePod(PodUid::new("critical")), Now::default());
    assert!(n.held.is_empty() && effects.iter().any(|e| matches!(e, Effect::Forget { .. })), "{effects:?}");
}
