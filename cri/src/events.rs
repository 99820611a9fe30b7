//! What the runtime tells by itself: its stream of container events.
//!
//! Owns the reading of that stream. Must never be the only source: events before the stream opened,
//! and while it is broken, are lost, so a relist follows every opening. Runtimes without events
//! answer `Unimplemented`; there [`exit_watch`](crate::exit_watch) sees exits. Tests:
//! `tests/client.rs`.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::client::Client;
use crate::error::{Error, Kind, Verb};
use crate::v1;

/// Something happened to a container or to a sandbox itself: time to observe its pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// `None` where the runtime did not say, as for sandboxes that are gone.
    pub pod_uid: Option<Arc<str>>,
    /// A container's id, or a sandbox's.
    pub container_id: Box<str>,
    pub kind: EventKind,
    /// Nanoseconds since the epoch.
    pub at: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    Created,
    Started,
    Stopped,
    Deleted,
}

impl Client {
    /// Forwards events until the receiver is dropped, or the stream ends or breaks. There is no
    /// sign that the stream is open before its first event: servers in Go send nothing earlier.
    ///
    /// # Errors
    /// `Unimplemented` where the runtime has no events, else what broke the stream.
    pub async fn forward_events(&self, to: mpsc::Sender<ContainerEvent>) -> Result<(), Error> {
        let verb = Verb::GetContainerEvents;
        let failed = |status| Error::from_status(verb, "", &status);
        let mut runtime = self.runtime();
        let opened = runtime.get_container_events(v1::GetEventsRequest {});
        let mut stream = tokio::select! {
            opened = opened => opened.map_err(failed)?.into_inner(),
            () = to.closed() => return Ok(()),
        };
        loop {
            let message = tokio::select! {
                message = stream.message() => message.map_err(failed)?,
                () = to.closed() => return Ok(()),
            };
            let Some(message) = message else {
                return Err(Error { kind: Kind::Unavailable, ..Error::malformed(verb, "", "the stream of events ended") });
            };
            if to.send(ContainerEvent::from_cri(message)).await.is_err() {
                return Ok(());
            }
        }
    }
}

impl ContainerEvent {
    fn from_cri(e: v1::ContainerEventResponse) -> Self {
        let kind = match e.container_event_type() {
            v1::ContainerEventType::ContainerCreatedEvent => EventKind::Created,
            v1::ContainerEventType::ContainerStartedEvent => EventKind::Started,
            v1::ContainerEventType::ContainerStoppedEvent => EventKind::Stopped,
            v1::ContainerEventType::ContainerDeletedEvent => EventKind::Deleted,
        };
        let metadata = e.pod_sandbox_status.and_then(|s| s.metadata);
        let pod_uid = metadata.map(|m| m.uid).filter(|uid| !uid.is_empty());
        ContainerEvent { pod_uid: pod_uid.map(Into::into), container_id: e.container_id.into(), kind, at: e.created_at }
    }
}
