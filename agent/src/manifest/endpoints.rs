//! Endpoints (core/v1) as slices, as the endpoint slice mirroring controller makes them.

use super::default;
use super::problem::{Faults, Path};
use super::validate::{meta, names, slice::special};
use crate::pod::Meta;
use longshore_dataplane::wire::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice, ObjectMeta, ObjectReference};
use serde::Deserialize;
use std::collections::BTreeMap;

pub const MIRRORED: &str = "endpointslicemirroring-controller.k8s.io";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that stay with the Endpoints.
const OWN: [&str; 2] = ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// The controller takes that many addresses of a subset, ready ones first.
const MOST: usize = 1000;

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Endpoints {
    metadata: Meta,
    subsets: Vec<Subset>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subset {
    addresses: Vec<Address>,
    not_ready_addresses: Vec<Address>,
    ports: Vec<EndpointPort>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Address {
    ip: String,
    hostname: String,
    node_name: Option<String>,
    target_ref: Option<ObjectReference>,
}

/// One slice for each family and set of ports.
pub fn slices(mut e: Endpoints, out: &mut Faults) -> Vec<EndpointSlice> {
    default::meta(&mut e.metadata);
    let m = &e.metadata;
    meta::check(&m.name, &m.generate_name, &m.namespace, &m.labels, &m.annotations, names::subdomain, out);
    // In the order of the file, so that names stay as they are while ports stay.
    let mut groups: BTreeMap<(usize, bool), EndpointSlice> = BTreeMap::new();
    let mut sets: Vec<Vec<EndpointPort>> = Vec::new();
    for (i, subset) in e.subsets.into_iter().enumerate() {
        let path = Path::root("subsets").index(i);
        check(&subset, &path, out);
        let ports = ports(subset.ports);
        let set = sets.iter().position(|s| *s == ports).unwrap_or_else(|| {
            sets.push(ports.clone());
            sets.len() - 1
        });
        let ready = subset.addresses.into_iter().map(|a| (a, true));
        let all = ready.chain(subset.not_ready_addresses.into_iter().map(|a| (a, false)));
        for (a, ready) in all.take(MOST) {
            let v4 = !a.ip.contains(':');
            let slice = groups.entry((set, v4)).or_insert_with(|| empty(&e.metadata, v4, set, ports.clone()));
            slice.endpoints.push(endpoint(a, ready));
        }
    }
    let skipped = m.labels.get(SKIP).is_some_and(|v| v == "true") || m.annotations.contains_key(LEADER);
    if skipped { Vec::new() } else { groups.into_values().collect() }
}

fn check(s: &Subset, path: &Path, out: &mut Faults) {
    if s.addresses.is_empty() && s.not_ready_addresses.is_empty() {
        out.required(path, "must specify `addresses` or `notReadyAddresses`");
    }
    for (field, list) in [("addresses", &s.addresses), ("notReadyAddresses", &s.not_ready_addresses)] {
        for (i, a) in list.iter().enumerate() {
            let path = path.child(field).index(i);
            match names::ip(&a.ip) {
                None => out.invalid(&path.child("ip"), &a.ip, names::IP),
                Some(ip) => special(ip, &a.ip, &path.child("ip"), out),
            }
            if !a.hostname.is_empty() {
                for m in names::label(&a.hostname) {
                    out.invalid(&path.child("hostname"), &a.hostname, &m);
                }
            }
        }
    }
    for (i, p) in s.ports.iter().enumerate() {
        let path = path.child("ports").index(i);
        let name = p.name.as_deref().unwrap_or_default();
        if name.is_empty() && s.ports.len() > 1 {
            out.required(&path.child("name"), "");
        }
        for m in if name.is_empty() { Vec::new() } else { names::label(name) } {
            out.invalid(&path.child("name"), name, &m);
        }
        if p.port.unwrap_or(0) == 0 {
            out.invalid_number(&path.child("port"), 0, "must be between 1 and 65535, inclusive");
        }
    }
}

fn ports(from: Vec<EndpointPort>) -> Vec<EndpointPort> {
    let filled = |p: EndpointPort| EndpointPort {
        name: Some(p.name.unwrap_or_default()),
        protocol: Some(p.protocol.unwrap_or_else(|| "TCP".into())),
        ..p
    };
    from.into_iter().map(filled).collect()
}

fn empty(m: &Meta, v4: bool, set: usize, ports: Vec<EndpointPort>) -> EndpointSlice {
    let mut labels = m.labels.clone();
    labels.insert(SERVICE_NAME.into(), m.name.clone());
    labels.insert(MANAGED_BY.into(), MIRRORED.into());
    let annotations = m.annotations.iter().filter(|(k, _)| !OWN.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
    let (family, suffix) = if v4 { ("IPv4", "v4") } else { ("IPv6", "v6") };
    EndpointSlice {
        metadata: ObjectMeta {
            name: format!("{}-mirrored-{suffix}-{set}", m.name),
            namespace: m.namespace.clone(),
            labels,
            annotations,
            ..ObjectMeta::default()
        },
        address_type: family.into(),
        ports,
        endpoints: Vec::new(),
    }
}

fn endpoint(a: Address, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![a.ip],
        conditions: EndpointConditions { ready: Some(ready), ..EndpointConditions::default() },
        node_name: a.node_name,
        hostname: (!a.hostname.is_empty()).then_some(a.hostname),
        target_ref: a.target_ref,
        ..Endpoint::default()
    }
}
