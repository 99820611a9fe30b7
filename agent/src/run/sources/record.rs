//! The record of identities on disk: one line for each change, the last line about an object counts.
//!
//! A change costs its own line, however many objects there are; a file of which most lines say nothing any more is
//! written anew. Owns what of the record is behind: after a write that failed the next one writes all of it. Tests: at the
//! end of this file.

use crate::manifest::store::{Identity, Record, RecordChanges};
use crate::run::state_file::{self, Lines, StateError};
use crate::typed;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<&'a Identity>,
}

#[derive(Deserialize)]
struct Read {
    key: String,
    who: Option<Identity>,
}

pub struct RecordFile {
    path: PathBuf,
    /// None: the next write writes all.
    file: Option<Lines>,
    /// Length when it was written anew: about what counts in it.
    base: u64,
}

fn line(key: &str, who: Option<&Identity>) -> Vec<u8> {
    state_file::line(&Line { key, who })
}

fn read(path: &Path, text: &[u8]) -> Record {
    let mut record = Record::new();
    state_file::each(path, text, |line| {
        match typed::read_text(line)? {
            Read { key, who: Some(who) } => drop(record.insert(key, who)),
            Read { key, who: None } => drop(record.remove(&key)),
        }
        Ok::<_, typed::Wrong>(())
    });
    record
}

impl RecordFile {
    /// What the process before left. The first write writes all of it anew.
    pub fn open(path: &Path) -> (RecordFile, Record) {
        let text = state_file::text(path).unwrap_or_else(|error| {
            tracing::warn!(%error, "the record of objects cannot be read; it is begun anew");
            Vec::new()
        });
        let record = read(path, &text);
        (RecordFile { path: path.to_owned(), file: None, base: 0 }, record)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A write failed, and nothing of what it was to hold may be lost.
    pub fn is_behind(&self) -> bool {
        self.file.is_none() && self.base > 0
    }

    /// Writes changes; `whole` is the record with them.
    pub fn write(&mut self, changes: &RecordChanges, whole: &Record) -> Result<(), StateError> {
        let Some(file) = self.file.as_mut().filter(|f| !f.is_worn(self.base)) else {
            return self.rewrite(whole);
        };
        let all: Vec<u8> = changes.iter().flat_map(|(key, who)| line(key, who.as_ref())).collect();
        // After a write that failed the next one writes all.
        file.append(&all, false).inspect_err(|_| self.file = None)
    }

    fn rewrite(&mut self, whole: &Record) -> Result<(), StateError> {
        self.file = None;
        // From now on it is behind until this succeeds.
        self.base = self.base.max(1);
        let all: Vec<u8> = whole.iter().flat_map(|(key, who)| line(key, Some(who))).collect();
        let file = Lines::anew(&self.path, &all, false)?;
        self.base = file.bytes().max(1);
        self.file = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::state_file::SLACK;
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::Write as _;
    use std::sync::Arc;

    fn who(uid: &str) -> Identity {
        serde_json::from_value(serde_json::json!({ "uid": uid })).unwrap()
    }

    /// Applies a change to both.
    fn change(file: &mut RecordFile, record: &mut Record, key: &str, uid: Option<&str>) -> Result<(), StateError> {
        match uid {
            Some(uid) => drop(record.insert(key.into(), who(uid))),
            None => drop(record.remove(key)),
        }
        file.write(&RecordChanges::from([(key.to_owned(), uid.map(who))]), record)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_however_often_it_is_begun_anew(
            steps in proptest::collection::vec((0..5_u8, proptest::option::of("[ -~ß\n]{0,8}"), any::<bool>()), 0..40),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("objects.jsonl");
            let (mut file, mut record) = RecordFile::open(&path);
            for (key, uid, restart) in steps {
                change(&mut file, &mut record, &format!("Pod default/{key}"), uid.as_deref()).unwrap();
                if restart {
                    let (again, read) = RecordFile::open(&path);
                    prop_assert_eq!(&read, &record);
                    file = again;
                }
            }
            prop_assert_eq!(RecordFile::open(&path).1, record);
        }
    }

    #[test]
    fn a_change_costs_its_own_line_and_the_file_does_not_grow_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("objects.jsonl");
        let (mut file, mut record) = RecordFile::open(&path);
        for n in 0..1000 {
            change(&mut file, &mut record, &format!("Pod default/{n}"), Some(&"x".repeat(300))).unwrap();
        }
        let before = std::fs::metadata(&path).unwrap().len();
        change(&mut file, &mut record, "Pod default/7", Some("new")).unwrap();
        let line = line("Pod default/7", Some(&who("new"))).len() as u64;
        assert_eq!(std::fs::metadata(&path).unwrap().len(), before + line);
        for n in 0..20_000 {
            change(&mut file, &mut record, "Pod default/7", Some(&format!("{n}{}", "y".repeat(300)))).unwrap();
        }
        let most = 5 * before.max(SLACK);
        assert!(std::fs::metadata(&path).unwrap().len() < most);
        assert_eq!(RecordFile::open(&path).1, record);
    }

    #[test]
    fn half_a_line_costs_that_line_alone_and_a_write_that_failed_is_made_up_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("objects.jsonl");
        let (mut file, mut record) = RecordFile::open(&path);
        change(&mut file, &mut record, "Pod default/a", Some("1")).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"key\":\"Pod d").unwrap();
        let (mut file, read) = RecordFile::open(&path);
        assert_eq!(read, record);
        change(&mut file, &mut record, "Pod default/b", Some("2")).unwrap();
        // As on a full disk.
        file.file.as_mut().unwrap().swap_file(Arc::new(File::open(&path).unwrap()));
        assert!(change(&mut file, &mut record, "Pod default/c", Some("3")).is_err());
        assert!(file.is_behind());
        file.write(&RecordChanges::new(), &record).unwrap();
        assert!(!file.is_behind());
        assert_eq!(RecordFile::open(&path).1, record);
    }
}
