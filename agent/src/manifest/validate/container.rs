//! One container of a pod.

use super::probe::{self, number};
use super::{environment, names, resources, security};
use crate::manifest::problem::{Faults, Path};
use crate::pod::{Container, ContainerPort, ContainerRestartPolicy, MountPropagation, Pod, RestartRule, VolumeMount};
use longshore_probes::ProbeKind;
use std::collections::BTreeSet;

/// `init`: stands in `initContainers`.
pub fn check(c: &Container, pod: &Pod, init: bool, path: &Path, out: &mut Faults) {
    name(c, path, out);
    if c.image.is_empty() {
        out.required(&path.child("image"), "");
    } else if c.image.trim() != c.image {
        out.invalid(&path.child("image"), &c.image, "must not have leading or trailing whitespace");
    } else if let Err(why) = crate::image::normalize(&c.image) {
        // An API server lets it pass and the kubelet reports InvalidImageName; here there is someone to tell.
        out.invalid(&path.child("image"), &c.image, why);
    }
    ports(c, pod.spec.host_network, &path.child("ports"), out);
    environment::check(c, path, out);
    resources::check(&c.resources, &pod.spec.resource_claims, &path.child("resources"), out);
    mounts(c, pod, &path.child("volumeMounts"), out);
    devices(c, &path.child("volumeDevices"), out);
    restart(c, init, path, out);
    security::container(c, pod, &path.child("securityContext"), out);
    let sidecar = c.restart_policy == Some(ContainerRestartPolicy::Always);
    for (field, kind, p) in [
        ("livenessProbe", ProbeKind::Liveness, &c.liveness_probe),
        ("readinessProbe", ProbeKind::Readiness, &c.readiness_probe),
        ("startupProbe", ProbeKind::Startup, &c.startup_probe),
    ] {
        let Some(p) = p else { continue };
        if init && !sidecar {
            out.forbidden(&path.child(field), "may not be set for init containers without restartPolicy=Always");
        } else {
            probe::probe(p, kind, &path.child(field), out);
        }
    }
    if let Some(l) = &c.lifecycle {
        let stop_only = l.post_start.is_none() && l.pre_stop.is_none();
        if init && !sidecar && !stop_only {
            out.forbidden(&path.child("lifecycle"), "may not be set for init containers without restartPolicy=Always");
        } else {
            let os = pod.spec.os.as_ref().map_or("", |o| o.name.as_str());
            probe::lifecycle(l, os, &path.child("lifecycle"), out);
        }
    }
}

fn name(c: &Container, path: &Path, out: &mut Faults) {
    if c.name.is_empty() {
        out.required(&path.child("name"), "");
    } else {
        for m in names::label(&c.name) {
            out.invalid(&path.child("name"), &c.name, &m);
        }
    }
}

fn ports(c: &Container, host_network: bool, path: &Path, out: &mut Faults) {
    let mut seen = BTreeSet::new();
    for (i, p) in c.ports.iter().enumerate() {
        let path = path.index(i);
        if !p.name.is_empty() {
            let bad = names::port_name(&p.name);
            if bad.is_empty() && !seen.insert(&p.name) {
                out.duplicate(&path.child("name"), &p.name);
            }
            for m in bad {
                out.invalid(&path.child("name"), &p.name, &m);
            }
        }
        port(p, host_network, &path, out);
    }
}

fn port(p: &ContainerPort, host_network: bool, path: &Path, out: &mut Faults) {
    if p.container_port == 0 {
        out.required(&path.child("containerPort"), "");
    } else if host_network && p.host_port != 0 && p.host_port != p.container_port {
        out.invalid_number(&path.child("hostPort"), i64::from(p.host_port), "must match `containerPort` when `hostNetwork` is true");
    }
    if p.host_port != 0 {
        number(i64::from(p.host_port), &path.child("hostPort"), out);
    }
    if !p.host_ip.is_empty() && names::ip(&p.host_ip).is_none() {
        out.invalid(&path.child("hostIP"), &p.host_ip, names::IP);
    }
}

fn mounts(c: &Container, pod: &Pod, path: &Path, out: &mut Faults) {
    let mut points = BTreeSet::new();
    for (i, m) in c.volume_mounts.iter().enumerate() {
        let path = path.index(i);
        if m.name.is_empty() {
            out.required(&path.child("name"), "");
        } else if !pod.spec.volumes.iter().any(|v| v.name == m.name) {
            out.not_found(&path.child("name"), &m.name);
        }
        mount(m, c, &path, out);
        if !m.mount_path.is_empty() && !points.insert(&m.mount_path) {
            out.invalid(&path.child("mountPath"), &m.mount_path, "must be unique");
        }
    }
}

fn mount(m: &VolumeMount, c: &Container, path: &Path, out: &mut Faults) {
    if m.mount_path.is_empty() {
        out.required(&path.child("mountPath"), "");
    } else if !m.mount_path.starts_with('/') {
        out.invalid(&path.child("mountPath"), &m.mount_path, "must be an absolute path");
    }
    for (name, p) in [("subPath", &m.sub_path), ("subPathExpr", &m.sub_path_expr)] {
        if let Some(why) = names::local_path(p) {
            out.invalid(&path.child(name), p, why);
        }
    }
    if !m.sub_path.is_empty() && !m.sub_path_expr.is_empty() {
        out.invalid(&path.child("subPathExpr"), &m.sub_path_expr, "subPathExpr and subPath are mutually exclusive");
    }
    let privileged = c.security_context.as_ref().is_some_and(|s| s.privileged);
    if m.mount_propagation == Some(MountPropagation::Bidirectional) && !privileged {
        out.forbidden(&path.child("mountPropagation"), "Bidirectional mount propagation is available only to privileged containers");
    }
    if let Some(mode) = m.recursive_read_only.as_deref().filter(|m| *m != "Disabled") {
        let path = path.child("recursiveReadOnly");
        if !m.read_only {
            out.forbidden(&path, "may only be specified when readOnly is true");
        } else if m.mount_propagation.is_some_and(|p| p != MountPropagation::None) {
            let why = format!("may only be specified as {mode:?} when mountPropagation is None or not specified");
            out.forbidden(&path, &why);
        }
    }
}

fn devices(c: &Container, path: &Path, out: &mut Faults) {
    if !c.volume_devices.is_empty() {
        out.forbidden(path, "a node without a control plane has no block volumes: mount the device with a hostPath volume");
    }
}

fn restart(c: &Container, init: bool, path: &Path, out: &mut Faults) {
    let rules = &path.child("restartPolicyRules");
    match c.restart_policy {
        None if !c.restart_policy_rules.is_empty() => {
            out.required(&path.child("restartPolicy"), "must specify restartPolicy when restart rules are used");
        }
        Some(ContainerRestartPolicy::Always) if init && !c.restart_policy_rules.is_empty() => {
            out.forbidden(rules, "restartPolicyRules are not allowed for init containers with restart policy Always");
        }
        _ => {}
    }
    if c.restart_policy_rules.len() > 20 {
        out.too_many(rules, c.restart_policy_rules.len(), 20);
    }
    for (i, r) in c.restart_policy_rules.iter().enumerate() {
        rule(r, &rules.index(i), out);
    }
}

fn rule(r: &RestartRule, path: &Path, out: &mut Faults) {
    match r.action.as_str() {
        "" => out.required(&path.child("action"), ""),
        "Restart" | "RestartAllContainers" => {}
        other => out.unsupported(&path.child("action"), other, &["Restart", "RestartAllContainers"]),
    }
    let Some(codes) = &r.exit_codes else {
        out.required(&path.child("exitCodes"), "must be specified");
        return;
    };
    let path = path.child("exitCodes");
    match codes.operator.as_str() {
        "" => out.required(&path.child("operator"), ""),
        "In" | "NotIn" => {}
        other => out.unsupported(&path.child("operator"), other, &["In", "NotIn"]),
    }
    if codes.values.is_empty() {
        out.required(&path.child("values"), "");
    }
    for (i, v) in codes.values.iter().enumerate().filter(|(_, v)| !(0..=255).contains(*v)) {
        out.invalid_number(&path.child("values").index(i), i64::from(*v), "must be between 0 and 255, inclusive");
    }
}
