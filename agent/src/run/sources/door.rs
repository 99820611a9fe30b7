//! Writes of the API into the manifests directory: what is asked for, and why it was not done.
//!
//! What is to stand in a file is decided by `manifest::edit`, how it gets there by `replace`. Tests: in this file, and
//! `agent/tests/api_server/door.rs`.

use super::replace::digest;
use crate::api::Failure;
use crate::api::resource::{Id, PODS};
use crate::api::write::meta;
use crate::manifest::Key;
use crate::run::api::persist::Files;
use futures_util::future::LocalBoxFuture;
use serde_json::{Map, Value};
use std::io;
use std::path::PathBuf;
use tokio::sync::{mpsc, oneshot};

/// One change of one object.
#[derive(Debug)]
pub struct Wish {
    pub key: Key,
    pub id: Id,
    pub change: Change,
    pub reply: oneshot::Sender<Result<(), Failure>>,
}

#[derive(Clone, Debug)]
pub enum Change {
    Put {
        /// As it is to be, with defaults.
        full: Box<Value>,
        /// As it was, with defaults; None: it is new.
        was: Option<Box<Value>>,
        /// Of a new object, what the client wrote.
        text: Option<Box<Value>>,
        owned: Map<String, Value>,
    },
    Remove {
        /// Of a pod, in seconds.
        grace: Option<i64>,
        /// Of a pod.
        uid: String,
    },
}

/// The end that the API's writer holds.
#[derive(Clone)]
pub struct Door(mpsc::Sender<Wish>);

const QUEUE: usize = 64;

pub fn door() -> (Door, mpsc::Receiver<Wish>) {
    let (to, from) = mpsc::channel(QUEUE);
    (Door(to), from)
}

impl Door {
    async fn ask(&self, id: Id, namespace: &str, name: &str, change: Change) -> Result<(), Failure> {
        let (reply, done) = oneshot::channel();
        let key = Key { kind: crate::manifest::Kind::of(id), namespace: namespace.into(), name: name.into() };
        self.0.send(Wish { key, id, change, reply }).await.map_err(|_| Failure::stopping())?;
        done.await.map_err(|_| Failure::stopping())?
    }
}

/// What of an object is no business of its file.
fn owned(id: Id, object: &Value) -> Map<String, Value> {
    let mut out = Map::new();
    let metadata = ["managedFields", "deletionTimestamp", "deletionGracePeriodSeconds"];
    // A pod's end and status are the node's.
    for field in metadata.iter().take(if id == PODS { 1 } else { 3 }) {
        if let Some(v) = object["metadata"].get(*field).filter(|v| !v.is_null()) {
            out.insert((*field).into(), v.clone());
        }
    }
    if id != PODS && object["status"].as_object().is_some_and(|s| !s.is_empty()) {
        out.insert("status".into(), object["status"].clone());
    }
    out
}

impl Files for Door {
    fn put<'a>(
        &'a self,
        id: Id,
        object: &'a Value,
        old: Option<&'a Value>,
        authored: Option<&'a Value>,
    ) -> LocalBoxFuture<'a, Result<(), Failure>> {
        let change = Change::Put {
            full: Box::new(object.clone()),
            was: old.map(|o| Box::new(o.clone())),
            text: authored.map(|a| Box::new(a.clone())),
            owned: owned(id, object),
        };
        let (namespace, name) = (meta::text(object, "namespace"), meta::text(object, "name"));
        Box::pin(self.ask(id, namespace, name, change))
    }

    fn end<'a>(&'a self, id: Id, object: &'a Value) -> LocalBoxFuture<'a, Result<(), Failure>> {
        let grace = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
        let change = Change::Remove { grace, uid: meta::text(object, "uid").into() };
        Box::pin(self.ask(id, meta::text(object, "namespace"), meta::text(object, "name"), change))
    }

    fn remove<'a>(&'a self, id: Id, object: &'a Value) -> LocalBoxFuture<'a, Result<(), Failure>> {
        let change = Change::Remove { grace: (id == PODS).then_some(0), uid: meta::text(object, "uid").into() };
        Box::pin(self.ask(id, meta::text(object, "namespace"), meta::text(object, "name"), change))
    }
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("{0} was changed by somebody else at the same time; look at it and try again")]
    Changed(String),
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
}

impl WriteError {
    pub fn failure(&self, id: Id, name: &str) -> Failure {
        match self {
            WriteError::Changed(_) => Failure::conflict(id.subject(name), &self.to_string()),
            WriteError::File { .. } => Failure::internal(format!("the change could not be written and was not made: {self}")),
        }
    }
}

/// Where a new object goes: `pods.default.web.yaml`.
pub fn file_name(id: Id, namespace: &str, name: &str) -> String {
    let parts = [id.row().plural, namespace, name];
    let whole = parts.iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>().join(".");
    // A name may be 255 bytes long, and `replace` needs some for those beside it.
    if whole.len() <= 200 {
        return format!("{whole}.yaml");
    }
    let hex: String = digest(&whole).iter().take(8).map(|b| format!("{b:02x}")).collect();
    let short: String = whole.chars().take(180).collect();
    format!("{short}.{hex}.yaml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_fit() {
        let long = "x".repeat(253);
        let name = file_name(PODS, "default", &long);
        assert!(name.len() <= super::super::replace::MOST_NAME && name != file_name(PODS, "default", &"x".repeat(252)));
        assert_eq!(file_name(PODS, "default", "web"), "pods.default.web.yaml");
    }
}
