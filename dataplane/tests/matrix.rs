//! Who answers whom, and which source the server sees: every policy, destination, client, family and protocol, in every
//! mode that this kernel has. (IPVS has its own, with its exceptions, in the tests on other kernels.)

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lab::objects::{NODE_PORT, PORT, TARGET_PORT, node_port, pod_ip, slices_on, vip};
use lab::traffic::{both, serve};
use lab::{Lab, NODE_V4, NODE_V6, apply};
use longshore_dataplane::{Change, Config, Dataplane, IptablesConfig, Mode};
use serde_json::json;

/// By version of IP: not any node's.
const EXTERNAL_IPS: [&str; 2] = ["198.51.100.7", "fd00:100::7"];
const BALANCER_IPS: [&str; 2] = ["198.51.100.1", "fd00:100::1"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Pod,
    Node,
    Outside,
}

/// What is to be seen: the endpoint of this node alone, and the client's own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected {
    only_local: bool,
    source_kept: bool,
}

/// The table of Kubernetes' traffic policies.
fn expected(client: Client, internal: bool, policy: &str) -> Expected {
    let local = policy == "Local";
    match (internal, local) {
        // Towards a cluster IP, the policy chooses endpoints alone; all but pods are masked.
        (true, _) => Expected { only_local: local, source_kept: client == Client::Pod },
        (false, false) => Expected { only_local: false, source_kept: false },
        // Pods and the node itself are spared the policy.
        (false, true) => Expected { only_local: client == Client::Outside, source_kept: client != Client::Node },
    }
}

fn balanced(internal: &str, external: &str) -> Change {
    let object = json!({"metadata": {"name": "web", "namespace": "ns1"},
        "spec": {"type": "LoadBalancer", "clusterIP": vip(false), "clusterIPs": [vip(false), vip(true)],
            "ipFamilies": ["IPv4", "IPv6"], "externalIPs": EXTERNAL_IPS, "ports": node_port()["ports"],
            "internalTrafficPolicy": internal, "externalTrafficPolicy": external},
        "status": {"loadBalancer": {"ingress": BALANCER_IPS.map(|ip| json!({"ip": ip}))}}});
    Change::SetService(Arc::new(serde_json::from_value(object).unwrap()))
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn own_ip(client: Client, v6: bool) -> IpAddr {
    let text = match (client, v6) {
        (Client::Pod, _) => pod_ip(0, v6),
        // The node's nearest address to its pods is the bridge's.
        (Client::Node, false) => "10.1.0.1".into(),
        (Client::Node, true) => "fd00:1::1".into(),
        (Client::Outside, false) => "192.0.2.2".into(),
        (Client::Outside, true) => "fd00:2::2".into(),
    };
    text.parse().unwrap()
}

fn answers_follow_the_table(mode: &Mode) {
    let lab = Lab::new();
    (1..3).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let dataplane = Dataplane::start(Config { mode: mode.clone(), ..lab.config() }).unwrap();
    let slices = slices_on("web", &[(1, "node"), (2, "elsewhere")]);
    apply(&dataplane, slices.into_iter().chain([Change::Synced]));
    for (internal, external) in [("Cluster", "Cluster"), ("Local", "Cluster"), ("Cluster", "Local"), ("Local", "Local")] {
        apply(&dataplane, [balanced(internal, external)]);
        for v6 in [false, true] {
            let index = usize::from(v6);
            let node = if v6 { NODE_V6 } else { NODE_V4 };
            let destinations = [
                (SocketAddr::new(vip(v6), PORT), true),
                (at(node, NODE_PORT), false),
                (at(EXTERNAL_IPS[index], PORT), false),
                (at(BALANCER_IPS[index], PORT), false),
            ];
            for (to, is_internal) in destinations {
                for (client, from) in [(Client::Pod, &lab.pods[0]), (Client::Node, &lab.node), (Client::Outside, &lab.outside)] {
                    let policy = if is_internal { internal } else { external };
                    let want = expected(client, is_internal, policy);
                    let what = format!("{}: internal {internal}, external {external}: {client:?} to {to}: {want:?}", mode.name());
                    // Chance may hide an endpoint that must not answer, but not often.
                    for answer in (0..2).flat_map(|_| both(from, to)) {
                        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
                        assert!(answer.server == "p1" || (answer.server == "p2" && !want.only_local), "{what}: {answer:?}");
                        let masked = own_ip(Client::Node, v6);
                        let seen = if want.source_kept { own_ip(client, v6) } else { masked };
                        assert_eq!(answer.seen_client, seen, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn nftables_follows_the_table_of_policies() {
    answers_follow_the_table(&Mode::Nftables);
}

#[test]
fn iptables_follows_the_table_of_policies() {
    answers_follow_the_table(&Mode::Iptables(IptablesConfig::default()));
}
