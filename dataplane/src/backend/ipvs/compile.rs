//! Resolved frontends to virtual servers, set entries and addresses.
//!
//! Owns which of them each kind of frontend needs, and what depends on this node's addresses. Never decides where
//! packets may go: that is `resolve`'s. Where IPVS cannot say what was resolved, it does as kube-proxy does there (see
//! `verdict`). Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::ir::{Entry, Item, Server, Spread, Wanted};
use super::sets::Set;
use crate::model::{Cidr, Family, FrontendKey, Protocol};
use crate::netlink::ipvs::{PERSISTENT, SCHEDULER_FLAG_2, Scheduler, whole};
use crate::resolve::{Action, Frontend, FrontendKind, Resolved};

/// How every virtual server spreads connections, but for affinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    pub scheduler: Scheduler,
    pub flags: u32,
}

/// Schedulers whose second flag makes the source port count. kube-proxy sets it for `mh`.
const BY_SOURCE: [&str; 2] = ["sh", "mh"];
const FALL_BACK: u32 = 8;

impl Balance {
    /// Reads a scheduler as it is configured: its name, then flags as `ipvsadm` spells them, as in `sh:sh-port`. Empty
    /// is `rr`. `None` when a flag is unknown or the name is none.
    pub fn parse(text: &str) -> Option<Balance> {
        let (name, words) = text.trim().split_once(':').unwrap_or((text.trim(), ""));
        let name = if name.is_empty() { "rr" } else { name };
        let mut flags = if name == "mh" { SCHEDULER_FLAG_2 } else { 0 };
        for word in words.split(',').filter(|word| !word.is_empty()) {
            flags |= match word.split_once('-') {
                Some((of, "port")) if of == name && BY_SOURCE.contains(&of) => SCHEDULER_FLAG_2,
                Some((of, "fallback")) if of == name && BY_SOURCE.contains(&of) => FALL_BACK,
                Some(("flag", "1")) => FALL_BACK,
                Some(("flag", "2")) => SCHEDULER_FLAG_2,
                Some(("flag", "3")) => 0x20,
                _ => return None,
            };
        }
        Some(Balance { scheduler: Scheduler::new(name)?, flags })
    }
}

/// This node's addresses, as far as rules depend on them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Around {
    /// Those that answer on node ports.
    pub node_ports: Vec<IpAddr>,
    /// Those on links that are not ours. A service's external address that is here already is not put there again.
    pub elsewhere: BTreeSet<IpAddr>,
}

/// One frontend, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Front {
    pub key: FrontendKey,
    pub kind: FrontendKind,
    /// The outside world is served by this node's endpoints, with its own source addresses.
    pub local: bool,
    pub sources: Box<[Cidr]>,
    pub wanted: Arc<Wanted>,
}

/// One service in one family, compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    pub fronts: Vec<Front>,
    /// Endpoints of this node, which may be balanced back to themselves.
    hairpins: BTreeSet<(IpAddr, Protocol, u16)>,
    health: Option<u16>,
}

pub fn compile(resolved: &Resolved, family: Family, balance: Balance) -> Fragment {
    let fronts: Vec<Front> = resolved.frontends.iter().map(|frontend| front(frontend, family, balance)).collect();
    let mut hairpins = BTreeSet::new();
    for front in &fronts {
        let here = front.wanted.endpoints.iter().filter(|endpoint| resolved.hairpins.contains(&endpoint.ip()));
        hairpins.extend(here.map(|endpoint| (endpoint.ip(), front.key.protocol(), endpoint.port())));
    }
    Fragment { fronts, hairpins, health: resolved.health.map(|health| health.port) }
}

fn front(frontend: &Frontend, family: Family, balance: Balance) -> Front {
    let (endpoints, local) = endpoints(&frontend.action);
    let mut endpoints: Vec<SocketAddr> = endpoints
        .iter()
        .map(|endpoint| SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port()))
        .filter(|endpoint| Family::of(endpoint.ip()) == family)
        .collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    let netmask = if family == Family::V4 { 32 } else { 128 };
    let spread = match frontend.affinity_seconds {
        Some(timeout) => Spread { scheduler: balance.scheduler, flags: balance.flags | PERSISTENT, timeout, netmask },
        None => Spread { scheduler: balance.scheduler, flags: balance.flags, timeout: 0, netmask },
    };
    Front {
        key: frontend.key,
        kind: frontend.kind,
        local,
        sources: Cidr::aggregate(frontend.source_ranges.iter().copied()),
        wanted: Arc::new(Wanted { spread, endpoints: endpoints.into() }),
    }
}

/// The endpoints of a virtual server, which has one list for everybody, and whether sources are kept.
fn endpoints(action: &Action) -> (&[SocketAddr], bool) {
    match action {
        Action::Forward { endpoints } | Action::ForwardMasked { endpoints } => (endpoints, false),
        // With none here, pods and this node are served by the others; nobody else is, since the answers to kept
        // sources do not come back this way.
        Action::ForwardLocal { cluster, local } if local.is_empty() => (cluster, true),
        Action::ForwardLocal { local, .. } => (local, true),
        // A virtual server without destinations refuses.
        Action::Refuse | Action::Drop => (&[], false),
    }
}

impl Fragment {
    pub fn is_empty(&self) -> bool {
        *self == Fragment::default()
    }

    pub fn has_node_ports(&self) -> bool {
        self.fronts.iter().any(|front| front.kind == FrontendKind::NodePort)
    }

    /// The virtual servers.
    pub fn servers<'a>(&'a self, around: &'a Around) -> impl Iterator<Item = (Server, &'a Arc<Wanted>)> {
        self.fronts.iter().flat_map(move |front| front.servers(around).into_iter().map(move |server| (server, &front.wanted)))
    }

    /// All else. An item may come more than once.
    pub fn items(&self, around: &Around) -> Vec<Item> {
        let mut items = Vec::new();
        for front in &self.fronts {
            front.items(around, &mut items);
        }
        let hairpins = self.hairpins.iter().map(|(ip, protocol, port)| Entry::IpPortIp(*ip, *protocol, *port, *ip));
        items.extend(hairpins.map(|entry| Item::Entry(Set::LoopBack, entry)));
        items.extend(self.health.map(|port| Item::Entry(Set::HealthCheckNodePort, Entry::Port(port))));
        items
    }

    /// Load balancers' addresses that this node may not use itself.
    pub fn denied(&self) -> impl Iterator<Item = Server> {
        self.fronts.iter().filter_map(Front::denied)
    }
}

impl Front {
    fn servers(&self, around: &Around) -> Vec<Server> {
        match self.key {
            FrontendKey::Vip { ip, protocol, port } => vec![Server { ip, protocol, port }],
            FrontendKey::NodePort { protocol, port } => around.node_ports.iter().map(|ip| Server { ip: *ip, protocol, port }).collect(),
        }
    }

    fn items(&self, around: &Around, items: &mut Vec<Item>) {
        match self.key {
            FrontendKey::NodePort { protocol, port } => self.node_port_items(protocol, port, around, items),
            FrontendKey::Vip { ip, protocol, port } => {
                let mut add = |set: Set, entry: Entry| items.push(Item::Entry(set, entry));
                let service = Entry::IpPort(ip, protocol, port);
                match self.kind {
                    FrontendKind::ClusterIp | FrontendKind::NodePort => add(Set::ClusterIp, service),
                    FrontendKind::ExternalIp if self.local => add(Set::ExternalIpLocal, service),
                    FrontendKind::ExternalIp => add(Set::ExternalIp, service),
                    FrontendKind::LoadBalancer => {
                        add(Set::LoadBalancer, service);
                        if self.local {
                            add(Set::LoadBalancerLocal, service);
                        }
                        if !self.sources.is_empty() {
                            add(Set::LoadBalancerFw, service);
                        }
                        for source in &self.sources {
                            if is_just(source, ip) {
                                add(Set::LoadBalancerSourceIp, Entry::IpPortIp(ip, protocol, port, ip));
                            } else {
                                add(Set::LoadBalancerSourceCidr, Entry::IpPortNet(ip, protocol, port, *source));
                            }
                        }
                    }
                }
                if self.kind == FrontendKind::ClusterIp || !around.elsewhere.contains(&ip) {
                    items.extend([Item::Address(ip), Item::Entry(Set::IpvsIps, Entry::Ip(ip))]);
                }
            }
        }
    }

    fn node_port_items(&self, protocol: Protocol, port: u16, around: &Around, items: &mut Vec<Item>) {
        let (all, local) = Set::node_ports(protocol);
        let entries: Vec<Entry> = match protocol {
            // No bitmap tells SCTP's ports from others.
            Protocol::Sctp => around.node_ports.iter().map(|ip| Entry::IpPort(*ip, protocol, port)).collect(),
            Protocol::Tcp | Protocol::Udp => vec![Entry::Port(port)],
        };
        let sets = [Some(all), self.local.then_some(local)];
        items.extend(sets.into_iter().flatten().flat_map(|set| entries.iter().map(move |entry| Item::Entry(set, *entry))));
    }

    fn denied(&self) -> Option<Server> {
        let FrontendKey::Vip { ip, protocol, port } = self.key else { return None };
        // `resolve` lets the address itself in where it lets this node in.
        let restricted = self.kind == FrontendKind::LoadBalancer && !self.sources.is_empty();
        (restricted && !self.sources.iter().any(|source| source.contains(ip))).then_some(Server { ip, protocol, port })
    }
}

fn is_just(cidr: &Cidr, ip: IpAddr) -> bool {
    cidr.ip == ip && cidr.prefix == whole(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 1, 0, last], 8080))
    }

    fn list(lasts: &[u8]) -> Arc<[SocketAddr]> {
        lasts.iter().copied().map(address).collect()
    }

    fn frontend(kind: FrontendKind, action: Action, ranges: &[&str]) -> Frontend {
        let key = match kind {
            FrontendKind::NodePort => FrontendKey::NodePort { protocol: Protocol::Sctp, port: 30080 },
            _ => FrontendKey::Vip { ip: [192, 0, 2, 9].into(), protocol: Protocol::Tcp, port: 80 },
        };
        let source_ranges = ranges.iter().map(|range| Cidr::parse(range).unwrap()).collect();
        Frontend { key, kind, port_name: "".into(), action, affinity_seconds: None, source_ranges }
    }

    fn fragment(frontends: Vec<Frontend>) -> Fragment {
        let resolved = Resolved { frontends, hairpins: vec![[10, 1, 0, 1].into()], ..Resolved::default() };
        compile(&resolved, Family::V4, Balance::parse("").unwrap())
    }

    fn around(node_ports: &[[u8; 4]], elsewhere: &[[u8; 4]]) -> Around {
        Around {
            node_ports: node_ports.iter().map(|ip| IpAddr::from(*ip)).collect(),
            elsewhere: elsewhere.iter().map(|ip| IpAddr::from(*ip)).collect(),
        }
    }

    fn printed(fragment: &Fragment, around: &Around) -> Vec<String> {
        let print = |item: &Item| match item {
            Item::Entry(set, entry) => format!("{} {entry}", set.name(Family::V4)),
            Item::Address(ip) => format!("address {ip}"),
        };
        fragment.items(around).iter().map(print).collect()
    }

    #[test]
    fn schedulers_are_read_with_their_flags() {
        let read = |text: &str| Balance::parse(text).map(|b| (b.scheduler.name().to_string(), b.flags));
        assert_eq!(read(""), Some(("rr".into(), 0)));
        assert_eq!(read("mh"), Some(("mh".into(), 0x10)));
        assert_eq!(read("mh:mh-fallback"), Some(("mh".into(), 0x18)));
        assert_eq!(read("sh:sh-port,sh-fallback"), Some(("sh".into(), 0x18)));
        assert_eq!(read("fo:flag-3"), Some(("fo".into(), 0x20)));
        assert_eq!(read("rr:rr-port"), None);
        assert_eq!(read("sh:mh-port"), None);
        for name in ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sed", "nq", "fo", "ovf", "twos"] {
            assert_eq!(read(name), Some((name.into(), 0)));
        }
    }

    #[test]
    fn a_restricted_load_balancer_has_its_sources_in_sets() {
        let action = Action::ForwardMasked { endpoints: list(&[1, 2]) };
        let service = fragment(vec![frontend(FrontendKind::LoadBalancer, action.clone(), &["203.0.113.0/24", "192.0.2.9/32"])]);
        let expected = [
            "KUBE-LOAD-BALANCER 192.0.2.9,tcp:80",
            "KUBE-LOAD-BALANCER-FW 192.0.2.9,tcp:80",
            "KUBE-LOAD-BALANCER-SOURCE-IP 192.0.2.9,tcp:80,192.0.2.9",
            "KUBE-LOAD-BALANCER-SOURCE-CIDR 192.0.2.9,tcp:80,203.0.113.0/24",
            "address 192.0.2.9",
            "KUBE-IPVS-IPS 192.0.2.9",
            "KUBE-LOOP-BACK 10.1.0.1,tcp:8080,10.1.0.1",
        ];
        assert_eq!(printed(&service, &Around::default()), expected);
        assert_eq!(service.denied().count(), 0);
        let service = fragment(vec![frontend(FrontendKind::LoadBalancer, action, &["203.0.113.0/24"])]);
        assert_eq!(service.denied().count(), 1, "this node is not in the range");
    }

    #[test]
    fn an_address_of_another_link_is_not_put_on_ours() {
        let action = Action::ForwardLocal { cluster: list(&[2]), local: list(&[]) };
        let service = fragment(vec![frontend(FrontendKind::ExternalIp, action, &[])]);
        let elsewhere = around(&[], &[[192, 0, 2, 9]]);
        assert_eq!(printed(&service, &elsewhere), ["KUBE-EXTERNAL-IP-LOCAL 192.0.2.9,tcp:80"]);
        assert_eq!(service.servers(&elsewhere).count(), 1);
        assert_eq!(printed(&service, &Around::default()).len(), 3);
    }

    #[test]
    fn node_ports_have_a_server_on_each_address_of_the_node() {
        let action = Action::ForwardLocal { cluster: list(&[1, 2]), local: list(&[1]) };
        let service = fragment(vec![frontend(FrontendKind::NodePort, action, &[])]);
        let around = around(&[[192, 0, 2, 1], [198, 51, 100, 1]], &[]);
        let servers: Vec<String> = service.servers(&around).map(|(server, _)| server.to_string()).collect();
        assert_eq!(servers, ["sctp 192.0.2.1:30080", "sctp 198.51.100.1:30080"]);
        let expected = [
            "KUBE-NODE-PORT-SCTP-HASH 192.0.2.1,sctp:30080",
            "KUBE-NODE-PORT-SCTP-HASH 198.51.100.1,sctp:30080",
            "KUBE-NODE-PORT-LOCAL-SCTP-HASH 192.0.2.1,sctp:30080",
            "KUBE-NODE-PORT-LOCAL-SCTP-HASH 198.51.100.1,sctp:30080",
            "KUBE-LOOP-BACK 10.1.0.1,sctp:8080,10.1.0.1",
        ];
        assert_eq!(printed(&service, &around), expected);
    }

    #[test]
    fn affinity_is_persistence_by_whole_addresses() {
        let mut frontend = frontend(FrontendKind::ClusterIp, Action::Forward { endpoints: list(&[3, 1]) }, &[]);
        frontend.affinity_seconds = Some(10800);
        let service = fragment(vec![frontend]);
        let wanted = &service.fronts[0].wanted;
        assert_eq!((wanted.spread.flags, wanted.spread.timeout, wanted.spread.netmask), (PERSISTENT, 10800, 32));
        assert_eq!(wanted.endpoints[..], [address(1), address(3)]);
    }

    #[test]
    fn services_that_go_nowhere_have_a_server_without_destinations() {
        for action in [Action::Refuse, Action::Drop] {
            let service = fragment(vec![frontend(FrontendKind::ClusterIp, action, &[])]);
            assert!(service.fronts[0].wanted.endpoints.is_empty());
        }
    }
}
