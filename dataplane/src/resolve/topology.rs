//! Which ready endpoints the slice controller's hints leave to this node.
//!
//! Owns the choice of the topology mode of one service port. Tests: `resolve::endpoints`.

use std::sync::Arc;

use crate::model::Endpoint;

/// How hints narrow the ready endpoints of one service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology<'a> {
    /// Hints do not apply.
    Everywhere,
    SameNode,
    SameZone(&'a Arc<str>),
}

impl Topology<'_> {
    /// The mode: node hints first, zone hints next, and neither unless every ready endpoint carries them and at
    /// least one names us (otherwise part of the traffic would have nowhere to go).
    pub fn of<'a, 'e>(endpoints: impl Iterator<Item = &'e Endpoint> + Clone, zone: Option<&'a Arc<str>>) -> Topology<'a> {
        let ready = || endpoints.clone().filter(|e| e.ready);
        let node_hint = |e: &Endpoint| e.hints.as_ref().and_then(|hints| hints.this_node);
        if ready().all(|e| node_hint(e).is_some()) && ready().any(|e| node_hint(e) == Some(true)) {
            return Topology::SameNode;
        }
        let zoned = |e: &Endpoint| e.hints.as_ref().is_some_and(|hints| !hints.zones.is_empty());
        match zone {
            Some(zone) if ready().all(zoned) && ready().any(|e| names_zone(e, zone)) => Topology::SameZone(zone),
            _ => Topology::Everywhere,
        }
    }

    pub fn admits(self, endpoint: &Endpoint) -> bool {
        match self {
            Topology::Everywhere => true,
            Topology::SameNode => endpoint.hints.as_ref().is_some_and(|hints| hints.this_node == Some(true)),
            Topology::SameZone(zone) => names_zone(endpoint, zone),
        }
    }
}

fn names_zone(endpoint: &Endpoint, zone: &Arc<str>) -> bool {
    endpoint.hints.as_ref().is_some_and(|hints| hints.zones.contains(zone))
}
