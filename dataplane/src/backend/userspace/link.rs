//! The services' addresses in the kernel: on a dummy link of our own, or on loopback where there is no such link.
//!
//! Owns a routing netlink socket. What stands on our own link is ours, whoever put it there; on loopback only what we
//! put there ourselves, because addresses carry no owner. Tests: the namespace tests.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_sys::constants::NETLINK_ROUTE;

use crate::model::Family;
use crate::netlink::attr::Writer;
use crate::netlink::local;
use crate::netlink::route::{self, LinkAddress};
use crate::netlink::socket::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkSocket, SocketError};

const OWN: &str = "kube-userspace0";
const LOOPBACK: &str = "lo";

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("cannot read {what}: {source}")]
    Read { what: &'static str, source: SocketError },
    #[error("cannot {verb} {ip} on link {link}{}: {source}", hint(source))]
    Address { verb: &'static str, ip: IpAddr, link: &'static str, source: SocketError },
}

fn hint(source: &SocketError) -> &'static str {
    if source.refused_with() == Some(libc::EPERM) { " (needs CAP_NET_ADMIN in this network namespace)" } else { "" }
}

pub struct Link {
    family: Family,
    socket: NetlinkSocket,
    index: u32,
    name: &'static str,
    /// On the link, and ours.
    held: BTreeSet<IpAddr>,
    /// On other links: nobody must take them away, nor put them on ours.
    elsewhere: BTreeSet<IpAddr>,
}

impl Link {
    pub fn open(family: Family) -> Result<Link, LinkError> {
        let socket = NetlinkSocket::open_protocol(NETLINK_ROUTE)?;
        Ok(Link { family, socket, index: 0, name: OWN, held: BTreeSet::new(), elsewhere: BTreeSet::new() })
    }

    fn find(&mut self, name: &str) -> Result<Option<u32>, LinkError> {
        let seq = self.socket.reserve_seq(1);
        let mut w = Writer::default();
        w.begin_with(route::GET_LINK, NLM_F_REQUEST, seq, &route::link_header(0));
        route::put_link_name(&mut w, name);
        w.end();
        let mut index = None;
        let answer = self.socket.request(w.bytes(), seq, |answer| index = route::parse_link(&answer).map(|link| link.index));
        match answer {
            Err(error) if error.refused_with() == Some(libc::ENODEV) => Ok(None),
            Err(source) => Err(LinkError::Read { what: "links", source }),
            Ok(()) => Ok(index),
        }
    }

    fn change(&mut self, kind: u16, flags: u16, fixed: &[u8], attributes: impl FnOnce(&mut Writer)) -> Result<(), SocketError> {
        let seq = self.socket.reserve_seq(1);
        let mut w = Writer::default();
        w.begin_with(kind, NLM_F_REQUEST | NLM_F_ACK | flags, seq, fixed);
        attributes(&mut w);
        w.end();
        self.socket.request(w.bytes(), seq, |_| {})
    }

    /// Sees what is there. Nothing is written.
    pub fn read(&mut self) -> Result<(), LinkError> {
        let own = self.find(OWN)?;
        let ours_before = std::mem::take(&mut self.held);
        (self.index, self.name) = match own {
            Some(index) => (index, OWN),
            None => (self.find(LOOPBACK)?.unwrap_or(0), LOOPBACK),
        };
        self.elsewhere.clear();
        for address in self.addresses()? {
            let ours = address.link == self.index && (self.name == OWN || ours_before.contains(&address.ip));
            if ours {
                self.held.insert(address.ip)
            } else {
                self.elsewhere.insert(address.ip)
            };
        }
        Ok(())
    }

    fn addresses(&mut self) -> Result<Vec<LinkAddress>, LinkError> {
        let header = route::family_header(self.family);
        let build = |seq| {
            let mut w = Writer::default();
            w.begin_with(route::GET_ADDRESS, NLM_F_REQUEST | NLM_F_DUMP, seq, &header);
            w.end();
            w.bytes().to_vec()
        };
        let mut found = Vec::new();
        let read = self.socket.dump(&mut found, build, Vec::clear, |found, answer| found.extend(route::parse_address(&answer)));
        read.map_err(|source| LinkError::Read { what: "addresses", source })?;
        found.retain(|address: &LinkAddress| Family::of(address.ip) == self.family);
        Ok(found)
    }

    /// Whether all that we put there is still there.
    pub fn is_whole(&mut self) -> Result<bool, LinkError> {
        let there: BTreeSet<IpAddr> = self.addresses()?.into_iter().filter(|a| a.link == self.index).map(|a| a.ip).collect();
        Ok(self.held.is_subset(&there))
    }

    pub fn held(&self) -> &BTreeSet<IpAddr> {
        &self.held
    }

    /// Makes our own link where the kernel can.
    fn make(&mut self) -> Result<(), LinkError> {
        let made = self.change(route::NEW_LINK, route::CREATE | route::EXCLUSIVE, &route::link_header(0), |w| route::put_dummy(w, OWN));
        match made {
            Err(error) if error.refused_with() == Some(libc::EEXIST) => {}
            Err(error) => {
                tracing::info!(%error, "no dummy link can be made: services' addresses go on {LOOPBACK}");
                return Ok(());
            }
            Ok(()) => {}
        }
        if let Some(index) = self.find(OWN)? {
            (self.index, self.name) = (index, OWN);
            let mut up = route::link_header(index);
            // IFF_UP among the flags, and as the one that changes.
            up[8..12].copy_from_slice(&1u32.to_ne_bytes());
            up[12..16].copy_from_slice(&1u32.to_ne_bytes());
            let raised = self.change(route::NEW_LINK, 0, &up, |_| {});
            raised.map_err(|source| LinkError::Read { what: "our own link", source })?;
        }
        Ok(())
    }

    /// Puts an address there. False when it was there already, or on another link.
    pub fn add(&mut self, ip: IpAddr) -> Result<bool, LinkError> {
        if self.held.contains(&ip) || self.elsewhere.contains(&ip) {
            return Ok(false);
        }
        if self.name != OWN && self.held.is_empty() {
            self.make()?;
        }
        let address = LinkAddress { link: self.index, ip, prefix: if ip.is_ipv4() { 32 } else { 128 } };
        let header = route::address_header(&address);
        match self.change(route::NEW_ADDRESS, route::CREATE | route::EXCLUSIVE, &header, |w| route::put_address(w, &address)) {
            Err(error) if error.refused_with() != Some(libc::EEXIST) => {
                Err(LinkError::Address { verb: "put", ip, link: self.name, source: error })
            }
            _ => Ok(self.held.insert(ip)),
        }
    }

    /// Returns when packets to these addresses come here.
    pub fn wait_until_local<'a>(&mut self, ips: impl IntoIterator<Item = &'a IpAddr>) -> Result<(), LinkError> {
        let held = &self.held;
        Ok(local::wait(&mut self.socket, ips.into_iter().copied().filter(|ip| held.contains(ip)))?)
    }

    /// Takes one of ours away.
    pub fn remove(&mut self, ip: IpAddr) -> Result<bool, LinkError> {
        if !self.held.contains(&ip) {
            return Ok(false);
        }
        let address = LinkAddress { link: self.index, ip, prefix: if ip.is_ipv4() { 32 } else { 128 } };
        let header = route::address_header(&address);
        match self.change(route::DELETE_ADDRESS, 0, &header, |w| route::put_address(w, &address)) {
            Err(error) if error.refused_with() != Some(libc::EADDRNOTAVAIL) => {
                Err(LinkError::Address { verb: "delete", ip, link: self.name, source: error })
            }
            _ => Ok(self.held.remove(&ip)),
        }
    }

    /// Takes all of ours away, and our own link when nothing of the other family is on it.
    pub fn clear(&mut self) -> Result<(), LinkError> {
        for ip in self.held.clone() {
            self.remove(ip)?;
        }
        if self.name == OWN {
            let other = if self.family == Family::V4 { Family::V6 } else { Family::V4 };
            let family = std::mem::replace(&mut self.family, other);
            let theirs = self.addresses();
            self.family = family;
            let link_local = |ip: IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
            if !theirs?.iter().any(|address| address.link == self.index && !link_local(address.ip)) {
                let gone = self.change(route::DELETE_LINK, 0, &route::link_header(self.index), |_| {});
                gone.map_err(|source| LinkError::Read { what: "our own link", source })?;
            }
        }
        Ok(())
    }
}

/// Deletes our own link from the calling thread's network namespace.
pub fn cleanup() -> Result<(), LinkError> {
    let mut link = Link::open(Family::V4)?;
    match link.find(OWN)? {
        None => Ok(()),
        Some(index) => {
            let gone = link.change(route::DELETE_LINK, 0, &route::link_header(index), |_| {});
            gone.map_err(|source| LinkError::Read { what: "our own link", source })
        }
    }
}
