//! The whole rule set of a small cluster as `nft` prints it, against a golden table. (That of iptables is in `iptables`,
//! those of IPVS and ipset in the tests on other kernels.)
//!
//! `LONGSHORE_GOLDEN=1` writes the table anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::sync::Arc;

use lab::objects::{NODE_PORT, PORT, service, slices, slices_on};
use lab::{Lab, start};
use longshore_dataplane::Change;
use serde_json::json;

/// A service of each kind.
fn cluster() -> Vec<Change> {
    let web = json!({"metadata": {"name": "web", "namespace": "ns1"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:96::10"],
            "ipFamilies": ["IPv4", "IPv6"], "externalIPs": ["198.51.100.7", "fd00:100::7"],
            "ports": [{"name": "t", "port": PORT, "nodePort": NODE_PORT}, {"name": "u", "port": PORT, "protocol": "UDP", "nodePort": NODE_PORT}],
            "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
            "loadBalancerSourceRanges": ["10.1.0.0/16", "192.0.2.0/24", "fd00:1::/64"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}, {"ip": "fd00:100::1"}]}}});
    let single = |ip: &str, more: serde_json::Value| {
        let mut spec = json!({"clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let sticky = json!({"sessionAffinity": "ClientIP", "ports": [{"name": "t", "port": 443}]});
    let empty = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30081}]});
    let inside = json!({"internalTrafficPolicy": "Local", "ports": [{"name": "s", "port": 99, "protocol": "SCTP"}]});
    let mut changes = vec![
        Change::SetService(Arc::new(serde_json::from_value(web).unwrap())),
        service("sticky", single("10.96.0.12", sticky)),
        service("empty", single("10.96.0.11", empty)),
        service("inside", single("10.96.0.13", inside)),
    ];
    changes.extend(slices_on("web", &[(0, "node"), (1, "elsewhere"), (2, "elsewhere")]));
    changes.extend(slices("sticky", &[0, 1]));
    let cidrs = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16", "fd00:96::/112"]}});
    changes.push(Change::SetServiceCidr(Arc::new(serde_json::from_value(cidrs).unwrap())));
    changes
}

/// Elements stand in the order of the kernel's hash: here, sorted and one a line.
fn in_order(listed: &str) -> String {
    let mut text = String::new();
    let mut rest = listed;
    while let Some((before, elements)) = rest.split_once("elements = { ") {
        let (elements, after) = elements.split_once(" }").unwrap();
        let mut elements: Vec<&str> = elements.split(',').map(str::trim).collect();
        elements.sort_unstable();
        let lines: String = elements.iter().map(|element| format!("\t\t\t{element}\n")).collect();
        text += &format!("{before}elements = {{\n{lines}\t\t}}");
        rest = after;
    }
    text + rest
}

#[test]
fn nft_prints_the_golden_table() {
    let lab = Lab::new();
    let _dataplane = start(&lab, cluster());
    let found = in_order(&lab.nft("list ruleset"));
    if std::env::var_os("LONGSHORE_GOLDEN").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/nft.txt"), &found).unwrap();
        return;
    }
    let golden = include_str!("golden/nft.txt");
    for (number, (found, golden)) in found.lines().zip(golden.lines()).enumerate() {
        assert_eq!(found, golden, "line {}", number + 1);
    }
    assert_eq!(found.lines().count(), golden.lines().count());
}
