//! The directory as it stands: which file holds which object, what was good last, who has which uid.
//!
//! Owns the last good version of every object and the record of identities (`objects.jsonl`). A file
//! with a fault keeps the objects it had; of two objects of one name the one in the first file counts.
//! Must never do I/O: contents come in, a `Settled` goes out. After a crash it is primed with the copies
//! of the files that were good last, and the record. Tests: `tests/store.rs`.

use super::change::{self, Change};
use super::{Contents, Key, Kind, Object, Problem, endpoints};
use crate::api::write;
use crate::pod::{ConfigData, Meta, Pod, PodUid};
use crate::time::Wall;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use longshore_dataplane::wire::{EndpointSlice, ObjectMeta, Service};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many removed objects are remembered, so that one that comes back is known to be another.
const REMEMBERED: usize = 1000;
/// How many forms of one pod are remembered.
const FORMS: usize = 32;

/// What the server owns of one object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    pub uid: String,
    pub created: Wall,
    /// Pods only: counts changes of the spec from 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: i64,
    /// Digests of `change`; pods only.
    #[serde(skip_serializing_if = "String::is_empty")]
    fixed: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    spec: String,
    /// How often each form was begun anew, by digest; absent: once.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    incarnations: BTreeMap<String, u32>,
    /// What else the server owns: `managedFields`, the status of what is no pod, a deletion that waits for finalizers.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub owned: Map<String, Value>,
    /// Set: it is gone, and only its uids are remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<Wall>,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// Identities by `Pod default/web`: the content of `objects.jsonl`.
pub type Record = BTreeMap<String, Identity>;

/// Identities that changed, and those that are forgotten.
pub type RecordChanges = BTreeMap<String, Option<Identity>>;

/// One object, shared with whoever was told of it.
#[derive(Clone, Debug, PartialEq)]
enum Stored {
    Pod(Arc<Pod>),
    Service(Arc<Service>),
    Slice(Arc<EndpointSlice>),
    Config(Arc<ConfigData>, Arc<Meta>),
    Other(Arc<Value>),
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<Key, Stored>,
    problems: Vec<Problem>,
}

#[derive(Debug, Default)]
pub struct Store {
    record: Record,
    files: BTreeMap<String, File>,
    /// One for each key, with its identity.
    live: BTreeMap<Key, Stored>,
    /// What the node was told.
    told: BTreeMap<Key, Stored>,
    told_services: bool,
    problems: Vec<Problem>,
    /// Of objects that stand in several files.
    duplicates: BTreeMap<Key, Vec<Problem>>,
    /// Those of the directory itself, as they were told last.
    more: Vec<Problem>,
    /// Something was taken in since the last conclusions.
    dirty: bool,
    /// Objects of the files that were taken in since: conclusions about all others stand.
    touched: BTreeSet<Key>,
    /// What was gone when the daemon started is marked.
    buried: bool,
    /// Whose identity changed since that was handed out.
    unwritten: BTreeSet<String>,
}

/// Services and slices, whole.
pub type Services = (Vec<Arc<Service>>, Vec<Arc<EndpointSlice>>);

/// What is to be told, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diff {
    pub set_configs: Vec<(Key, Arc<ConfigData>)>,
    pub remove_configs: Vec<Key>,
    /// All services and slices, when any changed.
    pub services: Option<Services>,
    /// What the API shows of objects that no other part of the node shows.
    pub shown: Vec<Value>,
    /// Objects that are gone, and who they were.
    pub gone: Vec<Key>,
    /// New ones, and ones that change under their uid.
    pub set_pods: Vec<Arc<Pod>>,
    pub remove_pods: Vec<PodUid>,
}

/// What follows from what the files hold now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settled {
    /// To be written down before anything else is done.
    pub record: RecordChanges,
    pub diff: Diff,
    /// Those that were not there before.
    pub new_problems: Vec<Problem>,
    /// Files that have no problem any more.
    pub mended: BTreeSet<String>,
}

impl Store {
    pub fn new(record: Record) -> Store {
        Store { record, dirty: true, ..Store::default() }
    }

    /// What was good last, from before the daemon started; in order of names.
    pub fn prime(&mut self, file: &str, contents: Contents) {
        self.set_file(file, Contents { problems: Vec::new(), ..contents });
        for (key, object) in &self.files[file].objects {
            self.live.entry(key.clone()).or_insert_with(|| object.clone());
        }
    }

    /// A file was read. While it has problems, what it held before and holds no more stays.
    pub fn set_file(&mut self, name: &str, contents: Contents) {
        self.dirty = true;
        let old = self.files.remove(name).unwrap_or_default();
        self.touched.extend(old.objects.keys().cloned());
        let mut file = File { objects: BTreeMap::new(), problems: contents.problems };
        let broken = !file.problems.is_empty();
        for o in contents.objects {
            let key = o.key();
            if file.objects.contains_key(&key) {
                file.problems.push(about(name, &key, "it stands twice in this file; the first counts"));
                continue;
            }
            let mut new = stored(o);
            if let Some(was) = old.objects.get(&key)
                && let Some(why) = unchangeable(was, &new)
            {
                file.problems.push(about(name, &key, why));
                new = was.clone();
            }
            file.objects.insert(key, new);
        }
        if broken {
            for (key, o) in old.objects {
                file.objects.entry(key).or_insert(o);
            }
        }
        self.touched.extend(file.objects.keys().cloned());
        self.files.insert(name.to_owned(), file);
    }

    /// A file is there and cannot be read: what it held stays.
    pub fn set_unreadable(&mut self, name: &str, why: &str) {
        self.dirty = true;
        let file = self.files.entry(name.to_owned()).or_default();
        file.problems = vec![Problem { file: name.to_owned(), message: why.to_owned(), ..Problem::default() }];
    }

    pub fn remove_file(&mut self, name: &str) {
        let Some(file) = self.files.remove(name) else { return };
        self.dirty = true;
        self.touched.extend(file.objects.into_keys());
    }

    /// Whether all that the file holds was taken.
    pub fn is_good(&self, name: &str) -> bool {
        self.files.get(name).is_some_and(|f| f.problems.is_empty())
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    pub fn has_file(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// All problems there are, by file and document.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Which file holds the object that counts.
    pub fn file_of(&self, key: &Key) -> Option<&str> {
        self.files.iter().find(|(_, f)| f.objects.contains_key(key)).map(|(name, _)| name.as_str())
    }

    /// What the server owns of an object beside its identity.
    pub fn owned(&self, key: &Key) -> Option<&Map<String, Value>> {
        self.record.get(&key.to_string()).filter(|i| i.removed.is_none()).map(|i| &i.owned)
    }

    /// Of all objects that are there or were when the daemon ended.
    pub fn all_owned(&self) -> impl Iterator<Item = (Key, &Map<String, Value>)> {
        let live = self.record.iter().filter(|(_, i)| i.removed.is_none() && !i.owned.is_empty());
        live.filter_map(|(key, i)| Some((Key::parse(key)?, &i.owned)))
    }

    /// Sets it; it is written down with the next conclusions.
    pub fn own(&mut self, key: &Key, owned: Map<String, Value>) {
        if let Some(i) = self.record.get_mut(&key.to_string()).filter(|i| i.owned != owned) {
            i.owned = owned;
            self.unwritten.insert(key.to_string());
        }
    }

    /// Draws the conclusions. `more` are problems of the directory itself.
    pub fn settle(&mut self, now: Wall, more: Vec<Problem>) -> Settled {
        if !self.dirty && more == self.more {
            return Settled { record: self.take_unwritten(), ..Settled::default() };
        }
        self.dirty = false;
        self.more.clone_from(&more);
        let touched = std::mem::take(&mut self.touched);
        let (winners, duplicates) = self.winners(&touched);
        self.duplicates.retain(|key, _| !touched.contains(key));
        self.duplicates.extend(duplicates);
        for key in &touched {
            match winners.get(key) {
                Some(file) => self.take_in(key, file, now),
                None => drop(self.live.remove(key)),
            }
        }
        self.bury(&touched, now);
        let of_files = self.files.values().flat_map(|f| &f.problems).chain(self.duplicates.values().flatten());
        let mut problems: Vec<Problem> = of_files.cloned().chain(more).collect();
        problems.sort();
        let files = |list: &[Problem]| list.iter().map(|p| p.file.clone()).collect::<BTreeSet<_>>();
        let mended = &files(&self.problems) - &files(&problems);
        let new_problems = problems.iter().filter(|p| !self.problems.contains(p)).cloned().collect();
        self.problems = problems;
        let record = self.take_unwritten();
        Settled { record, diff: self.diff(&touched), new_problems, mended }
    }

    fn take_unwritten(&mut self) -> RecordChanges {
        let unwritten = std::mem::take(&mut self.unwritten);
        unwritten.into_iter().map(|key| (key.clone(), self.record.get(&key).cloned())).collect()
    }

    /// Which file's object counts for each of these keys; the others are told.
    fn winners(&self, keys: &BTreeSet<Key>) -> (BTreeMap<Key, String>, BTreeMap<Key, Vec<Problem>>) {
        let mut out: BTreeMap<Key, String> = BTreeMap::new();
        let mut problems: BTreeMap<Key, Vec<Problem>> = BTreeMap::new();
        for (name, file) in &self.files {
            let mut found = |key: &Key| match out.get(key) {
                Some(first) => {
                    let why = format!("it stands in {first} already; that one counts");
                    problems.entry(key.clone()).or_default().push(about(name, key, &why));
                }
                None => drop(out.insert(key.clone(), name.clone())),
            };
            // Whichever are fewer.
            if file.objects.len() < keys.len() {
                file.objects.keys().filter(|k| keys.contains(k)).for_each(&mut found);
            } else {
                keys.iter().filter(|k| file.objects.contains_key(k)).for_each(&mut found);
            }
        }
        (out, problems)
    }

    /// The object of this file counts: it gets its identity.
    fn take_in(&mut self, key: &Key, file: &str, now: Wall) {
        let prior = self.live.get(key).cloned();
        let object = self.files.get_mut(file).and_then(|f| f.objects.get_mut(key)).expect("the winner is there");
        let name = key.to_string();
        let identity = identify(self.record.get(&name), key, prior.as_ref(), object, now);
        fill(object, &identity);
        if let Some(p) = prior.filter(|p| p == object) {
            *object = p;
        }
        self.live.insert(key.clone(), object.clone());
        if self.record.get(&name) != Some(&identity) {
            self.unwritten.insert(name.clone());
            self.record.insert(name, identity);
        }
    }

    /// Marks what is gone, and forgets what has been gone longest.
    fn bury(&mut self, touched: &BTreeSet<Key>, now: Wall) {
        let gone: Vec<String> = if std::mem::replace(&mut self.buried, true) {
            touched.iter().filter(|k| !self.live.contains_key(k)).map(ToString::to_string).collect()
        } else {
            let alive: BTreeSet<String> = self.live.keys().map(ToString::to_string).collect();
            self.record.keys().filter(|k| !alive.contains(*k)).cloned().collect()
        };
        for key in gone {
            if let Some(i) = self.record.get_mut(&key).filter(|i| i.removed.is_none()) {
                i.removed = Some(now.truncated());
                self.unwritten.insert(key);
            }
        }
        if self.unwritten.is_empty() {
            return;
        }
        let mut gone: Vec<(Wall, &String)> = self.record.iter().filter_map(|(k, i)| Some((i.removed?, k))).collect();
        if gone.len() > REMEMBERED {
            gone.sort();
            let most = gone.len() - REMEMBERED;
            let forgotten: Vec<String> = gone[..most].iter().map(|(_, k)| (*k).clone()).collect();
            for key in forgotten {
                self.record.remove(&key);
                self.unwritten.insert(key);
            }
        }
    }

    fn diff(&mut self, touched: &BTreeSet<Key>) -> Diff {
        let mut out = Diff::default();
        let mut services_changed = !self.told_services;
        for key in touched {
            let (old, new) = (self.told.get(key), self.live.get(key));
            if old == new {
                continue;
            }
            match (old, new) {
                (_, Some(Stored::Pod(p))) => out.set_pods.push(p.clone()),
                (_, Some(Stored::Config(data, meta))) => {
                    out.shown.push(config(key, data, meta));
                    if !matches!(old, Some(Stored::Config(told, _)) if told == data) {
                        out.set_configs.push((key.clone(), data.clone()));
                    }
                }
                (_, Some(Stored::Other(value))) => out.shown.push((**value).clone()),
                (Some(Stored::Pod(p)), None) => out.remove_pods.push(p.uid()),
                (Some(Stored::Config(..)), None) => out.remove_configs.push(key.clone()),
                (_, Some(Stored::Service(_) | Stored::Slice(_))) | (Some(Stored::Service(_) | Stored::Slice(_)), None) => {
                    services_changed = true
                }
                (Some(Stored::Other(_)) | None, None) => {}
            }
            match new.cloned() {
                Some(new) => drop(self.told.insert(key.clone(), new)),
                None => {
                    out.gone.push(key.clone());
                    self.told.remove(key);
                }
            }
        }
        out.services = services_changed.then(|| self.services());
        self.told_services = true;
        out
    }

    fn services(&self) -> Services {
        let (mut services, mut slices) = Services::default();
        for o in self.live.values() {
            match o {
                Stored::Service(s) => services.push(s.clone()),
                Stored::Slice(s) => slices.push(s.clone()),
                Stored::Pod(_) | Stored::Config(..) | Stored::Other(_) => {}
            }
        }
        // Endpoints are not mirrored where the service has a selector.
        slices.retain(|slice| {
            let m = &slice.metadata;
            let mirrored = m.labels.get("endpointslice.kubernetes.io/managed-by").is_some_and(|v| v == endpoints::MIRRORED);
            let of = |s: &Arc<Service>| {
                s.metadata.namespace == m.namespace && m.labels.get("kubernetes.io/service-name") == Some(&s.metadata.name)
            };
            !mirrored || !services.iter().any(|s| of(s) && !s.spec.selector.is_empty())
        });
        (services, slices)
    }
}

fn about(file: &str, key: &Key, message: &str) -> Problem {
    Problem { file: file.to_owned(), object: key.to_string(), message: message.to_owned(), ..Problem::default() }
}

fn stored(o: Object) -> Stored {
    match o {
        Object::Pod(p) => Stored::Pod(Arc::from(p)),
        Object::Service(s) => Stored::Service(Arc::from(s)),
        Object::EndpointSlice(s) => Stored::Slice(Arc::from(s)),
        Object::Config { data, metadata, .. } => Stored::Config(Arc::new(data), Arc::from(metadata)),
        Object::Other { value, .. } => Stored::Other(Arc::from(value)),
    }
}

/// What an API server refuses at an update of a ConfigMap or a Secret.
fn unchangeable(old: &Stored, new: &Stored) -> Option<&'static str> {
    let (Stored::Config(old, _), Stored::Config(new, _)) = (old, new) else { return None };
    if old.immutable && old != new {
        return Some("Forbidden: field is immutable when `immutable` is set; the old one stays until the object is removed");
    }
    (old.kind != new.kind).then_some("Forbidden: field `type` is immutable; the old one stays until the object is removed")
}

/// Who the object is: the one known by its name, or a new one.
fn identify(known: Option<&Identity>, key: &Key, prior: Option<&Stored>, new: &Stored, now: Wall) -> Identity {
    let (fixed, spec) = match new {
        Stored::Pod(p) => (change::fixed(p), change::spec(p)),
        _ => (String::new(), String::new()),
    };
    let Some(known) = known else { return begin(key, fixed, spec, BTreeMap::new(), now) };
    // A digest may differ after an upgrade of the daemon; what stood there before is then compared by
    // the types of today.
    let change = match (prior, new) {
        (Some(Stored::Pod(old)), Stored::Pod(new)) => Some(change::change(old, new)),
        _ => None,
    };
    let same_spec = known.spec == spec
        || match (prior, new) {
            (Some(Stored::Pod(old)), Stored::Pod(new)) => old.spec == new.spec,
            _ => false,
        };
    let goes_on = known.removed.is_none()
        && (same_spec
            || match change {
                Some(change) => !matches!(change, Change::Replace),
                None => known.fixed == fixed,
            });
    if !goes_on {
        return begin(key, fixed, spec, known.incarnations.clone(), now);
    }
    Identity { generation: known.generation + i64::from(!same_spec), fixed, spec, ..known.clone() }
}

/// A uid that this form of the object never had before.
fn begin(key: &Key, fixed: String, spec: String, mut incarnations: BTreeMap<String, u32>, now: Wall) -> Identity {
    let form = fixed.chars().take(16).collect::<String>();
    if incarnations.len() >= FORMS && !incarnations.contains_key(&form) {
        incarnations.pop_first();
    }
    let n = *incarnations.entry(form).and_modify(|n| *n += 1).or_insert(0);
    let is_pod = !fixed.is_empty();
    Identity {
        uid: change::uid(key.kind.as_str(), &key.namespace, &key.name, &fixed, n),
        created: now.truncated(),
        generation: i64::from(is_pod),
        fixed,
        spec,
        incarnations,
        owned: Map::new(),
        removed: None,
    }
}

fn fill(o: &mut Stored, i: &Identity) {
    let wire = |m: &mut ObjectMeta| {
        m.uid.clone_from(&i.uid);
        m.creation_timestamp = Some(i.created.rfc3339());
    };
    match o {
        Stored::Pod(p) => {
            let m = &mut Arc::make_mut(p).metadata;
            m.uid.clone_from(&i.uid);
            m.creation_timestamp = Some(i.created);
            m.generation = i.generation;
        }
        Stored::Service(s) => wire(&mut Arc::make_mut(s).metadata),
        Stored::Slice(s) => wire(&mut Arc::make_mut(s).metadata),
        Stored::Config(_, m) => {
            let m = Arc::make_mut(m);
            m.uid.clone_from(&i.uid);
            m.creation_timestamp = Some(i.created);
        }
        Stored::Other(value) => {
            let value = Arc::make_mut(value);
            write::meta::set(value, "uid", i.uid.clone());
            write::meta::set(value, "creationTimestamp", i.created.rfc3339());
        }
    }
}

/// A ConfigMap or Secret as the API shows it.
fn config(key: &Key, data: &ConfigData, meta: &Meta) -> Value {
    let base64 = |bytes: &[u8]| Value::from(STANDARD.encode(bytes));
    let mut out = json!({"apiVersion": "v1", "kind": key.kind.as_str(), "metadata": meta});
    let secret = key.kind == Kind::Secret;
    for (name, bytes) in &data.data {
        match std::str::from_utf8(bytes) {
            Ok(text) if !secret && !data.binary.contains(name) => out["data"][name] = text.into(),
            _ if secret => out["data"][name] = base64(bytes),
            _ => out["binaryData"][name] = base64(bytes),
        }
    }
    if secret {
        out["type"] = data.kind.clone().into();
    }
    if data.immutable {
        out["immutable"] = true.into();
    }
    out
}
