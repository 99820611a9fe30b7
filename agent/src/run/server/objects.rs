//! Lists, single objects and watches.

use super::{Answer, Reply, Server, json, stream};
use crate::api::object::{self, Occurrence};
use crate::api::{Failure, Kind, Query};
use crate::node::NodeState;
use crate::pod::Pod;
use crate::pod::status::PodStatus;
use crate::run::events::{Recorded, Recorder};
use bytes::Bytes;
use hyper::Response;
use longshore_dataplane::wire::{EndpointSlice, Service};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

/// One object, shared with its owner.
pub(super) enum Item {
    Pod(Arc<Pod>, Arc<PodStatus>),
    Service(Arc<Service>),
    Slice(Arc<EndpointSlice>),
    Event(Box<Recorded>),
}

impl Item {
    fn namespace(&self) -> &str {
        match self {
            Item::Pod(p, _) => &p.metadata.namespace,
            Item::Service(s) => &s.metadata.namespace,
            Item::Slice(s) => &s.metadata.namespace,
            Item::Event(e) => &e.event.namespace,
        }
    }

    fn name(&self) -> String {
        match self {
            Item::Pod(p, _) => p.metadata.name.clone(),
            Item::Service(s) => s.metadata.name.clone(),
            Item::Slice(s) => s.metadata.name.clone(),
            Item::Event(e) => object::event_name(&e.event, occurrence(e)),
        }
    }

    /// Two objects of one name that are not the same object have different identities.
    fn identity(&self) -> (String, String, String) {
        let uid = match self {
            Item::Pod(p, _) => p.metadata.uid.clone(),
            Item::Service(s) => s.metadata.uid.clone(),
            Item::Slice(s) => s.metadata.uid.clone(),
            Item::Event(e) => e.serial.to_string(),
        };
        (self.namespace().to_owned(), self.name(), uid)
    }

    fn same(&self, other: &Item) -> bool {
        match (self, other) {
            (Item::Pod(a, s), Item::Pod(b, t)) => Arc::ptr_eq(a, b) && Arc::ptr_eq(s, t),
            (Item::Service(a), Item::Service(b)) => Arc::ptr_eq(a, b) || a == b,
            (Item::Slice(a), Item::Slice(b)) => Arc::ptr_eq(a, b) || a == b,
            (Item::Event(a), Item::Event(b)) => a.count == b.count && a.last == b.last,
            _ => false,
        }
    }

    fn render(&self, node: &str) -> Vec<u8> {
        match self {
            Item::Pod(p, s) => object::pod(p, s, node),
            Item::Service(s) => object::service(s),
            Item::Slice(s) => object::endpoint_slice(s),
            Item::Event(e) => object::event(&e.event, occurrence(e), node),
        }
    }
}

fn occurrence(r: &Recorded) -> Occurrence {
    Occurrence { first: r.first, last: r.last, count: r.count, serial: r.serial }
}

fn pods(n: &NodeState, _: &Recorder) -> Vec<Item> {
    let mut all: Vec<Item> = n.pods.values().map(|e| Item::Pod(e.desired.pod.clone(), e.status.clone().unwrap_or_default())).collect();
    all.sort_by_cached_key(Item::identity);
    all
}

fn events(_: &NodeState, r: &Recorder) -> Vec<Item> {
    r.list().map(|e| Item::Event(Box::new(e.clone()))).collect()
}

impl Server {
    /// Pods, services and slices by name; events by when they last happened.
    pub(super) async fn items(&self, kind: Kind, namespace: Option<&str>) -> Result<Vec<Item>, Failure> {
        let mut items = match kind {
            Kind::Pod => self.ask(pods).await?,
            Kind::Event => self.ask(events).await?,
            Kind::Service => self.services.services().into_iter().map(Item::Service).collect(),
            Kind::EndpointSlice => self.services.slices().into_iter().map(Item::Slice).collect(),
        };
        if matches!(kind, Kind::Service | Kind::EndpointSlice) {
            items.sort_by_cached_key(Item::identity);
        }
        items.retain(|i| namespace.is_none_or(|n| n == i.namespace()));
        Ok(items)
    }

    pub(super) async fn list(&self, kind: Kind, namespace: Option<&str>) -> Answer {
        let items = self.items(kind, namespace).await?;
        let items: Vec<Vec<u8>> = items.iter().map(|i| i.render(&self.node_name)).collect();
        Ok(json(object::list(kind, &items)))
    }

    pub(super) async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Answer {
        let items = self.items(kind, Some(namespace)).await?;
        let item = items.iter().find(|i| i.name() == name).ok_or_else(|| Failure::not_found(kind, name))?;
        Ok(json(item.render(&self.node_name)))
    }

    /// Tells what is there and then what changes, until the client goes. Changes that come faster than the client
    /// reads fold into one.
    pub(super) fn watch(self: Rc<Self>, kind: Kind, namespace: Option<String>, query: &Query) -> Result<Response<Reply>, Failure> {
        let bookmark = query.flag("sendInitialEvents")?;
        let (to, from) = mpsc::channel(16);
        tokio::task::spawn_local(async move {
            let gone = to.clone();
            tokio::select! {
                () = self.follow(kind, namespace, bookmark, to) => {}
                () = gone.closed() => {}
            }
        });
        Ok(stream("application/json;stream=watch", from))
    }

    async fn follow(&self, kind: Kind, namespace: Option<String>, bookmark: bool, to: mpsc::Sender<Bytes>) {
        let mut changes = match kind {
            Kind::Pod | Kind::Event => self.changes.subscribe(),
            Kind::Service | Kind::EndpointSlice => self.services.changes(),
        };
        let mut known: BTreeMap<(String, String, String), Item> = BTreeMap::new();
        let mut first = bookmark;
        loop {
            changes.borrow_and_update();
            let Ok(items) = self.items(kind, namespace.as_deref()).await else { return };
            let mut lines = Vec::new();
            let mut fresh = BTreeMap::new();
            for item in items {
                let key = item.identity();
                let what = match known.remove(&key) {
                    None => Some("ADDED"),
                    Some(old) if !old.same(&item) => Some("MODIFIED"),
                    Some(_) => None,
                };
                if let Some(what) = what {
                    lines.extend(object::watch_line(what, &item.render(&self.node_name)));
                }
                fresh.insert(key, item);
            }
            for gone in known.values() {
                lines.extend(object::watch_line("DELETED", &gone.render(&self.node_name)));
            }
            known = fresh;
            if std::mem::take(&mut first) {
                lines.extend(object::initial_end(kind));
            }
            if !lines.is_empty() && to.send(lines.into()).await.is_err() {
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}
