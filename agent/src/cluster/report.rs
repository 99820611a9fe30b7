//! What of a pod's status is told to the server, and how (specification of the kubelet, 2.5).
//!
//! The kubelet owns most of a status, and others own some of it: conditions of readiness gates, what schedulers and
//! resource controllers write. A patch names what differs and what is ours, and nothing else, and holds for this pod
//! alone and not for another of its name. Must never tell a change that is none. Tests: at the end of this file.

use crate::pod::status::{Condition, PodStatus};
use serde_json::{Map, Value, json};

/// Conditions that a kubelet writes; all others belong to somebody else and stay.
pub const OURS: [&str; 9] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
    "AllContainersRestarting",
    "DisruptionTarget",
];

/// Fields of a status that a kubelet writes whole.
const FIELDS: [&str; 13] = [
    "observedGeneration",
    "phase",
    "message",
    "reason",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "qosClass",
];

/// The body of a strategic merge patch of `pods/NAME/status` that turns what the server has into what is so; None:
/// there is nothing to tell.
pub fn patch(uid: &str, there: &Value, is: &PodStatus) -> Option<Value> {
    let is = serde_json::to_value(is).expect("plain data serialises");
    let mut changes = Map::new();
    for field in FIELDS {
        let (old, new) = (&there[field], &is[field]);
        if !same(old, new) {
            changes.insert(field.into(), whole(field, new));
        }
    }
    let conditions = conditions(&there["conditions"], &is["conditions"]);
    if !conditions.is_empty() {
        changes.insert("conditions".into(), conditions.into());
    }
    if changes.is_empty() {
        return None;
    }
    Some(json!({"metadata": {"uid": uid}, "status": changes}))
}

/// What is empty need not be there.
fn same(a: &Value, b: &Value) -> bool {
    let empty = |v: &Value| match v {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Number(n) => n.as_i64() == Some(0),
        _ => false,
    };
    a == b || (empty(a) && empty(b))
}

/// Addresses are merged by address unless the patch says that they are all.
fn whole(field: &str, new: &Value) -> Value {
    match new {
        Value::Array(list) if matches!(field, "podIPs" | "hostIPs") => {
            let all = list.iter().cloned().chain([json!({"$patch": "replace"})]);
            all.collect()
        }
        other => other.clone(),
    }
}

/// Those of ours that are new or different, whole, and those that are no more.
fn conditions(there: &Value, is: &Value) -> Vec<Value> {
    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let (there, is) = (list(there), list(is));
    let kind = |c: &Value| c["type"].as_str().unwrap_or_default().to_owned();
    let ours = |c: &&Value| OURS.contains(&kind(c).as_str());
    let mut out: Vec<Value> = is.iter().filter(ours).filter(|c| !there.iter().any(|t| same_condition(t, c))).cloned().collect();
    for gone in there.iter().filter(ours).filter(|t| !is.iter().any(|c| kind(c) == kind(t))) {
        // Who schedules or evicts a pod says so; a kubelet that does not know of it must not take it away.
        if !matches!(kind(gone).as_str(), "PodScheduled" | "DisruptionTarget") {
            out.push(json!({"type": gone["type"], "$patch": "delete"}));
        }
    }
    for c in &mut out {
        // A field that is empty now must go, not stay as it was.
        for field in ["reason", "message"] {
            if c["$patch"].is_null() && c[field].is_null() && there.iter().any(|t| kind(t) == kind(c) && !t[field].is_null()) {
                c[field] = Value::Null;
            }
        }
    }
    out
}

/// Times of a probe do not count, and the scheduler's own condition may be worded as it likes.
fn same_condition(a: &Value, b: &Value) -> bool {
    let same = |field: &str| same(&a[field], &b[field]);
    a["type"] == b["type"] && ["status", "reason", "message", "observedGeneration", "lastTransitionTime"].into_iter().all(same)
}

/// Conditions that others wrote.
pub fn foreign(status: &PodStatus) -> impl Iterator<Item = &Condition> {
    status.conditions.iter().filter(|c| !OURS.contains(&c.kind.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(v: Value) -> PodStatus {
        crate::typed::read(&v).unwrap()
    }

    #[test]
    fn only_what_differs_is_told_and_others_conditions_stay() {
        let there = json!({"phase": "Pending", "qosClass": "BestEffort", "resourceClaimStatuses": [{"name": "x"}], "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "example.com/gate", "status": "True", "lastTransitionTime": null},
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        let is = status(
            json!({"phase": "Running", "qosClass": "BestEffort", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "example.com/gate", "status": "False"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:09Z"}]}),
        );
        let want = json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"$patch": "replace"}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:09Z", "reason": null}]}});
        assert_eq!(patch("u", &there, &is), Some(want));
    }

    #[test]
    fn a_status_that_the_server_has_already_is_not_told() {
        let v = json!({"phase": "Running", "message": "", "podIPs": [], "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:09Z",
            "lastProbeTime": null}], "containerStatuses": [{"name": "a", "state": {}, "lastState": {}, "ready": true, "restartCount": 0, "image": "i", "imageID": ""}]});
        assert_eq!(patch("u", &v, &status(v.clone())), None);
    }

    #[test]
    fn what_is_no_more_goes() {
        let there = json!({"phase": "Failed", "reason": "Evicted", "conditions": [{"type": "PodResizePending", "status": "True"}, {"type": "DisruptionTarget", "status": "True"}]});
        let is = status(json!({"phase": "Failed", "conditions": []}));
        let p = patch("u", &there, &is).unwrap();
        assert_eq!(p["status"], json!({"reason": null, "conditions": [{"type": "PodResizePending", "$patch": "delete"}]}));
    }
}
