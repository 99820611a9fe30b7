//! Directories, volumes and files of pods on this host.
//!
//! Owns everything below a pod's directory. All of it blocks, so that it is called on threads of its own
//! (`run::executor`): a host path on a dead network file system holds up its pod and nothing else. Must
//! never follow a link or cross a mount where a container could have made it. Tests: in each file, and with
//! mounts in `tests/tests/namespaces_volumes.rs` and `runtime_volumes.rs`.

mod atomic;
pub mod dir;
mod empty_dir;
mod files;
mod host_path;
pub mod mounts;
mod ownership;
mod sub_path;

pub use files::{link_log, prepare, remove_log};
pub use sub_path::bind as bind_sub_path;

use crate::volume::{Medium, VolumeWork};
use crate::work::{SetUp, TearDown};
use dir::Dir;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("MountVolume.SetUp failed for volume {volume:?} : {cause}")]
    SetUp { volume: String, cause: Cause },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is mounted inside the pod's directory, and not by this daemon: unmount it, and the pod's volumes are removed")]
    StillMounted { path: PathBuf },
    #[error("{0}")]
    Refused(String),
}

/// Why one volume could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Refused(String),
}

fn at<T>(path: impl AsRef<Path>, r: io::Result<T>) -> Result<T, VolumeError> {
    r.map_err(|source| VolumeError::Io { path: path.as_ref().to_owned(), source })
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Makes everything that `s` names. Safe to repeat.
pub fn set_up(s: &SetUp) -> Result<(), VolumeError> {
    // The directories below it are made by whoever has something to put there: on a disk, each one costs as much
    // as a call to the runtime.
    at(&s.pod_dir, make_dir(Path::new(&s.pod_dir), 0o750))?;
    at(&s.log_dir, make_dir(Path::new(&s.log_dir), 0o755))?;
    for v in &s.volumes {
        one(&s.pod_dir, v).map_err(|cause| VolumeError::SetUp { volume: v.name().to_owned(), cause })?;
    }
    Ok(())
}

fn one(pod_dir: &str, v: &VolumeWork) -> Result<(), Cause> {
    match v {
        VolumeWork::EmptyDir { name, path, medium, fs_group } => {
            parent(path)?;
            let mark = format!("{pod_dir}/plugins/kubernetes.io~empty-dir/{name}/ready");
            empty_dir::set_up(path, &mark, medium, *fs_group)
        }
        VolumeWork::HostPath { path, kind, .. } => host_path::set_up(path, kind),
        VolumeWork::Files { path, medium, files, fs_group, .. } => {
            parent(path)?;
            empty_dir::place(path, medium)?;
            Ok(atomic::write(&Dir::open(path)?, files, *fs_group, super::clock::now().wall)?)
        }
    }
}

/// Volumes hang below directories that only root may enter; the volumes themselves are open.
fn parent(path: &str) -> io::Result<()> {
    Path::new(path).parent().map_or(Ok(()), |p| make_dir(p, 0o750))
}

/// Rewrites volumes whose objects changed. What is not there is not made: its pod may be on its way out.
pub fn refresh(volumes: &[VolumeWork]) {
    for v in volumes {
        let VolumeWork::Files { name, path, medium, files, fs_group } = v else { continue };
        let there = Path::new(path).exists() && (*medium == Medium::Disk || dir::is_mount_point(path).unwrap_or(false));
        let written = match Dir::open(path) {
            Ok(d) if there => atomic::write(&d, files, *fs_group, super::clock::now().wall),
            _ => continue,
        };
        if let Err(error) = written {
            tracing::warn!(volume = %name, %path, %error, "a configuration volume could not be rewritten");
        }
    }
}

/// Takes everything away that `set_up` made. Stops at mounts that are not ours.
pub fn tear_down(t: &TearDown) -> Result<(), VolumeError> {
    remove_pod_dir(Path::new(&t.pod_dir))?;
    if let Some(logs) = &t.logs {
        at(logs, dir::remove_tree(logs))?;
        let (directory, prefix) = &t.log_links;
        remove_dangling(Path::new(directory), prefix);
    }
    Ok(())
}

/// A pod's directory with its mounts.
pub fn remove_pod_dir(pod_dir: &Path) -> Result<(), VolumeError> {
    // The kernel names mount points by their real paths.
    let real = match pod_dir.canonicalize() {
        Ok(p) => p,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return at(pod_dir, Err(e)),
    };
    mounts::take_away(&real)?;
    at(pod_dir, dir::remove_tree(&real.to_string_lossy()))
}

/// Links of a directory that start with `prefix` and lead nowhere.
pub fn remove_dangling(directory: &Path, prefix: &str) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(prefix) && entry.file_type().is_ok_and(|t| t.is_symlink());
        if ours && !entry.path().exists() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
