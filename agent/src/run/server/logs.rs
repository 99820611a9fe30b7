//! Reads log files and follows them: over rotations, and over restarts of the container.

use super::{Answer, PodRef, Server, stream};
use crate::api::{Failure, Query};
use crate::log::{self, Printer, Wish};
use crate::node::NodeState;
use crate::plan::Life;
use crate::pod::PodUid;
use crate::run::clock;
use bytes::Bytes;
use futures_util::StreamExt as _;
use inotify::{Inotify, WatchMask};
use longshore_cri::snapshot::ContainerState;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Whatever notifications say, a followed file is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One run of a container and its log.
#[derive(Clone, Debug)]
struct Run {
    uid: PodUid,
    container: String,
    attempt: u32,
    path: Box<str>,
}

/// What became of a run whose log is read to its end.
enum Next {
    /// It goes on, or another run will follow.
    Wait,
    Run(Box<str>, u32),
    Ended,
}

impl Server {
    pub(super) async fn log(self: Rc<Self>, namespace: String, name: String, query: &Query) -> Answer {
        let container = query.get("container").unwrap_or_default().to_owned();
        let wish = Wish::parse(query, clock::now().wall)?;
        // Who asks this node itself wants to go on where the container does.
        self.log_of(PodRef { namespace, name, uid: None }, container, wish, true).await
    }

    /// The log of a container. Over its restarts, or to the end of this run of it.
    pub async fn log_of(self: Rc<Self>, pod: PodRef, container: String, wish: Wish, over_restarts: bool) -> Answer {
        let run = self.ask(move |n, _| run_of(n, &pod, &container, wish.previous)).await??;
        let path = run.path.clone();
        let opened = tokio::task::spawn_blocking(move || open(&path, wish.tail)).await;
        let broken = |e: &dyn std::fmt::Display| Failure::internal(format!("failed to open log file {:?}: {e}", run.path));
        let (file, offset) = opened.map_err(|e| broken(&e))?.map_err(|e| broken(&e))?;
        let (to, from) = mpsc::channel(4);
        let reader = Reader { file: Arc::new(file), offset, rest: Vec::new(), printer: Printer::new(wish.options), to };
        let gone = reader.to.clone();
        let on = over_restarts && !wish.previous;
        tokio::task::spawn_local(async move {
            let read = async { if wish.follow { self.follow_log(reader, run, on).await } else { reader.finish().await } };
            tokio::select! {
                r = read => if let Err(error) = r {
                    tracing::warn!(%error, "a log could not be read to its end");
                },
                () = gone.closed() => {}
            }
        });
        Ok(stream("text/plain; charset=utf-8", from))
    }

    async fn follow_log(&self, mut reader: Reader, mut run: Run, over_restarts: bool) -> io::Result<()> {
        let mut changes = self.changes.subscribe();
        let mut notified = notifications(&run.path);
        loop {
            reader.drain().await?;
            if reader.printer.is_full() {
                return Ok(());
            }
            changes.borrow_and_update();
            match self.next(&run, over_restarts).await {
                Next::Ended => return reader.finish().await,
                Next::Run(path, attempt) => {
                    // What the run before wrote last is there by now.
                    reader.drain().await?;
                    if reader.switch(&path).await? {
                        (run.path, run.attempt) = (path, attempt);
                        continue;
                    }
                }
                Next::Wait => {
                    if reader.rotated(&run.path).await {
                        reader.drain().await?;
                        reader.switch(&run.path).await?;
                        continue;
                    }
                }
            }
            wait(&mut notified, &mut changes).await;
        }
    }

    async fn next(&self, run: &Run, over_restarts: bool) -> Next {
        let run = run.clone();
        self.ask(move |n, _| next_of(n, &run, over_restarts)).await.unwrap_or(Next::Ended)
    }
}

fn run_of(n: &NodeState, pod: &PodRef, container: &str, previous: bool) -> Result<Run, Failure> {
    let (e, name) = (pod.find(n)?, &pod.name);
    let status = e.status.clone().unwrap_or_default();
    let (container, id) = log::choose(&e.desired.pod, &status, container, previous)?;
    let record = e.observed.by_id(&id);
    let gone = || Failure::new(404, "NotFound", format!("the log of container {container:?} in pod {name:?} is gone with its container"));
    let record = record.ok_or_else(gone)?;
    Ok(Run { uid: e.desired.pod.uid(), attempt: record.attempt, path: record.log_path.clone(), container })
}

fn next_of(n: &NodeState, run: &Run, over_restarts: bool) -> Next {
    let Some(e) = n.pods.get(&run.uid) else { return Next::Ended };
    let records: Vec<_> = e.observed.records(&run.container).collect();
    let later = records.iter().rev().find(|r| r.attempt > run.attempt && r.state != ContainerState::Created);
    if over_restarts && let Some(r) = later {
        return Next::Run(r.log_path.clone(), r.attempt);
    }
    let own = records.iter().find(|r| r.attempt == run.attempt);
    let again = |code| {
        let policy = e.desired.pod.spec.restart_policy;
        let spec = e.desired.pod.container(&run.container);
        over_restarts && matches!(e.desired.life, Life::Running) && spec.is_some_and(|(_, c)| c.restarts_after(policy, code))
    };
    match own.map(|r| &r.state) {
        Some(ContainerState::Running { .. } | ContainerState::Created) => Next::Wait,
        Some(ContainerState::Exited(exit)) if again(exit.exit_code) => Next::Wait,
        None if over_restarts && matches!(e.desired.life, Life::Running) && !e.is_over() => Next::Wait,
        _ => Next::Ended,
    }
}

/// A log file under way.
struct Reader {
    file: Arc<File>,
    offset: u64,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
    printer: Printer,
    to: mpsc::Sender<Bytes>,
}

impl Reader {
    /// Sends all whole lines that are there.
    async fn drain(&mut self) -> io::Result<()> {
        while !self.printer.is_full() {
            let (file, offset) = (self.file.clone(), self.offset);
            let read = tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; CHUNK];
                let n = file.read_at(&mut chunk, offset)?;
                chunk.truncate(n);
                io::Result::Ok((chunk, file.metadata()?.len()))
            });
            let (chunk, size) = read.await.map_err(io::Error::other)??;
            if chunk.is_empty() {
                if size < self.offset {
                    // Someone emptied it.
                    self.offset = 0;
                    self.rest.clear();
                    continue;
                }
                return Ok(());
            }
            self.offset += chunk.len() as u64;
            self.rest.extend_from_slice(&chunk);
            let mut out = Vec::new();
            let end = self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
            for line in self.rest[..end].split_inclusive(|b| *b == b'\n') {
                self.printer.add(&line[..line.len() - 1], &mut out);
            }
            self.rest.drain(..end);
            self.send(out).await?;
        }
        Ok(())
    }

    async fn send(&self, out: Vec<u8>) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        self.to.send(out.into()).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Sends the rest, and a last line without its end.
    async fn finish(mut self) -> io::Result<()> {
        self.drain().await?;
        let mut out = Vec::new();
        let rest = std::mem::take(&mut self.rest);
        self.printer.add(&rest, &mut out);
        self.send(out).await
    }

    /// Whether another file is at `path` now.
    async fn rotated(&self, path: &str) -> bool {
        let own = self.file.metadata().map(|m| (m.dev(), m.ino())).ok();
        let there = tokio::fs::symlink_metadata(path).await.map(|m| (m.dev(), m.ino())).ok();
        there.is_some() && there != own
    }

    /// Goes on with the file at `path`; false where there is none yet.
    async fn switch(&mut self, path: &str) -> io::Result<bool> {
        let owned: Box<str> = path.into();
        let opened = tokio::task::spawn_blocking(move || open(&owned, None)).await.map_err(io::Error::other)?;
        let (file, offset) = match opened {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        (self.file, self.offset) = (Arc::new(file), offset);
        self.rest.clear();
        Ok(true)
    }
}

/// Opens a log and finds where its last lines begin. Containers have no say in the name, but links are not followed.
fn open(path: &str, tail: Option<u64>) -> io::Result<(File, u64)> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let offset = tail.map_or(Ok(0), |n| tail_start(&file, n))?;
    Ok((file, offset))
}

/// Where the last `lines` lines begin, read from the end.
fn tail_start(file: &File, lines: u64) -> io::Result<u64> {
    let size = file.metadata()?.len();
    if lines == 0 {
        return Ok(size);
    }
    let mut end = size;
    let mut seen = 0;
    let mut block = vec![0; CHUNK];
    while end > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let part = &mut block[..usize::try_from(end - start).unwrap_or(CHUNK)];
        file.read_exact_at(part, start)?;
        for (i, _) in part.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let after = start + i as u64 + 1;
            // The end of the last line is none that a wanted line follows.
            if after == size {
                continue;
            }
            seen += 1;
            if seen == lines {
                return Ok(after);
            }
        }
        end = start;
    }
    Ok(0)
}

type Notified = Option<inotify::EventStream<Vec<u8>>>;

/// Writes to the container's log files, of this run and of later ones. None: the timer has to do.
fn notifications(path: &str) -> Notified {
    let directory = Path::new(path).parent()?;
    let inotify = Inotify::init().ok()?;
    inotify.watches().add(directory, WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO).ok()?;
    inotify.into_event_stream(vec![0; 4096]).ok()
}

async fn wait(notified: &mut Notified, changes: &mut watch::Receiver<u64>) {
    let written = async {
        let ended = match notified {
            Some(n) => n.next().await.is_none(),
            None => true,
        };
        if ended {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = written => {}
        _ = changes.changed() => {}
        () = tokio::time::sleep(LOOK_EVERY) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut f = File::create(&path).unwrap();
        let long = "x".repeat(CHUNK);
        write!(f, "one\n{long}\nthree\nfour").unwrap();
        let path = path.to_str().unwrap();
        let from = |n| {
            let (f, at) = open(path, n).unwrap();
            let mut text = vec![0; usize::try_from(f.metadata().unwrap().len() - at).unwrap()];
            f.read_exact_at(&mut text, at).unwrap();
            String::from_utf8(text).unwrap()
        };
        assert_eq!(from(Some(0)), "");
        assert_eq!(from(Some(1)), "four");
        writeln!(f).unwrap();
        assert_eq!(from(Some(1)), "four\n");
        assert_eq!(from(Some(2)), "three\nfour\n");
        assert_eq!(from(Some(3)).len(), CHUNK + 12);
        assert_eq!(from(Some(9)), from(None));
    }

    #[test]
    fn a_link_in_the_place_of_a_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("0.log");
        std::os::unix::fs::symlink("/etc/shadow", &link).unwrap();
        assert!(open(link.to_str().unwrap(), None).is_err());
    }
}
