//! ConfigMaps and Secrets: each that a pod here reads is watched by itself, as long as a pod reads it.

use super::reflector::{self, Consumer, What};
use crate::cluster::references;
use crate::cluster::reflect::Told;
use crate::manifest;
use crate::node::Event;
use crate::pod::{Pod, PodUid, Referent};
use crate::run::client::Client;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};

/// Kind, namespace and name.
type Id = (Referent, Box<str>, Box<str>);

struct Watched {
    task: tokio::task::JoinHandle<()>,
    /// The server said once whether it is there.
    known: Rc<Cell<bool>>,
    readers: BTreeSet<PodUid>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The watches.
pub struct ConfigWatches {
    client: Client,
    to: mpsc::Sender<Event>,
    watched: RefCell<BTreeMap<Id, Watched>>,
    /// Something more is known.
    news: Rc<Notify>,
}

impl ConfigWatches {
    pub fn new(client: Client, to: mpsc::Sender<Event>, news: Rc<Notify>) -> ConfigWatches {
        ConfigWatches { client, to, watched: RefCell::default(), news }
    }

    /// This pod reads what it names now, and nothing that it named before. Returns what the node is to be told.
    pub fn need(&self, uid: &PodUid, pod: &Pod) -> Vec<Event> {
        let namespace = pod.metadata.namespace.as_str();
        let wanted: BTreeSet<Id> = references::of(pod).into_iter().map(|(kind, name)| (kind, namespace.into(), name.into())).collect();
        let mut watched = self.watched.borrow_mut();
        for (_, w) in watched.iter_mut().filter(|(id, _)| !wanted.contains(*id)) {
            w.readers.remove(uid);
        }
        for id in wanted {
            watched.entry(id.clone()).or_insert_with(|| self.watch(&id)).readers.insert(uid.clone());
        }
        unread(&mut watched)
    }

    /// This pod reads nothing any more.
    pub fn release(&self, uid: &PodUid) -> Vec<Event> {
        let mut watched = self.watched.borrow_mut();
        for w in watched.values_mut() {
            w.readers.remove(uid);
        }
        unread(&mut watched)
    }

    /// Whether all that this pod reads is known, or known to be missing.
    pub fn are_known(&self, uid: &PodUid) -> bool {
        self.watched.borrow().values().filter(|w| w.readers.contains(uid)).all(|w| w.known.get())
    }

    fn watch(&self, id: &Id) -> Watched {
        let (kind, namespace, name) = id;
        let plural = match kind {
            Referent::ConfigMap => "configmaps",
            Referent::Secret => "secrets",
        };
        let what = What::named(&format!("/api/v1/namespaces/{namespace}/{plural}"), name);
        let known = Rc::new(Cell::new(false));
        let one = One { id: id.clone(), to: self.to.clone(), known: known.clone(), news: self.news.clone() };
        let task = tokio::task::spawn_local(reflector::follow(self.client.clone(), what, one));
        Watched { task, known, readers: BTreeSet::new() }
    }
}

/// Ends the watches of what nobody reads, and takes it from the node.
fn unread(watched: &mut BTreeMap<Id, Watched>) -> Vec<Event> {
    let gone = watched.extract_if(.., |_, w| w.readers.is_empty());
    gone.map(|((kind, namespace, name), _)| Event::RemoveConfig { kind, namespace: namespace.into(), name: name.into() }).collect()
}

struct One {
    id: Id,
    to: mpsc::Sender<Event>,
    known: Rc<Cell<bool>>,
    news: Rc<Notify>,
}

impl Consumer for One {
    async fn told(&mut self, told: Told) {
        let (kind, namespace, name) = (self.id.0, self.id.1.to_string(), self.id.2.to_string());
        let event = match told {
            Told::Set(object) => match manifest::config_data(kind, &object) {
                Ok(data) => Event::SetConfig { kind, namespace, name, data: Arc::new(data) },
                Err(message) => {
                    let kind = crate::manifest::Kind::from(kind).as_str().to_owned();
                    Event::Invalid { kind, namespace, name, message }
                }
            },
            Told::Gone(_) => Event::RemoveConfig { kind, namespace, name },
            Told::Synced => {
                self.known.set(true);
                self.news.notify_one();
                return;
            }
        };
        // The node may be ending.
        let _ = self.to.send(event).await;
    }
}
