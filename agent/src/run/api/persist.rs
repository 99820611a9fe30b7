//! Where objects outlive the process.
//!
//! `Journal`: one file of lines for what the node and its programs write, the last line about an object counts.
//! `Files`: the manifests directory, for what people write.

use crate::api::Failure;
use crate::api::resource::Id;
use crate::api::store::Name;
use crate::run::state_file::{self, Lines, StateError};
use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

/// The manifests directory, as the writer sees it. When a call returns, the change is in the file and shown.
pub trait Files {
    /// `authored` is what a client wrote of a new object.
    fn put<'a>(
        &'a self,
        id: Id,
        object: &'a Value,
        old: Option<&'a Value>,
        authored: Option<&'a Value>,
    ) -> LocalBoxFuture<'a, Result<(), Failure>>;
    /// A pod leaves its file and ends with the grace that is in its metadata.
    fn end<'a>(&'a self, id: Id, object: &'a Value) -> LocalBoxFuture<'a, Result<(), Failure>>;
    fn remove<'a>(&'a self, id: Id, object: &'a Value) -> LocalBoxFuture<'a, Result<(), Failure>>;
}

/// One change.
#[derive(Clone, Debug)]
pub struct Line {
    key: (Id, Name),
    text: Option<Vec<u8>>,
    durable: bool,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    r: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    ns: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    o: Value,
}

fn resource(id: Id) -> String {
    format!("{}/{}", id.row().api_version(), id.row().plural)
}

fn id_of(text: &str) -> Option<Id> {
    Id::all().find(|i| resource(*i) == text)
}

impl Line {
    pub fn put(id: Id, object: &Value, durable: bool) -> Line {
        let wire = Wire { r: resource(id), ns: String::new(), name: String::new(), o: object.clone() };
        Line { key: (id, Name::of(object)), text: Some(state_file::line(&wire)), durable }
    }

    pub fn remove(id: Id, name: &Name, durable: bool) -> Line {
        Line { key: (id, name.clone()), text: None, durable }
    }

    fn bytes(&self) -> Vec<u8> {
        let gone = || {
            let (id, name) = &self.key;
            state_file::line(&Wire { r: resource(*id), ns: name.namespace.to_string(), name: name.name.to_string(), o: Value::Null })
        };
        self.text.clone().unwrap_or_else(gone)
    }
}

/// The file, and what counts in it.
pub struct Journal {
    path: PathBuf,
    inner: Arc<Mutex<Inner>>,
    begun: RefCell<Vec<(Id, Value)>>,
}

struct Inner {
    file: Lines,
    /// Bytes of the lines that count.
    live: u64,
    lines: BTreeMap<(Id, Name), Vec<u8>>,
}

impl Journal {
    /// Opens the journal and reads what is in it. A line that cannot be read is told and passed over.
    pub fn open(path: &Path) -> Result<Journal, StateError> {
        let old = state_file::text(path)?;
        let mut objects: BTreeMap<(Id, Name), Value> = BTreeMap::new();
        state_file::each(path, &old, |line| {
            let wire = serde_json::from_slice::<Wire>(line)?;
            match id_of(&wire.r) {
                Some(id) if wire.o.is_null() => drop(objects.remove(&(id, Name::new(&wire.ns, &wire.name)))),
                Some(id) => drop(objects.insert((id, Name::of(&wire.o)), wire.o)),
                None => tracing::warn!(path = %path.display(), resource = %wire.r, "an object of an unknown resource is passed over"),
            }
            Ok::<_, serde_json::Error>(())
        });
        let lines: BTreeMap<(Id, Name), Vec<u8>> = objects.iter().map(|(k, o)| (k.clone(), Line::put(k.0, o, true).bytes())).collect();
        let begun = objects.into_iter().map(|((id, _), o)| (id, o)).collect();
        let file = rewrite(path, &lines).or_else(|error| Lines::going_on(path, &old, &error))?;
        let live = lines.values().map(|l| l.len() as u64).sum();
        let inner = Arc::new(Mutex::new(Inner { file, live, lines }));
        Ok(Journal { path: path.to_owned(), inner, begun: RefCell::new(begun) })
    }

    /// What was there when it was opened; told once.
    pub fn objects(&self) -> Vec<(Id, Value)> {
        self.begun.take()
    }

    /// Writes lines, on a thread that may wait for the disk; durable before it returns where one of them has to be.
    pub async fn append(self: Rc<Self>, lines: Vec<Line>) -> Result<(), Failure> {
        if lines.is_empty() {
            return Ok(());
        }
        let (inner, path) = (self.inner.clone(), self.path.clone());
        let job = tokio::task::spawn_blocking(move || inner.lock().expect("nobody panics with it").append(&path, lines));
        job.await.expect("appending does not panic").map_err(|e| full(&e))
    }
}

/// 507 has no reason of its own in the API; clients try again after an internal error.
fn full(e: &StateError) -> Failure {
    Failure::internal(format!("the change could not be written down and was not made: {e}"))
}

impl Inner {
    fn append(&mut self, path: &Path, lines: Vec<Line>) -> Result<(), StateError> {
        let all: Vec<u8> = lines.iter().flat_map(Line::bytes).collect();
        let durable = lines.iter().any(|l| l.durable);
        self.file.append(&all, durable)?;
        for line in lines {
            self.live += line.text.as_ref().map_or(0, |t| t.len() as u64);
            let before = match line.text {
                Some(text) => self.lines.insert(line.key, text),
                None => self.lines.remove(&line.key),
            };
            self.live -= before.map_or(0, |b| b.len() as u64);
        }
        if self.file.is_worn(self.live) {
            match rewrite(path, &self.lines) {
                Ok(new) => {
                    self.file = new;
                    self.live = self.file.bytes();
                }
                // What was asked for is written down.
                Err(error) => tracing::warn!(%error, "the state file could not be written anew; it goes on as it is"),
            }
        }
        Ok(())
    }
}

fn rewrite(path: &Path, lines: &BTreeMap<(Id, Name), Vec<u8>>) -> Result<Lines, StateError> {
    let all: Vec<u8> = lines.values().flatten().copied().collect();
    Lines::anew(path, &all, true)
}
