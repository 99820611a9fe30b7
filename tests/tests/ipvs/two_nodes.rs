//! Two nodes, each with IPVS, and one service with endpoints on both.

use super::super::lab::cluster::{Cluster, cluster_ip, endpoints, service};
use super::super::lab::traffic::{is_refused, tcp};
use longshore_dataplane::config::{IpvsConfig, Mode};
use serde_json::{Value, json};

fn cluster() -> Cluster {
    Cluster::new(&Mode::Ipvs(IpvsConfig::default()))
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn external_policy_cluster_reaches_the_endpoints_of_both_nodes_by_either() {
    let cluster = cluster();
    cluster.external_policy_cluster_reaches_the_endpoints_of_both_nodes_by_either();
    assert_eq!(cluster.serves_pods(), ["b", "b"]);
    cluster.apply(&[endpoints(&[0, 1], |_| Value::Null)]);
    assert_eq!(cluster.serves_pods(), ["ab", "ab"]);
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn policies_of_local_stay_on_the_node_and_keep_the_clients_address() {
    let cluster = cluster();
    cluster.external_policy_local_stays_on_the_node_and_keeps_the_clients_address();
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
    cluster().hints_keep_traffic_in_the_zone_or_on_the_node_while_all_endpoints_have_them();
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn a_node_without_an_endpoint_of_its_own_serves_what_is_inside_alone() {
    cluster().external_policy_local_is_silent_without_an_endpoint();
}
