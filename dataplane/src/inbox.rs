//! What waits to be taken in by the actor: changes by object, and requests.
//!
//! Owns the coalescing: of one object's changes only the last is kept, so the queue is never longer than the cluster
//! has objects. Tests are at the end of this file.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::config::{Change, Config};
use crate::snapshot::Snapshot;
use crate::wire;

/// A namespace and a name.
pub type Key = (String, String);

/// Changes since the last look; `None` is a deletion.
#[derive(Debug, Default)]
pub struct Pending {
    pub services: HashMap<Key, Option<Arc<wire::Service>>>,
    pub slices: HashMap<Key, Option<Arc<wire::EndpointSlice>>>,
    pub service_cidrs: HashMap<String, Option<Arc<wire::ServiceCidr>>>,
    pub node: Option<Arc<wire::Node>>,
    pub zone: Option<Option<String>>,
    pub config: Option<Box<Config>>,
    pub synced: bool,
    /// Number of the last change.
    pub generation: u64,
    pub snapshots: Vec<oneshot::Sender<Snapshot>>,
    /// Whether to keep the rules at the end.
    pub shutdown: Option<bool>,
}

impl Pending {
    fn put(&mut self, change: Change) {
        match change {
            Change::SetService(service) => {
                let key = (service.metadata.namespace.clone(), service.metadata.name.clone());
                self.services.insert(key, Some(service));
            }
            Change::DeleteService { namespace, name } => {
                self.services.insert((namespace, name), None);
            }
            Change::SetSlice(slice) => {
                let key = (slice.metadata.namespace.clone(), slice.metadata.name.clone());
                self.slices.insert(key, Some(slice));
            }
            Change::DeleteSlice { namespace, name } => {
                self.slices.insert((namespace, name), None);
            }
            Change::SetZone(zone) => self.zone = Some(zone),
            Change::SetNode(node) => self.node = Some(node),
            Change::SetServiceCidr(object) => {
                self.service_cidrs.insert(object.metadata.name.clone(), Some(object));
            }
            Change::DeleteServiceCidr { name } => {
                self.service_cidrs.insert(name, None);
            }
            Change::Synced => self.synced = true,
        }
    }
}

/// The actor's letter box. Dropping a letter in never blocks.
#[derive(Debug, Default)]
pub struct Inbox {
    pending: Mutex<Pending>,
    pub arrived: Notify,
}

impl Inbox {
    /// Returns the change's number.
    pub fn put(&self, change: Change) -> u64 {
        self.note(|pending| pending.put(change))
    }

    /// Another configuration; returns the change's number.
    pub fn reconfigure(&self, config: Config) -> u64 {
        self.note(|pending| pending.config = Some(Box::new(config)))
    }

    fn note(&self, act: impl FnOnce(&mut Pending)) -> u64 {
        let generation = self.with(|pending| {
            act(pending);
            pending.generation += 1;
            pending.generation
        });
        self.arrived.notify_one();
        generation
    }

    pub fn ask_snapshot(&self, answer: oneshot::Sender<Snapshot>) {
        self.with(|pending| pending.snapshots.push(answer));
        self.arrived.notify_one();
    }

    pub fn shut_down(&self, keep_rules: bool) {
        self.with(|pending| pending.shutdown = Some(keep_rules));
        self.arrived.notify_one();
    }

    /// Takes everything that waits.
    pub fn take(&self) -> Pending {
        self.with(|pending| {
            let generation = pending.generation;
            std::mem::replace(pending, Pending { generation, ..Pending::default() })
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Pending) -> T) -> T {
        // A panic elsewhere leaves the maps whole: nothing in here is done in two steps.
        act(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_object_only_the_last_change_waits() {
        let inbox = Inbox::default();
        let service = wire::Service {
            metadata: wire::ObjectMeta { name: "web".into(), namespace: "ns1".into(), ..Default::default() },
            ..Default::default()
        };
        inbox.put(Change::SetService(Arc::new(service)));
        let last = inbox.put(Change::DeleteService { namespace: "ns1".into(), name: "web".into() });
        let pending = inbox.take();
        assert_eq!(pending.services.into_values().collect::<Vec<_>>(), [None]);
        assert_eq!((pending.generation, last), (2, 2));
        let rest = inbox.take();
        assert!(rest.services.is_empty());
        assert_eq!(rest.generation, 2);
    }
}
