//! IPVS in generic netlink: virtual servers and their destinations, to and from messages.
//!
//! Owns the attribute numbers and byte orders: addresses, ports and IPv4 masks in network order, the rest in the
//! machine's. Never decides what to send. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::attr::{Attr, Attrs, Message, Writer};
use crate::model::address::{from_octets, octets};
use crate::model::{Family, Protocol};

/// The family's name for `genl`.
pub const FAMILY: &str = "IPVS";
pub const VERSION: u8 = 1;

pub const NEW_SERVICE: u8 = 1;
pub const SET_SERVICE: u8 = 2;
pub const DEL_SERVICE: u8 = 3;
pub const GET_SERVICE: u8 = 4;
pub const NEW_DEST: u8 = 5;
pub const SET_DEST: u8 = 6;
pub const DEL_DEST: u8 = 7;
pub const GET_DEST: u8 = 8;
pub const SET_CONFIG: u8 = 12;
pub const GET_CONFIG: u8 = 13;

const SERVICE: u16 = 1;
const DEST: u16 = 2;
const TIMEOUT_TCP: u16 = 4;
const TIMEOUT_TCP_FIN: u16 = 5;
const TIMEOUT_UDP: u16 = 6;

const SVC_AF: u16 = 1;
const SVC_PROTOCOL: u16 = 2;
const SVC_ADDR: u16 = 3;
const SVC_PORT: u16 = 4;
const SVC_FWMARK: u16 = 5;
const SVC_SCHEDULER: u16 = 6;
const SVC_FLAGS: u16 = 7;
const SVC_TIMEOUT: u16 = 8;
const SVC_NETMASK: u16 = 9;

const DEST_ADDR: u16 = 1;
const DEST_PORT: u16 = 2;
const DEST_METHOD: u16 = 3;
const DEST_WEIGHT: u16 = 4;
const DEST_UPPER: u16 = 5;
const DEST_LOWER: u16 = 6;
const DEST_ACTIVE: u16 = 7;
const DEST_INACTIVE: u16 = 8;
const DEST_FAMILY: u16 = 11;

/// A client stays with its destination.
pub const PERSISTENT: u32 = 1;
/// Set by the kernel on every server.
const HASHED: u32 = 2;
/// Scheduler flag 2; for `sh` and `mh`: the source port counts, too.
pub const SCHEDULER_FLAG_2: u32 = 0x10;
/// The bits of the forwarding method; 0 is masquerading.
const METHOD_MASK: u32 = 7;

/// A scheduler's name, at most 15 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scheduler([u8; 16]);

impl Scheduler {
    /// `None` unless it is a word of at most 15 printable ASCII characters.
    pub fn new(name: &str) -> Option<Scheduler> {
        let mut bytes = [0; 16];
        let fits = !name.is_empty() && name.len() < bytes.len() && name.bytes().all(|byte| byte.is_ascii_graphic());
        bytes.get_mut(..name.len()).filter(|_| fits)?.copy_from_slice(name.as_bytes());
        Some(Scheduler(bytes))
    }

    pub fn name(&self) -> &str {
        let len = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        std::str::from_utf8(&self.0[..len]).unwrap_or_default()
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a virtual server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    pub ip: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, SocketAddr::new(self.ip, self.port))
    }
}

/// How a virtual server spreads connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spread {
    pub scheduler: Scheduler,
    /// Without the flag that the kernel sets on every server.
    pub flags: u32,
    /// Seconds a client stays with its destination; meaningless without [`PERSISTENT`].
    pub timeout: u32,
    /// How many leading bits of a client's address make it the same client.
    pub netmask: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    pub address: SocketAddr,
    pub weight: u32,
    /// Whether it is forwarded to by address translation, as all of ours.
    pub translated: bool,
    /// Connections that the kernel counts now.
    pub active: u32,
    pub inactive: u32,
}

impl Destination {
    /// One that takes new connections, as every other.
    pub fn new(address: SocketAddr, weight: u32) -> Destination {
        Destination { address, weight, translated: true, active: 0, inactive: 0 }
    }
}

/// The longest prefix of a family.
pub fn whole(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// The attributes of a command about a whole virtual server. Without `spread` it only names one.
pub fn put_server(w: &mut Writer, server: &Server, spread: Option<&Spread>) {
    w.nested(SERVICE, |w| {
        w.put(SVC_AF, &u16::from(Family::of(server.ip).number()).to_ne_bytes());
        w.put(SVC_PROTOCOL, &u16::from(server.protocol.number()).to_ne_bytes());
        w.put(SVC_ADDR, &padded(server.ip));
        w.put(SVC_PORT, &server.port.to_be_bytes());
        let Some(spread) = spread else { return };
        w.put_str(SVC_SCHEDULER, spread.scheduler.name());
        let mut flags = spread.flags.to_ne_bytes().to_vec();
        flags.extend(u32::MAX.to_ne_bytes());
        w.put(SVC_FLAGS, &flags);
        w.put(SVC_TIMEOUT, &spread.timeout.to_ne_bytes());
        w.put(SVC_NETMASK, &netmask(server.ip, spread.netmask));
    });
}

/// The attributes of a request for all virtual servers of a family.
pub fn put_family(w: &mut Writer, family: Family) {
    w.nested(SERVICE, |w| w.put(SVC_AF, &u16::from(family.number()).to_ne_bytes()));
}

/// The attributes of a command about a destination. Without `weight` it only names one.
pub fn put_destination(w: &mut Writer, server: &Server, address: SocketAddr, weight: Option<u32>) {
    put_server(w, server, None);
    w.nested(DEST, |w| {
        w.put(DEST_ADDR, &padded(address.ip()));
        w.put(DEST_PORT, &address.port().to_be_bytes());
        w.put(DEST_FAMILY, &u16::from(Family::of(address.ip()).number()).to_ne_bytes());
        let Some(weight) = weight else { return };
        w.put(DEST_METHOD, &0u32.to_ne_bytes());
        w.put(DEST_WEIGHT, &weight.to_ne_bytes());
        w.put(DEST_UPPER, &0u32.to_ne_bytes());
        w.put(DEST_LOWER, &0u32.to_ne_bytes());
    });
}

const TIMEOUTS: [u16; 3] = [TIMEOUT_TCP, TIMEOUT_TCP_FIN, TIMEOUT_UDP];

/// The attributes that set the time-outs of connections (TCP, TCP after FIN, UDP), in seconds; 0 keeps what there is.
pub fn put_timeouts(w: &mut Writer, timeouts: [u32; 3]) {
    for (attribute, timeout) in TIMEOUTS.into_iter().zip(timeouts) {
        w.put(attribute, &timeout.to_ne_bytes());
    }
}

pub fn parse_timeouts(message: &Message) -> Option<[u32; 3]> {
    let [tcp, fin, udp] = TIMEOUTS.map(|attribute| message.attrs().find(attribute).and_then(|a| a.native_u32()));
    Some([tcp?, fin?, udp?])
}

/// An address in the room that the kernel has for either family.
fn padded(ip: IpAddr) -> Vec<u8> {
    let mut bytes = octets(ip);
    bytes.resize(16, 0);
    bytes
}

fn netmask(ip: IpAddr, prefix: u8) -> [u8; 4] {
    match ip {
        IpAddr::V4(_) => u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0).to_be_bytes(),
        IpAddr::V6(_) => u32::from(prefix).to_ne_bytes(),
    }
}

fn parse_netmask(ip: IpAddr, attr: Attr) -> Option<u8> {
    match ip {
        IpAddr::V4(_) => u8::try_from(attr.u32()?.leading_ones()).ok(),
        IpAddr::V6(_) => u8::try_from(attr.native_u32()?).ok(),
    }
}

fn parse_ip(family: u16, attr: Attr) -> Option<IpAddr> {
    let family = Family::ALL.into_iter().find(|known| u16::from(known.number()) == family)?;
    from_octets(attr.payload.get(..family.address_len())?)
}

/// A virtual server that an answer tells of; `None` for one that has no address of its own (it answers a packet mark)
/// or is of a protocol that no service has.
pub fn parse_server(message: &Message) -> Option<(Server, Spread)> {
    let attrs = message.attrs().find(SERVICE)?.attrs();
    let number = |kind: u16| attrs.find(kind).and_then(|a| a.native_u32());
    if attrs.find(SVC_FWMARK).is_some() {
        return None;
    }
    let ip = parse_ip(attrs.find(SVC_AF)?.native_u16()?, attrs.find(SVC_ADDR)?)?;
    let protocol = u8::try_from(attrs.find(SVC_PROTOCOL)?.native_u16()?).ok().and_then(Protocol::from_number)?;
    let server = Server { ip, protocol, port: attrs.find(SVC_PORT)?.u16()? };
    let flags = attrs.find(SVC_FLAGS)?.payload.get(..4)?.try_into().ok().map(u32::from_ne_bytes)?;
    let spread = Spread {
        scheduler: Scheduler::new(attrs.find(SVC_SCHEDULER)?.str()?)?,
        flags: flags & !HASHED,
        timeout: number(SVC_TIMEOUT)?,
        netmask: parse_netmask(ip, attrs.find(SVC_NETMASK)?)?,
    };
    Some((server, spread))
}

/// A destination that an answer tells of. `server` is the one that was asked for: its family is that of destinations
/// on kernels that do not say.
pub fn parse_destination(message: &Message, server: &Server) -> Option<Destination> {
    let attrs: Attrs = message.attrs().find(DEST)?.attrs();
    let number = |kind: u16| attrs.find(kind).and_then(|a| a.native_u32());
    let family = attrs.find(DEST_FAMILY).and_then(|a| a.native_u16());
    let family = family.filter(|family| *family != 0).unwrap_or(Family::of(server.ip).number().into());
    let ip = parse_ip(family, attrs.find(DEST_ADDR)?)?;
    Some(Destination {
        address: SocketAddr::new(ip, attrs.find(DEST_PORT)?.u16()?),
        weight: number(DEST_WEIGHT)?,
        translated: number(DEST_METHOD)? & METHOD_MASK == 0,
        active: number(DEST_ACTIVE).unwrap_or(0),
        inactive: number(DEST_INACTIVE).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attr::Messages;
    use proptest::prelude::*;

    fn ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
    }

    fn server() -> impl Strategy<Value = Server> {
        let protocol = proptest::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
        (ip(), protocol, any::<u16>()).prop_map(|(ip, protocol, port)| Server { ip, protocol, port })
    }

    fn message(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut w = Writer::default();
        w.begin_with(0x1c, 0, 1, &crate::netlink::genl::header(NEW_SERVICE, VERSION));
        fill(&mut w);
        w.end();
        w.bytes().to_vec()
    }

    proptest! {
        #[test]
        fn a_server_is_read_as_it_was_written(server in server(), name in "[a-z]{1,15}", flags: u32, timeout: u32, bits in 0u8..=128) {
            let netmask = bits.min(whole(server.ip));
            let scheduler = Scheduler::new(&name).unwrap();
            let spread = Spread { scheduler, flags: flags & !HASHED, timeout, netmask };
            let bytes = message(|w| put_server(w, &server, Some(&spread)));
            let parsed = Messages(&bytes).next().and_then(|m| parse_server(&m));
            prop_assert_eq!(parsed, Some((server, spread)));
        }

        #[test]
        fn a_destination_is_read_as_it_was_written(server in server(), ip in ip(), port: u16, weight: u32) {
            let address = SocketAddr::new(ip, port);
            let bytes = message(|w| put_destination(w, &server, address, Some(weight)));
            let parsed = Messages(&bytes).next().and_then(|m| parse_destination(&m, &server));
            prop_assert_eq!(parsed, Some(Destination::new(address, weight)));
        }

        #[test]
        fn whatever_the_kernel_says_is_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), server in server()) {
            // A header that is right, so that the reading gets further.
            let len = u32::try_from(bytes.len()).unwrap();
            if let Some(header) = bytes.get_mut(..4) {
                header.copy_from_slice(&len.to_ne_bytes());
            }
            for message in Messages(&bytes) {
                let _ = (parse_server(&message), parse_destination(&message, &server));
            }
        }
    }

    #[test]
    fn a_server_for_a_packet_mark_is_nobodys_service() {
        let bytes = message(|w| {
            w.nested(SERVICE, |w| {
                w.put(SVC_AF, &2u16.to_ne_bytes());
                w.put(SVC_FWMARK, &7u32.to_ne_bytes());
            })
        });
        assert_eq!(Messages(&bytes).next().and_then(|m| parse_server(&m)), None);
    }

    #[test]
    fn schedulers_have_short_names() {
        assert_eq!(Scheduler::new("lblcr").map(|s| s.name().to_string()).as_deref(), Some("lblcr"));
        assert!(Scheduler::new("").is_none() && Scheduler::new("sixteen-letters-").is_none() && Scheduler::new("a b").is_none());
    }
}
