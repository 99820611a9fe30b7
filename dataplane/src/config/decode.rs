//! A configuration file to [`KubeProxyConfiguration`]: all that is wrong is told at once, with the field's path.
//!
//! Owns defaulting and strictness. Unknown fields are told, and (as v1alpha1 allows) do not by themselves keep the rest
//! from being used. Never reads files: it is given the decoded document. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use super::duration;
use super::kube_proxy::{API_VERSION, Conntrack, Iptables, Ipvs, KIND, KubeProxyConfiguration, LogOutput, Logging, Nftables, Vmodule};

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// `ipvs.syncPeriod`; a flag's name begins with `--`.
    pub field: String,
    pub message: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> FieldError {
        FieldError { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// What a document says, and what of it was not understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub config: KubeProxyConfiguration,
    /// Unknown fields: a warning each.
    pub unknown: Vec<FieldError>,
}

/// Reads a document, and tells everything that is wrong; what could not be read keeps its default.
pub fn decode(document: &Value) -> (Decoded, Vec<FieldError>) {
    let notes = Notes::default();
    let mut config = KubeProxyConfiguration::default();
    match document.as_object() {
        Some(map) => root(Object { path: String::new(), map, seen: RefCell::default(), notes: &notes }, &mut config),
        None => notes.wrong("(document)", "is not an object"),
    }
    let Notes { errors, unknown } = notes;
    (Decoded { config, unknown: unknown.into_inner() }, errors.into_inner())
}

#[derive(Debug, Default)]
struct Notes {
    errors: RefCell<Vec<FieldError>>,
    unknown: RefCell<Vec<FieldError>>,
}

impl Notes {
    fn wrong(&self, field: &str, message: &str) {
        self.errors.borrow_mut().push(FieldError::new(field, message));
    }
}

/// One object of the document, and which of its fields were asked for.
struct Object<'a> {
    path: String,
    map: &'a Map<String, Value>,
    seen: RefCell<BTreeSet<&'a str>>,
    notes: &'a Notes,
}

impl<'a> Object<'a> {
    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.into() } else { format!("{}.{name}", self.path) }
    }

    /// A field that is there and not null.
    fn get(&self, name: &'static str) -> Option<&'a Value> {
        self.seen.borrow_mut().insert(name);
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn read<T>(&self, name: &'static str, into: &mut T, what: &str, parse: impl FnOnce(&Value) -> Option<T>) {
        let Some(value) = self.get(name) else { return };
        match parse(value) {
            Some(parsed) => *into = parsed,
            None => self.notes.wrong(&self.path_of(name), &format!("{value} is not {what}")),
        }
    }

    fn string(&self, name: &'static str, into: &mut String) {
        self.read(name, into, "a string", |value| value.as_str().map(String::from));
    }

    fn boolean(&self, name: &'static str, into: &mut bool) {
        self.read(name, into, "true or false", Value::as_bool);
    }

    fn int(&self, name: &'static str, into: &mut i32) {
        self.read(name, into, "a number of 32 bits", |value| i32::try_from(value.as_i64()?).ok());
    }

    fn unsigned(&self, name: &'static str, into: &mut u32) {
        self.read(name, into, "a number that is not negative", |value| u32::try_from(value.as_u64()?).ok());
    }

    fn strings(&self, name: &'static str, into: &mut Vec<String>) {
        let parse = |value: &Value| value.as_array()?.iter().map(|item| item.as_str().map(String::from)).collect();
        self.read(name, into, "a list of strings", parse);
    }

    fn duration(&self, name: &'static str, into: &mut Duration) {
        let negative = |value: &Value| value.as_str().and_then(duration::parse_signed).is_some_and(|(minus, d)| minus && !d.is_zero());
        if let Some(value) = self.get(name)
            && negative(value)
        {
            self.notes.wrong(&self.path_of(name), &format!("{value} is negative"));
            return;
        }
        self.read(name, into, "a duration such as 30s", |value| duration::parse(value.as_str()?));
    }

    /// A duration whose zero means the default.
    fn period(&self, name: &'static str, into: &mut Duration) {
        let default = *into;
        self.duration(name, into);
        if into.is_zero() {
            *into = default;
        }
    }

    fn nested(&self, name: &'static str, act: impl FnOnce(Object<'a>)) {
        let Some(value) = self.get(name) else { return };
        match value.as_object() {
            Some(map) => act(Object { path: self.path_of(name), map, seen: RefCell::default(), notes: self.notes }),
            None => self.notes.wrong(&self.path_of(name), "is not an object"),
        }
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        let seen = self.seen.borrow();
        for name in self.map.keys().filter(|name| !seen.contains(name.as_str())) {
            self.notes.unknown.borrow_mut().push(FieldError::new(self.path_of(name), "unknown field"));
        }
    }
}

fn root(o: Object, c: &mut KubeProxyConfiguration) {
    expect(&o, "apiVersion", API_VERSION);
    expect(&o, "kind", KIND);
    o.nested("featureGates", |gates| {
        for (name, value) in gates.map {
            match value.as_bool() {
                Some(on) => drop(c.feature_gates.insert(name.clone(), on)),
                None => gates.notes.wrong(&gates.path_of(name), &format!("{value} is not true or false")),
            }
        }
        // Which gates there are is validation's to say.
        gates.seen.borrow_mut().extend(gates.map.keys().map(String::as_str));
    });
    o.nested("clientConnection", |o| {
        let client = &mut c.client_connection;
        o.string("kubeconfig", &mut client.kubeconfig);
        o.string("acceptContentTypes", &mut client.accept_content_types);
        o.string("contentType", &mut client.content_type);
        o.read("qps", &mut client.qps, "a number", |value| value.as_f64().map(|n| n as f32));
        o.int("burst", &mut client.burst);
    });
    o.nested("logging", |o| logging(&o, &mut c.logging));
    o.string("hostnameOverride", &mut c.hostname_override);
    o.string("bindAddress", &mut c.bind_address);
    bind_addresses(&o, c);
    o.boolean("bindAddressHardFail", &mut c.bind_address_hard_fail);
    o.boolean("enableProfiling", &mut c.enable_profiling);
    o.string("showHiddenMetricsForVersion", &mut c.show_hidden_metrics_for_version);
    o.string("mode", &mut c.mode);
    o.nested("iptables", |o| iptables(&o, &mut c.iptables));
    o.nested("ipvs", |o| ipvs(&o, &mut c.ipvs));
    o.nested("nftables", |o| nftables(&o, &mut c.nftables));
    o.nested("winkernel", |o| {
        let windows = &mut c.winkernel;
        o.string("networkName", &mut windows.network_name);
        o.string("sourceVip", &mut windows.source_vip);
        o.boolean("enableDSR", &mut windows.enable_dsr);
        o.string("rootHnsEndpointName", &mut windows.root_hns_endpoint_name);
        o.boolean("forwardHealthCheckVip", &mut windows.forward_health_check_vip);
    });
    o.string("detectLocalMode", &mut c.detect_local_mode);
    o.nested("detectLocal", |o| {
        o.string("bridgeInterface", &mut c.detect_local.bridge_interface);
        o.string("interfaceNamePrefix", &mut c.detect_local.interface_name_prefix);
    });
    o.string("clusterCIDR", &mut c.cluster_cidr);
    o.strings("nodePortAddresses", &mut c.node_port_addresses);
    o.int("oomScoreAdj", &mut c.oom_score_adj);
    o.nested("conntrack", |o| conntrack(&o, &mut c.conntrack));
    o.period("configSyncPeriod", &mut c.config_sync_period);
    o.string("portRange", &mut c.port_range);
    o.boolean("windowsRunAsService", &mut c.windows_run_as_service);
}

fn expect(o: &Object, name: &'static str, wanted: &str) {
    match o.get(name).map(|value| value.as_str()) {
        Some(Some(text)) if text == wanted => {}
        Some(_) => o.notes.wrong(name, &format!("is not {wanted}")),
        None => o.notes.wrong(name, &format!("is missing; {wanted} is expected")),
    }
}

/// The family of bindAddress chooses the defaults, and a missing port is added. In a file, empty means the default.
fn bind_addresses(o: &Object, c: &mut KubeProxyConfiguration) {
    let (mut healthz, mut metrics) = (String::new(), String::new());
    o.string("healthzBindAddress", &mut healthz);
    o.string("metricsBindAddress", &mut metrics);
    let v6 = c.bind_address.contains(':');
    let or = |text: String, v4_default: &str, v6_default: &str, port: u16| {
        if text.is_empty() { if v6 { v6_default.into() } else { v4_default.into() } } else { with_port(&text, port) }
    };
    c.healthz_bind_address = or(healthz, "0.0.0.0:10256", "[::]:10256", 10_256);
    c.metrics_bind_address = or(metrics, "127.0.0.1:10249", "[::1]:10249", 10_249);
}

/// Adds a port to a bare address.
pub fn with_port(text: &str, port: u16) -> String {
    match text.parse::<std::net::IpAddr>() {
        Ok(ip) => std::net::SocketAddr::new(ip, port).to_string(),
        Err(_) => text.into(),
    }
}

fn logging(o: &Object, logging: &mut Logging) {
    o.string("format", &mut logging.format);
    if let Some(nanoseconds) = o.get("flushFrequency").and_then(Value::as_u64) {
        // Files of older versions have a number.
        logging.flush_frequency = Duration::from_nanos(nanoseconds);
    } else {
        o.duration("flushFrequency", &mut logging.flush_frequency);
    }
    o.unsigned("verbosity", &mut logging.verbosity);
    let entry = |value: &Value| {
        let pattern = value.get("filePattern")?.as_str()?.to_string();
        Some(Vmodule { file_pattern: pattern, verbosity: u32::try_from(value.get("verbosity")?.as_u64()?).ok()? })
    };
    let entries = |value: &Value| value.as_array()?.iter().map(entry).collect();
    o.read("vmodule", &mut logging.vmodule, "a list of filePattern and verbosity", entries);
    o.nested("options", |o| {
        o.nested("json", |o| log_output(&o, &mut logging.options.json));
        o.nested("text", |o| log_output(&o, &mut logging.options.text));
    });
}

fn log_output(o: &Object, output: &mut LogOutput) {
    let quantity = |value: &Value| value.as_str().map(String::from).or_else(|| value.as_u64().map(|n| n.to_string()));
    o.read("infoBufferSize", &mut output.info_buffer_size, "a quantity", quantity);
    o.boolean("splitStream", &mut output.split_stream);
}

fn iptables(o: &Object, iptables: &mut Iptables) {
    o.int("masqueradeBit", &mut iptables.masquerade_bit);
    o.boolean("masqueradeAll", &mut iptables.masquerade_all);
    o.boolean("localhostNodePorts", &mut iptables.localhost_node_ports);
    o.period("syncPeriod", &mut iptables.sync_period);
    o.period("minSyncPeriod", &mut iptables.min_sync_period);
}

fn ipvs(o: &Object, ipvs: &mut Ipvs) {
    o.period("syncPeriod", &mut ipvs.sync_period);
    o.duration("minSyncPeriod", &mut ipvs.min_sync_period);
    o.string("scheduler", &mut ipvs.scheduler);
    o.strings("excludeCIDRs", &mut ipvs.exclude_cidrs);
    o.boolean("strictARP", &mut ipvs.strict_arp);
    o.duration("tcpTimeout", &mut ipvs.tcp_timeout);
    o.duration("tcpFinTimeout", &mut ipvs.tcp_fin_timeout);
    o.duration("udpTimeout", &mut ipvs.udp_timeout);
}

fn nftables(o: &Object, nftables: &mut Nftables) {
    o.int("masqueradeBit", &mut nftables.masquerade_bit);
    o.boolean("masqueradeAll", &mut nftables.masquerade_all);
    o.period("syncPeriod", &mut nftables.sync_period);
    o.period("minSyncPeriod", &mut nftables.min_sync_period);
}

fn conntrack(o: &Object, conntrack: &mut Conntrack) {
    o.int("maxPerCore", &mut conntrack.max_per_core);
    o.int("min", &mut conntrack.min);
    o.duration("tcpEstablishedTimeout", &mut conntrack.tcp_established_timeout);
    o.duration("tcpCloseWaitTimeout", &mut conntrack.tcp_close_wait_timeout);
    o.boolean("tcpBeLiberal", &mut conntrack.tcp_be_liberal);
    o.duration("udpTimeout", &mut conntrack.udp_timeout);
    o.duration("udpStreamTimeout", &mut conntrack.udp_stream_timeout);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn decode(document: &Value) -> Result<Decoded, Vec<FieldError>> {
        let (decoded, errors) = super::decode(document);
        if errors.is_empty() { Ok(decoded) } else { Err(errors) }
    }

    fn document(extra: Value) -> Value {
        let mut all = json!({"apiVersion": API_VERSION, "kind": KIND});
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        all
    }

    #[test]
    fn an_empty_document_is_the_default_and_what_is_written_is_read_back() {
        let default = KubeProxyConfiguration::default();
        let empty = decode(&document(json!({}))).unwrap();
        assert_eq!((&empty.config, empty.unknown.len()), (&default, 0));
        let mut changed = default.clone();
        changed.mode = "ipvs".into();
        changed.ipvs.exclude_cidrs = vec!["10.0.0.0/8".into()];
        changed.feature_gates.insert("TopologyAwareHints".into(), true);
        changed.logging.vmodule.push(Vmodule { file_pattern: "proxier".into(), verbosity: 4 });
        changed.conntrack.udp_timeout = Duration::from_millis(2500);
        for config in [default, changed] {
            let again = decode(&config.to_json()).unwrap();
            assert_eq!(again.config, config);
            assert_eq!(again.unknown, []);
        }
    }

    #[test]
    fn everything_wrong_is_told_at_once_with_its_path() {
        let errors = decode(&document(json!({"kind": "Other", "mode": 5, "iptables": {"syncPeriod": "30", "masqueradeBit": "x"},
            "conntrack": {"tcpEstablishedTimeout": "-1s", "min": 1.5}, "ipvs": [], "nodePortAddresses": "primary"})))
        .unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        let wanted = [
            "kind",
            "mode",
            "iptables.masqueradeBit",
            "iptables.syncPeriod",
            "ipvs",
            "nodePortAddresses",
            "conntrack.min",
            "conntrack.tcpEstablishedTimeout",
        ];
        assert_eq!(fields, wanted);
        assert_eq!(errors[3].to_string(), "iptables.syncPeriod: \"30\" is not a duration such as 30s");
    }

    #[test]
    fn unknown_fields_are_told_and_the_rest_is_used() {
        let got = decode(&document(json!({"mode": "nftables", "clusterCidr": "10.0.0.0/8", "ipvs": {"schedular": "rr"}}))).unwrap();
        assert_eq!(got.config.mode, "nftables");
        let unknown: Vec<String> = got.unknown.iter().map(FieldError::to_string).collect();
        assert_eq!(unknown, ["ipvs.schedular: unknown field", "clusterCidr: unknown field"]);
    }

    #[test]
    fn zero_periods_and_empty_addresses_are_the_defaults_of_their_family() {
        let got = decode(&document(json!({"bindAddress": "::", "metricsBindAddress": "0.0.0.0", "healthzBindAddress": "",
            "nftables": {"syncPeriod": "0s"}, "ipvs": {"minSyncPeriod": "0s"}, "configSyncPeriod": "0"})))
        .unwrap()
        .config;
        assert_eq!(got.healthz_bind_address, "[::]:10256");
        assert_eq!(got.metrics_bind_address, "0.0.0.0:10249");
        assert_eq!((got.nftables.sync_period, got.config_sync_period), (Duration::from_secs(30), Duration::from_secs(900)));
    }
}
