//! Packets of every origin, to every kind of destination.

use super::super::lab::objects::{TARGET_PORT, node_port, pod_ip, slice, slices, slices_on};
use super::super::lab::traffic::{ask, both, connected, is_refused, is_silence, serve, tcp, tcp_here, udp};
use super::super::lab::{Lab, eventually};
use super::{FAMILIES, apply, cluster_ip, config, members, node_address, rules, servers, start, start_with, web};
use longshore_dataplane::config::IpvsConfig;
use longshore_dataplane::{Change, DetectLocal, wire};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BALANCER: &str = "203.0.113.7";
const EXTERNAL: &str = "203.0.113.250";

fn bridge(v6: bool) -> &'static str {
    if v6 { "fd00:1::1" } else { "10.1.0.1" }
}

fn outside(v6: bool) -> &'static str {
    if v6 { "fd00:2::2" } else { "192.0.2.2" }
}

/// A service with a load balancer's address.
fn balancer(spec: Value) -> Change {
    let mut all = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ipFamilies": ["IPv4"],
        "ports": [{"name": "t", "port": 80, "protocol": "TCP"}]});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let object = json!({"metadata": {"name": "web", "namespace": "ns1"}, "spec": all,
        "status": {"loadBalancer": {"ingress": [{"ip": BALANCER}]}}});
    let object: wire::Service = serde_json::from_value(object).unwrap();
    Change::SetService(Arc::new(object))
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn cluster_ip_answers_pods_the_node_and_the_outside() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let _dataplane = start(&lab, web(json!({}), &[1]));
    for v6 in FAMILIES {
        for (who, from) in [("pod", &lab.pods[0]), ("node", &lab.node), ("outside", &lab.outside)] {
            for answer in both(from, cluster_ip(v6)) {
                let answer = answer.unwrap_or_else(|error| panic!("{who} v6={v6}: {error}"));
                assert_eq!(answer.server, "p1", "{who}");
                let seen = if who == "pod" { pod_ip(0, v6) } else { bridge(v6).into() };
                assert_eq!(answer.seen_client.to_string(), seen, "{who}: only pods keep their address");
            }
        }
    }
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn without_a_detector_only_the_nodes_own_packets_are_masked() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let plain = config(&lab, IpvsConfig::default());
    let _dataplane = start_with(longshore_dataplane::Config { detect_local: DetectLocal::None, ..plain }, web(json!({}), &[1]));
    for v6 in FAMILIES {
        let seen = |from| tcp(from, cluster_ip(v6)).unwrap().seen_client.to_string();
        assert_eq!(seen(&lab.pods[0]), pod_ip(0, v6));
        assert_eq!(seen(&lab.outside), outside(v6));
        assert_eq!(seen(&lab.node), bridge(v6));
    }
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn node_ports_answer_on_the_nodes_address() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let _dataplane = start(&lab, web(node_port(), &[1]));
    for v6 in FAMILIES {
        for (who, from) in [("pod", &lab.pods[0]), ("node", &lab.node), ("outside", &lab.outside)] {
            for answer in both(from, node_address(v6)) {
                let answer = answer.unwrap_or_else(|error| panic!("{who} v6={v6}: {error}"));
                assert_eq!((answer.server.as_str(), answer.seen_client.to_string().as_str()), ("p1", bridge(v6)), "{who} is masked");
            }
        }
        // The bridge's address is not the primary one.
        let elsewhere = SocketAddr::new(bridge(v6).parse().unwrap(), node_address(v6).port());
        assert!(is_refused(&tcp(&lab.pods[0], elsewhere)));
    }
}

#[test]
#[ignore = "runs inside User-mode Linux"]
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
#[ignore = "runs inside User-mode Linux"]
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
                let unsent = datagram.as_ref().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
                assert!(is_refused(&datagram) || (who == "node" && unsent), "{who} to {to}: {datagram:?}");
                assert!(began.elapsed() < Duration::from_secs(2), "{who} to {to} took {:?}", began.elapsed());
            }
            let unknown = SocketAddr::new(cluster_ip(v6).ip(), 81);
            assert!(is_refused(&tcp(from, unknown)), "{who}: a port that the service has not");
        }
    }
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn a_port_of_this_node_is_not_reached_through_a_services_address() {
    let lab = Lab::new();
    serve(&lab.node, "node", 81);
    let _dataplane = start(&lab, web(json!({}), &[1]));
    for v6 in FAMILIES {
        for (who, from) in [("pod", &lab.pods[0]), ("node", &lab.node), ("outside", &lab.outside)] {
            assert!(is_refused(&tcp(from, SocketAddr::new(cluster_ip(v6).ip(), 81))), "{who}");
        }
    }
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn external_policy_local_keeps_the_source_and_stays_on_the_node() {
    let lab = Lab::new();
    (0..2).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let mut spec = node_port();
    spec["externalTrafficPolicy"] = "Local".into();
    let mut changes = web(spec, &[]);
    changes.extend(slices_on("web", &[(0, "elsewhere"), (1, "node")]));
    let dataplane = start(&lab, changes);
    for v6 in FAMILIES {
        for _ in 0..4 {
            for answer in both(&lab.outside, node_address(v6)).map(Result::unwrap) {
                assert_eq!((answer.server.as_str(), answer.seen_client.to_string().as_str()), ("p1", outside(v6)));
            }
        }
        assert_eq!(tcp(&lab.pods[2], node_address(v6)).unwrap().seen_client.to_string(), pod_ip(2, v6));
        assert_eq!(tcp(&lab.node, node_address(v6)).unwrap().server, "p1");
    }
    // Where IPVS differs: without an endpoint here, everybody is sent to the others.
    apply(&dataplane, slices_on("web", &[(0, "elsewhere")]));
    for v6 in FAMILIES {
        assert_eq!(tcp(&lab.pods[2], node_address(v6)).unwrap().server, "p0");
        assert_eq!(tcp(&lab.node, node_address(v6)).unwrap().server, "p0");
    }
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn internal_policy_local_stays_on_the_node_or_is_refused() {
    let lab = Lab::new();
    (0..2).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let mut changes = web(json!({"internalTrafficPolicy": "Local"}), &[]);
    changes.extend(slices_on("web", &[(0, "elsewhere"), (1, "node")]));
    let dataplane = start(&lab, changes);
    for _ in 0..4 {
        assert_eq!(tcp(&lab.pods[2], cluster_ip(false)).unwrap().server, "p1");
    }
    apply(&dataplane, slices_on("web", &[(0, "elsewhere")]));
    assert!(is_refused(&tcp(&lab.pods[2], cluster_ip(false))));
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn connections_take_turns() {
    let lab = Lab::new();
    (0..3).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let _dataplane = start(&lab, web(json!({}), &[0, 1, 2]));
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    lab.outside.run(|| {
        for _ in 0..30 {
            *seen.entry(tcp_here(cluster_ip(false)).unwrap().server).or_default() += 1;
        }
    });
    assert_eq!(seen.into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn a_client_with_affinity_stays_and_is_let_go_when_it_is_switched_off() {
    let lab = Lab::new();
    (0..3).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let sticky = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 120}}});
    let dataplane = start(&lab, web(sticky, &[0, 1, 2]));
    let asked = |lab: &Lab| -> BTreeMap<String, usize> {
        lab.outside.run(|| {
            let mut seen = BTreeMap::new();
            (0..15).for_each(|_| *seen.entry(tcp_here(cluster_ip(false)).unwrap().server).or_default() += 1);
            seen
        })
    };
    assert_eq!(asked(&lab).len(), 1);
    assert!(servers(&lab, "-p 120").len() == 4, "{:?}", servers(&lab, ""));
    // The endpoint that it stayed with goes: so does the client.
    let kept = asked(&lab).into_keys().next().unwrap();
    let others: Vec<usize> = (0..3).filter(|pod| format!("p{pod}") != kept).collect();
    apply(&dataplane, slices("web", &others));
    let moved = asked(&lab);
    assert!(moved.len() == 1 && !moved.contains_key(&kept), "{moved:?}");
    apply(&dataplane, web(json!({}), &[0, 1, 2]));
    assert_eq!(asked(&lab).len(), 3);
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn source_ranges_bind_the_load_balancers_address() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let slice = slice("web", false, &[(pod_ip(1, false), "node")], TARGET_PORT);
    let ranges = |list: Value| balancer(json!({"loadBalancerSourceRanges": list}));
    let dataplane = start(&lab, [ranges(json!(["192.0.2.2/32"])), slice]);
    let to: SocketAddr = (BALANCER.parse::<IpAddr>().unwrap(), 80).into();
    assert_eq!(tcp(&lab.outside, to).unwrap().server, "p1");
    assert!(is_silence(&tcp(&lab.pods[0], to)), "a pod is not in the range");
    assert!(is_silence(&tcp(&lab.node, to)), "nor is this node");
    assert_eq!(tcp(&lab.pods[0], cluster_ip(false)).unwrap().server, "p1", "the cluster IP is not concerned");
    // One that lets this node in.
    apply(&dataplane, [ranges(json!(["192.0.2.1/32", "10.1.0.0/16"]))]);
    assert!(is_silence(&tcp(&lab.outside, to)));
    assert_eq!(tcp(&lab.pods[0], to).unwrap().server, "p1");
    assert_eq!(tcp(&lab.node, to).unwrap().server, "p1");
    assert_eq!(members(&lab, "KUBE-LOAD-BALANCER-SOURCE-IP"), ["203.0.113.7,tcp:80,203.0.113.7"]);
    apply(&dataplane, [ranges(json!(["0.0.0.0/0"]))]);
    assert_eq!(tcp(&lab.outside, to).unwrap().server, "p1");
    assert!(!rules(&lab, false).contains("KUBE-LOAD-BALANCER-FW"));
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn an_external_address_answers_though_no_link_has_it() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let spec = json!({"clusterIPs": ["10.96.0.10"], "ipFamilies": ["IPv4"], "externalIPs": [EXTERNAL]});
    let mut changes = web(spec, &[1]);
    let dataplane = start(&lab, changes.clone());
    let to: SocketAddr = (EXTERNAL.parse::<IpAddr>().unwrap(), 80).into();
    for (who, from) in [("pod", &lab.pods[0]), ("node", &lab.node), ("outside", &lab.outside)] {
        for answer in both(from, to) {
            assert_eq!(answer.unwrap().seen_client.to_string(), bridge(false), "{who} is masked");
        }
    }
    // With the policy Local, the outside keeps its address.
    changes[0] = web(
        json!({"clusterIPs": ["10.96.0.10"], "ipFamilies": ["IPv4"], "externalIPs": [EXTERNAL],
        "externalTrafficPolicy": "Local"}),
        &[],
    )
    .remove(0);
    apply(&dataplane, changes);
    assert_eq!(tcp(&lab.outside, to).unwrap().seen_client.to_string(), outside(false));
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn a_udp_flow_moves_when_its_endpoint_goes() {
    let lab = Lab::new();
    (0..2).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let dataplane = start(&lab, web(json!({}), &[0]));
    for v6 in FAMILIES {
        apply(&dataplane, slices("web", &[0]));
        let any = if v6 { "[::]:0" } else { "0.0.0.0:0" }.parse().unwrap();
        let socket = lab.outside.run(|| connected(any, cluster_ip(v6)).unwrap());
        assert_eq!(ask(&socket).unwrap().server, "p0");
        apply(&dataplane, slices("web", &[1]));
        eventually("the flow has moved", || ask(&socket).is_ok_and(|answer| answer.server == "p1"));
    }
}
