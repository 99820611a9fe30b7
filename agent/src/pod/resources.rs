//! What a whole pod asks for and is limited to (specification of the kubelet, 1.5 and 7.3).

use super::{Container, ContainerKind, Pod};
use crate::quantity::Quantity;
use std::collections::{BTreeMap, BTreeSet};

/// Nano-units by resource name; exact sums of quantities.
pub type Amounts = BTreeMap<String, i128>;

fn amount(map: &BTreeMap<String, Quantity>, key: &str) -> i128 {
    map.get(key).map_or(0, Quantity::nanos)
}

fn effective(pod: &Pod, of: impl Fn(&Container) -> &BTreeMap<String, Quantity>, key: &str) -> i128 {
    let main: i128 = pod.spec.containers.iter().map(|c| amount(of(c), key)).sum();
    let (mut sidecars, mut init_peak) = (0_i128, 0_i128);
    for (kind, c) in pod.containers() {
        match kind {
            ContainerKind::Sidecar => {
                sidecars += amount(of(c), key);
                init_peak = init_peak.max(sidecars);
            }
            ContainerKind::Init => init_peak = init_peak.max(amount(of(c), key) + sidecars),
            ContainerKind::Main | ContainerKind::Ephemeral => {}
        }
    }
    (main + sidecars).max(init_peak)
}

fn keys(pod: &Pod, of: impl Fn(&Container) -> &BTreeMap<String, Quantity>) -> BTreeSet<String> {
    pod.containers().flat_map(|(_, c)| of(c).keys().cloned().collect::<Vec<_>>()).collect()
}

/// Requests of the pod: `max(containers + sidecars, the heaviest moment of initialisation) + overhead`,
/// with pod-level requests in the place of the sum where they are set.
pub fn requests(pod: &Pod) -> Amounts {
    let mut out: Amounts = keys(pod, |c| &c.resources.requests)
        .into_iter()
        .map(|k| {
            let n = effective(pod, |c| &c.resources.requests, &k);
            (k, n)
        })
        .collect();
    if let Some(r) = &pod.spec.resources {
        out.extend(r.requests.iter().map(|(k, q)| (k.clone(), q.nanos())));
    }
    for (k, q) in &pod.spec.overhead {
        *out.entry(k.clone()).or_default() += q.nanos();
    }
    out
}

/// Limit of the pod for `key` if every container (init containers included) declares one, or the pod
/// level does; overhead included. None: unlimited.
pub fn limit(pod: &Pod, key: &str) -> Option<i128> {
    let base = if let Some(q) = pod.spec.resources.as_ref().and_then(|r| r.limits.get(key)) {
        q.nanos()
    } else {
        let bounded = |c: &Container| c.resources.limits.get(key).is_some_and(|q| !q.is_zero());
        if !pod.spec.init_containers.iter().chain(&pod.spec.containers).all(bounded) {
            return None;
        }
        effective(pod, |c| &c.resources.limits, key)
    };
    Some(base + pod.spec.overhead.get(key).map_or(0, Quantity::nanos))
}

pub const NANO: i128 = 1_000_000_000;

/// Whether a resource is neither of the system nor counted by quotas: device plugins and extenders bring those.
pub fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// Thousandths, rounded up.
pub fn to_milli(nanos: i128) -> i64 {
    i64::try_from((nanos + 999_999).div_euclid(1_000_000)).unwrap_or(i64::MAX)
}

/// Whole units, rounded up.
pub fn to_units(nanos: i128) -> i64 {
    i64::try_from((nanos + NANO - 1).div_euclid(NANO)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::{ContainerRestartPolicy, Resources};

    fn cpu(request: &str) -> Container {
        let requests = [("cpu".to_owned(), Quantity::parse(request).unwrap())].into();
        Container { resources: Resources { requests, ..Resources::default() }, ..Container::default() }
    }

    fn sidecar(request: &str) -> Container {
        Container { restart_policy: Some(ContainerRestartPolicy::Always), ..cpu(request) }
    }

    #[test]
    fn the_heaviest_moment_of_a_pods_life_is_its_request() {
        let mut pod = Pod::default();
        pod.spec.containers = vec![cpu("100m"), cpu("200m")];
        assert_eq!(to_milli(requests(&pod)["cpu"]), 300);
        pod.spec.init_containers = vec![cpu("500m")];
        assert_eq!(to_milli(requests(&pod)["cpu"]), 500);
        pod.spec.init_containers = vec![sidecar("250m"), cpu("100m")];
        assert_eq!(to_milli(requests(&pod)["cpu"]), 550);
        pod.spec.overhead = [("cpu".to_owned(), Quantity::parse("10m").unwrap())].into();
        assert_eq!(to_milli(requests(&pod)["cpu"]), 560);
    }

    #[test]
    fn a_pod_is_limited_only_when_every_container_is() {
        let mut pod = Pod::default();
        let limited = || {
            let limits = [("memory".to_owned(), Quantity::parse("64Mi").unwrap())].into();
            Container { resources: Resources { limits, ..Resources::default() }, ..Container::default() }
        };
        pod.spec.containers = vec![limited(), limited()];
        assert_eq!(limit(&pod, "memory").map(to_units), Some(128 << 20));
        pod.spec.containers.push(Container::default());
        assert_eq!(limit(&pod, "memory"), None);
    }
}
