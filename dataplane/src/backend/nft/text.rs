//! Operations in nft's own words, for people: what would be done, without doing it.
//!
//! Owns the spelling. Never parsed again by us. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::SocketAddr;

use super::ir::{Bytes, Data, Op, Verdict};
use super::program::{read_endpoint, read_key};
use super::schema::{self, KeyKind};
use crate::model::address::from_octets;
use crate::model::{Cidr, Family, FrontendKey};

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn frontend(key: FrontendKey) -> String {
    match key {
        FrontendKey::Vip { ip, protocol, port } => format!("{ip} . {protocol} . {port}"),
        FrontendKey::NodePort { protocol, port } => format!("{protocol} . {port}"),
    }
}

fn number(bytes: &[u8]) -> String {
    let number = bytes.try_into().map_or(0, u32::from_ne_bytes);
    format!("{:x}:{:x}", number >> 16, number & 0xffff)
}

fn key(family: Family, set: &str, key: &Bytes, upto: Option<&Bytes>) -> Option<String> {
    let bytes = key.as_slice();
    let len = family.address_len();
    let ip = |part: &[u8]| from_octets(part).map(|ip| ip.to_string());
    match set {
        schema::CLUSTER_IPS | schema::NODE_PORT_IPS => return ip(bytes),
        schema::HAIRPINS => return Some(format!("{} . {}", ip(bytes.get(..len)?)?, ip(bytes.get(len..)?)?)),
        schema::REFUSAL_VERDICTS => return Some(number(bytes)),
        schema::GUARDED_IPS => return read_key(family, KeyKind::Vip, bytes).map(|(key, _)| frontend(key)),
        schema::SOURCE_RANGES => {
            let (key, first) = read_key(family, KeyKind::Vip, bytes)?;
            let last = upto?.as_slice();
            let range = Cidr::from_range(from_octets(first)?, from_octets(last.get(last.len() - len..)?)?)?;
            return Some(format!("{} . {range}", frontend(key)));
        }
        _ => {}
    }
    let kind = KeyKind::ALL.into_iter().find(|kind| {
        let sets = schema::frontend_sets(*kind);
        sets.contains(set) || sets.dispatch == set
    })?;
    if schema::frontend_sets(kind).dispatch == set {
        return Some(number(bytes));
    }
    let (frontend_key, rest) = read_key(family, kind, bytes)?;
    let slot = rest.try_into().map(u32::from_ne_bytes).map(|slot| format!(" . {slot}")).unwrap_or_default();
    Some(format!("{}{slot}", frontend(frontend_key)))
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".into(),
        Verdict::Drop => "drop".into(),
        Verdict::Return => "return".into(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    }
}

fn datum(family: Family, set: &str, data: &Data) -> String {
    match data {
        Data::None | Data::Upto(_) => String::new(),
        Data::Verdict(held) => format!(" : {}", verdict(held)),
        Data::Value(bytes) if schema::counts(set) || set.starts_with("refused-") => format!(" : {}", number(bytes.as_slice())),
        Data::Value(_) => match read_endpoint(family, data) {
            Some(SocketAddr::V4(to)) => format!(" : {} . {}", to.ip(), to.port()),
            Some(SocketAddr::V6(to)) => format!(" : {} . {}", to.ip(), to.port()),
            None => String::new(),
        },
    }
}

/// One operation as a line of an nft script. Rules are named by their chain: their words are long.
pub fn line(family: Family, table: &str, op: &Op) -> String {
    let whose = format!("{} {table}", family_name(family));
    let element =
        |set: &str, element: &Bytes, upto: Option<&Bytes>| key(family, set, element, upto).unwrap_or_else(|| format!("{element:?}"));
    match op {
        Op::AddTable => format!("add table {whose}"),
        Op::DeleteTable => format!("delete table {whose}"),
        Op::AddSet { name, spec } if spec.flags & super::ir::SET_MAP != 0 => format!("add map {whose} {name}"),
        Op::AddSet { name, .. } => format!("add set {whose} {name}"),
        Op::DeleteSet { name } => format!("delete set {whose} {name}"),
        Op::AddChain { name, .. } => format!("add chain {whose} {name}"),
        Op::DeleteChain { name } => format!("delete chain {whose} {name}"),
        Op::FlushChain { name } => format!("flush chain {whose} {name}"),
        Op::AddRule { chain, rule } => {
            let comment = rule.comment.as_ref().map(|text| format!(" # {text}")).unwrap_or_default();
            format!("add rule {whose} {chain} …{comment}")
        }
        Op::AddElement { set, key, data } => {
            let upto = if let Data::Upto(end) = data { Some(end) } else { None };
            format!("add element {whose} {set} {{ {}{} }}", element(set, key, upto), datum(family, set, data))
        }
        Op::DeleteElement { set, key, upto } => format!("delete element {whose} {set} {{ {} }}", element(set, key, upto.as_ref())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::program::{Class, Dispatch, FrontendRules, LOCAL_BASE, Slot, frontend_elements};
    use super::*;
    use crate::model::Protocol;

    #[test]
    fn elements_read_as_nft_prints_them() {
        let vip = FrontendKey::Vip { ip: [10, 96, 0, 1].into(), protocol: Protocol::Udp, port: 53 };
        let rules = FrontendRules {
            dispatch: Some(Dispatch::Class(Class::plain(1))),
            sources: [Cidr::parse("192.0.2.0/24").unwrap()].into(),
            slots: [Slot { index: LOCAL_BASE, ip: [10, 1, 0, 1].into(), port: 5353 }].into(),
            ..FrontendRules::default()
        };
        let add =
            |e: super::super::program::Element| line(Family::V4, "kube-proxy", &Op::AddElement { set: e.set, key: e.key, data: e.data });
        let lines: Vec<String> = frontend_elements(&vip, &rules).into_iter().map(add).collect();
        let wanted = [
            "add element ip kube-proxy frontend-ips { 10.96.0.1 . udp . 53 : 0:1 }",
            "add element ip kube-proxy endpoint-ips { 10.96.0.1 . udp . 53 . 1000000 : 10.1.0.1 . 5353 }",
            "add element ip kube-proxy guarded-ips { 10.96.0.1 . udp . 53 }",
            "add element ip kube-proxy source-ranges { 10.96.0.1 . udp . 53 . 192.0.2.0/24 }",
        ];
        assert_eq!(lines, wanted);
        assert_eq!(line(Family::V6, "t", &Op::DeleteChain { name: "c".into() }), "delete chain ip6 t c");
    }
}
