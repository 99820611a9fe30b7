//! Services in a real kernel: packets between namespaces.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::objects::{NODE_PORT, PORT, TARGET_PORT, node_port, pod_ip, service, slices, slices_on, vip};
use lab::traffic::{ask, both, connected, is_refused, is_silence, serve, tcp, tcp_here, udp};
use lab::{Lab, NODE_V4, NODE_V6, apply, eventually, start};
use longshore_dataplane::Change;
use longshore_dataplane::backend::nft::kernel::Kernel;
use serde_json::json;

const FAMILIES: [bool; 2] = [false, true];

fn web(extra: serde_json::Value, pods: &[usize]) -> Vec<Change> {
    let mut changes = vec![service("web", extra)];
    changes.extend(slices("web", pods));
    changes
}

fn cluster_ip(v6: bool) -> SocketAddr {
    SocketAddr::new(vip(v6), PORT)
}

fn node_address(v6: bool) -> SocketAddr {
    SocketAddr::new(if v6 { NODE_V6 } else { NODE_V4 }.parse().unwrap(), NODE_PORT)
}

#[test]
fn cluster_ip_answers_pods_the_node_and_the_outside() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let _dataplane = start(&lab, web(json!({}), &[1]));
    for v6 in FAMILIES {
        for (who, from) in [("pod", &lab.pods[0]), ("node", &lab.node), ("outside", &lab.outside)] {
            for answer in both(from, cluster_ip(v6)) {
                let answer = answer.unwrap_or_else(|error| panic!("{who} v6={v6}: {error}\n{}", lab.nft("list ruleset")));
                assert_eq!(answer.server, "p1", "{who}");
                if who == "pod" {
                    assert_eq!(answer.seen_client.to_string(), pod_ip(0, v6), "a pod keeps its address");
                } else {
                    let bridge = if v6 { "fd00:1::1" } else { "10.1.0.1" };
                    assert_eq!(answer.seen_client.to_string(), bridge, "{who} is masked");
                }
            }
        }
    }
}

#[test]
fn node_ports_answer_on_the_nodes_address() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let _dataplane = start(&lab, web(node_port(), &[1]));
    for v6 in FAMILIES {
        for (who, from) in [("pod", &lab.pods[0]), ("node", &lab.node), ("outside", &lab.outside)] {
            for answer in both(from, node_address(v6)) {
                let answer = answer.unwrap_or_else(|error| panic!("{who} v6={v6}: {error}"));
                assert_eq!(answer.server, "p1", "{who}");
                let bridge = if v6 { "fd00:1::1" } else { "10.1.0.1" };
                assert_eq!(answer.seen_client.to_string(), bridge, "{who} is masked");
            }
        }
        // The bridge's address is not the primary one.
        let elsewhere = SocketAddr::new(if v6 { "fd00:1::1" } else { "10.1.0.1" }.parse().unwrap(), NODE_PORT);
        assert!(is_refused(&tcp(&lab.pods[0], elsewhere)));
    }
}

#[test]
fn connections_spread_over_all_endpoints() {
    let lab = Lab::new();
    (0..3).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let dataplane = start(&lab, web(json!({}), &[0, 1, 2]));
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    lab.outside.run(|| {
        for _ in 0..120 {
            *seen.entry(tcp_here(cluster_ip(false)).unwrap().server).or_default() += 1;
        }
    });
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen.values().all(|count| *count >= 15), "far from even: {seen:?}");
    // The frontend counted each connection once.
    let listed = lab.nft("list map ip kube-proxy frontend-ips");
    assert!(listed.contains("10.96.0.10 . tcp . 80 counter packets 120 "), "{listed}");
    // And does not start anew when the number of endpoints changes.
    apply(&dataplane, slices("web", &[0, 1]));
    let listed = lab.nft("list map ip kube-proxy frontend-ips");
    assert!(listed.contains("10.96.0.10 . tcp . 80 counter packets 120 "), "{listed}");
    assert!(lab.nft("list map ip kube-proxy dispatch-ips").contains("goto ip-lb-2"));
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let lab = Lab::new();
    serve(&lab.pods[0], "p0", TARGET_PORT);
    let _dataplane = start(&lab, web(node_port(), &[0]));
    for v6 in FAMILIES {
        for to in [cluster_ip(v6), node_address(v6)] {
            for answer in both(&lab.pods[0], to) {
                let answer = answer.unwrap_or_else(|error| panic!("{to}: {error}"));
                assert_eq!(answer.server, "p0");
                assert_ne!(answer.seen_client.to_string(), pod_ip(0, v6), "the answer would not come back");
            }
        }
    }
}

#[test]
fn a_service_without_endpoints_is_refused_at_once() {
    let lab = Lab::new();
    let _dataplane = start(&lab, web(node_port(), &[]));
    for v6 in FAMILIES {
        for (who, from) in [("pod", &lab.pods[0]), ("node", &lab.node), ("outside", &lab.outside)] {
            for to in [cluster_ip(v6), node_address(v6)] {
                let began = Instant::now();
                assert!(is_refused(&tcp(from, to)), "{who} to {to}");
                let datagram = udp(from, to);
                // A refusal of one's own datagram is reported as a packet that may not leave.
                let own = who == "node" && to.ip() == vip(v6);
                let unsent = datagram.as_ref().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
                assert!(is_refused(&datagram) || (own && unsent), "{who} to {to}: {datagram:?}");
                assert!(began.elapsed() < Duration::from_secs(2), "{who} to {to} took {:?}", began.elapsed());
            }
            let unknown = SocketAddr::new(vip(v6), 81);
            assert!(is_refused(&tcp(from, unknown)), "{who}: a port that the service has not");
        }
    }
}

#[test]
fn external_policy_local_keeps_the_source_and_drops_what_has_no_local_endpoint() {
    let lab = Lab::new();
    (0..2).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let mut spec = node_port();
    spec["externalTrafficPolicy"] = "Local".into();
    let mut changes = vec![service("web", spec)];
    changes.extend(slices_on("web", &[(0, "elsewhere"), (1, "node")]));
    let dataplane = start(&lab, changes);
    for v6 in FAMILIES {
        let outside = if v6 { "fd00:2::2" } else { "192.0.2.2" };
        for _ in 0..8 {
            for answer in both(&lab.outside, node_address(v6)).map(Result::unwrap) {
                assert_eq!((answer.server.as_str(), answer.seen_client.to_string().as_str()), ("p1", outside));
            }
        }
        let pod = tcp(&lab.pods[2], node_address(v6)).unwrap();
        assert_eq!(pod.seen_client.to_string(), pod_ip(2, v6), "pods are short-circuited with their address");
        tcp(&lab.node, node_address(v6)).unwrap();
    }
    apply(&dataplane, slices_on("web", &[(0, "elsewhere")]));
    for v6 in FAMILIES {
        assert!(is_silence(&tcp(&lab.outside, node_address(v6))));
        assert_eq!(tcp(&lab.pods[2], node_address(v6)).unwrap().server, "p0");
        assert_eq!(tcp(&lab.node, node_address(v6)).unwrap().server, "p0");
    }
}

#[test]
fn an_endpoint_change_is_visible_within_milliseconds() {
    let lab = Lab::new();
    (0..2).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let dataplane = start(&lab, web(json!({}), &[0]));
    let mut waits = Vec::new();
    for round in 0..20 {
        let pod = (round + 1) % 2;
        let began = Instant::now();
        slices("web", &[pod]).into_iter().for_each(|change| {
            dataplane.apply(change);
        });
        let wanted = format!("p{pod}");
        lab.node.run(|| eventually("the new endpoint answers", || tcp_here(cluster_ip(false)).unwrap().server == wanted));
        waits.push(began.elapsed());
    }
    waits.sort();
    println!("endpoint change to first answer: median {:?}, worst {:?}", waits[10], waits[19]);
}

#[test]
fn a_restart_adopts_what_is_there_without_a_write() {
    let lab = Lab::new();
    (1..3).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let mut spec = node_port();
    spec["externalTrafficPolicy"] = "Local".into();
    let mut changes = web(spec, &[1, 2]);
    changes.extend([service(
        "empty",
        json!({"clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11"],
        "ipFamilies": ["IPv4"]}),
    )]);
    let first = start(&lab, changes.clone());
    assert!(first.status().counters.kernel_writes > 0);
    drop(first);
    tcp(&lab.pods[0], cluster_ip(false)).unwrap();

    let second = start(&lab, changes);
    let counters = second.status().counters;
    assert_eq!((counters.kernel_writes, counters.kernel_reads), (0, 2), "{counters:?}");
    // A change while it was away is one difference.
    drop(second);
    let third = start(&lab, web(node_port(), &[1]));
    let writes = third.status().counters.kernel_writes;
    assert!(writes > 0 && writes < 80, "{writes}");
    tcp(&lab.pods[0], cluster_ip(false)).unwrap();
}

#[test]
fn a_deleted_table_is_made_again() {
    let lab = Lab::new();
    (1..3).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let dataplane = start(&lab, web(json!({}), &[1]));
    lab.nft("delete table ip kube-proxy");
    // By itself:
    eventually("the table is back", || dataplane.status().counters.foreign_changes > 0);
    eventually("it answers", || tcp(&lab.pods[0], cluster_ip(false)).is_ok());
    // And at the next change at once, even when nobody looks in between.
    lab.nft("delete table ip kube-proxy");
    apply(&dataplane, slices("web", &[1, 2]));
    apply(&dataplane, slices("web", &[1]));
    tcp(&lab.pods[0], cluster_ip(false)).unwrap();
}

#[test]
fn rules_of_another_proxy_are_replaced_in_one_transaction_and_other_tables_left_alone() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let theirs = "table ip kube-proxy { map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }; \
        chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }; \
        chain nat-prerouting { type nat hook prerouting priority -100; jump services; }; }; \
        table ip other { chain x { counter; }; }";
    lab.node.command("nft", &[theirs]);
    let dataplane = start(&lab, web(json!({}), &[1]));
    tcp(&lab.pods[0], cluster_ip(false)).unwrap();
    let listed = lab.nft("list ruleset");
    assert!(!listed.contains("service-ips") && listed.contains("table ip other"), "{listed}");

    dataplane.shutdown(false);
    let listed = lab.nft("list ruleset");
    assert!(!listed.contains("kube-proxy") && listed.contains("table ip other"), "{listed}");
}

#[test]
fn cleanup_deletes_our_tables_only() {
    let lab = Lab::new();
    start(&lab, web(json!({}), &[1])).shutdown(true);
    lab.node.command("nft", &["table ip other { chain x { counter; }; }"]);
    assert!(lab.nft("list tables").contains("ip6 kube-proxy"));
    for _ in 0..2 {
        longshore_dataplane::cleanup(Some(&lab.node.path())).unwrap();
        assert_eq!(lab.nft("list tables"), "table ip other\n");
    }
}

#[test]
fn stale_udp_flows_go_with_their_endpoint_and_others_stay() {
    let lab = Lab::new();
    (0..2).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let dataplane = start(&lab, web(json!({}), &[0]));
    for v6 in FAMILIES {
        let any: SocketAddr = if v6 { "[::]:5302" } else { "0.0.0.0:5300" }.parse().unwrap();
        let client = lab.pods[2].run(|| connected(any, cluster_ip(v6)).unwrap());
        assert_eq!(ask(&client).unwrap().server, "p0");
        apply(&dataplane, slices("web", &[0, 1]));
        let before = dataplane.status().counters.flows_deleted;
        assert_eq!(ask(&client).unwrap().server, "p0", "a new endpoint takes no flow away");
        apply(&dataplane, slices("web", &[1]));
        eventually("the flow moves", || ask(&client).is_ok_and(|answer| answer.server == "p1"));
        eventually("it was deleted", || dataplane.status().counters.flows_deleted > before);
        apply(&dataplane, slices("web", &[0]));
        eventually("the flow moves back", || ask(&client).is_ok_and(|answer| answer.server == "p0"));
    }
    // A flow that was made while nobody answered finds the first endpoint.
    apply(&dataplane, slices("web", &[]));
    let any: SocketAddr = "0.0.0.0:5301".parse().unwrap();
    let client = lab.pods[2].run(|| connected(any, cluster_ip(false)).unwrap());
    assert!(is_refused(&ask(&client)));
    apply(&dataplane, slices("web", &[1]));
    eventually("it is answered", || ask(&client).is_ok());
}

#[test]
fn nft_lists_everything_that_is_loaded() {
    let lab = Lab::new();
    let mut spec = node_port();
    spec["externalTrafficPolicy"] = "Local".into();
    let dataplane = start(&lab, web(spec, &[1, 2]));
    let listed = lab.nft("list ruleset");
    for line in [
        "table ip kube-proxy {",
        "comment \"rules for kube-proxy\"",
        "type nat hook prerouting priority dstnat; policy accept;",
        "10.96.0.10 . tcp . 80 . 1 : 10.1.0.13 . 8080",
        "fd00:96::10 . udp . 80 . 0 : fd00:1::12 . 8080",
        "tcp . 30080 . 1000000 : 10.1.0.12 . 8080",
        "10.96.0.10 . tcp . 80 counter packets 0 bytes 0 : 0:2",
        "0:2 : goto ip-lb-2",
        "meta priority set ip daddr . meta l4proto . th dport map @frontend-ips meta priority vmap @dispatch-ips",
        "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoint-ips",
        "dnat ip6 to meta l4proto . th dport . numgen random mod 2 offset 1000000 map @endpoint-nodeports",
        "ip daddr @cluster-ips ip saddr != 10.1.0.0/16 meta mark set meta mark | 0x00004000",
        "fib saddr type local goto nodeport-lb-2 comment \"short-circuit local traffic\"",
        "ct status dnat ip6 saddr . ip6 daddr @hairpin-ips masquerade fully-random",
        "ct state new jump nodeport-endpoints-check",
    ] {
        assert!(listed.contains(line), "no {line:?} in:\n{listed}");
    }
    // What is listed can be loaded again.
    drop(dataplane);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &listed).unwrap();
    lab.nft("flush ruleset");
    lab.nft(&format!("-f {}", file.path().display()));
    assert_eq!(lab.nft("list ruleset"), listed);
}

#[test]
fn source_ranges_guard_load_balancer_addresses_only() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let service = |ranges: serde_json::Value| {
        let object = json!({"metadata": {"name": "web", "namespace": "ns1"},
            "spec": {"type": "LoadBalancer", "clusterIP": "fd00:96::10", "clusterIPs": ["fd00:96::10", "10.96.0.10"],
                "ipFamilies": ["IPv6", "IPv4"], "loadBalancerSourceRanges": ranges,
                "ports": [{"name": "t", "port": PORT, "nodePort": NODE_PORT}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}, {"ip": "fd00:100::1"}]}}});
        Change::SetService(Arc::new(serde_json::from_value(object).unwrap()))
    };
    let balancer = |v6: bool| SocketAddr::new(if v6 { "fd00:100::1" } else { "198.51.100.1" }.parse().unwrap(), PORT);
    let pods = json!(["10.1.0.0/24", "10.1.0.0/16", "fd00:1::/64", " 203.0.113.0/24"]);
    let mut changes = vec![service(pods.clone())];
    changes.extend(slices("web", &[1]));
    let dataplane = start(&lab, changes.clone());
    for v6 in FAMILIES {
        tcp(&lab.pods[0], balancer(v6)).unwrap();
        assert!(is_silence(&tcp(&lab.outside, balancer(v6))), "v6={v6}: not in the ranges");
        tcp(&lab.outside, node_address(v6)).unwrap();
        tcp(&lab.outside, cluster_ip(v6)).unwrap();
    }
    let listed = lab.nft("list ruleset");
    assert!(listed.contains("198.51.100.1 . tcp . 80 . 10.1.0.0/16"), "{listed}");
    drop(dataplane);
    let dataplane = start(&lab, changes);
    assert_eq!(dataplane.status().counters.kernel_writes, 0, "ranges are adopted, too");
    apply(&dataplane, [service(json!(["192.0.2.0/24", "fd00:2::/64"]))]);
    for v6 in FAMILIES {
        tcp(&lab.outside, balancer(v6)).unwrap();
        assert!(is_silence(&tcp(&lab.pods[0], balancer(v6))), "v6={v6}: no longer in the ranges");
    }
    apply(&dataplane, [service(json!(["0.0.0.0/0", "::/0"]))]);
    FAMILIES.into_iter().for_each(|v6| drop(tcp(&lab.pods[0], balancer(v6)).unwrap()));
}

#[test]
fn a_commit_is_one_generation_of_the_kernels_rules() {
    // The audit counts on it to tell our commits from others'.
    let lab = Lab::new();
    let dataplane = start(&lab, web(json!({}), &[0]));
    let generation = || lab.node.run(|| Kernel::open(longshore_dataplane::TABLE).unwrap().generation().unwrap());
    let transactions = || u32::try_from(dataplane.status().counters.kernel_transactions).unwrap();
    let (before, done) = (generation(), transactions());
    apply(&dataplane, slices("web", &[0, 1]));
    assert!(transactions() > done);
    assert_eq!(generation() - before, transactions() - done);
}
