//! The pods that the server has bound to this node.
//!
//! A pod is handed to the node when all that it reads is known, so that nobody is told that something is missing which
//! only has not been read yet. Owns what the server has of each pod, for those who report. Must never say that the
//! source has spoken before every pod of its first list is with the node: pods that the node does not know are ended.

use super::config::ConfigWatches;
use super::reflector::Consumer;
use super::status::Reporter;
use super::tokens::Tokens;
use crate::api::object::PodObject;
use crate::cluster::mirror::MIRROR;
use crate::cluster::reflect::{Key, Told};
use crate::cluster::report;
use crate::manifest::static_pod::SOURCE;
use crate::node::Event;
use crate::pod::status::PodStatus;
use crate::pod::{Pod, PodUid};
use crate::run::clock;
use crate::run::sources::ready::Ready;
use crate::run::sources::statics::SEEN;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// A pod that reads something which cannot be had goes to the node without it, and its status says so.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often those that wait are looked at, when nothing else happens.
const LOOK: Duration = Duration::from_secs(1);

/// A pod as the server has it.
pub struct Remote {
    pub key: Key,
    pub pod: Arc<Pod>,
    /// As it stands on the wire: others' fields as well.
    pub status: Value,
    /// Its end was asked for, with so many seconds of grace.
    pub ends: Option<i64>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Until then at most for what it reads.
    Waits(Instant),
    WithNode,
}

/// What the server shows of a static pod.
pub struct MirrorPod {
    /// The server's, not the node's.
    pub uid: String,
    pub hash: String,
    pub ends: bool,
    pub status: Value,
}

/// All of them.
#[derive(Default)]
pub struct Remotes {
    /// The server was listed once.
    pub listed: bool,
    pub pods: BTreeMap<PodUid, Remote>,
    names: BTreeMap<Key, PodUid>,
    pub mirrors: BTreeMap<Key, MirrorPod>,
}

/// Where at the server the status of a pod of this node belongs.
pub struct Target<'a> {
    pub key: &'a Key,
    /// By which the server knows it.
    pub uid: &'a str,
    pub status: &'a Value,
    /// It goes from the server when the node has nothing left of it.
    pub ends: bool,
}

impl Remotes {
    /// By the uid that the node knows it by.
    pub fn target<'a>(&'a self, uid: &'a PodUid) -> Option<Target<'a>> {
        if let Some(r) = self.pods.get(uid) {
            return Some(Target { key: &r.key, uid: uid.as_str(), status: &r.status, ends: r.ends.is_some() });
        }
        let (key, m) = self.mirrors.iter().find(|(_, m)| m.hash == uid.as_str() && !m.ends)?;
        Some(Target { key, uid: &m.uid, status: &m.status, ends: false })
    }

    /// All, by the uids that the node knows them by.
    pub fn uids(&self) -> impl Iterator<Item = PodUid> {
        self.pods.keys().cloned().chain(self.mirrors.values().map(|m| PodUid::new(&m.hash)))
    }

    pub fn set_mirror(&mut self, key: &Key, object: &Value) {
        let meta = &object["metadata"];
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let status = object.get("status").filter(|s| s.is_object()).cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let (uid, hash, ends) = (text(&meta["uid"]), text(&meta["annotations"][MIRROR]), !meta["deletionTimestamp"].is_null());
        self.mirrors.insert(key.clone(), MirrorPod { uid, hash, ends, status });
    }

    /// What the server answered to a write.
    pub fn update_status(&mut self, uid: &PodUid, status: Value) {
        if let Some(r) = self.pods.get_mut(uid) {
            r.status = status;
        } else if let Some(m) = self.mirrors.values_mut().find(|m| m.hash == uid.as_str()) {
            m.status = status;
        }
    }

    fn waits(&self) -> bool {
        self.pods.values().any(|r| r.stage != Stage::WithNode)
    }
}

/// Takes what the watch tells and hands it to the node, one after the other.
pub struct Pods {
    pub remotes: Rc<RefCell<Remotes>>,
    pub config: ConfigWatches,
    pub tokens: Tokens,
    /// The services were read once: environments can be made.
    pub services: Rc<Cell<bool>>,
    pub to: mpsc::Sender<Event>,
    pub reporter: Rc<Reporter>,
    /// The mirrors of the server, or the node's right to have some, changed.
    pub mirrored: Rc<Notify>,
    /// Something that a pod may wait for is known.
    pub news: Rc<Notify>,
    pub source: Source,
    pub ready: Option<Ready>,
}

/// How far the source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Unread,
    /// The first list is here, and some of its pods wait.
    Listed,
    /// The node knows them all.
    Told,
}

impl Pods {
    /// Runs until the watch ends.
    pub async fn run(mut self, mut told: mpsc::Receiver<Told>) {
        loop {
            let waits = self.remotes.borrow().waits();
            let patience = async {
                if waits {
                    tokio::time::sleep(LOOK).await;
                } else {
                    std::future::pending().await
                }
            };
            tokio::select! {
                t = told.recv() => match t {
                    Some(t) => self.take(t).await,
                    None => return,
                },
                () = self.news.notified() => {}
                () = patience => {}
            }
            self.release().await;
        }
    }

    async fn take(&mut self, told: Told) {
        match told {
            Told::Set(object) => self.set(object).await,
            Told::Gone(key) => {
                if self.remotes.borrow_mut().mirrors.remove(&key).is_some() {
                    self.mirrored.notify_one();
                }
                let uid = self.remotes.borrow().names.get(&key).cloned();
                if let Some(uid) = uid {
                    self.gone(&uid).await;
                }
            }
            Told::Synced if self.source == Source::Unread => {
                self.source = Source::Listed;
                self.remotes.borrow_mut().listed = true;
                self.mirrored.notify_one();
            }
            Told::Synced => {}
        }
    }

    async fn send(&self, events: impl IntoIterator<Item = Event>) {
        for e in events {
            // The node may be ending.
            let _ = self.to.send(e).await;
        }
    }

    /// It shows a pod of ours, which comes from elsewhere: of interest to those who report alone.
    fn set_mirror(&self, object: &Value) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let key = Key::new(text("namespace"), text("name"));
        let hash = PodUid::new(object["metadata"]["annotations"][MIRROR].as_str().unwrap_or_default());
        self.remotes.borrow_mut().set_mirror(&key, object);
        self.reporter.look(&hash);
        self.mirrored.notify_one();
    }

    async fn set(&self, mut object: Value) {
        if object["metadata"]["annotations"][MIRROR].is_string() {
            return self.set_mirror(&object);
        }
        let status = object.as_object_mut().and_then(|o| o.remove("status")).filter(|s| !s.is_null());
        let status = status.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let read = crate::typed::read::<PodObject>(&object).and_then(|o| Ok((o, crate::typed::read::<PodStatus>(&status)?)));
        let (object, known) = match read {
            Ok(read) => read,
            Err(wrong) => {
                let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
                let message = wrong.to_string();
                self.send([Event::Invalid { kind: "Pod".into(), namespace: text("namespace"), name: text("name"), message }]).await;
                return;
            }
        };
        let mut pod = Pod { metadata: object.metadata, spec: object.spec };
        let (uid, key) = (pod.uid(), Key::new(&pod.metadata.namespace, &pod.metadata.name));
        let before = self.remotes.borrow().names.get(&key).filter(|u| **u != uid).cloned();
        if let Some(other) = before {
            self.gone(&other).await;
        }
        let ends = pod.metadata.deletion_timestamp.map(|_| pod.metadata.deletion_grace_period_seconds.unwrap_or(30));
        self.stamp(&uid, &mut pod);
        let pod = Arc::new(pod);
        let (was, with_node) = {
            let mut remotes = self.remotes.borrow_mut();
            remotes.names.insert(key.clone(), uid.clone());
            let stage = Stage::Waits(Instant::now() + PATIENCE);
            let fresh = || Remote { key, pod: pod.clone(), status: Value::Null, ends, stage };
            let r = remotes.pods.entry(uid.clone()).or_insert_with(fresh);
            let was = (std::mem::replace(&mut r.pod, pod.clone()), std::mem::replace(&mut r.ends, ends));
            r.status = status;
            (was, r.stage == Stage::WithNode)
        };
        self.send(self.config.need(&uid, &pod)).await;
        self.tokens.need(&uid, &pod);
        self.reporter.look(&uid);
        // It goes to the node with what it is then.
        if !with_node {
            return;
        }
        let mut events = Vec::new();
        if report::foreign(&known).next().is_some() {
            events.push(Event::Reported { uid: uid.clone(), status: Arc::new(known) });
        }
        // Of a pod that ends nothing else counts; it would be taken for a pod that comes back.
        if was.1.is_none() && ends.is_none() && was.0 != pod {
            events.push(Event::SetPod(pod));
        }
        if let Some(grace) = ends.filter(|_| was.1 != ends) {
            events.push(Event::EndPod { uid, grace });
        }
        self.send(events).await;
    }

    /// What every kubelet adds; and no version, so that a change of the status alone is none of the pod.
    fn stamp(&self, uid: &PodUid, pod: &mut Pod) {
        let seen = self.remotes.borrow().pods.get(uid).and_then(|r| r.pod.metadata.annotations.get(SEEN).cloned());
        let annotations = &mut pod.metadata.annotations;
        annotations.insert(SOURCE.into(), "api".into());
        annotations.insert(SEEN.into(), seen.unwrap_or_else(|| clock::now().wall.rfc3339_micro()));
        pod.metadata.resource_version.clear();
    }

    async fn gone(&self, uid: &PodUid) {
        let removed = {
            let mut remotes = self.remotes.borrow_mut();
            let removed = remotes.pods.remove(uid);
            if let Some(r) = &removed
                && remotes.names.get(&r.key) == Some(uid)
            {
                remotes.names.remove(&r.key);
            }
            removed
        };
        let Some(removed) = removed else { return };
        self.reporter.forget(uid);
        if removed.stage == Stage::WithNode {
            self.send([Event::RemovePod(uid.clone())]).await;
        }
        self.send(self.config.release(uid)).await;
        self.tokens.release(uid);
    }

    /// Hands on what need not wait any longer.
    async fn release(&mut self) {
        if !self.services.get() {
            return;
        }
        let now = Instant::now();
        let ready = |uid: &PodUid, r: &Remote| match r.stage {
            Stage::WithNode => false,
            Stage::Waits(until) => until <= now || (self.config.are_known(uid) && self.tokens.are_known(uid)),
        };
        // Oldest first, so that after a restart the same pods are admitted.
        let mut due: Vec<(PodUid, Arc<Pod>)> =
            self.remotes.borrow().pods.iter().filter(|(u, r)| ready(u, r)).map(|(u, r)| (u.clone(), r.pod.clone())).collect();
        due.sort_by(|(a, p), (b, q)| (p.metadata.creation_timestamp, a).cmp(&(q.metadata.creation_timestamp, b)));
        for (uid, _) in due {
            let (pod, status, ends) = {
                let mut remotes = self.remotes.borrow_mut();
                let Some(r) = remotes.pods.get_mut(&uid) else { continue };
                r.stage = Stage::WithNode;
                (r.pod.clone(), r.status.clone(), r.ends)
            };
            let known = crate::typed::read::<PodStatus>(&status).unwrap_or_default();
            let mut events = vec![Event::Reported { uid: uid.clone(), status: Arc::new(known) }, Event::SetPod(pod)];
            events.extend(ends.map(|grace| Event::EndPod { uid, grace }));
            self.send(events).await;
        }
        if self.source == Source::Listed && !self.remotes.borrow().waits() {
            self.source = Source::Told;
            if let Some(ready) = self.ready.take() {
                ready.told().await;
            }
        }
    }
}

/// Brings what a watch tells to the one who takes it.
pub struct Forward(pub mpsc::Sender<Told>);

impl Consumer for Forward {
    async fn told(&mut self, told: Told) {
        // Nobody is there any more: nobody needs to know.
        let _ = self.0.send(told).await;
    }
}
