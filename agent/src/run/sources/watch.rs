//! Hears of changes in a directory, or of one file, by inotify.
//!
//! Watches the directory and the one above it, so that it may come, go and be replaced. What exactly
//! happened is not trusted: whoever hears something looks for himself. Only who still writes is
//! remembered, for a half-written manifest may read well and mean something else.

use futures_util::StreamExt as _;
use inotify::{Event, EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long after its last write a file that nobody closes is taken for whole.
const QUIET: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nudge {
    Heard,
    /// It is time to look anyway.
    Due,
}

pub struct Watch {
    path: PathBuf,
    stream: Option<EventStream<[u8; 4096]>>,
    /// The directory's own watch, and that of the one above.
    inner: Option<WatchDescriptor>,
    outer: Option<WatchDescriptor>,
    /// When each file that is open for writing was written last.
    writing: BTreeMap<OsString, Instant>,
    /// Of which files something was heard since that was asked.
    names: BTreeSet<OsString>,
    /// Something was heard that is not about a file of the directory.
    more: bool,
}

impl Watch {
    pub fn new(path: &Path) -> Watch {
        // Without a watch the slow look is all there is.
        let stream = Inotify::init().and_then(|i| i.into_event_stream([0; 4096]));
        if let Err(error) = &stream {
            tracing::warn!(%error, "changes of manifests are noticed late: they cannot be watched (fs.inotify.max_user_instances?)");
        }
        Watch {
            path: path.to_owned(),
            stream: stream.ok(),
            inner: None,
            outer: None,
            writing: BTreeMap::new(),
            names: BTreeSet::new(),
            more: false,
        }
    }

    /// Makes sure that what is there now is watched. False: there is nothing to watch.
    pub fn arm(&mut self) -> bool {
        let Some(stream) = &self.stream else { return false };
        let contents = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF;
        // The same directory twice is the same watch; another in its place is a new one.
        let inner = stream.watches().add(&self.path, contents).ok();
        if inner != self.inner
            && let Some(old) = self.inner.take()
        {
            let _ = stream.watches().remove(old);
            self.writing.clear();
        }
        self.inner = inner;
        let above = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let entries = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE | WatchMask::ONLYDIR;
        let outer = stream.watches().add(above, entries).ok();
        if outer != self.outer
            && let Some(old) = self.outer.take()
        {
            let _ = stream.watches().remove(old);
        }
        self.outer = outer;
        self.inner.is_some()
    }

    /// How long to wait for a file that is being written. `alone`: it is the path itself.
    pub fn being_written(&self, name: &str, alone: bool) -> Option<Duration> {
        let last = self.writing.get(OsStr::new(if alone { "" } else { name }))?;
        (*last + QUIET).checked_duration_since(Instant::now()).filter(|d| !d.is_zero())
    }

    /// Waits until something happened, or `most` is over.
    pub async fn heard(&mut self, most: Duration) -> Nudge {
        let end = Instant::now() + most;
        loop {
            let Some(stream) = &mut self.stream else {
                sleep(most).await;
                return Nudge::Due;
            };
            match tokio::time::timeout_at(end, stream.next()).await {
                Err(_) => return Nudge::Due,
                Ok(None) => self.stream = None,
                Ok(Some(Err(error))) => {
                    tracing::warn!(%error, "the watch of the manifests failed; they are looked at now and then");
                    self.stream = None;
                }
                Ok(Some(Ok(e))) => {
                    if self.take(e) {
                        return Nudge::Heard;
                    }
                }
            }
        }
    }

    /// Takes in what follows at once, until it is quiet or `most` is over.
    pub async fn drain(&mut self, most: Duration) {
        let end = Instant::now() + most;
        while let Some(stream) = &mut self.stream {
            match timeout(end.saturating_duration_since(Instant::now()), stream.next()).await {
                Ok(Some(Ok(e))) => {
                    self.take(e);
                }
                _ => return,
            }
        }
    }

    /// The files of which something was heard since. None: not of files alone.
    pub fn heard_of(&mut self) -> Option<BTreeSet<OsString>> {
        let names = std::mem::take(&mut self.names);
        (!std::mem::take(&mut self.more)).then_some(names)
    }

    /// Whether the event is about us.
    fn take(&mut self, e: Event<OsString>) -> bool {
        if e.mask.contains(EventMask::Q_OVERFLOW) {
            self.writing.clear();
            self.more = true;
            return true;
        }
        if Some(&e.wd) == self.outer.as_ref() && Some(&e.wd) != self.inner.as_ref() {
            self.more |= e.name.as_deref() == self.path.file_name();
            return e.name.as_deref() == self.path.file_name();
        }
        if Some(&e.wd) != self.inner.as_ref() {
            self.more |= e.mask.contains(EventMask::IGNORED);
            return e.mask.contains(EventMask::IGNORED);
        }
        match &e.name {
            Some(name) => drop(self.names.insert(name.clone())),
            None => self.more = true,
        }
        // The events of a single file bear no name.
        let name = e.name.unwrap_or_default();
        if e.mask.contains(EventMask::MODIFY) {
            self.writing.insert(name, Instant::now());
        } else if e.mask.intersects(EventMask::CLOSE_WRITE | EventMask::DELETE | EventMask::MOVED_FROM | EventMask::MOVED_TO) {
            self.writing.remove(&name);
        }
        true
    }
}
