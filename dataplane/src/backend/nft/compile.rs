//! Resolved frontends to what the kernel holds for them.
//!
//! Owns the choice of class and the assignment of endpoints to slots, which changes as few slots as it can. Never
//! decides where packets may go: that is `resolve`'s. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::names;
use super::program::{Class, ClassKind, Dispatch, FrontendRules, LOCAL_BASE, Refusal, Shared, Slot, StickyChain};
use super::sticky::{External, Sticky};
use crate::model::{Cidr, FrontendKey, ObjectName};
use crate::resolve::{Action, Frontend, Resolved};

/// One service in one family, compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    pub frontends: Vec<(FrontendKey, Arc<FrontendRules>)>,
    pub shared: Vec<Shared>,
    /// Ports with affinity, by name.
    pub sticky: Vec<(Arc<str>, Arc<Sticky>)>,
}

/// What a compilation asks of the table it is for.
pub trait Held {
    /// What the kernel already holds for a frontend, so that endpoints keep their slots.
    fn rules(&self, key: &FrontendKey) -> Option<Arc<FrontendRules>>;

    /// The number of a service port with affinity: the one it has, or one that no other has.
    fn sticky_id(&self, name: &str) -> u32;
}

#[cfg(test)]
impl Held for () {
    fn rules(&self, _: &FrontendKey) -> Option<Arc<FrontendRules>> {
        None
    }

    fn sticky_id(&self, name: &str) -> u32 {
        names::number(name, super::program::STICKY_BITS)
    }
}

/// Compiles a service.
pub fn compile(name: &ObjectName, resolved: Resolved, held: &impl Held) -> Fragment {
    let sticky = sticky_ports(name, &resolved, held);
    let cluster_ips = resolved.cluster_ip.into_iter().map(Shared::ClusterIp);
    let hairpins = resolved.hairpins.into_iter().map(Shared::Hairpin);
    let frontends = resolved.frontends.iter().map(|frontend| {
        let before = held.rules(&frontend.key);
        let port = sticky.iter().find(|port| port.is_of(frontend));
        let rules = rules(frontend, port.map(|port| &port.sticky), before.as_deref());
        // Sharing the loaded one makes the later comparison a comparison of pointers.
        let rules = before.filter(|before| **before == rules).unwrap_or_else(|| Arc::new(rules));
        (frontend.key, rules)
    });
    let frontends = frontends.collect();
    let sticky = sticky.into_iter().map(|port| (port.name.into(), Arc::new(port.sticky))).collect();
    Fragment { frontends, shared: cluster_ips.chain(hairpins).collect(), sticky }
}

struct StickyPort {
    port_name: Arc<str>,
    name: String,
    sticky: Sticky,
}

impl StickyPort {
    fn is_of(&self, frontend: &Frontend) -> bool {
        self.port_name == frontend.port_name && self.sticky.protocol == frontend.key.protocol() && frontend.affinity_seconds.is_some()
    }
}

/// The service's ports with affinity that have endpoints.
fn sticky_ports(service: &ObjectName, resolved: &Resolved, held: &impl Held) -> Vec<StickyPort> {
    let mut ports: Vec<StickyPort> = Vec::new();
    for frontend in &resolved.frontends {
        let Some(seconds) = frontend.affinity_seconds else { continue };
        if ports.iter().any(|port| port.is_of(frontend)) {
            continue;
        }
        let protocol = frontend.key.protocol();
        let alike = |other: &&Frontend| other.port_name == frontend.port_name && other.key.protocol() == protocol;
        let name = names::service_port(service, protocol, &frontend.port_name);
        let (cluster, local, external) = lists(resolved.frontends.iter().filter(alike));
        if !cluster.is_empty() || !local.is_empty() {
            let sticky = Sticky { id: held.sticky_id(&name), protocol, seconds, cluster, local, external };
            ports.push(StickyPort { port_name: frontend.port_name.clone(), name, sticky });
        }
    }
    ports
}

/// The lists of one port's frontends: the cluster's, this node's, and what external destinations do.
fn lists<'a>(frontends: impl Iterator<Item = &'a Frontend>) -> (Box<[SocketAddr]>, Box<[SocketAddr]>, External) {
    let mut internal: Option<&[SocketAddr]> = None;
    let (mut cluster, mut local, mut external): (Option<&[SocketAddr]>, &[SocketAddr], External) = (None, &[], External::None);
    for frontend in frontends {
        match &frontend.action {
            Action::Forward { endpoints } => internal = Some(endpoints),
            Action::ForwardMasked { endpoints } => (cluster, external) = (Some(&endpoints[..]), External::Masked),
            Action::ForwardLocal { cluster: all, local: here } => (cluster, local, external) = (Some(&all[..]), here, External::Local),
            Action::Refuse | Action::Drop => {}
        }
    }
    // The cluster IP's list differs from the other one only when its policy is Local.
    let cluster = cluster.or(internal).unwrap_or_default();
    let local = internal.filter(|internal| *internal != cluster).unwrap_or(local);
    (sorted(cluster), sorted(local), external)
}

fn sorted(list: &[SocketAddr]) -> Box<[SocketAddr]> {
    let mut list = list.to_vec();
    list.sort_unstable();
    list.dedup();
    list.into()
}

fn rules(frontend: &Frontend, port: Option<&Sticky>, before: Option<&FrontendRules>) -> FrontendRules {
    let sources = Cidr::aggregate(frontend.source_ranges.iter().copied());
    let rules = match port {
        Some(port) => remembering(frontend, port),
        None => forwarding(frontend, before),
    };
    FrontendRules { sources, ..rules }
}

fn refused(refusal: Refusal) -> FrontendRules {
    FrontendRules { refusal: Some(refusal), ..FrontendRules::default() }
}

/// With affinity: the port's own chains.
fn remembering(frontend: &Frontend, port: &Sticky) -> FrontendRules {
    let to = |chain| FrontendRules { dispatch: Some(Dispatch::Sticky(chain, port.id)), ..FrontendRules::default() };
    match &frontend.action {
        Action::Forward { endpoints } if sorted(endpoints) == port.cluster => to(StickyChain::Service),
        Action::Forward { .. } => to(StickyChain::Local),
        Action::ForwardMasked { .. } => to(StickyChain::External),
        Action::ForwardLocal { local, .. } => {
            FrontendRules { refusal: local.is_empty().then_some(Refusal::Drop), ..to(StickyChain::External) }
        }
        Action::Refuse => refused(Refusal::Reject),
        Action::Drop => refused(Refusal::Drop),
    }
}

fn forwarding(frontend: &Frontend, before: Option<&FrontendRules>) -> FrontendRules {
    let before = before.map_or(&[][..], |rules| &rules.slots);
    let forward = |kind: ClassKind, cluster: &[SocketAddr], local: &[SocketAddr]| {
        let mut slots = assign(cluster, before, 0);
        let local = assign(local, before, LOCAL_BASE);
        let class = Class { kind, cluster: slots.len() as u16, local: local.len() as u16 };
        slots.extend(local);
        FrontendRules { dispatch: Some(Dispatch::Class(class)), slots: slots.into(), ..FrontendRules::default() }
    };
    match &frontend.action {
        Action::Forward { endpoints } => forward(ClassKind::Plain, endpoints, &[]),
        Action::ForwardMasked { endpoints } => forward(ClassKind::Masked, endpoints, &[]),
        Action::ForwardLocal { cluster, local } => {
            // Whoever is not short-circuited to the cluster list falls through to the filter stage.
            let refusal = local.is_empty().then_some(Refusal::Drop);
            FrontendRules { refusal, ..forward(ClassKind::Local, cluster, local) }
        }
        Action::Refuse => refused(Refusal::Reject),
        Action::Drop => refused(Refusal::Drop),
    }
}

/// Gives each endpoint a slot, `first` and up without holes. Endpoints that are loaded keep theirs where they can;
/// holes are filled with new endpoints, then with the last ones.
fn assign(endpoints: &[SocketAddr], loaded: &[Slot], first: u32) -> Vec<Slot> {
    let mut waiting: HashSet<SocketAddr> = endpoints.iter().copied().collect();
    let mut slots: Vec<Option<SocketAddr>> = vec![None; waiting.len()];
    for slot in loaded {
        let address = SocketAddr::new(slot.ip, slot.port);
        let index = slot.index.checked_sub(first).map(|index| index as usize);
        if let Some(place) = index.and_then(|index| slots.get_mut(index)).filter(|place| place.is_none()) {
            *place = waiting.take(&address);
        }
    }
    // The input's order makes the outcome the same for the same input.
    let mut rest = endpoints.iter().filter(|endpoint| waiting.remove(endpoint));
    let fill = |place: Option<SocketAddr>| place.or_else(|| rest.next().copied());
    let filled = slots.into_iter().filter_map(fill).zip(first..);
    filled.map(|(address, index)| Slot { index, ip: canonical(address.ip()), port: address.port() }).collect()
}

fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use crate::resolve::FrontendKind;
    use proptest::prelude::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    fn lasts(slots: &[Slot]) -> Vec<u8> {
        slots
            .iter()
            .map(|s| match s.ip {
                IpAddr::V4(ip) => ip.octets()[3],
                IpAddr::V6(_) => 0,
            })
            .collect()
    }

    fn frontend(action: Action) -> Frontend {
        let ip = [10, 96, 0, 1].into();
        Frontend {
            key: FrontendKey::Vip { ip, protocol: Protocol::Tcp, port: 80 },
            kind: FrontendKind::ExternalIp,
            port_name: "http".into(),
            action,
            affinity_seconds: None,
            source_ranges: [].into(),
        }
    }

    #[test]
    fn a_removed_endpoint_costs_the_last_one_its_place_and_no_other() {
        let four: Vec<SocketAddr> = (1..=4).map(address).collect();
        let before = assign(&four, &[], 0);
        assert_eq!(lasts(&before), [1, 2, 3, 4]);
        assert_eq!(lasts(&assign(&[address(1), address(3), address(4)], &before, 0)), [1, 4, 3]);
        assert_eq!(lasts(&assign(&[address(1), address(5), address(3), address(4)], &before, 0)), [1, 5, 3, 4]);
    }

    #[test]
    fn local_policy_without_local_endpoints_drops_the_outside_world_only() {
        let action = Action::ForwardLocal { cluster: [address(1), address(2)].into(), local: [].into() };
        let got = rules(&frontend(action), None, None);
        assert_eq!(got.dispatch, Some(Dispatch::Class(Class { kind: ClassKind::Local, cluster: 2, local: 0 })));
        assert_eq!(got.refusal, Some(Refusal::Drop));
        let action = Action::ForwardLocal { cluster: [address(1), address(2)].into(), local: [address(2)].into() };
        let got = rules(&frontend(action), None, None);
        assert_eq!((got.refusal, got.slots.len(), got.slots[2].index), (None, 3, LOCAL_BASE));
    }

    proptest! {
        #[test]
        fn slots_hold_every_endpoint_once_and_keep_what_can_stay(
            before in proptest::collection::hash_set(0u8..40, 0..30),
            after in proptest::collection::hash_set(0u8..40, 0..30),
        ) {
            let list = |set: &HashSet<u8>| { let mut l: Vec<u8> = set.iter().copied().collect(); l.sort(); l };
            let addresses = |set: &HashSet<u8>| list(set).into_iter().map(address).collect::<Vec<_>>();
            let old = assign(&addresses(&before), &[], 0);
            let new = assign(&addresses(&after), &old, 0);
            let mut held = lasts(&new);
            held.sort();
            prop_assert_eq!(held, list(&after));
            prop_assert!(new.iter().zip(0..).all(|(slot, index)| slot.index == index));
            // Changed slots: one per endpoint that came, one per hole of one that went.
            let changed = new.iter().filter(|slot| !old.contains(slot)).count();
            let came = after.difference(&before).count();
            let went = before.difference(&after).count();
            prop_assert!(changed <= came + went, "{} > {} + {}", changed, came, went);
        }
    }
}
