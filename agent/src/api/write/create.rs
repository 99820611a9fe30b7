//! Creation.

use super::super::access::{MASTERS, User};
use super::super::patch::{self, PatchKind};
use super::super::resource::{Id, NAMESPACES, NODES, PODS, REQUESTS};
use super::super::signing;
use super::canonical;
use super::check;
use super::{Caller, Context, Effect, Failure, Outcome, Request, identified_elsewhere, meta, refuse};
use crate::manifest::problem::{Faults, Path};
use serde_json::{Map, Value, json};

pub fn create(mut object: Value, r: &Request, old: Option<&Value>, caller: &Caller, context: &Context) -> Result<Outcome, Failure> {
    let id = r.resource;
    check::belongs(&mut object, id, &r.namespace)?;
    let warnings = check::shape(&mut object, id, caller.validation)?;
    if !meta::text(&object, "resourceVersion").is_empty() {
        // An API server's own words and code.
        return Err(Failure::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    name(&mut object, caller.seed);
    let name = meta::text(&object, "name").to_owned();
    if old.is_some() {
        return Err(refuse::exists(id, &name));
    }
    let authored = Some(written(&object));
    if id == PODS && object["spec"]["ephemeralContainers"].as_array().is_some_and(|c| !c.is_empty()) {
        let mut faults = Faults::default();
        faults.forbidden(&Path::root("spec").child("ephemeralContainers"), "cannot be set on create");
        return Err(refuse::invalid(id, &name, &faults.0));
    }
    if id == REQUESTS && signing::is_too_much(&object) {
        let why = format!("use of {} signer with {MASTERS} group is not allowed", signing::CLIENT);
        return Err(Failure::forbidden(id.subject(&name), &why));
    }
    begin(&mut object, id);
    let mut object = check::complete(object, id, context)?;
    meta::of(&mut object).remove("managedFields");
    let version = id.row().api_version();
    let mut object = patch::track(&Value::Null, &object, check::shape_of(id), &caller.editor(id, &version, ""));
    canonical::disown(&mut object, id, authored.as_ref().unwrap_or(&Value::Null));
    identify(&mut object, id, caller, context);
    Ok(Outcome { warnings, authored, ..Outcome::new(Effect::Put(object), 201) })
}

/// Server-side apply of an object that is not there.
pub fn apply(body: &[u8], r: &Request, caller: &Caller, context: &Context) -> Result<Outcome, Failure> {
    let id = r.resource;
    let version = id.row().api_version();
    let mut object = patch::apply(PatchKind::Apply, &Value::Null, body, check::shape_of(id), &caller.editor(id, &version, ""))?;
    check::belongs(&mut object, id, &r.namespace)?;
    let warnings = check::shape(&mut object, id, caller.validation)?;
    if meta::text(&object, "name") != r.name {
        let message = format!("the name of the object ({}) does not match the name on the URL ({})", meta::text(&object, "name"), r.name);
        return Err(Failure::bad_request(message));
    }
    let authored = Some(written(&object));
    begin(&mut object, id);
    let mut object = check::complete(object, id, context)?;
    identify(&mut object, id, caller, context);
    Ok(Outcome { warnings, authored, ..Outcome::new(Effect::Put(object), 201) })
}

/// A name made from `generateName`, if that is all there is.
fn name(object: &mut Value, seed: u64) {
    let base = meta::text(object, "generateName");
    if meta::text(object, "name").is_empty() && !base.is_empty() {
        let base: String = base.chars().take(58).collect();
        meta::set(object, "name", format!("{base}{}", meta::suffix(seed)));
    }
}

/// What a new object has before anybody looked after it.
fn begin(object: &mut Value, id: Id) {
    meta::drop_owned(object);
    match id {
        PODS => object["status"] = json!({"phase": "Pending"}),
        NAMESPACES => {
            object["status"] = json!({"phase": "Active"});
            let name = meta::text(object, "name").to_owned();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
        }
        // A node comes with its status.
        NODES => {}
        _ if id.row().has_status() => object["status"] = json!({}),
        _ => {}
    }
}

fn identify(object: &mut Value, id: Id, caller: &Caller, context: &Context) {
    if !identified_elsewhere(id, context) {
        meta::born(object, caller.now, caller.seed);
        if id.row().generation {
            meta::set(object, "generation", 1);
        }
    }
    if id == NAMESPACES && object["spec"]["finalizers"].is_null() {
        object["spec"]["finalizers"] = json!(["kubernetes"]);
    }
    if id == REQUESTS {
        asker(&mut object["spec"], &caller.user);
    }
    if id == PODS {
        let quality = super::pod::quality(object);
        object["status"]["qosClass"] = quality.into();
        if !context.node.is_empty() && object["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
            object["spec"]["nodeName"] = context.node.clone().into();
        }
    }
}

/// A request for a certificate says who made it, whatever it says itself.
fn asker(spec: &mut Value, user: &User) {
    spec["username"] = user.name.clone().into();
    spec["groups"] = json!(user.groups);
    for (field, value) in [("uid", Value::from(user.uid.clone())), ("extra", json!(user.extra))] {
        match value.as_str().is_some_and(str::is_empty) || value.as_object().is_some_and(Map::is_empty) {
            true => drop(spec.as_object_mut().map(|s| s.remove(field))),
            false => spec[field] = value,
        }
    }
}

/// What a person would write: nothing that the server owns.
pub fn written(object: &Value) -> Value {
    let mut out = object.clone();
    meta::drop_owned(&mut out);
    meta::of(&mut out).remove("managedFields");
    out.as_object_mut().map(|o| o.remove("status"));
    out
}
