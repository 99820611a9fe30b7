//! A list and a watch as one state: what to ask for next, and what each answer says.
//!
//! Whatever breaks in between, the consumer comes to know exactly the objects that there are: each is told when it is
//! there or differs, and when it is gone; one that is the same as before is not told again, however often a server
//! lists it. Tests, with the law of that, at the end of this file.

use crate::api::Failure;
use serde_json::Value;
use std::collections::BTreeMap;

/// Namespace and name. Objects of the cluster have no namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: Box<str>,
    pub name: Box<str>,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }
}

/// What to ask the server for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A watch that begins with all that there is: nobody has to hold a whole list.
    Stream,
    /// For servers that do not stream: a page of the list, from this mark.
    List { from: Option<String> },
    /// Changes since this version.
    Watch { since: String },
}

/// What the consumer is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// It is there, or it is different.
    Set(Value),
    Gone(Key),
    /// All that there is has been told.
    Synced,
}

/// Why a watch cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The server has forgotten what we know; all is asked for anew.
    #[error("the server no longer has what happened since: {0}")]
    Expired(String),
    #[error("the server lists, but does not stream what there is")]
    NoStreams,
    #[error("the server says: {}", .0.message)]
    Refused(Failure),
    #[error("what the server sent is no event of a watch: {0}")]
    Malformed(&'static str),
}

#[derive(Debug)]
struct Known {
    version: Box<str>,
    /// Of which telling of everything it was last a part.
    round: u32,
}

#[derive(Debug, Default)]
pub struct Reflection {
    /// The server does not stream lists.
    no_streams: bool,
    /// All until here is known.
    version: Option<Box<str>>,
    known: BTreeMap<Key, Known>,
    round: u32,
    /// Of the list that is under way.
    page: Option<String>,
}

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

impl Reflection {
    /// What comes next. Before each telling of everything this begins a new round.
    pub fn ask(&mut self) -> Ask {
        match (&self.version, self.page.take()) {
            (Some(v), _) => Ask::Watch { since: v.to_string() },
            (None, Some(page)) => Ask::List { from: Some(page) },
            (None, None) => {
                self.round = self.round.wrapping_add(1);
                if self.no_streams { Ask::List { from: None } } else { Ask::Stream }
            }
        }
    }

    /// The server did not take what was asked. True: it does not stream, and is asked for a list from now on.
    pub fn refused(&mut self, asked: &Ask, failure: &Failure) -> bool {
        match asked {
            Ask::Stream => self.no_streams = !is_temporary(failure),
            Ask::Watch { .. } | Ask::List { .. } if matches!(failure.code, 410 | 400) => {
                self.version = None;
                self.page = None;
            }
            _ => {}
        }
        *asked == Ask::Stream && self.no_streams
    }

    /// One event of a watch.
    pub fn event(&mut self, kind: &str, object: Value, out: &mut Vec<Told>) -> Result<(), Trouble> {
        let initial = self.version.is_none();
        match kind {
            "ADDED" | "MODIFIED" => {
                let version = self.note(object, out)?;
                // Until everything was told, no version stands for all before it.
                self.version = if initial { None } else { Some(version) };
            }
            "DELETED" => {
                let key = key(&object).ok_or(Trouble::Malformed("an object without a name"))?;
                let version = version(&object).ok_or(Trouble::Malformed("an object without a version"))?;
                self.version = if initial { None } else { Some(version.into()) };
                if self.known.remove(&key).is_some() {
                    out.push(Told::Gone(key));
                }
            }
            "BOOKMARK" => {
                let version = version(&object).ok_or(Trouble::Malformed("a bookmark without a version"))?.to_owned();
                if !initial {
                    self.version = Some(version.into());
                } else if object["metadata"]["annotations"][INITIAL_EVENTS_END] == "true" {
                    self.complete(&version, out);
                }
            }
            "ERROR" => {
                let failure: Failure = crate::typed::read(&object).unwrap_or_default();
                if failure.code == 410 {
                    self.version = None;
                    return Err(Trouble::Expired(failure.message));
                }
                // Old servers find fault with the wish, and some whose store is old find it when they have begun.
                if initial && !is_temporary(&failure) {
                    self.no_streams = true;
                    return Err(Trouble::NoStreams);
                }
                return Err(Trouble::Refused(failure));
            }
            _ => return Err(Trouble::Malformed("an unknown type of event")),
        }
        Ok(())
    }

    /// A page of a list.
    pub fn page(&mut self, mut list: Value, out: &mut Vec<Told>) -> Result<(), Trouble> {
        let Value::Array(items) = list["items"].take() else { return Err(Trouble::Malformed("a list without items")) };
        for item in items {
            self.note(item, out)?;
        }
        let metadata = &list["metadata"];
        match metadata["continue"].as_str().filter(|c| !c.is_empty()) {
            Some(page) => self.page = Some(page.to_owned()),
            None => {
                let version = metadata["resourceVersion"].as_str().ok_or(Trouble::Malformed("a list without a version"))?.to_owned();
                self.complete(&version, out);
            }
        }
        Ok(())
    }

    /// Returns its version.
    fn note(&mut self, mut object: Value, out: &mut Vec<Told>) -> Result<Box<str>, Trouble> {
        let key = key(&object).ok_or(Trouble::Malformed("an object without a name"))?;
        let version: Box<str> = version(&object).ok_or(Trouble::Malformed("an object without a version"))?.into();
        let before = self.known.insert(key, Known { version: version.clone(), round: self.round });
        if before.is_none_or(|k| k.version != version) {
            // As large as the object itself, and nobody here reads them.
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            out.push(Told::Set(object));
        }
        Ok(version)
    }

    fn complete(&mut self, version: &str, out: &mut Vec<Told>) {
        let round = self.round;
        self.known.retain(|key, k| {
            let there = k.round == round;
            if !there {
                out.push(Told::Gone(key.clone()));
            }
            there
        });
        self.version = Some(version.into());
        out.push(Told::Synced);
    }
}

/// Who may not, or is to come later, may stream another time.
fn is_temporary(f: &Failure) -> bool {
    matches!(f.code, 401 | 403 | 410 | 429 | 503 | 504)
}

fn key(object: &Value) -> Option<Key> {
    let metadata = object.get("metadata")?;
    let name = metadata.get("name")?.as_str().filter(|n| !n.is_empty())?;
    Some(Key::new(metadata.get("namespace").and_then(Value::as_str).unwrap_or_default(), name))
}

fn version(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("resourceVersion")?.as_str().filter(|v| !v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn object(name: usize, version: u64) -> Value {
        json!({"metadata": {"namespace": "n", "name": format!("o{name}"), "resourceVersion": version.to_string(), "managedFields": [{}]}, "v": version})
    }

    /// A server: every change it ever made, and since when it remembers.
    #[derive(Default)]
    struct Server {
        changes: Vec<(&'static str, usize, u64)>,
        forgotten: usize,
    }

    impl Server {
        fn now(&self) -> BTreeMap<usize, u64> {
            let mut out = BTreeMap::new();
            for (kind, name, version) in &self.changes {
                if *kind == "DELETED" {
                    out.remove(name)
                } else {
                    out.insert(*name, *version)
                };
            }
            out
        }

        fn change(&mut self, name: usize, delete: bool) {
            let there = self.now().contains_key(&name);
            let version = self.changes.len() as u64 + 1;
            match (there, delete) {
                (false, true) => {}
                (true, true) => self.changes.push(("DELETED", name, version)),
                (true, false) => self.changes.push(("MODIFIED", name, version)),
                (false, false) => self.changes.push(("ADDED", name, version)),
            }
        }
    }

    #[derive(Default)]
    struct Consumer {
        has: BTreeMap<String, u64>,
        told_again: bool,
    }

    impl Consumer {
        fn take(&mut self, out: Vec<Told>) {
            for told in out {
                match told {
                    Told::Set(o) => {
                        let before = self.has.insert(o["metadata"]["name"].as_str().unwrap().to_owned(), o["v"].as_u64().unwrap());
                        self.told_again |= before == o["v"].as_u64();
                        assert!(o["metadata"]["managedFields"].is_null());
                    }
                    Told::Gone(k) => assert!(self.has.remove(&*k.name).is_some(), "{k:?} was never told"),
                    Told::Synced => {}
                }
            }
        }
    }

    /// Serves one request, and breaks off after so many events.
    fn serve(server: &Server, r: &mut Reflection, c: &mut Consumer, streams: bool, cut: usize) -> bool {
        let asked = r.ask();
        let mut out = Vec::new();
        let whole = match &asked {
            Ask::Stream if !streams => {
                r.refused(&asked, &Failure { code: 422, ..Failure::default() });
                false
            }
            Ask::Stream => {
                let all = server.now();
                for (name, version) in all.iter().take(cut) {
                    r.event("ADDED", object(*name, *version), &mut out).unwrap();
                }
                let whole = cut > all.len();
                if whole {
                    let end = json!({"metadata": {"resourceVersion": server.changes.len().to_string(), "annotations": {INITIAL_EVENTS_END: "true"}}});
                    r.event("BOOKMARK", end, &mut out).unwrap();
                }
                whole
            }
            Ask::List { from } => {
                // Two objects to a page, of the state as it is.
                let all: Vec<_> = server.now().into_iter().collect();
                let at: usize = from.as_ref().map_or(0, |f| f.parse().unwrap());
                let items: Vec<Value> = all.iter().skip(at).take(2).map(|(n, v)| object(*n, *v)).collect();
                let more = if at + 2 < all.len() { (at + 2).to_string() } else { String::new() };
                let done = more.is_empty();
                r.page(
                    json!({"metadata": {"resourceVersion": server.changes.len().to_string(), "continue": more}, "items": items}),
                    &mut out,
                )
                .unwrap();
                done
            }
            Ask::Watch { since } => {
                let since: usize = since.parse().unwrap();
                if since < server.forgotten {
                    let gone = json!({"code": 410, "message": "too old"});
                    assert!(matches!(r.event("ERROR", gone, &mut out), Err(Trouble::Expired(_))));
                    false
                } else {
                    for (kind, name, version) in server.changes.iter().skip(since).take(cut) {
                        r.event(kind, object(*name, *version), &mut out).unwrap();
                    }
                    server.changes.len() - since <= cut
                }
            }
        };
        c.take(out);
        whole
    }

    proptest! {
        #[test]
        fn whatever_breaks_the_consumer_comes_to_know_what_there_is(
            streams: bool,
            steps in prop::collection::vec((0..6usize, any::<bool>(), 0..6usize, any::<bool>()), 1..60),
        ) {
            let (mut server, mut r, mut c) = (Server::default(), Reflection::default(), Consumer::default());
            for (name, delete, cut, forget) in steps {
                // A list of several pages must be of one state; this server has no past ones.
                if r.page.is_none() {
                    server.change(name, delete);
                }
                if forget {
                    server.forgotten = server.changes.len();
                }
                serve(&server, &mut r, &mut c, streams, cut);
            }
            for _ in 0..20 {
                serve(&server, &mut r, &mut c, streams, 100);
            }
            let want: BTreeMap<String, u64> = server.now().into_iter().map(|(n, v)| (format!("o{n}"), v)).collect();
            prop_assert_eq!(&c.has, &want);
            prop_assert_eq!(r.known.len(), want.len());
            prop_assert!(!c.told_again, "something was told that had not changed");
        }
    }

    #[test]
    fn a_server_that_sends_nonsense_is_refused_and_not_believed() {
        let mut r = Reflection::default();
        let mut out = Vec::new();
        for (kind, object) in
            [("ADDED", json!({})), ("DELETED", json!({"metadata": {"name": "a"}})), ("BOOKMARK", json!(1)), ("HELLO", object(1, 1))]
        {
            assert!(matches!(r.event(kind, object, &mut out), Err(Trouble::Malformed(_))), "{kind}");
        }
        assert!(r.page(json!({"metadata": {}}), &mut out).is_err());
        assert!(out.is_empty());
        // A server whose store cannot stream is asked for lists.
        let mut old = Reflection::default();
        assert_eq!(old.ask(), Ask::Stream);
        let refused = old.event("ERROR", json!({"code": 500, "message": "a watch stream was requested"}), &mut out);
        assert_eq!((refused, old.ask()), (Err(Trouble::NoStreams), Ask::List { from: None }));
        // A refusal that is no expiry keeps what is known.
        let refused = r.event("ERROR", json!({"code": 403, "message": "no"}), &mut out);
        assert!(matches!(refused, Err(Trouble::Refused(f)) if f.code == 403));
    }
}
