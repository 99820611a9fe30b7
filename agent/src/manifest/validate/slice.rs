//! Endpoint slices.

use super::{meta, names};
use crate::manifest::problem::{Faults, Path};
use longshore_dataplane::wire::{Endpoint, EndpointSlice};
use std::collections::BTreeSet;

const ENDPOINTS: usize = 1000;
const PORTS: usize = 20_000;
const ADDRESSES: usize = 100;

pub fn slice(s: &EndpointSlice, out: &mut Faults) {
    let m = &s.metadata;
    meta::check(&m.name, "", &m.namespace, &m.labels, &m.annotations, names::subdomain, out);
    if s.address_type.is_empty() {
        out.required(&Path::root("addressType"), "");
    }
    too_many(s.endpoints.len(), ENDPOINTS, &Path::root("endpoints"), out);
    for (i, e) in s.endpoints.iter().enumerate() {
        endpoint(e, &s.address_type, &Path::root("endpoints").index(i), out);
    }
    too_many(s.ports.len(), PORTS, &Path::root("ports"), out);
    let mut seen = BTreeSet::new();
    for (i, p) in s.ports.iter().enumerate() {
        let path = Path::root("ports").index(i);
        let name = p.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            for m in names::label(name) {
                out.invalid(&path.child("name"), name, &m);
            }
        }
        if !seen.insert(name) {
            out.duplicate(&path.child("name"), name);
        }
        if p.port == Some(0) {
            out.invalid_number(&path.child("port"), 0, "must be between 1 and 65535, inclusive");
        }
    }
}

fn too_many(n: usize, most: usize, path: &Path, out: &mut Faults) {
    if n > most {
        out.too_many(path, n, most);
    }
}

fn endpoint(e: &Endpoint, kind: &str, path: &Path, out: &mut Faults) {
    let at = path.child("addresses");
    if e.addresses.is_empty() {
        out.required(&at, "must contain at least 1 address");
    }
    too_many(e.addresses.len(), ADDRESSES, &at, out);
    for (i, a) in e.addresses.iter().enumerate() {
        address(a, kind, &at.index(i), out);
    }
    if let Some(n) = &e.node_name {
        for m in names::subdomain(n) {
            out.invalid(&path.child("nodeName"), n, &m);
        }
    }
    if let Some(h) = &e.hostname {
        for m in names::label(h) {
            out.invalid(&path.child("hostname"), h, &m);
        }
    }
}

fn address(a: &str, kind: &str, path: &Path, out: &mut Faults) {
    match (kind, names::ip(a)) {
        ("IPv4", Some(ip)) if ip.is_ipv4() => special(ip, a, path, out),
        ("IPv4", _) => out.invalid(path, a, "must be a valid IPv4 address"),
        ("IPv6", Some(ip)) if ip.is_ipv6() => special(ip, a, path, out),
        ("IPv6", _) => out.invalid(path, a, "must be a valid IPv6 address"),
        ("FQDN", _) => {
            for m in names::subdomain(a) {
                out.invalid(path, a, &m);
            }
        }
        _ => {}
    }
}

/// Addresses that an endpoint would turn into a way into the node itself.
pub fn special(ip: std::net::IpAddr, a: &str, path: &Path, out: &mut Faults) {
    let link_local = match ip {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0) == 0xfe80,
    };
    if ip.is_unspecified() {
        out.invalid(path, a, &format!("may not be unspecified ({ip})"));
    } else if ip.is_loopback() {
        out.invalid(path, a, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    } else if link_local {
        out.invalid(path, a, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    } else if ip.is_multicast() {
        out.invalid(path, a, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}
