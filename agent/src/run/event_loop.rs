//! Feeds events to the node and its effects to those who carry them out.

use super::clock;
use super::events::{Recorded, Recorder};
use super::images::Images;
use super::observe::{self, Observer};
use super::prober;
use super::runner::Runner;
use super::state_dir::StateDir;
use crate::node::{Effect, Event, NodeState, step};
use crate::pod::PodUid;
use crate::pod::status::PodStatus;
use longshore_cri::client::Client;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

/// How long statuses are gathered before they are written down.
const FLUSH_AFTER: std::time::Duration = std::time::Duration::from_millis(50);

/// A question about the node's state, answered between two events.
pub type Question = Box<dyn FnOnce(&NodeState, &Recorder)>;

/// What others in the daemon want to hear of pods.
pub trait PodListener {
    fn changed(&self, node: &NodeState, uid: &PodUid, status: Option<&Arc<PodStatus>>);
    /// Every pod that is wanted was told of once.
    fn all_told(&self) {}
    /// An Event was recorded.
    fn recorded(&self, _: &Recorded) {}
}

pub struct EventLoop {
    pub node: NodeState,
    pub recorder: Recorder,
    pub client: Client,
    pub observer: Observer,
    pub images: Images,
    pub runner: Runner,
    pub state: Rc<StateDir>,
    pub listeners: Vec<Rc<dyn PodListener>>,
    pub events: mpsc::Receiver<Event>,
    pub to_self: mpsc::Sender<Event>,
    pub questions: mpsc::Receiver<Question>,
    pub flush_at: Option<tokio::time::Instant>,
    pub probes: Rc<prober::Counts>,
    /// When the loop last went round: the watchdog and the health check look at it.
    pub beat: Rc<RefCell<crate::time::Mono>>,
}

impl EventLoop {
    /// Runs until all senders are gone.
    pub async fn run(mut self) {
        loop {
            let wake = self.node.next_wake().map(clock::instant);
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            if self.flush_at.is_none() && self.state.is_dirty() {
                self.flush_at = Some(tokio::time::Instant::now() + FLUSH_AFTER);
            }
            let flush_at = self.flush_at;
            let flush = async {
                match flush_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = flush => {
                    self.flush_at = None;
                    told(self.state.flush());
                }
                e = self.events.recv() => match e {
                    Some(e) => self.handle(e),
                    None => return,
                },
                Some(q) = self.questions.recv() => q(&self.node, &self.recorder),
                () = timer => self.handle(Event::Tick),
            }
            *self.beat.borrow_mut() = clock::mono();
        }
    }

    fn handle(&mut self, e: Event) {
        if let Event::Done { uid, job, .. } = &e {
            self.runner.finished(uid, *job);
        }
        // Labels may change without a change of the status.
        let defined = if let Event::SetPod(p) = &e { Some(p.uid()) } else { None };
        let all_told = matches!(e, Event::SourcesReady);
        let effects = step(&mut self.node, e, clock::now());
        for effect in effects {
            self.carry_out(effect);
        }
        if let Some(uid) = defined {
            self.tell(&uid, None);
        }
        if all_told {
            self.listeners.iter().for_each(|l| l.all_told());
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Observe { uid } => {
                tokio::task::spawn_local(observe::send(self.observer.clone(), uid, self.to_self.clone()));
            }
            Effect::Run(job) => self.runner.submit(*job),
            Effect::Cancel { uid, job } => self.runner.cancel(&uid, job),
            Effect::CheckImage { uid, container, image } => {
                tokio::task::spawn_local(self.images.clone().check(uid, container, image));
            }
            Effect::Pull { uid, container, image, secrets } => {
                tokio::task::spawn_local(self.images.clone().pull(uid, container, image, secrets));
            }
            Effect::Probe(p) => {
                let probed = prober::Probed::of(&self.node, &p);
                let run = prober::counted(self.client.clone(), *p, probed, self.probes.clone(), self.to_self.clone());
                tokio::task::spawn_local(run);
            }
            Effect::Status { uid, status } => {
                told(self.state.write_status(&uid, &status));
                self.tell(&uid, Some(&status));
            }
            Effect::RecordDeletion { uid, since, grace } => {
                match self.state.write_deletion(&uid, since, grace) {
                    Ok(written) => drop(tokio::task::spawn_blocking(move || told(written.make_durable()))),
                    failed => told(failed.map(drop)),
                }
                self.tell(&uid, None);
            }
            Effect::Forget { uid } => {
                self.probes.forget(&uid);
                told(self.state.forget(&uid));
                self.tell(&uid, None);
            }
            Effect::Event(e) => {
                self.recorder.record(*e, clock::now().wall);
                if let Some(recorded) = self.recorder.last() {
                    self.listeners.iter().for_each(|l| l.recorded(recorded));
                }
            }
            Effect::RefreshVolumes { uid, volumes } => {
                let executor = self.runner.executor().clone();
                tokio::task::spawn_local(async move { executor.refresh(&uid, volumes).await });
            }
        }
    }

    fn tell(&self, uid: &PodUid, status: Option<&Arc<PodStatus>>) {
        for l in &self.listeners {
            l.changed(&self.node, uid, status);
        }
    }
}

fn told<E: std::fmt::Display>(r: Result<(), E>) {
    if let Err(error) = r {
        tracing::error!(%error, "state could not be written down; a restart now would forget it");
    }
}
