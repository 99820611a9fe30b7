//! The pod's cgroup, directories and volumes, made and taken away.

use super::{Context, Error, SetUp, TearDown, paths};
use crate::cgroup::values::{pod_values, qos_values};
use crate::cgroup::{CgroupPath, CgroupValues};
use crate::pod::{Pod, QosClass, qos_class};
use crate::volume;

/// `active` are the pods that share the class's group, this one included.
pub fn set_up<'a>(ctx: &Context<'_>, active: impl Iterator<Item = &'a Pod>) -> Result<SetUp, Error> {
    let (pod, config) = (ctx.pod, ctx.config);
    let class = qos_class(pod);
    Ok(SetUp {
        cgroup: config.cgroups.pod(class, &pod.uid()),
        cgroup_values: pod_values(pod, config.pod_pids_limit),
        qos: qos(ctx, class, active),
        pod_dir: paths::pod_dir(config, &pod.metadata.uid),
        log_dir: paths::log_dir(config, pod),
        volumes: volume::works(ctx)?,
    })
}

fn qos<'a>(ctx: &Context<'_>, class: QosClass, active: impl Iterator<Item = &'a Pod>) -> Option<(CgroupPath, CgroupValues)> {
    (class != QosClass::Guaranteed).then(|| (ctx.config.cgroups.qos(class), qos_values(class, active)))
}

/// `active` are the pods that share the class's group, this one left out.
pub fn tear_down<'a>(ctx: &Context<'_>, forget: bool, active: impl Iterator<Item = &'a Pod>) -> TearDown {
    let (pod, config) = (ctx.pod, ctx.config);
    let class = qos_class(pod);
    TearDown {
        cgroup: config.cgroups.pod(class, &pod.uid()),
        qos: qos(ctx, class, active),
        pod_dir: paths::pod_dir(config, &pod.metadata.uid),
        logs: forget.then(|| paths::log_dir(config, pod)),
        log_links: (config.container_logs_dir.clone(), format!("{}_{}_", pod.metadata.name, pod.metadata.namespace)),
    }
}
