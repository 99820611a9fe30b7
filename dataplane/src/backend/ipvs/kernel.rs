//! The IPVS backend's conversation with the kernel: read what one family has, carry operations out.
//!
//! Owns the sockets to IPVS, ipset and routing. Decides nothing but what an answer means: whether an operation was
//! needless, is to be tried again, is refused for what it is about, or shows that we no longer know the kernel. Tests:
//! the tests on other kernels.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use netlink_sys::constants::{NETLINK_GENERIC, NETLINK_ROUTE};

use super::ir::{Entry, Held, Item, LINK, Op, Server};
use super::render::{Channel, Numbers, Saved, channel, describe, render};
use super::sets::Set;
use super::state::Read;
use super::xtables::{Xtables, XtablesError};
use crate::model::Family;
use crate::netlink::attr::Writer;
use crate::netlink::socket::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkSocket, Pipeline, Refused, SocketError};
use crate::netlink::{genl, ipset, ipvs, local, route};

/// A busy kernel is asked so many times.
const ATTEMPTS: u32 = 5;
/// The weight of a destination that is not forwarded to as ours are: never one that is wanted.
const STRANGE: u32 = u32::MAX;

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("this kernel has no IPVS: load module ip_vs (CONFIG_IP_VS){}", .tried.as_deref().map(|tried| format!("; {tried}")).unwrap_or_default())]
    NoIpvs { tried: Option<String> },
    #[error("this kernel has no IPVS scheduler {name}: load module ip_vs_{name} (CONFIG_IP_VS_{})", name.to_uppercase())]
    NoScheduler { name: String },
    #[error("this kernel has no sets of type {name}: load modules ip_set and ip_set_{} (CONFIG_IP_SET_{})", module(name), module(name).to_uppercase())]
    NoSetType { name: &'static str },
    #[error("a set {name} of another kind than ours is there, and in use; find out who made it, then `ipset destroy {name}`")]
    SetTaken { name: &'static str },
    #[error("cannot make link {LINK}: load module dummy (CONFIG_DUMMY): {source}")]
    Link { source: Refused },
    #[error("cannot read {what}: {source}")]
    Read { what: &'static str, source: SocketError },
    #[error("somebody else changed what is ours: {what}: {source}")]
    Changed { what: String, source: Refused },
    #[error("cannot program {what}: {source}{}", hint(source))]
    Refused { what: String, source: Refused },
    #[error(transparent)]
    Rules(#[from] XtablesError),
}

fn hint(refused: &Refused) -> &'static str {
    if refused.errno() == libc::EPERM { " (needs CAP_NET_ADMIN in this network namespace)" } else { "" }
}

/// How a set type's module and option end.
fn module(set_type: &str) -> String {
    set_type.replace(':', "_").replace(',', "")
}

/// An operation that the kernel refuses for what it is about; the others are not concerned.
#[derive(Debug)]
pub struct Unwanted {
    /// Its position.
    pub index: usize,
    pub why: String,
    /// A set has no room for more.
    pub full: bool,
}

/// What an answer means.
enum Meaning {
    /// It was so already.
    Needless,
    /// The kernel is busy, or short of memory.
    Again,
    /// Another operation does what was meant.
    Instead(Op),
    Unwanted {
        full: bool,
    },
    /// The virtual server that it is about is not there.
    Orphan,
    Fatal,
}

#[derive(Debug)]
pub struct Kernel {
    family: Family,
    generic: NetlinkSocket,
    sets: NetlinkSocket,
    route: NetlinkSocket,
    rules: Xtables,
    numbers: Numbers,
}

/// Deletes the rules, but for chains that are the iptables backend's by now.
pub fn unload(rules: &Xtables) -> Result<(), KernelError> {
    let input = Saved::read(&rules.save()?).unload();
    Ok(if input.is_empty() { Ok(()) } else { rules.restore(&input) }?)
}

/// Whether the kernel has IPVS now. Nothing is loaded for it.
pub fn has_ipvs() -> Result<bool, KernelError> {
    let mut generic = NetlinkSocket::open_protocol(NETLINK_GENERIC)?;
    Ok(genl::family(&mut generic, ipvs::FAMILY)?.is_some())
}

impl Kernel {
    /// Opens sockets in the calling thread's network namespace. `tried` says what became of loading the module.
    pub fn open(family: Family, rules: Xtables, tried: Option<String>) -> Result<Kernel, KernelError> {
        let mut generic = NetlinkSocket::open_protocol(NETLINK_GENERIC)?;
        let number = genl::family(&mut generic, ipvs::FAMILY)?.ok_or(KernelError::NoIpvs { tried })?;
        let numbers = Numbers { family, ipvs: number, link: 0 };
        let (sets, route) = (NetlinkSocket::open()?, NetlinkSocket::open_protocol(NETLINK_ROUTE)?);
        Ok(Kernel { family, generic, sets, route, rules, numbers })
    }

    /// Reads everything of the family.
    pub fn read(&mut self) -> Result<Read, KernelError> {
        let mut read = Read { saved: Saved::read(&self.rules.save()?), ..Read::default() };
        self.numbers.link = self.link()?.unwrap_or(0);
        read.image.link = self.numbers.link != 0;
        for address in self.addresses()? {
            let whole = address.prefix == ipvs::whole(address.ip);
            if address.link != self.numbers.link {
                read.elsewhere.insert(address.ip);
            } else if whole {
                read.image.addresses.insert(address.ip);
            }
        }
        read.image.sets = self.read_sets()?;
        read.image.servers = self.read_servers()?;
        Ok(read)
    }

    /// The index of our link; `None` when there is none.
    pub fn link(&mut self) -> Result<Option<u32>, KernelError> {
        let seq = self.route.reserve_seq(1);
        let mut w = Writer::default();
        w.begin_with(route::GET_LINK, NLM_F_REQUEST, seq, &route::link_header(0));
        route::put_link_name(&mut w, LINK);
        w.end();
        let mut index = None;
        let answer = self.route.request(w.bytes(), seq, |answer| index = route::parse_link(&answer).map(|link| link.index));
        match answer {
            Err(error) if error.refused_with() == Some(libc::ENODEV) => Ok(None),
            Err(source) => Err(KernelError::Read { what: "link kube-ipvs0", source }),
            Ok(()) => Ok(index),
        }
    }

    /// All addresses of the family in this network namespace.
    pub fn addresses(&mut self) -> Result<Vec<route::LinkAddress>, KernelError> {
        let header = route::family_header(self.family);
        let build = |seq| request(route::GET_ADDRESS, NLM_F_DUMP, seq, &header, |_| {});
        let mut found = Vec::new();
        let read = self.route.dump(&mut found, build, Vec::clear, |found, answer| found.extend(route::parse_address(&answer)));
        read.map_err(|source| KernelError::Read { what: "addresses", source })?;
        Ok(found)
    }

    /// Which of our sets are there, of our types, and with how many entries.
    pub fn set_sizes(&mut self) -> Result<BTreeMap<Set, Option<u32>>, KernelError> {
        let family = self.family;
        let build = |seq| request(ipset::LIST, NLM_F_DUMP, seq, &ipset::HEADER, ipset::put_headers_only);
        let mut found = BTreeMap::new();
        let read = self.sets.dump(&mut found, build, BTreeMap::clear, |found, answer| {
            let Some(listed) = ipset::parse_list(&answer, |_| None) else { return };
            let set = Set::from_name(listed.name, family);
            found.extend(set.filter(|set| listed.set_type == Some(Some(set.set_type()))).map(|set| (set, listed.count)));
        });
        read.map_err(|source| KernelError::Read { what: "sets (ipset; load module ip_set, CONFIG_IP_SET)", source })?;
        Ok(found)
    }

    fn read_sets(&mut self) -> Result<BTreeMap<Set, BTreeSet<Entry>>, KernelError> {
        let mut sets = BTreeMap::new();
        for set in self.set_sizes()?.into_keys() {
            let name = set.name(self.family);
            let build = |seq| request(ipset::LIST, NLM_F_DUMP, seq, &ipset::HEADER, |w| ipset::put_name(w, name));
            let mut entries = BTreeSet::new();
            let read = self.sets.dump(&mut entries, build, BTreeSet::clear, |entries, answer| {
                let listed = ipset::parse_list(&answer, |_| Some(set.set_type()));
                entries.extend(listed.into_iter().flat_map(|listed| listed.entries));
            });
            read.map_err(|source| KernelError::Read { what: "the entries of a set", source })?;
            sets.insert(set, entries);
        }
        Ok(sets)
    }

    /// All virtual servers of the family, without their destinations.
    pub fn servers(&mut self) -> Result<Vec<(Server, ipvs::Spread)>, KernelError> {
        let (family, header) = (self.family, genl::header(ipvs::GET_SERVICE, ipvs::VERSION));
        let build = |seq| request(self.numbers.ipvs, NLM_F_DUMP, seq, &header, |w| ipvs::put_family(w, family));
        let mut found = Vec::new();
        let read = self.generic.dump(&mut found, build, Vec::clear, |found, answer| found.extend(ipvs::parse_server(&answer)));
        read.map_err(|source| KernelError::Read { what: "virtual servers", source })?;
        // The kernel tells of both families.
        found.retain(|(server, _): &(Server, _)| Family::of(server.ip) == family);
        Ok(found)
    }

    fn read_servers(&mut self) -> Result<BTreeMap<Server, Held>, KernelError> {
        let mut servers = BTreeMap::new();
        for (server, spread) in self.servers()? {
            servers.insert(server, Held { spread, destinations: self.weights(&server)? });
        }
        Ok(servers)
    }

    /// The weights of a virtual server's destinations.
    pub fn weights(&mut self, server: &Server) -> Result<BTreeMap<SocketAddr, u32>, KernelError> {
        let weight = |d: ipvs::Destination| (d.address, if d.translated { d.weight } else { STRANGE });
        Ok(self.destinations(server)?.into_iter().map(weight).collect())
    }

    /// The destinations of a virtual server; none, when it is gone.
    pub fn destinations(&mut self, server: &Server) -> Result<Vec<ipvs::Destination>, KernelError> {
        let header = genl::header(ipvs::GET_DEST, ipvs::VERSION);
        let build = |seq| request(self.numbers.ipvs, NLM_F_DUMP, seq, &header, |w| ipvs::put_server(w, server, None));
        let mut found = Vec::new();
        let each = |found: &mut Vec<_>, answer: crate::netlink::attr::Message| found.extend(ipvs::parse_destination(&answer, server));
        match self.generic.dump(&mut found, build, Vec::clear, each) {
            Err(error) if error.refused_with() == Some(libc::ESRCH) => Ok(Vec::new()),
            Err(source) => Err(KernelError::Read { what: "the destinations of a virtual server", source }),
            Ok(()) => Ok(found),
        }
    }

    pub fn rules(&self) -> Xtables {
        self.rules
    }

    /// The rules that are loaded.
    pub fn saved(&self) -> Result<Saved, KernelError> {
        Ok(Saved::read(&self.rules.save()?))
    }

    /// Carries operations out, in order. `loaded` is what is there of the rules. `done` is told of each operation
    /// that is in force. Those that the kernel does not want are returned; after an error it is not known how far
    /// things went.
    pub fn apply(&mut self, ops: &[Op], loaded: &Saved, mut done: impl FnMut(&Op)) -> Result<Vec<Unwanted>, KernelError> {
        let mut unwanted: Vec<Unwanted> = Vec::new();
        let mut start = 0;
        while start < ops.len() {
            let kind = channel(&ops[start]);
            let count = ops[start..].iter().take_while(|op| channel(op) == kind && !alone(op)).count().max(1);
            let some = &ops[start..start + count];
            match &some[0] {
                Op::Load(skeleton) => {
                    // The second load of a plan finds the jumps and chains of the first.
                    let first = !ops[..start].iter().any(|op| matches!(op, Op::Load(_)));
                    let input = if first { loaded.load(skeleton) } else { Saved::of(skeleton).load(skeleton) };
                    self.rules.restore(&input)?;
                }
                Op::CreateSet(set) => self.create_set(*set)?,
                _ => {
                    let more = self.send(some, kind)?;
                    let added = |op: &Op| if let Op::Add(Item::Address(ip)) = op { Some(*ip) } else { None };
                    local::wait(&mut self.route, some.iter().filter_map(added))?;
                    unwanted.extend(more.into_iter().map(|one| Unwanted { index: start + one.index, ..one }));
                }
            }
            let refused = |index: usize| unwanted.iter().any(|one| one.index == index);
            (start..start + count).filter(|index| !refused(*index)).for_each(|index| done(&ops[index]));
            if let Op::CreateLink = some[0] {
                self.numbers.link = self.link()?.unwrap_or(0);
            }
            start += count;
        }
        Ok(unwanted)
    }

    fn send(&mut self, ops: &[Op], kind: Channel) -> Result<Vec<Unwanted>, KernelError> {
        let mut unwanted = Vec::new();
        let mut waiting: Vec<(usize, Op)> = ops.iter().cloned().enumerate().collect();
        for attempt in 1..=ATTEMPTS {
            let mut pipeline = Pipeline::default();
            waiting.iter().for_each(|(_, op)| render(&mut pipeline, op, &self.numbers));
            let refused = self.socket(kind).pipeline(&pipeline)?;
            let mut again = Vec::new();
            for (position, refusal) in refused {
                let (index, op) = &waiting[position];
                match meaning(op, &refusal) {
                    Meaning::Needless => {}
                    Meaning::Again if attempt < ATTEMPTS => again.push((*index, op.clone())),
                    Meaning::Instead(other) if attempt < ATTEMPTS => again.push((*index, other)),
                    Meaning::Orphan if unwanted.iter().any(|one: &Unwanted| ops[one.index].server() == op.server()) => {
                        unwanted.push(Unwanted { index: *index, why: String::new(), full: false });
                    }
                    Meaning::Unwanted { full } => {
                        let why = if full { format!("it has {} entries, and no room for more", ipset::LIMIT) } else { refusal.to_string() };
                        unwanted.push(Unwanted { index: *index, why, full });
                    }
                    _ => return Err(self.fatal(op, refusal)),
                }
            }
            if again.is_empty() {
                break;
            }
            waiting = again;
        }
        Ok(unwanted)
    }

    fn socket(&mut self, kind: Channel) -> &mut NetlinkSocket {
        match kind {
            Channel::Ipvs => &mut self.generic,
            Channel::Route => &mut self.route,
            Channel::Sets | Channel::Rules => &mut self.sets,
        }
    }

    fn fatal(&self, op: &Op, source: Refused) -> KernelError {
        let what = describe(op, self.family);
        match (op, source.errno()) {
            (Op::AddServer(_, spread) | Op::EditServer(_, spread), libc::ENOENT) => {
                KernelError::NoScheduler { name: spread.scheduler.name().into() }
            }
            (Op::CreateLink, libc::EOPNOTSUPP) => KernelError::Link { source },
            (_, libc::ESRCH | libc::ENOENT | libc::ENODEV | libc::EEXIST) => KernelError::Changed { what, source },
            _ => KernelError::Refused { what, source },
        }
    }

    fn create_set(&mut self, set: Set) -> Result<(), KernelError> {
        let (set_type, name, family) = (set.set_type(), set.name(self.family), self.family);
        let seq = self.sets.reserve_seq(1);
        let ask = request(ipset::TYPE, 0, seq, &ipset::HEADER, |w| ipset::put_type(w, set_type, family));
        let mut revision = None;
        let asked = self.sets.request(&ask, seq, |answer| revision = ipset::parse_revision(&answer));
        if let Err(error) = asked
            && error.refused_with() != Some(ipset::NO_TYPE)
        {
            return Err(KernelError::Read { what: "set types (ipset; load module ip_set, CONFIG_IP_SET)", source: error });
        }
        let revision = revision.ok_or(KernelError::NoSetType { name: set_type.name() })?;
        let create = |w: &mut Writer| ipset::put_set(w, name, set_type, family, revision);
        match self.about_set(ipset::CREATE, create)? {
            None => return Ok(()),
            Some(refused) if ![ipset::EXISTS, libc::EEXIST].contains(&refused.errno()) => {
                return Err(KernelError::Refused { what: describe(&Op::CreateSet(set), family), source: refused });
            }
            Some(_) => {}
        }
        // One of this name is of another kind. If no rule uses it, it is nobody's.
        tracing::warn!(set = name, "replacing a set of another kind than ours");
        if self.about_set(ipset::DESTROY, |w| ipset::put_name(w, name))?.is_some() {
            return Err(KernelError::SetTaken { name });
        }
        let refused = self.about_set(ipset::CREATE, create)?;
        refused.map_or(Ok(()), |source| Err(KernelError::Refused { what: describe(&Op::CreateSet(set), family), source }))
    }

    fn about_set(&mut self, kind: u16, fill: impl FnOnce(&mut Writer)) -> Result<Option<Refused>, KernelError> {
        let mut pipeline = Pipeline::default();
        pipeline.add(kind, 0, &ipset::HEADER, fill);
        Ok(self.sets.pipeline(&pipeline)?.pop().map(|(_, refused)| refused))
    }

    /// Deletes our sets. One that somebody's rules use stays, and is an error.
    pub fn destroy_sets(&mut self) -> Result<(), KernelError> {
        let mut outcome = Ok(());
        for set in self.set_sizes()?.into_keys() {
            let name = set.name(self.family);
            if self.about_set(ipset::DESTROY, |w| ipset::put_name(w, name))?.is_some_and(|refused| refused.errno() != libc::ENOENT) {
                outcome = outcome.and(Err(KernelError::SetTaken { name }));
            }
        }
        outcome
    }

    /// Deletes our link, unless addresses of the other family are on it.
    pub fn delete_link(&mut self) -> Result<(), KernelError> {
        let Some(index) = self.link()? else { return Ok(()) };
        let mut others = Vec::new();
        for family in Family::ALL {
            let header = route::family_header(family);
            let build = |seq| request(route::GET_ADDRESS, NLM_F_DUMP, seq, &header, |_| {});
            let each = |others: &mut Vec<_>, answer: crate::netlink::attr::Message| others.extend(route::parse_address(&answer));
            let read = self.route.dump(&mut others, build, |_| {}, each);
            read.map_err(|source| KernelError::Read { what: "addresses", source })?;
        }
        if others.iter().any(|address| address.link == index) {
            return Ok(());
        }
        let mut pipeline = Pipeline::default();
        pipeline.add(route::DELETE_LINK, 0, &route::link_header(index), |_| {});
        match self.route.pipeline(&pipeline)?.pop() {
            Some((_, refused)) if refused.errno() != libc::ENODEV => {
                Err(KernelError::Refused { what: format!("the removal of link {LINK}"), source: refused })
            }
            _ => Ok(()),
        }
    }

    /// Sets the time-outs of connections, in seconds, where they differ; 0 keeps what there is.
    pub fn set_timeouts(&mut self, wanted: [u32; 3]) -> Result<bool, KernelError> {
        let seq = self.generic.reserve_seq(1);
        let header = genl::header(ipvs::GET_CONFIG, ipvs::VERSION);
        let ask = request(self.numbers.ipvs, 0, seq, &header, |_| {});
        let mut held = None;
        let asked = self.generic.request(&ask, seq, |answer| held = ipvs::parse_timeouts(&answer));
        asked.map_err(|source| KernelError::Read { what: "time-outs of IPVS", source })?;
        let same = |held: [u32; 3]| held.iter().zip(&wanted).all(|(held, wanted)| *wanted == 0 || held == wanted);
        if held.is_some_and(same) {
            return Ok(false);
        }
        let mut pipeline = Pipeline::default();
        let header = genl::header(ipvs::SET_CONFIG, ipvs::VERSION);
        pipeline.add(self.numbers.ipvs, 0, &header, |w| ipvs::put_timeouts(w, wanted));
        match self.generic.pipeline(&pipeline)?.pop() {
            Some((_, source)) => Err(KernelError::Refused { what: "time-outs of IPVS".into(), source }),
            None => Ok(true),
        }
    }

    /// Makes and deletes a virtual server with this scheduler, to see that there is one.
    pub fn probe(&mut self, server: Server, spread: ipvs::Spread) -> Result<(), KernelError> {
        let probe = [Op::AddServer(server, spread), Op::DeleteServer(server)];
        let unwanted = self.apply(&probe, &Saved::default(), |_| {})?;
        match unwanted.into_iter().next() {
            Some(Unwanted { why, .. }) => {
                tracing::warn!(%why, "IPVS takes no virtual server to try its scheduler");
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn request(kind: u16, flags: u16, seq: u32, fixed: &[u8], fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::default();
    w.begin_with(kind, NLM_F_REQUEST | flags, seq, fixed);
    fill(&mut w);
    w.end();
    w.bytes().to_vec()
}

/// Operations that go one by one.
fn alone(op: &Op) -> bool {
    matches!(op, Op::CreateLink | Op::CreateSet(_) | Op::Load(_))
}

fn meaning(op: &Op, refused: &Refused) -> Meaning {
    let errno = refused.errno();
    if [libc::EBUSY, libc::ENOBUFS, libc::ENOMEM, libc::EAGAIN, libc::EINTR].contains(&errno) {
        return Meaning::Again;
    }
    if [libc::EPERM, libc::EACCES].contains(&errno) && !matches!(op, Op::Add(Item::Address(_))) {
        return Meaning::Fatal;
    }
    match (op, errno) {
        (Op::Add(_) | Op::CreateLink, libc::EEXIST) => Meaning::Needless,
        (Op::Delete(Item::Address(_)), libc::EADDRNOTAVAIL) => Meaning::Needless,
        (Op::DeleteServer(_), libc::ESRCH | libc::ENOENT) => Meaning::Needless,
        (Op::DeleteDestination(..), libc::ENOENT | libc::ESRCH) => Meaning::Needless,
        // Somebody made it since we looked, and its destinations are not known.
        (Op::AddServer(..), libc::EEXIST) => Meaning::Fatal,
        (Op::AddDestination(server, address, weight), libc::EEXIST) => Meaning::Instead(Op::EditDestination(*server, *address, *weight)),
        (Op::EditDestination(server, address, weight), libc::ENOENT) => Meaning::Instead(Op::AddDestination(*server, *address, *weight)),
        (Op::AddDestination(..) | Op::EditDestination(..), libc::ESRCH) => Meaning::Orphan,
        (Op::AddServer(..) | Op::EditServer(..), libc::ENOENT) | (Op::EditServer(..), libc::ESRCH) => Meaning::Fatal,
        (Op::Add(Item::Address(_)) | Op::Delete(Item::Address(_)), libc::ENODEV) | (Op::CreateLink, _) => Meaning::Fatal,
        (Op::Add(Item::Entry(..)), ipset::FULL) => Meaning::Unwanted { full: true },
        (Op::Add(Item::Entry(..)) | Op::Delete(Item::Entry(..)), libc::ENOENT) => Meaning::Fatal,
        _ => Meaning::Unwanted { full: false },
    }
}

impl Op {
    fn server(&self) -> Option<&Server> {
        match self {
            Op::AddServer(server, _) | Op::EditServer(server, _) | Op::DeleteServer(server) => Some(server),
            Op::AddDestination(server, ..) | Op::EditDestination(server, ..) | Op::DeleteDestination(server, _) => Some(server),
            _ => None,
        }
    }
}

/// How many connections each destination has.
pub fn connections(destinations: &[ipvs::Destination], address: &SocketAddr) -> u64 {
    let found = destinations.iter().find(|one| one.address == *address);
    found.map_or(0, |one| u64::from(one.active) + u64::from(one.inactive))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use crate::netlink::ipvs::{Scheduler, Spread};

    fn refused(errno: i32) -> Refused {
        Refused { seq: 1, source: std::io::Error::from_raw_os_error(errno), detail: None }
    }

    fn means(op: &Op, errno: i32) -> &'static str {
        match meaning(op, &refused(errno)) {
            Meaning::Needless => "needless",
            Meaning::Again => "again",
            Meaning::Instead(Op::AddDestination(..)) => "add instead",
            Meaning::Instead(_) => "edit instead",
            Meaning::Unwanted { full: true } => "full",
            Meaning::Unwanted { full: false } => "unwanted",
            Meaning::Orphan => "orphan",
            Meaning::Fatal => "fatal",
        }
    }

    #[test]
    fn each_answer_of_the_kernel_has_its_meaning() {
        let server = Server { ip: [10, 96, 0, 1].into(), protocol: Protocol::Tcp, port: 80 };
        let spread = Spread { scheduler: Scheduler::new("rr").unwrap(), flags: 0, timeout: 0, netmask: 32 };
        let address = SocketAddr::from(([10, 1, 0, 1], 80));
        let entry = Item::Entry(Set::ClusterIp, Entry::IpPort(server.ip, Protocol::Tcp, 80));
        let link = Item::Address(server.ip);
        let add = Op::AddDestination(server, address, 1);
        let cases = [
            // A kernel that is busy or short of memory is asked again, whatever for.
            (add.clone(), libc::EBUSY, "again"),
            (Op::Add(entry), libc::ENOBUFS, "again"),
            (Op::DeleteServer(server), libc::EINTR, "again"),
            (Op::CreateLink, libc::ENOMEM, "again"),
            // What is so already is well.
            (Op::Add(entry), libc::EEXIST, "needless"),
            (Op::Add(link), libc::EEXIST, "needless"),
            (Op::Delete(link), libc::EADDRNOTAVAIL, "needless"),
            (Op::DeleteServer(server), libc::ESRCH, "needless"),
            (Op::DeleteDestination(server, address), libc::ENOENT, "needless"),
            (add.clone(), libc::EEXIST, "edit instead"),
            (Op::EditDestination(server, address, 0), libc::ENOENT, "add instead"),
            // One object's trouble is nobody else's.
            (add.clone(), libc::EINVAL, "unwanted"),
            (Op::Add(entry), ipset::FULL, "full"),
            (Op::Add(link), libc::EACCES, "unwanted"),
            (add.clone(), libc::ESRCH, "orphan"),
            // These are about more than one object.
            (add, libc::EPERM, "fatal"),
            (Op::AddServer(server, spread), libc::ENOENT, "fatal"),
            (Op::AddServer(server, spread), libc::EEXIST, "fatal"),
            (Op::EditServer(server, spread), libc::ESRCH, "fatal"),
            (Op::Add(entry), libc::ENOENT, "fatal"),
            (Op::Add(link), libc::ENODEV, "fatal"),
        ];
        for (op, errno, expected) in cases {
            assert_eq!(means(&op, errno), expected, "{op:?}: {errno}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = KernelError::NoScheduler { name: "lblcr".into() };
        assert!(missing.to_string().contains("ip_vs_lblcr (CONFIG_IP_VS_LBLCR)"), "{missing}");
        let missing = KernelError::NoSetType { name: "hash:ip,port,net" };
        assert!(missing.to_string().contains("ip_set_hash_ipportnet (CONFIG_IP_SET_HASH_IPPORTNET)"), "{missing}");
        let missing = KernelError::NoIpvs { tried: Some("modprobe: not found".into()) };
        assert!(missing.to_string().ends_with("ip_vs (CONFIG_IP_VS); modprobe: not found"), "{missing}");
    }
}
