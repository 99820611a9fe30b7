//! Exits of containers, seen at once, on runtimes that tell nothing: a pidfd on each container's
//! first process.
//!
//! Owns the pidfds. Must never signal a process, nor take an exit for the runtime's word: the
//! runtime learns of it a moment later, so [`Client::await_exit`] comes between an exit reported
//! here and the next observation. Tests: below, and the `cri-tour` example against a real runtime.

use std::collections::HashMap;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::client::Client;
use crate::error::Error;
use crate::snapshot::ContainerState;

/// Between two questions whether an exit is known; a question costs the runtime a fraction of a
/// millisecond.
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// A process that started this much after its container cannot be the container's own.
const START_SLACK_NS: i64 = 1_000_000_000;

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("watching process {pid} of container {container}: {source}")]
    Open { container: Box<str>, pid: i32, source: io::Error },
}

/// Whether an exit will be reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    Watching,
    /// The process is no longer there, or its number belongs to another by now. Nothing will be
    /// reported: observe the pod again.
    Gone,
}

/// Reports the ids of containers whose first process ended. Dropping it ends all watches.
#[derive(Debug)]
pub struct ExitWatch {
    exited: mpsc::Sender<Box<str>>,
    watches: HashMap<Box<str>, (i32, AbortHandle)>,
}

impl ExitWatch {
    pub fn new(exited: mpsc::Sender<Box<str>>) -> Self {
        ExitWatch { exited, watches: HashMap::new() }
    }

    /// Watches the first process of a container that started at `started_at` (nanoseconds since
    /// the epoch). Asking again for the same process changes nothing. Must be called inside a
    /// tokio runtime.
    pub fn watch(&mut self, container: &str, pid: i32, started_at: i64) -> Result<Watch, WatchError> {
        if let Some((known, task)) = self.watches.get(container) {
            if *known == pid && !task.is_finished() {
                return Ok(Watch::Watching);
            }
            task.abort();
        }
        self.watches.remove(container);
        let fail = |source| WatchError::Open { container: container.into(), pid, source };
        let Some(process) = open(pid).map_err(fail)? else { return Ok(Watch::Gone) };
        // The handle is held by now: what /proc says is about the process behind it, or about
        // none. A number that was given to another process before that is told here.
        if !is_first_process(container, pid, started_at) {
            return Ok(Watch::Gone);
        }
        // SAFETY: the AsyncFd owns the descriptor, and an OwnedFd names the same open file for life.
        let process = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }.map_err(|e| fail(e.into()))?;
        let (exited, id) = (self.exited.clone(), Box::<str>::from(container));
        let task = tokio::spawn(async move {
            // An error means that the tokio runtime is going away.
            if process.readable().await.is_ok() {
                // Without a receiver nobody wants to know.
                let _ = exited.send(id).await;
            }
        });
        self.watches.insert(container.into(), (pid, task.abort_handle()));
        Ok(Watch::Watching)
    }

    /// Stops watching a container.
    pub fn forget(&mut self, container: &str) {
        if let Some((_, task)) = self.watches.remove(container) {
            task.abort();
        }
    }

    /// Drops the watches that have reported.
    pub fn prune(&mut self) {
        self.watches.retain(|_, (_, task)| !task.is_finished());
    }

    /// Watches that have not reported yet.
    pub fn len(&self) -> usize {
        self.watches.values().filter(|(_, task)| !task.is_finished()).count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for ExitWatch {
    fn drop(&mut self) {
        for (_, task) in self.watches.values() {
            task.abort();
        }
    }
}

impl Client {
    /// Waits until the runtime itself knows that a container ended, which takes it some
    /// milliseconds after the process is gone. False if it still says otherwise after `limit`.
    pub async fn await_exit(&self, container_id: &str, limit: Duration) -> Result<bool, Error> {
        let asked = async {
            let mut pause = Duration::from_millis(1);
            loop {
                match self.container_status(container_id, "", false).await {
                    Ok(Some(c)) if matches!(c.state, ContainerState::Running { .. }) => {}
                    Err(e) if !e.is_not_found() => return Err(e),
                    _ => return Ok(true),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        };
        tokio::time::timeout(limit, asked).await.unwrap_or(Ok(false))
    }
}

/// `None` if there is no such process.
fn open(pid: i32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: pidfd_open takes a number and flags and touches no memory of ours. pidfds are
    // close-on-exec from birth.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, libc::PIDFD_NONBLOCK) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) };
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// A container's cgroup bears its id with every usual runtime; where it does not (machines in
/// machines), a process that started with the container is good enough.
fn is_first_process(container: &str, pid: i32, started_at: i64) -> bool {
    let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    if read("cgroup").is_some_and(|text| text.contains(container)) {
        return true;
    }
    let ticks = read("stat").and_then(|text| start_ticks(&text));
    ticks.is_some_and(|t| boot_ns() + t * tick_ns() <= started_at + START_SLACK_NS)
}

/// The 22nd field of /proc/PID/stat. The second is a name that may hold anything.
fn start_ticks(stat: &str) -> Option<i64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn tick_ns() -> i64 {
    // SAFETY: sysconf only returns a number.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    1_000_000_000 / per_second.max(1)
}

/// When the machine started, in nanoseconds since the epoch by today's clock.
fn boot_ns() -> i64 {
    let read = |clock| {
        let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `t` is a valid place for one timespec.
        unsafe { libc::clock_gettime(clock, &raw mut t) };
        t.tv_sec * 1_000_000_000 + t.tv_nsec
    };
    read(libc::CLOCK_REALTIME) - read(libc::CLOCK_BOOTTIME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn now() -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        i64::try_from(since.expect("after 1970").as_nanos()).expect("before 2262")
    }

    /// No part of any group's name: the ids of a runtime are as long, and whoever runs these tests may be in a container.
    const ID: &str = "a container that is nowhere";

    fn cat() -> Child {
        Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat exists")
    }

    fn pid(child: &Child) -> i32 {
        i32::try_from(child.id()).expect("pids are small")
    }

    #[tokio::test]
    async fn an_exit_is_reported_at_once_and_once() {
        let (to, mut exits) = mpsc::channel(4);
        let mut watch = ExitWatch::new(to);
        let mut child = cat();
        for _ in 0..2 {
            let w = watch.watch(ID, pid(&child), now()).expect("pidfds exist");
            assert_eq!(w, Watch::Watching);
        }
        assert_eq!(watch.len(), 1);
        drop(child.stdin.take());
        let exit = tokio::time::timeout(Duration::from_secs(10), exits.recv()).await;
        assert_eq!(exit.expect("in time").as_deref(), Some(ID));
        child.wait().expect("our child");
        assert!(exits.try_recv().is_err());
        watch.prune();
        assert!(watch.is_empty());
    }

    #[tokio::test]
    async fn a_process_that_is_gone_is_not_watched() {
        let mut watch = ExitWatch::new(mpsc::channel(1).0);
        let mut child = cat();
        drop(child.stdin.take());
        child.wait().expect("our child");
        assert_eq!(watch.watch(ID, pid(&child), now()).expect("no error"), Watch::Gone);
    }

    #[tokio::test]
    async fn a_number_given_to_another_process_is_told_by_its_start() {
        let mut watch = ExitWatch::new(mpsc::channel(1).0);
        let mut child = cat();
        let long_ago = now() - 3_600_000_000_000;
        assert_eq!(watch.watch(ID, pid(&child), long_ago).expect("no error"), Watch::Gone);
        drop(child.stdin.take());
        child.wait().expect("our child");
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        let after = (3..=30).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(start_ticks(&format!("1 (a) b) (c) {after}")), Some(22));
        assert_eq!(start_ticks("1 (short) S 1"), None);
    }
}
