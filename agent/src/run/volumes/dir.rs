//! Directories held open: everything below one is named relative to it, and no link leads out of it.
//!
//! Containers write into what this module walks, while it walks. Hence no path is ever built from what a
//! directory lists, no symbolic link is followed, and no mount point is crossed.

use rustix::fs::{self as at, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Directories open at once while a tree is removed; what is nested deeper is moved up first.
const DEEPEST: usize = 64;

/// An open directory.
#[derive(Debug)]
pub struct Dir(OwnedFd);

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Dir> for OwnedFd {
    fn from(d: Dir) -> OwnedFd {
        d.0
    }
}

/// What is at a name, without following a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub kind: FileType,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    pub gid: u32,
    pub device: u64,
    pub inode: u64,
}

/// Names in a directory with their types.
pub type Listing = Vec<(CString, FileType)>;

impl Dir {
    /// A directory by its path on the host. Links in the path count: it comes from the configuration.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Dir> {
        Ok(Dir(at::openat(CWD, path.as_ref(), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// The directory that a handle without access (`O_PATH`) is of.
    pub fn open_below(handle: impl AsFd) -> io::Result<Dir> {
        Ok(Dir(at::openat(handle, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// A directory directly below this one: no link, no other mount.
    pub fn child(&self, name: impl rustix::path::Arg) -> io::Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        Ok(Dir(at::openat2(&self.0, name, flags, Mode::empty(), resolve)?))
    }

    /// Makes the directory if nothing is there, with exactly this mode, whatever the umask; opens it.
    pub fn make(&self, name: &str, mode: u32) -> io::Result<Dir> {
        match at::mkdirat(&self.0, name, Mode::from_raw_mode(mode)) {
            Ok(()) => {
                let made = self.child(name)?;
                made.set_mode(mode)?;
                Ok(made)
            }
            Err(Errno::EXIST) => self.child(name),
            Err(e) => Err(e.into()),
        }
    }

    pub fn look(&self, name: impl rustix::path::Arg) -> io::Result<Found> {
        Ok(found(&at::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    pub fn own(&self) -> io::Result<Found> {
        Ok(found(&at::fstat(&self.0)?))
    }

    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(at::fchmod(&self.0, Mode::from_raw_mode(mode))?)
    }

    /// Names with their types, without the two dots.
    pub fn list(&self) -> io::Result<Listing> {
        let mut names = Vec::new();
        for entry in at::Dir::read_from(&self.0)? {
            let entry = entry?;
            if entry.file_name() == c"." || entry.file_name() == c".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => self.look(entry.file_name())?.kind,
                known => known,
            };
            names.push((entry.file_name().to_owned(), kind));
        }
        Ok(names)
    }

    /// Removes a file or link; one that is gone is no error.
    pub fn unlink(&self, name: impl rustix::path::Arg) -> io::Result<()> {
        gone_is_fine(at::unlinkat(&self.0, name, AtFlags::empty()))
    }

    fn rmdir(&self, name: &CStr) -> io::Result<()> {
        gone_is_fine(at::unlinkat(&self.0, name, AtFlags::REMOVEDIR))
    }

    /// Removes a directory with everything in it, or a file. Stops, with an error, at a mount point.
    pub fn remove_tree(&self, name: &str) -> io::Result<()> {
        let name = CString::new(name)?;
        match self.look(name.as_c_str()) {
            Ok(f) if f.kind == FileType::Directory => {}
            Ok(_) => return self.unlink(name.as_c_str()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        }
        let top = self.child(name.as_c_str())?;
        // Deep trees are cut: a subtree too far down becomes a child of the top and is met again.
        while !empty_out(&top)? {}
        self.rmdir(&name)
    }
}

/// Removes what is in the directory. False: something was moved up, so that another round is needed.
fn empty_out(top: &Dir) -> io::Result<bool> {
    let mut done = true;
    let mut moved = 0_u32;
    let mut open: Vec<(CString, Dir, Listing)> = Vec::new();
    let mut left = top.list()?;
    loop {
        let here = open.last().map_or(top, |(_, d, _)| d);
        let Some((name, kind)) = left.pop() else {
            let Some((name, _, before)) = open.pop() else { return Ok(done) };
            left = before;
            open.last().map_or(top, |(_, d, _)| d).rmdir(&name)?;
            continue;
        };
        if kind != FileType::Directory {
            here.unlink(name.as_c_str())?;
        } else if open.len() >= DEEPEST {
            done = false;
            rise(here, &name, top, &mut moved)?;
        } else {
            let inside = here.child(name.as_c_str())?;
            let fresh = inside.list()?;
            open.push((name, inside, std::mem::replace(&mut left, fresh)));
        }
    }
}

/// Moves a directory to the top of the tree, under a name that is free there.
fn rise(from: &Dir, name: &CStr, top: &Dir, moved: &mut u32) -> io::Result<()> {
    loop {
        *moved += 1;
        match at::renameat_with(from, name, top, format!("deep-{moved}"), at::RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            r => return Ok(r?),
        }
    }
}

fn gone_is_fine(r: rustix::io::Result<()>) -> io::Result<()> {
    match r {
        Err(Errno::NOENT) => Ok(()),
        r => Ok(r?),
    }
}

#[expect(clippy::useless_conversion, reason = "the types differ between architectures")]
fn found(s: &at::Stat) -> Found {
    Found {
        kind: FileType::from_raw_mode(s.st_mode),
        mode: u32::from(s.st_mode) & 0o7777,
        gid: s.st_gid,
        device: u64::from(s.st_dev),
        inode: u64::from(s.st_ino),
    }
}

/// Whether something is mounted exactly at this path.
pub fn is_mount_point(path: impl AsRef<Path>) -> io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match at::statx(CWD, path.as_ref(), flags, StatxFlags::BASIC_STATS) {
        Ok(s) => Ok(s.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Removes a tree by its path on the host; its parent's path is the configuration's.
pub fn remove_tree(path: &str) -> io::Result<()> {
    let (parent, name) = path.trim_end_matches('/').rsplit_once('/').ok_or(io::ErrorKind::InvalidInput)?;
    match Dir::open(parent) {
        Ok(d) => d.remove_tree(name),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_goes_and_what_its_links_point_at_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, other) = (dir.path().join("tree"), dir.path().join("other"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "").unwrap();
        fs::write(tree.join("a/file"), "").unwrap();
        symlink(&other, tree.join("a/b/link")).unwrap();
        remove_tree(tree.to_str().unwrap()).unwrap();
        assert!(!tree.exists());
        assert!(other.join("kept").exists());
        remove_tree(tree.to_str().unwrap()).unwrap();
    }

    #[test]
    fn a_tree_deeper_than_descriptors_and_stack_would_carry_goes_too() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        let mut here = Dir::open(dir.path()).unwrap().child("tree").unwrap();
        for _ in 0..3000 {
            here = here.make("d", 0o755).unwrap();
        }
        drop(here);
        remove_tree(dir.path().join("tree").to_str().unwrap()).unwrap();
        assert!(!dir.path().join("tree").exists());
    }

    #[test]
    fn a_child_is_no_link_and_makes_keep_their_mode() {
        let dir = tempfile::tempdir().unwrap();
        let d = Dir::open(dir.path()).unwrap();
        symlink("/etc", dir.path().join("link")).unwrap();
        assert!(d.child("link").is_err());
        assert_eq!(d.make("made", 0o2775).unwrap().own().unwrap().mode, 0o2775);
        assert_eq!(d.make("made", 0o700).unwrap().own().unwrap().mode, 0o2775);
    }
}
