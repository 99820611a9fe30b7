//! A service's fragment in words, for snapshots.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::compile::{Fragment, Port};
use crate::model::{Family, FrontendKey, ObjectName};
use crate::resolve::FrontendKind;
use crate::snapshot::{FrontendSnapshot, ServiceSnapshot};

pub fn service(name: &ObjectName, fragment: &Fragment, family: Family) -> ServiceSnapshot {
    let of_port = |port: &Port| port.frontends.iter().map(|(kind, key)| frontend(port, *kind, key)).collect::<Vec<_>>();
    ServiceSnapshot {
        namespace: name.namespace().into(),
        name: name.name().into(),
        family,
        frontends: fragment.ports.iter().flat_map(of_port).collect(),
    }
}

fn frontend(port: &Port, kind: FrontendKind, key: &FrontendKey) -> FrontendSnapshot {
    let internal = kind == FrontendKind::ClusterIp;
    let local_only = internal && port.internal_local;
    let split = !internal && port.external_local;
    let none = if local_only { port.local.is_empty() } else { port.cluster.is_empty() };
    let action = match (port.any, none) {
        (false, _) => "reject",
        (true, true) => "drop",
        _ if split => "local",
        _ if internal => "balance",
        _ => "balance masked",
    };
    let endpoints = if local_only { &port.local } else { &port.cluster };
    FrontendSnapshot {
        destination: key.to_string(),
        action,
        endpoints: endpoints.to_vec(),
        local_endpoints: if split { port.local.to_vec() } else { Vec::new() },
    }
}
