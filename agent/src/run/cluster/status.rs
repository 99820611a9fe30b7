//! Tells the server how its pods are, and takes away those that are over (specification of the kubelet, 2.5 and 2.6).
//!
//! One request per pod at a time: what changes meanwhile goes with the next. A server that is away costs nothing but
//! the memory of which pods to tell of. What to tell is decided by `cluster::report`.

use super::pods::Remotes;
use crate::cluster::pace::Backoff;
use crate::cluster::report;
use crate::node::NodeState;
use crate::pod::PodUid;
use crate::pod::status::PodStatus;
use crate::run::client::{Ask, Client, ClientError, JSON, STRATEGIC, chance};
use crate::run::event_loop::PodListener;
use hyper::Method;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// All are looked at this often, whatever was heard.
const PASS: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(200);
const RETRY_AT_MOST: Duration = Duration::from_secs(4);

#[derive(Default)]
struct Pending {
    statuses: BTreeMap<PodUid, Arc<PodStatus>>,
    /// The node has nothing left of these.
    over: BTreeSet<PodUid>,
    /// To be looked at.
    dirty: BTreeSet<PodUid>,
    /// A request is under way.
    busy: BTreeSet<PodUid>,
}

pub struct Reporter {
    client: Client,
    remotes: Rc<RefCell<Remotes>>,
    pending: RefCell<Pending>,
    /// There is something to look at.
    changed: Notify,
}

/// What to do about a pod.
enum Due {
    Tell(String, Value),
    Remove(String),
    Nothing,
}

impl Reporter {
    pub fn new(client: Client, remotes: Rc<RefCell<Remotes>>) -> Rc<Reporter> {
        Rc::new(Reporter { client, remotes, pending: RefCell::default(), changed: Notify::new() })
    }

    /// The server told of this pod: it may not have what is so.
    pub fn look(&self, uid: &PodUid) {
        self.pending.borrow_mut().dirty.insert(uid.clone());
        self.changed.notify_one();
    }

    /// The server has it no more.
    pub fn forget(&self, uid: &PodUid) {
        let mut p = self.pending.borrow_mut();
        if p.over.remove(uid) {
            p.statuses.remove(uid);
        }
    }

    pub async fn run(self: Rc<Self>) {
        loop {
            let all = tokio::select! {
                () = self.changed.notified() => false,
                () = tokio::time::sleep(PASS) => true,
            };
            for uid in self.due(all) {
                tokio::task::spawn_local(self.clone().report(uid));
            }
        }
    }

    /// Those that are to be looked at now; each is busy from here on. One that is busy already is looked at again when
    /// its request is done.
    fn due(&self, all: bool) -> Vec<PodUid> {
        let mut p = self.pending.borrow_mut();
        if all {
            p.dirty.extend(self.remotes.borrow().uids());
        }
        let Pending { dirty, busy, .. } = &mut *p;
        let due: Vec<PodUid> = dirty.extract_if(.., |uid| !busy.contains(uid)).collect();
        busy.extend(due.iter().cloned());
        due
    }

    fn what(&self, p: &Pending, uid: &PodUid) -> Due {
        let remotes = self.remotes.borrow();
        let Some(there) = remotes.target(uid) else { return Due::Nothing };
        let path = format!("/api/v1/namespaces/{}/pods/{}", there.key.namespace, there.key.name);
        if let Some(body) = p.statuses.get(uid).and_then(|s| report::patch(there.uid, there.status, s)) {
            return Due::Tell(format!("{path}/status"), body);
        }
        if there.ends && p.over.contains(uid) { Due::Remove(path) } else { Due::Nothing }
    }

    async fn report(self: Rc<Self>, uid: PodUid) {
        let mut backoff = Backoff::new(RETRY, RETRY_AT_MOST);
        loop {
            let due = self.what(&self.pending.borrow(), &uid);
            let done = match due {
                Due::Nothing => break,
                Due::Tell(path, body) => self.tell(&uid, &path, &body).await,
                Due::Remove(path) => self.remove(&uid, &path).await,
            };
            match done {
                Ok(true) => backoff.reset(),
                Ok(false) => break,
                Err(e) if e.is_outage() => {}
                Err(error) => {
                    tracing::warn!(pod = %uid, %error, "the status of a pod could not be told; trying again");
                    tokio::time::sleep(backoff.next(chance())).await;
                }
            }
        }
        let mut p = self.pending.borrow_mut();
        p.busy.remove(&uid);
        if p.dirty.contains(&uid) {
            self.changed.notify_one();
        }
    }

    /// True: look again; false: it is another's by now, or gone, and the watch will say so.
    async fn tell(&self, uid: &PodUid, path: &str, body: &Value) -> Result<bool, ClientError> {
        match self.client.ask(Ask::send(Method::PATCH, path, STRATEGIC, body)).await {
            Ok(mut object) => {
                self.remotes.borrow_mut().update_status(uid, object["status"].take());
                Ok(true)
            }
            Err(e) if matches!(e.code(), 404 | 409) => Ok(false),
            // What it does not take now it will not take again; a change of the status may mend it.
            Err(e) if matches!(e.code(), 400 | 403 | 422) => {
                tracing::error!(pod = %uid, error = %e, "the server does not take the status of a pod");
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    async fn remove(&self, uid: &PodUid, path: &str) -> Result<bool, ClientError> {
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid.as_str()}});
        match self.client.ask(Ask::send(Method::DELETE, path, JSON, &body)).await {
            Ok(_) => Ok(false),
            Err(e) if matches!(e.code(), 404 | 409) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

impl PodListener for Reporter {
    fn changed(&self, node: &NodeState, uid: &PodUid, status: Option<&Arc<PodStatus>>) {
        let mut p = self.pending.borrow_mut();
        match node.pods.get(uid) {
            Some(e) => {
                if let Some(status) = status.or(e.status.as_ref()) {
                    p.statuses.insert(uid.clone(), status.clone());
                }
                p.over.remove(uid);
            }
            None if self.remotes.borrow().pods.contains_key(uid) => {
                p.over.insert(uid.clone());
            }
            // The server has forgotten it before.
            None => {
                p.statuses.remove(uid);
                return;
            }
        }
        p.dirty.insert(uid.clone());
        drop(p);
        self.changed.notify_one();
    }
}
