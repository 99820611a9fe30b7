//! What must outlive the process and neither the runtime nor the kernel holds: statuses (for times and
//! readiness), outcomes of finished pods, deletions in progress.
//!
//! One journal for all pods: a change appends one line, and the last line about a pod counts. A file per
//! pod, replaced at each change, would cost the file system two inodes every time, and looking for free
//! ones was the dearest thing this daemon did while it started many pods. Lines that say nothing any more
//! are dropped now and then by writing the journal anew. A line that cannot be read is told and passed
//! over, never fatal. Tests are at the end of this file.

use crate::node::event::Recovered;
use crate::pod::PodUid;
use crate::pod::status::PodStatus;
use crate::time::Wall;
use crate::typed;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const JOURNAL: &str = "pods.jsonl";
/// The journal is not written anew before it is this large (bytes), and this many times what counts in it.
const SLACK: u64 = 1 << 20;
const SLACK_TIMES: u64 = 4;

pub struct StateDir {
    path: PathBuf,
    inner: RefCell<Inner>,
}

struct Inner {
    journal: Arc<File>,
    /// Bytes of whole lines in the journal.
    len: u64,
    records: BTreeMap<PodUid, Record>,
    /// Records whose last line is behind.
    dirty: BTreeSet<PodUid>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Record {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<PodStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion: Option<Deletion>,
    /// Length of its last line.
    #[serde(skip)]
    bytes: u64,
}

/// A pod that is forgotten has a line without a status and a deletion.
#[derive(Serialize)]
struct Line<'a> {
    uid: &'a str,
    #[serde(flatten)]
    record: &'a Record,
}

#[derive(Deserialize)]
struct Read {
    uid: Box<str>,
    status: Option<PodStatus>,
    deletion: Option<Deletion>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deletion {
    since: Wall,
    grace_seconds: i64,
}

/// What survives this process, and the machine's end once it is durable.
#[must_use]
pub struct Written {
    path: PathBuf,
    journal: Arc<File>,
}

impl Written {
    /// Waits for the disk, which may take its time: not for the thread of the loop. A journal that was written anew
    /// meanwhile is on the disk already.
    pub fn make_durable(&self) -> Result<(), StateError> {
        at(&self.path, self.journal.sync_data())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("state file {path}: {source}")]
pub struct StateError {
    path: PathBuf,
    source: std::io::Error,
}

impl StateError {
    pub fn new(path: &Path, source: std::io::Error) -> StateError {
        StateError { path: path.to_owned(), source }
    }
}

fn at<T>(path: &Path, r: std::io::Result<T>) -> Result<T, StateError> {
    r.map_err(|source| StateError { path: path.to_owned(), source })
}

fn ready(status: Option<&PodStatus>) -> bool {
    status.is_some_and(|s| s.conditions.iter().any(|c| c.kind == "Ready" && c.is_true()))
}

impl StateDir {
    /// Opens the directory and reads what the process before left.
    pub fn open(dir: &Path) -> Result<(StateDir, BTreeMap<PodUid, Recovered>), StateError> {
        at(dir, std::fs::create_dir_all(dir))?;
        let path = dir.join(JOURNAL);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(StateError { path, source }),
        };
        let mut records = read(&path, &text);
        let recovered = records.iter().map(|(u, r)| (u.clone(), recovered(r))).collect();
        // Whoever was killed in the middle of a line left no line end; a new file has whole lines only.
        let (journal, len) = match rewrite(&path, &mut records) {
            Ok(new) => new,
            Err(error) => {
                let (journal, len) = go_on(&path, &text, &error)?;
                (Arc::new(journal), len)
            }
        };
        let inner = Inner { journal, len, records, dirty: BTreeSet::new() };
        Ok((StateDir { path, inner: RefCell::new(inner) }, recovered))
    }

    /// Written at once when readiness changed, because the next process goes on from it; else with the next
    /// [`StateDir::flush`]: a pod that starts changes its status several times in a few milliseconds.
    pub fn write_status(&self, uid: &PodUid, status: &PodStatus) -> Result<(), StateError> {
        let mut inner = self.inner.borrow_mut();
        let record = inner.records.entry(uid.clone()).or_default();
        let changed = ready(record.status.as_ref()) != ready(Some(status));
        record.status = Some(status.clone());
        inner.dirty.insert(uid.clone());
        if changed { self.append(&mut inner, uid) } else { Ok(()) }
    }

    /// Whether something waits to be written.
    pub fn is_dirty(&self) -> bool {
        !self.inner.borrow().dirty.is_empty()
    }

    /// Writes what waits.
    pub fn flush(&self) -> Result<(), StateError> {
        let mut inner = self.inner.borrow_mut();
        // Each is struck off when it is written, so that a full disk loses none.
        let dirty = inner.dirty.clone();
        dirty.iter().try_for_each(|uid| self.append(&mut inner, uid))?;
        self.tidy(&mut inner)
    }

    /// Containers are collected only when this is durable.
    pub fn write_outcome(&self, uid: &PodUid, status: &PodStatus) -> Result<Written, StateError> {
        let mut inner = self.inner.borrow_mut();
        inner.records.entry(uid.clone()).or_default().status = Some(status.clone());
        self.append(&mut inner, uid)?;
        Ok(self.written(&inner))
    }

    /// A deletion goes on after a crash with what is left of its grace.
    pub fn write_deletion(&self, uid: &PodUid, since: Wall, grace_seconds: i64) -> Result<Written, StateError> {
        let mut inner = self.inner.borrow_mut();
        inner.records.entry(uid.clone()).or_default().deletion = Some(Deletion { since, grace_seconds });
        self.append(&mut inner, uid)?;
        Ok(self.written(&inner))
    }

    fn written(&self, inner: &Inner) -> Written {
        Written { path: self.path.clone(), journal: inner.journal.clone() }
    }

    pub fn forget(&self, uid: &PodUid) -> Result<(), StateError> {
        let mut inner = self.inner.borrow_mut();
        if inner.records.remove(uid).is_none() {
            return Ok(());
        }
        self.append(&mut inner, uid)?;
        self.tidy(&mut inner)
    }

    /// One line: what is known of the pod now.
    fn append(&self, inner: &mut Inner, uid: &PodUid) -> Result<(), StateError> {
        inner.dirty.remove(uid);
        let line = line(uid, inner.records.get(uid).unwrap_or(&Record::default()));
        let written = (&*inner.journal).write_all(&line);
        if written.is_err() {
            // Half a line would spoil the next one. If this fails as well, the next start passes both over.
            let _ = inner.journal.set_len(inner.len);
            inner.dirty.insert(uid.clone());
            return at(&self.path, written);
        }
        let bytes = line.len() as u64;
        inner.len += bytes;
        if let Some(r) = inner.records.get_mut(uid) {
            r.bytes = bytes;
        }
        Ok(())
    }

    /// Writes the journal anew when most of it says nothing any more.
    fn tidy(&self, inner: &mut Inner) -> Result<(), StateError> {
        let live: u64 = inner.records.values().map(|r| r.bytes).sum();
        if inner.len < SLACK || inner.len < live * SLACK_TIMES {
            return Ok(());
        }
        (inner.journal, inner.len) = rewrite(&self.path, &mut inner.records)?;
        Ok(())
    }
}

fn line(uid: &PodUid, record: &Record) -> Vec<u8> {
    let mut line = serde_json::to_vec(&Line { uid: uid.as_str(), record }).expect("plain data serialises");
    line.push(b'\n');
    line
}

fn read(path: &Path, text: &[u8]) -> BTreeMap<PodUid, Record> {
    let mut records = BTreeMap::new();
    let lines = text.split(|b| *b == b'\n').enumerate().filter(|(_, l)| !l.is_empty());
    for (n, line) in lines {
        match typed::read_text::<Read>(line) {
            Ok(Read { uid, status: None, deletion: None }) => {
                records.remove(&PodUid::new(&uid));
            }
            Ok(Read { uid, status, deletion }) => {
                records.insert(PodUid::new(&uid), Record { status, deletion, bytes: 0 });
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), line = n + 1, %error, "a line of the state file cannot be read; passed over")
            }
        }
    }
    records
}

/// A new journal with the records and nothing else, opened for appending.
fn rewrite(path: &Path, records: &mut BTreeMap<PodUid, Record>) -> Result<(Arc<File>, u64), StateError> {
    let mut all = Vec::new();
    for (uid, record) in records {
        let line = line(uid, record);
        record.bytes = line.len() as u64;
        all.extend(line);
    }
    replace(path, &all, true)?;
    let journal = at(path, std::fs::OpenOptions::new().append(true).custom_flags(libc::O_NOFOLLOW).open(path))?;
    Ok((Arc::new(journal), all.len() as u64))
}

fn recovered(r: &Record) -> Recovered {
    Recovered { status: r.status.clone(), deletion: r.deletion.as_ref().map(|d| (d.since, d.grace_seconds)) }
}

/// Writes beside the file and renames over it, so that a reader and a crash see the old or the new whole.
pub fn replace(path: &Path, bytes: &[u8], durable: bool) -> Result<(), StateError> {
    let beside = path.with_extension("new");
    let write = || {
        let mut f = File::create(&beside)?;
        f.write_all(bytes)?;
        if durable { f.sync_all() } else { Ok(()) }
    };
    let written = write().inspect_err(|_| {
        // It may be what keeps the disk full.
        let _ = std::fs::remove_file(&beside);
    });
    at(&beside, written)?;
    at(path, std::fs::rename(&beside, path))
}

/// A journal whose text is known, as it is, where a full disk lets no new one be written: a node that cannot write must
/// still look after its pods. What follows the last whole line goes; it was never acknowledged.
pub fn go_on(path: &Path, text: &[u8], why: &StateError) -> Result<(File, u64), StateError> {
    let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1) as u64;
    let journal = at(path, std::fs::OpenOptions::new().append(true).create(true).custom_flags(libc::O_NOFOLLOW).open(path))?;
    at(path, journal.set_len(whole))?;
    tracing::warn!(%why, "a state file could not be written anew; it goes on as it is");
    Ok((journal, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(message: &str) -> PodStatus {
        serde_json::from_value(serde_json::json!({"phase": "Running", "message": message})).unwrap()
    }

    fn messages(dir: &Path) -> Vec<(String, String)> {
        let (_, recovered) = StateDir::open(dir).unwrap();
        let message = |r: &Recovered| serde_json::to_value(&r.status).unwrap()["message"].as_str().unwrap_or_default().to_owned();
        recovered.iter().map(|(uid, r)| (uid.to_string(), message(r))).collect()
    }

    fn told(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn the_last_line_about_a_pod_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (state, _) = StateDir::open(dir.path()).unwrap();
        for (uid, message) in [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1")] {
            state.write_outcome(&PodUid::new(uid), &status(message)).unwrap().make_durable().unwrap();
        }
        state.forget(&PodUid::new("c")).unwrap();
        assert_eq!(messages(dir.path()), told(&[("a", "2"), ("b", "1")]));
    }

    #[test]
    fn half_a_line_costs_that_line_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (state, _) = StateDir::open(dir.path()).unwrap();
        state.write_outcome(&PodUid::new("a"), &status("1")).unwrap().make_durable().unwrap();
        drop(state);
        let path = dir.path().join(JOURNAL);
        let mut text = std::fs::read(&path).unwrap();
        text.extend(br#"{"uid":"b","status":{"pha"#);
        std::fs::write(&path, text).unwrap();
        let (state, _) = StateDir::open(dir.path()).unwrap();
        state.write_outcome(&PodUid::new("c"), &status("1")).unwrap().make_durable().unwrap();
        assert_eq!(messages(dir.path()), told(&[("a", "1"), ("c", "1")]));
    }

    #[test]
    fn a_deletion_survives_with_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let (state, _) = StateDir::open(dir.path()).unwrap();
        state.write_deletion(&PodUid::new("a"), Wall(5 * Wall::SECOND), 30).unwrap().make_durable().unwrap();
        let (_, recovered) = StateDir::open(dir.path()).unwrap();
        assert_eq!(recovered[&PodUid::new("a")].deletion, Some((Wall(5 * Wall::SECOND), 30)));
    }

    #[test]
    fn a_status_waits_for_the_next_flush_and_readiness_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (state, _) = StateDir::open(dir.path()).unwrap();
        let text = || std::fs::read_to_string(dir.path().join(JOURNAL)).unwrap();
        state.write_status(&PodUid::new("a"), &status("1")).unwrap();
        assert!(text().is_empty() && state.is_dirty());
        let ready: PodStatus =
            serde_json::from_value(serde_json::json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})).unwrap();
        state.write_status(&PodUid::new("a"), &ready).unwrap();
        assert_eq!((text().lines().count(), state.is_dirty()), (1, false));
        state.write_status(&PodUid::new("a"), &ready).unwrap();
        state.flush().unwrap();
        assert_eq!((text().lines().count(), state.is_dirty()), (2, false));
    }

    #[test]
    fn what_could_not_be_written_still_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (state, _) = StateDir::open(dir.path()).unwrap();
        for uid in ["a", "b", "c"] {
            state.write_status(&PodUid::new(uid), &status("1")).unwrap();
        }
        let unwritable = File::open(dir.path().join(JOURNAL)).unwrap();
        let journal = std::mem::replace(&mut state.inner.borrow_mut().journal, Arc::new(unwritable));
        assert!(state.flush().is_err());
        state.inner.borrow_mut().journal = journal;
        state.flush().unwrap();
        assert_eq!(messages(dir.path()), told(&[("a", "1"), ("b", "1"), ("c", "1")]));
    }

    #[test]
    fn a_journal_that_cannot_be_written_anew_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let (state, _) = StateDir::open(dir.path()).unwrap();
        state.write_outcome(&PodUid::new("a"), &status("1")).unwrap().make_durable().unwrap();
        drop(state);
        let path = dir.path().join(JOURNAL);
        let mut text = std::fs::read(&path).unwrap();
        text.extend(br#"{"uid":"b","status":{"pha"#);
        std::fs::write(&path, text).unwrap();
        // Where the new one would be written nothing can be.
        std::fs::create_dir(path.with_extension("new")).unwrap();
        let (state, recovered) = StateDir::open(dir.path()).unwrap();
        assert_eq!(recovered.len(), 1);
        state.write_outcome(&PodUid::new("c"), &status("1")).unwrap().make_durable().unwrap();
        std::fs::remove_dir(path.with_extension("new")).unwrap();
        assert_eq!(messages(dir.path()), told(&[("a", "1"), ("c", "1")]));
    }

    #[test]
    fn the_journal_does_not_grow_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let (state, _) = StateDir::open(dir.path()).unwrap();
        let long = status(&"x".repeat(100_000));
        let uid = PodUid::new("a");
        for _ in 0..40 {
            state.write_status(&uid, &long).unwrap();
            state.flush().unwrap();
        }
        let len = std::fs::metadata(dir.path().join(JOURNAL)).unwrap().len();
        assert!(len <= SLACK + 200_000, "{len}");
        state.write_status(&uid, &status("last")).unwrap();
        state.flush().unwrap();
        assert_eq!(messages(dir.path()), told(&[("a", "last")]));
    }
}
