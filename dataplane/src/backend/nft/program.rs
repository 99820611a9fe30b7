//! What one family's table holds for services: frontends, their slots, and shared addresses.
//!
//! Owns the correspondence between frontends and set elements, in both directions: a program read from the kernel is
//! the same type as one that is wanted. Tests are in `tests`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::ir::{Bytes, Data};
use super::schema::{self, KeyKind};
use super::sticky::Sticky;
use crate::model::address::{from_octets, octets};
use crate::model::{Cidr, Family, FrontendKey, Protocol};
use crate::resolve::MAX_ENDPOINTS;

/// Slots of the list that externalTrafficPolicy Local gives to the outside world begin here; the cluster list's begin
/// at 0.
pub const LOCAL_BASE: u32 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClassKind {
    /// Balanced over the cluster list.
    Plain,
    /// The same, with this node's address as the source.
    Masked,
    /// externalTrafficPolicy Local.
    Local,
}

/// How connections to a frontend are spread: by which chain. All frontends of a class share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    pub kind: ClassKind,
    /// Endpoints in the cluster list.
    pub cluster: u16,
    /// Endpoints in the local list; 0 unless the kind is Local.
    pub local: u16,
}

impl Class {
    pub fn plain(cluster: u16) -> Class {
        Class { kind: ClassKind::Plain, cluster, local: 0 }
    }

    /// The number that stands for the class in the maps. `nft` prints it as two halves of 16 bits, and the second is the
    /// number of endpoints in the cluster list.
    pub fn encode(self) -> u32 {
        (self.kind as u32) << 30 | u32::from(self.local) << 16 | u32::from(self.cluster)
    }

    pub fn decode(number: u32) -> Option<Class> {
        let kind = [ClassKind::Plain, ClassKind::Masked, ClassKind::Local].into_iter().nth(number as usize >> 30)?;
        let part = |shift: u32| (number >> shift & MAX_ENDPOINTS as u32) as u16;
        Some(Class { kind, cluster: part(0), local: part(16) })
    }
}

/// The chains of a service port with affinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StickyChain {
    /// Balanced over the cluster list.
    Service,
    /// Balanced over this node's endpoints.
    Local,
    /// What external destinations do.
    External,
}

/// Where a frontend's connections are sent on: a number in its map, and a chain in the dispatch map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dispatch {
    Class(Class),
    /// A service port's own chain; the number is the port's, below [`STICKY_IDS`].
    Sticky(StickyChain, u32),
}

/// Service ports with affinity have numbers below this.
pub const STICKY_BITS: u32 = 28;
pub const STICKY_IDS: u32 = 1 << STICKY_BITS;

impl Dispatch {
    pub fn encode(self) -> u32 {
        match self {
            Dispatch::Class(class) => class.encode(),
            Dispatch::Sticky(chain, id) => 3 << 30 | (chain as u32) << STICKY_BITS | id & (STICKY_IDS - 1),
        }
    }

    pub fn decode(number: u32) -> Option<Dispatch> {
        if number >> 30 != 3 {
            return Class::decode(number).map(Dispatch::Class);
        }
        let chains = [StickyChain::Service, StickyChain::Local, StickyChain::External];
        let chain = chains.into_iter().nth((number >> STICKY_BITS & 3) as usize)?;
        Some(Dispatch::Sticky(chain, number & (STICKY_IDS - 1)))
    }

    /// Of a dispatch map's key.
    pub fn of_key(key: &Bytes) -> Option<Dispatch> {
        Dispatch::decode(u32::from_ne_bytes(key.as_slice().try_into().ok()?))
    }

    pub fn class(self) -> Option<Class> {
        match self {
            Dispatch::Class(class) => Some(class),
            Dispatch::Sticky(..) => None,
        }
    }
}

/// Why a frontend's new connections go nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    Reject,
    Drop,
}

impl Refusal {
    pub fn encode(self) -> u32 {
        match self {
            Refusal::Reject => 1,
            Refusal::Drop => 2,
        }
    }

    fn decode(number: u32) -> Option<Refusal> {
        [Refusal::Reject, Refusal::Drop].into_iter().find(|r| r.encode() == number)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    pub index: u32,
    pub ip: IpAddr,
    pub port: u16,
}

/// All that the kernel holds for one frontend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrontendRules {
    pub dispatch: Option<Dispatch>,
    pub refusal: Option<Refusal>,
    /// Sources that may come here; empty means all. None contains another.
    pub sources: Box<[Cidr]>,
    /// By ascending index.
    pub slots: Box<[Slot]>,
}

impl FrontendRules {
    pub fn is_empty(&self) -> bool {
        self.dispatch.is_none() && self.refusal.is_none() && self.slots.is_empty() && self.sources.is_empty()
    }
}

/// An address that several services may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shared {
    ClusterIp(IpAddr),
    /// A pod of this node that may reach itself through a service.
    Hairpin(IpAddr),
    /// An address of this node that answers on node ports.
    NodePortIp(IpAddr),
}

/// The variable part of one family's table. The fixed part is `schema`'s.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    pub frontends: HashMap<FrontendKey, Arc<FrontendRules>>,
    pub shared: HashSet<Shared>,
    /// Dispatch chains that are loaded, with their entry in the dispatch map.
    pub chains: BTreeSet<(KeyKind, Class)>,
    /// Service ports with affinity, by name.
    pub sticky: HashMap<Arc<str>, Arc<Sticky>>,
    /// Packets to addresses in these that no service has are dropped.
    pub service_cidrs: Box<[Cidr]>,
}

/// A set element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    pub set: &'static str,
    pub key: Bytes,
    pub data: Data,
}

fn key_bytes(key: &FrontendKey) -> Bytes {
    match key {
        FrontendKey::Vip { ip, protocol, port } => {
            Bytes::EMPTY.component(&octets(*ip)).component(&[protocol.number()]).component(&port.to_be_bytes())
        }
        FrontendKey::NodePort { protocol, port } => Bytes::EMPTY.component(&[protocol.number()]).component(&port.to_be_bytes()),
    }
}

fn number(value: u32) -> Data {
    Data::Value(Bytes::EMPTY.component(&value.to_ne_bytes()))
}

/// The elements of one frontend, in a fixed order.
pub fn frontend_elements(key: &FrontendKey, rules: &FrontendRules) -> Vec<Element> {
    let sets = schema::frontend_sets(KeyKind::of(key));
    let bytes = key_bytes(key);
    let mut elements = Vec::with_capacity(rules.slots.len() + 2);
    if let Some(refusal) = rules.refusal {
        elements.push(Element { set: sets.refused, key: bytes, data: number(refusal.encode()) });
    }
    if let Some(dispatch) = rules.dispatch {
        elements.push(Element { set: sets.frontends, key: bytes, data: number(dispatch.encode()) });
    }
    elements.extend(rules.slots.iter().map(|slot| Element {
        set: sets.endpoints,
        key: bytes.component(&slot.index.to_ne_bytes()),
        data: Data::Value(Bytes::EMPTY.component(&octets(slot.ip)).component(&slot.port.to_be_bytes())),
    }));
    if !rules.sources.is_empty() {
        elements.push(Element { set: schema::GUARDED_IPS, key: bytes, data: Data::None });
    }
    elements.extend(rules.sources.iter().map(|source| Element {
        set: schema::SOURCE_RANGES,
        key: bytes.component(&octets(source.ip)),
        data: Data::Upto(bytes.component(&octets(source.last()))),
    }));
    elements
}

pub fn shared_element(shared: &Shared) -> Element {
    let (set, key) = match shared {
        Shared::ClusterIp(ip) => (schema::CLUSTER_IPS, Bytes::EMPTY.component(&octets(*ip))),
        Shared::NodePortIp(ip) => (schema::NODE_PORT_IPS, Bytes::EMPTY.component(&octets(*ip))),
        Shared::Hairpin(ip) => (schema::HAIRPINS, Bytes::EMPTY.component(&octets(*ip)).component(&octets(*ip))),
    };
    Element { set, key, data: Data::None }
}

/// The frontend that a key begins with, and the rest of the key.
pub fn read_key(family: Family, kind: KeyKind, key: &[u8]) -> Option<(FrontendKey, &[u8])> {
    let skip = match kind {
        KeyKind::Vip => family.address_len(),
        KeyKind::NodePort => 0,
    };
    let protocol = Protocol::from_number(*key.get(skip)?)?;
    let port = u16::from_be_bytes(key.get(skip + 4..skip + 6)?.try_into().ok()?);
    let frontend = match kind {
        KeyKind::Vip => FrontendKey::Vip { ip: from_octets(&key[..skip])?, protocol, port },
        KeyKind::NodePort => FrontendKey::NodePort { protocol, port },
    };
    Some((frontend, key.get(skip + 8..)?))
}

/// The endpoint of an element of an endpoint map.
pub fn read_endpoint(family: Family, data: &Data) -> Option<SocketAddr> {
    let Data::Value(data) = data else { return None };
    let len = family.address_len();
    let port = u16::from_be_bytes(data.as_slice().get(len..len + 2)?.try_into().ok()?);
    Some(SocketAddr::new(from_octets(data.as_slice().get(..len)?)?, port))
}

/// Builds a [`Program`] from elements in any order.
#[derive(Debug)]
pub struct Reader {
    family: Family,
    frontends: HashMap<FrontendKey, FrontendRules>,
    slots: HashMap<FrontendKey, Vec<Slot>>,
    sources: HashMap<FrontendKey, Vec<Cidr>>,
    guarded: HashSet<FrontendKey>,
    shared: HashSet<Shared>,
}

impl Reader {
    pub fn new(family: Family) -> Reader {
        Reader {
            family,
            frontends: HashMap::new(),
            slots: HashMap::new(),
            sources: HashMap::new(),
            guarded: HashSet::new(),
            shared: HashSet::new(),
        }
    }

    /// `None` for an element that we never write.
    pub fn element(&mut self, element: &Element) -> Option<()> {
        let key = element.key.as_slice();
        let len = self.family.address_len();
        match element.set {
            schema::CLUSTER_IPS => self.share(Shared::ClusterIp(from_octets(key)?)),
            schema::NODE_PORT_IPS => self.share(Shared::NodePortIp(from_octets(key)?)),
            schema::HAIRPINS => {
                let (from, to) = (from_octets(key.get(..len)?)?, from_octets(key.get(len..)?)?);
                if from != to {
                    return None;
                }
                self.share(Shared::Hairpin(from));
            }
            schema::GUARDED_IPS => {
                let (frontend, _) = read_key(self.family, KeyKind::Vip, key)?;
                self.guarded.insert(frontend);
            }
            schema::SOURCE_RANGES => {
                let (frontend, first) = read_key(self.family, KeyKind::Vip, key)?;
                let Data::Upto(end) = element.data else { return None };
                let last = end.as_slice().get(key.len() - len..)?;
                let range = Cidr::from_range(from_octets(first)?, from_octets(last)?)?;
                self.sources.entry(frontend).or_default().push(range);
            }
            set => {
                let kind = KeyKind::ALL.into_iter().find(|kind| schema::frontend_sets(*kind).contains(set))?;
                self.frontend_element(kind, set, key, &element.data)?;
            }
        }
        Some(())
    }

    fn share(&mut self, shared: Shared) {
        self.shared.insert(shared);
    }

    fn frontend_element(&mut self, kind: KeyKind, set: &str, key: &[u8], data: &Data) -> Option<()> {
        let Data::Value(value) = data else { return None };
        let sets = schema::frontend_sets(kind);
        let (frontend, rest) = read_key(self.family, kind, key)?;
        if set == sets.endpoints {
            let endpoint = read_endpoint(self.family, data)?;
            let index = u32::from_ne_bytes(rest.try_into().ok()?);
            let slot = Slot { index, ip: endpoint.ip(), port: endpoint.port() };
            self.slots.entry(frontend).or_default().push(slot);
            return Some(());
        }
        let value = u32::from_ne_bytes(value.as_slice().try_into().ok()?);
        let rules = self.frontends.entry(frontend).or_default();
        if set == sets.frontends {
            rules.dispatch = Some(Dispatch::decode(value)?);
        } else {
            rules.refusal = Some(Refusal::decode(value)?);
        }
        Some(())
    }

    /// `None` when ranges and guards do not belong together.
    pub fn finish(mut self, chains: BTreeSet<(KeyKind, Class)>) -> Option<Program> {
        let alike = self.sources.len() == self.guarded.len() && self.sources.keys().all(|key| self.guarded.contains(key));
        alike.then_some(())?;
        for (key, mut sources) in self.sources {
            sources.sort_unstable();
            self.frontends.entry(key).or_default().sources = sources.into();
        }
        for (key, mut slots) in self.slots {
            slots.sort_unstable();
            self.frontends.entry(key).or_default().slots = slots.into();
        }
        let frontends = self.frontends.into_iter().map(|(key, rules)| (key, Arc::new(rules))).collect();
        Some(Program { frontends, shared: self.shared, chains, ..Program::default() })
    }
}
