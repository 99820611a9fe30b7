//! What must outlive the process and neither the runtime nor the kernel holds: statuses (for times and
//! readiness), outcomes of finished pods, deletions in progress.
//!
//! One file per pod, replaced atomically. A file that cannot be read is moved aside and told, never fatal.

use crate::node::event::Recovered;
use crate::pod::PodUid;
use crate::pod::status::PodStatus;
use crate::time::Wall;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

pub struct StateDir {
    pods: PathBuf,
    records: RefCell<BTreeMap<PodUid, Record>>,
    /// Records whose file is behind.
    dirty: RefCell<BTreeSet<PodUid>>,
}

fn ready(status: Option<&PodStatus>) -> bool {
    status.is_some_and(|s| s.conditions.iter().any(|c| c.kind == "Ready" && c.is_true()))
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Record {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<PodStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion: Option<Deletion>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deletion {
    since: Wall,
    grace_seconds: i64,
}

#[derive(Debug, thiserror::Error)]
#[error("state file {path}: {source}")]
pub struct StateError {
    path: PathBuf,
    source: std::io::Error,
}

fn at<T>(path: &Path, r: std::io::Result<T>) -> Result<T, StateError> {
    r.map_err(|source| StateError { path: path.to_owned(), source })
}

impl StateDir {
    /// Opens the directory and reads what the process before left.
    pub fn open(dir: &Path) -> Result<(StateDir, BTreeMap<PodUid, Recovered>), StateError> {
        let pods = dir.join("pods");
        at(&pods, std::fs::create_dir_all(&pods))?;
        let mut records = BTreeMap::new();
        for entry in at(&pods, std::fs::read_dir(&pods))?.flatten() {
            let path = entry.path();
            let Some(uid) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".json")).map(PodUid::new) else {
                continue;
            };
            let read = std::fs::read(&path).map_err(|e| e.to_string()).and_then(|b| serde_json::from_slice(&b).map_err(|e| e.to_string()));
            match read {
                Ok(r) => {
                    records.insert(uid, r);
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a state file cannot be read; set aside");
                    let _ = std::fs::rename(&path, path.with_extension("unreadable"));
                }
            }
        }
        let recovered = records.iter().map(|(u, r)| (u.clone(), recovered(r))).collect();
        Ok((StateDir { pods, records: RefCell::new(records), dirty: RefCell::default() }, recovered))
    }

    /// Written at once when readiness changed, because the next process goes on from it; else with the next
    /// [`StateDir::flush`]: a pod that starts changes its status several times in a few milliseconds, and
    /// every file replaced costs the file system an inode.
    pub fn write_status(&self, uid: &PodUid, status: &PodStatus) -> Result<(), StateError> {
        let now = ready(Some(status));
        let before = self.records.borrow().get(uid).map(|r| ready(r.status.as_ref()));
        if before == Some(now) || (before.is_none() && !now) {
            self.records.borrow_mut().entry(uid.clone()).or_default().status = Some(status.clone());
            self.dirty.borrow_mut().insert(uid.clone());
            return Ok(());
        }
        self.update(uid, false, |r| r.status = Some(status.clone()))
    }

    /// Whether something waits to be written.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.borrow().is_empty()
    }

    /// Writes what waits.
    pub fn flush(&self) -> Result<(), StateError> {
        let dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        dirty.iter().try_for_each(|uid| self.update(uid, false, |_| {}))
    }

    /// Durable before it returns: containers are collected only after this.
    pub fn write_outcome(&self, uid: &PodUid, status: &PodStatus) -> Result<(), StateError> {
        self.update(uid, true, |r| r.status = Some(status.clone()))
    }

    /// Durable before it returns: a deletion goes on after a crash with what is left of its grace.
    pub fn write_deletion(&self, uid: &PodUid, since: Wall, grace_seconds: i64) -> Result<(), StateError> {
        self.update(uid, true, |r| r.deletion = Some(Deletion { since, grace_seconds }))
    }

    pub fn forget(&self, uid: &PodUid) {
        self.records.borrow_mut().remove(uid);
        self.dirty.borrow_mut().remove(uid);
        let path = self.path(uid);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a state file cannot be removed");
        }
    }

    fn path(&self, uid: &PodUid) -> PathBuf {
        self.pods.join(format!("{uid}.json"))
    }

    fn update(&self, uid: &PodUid, durable: bool, change: impl FnOnce(&mut Record)) -> Result<(), StateError> {
        self.dirty.borrow_mut().remove(uid);
        let mut records = self.records.borrow_mut();
        let record = records.entry(uid.clone()).or_default();
        change(record);
        let bytes = serde_json::to_vec(record).expect("plain data serialises");
        replace(&self.path(uid), &bytes, durable)
    }
}

fn recovered(r: &Record) -> Recovered {
    Recovered { status: r.status.clone(), deletion: r.deletion.as_ref().map(|d| (d.since, d.grace_seconds)) }
}

/// Writes beside the file and renames over it, so that a reader and a crash see the old or the new whole.
pub fn replace(path: &Path, bytes: &[u8], durable: bool) -> Result<(), StateError> {
    let beside = path.with_extension("new");
    let mut f = at(&beside, std::fs::File::create(&beside))?;
    at(&beside, f.write_all(bytes))?;
    if durable {
        at(&beside, f.sync_all())?;
    }
    at(path, std::fs::rename(&beside, path))
}
