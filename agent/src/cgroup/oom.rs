//! oom_score_adj (specification of the kubelet, 7.4): whom the kernel kills first.

use crate::pod::{Container, ContainerKind, Pod, QosClass, qos_class};
use crate::quantity::Quantity;

/// Ourselves, as kubelet and kube-proxy: the node is lost without us.
pub const DAEMON: i32 = -999;
const GUARANTEED: i32 = -997;
const BEST_EFFORT: i32 = 1000;

/// The score of a container on a node with `node_memory` bytes.
pub fn score(pod: &Pod, c: &Container, kind: ContainerKind, node_memory: i64) -> i32 {
    if pod.spec.priority_class_name == "system-node-critical" && pod.is_critical() {
        return GUARANTEED;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => GUARANTEED,
        QosClass::BestEffort => BEST_EFFORT,
        QosClass::Burstable => {
            let own = burstable(memory_request(pod, c), node_memory);
            if kind == ContainerKind::Sidecar {
                // A sidecar must not die before the containers that it serves.
                let smallest = pod.spec.containers.iter().map(|m| memory_request(pod, m)).min().unwrap_or(0);
                own.min(burstable(smallest, node_memory))
            } else {
                own
            }
        }
    }
}

fn burstable(request: i64, node_memory: i64) -> i32 {
    let raw = 1000 - 1000_i128 * i128::from(request) / i128::from(node_memory.max(1));
    i32::try_from(raw.clamp(3, 999)).expect("clamped to three digits")
}

/// A container's memory request; with a pod-level request the part that no container claims is shared evenly.
fn memory_request(pod: &Pod, c: &Container) -> i64 {
    let of = |c: &Container| c.resources.requests.get("memory").map_or(0, Quantity::value);
    let Some(level) = pod.spec.resources.as_ref().and_then(|r| r.requests.get("memory")) else { return of(c) };
    let all: Vec<&Container> =
        pod.containers().filter(|(k, _)| matches!(k, ContainerKind::Main | ContainerKind::Sidecar)).map(|(_, c)| c).collect();
    let claimed: i64 = all.iter().map(|c| of(c)).sum();
    of(c) + (level.value() - claimed).max(0) / i64::try_from(all.len().max(1)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Resources;

    const GIB: i64 = 1 << 30;

    fn container(memory: &str, limits: &[(&str, &str)]) -> Container {
        let mut r = Resources::default();
        if !memory.is_empty() {
            r.requests.insert("memory".into(), Quantity::parse(memory).unwrap());
        }
        for (k, v) in limits {
            r.limits.insert((*k).into(), Quantity::parse(v).unwrap());
            r.requests.insert((*k).into(), Quantity::parse(v).unwrap());
        }
        Container { resources: r, ..Container::default() }
    }

    fn score_of(c: Container) -> i32 {
        let mut pod = Pod::default();
        pod.spec.containers = vec![c.clone()];
        score(&pod, &c, ContainerKind::Main, 4 * GIB)
    }

    #[test]
    fn scores_follow_the_class_and_the_request() {
        assert_eq!(score_of(container("", &[("cpu", "1"), ("memory", "1Gi")])), -997);
        assert_eq!(score_of(container("", &[])), 1000);
        assert_eq!(score_of(container("1Gi", &[])), 750);
        assert_eq!(score_of(container("1Ki", &[])), 999);
        assert_eq!(score_of(container("4Gi", &[])), 3);
    }

    #[test]
    fn a_sidecar_outlives_the_containers_it_serves() {
        let (sidecar, main) = (container("1Ki", &[]), container("2Gi", &[]));
        let mut pod = Pod::default();
        pod.spec.containers = vec![main];
        assert_eq!(score(&pod, &sidecar, ContainerKind::Sidecar, 4 * GIB), 500);
    }
}
