//! Names of services and pods, as the DNS specification of Kubernetes has them.

use super::endpoints::SERVICE_NAME;
use longshore_dataplane::wire::{Endpoint, EndpointSlice, Service};
use std::net::IpAddr;

/// Records for a name within the cluster's domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The name is not of this cluster: ask elsewhere.
    Elsewhere,
    NoSuchName,
    Addresses(Vec<IpAddr>),
    /// Target and port of each.
    Services(Vec<(String, u16)>),
    Alias(String),
    Pointer(Vec<String>),
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Address,
    Service,
    Pointer,
    /// The name exists or not; nothing of this kind is kept.
    Other,
}

pub struct Zone<'a> {
    pub domain: &'a str,
    pub services: &'a dyn Fn(&str, &str) -> Option<Service>,
    pub slices: &'a dyn Fn(&str, &str) -> Vec<EndpointSlice>,
    /// The name of the service or pod that owns an address.
    pub owner: &'a dyn Fn(IpAddr) -> Vec<String>,
}

/// Answers a question. `name` has no trailing dot; case does not matter.
pub fn answer(z: &Zone<'_>, name: &str, kind: Kind) -> Answer {
    let name = name.to_ascii_lowercase();
    if let Some(ip) = reverse(&name) {
        let names = (z.owner)(ip);
        return if names.is_empty() { Answer::Elsewhere } else { Answer::Pointer(names) };
    }
    let Some(rest) = name.strip_suffix(&z.domain.to_ascii_lowercase()) else { return Answer::Elsewhere };
    let labels: Vec<&str> = rest.trim_end_matches('.').rsplit('.').filter(|l| !l.is_empty()).collect();
    match labels.as_slice() {
        [] | ["svc" | "pod"] | ["svc" | "pod", _] => Answer::Addresses(Vec::new()),
        ["pod", _, address] => pod(address),
        ["svc", namespace, service, sub @ ..] => of_service(z, namespace, service, sub, kind),
        _ => Answer::NoSuchName,
    }
}

fn pod(address: &str) -> Answer {
    let v4 = address.replace('-', ".").parse::<IpAddr>();
    match v4.or_else(|_| address.replace('-', ":").parse()) {
        Ok(ip) => Answer::Addresses(vec![ip]),
        Err(_) => Answer::NoSuchName,
    }
}

fn of_service(z: &Zone<'_>, namespace: &str, name: &str, sub: &[&str], kind: Kind) -> Answer {
    let Some(s) = (z.services)(namespace, name) else { return Answer::NoSuchName };
    if s.spec.type_ == "ExternalName" && sub.is_empty() {
        return Answer::Alias(s.spec.external_name.clone());
    }
    let headless = s.spec.cluster_ip == "None";
    match sub {
        [] if headless => Answer::Addresses(ready(z, namespace, name).flat_map(|e| ips(&e)).collect()),
        [] => Answer::Addresses(s.spec.cluster_ips.iter().filter_map(|t| t.parse().ok()).collect()),
        [host] if !host.starts_with('_') => {
            let found: Vec<IpAddr> = ready(z, namespace, name).filter(|e| host_name(e) == **host).flat_map(|e| ips(&e)).collect();
            if found.is_empty() { Answer::NoSuchName } else { Answer::Addresses(found) }
        }
        [protocol, port] if protocol.starts_with('_') && port.starts_with('_') => srv(z, &s, &port[1..], &protocol[1..], kind, headless),
        _ => Answer::NoSuchName,
    }
}

fn srv(z: &Zone<'_>, s: &Service, port: &str, protocol: &str, kind: Kind, headless: bool) -> Answer {
    let (ns, name) = (&s.metadata.namespace, &s.metadata.name);
    let is = |n: &str, p: &str| n == port && p.eq_ignore_ascii_case(protocol);
    let base = format!("{name}.{ns}.svc.{}", z.domain);
    let found: Vec<(String, u16)> = if headless {
        let of = |slice: EndpointSlice| {
            let numbers: Vec<u16> = slice
                .ports
                .iter()
                .filter(|p| is(p.name.as_deref().unwrap_or(""), p.protocol.as_deref().unwrap_or("TCP")))
                .filter_map(|p| u16::try_from(p.port?).ok())
                .collect();
            let base = base.clone();
            let hosts: Vec<String> = slice.endpoints.iter().filter(|e| e.conditions.ready != Some(false)).map(host_name).collect();
            hosts.into_iter().flat_map(move |h| numbers.iter().map(|n| (format!("{h}.{base}"), *n)).collect::<Vec<_>>())
        };
        (z.slices)(ns, name).into_iter().flat_map(of).collect()
    } else {
        let ports = s.spec.ports.iter().filter(|p| is(&p.name, if p.protocol.is_empty() { "TCP" } else { &p.protocol }));
        ports.filter_map(|p| u16::try_from(p.port).ok()).map(|n| (base.clone(), n)).collect()
    };
    match (found.is_empty(), kind) {
        (true, _) => Answer::NoSuchName,
        (false, Kind::Service) => Answer::Services(found),
        (false, _) => Answer::Addresses(Vec::new()),
    }
}

fn ready(z: &Zone<'_>, namespace: &str, service: &str) -> impl Iterator<Item = Endpoint> {
    (z.slices)(namespace, service).into_iter().flat_map(|s| s.endpoints).filter(|e| e.conditions.ready != Some(false))
}

fn ips(e: &Endpoint) -> Vec<IpAddr> {
    e.addresses.iter().filter_map(|a| a.parse().ok()).collect()
}

/// An endpoint's own name under its service: its hostname, else its address with dashes.
fn host_name(e: &Endpoint) -> String {
    let dashed = || e.addresses.first().map(|a| a.replace(['.', ':'], "-")).unwrap_or_default();
    e.hostname.clone().unwrap_or_else(dashed)
}

/// The address behind an `in-addr.arpa` or `ip6.arpa` name.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(v4) = name.strip_suffix(".in-addr.arpa") {
        let parts: Vec<&str> = v4.rsplit('.').collect();
        return parts.join(".").parse().ok();
    }
    let digits: String = name.strip_suffix(".ip6.arpa")?.rsplit('.').collect();
    let groups: Vec<&str> = (0..8).map(|i| digits.get(i * 4..i * 4 + 4)).collect::<Option<_>>()?;
    groups.join(":").parse().ok()
}

/// Which service a slice belongs to.
pub fn owner_of(s: &EndpointSlice) -> Option<&str> {
    s.metadata.labels.get(SERVICE_NAME).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_dataplane::wire::{EndpointConditions, EndpointPort, ServicePort};

    fn ask(name: &str, kind: Kind) -> Answer {
        let service = |ns: &str, n: &str| {
            let mut s = Service::default();
            (s.metadata.namespace, s.metadata.name) = (ns.into(), n.into());
            s.spec.ports = vec![ServicePort { name: "http".into(), port: 80, ..ServicePort::default() }];
            match (ns, n) {
                ("default", "web") => s.spec.cluster_ips = vec!["10.96.0.7".into(), "fd00::7".into()],
                ("default", "db") => s.spec.cluster_ip = "None".into(),
                ("default", "far") => (s.spec.type_, s.spec.external_name) = ("ExternalName".into(), "example.org".into()),
                _ => return None,
            }
            Some(s)
        };
        let slices = |_: &str, n: &str| {
            let one = |ip: &str, host: Option<&str>, ready| Endpoint {
                addresses: vec![ip.into()],
                hostname: host.map(str::to_owned),
                conditions: EndpointConditions { ready: Some(ready), ..EndpointConditions::default() },
                ..Endpoint::default()
            };
            let port = EndpointPort { name: Some("http".into()), port: Some(8080), ..EndpointPort::default() };
            let endpoints = vec![one("10.1.0.1", Some("db-0"), true), one("10.1.0.2", None, true), one("10.1.0.3", None, false)];
            if n == "db" { vec![EndpointSlice { ports: vec![port], endpoints, ..EndpointSlice::default() }] } else { Vec::new() }
        };
        let owner = |ip: IpAddr| if ip.to_string() == "10.96.0.7" { vec!["web.default.svc.cluster.local".into()] } else { Vec::new() };
        answer(&Zone { domain: "cluster.local", services: &service, slices: &slices, owner: &owner }, name, kind)
    }

    fn addresses(list: &[&str]) -> Answer {
        Answer::Addresses(list.iter().map(|a| a.parse().unwrap()).collect())
    }

    #[test]
    fn names_are_answered_as_kubernetes_specifies() {
        let a = Kind::Address;
        assert_eq!(ask("Web.default.svc.cluster.local", a), addresses(&["10.96.0.7", "fd00::7"]));
        assert_eq!(ask("db.default.svc.cluster.local", a), addresses(&["10.1.0.1", "10.1.0.2"]));
        assert_eq!(ask("db-0.db.default.svc.cluster.local", a), addresses(&["10.1.0.1"]));
        assert_eq!(ask("10-1-0-2.db.default.svc.cluster.local", a), addresses(&["10.1.0.2"]));
        assert_eq!(ask("far.default.svc.cluster.local", a), Answer::Alias("example.org".into()));
        assert_eq!(ask("1-2-3-4.default.pod.cluster.local", a), addresses(&["1.2.3.4"]));
        assert_eq!(ask("none.default.svc.cluster.local", a), Answer::NoSuchName);
        assert_eq!(ask("svc.cluster.local", a), addresses(&[]));
        assert_eq!(ask("example.org", a), Answer::Elsewhere);
    }

    #[test]
    fn service_records_name_ports() {
        let web = ("web.default.svc.cluster.local".to_owned(), 80);
        assert_eq!(ask("_http._tcp.web.default.svc.cluster.local", Kind::Service), Answer::Services(vec![web]));
        let Answer::Services(db) = ask("_http._tcp.db.default.svc.cluster.local", Kind::Service) else { panic!() };
        assert_eq!(db[0], ("db-0.db.default.svc.cluster.local".to_owned(), 8080));
        assert_eq!(db.len(), 2);
        assert_eq!(ask("_none._tcp.web.default.svc.cluster.local", Kind::Service), Answer::NoSuchName);
    }

    #[test]
    fn addresses_lead_back_to_names() {
        assert_eq!(ask("7.0.96.10.in-addr.arpa", Kind::Pointer), Answer::Pointer(vec!["web.default.svc.cluster.local".into()]));
        assert_eq!(ask("8.8.8.8.in-addr.arpa", Kind::Pointer), Answer::Elsewhere);
    }
}
