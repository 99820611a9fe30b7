#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The status of a pod, from what is desired, observed and planned (specification of the kubelet, 2).
//!
//! Owns phase, conditions, container states and reasons. Must never decide anything: it only tells. The
//! previous status is an input, because transition times, stickiness of terminal phases and readiness
//! across a restart of the daemon depend on it. Tests: `status/tests.rs`.

mod conditions;
mod containers;
mod phase;
#[cfg(test)]
mod tests;

use crate::env::NodeFacts;
use crate::plan::{DesiredPod, Life, Plan, TerminationCause, Verdicts};
use crate::pod::status::{Ip, Phase, PodStatus};
use crate::pod::{Pod, qos_class};
use crate::time::Now;
use longshore_cri::snapshot::ObservedPod;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// All that a status is made of.
pub struct Input<'a> {
    pub desired: &'a DesiredPod,
    pub observed: &'a ObservedPod,
    pub verdicts: &'a Verdicts,
    pub plan: &'a Plan,
    /// The status that was last made, by this process or the one before it.
    pub previous: Option<&'a PodStatus>,
    pub node: &'a NodeFacts,
    /// Name of the runtime as it stands in container ids: `containerd`.
    pub runtime: &'a str,
    /// Termination messages by container id, already cut to the size of one file.
    pub messages: &'a BTreeMap<Box<str>, Box<str>>,
    pub now: Now,
}

/// A pod that this node refused.
pub fn rejected(pod: &Pod, reason: &str, message: &str, now: Now) -> PodStatus {
    PodStatus {
        observed_generation: pod.metadata.generation,
        phase: Phase::Failed,
        reason: reason.to_owned(),
        message: format!("Pod was rejected: {message}"),
        start_time: Some(now.wall.truncated()),
        qos_class: Some(qos_class(pod)),
        ..PodStatus::default()
    }
}

/// Makes the status. Pure and total.
pub fn status(i: &Input<'_>) -> PodStatus {
    let pod = &*i.desired.pod;
    let over = matches!(i.desired.life, Life::Finished) || i.verdicts.finished_before;
    let mut s = PodStatus {
        observed_generation: pod.metadata.generation,
        start_time: i.previous.and_then(|p| p.start_time).or(Some(i.now.wall.truncated())),
        qos_class: Some(qos_class(pod)),
        ..PodStatus::default()
    };
    containers::fill(i, &mut s);
    s.phase = phase::phase(i, &s, over);
    if let Some(p) = i.previous {
        // A terminal phase never changes; an unchanged phase keeps its explanation.
        if p.phase.is_terminal() {
            s.phase = p.phase;
        }
        if p.phase == s.phase {
            s.reason.clone_from(&p.reason);
            s.message.clone_from(&p.message);
        }
    }
    if let Life::Terminating(t) = &i.desired.life
        && let Some((reason, message)) = failed_by(&t.why)
    {
        s.phase = Phase::Failed;
        s.reason = reason.into();
        s.message = message.into();
    }
    delay_the_end(i, &mut s);
    addresses(i, &mut s);
    conditions::fill(i, &mut s);
    s
}

/// What a pod is told that goes for a critical one.
pub const PREEMPTED: &str = "Preempted in order to admit critical pod";

/// Reason and message of a pod that the node itself brings to an end.
fn failed_by(why: &TerminationCause) -> Option<(&'static str, &'static str)> {
    match why {
        TerminationCause::DeadlineExceeded => Some(("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")),
        TerminationCause::Preempted => Some(("Preempting", PREEMPTED)),
        TerminationCause::Deleted | TerminationCause::Replaced | TerminationCause::Completed => None,
    }
}

/// A pod is not over while something of it runs: its ports and volumes are still taken.
fn delay_the_end(i: &Input<'_>, s: &mut PodStatus) {
    let before = i.previous.map_or(Phase::Pending, |p| p.phase);
    if s.phase.is_terminal() && !before.is_terminal() && i.observed.running().next().is_some() {
        s.phase = if before == Phase::Pending { Phase::Running } else { before };
        s.reason = i.previous.map(|p| p.reason.clone()).unwrap_or_default();
        s.message = i.previous.map(|p| p.message.clone()).unwrap_or_default();
    }
}

fn addresses(i: &Input<'_>, s: &mut PodStatus) {
    let pod = &*i.desired.pod;
    s.host_ip = i.node.host_ips.first().map(ToString::to_string).unwrap_or_default();
    s.host_ips = i.node.host_ips.iter().map(|ip| Ip { ip: ip.to_string() }).collect();
    let ips = pod_ips(pod, i.observed, i.node);
    s.pod_ips = ips.iter().map(|ip| Ip { ip: ip.to_string() }).collect();
    if s.pod_ips.is_empty() {
        // Addresses of an ended pod stay visible.
        if let Some(p) = i.previous {
            s.pod_ips.clone_from(&p.pod_ips);
        }
    }
    s.pod_ip = s.pod_ips.first().map(|ip| ip.ip.clone()).unwrap_or_default();
}

/// The pod's addresses: the node's with the host's network, else those of its sandbox, the node's primary family
/// first and at most one of each.
pub fn pod_ips(pod: &Pod, o: &ObservedPod, node: &NodeFacts) -> Vec<IpAddr> {
    let Some(sandbox) = o.sandbox().filter(|s| s.ready) else { return Vec::new() };
    if pod.spec.host_network {
        return node.host_ips.clone();
    }
    let v4_first = node.host_ips.first().is_none_or(IpAddr::is_ipv4);
    let first = |v4: bool| sandbox.ips.iter().copied().find(|ip| ip.is_ipv4() == v4);
    [first(v4_first), first(!v4_first)].into_iter().flatten().collect()
}
