//! More than the kernel can bear, and sooner than it has done.

use super::super::lab::objects::{TARGET_PORT, service, slices};
use super::super::lab::traffic::{serve, tcp};
use super::super::lab::{Lab, eventually};
use super::{apply, config, servers, start};
use longshore_dataplane::config::IpvsConfig;
use longshore_dataplane::{Change, Config, Dataplane, Family};
use serde_json::json;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// IPVS looks through all destinations of a server at each change of one: a million would take it hours. What is left out
/// is left out before any mode comes in, so a few more than can be used show it.
#[test]
#[ignore = "runs inside User-mode Linux"]
fn more_endpoints_than_can_be_used_are_told_and_hold_up_no_other() {
    const SLICES: u32 = 20;
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let named = |name: &str, last: u8| {
        let ip = format!("10.96.0.{last}");
        service(name, json!({"clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"]}))
    };
    let thousand = |n: u32| -> Change {
        let first = u32::from(Ipv4Addr::new(100, 64, 0, 0)) + n * 1000;
        let endpoints: Vec<_> = (first..first + 1000).map(|ip| json!({"addresses": [Ipv4Addr::from(ip)]})).collect();
        let object = json!({"metadata": {"name": format!("huge-{n}"), "namespace": "ns1", "labels": {"kubernetes.io/service-name": "huge"}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "t", "port": TARGET_PORT}]});
        Change::SetSlice(Arc::new(serde_json::from_value(object).unwrap()))
    };
    let dataplane = Dataplane::start(Config { families: vec![Family::V4], ..config(&lab, IpvsConfig::default()) }).unwrap();
    let changes = [named("huge", 20), named("small", 21)].into_iter().chain((0..SLICES).map(thousand)).chain(slices("small", &[1]));
    let last = changes.chain([Change::Synced]).map(|change| dataplane.apply(change)).last().unwrap();
    eventually("all is programmed", || dataplane.status().programmed_generation >= last);
    assert_eq!(dataplane.status().last_error, None);
    assert_eq!(tcp(&lab.outside, "10.96.0.21:80".parse().unwrap()).unwrap().server, "p1");
    assert_eq!(servers(&lab, "-a -t 10.96.0.20:80").len(), 16_383);
    let event = dataplane.events().try_next().unwrap();
    assert_eq!(event.reason, "TooManyEndpoints");
    assert_eq!(event.message, "only 16383 of 20000 IPv4 endpoints of a port of ns1/huge get connections");
    assert_eq!(dataplane.events().try_next(), None);
}

/// The kernel makes the route of an IPv6 address a moment after it has acknowledged the address.
#[test]
#[ignore = "runs inside User-mode Linux"]
fn packets_to_every_ipv6_address_are_the_nodes_once_it_is_said_to_be_programmed() {
    let lab = Lab::new();
    let named = |n: usize| {
        let ip = format!("fd00:96::{:x}", 0x100 + n);
        service(&format!("s{n}"), json!({"clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv6"]}))
    };
    let dataplane = start(&lab, (0..100).map(named));
    for round in 1..6 {
        let some = round * 100..(round + 1) * 100;
        apply(&dataplane, some.clone().map(named));
        let asked: Vec<String> = some.clone().map(|n| format!("route get fd00:96::{:x}", 0x100 + n)).collect();
        let told = lab.node.command("sh", &["-c", &format!("echo '{}' | ip -6 -batch -", asked.join("\n"))]);
        assert_eq!(told.lines().filter(|line| line.starts_with("local fd00:96::")).count(), some.len(), "{told}");
    }
}
