//! Objects of this node as they stand on the wire.

use super::resource::{EVENTS, PODS};
use crate::node::effect::EventRecord;
use crate::pod::status::PodStatus;
use crate::pod::{Meta, Pod, PodSpec};
use crate::time::Wall;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A Pod with its status, as a client reads it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodObject {
    pub metadata: Meta,
    pub spec: PodSpec,
    pub status: PodStatus,
}

/// A list, as a client reads it.
#[derive(Clone, Debug, Deserialize)]
pub struct List<T> {
    pub items: Vec<T>,
}

/// An Event of core/v1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventObject {
    pub metadata: Meta,
    pub involved_object: Involved,
    pub reason: String,
    pub message: String,
    pub source: Source,
    pub first_timestamp: Option<Wall>,
    pub last_timestamp: Option<Wall>,
    pub count: u32,
    #[serde(rename = "type")]
    pub kind: String,
    pub event_time: Option<Wall>,
    pub reporting_component: String,
    pub reporting_instance: String,
}

/// What an Event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Involved {
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field_path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    pub component: String,
    pub host: String,
}

/// When a recorded Event happened, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Occurrence {
    pub first: Wall,
    pub last: Wall,
    pub count: u32,
    /// Makes the object's name unique.
    pub serial: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Typed<'a, T> {
    api_version: &'a str,
    kind: &'a str,
    #[serde(flatten)]
    object: &'a T,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownPod<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: Cow<'a, Meta>,
    spec: Cow<'a, PodSpec>,
    status: &'a PodStatus,
}

/// The same, to be worked on.
pub fn pod_value(p: &Pod, status: &PodStatus, node: &str) -> serde_json::Value {
    serde_json::from_slice(&pod(p, status, node)).expect("just written")
}

/// A whole Pod. One that no API server made was created when this node first saw it, and it is bound to this node.
pub fn pod(pod: &Pod, status: &PodStatus, node: &str) -> Vec<u8> {
    let mut metadata = Cow::Borrowed(&pod.metadata);
    if metadata.creation_timestamp.is_none() {
        metadata.to_mut().creation_timestamp = status.start_time;
    }
    let mut spec = Cow::Borrowed(&pod.spec);
    if spec.node_name.is_empty() {
        node.clone_into(&mut spec.to_mut().node_name);
    }
    let row = PODS.row();
    let shown = ShownPod { api_version: row.version, kind: row.kind, metadata, spec, status };
    serde_json::to_vec(&shown).expect("plain data serialises")
}

/// The name is the object's, a dot, and a number in hexadecimal, as recorders of events make it.
pub fn event_name(e: &EventRecord, at: Occurrence) -> String {
    format!("{}.{:016x}", e.name, at.first.0.cast_unsigned().wrapping_add(at.serial))
}

pub fn event(e: &EventRecord, at: Occurrence, node: &str) -> Vec<u8> {
    let metadata =
        Meta { name: event_name(e, at), namespace: e.namespace.clone(), creation_timestamp: Some(at.first.truncated()), ..Meta::default() };
    let involved_object = Involved {
        kind: e.kind.clone(),
        namespace: e.namespace.clone(),
        name: e.name.clone(),
        uid: e.uid.clone(),
        api_version: if e.kind == "EndpointSlice" { "discovery.k8s.io/v1" } else { "v1" }.into(),
        field_path: e.field_path.clone(),
    };
    let object = EventObject {
        metadata,
        involved_object,
        reason: e.reason.clone().into_owned(),
        message: e.message.clone(),
        source: Source { component: e.component.into(), host: node.into() },
        first_timestamp: Some(at.first.truncated()),
        last_timestamp: Some(at.last.truncated()),
        count: at.count,
        kind: if e.warning { "Warning" } else { "Normal" }.into(),
        event_time: None,
        reporting_component: e.component.into(),
        reporting_instance: node.into(),
    };
    let row = EVENTS.row();
    serde_json::to_vec(&Typed { api_version: row.version, kind: row.kind, object: &object }).expect("plain data serialises")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_pod_is_a_whole_kubernetes_object() {
        let mut p = Pod::default();
        (p.metadata.name, p.metadata.namespace, p.metadata.uid) = ("web".into(), "default".into(), "1-2".into());
        let status = PodStatus { start_time: Some(Wall::from_seconds(0)), ..PodStatus::default() };
        let bytes = pod(&p, &status, "node-1");
        let v: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&v["apiVersion"], &v["kind"]), (&json!("v1"), &json!("Pod")));
        assert_eq!(
            v["metadata"],
            json!({"name": "web", "namespace": "default", "uid": "1-2", "creationTimestamp": "1970-01-01T00:00:00Z"})
        );
        assert_eq!(v["spec"]["nodeName"], "node-1");
        assert_eq!(v["status"]["phase"], "Pending");
        let read: PodObject = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read.metadata.name, "web");
    }

    #[test]
    fn an_event_names_its_pod_and_container() {
        let record = EventRecord {
            kind: "Pod".into(),
            namespace: "a".into(),
            name: "web".into(),
            component: "kubelet",
            uid: "1".into(),
            field_path: "spec.containers{c}".into(),
            warning: true,
            reason: "BackOff".into(),
            message: "m".into(),
        };
        let at = Occurrence { first: Wall::from_seconds(1), last: Wall::from_seconds(9), count: 3, serial: 1 };
        let e: EventObject = serde_json::from_slice(&event(&record, at, "n")).unwrap();
        assert_eq!((e.kind.as_str(), e.count, e.involved_object.field_path.as_str()), ("Warning", 3, "spec.containers{c}"));
        assert!(e.metadata.name.starts_with("web."));
    }
}
