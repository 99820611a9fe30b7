//! Writes configuration volumes so that their readers see the old or the new whole, never a mixture.
//!
//! The layout is the kubelet's (specification, 9.4), and readers rely on it: a data directory behind the
//! link `..data`, switched by one rename, and for each top-level name a link through it. The daemon may
//! die between any two steps; the next write takes up from what it finds.

use super::dir::Dir;
use super::ownership;
use crate::time::Wall;
use crate::volume::File;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fchmod, openat2, readlinkat, renameat, symlinkat};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};

type Files = BTreeMap<String, File>;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Makes the volume hold exactly `files`. Writes nothing when it does already.
pub fn write(volume: &Dir, files: &Files, fs_group: Option<i64>, now: Wall) -> io::Result<()> {
    let current = current(volume)?;
    let unchanged = match &current {
        Some(name) => volume.child(name.as_str()).is_ok_and(|d| holds(&d, files).unwrap_or(false)),
        None => false,
    };
    if !unchanged {
        let fresh = data_dir(volume, files, now)?;
        if let Some(gid) = fs_group {
            // Before anybody can see the new data.
            ownership::give(volume, gid, true)?;
        }
        volume.unlink(DATA_NEW)?;
        symlinkat(fresh.as_str(), volume, DATA_NEW)?;
        renameat(volume, DATA_NEW, volume, DATA)?;
    }
    links(volume, files)?;
    if !unchanged || current.is_none() {
        sweep(volume)?;
    }
    Ok(())
}

/// The data directory in force: a name without a slash, or there is none.
fn current(volume: &Dir) -> io::Result<Option<String>> {
    match readlinkat(volume, DATA, Vec::new()) {
        Ok(target) => Ok(target.into_string().ok().filter(|t| t.starts_with("..") && t.len() > 2 && !t.contains('/'))),
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A new directory with all files in it; its name.
fn data_dir(volume: &Dir, files: &Files, now: Wall) -> io::Result<String> {
    let stamp = now.rfc3339().replace(['-', ':', 'T'], "_").trim_end_matches('Z').to_owned();
    // The kubelet's names end in a random number; the nanoseconds are as good, and a collision is met.
    let mut n = now.0.rem_euclid(Wall::SECOND);
    let name = loop {
        let name = format!("..{stamp}.{n:09}");
        match rustix::fs::mkdirat(volume, name.as_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) => break name,
            Err(Errno::EXIST) => n += 1,
            Err(e) => return Err(e.into()),
        }
    };
    let data = volume.child(name.as_str())?;
    data.set_mode(0o755)?;
    for (path, file) in files {
        write_file(&data, path, file)?;
    }
    Ok(name)
}

fn write_file(data: &Dir, path: &str, file: &File) -> io::Result<()> {
    let mut parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let name = parts.pop().ok_or(io::ErrorKind::InvalidInput)?;
    let mut inside: Option<Dir> = None;
    for part in parts {
        inside = Some(inside.as_ref().unwrap_or(data).make(part, 0o755)?);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let fd = openat2(inside.as_ref().unwrap_or(data), name, flags, Mode::from_raw_mode(0o600), resolve)?;
    let mut f = std::fs::File::from(fd);
    f.write_all(&file.bytes)?;
    Ok(fchmod(&f, Mode::from_raw_mode(file.mode & 0o777))?)
}

/// Whether the directory holds these files with these contents and no others. Modes do not count: a
/// group's ownership has widened them.
fn holds(data: &Dir, files: &Files) -> io::Result<bool> {
    for (path, file) in files {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let fd = match openat2(data, path.as_str(), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        let mut have = Vec::with_capacity(file.bytes.len());
        let limit = u64::try_from(file.bytes.len()).unwrap_or(u64::MAX).saturating_add(1);
        std::fs::File::from(fd).take(limit).read_to_end(&mut have)?;
        if *have != *file.bytes {
            return Ok(false);
        }
    }
    Ok(count(data)? == files.len())
}

fn count(d: &Dir) -> io::Result<usize> {
    let mut n = 0;
    for (name, kind) in d.list()? {
        n += if kind == FileType::Directory { count(&d.child(name.as_c_str())?)? } else { 1 };
    }
    Ok(n)
}

/// One link per top-level name, and none for names that are no more.
fn links(volume: &Dir, files: &Files) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().map(|k| k.split('/').next().unwrap_or_default()).collect();
    for name in &wanted {
        match symlinkat(format!("{DATA}/{name}"), volume, *name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
    for (name, kind) in volume.list()? {
        let known = name.to_str().is_ok_and(|n| n.starts_with("..") || wanted.contains(n));
        if !known && kind == FileType::Symlink {
            volume.unlink(name.as_c_str())?;
        }
    }
    Ok(())
}

/// Data directories that are not in force: the one before, and what a crash left.
fn sweep(volume: &Dir) -> io::Result<()> {
    let keep = current(volume)?;
    for (name, kind) in volume.list()? {
        if let Ok(n) = name.to_str()
            && kind == FileType::Directory
            && n.starts_with("..")
            && keep.as_deref() != Some(n)
        {
            volume.remove_tree(n)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::Path;

    fn files(list: &[(&str, &str, u32)]) -> Files {
        list.iter().map(|(n, b, mode)| ((*n).to_owned(), File { bytes: b.as_bytes().into(), mode: *mode })).collect()
    }

    fn at(seconds: i64) -> Wall {
        Wall(seconds * Wall::SECOND + 42)
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut n: Vec<String> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        n.sort();
        n
    }

    fn read(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join(name)).unwrap()
    }

    #[test]
    fn the_layout_is_the_kubelets() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Dir::open(dir.path()).unwrap();
        write(&volume, &files(&[("a", "1", 0o644), ("b/c", "2", 0o400), ("b/d", "3", 0o640)]), None, at(0)).unwrap();
        assert_eq!(names(dir.path()), ["..1970_01_01_00_00_00.000000042", "..data", "a", "b"]);
        assert_eq!(fs::read_link(dir.path().join("..data")).unwrap(), Path::new("..1970_01_01_00_00_00.000000042"));
        assert_eq!(fs::read_link(dir.path().join("b")).unwrap(), Path::new("..data/b"));
        let mode = |n: &str| fs::metadata(dir.path().join(n)).unwrap().permissions().mode() & 0o7777;
        assert_eq!([mode("..data"), mode("a"), mode("b"), mode("b/c"), mode("b/d")], [0o755, 0o644, 0o755, 0o400, 0o640]);
        assert_eq!(read(dir.path(), "b/c"), "2");
    }

    #[test]
    fn the_same_payload_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Dir::open(dir.path()).unwrap();
        let payload = files(&[("a", "1", 0o644), ("b/c", "2", 0o400)]);
        write(&volume, &payload, None, at(0)).unwrap();
        let inode = || fs::metadata(dir.path().join("..data/a")).unwrap().ino();
        let stamp = || fs::metadata(dir.path()).unwrap().ctime_nsec();
        let before = (inode(), stamp());
        write(&volume, &payload, None, at(60)).unwrap();
        assert_eq!((inode(), stamp()), before);
    }

    #[test]
    fn a_change_replaces_all_and_takes_obsolete_names_away() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Dir::open(dir.path()).unwrap();
        write(&volume, &files(&[("a", "1", 0o644), ("b/c", "2", 0o644), ("gone", "", 0o644)]), None, at(0)).unwrap();
        write(&volume, &files(&[("a", "11", 0o644), ("b/e", "3", 0o644)]), None, at(1)).unwrap();
        assert_eq!(names(dir.path()), ["..1970_01_01_00_00_01.000000042", "..data", "a", "b"]);
        assert_eq!((read(dir.path(), "a"), names(&dir.path().join("b"))), ("11".to_owned(), vec!["e".to_owned()]));
        // One of several files goes; the contents of the others are as they were.
        write(&volume, &files(&[("a", "11", 0o644)]), None, at(2)).unwrap();
        assert_eq!(names(dir.path()), ["..1970_01_01_00_00_02.000000042", "..data", "a"]);
    }

    #[test]
    fn what_a_crash_left_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Dir::open(dir.path()).unwrap();
        let payload = files(&[("a", "1", 0o644)]);
        write(&volume, &payload, None, at(0)).unwrap();
        // Killed after the rename, before the link; and once more before the rename.
        fs::remove_file(dir.path().join("a")).unwrap();
        fs::create_dir(dir.path().join("..1969_01_01_00_00_00.1")).unwrap();
        std::os::unix::fs::symlink("..nothing", dir.path().join("..data_tmp")).unwrap();
        write(&volume, &payload, None, at(1)).unwrap();
        assert_eq!(read(dir.path(), "a"), "1");
        write(&volume, &files(&[("a", "2", 0o644)]), None, at(2)).unwrap();
        assert_eq!(read(dir.path(), "a"), "2");
        assert_eq!(names(dir.path()), ["..1970_01_01_00_00_02.000000042", "..data", "a"]);
    }

    #[test]
    fn an_empty_payload_is_a_volume_without_names() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Dir::open(dir.path()).unwrap();
        write(&volume, &Files::new(), None, at(0)).unwrap();
        assert_eq!(names(dir.path()), ["..1970_01_01_00_00_00.000000042", "..data"]);
    }
}
