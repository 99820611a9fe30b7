#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Whether this node takes a pod (specification of the kubelet, 1.5). The first failure is the reason; a critical pod
//! that lacks nothing but room is taken, and others have to go. Tests: `tests.rs`.

mod affinity;
mod fit;
mod preempt;
#[cfg(test)]
mod tests;

pub use affinity::Taint;

use crate::env::NodeFacts;
use crate::node::state::NodeConfig;
use crate::pod::{ContainerPort, Pod, PodUid};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    pub message: String,
}

impl Rejection {
    fn new(reason: impl Into<String>, message: impl Into<String>) -> Rejection {
        Rejection { reason: reason.into(), message: message.into() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    Admitted,
    Rejected(Rejection),
    /// It is taken when these have ended.
    Preempts(Vec<PodUid>),
}

fn reject(reason: &'static str, message: impl Into<String>) -> Result<(), Rejection> {
    Err(Rejection::new(reason, message))
}

/// `active` are the pods that this node took already and that are not over.
pub fn admit<'a>(pod: &Pod, active: impl Iterator<Item = &'a Pod>, node: &NodeFacts, config: &NodeConfig) -> Admission {
    let active: Vec<&Pod> = active.collect();
    if let Err(r) = sysctls(pod, config).and_then(|()| same_system(pod, node)) {
        return Admission::Rejected(r);
    }
    let short = fit::shortages(pod, &active, node, config.max_pods);
    let others = misfit(pod, &active, node);
    match (short.first(), others) {
        (None, None) => Admission::Admitted,
        (_, Some(r)) if short.is_empty() || pod.is_critical() => Admission::Rejected(r),
        (Some(_), None) if pod.is_critical() => match preempt::victims(pod, &active, &short) {
            Ok(victims) => Admission::Preempts(victims.into_iter().map(Pod::uid).collect()),
            Err(left) => Admission::Rejected(Rejection::new(
                "UnexpectedAdmissionError",
                format!(
                    "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: {left}"
                ),
            )),
        },
        (Some(s), _) => Admission::Rejected(s.rejection()),
        (None, Some(r)) => Admission::Rejected(r),
    }
}

fn same_system(pod: &Pod, node: &NodeFacts) -> Result<(), Rejection> {
    const OS: &str = "kubernetes.io/os";
    if pod.metadata.labels.get(OS).is_some_and(|os| node_label(node, OS).as_deref() != Some(os.as_str())) {
        return reject(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        );
    }
    if pod.spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return reject("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS");
    }
    Ok(())
}

/// Why the pod is wrong here, whatever room there is.
fn misfit(pod: &Pod, active: &[&Pod], node: &NodeFacts) -> Option<Rejection> {
    let predicate = |name: &str, why: &str| Some(Rejection::new(name, format!("Predicate {name} failed: node(s) {why}")));
    if !affinity::selects(pod, &node.name, &|key| node_label(node, key)) {
        return predicate("NodeAffinity", "didn't match Pod's node affinity/selector");
    }
    if !pod.spec.node_name.is_empty() && pod.spec.node_name != node.name {
        return predicate("NodeName", "didn't match the requested node name");
    }
    if host_ports(pod).any(|p| active.iter().flat_map(|o| host_ports(o)).any(|q| conflict(p, q))) {
        return predicate("NodePorts", "didn't have free ports for the requested pod ports");
    }
    if !pod.is_static() && affinity::is_driven_off(pod, &node.taints) {
        return predicate("TaintToleration", "had taints that the pod didn't tolerate");
    }
    None
}

/// A label of the node; those that every node has are there before anybody has set them.
fn node_label(node: &NodeFacts, key: &str) -> Option<String> {
    if let Some(set) = node.labels.get(key) {
        return Some(set.clone());
    }
    Some(match key {
        "kubernetes.io/hostname" => node.name.clone(),
        "kubernetes.io/os" | "beta.kubernetes.io/os" => "linux".into(),
        "kubernetes.io/arch" | "beta.kubernetes.io/arch" => node.architecture.clone(),
        _ => return None,
    })
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
