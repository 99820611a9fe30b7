//! Whether a [`KubeProxyConfiguration`] can work: every objection at once.
//!
//! Owns kube-proxy's validation rules, and the feature gates that a 1.36 proxy knows. Never reads files. Tests are at the
//! end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::SocketAddr;
use std::time::Duration;

use super::decode::FieldError;
use super::kube_proxy::KubeProxyConfiguration;
use crate::model::Cidr;
use crate::model::address::parse_ip;

pub const MODES: [&str; 4] = ["iptables", "ipvs", "nftables", "userspace"];
pub const DETECT_LOCAL_MODES: [&str; 4] = ["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"];
/// Gates that a service proxy of this version looks at, or looked at not long ago.
const FEATURE_GATES: [&str; 16] = [
    "AllAlpha",
    "AllBeta",
    "AllowServiceExternalIPs",
    "ComponentFlagz",
    "ComponentStatusz",
    "ContextualLogging",
    "KubeProxyDrainingTerminatingNodes",
    "KubeProxyNFAcct",
    "LoadBalancerIPMode",
    "LoggingAlphaOptions",
    "LoggingBetaOptions",
    "NFTablesProxyMode",
    "PreferSameTrafficDistribution",
    "ServiceTrafficDistribution",
    "TopologyAwareHints",
    "WinDSR",
];
/// Longest name of a network interface.
const INTERFACE_NAME: usize = 15;

pub fn validate(config: &KubeProxyConfiguration) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let c = config;
    let mut wrong = |field: &str, message: String| errors.push(FieldError::new(field, message));
    for gate in c.feature_gates.keys().filter(|gate| !FEATURE_GATES.contains(&gate.as_str())) {
        wrong(&format!("featureGates.{gate}"), "unknown feature gate".into());
    }
    if c.client_connection.burst < 0 {
        wrong("clientConnection.burst", "must not be negative".into());
    }
    if !["text", "json"].contains(&c.logging.format.as_str()) {
        wrong("logging.format", format!("{:?} is neither text nor json", c.logging.format));
    }
    if parse_ip(&c.bind_address).is_none() {
        wrong("bindAddress", format!("{:?} is not an IP address", c.bind_address));
    }
    for (field, address) in [("healthzBindAddress", &c.healthz_bind_address), ("metricsBindAddress", &c.metrics_bind_address)] {
        if !address.is_empty() && address.parse::<SocketAddr>().ok().is_none_or(|a| a.port() == 0) {
            wrong(field, format!("{address:?} is not an IP address with a port from 1 to 65535"));
        }
    }
    if !c.mode.is_empty() && !MODES.contains(&c.mode.as_str()) {
        wrong("mode", format!("{:?} is none of {}", c.mode, MODES.join(", ")));
    }
    for (field, bit) in [("iptables.masqueradeBit", c.iptables.masquerade_bit), ("nftables.masqueradeBit", c.nftables.masquerade_bit)] {
        if !(0..=31).contains(&bit) {
            wrong(field, format!("{bit} is not within 0 to 31"));
        }
    }
    let periods = [
        ("iptables", c.iptables.sync_period, c.iptables.min_sync_period),
        ("ipvs", c.ipvs.sync_period, c.ipvs.min_sync_period),
        ("nftables", c.nftables.sync_period, c.nftables.min_sync_period),
    ];
    for (part, sync, least) in periods {
        if sync.is_zero() {
            wrong(&format!("{part}.syncPeriod"), "must be greater than zero".into());
        }
        if least > sync {
            wrong(&format!("{part}.minSyncPeriod"), format!("{least:?} is longer than {part}.syncPeriod, {sync:?}"));
        }
    }
    for (index, text) in c.ipvs.exclude_cidrs.iter().enumerate() {
        if Cidr::parse(text).is_none() {
            wrong(&format!("ipvs.excludeCIDRs[{index}]"), format!("{text:?} is not an address range"));
        }
    }
    if !(-1000..=1000).contains(&c.oom_score_adj) {
        wrong("oomScoreAdj", format!("{} is not within -1000 to 1000", c.oom_score_adj));
    }
    for (field, number) in [("conntrack.maxPerCore", c.conntrack.max_per_core), ("conntrack.min", c.conntrack.min)] {
        if number < 0 {
            wrong(field, "must not be negative".into());
        }
    }
    if c.config_sync_period == Duration::ZERO {
        wrong("configSyncPeriod", "must be greater than zero".into());
    }
    errors.extend(detect_local(c));
    errors.extend(node_port_addresses(&c.node_port_addresses));
    errors
}

fn detect_local(c: &KubeProxyConfiguration) -> Vec<FieldError> {
    let interface = |field: &str, name: &str| -> Option<FieldError> {
        let fine = !name.is_empty() && name.len() <= INTERFACE_NAME && !name.contains(['/', ' ', '\t', '\n']);
        (!fine).then(|| FieldError::new(field, format!("{name:?} is not the name of an interface (1 to {INTERFACE_NAME} characters)")))
    };
    match c.detect_local_mode.as_str() {
        "" | "ClusterCIDR" => cluster_cidr(&c.cluster_cidr).err().into_iter().collect(),
        "NodeCIDR" => Vec::new(),
        "BridgeInterface" => interface("detectLocal.bridgeInterface", &c.detect_local.bridge_interface).into_iter().collect(),
        "InterfaceNamePrefix" => interface("detectLocal.interfaceNamePrefix", &c.detect_local.interface_name_prefix).into_iter().collect(),
        other => vec![FieldError::new("detectLocalMode", format!("{other:?} is none of {}", DETECT_LOCAL_MODES.join(", ")))],
    }
}

/// One range, or two of different families; none when empty.
pub fn cluster_cidr(text: &str) -> Result<Vec<Cidr>, FieldError> {
    let wrong = |message: String| FieldError::new("clusterCIDR", message);
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let parse = |part: &str| Cidr::parse(part).ok_or_else(|| wrong(format!("{part:?} is not an address range")));
    let cidrs: Vec<Cidr> = text.split(',').map(parse).collect::<Result<_, _>>()?;
    match &cidrs[..] {
        [_] => Ok(cidrs),
        [a, b] if a.family() != b.family() => Ok(cidrs),
        _ => Err(wrong("is to be one range, or one of each family".into())),
    }
}

fn node_port_addresses(list: &[String]) -> Vec<FieldError> {
    if list == ["primary"] {
        return Vec::new();
    }
    let wrong = |(index, text): (usize, &String)| {
        let message = if text == "primary" {
            "\"primary\" is to stand alone".to_string()
        } else if Cidr::parse(text).is_none() {
            format!("{text:?} is not an address range")
        } else {
            return None;
        };
        Some(FieldError::new(format!("nodePortAddresses[{index}]"), message))
    };
    list.iter().enumerate().filter_map(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(config: &KubeProxyConfiguration) -> Vec<String> {
        validate(config).into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn the_default_is_valid() {
        assert_eq!(fields(&KubeProxyConfiguration::default()), Vec::<String>::new());
    }

    #[test]
    fn every_objection_is_raised_at_once() {
        let mut c = KubeProxyConfiguration::default();
        c.feature_gates.insert("NoSuchGate".into(), true);
        c.client_connection.burst = -1;
        c.logging.format = "xml".into();
        c.bind_address = "host".into();
        c.healthz_bind_address = "10.0.0.1:0".into();
        c.metrics_bind_address = "10249".into();
        c.mode = "ebpf".into();
        c.iptables.masquerade_bit = 32;
        c.nftables.min_sync_period = Duration::from_secs(60);
        c.ipvs.exclude_cidrs = vec!["10.0.0.0/8".into(), "10.0.0.0".into()];
        c.oom_score_adj = -1001;
        c.conntrack.min = -1;
        c.cluster_cidr = "10.0.0.0/8,10.1.0.0/16".into();
        c.node_port_addresses = vec!["primary".into(), "10.0.0.0/33".into()];
        let wanted = [
            "featureGates.NoSuchGate",
            "clientConnection.burst",
            "logging.format",
            "bindAddress",
            "healthzBindAddress",
            "metricsBindAddress",
            "mode",
            "iptables.masqueradeBit",
            "nftables.minSyncPeriod",
            "ipvs.excludeCIDRs[1]",
            "oomScoreAdj",
            "conntrack.min",
            "clusterCIDR",
            "nodePortAddresses[0]",
            "nodePortAddresses[1]",
        ];
        assert_eq!(fields(&c), wanted);
    }

    #[test]
    fn each_detector_asks_for_what_it_needs() {
        let mut c = KubeProxyConfiguration { detect_local_mode: "BridgeInterface".into(), ..Default::default() };
        assert_eq!(fields(&c), ["detectLocal.bridgeInterface"]);
        c.detect_local.bridge_interface = "cni0".into();
        // Not looked at in this mode.
        c.cluster_cidr = "nonsense".into();
        assert_eq!(fields(&c), Vec::<String>::new());
        c.detect_local_mode = "InterfaceNamePrefix".into();
        c.detect_local.interface_name_prefix = "a-name-too-long-for-it".into();
        assert_eq!(fields(&c), ["detectLocal.interfaceNamePrefix"]);
        c.detect_local_mode = "Magic".into();
        assert_eq!(fields(&c), ["detectLocalMode"]);
        c.detect_local_mode = "NodeCIDR".into();
        assert_eq!(fields(&c), Vec::<String>::new());
    }
}
