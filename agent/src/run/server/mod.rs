//! What only the node itself can answer: logs, commands, forwarded ports, and why a pod is as it is.
//!
//! Asks the node's owner through the event loop, between two events; must never keep a copy of state or change
//! any. Objects are the API's business (`run::api`). Tests: `tests/tests/process_cli.rs`, `process_disk.rs`,
//! `runtime_cli.rs`.

mod changes;
mod exec;
mod forward;
mod listen;
mod logs;
mod proxy;
mod relay;

pub use changes::Changes;
pub use listen::{ListenError, SOCKET, listen};

use super::api::{Answer, Node, Reply, json, stream};
use super::event_loop::Question;
use super::events::Recorder;
use crate::api::request::Request;
use crate::api::resource::{NODES, PODS, SERVICES};
use crate::api::{Failure, Query, route};
use crate::node::{NodeState, PodEntry};
use crate::run::clock;
use crate::why;
use futures_util::future::LocalBoxFuture;
use hyper::body::Incoming;
use longshore_cri::client::Client;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A pod as a client names it.
#[derive(Clone, Debug)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    /// Where the client cares for this one alone, and not for another of its name.
    pub uid: Option<String>,
}

impl PodRef {
    pub fn find<'a>(&self, n: &'a NodeState) -> Result<&'a PodEntry, Failure> {
        let found = n.by_name(&self.namespace, &self.name).ok_or_else(|| Failure::missing(PODS.subject(&self.name)))?;
        match &self.uid {
            Some(uid) if *uid != found.desired.pod.metadata.uid => Err(Failure::missing(PODS.subject(&self.name))),
            _ => Ok(found),
        }
    }
}

/// What it needs of the daemon.
#[derive(Clone)]
pub struct Server {
    pub ask: mpsc::Sender<Question>,
    pub changes: Rc<Changes>,
    pub client: Client,
    pub node_name: String,
    pub services: Rc<super::services::Services>,
    /// A stream on which nothing is said for so long is given up.
    pub idle: Duration,
}

impl Server {
    /// Asks the node's owner. Fails only while the daemon ends.
    pub async fn ask<T: 'static>(&self, question: impl FnOnce(&NodeState, &Recorder) -> T + 'static) -> Result<T, Failure> {
        let (to, from) = tokio::sync::oneshot::channel();
        let ask: Question = Box::new(move |n, r| {
            // Nobody waits for the answer any more: fine.
            let _ = to.send(question(n, r));
        });
        self.ask.send(ask).await.map_err(|_| Failure::stopping())?;
        from.await.map_err(|_| Failure::stopping())
    }

    async fn why(self, namespace: String, name: String) -> Answer {
        let pod = name.clone();
        let told = self.ask(move |n, _| why::why(n, &namespace, &pod, clock::now())).await?;
        let unknown = || {
            let mut f = Failure::missing(PODS.subject(&name));
            f.message.push_str("; if its manifest is there, longshore check DIR tells what is wrong with it");
            f
        };
        let told = told.ok_or_else(unknown)?;
        Ok(json(&serde_json::to_value(&told).expect("plain data serialises")))
    }
}

impl Node for Server {
    fn connect(&self, to: Request, request: hyper::Request<Incoming>) -> LocalBoxFuture<'static, Answer> {
        let server = Rc::new(self.clone());
        let query = Query::parse(request.uri().query().unwrap_or_default());
        Box::pin(async move {
            let (namespace, name) = (to.namespace.clone(), to.name.clone());
            match (to.resource, to.sub.as_str()) {
                (PODS, "log") => server.log(namespace, name, &query).await,
                (PODS, "exec") => server.exec(namespace, name, &query, request).await,
                (PODS, "attach") => server.attach(namespace, name, &query, request).await,
                (PODS, "portforward") => server.port_forward(namespace, name, &query, request).await,
                (PODS | SERVICES, "proxy") => server.proxy(to, request).await,
                (NODES, _) => Err(Failure::new(503, "ServiceUnavailable", "this node has no kubelet port to be asked")),
                _ => Err(Failure::no_such_path(request.uri().path())),
            }
        })
    }

    fn other(&self, path: &str, _: &hyper::Request<Incoming>) -> Option<LocalBoxFuture<'static, Answer>> {
        let server = self.clone();
        match route::route(path)? {
            route::Route::Why { namespace, name } => Some(Box::pin(server.why(namespace, name))),
            route::Route::Version => Some(Box::pin(async move { Ok(json(&version(&server.node_name))) })),
        }
    }
}

fn version(node: &str) -> serde_json::Value {
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"), "kubernetes": crate::KUBERNETES_VERSION, "gitVersion": crate::KUBERNETES_VERSION,
        "major": "1", "minor": "36", "platform": format!("linux/{}", crate::run::assemble::architecture()), "node": node, "pid": std::process::id(),
    })
}
