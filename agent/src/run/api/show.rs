//! Shows in the API what other parts of the daemon own: pods, services, what the manifests hold, events.
//!
//! Adds to each object what the server owns of it (managed fields, the status of what is no pod), which the reader
//! of the manifests directory keeps. Tests: `agent/tests/api_server/door.rs`,
//! `tests/tests/runtime_kubectl.rs`.

use super::{Api, Lazy, namespaces};
use crate::api::resource::{EVENTS, Id, LEASES, NAMESPACES, PODS, SERVICES, SLICES};
use crate::api::store::Name;
use crate::api::write::canonical::canonical;
use crate::api::write::meta;
use crate::node::NodeState;
use crate::pod::status::PodStatus;
use crate::pod::{Pod, PodUid};
use crate::run::clock;
use crate::run::event_loop::PodListener;
use crate::run::events::Recorded;
use longshore_dataplane::wire::{EndpointSlice, Service};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

type Changed = BTreeMap<PodUid, (Arc<Pod>, Arc<PodStatus>)>;

pub struct Show {
    api: Rc<Api>,
    node_name: String,
    owned: RefCell<BTreeMap<(Id, Name), Map<String, Value>>>,
    /// Where each pod is shown, since one that is gone tells only its uid.
    pods: RefCell<BTreeMap<PodUid, Name>>,
    /// Pods that changed since they were last rendered. A pod that starts changes many times, and most nodes have
    /// nobody who looks: what is never read is never rendered.
    changed: RefCell<Changed>,
}

impl Show {
    pub fn new(api: Rc<Api>, node_name: &str) -> Rc<Show> {
        api.make_standard_namespaces();
        Rc::new_cyclic(|this: &Weak<Show>| {
            api.set_lazy(this.clone());
            Show { api, node_name: node_name.to_owned(), owned: RefCell::default(), pods: RefCell::default(), changed: RefCell::default() }
        })
    }

    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    pub fn api(&self) -> &Rc<Api> {
        &self.api
    }

    pub fn set(&self, id: Id, mut object: Value) {
        let row = id.row();
        object["apiVersion"] = row.api_version().into();
        object["kind"] = row.kind.into();
        let name = Name::of(&object);
        if let Some(owned) = self.owned.borrow().get(&(id, name.clone())) {
            lay(&mut object, owned);
        }
        self.identify(id, &name, &mut object);
        canonical(&mut object, id);
        namespaces::ensure(&self.api, &name.namespace);
        if id == NAMESPACES && object["status"].is_null() {
            object["status"]["phase"] = "Active".into();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.name.to_string().into();
        }
        self.api.publish(id, object);
        if matches!(id, EVENTS | LEASES) {
            self.api.keep(id, &name);
        }
    }

    /// What the node makes by itself, such as slices of its pods, is an object from when it was shown first.
    fn identify(&self, id: Id, name: &Name, object: &mut Value) {
        // Nearly all have both already, and pods change often.
        if ["uid", "creationTimestamp"].iter().all(|field| !meta::text(object, field).is_empty()) {
            return;
        }
        let shown = self.shown(id, name);
        for (field, new) in [("uid", meta::uid(self.api.next_seed())), ("creationTimestamp", clock::now().wall.rfc3339())] {
            if object["metadata"].get(field).is_none_or(Value::is_null) {
                let known = shown.as_ref().map(|o| meta::text(o, field).to_owned()).filter(|t| !t.is_empty());
                meta::set(object, field, known.unwrap_or(new));
            }
        }
    }

    /// What the server owns of an object is this now.
    pub fn own(&self, id: Id, name: &Name, owned: Map<String, Value>) {
        let key = (id, name.clone());
        if owned.is_empty() {
            self.owned.borrow_mut().remove(&key);
        } else {
            self.owned.borrow_mut().insert(key, owned.clone());
        }
        let shown = self.api.object(id, name);
        if let Some(mut object) = shown {
            if !owned.contains_key("managedFields") {
                meta::of(&mut object).remove("managedFields");
            }
            lay(&mut object, &owned);
            self.api.publish(id, object);
        }
    }

    pub fn gone(&self, id: Id, namespace: &str, name: &str) {
        self.owned.borrow_mut().remove(&(id, Name::new(namespace, name)));
        // A namespace that is written nowhere is still there.
        if id == NAMESPACES && namespaces::ALWAYS.contains(&name) {
            return;
        }
        let known = self.api.unsettled().get(id, namespace, name).is_some();
        if known {
            self.api.retract(id, namespace, name);
        }
    }

    /// An object as it was rendered last.
    fn shown(&self, id: Id, name: &Name) -> Option<Value> {
        self.api.unsettled().get(id, &name.namespace, &name.name).map(|e| e.object())
    }

    pub fn service(&self, s: &Service) {
        self.set(SERVICES, serde_json::to_value(s).expect("plain data serialises"));
    }

    pub fn slice(&self, s: &EndpointSlice) {
        self.set(SLICES, serde_json::to_value(s).expect("plain data serialises"));
    }

    fn pod(&self, node: &NodeState, uid: &PodUid, status: Option<&Arc<PodStatus>>) {
        let Some(e) = node.pods.get(uid) else {
            self.changed.borrow_mut().remove(uid);
            let name = self.pods.borrow_mut().remove(uid);
            // Another of its name may be shown by now.
            let Some(name) = name else { return };
            let shown = self.shown(PODS, &name);
            if shown.is_some_and(|o| meta::text(&o, "uid") == uid.as_str()) {
                self.gone(PODS, &name.namespace, &name.name);
            }
            return;
        };
        let status = status.or(e.status.as_ref()).cloned().unwrap_or_default();
        self.changed.borrow_mut().insert(uid.clone(), (e.desired.pod.clone(), status));
        if self.api.is_watched(PODS) {
            self.settle();
        }
    }

    fn render(&self, uid: &PodUid, pod: &Pod, status: &PodStatus) {
        let name = Name::new(&pod.metadata.namespace, &pod.metadata.name);
        let before = self.pods.borrow_mut().insert(uid.clone(), name.clone());
        // A pod that takes another's name is another object.
        if before.is_none() && self.shown(PODS, &name).is_some_and(|o| meta::text(&o, "uid") != uid.as_str()) {
            self.api.retract(PODS, &name.namespace, &name.name);
        }
        self.set(PODS, crate::api::object::pod_value(pod, status, &self.node_name));
    }
}

/// Metadata goes into the metadata, the rest beside it.
fn lay(object: &mut Value, owned: &Map<String, Value>) {
    for (field, value) in owned {
        match field.as_str() {
            "managedFields" | "deletionTimestamp" | "deletionGracePeriodSeconds" => meta::set(object, field, value.clone()),
            _ => object[field] = value.clone(),
        }
    }
}

impl Lazy for Show {
    fn settle(&self) {
        for (uid, (pod, status)) in self.changed.take() {
            self.render(&uid, &pod, &status);
        }
    }
}

impl PodListener for Show {
    fn changed(&self, node: &NodeState, uid: &PodUid, status: Option<&Arc<PodStatus>>) {
        self.pod(node, uid, status);
    }

    fn recorded(&self, event: &Recorded) {
        let occurrence = crate::api::object::Occurrence { first: event.first, last: event.last, count: event.count, serial: event.serial };
        let object = crate::api::object::event(&event.event, occurrence, &self.node_name);
        self.set(EVENTS, serde_json::from_slice(&object).expect("just written"));
    }
}
