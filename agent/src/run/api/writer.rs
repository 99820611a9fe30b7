//! The one writer: requests in order, decided on what is there, durable before anybody sees them.
//!
//! Requests that wait together are made durable together, so that a disk that needs milliseconds for each flush
//! still takes thousands of writes in a second. A request about an object that the batch changes already begins
//! the next batch: every decision sees all that was decided before.

use super::persist::{Files, Journal, Line};
use super::{Api, Failure};
use crate::api::access::User;
use crate::api::request::Request;
use crate::api::resource::{EVENTS, Home, Id, LEASES, PODS};
use crate::api::store::Name;
use crate::api::write::{self, Caller, DeleteOptions, Effect, Op, Outcome, Validation, meta};
use crate::run::clock;
use crate::time::Wall;
use serde_json::Value;
use std::collections::BTreeSet;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

pub const QUEUE: usize = 1024;
/// Requests made durable together at most.
const BATCH: usize = 256;
/// How long events are kept, and how often old ones are looked for.
const EVENT_LIFE: Duration = Duration::from_secs(3600);
/// How long a client waits at most for the node to show what is in the file already.
const SHOWN_WITHIN: Duration = Duration::from_millis(500);
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

pub struct Job {
    pub op: Op,
    pub request: Request,
    pub caller: Caller,
    pub reply: oneshot::Sender<Result<Done, Failure>>,
}

/// A write that is over.
#[derive(Debug)]
pub struct Done {
    pub object: Value,
    pub warnings: Vec<String>,
    pub code: u16,
}

pub struct Writer {
    pub api: Weak<Api>,
    pub jobs: mpsc::Receiver<Job>,
    /// What the node shows by itself and is to outlive the process, such as events.
    pub kept: mpsc::Receiver<Line>,
    pub state: Option<Rc<Journal>>,
    pub files: Option<Rc<dyn Files>>,
}

/// Decided, and not durable yet.
struct Pending {
    id: Id,
    name: Name,
    outcome: Outcome,
    old: Option<Value>,
    reply: oneshot::Sender<Result<Done, Failure>>,
}

impl Writer {
    pub async fn run(mut self) {
        let mut held: Option<Job> = None;
        loop {
            let job = match held.take() {
                Some(job) => job,
                None => tokio::select! {
                    job = self.jobs.recv() => match job {
                        Some(job) => job,
                        None => return,
                    },
                    Some(line) = self.kept.recv() => {
                        self.keep(line).await;
                        continue;
                    }
                },
            };
            let Some(api) = self.api.upgrade() else { return };
            let mut batch = Vec::new();
            let mut touched = BTreeSet::new();
            let mut next = Some(job);
            while let Some(job) = next.take() {
                let key = (job.request.resource.kept(), job.request.namespace.clone(), job.request.name.clone());
                // An unnamed creation has a name only once it is decided.
                if !batch.is_empty() && (touched.contains(&key) || (key.2.is_empty() && !key.1.is_empty() && batch.len() >= BATCH)) {
                    held = Some(job);
                    break;
                }
                if let Some(pending) = decide(&api, job) {
                    let own = (pending.id, pending.name.namespace.to_string(), pending.name.name.to_string());
                    if !touched.insert(own) {
                        // Two creations of one name: the second finds the first when it is decided anew.
                        let _ = pending.reply.send(Err(Failure::already_exists(pending.id.subject(&pending.name.name))));
                        continue;
                    }
                    batch.push(pending);
                }
                if batch.len() < BATCH {
                    next = self.jobs.try_recv().ok();
                }
            }
            self.carry_out(&api, batch).await;
        }
    }

    /// Nobody waits for these, and the next one about the same object makes up for one that is lost.
    async fn keep(&mut self, line: Line) {
        let mut lines = vec![line];
        while lines.len() < BATCH
            && let Ok(line) = self.kept.try_recv()
        {
            lines.push(line);
        }
        if let Some(state) = &self.state
            && let Err(failure) = state.clone().append(lines).await
        {
            tracing::warn!(message = %failure.message, "what the node tells of itself will be forgotten by a restart");
        }
    }

    async fn carry_out(&self, api: &Rc<Api>, batch: Vec<Pending>) {
        let mut lines = Vec::new();
        let mut kept = Vec::new();
        for pending in batch {
            if pending.outcome.effect == Effect::None {
                finish(api, pending, None);
                continue;
            }
            let home = pending.id.row().home;
            if home == Home::Files && self.files.is_some() {
                self.file(api, pending).await;
                continue;
            }
            if let Some(line) = line(&pending) {
                lines.push(line);
            }
            kept.push(pending);
        }
        if let Some(state) = &self.state
            && let Err(failure) = state.clone().append(lines).await
        {
            for pending in kept {
                let _ = pending.reply.send(Err(failure.clone()));
            }
            return;
        }
        for pending in kept {
            commit(api, pending);
        }
    }

    /// The reader of the manifests directory shows the object; it is there when the file is.
    async fn file(&self, api: &Rc<Api>, pending: Pending) {
        let files = self.files.as_ref().expect("asked for by the caller");
        let (id, name) = (pending.id, pending.name.clone());
        let outcome = &pending.outcome;
        let written = match &outcome.effect {
            Effect::Put(object) => files.put(id, object, pending.old.as_ref(), outcome.authored.as_ref()).await,
            Effect::Ending(object) => files.end(id, object).await,
            Effect::Remove => match &pending.old {
                Some(old) => files.remove(id, old).await,
                None => Ok(()),
            },
            Effect::None => Ok(()),
        };
        match written {
            Ok(()) => {
                if let (PODS, Effect::Put(object)) = (id, &pending.outcome.effect) {
                    shown_as(api, &name, object).await;
                }
                let shown = api.object(id, &name);
                let shown = match &pending.outcome.effect {
                    // Whoever runs the pod shows its end in a moment.
                    Effect::Ending(object) => Some(object.clone()),
                    Effect::Put(object) => shown.or_else(|| Some(object.clone())),
                    _ => shown,
                };
                finish(api, pending, shown);
            }
            Err(failure) => {
                let _ = pending.reply.send(Err(failure));
            }
        }
    }
}

/// A pod is shown by the node that runs it, a moment after its file was read. Nobody waits long for that: what was
/// asked for is in the file.
async fn shown_as(api: &Rc<Api>, name: &Name, wanted: &Value) {
    let mut ticks = api.ticks[usize::from(PODS.0)].subscribe();
    let looks_right = || {
        let store = api.store();
        let Some(entry) = store.get(PODS, &name.namespace, &name.name) else { return false };
        let shown = entry.object();
        let metadata = |field: &str| shown["metadata"][field] == wanted["metadata"][field];
        shown["spec"] == wanted["spec"] && metadata("labels") && metadata("annotations")
    };
    let wait = async { while !looks_right() && ticks.changed().await.is_ok() {} };
    let _ = tokio::time::timeout(SHOWN_WITHIN, wait).await;
}

fn decide(api: &Rc<Api>, job: Job) -> Option<Pending> {
    let Job { op, request, caller, reply } = job;
    let id = request.resource.kept();
    let asked = match &op {
        Op::Create(object) if request.name.is_empty() => meta::text(object, "name").to_owned(),
        _ => request.name.clone(),
    };
    let old = api.store().get(id, &request.namespace, &asked).map(|e| e.object());
    match write::decide(op, &request, old.as_ref(), &caller, &api.context) {
        Ok(outcome) => {
            let outcome = if caller.dry_run { dry(outcome) } else { outcome };
            let named = match &outcome.effect {
                Effect::Put(object) | Effect::Ending(object) => Name::of(object),
                _ => Name::new(&request.namespace, &asked),
            };
            Some(Pending { id, name: named, outcome, old, reply })
        }
        Err(failure) => {
            let _ = reply.send(Err(failure));
            None
        }
    }
}

/// Answers as if it were done.
fn dry(outcome: Outcome) -> Outcome {
    let answer = match (&outcome.effect, &outcome.answer) {
        (Effect::Put(object) | Effect::Ending(object), None) => Some(object.clone()),
        _ => outcome.answer,
    };
    Outcome { effect: Effect::None, answer, ..outcome }
}

fn line(pending: &Pending) -> Option<Line> {
    let durable = !matches!(pending.id, EVENTS | LEASES);
    match &pending.outcome.effect {
        Effect::Put(object) | Effect::Ending(object) => Some(Line::put(pending.id, object, durable)),
        Effect::Remove => Some(Line::remove(pending.id, &pending.name, durable)),
        Effect::None => None,
    }
}

fn commit(api: &Rc<Api>, pending: Pending) {
    let (id, name) = (pending.id, pending.name.clone());
    let shown = match &pending.outcome.effect {
        Effect::Put(object) | Effect::Ending(object) => {
            api.publish(id, object.clone());
            api.object(id, &name)
        }
        _ => api.retract(id, &name.namespace, &name.name).and_then(|b| serde_json::from_slice(&b).ok()),
    };
    finish(api, pending, shown);
}

fn finish(_: &Rc<Api>, pending: Pending, shown: Option<Value>) {
    let Pending { id, name, outcome, old, reply } = pending;
    let removed = outcome.effect == Effect::Remove;
    let object = match (outcome.answer, removed) {
        (Some(answer), _) => answer,
        (None, true) => write::deleted(id, &name.name, old.as_ref()),
        (None, false) => shown.or(old).unwrap_or_default(),
    };
    // Whoever asked may be gone.
    let _ = reply.send(Ok(Done { object, warnings: outcome.warnings, code: outcome.code }));
}

/// Takes old events away.
pub async fn expire(api: Weak<Api>) {
    loop {
        tokio::time::sleep(EXPIRE_EVERY).await;
        let Some(api) = api.upgrade() else { return };
        api.expire_events().await;
    }
}

impl Api {
    /// Takes away events that are older than an hour, from the state file as well; done every minute.
    pub async fn expire_events(&self) {
        let now = clock::now().wall;
        let old: Vec<Name> = {
            let store = self.store();
            store.list(EVENTS, None, None).filter(|(_, e)| is_old(&e.object(), now)).map(|(n, _)| n.clone()).collect()
        };
        for Name { namespace, name } in old {
            let (user, manager) = (User::new("longshore", &[]), "longshore".to_owned());
            let caller =
                Caller { user, manager, now, seed: self.next_seed(), dry_run: false, validation: Validation::Ignore, force: false };
            let (namespace, name) = (namespace.into(), name.into());
            let r = Request { verb: "delete", resource: EVENTS, namespace, name, sub: String::new(), rest: String::new() };
            if let Err(failure) = self.submit(Op::Delete(DeleteOptions::default()), r, caller).await {
                tracing::debug!(message = %failure.message, "an old event stays a while");
            }
        }
    }
}

fn is_old(event: &Value, now: Wall) -> bool {
    let times =
        [&event["series"]["lastObservedTime"], &event["lastTimestamp"], &event["eventTime"], &event["metadata"]["creationTimestamp"]];
    let last = times.into_iter().filter_map(Value::as_str).find_map(Wall::parse_rfc3339);
    last.is_some_and(|last| now.since(last) > EVENT_LIFE)
}
