//! Writes of the API into the manifests directory.
//!
//! Owns how a file is replaced: a change that somebody makes by hand at the same moment is never lost, because the
//! file that was there is looked at once more after it was put aside. What is to stand in the file is decided by
//! `manifest::edit`. Tests: `agent/tests/manifests_door.rs`.

use super::files;
use crate::api::Failure;
use crate::api::resource::{Id, PODS};
use crate::api::write::meta;
use crate::manifest::Key;
use crate::run::api::persist::Files;
use futures_util::future::LocalBoxFuture;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
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
    fn put<'a>(&'a self, id: Id, object: &'a Value, old: Option<&'a Value>, authored: Option<&'a Value>) -> LocalBoxFuture<'a, Result<(), Failure>> {
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

/// What stands in a file now.
pub enum Expect {
    Nothing,
    Text([u8; 32]),
}

pub fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Puts `text` into the place of what is expected there; None takes the file away. Durable when it returns. Whatever
/// happens in between, the name leads to the old or to the new, and what somebody else put there stays.
pub fn write(path: &Path, expect: &Expect, text: Option<&str>) -> Result<(), WriteError> {
    let file = |source| WriteError::File { path: path.to_owned(), source };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = path.with_file_name(format!(".{name}.longshore"));
    let _ = fs::remove_file(&beside);
    if fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_symlink()) {
        return Err(file(io::Error::other("it is a link: change the file that it leads to")));
    }
    if let Some(text) = text {
        let mode = fs::metadata(path).map_or(0o600, |m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o777);
        let mut f = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).map_err(file)?;
        let written = f.write_all(text.as_bytes()).and_then(|()| f.sync_all());
        written.inspect_err(|_| drop(fs::remove_file(&beside))).map_err(file)?;
    }
    let done = match (expect, text) {
        (Expect::Nothing, Some(_)) => rename(&beside, path, libc::RENAME_NOREPLACE).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => WriteError::Changed(name.clone()),
            _ => file(e),
        }),
        (Expect::Nothing, None) => Ok(()),
        (Expect::Text(digest), Some(_)) => exchange(path, &beside, digest, &name),
        (Expect::Text(digest), None) => take_away(path, &beside, digest, &name),
    };
    let _ = fs::remove_file(&beside);
    done?;
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::File::open(dir).and_then(|d| d.sync_all()).map_err(file)
}

fn exchange(path: &Path, beside: &Path, expected: &[u8; 32], name: &str) -> Result<(), WriteError> {
    let file = |source| WriteError::File { path: path.to_owned(), source };
    rename(beside, path, libc::RENAME_EXCHANGE).map_err(file)?;
    if is(beside, expected) {
        return Ok(());
    }
    rename(beside, path, libc::RENAME_EXCHANGE).map_err(file)?;
    Err(WriteError::Changed(name.to_owned()))
}

fn take_away(path: &Path, beside: &Path, expected: &[u8; 32], name: &str) -> Result<(), WriteError> {
    let file = |source| WriteError::File { path: path.to_owned(), source };
    rename(path, beside, 0).map_err(file)?;
    if is(beside, expected) {
        return Ok(());
    }
    // Back to its place, unless there is yet another by now: then that one counts.
    let _ = rename(beside, path, libc::RENAME_NOREPLACE);
    Err(WriteError::Changed(name.to_owned()))
}

fn is(path: &Path, expected: &[u8; 32]) -> bool {
    files::text(path).is_ok_and(|t| digest(&t) == *expected)
}

fn rename(from: &Path, to: &Path, flags: libc::c_uint) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let c = |p: &Path| std::ffi::CString::new(p.as_os_str().as_bytes()).map_err(io::Error::other);
    let (from, to) = (c(from)?, c(to)?);
    // SAFETY: both are texts that end with a zero, and live for the call.
    let r = unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Where a new object goes: `pods.default.web.yaml`.
pub fn file_name(id: Id, namespace: &str, name: &str) -> String {
    let parts = [id.row().plural, namespace, name];
    let whole = parts.iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>().join(".");
    // A name may be 255 bytes long, and ours has an ending and one beside it.
    if whole.len() <= 220 {
        return format!("{whole}.yaml");
    }
    let hex: String = digest(&whole).iter().take(8).map(|b| format!("{b:02x}")).collect();
    let short: String = whole.chars().take(200).collect();
    format!("{short}.{hex}.yaml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changed_meanwhile_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, "by hand").unwrap();
        let stale = Expect::Text(digest("before"));
        for text in [Some("new"), None] {
            assert!(matches!(write(&path, &stale, text), Err(WriteError::Changed(name)) if name == "a.yaml"));
            assert_eq!(fs::read_to_string(&path).unwrap(), "by hand");
        }
        assert!(matches!(write(&path, &Expect::Nothing, Some("new")), Err(WriteError::Changed(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn files_come_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        write(&path, &Expect::Nothing, Some("one")).unwrap();
        write(&path, &Expect::Text(digest("one")), Some("two")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        write(&path, &Expect::Text(digest("two")), None).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("target"), "x").unwrap();
        let path = dir.path().join("a.yaml");
        std::os::unix::fs::symlink("target", &path).unwrap();
        assert!(write(&path, &Expect::Text(digest("x")), Some("y")).unwrap_err().to_string().contains("it is a link"));
    }

    #[test]
    fn long_names_fit() {
        let long = "x".repeat(253);
        let name = file_name(PODS, "default", &long);
        assert!(name.len() < 240 && name != file_name(PODS, "default", &"x".repeat(252)));
        assert_eq!(file_name(PODS, "default", "web"), "pods.default.web.yaml");
    }
}
