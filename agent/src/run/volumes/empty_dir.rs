//! emptyDir, and the file systems in memory under it and under configuration volumes.

use super::dir::{Dir, is_mount_point};
use super::{Cause, make_dir, ownership};
use crate::volume::Medium;
use nix::errno::Errno;
use nix::mount::MsFlags;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Makes the volume. A mark beside it says that this was done: a set-up that is repeated, by this daemon
/// or by another kubelet, leaves what the pod has made of it alone.
pub fn set_up(path: &str, mark: &str, medium: &Medium, fs_group: Option<i64>) -> Result<(), Cause> {
    if Path::new(mark).exists() && (*medium == Medium::Disk || is_mount_point(path)?) {
        return Ok(());
    }
    place(path, medium)?;
    if let Some(gid) = fs_group {
        ownership::give(&Dir::open(path)?, gid, false)?;
    }
    if let Some(parent) = Path::new(mark).parent() {
        make_dir(parent, 0o750)?;
    }
    Ok(fs::write(mark, "")?)
}

/// The directory on its medium, open to all: what may be done in it is for the pod to say.
pub fn place(path: &str, medium: &Medium) -> Result<(), Cause> {
    let fresh = !Path::new(path).exists();
    make_dir(Path::new(path), 0o777)?;
    if fresh {
        Dir::open(path)?.set_mode(0o777)?;
    }
    match medium {
        Medium::Disk => Ok(()),
        _ if is_mount_point(path)? => Ok(()),
        Medium::Memory { size } => tmpfs(path, *size),
        Medium::HugePages { size } => {
            let options = if size.is_empty() { String::new() } else { format!("pagesize={size}") };
            mount("hugetlbfs", path, &options).map_err(|e| hint(e, "the kernel has no huge pages of this size"))
        }
    }
}

/// Without `noswap` (Linux 6.4) a secret may reach a disk: told once.
fn tmpfs(path: &str, size: Option<i64>) -> Result<(), Cause> {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let size = size.map(|n| format!("size={n}")).unwrap_or_default();
    let options = if size.is_empty() { "noswap".to_owned() } else { format!("{size},noswap") };
    match mount("tmpfs", path, &options) {
        Err(Errno::EINVAL) => {
            if !TOLD.swap(true, Ordering::Relaxed) {
                tracing::warn!("this kernel has no tmpfs option noswap (Linux 6.4): memory-backed volumes may be swapped to disk");
            }
            mount("tmpfs", path, &size).map_err(|e| hint(e, "tmpfs"))
        }
        r => r.map_err(|e| hint(e, "tmpfs")),
    }
}

fn mount(kind: &str, path: &str, options: &str) -> Result<(), Errno> {
    nix::mount::mount(Some(kind), path, Some(kind), MsFlags::empty(), Some(options))
}

fn hint(e: Errno, what: &str) -> Cause {
    Cause::Refused(format!("mount failed: {}: {what}", e.desc()))
}
