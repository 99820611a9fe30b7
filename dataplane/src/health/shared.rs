//! What the servers tell: written by the actor, read by the servers' thread.
//!
//! Owns nothing but the lock. Tests: the namespace tests.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::proxy::ProxyHealth;
use super::service::Checks;
use crate::backend::NodeAddresses;
use crate::metrics::Metrics;
use crate::model::Family;

#[derive(Debug)]
pub struct Told {
    pub health: ProxyHealth,
    pub metrics: Metrics,
    pub checks: Checks,
    /// Per family: where health checks of services listen; `None` is every address.
    pub listen: Vec<(Family, Option<NodeAddresses>)>,
    /// As `/proxyMode` spells it.
    pub mode: &'static str,
    /// The effective KubeProxyConfiguration as JSON, or empty.
    pub configuration: String,
}

#[derive(Debug)]
pub struct Shared {
    told: Mutex<Told>,
    /// Health checks of services came, changed, or went; or the addresses did.
    pub checks_changed: Notify,
}

impl Shared {
    pub fn new(told: Told) -> Shared {
        Shared { told: Mutex::new(told), checks_changed: Notify::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, Told> {
        // What stands in there is only counted and replaced: a panic elsewhere leaves it usable.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
