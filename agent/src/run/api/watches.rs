//! Watches: each is a revision that follows the store's history. Nothing is queued for a slow reader.

use super::connection::Cut;
use super::lists::{self, Selection};
use super::{Answer, Api, serve, stream};
use crate::api::print::{self, Form, Include};
use crate::api::request::Request;
use crate::api::store::{Change, What};
use crate::api::{Failure, Query};
use crate::run::clock;
use bytes::Bytes;
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How often a watcher that wants bookmarks gets one.
const BOOKMARK: Duration = Duration::from_secs(60);
/// How long a watch lasts that names no limit: longer by a share that differs from watch to watch.
const LIFE: Duration = Duration::from_secs(1800);
/// Messages under way to one client at most.
const UNDER_WAY: usize = 4;
/// Changes told in one message at most.
const CHUNK: usize = 256;

struct Watch {
    r: Request,
    query: Query,
    form: Form,
    selection: Selection,
    /// Told up to here.
    seen: u64,
    bookmarks: bool,
    headers: bool,
    until: Instant,
}

pub fn watches_end(seed: u64) -> Duration {
    LIFE + Duration::from_secs(seed % LIFE.as_secs())
}

/// `cut` ends the connection of a watcher that takes nothing.
pub fn watch(api: Rc<Api>, r: Request, query: &Query, form: Form, cut: Option<Cut>) -> Answer {
    let selection = lists::selection(&r, query)?;
    let initial = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents")).transpose()?;
    let wanted = lists::wanted(query)?;
    lists::known(wanted, api.store().revision())?;
    let life = query.number("timeoutSeconds")?.filter(|s| *s > 0).map(Duration::from_secs);
    let until = Instant::now() + life.unwrap_or_else(|| watches_end(api.next_seed()));
    let bookmarks = query.flag("allowWatchBookmarks")?;
    // Without a revision a watch begins with all that is there.
    let begins = initial.unwrap_or(wanted == 0);
    let seen = if begins || wanted == 0 { api.store().revision() } else { wanted };
    let mut w = Watch { r, query: query.clone(), form, selection, seen, bookmarks, headers: true, until };
    let mut first = Vec::new();
    if begins {
        w.begin(&api, &mut first);
        if initial == Some(true) {
            first.extend(w.bookmark(true));
        }
    }
    let ticks = api.ticks[usize::from(w.r.resource.kept().0)].subscribe();
    let (to, from) = mpsc::channel(UNDER_WAY);
    tokio::task::spawn_local(w.follow(api, ticks, to, first, cut));
    Ok(stream("application/json", from))
}

impl Watch {
    /// All that is there, as if it had just been added.
    fn begin(&mut self, api: &Api, out: &mut Vec<u8>) {
        let store = api.store();
        let namespace = (!self.r.namespace.is_empty()).then(|| self.r.namespace.clone());
        let found: Vec<Bytes> = store
            .list(self.r.resource.kept(), namespace.as_deref(), None)
            .map(|(_, e)| e.bytes.clone())
            .filter(|b| self.selection.takes(b))
            .collect();
        found.iter().for_each(|b| self.line(What::Added, b, out));
    }

    async fn follow(mut self, api: Rc<Api>, mut ticks: watch::Receiver<u64>, to: mpsc::Sender<Bytes>, first: Vec<u8>, cut: Option<Cut>) {
        api.watchers.set(api.watchers.get() + 1);
        let _count = Leaving(api.clone());
        let mut out = first;
        let mut mark = Instant::now() + BOOKMARK;
        loop {
            if !out.is_empty() {
                let stalled = api.limits.stalled;
                match tokio::time::timeout(stalled, to.send(std::mem::take(&mut out).into())).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(_) => {
                        tracing::debug!(resource = self.r.resource.row().plural, "a watcher that takes nothing is let go");
                        return cut.iter().for_each(Cut::now);
                    }
                }
            }
            ticks.borrow_and_update();
            match self.more(&api, &mut out) {
                Ok(true) => continue,
                Ok(false) if !out.is_empty() => continue,
                Ok(false) => {}
                Err(failure) => {
                    let _ = to.send(error(&failure)).await;
                    return;
                }
            }
            tokio::select! {
                () = to.closed() => return,
                () = tokio::time::sleep_until(self.until) => {
                    if self.bookmarks {
                        let _ = to.send(self.bookmark(false).into()).await;
                    }
                    return;
                }
                () = tokio::time::sleep_until(mark), if self.bookmarks => {
                    mark = Instant::now() + BOOKMARK;
                    out.extend(self.bookmark(false));
                }
                changed = ticks.changed() => if changed.is_err() { return },
            }
        }
    }

    /// The next changes. True: there may be more at once.
    fn more(&mut self, api: &Api, out: &mut Vec<u8>) -> Result<bool, Failure> {
        let changes: Vec<Change> = {
            let store = api.store();
            let found = store.since(self.r.resource.kept(), self.seen).map_err(|_| lists::expired(self.seen))?;
            let found: Vec<Change> = found.take(CHUNK).cloned().collect();
            if found.is_empty() {
                // Nothing of ours is behind: what others changed needs no second look.
                self.seen = store.revision();
            }
            found
        };
        for change in &changes {
            self.seen = change.revision;
            if self.r.namespace.is_empty() || *change.name.namespace == *self.r.namespace {
                self.change(change, out);
            }
        }
        Ok(changes.len() == CHUNK)
    }

    /// An object that begins or ceases to be selected comes or goes for this watcher.
    fn change(&mut self, change: &Change, out: &mut Vec<u8>) {
        if self.selection.is_everything() {
            return self.line(change.what, &change.object, out);
        }
        let before = change.before.as_ref().is_some_and(|b| self.selection.takes(b));
        let after = change.what != What::Deleted && self.selection.takes(&change.object);
        match (before, after) {
            (false, false) => {}
            (false, true) => self.line(What::Added, &change.object, out),
            (true, true) => self.line(What::Modified, &change.object, out),
            (true, false) => self.line(What::Deleted, &change.object, out),
        }
    }

    fn line(&mut self, what: What, object: &Bytes, out: &mut Vec<u8>) {
        let what = match what {
            What::Added => "ADDED",
            What::Modified => "MODIFIED",
            What::Deleted => "DELETED",
        };
        out.extend_from_slice(format!(r#"{{"type":"{what}","object":"#).as_bytes());
        if matches!(self.form, Form::Whole | Form::Aggregated) && self.r.resource == self.r.resource.kept() {
            out.extend_from_slice(object);
        } else {
            let read = serde_json::from_slice(object).expect("written by the store");
            let formed = self.formed(read);
            out.extend(serde_json::to_vec(&formed).expect("plain data serialises"));
        }
        out.extend_from_slice(b"}\n");
    }

    fn formed(&mut self, mut object: Value) -> Value {
        serve::face(&self.r, &mut object);
        match self.form {
            Form::Table => {
                let include = Include::parse(self.query.get("includeObject"));
                let headers = std::mem::take(&mut self.headers);
                print::table(self.r.resource, vec![object], "", include, headers, clock::now().wall)
            }
            Form::Metadata => print::metadata(&object),
            Form::Whole | Form::Aggregated => object,
        }
    }

    /// Tells how far this watcher is.
    fn bookmark(&mut self, initial: bool) -> Vec<u8> {
        let row = self.r.resource.row();
        let mut object = json!({"kind": row.kind, "apiVersion": row.api_version(), "metadata": {"resourceVersion": self.seen.to_string()}});
        if initial {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        if self.form == Form::Table {
            let metadata = object["metadata"].clone();
            object = json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": self.seen.to_string()},
                "columnDefinitions": null, "rows": [{"cells": [], "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}}]});
        }
        format!("{}\n", json!({"type": "BOOKMARK", "object": object})).into_bytes()
    }
}

/// Counts a watcher out.
struct Leaving(Rc<Api>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.watchers.set(self.0.watchers.get() - 1);
    }
}

fn error(failure: &Failure) -> Bytes {
    let mut out = br#"{"type":"ERROR","object":"#.to_vec();
    out.extend(failure.body());
    out.extend_from_slice(b"}\n");
    out.into()
}
