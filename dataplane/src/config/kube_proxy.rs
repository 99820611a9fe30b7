//! `KubeProxyConfiguration` of `kubeproxy.config.k8s.io/v1alpha1`: every field, with kube-proxy's defaults.
//!
//! Owns the type and how it is written; `decode` reads it, `validate` judges it, `flags` overrides it. Never reads files.
//! Tests: `decode`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::duration;

pub const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
pub const KIND: &str = "KubeProxyConfiguration";

fn go<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&duration::format(*value))
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeProxyConfiguration {
    pub api_version: &'static str,
    pub kind: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub feature_gates: BTreeMap<String, bool>,
    pub client_connection: ClientConnection,
    pub logging: Logging,
    pub hostname_override: String,
    /// Never bound: it names the node's address and chooses the family of the addresses below.
    pub bind_address: String,
    /// Empty disables the server.
    pub healthz_bind_address: String,
    /// Empty disables the server.
    pub metrics_bind_address: String,
    pub bind_address_hard_fail: bool,
    pub enable_profiling: bool,
    pub show_hidden_metrics_for_version: String,
    /// Empty is `iptables`.
    pub mode: String,
    pub iptables: Iptables,
    pub ipvs: Ipvs,
    pub nftables: Nftables,
    pub winkernel: Winkernel,
    /// Empty is `ClusterCIDR`.
    pub detect_local_mode: String,
    pub detect_local: DetectLocalConfig,
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: String,
    pub node_port_addresses: Vec<String>,
    pub oom_score_adj: i32,
    pub conntrack: Conntrack,
    #[serde(serialize_with = "go")]
    pub config_sync_period: Duration,
    pub port_range: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub windows_run_as_service: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientConnection {
    pub kubeconfig: String,
    pub accept_content_types: String,
    pub content_type: String,
    pub qps: f32,
    pub burst: i32,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Logging {
    /// `text` or `json`.
    pub format: String,
    #[serde(serialize_with = "go")]
    pub flush_frequency: Duration,
    pub verbosity: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vmodule: Vec<Vmodule>,
    pub options: LoggingOptions,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Vmodule {
    pub file_pattern: String,
    pub verbosity: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct LoggingOptions {
    pub json: LogOutput,
    pub text: LogOutput,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogOutput {
    /// A quantity of bytes.
    pub info_buffer_size: String,
    pub split_stream: bool,
}

impl Default for LogOutput {
    fn default() -> Self {
        LogOutput { info_buffer_size: "0".into(), split_stream: false }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Iptables {
    pub masquerade_bit: i32,
    pub masquerade_all: bool,
    pub localhost_node_ports: bool,
    #[serde(serialize_with = "go")]
    pub sync_period: Duration,
    #[serde(serialize_with = "go")]
    pub min_sync_period: Duration,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ipvs {
    #[serde(serialize_with = "go")]
    pub sync_period: Duration,
    #[serde(serialize_with = "go")]
    pub min_sync_period: Duration,
    pub scheduler: String,
    #[serde(rename = "excludeCIDRs")]
    pub exclude_cidrs: Vec<String>,
    #[serde(rename = "strictARP")]
    pub strict_arp: bool,
    #[serde(serialize_with = "go")]
    pub tcp_timeout: Duration,
    #[serde(serialize_with = "go")]
    pub tcp_fin_timeout: Duration,
    #[serde(serialize_with = "go")]
    pub udp_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Nftables {
    pub masquerade_bit: i32,
    pub masquerade_all: bool,
    #[serde(serialize_with = "go")]
    pub sync_period: Duration,
    #[serde(serialize_with = "go")]
    pub min_sync_period: Duration,
}

/// Accepted, and of no effect here.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Winkernel {
    pub network_name: String,
    pub source_vip: String,
    #[serde(rename = "enableDSR")]
    pub enable_dsr: bool,
    pub root_hns_endpoint_name: String,
    pub forward_health_check_vip: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DetectLocalConfig {
    pub bridge_interface: String,
    pub interface_name_prefix: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Conntrack {
    pub max_per_core: i32,
    pub min: i32,
    #[serde(serialize_with = "go")]
    pub tcp_established_timeout: Duration,
    #[serde(serialize_with = "go")]
    pub tcp_close_wait_timeout: Duration,
    pub tcp_be_liberal: bool,
    #[serde(serialize_with = "go")]
    pub udp_timeout: Duration,
    #[serde(serialize_with = "go")]
    pub udp_stream_timeout: Duration,
}

const HALF_A_MINUTE: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

impl Default for KubeProxyConfiguration {
    fn default() -> Self {
        KubeProxyConfiguration {
            api_version: API_VERSION,
            kind: KIND,
            feature_gates: BTreeMap::new(),
            client_connection: ClientConnection {
                kubeconfig: String::new(),
                accept_content_types: String::new(),
                content_type: "application/vnd.kubernetes.protobuf".into(),
                qps: 5.0,
                burst: 10,
            },
            logging: Logging {
                format: "text".into(),
                flush_frequency: Duration::from_secs(5),
                verbosity: 0,
                vmodule: Vec::new(),
                options: LoggingOptions::default(),
            },
            hostname_override: String::new(),
            bind_address: "0.0.0.0".into(),
            healthz_bind_address: "0.0.0.0:10256".into(),
            metrics_bind_address: "127.0.0.1:10249".into(),
            bind_address_hard_fail: false,
            enable_profiling: false,
            show_hidden_metrics_for_version: String::new(),
            mode: String::new(),
            iptables: Iptables {
                masquerade_bit: 14,
                masquerade_all: false,
                localhost_node_ports: true,
                sync_period: HALF_A_MINUTE,
                min_sync_period: SECOND,
            },
            ipvs: Ipvs {
                sync_period: HALF_A_MINUTE,
                min_sync_period: Duration::ZERO,
                scheduler: String::new(),
                exclude_cidrs: Vec::new(),
                strict_arp: false,
                tcp_timeout: Duration::ZERO,
                tcp_fin_timeout: Duration::ZERO,
                udp_timeout: Duration::ZERO,
            },
            nftables: Nftables { masquerade_bit: 14, masquerade_all: false, sync_period: HALF_A_MINUTE, min_sync_period: SECOND },
            winkernel: Winkernel::default(),
            detect_local_mode: String::new(),
            detect_local: DetectLocalConfig::default(),
            cluster_cidr: String::new(),
            node_port_addresses: Vec::new(),
            oom_score_adj: -999,
            conntrack: Conntrack {
                max_per_core: 32_768,
                min: 131_072,
                tcp_established_timeout: Duration::from_secs(86_400),
                tcp_close_wait_timeout: Duration::from_secs(3_600),
                tcp_be_liberal: false,
                udp_timeout: Duration::ZERO,
                udp_stream_timeout: Duration::ZERO,
            },
            config_sync_period: Duration::from_secs(900),
            port_range: String::new(),
            windows_run_as_service: false,
        }
    }
}

impl KubeProxyConfiguration {
    /// The mode in force: an empty one is `iptables`.
    pub fn mode_name(&self) -> &str {
        if self.mode.is_empty() { "iptables" } else { &self.mode }
    }

    /// (syncPeriod, minSyncPeriod) of the mode in force.
    pub fn sync_periods(&self) -> (Duration, Duration) {
        match self.mode_name() {
            "ipvs" => (self.ipvs.sync_period, self.ipvs.min_sync_period),
            "nftables" => (self.nftables.sync_period, self.nftables.min_sync_period),
            _ => (self.iptables.sync_period, self.iptables.min_sync_period),
        }
    }

    /// As `/configz` shows it.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("plain data serialises")
    }
}
