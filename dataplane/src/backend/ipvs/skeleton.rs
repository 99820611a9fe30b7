//! The rules around IPVS: masquerading, source ranges, and what may not be reached through a service's address.
//!
//! Owns their chains, order and words, which are kube-proxy's. They look packets up in sets, so that a service more or
//! less changes no rule: only the first and last entry of a set does, and a load balancer with source ranges that
//! leave this node out. Never says what is in the sets. Tests: `render`, and `tests/` of this crate's kernel tests.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;

use super::ir::Server;
use super::sets::Set;
use crate::config::DetectLocal;
use crate::model::{Cidr, Family, Protocol};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Nat,
    Filter,
}

impl Table {
    pub fn name(self) -> &'static str {
        match self {
            Table::Nat => "nat",
            Table::Filter => "filter",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    Services,
    Postrouting,
    NodePort,
    LoadBalancer,
    MarkMasq,
    Forward,
    HealthCheck,
    ProxyFirewall,
    SourceRanges,
    IpvsFilter,
    IpvsOutFilter,
}

impl Chain {
    pub const ALL: [Chain; 11] = [
        Chain::Services,
        Chain::Postrouting,
        Chain::NodePort,
        Chain::LoadBalancer,
        Chain::MarkMasq,
        Chain::Forward,
        Chain::HealthCheck,
        Chain::ProxyFirewall,
        Chain::SourceRanges,
        Chain::IpvsFilter,
        Chain::IpvsOutFilter,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Chain::Services => "KUBE-SERVICES",
            Chain::Postrouting => "KUBE-POSTROUTING",
            Chain::NodePort | Chain::HealthCheck => "KUBE-NODE-PORT",
            Chain::LoadBalancer => "KUBE-LOAD-BALANCER",
            Chain::MarkMasq => "KUBE-MARK-MASQ",
            Chain::Forward => "KUBE-FORWARD",
            Chain::ProxyFirewall => "KUBE-PROXY-FIREWALL",
            Chain::SourceRanges => "KUBE-SOURCE-RANGES-FIREWALL",
            Chain::IpvsFilter => "KUBE-IPVS-FILTER",
            Chain::IpvsOutFilter => "KUBE-IPVS-OUT-FILTER",
        }
    }

    pub fn table(self) -> Table {
        match self {
            Chain::Services | Chain::Postrouting | Chain::NodePort | Chain::LoadBalancer | Chain::MarkMasq => Table::Nat,
            _ => Table::Filter,
        }
    }

    /// Whether the iptables backend has a chain of this name, too.
    pub fn is_shared(self) -> bool {
        matches!(self, Chain::Services | Chain::Postrouting | Chain::MarkMasq | Chain::Forward | Chain::ProxyFirewall)
    }
}

/// A rule in a built-in chain that leads to one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// The built-in chain; its table is that of `to`.
    pub from: &'static str,
    pub to: Chain,
    pub comment: &'static str,
}

const fn jump(from: &'static str, to: Chain, comment: &'static str) -> Jump {
    Jump { from, to, comment }
}

/// Each is put at the top of its chain, in this order.
pub const JUMPS: [Jump; 9] = [
    jump("OUTPUT", Chain::Services, "kubernetes service portals"),
    jump("PREROUTING", Chain::Services, "kubernetes service portals"),
    jump("POSTROUTING", Chain::Postrouting, "kubernetes postrouting rules"),
    jump("FORWARD", Chain::Forward, "kubernetes forwarding rules"),
    jump("INPUT", Chain::HealthCheck, "kubernetes health check rules"),
    jump("INPUT", Chain::ProxyFirewall, "kube-proxy firewall rules"),
    jump("FORWARD", Chain::ProxyFirewall, "kube-proxy firewall rules"),
    jump("INPUT", Chain::IpvsFilter, "kubernetes ipvs access filter"),
    jump("OUTPUT", Chain::IpvsOutFilter, "kubernetes ipvs access filter"),
];

/// Which address or port of a packet a set's component is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

use Side::{Destination as DST, Source as SRC};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    Source(Cidr),
    NotSource(Cidr),
    /// A name, or the start of one and `+`.
    NotInterface(String),
    Protocol(Protocol),
    Comment(&'static str),
    Set(Set, &'static [Side]),
    Marked(u32),
    NotMarked(u32),
    New,
    Established,
    FromElsewhere,
    ToHere,
    /// Not by way of a bridge's port.
    NotBridged,
    /// Translated by this virtual server.
    Ipvs(Server),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Return,
    Accept,
    Drop,
    Reject,
    Masquerade,
    /// From a port that nobody can guess, nor two processes choose at once.
    MasqueradeRandom,
    SetMark(u32),
    ClearMark(u32),
    FlipMark(u32),
    Goto(Chain),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub matches: Vec<Match>,
    pub target: Target,
}

/// What the rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skeleton {
    pub family: Family,
    pub masquerade_mark: u32,
    pub masquerade_all: bool,
    pub detect_local: DetectLocal,
    /// Sets with entries, among those that decide rules.
    pub used: BTreeSet<Set>,
    /// Load balancers' addresses that this node may not use.
    pub denied: BTreeSet<Server>,
}

/// Chains with their rules, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules(pub Vec<(Chain, Rule)>);

impl Rules {
    pub fn of(&self, chain: Chain) -> impl Iterator<Item = &Rule> {
        self.0.iter().filter(move |(of, _)| *of == chain).map(|(_, rule)| rule)
    }

    fn add(&mut self, chain: Chain, matches: &[Match], target: Target) {
        self.0.push((chain, Rule { matches: matches.to_vec(), target }));
    }

    /// A rule that says what its set is for.
    fn add_commented(&mut self, chain: Chain, set: Set, sides: &'static [Side], more: &[Match], target: Target) {
        let matches = [&[Match::Comment(set.comment()), Match::Set(set, sides)], more].concat();
        self.add(chain, &matches, target);
    }
}

const ADDRESS: &[Side] = &[DST];
const SERVICE: &[Side] = &[DST, DST];
const SERVICE_AND_SOURCE: &[Side] = &[DST, DST, SRC];

impl Skeleton {
    /// Sets that some rule names.
    pub fn sets(&self) -> impl Iterator<Item = Set> {
        let rules = self.rules();
        let named = |one: &Match| if let Match::Set(set, _) = one { Some(*set) } else { None };
        let sets: BTreeSet<Set> = rules.0.iter().flat_map(|(_, rule)| &rule.matches).filter_map(named).collect();
        sets.into_iter()
    }

    /// All rules.
    pub fn rules(&self) -> Rules {
        let mut rules = Rules::default();
        let loopback = Cidr::parse(if self.family == Family::V4 { "127.0.0.0/8" } else { "::1/128" });
        rules.add(Chain::Services, &[Match::Source(loopback.expect("both are prefixes"))], Target::Return);
        self.forwarding(&mut rules);
        self.cluster_ips(&mut rules);
        self.external_ips(&mut rules);
        rules.add(Chain::Services, &[Match::ToHere], Target::Goto(Chain::NodePort));
        rules.add(Chain::LoadBalancer, &[], Target::Goto(Chain::MarkMasq));
        rules.add(Chain::SourceRanges, &[], Target::Drop);
        let whole = if self.family == Family::V4 { 32 } else { 128 };
        for server in &self.denied {
            let itself = Cidr::new(server.ip, whole).expect("as long as the address");
            rules.add(Chain::IpvsOutFilter, &[Match::Source(itself), Match::Ipvs(*server)], Target::Drop);
        }
        // Whatever other rules block: this must stay at the end of its chain.
        for set in [Set::ClusterIp, Set::LoadBalancer] {
            if self.used.contains(&set) {
                rules.add(Chain::Services, &[Match::Set(set, SERVICE)], Target::Accept);
            }
        }
        self.filters(&mut rules);
        self.masquerading(&mut rules);
        rules
    }

    /// Rules that stand alone for one set each.
    fn forwarding(&self, rules: &mut Rules) {
        let to = Target::Goto;
        type Line = (Set, Chain, Option<Protocol>, &'static [Side], Target);
        let table: [Line; 12] = [
            (Set::LoopBack, Chain::Postrouting, None, SERVICE_AND_SOURCE, Target::Masquerade),
            (Set::LoadBalancer, Chain::Services, None, SERVICE, to(Chain::LoadBalancer)),
            (Set::LoadBalancerLocal, Chain::LoadBalancer, None, SERVICE, Target::Return),
            (Set::NodePortLocalTcp, Chain::NodePort, Some(Protocol::Tcp), ADDRESS, Target::Return),
            (Set::NodePortTcp, Chain::NodePort, Some(Protocol::Tcp), ADDRESS, to(Chain::MarkMasq)),
            (Set::NodePortLocalUdp, Chain::NodePort, Some(Protocol::Udp), ADDRESS, Target::Return),
            (Set::NodePortUdp, Chain::NodePort, Some(Protocol::Udp), ADDRESS, to(Chain::MarkMasq)),
            (Set::NodePortLocalSctp, Chain::NodePort, Some(Protocol::Sctp), SERVICE, Target::Return),
            (Set::NodePortSctp, Chain::NodePort, Some(Protocol::Sctp), SERVICE, to(Chain::MarkMasq)),
            (Set::LoadBalancerFw, Chain::ProxyFirewall, None, SERVICE, to(Chain::SourceRanges)),
            (Set::LoadBalancerSourceCidr, Chain::SourceRanges, None, SERVICE_AND_SOURCE, Target::Return),
            (Set::LoadBalancerSourceIp, Chain::SourceRanges, None, SERVICE_AND_SOURCE, Target::Return),
        ];
        for (set, chain, protocol, sides, target) in table {
            if self.used.contains(&set) {
                let protocol: Vec<Match> = protocol.map(Match::Protocol).into_iter().collect();
                rules.add_commented(chain, set, sides, &protocol, target);
            }
        }
    }

    fn cluster_ips(&self, rules: &mut Rules) {
        if !self.used.contains(&Set::ClusterIp) {
            return;
        }
        let mut add = |sides, more: &[Match], target| rules.add_commented(Chain::Services, Set::ClusterIp, sides, more, target);
        let mask = Target::Goto(Chain::MarkMasq);
        // Without a way to tell pods apart, only this node's own packets: their source is the address itself, which is
        // one of this node's.
        let own: &[Side] = &[SRC, DST];
        let ours: Vec<Cidr> = match &self.detect_local {
            DetectLocal::ClusterCidr(cidrs) => cidrs.iter().filter(|cidr| cidr.family() == self.family).copied().collect(),
            _ => Vec::new(),
        };
        match &self.detect_local {
            _ if self.masquerade_all => add(SERVICE, &[], mask),
            DetectLocal::BridgeInterface(name) => add(SERVICE, &[Match::NotInterface(name.clone())], mask),
            DetectLocal::InterfacePrefix(prefix) => add(SERVICE, &[Match::NotInterface(format!("{prefix}+"))], mask),
            _ => match &ours[..] {
                [] => add(own, &[], mask),
                [one] => add(SERVICE, &[Match::NotSource(*one)], mask),
                several => {
                    add(SERVICE, &[], mask);
                    for cidr in several {
                        add(SERVICE, &[Match::Source(*cidr)], Target::ClearMark(self.masquerade_mark));
                    }
                }
            },
        }
    }

    fn external_ips(&self, rules: &mut Rules) {
        for (set, masked) in [(Set::ExternalIp, true), (Set::ExternalIpLocal, false)] {
            if !self.used.contains(&set) {
                continue;
            }
            if masked {
                rules.add_commented(Chain::Services, set, SERVICE, &[], Target::Goto(Chain::MarkMasq));
            }
            // From other machines, neither from a pod on a bridge nor from here.
            let outside = [Match::NotBridged, Match::FromElsewhere];
            rules.add_commented(Chain::Services, set, SERVICE, &outside, Target::Accept);
            rules.add_commented(Chain::Services, set, SERVICE, &[Match::ToHere], Target::Accept);
        }
    }

    fn filters(&self, rules: &mut Rules) {
        let forwarding = Match::Comment("kubernetes forwarding rules");
        rules.add(Chain::Forward, &[forwarding, Match::Marked(self.masquerade_mark)], Target::Accept);
        let later = Match::Comment("kubernetes forwarding conntrack rule");
        rules.add(Chain::Forward, &[later, Match::Established], Target::Accept);
        rules.add_commented(Chain::HealthCheck, Set::HealthCheckNodePort, ADDRESS, &[], Target::Accept);
        // Nothing of this node may be reached through a service's address but services.
        for set in [Set::LoadBalancer, Set::ClusterIp, Set::ExternalIp, Set::ExternalIpLocal] {
            rules.add(Chain::IpvsFilter, &[Match::Set(set, SERVICE)], Target::Return);
        }
        rules.add(Chain::IpvsFilter, &[Match::Set(Set::HealthCheckNodePort, ADDRESS)], Target::Return);
        rules.add(Chain::IpvsFilter, &[Match::New, Match::Set(Set::IpvsIps, ADDRESS)], Target::Reject);
    }

    fn masquerading(&self, rules: &mut Rules) {
        let mark = self.masquerade_mark;
        rules.add(Chain::Postrouting, &[Match::NotMarked(mark)], Target::Return);
        // A packet that passes here again is not masked again.
        rules.add(Chain::Postrouting, &[], Target::FlipMark(mark));
        let why = Match::Comment("kubernetes service traffic requiring SNAT");
        rules.add(Chain::Postrouting, &[why], Target::MasqueradeRandom);
        rules.add(Chain::MarkMasq, &[], Target::SetMark(mark));
    }
}
