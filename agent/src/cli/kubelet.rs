//! The program called `kubelet`: that program's command line, and a node without the data plane.

use crate::cgroup::Driver;
use crate::config::{CommandLine, Configuration, FieldError, flags};
use crate::run::assemble::Options;
use crate::run::{cluster, kubelet, process};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::filter::LevelFilter;

const ROOT: &str = "/var/lib/kubelet";

/// As `kubelet`.
pub fn by_name(words: &[String]) -> ExitCode {
    let line = flags::parse(words);
    match line.own("version") {
        Some("raw") => {
            let version = crate::KUBERNETES_VERSION;
            println!(
                "version.Info{{Major:\"1\", Minor:\"36\", GitVersion:\"{version}\", Platform:\"linux/{}\"}}",
                crate::run::assemble::architecture()
            );
            return ExitCode::SUCCESS;
        }
        Some(_) => {
            println!("Kubernetes {}", crate::KUBERNETES_VERSION);
            return ExitCode::SUCCESS;
        }
        None => {}
    }
    if line.own("help").is_some() {
        help();
        return ExitCode::SUCCESS;
    }
    match start(&line) {
        Ok(options) => super::run::daemon(options),
        Err(errors) => {
            for e in errors {
                eprintln!("error: {e}");
            }
            ExitCode::FAILURE
        }
    }
}

fn help() {
    println!("The node agent of Kubernetes {}, by Longshore.\n\nUsage:\n  kubelet [flags]\n\nFlags:", crate::KUBERNETES_VERSION);
    for (name, valued) in flags::names() {
        println!("  --{name}{}", if valued { " VALUE" } else { "" });
    }
}

/// Settles everything, begins to log, and tells what is not as it was asked for.
fn start(line: &CommandLine) -> Result<Options, Vec<FieldError>> {
    let settled = kubelet::load(line)?;
    let config = settled.config;
    let options = options(line, &config)?;
    process::tune();
    let level = match config.number("logging.verbosity") {
        0..=3 => LevelFilter::INFO,
        4 | 5 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    process::log(level, config.text("logging.format") == "json");
    process::claim();
    for warning in &line.warnings {
        tracing::warn!("{warning}");
    }
    for field in settled.unknown {
        tracing::warn!("the configuration has a field that is not known: {}", field.field);
    }
    let idle: Vec<&str> = config.without_effect().into_iter().chain(line.without_effect()).collect();
    if !idle.is_empty() {
        tracing::warn!("set, and without effect in this version: {}", idle.join(", "));
    }
    if let Some(why) = kubelet::refusal(&config) {
        return Err(vec![FieldError::new("kubelet", why)]);
    }
    Ok(options)
}

fn options(line: &CommandLine, c: &Configuration) -> Result<Options, Vec<FieldError>> {
    let root = PathBuf::from(line.own("root-dir").unwrap_or(ROOT));
    let path = |flag: &str, default: &str| PathBuf::from(line.own(flag).unwrap_or(default));
    let state_dir = path("state-dir", "/var/lib/longshore");
    let ip = c.text("address").parse().map_err(|_| vec![FieldError::new("address", "is not an IP address")])?;
    let port = u16::try_from(c.number("port")).map_err(|_| vec![FieldError::new("port", "is no port")])?;
    let endpoint = c.text("containerRuntimeEndpoint");
    let node_ips = line.own("node-ip").unwrap_or_default().split(',').filter(|t| !t.is_empty()).map(|t| t.trim().parse());
    let node_ips = node_ips.collect::<Result<Vec<std::net::IpAddr>, _>>().map_err(|e| vec![FieldError::new("--node-ip", e.to_string())])?;
    Ok(Options {
        cluster: member(line, c)?,
        service_proxy: false,
        // Without a control plane: what comes through the daemon's own socket.
        manifests: state_dir.join("manifests"),
        static_pods: Some(c.text("staticPodPath")).filter(|p| !p.is_empty()).map(PathBuf::from),
        static_pods_period: c.duration("fileCheckFrequency"),
        runtime_endpoint: if endpoint.starts_with('/') { format!("unix://{endpoint}") } else { endpoint.to_owned() },
        state_dir,
        root_dir: root,
        run_dir: path("run-dir", "/run/longshore"),
        pod_logs_dir: c.text("podLogsDir").into(),
        container_logs_dir: path("container-logs-dir", "/var/log/containers"),
        cluster_cidrs: vec!["10.244.0.0/16".into()],
        service_cidrs: vec!["10.96.0.0/16".into()],
        dns_address: None,
        proxy_mode: "nftables".into(),
        hold_node_ports: false,
        node_port_addresses: vec!["primary".into()],
        proxy_health: None,
        proxy_metrics: None,
        node_ports: (30_000, 32_767),
        api_address: None,
        api_tokens: None,
        api_roles: None,
        kubelet_address: Some(SocketAddr::new(ip, port)),
        kubelet_config: None,
        kubelet: kubelet::Settings { node_ips, ..kubelet::Settings::of(c) },
        cluster_domain: c.text("clusterDomain").into(),
        node_name: process::node_name(line.own("hostname-override").map(str::to_owned)),
        cgroup_driver: if c.text("cgroupDriver") == "systemd" { Driver::Systemd } else { Driver::Cgroupfs },
        cgroup_root: Some(c.text("cgroupRoot")).filter(|p| !p.is_empty()).unwrap_or("/").into(),
        max_pods: max_pods(c),
        parallel_starts: super::run::parallel_starts(),
        request_timeout: c.duration("runtimeRequestTimeout"),
    })
}

/// `maxPods`, or fewer by `podsPerCore`.
fn max_pods(c: &Configuration) -> usize {
    let number = |field: &str| usize::try_from(c.number(field)).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match number("podsPerCore") {
        0 => number("maxPods"),
        n => number("maxPods").min(n * cores),
    }
}

/// None: stand-alone.
fn member(line: &CommandLine, c: &Configuration) -> Result<Option<cluster::Options>, Vec<FieldError>> {
    let Some(kubeconfig) = line.own("kubeconfig") else { return Ok(None) };
    let labels = line.own("node-labels").unwrap_or_default().split(',').filter(|l| !l.is_empty()).map(super::run::node_label);
    let labels = labels.collect::<Result<_, _>>().map_err(|e| vec![FieldError::new("--node-labels", e)])?;
    let root = PathBuf::from(line.own("root-dir").unwrap_or(ROOT));
    let certificates = cluster::certificates::Options {
        bootstrap: line.own("bootstrap-kubeconfig").map(PathBuf::from),
        rotate: c.truth("rotateCertificates"),
        serving: c.truth("serverTLSBootstrap"),
        ..cluster::certificates::Options::new(line.own("cert-dir").map_or_else(|| root.join("pki"), PathBuf::from))
    };
    let rate = |field: &str| u32::try_from(c.number(field)).unwrap_or_default();
    Ok(Some(cluster::Options {
        qps: f64::from(rate("kubeAPIQPS")),
        burst: rate("kubeAPIBurst"),
        event_qps: f64::from(rate("eventRecordQPS")),
        event_burst: rate("eventBurst"),
        register: c.truth("registerNode"),
        labels,
        taints: c.get("registerWithTaints").and_then(Value::as_array).cloned().unwrap_or_default(),
        provider_id: c.text("providerID").into(),
        update: c.duration("nodeStatusUpdateFrequency"),
        report: c.duration("nodeStatusReportFrequency"),
        certificates,
        ..cluster::Options::new(kubeconfig.into())
    }))
}
