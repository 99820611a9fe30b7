//! What the data plane says about itself: its status, and what it programmed.
//!
//! Owns plain data for people and metrics. Never decides anything.

use std::net::SocketAddr;

use crate::model::{Family, ObjectName};

/// How far the data plane is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The mode in force, as configuration spells it.
    pub mode: &'static str,
    /// The number of the last change that the kernel holds.
    pub programmed_generation: u64,
    /// The first full program is committed.
    pub ready: bool,
    /// Why the last pass failed; `None` after one that worked.
    pub last_error: Option<String>,
    pub counters: Counters,
}

/// Totals since the start, but for those that say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Passes from changed objects to the kernel.
    pub passes: u64,
    pub failed_passes: u64,
    /// Times that a table was read from the kernel as a whole.
    pub kernel_reads: u64,
    /// Operations committed: an element, a rule, a chain.
    pub kernel_writes: u64,
    pub kernel_transactions: u64,
    /// Stale UDP flows deleted.
    pub flows_deleted: u64,
    pub failed_flow_deletions: u64,
    /// Times that somebody else was found to have changed our tables.
    pub foreign_changes: u64,
    /// Now.
    pub services: usize,
    /// Now, in all families.
    pub frontends: usize,
}

/// What is programmed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub status: Status,
    /// By namespace and name, then family.
    pub services: Vec<ServiceSnapshot>,
    /// With the number of the change by which each service's rules came into the kernel.
    pub generations: Vec<(ObjectName, Family, u64)>,
    /// What the kernel counted, where it does.
    pub traffic: Vec<Traffic>,
}

/// What one destination of a service, or one endpoint of it, got since it came into the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    pub service: ObjectName,
    /// `tcp 10.96.0.10:80`, `udp nodePort 30053`.
    pub destination: String,
    /// `None` for the destination as a whole.
    pub endpoint: Option<SocketAddr>,
    /// New connections.
    pub connections: u64,
    /// Of their first packets.
    pub bytes: u64,
}

/// One service in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSnapshot {
    pub namespace: String,
    pub name: String,
    pub family: Family,
    pub frontends: Vec<FrontendSnapshot>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendSnapshot {
    /// `tcp 10.96.0.1:80`, `udp nodePort 30053`.
    pub destination: String,
    /// `balance`, `balance masked`, `local`, `reject` or `drop`; `other` if another service has this destination.
    pub action: &'static str,
    /// In the order of their slots.
    pub endpoints: Vec<SocketAddr>,
    /// Endpoints of this node that the outside world gets under externalTrafficPolicy Local.
    pub local_endpoints: Vec<SocketAddr>,
}
