//! Which service has a frontend that several claim.
//!
//! Owns the rule, the same for every backend: the oldest service has it, and of the same age the first by name. Kubernetes
//! allocates cluster IPs and node ports so that this never happens, but externalIPs and load balancers' addresses are
//! anybody's to write. Never looks at endpoints. Tests are at the end of this file, and in `store`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeSet, HashMap};

use crate::model::{Family, FrontendKey, ObjectName};

pub type Claimed = (Family, FrontendKey);

/// Who claims something, the strongest first.
type Claim = (u64, ObjectName);

#[derive(Debug, Default)]
pub struct Claims {
    owners: HashMap<Claimed, ObjectName>,
    /// Those that more than one service claims.
    contested: HashMap<Claimed, BTreeSet<Claim>>,
}

/// What a change of one service's claims did to others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shift {
    /// Services that got or lost a frontend, besides the one that changed.
    pub touched: Vec<ObjectName>,
    /// (frontend, who does not have it, who has it), newly so.
    pub denied: Vec<(FrontendKey, ObjectName, ObjectName)>,
}

impl Claims {
    /// Puts a service's claims in the place of those before. `created` is the service's age (smaller is older) after and
    /// before; `age` tells that of others.
    pub fn set(
        &mut self,
        name: &ObjectName,
        (before, was_created): (&[Claimed], u64),
        (after, created): (&[Claimed], u64),
        age: impl Fn(&ObjectName) -> u64,
    ) -> Shift {
        let mut shift = Shift::default();
        let same_age = was_created == created;
        for key in before.iter().filter(|key| !(same_age && after.contains(key))) {
            self.release(name, was_created, key, &mut shift);
        }
        for key in after.iter().filter(|key| !(same_age && before.contains(key))) {
            self.claim(name, created, key, &age, &mut shift);
        }
        shift
    }

    fn claim(&mut self, name: &ObjectName, created: u64, key: &Claimed, age: impl Fn(&ObjectName) -> u64, shift: &mut Shift) {
        let Some(owner) = self.owners.get_mut(key) else {
            self.owners.insert(*key, name.clone());
            return;
        };
        if owner == name {
            return;
        }
        let claims = self.contested.entry(*key).or_insert_with(|| BTreeSet::from([(age(owner), owner.clone())]));
        claims.insert((created, name.clone()));
        let first = claims.first().is_some_and(|(_, first)| first == name);
        if first {
            shift.touched.push(owner.clone());
            shift.denied.push((key.1, std::mem::replace(owner, name.clone()), name.clone()));
        } else {
            shift.denied.push((key.1, name.clone(), owner.clone()));
        }
    }

    fn release(&mut self, name: &ObjectName, created: u64, key: &Claimed, shift: &mut Shift) {
        let mut heir = None;
        if let Some(claims) = self.contested.get_mut(key) {
            claims.remove(&(created, name.clone()));
            heir = claims.first().map(|(_, first)| first.clone());
            if claims.len() < 2 {
                self.contested.remove(key);
            }
        }
        if self.owners.get(key) != Some(name) {
            return;
        }
        match heir {
            Some(heir) => {
                shift.touched.push(heir.clone());
                self.owners.insert(*key, heir);
            }
            None => drop(self.owners.remove(key)),
        }
    }

    /// Whether a service has what it claims.
    pub fn has(&self, name: &ObjectName, key: &Claimed) -> bool {
        self.owners.get(key).is_none_or(|owner| owner == name)
    }

    /// Whether anything is claimed by more than one service.
    pub fn any_contested(&self) -> bool {
        !self.contested.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use proptest::prelude::*;

    fn key(port: u16) -> Claimed {
        (Family::V4, FrontendKey::NodePort { protocol: Protocol::Tcp, port })
    }

    proptest! {
        /// Whatever the history, the oldest has it, and of the same age the first by name; and whoever is not told of
        /// has what it had.
        #[test]
        fn the_oldest_claimant_has_the_frontend(
            steps in proptest::collection::vec((0usize..4, proptest::collection::btree_set(0u16..3, 0..3), 0u64..3), 1..30),
        ) {
            let names: Vec<ObjectName> = (0..4).map(|i| ObjectName::new("ns", &format!("s{i}"))).collect();
            let mut claims = Claims::default();
            let mut held: Vec<(Vec<Claimed>, u64)> = vec![(Vec::new(), 0); 4];
            let mut shown: HashMap<(usize, u16), bool> = HashMap::new();
            for (who, ports, created) in steps {
                let after: Vec<Claimed> = ports.into_iter().map(key).collect();
                let ages: HashMap<ObjectName, u64> = names.iter().cloned().zip(held.iter().map(|(_, age)| *age)).collect();
                let shift = claims.set(&names[who], (&held[who].0, held[who].1), (&after, created), |name| ages[name]);
                held[who] = (after, created);
                for (index, name) in names.iter().enumerate() {
                    for port in 0..3 {
                        let claimed = |(keys, _): &(Vec<Claimed>, u64)| keys.contains(&key(port));
                        let best = names.iter().zip(&held).filter(|(_, h)| claimed(h)).map(|(n, h)| (h.1, n)).min();
                        let has = claimed(&held[index]) && claims.has(name, &key(port));
                        prop_assert_eq!(has, claimed(&held[index]) && best.is_some_and(|(_, best)| best == name));
                        let before = shown.insert((index, port), has).unwrap_or(false);
                        prop_assert!(before == has || index == who || shift.touched.contains(name));
                    }
                }
            }
            let contested = (0..3).any(|port| held.iter().filter(|(keys, _)| keys.contains(&key(port))).count() > 1);
            prop_assert_eq!(claims.any_contested(), contested);
        }
    }
}
