//! Bytes of every kind, mutated from messages that a kernel could send: no netlink parser panics, and what one reads
//! is written and read back the same. So for the text of iptables-save.
//!
//! Seeded (see `fuzz`). The function [`one`] is what a libFuzzer target calls with its bytes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../agent/tests/fuzz/mod.rs"]
mod fuzz;

use fuzz::Dice;
use std::net::SocketAddr;

use longshore_dataplane::backend::ipvs::compile::Balance;
use longshore_dataplane::backend::ipvs::ir::{Item, Op};
use longshore_dataplane::backend::ipvs::render::{Numbers, Saved, render};
use longshore_dataplane::backend::ipvs::sets::Set;
use longshore_dataplane::backend::nft;
use longshore_dataplane::model::{Cidr, Family, Protocol};
use longshore_dataplane::netlink::attr::{Messages, Writer};
use longshore_dataplane::netlink::ipset::{self, Entry, SetType};
use longshore_dataplane::netlink::ipvs::{self, Server, Spread};
use longshore_dataplane::netlink::socket::Pipeline;
use longshore_dataplane::netlink::{accounting, genl, route};

fn message(kind: u16, fixed: &[u8], fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::default();
    w.begin_with(kind, 2, 1, fixed);
    fill(&mut w);
    w.end();
    w.bytes().to_vec()
}

fn server(v6: bool) -> Server {
    let ip = if v6 { "fd00:96::1" } else { "10.96.0.1" }.parse().unwrap();
    Server { ip, protocol: Protocol::Tcp, port: 80 }
}

/// Messages of each kind, as they could come from a kernel.
fn corpus() -> Vec<Vec<u8>> {
    let mut corpus = Vec::new();
    let mut counted = Writer::default();
    accounting::put(&mut counted, &accounting::Counter { name: "web".into(), packets: 3, bytes: 252 });
    corpus.push(counted.bytes().to_vec());
    for v6 in [false, true] {
        let server = server(v6);
        let spread =
            Spread { scheduler: Balance::parse("mh").unwrap().scheduler, flags: 0x11, timeout: 10800, netmask: if v6 { 128 } else { 32 } };
        let address = SocketAddr::new(server.ip, 8080);
        let header = genl::header(ipvs::NEW_SERVICE, ipvs::VERSION);
        corpus.push(message(30, &header, |w| ipvs::put_server(w, &server, Some(&spread))));
        corpus.push(message(30, &header, |w| ipvs::put_destination(w, &server, address, Some(1))));
        corpus.push(message(30, &header, |w| ipvs::put_timeouts(w, [900, 120, 300])));
        for entry in entries(&server) {
            corpus.push(message(ipset::LIST, &ipset::HEADER, |w| ipset::put_entry(w, "KUBE-CLUSTER-IP", &entry)));
        }
        let link = route::LinkAddress { link: 7, ip: server.ip, prefix: 32 };
        corpus.push(message(route::NEW_ADDRESS, &route::address_header(&link), |w| route::put_address(w, &link)));
    }
    corpus.push(message(ipset::LIST, &ipset::HEADER, |w| ipset::put_set(w, "KUBE-LOOP-BACK", SetType::IpPortIp, Family::V4, 6)));
    corpus.push(message(route::NEW_LINK, &route::link_header(7), |w| route::put_dummy(w, "kube-ipvs0")));
    let structure = nft::render::render(
        &[nft::ir::Op::AddTable, nft::ir::Op::AddChain { name: "services".into(), base: None }],
        nft::render::Target { family: Family::V4, table: "kube-proxy", carried: &Default::default() },
        1,
    );
    corpus.push(structure.writer.bytes().to_vec());
    corpus.push(
        b"*nat\n:KUBE-SERVICES - [0:0]\n-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\nCOMMIT\n".to_vec(),
    );
    corpus
}

fn entries(server: &Server) -> [Entry; 5] {
    let (ip, protocol, port) = (server.ip, server.protocol, server.port);
    let net = Cidr::new(ip, 24).unwrap();
    [
        Entry::Port(port),
        Entry::Ip(ip),
        Entry::IpPort(ip, protocol, port),
        Entry::IpPortIp(ip, protocol, port, ip),
        Entry::IpPortNet(ip, protocol, port, net),
    ]
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(bytes.len() + 1);
    match dice.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        1 if at < bytes.len() => bytes[at] = u8::try_from(dice.below(256)).unwrap(),
        2 => drop(bytes.drain(at..(at + dice.below(9)).min(bytes.len()))),
        3 => bytes.truncate(at),
        4 => {
            let from = dice.below(other.len() + 1);
            bytes.splice(at..at, other[from..(from + dice.below(60)).min(other.len())].iter().copied());
        }
        5 => bytes.extend_from_slice(other),
        // Lengths that are nearly right get the furthest.
        _ => {
            let len = u32::try_from(bytes.len()).unwrap().wrapping_sub(u32::try_from(dice.below(3)).unwrap());
            if let Some(header) = bytes.get_mut(..4) {
                header.copy_from_slice(&len.to_ne_bytes());
            }
        }
    }
    bytes.truncate(64 << 10);
}

/// What must hold of any bytes.
fn one(bytes: &[u8]) {
    let mut ops = Vec::new();
    for m in Messages(bytes) {
        let _ = (nft::render::parse_message(&m, &mut ops), nft::render::parse_counted(&m).count(), ipvs::parse_timeouts(&m));
        let _ = (ipset::parse_revision(&m), route::parse_link(&m));
        if let Some(counter) = accounting::parse(&m) {
            let mut w = Writer::default();
            accounting::put(&mut w, &counter);
            assert_eq!(Messages(w.bytes()).next().and_then(|m| accounting::parse(&m)), Some(counter));
        }
        if let Some((server, spread)) = ipvs::parse_server(&m) {
            // An IPv4 mask may have holes, and a prefix none.
            let again = message(30, &genl::header(1, 1), |w| ipvs::put_server(w, &server, Some(&spread)));
            assert_eq!(Messages(&again).next().and_then(|m| ipvs::parse_server(&m)), Some((server, spread)));
        }
        if let Some(found) = ipvs::parse_destination(&m, &server(false)) {
            let again = message(30, &genl::header(1, 1), |w| ipvs::put_destination(w, &server(false), found.address, Some(found.weight)));
            let read = Messages(&again).next().and_then(|m| ipvs::parse_destination(&m, &server(false)));
            assert_eq!(read.map(|read| (read.address, read.weight)), Some((found.address, found.weight)));
        }
        if let Some(address) = route::parse_address(&m) {
            let again = message(route::NEW_ADDRESS, &route::address_header(&address), |w| route::put_address(w, &address));
            assert_eq!(Messages(&again).next().and_then(|m| route::parse_address(&m)), Some(address));
        }
        for set_type in [SetType::Port, SetType::Ip, SetType::IpPort, SetType::IpPortIp, SetType::IpPortNet] {
            for entry in ipset::parse_list(&m, |_| Some(set_type)).map(|listed| listed.entries).unwrap_or_default() {
                let mut pipeline = Pipeline::default();
                let op = Op::Add(Item::Entry(Set::ClusterIp, entry));
                render(&mut pipeline, &op, &Numbers { family: Family::V4, ipvs: 30, link: 7 });
                assert_eq!(pipeline.len(), 1);
            }
        }
    }
    let saved = Saved::read(&String::from_utf8_lossy(bytes));
    let _ = (saved.is_empty(), saved.unload());
}

#[test]
fn no_bytes_make_a_netlink_parser_panic() {
    fuzz::drive(&corpus(), 100_000, 6, mutate, one);
}
