//! `longshore run`.

use crate::cgroup::Driver;
use crate::cluster::node_object;
use crate::manifest::validate::names;
use crate::run::assemble::{self, Options};
use crate::run::cluster;
use crate::run::kubelet;
use crate::run::process;
use clap::Args;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Run the daemon
#[derive(Args)]
#[command(after_help = "It ends at once on SIGTERM and leaves containers running; the next one finds them again.

Examples:
  longshore run                                     all by default, as the systemd unit does
  longshore run --manifests ./pods -v debug         another directory, and more to read
  longshore run --dns-address 10.96.0.10 --log-json a DNS for service names, logs for machines")]
pub struct Run {
    /// Directory of manifests: the pods, services and configuration that this machine runs
    #[arg(long, default_value = "/etc/longshore/manifests", value_name = "DIR")]
    manifests: PathBuf,
    /// Static pods, as a kubelet takes them: a directory or a file
    #[arg(long, value_name = "PATH")]
    static_pod_path: Option<PathBuf>,
    /// Socket of the container runtime (CRI v1)
    #[arg(long, default_value = "unix:///run/containerd/containerd.sock", value_name = "SOCKET")]
    runtime_endpoint: String,
    /// What must survive a restart of the daemon
    #[arg(long, default_value = "/var/lib/longshore", value_name = "DIR")]
    state_dir: PathBuf,
    /// Volumes and files of pods
    #[arg(long, default_value = "/var/lib/kubelet", value_name = "DIR")]
    root_dir: PathBuf,
    /// The daemon's socket is here
    #[arg(long, default_value = "/run/longshore", value_name = "DIR")]
    run_dir: PathBuf,
    /// Logs of containers
    #[arg(long, default_value = "/var/log/pods", value_name = "DIR")]
    pod_logs_dir: PathBuf,
    /// Links to the logs, for log collectors
    #[arg(long, default_value = "/var/log/containers", value_name = "DIR")]
    container_logs_dir: PathBuf,
    /// Addresses of pods, one range per family
    #[arg(long, value_delimiter = ',', default_value = "10.244.0.0/16", value_name = "CIDR")]
    cluster_cidr: Vec<String>,
    /// Addresses of services, one range per family
    #[arg(long, value_delimiter = ',', default_value = "10.96.0.0/16", value_name = "CIDR")]
    service_cidr: Vec<String>,
    /// Address of the DNS service that pods are given
    #[arg(long, value_name = "IP")]
    dns_address: Option<IpAddr>,
    /// Ports for services of type NodePort
    #[arg(long, default_value = "30000-32767", value_parser = port_range, value_name = "FIRST-LAST")]
    service_node_port_range: (u16, u16),
    /// What services are written in: nftables, ipvs, iptables or userspace
    #[arg(long, default_value = "nftables", value_parser = ["nftables", "ipvs", "iptables", "userspace"], value_name = "MODE")]
    proxy_mode: String,
    /// Listen on the node ports of services, so that no other process takes them
    #[arg(long)]
    hold_node_ports: bool,
    /// Where node ports answer: primary, or ranges of this node's addresses
    #[arg(long, value_delimiter = ',', default_value = "primary", value_name = "CIDR")]
    nodeport_addresses: Vec<String>,
    /// Serve /healthz and /livez of the service proxy here
    #[arg(long, value_name = "IP:PORT")]
    proxy_healthz_bind_address: Option<std::net::SocketAddr>,
    /// Serve metrics of the service proxy here
    #[arg(long, value_name = "IP:PORT")]
    proxy_metrics_bind_address: Option<std::net::SocketAddr>,
    /// Serve the Kubernetes API here too, over TLS: 127.0.0.1:6443 (see longshore kubeconfig)
    #[arg(long, value_name = "IP:PORT")]
    api_bind_address: Option<std::net::SocketAddr>,
    /// Tokens for the API: lines of token,user,uid,"group,group"
    #[arg(long, value_name = "FILE")]
    api_token_file: Option<PathBuf>,
    /// Who may do what through the API: admin, viewer and node, each a list of user:NAME and group:NAME
    #[arg(long, value_name = "FILE")]
    api_role_file: Option<PathBuf>,
    /// Serve the kubelet's own port here, over TLS, and its health on 127.0.0.1:10248; in a cluster 0.0.0.0:10250 unless
    /// it is set
    #[arg(long, value_name = "IP:PORT")]
    kubelet_bind_address: Option<std::net::SocketAddr>,
    /// More about that port: its fields of a KubeletConfiguration
    #[arg(long, value_name = "FILE")]
    kubelet_config: Option<PathBuf>,
    /// Domain of service names
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    cluster_domain: String,
    /// Name of this node; the host's name unless set
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Who writes cgroups where the runtime does not say: cgroupfs or systemd
    #[arg(long, default_value = "cgroupfs", value_parser = ["cgroupfs", "systemd"])]
    cgroup_driver: String,
    /// The group above kubepods
    #[arg(long, default_value = "/", value_name = "PATH")]
    cgroup_root: String,
    /// Pods on this node at most
    #[arg(long, default_value_t = 110, value_name = "N")]
    max_pods: usize,
    /// Pods that start side by side at most
    #[arg(long, value_name = "N")]
    parallel_starts: Option<usize>,
    /// How long a call to the runtime may take; setting up a pod's sandbox has twice this
    #[arg(long, default_value = "2m", value_parser = duration, value_name = "DURATION")]
    runtime_request_timeout: Duration,
    /// Be a node of the cluster that this kubeconfig leads to, instead of a machine without a control plane
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Watch services and endpoint slices by this kubeconfig: an API server may not let a node's own credentials do so
    #[arg(long, value_name = "FILE", requires = "kubeconfig")]
    proxy_kubeconfig: Option<PathBuf>,
    /// Where there is no good client certificate yet: ask for one by this kubeconfig, and write --kubeconfig
    #[arg(long, value_name = "FILE", requires = "kubeconfig")]
    bootstrap_kubeconfig: Option<PathBuf>,
    /// The node's certificates and keys; in the root directory's pki unless set
    #[arg(long, value_name = "DIR", requires = "kubeconfig")]
    cert_dir: Option<PathBuf>,
    /// Ask for the next client certificate before this one ends; so with a bootstrap kubeconfig
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", requires = "kubeconfig")]
    rotate_certificates: Option<bool>,
    /// Have the cluster sign the certificate of the kubelet's port
    #[arg(long, requires = "kubeconfig")]
    rotate_server_certificates: bool,
    /// Labels that the node is born with: key=value,...
    #[arg(long, value_delimiter = ',', value_parser = node_label, value_name = "KEY=VALUE", requires = "kubeconfig")]
    node_labels: Vec<(String, String)>,
    /// Taints that the node is born with: key=value:effect,...
    #[arg(long, value_delimiter = ',', value_parser = taint, value_name = "KEY=VALUE:EFFECT", requires = "kubeconfig")]
    register_with_taints: Vec<serde_json::Value>,
    /// How much to log: error, warn, info, debug, trace
    #[arg(short = 'v', long, default_value = "info", value_name = "LEVEL")]
    log_level: tracing_subscriber::filter::LevelFilter,
    /// Log one JSON object per line
    #[arg(long)]
    log_json: bool,
}

/// Two for each processor: a start waits for the disk and for other processes about half of its time. More would only
/// delay the first pods of many.
pub(super) fn parallel_starts() -> usize {
    (std::thread::available_parallelism().map_or(1, usize::from) * 2).max(4)
}

/// As Go writes them: `2m`, `1m30s`, `500ms`; more than none.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = longshore_dataplane::config::duration::parse(text).filter(|d| !d.is_zero());
    parsed.ok_or_else(|| format!("{text:?} is not a duration such as 2m, 1m30s or 500ms"))
}

pub(super) fn node_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not key=value"))?;
    let wrong = names::qualified(key).into_iter().chain(names::label_value(value)).map(|m| m.to_string()).next();
    match wrong.or_else(|| node_object::refused_label(key)) {
        Some(why) => Err(why),
        None => Ok((key.to_owned(), value.to_owned())),
    }
}

fn taint(text: &str) -> Result<serde_json::Value, String> {
    let error = || format!("{text:?} is not a taint such as key=value:NoSchedule");
    let (what, effect) = text.rsplit_once(':').ok_or_else(error)?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(error());
    }
    let (key, value) = what.split_once('=').unwrap_or((what, ""));
    if !names::qualified(key).is_empty() || !names::label_value(value).is_empty() {
        return Err(error());
    }
    let mut taint = serde_json::json!({"key": key, "effect": effect});
    if !value.is_empty() {
        taint["value"] = value.into();
    }
    Ok(taint)
}

pub(super) fn port_range(text: &str) -> Result<(u16, u16), String> {
    let error = || format!("{text:?} is not a range of ports such as 30000-32767");
    let (first, last) = text.split_once('-').ok_or_else(error)?;
    let range = (first.parse().map_err(|_| error())?, last.parse().map_err(|_| error())?);
    if range.0 == 0 || range.0 > range.1 { Err(error()) } else { Ok(range) }
}

/// Runs the daemon until it ends or is told to stop.
pub(super) fn daemon(options: assemble::Options) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(r) => r,
        Err(e) => {
            eprintln!("longshore: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let local = tokio::task::LocalSet::new();
    let result = local.block_on(&runtime, async {
        tokio::select! {
            // First, so that a signal during the start is heard as well.
            biased;
            () = process::asked_to_stop() => {
                tracing::info!("stopping; containers run on");
                Ok(())
            }
            r = assemble::run(options) => r,
        }
    });
    // Crash-only: what is under way is left where it is, and found again.
    drop(local);
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("longshore: {e}");
            ExitCode::FAILURE
        }
    }
}

impl Run {
    pub fn main(self) -> ExitCode {
        process::tune();
        process::log(self.log_level, self.log_json);
        process::claim();
        daemon(self.options())
    }
    fn options(self) -> Options {
        let (labels, taints) = (self.node_labels.into_iter().collect(), self.register_with_taints);
        let certificates = cluster::certificates::Options {
            rotate: self.rotate_certificates.unwrap_or(self.bootstrap_kubeconfig.is_some()),
            bootstrap: self.bootstrap_kubeconfig,
            serving: self.rotate_server_certificates,
            ..cluster::certificates::Options::new(self.cert_dir.unwrap_or_else(|| self.root_dir.join("pki")))
        };
        let proxy_kubeconfig = self.proxy_kubeconfig;
        let member = |file| cluster::Options { labels, taints, certificates, proxy_kubeconfig, ..cluster::Options::new(file) };
        Options {
            cluster: self.kubeconfig.map(member),
            manifests: self.manifests,
            static_pods: self.static_pod_path,
            static_pods_period: Duration::from_secs(20),
            runtime_endpoint: self.runtime_endpoint,
            state_dir: self.state_dir,
            root_dir: self.root_dir,
            run_dir: self.run_dir,
            pod_logs_dir: self.pod_logs_dir,
            container_logs_dir: self.container_logs_dir,
            cluster_cidrs: self.cluster_cidr,
            service_cidrs: self.service_cidr,
            dns_address: self.dns_address,
            proxy_mode: self.proxy_mode,
            hold_node_ports: self.hold_node_ports,
            node_port_addresses: self.nodeport_addresses,
            proxy_health: self.proxy_healthz_bind_address,
            proxy_metrics: self.proxy_metrics_bind_address,
            node_ports: self.service_node_port_range,
            api_address: self.api_bind_address,
            api_tokens: self.api_token_file,
            api_roles: self.api_role_file,
            kubelet_address: self.kubelet_bind_address,
            kubelet_config: self.kubelet_config,
            kubelet: kubelet::Settings::default(),
            service_proxy: true,
            cluster_domain: self.cluster_domain,
            node_name: process::node_name(self.node_name),
            cgroup_driver: if self.cgroup_driver == "systemd" { Driver::Systemd } else { Driver::Cgroupfs },
            cgroup_root: self.cgroup_root,
            max_pods: self.max_pods,
            parallel_starts: self.parallel_starts.unwrap_or_else(parallel_starts),
            request_timeout: self.runtime_request_timeout,
        }
    }
}
