//! Kubernetes objects to the crate's own types: the only place where the two meet.
//!
//! Owns the rules by which kube-proxy ignores objects and derives fields (Service to service port, slice to
//! endpoints). Never keeps state. Tests are at the end of this file.

use std::net::IpAddr;
use std::sync::Arc;

use super::address::{Cidr, parse_ip};
use super::{Endpoint, Family, Hints, Node, ObjectName, Protocol, Service, ServicePort, Slice, SlicePort, time};
use crate::wire;

/// A Service with this label belongs to another proxy.
const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// A slice with this label has no virtual address in front.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Names the slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// What the API server writes when ClientIP affinity names no time.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// `None` for a Service that a proxy ignores: headless, ExternalName, or another proxy's.
pub fn service(object: &wire::Service) -> Option<Service> {
    let spec = &object.spec;
    // In a cluster the watch's selectors do this filtering; a lone node's objects arrive unfiltered.
    if object.metadata.labels.contains_key(SERVICE_PROXY_NAME)
        || spec.type_ == "ExternalName"
        || spec.cluster_ip.is_empty()
        || spec.cluster_ip == "None"
    {
        return None;
    }
    let external_ips = parse_all(spec.external_ips.iter());
    let by_load_balancer = object.status.load_balancer.ingress.iter();
    let load_balancer_vips = parse_all(by_load_balancer.filter(|i| i.ip_mode.as_deref().is_none_or(|mode| mode == "VIP")).map(|i| &i.ip));
    let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let externally_accessible = matches!(spec.type_.as_str(), "NodePort" | "LoadBalancer") || !external_ips.is_empty();
    let external_policy_local = externally_accessible && local(&spec.external_traffic_policy);
    let health = spec.type_ == "LoadBalancer" && external_policy_local;
    Some(Service {
        created: created(&object.metadata),
        cluster_ips: Family::ALL.map(|family| cluster_ip(spec, family)),
        external_ips,
        load_balancer_vips,
        source_ranges: source_ranges(&spec.load_balancer_source_ranges),
        ports: spec.ports.iter().filter_map(service_port).collect(),
        affinity_seconds: affinity_seconds(spec),
        internal_policy_local: local(&spec.internal_traffic_policy),
        external_policy_local,
        health_check_node_port: if health { port_number(spec.health_check_node_port) } else { 0 },
    })
}

/// Objects without a time, as a lone node may have them, are the youngest.
fn created(metadata: &wire::ObjectMeta) -> u64 {
    let time = metadata.creation_timestamp.as_deref().and_then(time::parse);
    time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).map_or(u64::MAX, |since| since.as_secs())
}

fn parse_all<'a>(texts: impl Iterator<Item = &'a String>) -> Box<[IpAddr]> {
    let mut ips: Vec<IpAddr> = texts.filter_map(|text| parse_ip(text)).collect();
    ips.sort_unstable();
    ips.dedup();
    ips.into()
}

fn cluster_ip(spec: &wire::ServiceSpec, family: Family) -> Option<IpAddr> {
    let of_family = |ip: &IpAddr| Family::of(*ip) == family;
    if spec.ip_families.is_empty() {
        // Objects older than dual stack have `clusterIP` alone.
        return parse_ip(&spec.cluster_ip).filter(of_family);
    }
    let index = spec.ip_families.iter().position(|name| *name == family.to_string())?;
    parse_ip(spec.cluster_ips.get(index)?).filter(of_family)
}

fn source_ranges(texts: &[String]) -> Box<[Cidr]> {
    let mut ranges: Vec<Cidr> = texts.iter().filter_map(|text| Cidr::parse(text)).collect();
    // A /0 lets everybody in, whatever stands beside it; each family judges its own ranges.
    for family in Family::ALL {
        if ranges.iter().any(|c| c.family() == family && c.prefix == 0) {
            ranges.retain(|c| c.family() != family);
        }
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges.into()
}

fn affinity_seconds(spec: &wire::ServiceSpec) -> Option<u32> {
    if spec.session_affinity != "ClientIP" {
        return None;
    }
    let client_ip = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = client_ip.and_then(|c| c.timeout_seconds).and_then(|s| u32::try_from(s).ok());
    Some(seconds.filter(|s| *s > 0).unwrap_or(DEFAULT_AFFINITY_SECONDS))
}

fn port_number(number: i32) -> u16 {
    u16::try_from(number).unwrap_or(0)
}

fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "" | "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

fn service_port(port: &wire::ServicePort) -> Option<ServicePort> {
    Some(ServicePort {
        name: port.name.as_str().into(),
        protocol: protocol(&port.protocol)?,
        port: Some(port_number(port.port)).filter(|p| *p != 0)?,
        node_port: port_number(port.node_port),
    })
}

const ZONE: &str = "topology.kubernetes.io/zone";
/// A node with this taint is about to be deleted.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// `bind` stands in for the node's address of its family, and comes first.
pub fn node(object: &wire::Node, bind: Option<IpAddr>) -> Node {
    let addresses = &object.status.addresses;
    let of_type = |wanted: &'static str| addresses.iter().filter(move |a| a.type_ == wanted).filter_map(|a| parse_ip(&a.address));
    let mut ips: Vec<IpAddr> = Vec::new();
    for ip in bind.into_iter().chain(of_type("InternalIP")).chain(of_type("ExternalIP")) {
        if !ips.iter().any(|held| Family::of(*held) == Family::of(ip)) {
            ips.push(ip);
        }
    }
    let spec = &object.spec;
    // Objects older than dual stack have `podCIDR` alone.
    let ranges = if spec.pod_cidrs.is_empty() { std::slice::from_ref(&spec.pod_cidr) } else { &spec.pod_cidrs };
    let leaving = object.metadata.deletion_timestamp.is_some() || spec.taints.iter().any(|taint| taint.key == TO_BE_DELETED);
    Node {
        zone: object.metadata.labels.get(ZONE).filter(|zone| !zone.is_empty()).cloned(),
        ips,
        pod_cidrs: ranges.iter().filter_map(|text| Cidr::parse(text)).collect(),
        eligible: !leaving,
    }
}

/// The ranges of a ServiceCIDR that can be read.
pub fn service_cidrs(object: &wire::ServiceCidr) -> Vec<Cidr> {
    object.spec.cidrs.iter().filter_map(|text| Cidr::parse(text)).collect()
}

/// What of a Service cannot be used, and is left out.
pub fn service_objections(object: &wire::Service) -> Vec<String> {
    let spec = &object.spec;
    let mut wrong = Vec::new();
    for (field, texts) in [("clusterIPs", &spec.cluster_ips), ("externalIPs", &spec.external_ips)] {
        let bad = texts.iter().filter(|text| *text != "None" && parse_ip(text).is_none());
        wrong.extend(bad.map(|text| format!("spec.{field}: {text:?} is not an IP address")));
    }
    let bad = spec.load_balancer_source_ranges.iter().filter(|text| Cidr::parse(text).is_none());
    wrong.extend(bad.map(|text| format!("spec.loadBalancerSourceRanges: {text:?} is not an address range")));
    let bad = object.status.load_balancer.ingress.iter().filter(|i| !i.ip.is_empty() && parse_ip(&i.ip).is_none());
    wrong.extend(bad.map(|i| format!("status.loadBalancer.ingress: {:?} is not an IP address", i.ip)));
    for port in &spec.ports {
        if protocol(&port.protocol).is_none() {
            wrong.push(format!("spec.ports: {:?} is not TCP, UDP or SCTP", port.protocol));
        }
        if port_number(port.port) == 0 {
            wrong.push(format!("spec.ports: {} is not a port", port.port));
        }
        if port.node_port != 0 && port_number(port.node_port) == 0 {
            wrong.push(format!("spec.ports: {} is not a node port", port.node_port));
        }
    }
    let health = spec.health_check_node_port;
    let wanted = service(object).is_some_and(|service| service.external_policy_local) && spec.type_ == "LoadBalancer";
    if wanted && port_number(health) == 0 {
        wrong.push(format!("spec.healthCheckNodePort: {health} is not a port, so load balancers cannot ask for this service's health"));
    }
    wrong
}

/// What of a slice cannot be used, and is left out.
pub fn slice_objections(object: &wire::EndpointSlice) -> Vec<String> {
    let family = match object.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        other => return vec![format!("addressType {other:?} cannot be forwarded to")],
    };
    let mut wrong = Vec::new();
    for port in object.ports.iter().filter(|port| port.name.is_some()) {
        let text = port.protocol.as_deref().unwrap_or_default();
        if protocol(text).is_none() {
            wrong.push(format!("{text:?} is not TCP, UDP or SCTP"));
        }
        if let Some(number) = port.port.filter(|number| *number != 0 && port_number(*number) == 0) {
            wrong.push(format!("{number} is not a port"));
        }
    }
    let firsts = object.endpoints.iter().filter_map(|endpoint| endpoint.addresses.first());
    let mut bad = firsts.filter(|text| parse_ip(text).is_none_or(|ip| Family::of(ip) != family));
    if let Some(first) = bad.next() {
        wrong.push(format!("{first:?} is not an {family} address (and {} others are not)", bad.count()));
    }
    wrong
}

/// `None` for a slice that a proxy ignores: no owner, headless, FQDN.
pub fn slice(object: &wire::EndpointSlice, node_name: &str) -> Option<Slice> {
    let labels = &object.metadata.labels;
    if labels.contains_key(HEADLESS) {
        return None;
    }
    let owner = labels.get(SERVICE_NAME).filter(|name| !name.is_empty())?;
    let family = match object.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        _ => return None,
    };
    let endpoints = object.endpoints.iter().filter_map(|e| endpoint(e, family, node_name));
    Some(Slice {
        service: ObjectName::new(&object.metadata.namespace, owner),
        family,
        ports: object.ports.iter().filter_map(slice_port).collect(),
        endpoints: endpoints.collect(),
    })
}

fn slice_port(port: &wire::EndpointPort) -> Option<SlicePort> {
    Some(SlicePort {
        name: port.name.as_deref()?.into(),
        protocol: protocol(port.protocol.as_deref().unwrap_or_default())?,
        port: Some(port_number(port.port?)).filter(|p| *p != 0)?,
    })
}

fn endpoint(object: &wire::Endpoint, family: Family, node_name: &str) -> Option<Endpoint> {
    // More addresses are legal in the API; no proxy looks at them.
    let ip = parse_ip(object.addresses.first()?).filter(|ip| Family::of(*ip) == family)?;
    let conditions = &object.conditions;
    Some(Endpoint {
        ip,
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        local: object.node_name.as_deref() == Some(node_name),
        hints: object.hints.as_ref().and_then(|hints| self::hints(hints, node_name)),
    })
}

fn hints(object: &wire::EndpointHints, node_name: &str) -> Option<Box<Hints>> {
    if object.for_nodes.is_empty() && object.for_zones.is_empty() {
        return None;
    }
    let names_this_node = object.for_nodes.iter().any(|hint| hint.name == node_name);
    Some(Box::new(Hints {
        this_node: (!object.for_nodes.is_empty()).then_some(names_this_node),
        zones: object.for_zones.iter().map(|hint| Arc::from(hint.name.as_str())).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wire_service(spec: serde_json::Value) -> wire::Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "ns1"}, "spec": spec})).unwrap()
    }

    #[test]
    fn headless_external_name_and_foreign_services_are_ignored() {
        assert_eq!(service(&wire_service(json!({"clusterIP": "None"}))), None);
        assert_eq!(service(&wire_service(json!({"clusterIP": ""}))), None);
        assert_eq!(service(&wire_service(json!({"type": "ExternalName", "clusterIP": "10.0.0.1"}))), None);
        let mut foreign = wire_service(json!({"clusterIP": "10.0.0.1"}));
        assert!(service(&foreign).is_some());
        foreign.metadata.labels.insert(SERVICE_PROXY_NAME.into(), String::new());
        assert_eq!(service(&foreign), None);
    }

    #[test]
    fn each_family_takes_the_cluster_ip_at_its_own_position() {
        let dual = service(&wire_service(json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1", "10.0.0.1"],
            "ipFamilies": ["IPv6", "IPv4"]})))
        .unwrap();
        assert_eq!(dual.cluster_ip(Family::V4), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(dual.cluster_ip(Family::V6), Some("fd00::1".parse().unwrap()));
        let old = service(&wire_service(json!({"clusterIP": "10.0.0.1"}))).unwrap();
        assert_eq!(old.cluster_ips, [Some("10.0.0.1".parse().unwrap()), None]);
    }

    #[test]
    fn external_policy_counts_only_for_externally_accessible_types() {
        let inside = service(&wire_service(json!({"clusterIP": "10.0.0.1", "externalTrafficPolicy": "Local"}))).unwrap();
        assert!(!inside.external_policy_local);
        let node_port = json!({"type": "NodePort", "clusterIP": "10.0.0.1", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30999});
        let outside = service(&wire_service(node_port)).unwrap();
        assert!(outside.external_policy_local);
        assert_eq!(outside.health_check_node_port, 0, "only load balancers have a health check port");
    }

    #[test]
    fn load_balancer_in_proxy_mode_has_no_vip() {
        let mut object = wire_service(json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1"}));
        object.status.load_balancer.ingress = serde_json::from_value(json!([{"ip": "192.0.2.1"},
            {"ip": "192.0.2.2", "ipMode": "Proxy"}, {"hostname": "lb.example"}, {"ip": "192.0.2.3", "ipMode": "VIP"}]))
        .unwrap();
        let vips: Vec<String> = service(&object).unwrap().load_balancer_vips.iter().map(|ip| ip.to_string()).collect();
        assert_eq!(vips, ["192.0.2.1", "192.0.2.3"]);
    }

    #[test]
    fn a_zero_prefix_lifts_the_source_ranges_of_its_family() {
        let ranges: Vec<String> = [" 10.0.0.0/8", "0.0.0.0/0", "fd00::/8 "].map(String::from).into();
        assert_eq!(&*source_ranges(&ranges), &[Cidr::parse("fd00::/8").unwrap()]);
    }

    #[test]
    fn slice_conditions_default_as_the_api_says() {
        let object: wire::EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "ns1", "labels": {SERVICE_NAME: "web"}}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}, {"port": 9}, {"name": "none"}, {"name": "dns", "protocol": "UDP", "port": 53}],
            "endpoints": [{"addresses": ["10.1.0.1", "10.1.0.9"], "nodeName": "n1", "hints": {"forNodes": [{"name": "n2"}]}},
                {"addresses": []}, {"addresses": ["fd00::1"]},
                {"addresses": ["10.1.0.2"], "nodeName": "n2", "conditions": {"ready": false, "serving": true, "terminating": true}}]}))
        .unwrap();
        let got = slice(&object, "n1").unwrap();
        assert_eq!(got.ports.iter().map(|p| p.port).collect::<Vec<_>>(), [8080, 53]);
        assert_eq!(got.endpoints.len(), 2);
        let (first, second) = (&got.endpoints[0], &got.endpoints[1]);
        assert!(first.ready && first.serving && !first.terminating && first.local);
        assert_eq!(first.hints.as_ref().unwrap().this_node, Some(false));
        assert!(!second.ready && second.serving && second.terminating && !second.local);
    }

    #[test]
    fn a_nodes_first_internal_address_of_each_family_counts() {
        let object: wire::Node = serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {ZONE: "a"}},
            "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00:1::/64"], "taints": [{"key": "other"}]},
            "status": {"addresses": [{"type": "ExternalIP", "address": "198.51.100.1"}, {"type": "Hostname", "address": "n1"},
                {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "InternalIP", "address": "192.0.2.2"},
                {"type": "ExternalIP", "address": "fd00:2::1"}]}}))
        .unwrap();
        let texts = |node: &Node| node.ips.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        let got = node(&object, None);
        assert_eq!((texts(&got), got.zone.as_deref(), got.eligible), (vec!["192.0.2.1".into(), "fd00:2::1".into()], Some("a"), true));
        assert_eq!(got.pod_cidrs.len(), 2);
        assert_eq!(texts(&node(&object, Some("fd00:9::9".parse().unwrap()))), ["fd00:9::9", "192.0.2.1"]);
        let mut leaving = object.clone();
        leaving.spec.taints.push(wire::Taint { key: TO_BE_DELETED.into() });
        assert!(!node(&leaving, None).eligible);
        leaving = object;
        leaving.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
        assert!(!node(&leaving, None).eligible);
    }

    #[test]
    fn what_cannot_be_used_is_named_and_the_rest_is_used() {
        let mut object = wire_service(json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1", "externalTrafficPolicy": "Local",
            "externalIPs": ["x", "192.0.2.1"], "loadBalancerSourceRanges": ["10.0.0.0/8", "10.0.0.0/99"],
            "ports": [{"port": 80, "nodePort": 70_000}, {"port": 0}, {"port": 53, "protocol": "ICMP"}]}));
        object.status.load_balancer.ingress = serde_json::from_value(json!([{"ip": "?"}, {"hostname": "lb"}])).unwrap();
        let wrong = service_objections(&object);
        assert_eq!(wrong.len(), 7, "{wrong:#?}");
        let used = service(&object).unwrap();
        assert_eq!((used.ports.len(), used.external_ips.len(), used.source_ranges.len()), (1, 1, 1));
        assert_eq!(service_objections(&wire_service(json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}))), [""; 0]);

        let slice_of = |value| serde_json::from_value::<wire::EndpointSlice>(value).unwrap();
        let bad =
            slice_of(json!({"addressType": "IPv4", "ports": [{"name": "a", "port": 99_999}, {"name": "b", "port": 1, "protocol": "X"}],
            "endpoints": [{"addresses": ["fd00::1"]}, {"addresses": ["10.0.0.300"]}, {"addresses": ["10.0.0.1"]}]}));
        let wrong = slice_objections(&bad);
        assert_eq!(wrong[2], "\"fd00::1\" is not an IPv4 address (and 1 others are not)");
        assert_eq!(wrong.len(), 3);
        assert_eq!(slice_objections(&slice_of(json!({"addressType": "FQDN"}))), ["addressType \"FQDN\" cannot be forwarded to"]);
    }

    #[test]
    fn slices_without_owner_headless_or_fqdn_are_ignored() {
        let mut object = wire::EndpointSlice { address_type: "IPv4".into(), ..Default::default() };
        assert_eq!(slice(&object, "n1"), None);
        object.metadata.labels.insert(SERVICE_NAME.into(), "web".into());
        assert!(slice(&object, "n1").is_some());
        object.address_type = "FQDN".into();
        assert_eq!(slice(&object, "n1"), None);
        object.address_type = "IPv6".into();
        object.metadata.labels.insert(HEADLESS.into(), String::new());
        assert_eq!(slice(&object, "n1"), None);
    }
}
