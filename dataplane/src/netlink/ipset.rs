//! ipset in netfilter netlink: sets and their entries, to and from messages.
//!
//! Owns the four set types that services need, and the marks that ipset wants on attributes: numbers in network order
//! say so. Never decides what to send. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::net::IpAddr;

use super::attr::{Attrs, Message, Writer};
use crate::model::address::{from_octets, octets};
use crate::model::{Cidr, Family, Protocol};

/// The kinds of requests: the subsystem above the command.
const fn kind(command: u16) -> u16 {
    6 << 8 | command
}
pub const CREATE: u16 = kind(2);
pub const DESTROY: u16 = kind(3);
pub const LIST: u16 = kind(7);
pub const ADD: u16 = kind(9);
pub const DELETE: u16 = kind(10);
pub const TYPE: u16 = kind(13);

/// Every kernel since 2.6.39 speaks it, and later ones still do.
const PROTOCOL_VERSION: u8 = 6;
const AF_INET: u8 = 2;
/// The fixed part of every message.
pub const HEADER: [u8; 4] = [AF_INET, 0, 0, 0];

const NETWORK_ORDER: u16 = 0x4000;

const PROTOCOL: u16 = 1;
const SET_NAME: u16 = 2;
const TYPE_NAME: u16 = 3;
const REVISION: u16 = 4;
const FAMILY: u16 = 5;
const FLAGS: u16 = 6;
const DATA: u16 = 7;
const ENTRIES: u16 = 8;

const IP: u16 = 1;
const PORT: u16 = 4;
const PORT_TO: u16 = 5;
const PROTO: u16 = 7;
const HASH_SIZE: u16 = 18;
const MAX_ELEMENTS: u16 = 19;
const ELEMENTS: u16 = 24;
const IP2: u16 = 20;
const CIDR2: u16 = 21;

const ADDRESS_V4: u16 = 1;
const ADDRESS_V6: u16 = 2;

const LIST_HEADER: u32 = 4;

/// What the kernel answers when a set is in use by rules.
pub const BUSY: i32 = 4100;
/// … when a set of this name has another type or other limits.
pub const EXISTS: i32 = 4103;
/// … when a hash has as many entries as it may.
pub const FULL: i32 = 4352;
/// … when there is no such set type.
pub const NO_TYPE: i32 = 4098;

pub const SIZE: u32 = 1024;
pub const LIMIT: u32 = 65536;

/// What the entries of a set are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SetType {
    Port,
    Ip,
    IpPort,
    IpPortIp,
    IpPortNet,
}

impl SetType {
    /// As `ipset` and the kernel spell it.
    pub fn name(self) -> &'static str {
        match self {
            SetType::Port => "bitmap:port",
            SetType::Ip => "hash:ip",
            SetType::IpPort => "hash:ip,port",
            SetType::IpPortIp => "hash:ip,port,ip",
            SetType::IpPortNet => "hash:ip,port,net",
        }
    }

    pub fn from_name(name: &str) -> Option<SetType> {
        let all = [SetType::Port, SetType::Ip, SetType::IpPort, SetType::IpPortIp, SetType::IpPortNet];
        all.into_iter().find(|set_type| set_type.name() == name)
    }

    /// The family that a set of this type is made with.
    fn family(self, family: Family) -> u8 {
        if self == SetType::Port { 0 } else { family.number() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    Port(u16),
    Ip(IpAddr),
    IpPort(IpAddr, Protocol, u16),
    IpPortIp(IpAddr, Protocol, u16, IpAddr),
    IpPortNet(IpAddr, Protocol, u16, Cidr),
}

/// As `ipset list` prints it.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Port(port) => write!(f, "{port}"),
            Entry::Ip(ip) => write!(f, "{ip}"),
            Entry::IpPort(ip, protocol, port) => write!(f, "{ip},{protocol}:{port}"),
            Entry::IpPortIp(ip, protocol, port, other) => write!(f, "{ip},{protocol}:{port},{other}"),
            Entry::IpPortNet(ip, protocol, port, cidr) => write!(f, "{ip},{protocol}:{port},{cidr}"),
        }
    }
}

/// The attributes of a request that names a set.
pub fn put_name(w: &mut Writer, name: &str) {
    put_protocol(w);
    w.put_str(SET_NAME, name);
}

fn put_protocol(w: &mut Writer) {
    w.put(PROTOCOL, &[PROTOCOL_VERSION]);
}

/// The attributes of a request for a set type's revisions.
pub fn put_type(w: &mut Writer, set_type: SetType, family: Family) {
    put_protocol(w);
    w.put_str(TYPE_NAME, set_type.name());
    w.put(FAMILY, &[set_type.family(family)]);
}

/// The attributes that make a set.
pub fn put_set(w: &mut Writer, name: &str, set_type: SetType, family: Family, revision: u8) {
    put_name(w, name);
    w.put_str(TYPE_NAME, set_type.name());
    w.put(REVISION, &[revision]);
    w.put(FAMILY, &[set_type.family(family)]);
    w.nested(DATA, |w| match set_type {
        SetType::Port => {
            w.put(PORT | NETWORK_ORDER, &0u16.to_be_bytes());
            w.put(PORT_TO | NETWORK_ORDER, &u16::MAX.to_be_bytes());
        }
        _ => {
            w.put(HASH_SIZE | NETWORK_ORDER, &SIZE.to_be_bytes());
            w.put(MAX_ELEMENTS | NETWORK_ORDER, &LIMIT.to_be_bytes());
        }
    });
}

/// The attributes of a list of all sets without their entries.
pub fn put_headers_only(w: &mut Writer) {
    put_protocol(w);
    w.put(FLAGS | NETWORK_ORDER, &LIST_HEADER.to_be_bytes());
}

/// The attributes that add an entry to a set, or delete it.
pub fn put_entry(w: &mut Writer, set: &str, entry: &Entry) {
    put_name(w, set);
    w.nested(DATA, |w| put_data(w, entry));
}

fn put_data(w: &mut Writer, entry: &Entry) {
    let destination = |w: &mut Writer, ip: &IpAddr, protocol: &Protocol, port: &u16| {
        put_ip(w, IP, *ip);
        w.put(PORT | NETWORK_ORDER, &port.to_be_bytes());
        w.put(PROTO, &[protocol.number()]);
    };
    match entry {
        Entry::Port(port) => w.put(PORT | NETWORK_ORDER, &port.to_be_bytes()),
        Entry::Ip(ip) => put_ip(w, IP, *ip),
        Entry::IpPort(ip, protocol, port) => destination(w, ip, protocol, port),
        Entry::IpPortIp(ip, protocol, port, other) => {
            destination(w, ip, protocol, port);
            put_ip(w, IP2, *other);
        }
        Entry::IpPortNet(ip, protocol, port, cidr) => {
            destination(w, ip, protocol, port);
            put_ip(w, IP2, cidr.ip);
            w.put(CIDR2, &[cidr.prefix]);
        }
    }
}

fn put_ip(w: &mut Writer, attribute: u16, ip: IpAddr) {
    let number = if ip.is_ipv4() { ADDRESS_V4 } else { ADDRESS_V6 };
    w.nested(attribute, |w| w.put(number | NETWORK_ORDER, &octets(ip)));
}

/// The newest revision of a set type, from the answer to a request for it.
pub fn parse_revision(message: &Message) -> Option<u8> {
    message.attrs().find(REVISION)?.u8()
}

/// A set as a list tells of it. A long one comes in several messages, of which the first alone has a `set_type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<'a> {
    pub name: &'a str,
    /// `Some(None)` is a type that services do not need.
    pub set_type: Option<Option<SetType>>,
    /// How many entries the kernel counts, in a list of headers.
    pub count: Option<u32>,
    pub entries: Vec<Entry>,
    /// Entries that could not be understood.
    pub strange: usize,
}

/// Reads a message of a list. Entries are understood when the set's type is known: from this message, or by `known`.
pub fn parse_list<'a>(message: &Message<'a>, known: impl FnOnce(&str) -> Option<SetType>) -> Option<Listed<'a>> {
    let attrs = message.attrs();
    let name = attrs.find(SET_NAME)?.str()?;
    let set_type = attrs.find(TYPE_NAME).map(|a| a.str().and_then(SetType::from_name));
    let count = attrs.find(DATA).and_then(|data| data.attrs().find(ELEMENTS)).and_then(|a| a.u32());
    let mut listed = Listed { name, set_type, count, entries: Vec::new(), strange: 0 };
    let understood = set_type.flatten().or_else(|| known(name));
    for data in attrs.find(ENTRIES).into_iter().flat_map(|entries| entries.attrs()) {
        match understood.and_then(|set_type| parse_entry(set_type, data.attrs())) {
            Some(entry) => listed.entries.push(entry),
            None => listed.strange += 1,
        }
    }
    Some(listed)
}

fn parse_entry(set_type: SetType, attrs: Attrs) -> Option<Entry> {
    let ip = |kind: u16| attrs.find(kind).and_then(|a| parse_ip(a.attrs()));
    let port = || attrs.find(PORT)?.u16();
    let destination = || {
        let protocol = attrs.find(PROTO)?.u8().and_then(Protocol::from_number)?;
        Some((ip(IP)?, protocol, port()?))
    };
    Some(match set_type {
        SetType::Port => Entry::Port(port()?),
        SetType::Ip => Entry::Ip(ip(IP)?),
        SetType::IpPort => {
            let (ip, protocol, port) = destination()?;
            Entry::IpPort(ip, protocol, port)
        }
        SetType::IpPortIp => {
            let (first, protocol, port) = destination()?;
            Entry::IpPortIp(first, protocol, port, ip(IP2)?)
        }
        SetType::IpPortNet => {
            let (first, protocol, port) = destination()?;
            let net = ip(IP2)?;
            let whole = if net.is_ipv4() { 32 } else { 128 };
            let prefix = attrs.find(CIDR2).map_or(Some(whole), |a| a.u8())?;
            Entry::IpPortNet(first, protocol, port, Cidr::new(net, prefix)?)
        }
    })
}

fn parse_ip(attrs: Attrs) -> Option<IpAddr> {
    let v4 = attrs.find(ADDRESS_V4).filter(|a| a.payload.len() == 4);
    let v6 = attrs.find(ADDRESS_V6).filter(|a| a.payload.len() == 16);
    from_octets(v4.or(v6)?.payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attr::Messages;
    use proptest::prelude::*;

    fn ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
    }

    fn entry() -> impl Strategy<Value = (SetType, Entry)> {
        let protocol = proptest::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
        (0..5, ip(), protocol, any::<u16>(), ip(), 0u8..=128).prop_map(|(which, ip, protocol, port, other, prefix)| match which {
            0 => (SetType::Port, Entry::Port(port)),
            1 => (SetType::Ip, Entry::Ip(ip)),
            2 => (SetType::IpPort, Entry::IpPort(ip, protocol, port)),
            3 => (SetType::IpPortIp, Entry::IpPortIp(ip, protocol, port, other)),
            _ => {
                let net = Cidr::new(other, prefix.min(if other.is_ipv4() { 32 } else { 128 })).unwrap();
                (SetType::IpPortNet, Entry::IpPortNet(ip, protocol, port, net))
            }
        })
    }

    /// A list as the kernel sends it: entries of one set.
    fn list(name: &str, set_type: Option<SetType>, entries: &[Entry]) -> Vec<u8> {
        let mut w = Writer::default();
        w.begin_with(LIST, 0, 1, &HEADER);
        put_name(&mut w, name);
        if let Some(set_type) = set_type {
            w.put_str(TYPE_NAME, set_type.name());
        }
        w.nested(ENTRIES, |w| entries.iter().for_each(|entry| w.nested(DATA, |w| put_data(w, entry))));
        w.end();
        w.bytes().to_vec()
    }

    proptest! {
        #[test]
        fn entries_are_read_as_they_were_written((set_type, entry) in entry()) {
            let bytes = list("KUBE-X", Some(set_type), &[entry, entry]);
            let message = Messages(&bytes).next().unwrap();
            let listed = parse_list(&message, |_| None).unwrap();
            prop_assert_eq!((listed.name, listed.set_type, listed.strange), ("KUBE-X", Some(Some(set_type)), 0));
            prop_assert_eq!(listed.entries, [entry, entry]);
            // What follows in another message does not repeat the type.
            let bytes = list("KUBE-X", None, &[entry]);
            let message = Messages(&bytes).next().unwrap();
            prop_assert_eq!(parse_list(&message, |_| Some(set_type)).unwrap().entries, [entry]);
            prop_assert_eq!(parse_list(&message, |_| None).unwrap().strange, 1);
        }

        #[test]
        fn whatever_the_kernel_says_is_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let len = u32::try_from(bytes.len()).unwrap();
            if let Some(header) = bytes.get_mut(..4) {
                header.copy_from_slice(&len.to_ne_bytes());
            }
            for message in Messages(&bytes) {
                let _ = (parse_revision(&message), parse_list(&message, |_| Some(SetType::IpPortNet)));
            }
        }
    }

    #[test]
    fn entries_are_printed_as_ipset_prints_them() {
        let ip: IpAddr = "10.96.0.1".parse().unwrap();
        let cidr = Cidr::parse("203.0.113.0/24").unwrap();
        let printed = [Entry::Port(30080), Entry::IpPort(ip, Protocol::Tcp, 80), Entry::IpPortNet(ip, Protocol::Udp, 53, cidr)]
            .map(|entry| entry.to_string());
        assert_eq!(printed, ["30080", "10.96.0.1,tcp:80", "10.96.0.1,udp:53,203.0.113.0/24"]);
    }
}
