//! `subPath`: a path inside a volume, bound where a container can be given it.
//!
//! The path may lead through links, as those of configuration volumes do, but never out of the volume: the
//! kernel resolves it (`RESOLVE_BENEATH`), and what it resolved to is bound by its handle, so that nothing a
//! container does in between can redirect it. Details of a failure stay in the log: they may tell a pod
//! about the host.

use super::dir::{Dir, is_mount_point};
use super::{VolumeError, make_dir, mounts};
use crate::work::SubPath;
use nix::mount::MntFlags;
use rustix::fs::{self as at, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// A renaming somewhere above makes the kernel ask for another try.
const TRIES: usize = 16;
/// What a directory takes over from the volume's own: everything but the sticky bit.
const INHERITED: u32 = 0o2777;

/// Binds the path for the container. Safe to repeat: what is bound already stays.
pub fn bind(container: &str, s: &SubPath) -> Result<(), VolumeError> {
    let text = |what: &str| format!("failed to {what} for volumeMount {:?} of container {container:?}", s.volume);
    let refuse = |what: &str, error: io::Error| {
        tracing::warn!(volume = %s.volume, path = %s.path, container, %error, "subPath refused");
        VolumeError::Refused(text(what))
    };
    let root =
        at::openat(CWD, s.root.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|e| refuse("prepare subPath", e.into()))?;
    let source = match resolve(&root, &s.path) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => make(&s.root, &root, &s.path).map_err(|e| refuse("create subPath directory", e))?,
        Err(e) => return Err(refuse("prepare subPath", e.into())),
    };
    attach(&source, Path::new(&s.target)).map_err(|e| refuse("prepare subPath", e))
}

fn resolve(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match at::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < TRIES => tries += 1,
            r => return r,
        }
    }
}

/// Makes the directories that are missing, with the permissions of the volume's root.
fn make(volume: &str, root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let mode = Dir::open(volume)?.own()?.mode & INHERITED;
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut have = parts.len();
    let mut here = loop {
        have = have.saturating_sub(1);
        let prefix = if have == 0 { ".".to_owned() } else { parts[..have].join("/") };
        match resolve(root, &prefix) {
            Ok(fd) => break Dir::open_below(&fd)?,
            Err(Errno::NOENT) if have > 0 => {}
            Err(e) => return Err(e.into()),
        }
    };
    for part in &parts[have..] {
        here = here.make(part, mode)?;
    }
    Ok(here.into())
}

/// Binds what the handle is of at the target.
fn attach(source: &OwnedFd, target: &Path) -> io::Result<()> {
    let wanted = at::fstat(source)?;
    if is_mount_point(target)? {
        let have = at::statat(CWD, target, at::AtFlags::SYMLINK_NOFOLLOW)?;
        if (have.st_dev, have.st_ino) == (wanted.st_dev, wanted.st_ino) {
            return Ok(());
        }
        // Running containers hold mounts of their own.
        mounts::unmount(target, MntFlags::MNT_DETACH).map_err(io::Error::other)?;
    }
    prepare(target, FileType::from_raw_mode(wanted.st_mode) == FileType::Directory)?;
    let tree = open_tree(source, "", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH)?;
    let place = at::openat(CWD, target, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(&tree, "", &place, "", flags)?)
}

/// An empty file or directory to mount upon.
fn prepare(target: &Path, directory: bool) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        make_dir(parent, 0o750)?;
    }
    match std::fs::symlink_metadata(target) {
        Ok(m) if m.is_dir() == directory => return Ok(()),
        Ok(m) if m.is_dir() => std::fs::remove_dir(target)?,
        Ok(_) => std::fs::remove_file(target)?,
        Err(_) => {}
    }
    if directory {
        return make_dir(target, 0o750);
    }
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(target).map(drop)
}
