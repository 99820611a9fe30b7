//! The ipvs backend on a kernel that has IPVS: User-mode Linux, with real packets between namespaces.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use longshore_tests::lab::Home;
use longshore_tests::lab::vm::user_mode;
use std::time::Duration;

#[path = "../../dataplane/tests/lab/mod.rs"]
mod lab;

const LIMIT: Duration = Duration::from_secs(240);

/// What the lab needs of the kernel. What the backend needs, it loads itself.
const MODULES: &str = "modprobe -a bridge veth br_netfilter ip6_tables ip6table_nat ip_tables iptable_nat";

/// Runs ignored tests of this program in User-mode Linux: those whose names begin so.
fn inside(tests: &str) {
    let home = Home::new().unwrap();
    let own = std::env::current_exe().unwrap().display().to_string();
    let script = format!("#!/bin/sh\n{MODULES}\nexec {own} {tests} --ignored --nocapture --test-threads=1");
    let report = user_mode(&home, &script, 1024, LIMIT).unwrap();
    println!("{}", report.output);
    assert!(report.status == 0 && report.output.contains("test result: ok"), "{}", report.output);
}

#[test]
fn packets_go_where_services_say() {
    inside("packets::");
}

#[cfg(test)]
mod packets {
    use super::lab::objects::{NODE_PORT, PORT, TARGET_PORT, node_port, pod_ip, service, slices, vip};
    use super::lab::traffic::{both, serve};
    use super::lab::{Lab, NODE_V4, NODE_V6, programmed};
    use longshore_dataplane::config::{IpvsConfig, Mode};
    use longshore_dataplane::{Change, Config, Dataplane};
    use serde_json::json;
    use std::net::SocketAddr;

    const FAMILIES: [bool; 2] = [false, true];

    pub fn config(lab: &Lab, ipvs: IpvsConfig) -> Config {
        Config { mode: Mode::Ipvs(ipvs), ..lab.config() }
    }

    pub fn start(lab: &Lab, changes: impl IntoIterator<Item = Change>) -> Dataplane {
        let dataplane = Dataplane::start(config(lab, IpvsConfig::default())).unwrap();
        apply(&dataplane, changes.into_iter().chain([Change::Synced]));
        dataplane
    }

    pub fn apply(dataplane: &Dataplane, changes: impl IntoIterator<Item = Change>) {
        let last = changes.into_iter().map(|change| dataplane.apply(change)).last().unwrap();
        programmed(dataplane, last);
    }

    pub fn web(extra: serde_json::Value, pods: &[usize]) -> Vec<Change> {
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
    #[ignore = "runs inside User-mode Linux"]
    fn cluster_ip_answers_pods_the_node_and_the_outside() {
        let lab = Lab::new();
        serve(&lab.pods[1], "p1", TARGET_PORT);
        let _dataplane = start(&lab, web(json!({}), &[1]));
        println!("{}", lab.node.command("ipvsadm", &["-Ln"]));
        println!("{}", lab.node.command("ipset", &["list"]));
        println!("{}", lab.node.command("iptables-legacy-save", &[]));
        println!("{}", lab.node.command("ip", &["addr"]));
        for v6 in FAMILIES {
            for (who, from) in [("pod", &lab.pods[0]), ("node", &lab.node), ("outside", &lab.outside)] {
                for answer in both(from, cluster_ip(v6)) {
                    let answer = answer.unwrap_or_else(|error| panic!("{who} v6={v6}: {error}"));
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
        let _ = (node_address(false), node_port());
    }
}
