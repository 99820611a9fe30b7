//! A pod's `fsGroup` on the files of a volume (specification of the kubelet, 9.5).
//!
//! `fsGroupChangePolicy` has no say here: by the API's definition it does not apply to emptyDir and to
//! configuration volumes, and host paths are never touched.

use super::dir::Dir;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, chownat, fchmod, fchown, fstat, openat2};
use std::ffi::CStr;
use std::io;

const READ_WRITE: u32 = 0o660;
const READ_ONLY: u32 = 0o440;
const DIRECTORY: u32 = 0o2110;

/// Gives the tree to the group in one pass: files become readable (and writable, if the volume is), and
/// directories hand the group on to what is made in them.
pub fn give(root: &Dir, gid: i64, read_only: bool) -> io::Result<()> {
    let gid = u32::try_from(gid).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("fsGroup {gid} is not a group id")))?;
    let mask = if read_only { READ_ONLY } else { READ_WRITE };
    tree(root, Gid::from_raw(gid), mask)
}

/// Recursion is as deep as the volume: one that was just made, by us.
fn tree(d: &Dir, gid: Gid, mask: u32) -> io::Result<()> {
    fchown(d, None, Some(gid))?;
    d.set_mode(d.own()?.mode | mask | DIRECTORY)?;
    for (name, kind) in d.list()? {
        match kind {
            FileType::Directory => tree(&d.child(name.as_c_str())?, gid, mask)?,
            FileType::RegularFile => file(d, &name, gid, mask)?,
            // Links have no mode, and what they point at is met by itself if it is in the volume.
            _ => chownat(d, name.as_c_str(), None, Some(gid), AtFlags::SYMLINK_NOFOLLOW)?,
        }
    }
    Ok(())
}

fn file(d: &Dir, name: &CStr, gid: Gid, mask: u32) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let f = openat2(d, name, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?;
    fchown(&f, None, Some(gid))?;
    let mode = fstat(&f)?.st_mode & 0o7777;
    Ok(fchmod(&f, Mode::from_raw_mode(mode | mask))?)
}
