//! Services.

use super::probe::number;
use super::{meta, names};
use crate::manifest::Rules;
use crate::manifest::problem::{Fault, FaultKind, Faults, Path};
use longshore_dataplane::wire::{IntOrString, Service, ServicePort, ServiceSpec};
use std::collections::BTreeSet;

/// The most that the API gives the affinity's time, in seconds: a day.
const AFFINITY: i32 = 86_400;

pub fn service(s: &Service, rules: &Rules, out: &mut Faults) {
    let m = &s.metadata;
    meta::check(&m.name, "", &m.namespace, &m.labels, &m.annotations, names::label_1035, out);
    let path = Path::root("spec");
    meta::check_labels(&s.spec.selector, &path.child("selector"), out);
    let external = s.spec.type_ == "ExternalName";
    let headless = s.spec.cluster_ip == "None";
    if s.spec.ports.is_empty() && !external && !headless {
        out.required(&path.child("ports"), "");
    }
    if external {
        external_name(&s.spec, &path, out);
    } else {
        addresses(&s.spec, &path, out);
    }
    if headless && matches!(s.spec.type_.as_str(), "NodePort" | "LoadBalancer") {
        out.invalid(&path.child("clusterIPs").index(0), "None", &format!("may not be set to 'None' for {} services", s.spec.type_));
    }
    ports(&s.spec, rules, &path.child("ports"), out);
    affinity(&s.spec, &path, out);
    traffic(&s.spec, &path, out);
    load_balancer(s, &path, out);
}

fn external_name(s: &ServiceSpec, path: &Path, out: &mut Faults) {
    if !s.cluster_ip.is_empty() && s.cluster_ip != "None" {
        out.forbidden(&path.child("clusterIPs").index(0), "may not be set for ExternalName services");
    }
    let name = s.external_name.strip_suffix('.').unwrap_or(&s.external_name);
    if name.is_empty() {
        out.required(&path.child("externalName"), "");
    } else {
        for m in names::subdomain(name) {
            out.invalid(&path.child("externalName"), &s.external_name, &m);
        }
    }
}

fn family(text: &str) -> Option<&'static str> {
    names::ip(text).map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" })
}

fn addresses(s: &ServiceSpec, path: &Path, out: &mut Faults) {
    let given: Vec<(Path, &str)> = s.cluster_ips.iter().enumerate().map(|(i, a)| (path.child("clusterIPs").index(i), a.as_str())).collect();
    if let Some(first) = s.cluster_ips.first().filter(|first| !s.cluster_ip.is_empty() && **first != s.cluster_ip) {
        out.invalid(&path.child("clusterIPs"), first, "first value must match `clusterIP`");
    }
    let alone = (path.child("clusterIP"), s.cluster_ip.as_str());
    let all = if given.is_empty() { vec![alone] } else { given };
    let mut families = Vec::new();
    for (path, a) in all.iter().filter(|(_, a)| !a.is_empty() && *a != "None") {
        match family(a) {
            None => out.invalid(path, a, names::IP),
            Some(f) if families.contains(&f) => out.invalid(path, a, "may specify no more than one IP for each IP family"),
            Some(f) => families.push(f),
        }
    }
    if all.len() > 1 && all.iter().any(|(_, a)| *a == "None") {
        out.invalid(&path.child("clusterIPs"), "None", "'None' must be the first and only value");
    }
    if all.len() > 2 {
        out.invalid(&path.child("clusterIPs"), "", "may only hold up to 2 values");
    }
    let mut seen = BTreeSet::new();
    for (i, f) in s.ip_families.iter().enumerate() {
        if !seen.insert(f) {
            out.duplicate(&path.child("ipFamilies").index(i), f);
        }
        if let Some(have) = families.get(i).filter(|have| *have != f) {
            out.invalid(&all[i].0, all[i].1, &format!("expected an {f} value as indicated by `ipFamilies[{i}]`, not {have}"));
        }
    }
    let dual = s.ip_families.len() == 2 || families.len() == 2;
    if dual && s.ip_family_policy.as_deref() == Some("SingleStack") {
        out.invalid(
            &path.child("ipFamilyPolicy"),
            "SingleStack",
            "must be RequireDualStack or PreferDualStack when 2 families are specified",
        );
    }
    for (i, a) in s.external_ips.iter().enumerate() {
        let path = path.child("externalIPs").index(i);
        match names::ip(a) {
            None => out.invalid(&path, a, names::IP),
            Some(ip) if ip.is_loopback() => out.invalid(&path, a, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
            Some(ip) if ip.is_unspecified() => out.invalid(&path, a, &format!("may not be unspecified ({ip})")),
            Some(ip) if ip.is_multicast() => out.invalid(&path, a, "may not be in the multicast range"),
            Some(_) => {}
        }
    }
}

fn ports(s: &ServiceSpec, rules: &Rules, path: &Path, out: &mut Faults) {
    let (mut seen, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (i, p) in s.ports.iter().enumerate() {
        let path = path.index(i);
        port(p, &path, out);
        if p.name.is_empty() {
            if s.ports.len() > 1 {
                out.required(&path.child("name"), "");
            }
        } else if !seen.insert(&p.name) {
            out.duplicate(&path.child("name"), &p.name);
        }
        if p.port != 0 && !numbers.insert((&p.protocol, p.port)) {
            let message = format!("Duplicate value: {{\"port\":{},\"protocol\":{:?}}}", p.port, p.protocol);
            out.0.push(Fault::new(FaultKind::Duplicate, &path, message));
        }
        if p.node_port != 0 {
            let path = path.child("nodePort");
            let (first, last) = rules.node_ports;
            if !matches!(s.type_.as_str(), "NodePort" | "LoadBalancer") {
                out.forbidden(&path, &format!("may not be used when `type` is '{}'", s.type_));
            } else if !(i32::from(first)..=i32::from(last)).contains(&p.node_port) {
                let why = format!("provided port is not in the valid range. The range of valid ports is {first}-{last}");
                out.invalid_number(&path, i64::from(p.node_port), &why);
            } else if !node_ports.insert((&p.protocol, p.node_port)) {
                out.duplicate(&path, &p.node_port.to_string());
            }
        }
    }
}

fn port(p: &ServicePort, path: &Path, out: &mut Faults) {
    if !p.name.is_empty() {
        for m in names::label(&p.name) {
            out.invalid(&path.child("name"), &p.name, &m);
        }
    }
    number(i64::from(p.port), &path.child("port"), out);
    match &p.target_port {
        Some(IntOrString::Int(n)) => number(i64::from(*n), &path.child("targetPort"), out),
        Some(IntOrString::String(name)) => {
            for m in names::port_name(name) {
                out.invalid(&path.child("targetPort"), name, &m);
            }
        }
        None => {}
    }
    if let Some(a) = &p.app_protocol {
        for m in names::qualified(a) {
            out.invalid(&path.child("appProtocol"), a, &m);
        }
    }
}

fn affinity(s: &ServiceSpec, path: &Path, out: &mut Faults) {
    let path = path.child("sessionAffinityConfig");
    match (&s.session_affinity_config, s.session_affinity.as_str()) {
        (Some(_), "None") => out.forbidden(&path, "must not be set when session affinity is None"),
        (Some(c), _) => {
            let seconds = c.client_ip.as_ref().and_then(|c| c.timeout_seconds);
            let path = path.child("clientIP").child("timeoutSeconds");
            match seconds {
                None => out.required(&path, "must be set when session affinity is ClientIP"),
                Some(n) if !(1..=AFFINITY).contains(&n) => {
                    out.invalid_number(&path, i64::from(n), &format!("must be greater than 0 and less than {AFFINITY}"));
                }
                Some(_) => {}
            }
        }
        (None, _) => {}
    }
}

fn traffic(s: &ServiceSpec, path: &Path, out: &mut Faults) {
    let outside = matches!(s.type_.as_str(), "NodePort" | "LoadBalancer") || !s.external_ips.is_empty();
    if let Some(p) = s.external_traffic_policy.as_deref().filter(|_| !outside) {
        out.invalid(&path.child("externalTrafficPolicy"), p, "may only be set for externally-accessible services");
    }
    if s.health_check_node_port != 0 && !(s.type_ == "LoadBalancer" && s.external_traffic_policy.as_deref() == Some("Local")) {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        out.invalid_number(&path.child("healthCheckNodePort"), i64::from(s.health_check_node_port), why);
    }
}

fn load_balancer(s: &Service, path: &Path, out: &mut Faults) {
    let is = s.spec.type_ == "LoadBalancer";
    for (i, r) in s.spec.load_balancer_source_ranges.iter().enumerate() {
        let path = path.child("loadBalancerSourceRanges");
        if !is {
            out.forbidden(&path, "may only be used when `type` is 'LoadBalancer'");
            break;
        }
        if !names::is_cidr(r.trim()) {
            out.invalid(&path.index(i), r, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
        }
    }
    if !is && s.spec.load_balancer_class.is_some() {
        out.forbidden(&path.child("loadBalancerClass"), "may only be used when `type` is 'LoadBalancer'");
    }
    if !is && s.spec.allocate_load_balancer_node_ports.is_some() {
        out.forbidden(&path.child("allocateLoadBalancerNodePorts"), "may only be used when `type` is 'LoadBalancer'");
    }
    let status = Path::root("status").child("loadBalancer").child("ingress");
    for (i, ingress) in s.status.load_balancer.ingress.iter().enumerate() {
        if !ingress.ip.is_empty() && names::ip(&ingress.ip).is_none() {
            out.invalid(&status.index(i).child("ip"), &ingress.ip, names::IP);
        }
    }
}
