//! What containerd knows and can, and its CRI service does not: how far downloads are, and the end of a task
//! that its CRI service lost sight of.
//!
//! When a caller goes away in the middle of StartContainer (a daemon that is killed, a deadline), containerd
//! may have made the task already and forget to delete it. The container reads Exited then, and cannot be
//! removed before containerd restarts: "cannot delete running task". Its task service, on the same socket,
//! can still delete it. Must never be used on a container that CRI says runs. Tests:
//! `tests/tests/runtime_leftovers.rs`.

use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::client::Client;
use crate::error::{Error, Verb};

mod v1 {
    #![allow(clippy::all, missing_docs)]
    tonic::include_proto!("containerd.services.tasks.v1");
}
mod content {
    #![allow(clippy::all, missing_docs)]
    tonic::include_proto!("containerd.services.content.v1");
}
use content::content_client::ContentClient;
use v1::tasks_client::TasksClient;

/// Where containerd keeps what it does for CRI.
const NAMESPACE: &str = "k8s.io";
/// How long a killed task may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

impl Error {
    /// A container that cannot be removed because of a task of which CRI knows nothing.
    pub fn is_leftover_task(&self) -> bool {
        self.verb == Verb::RemoveContainer
            && self.code == Code::FailedPrecondition
            && self.description.contains("cannot delete running task")
    }
}

/// Something that is being written into containerd's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Kind and digest: `layer-sha256:…`.
    pub reference: String,
    /// Bytes.
    pub done: u64,
    /// Bytes; 0 where it is not known.
    pub total: u64,
}

impl Client {
    /// All downloads under way, of any pull. `Unimplemented` on other runtimes.
    pub async fn downloads(&self) -> Result<Vec<Download>, Error> {
        let request = in_namespace(content::ListStatusesRequest { filters: Vec::new() });
        let answer = ContentClient::new(self.channel()).list_statuses(request).await;
        let statuses = answer.map_err(|e| Error::from_status(Verb::PullImage, "", &e))?.into_inner().statuses;
        let bytes = |n: i64| u64::try_from(n).unwrap_or(0);
        Ok(statuses.into_iter().map(|s| Download { reference: s.r#ref, done: bytes(s.offset), total: bytes(s.total) }).collect())
    }

    /// Kills and deletes the task of a container that CRI says has ended. No task is no error.
    pub async fn delete_leftover_task(&self, container_id: &str) -> Result<(), Error> {
        let mut tasks = TasksClient::new(self.channel());
        // A task without a process refuses the signal; the deletion tells whether that matters.
        let _ = tasks.kill(in_namespace(v1::KillRequest { container_id: container_id.into(), signal: 9, all: true })).await;
        let deadline = tokio::time::Instant::now() + END_LIMIT;
        loop {
            let deleted = tasks.delete(in_namespace(v1::DeleteTaskRequest { container_id: container_id.into() })).await;
            match deleted {
                Ok(_) => return Ok(()),
                Err(e) if e.code() == Code::NotFound => return Ok(()),
                Err(e) if tokio::time::Instant::now() >= deadline => {
                    return Err(Error::from_status(Verb::RemoveContainer, container_id, &e));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

fn in_namespace<T>(message: T) -> Request<T> {
    let mut request = crate::client::request(message, Some(END_LIMIT));
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
    request
}
