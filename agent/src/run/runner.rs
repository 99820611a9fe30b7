//! Runs jobs: one per pod at a time, pods in order, as many at once as pays.
//!
//! Starting many pods is a scheduling problem: a pod that has begun is finished before another begins, so
//! that the first of a hundred is ready at once instead of all of them at the end. Ends never wait.

use super::executor::Executor;
use crate::node::effect::{Job, JobId};
use crate::node::event::Event;
use crate::pod::PodUid;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

pub struct Runner {
    executor: Executor,
    done: mpsc::Sender<Event>,
    /// Jobs that start things, at most this many at once.
    lanes: usize,
    busy: usize,
    /// By order of the pods; a pod that is under way keeps its place at the front.
    waiting: BTreeMap<u64, Job>,
    running: BTreeMap<PodUid, Running>,
}

struct Running {
    id: JobId,
    urgent: bool,
    abort: AbortHandle,
}

impl Runner {
    pub fn new(executor: Executor, done: mpsc::Sender<Event>, lanes: usize) -> Runner {
        Runner { executor, done, lanes: lanes.max(1), busy: 0, waiting: BTreeMap::new(), running: BTreeMap::new() }
    }

    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    pub fn submit(&mut self, job: Job) {
        if job.urgent {
            self.start(job);
        } else {
            self.waiting.insert(job.order, job);
            self.fill();
        }
    }

    /// A job's event went by: its lane is free.
    pub fn finished(&mut self, uid: &PodUid, id: JobId) {
        if self.running.get(uid).is_some_and(|r| r.id == id)
            && let Some(r) = self.running.remove(uid)
            && !r.urgent
        {
            self.busy -= 1;
        }
        self.fill();
    }

    /// Ends a job early. Its event comes all the same, with what was not done as skipped.
    pub fn cancel(&mut self, uid: &PodUid, id: JobId) {
        if let Some(order) = self.waiting.iter().find(|(_, j)| j.uid == *uid && j.id == id).map(|(o, _)| *o) {
            let job = self.waiting.remove(&order).expect("just found");
            self.report(job.uid, job.id);
        } else if let Some(r) = self.running.get(uid).filter(|r| r.id == id) {
            r.abort.abort();
            self.report(uid.clone(), id);
        }
    }

    fn report(&self, uid: PodUid, job: JobId) {
        let done = self.done.clone();
        tokio::task::spawn_local(async move {
            let _ = done.send(Event::Done { uid, job, results: Vec::new(), observation: None }).await;
        });
    }

    fn fill(&mut self) {
        while self.busy < self.lanes {
            let Some((_, job)) = self.waiting.pop_first() else { return };
            self.busy += 1;
            self.start(job);
        }
    }

    fn start(&mut self, job: Job) {
        let (executor, done) = (self.executor.clone(), self.done.clone());
        let (uid, id, urgent) = (job.uid.clone(), job.id, job.urgent);
        let task = tokio::task::spawn_local(async move {
            let event = executor.run(job).await;
            let _ = done.send(event).await;
        });
        self.running.insert(uid, Running { id, urgent, abort: task.abort_handle() });
    }
}
