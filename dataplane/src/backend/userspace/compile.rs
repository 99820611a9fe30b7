//! A resolved service to what is listened on, and who gets to which endpoints.
//!
//! Owns the translation of `resolve`'s actions to a relay's: it sees a connection when it is accepted, with its
//! source. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Options;
use crate::config::DetectLocal;
use crate::model::{Cidr, FrontendKey, Protocol};
use crate::resolve::{Action, Frontend, Resolved};

/// Who may come to a frontend, and to which endpoints they get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub cluster: Arc<[SocketAddr]>,
    /// What the outside world gets under externalTrafficPolicy Local.
    pub local: Option<Arc<[SocketAddr]>>,
    /// Empty lets all in.
    pub sources: Box<[Cidr]>,
    pub affinity: Option<Duration>,
}

impl Rule {
    /// Endpoints for a connection from there; none, when it is to be refused.
    pub fn endpoints(&self, source: IpAddr, around: &Around) -> Arc<[SocketAddr]> {
        if !self.sources.is_empty() && !self.sources.iter().any(|range| range.contains(source)) {
            return Arc::default();
        }
        match &self.local {
            Some(local) if !around.is_inside(source) => local.clone(),
            _ => self.cluster.clone(),
        }
    }

    pub fn serves(&self, endpoint: SocketAddr) -> bool {
        self.cluster.contains(&endpoint) || self.local.as_ref().is_some_and(|local| local.contains(&endpoint))
    }
}

/// What tells pods and the node itself from the outside world.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Around {
    pub pods: Vec<Cidr>,
    pub node: Vec<IpAddr>,
}

impl Around {
    /// Interfaces cannot be told when a connection is accepted: detectors that go by them find no pods.
    pub fn of(options: &Options, node: Vec<IpAddr>) -> Around {
        let pods = if let DetectLocal::ClusterCidr(cidrs) = &options.detect_local { cidrs.clone() } else { Vec::new() };
        Around { pods, node }
    }

    fn is_inside(&self, source: IpAddr) -> bool {
        source.is_loopback() || self.node.contains(&source) || self.pods.iter().any(|cidr| cidr.contains(source))
    }
}

/// One frontend of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrance {
    pub key: FrontendKey,
    /// Frontends of one port share their turns and clients.
    pub port_name: Arc<str>,
    /// `None`: nobody listens, and the kernel refuses.
    pub rule: Option<Arc<Rule>>,
}

/// Compiles a service. SCTP is left out.
pub fn compile(resolved: &Resolved) -> Vec<Entrance> {
    let served = resolved.frontends.iter().filter(|frontend| frontend.key.protocol() != Protocol::Sctp);
    served.map(|frontend| Entrance { key: frontend.key, port_name: frontend.port_name.clone(), rule: rule(frontend) }).collect()
}

fn rule(frontend: &Frontend) -> Option<Arc<Rule>> {
    let (cluster, local) = match &frontend.action {
        Action::Forward { endpoints } | Action::ForwardMasked { endpoints } => (endpoints.clone(), None),
        Action::ForwardLocal { cluster, local } => (cluster.clone(), Some(local.clone())),
        Action::Refuse | Action::Drop => return None,
    };
    let affinity = frontend.affinity_seconds.map(|seconds| Duration::from_secs(seconds.into()));
    Some(Arc::new(Rule { cluster, local, sources: frontend.source_ranges.clone(), affinity }))
}

/// Where a frontend is listened on; `node` are the addresses that answer on node ports.
pub fn addresses(key: &FrontendKey, node: &[IpAddr]) -> Vec<SocketAddr> {
    match key {
        FrontendKey::Vip { ip, port, .. } => vec![SocketAddr::new(*ip, *port)],
        FrontendKey::NodePort { port, .. } => node.iter().map(|ip| SocketAddr::new(*ip, *port)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(last: u8) -> Arc<[SocketAddr]> {
        [SocketAddr::from(([10, 1, 0, last], 80))].into()
    }

    #[test]
    fn sources_decide_which_list_they_get() {
        let around = Around { pods: vec![Cidr::parse("10.1.0.0/16").unwrap()], node: vec![[192, 0, 2, 1].into()] };
        let rule = Rule { cluster: list(1), local: Some(list(2)), sources: Box::default(), affinity: None };
        let at = |ip: [u8; 4]| rule.endpoints(ip.into(), &around);
        assert_eq!([at([10, 1, 0, 9]), at([192, 0, 2, 1]), at([127, 0, 0, 1])], [list(1), list(1), list(1)]);
        assert_eq!(at([203, 0, 113, 1]), list(2));
        let guarded = Rule { local: None, sources: [Cidr::parse("203.0.113.0/28").unwrap()].into(), ..rule.clone() };
        assert_eq!(guarded.endpoints([203, 0, 113, 1].into(), &around), list(1));
        assert!(guarded.endpoints([203, 0, 113, 99].into(), &around).is_empty());
        assert!(rule.serves(list(2)[0]) && !guarded.serves(list(2)[0]));
    }
}
