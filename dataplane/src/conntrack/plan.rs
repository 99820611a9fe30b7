//! Which UDP and SCTP flows a change of services made stale.
//!
//! Owns the rules only. A flow that its service's serving endpoints still answer is never stale, whatever policies or
//! topology say now. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::model::{FrontendKey, ObjectName, Protocol};
use crate::resolve::UdpPort;

/// One tracked flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    pub protocol: Protocol,
    /// Where the client sent it.
    pub original_destination: SocketAddr,
    /// Who answers.
    pub reply_source: SocketAddr,
    /// Its destination was rewritten.
    pub translated: bool,
}

/// For each frontend to look at, the endpoints whose flows stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StaleFlows {
    keep: HashMap<FrontendKey, Vec<SocketAddr>>,
}

/// What each service of one family was last, and the flows that changes since the last look made stale.
#[derive(Debug, Default)]
pub struct Ledger {
    held: HashMap<ObjectName, Vec<UdpPort>>,
    stale: StaleFlows,
}

impl Ledger {
    /// To be told of each service as it is handed to the kernel.
    pub fn note(&mut self, name: &ObjectName, after: &[UdpPort]) {
        let before = self.held.get(name).map_or(&[][..], Vec::as_slice);
        if before == after {
            return;
        }
        self.stale.note(before, after);
        if after.is_empty() {
            self.held.remove(name);
        } else {
            self.held.insert(name.clone(), after.to_vec());
        }
    }

    /// What is stale once the kernel holds all that was noted.
    pub fn take_stale(&mut self) -> StaleFlows {
        std::mem::take(&mut self.stale)
    }
}

/// What the kernel is to filter by, to spare us reading its whole table. UDP or SCTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Narrowing {
    Any(Protocol),
    To(Protocol, SocketAddr),
    ToPort(Protocol, u16),
}

/// Frontends that are looked up one by one; more are found by one reading of their protocol's flows.
const LOOK_UPS: usize = 8;

impl StaleFlows {
    pub fn is_empty(&self) -> bool {
        self.keep.is_empty()
    }

    /// Notes one service's change.
    pub fn note(&mut self, before: &[UdpPort], after: &[UdpPort]) {
        for port in after {
            let old = before.iter().find(|old| old.frontends.first() == port.frontends.first());
            let lost_one = old.is_none_or(|old| old.serving.iter().any(|e| !port.serving.contains(e)));
            // Flows of a time without endpoints, or before the frontend, lead nowhere.
            let first_one = old.is_some_and(|old| old.serving.is_empty() && !port.serving.is_empty());
            for frontend in &port.frontends {
                let new_frontend = old.is_none_or(|old| !old.frontends.contains(frontend));
                if lost_one || first_one || new_frontend {
                    self.keep.insert(*frontend, port.serving.clone());
                }
            }
        }
        let stays = |frontend: &FrontendKey| after.iter().any(|port| port.frontends.contains(frontend));
        for gone in before.iter().flat_map(|port| &port.frontends).filter(|frontend| !stays(frontend)) {
            self.keep.insert(*gone, Vec::new());
        }
    }

    /// Adds later notes, which replace earlier ones on the same frontend.
    pub fn merge(&mut self, later: StaleFlows) {
        self.keep.extend(later.keep);
    }

    /// What to read, each on its own.
    pub fn narrowings(&self) -> Vec<Narrowing> {
        let protocols = [Protocol::Udp, Protocol::Sctp].into_iter();
        let of = |protocol: Protocol| -> Vec<Narrowing> {
            let frontends = self.keep.keys().filter(|key| key.protocol() == protocol);
            // Kernels that do not track SCTP cannot be asked for its ports.
            if frontends.clone().count() > LOOK_UPS || (protocol == Protocol::Sctp && frontends.clone().count() > 0) {
                return vec![Narrowing::Any(protocol)];
            }
            frontends
                .map(|key| match *key {
                    FrontendKey::Vip { ip, port, .. } => Narrowing::To(protocol, SocketAddr::new(ip, port)),
                    FrontendKey::NodePort { port, .. } => Narrowing::ToPort(protocol, port),
                })
                .collect()
        };
        protocols.flat_map(of).collect()
    }

    /// Whether a flow must go. `node_ips` are addresses of this node.
    pub fn is_stale(&self, flow: &Flow, node_ips: &[IpAddr]) -> bool {
        let (ip, port) = (flow.original_destination.ip(), flow.original_destination.port());
        let vip = FrontendKey::Vip { ip, protocol: flow.protocol, port };
        if let Some(keep) = self.keep.get(&vip) {
            return !keep.contains(&flow.reply_source);
        }
        // A pod's flow to another host's port of the same number is none of ours.
        let ours = flow.translated || node_ips.contains(&ip);
        let node_port = FrontendKey::NodePort { protocol: flow.protocol, port };
        ours && self.keep.get(&node_port).is_some_and(|keep| !keep.contains(&flow.reply_source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn vip() -> FrontendKey {
        FrontendKey::Vip { ip: at("10.96.0.10:53").ip(), protocol: Protocol::Udp, port: 53 }
    }

    const NODE_PORT: FrontendKey = FrontendKey::NodePort { protocol: Protocol::Udp, port: 30053 };

    fn dns(serving: &[&str]) -> Vec<UdpPort> {
        vec![UdpPort { frontends: vec![vip(), NODE_PORT], serving: serving.iter().map(|e| at(e)).collect() }]
    }

    fn stale(flows: &StaleFlows, to: &str, from: &str) -> bool {
        let (original_destination, reply_source) = (at(to), at(from));
        let translated = to != from;
        flows.is_stale(&Flow { protocol: Protocol::Udp, original_destination, reply_source, translated }, &[at("192.0.2.1:0").ip()])
    }

    #[test]
    fn flows_to_endpoints_that_went_are_stale_and_others_are_not() {
        let mut flows = StaleFlows::default();
        flows.note(&dns(&["10.244.1.2:53", "10.244.9.9:53"]), &dns(&["10.244.1.2:53"]));
        assert!(stale(&flows, "10.96.0.10:53", "10.244.9.9:53"));
        assert!(stale(&flows, "10.96.0.10:53", "10.96.0.10:53"), "never translated");
        assert!(!stale(&flows, "10.96.0.10:53", "10.244.1.2:53"));
        assert!(!stale(&flows, "192.0.2.1:30053", "10.244.1.2:53"));
        assert!(stale(&flows, "192.0.2.1:30053", "10.244.9.9:53"));
        assert!(!stale(&flows, "8.8.8.8:30053", "8.8.8.8:30053"), "another host's port");
        assert!(!stale(&flows, "10.96.0.11:53", "10.244.9.9:53"));
    }

    #[test]
    fn an_endpoint_that_came_makes_nothing_stale_unless_it_is_the_first() {
        let mut flows = StaleFlows::default();
        flows.note(&dns(&["10.244.1.2:53"]), &dns(&["10.244.1.2:53", "10.244.1.3:53"]));
        assert!(flows.is_empty());
        flows.note(&dns(&[]), &dns(&["10.244.1.2:53"]));
        assert!(stale(&flows, "10.96.0.10:53", "10.96.0.10:53"));
    }

    #[test]
    fn the_last_endpoint_and_the_deleted_service_leave_nothing_behind() {
        for after in [dns(&[]), Vec::new()] {
            let mut flows = StaleFlows::default();
            flows.note(&dns(&["10.244.1.2:53"]), &after);
            assert!(stale(&flows, "10.96.0.10:53", "10.244.1.2:53"));
        }
    }

    #[test]
    fn a_few_frontends_are_looked_up_in_the_kernel_by_their_address() {
        let mut flows = StaleFlows::default();
        let only = |frontend| vec![UdpPort { frontends: vec![frontend], serving: Vec::new() }];
        flows.note(&only(vip()), &[]);
        assert_eq!(flows.narrowings(), [Narrowing::To(Protocol::Udp, at("10.96.0.10:53"))]);
        flows.note(&only(NODE_PORT), &[]);
        assert_eq!(flows.narrowings().len(), 2);
        for port in 1..20 {
            flows.note(&only(FrontendKey::NodePort { protocol: Protocol::Udp, port }), &[]);
        }
        assert_eq!(flows.narrowings(), [Narrowing::Any(Protocol::Udp)]);
    }

    #[test]
    fn sctp_flows_go_as_udp_flows_do_and_apart_from_them() {
        let key = FrontendKey::Vip { ip: at("10.96.0.10:53").ip(), protocol: Protocol::Sctp, port: 53 };
        let mut flows = StaleFlows::default();
        flows.note(&[UdpPort { frontends: vec![key], serving: vec![at("10.244.1.2:53")] }], &[]);
        let flow =
            |protocol| Flow { protocol, original_destination: at("10.96.0.10:53"), reply_source: at("10.244.1.2:53"), translated: true };
        assert!(flows.is_stale(&flow(Protocol::Sctp), &[]));
        assert!(!flows.is_stale(&flow(Protocol::Udp), &[]) && !flows.is_stale(&flow(Protocol::Tcp), &[]));
        assert_eq!(flows.narrowings(), [Narrowing::Any(Protocol::Sctp)]);
    }
}
