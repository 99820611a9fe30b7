//! A pod that the runtime holds and nobody wants: its definition is gone, so that it is rebuilt from
//! what is written on its containers, as far as ending it properly needs.

use crate::pod::{Container, ContainerRestartPolicy, Handler, Lifecycle, Pod, RestartPolicy};
use longshore_cri::labels::ContainerKind;
use longshore_cri::snapshot::ObservedPod;

/// Grace in seconds for orphans whose containers say nothing.
const DEFAULT_GRACE: i64 = 30;

pub fn pod(o: &ObservedPod) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = o.name.to_string();
    pod.metadata.namespace = o.namespace.to_string();
    pod.metadata.uid = o.uid.to_string();
    pod.spec.restart_policy = RestartPolicy::Never;
    let grace = o.containers.iter().find_map(|c| c.facts.deletion_grace_period.or(c.facts.termination_grace_period));
    pod.spec.termination_grace_period_seconds = grace.unwrap_or(DEFAULT_GRACE);
    pod.spec.host_network = o.sandbox().is_some_and(|s| s.host_network);
    for record in &o.containers {
        if pod.container(&record.name).is_some() {
            continue;
        }
        let hook = record.facts.pre_stop_handler.as_deref().and_then(|j| crate::typed::read_text::<Handler>(j.as_bytes()).ok());
        let c = Container {
            name: record.name.to_string(),
            image: record.image.to_string(),
            lifecycle: hook.map(|h| Lifecycle { pre_stop: Some(h), ..Lifecycle::default() }),
            ports: record.facts.ports.iter().filter_map(port).collect(),
            ..Container::default()
        };
        match record.facts.kind {
            Some(ContainerKind::Sidecar) => {
                pod.spec.init_containers.push(Container { restart_policy: Some(ContainerRestartPolicy::Always), ..c });
            }
            Some(ContainerKind::Init) => pod.spec.init_containers.push(c),
            Some(ContainerKind::Ephemeral) => pod.spec.ephemeral_containers.push(c),
            Some(ContainerKind::Regular) | None => pod.spec.containers.push(c),
        }
    }
    pod
}

fn port(p: &longshore_cri::labels::ContainerPort) -> Option<crate::pod::ContainerPort> {
    Some(crate::pod::ContainerPort {
        name: p.name.to_string(),
        container_port: u16::try_from(p.container_port).ok()?,
        ..crate::pod::ContainerPort::default()
    })
}
