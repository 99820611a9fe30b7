//! A table in words, for snapshots.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::SocketAddr;
use std::sync::Arc;

use super::program::{Class, ClassKind, FrontendRules, LOCAL_BASE, Refusal, Slot};
use super::table::Table;
use crate::model::FrontendKey;
use crate::snapshot::{FrontendSnapshot, ServiceSnapshot};

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
    FrontendSnapshot {
        destination: key.to_string(),
        action: if theirs { action(rules) } else { "other" },
        endpoints: addresses(cluster),
        local_endpoints: addresses(local),
    }
}

fn action(rules: &FrontendRules) -> &'static str {
    match (rules.class, rules.refusal) {
        (Some(Class { kind: ClassKind::Plain, .. }), _) => "balance",
        (Some(Class { kind: ClassKind::Masked, .. }), _) => "balance masked",
        (Some(Class { kind: ClassKind::Local, .. }), _) => "local",
        (None, Some(Refusal::Reject)) => "reject",
        (None, _) => "drop",
    }
}
