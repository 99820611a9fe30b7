//! Single files that containers are given or leave behind: hosts, termination messages, logs.

use super::{VolumeError, at, make_dir, sub_path};
use crate::work::hosts::HostsFile;
use crate::work::{LogLink, Start};
use std::fs;
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
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
    let mut file = open_hosts(Path::new(&h.path))?;
    let mut have = Vec::with_capacity(text.len() + 1);
    file.read_to_end(&mut have)?;
    if have == text.as_bytes() {
        return Ok(());
    }
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

fn open_hosts(path: &Path) -> std::io::Result<fs::File> {
    let open = || fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    match (open(), path.parent()) {
        (Err(e), Some(parent)) if e.kind() == ErrorKind::NotFound => make_dir(parent, 0o750).and_then(|()| open()),
        (opened, _) => opened,
    }
}

/// An empty file that any user of the container may write. The oldest runs' files go.
fn termination_log(path: &Path) -> std::io::Result<()> {
    let Some(dir) = path.parent() else { return Ok(()) };
    // A directory that is made here holds no older ones.
    let is_new = match fs::DirBuilder::new().mode(0o750).create(dir) {
        Ok(()) => true,
        Err(e) => make_dir(dir, 0o750).map(|()| e.kind() == ErrorKind::NotFound)?,
    };
    let f = fs::OpenOptions::new().write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    f.set_permissions(fs::Permissions::from_mode(0o666))?;
    if is_new {
        return Ok(());
    }
    let mut old: Vec<_> = fs::read_dir(dir)?.flatten().filter(|e| e.path() != path).collect();
    old.sort_by_cached_key(|e| std::cmp::Reverse(e.metadata().and_then(|m| m.modified()).ok()));
    for e in old.into_iter().skip(MESSAGES_KEPT - 1) {
        fs::remove_file(e.path())?;
    }
    Ok(())
}

/// The link that log collectors follow.
pub fn link_log(l: &LogLink, id: &str) -> std::io::Result<()> {
    let link = Path::new(&l.directory).join(format!("{}-{id}.log", l.prefix));
    match symlink(&l.target, &link) {
        Err(e) if e.kind() == ErrorKind::NotFound => fs::create_dir_all(&l.directory)?,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            if fs::read_link(&link).is_ok_and(|t| t == Path::new(&l.target)) {
                return Ok(());
            }
            fs::remove_file(&link)?;
        }
        made => return made,
    }
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
    fn a_hosts_file_is_changed_in_place_and_left_alone_when_it_says_the_same() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod/etc-hosts");
        let write = |text: &str| {
            let path = path.to_str().unwrap().to_owned();
            hosts(&HostsFile { path, include_host_file: false, header: text.into(), aliases: String::new() }).unwrap();
            (fs::read_to_string(dir.path().join("pod/etc-hosts")).unwrap(), fs::metadata(dir.path().join("pod/etc-hosts")).unwrap())
        };
        let (long, first) = write("# a long text\n");
        let (short, second) = write("# short\n");
        assert_eq!((long.as_str(), short.as_str()), ("# a long text\n", "# short\n"));
        assert_eq!((first.ino(), first.permissions().mode() & 0o777), (second.ino(), 0o644));
        let old = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        assert_eq!(write("# short\n").1.modified().unwrap(), old);
    }

    #[test]
    fn a_log_link_is_made_where_it_lacks_and_turned_where_it_leads_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("containers");
        let link = |target: &str| {
            let l = LogLink { directory: directory.to_str().unwrap().into(), prefix: "p_ns_main".into(), target: target.into() };
            link_log(&l, "id").unwrap();
            fs::read_link(directory.join("p_ns_main-id.log")).unwrap().into_os_string().into_string().unwrap()
        };
        assert_eq!(["/a", "/a", "/b"].map(link), ["/a", "/a", "/b"]);
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
