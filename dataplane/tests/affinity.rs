//! ClientIP affinity, with packets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use lab::objects::{PORT, TARGET_PORT, node_port, service, slices, slices_on, vip};
use lab::traffic::{serve, tcp_here, udp_here};
use lab::{Lab, NODE_V4, NODE_V6, apply, eventually, start};
use longshore_dataplane::Dataplane;
use serde_json::{Value, json};

const FAMILIES: [bool; 2] = [false, true];

fn sticky(seconds: u32) -> Value {
    let mut spec = node_port();
    spec["sessionAffinity"] = "ClientIP".into();
    spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": seconds}});
    spec
}

fn lab(spec: Value) -> (Lab, Dataplane) {
    let lab = Lab::new();
    (0..3).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let mut changes = vec![service("web", spec)];
    changes.extend(slices("web", &[0, 1, 2]));
    let dataplane = start(&lab, changes);
    (lab, dataplane)
}

fn cluster_ip(v6: bool) -> SocketAddr {
    SocketAddr::new(vip(v6), PORT)
}

fn node_address(v6: bool) -> SocketAddr {
    SocketAddr::new(if v6 { NODE_V6 } else { NODE_V4 }.parse().unwrap(), lab::objects::NODE_PORT)
}

/// Who answers so many connections from the outside host.
fn servers(lab: &Lab, to: SocketAddr, times: usize) -> BTreeSet<String> {
    lab.outside.run(|| (0..times).map(|_| tcp_here(to).unwrap().server).collect())
}

#[test]
fn session_affinity_work_for_service_with_type_clusterip_and_nodeport() {
    let (lab, _dataplane) = lab(sticky(60));
    for v6 in FAMILIES {
        let first = servers(&lab, cluster_ip(v6), 15);
        assert_eq!(first.len(), 1, "{first:?}");
        // The same port of the service by another address: the same endpoint.
        assert_eq!(servers(&lab, node_address(v6), 15), first);
        // Each protocol is a service port of its own.
        let datagrams: BTreeSet<String> = lab.outside.run(|| (0..15).map(|_| udp_here(cluster_ip(v6)).unwrap().server).collect());
        assert_eq!(datagrams.len(), 1, "{datagrams:?}");
    }
    let listed = lab.nft("list ruleset");
    for part in ["set affinity-", "size 262144", "flags dynamic,timeout", "timeout 1m", "update @affinity-"] {
        assert!(listed.contains(part), "no {part} in {listed}");
    }
}

#[test]
fn switch_session_affinity_for_service_with_type_clusterip_and_nodeport() {
    let (lab, dataplane) = lab(node_port());
    for to in [cluster_ip(false), node_address(false)] {
        assert!(servers(&lab, to, 40).len() > 1, "without affinity all endpoints answer");
    }
    apply(&dataplane, [service("web", sticky(60))]);
    let first = servers(&lab, cluster_ip(false), 15);
    assert_eq!((first.len(), servers(&lab, node_address(false), 15)), (1, first));
    apply(&dataplane, [service("web", node_port())]);
    for to in [cluster_ip(false), node_address(false)] {
        assert!(servers(&lab, to, 40).len() > 1, "affinity ends");
    }
    let listed = lab.nft("list table ip kube-proxy");
    assert!(!listed.contains("affinity-"), "{listed}");
}

#[test]
fn session_affinity_timeout_works_for_clusterip_and_nodeport() {
    let (lab, _dataplane) = lab(sticky(1));
    let set_is_empty = || !lab.nft("list table ip kube-proxy").contains("expires");
    for to in [cluster_ip(false), node_address(false)] {
        let first = servers(&lab, to, 3);
        assert_eq!(first.len(), 1);
        // Each time anew: sooner or later another endpoint is drawn.
        eventually("another endpoint answers", || {
            eventually("the kernel forgets the client", set_is_empty);
            servers(&lab, to, 1) != first
        });
    }
}

#[test]
fn clients_stay_with_their_endpoint_over_changes_and_restarts_until_it_goes() {
    let (lab, dataplane) = lab(sticky(60));
    let first = servers(&lab, cluster_ip(false), 3);
    let index: usize = first.first().unwrap()[1..].parse().unwrap();
    let others: Vec<usize> = (0..3).filter(|pod| *pod != index).collect();
    // Another endpoint goes, and comes back.
    apply(&dataplane, slices("web", &[index.min(others[0]), index.max(others[0])]));
    assert_eq!(servers(&lab, cluster_ip(false), 15), first);
    apply(&dataplane, slices("web", &[0, 1, 2]));
    assert_eq!(servers(&lab, cluster_ip(false), 15), first);
    drop(dataplane);
    let mut changes = vec![service("web", sticky(60))];
    changes.extend(slices("web", &[0, 1, 2]));
    let dataplane = start(&lab, changes);
    assert_eq!(dataplane.status().counters.kernel_writes, 0, "adopted");
    assert_eq!(servers(&lab, cluster_ip(false), 15), first);
    apply(&dataplane, slices("web", &others));
    let second = servers(&lab, cluster_ip(false), 15);
    assert!(second.len() == 1 && second != first, "{second:?}");
    // Another time: the clients begin anew, the connections do not fail.
    apply(&dataplane, [service("web", sticky(30))]);
    assert_eq!(servers(&lab, cluster_ip(false), 15).len(), 1);
    apply(&dataplane, slices("web", &[]));
    apply(&dataplane, slices("web", &[0, 1, 2]));
    assert_eq!(servers(&lab, cluster_ip(false), 15).len(), 1);
}

#[test]
fn affinity_under_local_policies_keeps_to_this_nodes_endpoints() {
    let mut spec = sticky(60);
    spec["externalTrafficPolicy"] = "Local".into();
    let (lab, dataplane) = lab(spec.clone());
    let pods = [(0, "elsewhere"), (1, "node"), (2, "node")];
    apply(&dataplane, slices_on("web", &pods));
    let first = servers(&lab, node_address(false), 15);
    assert!(first.len() == 1 && !first.contains("p0"), "{first:?}");
    let seen = lab.outside.run(|| tcp_here(node_address(false)).unwrap().seen_client);
    assert_eq!(seen.to_string(), "192.0.2.2", "the source is kept");
    spec["internalTrafficPolicy"] = "Local".into();
    apply(&dataplane, [service("web", spec)]);
    let inside: BTreeSet<String> = lab.node.run(|| (0..15).map(|_| tcp_here(cluster_ip(false)).unwrap().server).collect());
    assert!(inside.len() == 1 && !inside.contains("p0"), "{inside:?}");
}
