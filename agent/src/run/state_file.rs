//! Files of the state directory: those that are replaced whole, and those that grow by lines.
//!
//! In a file of lines the last line about a thing counts, so a change costs its own line, however much there is. What
//! says nothing any more is dropped now and then by writing the file anew. Owns how such files are read, appended to
//! and written anew; never what a line says. Tests: with those who write lines (`state_dir`, `sources/record`,
//! `agent/tests/api_server/journal.rs`).

use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file of lines is not written anew before it is this large (bytes), and this many times what counts in it.
pub const SLACK: u64 = 1 << 20;
const SLACK_TIMES: u64 = 4;

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
    r.map_err(|source| StateError::new(path, source))
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

/// What a process before left; nothing where there is no file.
pub fn text(path: &Path) -> Result<Vec<u8>, StateError> {
    match std::fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        r => at(path, r),
    }
}

/// Takes each line. One that cannot be read is told and passed over, never fatal.
pub fn each<E: Display>(path: &Path, text: &[u8], mut take: impl FnMut(&[u8]) -> Result<(), E>) {
    for (n, line) in text.split(|b| *b == b'\n').enumerate().filter(|(_, l)| !l.is_empty()) {
        if let Err(error) = take(line) {
            tracing::warn!(path = %path.display(), line = n + 1, %error, "a line of the state file cannot be read; passed over");
        }
    }
}

/// The line that says this.
pub fn line(what: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(what).expect("plain data serialises");
    line.push(b'\n');
    line
}

/// A file of lines, open for more.
pub struct Lines {
    path: PathBuf,
    file: Arc<File>,
    /// Bytes of whole lines.
    len: u64,
}

impl Lines {
    /// A new file with these lines and nothing else.
    pub fn anew(path: &Path, lines: &[u8], durable: bool) -> Result<Lines, StateError> {
        replace(path, lines, durable)?;
        let file = at(path, std::fs::OpenOptions::new().append(true).custom_flags(libc::O_NOFOLLOW).open(path))?;
        Ok(Lines { path: path.to_owned(), file: Arc::new(file), len: lines.len() as u64 })
    }

    /// The file that has this text, as it is, where a full disk lets no new one be written: a node that cannot write must
    /// still look after its pods. What follows the last whole line goes; it was never acknowledged.
    pub fn going_on(path: &Path, text: &[u8], why: &StateError) -> Result<Lines, StateError> {
        let len = text.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1) as u64;
        let file = at(path, std::fs::OpenOptions::new().append(true).create(true).custom_flags(libc::O_NOFOLLOW).open(path))?;
        at(path, file.set_len(len))?;
        tracing::warn!(%why, "a state file could not be written anew; it goes on as it is");
        Ok(Lines { path: path.to_owned(), file: Arc::new(file), len })
    }

    /// All of these lines or none.
    pub fn append(&mut self, lines: &[u8], durable: bool) -> Result<(), StateError> {
        let written = (&*self.file).write_all(lines).and_then(|()| if durable { self.file.sync_data() } else { Ok(()) });
        if written.is_err() {
            // Half a line would spoil the next one. If this fails as well, whoever reads passes both over.
            let _ = self.file.set_len(self.len);
            return at(&self.path, written);
        }
        self.len += lines.len() as u64;
        Ok(())
    }

    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// Most of it says nothing any more; `live` are the bytes that count.
    pub fn is_worn(&self, live: u64) -> bool {
        self.len >= SLACK && self.len >= live * SLACK_TIMES
    }

    /// What was appended by now.
    pub fn written(&self) -> Written {
        Written { path: self.path.clone(), file: self.file.clone() }
    }

    #[cfg(test)]
    pub fn swap_file(&mut self, file: Arc<File>) -> Arc<File> {
        std::mem::replace(&mut self.file, file)
    }
}

/// What survives this process, and the machine's end once it is durable.
#[must_use]
pub struct Written {
    path: PathBuf,
    file: Arc<File>,
}

impl Written {
    /// Waits for the disk, which may take its time: not for the thread of the loop. A file that was written anew
    /// meanwhile is on the disk already.
    pub fn make_durable(&self) -> Result<(), StateError> {
        at(&self.path, self.file.sync_data())
    }
}
