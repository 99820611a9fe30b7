//! The fixed part of the rules: chains that every node has, what stands in them, and the jumps to them.
//!
//! Owns kube-proxy's chain names, jumps and comments; older and newer versions, and `--cleanup`, find them by their
//! exact text. Tests: `tests`, and the golden tables of the namespace tests.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::{IpAddr, Ipv4Addr};

use super::ir::{Address, Match, Place, Rule, State, Table, Target};
use super::names::{BuiltIn, Chain, Fixed};
use crate::backend::Options as Common;
use crate::config::{Config, IptablesConfig, NodePortAddresses};
use crate::model::{Cidr, Family};

/// Counts packets that the connection tracker finds invalid.
pub const INVALID_DROPPED: &str = "ct_state_invalid_dropped_pkts";
/// Counts connections to node ports on 127.0.0.1.
pub const LOCALHOST_ACCEPTED: &str = "localhost_nps_accepted_pkts";

/// What the rules depend on besides services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub common: Common,
    /// Node ports answer on 127.0.0.1, too. Never so with IPv6, whose loopback cannot be routed.
    pub localhost_node_ports: bool,
    /// The node's connection tracker takes packets outside the window (`nf_conntrack_tcp_be_liberal`), so invalid ones
    /// are few, and none is dropped for it.
    pub liberal: bool,
    /// Accounting objects exist.
    pub accounting: bool,
    /// Addresses that answer on node ports, when not all do.
    pub node_port_ips: Vec<IpAddr>,
}

impl Options {
    /// By configuration; addresses and accounting are told later.
    pub fn of(config: &Config, own: &IptablesConfig, family: Family, liberal: bool) -> Options {
        let common = Common::of(config, family);
        let loopback_listed = match &config.node_port_addresses {
            NodePortAddresses::Cidrs(cidrs) => cidrs.iter().any(|cidr| cidr.contains(IpAddr::from([127, 0, 0, 1]))),
            NodePortAddresses::All | NodePortAddresses::Primary => false,
        };
        let localhost_node_ports = own.localhost_node_ports && family == Family::V4 && (common.node_ports_everywhere || loopback_listed);
        Options { common, localhost_node_ports, liberal, accounting: false, node_port_ips: Vec::new() }
    }

    pub fn family(&self) -> Family {
        self.common.family
    }

    /// Every loopback address of the family.
    pub fn loopback(&self) -> Cidr {
        let (ip, prefix) = match self.family() {
            Family::V4 => (IpAddr::from([127, 0, 0, 0]), 8),
            Family::V6 => (IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16]), 128),
        };
        Cidr::new(ip, prefix).expect("the prefix fits the address")
    }
}

/// An address alone.
pub fn host(ip: IpAddr) -> Cidr {
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    Cidr::new(ip, bits).expect("the prefix fits the address")
}

pub fn within(within: Cidr) -> Option<Address> {
    Some(Address { within, not: false })
}

pub fn not_within(within: Cidr) -> Option<Address> {
    Some(Address { within, not: true })
}

/// Every chain that must be there, in the order of its making.
pub fn places() -> Vec<Place> {
    let filter = [Fixed::Services, Fixed::ExternalServices, Fixed::Forward, Fixed::NodePorts, Fixed::ProxyFirewall, Fixed::Firewall];
    let nat = [Fixed::Services, Fixed::NodePorts, Fixed::Postrouting, Fixed::MarkMasq];
    let of = |table: Table, chains: &[Fixed]| chains.iter().map(move |chain| (table, Chain::Fixed(*chain))).collect::<Vec<_>>();
    let canaries = Table::ALL.map(|table| (table, Chain::Fixed(Fixed::Canary)));
    [of(Table::Filter, &filter), of(Table::Nat, &nat), canaries.into()].concat()
}

/// Chains whose rules are ours alone and the same whatever the services.
pub fn fixed(options: &Options) -> Vec<(Place, Vec<Rule>)> {
    vec![
        ((Table::Filter, Chain::Fixed(Fixed::Forward)), forward(options)),
        ((Table::Nat, Chain::Fixed(Fixed::Postrouting)), postrouting(options)),
        ((Table::Nat, Chain::Fixed(Fixed::MarkMasq)), vec![Rule::to(mark_masq(options.common.masquerade_mark))]),
    ]
}

fn mark_masq(mark: u32) -> Target {
    Target::Mark { value: mark, mask: mark }
}

/// Takes the mark off again.
pub fn unmark_masq(options: &Options) -> Target {
    Target::Mark { value: 0, mask: options.common.masquerade_mark }
}

fn marked(options: &Options, not: bool) -> Match {
    let mark = options.common.masquerade_mark;
    Match::Mark { value: mark, mask: mark, not }
}

fn states(states: &[State], not: bool) -> Match {
    Match::Conntrack { states: states.into(), not }
}

fn forward(options: &Options) -> Vec<Rule> {
    let mut rules = Vec::new();
    if !options.liberal {
        let mut invalid = Rule::to(Target::Drop).when(states(&[State::Invalid], false));
        if options.accounting {
            invalid = invalid.when(Match::Account(INVALID_DROPPED.into()));
        }
        rules.push(invalid);
    }
    rules.push(Rule::to(Target::Accept).comment("kubernetes forwarding rules").when(marked(options, false)));
    let known = states(&[State::Related, State::Established], false);
    rules.push(Rule::to(Target::Accept).comment("kubernetes forwarding conntrack rule").when(known));
    rules
}

fn postrouting(options: &Options) -> Vec<Rule> {
    vec![
        Rule::to(Target::Return).when(marked(options, true)),
        // A packet that passes here again is not masqueraded again.
        Rule::to(Target::Mark { value: options.common.masquerade_mark, mask: 0 }),
        Rule::to(Target::Masquerade { random: true }).comment("kubernetes service traffic requiring SNAT"),
    ]
}

/// The rule that answers CVE-2020-8558, where node ports on 127.0.0.1 make it necessary. The kubelet has the same, to
/// the letter, in the same chain, which may hold others of its own: so the chain is never emptied.
pub fn martian_guard(options: &Options) -> Option<Rule> {
    let loopback = options.loopback();
    options.localhost_node_ports.then(|| Rule {
        source: not_within(loopback),
        destination: within(loopback),
        ..Rule::to(Target::Drop)
            .comment("block incoming localnet connections")
            .when(states(&[State::Related, State::Established, State::Dnat], true))
    })
}

/// The last rules of nat's KUBE-SERVICES.
pub fn to_node_ports(options: &Options) -> Vec<Rule> {
    const COMMENT: &str = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
    let rule = || Rule::jump(Chain::Fixed(Fixed::NodePorts)).comment(COMMENT);
    if options.common.node_ports_everywhere {
        let spared = (!options.localhost_node_ports).then(|| not_within(options.loopback())).flatten();
        return vec![Rule { destination: spared, ..rule().when(Match::DestinationIsLocal) }];
    }
    let loopback = options.localhost_node_ports.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let ips = options.node_port_ips.iter().copied().filter(|ip| !ip.is_loopback()).chain(loopback);
    ips.map(|ip| Rule { destination: within(host(ip)), ..rule() }).collect()
}

/// A jump from a built-in chain, in the order in which they are put at its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    pub table: Table,
    pub from: BuiltIn,
    pub to: Fixed,
    new_only: bool,
    comment: &'static str,
}

impl Jump {
    pub fn rule(&self) -> Rule {
        let mut rule = Rule::jump(Chain::Fixed(self.to));
        if self.new_only {
            rule = rule.when(states(&[State::New], false));
        }
        if self.comment.is_empty() { rule } else { rule.comment(self.comment) }
    }

    /// The kubelet's chain outlives us.
    pub fn is_ours_alone(&self) -> bool {
        self.to != Fixed::Firewall
    }
}

/// Whether the ipvs backend has a chain of this name there, too.
pub fn is_shared_with_ipvs(table: Table, chain: Fixed) -> bool {
    match table {
        Table::Nat => matches!(chain, Fixed::Services | Fixed::Postrouting | Fixed::MarkMasq),
        Table::Filter => matches!(chain, Fixed::Forward | Fixed::ProxyFirewall),
        Table::Mangle => false,
    }
}

const fn jump(table: Table, from: BuiltIn, to: Fixed, new_only: bool, comment: &'static str) -> Jump {
    Jump { table, from, to, new_only, comment }
}

const EXTERNAL: &str = "kubernetes externally-visible service portals";
const PORTALS: &str = "kubernetes service portals";
const FIREWALL: &str = "kubernetes load balancer firewall";

pub const JUMPS: [Jump; 14] = [
    jump(Table::Filter, BuiltIn::Input, Fixed::ExternalServices, true, EXTERNAL),
    jump(Table::Filter, BuiltIn::Forward, Fixed::ExternalServices, true, EXTERNAL),
    jump(Table::Filter, BuiltIn::Input, Fixed::NodePorts, false, "kubernetes health check service ports"),
    jump(Table::Filter, BuiltIn::Forward, Fixed::Services, true, PORTALS),
    jump(Table::Filter, BuiltIn::Output, Fixed::Services, true, PORTALS),
    jump(Table::Filter, BuiltIn::Forward, Fixed::Forward, false, "kubernetes forwarding rules"),
    jump(Table::Filter, BuiltIn::Input, Fixed::ProxyFirewall, true, FIREWALL),
    jump(Table::Filter, BuiltIn::Output, Fixed::ProxyFirewall, true, FIREWALL),
    jump(Table::Filter, BuiltIn::Forward, Fixed::ProxyFirewall, true, FIREWALL),
    jump(Table::Nat, BuiltIn::Output, Fixed::Services, false, PORTALS),
    jump(Table::Nat, BuiltIn::Prerouting, Fixed::Services, false, PORTALS),
    jump(Table::Nat, BuiltIn::Postrouting, Fixed::Postrouting, false, "kubernetes postrouting rules"),
    jump(Table::Filter, BuiltIn::Input, Fixed::Firewall, false, ""),
    jump(Table::Filter, BuiltIn::Output, Fixed::Firewall, false, ""),
];
