//! Work that blocks, on threads of its own: one piece per pod at a time, in the order asked for.
//!
//! File systems may hang (a dead NFS server under a host path) and trees may be large; neither must hold up
//! the loop or another pod. A job that is dropped leaves its piece running, so the pod's next piece waits
//! for it: a volume is never made and removed at once.

use crate::pod::PodUid;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use tokio::sync::{Mutex, OwnedMutexGuard};

#[derive(Clone, Default)]
pub struct Lanes {
    pods: Rc<RefCell<BTreeMap<PodUid, Weak<Mutex<()>>>>>,
}

impl Lanes {
    /// Runs `work` when all earlier work of the pod is done. Never returns while the daemon ends.
    pub async fn run<T: Send + 'static>(&self, uid: &PodUid, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.turn(uid).await.run(work).await
    }

    /// Returns when all earlier work of the pod is done; no other begins before the turn is used or dropped.
    pub async fn turn(&self, uid: &PodUid) -> Turn {
        Turn(self.lane(uid).lock_owned().await)
    }

    fn lane(&self, uid: &PodUid) -> Arc<Mutex<()>> {
        let mut pods = self.pods.borrow_mut();
        if let Some(lane) = pods.get(uid).and_then(Weak::upgrade) {
            return lane;
        }
        pods.retain(|_, lane| lane.strong_count() > 0);
        let lane = Arc::new(Mutex::new(()));
        pods.insert(uid.clone(), Arc::downgrade(&lane));
        lane
    }
}

/// The right to work on one pod's files.
pub struct Turn(#[expect(dead_code, reason = "held, never read")] OwnedMutexGuard<()>);

impl Turn {
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(self);
            result
        });
        match done.await {
            Ok(result) => result,
            Err(e) => match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => std::future::pending().await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_dropped_job_is_waited_for_by_the_pods_next_and_by_no_other_pod() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let lanes = Lanes::default();
            let (one, two) = (PodUid::new("one"), PodUid::new("two"));
            let (began, begun) = mpsc::channel();
            let (go, gate) = mpsc::channel::<()>();
            let said = Arc::new(std::sync::Mutex::new(Vec::new()));
            let (a, b, c) = (said.clone(), said.clone(), said.clone());
            let (first, uid) = (lanes.clone(), one.clone());
            let job = tokio::task::spawn_local(async move {
                let work = move || {
                    began.send(()).unwrap();
                    gate.recv().unwrap();
                    a.lock().unwrap().push("first");
                };
                first.run(&uid, work).await;
            });
            while begun.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            job.abort();
            let (next, uid) = (lanes.clone(), one.clone());
            let waiting = tokio::task::spawn_local(async move { next.run(&uid, move || b.lock().unwrap().push("second")).await });
            lanes.run(&two, move || c.lock().unwrap().push("other")).await;
            go.send(()).unwrap();
            waiting.await.unwrap();
            assert_eq!(*said.lock().unwrap(), ["other", "first", "second"]);
        });
    }
}
