//! Where objects outlive the process.
//!
//! `Journal`: one file of lines for what the node and its programs write, the last line about an object counts.
//! `Files`: the manifests directory, for what people write.

use crate::api::Failure;
use crate::api::resource::Id;
use crate::api::store::Name;
use crate::run::state_dir;
use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
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

/// The journal is written anew when it is this large (bytes), and this many times what counts in it.
const SLACK: u64 = 1 << 20;
const SLACK_TIMES: u64 = 4;

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
        Line { key: (id, Name::of(object)), text: Some(text(&wire)), durable }
    }

    pub fn remove(id: Id, name: &Name, durable: bool) -> Line {
        Line { key: (id, name.clone()), text: None, durable }
    }

    fn bytes(&self) -> Vec<u8> {
        let gone = || {
            let (id, name) = &self.key;
            text(&Wire { r: resource(*id), ns: name.namespace.to_string(), name: name.name.to_string(), o: Value::Null })
        };
        self.text.clone().unwrap_or_else(gone)
    }
}

fn text(wire: &Wire) -> Vec<u8> {
    let mut line = serde_json::to_vec(wire).expect("plain data serialises");
    line.push(b'\n');
    line
}

/// The file, and what counts in it.
pub struct Journal {
    path: PathBuf,
    inner: Arc<Mutex<Inner>>,
    begun: RefCell<Vec<(Id, Value)>>,
}

struct Inner {
    file: File,
    len: u64,
    /// Bytes of the lines that count.
    live: u64,
    lines: BTreeMap<(Id, Name), Vec<u8>>,
}

impl Journal {
    /// Opens the journal and reads what is in it. A line that cannot be read is told and passed over.
    pub fn open(path: &Path) -> Result<Journal, state_dir::StateError> {
        let old = match std::fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(state_dir::StateError::new(path, source)),
        };
        let mut objects: BTreeMap<(Id, Name), Value> = BTreeMap::new();
        for (n, line) in old.split(|b| *b == b'\n').enumerate().filter(|(_, l)| !l.is_empty()) {
            match serde_json::from_slice::<Wire>(line).map(|w| (id_of(&w.r), w)) {
                Ok((Some(id), wire)) if wire.o.is_null() => {
                    objects.remove(&(id, Name::new(&wire.ns, &wire.name)));
                }
                Ok((Some(id), wire)) => {
                    objects.insert((id, Name::of(&wire.o)), wire.o);
                }
                Ok((None, wire)) => {
                    tracing::warn!(path = %path.display(), resource = %wire.r, "an object of an unknown resource is passed over")
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), line = n + 1, %error, "a line of the state file cannot be read; passed over")
                }
            }
        }
        let lines: BTreeMap<(Id, Name), Vec<u8>> = objects.iter().map(|(k, o)| (k.clone(), Line::put(k.0, o, true).bytes())).collect();
        let begun = objects.into_iter().map(|((id, _), o)| (id, o)).collect();
        let (file, len) = rewrite(path, &lines).or_else(|error| state_dir::go_on(path, &old, &error))?;
        let live = lines.values().map(|l| l.len() as u64).sum();
        let inner = Arc::new(Mutex::new(Inner { file, len, live, lines }));
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
fn full(e: &state_dir::StateError) -> Failure {
    Failure::internal(format!("the change could not be written down and was not made: {e}"))
}

impl Inner {
    fn append(&mut self, path: &Path, lines: Vec<Line>) -> Result<(), state_dir::StateError> {
        let at = |r: std::io::Result<()>| r.map_err(|source| state_dir::StateError::new(path, source));
        let all: Vec<u8> = lines.iter().flat_map(Line::bytes).collect();
        let durable = lines.iter().any(|l| l.durable);
        let written = self.file.write_all(&all).and_then(|()| if durable { self.file.sync_data() } else { Ok(()) });
        if written.is_err() {
            // Half a line would spoil the next one.
            let _ = self.file.set_len(self.len);
            return at(written);
        }
        self.len += all.len() as u64;
        for line in lines {
            self.live += line.text.as_ref().map_or(0, |t| t.len() as u64);
            let before = match line.text {
                Some(text) => self.lines.insert(line.key, text),
                None => self.lines.remove(&line.key),
            };
            self.live -= before.map_or(0, |b| b.len() as u64);
        }
        if self.len > SLACK && self.len > self.live * SLACK_TIMES {
            match rewrite(path, &self.lines) {
                Ok(new) => {
                    (self.file, self.len) = new;
                    self.live = self.len;
                }
                // What was asked for is written down.
                Err(error) => tracing::warn!(%error, "the state file could not be written anew; it goes on as it is"),
            }
        }
        Ok(())
    }
}

fn rewrite(path: &Path, lines: &BTreeMap<(Id, Name), Vec<u8>>) -> Result<(File, u64), state_dir::StateError> {
    let all: Vec<u8> = lines.values().flatten().copied().collect();
    state_dir::replace(path, &all, true)?;
    let file = std::fs::OpenOptions::new().append(true).custom_flags(libc::O_NOFOLLOW).open(path);
    let file = file.map_err(|source| state_dir::StateError::new(path, source))?;
    Ok((file, all.len() as u64))
}
