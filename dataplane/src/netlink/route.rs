//! Links and addresses in routing netlink, to and from messages.
//!
//! Owns what the data plane needs of them: a dummy link, addresses on it, and whose the other addresses are. Never
//! decides what to send. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::IpAddr;

use super::attr::{Message, Writer};
use crate::model::Family;
use crate::model::address::{from_octets, octets};

pub const NEW_LINK: u16 = 16;
pub const DELETE_LINK: u16 = 17;
pub const GET_LINK: u16 = 18;
pub const NEW_ADDRESS: u16 = 20;
pub const DELETE_ADDRESS: u16 = 21;
pub const GET_ADDRESS: u16 = 22;

pub const GET_ROUTE: u16 = 26;

pub const CREATE: u16 = 0x400;
pub const EXCLUSIVE: u16 = 0x200;

const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

const LINK_NAME: u16 = 3;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;

const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const FLAGS: u16 = 8;
/// Duplicate addresses are not looked for.
const NO_DAD: u32 = 2;

const ROUTE_HEADER: usize = 12;
const DESTINATION: u16 = 1;
/// The kind of a route to one of this node's own addresses.
pub const IS_LOCAL: u8 = 2;

/// One network link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Its driver's name, for links that are made by one: `dummy`, `bridge`.
    pub kind: Option<String>,
}

/// One address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkAddress {
    /// The link's index.
    pub link: u32,
    pub ip: IpAddr,
    pub prefix: u8,
}

/// The fixed part of a request about the link with this index; 0 where the attributes name it.
pub fn link_header(index: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

pub fn put_link_name(w: &mut Writer, name: &str) {
    w.put_str(LINK_NAME, name);
}

/// The attributes that make a dummy link.
pub fn put_dummy(w: &mut Writer, name: &str) {
    put_link_name(w, name);
    w.nested(LINK_INFO, |w| w.put_str(INFO_KIND, "dummy"));
}

/// The fixed part of a request for all addresses of a family.
pub fn family_header(family: Family) -> [u8; ADDRESS_HEADER] {
    let mut header = [0; ADDRESS_HEADER];
    header[0] = family.number();
    header
}

/// The fixed part of a request about one address.
pub fn address_header(address: &LinkAddress) -> [u8; ADDRESS_HEADER] {
    let mut header = family_header(Family::of(address.ip));
    header[1] = address.prefix;
    header[4..8].copy_from_slice(&address.link.to_ne_bytes());
    header
}

pub fn put_address(w: &mut Writer, address: &LinkAddress) {
    w.put(LOCAL, &octets(address.ip));
    w.put(ADDRESS, &octets(address.ip));
    if address.ip.is_ipv6() {
        w.put(FLAGS, &NO_DAD.to_ne_bytes());
    }
}

/// The fixed part of a question for the way to an address.
pub fn route_header(ip: IpAddr) -> [u8; ROUTE_HEADER] {
    let mut header = [0; ROUTE_HEADER];
    header[0] = Family::of(ip).number();
    header[1] = if ip.is_ipv4() { 32 } else { 128 };
    header
}

pub fn put_destination(w: &mut Writer, ip: IpAddr) {
    w.put(DESTINATION, &octets(ip));
}

/// The kind of the route that answers such a question.
pub fn parse_route_kind(message: &Message) -> Option<u8> {
    message.body.get(..ROUTE_HEADER).map(|header| header[7])
}

pub fn parse_link(message: &Message) -> Option<Link> {
    let index = u32::from_ne_bytes(message.body.get(4..8)?.try_into().ok()?);
    let attrs = message.attrs_after(LINK_HEADER);
    let kind = attrs.find(LINK_INFO).and_then(|info| info.attrs().find(INFO_KIND)).and_then(|a| a.str());
    Some(Link { index, name: attrs.find(LINK_NAME)?.str()?.into(), kind: kind.map(String::from) })
}

pub fn parse_address(message: &Message) -> Option<LinkAddress> {
    let &[family, prefix, _, _, i0, i1, i2, i3] = message.body.get(..ADDRESS_HEADER)? else { return None };
    let attrs = message.attrs_after(ADDRESS_HEADER);
    // On point-to-point links the other attribute is the peer's.
    let ip = from_octets(attrs.find(LOCAL).or_else(|| attrs.find(ADDRESS))?.payload)?;
    (Family::of(ip).number() == family).then_some(LinkAddress { link: u32::from_ne_bytes([i0, i1, i2, i3]), ip, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attr::Messages;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_address_is_read_as_it_was_written(v4: [u8; 4], v6: [u8; 16], choose: bool, prefix: u8, link: u32) {
            let ip = if choose { IpAddr::from(v4) } else { IpAddr::from(v6) };
            let address = LinkAddress { link, ip, prefix };
            let mut w = Writer::default();
            w.begin_with(NEW_ADDRESS, 0, 1, &address_header(&address));
            put_address(&mut w, &address);
            w.end();
            let parsed = Messages(w.bytes()).next().and_then(|m| parse_address(&m));
            prop_assert_eq!(parsed, Some(address));
        }

        #[test]
        fn whatever_the_kernel_says_is_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let len = u32::try_from(bytes.len()).unwrap();
            if let Some(header) = bytes.get_mut(..4) {
                header.copy_from_slice(&len.to_ne_bytes());
            }
            for message in Messages(&bytes) {
                let _ = (parse_link(&message), parse_address(&message), parse_route_kind(&message));
            }
        }
    }

    #[test]
    fn a_link_is_read_with_its_kind() {
        let mut w = Writer::default();
        w.begin_with(NEW_LINK, 0, 1, &link_header(7));
        put_dummy(&mut w, "kube-ipvs0");
        w.end();
        let link = Messages(w.bytes()).next().and_then(|m| parse_link(&m));
        assert_eq!(link, Some(Link { index: 7, name: "kube-ipvs0".into(), kind: Some("dummy".into()) }));
    }
}
