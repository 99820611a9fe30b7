//! How an API server writes objects out: fields that are there though nobody set them, and amounts in one spelling.
//!
//! The shapes follow Go's types: what is no pointer and has no `omitempty` is written when it is empty, too.

use super::super::resource::{Id, NODES, PODS, SERVICES, SLICES};
use crate::quantity::Quantity;
use serde_json::{Map, Value, json};

/// An object of the kind before anything of it was set.
fn empty(id: Id) -> Value {
    match id {
        PODS => json!({"metadata": {}, "spec": {"containers": []}, "status": {}}),
        SERVICES => json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}}),
        _ if matches!(id.row().kind, "Event") => json!({"metadata": {}, "source": {}}),
        _ => json!({"metadata": {}, "spec": {}, "status": {}}),
    }
}

/// What every object of the kind has from the beginning belongs to nobody, nor what the server filled in that is not
/// in `written`.
pub fn disown(object: &mut Value, id: Id, written: &Value) {
    let empty = empty(id);
    for entry in object["metadata"]["managedFields"].as_array_mut().into_iter().flatten() {
        let fields = &mut entry["fieldsV1"];
        strip(fields, &empty);
        for path in FILLED.iter().filter(|p| written.pointer(p).is_none()) {
            let Some((parent, name)) = path.rsplit_once('/') else { continue };
            let place = parent.replace('/', "/f:");
            let place = fields.pointer_mut(&place).and_then(Value::as_object_mut);
            place.map(|m| m.remove(&format!("f:{name}")));
        }
    }
}

/// Fields that [`canonical`] fills in after an API server has noted who wrote what.
const FILLED: &[&str] = &["/spec/clusterIPs", "/spec/ipFamilies", "/spec/ipFamilyPolicy", "/reportingComponent", "/reportingInstance"];

fn strip(fields: &mut Value, skeleton: &Value) {
    let (Value::Object(fields), Value::Object(skeleton)) = (fields, skeleton) else { return };
    for (name, below) in skeleton {
        let key = format!("f:{name}");
        let Some(field) = fields.get_mut(&key) else { continue };
        field.as_object_mut().map(|f| f.remove("."));
        strip(field, below);
        if field.as_object().is_some_and(Map::is_empty) {
            fields.remove(&key);
        }
    }
}

pub fn canonical(object: &mut Value, id: Id) {
    match id {
        PODS => pod(object),
        SERVICES => service(object),
        SLICES => {
            for e in items(&mut object["endpoints"]) {
                fill(e, "conditions", json!({}));
            }
        }
        NODES => node(object),
        _ if id.row().kind == "Event" => {
            fill(object, "reportingComponent", "".into());
            fill(object, "reportingInstance", "".into());
            fill(object, "source", json!({}));
        }
        _ => {}
    }
}

fn items(list: &mut Value) -> impl Iterator<Item = &mut Value> {
    list.as_array_mut().into_iter().flatten()
}

fn fill(object: &mut Value, field: &str, with: Value) {
    if let Value::Object(m) = object {
        m.entry(field).or_insert(with);
    }
}

fn pod(object: &mut Value) {
    let spec = &mut object["spec"];
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        if spec.get(list).is_none() {
            continue;
        }
        for c in items(&mut spec[list]) {
            fill(c, "resources", json!({}));
            resources(&mut c["resources"]);
        }
    }
    if let Some(name) = spec.get("serviceAccountName").cloned().filter(|n| n.as_str().is_some_and(|n| !n.is_empty())) {
        spec["serviceAccount"] = name;
    }
    if spec.get("volumes").is_some() {
        for v in items(&mut spec["volumes"]) {
            if let Some(path) = v.get_mut("hostPath") {
                fill(path, "type", "".into());
            }
        }
    }
    let status = &mut object["status"];
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        if status.get(list).is_some() {
            items(&mut status[list]).for_each(|c| fill(c, "lastState", json!({})));
        }
    }
    if status.get("conditions").is_some() {
        items(&mut status["conditions"]).for_each(|c| fill(c, "lastProbeTime", Value::Null));
    }
}

fn resources(r: &mut Value) {
    for list in ["limits", "requests"] {
        for amount in r.get_mut(list).and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
            if let Some(text) = amount.as_str().and_then(spelled) {
                *amount = text.into();
            }
        }
    }
}

/// A fraction without a unit in whole thousandths: `0.5` is `500m`. None: it is well as it is.
fn spelled(text: &str) -> Option<String> {
    if !text.contains('.') || text.ends_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let nano = Quantity::parse(text).ok()?.nanos();
    match (nano % 1_000_000_000, nano % 1_000_000) {
        (0, _) => Some((nano / 1_000_000_000).to_string()),
        (_, 0) => Some(format!("{}m", nano / 1_000_000)),
        _ => None,
    }
}

fn service(object: &mut Value) {
    fill(object, "status", json!({}));
    fill(&mut object["status"], "loadBalancer", json!({}));
    let spec = &mut object["spec"];
    if spec["clusterIP"] == "None" {
        fill(spec, "clusterIPs", json!(["None"]));
        fill(spec, "ipFamilies", json!(["IPv4"]));
        fill(spec, "ipFamilyPolicy", "SingleStack".into());
    }
}

fn node(object: &mut Value) {
    fill(object, "spec", json!({}));
    fill(object, "status", json!({}));
    let status = &mut object["status"];
    if let Some(capacity) = status.get("capacity").cloned() {
        fill(status, "allocatable", capacity);
    }
    fill(status, "daemonEndpoints", json!({"kubeletEndpoint": {"Port": 0}}));
    let info = [
        "architecture",
        "bootID",
        "containerRuntimeVersion",
        "kernelVersion",
        "kubeProxyVersion",
        "kubeletVersion",
        "machineID",
        "operatingSystem",
        "osImage",
        "systemUUID",
    ];
    let nothing: Map<String, Value> = info.iter().map(|f| ((*f).to_owned(), "".into())).collect();
    fill(status, "nodeInfo", nothing.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_one_spelling() {
        for (text, want) in [("0.5", Some("500m")), ("1.0", Some("1")), ("64Mi", None), ("2", None), ("0.5Gi", None), ("0.0001", None)] {
            assert_eq!(spelled(text).as_deref(), want, "{text}");
        }
    }
}
