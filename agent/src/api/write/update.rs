//! Updates and patches, of the object and of its sub-resources.

use super::super::patch::{self, PatchKind};
use super::super::resource::{CONFIG_MAPS, Id, PODS, REQUESTS, SECRETS, SERVICES};
use super::super::signing;
use super::canonical;
use super::{Caller, Context, Effect, Failure, Outcome, Request, check, identified_elsewhere, meta, pod, refuse};
use crate::manifest::problem::{Faults, Path};
use serde_json::Value;

pub fn update(mut object: Value, r: &Request, old: &Value, caller: &Caller, context: &Context) -> Result<Outcome, Failure> {
    let id = r.resource;
    check::belongs(&mut object, id, &r.namespace)?;
    let warnings = check::shape(&mut object, id, caller.validation)?;
    let name = meta::text(&object, "name");
    if name != r.name {
        let message = format!("the name of the object ({name}) does not match the name on the URL ({})", r.name);
        return Err(Failure::bad_request(message));
    }
    settle(object, r, old, caller, context, true).map(|o| Outcome { warnings, ..o })
}

pub fn patch(kind: PatchKind, body: &[u8], r: &Request, old: &Value, caller: &Caller, context: &Context) -> Result<Outcome, Failure> {
    let id = r.resource;
    let mut object = patch::apply(kind, old, body, check::shape_of(id), &caller.editor(id, &id.row().api_version(), &r.sub))?;
    check::belongs(&mut object, id, &r.namespace)?;
    let warnings = check::shape(&mut object, id, caller.validation)?;
    if kind == PatchKind::Apply && meta::text(&object, "name") != r.name {
        let message = format!("the name of the object ({}) does not match the name on the URL ({})", meta::text(&object, "name"), r.name);
        return Err(Failure::bad_request(message));
    }
    if meta::text(&object, "name") != r.name {
        let mut faults = Faults::default();
        faults.invalid(&Path::root("metadata").child("name"), meta::text(&object, "name"), "field is immutable");
        return Err(refuse::invalid(id, &r.name, &faults.0));
    }
    settle(object, r, old, caller, context, kind != PatchKind::Apply).map(|o| Outcome { warnings, ..o })
}

/// From what a client wants to what is to be there.
fn settle(mut object: Value, r: &Request, old: &Value, caller: &Caller, context: &Context, track: bool) -> Result<Outcome, Failure> {
    let id = r.resource;
    precondition(&object, id, &r.name, old)?;
    meta::keep_owned(&mut object, old);
    let mut object = match r.sub.as_str() {
        "" => whole(object, id, old, context)?,
        "status" if id == REQUESTS => issued(&object, old, r)?,
        "status" => status(object, old),
        "approval" => decided(&object, old, r, caller)?,
        "finalize" => part(&object, old, &["spec", "finalizers"]),
        "ephemeralcontainers" => pod::ephemeral(&object, old, context)?,
        "resize" => pod::resize(&object, old, context)?,
        other => return Err(Failure::bad_request(format!("{other} takes no updates"))),
    };
    canonical::canonical(&mut object, id);
    finish(object, r, old, caller, context, track)
}

/// Somebody else may have been faster, or it may be another object of the same name.
fn precondition(object: &Value, id: Id, name: &str, old: &Value) -> Result<(), Failure> {
    let (uid, known) = (meta::text(object, "uid"), meta::text(old, "uid"));
    if !uid.is_empty() && uid != known {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {known}");
        return Err(refuse::conflict(id, name, &why));
    }
    let revision = meta::text(object, "resourceVersion");
    if !revision.is_empty() && revision != meta::text(old, "resourceVersion") {
        return Err(refuse::modified(id, name));
    }
    Ok(())
}

fn whole(mut object: Value, id: Id, old: &Value, context: &Context) -> Result<Value, Failure> {
    if id.row().has_status() {
        restore(&mut object, old, "status");
    }
    if id == REQUESTS {
        restore(&mut object, old, "spec");
    }
    if id == SERVICES {
        keep_given(&mut object, old);
    }
    let object = check::complete(object, id, context)?;
    let mut faults = Faults::default();
    match id {
        PODS => pod::unchangeable(&object, old, &mut faults),
        CONFIG_MAPS | SECRETS => frozen(&object, old, &mut faults),
        SERVICES => address(&object, old, &mut faults),
        _ => {}
    }
    if faults.0.is_empty() { Ok(object) } else { Err(refuse::invalid(id, meta::text(old, "name"), &faults.0)) }
}

fn restore(object: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(was) => object[field] = was.clone(),
        None => {
            object.as_object_mut().map(|o| o.remove(field));
        }
    }
}

/// Only the status changes, and what metadata a status may carry along.
fn status(mut object: Value, old: &Value) -> Value {
    let keep: Vec<String> =
        old.as_object().into_iter().flatten().map(|(k, _)| k.clone()).filter(|k| k != "metadata" && k != "status").collect();
    let extra: Vec<String> = object.as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect();
    for field in extra.iter().filter(|k| *k != "metadata" && *k != "status" && !keep.contains(k)) {
        object.as_object_mut().map(|o| o.remove(field));
    }
    keep.iter().for_each(|field| restore(&mut object, old, field));
    for field in ["ownerReferences", "finalizers"] {
        match old["metadata"].get(field) {
            Some(was) => meta::set(&mut object, field, was.clone()),
            None => {
                meta::of(&mut object).remove(field);
            }
        }
    }
    object
}

/// Whether a request for a certificate is approved is said by the sub-resource for it alone.
fn decided(object: &Value, old: &Value, r: &Request, caller: &Caller) -> Result<Value, Failure> {
    let mut out = part(object, old, &["status", "conditions"]);
    let conditions = signing::decided(object, old, &caller.now.rfc3339());
    out["status"]["conditions"] = conditions.map_err(|faults| refuse::invalid(r.resource, &r.name, &faults.0))?;
    Ok(out)
}

/// What a signer writes: the certificate, once, or that it failed.
fn issued(object: &Value, old: &Value, r: &Request) -> Result<Value, Failure> {
    let mut faults = Faults::default();
    let path = Path::root("status");
    for kind in ["Approved", "Denied"] {
        match (signing::has(old, kind), signing::has(object, kind)) {
            (false, true) => faults.forbidden(&path.child("conditions"), &format!("updates may not add a condition of type {kind:?}")),
            (true, false) => faults.forbidden(&path.child("conditions"), &format!("updates may not remove a condition of type {kind:?}")),
            _ => {}
        }
    }
    let (was, is) = (&old["status"]["certificate"], &object["status"]["certificate"]);
    if was.as_str().is_some_and(|c| !c.is_empty()) && was != is {
        faults.forbidden(&path.child("certificate"), "updates may not set certificate content to different values");
    }
    if faults.0.is_empty() { Ok(status(object.clone(), old)) } else { Err(refuse::invalid(r.resource, &r.name, &faults.0)) }
}

/// The old object with one part of the new.
pub fn part(object: &Value, old: &Value, path: &[&str]) -> Value {
    let mut out = old.clone();
    let new = path.iter().fold(object, |v, field| &v[*field]);
    let place = path.iter().fold(&mut out, |v, field| &mut v[*field]);
    *place = new.clone();
    if let Some(managed) = object["metadata"].get("managedFields") {
        meta::set(&mut out, "managedFields", managed.clone());
    }
    out
}

/// What a service was given stays unless the client says otherwise.
fn keep_given(object: &mut Value, old: &Value) {
    let external = |o: &Value| o["spec"]["type"] == "ExternalName";
    if external(object) || external(old) {
        return;
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if object["spec"].get(field).is_none_or(|v| v.is_null() || v == "")
            && let Some(was) = old["spec"].get(field)
        {
            object["spec"][field] = was.clone();
        }
    }
    if !matches!(object["spec"]["type"].as_str(), Some("NodePort" | "LoadBalancer")) {
        return;
    }
    let ports = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
        let protocol = |p: &Value| p["protocol"].as_str().unwrap_or("TCP").to_owned();
        let same = |was: &&Value| was["port"] == port["port"] && protocol(was) == protocol(port);
        if port["nodePort"].as_i64().unwrap_or(0) == 0
            && let Some(was) = ports.iter().find(same).and_then(|p| p.get("nodePort"))
        {
            port["nodePort"] = was.clone();
        }
    }
}

fn address(object: &Value, old: &Value, out: &mut Faults) {
    let text = |o: &Value, field: &str| o["spec"][field].as_str().unwrap_or_default().to_owned();
    let (was, is) = (text(old, "clusterIP"), text(object, "clusterIP"));
    let leaves = text(old, "type") == "ExternalName" || text(object, "type") == "ExternalName";
    if !was.is_empty() && was != is && !leaves {
        out.invalid(&Path::root("spec").child("clusterIPs").index(0), &is, "may not change once set");
    }
}

/// An immutable ConfigMap or Secret, and a Secret's type.
fn frozen(object: &Value, old: &Value, out: &mut Faults) {
    let kind = |o: &Value| o["type"].as_str().unwrap_or_default().to_owned();
    if kind(object) != kind(old) {
        out.invalid(&Path::root("type"), &kind(object), "field is immutable");
    }
    if old["immutable"] != true {
        return;
    }
    if object["immutable"] != true {
        out.forbidden(&Path::root("immutable"), "field is immutable when `immutable` is set");
    }
    for field in ["data", "binaryData"] {
        if object[field] != old[field] {
            out.forbidden(&Path::root(field), "field is immutable when `immutable` is set");
        }
    }
}

fn finish(mut object: Value, r: &Request, old: &Value, caller: &Caller, context: &Context, track: bool) -> Result<Outcome, Failure> {
    let id = r.resource;
    if without_times(&object) == without_times(old) {
        return Ok(Outcome { answer: Some(old.clone()), ..Outcome::new(Effect::None, 200) });
    }
    if id.row().generation && !identified_elsewhere(id, context) && object["spec"] != old["spec"] {
        let next = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        meta::set(&mut object, "generation", next);
    }
    if track {
        object = patch::track(old, &object, check::shape_of(id), &caller.editor(id, &id.row().api_version(), &r.sub));
    }
    // The last finalizer of what is on its way out lets it go.
    let gone =
        meta::is_ending(old) && !meta::has_finalizers(&object) && old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0;
    if gone && (id != PODS || meta::has_finalizers(old)) {
        return Ok(Outcome { answer: Some(object), ..Outcome::new(Effect::Remove, 200) });
    }
    Ok(Outcome::new(Effect::Put(object), 200))
}

/// When a manager wrote last is no change by itself.
fn without_times(object: &Value) -> Value {
    let mut out = object.clone();
    meta::of(&mut out).remove("resourceVersion");
    for entry in out["metadata"]["managedFields"].as_array_mut().into_iter().flatten() {
        entry.as_object_mut().map(|e| e.remove("time"));
    }
    if out["metadata"]["managedFields"].is_null() {
        meta::of(&mut out).remove("managedFields");
    }
    out
}
