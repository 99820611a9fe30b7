//! What others do to our rules is noticed and mended, and what the node and the cluster tell changes them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::objects::{NODE_PORT, PORT, TARGET_PORT, node_port, service, slices, vip};
use lab::traffic::{is_refused, is_silence, serve, tcp};
use lab::{Lab, NODE_V4, apply, eventually, start};
use longshore_dataplane::{Change, Config, Dataplane, DetectLocal, NodePortAddresses, wire};
use serde_json::{Value, json};

fn web(spec: Value) -> Vec<Change> {
    let mut changes = vec![service("web", spec)];
    changes.extend(slices("web", &[1]));
    changes
}

fn served_lab() -> Lab {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    lab
}

fn cluster_ip() -> SocketAddr {
    SocketAddr::new(vip(false), PORT)
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

#[test]
fn what_others_change_in_our_table_is_mended_within_milliseconds() {
    let lab = served_lab();
    // No look by itself for an hour: only the kernel's news count.
    let dataplane = Dataplane::start(Config { audit: Duration::from_secs(3600), ..lab.config() }).unwrap();
    apply(&dataplane, web(json!({})).into_iter().chain([Change::Synced]));
    // A table that is made anew comes last.
    let listed = || ["ip", "ip6"].map(|family| lab.nft(&format!("-s list table {family} kube-proxy")));
    let intact = listed();
    let mut times = Vec::new();
    for tampering in [
        "delete element ip kube-proxy frontend-ips { 10.96.0.10 . tcp . 80 }",
        "delete element ip kube-proxy endpoint-ips { 10.96.0.10 . tcp . 80 . 0 }",
        "add element ip kube-proxy cluster-ips { 10.96.7.7 }",
        "flush chain ip kube-proxy services",
        "add rule ip kube-proxy nat-output counter",
        "delete table ip kube-proxy",
        "flush ruleset",
    ] {
        let before = dataplane.status().counters.foreign_changes;
        lab.nft(tampering);
        let began = Instant::now();
        eventually(tampering, || {
            let heard = dataplane.status().counters.foreign_changes > before;
            heard && lab.nft("list tables").matches("kube-proxy").count() == 2 && listed() == intact
        });
        times.push(began.elapsed());
        tcp(&lab.pods[0], cluster_ip()).unwrap();
    }
    println!("mended after {times:?} (with a listing by nft in each, and a pause between two)");
    // Others' tables are none of ours.
    let before = dataplane.status().counters;
    lab.node.command("nft", &["table ip other { chain x { counter; }; }"]);
    apply(&dataplane, [service("web", node_port())]);
    let after = dataplane.status().counters;
    assert_eq!((after.foreign_changes, after.kernel_reads), (before.foreign_changes, before.kernel_reads));
}

#[test]
fn packets_to_unallocated_cluster_ips_are_dropped_when_the_range_is_known() {
    let lab = served_lab();
    let dataplane = start(&lab, web(json!({})));
    let unallocated: SocketAddr = "10.96.3.3:80".parse().unwrap();
    let range = |name: &str, cidrs: Value| {
        let object = object::<wire::ServiceCidr>(json!({"metadata": {"name": name}, "spec": {"cidrs": cidrs}}));
        Change::SetServiceCidr(object)
    };
    let counting = "table ip seen { counter left { }; chain postrouting { type filter hook postrouting priority 0; \
        ip daddr 10.96.3.3 counter name left; }; }";
    lab.node.command("nft", &[counting]);
    let left = || {
        let listed = lab.nft("list counter ip seen left");
        listed.split_whitespace().skip_while(|word| *word != "packets").nth(1).unwrap().parse::<u32>().unwrap()
    };
    assert!(is_silence(&tcp(&lab.pods[0], unallocated)));
    let before = left();
    assert!(before > 0, "without a range it leaves the node by the default route");
    apply(
        &dataplane,
        [range("kubernetes", json!(["10.96.0.0/16", "fd00:96::/64"])), range("more", json!(["10.97.0.0/16", "10.96.4.0/24"]))],
    );
    assert!(is_silence(&tcp(&lab.pods[0], unallocated)));
    assert_eq!(left(), before);
    tcp(&lab.pods[0], cluster_ip()).unwrap();
    let listed = lab.nft("list chain ip kube-proxy service-cidrs-check");
    assert_eq!(listed.matches("drop").count(), 2, "{listed}");
    assert!(listed.contains("ip daddr 10.97.0.0/16 drop comment \"Drop traffic to unallocated ClusterIPs\""), "{listed}");
    // A restart adopts them.
    drop(dataplane);
    let mut changes = web(json!({}));
    changes.push(range("kubernetes", json!(["10.96.0.0/16", "fd00:96::/64"])));
    changes.push(range("more", json!(["10.97.0.0/16"])));
    let dataplane = start(&lab, changes);
    assert_eq!(dataplane.status().counters.kernel_writes, 0);
    apply(&dataplane, [Change::DeleteServiceCidr { name: "more".into() }]);
    assert!(!lab.nft("list chain ip kube-proxy service-cidrs-check").contains("10.97"));
}

fn node(ips: &[&str], pod_cidrs: &[&str]) -> Change {
    let addresses: Vec<Value> = ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    let object = json!({"metadata": {"name": "node", "labels": {"topology.kubernetes.io/zone": "a"}},
        "spec": {"podCIDRs": pod_cidrs}, "status": {"addresses": addresses}});
    Change::SetNode(self::object(object))
}

#[test]
fn the_nodes_pod_ranges_tell_pods_and_its_addresses_answer_node_ports() {
    let lab = served_lab();
    let config = Config { detect_local: DetectLocal::NodeCidr, node_ips: Vec::new(), ..lab.config() };
    let dataplane = Dataplane::start(config).unwrap();
    let both = ["10.1.0.0/16", "fd00:1::/64"];
    apply(&dataplane, web(node_port()).into_iter().chain([node(&[NODE_V4, "fd00:2::1"], &both), Change::Synced]));
    assert_eq!(tcp(&lab.pods[0], cluster_ip()).unwrap().seen_client.to_string(), "10.1.0.11", "a pod keeps its address");
    assert_eq!(tcp(&lab.outside, cluster_ip()).unwrap().seen_client.to_string(), "10.1.0.1");
    let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), NODE_PORT);
    tcp(&lab.outside, at(NODE_V4)).unwrap();
    assert!(is_refused(&tcp(&lab.pods[0], at("10.1.0.1"))), "not the node's address");
    // Without a restart, both change.
    apply(&dataplane, [node(&["10.1.0.1", "fd00:1::1"], &["10.9.0.0/16", "fd00:9::/64"])]);
    assert_eq!(tcp(&lab.pods[0], cluster_ip()).unwrap().seen_client.to_string(), "10.1.0.1", "no longer known as a pod");
    tcp(&lab.pods[0], at("10.1.0.1")).unwrap();
    assert!(is_refused(&tcp(&lab.pods[0], at(NODE_V4))));
}

#[test]
fn configuration_is_reloaded_without_a_connection_lost() {
    let lab = served_lab();
    let dataplane = start(&lab, web(node_port()));
    let seen = || tcp(&lab.pods[0], cluster_ip()).unwrap().seen_client.to_string();
    assert_eq!(seen(), "10.1.0.11");
    let all = Config { masquerade_all: true, node_port_addresses: NodePortAddresses::All, ..lab.config() };
    let at = SocketAddr::new("10.1.0.1".parse().unwrap(), NODE_PORT);
    assert!(is_refused(&tcp(&lab.pods[0], at)));
    let generation = dataplane.reconfigure(all);
    lab::programmed(&dataplane, generation);
    assert_eq!(seen(), "10.1.0.1");
    tcp(&lab.pods[0], at).unwrap();
    let generation = dataplane.reconfigure(Config { detect_local: DetectLocal::BridgeInterface("br0".into()), ..lab.config() });
    lab::programmed(&dataplane, generation);
    assert_eq!(seen(), "10.1.0.11");
    assert!(is_refused(&tcp(&lab.pods[0], at)));
}

#[test]
fn two_services_with_one_external_address_are_settled_by_age() {
    let lab = served_lab();
    serve(&lab.pods[2], "p2", TARGET_PORT);
    let service = |name: &str, last: u8, created: &str| {
        let spec = json!({"clusterIP": format!("10.96.0.{last}"), "externalIPs": ["203.0.113.250"],
            "ports": [{"name": "t", "port": PORT}, {"name": "u", "port": PORT, "protocol": "UDP"}]});
        let object = json!({"metadata": {"name": name, "namespace": "ns1", "creationTimestamp": created}, "spec": spec});
        Change::SetService(self::object(object))
    };
    let mut changes = vec![service("new", 21, "2026-02-01T00:00:00Z"), service("old", 22, "2026-01-01T00:00:00Z")];
    changes.extend(slices("new", &[1]));
    changes.extend(slices("old", &[2]));
    let dataplane = start(&lab, changes);
    let external: SocketAddr = "203.0.113.250:80".parse().unwrap();
    assert_eq!(tcp(&lab.outside, external).unwrap().server, "p2");
    let events: Vec<_> = std::iter::from_fn(|| dataplane.events().try_next()).collect();
    assert!(events.iter().any(|event| event.reason == "DuplicateFrontend" && event.message.contains("ns1/old")), "{events:?}");
    apply(&dataplane, [Change::DeleteService { namespace: "ns1".into(), name: "old".into() }]);
    assert_eq!(tcp(&lab.outside, external).unwrap().server, "p1");
}
