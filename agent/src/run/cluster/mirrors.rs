//! Keeps a mirror pod at the API server for each static pod of this node, and none for others.
//!
//! Owns what it knows of static pods, which it hears of as all listeners do; what the server has are `Remotes`. Must
//! never take away a mirror before every static pod is known. What is due is decided by `cluster::mirror`.

use super::pods::Remotes;
use crate::cluster::mirror::{self, Due, Seen};
use crate::cluster::pace::Backoff;
use crate::cluster::reflect::Key;
use crate::node::NodeState;
use crate::pod::status::PodStatus;
use crate::pod::{Pod, PodUid};
use crate::run::client::{Ask, Client, ClientError, JSON, chance};
use crate::run::event_loop::PodListener;
use hyper::Method;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

const RETRY: Duration = Duration::from_millis(200);
const RETRY_AT_MOST: Duration = Duration::from_secs(10);

pub struct Mirrors {
    client: Client,
    node: String,
    remotes: Rc<RefCell<Remotes>>,
    /// The node's own object, as the server has it.
    there: Rc<RefCell<Value>>,
    statics: RefCell<BTreeMap<Key, Arc<Pod>>>,
    /// Every static pod is known.
    complete: Cell<bool>,
    changed: Rc<Notify>,
}

impl Mirrors {
    pub fn new(client: Client, node: &str, remotes: Rc<RefCell<Remotes>>, there: Rc<RefCell<Value>>, changed: Rc<Notify>) -> Rc<Mirrors> {
        let (statics, complete) = (RefCell::default(), Cell::new(false));
        Rc::new(Mirrors { client, node: node.into(), remotes, there, statics, complete, changed })
    }

    /// Runs until the daemon ends.
    pub async fn run(self: Rc<Self>) {
        let mut backoff = Backoff::new(RETRY, RETRY_AT_MOST);
        let mut complained = BTreeSet::new();
        loop {
            let mut failed = false;
            for (key, due) in self.due() {
                let Err(error) = self.act(&key, due).await else {
                    complained.remove(&key);
                    continue;
                };
                failed = true;
                if !error.is_outage() && complained.insert(key.clone()) {
                    tracing::warn!(pod = %format!("{}/{}", key.namespace, key.name), %error, "the mirror of a static pod cannot be kept; trying again");
                }
            }
            if failed {
                tokio::time::sleep(backoff.next(chance())).await;
                continue;
            }
            backoff.reset();
            self.changed.notified().await;
        }
    }

    fn due(&self) -> Vec<(Key, Due)> {
        // Before the list of the server nobody knows which mirrors there are, and without a node none may be made.
        let remotes = self.remotes.borrow();
        if !remotes.listed {
            return Vec::new();
        }
        let (statics, there) = (self.statics.borrow(), self.there.borrow());
        let can_make = there["metadata"]["uid"].is_string() && there["metadata"]["deletionTimestamp"].is_null();
        let names: BTreeSet<&Key> = statics.keys().chain(remotes.mirrors.keys()).collect();
        let one = |key: &&Key| {
            let shown = statics.get(*key).map(|p| p.metadata.uid.as_str());
            let seen = remotes.mirrors.get(*key).map(|m| Seen { hash: m.hash.as_str(), ends: m.ends });
            match mirror::due(shown, seen) {
                Due::Create if !can_make => Due::Nothing,
                Due::Delete if shown.is_none() && !self.complete.get() => Due::Nothing,
                due => due,
            }
        };
        names.iter().map(|k| ((*k).clone(), one(k))).filter(|(_, d)| *d != Due::Nothing).collect()
    }

    async fn act(&self, key: &Key, due: Due) -> Result<(), ClientError> {
        let collection = format!("/api/v1/namespaces/{}/pods", key.namespace);
        let path = format!("{collection}/{}", key.name);
        match due {
            Due::Nothing => Ok(()),
            Due::Create => {
                let Some(pod) = self.statics.borrow().get(key).cloned() else { return Ok(()) };
                let uid = self.there.borrow()["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
                let body = mirror::mirror(&pod, &self.node, &uid);
                match self.client.ask(Ask::send(Method::POST, &collection, JSON, &body)).await {
                    Ok(made) => self.remotes.borrow_mut().set_mirror(key, &made),
                    // The watch tells of it.
                    Err(e) if e.code() == 409 => {}
                    Err(e) => return Err(e),
                }
                Ok(())
            }
            Due::Delete => {
                let Some(uid) = self.remotes.borrow().mirrors.get(key).map(|m| m.uid.clone()) else { return Ok(()) };
                let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
                match self.client.ask(Ask::send(Method::DELETE, &path, JSON, &body)).await {
                    Err(e) if !matches!(e.code(), 404 | 409) => Err(e),
                    _ => {
                        // The watch will tell as well; another may be made at once.
                        let mut remotes = self.remotes.borrow_mut();
                        if remotes.mirrors.get(key).is_some_and(|m| m.uid == uid) {
                            remotes.mirrors.remove(key);
                        }
                        self.changed.notify_one();
                        Ok(())
                    }
                }
            }
        }
    }
}

impl PodListener for Mirrors {
    fn changed(&self, node: &NodeState, uid: &PodUid, _: Option<&Arc<PodStatus>>) {
        let mut statics = self.statics.borrow_mut();
        match node.pods.get(uid).map(|e| &e.desired.pod) {
            Some(pod) if pod.is_static() => {
                let key = Key::new(&pod.metadata.namespace, &pod.metadata.name);
                if statics.get(&key).is_some_and(|p| p.metadata.uid == pod.metadata.uid) {
                    return;
                }
                statics.insert(key, pod.clone());
            }
            Some(_) => return,
            None => {
                let before = statics.len();
                statics.retain(|_, p| *p.metadata.uid != *uid.as_str());
                if statics.len() == before {
                    return;
                }
            }
        }
        self.changed.notify_one();
    }

    fn all_told(&self) {
        self.complete.set(true);
        self.changed.notify_one();
    }
}
