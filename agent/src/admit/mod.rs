#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Whether this node takes a pod (specification of the kubelet, 1.5): the checks that make sense without
//! an API server. The first failure is the reason. Tests: in this file.

use crate::env::NodeFacts;
use crate::node::state::NodeConfig;
use crate::pod::resources::{Amounts, NANO, requests};
use crate::pod::{ContainerPort, Pod};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: &'static str,
    pub message: String,
}

fn reject(reason: &'static str, message: impl Into<String>) -> Result<(), Rejection> {
    Err(Rejection { reason, message: message.into() })
}

/// `active` are the pods that this node took already and that are not over.
pub fn admit<'a>(pod: &Pod, active: impl Iterator<Item = &'a Pod>, node: &NodeFacts, config: &NodeConfig) -> Result<(), Rejection> {
    let active: Vec<&Pod> = active.collect();
    sysctls(pod, config)?;
    if pod.spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return reject("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS");
    }
    fits(pod, &active, node, config)?;
    if !pod.spec.node_name.is_empty() && pod.spec.node_name != node.name {
        return reject("NodeName", "Predicate NodeName failed: node(s) didn't match the requested node name");
    }
    let selects = |(k, v): (&String, &String)| node_label(node, k).as_deref() == Some(v.as_str());
    if !pod.spec.node_selector.iter().all(selects) {
        return reject("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector");
    }
    if host_ports(pod).any(|p| active.iter().flat_map(|o| host_ports(o)).any(|q| conflict(p, q))) {
        return reject("NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports");
    }
    Ok(())
}

/// Labels that every node has.
fn node_label(node: &NodeFacts, key: &str) -> Option<String> {
    Some(match key {
        "kubernetes.io/hostname" => node.name.clone(),
        "kubernetes.io/os" | "beta.kubernetes.io/os" => "linux".into(),
        "kubernetes.io/arch" | "beta.kubernetes.io/arch" => node.architecture.clone(),
        other => return node.labels.get(other).cloned(),
    })
}

fn fits(pod: &Pod, active: &[&Pod], node: &NodeFacts, config: &NodeConfig) -> Result<(), Rejection> {
    if active.len() >= config.max_pods {
        let (used, capacity) = (active.len(), config.max_pods);
        return reject("OutOfpods", format!("Node didn't have enough resource: pods, requested: 1, used: {used}, capacity: {capacity}"));
    }
    let mut used = Amounts::new();
    for p in active {
        for (k, n) in requests(p) {
            *used.entry(k).or_default() += n;
        }
    }
    for (name, reason) in [("cpu", "OutOfcpu"), ("memory", "OutOfmemory"), ("ephemeral-storage", "OutOfephemeral-storage")] {
        let Some(capacity) = node.allocatable.get(name) else { continue };
        let wanted = requests(pod).get(name).copied().unwrap_or(0);
        let taken = used.get(name).copied().unwrap_or(0);
        if wanted > 0 && wanted + taken > *capacity {
            let unit = if name == "cpu" { NANO / 1000 } else { NANO };
            let text = format!(
                "Node didn't have enough resource: {name}, requested: {}, used: {}, capacity: {}",
                wanted / unit,
                taken / unit,
                capacity / unit
            );
            return reject(reason, text);
        }
    }
    Ok(())
}

fn host_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    pod.containers().flat_map(|(_, c)| &c.ports).filter(|p| p.host_port != 0)
}

fn conflict(a: &ContainerPort, b: &ContainerPort) -> bool {
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    a.host_port == b.host_port && a.protocol == b.protocol && (any(&a.host_ip) || any(&b.host_ip) || a.host_ip == b.host_ip)
}

const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

fn sysctls(pod: &Pod, config: &NodeConfig) -> Result<(), Rejection> {
    for s in &pod.spec.security_context.sysctls {
        let name = s.name.replace('/', ".");
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => *pattern == name,
        };
        if !SAFE_SYSCTLS.contains(&name.as_str()) && !config.allowed_unsafe_sysctls.iter().any(matches) {
            return reject("SysctlForbidden", format!("forbidden sysctl: {name:?} not allowlisted"));
        }
        if pod.spec.host_network && name.starts_with("net.") {
            return reject("SysctlForbidden", format!("forbidden sysctl: {name:?} not allowed with host net enabled"));
        }
        if pod.spec.host_ipc && (name.starts_with("kernel.") || name.starts_with("fs.mqueue.")) {
            return reject("SysctlForbidden", format!("forbidden sysctl: {name:?} not allowed with host ipc enabled"));
        }
    }
    Ok(())
}
