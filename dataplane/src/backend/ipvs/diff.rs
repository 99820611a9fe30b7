//! From what the kernel holds to what is wanted: the smallest list of operations, in the order that breaks nothing.
//!
//! Owns that order. What packets need besides the virtual server (sets, rules, addresses) comes before it, and goes
//! after it; within a server, new destinations come before old ones go. What is deleted last is what tells, after a
//! crash, that a virtual server is ours. Never reads the clock: destinations that are to go are closed here, and
//! deleted by `drain`. Tests: `tests`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use super::ir::{CLOSED, Held, Item, OPEN, Op, Server, Wanted};
use super::skeleton::Skeleton;
use crate::model::Protocol;

/// Operations in their stages. Each list is carried out before the next.
#[derive(Debug, Default)]
pub struct Stages {
    pub structure: Vec<Op>,
    pub items_added: Vec<Op>,
    pub rules_before: Option<Op>,
    pub servers: Vec<Op>,
    pub servers_deleted: Vec<Op>,
    pub rules_after: Option<Op>,
    pub items_deleted: Vec<Op>,
}

impl Stages {
    pub fn into_ops(self) -> Vec<Op> {
        let mut ops = self.structure;
        ops.extend(self.items_added);
        ops.extend(self.rules_before);
        ops.extend(self.servers);
        ops.extend(self.servers_deleted);
        ops.extend(self.rules_after);
        ops.extend(self.items_deleted);
        ops
    }

    pub fn item(&mut self, item: Item, held: bool, wanted: bool) {
        match (held, wanted) {
            (false, true) => self.items_added.push(Op::Add(item)),
            (true, false) => self.items_deleted.push(Op::Delete(item)),
            _ => {}
        }
    }

    /// While servers change, the rules must serve those before and those after.
    pub fn rules(&mut self, held: Option<&Arc<Skeleton>>, wanted: &Arc<Skeleton>) {
        let Some(held) = held.filter(|held| same_options(held, wanted)) else {
            self.rules_before = Some(Op::Load(wanted.clone()));
            return;
        };
        if held == wanted {
            return;
        }
        let between = Skeleton {
            used: held.used.union(&wanted.used).copied().collect(),
            denied: held.denied.union(&wanted.denied).copied().collect(),
            ..Skeleton::clone(wanted)
        };
        if between != **held {
            let between = if between == **wanted { wanted.clone() } else { Arc::new(between.clone()) };
            self.rules_before = Some(Op::Load(between));
        }
        if self.rules_before.as_ref().is_none_or(|op| *op != Op::Load(wanted.clone())) {
            self.rules_after = Some(Op::Load(wanted.clone()));
        }
    }

    pub fn server(&mut self, server: Server, held: Option<&Held>, wanted: Option<&Wanted>) {
        let Some(wanted) = wanted else {
            self.servers_deleted.extend(held.map(|_| Op::DeleteServer(server)));
            return;
        };
        match held {
            None => self.servers.push(Op::AddServer(server, wanted.spread)),
            Some(held) if held.spread != wanted.spread => self.servers.push(Op::EditServer(server, wanted.spread)),
            Some(_) => {}
        }
        for endpoint in wanted.endpoints.iter() {
            match held.and_then(|held| held.destinations.get(endpoint)) {
                None => self.servers.push(Op::AddDestination(server, *endpoint, OPEN)),
                Some(&OPEN) => {}
                Some(_) => self.servers.push(Op::EditDestination(server, *endpoint, OPEN)),
            }
        }
        for (address, weight) in held.into_iter().flat_map(|held| &held.destinations) {
            if wanted.endpoints.binary_search(address).is_ok() {
                continue;
            }
            if !drains(&server) {
                self.servers.push(Op::DeleteDestination(server, *address));
            } else if *weight != CLOSED {
                self.servers.push(Op::EditDestination(server, *address, CLOSED));
            }
        }
    }
}

/// Whether a removed destination may finish what it has. Other protocols' next packet finds another one at once.
pub fn drains(server: &Server) -> bool {
    server.protocol == Protocol::Tcp
}

fn same_options(one: &Skeleton, other: &Skeleton) -> bool {
    let options = |s: &Skeleton| (s.family, s.masquerade_mark, s.masquerade_all, s.detect_local.clone());
    options(one) == options(other)
}
