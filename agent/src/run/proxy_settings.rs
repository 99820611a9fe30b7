//! What the daemon's service proxy was told, written down beside its socket: `longshore trace` and `plan` reason about
//! the same rules.
//!
//! Owns that file's form, and what its fields mean to a data plane. Tests are at the end of this file.

use longshore_dataplane::{Cidr, Config, DetectLocal, IptablesConfig, IpvsConfig, Mode, NodePortAddresses};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::Path;

const FILE: &str = "proxy.json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxySettings {
    /// The one in force.
    pub mode: String,
    pub node_name: String,
    pub cluster_cidrs: Vec<String>,
    pub service_cidrs: Vec<String>,
    pub node_port_addresses: Vec<String>,
}

impl Default for ProxySettings {
    fn default() -> Self {
        ProxySettings {
            mode: "nftables".into(),
            node_name: super::process::node_name(None),
            cluster_cidrs: vec!["10.244.0.0/16".into()],
            service_cidrs: Vec::new(),
            node_port_addresses: vec!["primary".into()],
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an address range")]
pub struct NoRange(pub String);

impl ProxySettings {
    /// Of the daemon with this socket, if there is one.
    pub fn beside(socket: &Path) -> Option<ProxySettings> {
        let text = std::fs::read(socket.parent()?.join(FILE)).ok()?;
        crate::typed::read_text(&text).inspect_err(|error| tracing::debug!(%error, "{FILE} is not readable")).ok()
    }

    pub fn write(&self, run_dir: &Path) {
        let bytes = serde_json::to_vec_pretty(self).expect("plain data serialises");
        if let Err(error) = std::fs::write(run_dir.join(FILE), bytes) {
            tracing::warn!(%error, "the service proxy's settings cannot be written down: longshore trace and plan take the defaults");
        }
    }

    /// What a data plane is told of it.
    pub fn config(&self, node_ips: &[IpAddr]) -> Result<Config, NoRange> {
        let cidr = |text: &String| Cidr::parse(text).ok_or_else(|| NoRange(text.clone()));
        let ranges = |texts: &[String]| texts.iter().map(cidr).collect::<Result<Vec<_>, _>>();
        Ok(Config {
            mode: match self.mode.as_str() {
                "ipvs" => Mode::Ipvs(IpvsConfig::default()),
                "iptables" => Mode::Iptables(IptablesConfig::default()),
                "userspace" => Mode::Userspace,
                _ => Mode::Nftables,
            },
            node_name: self.node_name.clone(),
            node_ips: node_ips.to_vec(),
            detect_local: DetectLocal::ClusterCidr(ranges(&self.cluster_cidrs)?),
            node_port_addresses: match &self.node_port_addresses[..] {
                [one] if one == "primary" => NodePortAddresses::Primary,
                texts => NodePortAddresses::Cidrs(ranges(texts)?),
            },
            ..Config::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_beside_the_socket() {
        let run_dir = tempfile::tempdir().unwrap();
        let socket = run_dir.path().join("longshore.sock");
        assert_eq!(ProxySettings::beside(&socket), None);
        let settings = ProxySettings { mode: "ipvs".into(), node_name: "n1".into(), ..ProxySettings::default() };
        settings.write(run_dir.path());
        assert_eq!(ProxySettings::beside(&socket), Some(settings.clone()));
        let config = settings.config(&[]).unwrap();
        assert_eq!((config.mode.name(), config.node_name.as_str()), ("ipvs", "n1"));
        let wrong = ProxySettings { cluster_cidrs: vec!["10.0.0.0/99".into()], ..settings };
        assert_eq!(wrong.config(&[]).unwrap_err().to_string(), "\"10.0.0.0/99\" is not an address range");
    }
}
