//! From a file and a command line to a configuration, and from that to what a data plane is told.
//!
//! Owns precedence, and what each field means here. Never reads files: the document comes in. Tests are at the end of this
//! file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::decode::{FieldError, decode};
use super::flags::CommandLine;
use super::kube_proxy::KubeProxyConfiguration;
use super::validate::{cluster_cidr, validate};
use super::{Config, Conntrack, DetectLocal, IptablesConfig, IpvsConfig, Mode, NodePortAddresses, Servers};
use crate::model::Cidr;
use crate::model::address::parse_ip;

/// A configuration that can work, with warnings for the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    pub configuration: KubeProxyConfiguration,
    pub warnings: Vec<String>,
}

/// Settles what is to be: the file, then the flags that count beside it; or the flags alone. Everything that is wrong is
/// told at once.
pub fn settle(line: &CommandLine, file: Option<&Value>) -> Result<Settled, Vec<FieldError>> {
    let (mut warnings, mut errors) = (line.warnings.clone(), line.errors.clone());
    let mut configuration = KubeProxyConfiguration::default();
    if let Some(document) = file {
        let (decoded, wrong) = decode(document);
        (configuration, errors) = (decoded.config, [errors, wrong].concat());
        // As upstream: v1alpha1 is read leniently, with a warning.
        warnings.extend(decoded.unknown.iter().map(|error| format!("{error}; it is ignored")));
    }
    warnings.extend(line.apply(&mut configuration, file.is_some()));
    // What could not be read stands at its default, which is no further mistake.
    let invalid = validate(&configuration).into_iter().filter(|error| errors.iter().all(|told| told.field != error.field));
    errors.extend(invalid.collect::<Vec<_>>());
    if !errors.is_empty() {
        return Err(errors);
    }
    warnings.extend(doubts(&configuration));
    Ok(Settled { configuration, warnings })
}

/// What can work, and is perhaps not meant.
fn doubts(c: &KubeProxyConfiguration) -> Vec<String> {
    let mut doubts = Vec::new();
    let by_range = matches!(c.detect_local_mode.as_str(), "" | "ClusterCIDR");
    if by_range && c.cluster_cidr.trim().is_empty() {
        doubts.push("detect-local-mode ClusterCIDR but no cluster CIDR: pods are not told from others".into());
    }
    if c.node_port_addresses.is_empty() && c.mode_name() != "nftables" {
        doubts.push("nodePortAddresses is not set: node ports answer on all addresses of the node".into());
    }
    if c.mode_name() == "ipvs" {
        doubts.push("mode ipvs is deprecated upstream; nftables does the same at less cost".into());
    }
    doubts
}

/// What a data plane is to be told. `node_ips` are the node's until its object says otherwise.
pub fn data_plane(c: &KubeProxyConfiguration, node_name: &str, node_ips: &[IpAddr]) -> Config {
    let (sync_period, min_sync_period) = c.sync_periods();
    let nftables = c.mode_name() == "nftables";
    let default = Config::default();
    let usual_min = if c.mode_name() == "ipvs" { Duration::ZERO } else { Duration::from_secs(1) };
    let bind_ip = parse_ip(&c.bind_address).filter(|ip| !ip.is_unspecified());
    let mut ips: Vec<IpAddr> = bind_ip.into_iter().collect();
    for ip in node_ips {
        if !ips.iter().any(|held| held.is_ipv4() == ip.is_ipv4()) {
            ips.push(*ip);
        }
    }
    let bit = if nftables { c.nftables.masquerade_bit } else { c.iptables.masquerade_bit };
    Config {
        mode: mode(c),
        node_name: node_name.into(),
        node_ips: ips,
        bind_ip,
        detect_local: detect_local(c),
        masquerade_all: if nftables { c.nftables.masquerade_all } else { c.iptables.masquerade_all },
        masquerade_bit: u8::try_from(bit).unwrap_or(14),
        node_port_addresses: node_ports(c),
        // The default of a second bounds the cost of a pass, which here is as small as the change.
        coalesce: if min_sync_period > usual_min { min_sync_period } else { default.coalesce },
        servers: Servers {
            health: c.healthz_bind_address.parse().ok(),
            metrics: c.metrics_bind_address.parse().ok(),
            hard_fail: c.bind_address_hard_fail,
            configuration: c.to_json().to_string(),
            service_health: true,
        },
        conntrack: Some(conntrack(c)),
        health_timeout: 2 * sync_period,
        ..default
    }
}

fn mode(c: &KubeProxyConfiguration) -> Mode {
    match c.mode_name() {
        "nftables" => Mode::Nftables,
        "userspace" => Mode::Userspace,
        "ipvs" => Mode::Ipvs(IpvsConfig {
            scheduler: c.ipvs.scheduler.clone(),
            exclude_cidrs: c.ipvs.exclude_cidrs.iter().filter_map(|text| Cidr::parse(text)).collect(),
            strict_arp: c.ipvs.strict_arp,
            tcp_timeout: c.ipvs.tcp_timeout,
            tcp_fin_timeout: c.ipvs.tcp_fin_timeout,
            udp_timeout: c.ipvs.udp_timeout,
            ..IpvsConfig::default()
        }),
        _ => Mode::Iptables(IptablesConfig { localhost_node_ports: c.iptables.localhost_node_ports }),
    }
}

fn detect_local(c: &KubeProxyConfiguration) -> DetectLocal {
    match c.detect_local_mode.as_str() {
        "NodeCIDR" => DetectLocal::NodeCidr,
        "BridgeInterface" => DetectLocal::BridgeInterface(c.detect_local.bridge_interface.clone()),
        "InterfaceNamePrefix" => DetectLocal::InterfacePrefix(c.detect_local.interface_name_prefix.clone()),
        _ => DetectLocal::ClusterCidr(cluster_cidr(&c.cluster_cidr).unwrap_or_default()),
    }
}

fn node_ports(c: &KubeProxyConfiguration) -> NodePortAddresses {
    match &c.node_port_addresses[..] {
        [] if c.mode_name() == "nftables" => NodePortAddresses::Primary,
        [] => NodePortAddresses::All,
        [one] if one == "primary" => NodePortAddresses::Primary,
        texts => NodePortAddresses::Cidrs(texts.iter().filter_map(|text| Cidr::parse(text)).collect()),
    }
}

fn conntrack(c: &KubeProxyConfiguration) -> Conntrack {
    let number = |n: i32| u64::try_from(n).unwrap_or(0);
    Conntrack {
        max_per_core: number(c.conntrack.max_per_core),
        min: number(c.conntrack.min),
        tcp_established: c.conntrack.tcp_established_timeout,
        tcp_close_wait: c.conntrack.tcp_close_wait_timeout,
        tcp_be_liberal: c.conntrack.tcp_be_liberal,
        udp: c.conntrack.udp_timeout,
        udp_stream: c.conntrack.udp_stream_timeout,
    }
}

/// What of a changed configuration cannot be taken on while running: a restart is needed. As fields.
pub fn needs_restart(before: &KubeProxyConfiguration, after: &KubeProxyConfiguration) -> Vec<&'static str> {
    let fixed = [
        ("bindAddress", before.bind_address != after.bind_address),
        ("healthzBindAddress", before.healthz_bind_address != after.healthz_bind_address),
        ("metricsBindAddress", before.metrics_bind_address != after.metrics_bind_address),
        ("hostnameOverride", before.hostname_override != after.hostname_override),
        ("clientConnection", before.client_connection != after.client_connection),
        ("conntrack", before.conntrack != after.conntrack),
        ("logging.format", before.logging.format != after.logging.format),
        ("featureGates", before.feature_gates != after.feature_gates),
    ];
    fixed.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
}

#[cfg(test)]
mod tests {
    use super::super::flags::parse;
    use super::*;
    use serde_json::json;

    fn settled(flags: &str, file: Option<Value>) -> Result<Settled, Vec<FieldError>> {
        let words: Vec<String> = flags.split_whitespace().map(String::from).collect();
        let document = file.map(|mut value| {
            value["apiVersion"] = super::super::kube_proxy::API_VERSION.into();
            value["kind"] = super::super::kube_proxy::KIND.into();
            value
        });
        settle(&parse(&words), document.as_ref())
    }

    fn config(flags: &str, file: Option<Value>) -> Config {
        let settled = settled(flags, file).unwrap();
        data_plane(&settled.configuration, "n1", &["192.0.2.1".parse().unwrap()])
    }

    #[test]
    fn an_empty_mode_is_iptables_on_all_addresses_and_nftables_takes_the_primary_one() {
        let empty = config("", None);
        assert_eq!((empty.mode.name(), empty.node_port_addresses), ("iptables", NodePortAddresses::All));
        let nftables = config("--proxy-mode=nftables", None);
        assert_eq!((nftables.mode.name(), nftables.node_port_addresses), ("nftables", NodePortAddresses::Primary));
        assert_eq!(nftables.coalesce, Config::default().coalesce);
        assert_eq!(nftables.health_timeout, Duration::from_secs(60));
        assert_eq!(nftables.servers.health, "0.0.0.0:10256".parse().ok());
    }

    #[test]
    fn fields_of_the_mode_in_force_count() {
        let file = json!({"mode": "ipvs", "ipvs": {"scheduler": "lc", "minSyncPeriod": "2s", "excludeCIDRs": ["10.0.0.0/8"]},
            "iptables": {"masqueradeBit": 3, "masqueradeAll": true}, "nftables": {"masqueradeBit": 5},
            "detectLocalMode": "NodeCIDR", "nodePortAddresses": ["192.0.2.0/24"], "bindAddress": "192.0.2.9"});
        let got = config("", Some(file));
        let Mode::Ipvs(ipvs) = &got.mode else { panic!("{:?}", got.mode) };
        assert_eq!((ipvs.scheduler.as_str(), ipvs.exclude_cidrs.len()), ("lc", 1));
        assert_eq!((got.masquerade_bit, got.masquerade_all, got.coalesce), (3, true, Duration::from_secs(2)));
        assert_eq!(got.detect_local, DetectLocal::NodeCidr);
        assert_eq!(got.node_ips, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        assert!(matches!(got.node_port_addresses, NodePortAddresses::Cidrs(cidrs) if cidrs.len() == 1));
    }

    #[test]
    fn a_file_comes_before_flags_and_objections_come_all_at_once() {
        let got = settled("--proxy-mode=iptables -v 4", Some(json!({"mode": "nftables", "nodePortAddress": []}))).unwrap();
        assert_eq!((got.configuration.mode.as_str(), got.configuration.logging.verbosity), ("nftables", 4));
        assert_eq!(got.warnings[0], "nodePortAddress: unknown field; it is ignored");
        assert_eq!(got.warnings[1], "--proxy-mode does not count beside --config");
        let errors = settled("--proxy-mode=x --oom-score-adj=5000", None).unwrap_err();
        assert_eq!(errors.len(), 2);
        let file = json!({"mode": 5, "bindAddress": "here", "iptables": {"masqueradeBit": 40}});
        let errors = settled("--no-such --cleanup=maybe", Some(file)).unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["--no-such", "--cleanup", "mode", "bindAddress", "iptables.masqueradeBit"]);
    }

    #[test]
    fn some_fields_cannot_change_while_running() {
        let before = KubeProxyConfiguration::default();
        let mut after = before.clone();
        after.mode = "nftables".into();
        after.node_port_addresses = vec!["primary".into()];
        after.logging.verbosity = 5;
        assert_eq!(needs_restart(&before, &after), [""; 0]);
        after.metrics_bind_address = "0.0.0.0:1".into();
        assert_eq!(needs_restart(&before, &after), ["metricsBindAddress"]);
    }
}
