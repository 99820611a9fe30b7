//! Commands in containers: the runtime's streaming server does the talking, this passes its bytes on.

use super::relay::{relay, upgradable};
use super::{Answer, PodRef, Server};
use crate::api::{Failure, Query};
use crate::log::choose::named;
use crate::node::NodeState;
use hyper::Request;
use hyper::body::Incoming;
use longshore_cri::exec::Streams;
use std::rc::Rc;

impl Server {
    pub(super) async fn exec(self: Rc<Self>, namespace: String, name: String, query: &Query, request: Request<Incoming>) -> Answer {
        let container = query.get("container").unwrap_or_default().to_owned();
        let streams = streams(query);
        self.exec_in(PodRef { namespace, name, uid: None }, container, query.all("command"), streams, request).await
    }

    pub(super) async fn attach(self: Rc<Self>, namespace: String, name: String, query: &Query, request: Request<Incoming>) -> Answer {
        let container = query.get("container").unwrap_or_default().to_owned();
        let streams = streams(query);
        self.attach_to(PodRef { namespace, name, uid: None }, container, streams, request).await
    }

    /// Runs a command in a container, on a stream of its own.
    pub async fn exec_in(
        self: Rc<Self>,
        pod: PodRef,
        container: String,
        command: Vec<String>,
        streams: Result<Streams, Failure>,
        request: Request<Incoming>,
    ) -> Answer {
        upgradable(&request)?;
        if command.is_empty() {
            return Err(Failure::bad_request("you must specify at least one command to run: command=..."));
        }
        let streams = some(streams?)?;
        let id = self.running(pod, container).await?;
        let url = self.client.exec_url(&id, &command, streams).await;
        let url = url.map_err(|e| Failure::internal(format!("the runtime does not run the command: {e}")))?;
        relay(&url, request, self.idle).await
    }

    /// Joins the client to the process of a container.
    pub async fn attach_to(
        self: Rc<Self>,
        pod: PodRef,
        container: String,
        streams: Result<Streams, Failure>,
        request: Request<Incoming>,
    ) -> Answer {
        upgradable(&request)?;
        let streams = some(streams?)?;
        let id = self.running(pod, container).await?;
        let url = self.client.attach_url(&id, streams).await;
        let url = url.map_err(|e| Failure::internal(format!("the runtime does not attach: {e}")))?;
        relay(&url, request, self.idle).await
    }

    /// The id of a container that runs.
    pub async fn running(&self, pod: PodRef, container: String) -> Result<Box<str>, Failure> {
        self.ask(move |n, _| running(n, &pod, &container)).await?
    }
}

/// With a terminal both outputs are one.
fn some(s: Streams) -> Result<Streams, Failure> {
    let s = Streams { stderr: s.stderr && !s.tty, ..s };
    if !(s.stdin || s.stdout || s.stderr) {
        return Err(Failure::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(s)
}

fn streams(query: &Query) -> Result<Streams, Failure> {
    Ok(Streams { stdin: query.flag("stdin")?, stdout: query.flag("stdout")?, stderr: query.flag("stderr")?, tty: query.flag("tty")? })
}

fn running(n: &NodeState, pod: &PodRef, container: &str) -> Result<Box<str>, Failure> {
    let (e, name) = (pod.find(n)?, &pod.name);
    let container = named(&e.desired.pod, container)?;
    let record = e.observed.container(&container).filter(|r| r.state.is_running());
    let missing =
        || Failure::internal(format!("container not found ({container:?}): it does not run in pod {name:?}; see longshore why {name}"));
    record.map(|r| r.id.clone()).ok_or_else(missing)
}
