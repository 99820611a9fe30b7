//! The node's lease: renewed every ten seconds, whatever else the server is asked for.

use crate::cluster::node_object::{LEASE_SECONDS, LEASES, lease};
use crate::cluster::pace::{Backoff, stretched};
use crate::run::client::{Ask, Client, ClientError, JSON, MERGE, chance};
use crate::run::clock;
use hyper::Method;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const RENEW: Duration = Duration::from_secs(LEASE_SECONDS as u64 / 4);
const JITTER: f64 = 0.04;
/// Of one request.
const WITHIN: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(200);
const RETRY_AT_MOST: Duration = Duration::from_secs(7);

/// Renews until the daemon ends. `uid` is the Node's, once it is known.
pub async fn keep(client: Client, name: String, uid: Rc<RefCell<Option<String>>>) {
    let mut backoff = Backoff::new(RETRY, RETRY_AT_MOST);
    loop {
        let owner = uid.borrow().clone();
        let wait = match renew(&client, &name, owner.as_deref()).await {
            Ok(()) => {
                backoff.reset();
                stretched(RENEW, JITTER, chance())
            }
            Err(e) if e.is_outage() => Duration::ZERO,
            Err(error) => {
                tracing::warn!(%error, "the lease of this node could not be renewed; trying again");
                backoff.next(chance())
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn renew(client: &Client, name: &str, uid: Option<&str>) -> Result<(), ClientError> {
    let all = format!("/apis/coordination.k8s.io/v1/namespaces/{LEASES}/leases");
    let one = format!("{all}/{name}");
    let whole = lease(name, uid, clock::now().wall);
    let mut patch = json!({"spec": whole["spec"]});
    if let owners @ Value::Array(_) = &whole["metadata"]["ownerReferences"] {
        patch["metadata"] = json!({"ownerReferences": owners});
    }
    match client.ask(Ask::send(Method::PATCH, &one, MERGE, &patch).urgent(WITHIN)).await {
        Err(e) if e.code() == 404 => client.ask(Ask::send(Method::POST, &all, JSON, &whole).urgent(WITHIN)).await.map(drop),
        other => other.map(drop),
    }
}
