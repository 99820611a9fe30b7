//! The handle to a running data plane.
//!
//! Owns the thread. Everything it does is asking the actor. Tests: the namespace tests.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{oneshot, watch};

use crate::actor::Actor;
use crate::backend::{self, BackendError};
use crate::config::{Change, Config};
use crate::events::Events;
use crate::health::server::ServeError;
use crate::inbox::Inbox;
use crate::netns;
use crate::snapshot::{Snapshot, Status};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start the data plane's thread: {0}")]
    Thread(#[source] io::Error),
    #[error("cannot enter network namespace {path}: {source}")]
    Netns { path: PathBuf, source: io::Error },
    #[error("cannot make the data plane's runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("no IP family to program")]
    NoFamily,
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// The data plane ended before it came so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the data plane has stopped")]
pub struct Stopped;

/// A running data plane. Dropping it stops it and keeps its rules, as a crash would.
#[derive(Debug)]
pub struct Dataplane {
    inbox: Arc<Inbox>,
    status: watch::Receiver<Status>,
    events: Arc<Events>,
    thread: Option<JoinHandle<()>>,
}

impl Dataplane {
    /// Starts a thread with a runtime of its own. Returns once the kernel was seen to have what is needed to read
    /// its rules; nothing is written before [`Change::Synced`].
    pub fn start(config: Config) -> Result<Dataplane, StartError> {
        if config.families.is_empty() {
            return Err(StartError::NoFamily);
        }
        let inbox = Arc::new(Inbox::default());
        let (status_in, status) = watch::channel(Status::default());
        let (started_in, started) = std::sync::mpsc::channel();
        let (actors_inbox, events) = (inbox.clone(), Arc::new(Events::default()));
        let actors_events = events.clone();
        let run = move || match open(config, actors_inbox, status_in, actors_events) {
            Ok((runtime, actor)) => {
                // The caller waits for this.
                let _ = started_in.send(Ok(()));
                runtime.block_on(actor.run());
            }
            Err(error) => {
                let _ = started_in.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("dataplane".into()).spawn(run).map_err(StartError::Thread)?;
        let outcome = started.recv().unwrap_or_else(|_| Err(StartError::Thread(io::Error::other("it ended before it had started"))));
        outcome.map(|()| Dataplane { inbox, status, events, thread: Some(thread) })
    }

    /// Tells of a change; never blocks. Returns the change's number, for [`Dataplane::wait_programmed`].
    pub fn apply(&self, change: Change) -> u64 {
        self.inbox.put(change)
    }

    /// Runs under another configuration from now on: the mode, how pods are told, masquerading, addresses of node ports
    /// and times can change; what cannot is kept as it was. The new rules are made before the old ones go, and
    /// connections live on. Returns the change's number.
    pub fn reconfigure(&self, config: Config) -> u64 {
        self.inbox.reconfigure(config)
    }

    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Returns when the kernel holds the change of this number and all before; 0 is the first full program. There is
    /// no deadline: a kernel that refuses is asked again and again ([`Status::last_error`] says why).
    pub async fn wait_programmed(&self, generation: u64) -> Result<(), Stopped> {
        let mut status = self.status.clone();
        let programmed = |status: &Status| status.ready && status.programmed_generation >= generation;
        status.wait_for(programmed).await.map(drop).map_err(|_| Stopped)
    }

    /// What users should be told, in order; for whoever records events.
    pub fn events(&self) -> Arc<Events> {
        self.events.clone()
    }

    /// What is programmed, per service.
    pub async fn snapshot(&self) -> Result<Snapshot, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.inbox.ask_snapshot(answer);
        answered.await.map_err(|_| Stopped)
    }

    /// Stops and waits for the end. Without `keep_rules` our tables are deleted.
    pub fn shutdown(mut self, keep_rules: bool) {
        self.stop(keep_rules);
    }

    fn stop(&mut self, keep_rules: bool) {
        let Some(thread) = self.thread.take() else { return };
        self.inbox.shut_down(keep_rules);
        if thread.join().is_err() {
            tracing::error!("the data plane's thread panicked");
        }
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.stop(true);
    }
}

fn open(
    config: Config,
    inbox: Arc<Inbox>,
    status: watch::Sender<Status>,
    events: Arc<Events>,
) -> Result<(tokio::runtime::Runtime, Actor), StartError> {
    if let Some(path) = &config.netns {
        netns::enter(path).map_err(|source| StartError::Netns { path: path.clone(), source })?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Runtime)?;
    let entered = runtime.enter();
    let actor = Actor::open(config, inbox, status, events)?;
    drop(entered);
    Ok((runtime, actor))
}

/// Deletes what any backend of ours has in the caller's network namespace or the one given, and nothing else.
pub fn cleanup(netns: Option<&Path>) -> Result<(), StartError> {
    std::thread::scope(|scope| {
        let run = || {
            if let Some(path) = netns {
                netns::enter(path).map_err(|source| StartError::Netns { path: path.into(), source })?;
            }
            backend::cleanup(None).map_err(StartError::from)
        };
        let ended = scope.spawn(run).join();
        ended.unwrap_or_else(|_| Err(StartError::Thread(io::Error::other("it panicked"))))
    })
}
