//! What the API server fills in where a manifest says nothing, or says zero.
//!
//! Defaults that need no look at other fields are those of the types in `pod`.

use crate::image::is_latest;
use crate::pod::{Container, Handler, HttpGetAction, ImagePullPolicy, Meta, Pod, Probe, ResourceFieldRef, Volume};
use crate::quantity::Quantity;
use longshore_dataplane::wire::{ClientIpConfig, EndpointSlice, IntOrString, ObjectMeta, Service, SessionAffinityConfig};

pub fn namespace(n: &mut String) {
    if n.is_empty() {
        "default".clone_into(n);
    }
}

/// Drops what the server owns, which a dump of a live object carries, and fills in the namespace.
pub fn meta(m: &mut Meta) {
    namespace(&mut m.namespace);
    m.uid.clear();
    m.resource_version.clear();
    m.generation = 0;
    m.creation_timestamp = None;
    m.deletion_timestamp = None;
    m.deletion_grace_period_seconds = None;
}

fn wire_meta(m: &mut ObjectMeta) {
    namespace(&mut m.namespace);
    m.uid.clear();
    m.resource_version.clear();
    m.creation_timestamp = None;
}

fn text(s: &mut String, default: &str) {
    if s.is_empty() {
        default.clone_into(s);
    }
}

pub fn pod(p: &mut Pod) {
    meta(&mut p.metadata);
    let s = &mut p.spec;
    text(&mut s.scheduler_name, "default-scheduler");
    text(&mut s.service_account_name, "default");
    let host_network = s.host_network;
    let all = s.init_containers.iter_mut().chain(&mut s.containers).chain(&mut s.ephemeral_containers);
    for c in all {
        container(c, host_network);
    }
    for v in &mut s.volumes {
        volume(v);
    }
    if let Some(r) = &mut s.resources {
        for (k, limit) in &r.limits {
            r.requests.entry(k.clone()).or_insert_with(|| limit.clone());
        }
    }
}

fn container(c: &mut Container, host_network: bool) {
    if c.image_pull_policy.is_none() {
        let policy = if is_latest(&c.image) { ImagePullPolicy::Always } else { ImagePullPolicy::IfNotPresent };
        c.image_pull_policy = Some(policy);
    }
    text(&mut c.termination_message_path, "/dev/termination-log");
    for (k, limit) in &c.resources.limits {
        c.resources.requests.entry(k.clone()).or_insert_with(|| limit.clone());
    }
    for p in c.ports.iter_mut().filter(|p| host_network && p.host_port == 0) {
        p.host_port = p.container_port;
    }
    for p in [&mut c.liveness_probe, &mut c.readiness_probe, &mut c.startup_probe].into_iter().flatten() {
        probe(p);
    }
    if let Some(l) = &mut c.lifecycle {
        for h in [&mut l.post_start, &mut l.pre_stop].into_iter().flatten() {
            handler(h);
        }
    }
    for r in c.env.iter_mut().filter_map(|v| v.value_from.as_mut()) {
        if let Some(f) = &mut r.field_ref {
            text(&mut f.api_version, "v1");
        }
        if let Some(r) = &mut r.resource_field_ref {
            divisor(r);
        }
    }
}

/// A divisor of nothing, or of zero, is one.
fn divisor(r: &mut ResourceFieldRef) {
    if r.divisor.as_ref().is_some_and(Quantity::is_zero) {
        r.divisor = None;
    }
}

fn http(h: &mut HttpGetAction) {
    text(&mut h.path, "/");
    text(&mut h.scheme, "HTTP");
}

fn handler(h: &mut Handler) {
    if let Some(h) = &mut h.http_get {
        http(h);
    }
}

/// Zero means absent in the API's numbers.
fn probe(p: &mut Probe) {
    for (n, default) in
        [(&mut p.timeout_seconds, 1), (&mut p.period_seconds, 10), (&mut p.success_threshold, 1), (&mut p.failure_threshold, 3)]
    {
        if *n == 0 {
            *n = default;
        }
    }
    if let Some(h) = &mut p.http_get {
        http(h);
    }
}

fn volume(v: &mut Volume) {
    // `- name: x` alone is an emptyDir.
    let sources = [
        v.empty_dir.is_some(),
        v.host_path.is_some(),
        v.config_map.is_some(),
        v.secret.is_some(),
        v.downward_api.is_some(),
        v.projected.is_some(),
        v.image.is_some(),
        !v.other.is_empty(),
    ];
    if sources.iter().all(|s| !s) {
        v.empty_dir = Some(crate::pod::EmptyDir::default());
    }
    let fields = v.downward_api.iter_mut().flat_map(|d| &mut d.items);
    let projected = v.projected.iter_mut().flat_map(|p| &mut p.sources).filter_map(|s| s.downward_api.as_mut()).flat_map(|d| &mut d.items);
    for item in fields.chain(projected) {
        if let Some(f) = &mut item.field_ref {
            text(&mut f.api_version, "v1");
        }
        if let Some(r) = &mut item.resource_field_ref {
            divisor(r);
        }
    }
    if let Some(i) = &mut v.image
        && i.pull_policy.is_none()
    {
        i.pull_policy = Some(if is_latest(&i.reference) { ImagePullPolicy::Always } else { ImagePullPolicy::IfNotPresent });
    }
}

pub fn service(s: &mut Service) {
    wire_meta(&mut s.metadata);
    let spec = &mut s.spec;
    text(&mut spec.type_, "ClusterIP");
    text(&mut spec.session_affinity, "None");
    if spec.cluster_ip.is_empty()
        && let Some(first) = spec.cluster_ips.first()
    {
        spec.cluster_ip.clone_from(first);
    }
    if spec.session_affinity == "ClientIP" {
        let config = spec.session_affinity_config.get_or_insert_with(SessionAffinityConfig::default);
        config.client_ip.get_or_insert_with(ClientIpConfig::default).timeout_seconds.get_or_insert(10_800);
    }
    let outside = matches!(spec.type_.as_str(), "NodePort" | "LoadBalancer");
    if outside && spec.external_traffic_policy.is_none() {
        spec.external_traffic_policy = Some("Cluster".into());
    }
    if spec.type_ != "ExternalName" && spec.internal_traffic_policy.is_none() {
        spec.internal_traffic_policy = Some("Cluster".into());
    }
    for p in &mut spec.ports {
        text(&mut p.protocol, "TCP");
        if p.port == 0 {
            continue;
        }
        match &p.target_port {
            None | Some(IntOrString::Int(0)) => p.target_port = Some(IntOrString::Int(p.port)),
            Some(IntOrString::String(name)) if name.is_empty() => p.target_port = Some(IntOrString::Int(p.port)),
            Some(_) => {}
        }
    }
}

pub fn slice(s: &mut EndpointSlice) {
    wire_meta(&mut s.metadata);
    for p in &mut s.ports {
        p.name.get_or_insert_default();
        p.protocol.get_or_insert_with(|| "TCP".into());
    }
}
