//! What is mounted below pods' directories, and taking away what we mounted there.

use super::VolumeError;
use nix::mount::{MntFlags, umount2};
use procfs::FromRead as _;
use std::io;
use std::path::{Path, PathBuf};

/// Mount points strictly below a directory, the last mounted first.
pub fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    // Of this thread: the tests give each of theirs a mount namespace.
    let mounts = procfs::process::MountInfos::from_file("/proc/thread-self/mountinfo").map_err(io::Error::other)?;
    let mut points: Vec<PathBuf> = mounts.into_iter().map(|m| m.mount_point).filter(|p| p.starts_with(dir) && p != dir).collect();
    points.reverse();
    Ok(points)
}

/// Whether we mount at this path, given relative to a pod's directory: volumes and paths inside them.
/// Anything else down there was mounted by a container, or by an operator.
pub fn is_ours(relative: &Path) -> bool {
    let parts: Vec<&str> = relative.iter().map(|p| p.to_str().unwrap_or_default()).collect();
    match parts.as_slice() {
        ["volumes", plugin, _] => plugin.starts_with("kubernetes.io~"),
        ["volume-subpaths", _, _, index] => index.bytes().all(|b| b.is_ascii_digit()),
        _ => false,
    }
}

/// Unmounts what we mounted below a pod's directory. Fails if anything is mounted there after that.
pub fn take_away(pod_dir: &Path) -> Result<(), VolumeError> {
    let all = below(pod_dir).map_err(|source| VolumeError::Io { path: pod_dir.to_owned(), source })?;
    let mut foreign = None;
    for point in all {
        if !point.strip_prefix(pod_dir).is_ok_and(is_ours) {
            foreign = Some(point);
        } else if foreign.as_ref().is_none_or(|f| !f.starts_with(&point)) {
            unmount(&point, MntFlags::empty())?;
        }
    }
    foreign.map_or(Ok(()), |path| Err(VolumeError::StillMounted { path }))
}

/// Ends a mount; one that is gone is no error.
pub fn unmount(point: &Path, how: MntFlags) -> Result<(), VolumeError> {
    match umount2(point, how | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(()),
        Err(e) => Err(VolumeError::Io { path: point.to_owned(), source: e.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_volumes_and_paths_inside_them_are_ours() {
        let ours = |p: &str| is_ours(Path::new(p));
        assert!(ours("volumes/kubernetes.io~secret/token"));
        assert!(ours("volume-subpaths/data/main/0"));
        for foreign in [
            "volumes/kubernetes.io~empty-dir/data/mounted-by-the-container",
            "volumes/vendor~driver/data",
            "volume-subpaths/data/main/0/deeper",
            "volume-subpaths/data/main/x",
            "etc-hosts",
            "",
        ] {
            assert!(!ours(foreign), "{foreign}");
        }
    }
}
