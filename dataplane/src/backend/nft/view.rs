//! A table in words, for snapshots.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::ir::Counter;
use super::program::{ClassKind, Dispatch, FrontendRules, LOCAL_BASE, Refusal, Slot, StickyChain};
use super::sticky::{External, Sticky};
use super::table::Table;
use super::traffic::Counts;
use crate::model::{FrontendKey, ObjectName};
use crate::snapshot::{FrontendSnapshot, ServiceSnapshot, Traffic};

/// The services of a table as they are programmed, by name.
pub fn services(table: &Table) -> Vec<ServiceSnapshot> {
    let mut services: Vec<ServiceSnapshot> = table
        .fragments()
        .map(|(name, fragment)| ServiceSnapshot {
            namespace: name.namespace().into(),
            name: name.name().into(),
            family: table.options().family,
            frontends: fragment.frontends.iter().map(|(key, rules)| frontend(table, key, rules)).collect(),
        })
        .collect();
    services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    services
}

fn frontend(table: &Table, key: &FrontendKey, rules: &Arc<FrontendRules>) -> FrontendSnapshot {
    let loaded = table.have().and_then(|have| have.frontends.get(key));
    let theirs = loaded.is_some_and(|loaded| loaded == rules);
    let (local, cluster): (Vec<&Slot>, Vec<&Slot>) = rules.slots.iter().partition(|slot| slot.index >= LOCAL_BASE);
    let addresses = |slots: Vec<&Slot>| slots.iter().map(|slot| SocketAddr::new(slot.ip, slot.port)).collect();
    let port = match rules.dispatch {
        Some(Dispatch::Sticky(_, id)) => table.want().sticky.values().find(|port| port.id == id),
        _ => None,
    };
    let (mut endpoints, mut local_endpoints): (Vec<SocketAddr>, Vec<SocketAddr>) = (addresses(cluster), addresses(local));
    if let Some(port) = port {
        endpoints.extend(&port.cluster);
        local_endpoints.extend(&port.local);
    }
    FrontendSnapshot {
        destination: key.to_string(),
        action: if theirs { action(rules, port.map(|port| &**port)) } else { "other" },
        endpoints,
        local_endpoints,
    }
}

fn action(rules: &FrontendRules, port: Option<&Sticky>) -> &'static str {
    let kind = match (rules.dispatch, port.map(|port| port.external)) {
        (Some(Dispatch::Class(class)), _) => Some(class.kind),
        (Some(Dispatch::Sticky(StickyChain::External, _)), Some(External::Local)) => Some(ClassKind::Local),
        (Some(Dispatch::Sticky(StickyChain::External, _)), _) => Some(ClassKind::Masked),
        (Some(Dispatch::Sticky(..)), _) => Some(ClassKind::Plain),
        (None, _) => None,
    };
    match (kind, rules.refusal) {
        (Some(ClassKind::Plain), _) => "balance",
        (Some(ClassKind::Masked), _) => "balance masked",
        (Some(ClassKind::Local), _) => "local",
        (None, Some(Refusal::Reject)) => "reject",
        (None, _) => "drop",
    }
}

/// What was counted, by service, destination and endpoint.
pub fn traffic(table: &Table, sums: &HashMap<Counts, Counter>) -> Vec<Traffic> {
    let owners: HashMap<FrontendKey, &ObjectName> =
        table.fragments().flat_map(|(name, fragment)| fragment.frontends.iter().map(move |(key, _)| (*key, name))).collect();
    let mut all: Vec<Traffic> = sums
        .iter()
        .filter_map(|((key, endpoint), counter)| {
            let service = (*owners.get(key)?).clone();
            let Counter { packets, bytes } = *counter;
            Some(Traffic { service, destination: key.to_string(), endpoint: *endpoint, connections: packets, bytes })
        })
        .collect();
    all.sort_by(|a, b| (&a.service, &a.destination, a.endpoint).cmp(&(&b.service, &b.destination, b.endpoint)));
    all
}
