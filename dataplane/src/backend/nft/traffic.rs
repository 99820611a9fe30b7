//! What services' destinations and endpoints counted, over the changes of the elements that count.
//!
//! Owns the totals of elements that are gone. The kernel counts in elements: a service's in its frontends' map, by option an
//! endpoint's in the endpoint map. An element that is replaced takes its count along; what is deleted is added up here
//! first. Never talks to the kernel. Tests are at the end of this file, and the namespace tests.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::ir::{Bytes, Counter, Data, Op};
use super::program::{self, Program};
use super::schema::{self, KeyKind, Options};
use crate::model::{Family, FrontendKey};

/// A destination, or one endpoint of it.
pub type Counts = (FrontendKey, Option<SocketAddr>);

/// Gone endpoints are remembered up to so many beside those that are there.
const GONE: usize = 1024;

#[derive(Debug, Default)]
pub struct Totals(HashMap<Counts, Counter>);

/// The elements that a transaction deletes for good and whose counts are worth keeping: their destination stays.
pub fn deleted(options: &Options, want: &Program, ops: &[Op]) -> Vec<(&'static str, Bytes)> {
    let mut added: HashSet<(&str, Bytes)> = HashSet::new();
    let mut gone = Vec::new();
    for op in ops {
        match op {
            // A service's element that is replaced takes its count along; a slot's next endpoint counts anew.
            Op::AddElement { set, key, .. } if schema::counts(set) => drop(added.insert((set, *key))),
            Op::DeleteElement { set, key, .. } if counts(options, set) => gone.push((*set, *key)),
            _ => {}
        }
    }
    let stays = |set: &str, key: &Bytes| destination(options.family, set, key).is_some_and(|key| want.frontends.contains_key(&key));
    gone.retain(|(set, key)| !added.contains(&(*set, *key)) && stays(set, key));
    gone
}

fn counts(options: &Options, set: &str) -> bool {
    schema::counts(set) || (options.endpoint_counters && KeyKind::ALL.into_iter().any(|kind| schema::frontend_sets(kind).endpoints == set))
}

fn kind_of(set: &str) -> Option<KeyKind> {
    KeyKind::ALL.into_iter().find(|kind| schema::frontend_sets(*kind).contains(set))
}

fn destination(family: Family, set: &str, key: &Bytes) -> Option<FrontendKey> {
    program::read_key(family, kind_of(set)?, key.as_slice()).map(|(key, _)| key)
}

/// What an element counts.
fn subject(family: Family, set: &str, key: &Bytes, data: &Data) -> Option<Counts> {
    let destination = destination(family, set, key)?;
    let endpoint = if schema::counts(set) { None } else { Some(program::read_endpoint(family, data)?) };
    Some((destination, endpoint))
}

impl Totals {
    /// Adds what an element counted that is about to be deleted.
    pub fn add(&mut self, family: Family, set: &str, key: &Bytes, data: &Data, counter: Counter) {
        let Some(subject) = subject(family, set, key, data) else { return };
        add(self.0.entry(subject).or_default(), counter);
    }

    /// Totals of everything, given what the elements that are there count now. Forgets destinations that went.
    pub fn sum(
        &mut self,
        family: Family,
        want: &Program,
        counted: impl IntoIterator<Item = (&'static str, Bytes, Data, Counter)>,
    ) -> HashMap<Counts, Counter> {
        self.0.retain(|(key, _), _| want.frontends.contains_key(key));
        let mut sums: HashMap<Counts, Counter> = HashMap::new();
        for (set, key, data, counter) in counted {
            if let Some(subject) = subject(family, set, &key, &data) {
                add(sums.entry(subject).or_default(), counter);
            }
        }
        let present: HashSet<Counts> = sums.keys().copied().collect();
        for (subject, counter) in &self.0 {
            add(sums.entry(*subject).or_default(), *counter);
        }
        if self.0.len() > present.len() + GONE {
            self.0.retain(|subject, _| present.contains(subject));
        }
        sums
    }
}

fn add(total: &mut Counter, counter: Counter) {
    total.packets += counter.packets;
    total.bytes += counter.bytes;
}

#[cfg(test)]
mod tests {
    use super::super::program::{Class, Dispatch, Slot};
    use super::super::program::{FrontendRules, frontend_elements};
    use super::*;
    use crate::config::{Config, DetectLocal};
    use crate::model::Protocol;
    use std::sync::Arc;

    #[test]
    fn counts_outlive_the_elements_that_counted_but_not_their_service() {
        let options = Options::of(&Config { endpoint_counters: true, detect_local: DetectLocal::None, ..Config::default() }, Family::V4);
        let vip = FrontendKey::Vip { ip: [10, 96, 0, 1].into(), protocol: Protocol::Tcp, port: 80 };
        let slots = [Slot { index: 0, ip: [10, 0, 0, 1].into(), port: 8080 }].into();
        let rules = FrontendRules { dispatch: Some(Dispatch::Class(Class::plain(1))), slots, ..FrontendRules::default() };
        let elements = frontend_elements(&vip, &rules);
        let deletes: Vec<Op> = elements.iter().map(|e| Op::DeleteElement { set: e.set, key: e.key, upto: None }).collect();
        let mut want = Program::default();
        assert_eq!(deleted(&options, &want, &deletes), [], "nobody asks for what a deleted service counted");
        want.frontends.insert(vip, Arc::new(rules));
        let gone = deleted(&options, &want, &deletes);
        assert_eq!(gone.len(), 2);
        let mut totals = Totals::default();
        for element in &elements {
            totals.add(Family::V4, element.set, &element.key, &element.data, Counter { packets: 3, bytes: 180 });
        }
        let now = elements.iter().map(|e| (e.set, e.key, e.data.clone(), Counter { packets: 1, bytes: 60 }));
        let sums = totals.sum(Family::V4, &want, now);
        let endpoint = Some(SocketAddr::from(([10, 0, 0, 1], 8080)));
        for subject in [(vip, None), (vip, endpoint)] {
            assert_eq!(sums[&subject], Counter { packets: 4, bytes: 240 });
        }
        want.frontends.clear();
        assert!(totals.sum(Family::V4, &want, []).is_empty());
    }
}
