//! What IPVS and the rules around it would do with the first packet of a connection.
//!
//! Owns an interpreter over the kernel's image, with the packets and outcomes of the simulator that all backends
//! share. Never touches the kernel. Tests: `tests`, where it agrees with nftables but for these exceptions, which come
//! with IPVS (or are kube-proxy's there):
//!
//! - externalTrafficPolicy Local: a virtual server has one list for everybody, so pods and this node get this node's
//!   endpoints, too, with their own source address; without any here, everybody gets the others.
//! - internalTrafficPolicy Local without an endpoint here: refused, where nftables drops.
//! - Other ports of external and load balancers' addresses are refused: the addresses are this node's own.
//! - Without a detector of pods, this node's own packets to cluster IPs are masked: their source would be the service's
//!   address.
//! - This node's own packets to a load balancer without endpoints are refused whatever its source ranges say.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::{IpAddr, SocketAddr};

use super::ir::{CLOSED, Entry, Image, Server};
use super::sets::Set;
use super::skeleton::{Chain, Match, Rules, Side, Target};
use crate::netlink::ipset::SetType;
use crate::sim::{Outcome, Packet, Surroundings};

/// How a chain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing decided.
    Fell,
    Accept,
    Drop,
    Reject,
}

struct Walk<'a, 'b> {
    image: &'a Image,
    rules: Rules,
    around: &'a mut Surroundings<'b>,
    packet: Packet,
    mark: u32,
    masked: bool,
    /// The virtual server that translated the packet.
    through: Option<Server>,
}

/// Sends a packet through the kernel; there must be rules.
pub fn send(image: &Image, packet: &Packet, around: &mut Surroundings) -> Option<Outcome> {
    let rules = image.skeleton.as_ref()?.rules();
    let mut packet = packet.clone();
    let to = packet.destination.ip();
    if packet.interface.is_none() && (image.addresses.contains(&to) || around.local.contains(&to)) {
        // The nearest source for an address of one's own is itself.
        packet.source.set_ip(to);
    }
    let mut walk = Walk { image, rules, around, packet, mark: 0, masked: false, through: None };
    walk.chain(Chain::Services);
    let incoming = walk.packet.interface.is_some();
    let end = match (incoming, walk.is_local(walk.packet.destination.ip())) {
        (true, true) => walk.hooks(&[Chain::IpvsFilter, Chain::ProxyFirewall, Chain::HealthCheck]).or_else(|| walk.translate()),
        (true, false) => walk.hooks(&[Chain::ProxyFirewall, Chain::Forward]),
        // IPVS sees this node's own packets before the filters do.
        (false, _) => walk.translate(),
    };
    let end = end.or_else(|| match (incoming, walk.through) {
        (true, None) => None,
        _ => walk.hooks(&[Chain::IpvsOutFilter]),
    });
    // A packet to oneself leaves and comes in.
    let comes_in = !incoming && walk.through.is_none() && walk.is_local(walk.packet.destination.ip());
    let end = end.or_else(|| if comes_in { walk.hooks(&[Chain::IpvsFilter, Chain::ProxyFirewall, Chain::HealthCheck]) } else { None });
    if let Some(end) = end {
        return Some(end);
    }
    if walk.through.is_some() || !walk.is_local(walk.packet.destination.ip()) {
        walk.chain(Chain::Postrouting);
    }
    Some(Outcome::Delivered { to: walk.packet.destination, masked: walk.masked })
}

impl Walk<'_, '_> {
    fn is_local(&self, ip: IpAddr) -> bool {
        self.around.local.contains(&ip) || self.image.addresses.contains(&ip)
    }

    /// Filters, one after the other; `None` when the packet may go on.
    fn hooks(&mut self, chains: &[Chain]) -> Option<Outcome> {
        for chain in chains {
            match self.chain(*chain) {
                End::Drop => return Some(Outcome::Dropped),
                End::Reject => return Some(Outcome::Refused),
                End::Accept => return None,
                End::Fell => {}
            }
        }
        None
    }

    /// The virtual server for the packet, if there is one, gives it a destination.
    fn translate(&mut self) -> Option<Outcome> {
        let server = Server { ip: self.packet.destination.ip(), protocol: self.packet.protocol, port: self.packet.destination.port() };
        let held = self.image.servers.get(&server)?;
        let open: Vec<SocketAddr> =
            held.destinations.iter().filter(|(_, weight)| **weight != CLOSED).map(|(address, _)| *address).collect();
        let Some(count) = u32::try_from(open.len()).ok().filter(|count| *count > 0) else {
            return Some(Outcome::Refused);
        };
        self.packet.destination = open[(self.around.random)(count) as usize];
        self.through = Some(server);
        None
    }

    fn chain(&mut self, chain: Chain) -> End {
        let rules: Vec<_> = self.rules.of(chain).cloned().collect();
        for rule in rules {
            if !rule.matches.iter().all(|one| self.matches(one)) {
                continue;
            }
            match rule.target {
                Target::Return => return End::Fell,
                Target::Accept => return End::Accept,
                Target::Drop => return End::Drop,
                Target::Reject => return End::Reject,
                Target::Masquerade | Target::MasqueradeRandom => {
                    self.masked = true;
                    return End::Accept;
                }
                Target::SetMark(mark) => self.mark |= mark,
                Target::ClearMark(mark) => self.mark &= !mark,
                Target::FlipMark(mark) => self.mark ^= mark,
                Target::Goto(next) => match self.chain(next) {
                    End::Fell => {}
                    end => return end,
                },
            }
        }
        End::Fell
    }

    fn matches(&self, one: &Match) -> bool {
        let source = self.packet.source.ip();
        match one {
            Match::Source(cidr) => cidr.contains(source),
            Match::NotSource(cidr) => !cidr.contains(source),
            Match::NotInterface(pattern) => {
                let name = self.packet.interface.as_deref().unwrap_or_default();
                !pattern.strip_suffix('+').map_or(name == pattern, |start| name.starts_with(start))
            }
            Match::Protocol(protocol) => self.packet.protocol == *protocol,
            // Every packet here begins a connection, and bridges are below.
            Match::Comment(_) | Match::New | Match::NotBridged => true,
            Match::Established => false,
            Match::Set(set, sides) => self.is_in(*set, sides),
            Match::Marked(mark) => self.mark & mark == *mark,
            Match::NotMarked(mark) => self.mark & mark != *mark,
            Match::FromElsewhere => !self.is_local(source),
            Match::ToHere => self.is_local(self.packet.destination.ip()),
            Match::Ipvs(server) => self.through == Some(*server),
        }
    }

    /// Looks the packet up: by its addresses and ports on these sides, in the order of the set's components.
    fn is_in(&self, set: Set, sides: &[Side]) -> bool {
        let Some(entries) = self.image.sets.get(&set) else { return false };
        let side = |index: usize| match sides.get(index) {
            Some(Side::Source) => self.packet.source,
            _ => self.packet.destination,
        };
        let (first, protocol) = (side(0), self.packet.protocol);
        let found = |entry: Entry| entries.contains(&entry);
        match set.set_type() {
            SetType::Port => found(Entry::Port(first.port())),
            SetType::Ip => found(Entry::Ip(first.ip())),
            SetType::IpPort => found(Entry::IpPort(first.ip(), protocol, side(1).port())),
            SetType::IpPortIp => found(Entry::IpPortIp(first.ip(), protocol, side(1).port(), side(2).ip())),
            SetType::IpPortNet => entries.iter().any(|entry| match entry {
                Entry::IpPortNet(ip, of, port, net) => {
                    (*ip, *of, *port) == (first.ip(), protocol, side(1).port()) && net.contains(side(2).ip())
                }
                _ => false,
            }),
        }
    }
}
