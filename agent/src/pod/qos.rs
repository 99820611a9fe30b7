//! QoS class of a pod (specification of the kubelet, 7.7).

use super::{Pod, Resources};
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        })
    }
}

const COMPUTE: [&str; 2] = ["cpu", "memory"];

fn asks_for_nothing(r: &Resources) -> bool {
    COMPUTE.iter().all(|k| [&r.requests, &r.limits].iter().all(|m| m.get(*k).is_none_or(|q| q.is_zero())))
}

fn is_guaranteed(r: &Resources) -> bool {
    COMPUTE.iter().all(|k| match (r.requests.get(*k), r.limits.get(*k)) {
        (Some(request), Some(limit)) => !limit.is_zero() && request == limit,
        (None, Some(limit)) => !limit.is_zero(),
        _ => false,
    })
}

/// BestEffort: no cpu or memory anywhere, init containers and the pod level included. Guaranteed: every
/// container (or the pod level) limits both, with requests equal to limits. Burstable: the rest.
pub fn qos_class(pod: &Pod) -> QosClass {
    if let Some(r) = &pod.spec.resources
        && !asks_for_nothing(r)
    {
        return if is_guaranteed(r) { QosClass::Guaranteed } else { QosClass::Burstable };
    }
    let all = || pod.spec.init_containers.iter().chain(&pod.spec.containers).map(|c| &c.resources);
    if all().all(asks_for_nothing) {
        QosClass::BestEffort
    } else if all().all(is_guaranteed) {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Container;
    use crate::quantity::Quantity;

    fn container(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Container {
        let map = |m: &[(&str, &str)]| m.iter().map(|(k, v)| ((*k).to_owned(), Quantity::parse(v).unwrap())).collect();
        Container { resources: Resources { requests: map(requests), limits: map(limits), claims: vec![] }, ..Container::default() }
    }

    fn class(init: Vec<Container>, main: Vec<Container>) -> QosClass {
        let mut pod = Pod::default();
        pod.spec.init_containers = init;
        pod.spec.containers = main;
        qos_class(&pod)
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        let full = || container(&[("cpu", "1"), ("memory", "1Gi")], &[("cpu", "1000m"), ("memory", "1Gi")]);
        assert_eq!(class(vec![], vec![container(&[], &[])]), QosClass::BestEffort);
        assert_eq!(class(vec![], vec![container(&[("cpu", "0")], &[])]), QosClass::BestEffort);
        assert_eq!(class(vec![], vec![full()]), QosClass::Guaranteed);
        assert_eq!(class(vec![], vec![full(), container(&[], &[])]), QosClass::Burstable);
        assert_eq!(class(vec![], vec![container(&[("cpu", "1")], &[("cpu", "1")])]), QosClass::Burstable);
        assert_eq!(class(vec![container(&[("memory", "1Mi")], &[])], vec![full()]), QosClass::Burstable);
        assert_eq!(class(vec![], vec![container(&[], &[("cpu", "1"), ("memory", "1Gi")])]), QosClass::Guaranteed);
    }

    #[test]
    fn other_resources_do_not_change_the_class() {
        assert_eq!(class(vec![], vec![container(&[("ephemeral-storage", "1Gi")], &[])]), QosClass::BestEffort);
    }
}
