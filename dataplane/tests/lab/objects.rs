//! Services and slices for tests, written as briefly as they can be.

use std::net::IpAddr;
use std::sync::Arc;

use longshore_dataplane::{Change, wire};
use serde_json::{Value, json};

pub const VIP_V4: &str = "10.96.0.10";
pub const VIP_V6: &str = "fd00:96::10";
pub const PORT: u16 = 80;
pub const TARGET_PORT: u16 = 8080;
pub const NODE_PORT: u16 = 30080;

/// A dual-stack service with a TCP and a UDP port; `extra` is merged into its spec.
pub fn service(name: &str, extra: Value) -> Change {
    let mut spec = json!({
        "clusterIP": VIP_V4, "clusterIPs": [VIP_V4, VIP_V6], "ipFamilies": ["IPv4", "IPv6"],
        "ports": [{"name": "t", "port": PORT, "protocol": "TCP"}, {"name": "u", "port": PORT, "protocol": "UDP"}],
    });
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let object = json!({"metadata": {"name": name, "namespace": "ns1"}, "spec": spec});
    Change::SetService(Arc::new(serde_json::from_value(object).unwrap()))
}

/// What makes [`service`] a NodePort service.
pub fn node_port() -> Value {
    json!({"type": "NodePort", "ports": [
        {"name": "t", "port": PORT, "protocol": "TCP", "nodePort": NODE_PORT},
        {"name": "u", "port": PORT, "protocol": "UDP", "nodePort": NODE_PORT}]})
}

/// The address of a pod of the lab.
pub fn pod_ip(index: usize, v6: bool) -> String {
    if v6 { format!("fd00:1::{}", index + 11) } else { format!("10.1.0.{}", index + 11) }
}

/// The two slices of a service whose endpoints are these pods, all on this node.
pub fn slices(service: &str, pods: &[usize]) -> Vec<Change> {
    slices_on(service, &pods.iter().map(|pod| (*pod, "node")).collect::<Vec<_>>())
}

/// The same, with the node of each pod.
pub fn slices_on(service: &str, pods: &[(usize, &str)]) -> Vec<Change> {
    [false, true]
        .map(|v6| {
            let addresses = pods.iter().map(|(pod, node)| (pod_ip(*pod, v6), *node));
            slice(service, v6, &addresses.collect::<Vec<_>>(), TARGET_PORT)
        })
        .into()
}

pub fn slice(service: &str, v6: bool, endpoints: &[(String, &str)], port: u16) -> Change {
    let endpoints: Vec<Value> = endpoints.iter().map(|(ip, node)| json!({"addresses": [ip], "nodeName": node})).collect();
    let family = if v6 { "IPv6" } else { "IPv4" };
    let object: wire::EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": format!("{service}-{family}"), "namespace": "ns1",
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": family, "endpoints": endpoints,
        "ports": [{"name": "t", "port": port, "protocol": "TCP"}, {"name": "u", "port": port, "protocol": "UDP"}]}))
    .unwrap();
    Change::SetSlice(Arc::new(object))
}

pub fn vip(v6: bool) -> IpAddr {
    if v6 { VIP_V6 } else { VIP_V4 }.parse().unwrap()
}
