//! containerd's configuration file, for its two formats: 2 (containerd 1.6 and 1.7) and 3 (2.x).

use std::path::Path;

/// What the file says; paths are absolute.
pub(super) struct Settings<'a> {
    /// The lab's `containerd` directory.
    pub(super) base: &'a Path,
    pub(super) pause_image: &'a str,
    pub(super) snapshotter: &'a str,
    pub(super) cni_plugins: &'a Path,
    pub(super) cni_configuration: &'a Path,
    pub(super) registries: &'a Path,
    /// Without CAP_SYS_RESOURCE no process can lower its OOM score, and runc would fail trying.
    pub(super) restrict_oom_score: bool,
    /// Containers are scopes of systemd.
    pub(super) systemd: bool,
}

/// What both formats share: places, and the plugins that nothing here needs.
fn preamble(format: u32, settings: &Settings<'_>) -> String {
    let base = settings.base.display();
    format!(
        r#"version = {format}
root = "{base}/root"
state = "{base}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{base}/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "{base}/opt"
"#
    )
}

/// For containerd 1.x.
pub(super) fn format_2(settings: &Settings<'_>) -> String {
    let Settings { pause_image, snapshotter, restrict_oom_score, systemd, .. } = settings;
    let preamble = preamble(2, settings);
    let base = settings.base.display();
    let cni_plugins = settings.cni_plugins.display();
    let cni_configuration = settings.cni_configuration.display();
    let registries = settings.registries.display();
    format!(
        r#"{preamble}
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause_image}"
restrict_oom_score_adj = {restrict_oom_score}
netns_mounts_under_state_dir = true
disable_tcp_service = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni_plugins}"
conf_dir = "{cni_configuration}"

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{registries}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = {systemd}
Root = "{base}/runc"
"#
    )
}

/// For containerd 2.x; 2.1 renamed the plugins' directory to a list.
pub(super) fn format_3(settings: &Settings<'_>, minor: u32) -> String {
    let Settings { pause_image, snapshotter, restrict_oom_score, systemd, .. } = settings;
    let preamble = preamble(3, settings);
    let base = settings.base.display();
    let directory = settings.cni_plugins.display();
    let cni_plugins = match minor {
        0 => format!("bin_dir = \"{directory}\""),
        _ => format!("bin_dirs = [\"{directory}\"]"),
    };
    let cni_configuration = settings.cni_configuration.display();
    let registries = settings.registries.display();
    format!(
        r#"{preamble}
[plugins."io.containerd.nri.v1.nri"]
disable = true

[plugins."io.containerd.grpc.v1.cri"]
disable_tcp_service = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "{snapshotter}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause_image}"

[plugins."io.containerd.cri.v1.images".registry]
config_path = "{registries}"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = {restrict_oom_score}
netns_mounts_under_state_dir = true

[plugins."io.containerd.cri.v1.runtime".cni]
{cni_plugins}
conf_dir = "{cni_configuration}"

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = {systemd}
Root = "{base}/runc"
"#
    )
}
