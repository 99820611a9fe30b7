//! Operations in the words of `ipvsadm`, `ipset`, `ip` and `iptables-restore`, for people: what would be done, without
//! doing it.
//!
//! Owns the spelling. Never parsed again by us. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::SocketAddr;

use super::ir::{Item, LINK, Op, Server, Spread};
use super::render::Saved;
use crate::model::{Family, Protocol};
use crate::netlink::ipvs::PERSISTENT;

/// `saved` is what iptables holds before.
pub fn lines(op: &Op, family: Family, saved: &Saved) -> Vec<String> {
    let length = if family == Family::V4 { 32 } else { 128 };
    let sets = if family == Family::V4 { "" } else { " family inet6" };
    let line = match op {
        Op::CreateLink => format!("ip link add {LINK} type dummy"),
        Op::CreateSet(set) => {
            let range = match set.set_type().name() {
                "bitmap:port" => " range 0-65535",
                _ => sets,
            };
            format!("ipset create {} {}{range}", set.name(family), set.set_type().name())
        }
        Op::Add(Item::Entry(set, entry)) => format!("ipset add {} {entry}", set.name(family)),
        Op::Delete(Item::Entry(set, entry)) => format!("ipset del {} {entry}", set.name(family)),
        Op::Add(Item::Address(ip)) => format!("ip address add {ip}/{length} dev {LINK}"),
        Op::Delete(Item::Address(ip)) => format!("ip address del {ip}/{length} dev {LINK}"),
        Op::Load(skeleton) => return saved.load(skeleton).lines().map(|line| format!("iptables-restore: {line}")).collect(),
        Op::AddServer(server, spread) => format!("ipvsadm -A {}{}", named(server), spreading(spread)),
        Op::EditServer(server, spread) => format!("ipvsadm -E {}{}", named(server), spreading(spread)),
        Op::DeleteServer(server) => format!("ipvsadm -D {}", named(server)),
        Op::AddDestination(server, to, weight) => format!("ipvsadm -a {} -r {to} -m -w {weight}", named(server)),
        Op::EditDestination(server, to, weight) => format!("ipvsadm -e {} -r {to} -m -w {weight}", named(server)),
        Op::DeleteDestination(server, to) => format!("ipvsadm -d {} -r {to}", named(server)),
    };
    vec![line]
}

fn named(server: &Server) -> String {
    let option = match server.protocol {
        Protocol::Tcp => "-t",
        Protocol::Udp => "-u",
        Protocol::Sctp => "--sctp-service",
    };
    format!("{option} {}", SocketAddr::new(server.ip, server.port))
}

fn spreading(spread: &Spread) -> String {
    let mut text = format!(" -s {}", spread.scheduler.name());
    if spread.flags & PERSISTENT != 0 {
        text += &format!(" -p {}", spread.timeout);
    }
    for (bit, flag) in [(0x8, "flag-1"), (0x10, "flag-2"), (0x20, "flag-3")] {
        if spread.flags & bit != 0 {
            text += &format!(" -b {flag}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::compile::Balance;
    use super::super::sets::Set;
    use super::*;
    use crate::netlink::ipset::Entry;

    #[test]
    fn operations_are_spelt_as_the_tools_take_them() {
        let server = Server { ip: [10, 96, 0, 1].into(), protocol: Protocol::Tcp, port: 80 };
        let scheduler = Balance::parse("sh").unwrap().scheduler;
        let spread = Spread { scheduler, flags: PERSISTENT | 0x10, timeout: 60, netmask: 32 };
        let to = SocketAddr::from(([10, 1, 0, 1], 8080));
        let ops = [
            Op::CreateSet(Set::ClusterIp),
            Op::Add(Item::Entry(Set::ClusterIp, Entry::IpPort(server.ip, server.protocol, 80))),
            Op::Add(Item::Address(server.ip)),
            Op::AddServer(server, spread),
            Op::AddDestination(server, to, 1),
            Op::DeleteServer(server),
        ];
        let lines: Vec<String> = ops.iter().flat_map(|op| lines(op, Family::V4, &Saved::default())).collect();
        let expected = [
            "ipset create KUBE-CLUSTER-IP hash:ip,port",
            "ipset add KUBE-CLUSTER-IP 10.96.0.1,tcp:80",
            "ip address add 10.96.0.1/32 dev kube-ipvs0",
            "ipvsadm -A -t 10.96.0.1:80 -s sh -p 60 -b flag-2",
            "ipvsadm -a -t 10.96.0.1:80 -r 10.1.0.1:8080 -m -w 1",
            "ipvsadm -D -t 10.96.0.1:80",
        ];
        assert_eq!(lines, expected);
    }
}
