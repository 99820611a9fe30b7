//! A service and its slices to frontends: where each packet for it may go.
//!
//! Owns every rule of ClusterIP, NodePort, LoadBalancer, externalIPs, traffic policies, topology, terminating
//! fall-backs, source ranges, affinity and health ports; backends only write down what stands here. Never keeps
//! state and never orders rules. Tests are at the end of this file and in `endpoints`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod endpoints;
pub mod topology;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::model::{Cidr, Family, FrontendKey, Protocol, Service, ServicePort, Slice};
pub use endpoints::MAX_ENDPOINTS;
use endpoints::{Categories, PortEndpoint, Use, categorize, merge};

/// What the resolution depends on besides the service itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeView {
    /// This node's `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// This node's addresses: where source ranges let them in, load balancer addresses come in as sources, too (they
    /// are the node's own when it answers for them itself).
    pub node_ips: Box<[IpAddr]>,
}

/// One service in one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    pub frontends: Vec<Frontend>,
    /// The family's cluster IP: unknown ports of it are refused.
    pub cluster_ip: Option<IpAddr>,
    /// The cluster IP's connections stay on this node: its frontend's endpoints are the local ones.
    pub internal_local: bool,
    /// Pods of this node that may be balanced back to themselves.
    pub hairpins: Vec<IpAddr>,
    /// UDP and SCTP ports, for stale conntrack entries.
    pub udp: Vec<UdpPort>,
    pub health: Option<HealthCheck>,
    /// Endpoints of its largest port beyond what a list can have: they get no new connections.
    pub left_out: usize,
}

/// One destination that the service answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    pub key: FrontendKey,
    pub kind: FrontendKind,
    /// Name of the service port.
    pub port_name: Arc<str>,
    pub action: Action,
    /// Seconds a client stays with its endpoint.
    pub affinity_seconds: Option<u32>,
    /// Sources that may use a load balancer's address; empty means all.
    pub source_ranges: Box<[Cidr]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    ClusterIp,
    ExternalIp,
    LoadBalancer,
    NodePort,
}

/// What happens to a new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Balanced over `endpoints` (never empty); the source stays, or is masked where the backend's rule for
    /// cluster IPs says so.
    Forward { endpoints: Arc<[SocketAddr]> },
    /// Balanced over `endpoints` (never empty), always with this node's address as the source.
    ForwardMasked { endpoints: Arc<[SocketAddr]> },
    /// externalTrafficPolicy Local: pods and this node use `cluster` (the node's packets masked), everybody else
    /// `local` with the source kept, and is dropped if that is empty. `cluster` is never empty.
    ForwardLocal { cluster: Arc<[SocketAddr]>, local: Arc<[SocketAddr]> },
    /// No endpoint anywhere: refused at once.
    Refuse,
    /// None on this node, and the policy wants one of this node.
    Drop,
}

/// A UDP or SCTP service port: flows from `frontends` to anything but `serving` are stale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpPort {
    pub frontends: Vec<FrontendKey>,
    /// Every serving endpoint, wherever it is: a policy change breaks no flow.
    pub serving: Vec<SocketAddr>,
}

impl Resolved {
    /// Service ports with a Local policy that find no endpoint on this node, though there is one elsewhere: for cluster
    /// IPs, and for external destinations.
    pub fn without_local_endpoints(&self) -> (usize, usize) {
        let mut ports: Vec<(&str, Protocol, bool)> = Vec::new();
        for frontend in &self.frontends {
            let external = frontend.kind != FrontendKind::ClusterIp;
            let lacking = match &frontend.action {
                Action::Drop => true,
                Action::ForwardLocal { local, .. } => local.is_empty(),
                _ => false,
            };
            let port = (&*frontend.port_name, frontend.key.protocol(), external);
            if lacking && !ports.contains(&port) {
                ports.push(port);
            }
        }
        let external = ports.iter().filter(|(.., external)| *external).count();
        (ports.len() - external, external)
    }
}

/// What a load balancer's health probe of this service sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: u16,
    /// Distinct addresses of ready endpoints on this node.
    pub local_endpoints: usize,
}

/// Resolves one service for one family. `slices` are the service's, of any family, in any order.
pub fn resolve<'a>(service: &Service, slices: impl Iterator<Item = &'a Slice> + Clone, family: Family, node: &NodeView) -> Resolved {
    let Some(cluster_ip) = service.cluster_ip(family) else {
        return Resolved::default();
    };
    let slices = slices.filter(|slice| slice.family == family);
    let internal_local = service.internal_policy_local;
    let mut resolved = Resolved { cluster_ip: Some(cluster_ip), internal_local, ..Resolved::default() };
    for port in &service.ports {
        let endpoints = endpoints_of(port, slices.clone());
        resolve_port(service, port, cluster_ip, &endpoints, node, &mut resolved);
    }
    resolved.hairpins.sort_unstable();
    resolved.hairpins.dedup();
    if service.health_check_node_port != 0 {
        let local_endpoints = count_local_ready(slices);
        resolved.health = Some(HealthCheck { port: service.health_check_node_port, local_endpoints });
    }
    resolved
}

/// The destinations of one service port in one family, each once: a load balancer's address that also stands among the
/// external ones is the load balancer's.
fn destinations(service: &Service, port: &ServicePort, cluster_ip: IpAddr) -> Vec<(FrontendKey, FrontendKind)> {
    let family = Family::of(cluster_ip);
    let vip = |ip: IpAddr, kind: FrontendKind| (FrontendKey::Vip { ip, protocol: port.protocol, port: port.port }, kind);
    let of_family = |ip: &&IpAddr| Family::of(**ip) == family;
    let mut all = vec![vip(cluster_ip, FrontendKind::ClusterIp)];
    let balancers = service.load_balancer_vips.iter().filter(of_family).map(|ip| vip(*ip, FrontendKind::LoadBalancer));
    let externals = service.external_ips.iter().filter(of_family).map(|ip| vip(*ip, FrontendKind::ExternalIp));
    for one in balancers.chain(externals) {
        if !all.iter().any(|(key, _)| *key == one.0) {
            all.push(one);
        }
    }
    if port.node_port != 0 {
        all.push((FrontendKey::NodePort { protocol: port.protocol, port: port.node_port }, FrontendKind::NodePort));
    }
    all
}

/// All destinations that a service claims.
pub fn claims(service: &Service) -> Vec<(Family, FrontendKey)> {
    let mut all = Vec::new();
    for family in Family::ALL {
        let Some(cluster_ip) = service.cluster_ip(family) else { continue };
        for port in &service.ports {
            all.extend(destinations(service, port, cluster_ip).into_iter().map(|(key, _)| (family, key)));
        }
    }
    all
}

fn endpoints_of<'a>(port: &ServicePort, slices: impl Iterator<Item = &'a Slice>) -> Vec<PortEndpoint> {
    let mut found = Vec::new();
    for slice in slices {
        let wanted = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
        for slice_port in wanted {
            let with_port = |e: &crate::model::Endpoint| PortEndpoint { endpoint: e.clone(), port: slice_port.port };
            found.extend(slice.endpoints.iter().map(with_port));
        }
    }
    merge(found)
}

fn count_local_ready<'a>(slices: impl Iterator<Item = &'a Slice>) -> usize {
    let mut ips: Vec<IpAddr> =
        slices.flat_map(|slice| slice.endpoints.iter()).filter(|e| e.local && e.ready && !e.terminating).map(|e| e.ip).collect();
    ips.sort_unstable();
    ips.dedup();
    ips.len()
}

fn resolve_port(
    service: &Service,
    port: &ServicePort,
    cluster_ip: IpAddr,
    endpoints: &[PortEndpoint],
    node: &NodeView,
    out: &mut Resolved,
) {
    let destinations = destinations(service, port, cluster_ip);
    let external = destinations.len() > 1;
    let uses = Use {
        // Pods and this node reach external addresses through the cluster list even when the policy is Local.
        cluster: !service.internal_policy_local || external,
        local: service.internal_policy_local || (service.external_policy_local && external),
    };
    let categories = categorize(endpoints, uses, node.zone.as_ref());
    let sources = load_balancer_sources(service, cluster_ip, node);
    let first = out.frontends.len();
    for (key, kind) in destinations {
        // Two ports of a service can have the same number only in an object that no API server would take.
        if out.frontends.iter().any(|frontend| frontend.key == key) {
            continue;
        }
        let action = match kind {
            FrontendKind::ClusterIp => internal_action(service, &categories),
            _ => external_action(service, &categories),
        };
        out.frontends.push(Frontend {
            key,
            kind,
            port_name: port.name.clone(),
            action,
            affinity_seconds: service.affinity_seconds,
            source_ranges: if kind == FrontendKind::LoadBalancer { sources.clone() } else { Box::default() },
        });
    }
    if port.protocol != Protocol::Tcp {
        let frontends = out.frontends[first..].iter().map(|frontend| frontend.key).collect();
        let serving = endpoints.iter().filter(|e| e.endpoint.serving).map(PortEndpoint::address).collect();
        out.udp.push(UdpPort { frontends, serving });
    }
    out.left_out = out.left_out.max(categories.left_out);
    out.hairpins.extend(categories.local_ips);
}

/// Who may use the load balancer's addresses; empty means everybody.
fn load_balancer_sources(service: &Service, cluster_ip: IpAddr, node: &NodeView) -> Box<[Cidr]> {
    let ours = |c: &&Cidr| c.ip.is_ipv4() == cluster_ip.is_ipv4();
    let mut sources: Vec<Cidr> = service.source_ranges.iter().filter(ours).copied().collect();
    if node.node_ips.iter().any(|ip| sources.iter().any(|range| range.contains(*ip))) {
        let whole = if cluster_ip.is_ipv4() { 32 } else { 128 };
        let vips = service.load_balancer_vips.iter().filter(|vip| vip.is_ipv4() == cluster_ip.is_ipv4());
        sources.extend(vips.filter_map(|vip| Cidr::new(*vip, whole)));
    }
    sources.into()
}

fn internal_action(service: &Service, categories: &Categories) -> Action {
    let endpoints = if service.internal_policy_local { &categories.local } else { &categories.cluster };
    match (endpoints.is_empty(), categories.any) {
        (false, _) => Action::Forward { endpoints: endpoints.clone() },
        (true, false) => Action::Refuse,
        (true, true) => Action::Drop,
    }
}

fn external_action(service: &Service, categories: &Categories) -> Action {
    let cluster = categories.cluster.clone();
    if !categories.any || (cluster.is_empty() && !service.external_policy_local) {
        return Action::Refuse;
    }
    if !service.external_policy_local {
        return Action::ForwardMasked { endpoints: cluster };
    }
    if cluster.is_empty() { Action::Drop } else { Action::ForwardLocal { cluster, local: categories.local.clone() } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::convert;
    use crate::wire;
    use serde_json::{Value, json};

    fn resolved(spec: Value, endpoints: Value) -> Resolved {
        let object: wire::Service = serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "ns1"},
            "spec": spec, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}}))
        .unwrap();
        let slice: wire::EndpointSlice = serde_json::from_value(json!({"addressType": "IPv4", "endpoints": endpoints,
            "metadata": {"name": "web-1", "namespace": "ns1", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "http", "port": 8080}, {"name": "dns", "protocol": "UDP", "port": 53}]}))
        .unwrap();
        let slice = convert::slice(&slice, "n1").unwrap();
        resolve(&convert::service(&object).unwrap(), [slice].iter(), Family::V4, &NodeView::default())
    }

    fn load_balancer(extra: Value) -> Value {
        let mut spec = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.1",
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        spec
    }

    fn actions(resolved: &Resolved) -> Vec<(FrontendKind, &'static str)> {
        let name = |action: &Action| match action {
            Action::Forward { .. } => "forward",
            Action::ForwardMasked { .. } => "masked",
            Action::ForwardLocal { local, .. } if local.is_empty() => "local, none",
            Action::ForwardLocal { .. } => "local",
            Action::Refuse => "refuse",
            Action::Drop => "drop",
        };
        resolved.frontends.iter().map(|f| (f.kind, name(&f.action))).collect()
    }

    use FrontendKind::{ClusterIp, LoadBalancer, NodePort};

    #[test]
    fn external_destinations_are_masked_and_the_cluster_ip_is_not() {
        let got = resolved(load_balancer(json!({})), json!([{"addresses": ["10.1.0.1"]}]));
        assert_eq!(actions(&got), [(ClusterIp, "forward"), (LoadBalancer, "masked"), (NodePort, "masked")]);
    }

    #[test]
    fn a_service_without_endpoints_is_refused_everywhere() {
        let refused = [(ClusterIp, "refuse"), (LoadBalancer, "refuse"), (NodePort, "refuse")];
        assert_eq!(actions(&resolved(load_balancer(json!({})), json!([]))), refused);
        let local = json!({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"});
        assert_eq!(actions(&resolved(load_balancer(local), json!([]))), refused);
    }

    #[test]
    fn local_policies_drop_what_finds_no_endpoint_on_this_node() {
        let elsewhere = json!([{"addresses": ["10.1.0.1"], "nodeName": "n2"}]);
        let external = resolved(load_balancer(json!({"externalTrafficPolicy": "Local"})), elsewhere.clone());
        assert_eq!(actions(&external), [(ClusterIp, "forward"), (LoadBalancer, "local, none"), (NodePort, "local, none")]);
        let internal = resolved(load_balancer(json!({"internalTrafficPolicy": "Local"})), elsewhere);
        assert_eq!(actions(&internal), [(ClusterIp, "drop"), (LoadBalancer, "masked"), (NodePort, "masked")]);
    }

    #[test]
    fn a_port_without_matching_slice_port_has_no_endpoints() {
        let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"name": "other", "port": 80}]});
        let got = resolved(spec, json!([{"addresses": ["10.1.0.1"]}]));
        assert_eq!(got.frontends[0].action, Action::Refuse);
    }

    #[test]
    fn udp_flows_may_stay_with_any_serving_endpoint() {
        let spec = json!({"clusterIP": "10.96.0.1", "internalTrafficPolicy": "Local",
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]});
        let endpoints = json!([{"addresses": ["10.1.0.1"], "nodeName": "n1"}, {"addresses": ["10.1.0.2"], "nodeName": "n2"},
            {"addresses": ["10.1.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.1.0.4"], "conditions": {"ready": false, "serving": false}}]);
        let got = resolved(spec, endpoints);
        let serving: Vec<String> = got.udp[0].serving.iter().map(|a| a.to_string()).collect();
        assert_eq!(serving, ["10.1.0.1:53", "10.1.0.2:53", "10.1.0.3:53"]);
        assert_eq!(got.udp[0].frontends.len(), 2, "the cluster IP and the load balancer's address");
        assert_eq!(got.hairpins, ["10.1.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn source_ranges_bind_load_balancer_addresses_only() {
        let ranges = json!({"loadBalancerSourceRanges": ["203.0.113.0/24", "fd00::/8"]});
        let got = resolved(load_balancer(ranges), json!([{"addresses": ["10.1.0.1"]}]));
        let counts: Vec<_> = got.frontends.iter().map(|f| (f.kind, f.source_ranges.len())).collect();
        assert_eq!(counts, [(ClusterIp, 0), (LoadBalancer, 1), (NodePort, 0)]);
    }

    #[test]
    fn a_node_within_the_ranges_may_come_from_the_load_balancers_address() {
        let vip: IpAddr = "192.0.2.9".parse().unwrap();
        let service = Service {
            created: 0,
            cluster_ips: [Some("10.96.0.1".parse().unwrap()), None],
            external_ips: [].into(),
            load_balancer_vips: [vip].into(),
            source_ranges: [Cidr::parse("203.0.113.0/24").unwrap()].into(),
            ports: [].into(),
            affinity_seconds: None,
            internal_policy_local: false,
            external_policy_local: false,
            health_check_node_port: 0,
        };
        let sources = |node_ip: &str| {
            let node = NodeView { node_ips: [node_ip.parse().unwrap()].into(), ..NodeView::default() };
            load_balancer_sources(&service, "10.96.0.1".parse().unwrap(), &node)
        };
        assert_eq!(sources("198.51.100.1").len(), 1);
        assert!(sources("203.0.113.7").contains(&Cidr::new(vip, 32).unwrap()));
    }

    #[test]
    fn health_checks_count_distinct_ready_addresses_of_this_node() {
        let local = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 31000});
        let endpoints = json!([{"addresses": ["10.1.0.1"], "nodeName": "n1"}, {"addresses": ["10.1.0.2"], "nodeName": "n2"},
            {"addresses": ["10.1.0.3"], "nodeName": "n1", "conditions": {"ready": false, "serving": true, "terminating": true}}]);
        let got = resolved(load_balancer(local), endpoints);
        assert_eq!(got.health, Some(HealthCheck { port: 31000, local_endpoints: 1 }));
    }

    #[test]
    fn a_service_without_address_in_the_family_does_not_exist_there() {
        let service =
            wire::Service { spec: wire::ServiceSpec { cluster_ip: "10.0.0.1".into(), ..Default::default() }, ..Default::default() };
        let service = convert::service(&service).unwrap();
        assert_eq!(resolve(&service, [].iter(), Family::V6, &NodeView::default()), Resolved::default());
    }
}
