//! The Kubernetes objects a service proxy reads, as they stand in JSON.
//!
//! Owns the serde shapes of Service (core/v1) and EndpointSlice (discovery.k8s.io/v1), cut down to the
//! fields a proxy or a lone node's defaulting looks at. Unknown fields are ignored, empty ones are not
//! written. Never decides anything: `model::convert` turns these into the crate's own types, and nothing
//! else in the crate reads them. Tests are at the end of this file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The part of ObjectMeta that a proxy needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: String,
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub uid: String,
    #[serde(skip_serializing_if = "is_default")]
    pub resource_version: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "is_default")]
    pub creation_timestamp: Option<String>,
    /// RFC 3339; set while the object is on its way out.
    #[serde(skip_serializing_if = "is_default")]
    pub deletion_timestamp: Option<String>,
}

/// A target port: a number, or the name of a container port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    Int(i32),
    String(String),
}

impl Default for IntOrString {
    fn default() -> Self {
        IntOrString::Int(0)
    }
}

/// core/v1 Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    pub metadata: ObjectMeta,
    pub spec: ServiceSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub status: ServiceStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// ClusterIP (also when empty), NodePort, LoadBalancer or ExternalName.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub type_: String,
    #[serde(rename = "clusterIP", skip_serializing_if = "is_default")]
    pub cluster_ip: String,
    #[serde(rename = "clusterIPs", skip_serializing_if = "is_default")]
    pub cluster_ips: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub ip_families: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub ip_family_policy: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub ports: Vec<ServicePort>,
    #[serde(skip_serializing_if = "is_default")]
    pub selector: BTreeMap<String, String>,
    #[serde(rename = "externalIPs", skip_serializing_if = "is_default")]
    pub external_ips: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub session_affinity: String,
    #[serde(skip_serializing_if = "is_default")]
    pub session_affinity_config: Option<SessionAffinityConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub internal_traffic_policy: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub external_traffic_policy: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub external_name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub publish_not_ready_addresses: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub load_balancer_source_ranges: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub health_check_node_port: i32,
    #[serde(skip_serializing_if = "is_default")]
    pub traffic_distribution: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub load_balancer_class: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// TCP (also when empty), UDP or SCTP.
    #[serde(skip_serializing_if = "is_default")]
    pub protocol: String,
    pub port: i32,
    #[serde(skip_serializing_if = "is_default")]
    pub target_port: Option<IntOrString>,
    #[serde(skip_serializing_if = "is_default")]
    pub node_port: i32,
    #[serde(skip_serializing_if = "is_default")]
    pub app_protocol: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionAffinityConfig {
    #[serde(rename = "clientIP", skip_serializing_if = "is_default")]
    pub client_ip: Option<ClientIpConfig>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIpConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub timeout_seconds: Option<i32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    #[serde(skip_serializing_if = "is_default")]
    pub load_balancer: LoadBalancerStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerStatus {
    #[serde(skip_serializing_if = "is_default")]
    pub ingress: Vec<LoadBalancerIngress>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    #[serde(skip_serializing_if = "is_default")]
    pub ip: String,
    #[serde(skip_serializing_if = "is_default")]
    pub ip_mode: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub hostname: String,
}

/// discovery.k8s.io/v1 EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    pub metadata: ObjectMeta,
    /// IPv4, IPv6 or FQDN.
    pub address_type: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub ports: Vec<EndpointPort>,
    #[serde(deserialize_with = "null_is_empty")]
    pub endpoints: Vec<Endpoint>,
}

/// API servers write `null` for an empty list of a slice.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// Absent means "ignore this port"; an empty name is the unnamed port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub protocol: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub port: Option<i32>,
    #[serde(skip_serializing_if = "is_default")]
    pub app_protocol: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    #[serde(deserialize_with = "null_is_empty")]
    pub addresses: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub conditions: EndpointConditions,
    #[serde(skip_serializing_if = "is_default")]
    pub node_name: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub zone: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub hints: Option<EndpointHints>,
    #[serde(skip_serializing_if = "is_default")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub target_ref: Option<ObjectReference>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointConditions {
    #[serde(skip_serializing_if = "is_default")]
    pub ready: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub serving: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub terminating: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointHints {
    #[serde(skip_serializing_if = "is_default")]
    pub for_zones: Vec<NamedHint>,
    #[serde(skip_serializing_if = "is_default")]
    pub for_nodes: Vec<NamedHint>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamedHint {
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    #[serde(skip_serializing_if = "is_default")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: String,
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub uid: String,
}

/// networking.k8s.io/v1 ServiceCIDR.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceCidr {
    pub metadata: ObjectMeta,
    pub spec: ServiceCidrSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceCidrSpec {
    /// At most one per family.
    pub cidrs: Vec<String>,
}

/// core/v1 Node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    pub metadata: ObjectMeta,
    pub spec: NodeSpec,
    pub status: NodeStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    #[serde(rename = "podCIDR", skip_serializing_if = "is_default")]
    pub pod_cidr: String,
    #[serde(rename = "podCIDRs", skip_serializing_if = "is_default")]
    pub pod_cidrs: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub taints: Vec<Taint>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Taint {
    pub key: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    #[serde(skip_serializing_if = "is_default")]
    pub addresses: Vec<NodeAddress>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// InternalIP, ExternalIP, Hostname …
    #[serde(rename = "type")]
    pub type_: String,
    pub address: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_json_survives_a_round_trip_and_unknown_fields_are_ignored() {
        let text = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"ns1","managedFields":[]},
            "spec":{"type":"NodePort","clusterIP":"10.96.0.10","clusterIPs":["10.96.0.10"],"ipFamilies":["IPv4"],
            "ports":[{"name":"http","port":80,"targetPort":"http","nodePort":30080},{"port":53,"protocol":"UDP","targetPort":5353}],
            "externalIPs":["192.0.2.1"],"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":60}}},
            "status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.1","ipMode":"VIP"}]}}}"#;
        let service: Service = serde_json::from_str(text).unwrap();
        assert_eq!(service.spec.ports[0].target_port, Some(IntOrString::String("http".into())));
        assert_eq!(service.spec.ports[1].target_port, Some(IntOrString::Int(5353)));
        assert_eq!(service.spec.external_ips, ["192.0.2.1"]);
        let again: Service = serde_json::from_str(&serde_json::to_string(&service).unwrap()).unwrap();
        assert_eq!(service, again);
    }

    #[test]
    fn slice_with_null_lists_is_an_empty_slice() {
        let slice: EndpointSlice =
            serde_json::from_str(r#"{"metadata":{"name":"web-1"},"addressType":"IPv4","ports":null,"endpoints":null}"#).unwrap();
        assert!(slice.ports.is_empty() && slice.endpoints.is_empty());
    }

    #[test]
    fn empty_fields_are_not_written() {
        assert_eq!(serde_json::to_string(&Service::default()).unwrap(), r#"{"metadata":{},"spec":{}}"#);
    }
}
