//! Directories, volumes and files of pods on this host.

use crate::volume::{File, Medium, VolumeWork};
use crate::work::{LogLink, SetUp, Start, TearDown};
use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("hostPath type check failed: {path} is not {wanted}")]
    Type { path: String, wanted: &'static str },
    #[error("{0}")]
    Refused(String),
}

fn at<T>(path: impl AsRef<Path>, r: std::io::Result<T>) -> Result<T, VolumeError> {
    r.map_err(|source| VolumeError::Io { path: path.as_ref().to_owned(), source })
}

fn make_dir(path: impl AsRef<Path>, mode: u32) -> Result<(), VolumeError> {
    let path = path.as_ref();
    at(path, std::fs::DirBuilder::new().recursive(true).mode(mode).create(path))
}

/// Makes everything that `s` names. Safe to repeat.
pub async fn set_up(s: &SetUp) -> Result<(), VolumeError> {
    for sub in ["", "/volumes", "/plugins", "/containers"] {
        make_dir(format!("{}{sub}", s.pod_dir), 0o750)?;
    }
    make_dir(&s.log_dir, 0o755)?;
    for v in &s.volumes {
        one(v)?;
    }
    Ok(())
}

/// Rewrites volumes whose objects changed.
pub fn refresh(volumes: &[VolumeWork]) -> Result<(), VolumeError> {
    volumes.iter().try_for_each(one)
}

fn one(v: &VolumeWork) -> Result<(), VolumeError> {
    match v {
        VolumeWork::EmptyDir { path, medium, fs_group, .. } => empty_dir(path, medium, *fs_group),
        VolumeWork::HostPath { path, kind, .. } => host_path(path, kind),
        VolumeWork::Files { path, tmpfs, files, fs_group, .. } => {
            make_dir(path, 0o755)?;
            if *tmpfs {
                mount_tmpfs(path, None)?;
            }
            write_atomically(Path::new(path), files, *fs_group)
        }
    }
}

fn empty_dir(path: &str, medium: &Medium, fs_group: Option<i64>) -> Result<(), VolumeError> {
    make_dir(path, 0o777)?;
    match medium {
        Medium::Disk => {}
        Medium::Memory { size } => mount_tmpfs(path, *size)?,
        Medium::HugePages { size } => {
            let options = if size.is_empty() { String::new() } else { format!("pagesize={size}") };
            mount(path, "hugetlbfs", &options)?;
        }
    }
    at(path, std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)))?;
    own(Path::new(path), fs_group, 0o2770 | 0o777)
}

fn own(path: &Path, group: Option<i64>, mode: u32) -> Result<(), VolumeError> {
    let Some(gid) = group.and_then(|g| u32::try_from(g).ok()) else { return Ok(()) };
    at(path, std::os::unix::fs::lchown(path, None, Some(gid)))?;
    at(path, std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
}

fn is_mounted(path: &str) -> bool {
    let p = Path::new(path);
    let dev = |p: &Path| std::fs::metadata(p).map(|m| std::os::unix::fs::MetadataExt::dev(&m)).ok();
    p.parent().is_some_and(|parent| dev(p) != dev(parent))
}

fn mount_tmpfs(path: &str, size: Option<i64>) -> Result<(), VolumeError> {
    let options = size.map(|n| format!("size={n}")).unwrap_or_default();
    mount(path, "tmpfs", &options)
}

fn mount(path: &str, kind: &str, options: &str) -> Result<(), VolumeError> {
    if is_mounted(path) {
        return Ok(());
    }
    let flags = nix::mount::MsFlags::empty();
    let r = nix::mount::mount(Some(kind), path, Some(kind), flags, Some(options));
    at(path, r.map_err(std::io::Error::from))
}

fn host_path(path: &str, kind: &str) -> Result<(), VolumeError> {
    use std::os::unix::fs::FileTypeExt as _;
    let meta = std::fs::metadata(path);
    let wanted = |ok: bool, wanted| if ok { Ok(()) } else { Err(VolumeError::Type { path: path.to_owned(), wanted }) };
    let is = |f: fn(&std::fs::FileType) -> bool| meta.as_ref().is_ok_and(|m| f(&m.file_type()));
    match kind {
        "DirectoryOrCreate" if meta.is_err() => make_dir(path, 0o755),
        "FileOrCreate" if meta.is_err() => {
            let f = at(path, std::fs::File::create(path))?;
            at(path, f.set_permissions(std::fs::Permissions::from_mode(0o644)))
        }
        "DirectoryOrCreate" | "Directory" => wanted(is(std::fs::FileType::is_dir), "a directory"),
        "FileOrCreate" | "File" => wanted(is(std::fs::FileType::is_file), "a file"),
        "Socket" => wanted(is(|t| t.is_socket()), "a socket"),
        "CharDevice" => wanted(is(|t| t.is_char_device()), "a character device"),
        "BlockDevice" => wanted(is(|t| t.is_block_device()), "a block device"),
        _ => Ok(()),
    }
}

/// The layout that readers of configuration volumes rely on: a data directory behind `..data`, switched by
/// one rename, and one link per top-level name (specification of the kubelet, 9.4).
fn write_atomically(dir: &Path, files: &BTreeMap<String, File>, fs_group: Option<i64>) -> Result<(), VolumeError> {
    let data_link = dir.join("..data");
    let current = std::fs::read_link(&data_link).ok().map(|t| dir.join(t));
    if current.as_ref().is_some_and(|c| same(c, files)) {
        return Ok(());
    }
    let now = super::clock::now().wall;
    let stamp = now.rfc3339().replace(['-', ':', 'T'], "_").trim_end_matches('Z').to_owned();
    let fresh = format!("..{stamp}.{:09}", now.0.rem_euclid(crate::time::Wall::SECOND));
    let target = dir.join(&fresh);
    make_dir(&target, 0o755)?;
    for (name, file) in files {
        let path = target.join(name);
        if let Some(parent) = path.parent() {
            make_dir(parent, 0o755)?;
        }
        at(&path, std::fs::write(&path, &file.bytes))?;
        at(&path, std::fs::set_permissions(&path, std::fs::Permissions::from_mode(file.mode)))?;
        own(&path, fs_group, file.mode | 0o440)?;
    }
    own(&target, fs_group, 0o2775)?;
    let beside = dir.join("..data_tmp");
    let _ = std::fs::remove_file(&beside);
    at(&beside, symlink(&fresh, &beside))?;
    at(&data_link, std::fs::rename(&beside, &data_link))?;
    links(dir, files)?;
    if let Some(old) = current {
        let _ = std::fs::remove_dir_all(old);
    }
    Ok(())
}

fn same(data: &Path, files: &BTreeMap<String, File>) -> bool {
    let matches = |(name, f): (&String, &File)| std::fs::read(data.join(name)).is_ok_and(|b| *b == *f.bytes);
    files.iter().all(matches) && count(data) == files.len()
}

fn count(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries.flatten().map(|e| if e.file_type().is_ok_and(|t| t.is_dir()) { count(&e.path()) } else { 1 }).sum()
}

fn links(dir: &Path, files: &BTreeMap<String, File>) -> Result<(), VolumeError> {
    let top = |name: &String| name.split('/').next().unwrap_or_default().to_owned();
    let wanted: std::collections::BTreeSet<String> = files.keys().map(top).collect();
    for name in &wanted {
        let link = dir.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            at(&link, symlink(Path::new("..data").join(name), &link))?;
        }
    }
    for entry in at(dir, std::fs::read_dir(dir))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            at(entry.path(), std::fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

/// What has to exist before a container is made.
pub fn prepare(s: &Start) -> Result<(), VolumeError> {
    make_dir(&s.log_dir, 0o755)?;
    if let Some(h) = &s.hosts {
        let mut text = String::new();
        if h.include_host_file {
            text = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        }
        at(&h.path, std::fs::write(&h.path, h.text.clone() + &text))?;
    }
    if let Some(path) = &s.termination_log {
        if let Some(parent) = Path::new(path).parent() {
            make_dir(parent, 0o750)?;
        }
        let f = at(path, std::fs::File::create(path))?;
        at(path, f.set_permissions(std::fs::Permissions::from_mode(0o666)))?;
    }
    if let Some(p) = s.sub_paths.first() {
        return Err(VolumeError::Refused(format!("subPath {:?} is not supported yet", p.path)));
    }
    Ok(())
}

/// The link that log collectors follow.
pub fn link_log(l: &LogLink, id: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(&l.directory)?;
    let link = Path::new(&l.directory).join(format!("{}-{id}.log", l.prefix));
    let _ = std::fs::remove_file(&link);
    symlink(&l.target, link)
}

pub fn remove_log(path: &str) {
    if !path.is_empty() {
        let _ = std::fs::remove_file(path);
    }
}

/// Takes everything away that `set_up` made.
pub async fn tear_down(t: &TearDown) -> Result<(), VolumeError> {
    for v in &t.volumes {
        let (VolumeWork::EmptyDir { path, .. } | VolumeWork::Files { path, .. }) = v else { continue };
        if is_mounted(path) {
            at(path, nix::mount::umount2(path.as_str(), nix::mount::MntFlags::UMOUNT_NOFOLLOW).map_err(std::io::Error::from))?;
        }
    }
    remove_tree(&t.pod_dir)?;
    if let Some(logs) = &t.logs {
        remove_tree(logs)?;
        let (dir, prefix) = &t.log_links;
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let dangling = !entry.path().exists();
            if dangling && entry.file_name().to_string_lossy().starts_with(prefix.as_str()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
    Ok(())
}

fn remove_tree(dir: &str) -> Result<(), VolumeError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => at(dir, Err(e)),
        _ => Ok(()),
    }
}
