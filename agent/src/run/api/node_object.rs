//! Shows a lone node its own Node object and lease; what they say is `cluster::node_object`'s.
//!
//! Must never decide anything: conditions follow from what the runtime said last.

use super::Show;
use crate::api::resource::{LEASES, NODES};
use crate::cluster::node_object::{self, About, Health, LEASE_SECONDS};
use crate::run::clock;
use crate::run::event_loop::Question;
use crate::time::Wall;
use serde_json::Value;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often the conditions are looked at, and how often the lease is renewed.
const LOOK: Duration = Duration::from_secs(1);
const RENEW: Duration = Duration::from_secs(LEASE_SECONDS as u64 / 4);
/// How often a status is told anew that did not change.
const REPORT: Duration = Duration::from_secs(300);

/// What the node knows of its runtime. None: the daemon is ending.
pub async fn health(ask: &mpsc::Sender<Question>) -> Option<Health> {
    let (to, from) = tokio::sync::oneshot::channel();
    let question: Question = Box::new(move |n, _| {
        // The daemon may be ending.
        let _ = to.send(Health { runtime: n.runtime_error.clone(), network: n.network_error.clone(), ..Health::default() });
    });
    ask.send(question).await.ok()?;
    from.await.ok()
}

/// Shows the node until the daemon ends.
pub async fn keep(show: Rc<Show>, ask: mpsc::Sender<Question>, about: About) {
    let born = clock::now().wall;
    let mut shown: Option<(Health, Value, Wall)> = None;
    let mut renewed: Option<Wall> = None;
    while let Some(health) = health(&ask).await {
        let now = clock::now().wall;
        if shown.as_ref().is_none_or(|(h, _, told)| *h != health || now.since(*told) >= REPORT) {
            let before = shown.as_ref().map_or(&Value::Null, |(_, status, _)| &status["conditions"]);
            let mut node = node_object::node(&about, &health, before, now);
            node["metadata"]["creationTimestamp"] = born.rfc3339().into();
            let status = node["status"].clone();
            show.set(NODES, node);
            shown = Some((health, status, now));
        }
        if renewed.is_none_or(|at| now.since(at) >= RENEW) {
            show.set(LEASES, node_object::lease(show.node_name(), None, now));
            renewed = Some(now);
        }
        tokio::time::sleep(LOOK).await;
    }
}
