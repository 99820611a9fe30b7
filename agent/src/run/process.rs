//! This process as the kernel, the allocator and its supervisor see it: limits, memory, lock, signals.
//!
//! Owns nothing of the node. What cannot be had is told and done without, but for the lock.

use super::event_loop::Question;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

/// The kernel ends a kubelet for memory after everything else on a node but the runtime and system daemons.
const OOM_SCORE_ADJ: &str = "-999";
/// Freed memory goes back to the kernel this often.
const TRIM_EVERY: Duration = Duration::from_secs(60);
/// How often it is looked whether the sources have been read.
const GLANCE: Duration = Duration::from_millis(20);

/// Settings that must stand before the first thread starts.
pub fn tune() {
    // Each arena keeps its own free memory; one thread does nearly all the work.
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a parameter of the allocator, before there are other threads.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

type LevelHandle = reload::Handle<LevelFilter, Registry>;

/// The log is the process's, and so is its level.
static LEVEL: OnceLock<LevelHandle> = OnceLock::new();

/// Begins to log, to standard error.
pub fn log(level: LevelFilter, json: bool) {
    let (filter, handle) = reload::Layer::new(level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let log = tracing_subscriber::registry().with(filter);
    if json {
        log.with(lines.json()).init();
    } else {
        log.with(lines).init();
    }
    // It is only set where nothing was.
    let _ = LEVEL.set(handle);
}

/// Logs more or less from now on, by klog's numbers: 0 to 3 for people, 4 and 5 to find faults, more to see everything.
pub fn set_verbosity(n: u8) -> Result<(), String> {
    let level = match n {
        0..=3 => LevelFilter::INFO,
        4 | 5 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let handle = LEVEL.get().ok_or("the log of this process is not ours")?;
    handle.reload(level).map_err(|e| e.to_string())?;
    tracing::info!(%level, "the log has another level");
    Ok(())
}

/// Raises limits and asks to be spared.
pub fn claim() {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ) {
        tracing::debug!(%error, "the kernel may end this process for memory before others");
    }
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Gives memory back now and then, for ever: a burst of work must not count for days.
pub async fn trim() {
    loop {
        tokio::time::sleep(TRIM_EVERY).await;
        #[cfg(target_env = "gnu")]
        // SAFETY: takes a number and touches only free memory.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("lock {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is in use by another longshore{}; stop that one first, or give this one directories of its own", directory.display(), pid(.holder))]
    Held { directory: PathBuf, holder: String },
}

fn pid(holder: &str) -> String {
    if holder.is_empty() { String::new() } else { format!(" (process {holder})") }
}

/// The name given, or the host's, as a node bears it.
pub fn node_name(given: Option<String>) -> String {
    let host = || nix::unistd::gethostname().ok().and_then(|h| h.into_string().ok()).unwrap_or_else(|| "localhost".into());
    given.unwrap_or_else(host).trim().to_lowercase()
}

/// A program that the daemon before was just starting when it was killed holds the daemon's locks until it becomes
/// that program: a moment.
const INHERITED: Duration = Duration::from_secs(2);

/// A directory that is ours while this lives. The kernel drops the lock with the process, however it ends.
pub struct Lock(#[expect(dead_code, reason = "held, never read")] File);

impl Lock {
    /// Takes the lock `name` in `directory`, which is made with `mode` when absent.
    pub fn take(directory: &Path, name: &str, mode: u32) -> Result<Lock, LockError> {
        let path = directory.join(name);
        let at = |source| LockError::Io { path: path.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(mode).create(directory).map_err(at)?;
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(at)?;
        let since = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(std::fs::TryLockError::Error(source)) => return Err(at(source)),
                Err(std::fs::TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    // What it says is for people; a file that cannot be read says nothing.
                    let _ = file.rewind().and_then(|()| file.read_to_string(&mut holder));
                    let holder = holder.trim().to_owned();
                    let gone = !holder.is_empty() && !Path::new("/proc").join(&holder).exists();
                    if !gone || since.elapsed() > INHERITED {
                        return Err(LockError::Held { directory: directory.to_owned(), holder });
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        file.rewind().and_then(|()| file.set_len(0)).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(at)?;
        Ok(Lock(file))
    }
}

/// Returns when the process is asked to end.
pub async fn asked_to_stop() {
    let mut term = match signal(SignalKind::terminate()) {
        Ok(s) => s,
        Err(error) => {
            tracing::error!(%error, "signals cannot be heard; only a kill will end this process");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = term.recv() => {}
        r = tokio::signal::ctrl_c() => if let Err(error) = r {
            tracing::warn!(%error, "interrupts cannot be heard");
            term.recv().await;
        },
    }
}

/// Tells the supervisor that the daemon is ready once its sources are read and `programmed` is done, and from then on
/// that its loop goes round.
pub async fn report(ask: mpsc::Sender<Question>, programmed: impl Future<Output = ()>) {
    while !answers(&ask, |n| n.sources_ready).await {
        tokio::time::sleep(GLANCE).await;
    }
    programmed.await;
    tell(&[NotifyState::Ready]);
    tracing::info!("ready");
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    loop {
        // The question goes through the loop: an answer is its pulse.
        if matches!(tokio::time::timeout(limit / 2, answers(&ask, |_| true)).await, Ok(true)) {
            tell(&[NotifyState::Watchdog]);
        }
        tokio::time::sleep(limit / 3).await;
    }
}

async fn answers(ask: &mpsc::Sender<Question>, question: fn(&crate::node::NodeState) -> bool) -> bool {
    let (to, from) = tokio::sync::oneshot::channel();
    let asked: Question = Box::new(move |n, _| {
        // Whoever asked may have given up.
        let _ = to.send(question(n));
    });
    ask.send(asked).await.is_ok() && from.await.unwrap_or(false)
}

/// A supervisor that is not there is fine.
pub fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the supervisor does not listen");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_learns_who_holds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let held = Lock::take(dir.path(), "lock", 0o700).unwrap();
        let error = Lock::take(dir.path(), "lock", 0o700).err().unwrap().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        drop(held);
        assert!(Lock::take(dir.path(), "lock", 0o700).is_ok());
    }
}
