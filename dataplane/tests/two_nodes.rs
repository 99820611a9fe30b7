//! Two nodes, a data plane on each, and one service with endpoints on both; a host outside, and real packets. (With
//! ipvs: in the tests on other kernels.)

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use lab::cluster::Cluster;
use longshore_dataplane::{IptablesConfig, Mode};

fn in_every_mode(test: impl Fn(&Cluster)) {
    for mode in [Mode::Nftables, Mode::Iptables(IptablesConfig::default())] {
        println!("{}", mode.name());
        test(&Cluster::new(&mode));
    }
}

#[test]
fn external_policy_cluster_reaches_the_endpoints_of_both_nodes_by_either() {
    in_every_mode(Cluster::external_policy_cluster_reaches_the_endpoints_of_both_nodes_by_either);
}

#[test]
fn external_policy_local_stays_on_the_node_and_keeps_the_clients_address() {
    in_every_mode(|cluster| {
        cluster.external_policy_local_stays_on_the_node_and_keeps_the_clients_address();
        cluster.external_policy_local_is_silent_without_an_endpoint();
    });
}

#[test]
fn hints_keep_traffic_in_the_zone_or_on_the_node_while_all_endpoints_have_them() {
    in_every_mode(Cluster::hints_keep_traffic_in_the_zone_or_on_the_node_while_all_endpoints_have_them);
}

#[test]
fn services_should_preserve_source_pod_ip_across_nodes_and_pods_reach_pods_without_snat() {
    in_every_mode(Cluster::services_preserve_the_source_pod_ip_and_pods_reach_pods_without_snat);
}

#[test]
fn services_should_respect_internaltrafficpolicy_local_pod_and_node_to_pod_and_to_pod_of_the_host_network() {
    in_every_mode(Cluster::internal_policy_local_is_for_the_node_with_the_endpoint_alone);
}
