//! The objects of this API and their recent changes, in memory.
//!
//! Owns what every object reads like now, as JSON that carries its own revision, and a bounded history from which
//! watchers are served: a watcher is a revision, nothing is queued for it, and one that falls behind the history
//! is told so. One counter gives every change its revision. Must never do I/O; whoever commits has made the
//! change durable before. After a crash it is filled again from the manifests directory and the state directory,
//! and begins at a revision from the clock, above all that were given before. Tests: at the end of this file, and
//! laws in `agent/tests/api_server/laws.rs`.

use super::resource::{Id, RESOURCES};
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::rc::Rc;

/// How many changes are remembered at most, and how many bytes of objects that may be there for them alone.
const MOST: usize = 4096;
const MOST_BYTES: usize = 4 << 20;

/// Namespace (empty for resources of the whole node) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub namespace: Box<str>,
    pub name: Box<str>,
}

impl Name {
    pub fn new(namespace: &str, name: &str) -> Name {
        Name { namespace: namespace.into(), name: name.into() }
    }

    /// Of an object's metadata.
    pub fn of(object: &Value) -> Name {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        Name::new(text("namespace"), text("name"))
    }
}

/// One object. Clones share the bytes.
#[derive(Clone, Debug)]
pub struct Entry {
    pub revision: u64,
    /// The object in JSON, with its revision in it.
    pub bytes: Bytes,
}

impl Entry {
    pub fn object(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("written by the store itself")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Added,
    Modified,
    Deleted,
}

/// One change, as watchers need it.
#[derive(Clone, Debug)]
pub struct Change {
    pub revision: u64,
    pub resource: Id,
    pub name: Rc<Name>,
    pub what: What,
    /// After the change; of a deletion the last state, with the deletion's revision.
    pub object: Bytes,
    pub before: Option<Bytes>,
}

/// The history does not reach back so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The oldest revision from which one can still go on.
    pub oldest: u64,
}

#[derive(Debug)]
pub struct Store {
    revision: u64,
    resources: Vec<BTreeMap<Rc<Name>, Entry>>,
    /// In order of revisions.
    history: VecDeque<Change>,
    bytes: usize,
    /// Changes up to this one are forgotten.
    forgotten: u64,
}

impl Store {
    /// The first change gets a revision above `revision`.
    pub fn new(revision: u64) -> Store {
        let resources = RESOURCES.iter().map(|_| BTreeMap::new()).collect();
        Store { revision, resources, history: VecDeque::new(), bytes: 0, forgotten: revision }
    }

    /// Of the last change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn get(&self, resource: Id, namespace: &str, name: &str) -> Option<&Entry> {
        self.resources[usize::from(resource.0)].get(&Name::new(namespace, name))
    }

    pub fn len(&self, resource: Id) -> usize {
        self.resources[usize::from(resource.0)].len()
    }

    /// In order of namespaces and names, those behind `after` alone.
    pub fn list<'a>(
        &'a self,
        resource: Id,
        namespace: Option<&'a str>,
        after: Option<&Name>,
    ) -> impl Iterator<Item = (&'a Name, &'a Entry)> + use<'a> {
        let start = match (after, namespace) {
            (Some(after), _) => Bound::Excluded(Rc::new(after.clone())),
            (None, Some(namespace)) => Bound::Included(Rc::new(Name::new(namespace, ""))),
            (None, None) => Bound::Unbounded,
        };
        let objects = self.resources[usize::from(resource.0)].range((start, Bound::Unbounded));
        objects
            .map(|(name, entry)| (name.as_ref(), entry))
            .skip_while(move |(name, _)| namespace.is_some_and(|wanted| *name.namespace < *wanted))
            .take_while(move |(name, _)| namespace.is_none_or(|wanted| *name.namespace == *wanted))
    }

    /// Adds or replaces an object and writes its revision into it. An object that reads as before is no change.
    pub fn put(&mut self, resource: Id, mut object: Value) -> u64 {
        let name = Name::of(&object);
        let objects = &mut self.resources[usize::from(resource.0)];
        let known = objects.get_key_value(&name).map(|(name, entry)| (name.clone(), entry.clone()));
        if let Some((_, entry)) = &known {
            set_revision(&mut object, entry.revision);
            if text(&object) == entry.bytes {
                return entry.revision;
            }
        }
        self.revision += 1;
        set_revision(&mut object, self.revision);
        let bytes = text(&object);
        let (name, before) = known.map_or_else(|| (Rc::new(name), None), |(name, entry)| (name, Some(entry.bytes)));
        let objects = &mut self.resources[usize::from(resource.0)];
        objects.insert(name.clone(), Entry { revision: self.revision, bytes: bytes.clone() });
        let what = if before.is_some() { What::Modified } else { What::Added };
        self.remember(Change { revision: self.revision, resource, name, what, object: bytes, before });
        self.revision
    }

    /// Takes an object away; the answer is its last state, with the deletion's revision.
    pub fn remove(&mut self, resource: Id, namespace: &str, name: &str) -> Option<Bytes> {
        let objects = &mut self.resources[usize::from(resource.0)];
        let (name, entry) = objects.remove_entry(&Name::new(namespace, name))?;
        self.revision += 1;
        let mut object = entry.object();
        set_revision(&mut object, self.revision);
        let bytes = text(&object);
        let before = Some(entry.bytes);
        self.remember(Change { revision: self.revision, resource, name, what: What::Deleted, object: bytes.clone(), before });
        Some(bytes)
    }

    fn remember(&mut self, change: Change) {
        self.bytes += weight(&change);
        self.history.push_back(change);
        while self.history.len() > MOST || self.bytes > MOST_BYTES && self.history.len() > 1 {
            if let Some(old) = self.history.pop_front() {
                self.bytes -= weight(&old);
                self.forgotten = old.revision;
            }
        }
    }

    /// Forgets all changes up to now: whoever watches from before has to list again.
    pub fn compact(&mut self) {
        self.history.clear();
        self.bytes = 0;
        self.forgotten = self.revision;
    }

    /// The changes of a resource behind a revision, in order.
    pub fn since(&self, resource: Id, revision: u64) -> Result<impl Iterator<Item = &Change>, Expired> {
        if revision < self.forgotten {
            return Err(Expired { oldest: self.forgotten });
        }
        let first = self.history.partition_point(|change| change.revision <= revision);
        Ok(self.history.range(first..).filter(move |change| change.resource == resource))
    }
}

/// Objects of a resource as they were.
type Objects = Vec<(Rc<Name>, Bytes)>;

impl Store {
    /// The objects of a resource as they were at a revision, in order of namespaces and names, those behind `after` alone.
    pub fn at(&self, resource: Id, revision: u64, namespace: Option<&str>, after: Option<&Name>) -> Result<Objects, Expired> {
        // What the first change of each object since then found.
        let mut before: BTreeMap<&Rc<Name>, Option<&Bytes>> = BTreeMap::new();
        for change in self.since(resource, revision)? {
            before.entry(&change.name).or_insert(change.before.as_ref());
        }
        let wanted = |name: &Name| namespace.is_none_or(|n| *name.namespace == *n) && after.is_none_or(|a| name > a);
        let same = self.resources[usize::from(resource.0)].iter().filter(|(name, _)| wanted(name) && !before.contains_key(name));
        let mut out: Objects = same.map(|(name, entry)| (name.clone(), entry.bytes.clone())).collect();
        let other = before.iter().filter(|(name, _)| wanted(name)).filter_map(|(name, b)| Some(((*name).clone(), (*b)?.clone())));
        out.extend(other);
        out.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(out)
    }
}

/// What is in memory for the history's sake: the state before a change is.
fn weight(change: &Change) -> usize {
    change.before.as_ref().map_or(0, Bytes::len) + if change.what == What::Deleted { change.object.len() } else { 0 }
}

fn text(object: &Value) -> Bytes {
    serde_json::to_vec(object).expect("plain data serialises").into()
}

fn set_revision(object: &mut Value, revision: u64) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.insert("resourceVersion".into(), revision.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use super::super::resource::{PODS, SERVICES};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn object(namespace: &str, name: &str, x: i32) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name}, "x": x})
    }

    #[test]
    fn objects_carry_their_revision_and_lists_are_in_order() {
        let mut store = Store::new(10);
        for name in ["b", "a"] {
            store.put(PODS, object("n", name, 1));
        }
        store.put(PODS, object("m", "z", 1));
        store.put(SERVICES, object("n", "a", 1));
        assert_eq!(store.get(PODS, "n", "a").unwrap().object()["metadata"]["resourceVersion"], "12");
        let names = |namespace, after: Option<&Name>| -> Vec<String> {
            store.list(PODS, namespace, after).map(|(n, _)| format!("{}/{}", n.namespace, n.name)).collect()
        };
        assert_eq!(names(None, None), ["m/z", "n/a", "n/b"]);
        assert_eq!(names(Some("n"), None), ["n/a", "n/b"]);
        assert_eq!(names(Some("n"), Some(&Name::new("n", "a"))), ["n/b"]);
        assert_eq!(names(None, Some(&Name::new("m", "z"))), ["n/a", "n/b"]);
        assert_eq!(names(Some("o"), None), Vec::<String>::new());
    }

    #[test]
    fn what_reads_as_before_is_no_change() {
        let mut store = Store::new(0);
        let first = store.put(PODS, object("n", "a", 1));
        assert_eq!(store.put(PODS, object("n", "a", 1)), first);
        assert_eq!(store.revision(), first);
        assert_eq!(store.put(PODS, object("n", "a", 2)), first + 1);
    }

    #[test]
    fn a_watcher_sees_every_change_of_its_resource_in_order() {
        let mut store = Store::new(0);
        store.put(PODS, object("n", "a", 1));
        let from = store.revision();
        store.put(SERVICES, object("n", "a", 1));
        store.put(PODS, object("n", "a", 2));
        store.remove(PODS, "n", "a").unwrap();
        let seen: Vec<(u64, What)> = store.since(PODS, from).unwrap().map(|c| (c.revision, c.what)).collect();
        assert_eq!(seen, [(3, What::Modified), (4, What::Deleted)]);
        let deleted = store.since(PODS, 3).unwrap().next().unwrap();
        let last: Value = serde_json::from_slice(&deleted.object).unwrap();
        assert_eq!((&last["x"], &last["metadata"]["resourceVersion"]), (&json!(2), &json!("4")));
    }

    #[test]
    fn the_history_has_an_end() {
        let mut store = Store::new(0);
        for x in 0..i32::try_from(MOST).unwrap() + 10 {
            store.put(PODS, object("n", "a", x));
        }
        assert_eq!(store.since(PODS, 1).err(), Some(Expired { oldest: 10 }));
        assert_eq!(store.since(PODS, 10).unwrap().count(), MOST);
        store.compact();
        assert!(store.since(PODS, store.revision() - 1).is_err());
        assert_eq!(store.since(PODS, store.revision()).unwrap().count(), 0);
    }

    fn all(store: &Store, revision: u64, namespace: Option<&str>, after: Option<&Name>) -> Result<Vec<Value>, Expired> {
        let objects = store.at(PODS, revision, namespace, after)?;
        Ok(objects.iter().map(|(_, b)| serde_json::from_slice(b).unwrap()).collect())
    }

    proptest! {
        /// Each step writes, takes away or forgets; what was there after each of them can be listed until it is forgotten.
        #[test]
        fn what_was_there_at_a_revision_can_be_listed_as_long_as_it_is_remembered(
            steps in proptest::collection::vec((0..8_u8, 0..2_usize, 0..4_usize, 0..9), 1..60), cut in 0..8_usize,
        ) {
            let mut store = Store::new(5);
            let mut states: BTreeMap<u64, Vec<Value>> = BTreeMap::from([(5, Vec::new())]);
            let mut oldest = 5;
            for (what, space, name, x) in steps {
                let (space, name) = (["m", "n"][space], ["a", "b", "c", "d"][name]);
                match what {
                    0 => {
                        store.compact();
                        oldest = store.revision();
                    }
                    1 | 2 => drop(store.remove(PODS, space, name)),
                    3 => drop(store.put(SERVICES, object(space, name, x))),
                    _ => drop(store.put(PODS, object(space, name, x))),
                }
                let now = store.list(PODS, None, None).map(|(_, e)| e.object()).collect();
                states.insert(store.revision(), now);
            }
            let behind = Name::new(["m", "n"][cut % 2], ["a", "b", "c", "d"][cut / 2]);
            for (revision, state) in states {
                if revision < oldest {
                    prop_assert_eq!(all(&store, revision, None, None), Err(Expired { oldest }));
                    continue;
                }
                prop_assert_eq!(all(&store, revision, None, None).unwrap(), state.clone());
                let some = |o: &&Value| o["metadata"]["namespace"] == "n" && Name::of(o) > behind;
                let wanted: Vec<Value> = state.iter().filter(some).cloned().collect();
                prop_assert_eq!(all(&store, revision, Some("n"), Some(&behind)).unwrap(), wanted);
            }
        }
    }
}
