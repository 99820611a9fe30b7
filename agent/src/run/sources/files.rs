//! The files of a manifests directory: which there are, and their texts.
//!
//! Names that begin with a dot, other endings than yaml, yml and json, and what lies deeper are none of
//! ours, as for the kubelet's static pods. Tests: in this file.

use crate::manifest::text::MOST_BYTES;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// By which a change of a file is noticed without reading it.
#[derive(Clone, Debug)]
pub struct Stamp {
    identity: (u64, u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
    /// The path of the source is itself the file.
    pub alone: bool,
}

impl PartialEq for Stamp {
    fn eq(&self, o: &Stamp) -> bool {
        (self.identity, self.modified, self.changed) == (o.identity, o.modified, o.changed)
    }
}

#[derive(Debug, Default)]
pub struct Listing {
    /// By name, in the order in which they count.
    pub files: BTreeMap<String, Stamp>,
}

fn stamp(m: &fs::Metadata, alone: bool) -> Stamp {
    Stamp { identity: (m.dev(), m.ino(), m.len()), modified: (m.mtime(), m.mtime_nsec()), changed: (m.ctime(), m.ctime_nsec()), alone }
}

/// Of one file. None: it is not there, or cannot be looked at.
pub fn stamp_of(path: &Path, alone: bool) -> Option<Stamp> {
    fs::metadata(path).ok().map(|m| stamp(&m, alone))
}

/// Whether a file of this name is a manifest.
pub fn is_manifest(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default();
    !name.starts_with('.') && ["yaml", "yml", "json"].iter().any(|e| ending.eq_ignore_ascii_case(e))
}

/// The manifests of a directory, or the one file that `path` is.
pub fn list(path: &Path) -> io::Result<Listing> {
    list_where(path, is_manifest)
}

/// The same of every file that is not hidden, whatever it is called: so a kubelet reads its static pods.
pub fn list_all(path: &Path) -> io::Result<Listing> {
    list_where(path, |name| !name.starts_with('.'))
}

fn list_where(path: &Path, counts: impl Fn(&str) -> bool) -> io::Result<Listing> {
    let mut out = Listing::default();
    let m = fs::metadata(path)?;
    if !m.is_dir() {
        let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        out.files.insert(name, stamp(&m, true));
        return Ok(out);
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|n| counts(n)) else { continue };
        // Follows links, as a mounted ConfigMap is made of them. One that leads nowhere is absent.
        match fs::metadata(entry.path()) {
            Ok(m) if m.is_dir() => {}
            Ok(m) => {
                out.files.insert(name.to_owned(), stamp(&m, false));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(out)
}

/// The text of a file, at most 10 MiB of it and a byte: more is for the parser to refuse.
pub fn text(path: &Path) -> io::Result<String> {
    // A pipe must not hold up the daemon.
    let f = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)?;
    let m = f.metadata()?;
    if !m.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(m.len()).unwrap_or(0).min(MOST_BYTES + 1));
    io::Read::take(f, MOST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).or_else(|e| {
        let at = e.utf8_error().valid_up_to();
        if e.as_bytes().len() > MOST_BYTES && at + 4 > MOST_BYTES {
            // Cut within a character.
            return Ok(String::from_utf8_lossy(e.as_bytes()).into_owned());
        }
        let line = 1 + e.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("not UTF-8: line {line} has a byte that is no text")))
    })
}

/// A directory for root's eyes: manifests hold secrets.
pub fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Written beside and renamed, so that a reader sees the old or the new whole.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut f = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    f.write_all(bytes)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_manifests_of_this_directory_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "c.JSON", ".hidden.yaml", ".x.yaml.swp", "x.yaml~", "x.txt", "yaml"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::create_dir(dir.path().join("sub.yaml")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link.yaml")).unwrap();
        std::os::unix::fs::symlink("x.txt", dir.path().join("good.yaml")).unwrap();
        let names: Vec<String> = list(dir.path()).unwrap().files.into_keys().collect();
        assert_eq!(names, ["a.yml", "b.yaml", "c.JSON", "good.yaml"]);
        assert_eq!(list(&dir.path().join("x.txt")).unwrap().files.into_keys().collect::<Vec<_>>(), ["x.txt"]);
        assert_eq!(list(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_text_is_bounded_and_must_be_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.yaml");
        fs::write(&path, b"a\nb\xff").unwrap();
        assert_eq!(text(&path).unwrap_err().to_string(), "not UTF-8: line 2 has a byte that is no text");
        fs::write(&path, vec![b'#'; MOST_BYTES + 10]).unwrap();
        assert_eq!(text(&path).unwrap().len(), MOST_BYTES + 1);
        let pipe = dir.path().join("p.yaml");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(text(&pipe).unwrap_err().to_string(), "not a regular file");
    }
}
