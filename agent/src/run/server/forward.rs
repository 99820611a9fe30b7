//! Ports of pods on a client's machine: the runtime's streaming server does the talking.

use super::relay::{relay, upgradable};
use super::{Answer, PodRef, Server};
use crate::api::{Failure, Query};
use crate::node::NodeState;
use hyper::Request;
use hyper::body::Incoming;
use std::rc::Rc;

impl Server {
    pub(super) async fn port_forward(self: Rc<Self>, namespace: String, name: String, query: &Query, request: Request<Incoming>) -> Answer {
        self.forward_to(PodRef { namespace, name, uid: None }, query, request).await
    }

    /// Joins the client to ports of a pod.
    pub async fn forward_to(self: Rc<Self>, pod: PodRef, query: &Query, request: Request<Incoming>) -> Answer {
        upgradable(&request)?;
        // SPDY clients name the ports of each stream later.
        let ports = query
            .all("ports")
            .into_iter()
            .chain(query.all("port"))
            .flat_map(|p| p.split(',').map(str::to_owned).collect::<Vec<_>>())
            .map(|p| port(&p))
            .collect::<Result<Vec<_>, _>>()?;
        let sandbox = self.ask(move |n, _| sandbox(n, &pod)).await??;
        let url = self.client.port_forward_url(&sandbox, &ports).await;
        let url = url.map_err(|e| Failure::internal(format!("the runtime does not forward ports: {e}")))?;
        relay(&url, request, self.idle).await
    }
}

fn port(text: &str) -> Result<u16, Failure> {
    text.trim().parse().ok().filter(|p| *p > 0).ok_or_else(|| Failure::bad_request(format!("port {text:?} must be 1 to 65535")))
}

fn sandbox(n: &NodeState, pod: &PodRef) -> Result<Box<str>, Failure> {
    let (e, name) = (pod.find(n)?, &pod.name);
    let ready = e.observed.sandboxes.iter().find(|s| s.ready);
    ready.map(|s| s.id.clone()).ok_or_else(|| Failure::internal(format!("pod {name:?} does not run; see longshore why {name}")))
}
