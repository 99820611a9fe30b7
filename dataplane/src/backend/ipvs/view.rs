//! A family's virtual servers in words, for snapshots.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::compile::Front;
use super::ir::Server;
use super::state::State;
use crate::model::FrontendKey;
use crate::snapshot::{FrontendSnapshot, ServiceSnapshot};

/// The services as they are programmed, by name.
pub fn services(state: &State) -> Vec<ServiceSnapshot> {
    let mut services: Vec<ServiceSnapshot> = state
        .fragments()
        .map(|(name, fragment)| ServiceSnapshot {
            namespace: name.namespace().into(),
            name: name.name().into(),
            family: state.family(),
            frontends: fragment.fronts.iter().map(|front| frontend(state, front)).collect(),
        })
        .collect();
    services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    services
}

fn frontend(state: &State, front: &Front) -> FrontendSnapshot {
    let theirs = match front.key {
        FrontendKey::Vip { ip, protocol, port } => {
            let wanted = state.wanted(&Server { ip, protocol, port });
            wanted.is_some_and(|wanted| *wanted == front.wanted)
        }
        FrontendKey::NodePort { .. } => true,
    };
    let endpoints = front.wanted.endpoints.to_vec();
    let action = match (theirs, front.local, endpoints.is_empty()) {
        (false, ..) => "other",
        (_, _, true) => "reject",
        (_, true, false) => "local",
        (_, false, false) if front.kind == crate::resolve::FrontendKind::ClusterIp => "balance",
        _ => "balance masked",
    };
    let (endpoints, local_endpoints) = if front.local { (Vec::new(), endpoints) } else { (endpoints, Vec::new()) };
    FrontendSnapshot { destination: front.key.to_string(), action, endpoints, local_endpoints }
}
