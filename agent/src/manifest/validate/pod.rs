//! A Pod as a whole.

use super::{container, meta, names, resources, security, volume};
use crate::manifest::problem::{Faults, Path};
use crate::pod::{DnsPolicy, Pod, PodSpec, Toleration};
use std::collections::BTreeSet;

/// The most that the API gives activeDeadlineSeconds.
const MOST_SECONDS: i64 = i32::MAX as i64;

/// What a machine without a control plane cannot do for a pod.
pub fn alone(p: &Pod, out: &mut Faults) {
    volume::alone(&p.spec.volumes, &Path::root("spec").child("volumes"), out);
}

pub fn pod(p: &Pod, out: &mut Faults) {
    let m = &p.metadata;
    meta::check(&m.name, &m.generate_name, &m.namespace, &m.labels, &m.annotations, names::subdomain, out);
    let path = Path::root("spec");
    volume::check(&p.spec.volumes, &path.child("volumes"), out);
    containers(p, &path, out);
    times(&p.spec, &path, out);
    names_of(&p.spec, &path, out);
    dns(&p.spec, &path, out);
    aliases(&p.spec, &path, out);
    security::pod(p, &path.child("securityContext"), out);
    for (i, t) in p.spec.tolerations.iter().enumerate() {
        toleration(t, &path.child("tolerations").index(i), out);
    }
    for (i, g) in p.spec.readiness_gates.iter().enumerate() {
        for m in names::qualified(&g.condition_type) {
            out.invalid(&path.child("readinessGates").index(i).child("conditionType"), &g.condition_type, &m);
        }
    }
    meta::check_labels(&p.spec.node_selector, &path.child("nodeSelector"), out);
    if let Some(r) = &p.spec.resources {
        resources::check(r, &p.spec.resource_claims, &path.child("resources"), out);
        pod_level(p, &path.child("resources"), out);
    }
    if !p.spec.resource_claims.is_empty() {
        out.forbidden(&path.child("resourceClaims"), "a node without a control plane allocates no devices for claims");
    }
    if p.spec.os.as_ref().is_some_and(|o| o.name == "windows") {
        out.unsupported(&path.child("os").child("name"), "windows", &["linux"]);
    }
}

fn containers(p: &Pod, path: &Path, out: &mut Faults) {
    let mut seen = BTreeSet::new();
    if p.spec.containers.is_empty() {
        out.required(&path.child("containers"), "");
    }
    for (field, list, init) in [("containers", &p.spec.containers, false), ("initContainers", &p.spec.init_containers, true)] {
        for (i, c) in list.iter().enumerate() {
            let path = path.child(field).index(i);
            container::check(c, p, init, &path, out);
            if !c.name.is_empty() && !seen.insert(&c.name) {
                out.duplicate(&path.child("name"), &c.name);
            }
        }
    }
    host_ports(p, path, out);
}

/// Two containers of one pod cannot hold the same port of the host.
fn host_ports(p: &Pod, path: &Path, out: &mut Faults) {
    let mut seen = BTreeSet::new();
    for (i, c) in p.spec.containers.iter().enumerate() {
        for (j, port) in c.ports.iter().enumerate().filter(|(_, port)| port.host_port != 0) {
            let key = format!("{}/{}/{}", port.protocol, port.host_ip, port.host_port);
            if !seen.insert(key.clone()) {
                let path = path.child("containers").index(i).child("ports").index(j).child("hostPort");
                out.duplicate(&path, &key);
            }
        }
    }
}

fn times(s: &PodSpec, path: &Path, out: &mut Faults) {
    if s.termination_grace_period_seconds < 0 {
        let path = path.child("terminationGracePeriodSeconds");
        out.invalid_number(&path, s.termination_grace_period_seconds, "must be greater than or equal to 0");
    }
    if let Some(n) = s.active_deadline_seconds.filter(|n| !(1..=MOST_SECONDS).contains(n)) {
        out.invalid_number(&path.child("activeDeadlineSeconds"), n, "must be between 1 and 2147483647, inclusive");
    }
}

fn names_of(s: &PodSpec, path: &Path, out: &mut Faults) {
    for (field, text) in [("hostname", &s.hostname), ("subdomain", &s.subdomain)] {
        if !text.is_empty() {
            for m in names::label(text) {
                out.invalid(&path.child(field), text, &m);
            }
        }
    }
    for (field, text) in [("nodeName", &s.node_name), ("serviceAccountName", &s.service_account_name)] {
        if !text.is_empty() {
            for m in names::subdomain(text) {
                out.invalid(&path.child(field), text, &m);
            }
        }
    }
    if let Some(h) = &s.hostname_override {
        let path = path.child("hostnameOverride");
        if h.len() > 64 {
            out.invalid(&path, h, "must be no more than 64 bytes");
        }
        for m in names::subdomain(h) {
            out.invalid(&path, h, &m);
        }
        if s.set_hostname_as_fqdn {
            out.forbidden(&path, "may not be specified when `setHostnameAsFQDN` is true");
        }
        if s.host_network {
            out.forbidden(&path, "may not be specified when `hostNetwork` is true");
        }
    }
    for (i, r) in s.image_pull_secrets.iter().enumerate() {
        if r.name.is_empty() {
            out.required(&path.child("imagePullSecrets").index(i).child("name"), "");
        }
    }
    if let Some(r) = s.runtime_class_name.as_ref() {
        for m in names::subdomain(r) {
            out.invalid(&path.child("runtimeClassName"), r, &m);
        }
    }
}

fn dns(s: &PodSpec, path: &Path, out: &mut Faults) {
    let path = path.child("dnsConfig");
    let Some(c) = &s.dns_config else {
        if s.dns_policy == DnsPolicy::None {
            out.required(&path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    };
    if s.dns_policy == DnsPolicy::None && c.nameservers.is_empty() {
        out.required(&path.child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None");
    }
    if c.nameservers.len() > 3 {
        out.invalid(&path.child("nameservers"), &c.nameservers.join(" "), "must not have more than 3 nameservers");
    }
    for (i, n) in c.nameservers.iter().enumerate().filter(|(_, n)| names::ip(n).is_none()) {
        out.invalid(&path.child("nameservers").index(i), n, names::IP);
    }
    if c.searches.len() > 32 {
        out.invalid(&path.child("searches"), &c.searches.join(" "), "must not have more than 32 search paths");
    }
    if c.searches.join(" ").len() > 2048 {
        out.invalid(
            &path.child("searches"),
            &c.searches.join(" "),
            "must not have more than 2048 characters (including spaces) in the search list",
        );
    }
    for (i, s) in c.searches.iter().enumerate().filter(|(_, s)| *s != ".") {
        // Underscores are taken since 1.34.
        for m in names::subdomain(&s.strip_suffix('.').unwrap_or(s).replace('_', "x")) {
            out.invalid(&path.child("searches").index(i), s, &m);
        }
    }
    for (i, o) in c.options.iter().enumerate().filter(|(_, o)| o.name.is_empty()) {
        let _ = o;
        out.required(&path.child("options").index(i), "must not be empty");
    }
}

fn aliases(s: &PodSpec, path: &Path, out: &mut Faults) {
    for (i, a) in s.host_aliases.iter().enumerate() {
        let path = path.child("hostAliases").index(i);
        if names::ip(&a.ip).is_none() {
            out.invalid(&path.child("ip"), &a.ip, names::IP);
        }
        for (j, h) in a.hostnames.iter().enumerate() {
            for m in names::subdomain(h) {
                out.invalid(&path.child("hostnames").index(j), h, &m);
            }
        }
    }
}

fn toleration(t: &Toleration, path: &Path, out: &mut Faults) {
    if !t.key.is_empty() {
        for m in names::qualified(&t.key) {
            out.invalid(&path.child("key"), &t.key, &m);
        }
    }
    if t.key.is_empty() && t.operator != "Exists" {
        out.invalid(
            &path.child("operator"),
            &t.operator,
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        );
    }
    if t.toleration_seconds.is_some() && t.effect != "NoExecute" {
        out.invalid(&path.child("effect"), &t.effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
    }
    match t.operator.as_str() {
        "Equal" | "" => {
            for m in names::label_value(&t.value) {
                out.invalid(&path.child("operator"), &t.value, &m);
            }
        }
        "Exists" => {
            if !t.value.is_empty() {
                out.invalid(&path.child("operator"), &t.operator, "value must be empty when `operator` is 'Exists'");
            }
        }
        other => out.unsupported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    if !matches!(t.effect.as_str(), "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        out.unsupported(&path.child("effect"), &t.effect, &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
    }
}

/// Pod-level requests cover those of the containers; no container's limit exceeds the pod's.
fn pod_level(p: &Pod, path: &Path, out: &mut Faults) {
    let Some(r) = &p.spec.resources else { return };
    for name in r.limits.keys().chain(r.requests.keys()).filter(|k| !matches!(k.as_str(), "cpu" | "memory") && !k.starts_with("hugepages-"))
    {
        out.unsupported(path, name, &["cpu", "hugepages-*", "memory"]);
    }
    for (name, have) in &r.requests {
        let sum: i128 = p.spec.containers.iter().filter_map(|c| c.resources.requests.get(name)).map(crate::quantity::Quantity::nanos).sum();
        if have.nanos() < sum {
            out.invalid(
                &path.child("requests").key(name),
                &have.to_string(),
                "must be greater than or equal to aggregate container requests",
            );
        }
    }
    for (name, most) in &r.limits {
        for (i, c) in p.spec.containers.iter().enumerate() {
            if let Some(limit) = c.resources.limits.get(name).filter(|l| *l > most) {
                let path = Path::root("spec").child("containers").index(i).child("resources").child("limits").key(name);
                out.invalid(&path, &limit.to_string(), &format!("must be less than or equal to pod limits of {most}"));
            }
        }
    }
}
