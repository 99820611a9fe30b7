//! Services and their endpoints, from the server to the data plane and to environments.
//!
//! No copy is kept of what the data plane has: only what environments show of a service.

use super::reflector::{self, Consumer, What};
use crate::cluster::reflect::{Key, Told};
use crate::env::services::ServiceAddress;
use crate::lone;
use crate::node::Event;
use crate::run::client::Client;
use longshore_dataplane::wire::{EndpointSlice, Node, Service, ServiceCidr};
use longshore_dataplane::{Change, Dataplane};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Changes of services within this time are one change of what environments show.
const GATHER: Duration = Duration::from_millis(50);

/// Shared by the watches.
pub struct Services {
    /// None: another program is this node's service proxy.
    pub dataplane: Option<Rc<Dataplane>>,
    pub to: mpsc::Sender<Event>,
    /// Services were read once, and told to the node.
    pub known: Rc<Cell<bool>>,
    pub news: Rc<Notify>,
    addresses: RefCell<BTreeMap<Key, ServiceAddress>>,
    changed: Notify,
    listed: [Cell<bool>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Service,
    Slice,
    Range,
}

impl Services {
    pub fn new(dataplane: Option<Rc<Dataplane>>, to: mpsc::Sender<Event>, known: Rc<Cell<bool>>, news: Rc<Notify>) -> Rc<Services> {
        let (addresses, changed, listed) = (RefCell::default(), Notify::new(), Default::default());
        Rc::new(Services { dataplane, to, known, news, addresses, changed, listed })
    }

    /// Watches what a proxy watches, with the selectors that it has (specification of the proxy, 1.1).
    pub fn start(self: &Rc<Self>, client: &Client) {
        let follow = |what: What, kind| {
            tokio::task::spawn_local(reflector::follow(client.clone(), what, One { kind, all: self.clone() }));
        };
        let services = What::all("/api/v1/services");
        // Environments show all services that have an address, whoever serves them.
        follow(services.select("fieldSelector", "spec.clusterIP!=None"), Kind::Service);
        if self.dataplane.is_some() {
            let slices = What::all("/apis/discovery.k8s.io/v1/endpointslices");
            follow(slices.select("labelSelector", "!service.kubernetes.io/headless"), Kind::Slice);
            follow(What::all("/apis/networking.k8s.io/v1/servicecidrs"), Kind::Range);
        }
        tokio::task::spawn_local(self.clone().announce());
    }

    /// This node: its zone, its addresses, whether it may get traffic.
    pub fn set_node(&self, node: &Value) {
        self.program(read::<Node>(node, "Node").map(|n| Change::SetNode(Arc::new(n))));
    }

    fn program(&self, change: Option<Change>) {
        if let (Some(d), Some(change)) = (&self.dataplane, change) {
            d.apply(change);
        }
    }

    fn set(&self, kind: Kind, object: &Value) {
        match kind {
            Kind::Service => {
                let Some(service) = read::<Service>(object, "Service") else { return };
                let key = Key::new(&service.metadata.namespace, &service.metadata.name);
                let mut addresses = self.addresses.borrow_mut();
                let before = match lone::announced(&service) {
                    Some(a) if addresses.get(&key) == Some(&a) => Some(a),
                    Some(a) => {
                        self.changed.notify_one();
                        addresses.insert(key, a)
                    }
                    None => addresses.remove(&key).inspect(|_| self.changed.notify_one()),
                };
                drop((before, addresses));
                self.program(Some(Change::SetService(Arc::new(service))));
            }
            Kind::Slice => self.program(read::<EndpointSlice>(object, "EndpointSlice").map(|s| Change::SetSlice(Arc::new(s)))),
            Kind::Range => self.program(read::<ServiceCidr>(object, "ServiceCIDR").map(|c| Change::SetServiceCidr(Arc::new(c)))),
        }
    }

    fn gone(&self, kind: Kind, key: Key) {
        let (namespace, name) = (key.namespace.to_string(), key.name.to_string());
        match kind {
            Kind::Service => {
                if self.addresses.borrow_mut().remove(&key).is_some() {
                    self.changed.notify_one();
                }
                self.program(Some(Change::DeleteService { namespace, name }));
            }
            Kind::Slice => self.program(Some(Change::DeleteSlice { namespace, name })),
            Kind::Range => self.program(Some(Change::DeleteServiceCidr { name })),
        }
    }

    fn synced(&self, kind: Kind) {
        let index = match kind {
            Kind::Service => 0,
            Kind::Slice => 1,
            Kind::Range => return,
        };
        if self.listed[index].replace(true) {
            return;
        }
        if kind == Kind::Service {
            self.changed.notify_one();
        }
        if self.listed.iter().all(Cell::get) {
            self.program(Some(Change::Synced));
        }
    }

    /// Tells the node what environments show, when that changed.
    async fn announce(self: Rc<Self>) {
        loop {
            self.changed.notified().await;
            if !self.listed[0].get() {
                continue;
            }
            let list: Vec<ServiceAddress> = self.addresses.borrow().values().cloned().collect();
            // The node may be ending.
            let _ = self.to.send(Event::Services(Arc::new(list))).await;
            if !self.known.replace(true) {
                self.news.notify_one();
            }
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// An object that cannot be read is as good as none; the others are unaffected.
fn read<T: DeserializeOwned>(object: &Value, kind: &str) -> Option<T> {
    crate::typed::read(object)
        .inspect_err(|error| {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
            tracing::error!(kind, namespace = text("namespace"), name = text("name"), %error, "an object of the server cannot be read; passed over");
        })
        .ok()
}

struct One {
    kind: Kind,
    all: Rc<Services>,
}

impl Consumer for One {
    async fn told(&mut self, told: Told) {
        match told {
            Told::Set(object) => self.all.set(self.kind, &object),
            Told::Gone(key) => self.all.gone(self.kind, key),
            Told::Synced => self.all.synced(self.kind),
        }
    }
}
