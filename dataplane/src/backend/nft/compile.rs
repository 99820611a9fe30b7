//! Resolved frontends to what the kernel holds for them.
//!
//! Owns the choice of class and the assignment of endpoints to slots, which changes as few slots as it can. Never
//! decides where packets may go: that is `resolve`'s. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::program::{Class, ClassKind, FrontendRules, LOCAL_BASE, MAX_ENDPOINTS, Refusal, Shared, Slot};
use crate::model::{Cidr, FrontendKey};
use crate::resolve::{Action, Frontend, Resolved};

/// One service in one family, compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    pub frontends: Vec<(FrontendKey, Arc<FrontendRules>)>,
    pub shared: Vec<Shared>,
}

/// Compiles a service. `loaded` tells what the kernel already holds for a frontend, so that endpoints keep their slots.
pub fn compile(resolved: Resolved, loaded: impl Fn(&FrontendKey) -> Option<Arc<FrontendRules>>) -> Fragment {
    let cluster_ips = resolved.cluster_ip.into_iter().map(Shared::ClusterIp);
    let hairpins = resolved.hairpins.into_iter().map(Shared::Hairpin);
    let frontends = resolved.frontends.iter().map(|frontend| {
        let before = loaded(&frontend.key);
        let rules = rules(frontend, before.as_deref());
        // Sharing the loaded one makes the later comparison a comparison of pointers.
        let rules = before.filter(|before| **before == rules).unwrap_or_else(|| Arc::new(rules));
        (frontend.key, rules)
    });
    Fragment { frontends: frontends.collect(), shared: cluster_ips.chain(hairpins).collect() }
}

fn rules(frontend: &Frontend, before: Option<&FrontendRules>) -> FrontendRules {
    let sources = Cidr::aggregate(frontend.source_ranges.iter().copied());
    FrontendRules { sources, ..forwarding(frontend, before) }
}

fn forwarding(frontend: &Frontend, before: Option<&FrontendRules>) -> FrontendRules {
    let refused = |refusal| FrontendRules { refusal: Some(refusal), ..FrontendRules::default() };
    let before = before.map_or(&[][..], |rules| &rules.slots);
    let forward = |kind: ClassKind, cluster: &[SocketAddr], local: &[SocketAddr]| {
        let mut slots = assign(cluster, before, 0);
        let local = assign(local, before, LOCAL_BASE);
        let class = Class { kind, cluster: slots.len() as u16, local: local.len() as u16 };
        slots.extend(local);
        FrontendRules { class: Some(class), slots: slots.into(), ..FrontendRules::default() }
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
    let endpoints = &endpoints[..endpoints.len().min(MAX_ENDPOINTS)];
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
        let got = rules(&frontend(action), None);
        assert_eq!(got.class, Some(Class { kind: ClassKind::Local, cluster: 2, local: 0 }));
        assert_eq!(got.refusal, Some(Refusal::Drop));
        let action = Action::ForwardLocal { cluster: [address(1), address(2)].into(), local: [address(2)].into() };
        let got = rules(&frontend(action), None);
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
