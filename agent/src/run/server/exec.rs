//! Commands in containers: the runtime's streaming server does the talking, this passes its bytes on.

use super::relay::{relay, upgradable};
use super::{Answer, Server};
use crate::api::resource::PODS;
use crate::api::{Failure, Query};
use crate::log::choose::named;
use crate::node::NodeState;
use hyper::Request;
use hyper::body::Incoming;
use longshore_cri::exec::Streams;
use std::rc::Rc;

impl Server {
    pub(super) async fn exec(self: Rc<Self>, namespace: String, name: String, query: &Query, request: Request<Incoming>) -> Answer {
        upgradable(&request)?;
        let command = query.all("command");
        if command.is_empty() {
            return Err(Failure::bad_request("you must specify at least one command to run: command=..."));
        }
        let streams = streams(query)?;
        let container = query.get("container").unwrap_or_default().to_owned();
        let id = self.ask(move |n, _| running(n, &namespace, &name, &container)).await??;
        let url = self.client.exec_url(&id, &command, streams).await;
        let url = url.map_err(|e| Failure::internal(format!("the runtime does not run the command: {e}")))?;
        relay(&url, request).await
    }

    pub(super) async fn attach(self: Rc<Self>, namespace: String, name: String, query: &Query, request: Request<Incoming>) -> Answer {
        upgradable(&request)?;
        let streams = streams(query)?;
        let container = query.get("container").unwrap_or_default().to_owned();
        let id = self.ask(move |n, _| running(n, &namespace, &name, &container)).await??;
        let url = self.client.attach_url(&id, streams).await;
        let url = url.map_err(|e| Failure::internal(format!("the runtime does not attach: {e}")))?;
        relay(&url, request).await
    }
}

fn streams(query: &Query) -> Result<Streams, Failure> {
    let tty = query.flag("tty")?;
    // With a terminal both outputs are one.
    let s = Streams { stdin: query.flag("stdin")?, stdout: query.flag("stdout")?, stderr: query.flag("stderr")? && !tty, tty };
    if !(s.stdin || s.stdout || s.stderr) {
        return Err(Failure::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(s)
}

fn running(n: &NodeState, namespace: &str, name: &str, container: &str) -> Result<Box<str>, Failure> {
    let e = n.by_name(namespace, name).ok_or_else(|| Failure::missing(PODS.subject(name)))?;
    let container = named(&e.desired.pod, container)?;
    let record = e.observed.container(&container).filter(|r| r.state.is_running());
    let missing =
        || Failure::internal(format!("container not found ({container:?}): it does not run in pod {name:?}; see longshore why {name}"));
    record.map(|r| r.id.clone()).ok_or_else(missing)
}
