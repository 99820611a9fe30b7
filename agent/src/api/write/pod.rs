//! What is particular to pods: what may change, and sub-resources that write.

use super::super::failure::Subject;
use super::super::resource::{ACCOUNTS, PODS};
use super::delete::{self, DeleteOptions};
use super::{Caller, Context, Effect, Failure, Outcome, Request, check, meta, refuse, update};
use crate::manifest::change::{Change, change};
use crate::manifest::problem::{Faults, Path};
use crate::pod::{Pod, QosClass, qos_class};
use serde_json::{Value, json};

fn typed(object: &Value) -> Option<Pod> {
    crate::typed::read(object).ok()
}

/// `Guaranteed`, `Burstable`, `BestEffort`
pub fn quality(object: &Value) -> &'static str {
    match typed(object).map(|pod| qos_class(&pod)) {
        Some(QosClass::Guaranteed) => "Guaranteed",
        Some(QosClass::Burstable) => "Burstable",
        _ => "BestEffort",
    }
}

/// Most of a pod stays as it was created.
pub fn unchangeable(object: &Value, old: &Value, out: &mut Faults) {
    let (Some(mut new), Some(old)) = (typed(object), typed(old)) else { return };
    if new.spec.node_name.is_empty() {
        new.spec.node_name.clone_from(&old.spec.node_name);
    }
    let deadline = |p: &Pod| p.spec.active_deadline_seconds;
    if let (Some(was), now) = (deadline(&old), deadline(&new))
        && now.is_none_or(|now| now > was)
    {
        let path = Path::root("spec").child("activeDeadlineSeconds");
        match now {
            Some(now) => out.invalid_number(&path, now, "must be less than or equal to previous value"),
            None => out.required(&path, "must be set, since it was before"),
        }
    } else if change(&old, &new) == Change::Replace {
        let may = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
            `spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        out.forbidden(&Path::root("spec"), &format!("pod updates may not change fields other than {may}"));
    }
}

/// Ephemeral containers can be added, and never changed or taken away.
pub fn ephemeral(object: &Value, old: &Value, context: &Context) -> Result<Value, Failure> {
    let new = update::part(object, old, &["spec", "ephemeralContainers"]);
    let list = |o: &Value| o["spec"]["ephemeralContainers"].as_array().cloned().unwrap_or_default();
    let new = check::complete(new, PODS, context)?;
    let (was, is) = (list(old), list(&new));
    let mut faults = Faults::default();
    let path = Path::root("spec").child("ephemeralContainers");
    for c in &was {
        match is.iter().find(|n| n["name"] == c["name"]) {
            Some(n) if n == c => {}
            _ => faults.forbidden(&path, &format!("existing ephemeral containers {} may not be changed", c["name"])),
        }
    }
    if faults.0.is_empty() { Ok(new) } else { Err(refuse::invalid(PODS, meta::text(old, "name"), &faults.0)) }
}

/// Only the resources of containers change.
pub fn resize(object: &Value, old: &Value, context: &Context) -> Result<Value, Failure> {
    let mut new = old.clone();
    for list in ["containers", "initContainers"] {
        let wanted = object["spec"][list].as_array().cloned().unwrap_or_default();
        for c in new["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(w) = wanted.iter().find(|w| w["name"] == c["name"]) else { continue };
            for field in ["resources", "resizePolicy"] {
                match w.get(field) {
                    Some(v) => c[field] = v.clone(),
                    None => {
                        c.as_object_mut().map(|c| c.remove(field));
                    }
                }
            }
        }
    }
    if let Some(managed) = object["metadata"].get("managedFields") {
        meta::set(&mut new, "managedFields", managed.clone());
    }
    let new = check::complete(new, PODS, context)?;
    if quality(&new) != quality(old) {
        let mut faults = Faults::default();
        let why = format!("Pod QOS Class may not change as a result of resizing: it is {}", quality(old));
        faults.invalid(&Path::root("spec"), quality(&new), &why);
        return Err(refuse::invalid(PODS, meta::text(old, "name"), &faults.0));
    }
    Ok(new)
}

/// `binding`, `eviction`: a created sub-resource that changes the object.
pub fn create_sub(object: Value, sub: &str, r: &Request, old: &Value, caller: &Caller) -> Result<Outcome, Failure> {
    match (r.resource, sub) {
        (PODS, "binding") => bind(&object, r, old, caller),
        (PODS, "eviction") => evict(object, r, old, caller),
        (ACCOUNTS, _) => Err(Failure::internal("tokens are made elsewhere")),
        _ => Err(Failure::bad_request(format!("{sub} cannot be created"))),
    }
}

fn success(code: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success", "code": code})
}

fn bind(object: &Value, r: &Request, old: &Value, caller: &Caller) -> Result<Outcome, Failure> {
    let node = object["target"]["name"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(Failure::bad_request("target.name: Required value: the node to bind to"));
    }
    let bound = old["spec"]["nodeName"].as_str().unwrap_or_default();
    if !bound.is_empty() {
        let subject = Subject { kind: "pods/binding", ..PODS.subject(&r.name) };
        return Err(Failure::conflict(subject, &format!("pod {} is already assigned to node {bound:?}", r.name)));
    }
    if meta::is_ending(old) {
        return Err(refuse::conflict(PODS, &r.name, &format!("pod {} is being deleted, cannot be assigned to a host", r.name)));
    }
    let mut new = old.clone();
    new["spec"]["nodeName"] = node.into();
    for (key, value) in object["metadata"]["annotations"].as_object().into_iter().flatten() {
        new["metadata"]["annotations"][key] = value.clone();
    }
    condition(
        &mut new,
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": caller.now.rfc3339()}),
    );
    Ok(Outcome { answer: Some(success(201)), ..Outcome::new(Effect::Put(new), 201) })
}

fn condition(object: &mut Value, new: Value) {
    let conditions = &mut object["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let list = conditions.as_array_mut().expect("just made");
    list.retain(|c| c["type"] != new["type"]);
    list.push(new);
}

fn evict(object: Value, r: &Request, old: &Value, caller: &Caller) -> Result<Outcome, Failure> {
    let options: DeleteOptions = match object.get("deleteOptions") {
        Some(options) => crate::typed::read(options).map_err(|e| Failure::bad_request(format!("deleteOptions: {e}")))?,
        None => DeleteOptions::default(),
    };
    let dry = caller.dry_run || options.dry_run.iter().any(|d| d == "All");
    let mut outcome = delete::delete(&options, r, old, caller)?;
    if let Effect::Ending(object) = &mut outcome.effect {
        let told = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": caller.now.rfc3339()});
        condition(object, told);
    }
    if dry {
        outcome.effect = Effect::None;
    }
    Ok(Outcome { answer: Some(success(201)), code: 201, ..outcome })
}
