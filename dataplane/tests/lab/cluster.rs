//! Two nodes, a data plane on each, and one service with endpoints on both; a host outside.
//!
//! ```text
//!   pod a 10.1.1.11 ── NODE a 192.0.2.1 ──┐
//!                                      switch ── OUTSIDE 192.0.2.2
//!   pod b 10.1.2.11 ── NODE b 192.0.2.3 ──┘
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use longshore_dataplane::{Change, Cidr, Config, Dataplane, DetectLocal, Family, Mode};
use serde_json::{Value, json};

use super::objects::{NODE_PORT, PORT, TARGET_PORT, VIP_V4, node_port};
use super::traffic::{Answer, ask, connected, is_silence, serve, tcp, tcp_here, udp};
use super::{Namespace, apply};

/// So many connections miss one of two endpoints once in a thousand million times.
const ENOUGH: usize = 30;
pub const NODES: [(&str, &str, &str); 2] = [("a", "192.0.2.1", "10.1.1"), ("b", "192.0.2.3", "10.1.2")];

/// A node with its pod.
pub struct Node {
    pub node: Namespace,
    pub pod: Namespace,
    pub dataplane: Dataplane,
}

pub struct Cluster {
    pub nodes: [Node; 2],
    pub outside: Namespace,
    _switch: Namespace,
}

fn plug(switch: &Namespace, host: &Namespace, port: &str, ip: &str) {
    switch.ip(&format!("link add {port} type veth peer name eth0 netns {}\nlink set {port} master lan up", host.path().display()));
    host.ip(&format!("link set eth0 up\naddress add {ip}/24 dev eth0"));
}

impl Node {
    /// Who serves its pod by the cluster IP, one after the other.
    pub fn who_serves(&self) -> String {
        heard(&self.pod, cluster_ip()).into_iter().map(|(server, _)| server).collect()
    }
}

impl Cluster {
    pub fn new(mode: &Mode) -> Cluster {
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

    pub fn apply(&self, changes: &[Change]) {
        self.nodes.iter().for_each(|node| apply(&node.dataplane, changes.iter().cloned()));
    }

    /// All that servers said to the outside host at a node's port.
    pub fn heard_outside(&self, node: usize) -> BTreeSet<(String, IpAddr)> {
        heard(&self.outside, SocketAddr::new(NODES[node].1.parse().unwrap(), NODE_PORT))
    }

    /// Who serves the pod of each node.
    pub fn serves_pods(&self) -> [String; 2] {
        self.nodes.each_ref().map(Node::who_serves)
    }
}

/// What holds in every mode.
impl Cluster {
    pub fn external_policy_cluster_reaches_the_endpoints_of_both_nodes_by_either(&self) {
        self.apply(&[service(json!({})), endpoints(&[0, 1], |_| Value::Null)]);
        // The node stands in for the client, at its address on the way to the pod.
        assert_eq!(self.heard_outside(0), set(&[("a", "10.1.1.1"), ("b", "192.0.2.1")]));
        assert_eq!(self.heard_outside(1), set(&[("a", "192.0.2.3"), ("b", "10.1.2.1")]));
        self.apply(&[endpoints(&[1], |_| Value::Null)]);
        assert_eq!(self.heard_outside(0), set(&[("b", "192.0.2.1")]));
    }

    pub fn services_preserve_the_source_pod_ip_and_pods_reach_pods_without_snat(&self) {
        for serving in [0, 1] {
            self.apply(&[service(json!({})), endpoints(&[serving], |_| Value::Null)]);
            for (index, (node, (.., range))) in self.nodes.iter().zip(NODES).enumerate() {
                // A pod that reaches itself is masked, or it would answer itself past the translation.
                let own = if index == serving { format!("{range}.1") } else { format!("{range}.11") };
                assert_eq!(heard(&node.pod, cluster_ip()), set(&[(NODES[serving].0, &own)]));
            }
            let (from, to) = (1 - serving, SocketAddr::new(format!("{}.11", NODES[serving].2).parse().unwrap(), TARGET_PORT));
            assert_eq!(heard(&self.nodes[from].pod, to), set(&[(NODES[serving].0, &format!("{}.11", NODES[from].2))]));
        }
    }

    /// Pods and pods of the host's network, as clients and as endpoints; the endpoint is on node a.
    pub fn internal_policy_local_is_for_the_node_with_the_endpoint_alone(&self) {
        serve(&self.nodes[0].node, "host-a", TARGET_PORT);
        let on_host = endpoints_at(&[(NODES[0].1.to_string(), 0)], |_| Value::Null);
        for (slice, server) in [(endpoints(&[0], |_| Value::Null), "a"), (on_host, "host-a")] {
            self.apply(&[service(json!({"internalTrafficPolicy": "Local"})), slice]);
            for from in [&self.nodes[0].pod, &self.nodes[0].node] {
                assert_eq!(tcp(from, cluster_ip()).unwrap().server, server);
            }
            for from in [&self.nodes[1].pod, &self.nodes[1].node] {
                assert!(tcp(from, cluster_ip()).is_err() && udp(from, cluster_ip()).is_err());
            }
        }
    }

    pub fn external_policy_local_stays_on_the_node_and_keeps_the_clients_address(&self) {
        self.apply(&[service(json!({"externalTrafficPolicy": "Local"})), endpoints(&[0, 1], |_| Value::Null)]);
        assert_eq!(self.heard_outside(0), set(&[("a", "192.0.2.2")]));
        assert_eq!(self.heard_outside(1), set(&[("b", "192.0.2.2")]));
    }

    /// Without an endpoint of its own, a node answers nothing from outside, and serves what is inside as ever. (Most drop
    /// it; with ipvs it is sent on unmasked, and the answer comes from an address that the client did not ask.)
    pub fn external_policy_local_is_silent_without_an_endpoint(&self) {
        self.apply(&[service(json!({"externalTrafficPolicy": "Local"})), endpoints(&[0], |_| Value::Null)]);
        assert_eq!(self.heard_outside(0), set(&[("a", "192.0.2.2")]));
        let by_b = tcp(&self.outside, SocketAddr::new(NODES[1].1.parse().unwrap(), NODE_PORT));
        assert!(is_silence(&by_b), "{by_b:?}");
        assert_eq!(self.serves_pods(), ["a", "a"]);
    }

    pub fn hints_keep_traffic_in_the_zone_or_on_the_node_while_all_endpoints_have_them(&self) {
        let near = |name: &str| json!({"forZones": [{"name": format!("zone-{name}")}]});
        self.apply(&[service(json!({"trafficDistribution": "PreferSameZone"})), endpoints(&[0, 1], near)]);
        assert_eq!(self.serves_pods(), ["a", "b"]);
        let crossed = |name: &str| json!({"forZones": [{"name": if name == "a" { "zone-b" } else { "zone-a" }}]});
        self.apply(&[endpoints(&[0, 1], crossed)]);
        assert_eq!(self.serves_pods(), ["b", "a"]);
        let one = |name: &str| if name == "a" { near(name) } else { Value::Null };
        self.apply(&[endpoints(&[0, 1], one)]);
        assert_eq!(self.serves_pods(), ["ab", "ab"]);
        let own = |name: &str| json!({"forNodes": [{"name": name}], "forZones": [{"name": format!("zone-{name}")}]});
        self.apply(&[service(json!({"trafficDistribution": "PreferSameNode"})), endpoints(&[0, 1], own)]);
        assert_eq!(self.serves_pods(), ["a", "b"]);
        // A node whose own endpoint goes takes the other's, hint or none.
        self.apply(&[endpoints(&[1], own)]);
        assert_eq!(self.serves_pods(), ["b", "b"]);
    }
}

pub fn cluster_ip() -> SocketAddr {
    SocketAddr::new(VIP_V4.parse().unwrap(), PORT)
}

/// Servers, and the client's address as they saw it, over many flows of each protocol. Datagrams come from a port that
/// none came from before: a flow stays with its endpoint as long as that serves, whatever policies say by then.
fn heard(from: &Namespace, to: SocketAddr) -> BTreeSet<(String, IpAddr)> {
    static LAST_PORT: AtomicU16 = AtomicU16::new(20_000);
    let ask = |_| {
        let from = SocketAddr::from(([0, 0, 0, 0], LAST_PORT.fetch_add(1, Ordering::Relaxed)));
        [tcp_here(to), connected(from, to).and_then(|socket| ask(&socket))]
    };
    let answers = from.run(|| (0..ENOUGH).flat_map(ask).map(|answer| answer.unwrap()).collect::<Vec<_>>());
    answers.into_iter().map(|Answer { server, seen_client }| (server, seen_client)).collect()
}

fn node_object(name: &str, ip: &str) -> Change {
    let labels = json!({"topology.kubernetes.io/zone": format!("zone-{name}"), "kubernetes.io/hostname": name});
    let status = json!({"addresses": [{"type": "InternalIP", "address": ip}]});
    Change::SetNode(Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "status": status})).unwrap()))
}

/// The service, of IPv4 alone.
pub fn service(extra: Value) -> Change {
    let mut spec = json!({"clusterIPs": [VIP_V4], "ipFamilies": ["IPv4"]});
    for more in [node_port(), extra] {
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }
    super::objects::service("web", spec)
}

/// The pods of these nodes, with hints.
pub fn endpoints(nodes: &[usize], hints: impl Fn(&str) -> Value) -> Change {
    endpoints_at(&nodes.iter().map(|node| (format!("{}.11", NODES[*node].2), *node)).collect::<Vec<_>>(), hints)
}

/// Endpoints with these addresses on these nodes.
fn endpoints_at(endpoints: &[(String, usize)], hints: impl Fn(&str) -> Value) -> Change {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(ip, node)| {
            let name = NODES[*node].0;
            json!({"addresses": [ip], "nodeName": name, "zone": format!("zone-{name}"), "hints": hints(name)})
        })
        .collect();
    let ports = [("t", "TCP"), ("u", "UDP")].map(|(name, protocol)| json!({"name": name, "port": TARGET_PORT, "protocol": protocol}));
    let object = json!({"metadata": {"name": "web-1", "namespace": "ns1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
    Change::SetSlice(Arc::new(serde_json::from_value(object).unwrap()))
}

fn set(expected: &[(&str, &str)]) -> BTreeSet<(String, IpAddr)> {
    expected.iter().map(|(server, client)| ((*server).into(), client.parse().unwrap())).collect()
}
