//! Endpoints of services from the node's own pods, as the endpoint slice controller makes them.

use crate::pod::status::PodStatus;
use crate::pod::{Pod, PortRef, Protocol};
use longshore_dataplane::wire::{
    Endpoint, EndpointConditions, EndpointPort, EndpointSlice, IntOrString, ObjectMeta, ObjectReference, Service, ServicePort,
};
use std::collections::BTreeMap;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// A pod as far as services see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    pub ips: Vec<String>,
    pub ready: bool,
    pub terminating: bool,
    pub hostname: String,
    pub subdomain: String,
    /// Named container ports with their protocol.
    pub ports: Vec<(String, Protocol, u16)>,
}

/// None: the pod is over, or has no address yet.
pub fn facts(pod: &Pod, status: &PodStatus) -> Option<PodFacts> {
    if status.phase.is_terminal() || status.pod_ips.is_empty() {
        return None;
    }
    let m = &pod.metadata;
    let ports = pod.containers().flat_map(|(_, c)| &c.ports).filter(|p| !p.name.is_empty());
    Some(PodFacts {
        namespace: m.namespace.clone(),
        name: m.name.clone(),
        uid: m.uid.clone(),
        labels: m.labels.clone(),
        ips: status.pod_ips.iter().map(|i| i.ip.clone()).collect(),
        ready: status.conditions.iter().any(|c| c.kind == "Ready" && c.is_true()),
        terminating: m.deletion_timestamp.is_some(),
        hostname: pod.spec.hostname.clone(),
        subdomain: pod.spec.subdomain.clone(),
        ports: ports.map(|p| (p.name.clone(), p.protocol, p.container_port)).collect(),
    })
}

/// Whether the service's selector chooses the pod.
pub fn selects(s: &Service, p: &PodFacts) -> bool {
    !s.spec.selector.is_empty()
        && s.metadata.namespace == p.namespace
        && s.spec.selector.iter().all(|(k, v)| p.labels.get(k).is_some_and(|l| l == v))
}

/// One slice per family and set of port numbers: a named target port may differ from pod to pod.
pub fn slices<'a>(s: &Service, pods: impl Iterator<Item = &'a PodFacts>, node: &str) -> Vec<EndpointSlice> {
    let mut groups: BTreeMap<(bool, Vec<u16>), Vec<Endpoint>> = BTreeMap::new();
    for p in pods.filter(|p| selects(s, p)) {
        let ports: Vec<u16> = s.spec.ports.iter().map(|port| target(port, p)).collect();
        if !s.spec.ports.is_empty() && ports.iter().all(|n| *n == 0) {
            continue;
        }
        for ip in &p.ips {
            let v4 = !ip.contains(':');
            let family = if v4 { "IPv4" } else { "IPv6" };
            if s.spec.ip_families.iter().any(|f| f == family) {
                groups.entry((v4, ports.clone())).or_default().push(endpoint(s, p, ip, node));
            }
        }
    }
    groups.into_iter().enumerate().map(|(i, ((v4, ports), endpoints))| slice(s, i, v4, &ports, endpoints)).collect()
}

/// 0: the pod has no port of that name.
fn target(port: &ServicePort, p: &PodFacts) -> u16 {
    let number = |n: i32| u16::try_from(n).unwrap_or(0);
    let reference = match &port.target_port {
        None | Some(IntOrString::Int(0)) => PortRef::Number(number(port.port)),
        Some(IntOrString::Int(n)) => PortRef::Number(number(*n)),
        Some(IntOrString::String(name)) => PortRef::Name(name.clone()),
    };
    match reference {
        PortRef::Number(n) => n,
        PortRef::Name(name) => {
            let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
            p.ports.iter().find(|(n, proto, _)| *n == name && proto.to_string() == protocol).map_or(0, |(_, _, n)| *n)
        }
    }
}

fn endpoint(s: &Service, p: &PodFacts, ip: &str, node: &str) -> Endpoint {
    let anyway = s.spec.publish_not_ready_addresses;
    Endpoint {
        addresses: vec![ip.to_owned()],
        conditions: EndpointConditions {
            ready: Some(anyway || (p.ready && !p.terminating)),
            serving: Some(anyway || p.ready),
            terminating: Some(p.terminating),
        },
        node_name: Some(node.to_owned()),
        hostname: (!p.hostname.is_empty() && p.subdomain == s.metadata.name).then(|| p.hostname.clone()),
        target_ref: Some(ObjectReference { kind: "Pod".into(), namespace: p.namespace.clone(), name: p.name.clone(), uid: p.uid.clone() }),
        ..Endpoint::default()
    }
}

fn slice(s: &Service, index: usize, v4: bool, ports: &[u16], mut endpoints: Vec<Endpoint>) -> EndpointSlice {
    endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
    let (family, suffix) = if v4 { ("IPv4", "v4") } else { ("IPv6", "v6") };
    let mut labels = s.metadata.labels.clone();
    labels.insert(SERVICE_NAME.into(), s.metadata.name.clone());
    labels.insert(MANAGED_BY.into(), "longshore".into());
    if s.spec.cluster_ip == "None" {
        labels.insert(HEADLESS.into(), String::new());
    }
    let port = |(p, n): (&ServicePort, &u16)| EndpointPort {
        name: Some(p.name.clone()),
        protocol: Some(if p.protocol.is_empty() { "TCP".into() } else { p.protocol.clone() }),
        port: (*n != 0).then(|| i32::from(*n)),
        app_protocol: p.app_protocol.clone(),
    };
    EndpointSlice {
        metadata: ObjectMeta {
            name: format!("{}-{suffix}-{index}", s.metadata.name),
            namespace: s.metadata.namespace.clone(),
            labels,
            ..ObjectMeta::default()
        },
        address_type: family.into(),
        ports: s.spec.ports.iter().zip(ports).map(port).collect(),
        endpoints,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ip: &str, ready: bool, http: u16) -> PodFacts {
        PodFacts {
            namespace: "default".into(),
            name: name.into(),
            uid: name.into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            ips: vec![ip.into()],
            ready,
            terminating: false,
            hostname: String::new(),
            subdomain: String::new(),
            ports: vec![("http".into(), Protocol::TCP, http)],
        }
    }

    fn service() -> Service {
        let mut s = Service::default();
        (s.metadata.name, s.metadata.namespace) = ("web".into(), "default".into());
        s.spec.selector = [("app".to_owned(), "web".to_owned())].into();
        s.spec.ip_families = vec!["IPv4".into()];
        s.spec.ports = vec![ServicePort {
            name: "http".into(),
            port: 80,
            target_port: Some(IntOrString::String("http".into())),
            ..ServicePort::default()
        }];
        s
    }

    #[test]
    fn a_named_target_port_may_differ_from_pod_to_pod() {
        let pods = [pod("a", "10.1.0.1", true, 8080), pod("b", "10.1.0.2", false, 8080), pod("c", "10.1.0.3", true, 9090)];
        let out = slices(&service(), pods.iter(), "n");
        assert_eq!(out.len(), 2);
        assert_eq!(out[0].ports[0].port, Some(8080));
        let ready: Vec<_> = out[0].endpoints.iter().map(|e| e.conditions.ready).collect();
        assert_eq!(ready, [Some(true), Some(false)]);
        assert_eq!(out[1].endpoints[0].addresses, ["10.1.0.3"]);
    }

    #[test]
    fn a_terminating_pod_serves_but_is_not_ready() {
        let mut p = pod("a", "10.1.0.1", true, 8080);
        p.terminating = true;
        let c = slices(&service(), [&p].into_iter(), "n")[0].endpoints[0].conditions.clone();
        assert_eq!((c.ready, c.serving, c.terminating), (Some(false), Some(true), Some(true)));
    }

    #[test]
    fn only_pods_of_the_namespace_with_all_labels_are_chosen() {
        let mut other = pod("a", "10.1.0.1", true, 80);
        other.namespace = "other".into();
        let mut unlabelled = pod("b", "10.1.0.2", true, 80);
        unlabelled.labels.clear();
        assert!(slices(&service(), [&other, &unlabelled].into_iter(), "n").is_empty());
    }
}
