//! Looks at pods in the runtime: all of them, or one.
//!
//! Owns the previous pictures that make a look cheap, the termination messages, and the watch on each
//! container's first process. Must never interpret what it sees.

use super::clock;
use crate::node::event::{Event, Observation};
use crate::plan::view;
use crate::pod::PodUid;
use longshore_cri::client::{Client, Made};
use longshore_cri::exit_watch::{ExitWatch, Watch};
use longshore_cri::labels::{PodIdentity, TerminationMessagePolicy};
use longshore_cri::snapshot::{ContainerState, ObservedContainer, ObservedPod};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Bytes of one termination message file that count, from its end.
const MESSAGE_MAX: u64 = 4096;
/// Bytes and lines of a log that stand in for a message.
const LOG_MAX: u64 = 2048;
const LOG_LINES: usize = 80;

#[derive(Clone)]
pub struct Observer {
    client: Client,
    shared: Rc<RefCell<Shared>>,
}

struct Shared {
    exited: mpsc::Sender<Box<str>>,
    previous: BTreeMap<Arc<str>, Known>,
    exits: ExitWatch,
    /// Whose containers are watched, to name the pod of an exit.
    owners: BTreeMap<Box<str>, Arc<str>>,
}

struct Known {
    pod: Arc<ObservedPod>,
    messages: BTreeMap<Box<str>, Box<str>>,
}

impl Observer {
    /// `exited` receives the id of each container whose first process ended.
    pub fn new(client: Client, exited: mpsc::Sender<Box<str>>) -> Observer {
        let shared = Shared { exits: ExitWatch::new(exited.clone()), exited, previous: BTreeMap::new(), owners: BTreeMap::new() };
        Observer { client, shared: Rc::new(RefCell::new(shared)) }
    }

    pub fn owner(&self, container: &str) -> Option<PodUid> {
        self.shared.borrow().owners.get(container).map(|u| PodUid(u.clone()))
    }

    /// One pod, read anew where anything can have changed.
    pub async fn one(&self, uid: &PodUid) -> Result<Observation, longshore_cri::error::Error> {
        let began = clock::mono();
        let previous = self.shared.borrow().previous.get(&uid.0).map(|k| k.pod.clone());
        let seen = self.client.observe(uid.as_str(), previous.as_deref()).await?;
        let pod = seen.unwrap_or_else(|| match previous {
            Some(p) => ObservedPod { sandboxes: Vec::new(), containers: Vec::new(), ..(*p).clone() },
            None => view::nothing(uid, "", ""),
        });
        Ok(self.keep(Arc::new(pod), began))
    }

    /// One pod after a job that made something in it, did nothing else and did all of it.
    pub async fn made(&self, identity: &PodIdentity, made: &Made<'_>) -> Result<Observation, longshore_cri::error::Error> {
        let began = clock::mono();
        let previous = self.shared.borrow().previous.get(&identity.uid).map(|k| k.pod.clone());
        let nothing = || Arc::new(view::nothing(&PodUid(identity.uid.clone()), &identity.namespace, &identity.name));
        let pod = self.client.observe_made(&previous.unwrap_or_else(nothing), made).await?;
        Ok(self.keep(Arc::new(pod), began))
    }

    /// Every pod of the runtime that bears our labels.
    pub async fn all(&self) -> Result<Vec<Observation>, longshore_cri::error::Error> {
        let began = clock::mono();
        let previous: Vec<Arc<ObservedPod>> = self.shared.borrow().previous.values().map(|k| k.pod.clone()).collect();
        let relist = self.client.list_all(&previous).await?;
        for (uid, error) in &relist.unread {
            tracing::warn!(%uid, %error, "a pod could not be read");
        }
        let unread: Vec<&Arc<str>> = relist.unread.iter().map(|(u, _)| u).collect();
        self.shared.borrow_mut().previous.retain(|uid, _| unread.contains(&uid) || relist.pods.iter().any(|p| p.uid == *uid));
        Ok(relist.pods.into_iter().map(|pod| self.keep(pod, began)).collect())
    }

    fn keep(&self, pod: Arc<ObservedPod>, began: crate::time::Mono) -> Observation {
        let mut shared = self.shared.borrow_mut();
        let mut messages = shared.previous.get(&pod.uid).map(|k| k.messages.clone()).unwrap_or_default();
        messages.retain(|id, _| pod.by_id(id).is_some());
        for c in &pod.containers {
            if matches!(c.state, ContainerState::Exited(_)) && !messages.contains_key(&c.id) {
                messages.insert(c.id.clone(), message(c).into());
            }
            watch(&mut shared, &pod.uid, c);
        }
        if pod.is_empty() {
            shared.previous.remove(&pod.uid);
        } else {
            shared.previous.insert(pod.uid.clone(), Known { pod: pod.clone(), messages: messages.clone() });
        }
        Observation { pod: (*pod).clone(), began, messages }
    }
}

fn watch(shared: &mut Shared, uid: &Arc<str>, c: &ObservedContainer) {
    match (&c.state, c.pid) {
        (ContainerState::Running { started_at }, Some(pid)) if !shared.owners.contains_key(&c.id) => {
            match shared.exits.watch(&c.id, pid, *started_at) {
                Ok(Watch::Watching) => {
                    shared.owners.insert(c.id.clone(), uid.clone());
                }
                Ok(Watch::Gone) => {
                    // Its process ended before it could be watched: as good as an exit.
                    shared.owners.insert(c.id.clone(), uid.clone());
                    let _ = shared.exited.try_send(c.id.clone());
                }
                Err(error) => tracing::debug!(id = %c.id, %error, "the container's exit cannot be watched; the relist will see it"),
            }
        }
        (ContainerState::Exited(_), _) => {
            shared.exits.forget(&c.id);
            shared.owners.remove(&c.id);
        }
        _ => {}
    }
}

/// What the container left behind as its last words.
fn message(c: &ObservedContainer) -> String {
    let Some(exit) = c.state.exit() else { return String::new() };
    let mut text = String::new();
    if let Some(file) = c.termination_message_file() {
        match tail(file, MESSAGE_MAX) {
            Ok(t) => text = t,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => text = format!("Error on reading termination log {file}: {e}"),
        }
    }
    let from_log = c.facts.termination_message_policy == TerminationMessagePolicy::FallbackToLogsOnError;
    if text.is_empty() && from_log && exit.exit_code != 0 && &*exit.reason != "ContainerCannotRun" {
        text = log_tail(&c.log_path);
    }
    text
}

/// The last `max` bytes of a file that the container may have replaced with anything.
fn tail(path: &str, max: u64) -> std::io::Result<String> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let mut f = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = f.metadata()?;
    if !meta.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    f.seek(SeekFrom::Start(meta.len().saturating_sub(max)))?;
    let mut bytes = Vec::new();
    f.take(max).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn log_tail(path: &str) -> String {
    // Each line carries a time stamp, a stream and a tag in front of its text.
    let Ok(raw) = tail(path, LOG_MAX * 4) else { return String::new() };
    let content = |line: &str| line.splitn(4, ' ').nth(3).map(str::to_owned);
    let lines: Vec<String> = raw.lines().filter_map(content).collect();
    let text = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    let start = text.len().saturating_sub(LOG_MAX as usize);
    let start = (start..text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len());
    text[start..].to_owned()
}

/// Looks at one pod and sends what it saw.
pub async fn send(observer: Observer, uid: PodUid, to: mpsc::Sender<Event>) {
    let event = match observer.one(&uid).await {
        Ok(o) => Event::Observed(Box::new(o)),
        Err(error) => {
            tracing::debug!(%uid, %error, "a pod could not be looked at");
            Event::ObserveFailed { uid }
        }
    };
    let _ = to.send(event).await;
}
