//! Brings the node's events to the server, in order, as many as `cluster::correlate` lets through.
//!
//! Events are worth less than anything else that is told: they wait for their turn, and the oldest fall out when the
//! server is away for long.

use crate::api::object::{self, Occurrence};
use crate::cluster::correlate::{Correlator, Posted};
use crate::cluster::pace::Limit;
use crate::node::NodeState;
use crate::pod::PodUid;
use crate::pod::status::PodStatus;
use crate::run::client::{Ask, Client, ClientError, JSON, MERGE};
use crate::run::clock;
use crate::run::event_loop::PodListener;
use crate::run::events::Recorded;
use hyper::Method;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Events that wait at most.
const QUEUE: usize = 1000;
/// A server that refuses an event for a reason that may pass is asked so often.
const TRIES: u32 = 12;
const AGAIN: Duration = Duration::from_secs(10);

pub struct Events {
    client: Client,
    node_name: String,
    correlator: RefCell<Correlator>,
    queue: RefCell<VecDeque<Posted>>,
    more: Notify,
    limit: RefCell<Limit>,
}

impl Events {
    pub fn new(client: Client, node_name: &str, per_second: f64, burst: u32) -> Rc<Events> {
        Rc::new(Events {
            client,
            node_name: node_name.to_owned(),
            correlator: RefCell::default(),
            queue: RefCell::default(),
            more: Notify::new(),
            limit: RefCell::new(Limit::new(per_second, burst, clock::mono())),
        })
    }

    pub async fn run(self: Rc<Self>) {
        loop {
            let next = self.queue.borrow_mut().pop_front();
            let Some(posted) = next else {
                self.more.notified().await;
                continue;
            };
            let wait = self.limit.borrow_mut().take(clock::mono());
            tokio::time::sleep(wait).await;
            self.deliver(&posted).await;
        }
    }

    async fn deliver(&self, posted: &Posted) {
        let mut tries = 0;
        while let Err(error) = self.tell(posted).await {
            tries += u32::from(!error.is_outage());
            // A namespace that is going takes none; neither does a server that finds fault with it.
            if matches!(error.code(), 400 | 403 | 404 | 409 | 422) || tries >= TRIES {
                tracing::debug!(%error, reason = %posted.event.reason, "an event could not be told");
                return;
            }
            if !error.is_outage() {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    async fn tell(&self, posted: &Posted) -> Result<(), ClientError> {
        let at = Occurrence { first: posted.first, last: posted.last, count: posted.count, serial: posted.serial };
        let all = format!("/api/v1/namespaces/{}/events", posted.event.namespace);
        if posted.count > 1 {
            let path = format!("{all}/{}", object::event_name(&posted.event, at));
            let patch = json!({"count": posted.count, "lastTimestamp": posted.last.rfc3339(), "message": posted.event.message});
            match self.client.ask(Ask::send(Method::PATCH, &path, MERGE, &patch)).await {
                // It has expired: it is told as new.
                Err(e) if e.code() == 404 => {}
                other => return other.map(drop),
            }
        }
        let mut whole: Value = serde_json::from_slice(&object::event(&posted.event, at, &self.node_name)).expect("just written");
        if let Some(metadata) = whole["metadata"].as_object_mut() {
            metadata.remove("creationTimestamp");
        }
        self.client.ask(Ask::send(Method::POST, &all, JSON, &whole)).await.map(drop)
    }
}

impl PodListener for Events {
    fn changed(&self, _: &NodeState, _: &PodUid, _: Option<&Arc<PodStatus>>) {}

    fn recorded(&self, recorded: &Recorded) {
        let Some(posted) = self.correlator.borrow_mut().take(&recorded.event, clock::now()) else { return };
        let mut queue = self.queue.borrow_mut();
        // The same one, told again before it was told at all.
        queue.retain(|p| p.serial != posted.serial || p.event.message != posted.event.message);
        queue.push_back(posted);
        if queue.len() > QUEUE {
            queue.pop_front();
        }
        drop(queue);
        self.more.notify_one();
    }
}
