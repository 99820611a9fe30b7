//! How a file of the manifests directory is replaced or taken away.
//!
//! Whatever happens in between, the name leads to the old text or to the new one, and a change that somebody makes by
//! hand at the same moment is never lost: the file that was there is looked at once more after it was put aside, and
//! comes back if it is not what was expected. What a dead daemon left beside a file says by its name how far it came,
//! and [`recover`] finishes it. Must never decide what a text is. Tests: `replace/tests.rs`.

use super::door::WriteError;
use super::files;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// The longest name of a file that can be replaced: what stands beside it has a longer one, of 255 bytes at most.
pub const MOST_NAME: usize = 255 - (3 + 2 * DIGITS + ENDING.len());
const ENDING: &str = ".longshore";
/// While the text is being written.
const PART: &str = "part";
/// In the place of the new text's digest: there is none.
const GONE: &str = "gone";
/// Of a digest in a name.
const DIGITS: usize = 12;

pub type Digest = [u8; 32];

/// What stands in a file now.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    Nothing,
    Text(Digest),
}

pub fn digest(text: &str) -> Digest {
    Sha256::digest(text).into()
}

fn short(digest: &Digest) -> String {
    digest.iter().take(DIGITS / 2).map(|b| format!("{b:02x}")).collect()
}

/// The steps that change a directory, one after the other. A test dies between any two.
pub trait Steps {
    /// A new file with this text, durable.
    fn create(&self, path: &Path, text: &str, mode: u32) -> io::Result<()>;
    /// With the flags of `renameat2`.
    fn rename(&self, from: &Path, to: &Path, flags: libc::c_uint) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes durable what names the directory has.
    fn sync(&self, directory: &Path) -> io::Result<()>;
}

pub struct Disk;

impl Steps for Disk {
    fn create(&self, path: &Path, text: &str, mode: u32) -> io::Result<()> {
        let mut f = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        f.write_all(text.as_bytes())?;
        f.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path, flags: libc::c_uint) -> io::Result<()> {
        let c = |p: &Path| std::ffi::CString::new(p.as_os_str().as_bytes()).map_err(io::Error::other);
        let (from, to) = (c(from)?, c(to)?);
        // SAFETY: both are texts that end with a zero, and live for the call.
        let r = unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) };
        if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync(&self, directory: &Path) -> io::Result<()> {
        fs::File::open(directory)?.sync_all()
    }
}

/// Puts `text` into the place of what is expected there; None takes the file away. Durable when it returns.
pub fn write(path: &Path, expect: &Expect, text: Option<&str>) -> Result<(), WriteError> {
    Write { steps: &Disk, path }.write(expect, text)
}

/// Finishes what a daemon that died had begun in the directory. What cannot be finished is told and left as it is.
pub fn recover(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(left) = name.to_str().and_then(Left::parse) else { continue };
        let path = directory.join(left.name);
        if let Err(error) = (Write { steps: &Disk, path: &path }).finish(&entry.path(), &left) {
            tracing::warn!(path = %entry.path().display(), %error, "what an API write left beside a manifest could not be put in order");
        }
    }
}

/// Whether a file of this name stands beside another while that is written.
pub fn is_beside(name: &str) -> bool {
    Left::parse(name).is_some()
}

/// What a name beside a file says: `.NAME.OLD.NEW.longshore`, `.NAME.OLD.gone.longshore` or `.NAME.part.longshore`.
struct Left<'a> {
    name: &'a str,
    /// Before and after; None: it is still being written.
    change: Option<(&'a str, &'a str)>,
}

impl Left<'_> {
    fn parse(file: &str) -> Option<Left<'_>> {
        let inner = file.strip_prefix('.')?.strip_suffix(ENDING)?;
        let (rest, new) = inner.rsplit_once('.')?;
        if new == PART {
            return Some(Left { name: rest, change: None });
        }
        let (name, old) = rest.rsplit_once('.')?;
        let is_digest = |t: &str| t.len() == DIGITS && t.bytes().all(|b| b.is_ascii_hexdigit());
        (is_digest(old) && (new == GONE || is_digest(new))).then_some(Left { name, change: Some((old, new)) })
    }
}

struct Write<'a, S> {
    steps: &'a S,
    path: &'a Path,
}

impl<S: Steps> Write<'_, S> {
    fn write(&self, expect: &Expect, text: Option<&str>) -> Result<(), WriteError> {
        if fs::symlink_metadata(self.path).is_ok_and(|m| m.file_type().is_symlink()) {
            return Err(self.error(io::Error::other("it is a link: change the file that it leads to")));
        }
        if self.name().len() > MOST_NAME {
            return Err(self.error(io::Error::other(format!("its name is longer than {MOST_NAME} bytes: give it a shorter one"))));
        }
        match (expect, text) {
            (Expect::Nothing, Some(text)) => self.add(text),
            (Expect::Nothing, None) => return Ok(()),
            (Expect::Text(old), Some(text)) => self.exchange(old, text),
            (Expect::Text(old), None) => self.take_away(old),
        }?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        self.steps.sync(directory).map_err(|e| self.error(e))
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn error(&self, source: io::Error) -> WriteError {
        WriteError::File { path: self.path.to_owned(), source }
    }

    fn changed(&self) -> WriteError {
        WriteError::Changed(self.name())
    }

    fn beside(&self, what: &str) -> PathBuf {
        self.path.with_file_name(format!(".{}.{what}{ENDING}", self.name()))
    }

    /// The name beside for a change, with nothing under it: what a failing disk left there is put in order first.
    fn free(&self, old: &str, new: &str) -> Result<PathBuf, WriteError> {
        let beside = self.beside(&format!("{old}.{new}"));
        if beside.exists() {
            self.finish(&beside, &Left { name: "", change: Some((old, new)) })?;
        }
        Ok(beside)
    }

    /// The text under a name that nobody reads, whole and durable.
    fn part(&self, text: &str) -> Result<PathBuf, WriteError> {
        let mode = fs::metadata(self.path).map_or(0o600, |m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o777);
        let part = self.beside(PART);
        let _ = self.steps.remove(&part);
        let created = self.steps.create(&part, text, mode);
        created.inspect_err(|_| drop(self.steps.remove(&part))).map_err(|e| self.error(e))?;
        Ok(part)
    }

    fn add(&self, text: &str) -> Result<(), WriteError> {
        let part = self.part(text)?;
        self.steps.rename(&part, self.path, libc::RENAME_NOREPLACE).map_err(|e| {
            let _ = self.steps.remove(&part);
            if e.kind() == io::ErrorKind::AlreadyExists { self.changed() } else { self.error(e) }
        })
    }

    fn exchange(&self, old: &Digest, text: &str) -> Result<(), WriteError> {
        let new = short(&digest(text));
        let part = self.part(text)?;
        let beside = self.free(&short(old), &new)?;
        let exchanged = self.steps.rename(&part, &beside, 0).and_then(|()| self.steps.rename(&beside, self.path, libc::RENAME_EXCHANGE));
        exchanged.map_err(|e| {
            let _ = self.steps.remove(&part).or_else(|_| self.steps.remove(&beside));
            if e.kind() == io::ErrorKind::NotFound { self.changed() } else { self.error(e) }
        })?;
        if is(&beside, &short(old)) {
            // What is in the way is removed at the next start.
            let _ = self.steps.remove(&beside);
            return Ok(());
        }
        self.give_back(&beside, &new)?;
        Err(self.changed())
    }

    /// Somebody's own text is beside, and ours in its place.
    fn give_back(&self, beside: &Path, new: &str) -> Result<(), WriteError> {
        let exchange = || self.steps.rename(beside, self.path, libc::RENAME_EXCHANGE).map_err(|e| self.error(e));
        // A file that was taken away meanwhile is what its owner wanted.
        if self.path.exists() {
            exchange()?;
            // Somebody was faster once more: the later text counts.
            if !is(beside, new) {
                exchange()?;
            }
        }
        let _ = self.steps.remove(beside);
        Ok(())
    }

    fn take_away(&self, old: &Digest) -> Result<(), WriteError> {
        let beside = self.free(&short(old), GONE)?;
        self.steps.rename(self.path, &beside, 0).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => self.changed(),
            _ => self.error(e),
        })?;
        if is(&beside, &short(old)) {
            let _ = self.steps.remove(&beside);
            return Ok(());
        }
        self.put_back(&beside)?;
        Err(self.changed())
    }

    /// Back to its place, unless there is yet another by now: then that one counts.
    fn put_back(&self, beside: &Path) -> Result<(), WriteError> {
        match self.steps.rename(beside, self.path, libc::RENAME_NOREPLACE) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(self.error(e)),
            Err(_) => drop(self.steps.remove(beside)),
            Ok(()) => {}
        }
        Ok(())
    }

    fn finish(&self, beside: &Path, left: &Left<'_>) -> Result<(), WriteError> {
        match left.change {
            Some((old, GONE)) if !is(beside, old) => self.put_back(beside),
            // It is neither what was there before nor what was to come: somebody's own.
            Some((old, new)) if new != GONE && !is(beside, old) && !is(beside, new) && is(self.path, new) => self.give_back(beside, new),
            _ => self.steps.remove(beside).map_err(|e| self.error(e)),
        }
    }
}

/// Whether the file has the text of this (short) digest.
fn is(path: &Path, expected: &str) -> bool {
    files::text(path).is_ok_and(|t| short(&digest(&t)) == expected)
}
