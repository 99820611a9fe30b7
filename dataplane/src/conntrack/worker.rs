//! The thread that deletes stale flows.
//!
//! Owns what waits to be deleted. Reading a tracker with a million entries takes a second, and no service update may
//! wait for that, so it has a thread of its own; it starts with the first work. Tests: the namespace tests.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::exec::delete_stale;
use super::plan::StaleFlows;
use crate::health::shared::Shared as Told;
use crate::model::Family;
use crate::snapshot::Status;

const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Queue {
    waiting: [StaleFlows; 2],
    node_ips: Vec<IpAddr>,
    stop: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing is done to the queue in two steps, so a panic elsewhere leaves it whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deletes stale flows in the network namespace of the thread that first gives it work.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    status: watch::Sender<Status>,
    told: Arc<Told>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub fn new(status: watch::Sender<Status>, node_ips: Vec<IpAddr>, told: Arc<Told>) -> Worker {
        let worker = Worker { shared: Arc::default(), status, told, thread: None };
        worker.shared.lock().node_ips = node_ips;
        worker
    }

    /// This node's addresses, on which node ports answer.
    pub fn set_node_ips(&self, ips: &[IpAddr]) {
        self.shared.lock().node_ips = ips.into();
    }

    /// To be called after the commit that made the flows stale. Of two notes on one frontend the later counts.
    pub fn delete(&mut self, family: Family, stale: StaleFlows) -> io::Result<()> {
        self.shared.lock().waiting[family as usize].merge(stale);
        self.shared.changed.notify_one();
        if self.thread.is_none() {
            let (shared, status, told) = (self.shared.clone(), self.status.clone(), self.told.clone());
            let work = move || work(&shared, &status, &told);
            self.thread = Some(std::thread::Builder::new().name("conntrack".into()).spawn(work)?);
        }
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that deletes stale flows panicked");
        }
    }
}

fn work(shared: &Shared, status: &watch::Sender<Status>, told: &Told) {
    loop {
        let (jobs, node_ips) = {
            let idle = |queue: &mut Queue| !queue.stop && queue.waiting.iter().all(StaleFlows::is_empty);
            let mut queue = shared.changed.wait_while(shared.lock(), idle).unwrap_or_else(PoisonError::into_inner);
            if queue.stop {
                return;
            }
            (std::mem::take(&mut queue.waiting), queue.node_ips.clone())
        };
        let mut failed = false;
        for (family, job) in Family::ALL.into_iter().zip(jobs).filter(|(_, job)| !job.is_empty()) {
            let began = Instant::now();
            let outcome = delete_stale(family, &job, &node_ips);
            let deleted = outcome.as_ref().map_or(0, |deleted| *deleted as u64);
            told.lock().metrics.conntrack_cleaned(family, began.elapsed(), deleted);
            match outcome {
                Ok(deleted) => status.send_modify(|status| status.counters.flows_deleted += deleted as u64),
                Err(error) => {
                    tracing::warn!(%error, %family, "stale UDP flows stay for now");
                    status.send_modify(|status| status.counters.failed_flow_deletions += 1);
                    let queue = &mut shared.lock().waiting[family as usize];
                    let newer = std::mem::replace(queue, job);
                    queue.merge(newer);
                    failed = true;
                }
            }
        }
        if failed {
            let patience = |queue: &mut Queue| !queue.stop;
            drop(shared.changed.wait_timeout_while(shared.lock(), RETRY, patience));
        }
    }
}
