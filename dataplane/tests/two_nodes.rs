//! Two nodes, a data plane on each, and one service with endpoints on both; a host outside, and real packets.
//!
//! ```text
//!   pod a 10.1.1.11 ── NODE a 192.0.2.1 ──┐
//!                                      switch ── OUTSIDE 192.0.2.2
//!   pod b 10.1.2.11 ── NODE b 192.0.2.3 ──┘
//! ```

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lab::objects::{NODE_PORT, PORT, TARGET_PORT, VIP_V4};
use lab::traffic::{Answer, both, is_silence, serve, tcp};
use lab::{Namespace, apply};
use longshore_dataplane::{Change, Cidr, Config, Dataplane, DetectLocal, Family, IptablesConfig, Mode};
use serde_json::{Value, json};

/// So many connections miss one of two endpoints once in a thousand million times.
const ENOUGH: usize = 30;
const NODES: [(&str, &str, &str); 2] = [("a", "192.0.2.1", "10.1.1"), ("b", "192.0.2.3", "10.1.2")];

/// A node with its pod.
struct Node {
    node: Namespace,
    pod: Namespace,
    dataplane: Dataplane,
}

struct Cluster {
    nodes: [Node; 2],
    outside: Namespace,
    _switch: Namespace,
}

fn plug(switch: &Namespace, host: &Namespace, port: &str, ip: &str) {
    switch.ip(&format!("link add {port} type veth peer name eth0 netns {}\nlink set {port} master lan up", host.path().display()));
    host.ip(&format!("link set eth0 up\naddress add {ip}/24 dev eth0"));
}

impl Cluster {
    fn new(mode: &Mode) -> Cluster {
        let (switch, outside) = (Namespace::new(), Namespace::new());
        switch.ip("link add lan type bridge forward_delay 0\nlink set lan up");
        // What passes the switch is not its own to track.
        switch.sysctl("bridge/bridge-nf-call-iptables", "0");
        plug(&switch, &outside, "outside", "192.0.2.2");
        let nodes = NODES.map(|(name, ip, range)| {
            let (node, pod) = (Namespace::new(), Namespace::new());
            plug(&switch, &node, &format!("node-{name}"), ip);
            node.sysctl("ipv4/ip_forward", "1");
            node.ip(&format!(
                "link add pod type veth peer name eth0 netns {}\nlink set pod up\naddress add {range}.1/24 dev pod",
                pod.path().display()
            ));
            pod.ip(&format!("link set eth0 up\naddress add {range}.11/24 dev eth0\nroute add default via {range}.1"));
            let config = Config {
                mode: mode.clone(),
                node_name: name.into(),
                node_ips: vec![ip.parse().unwrap()],
                families: vec![Family::V4],
                detect_local: DetectLocal::ClusterCidr(vec![Cidr::parse("10.1.0.0/16").unwrap()]),
                netns: Some(node.path()),
                ..Config::default()
            };
            let dataplane = Dataplane::start(config).unwrap();
            apply(&dataplane, [node_object(name, ip), Change::Synced]);
            serve(&pod, name, TARGET_PORT);
            Node { node, pod, dataplane }
        });
        nodes[0].node.ip("route add 10.1.2.0/24 via 192.0.2.3\nroute add default via 192.0.2.2");
        nodes[1].node.ip("route add 10.1.1.0/24 via 192.0.2.1\nroute add default via 192.0.2.2");
        Cluster { nodes, outside, _switch: switch }
    }

    fn apply(&self, changes: &[Change]) {
        self.nodes.iter().for_each(|node| apply(&node.dataplane, changes.iter().cloned()));
    }

    /// All that servers said to the outside host at a node's port.
    fn heard_outside(&self, node: usize) -> BTreeSet<(String, IpAddr)> {
        heard(&self.outside, SocketAddr::new(NODES[node].1.parse().unwrap(), NODE_PORT))
    }

    /// Who serves the pod of each node.
    fn serves_pods(&self) -> [String; 2] {
        self.nodes.each_ref().map(|node| {
            let heard = heard(&node.pod, SocketAddr::new(VIP_V4.parse().unwrap(), PORT));
            heard.into_iter().map(|(server, _)| server).collect()
        })
    }
}

/// Servers, and the client's address as they saw it, over many flows of each protocol.
fn heard(from: &Namespace, to: SocketAddr) -> BTreeSet<(String, IpAddr)> {
    let answers = (0..ENOUGH).flat_map(|_| both(from, to)).map(|answer| answer.unwrap());
    answers.map(|Answer { server, seen_client }| (server, seen_client)).collect()
}

fn node_object(name: &str, ip: &str) -> Change {
    let labels = json!({"topology.kubernetes.io/zone": format!("zone-{name}"), "kubernetes.io/hostname": name});
    let status = json!({"addresses": [{"type": "InternalIP", "address": ip}]});
    Change::SetNode(Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "status": status})).unwrap()))
}

/// The service, of IPv4 alone.
fn service(extra: Value) -> Change {
    let mut spec = json!({"clusterIPs": [VIP_V4], "ipFamilies": ["IPv4"]});
    for more in [lab::objects::node_port(), extra] {
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }
    lab::objects::service("web", spec)
}

/// Endpoints on these nodes, with hints.
fn endpoints(nodes: &[usize], hints: impl Fn(&str) -> Value) -> Change {
    let endpoints: Vec<Value> = nodes
        .iter()
        .map(|node| {
            let (name, _, range) = NODES[*node];
            json!({"addresses": [format!("{range}.11")], "nodeName": name, "zone": format!("zone-{name}"), "hints": hints(name)})
        })
        .collect();
    let ports = [("t", "TCP"), ("u", "UDP")].map(|(name, protocol)| json!({"name": name, "port": TARGET_PORT, "protocol": protocol}));
    let object = json!({"metadata": {"name": "web-1", "namespace": "ns1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
    Change::SetSlice(Arc::new(serde_json::from_value(object).unwrap()))
}

fn in_every_mode(test: impl Fn(&Cluster)) {
    for mode in [Mode::Nftables, Mode::Iptables(IptablesConfig::default())] {
        println!("{}", mode.name());
        test(&Cluster::new(&mode));
    }
}

fn set(expected: &[(&str, &str)]) -> BTreeSet<(String, IpAddr)> {
    expected.iter().map(|(server, client)| ((*server).into(), client.parse().unwrap())).collect()
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
