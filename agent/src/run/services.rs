//! Carries the lone node's services to the data plane, to environments and to the DNS.
//!
//! Owns `lone::Lone` and the record of given addresses in the state directory. Decides nothing.

use super::api::Show;
use super::event_loop::PodListener;
use super::state_file;
use crate::api::resource::{SERVICES, SLICES};
use crate::env::services::ServiceAddress;
use crate::lone::addresses::Given;
use crate::lone::{Lone, Output, endpoints};
use crate::node::effect::EventRecord;
use crate::node::{Event, NodeState};
use crate::pod::status::PodStatus;
use crate::pod::{ObjectName, PodUid};
use longshore_dataplane::events::{self, Regarding};
use longshore_dataplane::wire::{EndpointSlice, Service};
use longshore_dataplane::{Change, Dataplane, model};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

pub struct Services {
    lone: RefCell<Lone>,
    dataplane: Option<Rc<Dataplane>>,
    record: PathBuf,
    to_node: mpsc::Sender<Event>,
    /// Services of the node itself, with their slices.
    own: RefCell<Vec<(Arc<Service>, Arc<EndpointSlice>)>>,
    /// The API, where there is one.
    show: Option<Rc<Show>>,
}

/// Reads the record of given addresses; one that cannot be read is told and begun anew.
pub fn given(state_dir: &Path) -> BTreeMap<String, Given> {
    let path = state_dir.join("services.json");
    match std::fs::read(&path) {
        Ok(bytes) => crate::typed::read_text(&bytes).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the record of service addresses cannot be read; addresses may change");
            BTreeMap::new()
        }),
        Err(_) => BTreeMap::new(),
    }
}

impl Services {
    pub fn new(
        lone: Lone,
        dataplane: Option<Rc<Dataplane>>,
        state_dir: &Path,
        to_node: mpsc::Sender<Event>,
        show: Option<Rc<Show>>,
    ) -> Services {
        Services { lone: RefCell::new(lone), dataplane, record: state_dir.join("services.json"), to_node, own: RefCell::default(), show }
    }

    /// A service of the node itself, such as its DNS. One of the directory with the same address wins.
    pub fn add_own(&self, service: Service, slice: EndpointSlice) {
        self.own.borrow_mut().push((Arc::new(service), Arc::new(slice)));
    }

    /// The directory's services and slices, whole.
    pub fn set_objects(&self, mut services: Vec<Arc<Service>>, mut slices: Vec<Arc<EndpointSlice>>) {
        for (service, slice) in self.own.borrow().iter() {
            let same = |s: &Arc<Service>| {
                s.spec.cluster_ip == service.spec.cluster_ip
                    || (s.metadata.namespace == service.metadata.namespace && s.metadata.name == service.metadata.name)
            };
            if !services.iter().any(same) {
                services.push(service.clone());
                slices.push(slice.clone());
            }
        }
        let out = self.lone.borrow_mut().set_objects(services, slices);
        self.carry_out(out);
    }

    pub fn services(&self) -> Vec<Arc<Service>> {
        self.lone.borrow().services().cloned().collect()
    }

    pub fn slices(&self) -> Vec<Arc<EndpointSlice>> {
        self.lone.borrow().slices().cloned().collect()
    }

    /// Looks at the services where they stand, without a copy.
    pub fn with<T>(&self, f: impl FnOnce(&Lone) -> T) -> T {
        f(&self.lone.borrow())
    }

    pub fn dataplane(&self) -> Option<&Dataplane> {
        self.dataplane.as_deref()
    }

    fn carry_out(&self, out: Vec<Output>) {
        for o in out {
            match o {
                Output::Record(given) => {
                    let bytes = serde_json::to_vec_pretty(&given).expect("plain data serialises");
                    if let Err(error) = state_file::replace(&self.record, &bytes, true) {
                        tracing::error!(%error, "service addresses could not be written down; a restart may change them");
                    }
                }
                Output::Dataplane(change) => self.program(change),
                Output::Environment(list) => self.announce(list),
                Output::Refused(name, why) => self.refuse(&name, why),
            }
        }
    }

    fn program(&self, change: Change) {
        if let Some(show) = &self.show {
            match &change {
                Change::SetService(s) => show.service(s),
                Change::DeleteService { namespace, name } => show.gone(SERVICES, namespace, name),
                Change::SetSlice(s) => show.slice(s),
                Change::DeleteSlice { namespace, name } => show.gone(SLICES, namespace, name),
                _ => {}
            }
        }
        if let Some(d) = &self.dataplane {
            d.apply(change);
        }
    }

    /// In order with the pods that follow: their environments show these services.
    fn announce(&self, list: Arc<Vec<ServiceAddress>>) {
        self.send(Event::Services(list));
    }

    /// What the service proxy tells users goes to the node's recorder, for as long as there is a proxy.
    pub async fn record_events(self: Rc<Self>) {
        let Some(events) = self.dataplane().map(Dataplane::events) else { return };
        loop {
            let told = events.next().await;
            self.send(Event::Proxy(Box::new(self.record(told))));
        }
    }

    fn record(&self, told: events::Event) -> EventRecord {
        let lone = self.lone.borrow();
        event_of(told, &lone.node_name, |namespace, name| {
            let is_it = |s: &&Arc<Service>| s.metadata.namespace == namespace && s.metadata.name == name;
            lone.services().find(is_it).map(|s| s.metadata.uid.clone()).unwrap_or_default()
        })
    }

    /// A service that cannot have the address or port that it asks for.
    fn refuse(&self, name: &ObjectName, why: String) {
        tracing::error!(service = %name, "{why}");
        let name = model::ObjectName::new(&name.namespace, &name.name);
        let told = events::Event::warning(&name, "FailedAllocation", "Allocate", why);
        self.send(Event::Proxy(Box::new(EventRecord { component: "longshore", ..self.record(told) })));
    }

    fn send(&self, event: Event) {
        if let Err(mpsc::error::TrySendError::Full(event)) = self.to_node.try_send(event) {
            // The node is behind; waiting for room must not hold up the services.
            let to = self.to_node.clone();
            tokio::task::spawn_local(async move {
                let _ = to.send(event).await;
            });
        }
    }
}

/// What the service proxy tells, as an event of the API. `uid` gives that of a service by namespace and name.
pub fn event_of(told: events::Event, node: &str, uid: impl Fn(&str, &str) -> String) -> EventRecord {
    // An object without a namespace has its events in the default one.
    let (kind, namespace, name) = match &told.regarding {
        Regarding::Service(service) => ("Service", service.namespace(), service.name()),
        Regarding::Node => ("Node", "default", node),
    };
    EventRecord {
        kind: kind.into(),
        namespace: namespace.into(),
        name: name.into(),
        uid: if kind == "Service" { uid(namespace, name) } else { String::new() },
        component: "kube-proxy",
        field_path: String::new(),
        warning: told.warning,
        reason: told.reason.into(),
        message: told.message,
    }
}

impl PodListener for Services {
    fn all_told(&self) {
        let out = self.lone.borrow_mut().all_pods_told();
        self.carry_out(out);
    }

    fn changed(&self, node: &NodeState, uid: &PodUid, status: Option<&Arc<PodStatus>>) {
        let pod = node.pods.get(uid);
        let facts = pod.and_then(|e| endpoints::facts(&e.desired.pod, status.or(e.status.as_ref())?));
        let out = self.lone.borrow_mut().set_pod(uid, facts);
        self.carry_out(out);
    }
}
