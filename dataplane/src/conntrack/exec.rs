//! Reads and deletes entries of the connection tracker, by ctnetlink.
//!
//! Owns the message layout. Decides nothing: `plan` says what is stale. To be run after the commit that made flows
//! stale, never before: a packet in between would make the entry anew. Tests: the namespace tests.

use std::net::{IpAddr, SocketAddr};

use super::plan::{Flow, Narrowing, StaleFlows};
use crate::model::address::{from_octets, octets};
use crate::model::{Family, Protocol};
use crate::netlink::attr::{Attrs, Message, Writer};
use crate::netlink::socket::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetfilterSocket, SocketError};

const SUBSYSTEM: u16 = 1 << 8;
const CT_NEW: u16 = SUBSYSTEM;
const CT_GET: u16 = SUBSYSTEM + 1;
const CT_DELETE: u16 = SUBSYSTEM + 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE_PORT: u16 = 2;
const PROTO_DESTINATION_PORT: u16 = 3;
const FILTER_ORIGINAL: u16 = 1;

/// Which parts of the original tuple the kernel compares.
const BY_DESTINATION: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;

const STATUS_DNAT: u32 = 1 << 5;

#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("cannot read tracked connections (is nf_conntrack_netlink loaded or built in?): {0}")]
    Read(#[source] SocketError),
    #[error("cannot delete a tracked connection to {to}: {source}")]
    Delete { to: SocketAddr, source: SocketError },
}

/// An entry that is to go: enough to name it to the kernel.
#[derive(Debug)]
struct Entry {
    to: SocketAddr,
    original: Vec<u8>,
    id: Option<Vec<u8>>,
    zone: Option<Vec<u8>>,
}

/// Deletes one family's stale flows and says how many there were.
pub fn delete_stale(family: Family, stale: &StaleFlows, node_ips: &[IpAddr]) -> Result<usize, ConntrackError> {
    let mut socket = NetfilterSocket::open()?;
    let mut deleted = 0;
    for narrowing in stale.narrowings() {
        let mut entries: Vec<Entry> = Vec::new();
        let read = socket.dump(
            &mut entries,
            |seq| get(family, narrowing, seq),
            Vec::clear,
            |entries, answer| entries.extend(stale_entry(&answer, family, stale, node_ips)),
        );
        match read {
            // What was read of a table that never stands still is as good as any reading of it.
            Ok(()) | Err(SocketError::Disturbed) => {}
            Err(error) => return Err(ConntrackError::Read(error)),
        }
        for entry in &entries {
            delete(&mut socket, family, entry)?;
        }
        deleted += entries.len();
    }
    Ok(deleted)
}

fn get(family: Family, narrowing: Narrowing, seq: u32) -> Vec<u8> {
    let (protocol, ip, port) = match narrowing {
        Narrowing::Any(protocol) => (protocol, None, None),
        // The kernel's comparison of IPv6 addresses does not find what is there (seen with 6.18).
        Narrowing::To(protocol, address) => (protocol, Some(address.ip()).filter(IpAddr::is_ipv4), Some(address.port())),
        Narrowing::ToPort(protocol, port) => (protocol, None, Some(port)),
    };
    let mut w = Writer::default();
    w.begin(CT_GET, NLM_F_REQUEST | NLM_F_DUMP, seq, family.number(), 0);
    w.nested(TUPLE_ORIGINAL, |w| {
        if let Some(ip) = ip {
            w.nested(TUPLE_IP, |w| w.put(destination_attr(family), &octets(ip)));
        }
        w.nested(TUPLE_PROTO, |w| {
            w.put(PROTO_NUMBER, &[protocol.number()]);
            if let Some(port) = port {
                w.put(PROTO_DESTINATION_PORT, &port.to_be_bytes());
            }
        });
    });
    let flags = BY_PROTOCOL | if ip.is_some() { BY_DESTINATION } else { 0 } | if port.is_some() { BY_DESTINATION_PORT } else { 0 };
    // Kernels before 5.8 know no filter and send everything; entries are judged again here.
    w.nested(FILTER, |w| w.put(FILTER_ORIGINAL, &flags.to_ne_bytes()));
    w.end();
    w.bytes().to_vec()
}

fn source_attr(family: Family) -> u16 {
    if family == Family::V4 { 1 } else { 3 }
}

fn destination_attr(family: Family) -> u16 {
    source_attr(family) + 1
}

/// (protocol, source, destination)
fn tuple(attrs: Attrs, family: Family) -> Option<(u8, SocketAddr, SocketAddr)> {
    let ip = attrs.find(TUPLE_IP)?.attrs();
    let proto = attrs.find(TUPLE_PROTO)?.attrs();
    let address = |kind: u16| from_octets(ip.find(kind)?.payload);
    let port = |kind: u16| Some(u16::from_be_bytes(proto.find(kind)?.payload.try_into().ok()?));
    let number = *proto.find(PROTO_NUMBER)?.payload.first()?;
    let source = SocketAddr::new(address(source_attr(family))?, port(PROTO_SOURCE_PORT)?);
    let destination = SocketAddr::new(address(destination_attr(family))?, port(PROTO_DESTINATION_PORT)?);
    Some((number, source, destination))
}

fn stale_entry(answer: &Message, family: Family, stale: &StaleFlows, node_ips: &[IpAddr]) -> Option<Entry> {
    if answer.kind != CT_NEW || answer.family() != family.number() {
        return None;
    }
    let attrs = answer.attrs();
    let original = attrs.find(TUPLE_ORIGINAL)?;
    let (protocol, _, to) = tuple(original.attrs(), family)?;
    let (_, from, _) = tuple(attrs.find(TUPLE_REPLY)?.attrs(), family)?;
    let status = attrs.find(STATUS).and_then(|a| a.u32()).unwrap_or(0);
    let protocol = Protocol::from_number(protocol)?;
    let flow = Flow { protocol, original_destination: to, reply_source: from, translated: status & STATUS_DNAT != 0 };
    if !stale.is_stale(&flow, node_ips) {
        return None;
    }
    let copy = |kind: u16| attrs.find(kind).map(|a| a.payload.to_vec());
    Some(Entry { to, original: original.payload.to_vec(), id: copy(ID), zone: copy(ZONE) })
}

fn delete(socket: &mut NetfilterSocket, family: Family, entry: &Entry) -> Result<(), ConntrackError> {
    let seq = socket.reserve_seq(1);
    let mut w = Writer::default();
    w.begin(CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, seq, family.number(), 0);
    w.nested(TUPLE_ORIGINAL, |w| w.raw(&entry.original));
    // The number makes sure that it is still the entry we judged.
    if let Some(id) = &entry.id {
        w.put(ID, id);
    }
    if let Some(zone) = &entry.zone {
        w.put(ZONE, zone);
    }
    w.end();
    match socket.request(w.bytes(), seq, |_| {}) {
        Err(error) if error.refused_with() == Some(libc::ENOENT) => Ok(()),
        other => other.map_err(|source| ConntrackError::Delete { to: entry.to, source }),
    }
}
