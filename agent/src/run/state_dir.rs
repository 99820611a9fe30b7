//! What must outlive the process and neither the runtime nor the kernel holds: statuses (for times and
//! readiness), outcomes of finished pods, deletions in progress.
//!
//! One journal for all pods: a change appends one line, and the last line about a pod counts. A file per
//! pod, replaced at each change, would cost the file system two inodes every time, and looking for free
//! ones was the dearest thing this daemon did while it started many pods. Tests are at the end of this file.

use crate::node::event::Recovered;
use crate::pod::PodUid;
use crate::pod::status::PodStatus;
use crate::run::state_file::{self, Lines, StateError, Written};
use crate::time::Wall;
use crate::typed;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const JOURNAL: &str = "pods.jsonl";

pub struct StateDir {
    path: PathBuf,
    inner: RefCell<Inner>,
}

struct Inner {
    journal: Lines,
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

fn ready(status: Option<&PodStatus>) -> bool {
    status.is_some_and(|s| s.conditions.iter().any(|c| c.kind == "Ready" && c.is_true()))
}

impl StateDir {
    /// Opens the directory and reads what the process before left.
    pub fn open(dir: &Path) -> Result<(StateDir, BTreeMap<PodUid, Recovered>), StateError> {
        std::fs::create_dir_all(dir).map_err(|source| StateError::new(dir, source))?;
        let path = dir.join(JOURNAL);
        let text = state_file::text(&path)?;
        let mut records = read(&path, &text);
        let recovered = records.iter().map(|(u, r)| (u.clone(), recovered(r))).collect();
        // Whoever was killed in the middle of a line left no line end; a new file has whole lines only.
        let journal = rewrite(&path, &mut records).or_else(|error| Lines::going_on(&path, &text, &error))?;
        let inner = Inner { journal, records, dirty: BTreeSet::new() };
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
        Ok(inner.journal.written())
    }

    /// A deletion goes on after a crash with what is left of its grace.
    pub fn write_deletion(&self, uid: &PodUid, since: Wall, grace_seconds: i64) -> Result<Written, StateError> {
        let mut inner = self.inner.borrow_mut();
        inner.records.entry(uid.clone()).or_default().deletion = Some(Deletion { since, grace_seconds });
        self.append(&mut inner, uid)?;
        Ok(inner.journal.written())
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
        if let Err(error) = inner.journal.append(&line, false) {
            inner.dirty.insert(uid.clone());
            return Err(error);
        }
        if let Some(r) = inner.records.get_mut(uid) {
            r.bytes = line.len() as u64;
        }
        Ok(())
    }

    /// Writes the journal anew when most of it says nothing any more.
    fn tidy(&self, inner: &mut Inner) -> Result<(), StateError> {
        let live: u64 = inner.records.values().map(|r| r.bytes).sum();
        if inner.journal.is_worn(live) {
            inner.journal = rewrite(&self.path, &mut inner.records)?;
        }
        Ok(())
    }
}

fn line(uid: &PodUid, record: &Record) -> Vec<u8> {
    state_file::line(&Line { uid: uid.as_str(), record })
}

fn read(path: &Path, text: &[u8]) -> BTreeMap<PodUid, Record> {
    let mut records = BTreeMap::new();
    state_file::each(path, text, |line| {
        let Read { uid, status, deletion } = typed::read_text(line)?;
        let uid = PodUid::new(&uid);
        if status.is_none() && deletion.is_none() {
            records.remove(&uid);
        } else {
            records.insert(uid, Record { status, deletion, bytes: 0 });
        }
        Ok::<_, typed::Wrong>(())
    });
    records
}

/// A new journal with the records and nothing else, opened for appending.
fn rewrite(path: &Path, records: &mut BTreeMap<PodUid, Record>) -> Result<Lines, StateError> {
    let mut all = Vec::new();
    for (uid, record) in records {
        let line = line(uid, record);
        record.bytes = line.len() as u64;
        all.extend(line);
    }
    Lines::anew(path, &all, true)
}

fn recovered(r: &Record) -> Recovered {
    Recovered { status: r.status.clone(), deletion: r.deletion.as_ref().map(|d| (d.since, d.grace_seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::state_file::SLACK;
    use std::fs::File;
    use std::sync::Arc;

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

    /// The journal of a process that was killed while it wrote of its second pod.
    fn cut_short(dir: &Path) -> PathBuf {
        let (state, _) = StateDir::open(dir).unwrap();
        state.write_outcome(&PodUid::new("a"), &status("1")).unwrap().make_durable().unwrap();
        drop(state);
        let path = dir.join(JOURNAL);
        let mut text = std::fs::read(&path).unwrap();
        text.extend(br#"{"uid":"b","status":{"pha"#);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn half_a_line_costs_that_line_alone() {
        let dir = tempfile::tempdir().unwrap();
        cut_short(dir.path());
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
        let unwritable = Arc::new(File::open(dir.path().join(JOURNAL)).unwrap());
        let file = state.inner.borrow_mut().journal.swap_file(unwritable);
        assert!(state.flush().is_err());
        state.inner.borrow_mut().journal.swap_file(file);
        state.flush().unwrap();
        assert_eq!(messages(dir.path()), told(&[("a", "1"), ("b", "1"), ("c", "1")]));
    }

    #[test]
    fn a_journal_that_cannot_be_written_anew_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = cut_short(dir.path());
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
