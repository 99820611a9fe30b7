//! Expressions of rules to netlink attributes, and back.
//!
//! Owns the layout of each expression we use; all numbers are the kernel's. Tests: `render`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::ir::{Comparison, Counter, CtKey, Expr, Found, Header, MetaKey, Register, Side};
use super::render::{DATA_VALUE, DATA_VERDICT, parse_verdict, write_verdict};
use crate::model::Family;
use crate::netlink::attr::{Attr, Attrs, Writer};

const LIST_ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
const COUNTER: &str = "counter";
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;

const FIRST_REGISTER: u32 = 8;
const VERDICT_REGISTER: u32 = 0;

const META_PRIORITY: u32 = 2;
const META_MARK: u32 = 3;
const META_INTERFACE_NAME: u32 = 6;
const META_L4_PROTOCOL: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const FIB_ADDRESS_TYPE: u32 = 3;
const RANDOM: u32 = 1;
const NAT_DESTINATION: u32 = 1;
const FULLY_RANDOM: u32 = 0x10;
const ICMP_UNREACHABLE: u32 = 0;
const DYNSET_UPDATE: u32 = 1;
const LOOKUP_INVERTED: u32 = 1;

fn register(register: Register) -> u32 {
    FIRST_REGISTER + u32::from(register)
}

/// The kernel has two numberings: 1 to 4 for groups of four, 8 to 23 for single ones.
fn parse_register(attr: Attr) -> Option<Register> {
    match attr.u32()? {
        number @ 1..=4 => Some((number as Register - 1) * 4),
        number @ 8..=23 => Some(number as Register - 8),
        _ => None,
    }
}

pub fn write(w: &mut Writer, expr: &Expr, family: Family) {
    w.nested(LIST_ELEMENT, |w| {
        w.put_str(NAME, name(expr));
        w.nested(DATA, |w| body(w, expr, family));
    });
}

pub fn write_counter(w: &mut Writer, counter: &Counter) {
    w.put_str(NAME, COUNTER);
    w.nested(DATA, |w| {
        if *counter != Counter::default() {
            w.put_u64(COUNTER_BYTES, counter.bytes);
            w.put_u64(COUNTER_PACKETS, counter.packets);
        }
    });
}

pub fn parse_counter(attr: Attr) -> Option<Counter> {
    let body = is_counter(attr).then(|| attr.attrs().find(DATA))??.attrs();
    let number = |kind: u16| body.find(kind).and_then(|a| a.u64());
    Some(Counter { packets: number(COUNTER_PACKETS)?, bytes: number(COUNTER_BYTES)? })
}

pub fn is_counter(attr: Attr) -> bool {
    attr.attrs().find(NAME).and_then(|a| a.str()) == Some(COUNTER)
}

/// The kernel's name of an expression, by which its module is also known.
pub fn name(expr: &Expr) -> &str {
    match expr {
        Expr::Meta { .. } | Expr::SetMeta { .. } => "meta",
        Expr::Ct { .. } => "ct",
        Expr::Payload { .. } => "payload",
        Expr::FibType { .. } => "fib",
        Expr::Compare { .. } => "cmp",
        Expr::Bitwise { .. } => "bitwise",
        Expr::Random { .. } => "numgen",
        Expr::Lookup { .. } => "lookup",
        Expr::Verdict(_) | Expr::Immediate { .. } => "immediate",
        Expr::DestinationNat { .. } => "nat",
        Expr::Masquerade => "masq",
        Expr::Reject => "reject",
        Expr::Remember { .. } => "dynset",
        Expr::Foreign(name) => name,
    }
}

fn data(w: &mut Writer, kind: u16, bytes: &[u8]) {
    w.nested(kind, |w| w.put(DATA_VALUE, bytes));
}

fn numbers(w: &mut Writer, values: &[(u16, u32)]) {
    values.iter().for_each(|(kind, value)| w.put_u32(*kind, *value));
}

fn body(w: &mut Writer, expr: &Expr, family: Family) {
    match expr {
        Expr::Meta { key, to } => numbers(w, &[(1, register(*to)), (2, meta_key(*key))]),
        Expr::SetMeta { key, from } => numbers(w, &[(2, meta_key(*key)), (3, register(*from))]),
        Expr::Ct { key: CtKey::State, to } => numbers(w, &[(1, register(*to)), (2, CT_STATE)]),
        Expr::Ct { key: CtKey::Status, to } => numbers(w, &[(1, register(*to)), (2, CT_STATUS)]),
        Expr::Payload { header, offset, len, to } => {
            numbers(w, &[(1, register(*to)), (2, header_number(*header)), (3, *offset), (4, *len)]);
        }
        Expr::FibType { side, to } => {
            numbers(w, &[(1, register(*to)), (2, FIB_ADDRESS_TYPE), (3, side_flag(*side))]);
        }
        Expr::Compare { what, how, with } => {
            numbers(w, &[(1, register(*what)), (2, u32::from(*how == Comparison::NotEqual))]);
            data(w, 3, with);
        }
        Expr::Bitwise { from, to, mask, xor } => {
            numbers(w, &[(1, register(*from)), (2, register(*to)), (3, mask.len() as u32)]);
            data(w, 4, mask);
            data(w, 5, xor);
        }
        Expr::Random { modulus, offset, to } => {
            numbers(w, &[(1, register(*to)), (2, *modulus), (3, RANDOM), (4, *offset)]);
        }
        Expr::Lookup { set, key, found } => {
            w.put_str(1, set);
            w.put_u32(2, register(*key));
            match found {
                Found::Member => {}
                Found::NotMember => w.put_u32(5, LOOKUP_INVERTED),
                Found::To(to) => w.put_u32(3, register(*to)),
                Found::Verdict => w.put_u32(3, VERDICT_REGISTER),
            }
        }
        Expr::Verdict(verdict) => {
            w.put_u32(1, VERDICT_REGISTER);
            w.nested(2, |w| write_verdict(w, verdict));
        }
        Expr::Immediate { to, value } => {
            w.put_u32(1, register(*to));
            data(w, 2, value);
        }
        Expr::DestinationNat { address, port } => {
            let family = u32::from(family.number());
            numbers(w, &[(1, NAT_DESTINATION), (2, family), (3, register(*address)), (5, register(*port))]);
        }
        Expr::Masquerade => w.put_u32(1, FULLY_RANDOM),
        Expr::Reject => {
            w.put_u32(1, ICMP_UNREACHABLE);
            w.put(2, &[port_unreachable(family)]);
        }
        Expr::Remember { set, key } => {
            w.put_str(1, set);
            numbers(w, &[(3, DYNSET_UPDATE), (4, register(*key))]);
        }
        Expr::Foreign(_) => {}
    }
}

fn port_unreachable(family: Family) -> u8 {
    match family {
        Family::V4 => 3,
        Family::V6 => 4,
    }
}

fn meta_key(key: MetaKey) -> u32 {
    match key {
        MetaKey::Mark => META_MARK,
        MetaKey::Priority => META_PRIORITY,
        MetaKey::InterfaceName => META_INTERFACE_NAME,
        MetaKey::L4Protocol => META_L4_PROTOCOL,
    }
}

fn header_number(header: Header) -> u32 {
    match header {
        Header::Network => 1,
        Header::Transport => 2,
    }
}

fn side_flag(side: Side) -> u32 {
    match side {
        Side::Source => 1,
        Side::Destination => 2,
    }
}

/// Reads an expression; one that we never write becomes [`Expr::Foreign`].
pub fn parse(attr: Attr) -> Expr {
    let name = attr.attrs().find(NAME).and_then(|a| a.str()).unwrap_or_default();
    let body = attr.attrs().find(DATA).map_or(Attrs(&[]), |a| a.attrs());
    known(name, body).unwrap_or_else(|| Expr::Foreign(name.into()))
}

fn known(name: &str, body: Attrs) -> Option<Expr> {
    let number = |kind: u16| body.find(kind).and_then(|a| a.u32());
    let register = |kind: u16| body.find(kind).and_then(parse_register);
    let bytes = |kind: u16| Some(body.find(kind)?.attrs().find(DATA_VALUE)?.payload.to_vec());
    Some(match name {
        "meta" => {
            let keys = [MetaKey::Mark, MetaKey::Priority, MetaKey::InterfaceName, MetaKey::L4Protocol];
            let wanted = number(2)?;
            let key = keys.into_iter().find(|key| meta_key(*key) == wanted)?;
            match body.find(3) {
                Some(from) => Expr::SetMeta { key, from: parse_register(from)? },
                None => Expr::Meta { key, to: register(1)? },
            }
        }
        "ct" => Expr::Ct {
            key: match number(2)? {
                CT_STATE => CtKey::State,
                CT_STATUS => CtKey::Status,
                _ => return None,
            },
            to: register(1)?,
        },
        "payload" => {
            let wanted = number(2)?;
            let headers = [Header::Network, Header::Transport];
            let header = headers.into_iter().find(|header| header_number(*header) == wanted)?;
            Expr::Payload { header, offset: number(3)?, len: number(4)?, to: register(1)? }
        }
        "fib" if number(2)? == FIB_ADDRESS_TYPE => {
            let flags = number(3)?;
            let side = [Side::Source, Side::Destination].into_iter().find(|side| side_flag(*side) == flags)?;
            Expr::FibType { side, to: register(1)? }
        }
        "cmp" => Expr::Compare {
            what: register(1)?,
            how: match number(2)? {
                0 => Comparison::Equal,
                1 => Comparison::NotEqual,
                _ => return None,
            },
            with: bytes(3)?,
        },
        "bitwise" if number(6).unwrap_or(0) == 0 => Expr::Bitwise { from: register(1)?, to: register(2)?, mask: bytes(4)?, xor: bytes(5)? },
        "numgen" if number(3)? == RANDOM => Expr::Random { modulus: number(2)?, offset: number(4).unwrap_or(0), to: register(1)? },
        "lookup" => Expr::Lookup {
            set: body.find(1)?.str()?.into(),
            key: register(2)?,
            found: match (number(3), number(5).unwrap_or(0)) {
                (Some(VERDICT_REGISTER), 0) => Found::Verdict,
                (Some(_), 0) => Found::To(register(3)?),
                (None, LOOKUP_INVERTED) => Found::NotMember,
                (None, 0) => Found::Member,
                _ => return None,
            },
        },
        "immediate" if number(1)? == VERDICT_REGISTER => Expr::Verdict(parse_verdict(body.find(2)?.attrs().find(DATA_VERDICT)?)?),
        "immediate" => Expr::Immediate { to: register(1)?, value: bytes(2)? },
        "nat" if number(1)? == NAT_DESTINATION => Expr::DestinationNat { address: register(3)?, port: register(5)? },
        "masq" if number(1)? == FULLY_RANDOM => Expr::Masquerade,
        "reject" if number(1)? == ICMP_UNREACHABLE => Expr::Reject,
        "dynset" if number(3)? == DYNSET_UPDATE => Expr::Remember { set: body.find(1)?.str()?.into(), key: register(4)? },
        _ => return None,
    })
}
