//! The port as this node has it: on a lone node with certificates by the node's own authority and reviews by the node's
//! own API, in a cluster with what its configuration names and reviews by the API server.

use super::{Own, Parts, PortError, Reviews, Source, TlsError, start};
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
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// What a kubelet shows under `/logs/`.
const LOGS: &str = "/var/log";

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Who answers for others.
pub enum Home {
    /// This node itself.
    Lone(Rc<Api>),
    /// The API server of its cluster; it is known by these addresses.
    Cluster(Rc<dyn Reviews>, Vec<IpAddr>),
}

/// What the daemon has for it.
pub struct With {
    pub home: Home,
    pub server: Server,
    pub stats: Arc<Reader>,
    pub probes: Rc<Counts>,
}

/// What holds of the port; None: there is none. A lone node has it where it is wished for, a member of a cluster as
/// every kubelet has.
pub fn settings(o: &Options) -> Result<Option<PortConfig>, OpenError> {
    if o.cluster.is_none() && o.kubelet_address.is_none() && o.kubelet_config.is_none() {
        return Ok(None);
    }
    let mut config = match (&o.kubelet.configuration, &o.kubelet_config) {
        (Some(whole), _) => {
            crate::typed::read(whole).map_err(|e| ConfigError::Wrong { path: "--config".into(), message: e.to_string() })?
        }
        (None, Some(path)) => read(path)?,
        (None, None) => PortConfig::default(),
    };
    if let Some(at) = o.kubelet_address {
        (config.address, config.port) = (at.ip(), at.port());
    }
    if o.cluster.is_none() && config.authentication.x509.client_ca_file.is_empty() {
        config.authentication.x509.client_ca_file = pki(o).join("ca.crt").to_string_lossy().into_owned();
    }
    Ok(Some(config))
}

/// Where the node keeps what it is known by.
fn pki(o: &Options) -> PathBuf {
    match &o.cluster {
        None => o.state_dir.join("pki"),
        Some(member) => member.certificates.directory.clone(),
    }
}

/// Opens the port.
pub async fn open(o: &Options, config: PortConfig, with: With) -> Result<(), OpenError> {
    let directory = pki(o);
    let (source, reviews): (Source, Rc<dyn Reviews>) = match with.home {
        Home::Lone(api) => {
            let own = Rc::new(Pki::open(&directory).map_err(ConfigError::from)?);
            (by_own_authority(o, &config, own), Rc::new(Own(api)))
        }
        Home::Cluster(reviews, addresses) => {
            let asked_for = o.cluster.as_ref().is_some_and(|member| member.certificates.serving);
            (Source::of_kubelet(&config, asked_for, &directory, &o.node_name, addresses), reviews)
        }
    };
    let parts = Parts {
        configuration: configuration(o, &config),
        source,
        config,
        node_name: o.node_name.clone(),
        server: with.server,
        reviews: Some(reviews),
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

fn by_own_authority(o: &Options, config: &PortConfig, pki: Rc<Pki>) -> Source {
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
    if let Some(whole) = &o.kubelet.configuration {
        let mut whole = whole.clone();
        crate::config::merge(&mut whole, &out);
        return whole;
    }
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
