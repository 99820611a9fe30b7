//! Namespaces: made where objects are, and emptied before they go.

use super::writer::Done;
use super::{Answer, Api, json};
use crate::api::Failure;
use crate::api::request::Request;
use crate::api::resource::{EVENTS, Id, NAMESPACES};
use crate::api::store::Name;
use crate::api::write::{Caller, DeleteOptions, Effect, Op, decide, meta};
use serde_json::json;
use std::rc::Rc;
use std::time::Duration;

/// Those that are always there.
pub const ALWAYS: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];
/// How often to look whether a namespace is empty, beside every change.
const LOOK: Duration = Duration::from_secs(5);

/// Shows a namespace that somebody uses and nobody wrote.
pub fn ensure(api: &Api, name: &str) {
    if name.is_empty() || api.unsettled().get(NAMESPACES, "", name).is_some() {
        return;
    }
    let mut object = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    meta::born(&mut object, crate::run::clock::now().wall, api.next_seed());
    api.publish(NAMESPACES, object);
}

/// Marks a namespace as going, and sees to it that it goes when it is empty.
pub async fn delete(api: &Rc<Api>, r: &Request, options: DeleteOptions, caller: Caller) -> Answer {
    if ALWAYS.contains(&r.name.as_str()) {
        let attributes = crate::api::access::Attributes::of(r);
        return Err(attributes.refused("this namespace may not be deleted"));
    }
    let old = api.store().get(NAMESPACES, "", &r.name).map(|e| e.object());
    let context = api.context.clone();
    // What a plain deletion would refuse is refused here as well.
    let outcome = decide(Op::Delete(options), r, old.as_ref(), &caller, &context)?;
    let mut object = old.ok_or_else(|| Failure::missing(NAMESPACES.subject(&r.name)))?;
    if outcome.effect == Effect::None || meta::is_ending(&object) {
        return Ok(json(&object));
    }
    meta::set(&mut object, "deletionTimestamp", caller.now.rfc3339());
    object["status"]["phase"] = "Terminating".into();
    api.publish(NAMESPACES, object);
    let shown = api.store().get(NAMESPACES, "", &r.name).map(|e| e.object()).unwrap_or_default();
    tokio::task::spawn_local(empty(api.clone(), r.clone(), caller));
    Ok(json(&shown))
}

async fn empty(api: Rc<Api>, r: Request, caller: Caller) {
    let mut ticks: Vec<_> = api.ticks.iter().map(tokio::sync::watch::Sender::subscribe).collect();
    loop {
        let left = contents(&api, &r.name);
        if left.is_empty() {
            break;
        }
        for (id, name) in left {
            let one = Request { verb: "delete", resource: id, namespace: r.name.clone(), name, sub: String::new(), rest: String::new() };
            let gone: Result<Done, Failure> = api.submit(Op::Delete(DeleteOptions::default()), one, caller.clone()).await;
            if gone.is_err_and(|f| f.code != 404) {
                tracing::warn!(namespace = %r.name, "an object of a namespace that is going could not be deleted; trying again");
            }
        }
        let changed = futures_util::future::select_all(ticks.iter_mut().map(|t| Box::pin(t.changed())));
        let _ = tokio::time::timeout(LOOK, changed).await;
    }
    // The writer knows where it is kept, if anywhere.
    if let Err(failure) = api.submit(Op::Delete(DeleteOptions::default()), r.clone(), caller).await {
        tracing::warn!(namespace = %r.name, message = %failure.message, "the namespace is empty and could not be deleted");
    }
    api.retract(NAMESPACES, "", &r.name);
}

/// What is in it; events go by themselves.
fn contents(api: &Api, namespace: &str) -> Vec<(Id, String)> {
    let store = api.store();
    let rows = Id::all().filter(|i| i.row().namespaced && *i == i.kept() && *i != EVENTS);
    let of = |id: Id| -> Vec<(Id, String)> {
        let names = store.list(id, Some(namespace), None).map(|(n, _): (&Name, _)| (id, n.name.to_string()));
        names.collect()
    };
    rows.flat_map(of).collect()
}
