//! Single files that containers are given or leave behind: hosts, termination messages, logs.

use super::{VolumeError, at, make_dir, sub_path};
use crate::work::hosts::HostsFile;
use crate::work::{LogLink, Start};
use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::Path;

/// Termination messages that are kept per container: of this run, of the one before, and one to spare for
/// a reader that looks just now.
const MESSAGES_KEPT: usize = 3;

/// What has to exist before a container is made.
pub fn prepare(s: &Start) -> Result<(), VolumeError> {
    at(&s.log_dir, make_dir(Path::new(&s.log_dir), 0o755))?;
    if let Some(h) = &s.hosts {
        at(&h.path, hosts(h))?;
    }
    if let Some(path) = &s.termination_log {
        at(path, termination_log(Path::new(path)))?;
    }
    s.sub_paths.iter().try_for_each(|p| sub_path::bind(&s.name, p))
}

/// Written in place, because running containers hold this very file; left alone when it says the same.
fn hosts(h: &HostsFile) -> std::io::Result<()> {
    let node = if h.include_host_file { fs::read_to_string("/etc/hosts").unwrap_or_default() } else { String::new() };
    let text = h.text(&node);
    if fs::read(&h.path).is_ok_and(|have| have == text.as_bytes()) {
        return Ok(());
    }
    if let Some(parent) = Path::new(&h.path).parent() {
        make_dir(parent, 0o750)?;
    }
    fs::write(&h.path, text)?;
    fs::set_permissions(&h.path, fs::Permissions::from_mode(0o644))
}

/// An empty file that any user of the container may write. The oldest runs' files go.
fn termination_log(path: &Path) -> std::io::Result<()> {
    let Some(dir) = path.parent() else { return Ok(()) };
    make_dir(dir, 0o750)?;
    let f = fs::OpenOptions::new().write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    f.set_permissions(fs::Permissions::from_mode(0o666))?;
    let mut old: Vec<_> = fs::read_dir(dir)?.flatten().filter(|e| e.path() != path).collect();
    old.sort_by_cached_key(|e| std::cmp::Reverse(e.metadata().and_then(|m| m.modified()).ok()));
    for e in old.into_iter().skip(MESSAGES_KEPT - 1) {
        fs::remove_file(e.path())?;
    }
    Ok(())
}

/// The link that log collectors follow.
pub fn link_log(l: &LogLink, id: &str) -> std::io::Result<()> {
    fs::create_dir_all(&l.directory)?;
    let link = Path::new(&l.directory).join(format!("{}-{id}.log", l.prefix));
    if fs::read_link(&link).is_ok_and(|t| t == Path::new(&l.target)) {
        return Ok(());
    }
    let _ = fs::remove_file(&link);
    symlink(&l.target, link)
}

/// Removes a container's log and what rotation made of it. The names are the runtime's and ours; a
/// container cannot write beside them.
pub fn remove_log(path: &str) {
    let path = Path::new(path);
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else { return };
    let rotated = format!("{name}.");
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let found = entry.file_name();
        if found == name || found.to_str().is_some_and(|n| n.starts_with(&rotated)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut n: Vec<String> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        n.sort();
        n
    }

    #[test]
    fn a_log_goes_with_its_rotated_parts_and_not_with_its_neighbours() {
        let dir = tempfile::tempdir().unwrap();
        for n in ["1.log", "1.log.20260101-000000", "1.log.20260101-000000.gz", "11.log", "2.log"] {
            fs::write(dir.path().join(n), "").unwrap();
        }
        remove_log(dir.path().join("1.log").to_str().unwrap());
        assert_eq!(names(dir.path()), ["11.log", "2.log"]);
        remove_log("");
    }

    #[test]
    fn a_message_file_is_anybodys_to_write_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        for attempt in 0..5 {
            let path = dir.path().join(format!("main/{attempt:08x}"));
            termination_log(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
            // Times of files are as coarse as the kernel's clock tick.
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(attempt);
            fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        }
        assert_eq!(names(&dir.path().join("main")), ["00000002", "00000003", "00000004"]);
    }

    #[test]
    fn the_nodes_hosts_stand_between_the_header_and_the_aliases() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod/etc-hosts").to_str().unwrap().to_owned();
        let h = HostsFile { path: path.clone(), include_host_file: true, header: "# first\n".into(), aliases: "# last\n".into() };
        hosts(&h).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# first\n") && text.ends_with("# last\n"), "{text}");
        assert!(text.contains(&fs::read_to_string("/etc/hosts").unwrap()));
    }
}
