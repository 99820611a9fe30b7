//! Logs of the node: files under the log directory, and the journal where that is allowed to be queried.
//!
//! Containers may write there, when a pod mounts it: no link is followed on the way, and only regular files are read.

use super::{Port, not_found, text};
use crate::api::query::encode;
use crate::api::{Failure, Query};
use crate::port::node_log::NodeLogQuery;
use crate::port::route::Found;
use crate::run::api::{Answer, stream};
use bytes::Bytes;
use hyper::StatusCode;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat, openat2};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

const CHUNK: usize = 64 * 1024;
/// How long a query may take.
const QUERY_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of what the journal complains of.
const COMPLAINT: usize = 4096;

/// What is at a path.
enum Opened {
    File(File),
    /// Names; those of directories end in a slash.
    Directory(Vec<String>),
}

impl Port {
    pub(super) async fn node_logs(self: Rc<Self>, found: Found, query: &Query) -> Answer {
        match NodeLogQuery::parse(query)? {
            Some(_) if !self.config.enable_system_log_query => Err(Failure::new(403, "Forbidden", "Querying logs is not enabled")),
            Some(asked) => match &asked.file {
                Some(name) => self.file(name.split(['/', '\\']).filter(|p| !p.is_empty()).map(str::to_owned).collect()).await,
                None => journal(&asked).await,
            },
            None => self.file(found.rest).await,
        }
    }

    async fn file(&self, parts: Vec<String>) -> Answer {
        let root = self.log_dir.clone();
        let opened = tokio::task::spawn_blocking(move || open(&root, &parts)).await;
        let opened = opened.map_err(|e| Failure::internal(e.to_string()))?;
        match opened {
            Ok(Opened::File(file)) => Ok(send(file)),
            Ok(Opened::Directory(names)) => Ok(listing(&names)),
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENOTDIR) => Err(not_found()),
            Err(e) => Err(Failure::new(403, "Forbidden", format!("403 Forbidden: {e}"))),
        }
    }
}

fn open(root: &Path, parts: &[String]) -> io::Result<Opened> {
    let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = if parts.is_empty() { ".".to_owned() } else { parts.join("/") };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // Without waiting for whoever writes into a pipe.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat2(&root, path, flags, Mode::empty(), resolve)?);
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(Opened::File(file));
    }
    if !kind.is_dir() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&file)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(if entry.file_type() == FileType::Directory { name + "/" } else { name });
        }
    }
    names.sort();
    Ok(Opened::Directory(names))
}

fn listing(names: &[String]) -> hyper::Response<crate::run::api::Reply> {
    let mut page = String::from("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n");
    for name in names {
        let (plain, slash) = name.strip_suffix('/').map_or((name.as_str(), ""), |n| (n, "/"));
        let shown = plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;");
        page += &format!("<a href=\"{}{slash}\">{shown}{slash}</a>\n", encode(plain));
    }
    crate::run::api::with_status(StatusCode::OK, "text/html; charset=utf-8", page + "</pre>\n")
}

/// As long as it was when it was opened: a log may grow faster than it is read.
fn send(mut file: File) -> hyper::Response<crate::run::api::Reply> {
    let (to, from) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let mut left = file.metadata().map_or(0, |m| m.len());
        while left > 0 {
            let mut chunk = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
            let Ok(n) = file.read(&mut chunk) else { return };
            chunk.truncate(n);
            left -= n as u64;
            // The reader may have gone; a file may have become shorter.
            if n == 0 || to.blocking_send(Bytes::from(chunk)).is_err() {
                return;
            }
        }
    });
    stream("text/plain; charset=utf-8", from)
}

/// What journalctl says, which is started without a shell and ended with the client.
async fn journal(asked: &NodeLogQuery) -> Answer {
    let mut command = tokio::process::Command::new("journalctl");
    command.args(asked.arguments()).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| Failure::internal(format!("the journal cannot be asked: journalctl: {e}")))?;
    let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Failure::internal("journalctl has no output"));
    };
    let mut first = vec![0; CHUNK];
    let read = tokio::time::timeout(QUERY_WITHIN, out.read(&mut first)).await;
    let n = read.map_err(|_| Failure::internal("the journal takes too long"))?.map_err(|e| Failure::internal(e.to_string()))?;
    first.truncate(n);
    if n == 0 {
        let mut complaint = Vec::new();
        let _ = tokio::time::timeout(QUERY_WITHIN, (&mut err).take(COMPLAINT as u64).read_to_end(&mut complaint)).await;
        return Ok(text(StatusCode::OK, complaint));
    }
    let (to, from) = mpsc::channel(4);
    tokio::task::spawn_local(async move {
        let pass = async {
            let mut chunk = first;
            while to.send(Bytes::from(chunk)).await.is_ok() {
                chunk = vec![0; CHUNK];
                match out.read(&mut chunk).await {
                    Ok(n) if n > 0 => chunk.truncate(n),
                    _ => return,
                }
            }
        };
        if tokio::time::timeout(QUERY_WITHIN, pass).await.is_err() {
            tracing::warn!("a query of the journal took too long and was cut");
        }
        drop(child);
    });
    Ok(stream("text/plain; charset=utf-8", from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn parts(path: &str) -> Vec<String> {
        path.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect()
    }

    /// A pod that mounts the log directory may put anything there (KHV047).
    #[test]
    fn a_link_in_the_log_directory_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("log");
        std::fs::create_dir_all(logs.join("pods")).unwrap();
        std::fs::write(logs.join("real"), "text").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        symlink("/etc", logs.join("dir")).unwrap();
        symlink("/etc/passwd", logs.join("pods/0.log")).unwrap();
        symlink("../secret", logs.join("up")).unwrap();
        symlink("/proc/self/root", logs.join("magic")).unwrap();
        for path in ["dir/passwd", "dir", "pods/0.log", "up", "magic/etc/passwd", "../secret"] {
            assert!(open(&logs, &parts(path)).is_err(), "{path}");
        }
        let Ok(Opened::File(mut f)) = open(&logs, &parts("real")) else { panic!("no file") };
        let mut text = String::new();
        f.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        let Ok(Opened::Directory(names)) = open(&logs, &[]) else { panic!("no directory") };
        assert_eq!(names, ["dir", "magic", "pods/", "real", "up"]);
    }

    #[test]
    fn a_pipe_in_the_log_directory_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(open(dir.path(), &parts("pipe")).is_err());
    }
}
