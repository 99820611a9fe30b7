//! The fixed part of our tables: names, types, chains and rules.
//!
//! Owns every rule we write. Base chains have kube-proxy's names, hooks and priorities, and so have the chains they
//! jump to; no set has a name of kube-proxy's with another type. So either proxy's first transaction replaces the
//! other's rules. Tests: `tests`, and the namespace tests (which print the whole with nft).
//!
//! Nothing here is per service. A frontend's map gives its *class*, a number; the dispatch map gives the class's
//! chain; the chain draws a slot, and the endpoint map gives the slot's address. The look-ups stand twice in a row, and
//! each class's chain ends with a rule that takes slot 0: two look-ups can lie on different sides of a commit, and
//! then the first attempt may find nothing.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::ir::{
    Base, Chain, ChainKind, Comparison, CtKey, Expr, Found, Header, Hook, MetaKey, Register, Rule, SET_CONCATENATED, SET_INTERVAL, SET_MAP,
    SetSpec, Side, Structure, Verdict,
};
use super::program::{Class, ClassKind, LOCAL_BASE, Refusal};
use crate::config::DetectLocal;
use crate::model::{Cidr, Family, FrontendKey, Protocol};

pub const TABLE_COMMENT: &str = "rules for kube-proxy";

pub const CLUSTER_IPS: &str = "cluster-ips";
pub const NODE_PORT_IPS: &str = "nodeport-ips";
pub const HAIRPINS: &str = "hairpin-ips";
/// Frontends that only some sources may use, and with each of those sources.
pub const GUARDED_IPS: &str = "guarded-ips";
pub const SOURCE_RANGES: &str = "source-ranges";
pub const REFUSAL_VERDICTS: &str = "refusal-verdicts";
const REJECT_CHAIN: &str = "reject-chain";
/// The ranges that cluster IPs are allocated from; the only chain whose rules come and go.
pub const SERVICE_CIDRS_CHAIN: &str = "service-cidrs-check";

/// A frontend is found by its address, or by its number on any of the node's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    Vip,
    NodePort,
}

impl KeyKind {
    pub const ALL: [KeyKind; 2] = [KeyKind::Vip, KeyKind::NodePort];

    pub fn of(key: &FrontendKey) -> KeyKind {
        match key {
            FrontendKey::Vip { .. } => KeyKind::Vip,
            FrontendKey::NodePort { .. } => KeyKind::NodePort,
        }
    }
}

/// The maps that hold frontends of one kind.
#[derive(Debug, Clone, Copy)]
pub struct FrontendSets {
    /// To the class.
    pub frontends: &'static str,
    /// With the slot, to the endpoint.
    pub endpoints: &'static str,
    /// To the refusal.
    pub refused: &'static str,
    /// From the class to its chain.
    pub dispatch: &'static str,
}

impl FrontendSets {
    pub fn contains(&self, set: &str) -> bool {
        [self.frontends, self.endpoints, self.refused].contains(&set)
    }
}

pub fn frontend_sets(kind: KeyKind) -> FrontendSets {
    match kind {
        KeyKind::Vip => {
            FrontendSets { frontends: "frontend-ips", endpoints: "endpoint-ips", refused: "refused-ips", dispatch: "dispatch-ips" }
        }
        KeyKind::NodePort => FrontendSets {
            frontends: "frontend-nodeports",
            endpoints: "endpoint-nodeports",
            refused: "refused-nodeports",
            dispatch: "dispatch-nodeports",
        },
    }
}

/// Every set we have; their names are also the only ones that elements may belong to.
pub fn set_name(name: &str) -> Option<&'static str> {
    let fixed = [CLUSTER_IPS, NODE_PORT_IPS, HAIRPINS, REFUSAL_VERDICTS, GUARDED_IPS, SOURCE_RANGES];
    let mapped = KeyKind::ALL.map(frontend_sets).map(|s| [s.frontends, s.endpoints, s.refused, s.dispatch]);
    fixed.into_iter().chain(mapped.into_iter().flatten()).find(|known| *known == name)
}

/// Whether the elements of a set count packets.
pub fn counts(set: &str) -> bool {
    KeyKind::ALL.into_iter().any(|kind| frontend_sets(kind).frontends == set)
}

pub use crate::backend::Options;

/// The fixed part of the table.
pub fn structure(options: &Options) -> Structure {
    Structure { chains: static_chains(options), sets: sets(options) }
}

// ---------------------------------------------------------------------------------------------------------- sets

const TYPE_INTEGER: u32 = 4;
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
/// A packet priority: the numbers of classes and refusals go through it.
const TYPE_PRIORITY: u32 = 23;
pub const TYPE_VERDICT: u32 = 0xffff_ff00;

fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, one| all << 6 | one)
}

/// Type and length of an address.
pub fn address_type(family: Family) -> (u32, u32) {
    (if family == Family::V4 { TYPE_IPV4 } else { TYPE_IPV6 }, family.address_len() as u32)
}

fn sets(options: &Options) -> BTreeMap<String, SetSpec> {
    let family = options.family;
    let (address_type, len) = address_type(family);
    let addresses = SetSpec { key_type: address_type, key_len: len, ..SetSpec::default() };
    let pairs = SetSpec { key_type: concatenated(&[address_type; 2]), key_len: 2 * len, ..SetSpec::default() };
    let verdicts = SetSpec {
        flags: SET_MAP,
        key_type: TYPE_PRIORITY,
        key_len: 4,
        data_type: TYPE_VERDICT,
        userdata: userdata::byte_orders(userdata::HOST, userdata::NONE),
        ..SetSpec::default()
    };
    let mut all = BTreeMap::from([
        (CLUSTER_IPS.into(), addresses.clone()),
        (NODE_PORT_IPS.into(), addresses),
        (HAIRPINS.into(), pairs),
        (REFUSAL_VERDICTS.into(), verdicts.clone()),
    ]);
    let vip = [address_type, TYPE_PROTOCOL, TYPE_PORT];
    let guarded = SetSpec { key_type: concatenated(&vip), key_len: len + 8, ..SetSpec::default() };
    let ranges = SetSpec {
        flags: SET_INTERVAL | SET_CONCATENATED,
        key_type: concatenated(&[concatenated(&vip), address_type]),
        key_len: 2 * len + 8,
        ranges: vec![len, 4, 4, len],
        ..SetSpec::default()
    };
    all.insert(GUARDED_IPS.into(), guarded);
    all.insert(SOURCE_RANGES.into(), ranges);
    for kind in KeyKind::ALL {
        let (types, key_len) = match kind {
            KeyKind::Vip => (vec![address_type, TYPE_PROTOCOL, TYPE_PORT], len + 8),
            KeyKind::NodePort => (vec![TYPE_PROTOCOL, TYPE_PORT], 8),
        };
        let numbers = SetSpec {
            flags: SET_MAP,
            key_type: concatenated(&types),
            key_len,
            data_type: TYPE_PRIORITY,
            data_len: 4,
            userdata: userdata::byte_orders(userdata::NONE, userdata::HOST),
            ..SetSpec::default()
        };
        let endpoints = SetSpec {
            flags: SET_MAP,
            key_type: concatenated(&[concatenated(&types), TYPE_INTEGER]),
            key_len: key_len + 4,
            data_type: concatenated(&[address_type, TYPE_PORT]),
            data_len: len + 4,
            userdata: userdata::endpoints(family, kind),
            counter: options.endpoint_counters,
            ..SetSpec::default()
        };
        let names = frontend_sets(kind);
        all.insert(names.refused.into(), numbers.clone());
        all.insert(names.frontends.into(), SetSpec { counter: true, ..numbers });
        all.insert(names.endpoints.into(), endpoints);
        all.insert(names.dispatch.into(), verdicts.clone());
    }
    all
}

/// The notes by which nft prints a set's types: a list of type, length, value. The numbers are nft's own.
mod userdata {
    use super::{Family, KeyKind};

    pub(super) const NONE: u32 = 0;
    pub(super) const HOST: u32 = 1;

    const KEY_BYTE_ORDER: u8 = 0;
    const DATA_BYTE_ORDER: u8 = 1;
    const KEY_TYPE_OF: u8 = 3;
    const DATA_TYPE_OF: u8 = 4;

    fn note(kind: u8, value: &[u8]) -> Vec<u8> {
        let len = u8::try_from(value.len()).expect("notes are short");
        [&[kind, len], value].concat()
    }

    fn numbers(values: &[u32]) -> Vec<u8> {
        values.iter().zip(0..).flat_map(|(value, kind)| note(kind, &value.to_ne_bytes())).collect()
    }

    pub(super) fn byte_orders(key: u32, data: u32) -> Vec<u8> {
        [note(KEY_BYTE_ORDER, &key.to_ne_bytes()), note(DATA_BYTE_ORDER, &data.to_ne_bytes())].concat()
    }

    /// An expression as `typeof` has it: its number, then what it is about.
    fn type_of(expression: u32, about: &[u8]) -> Vec<u8> {
        [note(0, &expression.to_ne_bytes()), note(1, about)].concat()
    }

    fn concatenation(parts: &[Vec<u8>]) -> Vec<u8> {
        let parts: Vec<u8> = parts.iter().zip(0..).flat_map(|(part, index)| note(index, part)).collect();
        type_of(13, &parts)
    }

    fn payload(protocol: u32, field: u32) -> Vec<u8> {
        type_of(7, &numbers(&[protocol, field]))
    }

    /// `typeof [ip daddr .] meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport`
    pub(super) fn endpoints(family: Family, kind: KeyKind) -> Vec<u8> {
        let address = match family {
            Family::V4 => payload(12, 12),
            Family::V6 => payload(13, 9),
        };
        let port = payload(11, 2);
        let l4_protocol = type_of(9, &note(0, &16u32.to_ne_bytes()));
        let random = type_of(23, &numbers(&[1, 2, 0]));
        let mut key = vec![l4_protocol, port.clone(), random];
        if kind == KeyKind::Vip {
            key.insert(0, address.clone());
        }
        let mut notes = byte_orders(NONE, NONE);
        notes.extend(note(KEY_TYPE_OF, &concatenation(&key)));
        notes.extend(note(DATA_TYPE_OF, &concatenation(&[address, port])));
        notes
    }
}

// ------------------------------------------------------------------------------------------------- building blocks

pub const RTN_LOCAL: u32 = 2;
pub const CT_STATE_NEW: u32 = 8;
pub const CT_STATE_INVALID: u32 = 1;
pub const CT_STATUS_DNAT: u32 = 0x20;
const LENGTH_OF_NAME: usize = 16;

fn address_registers(family: Family) -> Register {
    match family {
        Family::V4 => 1,
        Family::V6 => 4,
    }
}

fn address(family: Family, side: Side, to: Register) -> Expr {
    let offset = match (family, side) {
        (Family::V4, Side::Source) => 12,
        (Family::V4, Side::Destination) => 16,
        (Family::V6, Side::Source) => 8,
        (Family::V6, Side::Destination) => 24,
    };
    Expr::Payload { header: Header::Network, offset, len: family.address_len() as u32, to }
}

/// Loads a frontend's key from register 0 on; the second value is the register after it.
fn frontend_key(family: Family, kind: KeyKind) -> (Vec<Expr>, Register) {
    let mut exprs = Vec::new();
    let mut next = 0;
    if kind == KeyKind::Vip {
        exprs.push(address(family, Side::Destination, 0));
        next = address_registers(family);
    }
    exprs.push(Expr::Meta { key: MetaKey::L4Protocol, to: next });
    exprs.push(Expr::Payload { header: Header::Transport, offset: 2, len: 2, to: next + 1 });
    (exprs, next + 2)
}

fn compare(how: Comparison, with: &[u8]) -> Expr {
    Expr::Compare { what: 0, how, with: with.to_vec() }
}

fn has_bit(load: Expr, bit: u32) -> Vec<Expr> {
    let mask = bit.to_ne_bytes().to_vec();
    vec![load, Expr::Bitwise { from: 0, to: 0, mask, xor: vec![0; 4] }, compare(Comparison::NotEqual, &[0; 4])]
}

/// A packet outside the window is not translated back: whoever gets it answers with a reset, which ends the connection.
fn invalid_packets(options: &Options) -> Option<Rule> {
    let is_invalid = has_bit(Expr::Ct { key: CtKey::State, to: 0 }, CT_STATE_INVALID);
    (!options.liberal).then(|| rule([is_invalid, vec![Expr::Verdict(Verdict::Drop)]]))
}

fn is_new() -> Vec<Expr> {
    has_bit(Expr::Ct { key: CtKey::State, to: 0 }, CT_STATE_NEW)
}

fn is_local(side: Side) -> Vec<Expr> {
    vec![Expr::FibType { side, to: 0 }, compare(Comparison::Equal, &RTN_LOCAL.to_ne_bytes())]
}

fn in_cidr(family: Family, side: Side, cidr: &Cidr, how: Comparison) -> Vec<Expr> {
    let zeros = vec![0; family.address_len()];
    vec![
        address(family, side, 0),
        Expr::Bitwise { from: 0, to: 0, mask: cidr.mask(), xor: zeros },
        compare(how, &crate::model::address::octets(cidr.ip)),
    ]
}

fn set_mark(mask: u32, xor: u32) -> Vec<Expr> {
    vec![
        Expr::Meta { key: MetaKey::Mark, to: 0 },
        Expr::Bitwise { from: 0, to: 0, mask: mask.to_ne_bytes().to_vec(), xor: xor.to_ne_bytes().to_vec() },
        Expr::SetMeta { key: MetaKey::Mark, from: 0 },
    ]
}

pub fn mark_for_masquerade(options: &Options) -> Vec<Expr> {
    set_mark(!options.masquerade_mark, options.masquerade_mark)
}

pub fn member(set: &str) -> Expr {
    Expr::Lookup { set: set.into(), key: 0, found: Found::Member }
}

fn jump(chain: &str) -> Expr {
    Expr::Verdict(Verdict::Jump(chain.into()))
}

pub fn rule(parts: impl IntoIterator<Item = Vec<Expr>>) -> Rule {
    Rule { exprs: parts.into_iter().flatten().collect(), comment: None }
}

fn with_comment(comment: &str, rule: Rule) -> Rule {
    Rule { comment: Some(comment.into()), ..rule }
}

/// Ways to see that a packet comes from a pod; any one suffices. Empty without a detector.
fn from_pod(options: &Options) -> Vec<Vec<Expr>> {
    detector(options, Comparison::Equal)
}

/// One way to see that a packet does not come from a pod.
fn not_from_pod(options: &Options) -> Option<Vec<Expr>> {
    let tests = detector(options, Comparison::NotEqual);
    (!tests.is_empty()).then(|| tests.concat())
}

fn detector(options: &Options, how: Comparison) -> Vec<Vec<Expr>> {
    let interface = |name: &str, whole: bool| {
        let mut with = name.as_bytes().to_vec();
        if whole {
            with.resize(LENGTH_OF_NAME, 0);
        }
        vec![vec![Expr::Meta { key: MetaKey::InterfaceName, to: 0 }, compare(how, &with)]]
    };
    match &options.detect_local {
        DetectLocal::None | DetectLocal::NodeCidr => Vec::new(),
        DetectLocal::BridgeInterface(name) => interface(name, true),
        DetectLocal::InterfacePrefix(prefix) => interface(prefix, false),
        DetectLocal::ClusterCidr(cidrs) => {
            let ours = cidrs.iter().filter(|cidr| cidr.family() == options.family);
            ours.map(|cidr| in_cidr(options.family, Side::Source, cidr, how)).collect()
        }
    }
}

// -------------------------------------------------------------------------------------------------- static chains

fn base(kind: ChainKind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { base: Some(Base { kind, hook, priority }), rules }
}

fn plain(rules: Vec<Rule>) -> Chain {
    Chain { base: None, rules }
}

fn static_chains(options: &Options) -> BTreeMap<String, Chain> {
    let new_to = |chain: &str| rule([is_new(), vec![jump(chain)]]);
    let to = |chain: &str| rule([vec![jump(chain)]]);
    let (services, clusters) = ("service-endpoints-check", "cluster-ips-check");
    let firewall = "firewall-check";
    let unanswered = || vec![new_to(services), new_to(clusters)];
    let input = vec![new_to("nodeport-endpoints-check"), new_to(services)];
    let refused = |chain: &str, rules| (chain.to_string(), plain(rules));
    let named = |name: &str, chain: Chain| (name.to_string(), chain);
    BTreeMap::from([
        named("filter-input", base(ChainKind::Filter, Hook::Input, 0, input)),
        named(
            "filter-forward",
            base(ChainKind::Filter, Hook::Forward, 0, invalid_packets(options).into_iter().chain(unanswered()).collect()),
        ),
        named("filter-output", base(ChainKind::Filter, Hook::Output, 0, unanswered())),
        named("nat-prerouting", base(ChainKind::Nat, Hook::Prerouting, -100, vec![to("services")])),
        named("nat-output", base(ChainKind::Nat, Hook::Output, -100, vec![to("services")])),
        named("nat-postrouting", base(ChainKind::Nat, Hook::Postrouting, 100, vec![to("masquerading")])),
        named("filter-prerouting-pre-dnat", base(ChainKind::Filter, Hook::Prerouting, -110, vec![new_to(firewall)])),
        named("filter-output-pre-dnat", base(ChainKind::Filter, Hook::Output, -110, vec![new_to(firewall)])),
        named(firewall, plain(vec![firewall_rule(options.family)])),
        named("services", plain(service_rules(options))),
        named("masquerading", plain(masquerade_rules(options))),
        refused(services, vec![refusal_rule(options, KeyKind::Vip)]),
        refused("nodeport-endpoints-check", vec![refusal_rule(options, KeyKind::NodePort)]),
        refused(clusters, vec![cluster_ip_rule(options), to(SERVICE_CIDRS_CHAIN)]),
        refused(SERVICE_CIDRS_CHAIN, Vec::new()),
        refused(REJECT_CHAIN, vec![rule([vec![Expr::Reject]])]),
    ])
}

fn service_rules(options: &Options) -> Vec<Rule> {
    let family = options.family;
    let mut rules = Vec::new();
    let to_cluster_ip = vec![address(family, Side::Destination, 0), member(CLUSTER_IPS)];
    let outsiders = if options.masquerade_all { Some(Vec::new()) } else { not_from_pod(options) };
    if let Some(outsiders) = outsiders {
        rules.push(rule([to_cluster_ip, outsiders, mark_for_masquerade(options)]));
    }
    let twice = |rule: Rule| [rule.clone(), rule];
    rules.extend(twice(dispatch_rule(family, KeyKind::Vip, Vec::new())));
    rules.extend(twice(dispatch_rule(family, KeyKind::NodePort, to_node_port_address(options))));
    rules
}

fn to_node_port_address(options: &Options) -> Vec<Expr> {
    let family = options.family;
    if !options.node_ports_everywhere {
        return vec![address(family, Side::Destination, 0), member(NODE_PORT_IPS)];
    }
    let loopback = match family {
        Family::V4 => Cidr::parse("127.0.0.0/8"),
        Family::V6 => Cidr::parse("::1/128"),
    };
    let loopback = loopback.expect("loopback prefixes are well formed");
    let mut exprs = is_local(Side::Destination);
    exprs.extend(in_cidr(family, Side::Destination, &loopback, Comparison::NotEqual));
    exprs
}

fn dispatch_rule(family: Family, kind: KeyKind, condition: Vec<Expr>) -> Rule {
    let sets = frontend_sets(kind);
    let class = Expr::Lookup { set: sets.frontends.into(), key: 0, found: Found::To(0) };
    rule([condition, frontend_key(family, kind).0, vec![class], verdict_of_number(sets.dispatch)])
}

fn refusal_rule(options: &Options, kind: KeyKind) -> Rule {
    let condition = match kind {
        KeyKind::Vip => Vec::new(),
        KeyKind::NodePort => to_node_port_address(options),
    };
    let refusal = Expr::Lookup { set: frontend_sets(kind).refused.into(), key: 0, found: Found::To(0) };
    rule([condition, frontend_key(options.family, kind).0, vec![refusal], verdict_of_number(REFUSAL_VERDICTS)])
}

/// Looks a number up that was itself looked up, by way of the packet's priority. The kernel would take it from the
/// register, but `nft list` (1.0.6, Debian's) ends in an assertion on a looked-up key; and verdicts in the large maps
/// themselves would make the kernel walk all of them at each change (2.3 ms at 10,000 services). Only the first packet
/// of a connection to a service comes here, and [`forget_number`] sets its priority back to none.
fn verdict_of_number(set: &str) -> Vec<Expr> {
    vec![
        Expr::SetMeta { key: MetaKey::Priority, from: 0 },
        Expr::Meta { key: MetaKey::Priority, to: 0 },
        Expr::Lookup { set: set.into(), key: 0, found: Found::Verdict },
    ]
}

pub fn forget_number() -> Rule {
    rule([vec![Expr::Immediate { to: 0, value: vec![0; 4] }, Expr::SetMeta { key: MetaKey::Priority, from: 0 }]])
}

fn cluster_ip_rule(options: &Options) -> Rule {
    let exprs = vec![address(options.family, Side::Destination, 0), member(CLUSTER_IPS), Expr::Reject];
    with_comment("Reject traffic to invalid ports of ClusterIPs", rule([exprs]))
}

pub fn service_cidr_rule(family: Family, cidr: &Cidr) -> Rule {
    let exprs = in_cidr(family, Side::Destination, cidr, Comparison::Equal);
    with_comment("Drop traffic to unallocated ClusterIPs", rule([exprs, vec![Expr::Verdict(Verdict::Drop)]]))
}

/// The reverse of [`service_cidr_rule`].
pub fn read_service_cidr(family: Family, rule: &Rule) -> Option<Cidr> {
    let [_, Expr::Bitwise { mask, .. }, Expr::Compare { with, .. }, _] = &rule.exprs[..] else { return None };
    let prefix = mask.iter().map(|byte| byte.count_ones() as u8).sum();
    let cidr = Cidr::new(crate::model::address::from_octets(with)?, prefix)?;
    (service_cidr_rule(family, &cidr) == *rule).then_some(cidr)
}

/// Source ranges bind before translation, which would hide the destination.
fn firewall_rule(family: Family) -> Rule {
    let (key, next) = frontend_key(family, KeyKind::Vip);
    let outside = Expr::Lookup { set: SOURCE_RANGES.into(), key: 0, found: Found::NotMember };
    let drop = Expr::Verdict(Verdict::Drop);
    rule([key, vec![member(GUARDED_IPS), address(family, Side::Source, next), outside, drop]])
}

fn masquerade_rules(options: &Options) -> Vec<Rule> {
    let mark = options.masquerade_mark;
    let marked = has_bit(Expr::Meta { key: MetaKey::Mark, to: 0 }, mark);
    let translated = has_bit(Expr::Ct { key: CtKey::Status, to: 0 }, CT_STATUS_DNAT);
    let to_itself = vec![
        address(options.family, Side::Source, 0),
        address(options.family, Side::Destination, address_registers(options.family)),
        member(HAIRPINS),
    ];
    vec![rule([marked, set_mark(u32::MAX, mark), vec![Expr::Masquerade]]), rule([translated, to_itself, vec![Expr::Masquerade]])]
}

/// The verdicts of refusals, as (number, verdict).
pub fn refusal_verdicts() -> [(u32, Verdict); 2] {
    [(Refusal::Reject.encode(), Verdict::Goto(REJECT_CHAIN.into())), (Refusal::Drop.encode(), Verdict::Drop)]
}

// ------------------------------------------------------------------------------------------------ dispatch chains

/// The name of a class's chain.
pub fn class_chain_name(kind: KeyKind, class: Class) -> String {
    let prefix = match kind {
        KeyKind::Vip => "ip",
        KeyKind::NodePort => "nodeport",
    };
    match class.kind {
        ClassKind::Plain => format!("{prefix}-lb-{}", class.cluster),
        ClassKind::Masked => format!("{prefix}-lb-masq-{}", class.cluster),
        ClassKind::Local => format!("{prefix}-lb-local-{}-{}", class.cluster, class.local),
    }
}

/// A class's chain goes to these others.
pub fn class_needs(class: Class) -> Option<Class> {
    (class.kind == ClassKind::Local).then(|| Class::plain(class.cluster))
}

pub fn class_chain(options: &Options, kind: KeyKind, class: Class) -> Chain {
    let balanced = |count: u16, first: u32| {
        // The second rule is for packets whose first look-up fell into a commit that took the slot away.
        [slot_rule(options.family, kind, u32::from(count), first), slot_rule(options.family, kind, 1, first)]
    };
    let mut rules = vec![forget_number()];
    match class.kind {
        ClassKind::Plain => rules.extend(balanced(class.cluster, 0)),
        ClassKind::Masked => {
            rules.push(rule([mark_for_masquerade(options)]));
            rules.extend(balanced(class.cluster, 0));
        }
        ClassKind::Local => {
            let everywhere = || vec![Expr::Verdict(Verdict::Goto(class_chain_name(kind, Class::plain(class.cluster))))];
            rules.extend(short_circuits(options, everywhere));
            if class.local > 0 {
                rules.extend(balanced(class.local, LOCAL_BASE));
            }
        }
    }
    plain(rules)
}

/// externalTrafficPolicy Local: pods and this node use all endpoints, the node's packets masked.
pub fn short_circuits(options: &Options, everywhere: impl Fn() -> Vec<Expr>) -> Vec<Rule> {
    let pods = from_pod(options).into_iter();
    let mut rules: Vec<Rule> = pods.map(|pod| with_comment("short-circuit pod traffic", rule([pod, everywhere()]))).collect();
    let node = is_local(Side::Source);
    let masked = rule([node.clone(), mark_for_masquerade(options)]);
    rules.push(with_comment("masquerade local traffic", masked));
    rules.push(with_comment("short-circuit local traffic", rule([node, everywhere()])));
    rules
}

/// Loads the packet's source into register 0.
pub fn source_address(family: Family) -> Expr {
    address(family, Side::Source, 0)
}

/// True once in so many times.
pub fn one_of(count: u32) -> Vec<Expr> {
    vec![Expr::Random { modulus: count, offset: 0, to: 0 }, compare(Comparison::Equal, &[0; 4])]
}

/// Sends packets of a protocol to one address.
pub fn translate_to(options: &Options, protocol: Protocol, to: SocketAddr) -> Rule {
    let port = address_registers(options.family);
    let of_protocol = vec![Expr::Meta { key: MetaKey::L4Protocol, to: 0 }, compare(Comparison::Equal, &[protocol.number()])];
    let target = vec![
        Expr::Immediate { to: 0, value: crate::model::address::octets(to.ip()) },
        Expr::Immediate { to: port, value: to.port().to_be_bytes().to_vec() },
        Expr::DestinationNat { address: 0, port },
    ];
    rule([of_protocol, target])
}

fn slot_rule(family: Family, kind: KeyKind, modulus: u32, offset: u32) -> Rule {
    let (key, next) = frontend_key(family, kind);
    let slot = Expr::Random { modulus, offset, to: next };
    let endpoint = Expr::Lookup { set: frontend_sets(kind).endpoints.into(), key: 0, found: Found::To(0) };
    let port = address_registers(family);
    rule([key, vec![slot, endpoint, Expr::DestinationNat { address: 0, port }]])
}
