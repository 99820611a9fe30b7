//! Two nodes, each with IPVS, and one service with endpoints on both.

use super::super::lab::cluster::{Cluster, NODES, cluster_ip, endpoints, service, set};
use super::super::lab::objects::NODE_PORT;
use super::super::lab::traffic::{is_refused, is_silence, tcp};
use longshore_dataplane::config::{IpvsConfig, Mode};
use serde_json::{Value, json};
use std::net::SocketAddr;

fn cluster() -> Cluster {
    Cluster::new(&Mode::Ipvs(IpvsConfig::default()))
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn external_policy_cluster_reaches_the_endpoints_of_both_nodes_by_either() {
    let cluster = cluster();
    cluster.apply(&[service(json!({})), endpoints(&[0, 1], |_| Value::Null)]);
    // The node stands in for the client, at its address on the way to the pod.
    assert_eq!(cluster.heard_outside(0), set(&[("a", "10.1.1.1"), ("b", "192.0.2.1")]));
    assert_eq!(cluster.heard_outside(1), set(&[("a", "192.0.2.3"), ("b", "10.1.2.1")]));
    assert_eq!(cluster.serves_pods(), ["ab", "ab"]);
    cluster.apply(&[endpoints(&[1], |_| Value::Null)]);
    assert_eq!(cluster.heard_outside(0), set(&[("b", "192.0.2.1")]));
    assert_eq!(cluster.serves_pods(), ["b", "b"]);
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn policies_of_local_stay_on_the_node_and_keep_the_clients_address() {
    let cluster = cluster();
    cluster.apply(&[service(json!({"externalTrafficPolicy": "Local"})), endpoints(&[0, 1], |_| Value::Null)]);
    assert_eq!(cluster.heard_outside(0), set(&[("a", "192.0.2.2")]));
    assert_eq!(cluster.heard_outside(1), set(&[("b", "192.0.2.2")]));
    cluster.apply(&[service(json!({"internalTrafficPolicy": "Local"}))]);
    assert_eq!(cluster.serves_pods(), ["a", "b"]);
    cluster.apply(&[endpoints(&[0], |_| Value::Null)]);
    assert_eq!(cluster.nodes[0].who_serves(), "a");
    let refused = tcp(&cluster.nodes[1].pod, cluster_ip());
    assert!(is_refused(&refused), "{refused:?}");
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn hints_keep_traffic_in_the_zone_or_on_the_node_while_all_endpoints_have_them() {
    let cluster = cluster();
    let near = |name: &str| json!({"forZones": [{"name": format!("zone-{name}")}]});
    cluster.apply(&[service(json!({"trafficDistribution": "PreferSameZone"})), endpoints(&[0, 1], near)]);
    assert_eq!(cluster.serves_pods(), ["a", "b"]);
    let one = |name: &str| if name == "a" { near(name) } else { Value::Null };
    cluster.apply(&[endpoints(&[0, 1], one)]);
    assert_eq!(cluster.serves_pods(), ["ab", "ab"]);
    let own = |name: &str| json!({"forNodes": [{"name": name}], "forZones": [{"name": format!("zone-{name}")}]});
    cluster.apply(&[service(json!({"trafficDistribution": "PreferSameNode"})), endpoints(&[0, 1], own)]);
    assert_eq!(cluster.serves_pods(), ["a", "b"]);
    cluster.apply(&[endpoints(&[1], own)]);
    assert_eq!(cluster.serves_pods(), ["b", "b"]);
}

/// Where IPVS differs: what comes from outside is sent on to the other node, unmasked, and answered from there.
#[test]
#[ignore = "runs inside User-mode Linux"]
fn a_node_without_an_endpoint_of_its_own_serves_what_is_inside_alone() {
    let cluster = cluster();
    cluster.apply(&[service(json!({"externalTrafficPolicy": "Local"})), endpoints(&[0], |_| Value::Null)]);
    assert_eq!(cluster.heard_outside(0), set(&[("a", "192.0.2.2")]));
    let by_b = tcp(&cluster.outside, SocketAddr::new(NODES[1].1.parse().unwrap(), NODE_PORT));
    assert!(is_silence(&by_b), "the answer comes from an address that the client did not ask: {by_b:?}");
    assert_eq!(cluster.serves_pods(), ["a", "a"]);
}
