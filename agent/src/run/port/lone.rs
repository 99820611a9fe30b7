//! The port of a node without a cluster: certificates by the node's own authority, reviews by the node's own API.

use super::{Own, Parts, PortError, Source, TlsError, start};
use crate::port::PortConfig;
use crate::port::config::GoDuration;
use crate::run::api::Api;
use crate::run::api::config::ConfigError;
use crate::run::api::pki::Pki;
use crate::run::assemble::Options;
use crate::run::prober::Counts;
use crate::run::process;
use crate::run::server::Server;
use crate::run::stats::Reader;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// What a kubelet shows under `/logs/`.
const LOGS: &str = "/var/log";

#[derive(Debug, thiserror::Error)]
pub enum LoneError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// What the daemon has for it.
pub struct Lone {
    pub api: Rc<Api>,
    pub server: Server,
    pub stats: Arc<Reader>,
    pub probes: Rc<Counts>,
}

/// Opens the port at this address, with what a file says of it.
pub async fn open(o: &Options, address: SocketAddr, with: Lone) -> Result<(), LoneError> {
    let mut config = match &o.kubelet_config {
        Some(path) => read(path)?,
        None => PortConfig::default(),
    };
    (config.address, config.port) = (address.ip(), address.port());
    let directory = o.state_dir.join("pki");
    let pki = Rc::new(Pki::open(&directory).map_err(ConfigError::from)?);
    if config.authentication.x509.client_ca_file.is_empty() {
        config.authentication.x509.client_ca_file = directory.join("ca.crt").to_string_lossy().into_owned();
    }
    let parts = Parts {
        configuration: configuration(o, &config),
        source: source(o, &config, pki),
        config,
        node_name: o.node_name.clone(),
        server: with.server,
        reviews: Some(Rc::new(Own(with.api))),
        flags: flags(std::env::args()),
        verbosity: Some(Rc::new(process::set_verbosity)),
        root_dir: o.root_dir.clone(),
        log_dir: PathBuf::from(LOGS),
        stats: with.stats,
        probes: with.probes,
    };
    start(parts).await?;
    Ok(())
}

/// The fields of a `KubeletConfiguration` that concern the port.
fn read(path: &Path) -> Result<PortConfig, ConfigError> {
    let wrong = |message: String| ConfigError::Wrong { path: path.to_owned(), message };
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let value = crate::manifest::text::one(&text).map_err(wrong)?;
    crate::typed::read(&value).map_err(|e| wrong(e.to_string()))
}

fn source(o: &Options, config: &PortConfig, pki: Rc<Pki>) -> Source {
    let (certificate, key) = (PathBuf::from(&config.tls_cert_file), PathBuf::from(&config.tls_private_key_file));
    if !config.tls_cert_file.is_empty() {
        return Source::Files { certificate, key };
    }
    let names = ["localhost".to_owned(), o.node_name.clone()];
    let at = config.address;
    Source::Made(Box::new(move || {
        let mut addresses: Vec<IpAddr> = vec![IpAddr::from([127, 0, 0, 1]), "::1".parse().expect("an address")];
        if at.is_unspecified() {
            addresses.extend(crate::run::host_addresses::host_ips());
        } else {
            addresses.push(at);
        }
        addresses.dedup();
        pki.server(&names, &addresses).map_err(TlsError::from)
    }))
}

/// What holds here of a `KubeletConfiguration`.
fn configuration(o: &Options, config: &PortConfig) -> Value {
    let mut out = serde_json::to_value(config).expect("plain data serialises");
    let driver = match o.cgroup_driver {
        crate::cgroup::Driver::Systemd => "systemd",
        crate::cgroup::Driver::Cgroupfs => "cgroupfs",
    };
    let dns: Vec<IpAddr> = o.dns_address.into_iter().collect();
    let rest = json!({
        "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "cgroupDriver": driver, "cgroupRoot": o.cgroup_root, "clusterDNS": dns, "clusterDomain": o.cluster_domain,
        "containerRuntimeEndpoint": o.runtime_endpoint, "maxPods": o.max_pods, "podLogsDir": o.pod_logs_dir,
        "runtimeRequestTimeout": GoDuration(o.request_timeout), "failCgroupV1": false,
    });
    for (k, v) in rest.as_object().into_iter().flatten() {
        out[k] = v.clone();
    }
    out
}

/// `--name value` and `--name=value`, as they were given.
fn flags(arguments: impl Iterator<Item = String>) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    for a in arguments.skip(1) {
        match (a.strip_prefix("--").map(|a| a.split_once('=').unwrap_or((a, ""))), out.last_mut()) {
            (Some((name, value)), _) => out.push((name.to_owned(), value.to_owned())),
            (None, Some((_, value))) if value.is_empty() => *value = a,
            (None, _) => {}
        }
    }
    out.sort();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_shown_as_they_were_given() {
        let args = ["longshore", "run", "--b", "x", "--a=y", "--c"].map(str::to_owned);
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(flags(args.into_iter()), [pair("a", "y"), pair("b", "x"), pair("c", "")]);
    }

    #[test]
    fn the_fields_of_the_port_are_read_from_a_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, "kind: KubeletConfiguration\nreadOnlyPort: 10255\nauthentication: { anonymous: { enabled: true } }\n")
            .unwrap();
        let read_back = read(&path).unwrap();
        assert_eq!((read_back.read_only_port, read_back.authentication.anonymous.enabled), (10255, true));
        std::fs::write(&path, "readOnlyPort: many\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("config.yaml"));
    }
}
