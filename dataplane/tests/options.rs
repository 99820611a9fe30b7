//! What the configuration changes about the rules, with packets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::net::SocketAddr;

use lab::objects::{NODE_PORT, PORT, TARGET_PORT, node_port, pod_ip, service, slices, vip};
use lab::traffic::{both, is_refused, serve, tcp};
use lab::{Lab, NODE_V4, NODE_V6, eventually, programmed};
use longshore_dataplane::{Change, Cidr, Config, Dataplane, DetectLocal, Family, NodePortAddresses};

const FAMILIES: [bool; 2] = [false, true];

/// A NodePort service whose endpoint is pod 1, under a configuration.
fn start(config: Config) -> Dataplane {
    let dataplane = Dataplane::start(config).unwrap();
    dataplane.apply(service("web", node_port()));
    slices("web", &[1]).into_iter().for_each(|change| {
        dataplane.apply(change);
    });
    let last = dataplane.apply(Change::Synced);
    programmed(&dataplane, last);
    dataplane
}

fn at(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), NODE_PORT)
}

#[test]
fn node_ports_answer_on_every_address_but_loopback() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let config = Config { node_port_addresses: NodePortAddresses::All, ..lab.config() };
    let _dataplane = start(config);
    for ip in [NODE_V4, "10.1.0.1", NODE_V6, "fd00:1::1"] {
        for from in [&lab.pods[0], &lab.node, &lab.outside] {
            both(from, at(ip)).into_iter().for_each(|answer| assert_eq!(answer.unwrap().server, "p1"));
        }
    }
    for ip in ["127.0.0.1", "::1"] {
        assert!(is_refused(&tcp(&lab.node, at(ip))), "{ip}");
    }
}

#[test]
fn node_ports_follow_the_addresses_of_interfaces() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let cidrs = ["10.1.0.0/16", "fd00:1::/64"].map(|cidr| Cidr::parse(cidr).unwrap());
    let config = Config { node_port_addresses: NodePortAddresses::Cidrs(cidrs.into()), ..lab.config() };
    let dataplane = start(config);
    for (inside, outside) in [("10.1.0.1", NODE_V4), ("fd00:1::1", NODE_V6)] {
        tcp(&lab.pods[0], at(inside)).unwrap();
        assert!(is_refused(&tcp(&lab.pods[0], at(outside))), "{outside}");
    }
    lab.node.ip("addr add 10.1.7.7/16 dev br0");
    eventually("the new address answers", || tcp(&lab.pods[0], at("10.1.7.7")).is_ok());
    lab.node.ip("addr del 10.1.7.7/16 dev br0");
    eventually("the old address is gone", || !lab.nft("list set ip kube-proxy nodeport-ips").contains("10.1.7.7"));
    drop(dataplane);
}

/// Whether the pod and the outside host keep their address towards the cluster IP.
fn sources_kept(lab: &Lab, v6: bool) -> [bool; 2] {
    let outside = if v6 { "fd00:2::2" } else { "192.0.2.2" }.to_string();
    [(&lab.pods[0], pod_ip(0, v6)), (&lab.outside, outside)].map(|(from, ip)| {
        let seen = both(from, SocketAddr::new(vip(v6), PORT)).map(|answer| answer.unwrap().seen_client.to_string() == ip);
        assert_eq!(seen[0], seen[1], "TCP and UDP are alike");
        seen[0]
    })
}

#[test]
fn pods_are_told_by_the_configured_detector() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let cases = [
        (DetectLocal::BridgeInterface("br0".into()), false, [true, false]),
        (DetectLocal::InterfacePrefix("br".into()), false, [true, false]),
        (DetectLocal::InterfacePrefix("cali".into()), false, [false, false]),
        (DetectLocal::ClusterCidr(Vec::new()), false, [true, true]),
        (DetectLocal::None, true, [false, false]),
    ];
    for (detect_local, masquerade_all, kept) in cases {
        let what = format!("{detect_local:?}, masquerade all: {masquerade_all}");
        // Each start finds other rules than it would write, and replaces them.
        let _dataplane = start(Config { detect_local, masquerade_all, ..lab.config() });
        for v6 in FAMILIES {
            assert_eq!(sources_kept(&lab, v6), kept, "{what}, v6={v6}");
        }
    }
}

#[test]
fn nothing_is_written_before_the_first_lists_are_complete() {
    let lab = Lab::new();
    let dataplane = Dataplane::start(lab.config()).unwrap();
    dataplane.apply(service("web", node_port()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // The answer comes after what was applied before the question.
    let snapshot = runtime.block_on(dataplane.snapshot()).unwrap();
    assert!(snapshot.services.is_empty() && !snapshot.status.ready, "{snapshot:?}");
    assert_eq!(lab.nft("list tables"), "");
    let last = dataplane.apply(Change::Synced);
    programmed(&dataplane, last);
    let snapshot = runtime.block_on(dataplane.snapshot()).unwrap();
    assert_eq!(snapshot.services.len(), 2, "one in each family");
    let first = &snapshot.services[0].frontends[0];
    assert_eq!((first.destination.as_str(), first.action), ("tcp 10.96.0.10:80", "reject"));
}

#[test]
fn one_family_alone_leaves_the_other_untouched() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let _dataplane = start(Config { families: vec![Family::V6], ..lab.config() });
    tcp(&lab.pods[0], SocketAddr::new(vip(true), PORT)).unwrap();
    assert_eq!(lab.nft("list tables"), "table ip6 kube-proxy\n");
}

#[test]
fn a_namespace_that_does_not_exist_is_a_clear_error() {
    let config = Config { netns: Some("/run/netns/no-such-namespace".into()), ..Config::default() };
    let error = Dataplane::start(config).unwrap_err().to_string();
    assert!(error.contains("/run/netns/no-such-namespace"), "{error}");
    let error = Dataplane::start(Config { families: Vec::new(), ..Config::default() }).unwrap_err();
    assert_eq!(error.to_string(), "no IP family to program");
}
