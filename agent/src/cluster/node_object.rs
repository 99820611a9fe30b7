//! The Node object of this machine, and its lease: what a kubelet tells of itself (specification of the kubelet, 1.6 to
//! 1.9). A lone node shows the same object.
//!
//! Tests: at the end of this file.

use crate::env::NodeFacts;
use crate::quantity::binary;
use crate::time::Wall;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub const LEASE_SECONDS: i32 = 40;
pub const LEASES: &str = "kube-node-lease";

/// What does not change while the daemon runs.
#[derive(Clone, Debug, Default)]
pub struct About {
    pub facts: NodeFacts,
    /// `nodeInfo`.
    pub info: Map<String, Value>,
    /// Where the kubelet's own port is; 0: nowhere.
    pub port: u16,
    /// `--node-labels`, and taints that a node is born with.
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Value>,
    pub provider_id: String,
}

/// What the runtime says, by what it said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// None: all is well.
    pub runtime: Option<String>,
    pub network: Option<String>,
    /// `runtimeHandlers` and `features`, as the runtime has them.
    pub handlers: Vec<Handler>,
    pub supplemental_groups_policy: bool,
    /// Largest first.
    pub images: Vec<Image>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handler {
    pub name: String,
    pub recursive_read_only_mounts: bool,
    pub user_namespaces: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub names: Vec<String>,
    pub bytes: u64,
}

/// Images of a status at most, and names of each.
pub const IMAGES: usize = 50;
const NAMES: usize = 5;

/// Amounts as nodes tell them: cores and pods by number, memory and disk in powers of two.
fn amounts(about: &About) -> Map<String, Value> {
    let nano = crate::pod::resources::NANO;
    let text = |(name, amount): (&String, &i128)| {
        let whole = amount / nano;
        let counted = matches!(name.as_str(), "cpu" | "pods") || name.contains('/');
        (name.clone(), Value::from(if counted { whole.to_string() } else { binary(whole) }))
    };
    about.facts.allocatable.iter().map(text).collect()
}

/// Labels that a kubelet sets at every start.
pub fn labels(facts: &NodeFacts) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("beta.kubernetes.io/arch", facts.architecture.clone()),
        ("beta.kubernetes.io/os", "linux".into()),
        ("kubernetes.io/arch", facts.architecture.clone()),
        ("kubernetes.io/os", "linux".into()),
        ("kubernetes.io/hostname", facts.name.clone()),
    ])
}

/// The whole object, for a server that does not have it. `before` are the conditions as they were.
pub fn node(about: &About, health: &Health, before: &Value, now: Wall) -> Value {
    let mut all: BTreeMap<String, String> = labels(&about.facts).into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    all.extend(about.facts.labels.clone());
    all.extend(about.labels.clone());
    let mut spec = Map::new();
    if !about.taints.is_empty() {
        spec.insert("taints".into(), about.taints.clone().into());
    }
    if !about.provider_id.is_empty() {
        spec.insert("providerID".into(), about.provider_id.clone().into());
    }
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": about.facts.name, "labels": all, "annotations": {MANAGED_ATTACH: "true"}},
        "spec": spec,
        "status": status(about, health, before, now),
    })
}

/// The attach-detach controller does its work for this node.
pub const MANAGED_ATTACH: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

pub fn status(about: &About, health: &Health, before: &Value, now: Wall) -> Value {
    let facts = &about.facts;
    let mut addresses: Vec<Value> = facts.host_ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": facts.name}));
    let image = |i: &Image| json!({"names": i.names.iter().take(NAMES).collect::<Vec<_>>(), "sizeBytes": i.bytes});
    let mut handlers = health.handlers.clone();
    handlers.sort();
    let handler = |h: &Handler| json!({"name": h.name, "features": {"recursiveReadOnlyMounts": h.recursive_read_only_mounts, "userNamespaces": h.user_namespaces}});
    let mut status = json!({"addresses": addresses, "capacity": amounts(about), "allocatable": amounts(about), "nodeInfo": about.info,
        "conditions": conditions(health, before, now), "daemonEndpoints": {"kubeletEndpoint": {"Port": about.port}},
        "images": health.images.iter().take(IMAGES).map(image).collect::<Vec<_>>()});
    if !handlers.is_empty() {
        status["runtimeHandlers"] = handlers.iter().map(handler).collect();
        status["features"] = json!({"supplementalGroupsPolicy": health.supplemental_groups_policy});
    }
    status
}

fn conditions(health: &Health, before: &Value, now: Wall) -> Vec<Value> {
    let one = |kind: &str, status: &str, reason: &str, message: &str| {
        let known = before.as_array().into_iter().flatten().find(|c| c["type"] == kind && c["status"] == status);
        let since = known.map_or_else(|| now.rfc3339().into(), |c| c["lastTransitionTime"].clone());
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now.rfc3339(), "lastTransitionTime": since})
    };
    let wrong: Vec<String> = [health.runtime.clone(), health.network.as_ref().map(|n| format!("container runtime network not ready: {n}"))]
        .into_iter()
        .flatten()
        .collect();
    let ready = match wrong[..] {
        [] => one("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        _ => one("Ready", "False", "KubeletNotReady", &format!("[{}]", wrong.join(", "))),
    };
    vec![
        one("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        one("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        one("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ready,
    ]
}

pub fn is_ready(status: &Value) -> bool {
    status["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// The status changed in more than times of heartbeats.
pub fn differs(there: &Value, is: &Value) -> bool {
    let bare = |v: &Value| {
        let mut v = v.clone();
        for c in v["conditions"].as_array_mut().into_iter().flatten() {
            c["lastHeartbeatTime"].take();
        }
        v
    };
    let (there, is) = (bare(there), bare(is));
    let field = |(name, value): (&String, &Value)| match (name.as_str(), value) {
        ("conditions", Value::Array(ours)) => {
            ours.iter().any(|c| !there["conditions"].as_array().into_iter().flatten().any(|t| same_fields(t, c)))
        }
        // Others may add to these.
        (_, Value::Object(_)) => !same_fields(&there[name], value),
        _ => there[name] != *value && !(there[name].is_null() && value.as_array().is_some_and(Vec::is_empty)),
    };
    is.as_object().is_some_and(|o| o.iter().any(field))
}

/// Everything in `ours` is in `theirs`, and empty texts need not be.
fn same_fields(theirs: &Value, ours: &Value) -> bool {
    let Value::Object(fields) = ours else { return theirs == ours };
    let empty = |v: &Value| v.is_null() || v == "" || v == 0;
    fields.iter().all(|(k, v)| theirs[k] == *v || same_object(&theirs[k], v) || (empty(&theirs[k]) && empty(v)))
}

fn same_object(theirs: &Value, ours: &Value) -> bool {
    ours.is_object() && same_fields(theirs, ours)
}

/// The body of a strategic merge patch of the status: conditions merge by type, addresses are all that there are.
pub fn patch(is: &Value) -> Value {
    let mut status = is.clone();
    if let Some(addresses) = status["addresses"].as_array_mut() {
        addresses.push(json!({"$patch": "replace"}));
    }
    json!({"status": status})
}

/// What a start puts right on a node that the server has already: its own labels and nothing else that users may have
/// changed. None: all is well.
pub fn reconcile(there: &Value, about: &About) -> Option<Value> {
    let metadata = &there["metadata"];
    let wrong: Map<String, Value> = labels(&about.facts)
        .into_iter()
        .filter(|(k, v)| metadata["labels"][*k] != v.as_str())
        .map(|(k, v)| (k.to_owned(), v.into()))
        .collect();
    let unmanaged = metadata["annotations"][MANAGED_ATTACH] != "true";
    if wrong.is_empty() && !unmanaged {
        return None;
    }
    let mut patch = json!({"metadata": {"labels": wrong}});
    if unmanaged {
        patch["metadata"]["annotations"] = json!({MANAGED_ATTACH: "true"});
    }
    Some(patch)
}

/// Labels that a node may not give itself (the reason), as `--node-labels` is checked.
pub fn refused_label(key: &str) -> Option<String> {
    let (domain, _) = key.split_once('/')?;
    let within = |d: &str| domain == d || domain.strip_suffix(d).is_some_and(|rest| rest.ends_with('.'));
    if !within("kubernetes.io") && !within("k8s.io") {
        return None;
    }
    const ALLOWED: [&str; 11] = [
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "node.kubernetes.io/instance-type",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
    ];
    if within("kubelet.kubernetes.io") || within("node.kubernetes.io") || ALLOWED.contains(&key) {
        return None;
    }
    Some(format!(
        "label {key:?}: in the domains kubernetes.io and k8s.io a node may only give itself labels of kubelet.kubernetes.io and node.kubernetes.io, and {}",
        ALLOWED.join(", ")
    ))
}

/// The lease, whole. `owner` is the Node's uid, where it is known.
pub fn lease(name: &str, owner: Option<&str>, now: Wall) -> Value {
    let mut lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASES},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now.rfc3339_micro()}});
    if let Some(uid) = owner {
        lease["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}]);
    }
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        let nano = crate::pod::resources::NANO;
        let allocatable = [("cpu".to_owned(), 2 * nano), ("memory".to_owned(), 4096 * nano)].into();
        About {
            facts: NodeFacts { name: "n".into(), architecture: "amd64".into(), allocatable, ..NodeFacts::default() },
            port: 10250,
            ..About::default()
        }
    }

    #[test]
    fn a_node_whose_runtime_is_down_is_not_ready_and_says_why() {
        let health = Health { runtime: Some("container runtime is down: gone".into()), ..Health::default() };
        let first = status(&about(), &Health::default(), &Value::Null, Wall::from_seconds(5));
        assert!(is_ready(&first));
        let c = conditions(&health, &first["conditions"], Wall::from_seconds(9));
        assert_eq!((&c[3]["status"], &c[3]["message"]), (&json!("False"), &json!("[container runtime is down: gone]")));
        assert_eq!(c[3]["lastTransitionTime"], "1970-01-01T00:00:09Z");
        assert_eq!(
            (&c[0]["lastTransitionTime"], &c[0]["lastHeartbeatTime"]),
            (&json!("1970-01-01T00:00:05Z"), &json!("1970-01-01T00:00:09Z"))
        );
    }

    #[test]
    fn only_a_real_change_is_one() {
        let at = |s| status(&about(), &Health::default(), &json!(null), Wall::from_seconds(s));
        let mut there = at(5);
        let later = status(&about(), &Health::default(), &there["conditions"], Wall::from_seconds(50));
        assert!(!differs(&there, &later), "a heartbeat");
        there["conditions"].as_array_mut().unwrap().push(json!({"type": "NetworkUnavailable", "status": "False"}));
        there["volumesInUse"] = json!(["x"]);
        there["capacity"]["example.com/gpu"] = "1".into();
        assert!(!differs(&there, &later), "others' fields");
        there["capacity"]["cpu"] = "4".into();
        assert!(differs(&there, &later));
        assert!(differs(&Value::Null, &later));
    }

    #[test]
    fn a_start_puts_its_own_labels_right_and_no_others() {
        let mut there = node(&about(), &Health::default(), &Value::Null, Wall::default());
        assert_eq!(reconcile(&there, &about()), None);
        there["metadata"]["labels"]["kubernetes.io/os"] = "plan9".into();
        there["metadata"]["labels"]["mine"] = "yes".into();
        assert_eq!(reconcile(&there, &about()), Some(json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}}})));
    }

    #[test]
    fn a_node_may_not_label_itself_with_what_is_kubernetes_own() {
        for good in
            ["mine", "example.com/a", "node.kubernetes.io/x", "a.kubelet.kubernetes.io/x", "kubernetes.io/arch", "notkubernetes.io/x"]
        {
            assert_eq!(refused_label(good), None, "{good}");
        }
        for bad in ["kubernetes.io/role", "node-role.kubernetes.io/control-plane", "k8s.io/x", "a.k8s.io/x"] {
            assert!(refused_label(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_lease_is_held_by_the_node_and_owned_by_its_object() {
        let l = lease("n", Some("u"), Wall::from_seconds(1));
        assert_eq!(l["spec"]["renewTime"], "1970-01-01T00:00:01.000000Z");
        assert_eq!(l["metadata"]["ownerReferences"][0]["uid"], "u");
    }
}
