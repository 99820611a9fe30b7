//! Two nodes, a data plane on each, and one service with endpoints on both; a host outside, and real packets. (With
//! ipvs: in the tests on other kernels.)

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::net::SocketAddr;

use lab::cluster::{Cluster, NODES, endpoints, service, set};
use lab::objects::NODE_PORT;
use lab::traffic::{is_silence, tcp};
use longshore_dataplane::{IptablesConfig, Mode};
use serde_json::{Value, json};

fn in_every_mode(test: impl Fn(&Cluster)) {
    for mode in [Mode::Nftables, Mode::Iptables(IptablesConfig::default())] {
        println!("{}", mode.name());
        test(&Cluster::new(&mode));
    }
}

#[test]
fn external_policy_cluster_reaches_the_endpoints_of_both_nodes_by_either() {
    in_every_mode(|cluster| {
        cluster.apply(&[service(json!({})), endpoints(&[0, 1], |_| Value::Null)]);
        // The node stands in for the client, at its address on the way to the pod.
        assert_eq!(cluster.heard_outside(0), set(&[("a", "10.1.1.1"), ("b", "192.0.2.1")]));
        assert_eq!(cluster.heard_outside(1), set(&[("a", "192.0.2.3"), ("b", "10.1.2.1")]));
        cluster.apply(&[endpoints(&[1], |_| Value::Null)]);
        assert_eq!(cluster.heard_outside(0), set(&[("b", "192.0.2.1")]));
    });
}

#[test]
fn external_policy_local_stays_on_the_node_and_keeps_the_clients_address() {
    in_every_mode(|cluster| {
        cluster.apply(&[service(json!({"externalTrafficPolicy": "Local"})), endpoints(&[0, 1], |_| Value::Null)]);
        assert_eq!(cluster.heard_outside(0), set(&[("a", "192.0.2.2")]));
        assert_eq!(cluster.heard_outside(1), set(&[("b", "192.0.2.2")]));
        // Without an endpoint of its own, a node drops what comes from outside, and serves what is inside as ever.
        cluster.apply(&[endpoints(&[0], |_| Value::Null)]);
        assert_eq!(cluster.heard_outside(0), set(&[("a", "192.0.2.2")]));
        let dropped = tcp(&cluster.outside, SocketAddr::new(NODES[1].1.parse().unwrap(), NODE_PORT));
        assert!(is_silence(&dropped), "{dropped:?}");
        assert_eq!(cluster.serves_pods(), ["a", "a"]);
    });
}

#[test]
fn hints_keep_traffic_in_the_zone_or_on_the_node_while_all_endpoints_have_them() {
    in_every_mode(|cluster| {
        let near = |name: &str| json!({"forZones": [{"name": format!("zone-{name}")}]});
        cluster.apply(&[service(json!({"trafficDistribution": "PreferSameZone"})), endpoints(&[0, 1], near)]);
        assert_eq!(cluster.serves_pods(), ["a", "b"]);
        let crossed = |name: &str| json!({"forZones": [{"name": if name == "a" { "zone-b" } else { "zone-a" }}]});
        cluster.apply(&[endpoints(&[0, 1], crossed)]);
        assert_eq!(cluster.serves_pods(), ["b", "a"]);
        let one = |name: &str| if name == "a" { near(name) } else { Value::Null };
        cluster.apply(&[endpoints(&[0, 1], one)]);
        assert_eq!(cluster.serves_pods(), ["ab", "ab"]);
        let own = |name: &str| json!({"forNodes": [{"name": name}], "forZones": [{"name": format!("zone-{name}")}]});
        cluster.apply(&[service(json!({"trafficDistribution": "PreferSameNode"})), endpoints(&[0, 1], own)]);
        assert_eq!(cluster.serves_pods(), ["a", "b"]);
        // A node whose own endpoint goes takes the other's, hint or none.
        cluster.apply(&[endpoints(&[1], own)]);
        assert_eq!(cluster.serves_pods(), ["b", "b"]);
    });
}
