//! The manifests directory: reads it, watches it, and tells what changed.
//!
//! Owns the watch and the copies of the files that were good last (`manifests/` in the state directory);
//! what follows from the files is decided by `manifest::store`. Must never act on a file that is still
//! being written, nor before the record of identities is on disk. Tests: `agent/tests/manifests_dir.rs`.

use super::door::Wish;
use super::files::{self, Listing, Stamp};
use super::ready::Ready;
use super::record::RecordFile;
use super::replace;
use super::watch::{Nudge, Watch};
use crate::api::resource::Id;
use crate::api::store::Name;
use crate::manifest::store::{Diff, Settled, Store};
use crate::manifest::{self, Contents, Key, Kind, Problem, Rules};
use crate::node::Event;
use crate::pod::Referent;
use crate::run::api::Show;
use crate::run::clock;
use longshore_dataplane::wire::{EndpointSlice, Service};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Under the watch: how often everything is looked at even if nothing was heard.
const SLOW: Duration = Duration::from_secs(20);
/// How often to look for a directory that is not there.
const ABSENT: Duration = Duration::from_secs(1);
/// A burst of changes is one change. Every pod waits for this, so it is short: a burst that lasts longer is taken in
/// several looks, each of which reads only what changed.
const COALESCE: Duration = Duration::from_millis(3);
/// An editor that renames away and writes anew is no removal.
const FILE_GONE: Duration = Duration::from_millis(250);
/// Nor is a directory that is being replaced.
const DIR_GONE: Duration = Duration::from_secs(2);
/// Texts beyond this are parsed on a thread of their own, in bytes.
const LARGE: usize = 1 << 20;

/// A source of objects: a directory, or a single file.
pub struct Manifests {
    pub(super) path: PathBuf,
    pub(super) rules: Rules,
    record: RecordFile,
    copies_dir: PathBuf,
    pub(super) store: Store,
    /// As each file was when it was read last.
    pub(super) stamps: BTreeMap<String, Stamp>,
    /// Since when each file is missing.
    missing: BTreeMap<String, Instant>,
    /// Texts read in this round, for the copies.
    pub(super) fresh: BTreeMap<String, String>,
    /// Digests of the copies.
    copies: BTreeMap<String, [u8; 32]>,
    /// Those of the directory itself.
    directory: Vec<Problem>,
    problems: Problems,
    /// The directory was looked at once.
    begun: bool,
    /// The record was written since it was last brought to the disk.
    unsynced: bool,
}

/// What is wrong with the directory at present, shared with whoever shows it.
#[derive(Clone, Debug, Default)]
pub struct Problems(Rc<RefCell<Vec<Problem>>>);

impl Problems {
    /// In order of files and documents.
    pub fn list(&self) -> Vec<Problem> {
        self.0.borrow().clone()
    }
}

/// Takes the services and slices of the directory, whole.
pub type SetServices = Box<dyn Fn(Vec<Arc<Service>>, Vec<Arc<EndpointSlice>>)>;

/// Who is told of changes.
pub struct Tell {
    pub to: mpsc::Sender<Event>,
    pub set_services: SetServices,
    /// The API, where there is one.
    pub show: Option<Rc<Show>>,
    pub ready: Ready,
}

impl Tell {
    pub(super) async fn event(&self, e: Event) {
        // Without a node nobody needs to know.
        let _ = self.to.send(e).await;
    }

    pub(super) fn own(&self, id: Id, name: &Name, owned: Map<String, Value>) {
        if let Some(show) = &self.show {
            show.own(id, name, owned);
        }
    }

    pub(super) fn gone(&self, key: &Key) {
        if let Some(show) = &self.show {
            show.gone(key.kind.id(), &key.namespace, &key.name);
        }
    }
}

impl Manifests {
    /// Reads what the process before left in the state directory.
    pub fn new(path: PathBuf, state_dir: &Path, rules: Rules) -> Manifests {
        let (record, known) = RecordFile::open(&state_dir.join("objects.jsonl"));
        let copies_dir = state_dir.join("manifests");
        let mut out = Manifests {
            store: Store::new(known),
            path,
            rules,
            record,
            copies_dir,
            stamps: BTreeMap::new(),
            missing: BTreeMap::new(),
            fresh: BTreeMap::new(),
            copies: BTreeMap::new(),
            directory: Vec::new(),
            problems: Problems::default(),
            begun: false,
            unsynced: false,
        };
        out.prime();
        out
    }

    pub fn problems(&self) -> Problems {
        self.problems.clone()
    }

    fn prime(&mut self) {
        if let Err(error) = files::private_dir(&self.copies_dir) {
            tracing::warn!(path = %self.copies_dir.display(), %error, "no copies of good manifests can be kept");
        }
        let Ok(listing) = files::list(&self.copies_dir) else { return };
        for name in listing.files.into_keys() {
            match files::text(&self.copies_dir.join(&name)) {
                Ok(text) => {
                    self.copies.insert(name.clone(), Sha256::digest(&text).into());
                    let contents = manifest::read(&name, &text, &self.rules);
                    self.store.prime(&name, contents);
                }
                Err(error) => tracing::warn!(file = %name, %error, "the copy of a good manifest cannot be read"),
            }
        }
    }

    /// Watches until the receiver goes away.
    pub async fn run(mut self, tell: Tell, mut wishes: mpsc::Receiver<Wish>) {
        let directory = if self.path.is_file() { self.path.parent() } else { Some(&*self.path) };
        replace::recover(directory.unwrap_or(Path::new(".")));
        let mut watch = Watch::new(&self.path);
        self.tell_owned(&tell);
        let mut due = self.look_at_all(&mut watch, &tell).await;
        tell.ready.clone().told().await;
        while !tell.to.is_closed() {
            let heard = tokio::select! {
                () = tell.to.closed() => return,
                n = watch.heard(due.saturating_duration_since(Instant::now())) => n,
                Some(wish) = wishes.recv() => {
                    self.grant(wish, &tell).await;
                    while let Ok(wish) = wishes.try_recv() {
                        self.grant(wish, &tell).await;
                    }
                    self.conserve().await;
                    continue;
                }
            };
            if heard == Nudge::Heard {
                watch.drain(COALESCE).await;
                // What this daemon wrote itself is no news, and a directory may hold thousands of files.
                if watch.heard_of().is_some_and(|names| names.iter().all(|n| self.is_as_known(n))) {
                    continue;
                }
            }
            due = self.look_at_all(&mut watch, &tell).await;
        }
    }

    /// Reads what changed, and tells. When to look again, if nothing is heard before.
    async fn look_at_all(&mut self, watch: &mut Watch, tell: &Tell) -> Instant {
        let there = watch.arm();
        let busy = self.scan(Some(watch)).await;
        self.conclude(tell).await;
        self.conserve().await;
        let idle = if there { SLOW } else { ABSENT };
        Instant::now() + busy.unwrap_or(idle)
    }

    /// Nobody waits for the disk.
    async fn conserve(&mut self) {
        self.copy();
        self.sync().await;
    }

    /// Whether a file is as it was when it was read or written last, or is one that only an API write has beside it.
    fn is_as_known(&self, name: &OsStr) -> bool {
        let Some(name) = name.to_str() else { return false };
        if replace::is_beside(name) {
            return true;
        }
        files::is_manifest(name)
            && !self.missing.contains_key(name)
            && self.stamps.get(name) == files::stamp_of(&self.path.join(name), false).as_ref()
    }

    /// What the server owned before the daemon started.
    fn tell_owned(&self, tell: &Tell) {
        for (key, owned) in self.store.all_owned() {
            tell.own(key.kind.id(), &Name::new(&key.namespace, &key.name), owned.clone());
        }
    }

    /// Reads what changed, and tells.
    pub(super) async fn look(&mut self, tell: &Tell) {
        self.scan(None).await;
        self.conclude(tell).await;
    }

    pub(super) async fn conclude(&mut self, tell: &Tell) {
        let settled = self.settle();
        self.tell(settled, tell).await;
    }

    /// Reads what changed. Some: something is under way; look again then.
    async fn scan(&mut self, watch: Option<&Watch>) -> Option<Duration> {
        self.directory.clear();
        let listing = match files::list(&self.path) {
            Ok(l) => l,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Listing::default(),
            Err(e) => {
                // Whatever it was, it is no reason to end what runs.
                let message = format!("cannot be read: {e}; what it held goes on");
                self.directory.push(Problem { file: self.path.display().to_string(), message, ..Problem::default() });
                return None;
            }
        };
        let mut busy = self.missing(&listing);
        for (name, stamp) in listing.files {
            if let Some(wait) = watch.and_then(|w| w.being_written(&name, stamp.alone)) {
                busy.push(wait);
            } else if self.stamps.get(&name) != Some(&stamp) {
                self.read(&name, stamp).await;
            }
        }
        self.begun = true;
        busy.into_iter().min()
    }

    /// Drops the files that are gone for good; says how long to wait for the others.
    fn missing(&mut self, listing: &Listing) -> Vec<Duration> {
        self.missing.retain(|n, _| !listing.files.contains_key(n));
        let grace = match () {
            // What went before the daemon started is not to be started once more.
            () if !self.begun => Duration::ZERO,
            () if self.path.exists() => FILE_GONE,
            () => DIR_GONE,
        };
        let gone: Vec<String> = self.store.files().filter(|n| !listing.files.contains_key(*n)).map(str::to_owned).collect();
        let mut busy = Vec::new();
        for name in gone {
            let since = *self.missing.entry(name.clone()).or_insert_with(Instant::now);
            let wait = grace.saturating_sub(since.elapsed());
            if wait.is_zero() {
                self.missing.remove(&name);
                self.store.remove_file(&name);
                self.stamps.remove(&name);
            } else {
                busy.push(wait);
            }
        }
        busy
    }

    async fn read(&mut self, name: &str, stamp: Stamp) {
        let path = if stamp.alone { self.path.clone() } else { self.path.join(name) };
        match files::text(&path) {
            Ok(text) => {
                let (contents, text) = self.parse(name, text).await;
                self.store.set_file(name, contents);
                self.stamps.insert(name.to_owned(), stamp);
                self.fresh.insert(name.to_owned(), text);
            }
            Err(e) => {
                self.store.set_unreadable(name, &e.to_string());
                self.stamps.remove(name);
            }
        }
    }

    async fn parse(&self, name: &str, text: String) -> (Contents, String) {
        if text.len() <= LARGE {
            return (manifest::read(name, &text, &self.rules), text);
        }
        let (file, rules) = (name.to_owned(), self.rules.clone());
        let job = tokio::task::spawn_blocking(move || (manifest::read(&file, &text, &rules), text));
        job.await.expect("parsing does not panic")
    }

    /// Writes down what must survive, and says what is new.
    fn settle(&mut self) -> Settled {
        let settled = self.store.settle(clock::now().wall, self.directory.clone());
        *self.problems.0.borrow_mut() = self.store.problems().to_vec();
        if !settled.record.is_empty() || self.record.is_behind() {
            if let Err(error) = self.record.write(&settled.record, self.store.record()) {
                tracing::error!(%error, "the record of objects could not be written; pods may get other uids after a restart");
            }
            self.unsynced = true;
        }
        for p in &settled.new_problems {
            tracing::error!("{p}");
        }
        for file in &settled.mended {
            tracing::info!(%file, "the file has no problem any more");
        }
        settled
    }

    /// Brings the record to the disk. A crash of the daemon needs no more than the file; this is for the machine's.
    async fn sync(&mut self) {
        if !std::mem::take(&mut self.unsynced) {
            return;
        }
        let record = self.record.path().to_owned();
        let synced = tokio::task::spawn_blocking(move || std::fs::File::open(record).and_then(|f| f.sync_all())).await;
        if let Ok(Err(error)) = synced {
            tracing::warn!(%error, "the record of objects may not survive a power failure");
        }
    }

    /// Keeps the files that are good, for a start that finds them broken.
    fn copy(&mut self) {
        for (name, text) in std::mem::take(&mut self.fresh) {
            let digest: [u8; 32] = Sha256::digest(&text).into();
            if !self.store.is_good(&name) || self.copies.get(&name) == Some(&digest) {
                continue;
            }
            match files::write_private(&self.copies_dir.join(&name), text.as_bytes()) {
                Ok(()) => {
                    self.copies.insert(name, digest);
                }
                Err(error) => tracing::warn!(file = %name, %error, "no copy of a good manifest could be kept"),
            }
        }
        let gone: Vec<String> = self.copies.keys().filter(|n| !self.store.has_file(n)).cloned().collect();
        for name in gone {
            self.copies.remove(&name);
            let _ = std::fs::remove_file(self.copies_dir.join(&name));
        }
    }

    async fn tell(&self, settled: Settled, tell: &Tell) {
        let Diff { set_configs, remove_configs, services, set_pods, remove_pods, shown, gone } = settled.diff;
        if let Some(show) = &tell.show {
            for object in shown {
                let (version, kind) = (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default());
                if let Some(id) = Id::of_kind(version, kind) {
                    show.set(id, object);
                }
            }
            // Pods and services go when whoever runs them says so.
            for key in gone.iter().filter(|k| matches!(k.kind, Kind::ConfigMap | Kind::Secret | Kind::Other(_))) {
                tell.gone(key);
            }
        }
        let referent = |k: Kind| if k == Kind::Secret { Referent::Secret } else { Referent::ConfigMap };
        let mut events: Vec<Event> = Vec::new();
        events.extend(set_configs.into_iter().map(|(k, data)| Event::SetConfig {
            kind: referent(k.kind),
            namespace: k.namespace,
            name: k.name,
            data,
        }));
        events.extend(remove_configs.into_iter().map(|k| Event::RemoveConfig {
            kind: referent(k.kind),
            namespace: k.namespace,
            name: k.name,
        }));
        // Before the pods: their environments announce the services.
        if let Some((services, slices)) = services {
            (tell.set_services)(services, slices);
        }
        events.extend(set_pods.into_iter().map(Event::SetPod));
        events.extend(remove_pods.into_iter().map(Event::RemovePod));
        events.extend(settled.new_problems.iter().map(invalid));
        for e in events {
            tell.event(e).await;
        }
    }
}

/// The event about an object that its file does not let be, or about a file that cannot be read as objects.
fn invalid(p: &Problem) -> Event {
    let object = p.object.split_once(' ').and_then(|(kind, rest)| Some((kind, rest.split_once('/')?)));
    let (kind, (namespace, name)) = object.unwrap_or_default();
    // The object is the event's own.
    let object = if kind.is_empty() { p.object.clone() } else { String::new() };
    let message = Problem { object, ..p.clone() }.to_string();
    Event::Invalid { kind: kind.into(), namespace: namespace.into(), name: name.into(), message }
}
