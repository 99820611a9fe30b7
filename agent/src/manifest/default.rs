//! Defaults that depend on other fields, as the API server fills them in.

use crate::image::is_latest;
use crate::pod::{Container, ImagePullPolicy, Pod};

pub fn namespace(n: &mut String) {
    if n.is_empty() {
        "default".clone_into(n);
    }
}

pub fn pod(p: &mut Pod) {
    namespace(&mut p.metadata.namespace);
    let host_network = p.spec.host_network;
    let all = p.spec.init_containers.iter_mut().chain(&mut p.spec.containers).chain(&mut p.spec.ephemeral_containers);
    for c in all {
        container(c, host_network);
    }
}

fn container(c: &mut Container, host_network: bool) {
    if c.image_pull_policy.is_none() {
        let policy = if is_latest(&c.image) { ImagePullPolicy::Always } else { ImagePullPolicy::IfNotPresent };
        c.image_pull_policy = Some(policy);
    }
    for (k, limit) in &c.resources.limits {
        c.resources.requests.entry(k.clone()).or_insert_with(|| limit.clone());
    }
    if host_network {
        for p in &mut c.ports {
            p.host_port = p.container_port;
        }
    }
}
