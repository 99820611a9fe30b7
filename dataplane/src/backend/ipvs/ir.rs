//! What the IPVS backend can say to the kernel, and what a kernel holds that was told.
//!
//! Owns the operations, and [`Image`]: a family's servers, sets, addresses and rules as flat as the kernel has them,
//! for the laws and for the simulator. Never looks at services. Tests: `tests`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::sets::Set;
use super::skeleton::Skeleton;
pub use crate::netlink::ipset::Entry;
pub use crate::netlink::ipvs::{Server, Spread};

/// The link that holds the services' addresses, so that packets for them are for this node.
pub const LINK: &str = "kube-ipvs0";

/// Something that several services may need, and that is there once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    Entry(Set, Entry),
    /// An address on [`LINK`].
    Address(IpAddr),
}

/// A virtual server that is desired. Every endpoint has the same weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub spread: Spread,
    /// Sorted, each once.
    pub endpoints: Arc<[SocketAddr]>,
}

/// A virtual server as the kernel holds it: destinations with their weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub spread: Spread,
    pub destinations: BTreeMap<SocketAddr, u32>,
}

/// Takes new connections, as every endpoint does.
pub const OPEN: u32 = 1;
/// Takes no new connections, and keeps those it has.
pub const CLOSED: u32 = 0;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    CreateLink,
    CreateSet(Set),
    Add(Item),
    Delete(Item),
    /// Brings all chains to these rules, in one instant per table.
    Load(Arc<Skeleton>),
    AddServer(Server, Spread),
    EditServer(Server, Spread),
    DeleteServer(Server),
    AddDestination(Server, SocketAddr, u32),
    EditDestination(Server, SocketAddr, u32),
    DeleteDestination(Server, SocketAddr),
}

/// One family's kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub link: bool,
    pub sets: BTreeMap<Set, BTreeSet<Entry>>,
    pub addresses: BTreeSet<IpAddr>,
    pub skeleton: Option<Arc<Skeleton>>,
    pub servers: BTreeMap<Server, Held>,
}

impl Image {
    /// Applies an operation as strictly as it can be meant; `None` when the kernel would refuse it, or when it would
    /// change nothing.
    pub fn apply(&mut self, op: &Op) -> Option<()> {
        let is = |good: bool| good.then_some(());
        match op {
            Op::CreateLink => is(!std::mem::replace(&mut self.link, true)),
            Op::CreateSet(set) => is(self.sets.insert(*set, BTreeSet::new()).is_none()),
            Op::Add(Item::Entry(set, entry)) => is(self.sets.get_mut(set)?.insert(*entry)),
            Op::Delete(Item::Entry(set, entry)) => is(self.sets.get_mut(set)?.remove(entry)),
            Op::Add(Item::Address(ip)) => is(self.link && self.addresses.insert(*ip)),
            Op::Delete(Item::Address(ip)) => is(self.addresses.remove(ip)),
            Op::Load(skeleton) => {
                is(skeleton.sets().all(|set| self.sets.contains_key(&set)))?;
                is(self.skeleton.replace(skeleton.clone()).as_ref() != Some(skeleton))
            }
            Op::AddServer(server, spread) => {
                let fresh = Held { spread: *spread, destinations: BTreeMap::new() };
                is(self.servers.insert(*server, fresh).is_none())
            }
            Op::EditServer(server, spread) => {
                let held = self.servers.get_mut(server)?;
                is(std::mem::replace(&mut held.spread, *spread) != *spread)
            }
            Op::DeleteServer(server) => self.servers.remove(server).map(drop),
            Op::AddDestination(server, address, weight) => {
                let held = self.servers.get_mut(server)?;
                is(held.destinations.insert(*address, *weight).is_none())
            }
            Op::EditDestination(server, address, weight) => {
                let held = self.servers.get_mut(server)?;
                is(std::mem::replace(held.destinations.get_mut(address)?, *weight) != *weight)
            }
            Op::DeleteDestination(server, address) => self.servers.get_mut(server)?.destinations.remove(address).map(drop),
        }
    }
}
