//! Where things of a pod live on this host (specification of the kubelet, 8.6). User-chosen names never
//! enter a path unchecked: pod, container and volume names are DNS labels by validation.

use crate::node::state::NodeConfig;
use crate::pod::Pod;

pub fn pod_dir(c: &NodeConfig, uid: &str) -> String {
    format!("{}/pods/{uid}", c.root_dir)
}

/// A volume's directory; `plugin` as upstream escapes it: `empty-dir`, `configmap`, ...
pub fn volume_dir(c: &NodeConfig, uid: &str, plugin: &str, volume: &str) -> String {
    format!("{}/volumes/kubernetes.io~{plugin}/{volume}", pod_dir(c, uid))
}

pub fn sub_path_target(c: &NodeConfig, uid: &str, volume: &str, container: &str, index: usize) -> String {
    format!("{}/volume-subpaths/{volume}/{container}/{index}", pod_dir(c, uid))
}

pub fn hosts_file(c: &NodeConfig, uid: &str) -> String {
    format!("{}/etc-hosts", pod_dir(c, uid))
}

/// The file behind a container's termination message path, one for each start.
pub fn termination_log(c: &NodeConfig, uid: &str, container: &str, attempt: u32) -> String {
    format!("{}/containers/{container}/{attempt:08x}", pod_dir(c, uid))
}

/// `<ns>_<pod>_<uid>` under the pod log directory.
pub fn log_dir(c: &NodeConfig, pod: &Pod) -> String {
    let m = &pod.metadata;
    format!("{}/{}_{}_{}", c.pod_logs_dir, m.namespace, m.name, m.uid)
}

/// The name of a log link without `<id>.log`, cut so that the whole fits in a file name.
pub fn log_link_prefix(pod: &Pod, container: &str) -> String {
    let m = &pod.metadata;
    let mut name = format!("{}_{}_{container}", m.name, m.namespace);
    // 251 characters for the name, of which the id takes 64 and its dash one.
    name.truncate(251 - 65);
    name
}
