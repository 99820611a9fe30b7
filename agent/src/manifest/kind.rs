//! From an untyped document to objects: which kinds there are, and what to say of the others.

use super::problem::{Fault, FaultKind, Faults, Path};
use super::schema::{self, Field, Shape};
use super::{Object, Rules, config, default, endpoints, validate};
use crate::api::resource::{Home, Id};
use crate::api::write::meta;
use crate::pod::{Pod, Referent};
use longshore_dataplane::wire::{EndpointSlice, Service};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A fault, and the object that has it (`Pod default/web`).
pub type Named = (String, Fault);

/// Lists of lists go no deeper.
const DEPTH: usize = 4;

/// The objects of one document, and all that is wrong with it.
pub fn objects(v: Value, rules: &Rules) -> (Vec<Object>, Vec<Named>) {
    let (mut out, mut faults) = (Vec::new(), Vec::new());
    take(v, rules, DEPTH, &mut out, &mut faults);
    (out, faults)
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The object as messages call it: as much as it tells of itself.
fn label(v: &Value) -> String {
    let kind = text(v, "kind");
    let meta = v.get("metadata").unwrap_or(&Value::Null);
    let name = if text(meta, "name").is_empty() { "(no name)" } else { text(meta, "name") };
    if kind.is_empty() {
        return String::new();
    }
    if kind.ends_with("List") {
        return kind.to_owned();
    }
    if other_kind(kind).is_some_and(|id| !id.row().namespaced) {
        return format!("{kind} {name}");
    }
    let namespace = if text(meta, "namespace").is_empty() { "default" } else { text(meta, "namespace") };
    format!("{kind} {namespace}/{name}")
}

fn take(v: Value, rules: &Rules, depth: usize, out: &mut Vec<Object>, faults: &mut Vec<Named>) {
    let mut found = Faults::default();
    let object = label(&v);
    let kind = text(&v, "kind").to_owned();
    if !v.is_object() {
        found.0.push(Fault::new(FaultKind::Shape, &Path::default(), "a manifest is an object with apiVersion, kind and metadata"));
    } else if kind.is_empty() {
        let kind = Path::root("kind");
        match v.get("kind").filter(|k| !k.is_null()) {
            Some(_) => found.0.push(Fault::new(FaultKind::Shape, &kind, "must be a text")),
            None => found.required(&kind, ""),
        }
    } else if let Some(inner) = kind.strip_suffix("List") {
        list(v, inner, rules, depth, out, faults);
        return;
    } else {
        match known(&kind) {
            Some((version, fields)) => {
                if api_version(&v, &kind, version, &mut found) {
                    one(v, &kind, fields, rules, out, &mut found);
                }
            }
            None => found.0.push(Fault::new(FaultKind::NotSupported, &Path::default(), refusal(&kind))),
        }
    }
    faults.extend(found.0.into_iter().map(|f| (object.clone(), f)));
}

fn list(mut v: Value, inner: &str, rules: &Rules, depth: usize, out: &mut Vec<Object>, faults: &mut Vec<Named>) {
    let object = label(&v);
    let version = text(&v, "apiVersion").to_owned();
    let items = match v.get_mut("items").map(Value::take) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items,
        Some(_) => {
            faults.push((object, Fault::new(FaultKind::Shape, &Path::root("items"), "must be a list")));
            return;
        }
    };
    if depth == 0 {
        faults.push((object, Fault::new(FaultKind::Shape, &Path::root("items"), "lists of lists go no deeper than this")));
        return;
    }
    for (i, mut item) in items.into_iter().enumerate() {
        // Items of a typed list need not say what they are.
        if let Value::Object(m) = &mut item
            && !inner.is_empty()
        {
            m.entry("kind").or_insert_with(|| inner.into());
            m.entry("apiVersion").or_insert_with(|| version.clone().into());
        }
        let before = faults.len();
        take(item, rules, depth - 1, out, faults);
        for (_, f) in &mut faults[before..] {
            f.field = format!("items[{i}]{}{}", if f.field.is_empty() { "" } else { "." }, f.field);
        }
    }
}

/// A kind that is kept as it is written.
fn other_kind(kind: &str) -> Option<Id> {
    Id::all().find(|i| i.row().kind == kind && i.row().home == Home::Files)
}

fn static_version(id: Id) -> &'static str {
    match id.row().group {
        "" => "v1",
        "networking.k8s.io" => "networking.k8s.io/v1",
        "node.k8s.io" => "node.k8s.io/v1",
        "storage.k8s.io" => "storage.k8s.io/v1",
        _ => "",
    }
}

/// Says of each item of a typed list what it is.
pub fn items_named(list: &mut Value) {
    let Some(inner) = text(list, "kind").strip_suffix("List").map(str::to_owned).filter(|k| !k.is_empty()) else { return };
    let version = text(list, "apiVersion").to_owned();
    for item in list.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(m) = item {
            m.entry("kind").or_insert_with(|| inner.clone().into());
            m.entry("apiVersion").or_insert_with(|| version.clone().into());
        }
    }
}

/// Group and version, and the fields, of the kinds that a node takes.
fn known(kind: &str) -> Option<(&'static str, &'static [Field])> {
    Some(match kind {
        "Pod" => ("v1", schema::POD),
        "Service" => ("v1", schema::SERVICE),
        "Endpoints" => ("v1", schema::ENDPOINTS),
        "EndpointSlice" => ("discovery.k8s.io/v1", schema::ENDPOINT_SLICE),
        "ConfigMap" => ("v1", schema::CONFIG_MAP),
        "Secret" => ("v1", schema::SECRET),
        other => {
            let id = other_kind(other)?;
            return Some((static_version(id), schema::shape_of(static_version(id), other)?));
        }
    })
}

fn api_version(v: &Value, kind: &str, wanted: &str, out: &mut Faults) -> bool {
    let path = Path::root("apiVersion");
    match v.get("apiVersion") {
        Some(Value::String(s)) if s == wanted => return true,
        None | Some(Value::Null) => out.required(&path, &format!("a {kind} is of {wanted}")),
        Some(Value::String(s)) => out.invalid(&path, s, &format!("a {kind} is of {wanted}")),
        Some(other) => out.0.push(Fault::invalid(&path, &other.to_string(), &format!("a {kind} is of {wanted}"))),
    }
    false
}

fn one(mut v: Value, kind: &str, fields: &'static [Field], rules: &Rules, out: &mut Vec<Object>, found: &mut Faults) {
    schema::check(&mut v, Shape::Object(fields), &Path::default(), &mut found.0);
    let shape = found.0.len();
    typed_one(v, kind, rules, out, found);
    // What follows from a field that was taken out is no fault of its own.
    let (shapes, later) = found.0.split_at(shape);
    let follows = |f: &Fault| {
        shapes.iter().any(|s| f.field.strip_prefix(s.field.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
    };
    let kept: Vec<Fault> = shapes.iter().chain(later.iter().filter(|f| !follows(f))).cloned().collect();
    found.0 = kept;
}

/// An object whose shape was checked, with its defaults, and what is wrong with it.
pub fn complete(v: Value, rules: &Rules) -> (Option<Object>, Vec<Fault>) {
    let kind = text(&v, "kind").to_owned();
    let (mut out, mut found) = (Vec::new(), Faults::default());
    typed_one(v, &kind, rules, &mut out, &mut found);
    (out.pop(), found.0)
}

fn typed_one(mut v: Value, kind: &str, rules: &Rules, out: &mut Vec<Object>, found: &mut Faults) {
    match kind {
        "Pod" => {
            old_account_name(&mut v);
            if let Some(mut p) = typed::<Pod>(v, found) {
                default::pod(&mut p);
                validate::pod(&p, found);
                if !rules.control_plane {
                    validate::alone(&p, found);
                }
                out.push(Object::Pod(Box::new(p)));
            }
        }
        "Service" => {
            if let Some(mut s) = typed::<Service>(v, found) {
                default::service(&mut s);
                validate::service(&s, rules, found);
                out.push(Object::Service(Box::new(s)));
            }
        }
        "EndpointSlice" => {
            if let Some(mut s) = typed::<EndpointSlice>(v, found) {
                default::slice(&mut s);
                validate::slice(&s, found);
                out.push(Object::EndpointSlice(Box::new(s)));
            }
        }
        "Endpoints" => {
            out.extend(plain(v.clone(), kind, &mut Faults::default()));
            if let Some(e) = typed::<endpoints::Endpoints>(v, found) {
                out.extend(endpoints::slices(e, found).into_iter().map(|s| Object::EndpointSlice(Box::new(s))));
            }
        }
        "ConfigMap" => out.extend(config::object(Referent::ConfigMap, v, found)),
        "Secret" => out.extend(config::object(Referent::Secret, v, found)),
        _ => out.extend(plain(v, kind, found)),
    }
}

/// An object of a kind without types here: its metadata alone is checked.
fn plain(mut v: Value, kind: &str, found: &mut Faults) -> Option<Object> {
    let id = other_kind(kind)?;
    meta::drop_owned(&mut v);
    meta::of(&mut v).remove("managedFields");
    if !id.row().namespaced {
        meta::of(&mut v).remove("namespace");
    } else if meta::text(&v, "namespace").is_empty() {
        meta::set(&mut v, "namespace", "default");
    }
    v.as_object_mut().map(|o| o.remove("status"));
    found.0.extend(crate::api::write::plain(&v, id));
    Some(Object::Other { id, value: Box::new(v) })
}

/// `serviceAccount` is the old name of `serviceAccountName`.
fn old_account_name(v: &mut Value) {
    let Some(Value::Object(spec)) = v.get_mut("spec") else { return };
    if let Some(name) = spec.remove("serviceAccount") {
        spec.entry("serviceAccountName").or_insert(name);
    }
}

pub fn typed<T: DeserializeOwned>(v: Value, out: &mut Faults) -> Option<T> {
    crate::typed::read(&v).map_err(|e| out.0.push(Fault { kind: FaultKind::Shape, field: e.path, message: e.message })).ok()
}

/// Why a node does not take this kind, and the way out.
pub fn refusal(kind: &str) -> String {
    let controllers = "this node has no controllers";
    let control_plane = "this node has no control plane";
    match kind {
        "Deployment" | "ReplicaSet" | "ReplicationController" | "StatefulSet" => {
            format!("{controllers}: take the Pod out of spec.template and write it as a Pod, one manifest for each replica")
        }
        "DaemonSet" => format!("{controllers}: take the Pod out of spec.template and write it as a Pod"),
        "Job" => {
            format!("{controllers}: take the Pod out of spec.template and write it as a Pod; restartPolicy OnFailure or Never lets it end")
        }
        "CronJob" => format!(
            "{controllers}: take the Pod out of spec.jobTemplate.spec.template and let a timer of the system write it here when it is due"
        ),
        "Ingress" | "IngressClass" | "Gateway" | "GatewayClass" | "HTTPRoute" => {
            format!("{controllers}: run a proxy as a Pod, and open it to the outside with hostPort or a Service of type NodePort")
        }
        "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" => {
            format!("{control_plane}, so there are no accounts and no access rules: remove it")
        }
        "NetworkPolicy" => "nothing here enforces network policies: use the firewall of the machine, and remove it".to_owned(),
        "Node"
        | "HorizontalPodAutoscaler"
        | "PodDisruptionBudget"
        | "LimitRange"
        | "ResourceQuota"
        | "PriorityClass"
        | "CustomResourceDefinition"
        | "PodTemplate"
        | "Lease"
        | "Event"
        | "MutatingWebhookConfiguration"
        | "ValidatingWebhookConfiguration"
        | "APIService"
        | "VolumeAttachment" => {
            format!("{control_plane} that would act on it: remove it")
        }
        other => {
            let mut kinds: Vec<&str> = Id::all().map(Id::row).filter(|r| r.home == Home::Files).map(|r| r.kind).collect();
            kinds.sort_unstable();
            match kinds.iter().find(|k| k.eq_ignore_ascii_case(other) || format!("{k}s").eq_ignore_ascii_case(other)) {
                Some(k) => format!("there is no kind {other:?}, did you mean {k}?"),
                None => format!("this node knows no kind {other:?}; it takes {}", kinds.join(", ")),
            }
        }
    }
}
