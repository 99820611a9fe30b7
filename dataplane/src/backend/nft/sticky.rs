//! Service ports with ClientIP affinity: chains and sets of their own, as kube-proxy has them.
//!
//! Owns the shape, in both directions. Each endpoint has a set of the clients that it served, which the kernel itself
//! fills and empties; a client in no set is balanced, and remembered if there is room. The other frontends of our table
//! have no chains of their own, because each chain makes every commit dearer; services with affinity are few. Tests:
//! `tests`, `sim`, and the namespace tests.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::diff::dispatch_element;
use super::ir::{Chain, Expr, Op, Rule, SET_EVAL, SET_TIMEOUT, SetSpec, Structure, Verdict};
use super::names;
use super::program::{Dispatch, Element, StickyChain};
use super::schema::{self, KeyKind, Options};
use crate::model::Protocol;
use crate::model::address::from_octets;

/// Most clients that one endpoint remembers. Spoofed packets cannot fill the kernel's memory.
pub const CLIENTS: u32 = 262_144;

/// What external destinations of the service port do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum External {
    None,
    /// The cluster list, with this node's address as the source.
    Masked,
    /// externalTrafficPolicy Local.
    Local,
}

/// One service port in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// Stands for the port in the maps, so it is the port's alone.
    pub id: u32,
    pub protocol: Protocol,
    /// How long a client stays with its endpoint after its last connection.
    pub seconds: u32,
    /// Ascending.
    pub cluster: Box<[SocketAddr]>,
    pub local: Box<[SocketAddr]>,
    pub external: External,
}

fn chain_name(kind: StickyChain, base: &str) -> String {
    let prefix = match kind {
        StickyChain::Service => "service",
        StickyChain::Local => "local",
        StickyChain::External => "external",
    };
    format!("{prefix}-{base}")
}

fn endpoint_chain(base: &str, endpoint: SocketAddr) -> String {
    format!("endpoint-{}", names::endpoint(base, endpoint))
}

fn affinity_set(base: &str, endpoint: SocketAddr) -> String {
    format!("affinity-{}", names::endpoint(base, endpoint))
}

/// Whether a set is one that the kernel fills with clients.
pub fn is_affinity_set(name: &str) -> bool {
    name.starts_with("affinity-")
}

fn endpoints(sticky: &Sticky) -> BTreeSet<SocketAddr> {
    sticky.cluster.iter().chain(&sticky.local).copied().collect()
}

fn kinds(sticky: &Sticky) -> impl Iterator<Item = StickyChain> {
    let service = (!sticky.cluster.is_empty()).then_some(StickyChain::Service);
    let local = (!sticky.local.is_empty()).then_some(StickyChain::Local);
    let external = (sticky.external != External::None).then_some(StickyChain::External);
    [service, local, external].into_iter().flatten()
}

/// Chains and sets of one service port.
pub fn structure(options: &Options, base: &str, sticky: &Sticky) -> Structure {
    let mut chains = BTreeMap::new();
    let mut sets = BTreeMap::new();
    for endpoint in endpoints(sticky) {
        sets.insert(affinity_set(base, endpoint), clients(options, sticky.seconds));
        chains.insert(endpoint_chain(base, endpoint), endpoint_rules(options, base, sticky.protocol, endpoint));
    }
    for kind in kinds(sticky) {
        let chain = match kind {
            StickyChain::Service => balanced(options, base, &sticky.cluster),
            StickyChain::Local => balanced(options, base, &sticky.local),
            StickyChain::External => external(options, base, sticky),
        };
        chains.insert(chain_name(kind, base), chain);
    }
    Structure { chains, sets }
}

/// The dispatch elements that lead to the port's chains.
pub fn dispatch(base: &str, sticky: &Sticky) -> Vec<Element> {
    let element = |key: KeyKind, kind| dispatch_element(key, Dispatch::Sticky(kind, sticky.id), chain_name(kind, base));
    let mut all: Vec<Element> = kinds(sticky).map(|kind| element(KeyKind::Vip, kind)).collect();
    if sticky.external != External::None {
        all.push(element(KeyKind::NodePort, StickyChain::External));
    }
    all
}

fn clients(options: &Options, seconds: u32) -> SetSpec {
    let (key_type, key_len) = schema::address_type(options.family);
    SetSpec { flags: SET_EVAL | SET_TIMEOUT, key_type, key_len, size: CLIENTS, timeout_ms: u64::from(seconds) * 1000, ..SetSpec::default() }
}

fn goto(chain: String) -> Expr {
    Expr::Verdict(Verdict::Goto(chain))
}

fn balanced(options: &Options, base: &str, endpoints: &[SocketAddr]) -> Chain {
    let mut rules = vec![schema::forget_number()];
    for endpoint in endpoints {
        let known = vec![schema::source_address(options.family), schema::member(&affinity_set(base, *endpoint))];
        rules.push(schema::rule([known, vec![goto(endpoint_chain(base, *endpoint))]]));
    }
    // One of so many that are left, each time: even odds for all.
    let mut left = endpoints.len() as u32;
    for endpoint in endpoints {
        let drawn = if left > 1 { schema::one_of(left) } else { Vec::new() };
        rules.push(schema::rule([drawn, vec![goto(endpoint_chain(base, *endpoint))]]));
        left -= 1;
    }
    Chain { base: None, rules }
}

fn external(options: &Options, base: &str, sticky: &Sticky) -> Chain {
    let mut rules = vec![schema::forget_number()];
    let everywhere = || vec![goto(chain_name(StickyChain::Service, base))];
    if sticky.external == External::Masked {
        rules.push(schema::rule([schema::mark_for_masquerade(options)]));
        rules.push(schema::rule([everywhere()]));
    } else {
        rules.extend(schema::short_circuits(options, everywhere));
        if !sticky.local.is_empty() {
            rules.push(schema::rule([vec![goto(chain_name(StickyChain::Local, base))]]));
        }
    }
    Chain { base: None, rules }
}

fn endpoint_rules(options: &Options, base: &str, protocol: Protocol, endpoint: SocketAddr) -> Chain {
    let remember = Expr::Remember { set: affinity_set(base, endpoint), key: 0 };
    // A set without room ends its rule, so the translation is in another.
    let remember = schema::rule([vec![schema::source_address(options.family), remember]]);
    Chain { base: None, rules: vec![remember, schema::translate_to(options, protocol, endpoint)] }
}

/// Operations, in one transaction, that turn a port's chains from one shape into another. Elements that lead there must
/// be deleted before the last shape goes.
pub fn change(options: &Options, base: &str, have: Option<&Sticky>, want: Option<&Sticky>) -> Vec<Op> {
    let of = |sticky: Option<&Sticky>| sticky.map(|s| (structure(options, base, s), dispatch(base, s))).unwrap_or_default();
    let ((have, led), (want, leads)) = (of(have), of(want));
    let mut ops = Vec::new();
    let ways = |from: &[Element], to: &[Element]| from.iter().filter(|e| !to.contains(e)).cloned().collect::<Vec<_>>();
    ops.extend(ways(&led, &leads).into_iter().map(|e| Op::DeleteElement { set: e.set, key: e.key, upto: None }));
    let same_set = |name: &String, spec: &SetSpec, other: &Structure| other.sets.get(name) == Some(spec);
    // A chain whose set is made anew has to let go of it.
    let remade = have.sets.iter().any(|(name, spec)| want.sets.get(name).is_some_and(|other| other != spec));
    let stays = |name: &String, chain: &Chain, other: &Structure| !remade && other.chains.get(name) == Some(chain);
    let changed = have.chains.iter().filter(|(name, chain)| !stays(name, chain, &want));
    ops.extend(changed.map(|(name, _)| Op::FlushChain { name: name.clone() }));
    let gone = have.chains.keys().filter(|name| !want.chains.contains_key(*name));
    ops.extend(gone.map(|name| Op::DeleteChain { name: name.clone() }));
    let old_sets = have.sets.iter().filter(|(name, spec)| !same_set(name, spec, &want));
    ops.extend(old_sets.map(|(name, _)| Op::DeleteSet { name: name.clone() }));
    let new_sets = want.sets.iter().filter(|(name, spec)| !same_set(name, spec, &have));
    ops.extend(new_sets.map(|(name, spec)| Op::AddSet { name: name.clone(), spec: spec.clone() }));
    let new = want.chains.keys().filter(|name| !have.chains.contains_key(*name));
    ops.extend(new.map(|name| Op::AddChain { name: name.clone(), base: None }));
    for (name, chain) in want.chains.iter().filter(|(name, chain)| !stays(name, chain, &have)) {
        ops.extend(chain.rules.iter().map(|rule| Op::AddRule { chain: name.clone(), rule: rule.clone() }));
    }
    ops.extend(ways(&leads, &led).into_iter().map(|e| Op::AddElement { set: e.set, key: e.key, data: e.data }));
    ops
}

/// Takes the port that `elements` lead to out of what was read. `None` when it is not as we write it.
pub fn read(options: &Options, structure: &mut Structure, elements: &[Element]) -> Option<(String, Sticky)> {
    let Some(Dispatch::Sticky(_, id)) = Dispatch::of_key(&elements.first()?.key) else { return None };
    let first = elements.first()?.data.chain()?;
    let base = first.split_once('-')?.1.to_string();
    let service = list(structure, &chain_name(StickyChain::Service, &base));
    let local = list(structure, &chain_name(StickyChain::Local, &base));
    let any = service.first().or(local.first())?;
    let protocol = protocol_of(&structure.chains.get(&endpoint_chain(&base, *any))?.rules)?;
    let seconds = u32::try_from(structure.sets.get(&affinity_set(&base, *any))?.timeout_ms / 1000).ok()?;
    for external in [External::None, External::Masked, External::Local] {
        let sticky = Sticky { id, protocol, seconds, cluster: service.clone().into(), local: local.clone().into(), external };
        let wanted = self::structure(options, &base, &sticky);
        let chains = wanted.chains.iter().all(|(name, chain)| structure.chains.get(name) == Some(chain));
        let sets = wanted.sets.iter().all(|(name, spec)| structure.sets.get(name) == Some(spec));
        let mut ways = dispatch(&base, &sticky);
        let mut found = elements.to_vec();
        ways.sort();
        found.sort();
        if chains && sets && ways == found {
            wanted.chains.keys().for_each(|name| drop(structure.chains.remove(name)));
            wanted.sets.keys().for_each(|name| drop(structure.sets.remove(name)));
            return Some((base, sticky));
        }
    }
    None
}

/// The endpoints of a balancing chain, in order.
fn list(structure: &Structure, chain: &str) -> Vec<SocketAddr> {
    let rules = structure.chains.get(chain).map_or(&[][..], |chain| &chain.rules);
    let remembered = rules.iter().filter(|rule| rule.exprs.iter().any(|expr| matches!(expr, Expr::Lookup { .. })));
    remembered
        .filter_map(|rule| match rule.exprs.last() {
            Some(Expr::Verdict(Verdict::Goto(chain))) => translated_to(&structure.chains.get(chain)?.rules),
            _ => None,
        })
        .collect()
}

fn immediates(rules: &[Rule]) -> impl Iterator<Item = &Vec<u8>> {
    rules.iter().flat_map(|rule| &rule.exprs).filter_map(|expr| match expr {
        Expr::Immediate { value, .. } => Some(value),
        _ => None,
    })
}

fn translated_to(rules: &[Rule]) -> Option<SocketAddr> {
    let mut constants = immediates(rules);
    let ip = from_octets(constants.next()?)?;
    Some(SocketAddr::new(ip, u16::from_be_bytes(constants.next()?.as_slice().try_into().ok()?)))
}

fn protocol_of(rules: &[Rule]) -> Option<Protocol> {
    rules.iter().flat_map(|rule| &rule.exprs).find_map(|expr| match expr {
        Expr::Compare { with, .. } => Protocol::from_number(*with.first()?),
        _ => None,
    })
}
