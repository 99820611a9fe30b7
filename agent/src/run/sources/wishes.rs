//! Carries out what the API's writer wants of the manifests directory.

use super::door::{self, Change, Wish};
use super::files;
use super::manifests::{Manifests, Tell};
use super::replace::{self, Expect};
use crate::api::Failure;
use crate::api::resource::{Id, PODS};
use crate::api::store::Name;
use crate::api::write;
use crate::manifest::edit::{self, EditError, Which};
use crate::manifest::problem::Fault;
use crate::manifest::{self, Key};
use crate::node::Event;
use crate::pod::PodUid;
use serde_json::{Map, Value};
use std::path::PathBuf;

impl Manifests {
    /// One wish, until its change is in the file and told.
    pub(super) async fn grant(&mut self, wish: Wish, tell: &Tell) {
        let Wish { key, id, change, reply } = wish;
        let done = match change {
            Change::Put { full, was, text, owned } => self.put(&key, id, &full, was.as_deref(), text.as_deref(), owned, tell).await,
            Change::Remove { grace, uid } => self.take(&key, id, grace, &uid, tell).await,
        };
        // Whoever asked may be gone.
        let _ = reply.send(done);
    }

    /// The file that holds the object, as it was read last, if nobody changed it since.
    async fn current(&mut self, key: &Key, id: Id, tell: &Tell) -> Result<Option<(String, String)>, Failure> {
        let Some(file) = self.store.file_of(key).map(str::to_owned) else { return Ok(None) };
        let path = self.path_of(&file);
        let known = self.stamps.get(&file).cloned();
        let now = files::stamp_of(&path, self.is_alone());
        if known.is_none() || known != now {
            // Whatever it says now comes first; whoever asks decides anew.
            self.look(tell).await;
            return Err(door::WriteError::Changed(file).failure(id, &key.name));
        }
        let text = files::text(&path).map_err(|source| door::WriteError::File { path, source }.failure(id, &key.name))?;
        Ok(Some((file, text)))
    }

    #[allow(clippy::too_many_arguments)] // What a change is made of; each is used once.
    async fn put(
        &mut self,
        key: &Key,
        id: Id,
        full: &Value,
        was: Option<&Value>,
        text: Option<&Value>,
        owned: Map<String, Value>,
        tell: &Tell,
    ) -> Result<(), Failure> {
        let which = Which { id, namespace: &key.namespace, name: &key.name };
        let wanted = write::written(full);
        match (self.current(key, id, tell).await?, was) {
            (Some((file, source)), Some(was)) => {
                let before = edit::find(&source, &which).unwrap_or_default();
                let new = edit::authored(&wanted, &write::written(was), &before);
                if new != before {
                    let out = edit::replace(&source, &which, Some(&new)).map_err(|e| unedited(&e, &file))?;
                    self.save(key, id, &file, &Expect::Text(replace::digest(&source)), out).await?;
                }
            }
            // The daemon shows some objects that are in no file: they become files when somebody changes them.
            (None, _) => {
                if self.is_alone() {
                    let why = format!("{} is one file, so no other object can be added to it", self.path.display());
                    return Err(Failure::forbidden(id.subject(&key.name), &why));
                }
                let body = edit::yaml(text.unwrap_or(&wanted)).map_err(|e| unedited(&e, &key.name))?;
                let file = self.free_name(id, key);
                self.save(key, id, &file, &Expect::Nothing, Some(body)).await?;
            }
            (Some(_), None) => return Err(Failure::already_exists(id.subject(&key.name))),
        }
        self.conclude(tell).await;
        self.store.own(key, owned.clone());
        self.conclude(tell).await;
        tell.own(id, &Name::new(&key.namespace, &key.name), owned);
        Ok(())
    }

    async fn take(&mut self, key: &Key, id: Id, grace: Option<i64>, uid: &str, tell: &Tell) -> Result<(), Failure> {
        let which = Which { id, namespace: &key.namespace, name: &key.name };
        let current = self.current(key, id, tell).await?;
        let ending = grace.map(|grace| Event::EndPod { uid: PodUid::new(uid), grace: grace.max(1) });
        let is_there = current.is_some();
        if let Some((file, source)) = current {
            let out = edit::replace(&source, &which, None).map_err(|e| unedited(&e, &file))?;
            self.save(key, id, &file, &Expect::Text(replace::digest(&source)), out).await?;
        }
        // Before the removal is told, which would end it with its own grace.
        if let Some(event) = ending.filter(|_| id == PODS) {
            tell.event(event).await;
        }
        self.conclude(tell).await;
        if !is_there && id != PODS {
            tell.gone(key);
        }
        Ok(())
    }

    /// Writes the file, once it is sure that the object is good in it.
    async fn save(&mut self, key: &Key, id: Id, file: &str, expect: &Expect, text: Option<String>) -> Result<(), Failure> {
        let read = text.map(|text| (manifest::read(file, &text, &self.rules), text));
        if let Some((contents, _)) = &read {
            let name = key.to_string();
            if let Some(p) = contents.problems.iter().find(|p| p.object == name) {
                let fault = Fault { kind: p.kind, field: p.field.clone(), message: p.message.clone() };
                return Err(write::invalid(id, &key.name, &[fault]));
            }
        }
        let path = self.path_of(file);
        let (to, expect, text) = (path.clone(), *expect, read.as_ref().map(|(_, text)| text.clone()));
        let job = tokio::task::spawn_blocking(move || replace::write(&to, &expect, text.as_deref()));
        job.await.expect("writing does not panic").map_err(|e| e.failure(id, &key.name))?;
        match read {
            Some((contents, text)) => {
                self.store.set_file(file, contents);
                // Somebody may have changed it since: then it is read.
                let stamp = files::stamp_of(&path, self.is_alone());
                match stamp.filter(|_| files::text(&path).is_ok_and(|t| t == text)) {
                    Some(stamp) => drop(self.stamps.insert(file.to_owned(), stamp)),
                    None => drop(self.stamps.remove(file)),
                }
                self.fresh.insert(file.to_owned(), text);
            }
            None => {
                self.store.remove_file(file);
                self.stamps.remove(file);
            }
        }
        Ok(())
    }

    fn free_name(&self, id: Id, key: &Key) -> String {
        let name = door::file_name(id, &key.namespace, &key.name);
        let taken = |n: &str| self.path_of(n).symlink_metadata().is_ok();
        let numbered = |i: u32| name.replace(".yaml", &format!("-{i}.yaml"));
        if taken(&name) { (2..).map(numbered).find(|n| !taken(n)).unwrap_or(name) } else { name }
    }

    pub(super) fn path_of(&self, file: &str) -> PathBuf {
        if self.is_alone() { self.path.clone() } else { self.path.join(file) }
    }

    /// Whether the source is a single file.
    fn is_alone(&self) -> bool {
        self.path.is_file()
    }
}

fn unedited(e: &EditError, file: &str) -> Failure {
    Failure::internal(format!("{file}: {e}"))
}
