//! What is written into a group (specification of the kubelet, 7.3). All first computed, then written.

use crate::pod::resources::{limit, requests, to_milli, to_units};
use crate::pod::{Container, Pod, QosClass, qos_class};
use crate::quantity::Quantity;
use longshore_cri::resources;

pub const MIN_SHARES: u64 = 2;
pub const MAX_SHARES: u64 = 262_144;
/// The CFS period in microseconds.
pub const PERIOD_US: u64 = 100_000;

/// The values of one group. None: leave the kernel's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupValues {
    pub cpu_shares: Option<u64>,
    /// Microseconds per [`PERIOD_US`]; −1 removes the bound.
    pub cpu_quota: Option<i64>,
    /// Bytes; −1 removes the bound.
    pub memory_max: Option<i64>,
    pub pids_max: Option<i64>,
}

/// cpu.shares for a request in millicores.
pub fn shares(milli: i64) -> u64 {
    u64::try_from(resources::shares(milli)).expect("clamped to positive shares")
}

/// cpu.cfs_quota_us for a limit in millicores; 0 means unset.
pub fn quota(milli: i64) -> i64 {
    resources::quota(milli, PERIOD_US as i64)
}

/// cpu.weight of cgroup v2 for cpu.shares of v1.
pub fn weight(shares: u64) -> u64 {
    if shares >= MAX_SHARES {
        return 10_000;
    }
    1 + (shares.max(MIN_SHARES) - 2) * 9_999 / 262_142
}

/// Values of a pod's own group.
pub fn pod_values(pod: &Pod, pod_pids_limit: i64) -> CgroupValues {
    let class = qos_class(pod);
    let request = requests(pod).get("cpu").copied().unwrap_or(0);
    let pids_max = (pod_pids_limit > 0).then_some(pod_pids_limit);
    if class == QosClass::BestEffort {
        return CgroupValues { cpu_shares: Some(MIN_SHARES), pids_max, ..CgroupValues::default() };
    }
    let cpu = limit(pod, "cpu").map(|n| quota(to_milli(n)));
    let memory = limit(pod, "memory").map(to_units);
    CgroupValues {
        cpu_shares: Some(shares(to_milli(request))),
        cpu_quota: Some(cpu.filter(|q| *q > 0).unwrap_or(-1)),
        memory_max: memory.filter(|m| *m > 0),
        pids_max,
    }
}

/// Values of the burstable or besteffort group, from the pods that are active in it.
pub fn qos_values<'a>(class: QosClass, active: impl Iterator<Item = &'a Pod>) -> CgroupValues {
    let cpu_shares = match class {
        QosClass::BestEffort => MIN_SHARES,
        _ => {
            let sum: i128 = active.filter(|p| qos_class(p) == class).map(|p| requests(p).get("cpu").copied().unwrap_or(0)).sum();
            shares(to_milli(sum))
        }
    };
    CgroupValues { cpu_shares: Some(cpu_shares), ..CgroupValues::default() }
}

/// Values of the `kubepods` group: what the node's pods may use together.
pub fn node_values(cpu_milli: i64, memory_bytes: i64, max_pids: Option<i64>) -> CgroupValues {
    CgroupValues { cpu_shares: Some(shares(cpu_milli)), cpu_quota: None, memory_max: Some(memory_bytes), pids_max: max_pids }
}

/// What the runtime is told for one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerValues {
    pub shares: u64,
    /// 0: no bound.
    pub quota_us: i64,
    pub period_us: u64,
    /// 0: no bound.
    pub memory_bytes: i64,
}

/// Shares from the request (from the limit where only that is given), bounds from the limits; a container
/// without a limit of its own takes the pod-level one.
pub fn container_values(pod: &Pod, c: &Container) -> ContainerValues {
    let pod_level = |key: &str| pod.spec.resources.as_ref().and_then(|r| r.limits.get(key));
    let limit = |key: &str| c.resources.limits.get(key).filter(|q| !q.is_zero()).or_else(|| pod_level(key));
    let request = c.resources.requests.get("cpu").or_else(|| c.resources.limits.get("cpu"));
    ContainerValues {
        shares: shares(request.map_or(0, Quantity::milli)),
        quota_us: quota(limit("cpu").map_or(0, Quantity::milli)),
        period_us: PERIOD_US,
        memory_bytes: limit("memory").map_or(0, Quantity::value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Resources;

    #[test]
    fn shares_and_quotas_are_the_kubelets() {
        assert_eq!([0, 1, 2, 100, 1000, 256_000, 999_999].map(shares), [2, 2, 2, 102, 1024, 262_144, 262_144]);
        assert_eq!([0, 1, 10, 200, 1500].map(quota), [0, 1_000, 1_000, 20_000, 150_000]);
        assert_eq!([2, 102, 1024, 262_144].map(weight), [1, 4, 39, 10_000]);
    }

    fn container(request: &[(&str, &str)], limit: &[(&str, &str)]) -> Container {
        let map = |m: &[(&str, &str)]| m.iter().map(|(k, v)| ((*k).to_owned(), Quantity::parse(v).unwrap())).collect();
        Container { resources: Resources { requests: map(request), limits: map(limit), claims: vec![] }, ..Container::default() }
    }

    fn pod(containers: Vec<Container>) -> Pod {
        let mut p = Pod::default();
        p.spec.containers = containers;
        p
    }

    #[test]
    fn a_pods_group_is_bounded_only_when_all_its_containers_are() {
        let v = pod_values(&pod(vec![container(&[("cpu", "100m")], &[("cpu", "200m"), ("memory", "64Mi")])]), -1);
        assert_eq!(v, CgroupValues { cpu_shares: Some(102), cpu_quota: Some(20_000), memory_max: Some(64 << 20), pids_max: None });
        let v = pod_values(&pod(vec![container(&[("cpu", "100m")], &[("cpu", "200m")]), container(&[("cpu", "50m")], &[])]), 100);
        assert_eq!(v, CgroupValues { cpu_shares: Some(153), cpu_quota: Some(-1), memory_max: None, pids_max: Some(100) });
        assert_eq!(pod_values(&pod(vec![container(&[], &[])]), -1).cpu_shares, Some(2));
    }

    #[test]
    fn the_burstable_group_weighs_what_its_pods_request() {
        let pods =
            [pod(vec![container(&[("cpu", "500m")], &[])]), pod(vec![container(&[("cpu", "1")], &[])]), pod(vec![container(&[], &[])])];
        assert_eq!(qos_values(QosClass::Burstable, pods.iter()).cpu_shares, Some(1536));
        assert_eq!(qos_values(QosClass::BestEffort, pods.iter()).cpu_shares, Some(2));
    }

    #[test]
    fn a_container_takes_its_limit_as_request_when_it_has_no_other() {
        let c = container(&[], &[("cpu", "200m"), ("memory", "10M")]);
        assert_eq!(
            container_values(&pod(vec![]), &c),
            ContainerValues { shares: 204, quota_us: 20_000, period_us: 100_000, memory_bytes: 10_000_000 }
        );
        assert_eq!(
            container_values(&pod(vec![]), &container(&[], &[])),
            ContainerValues { shares: 2, quota_us: 0, period_us: 100_000, memory_bytes: 0 }
        );
    }
}
