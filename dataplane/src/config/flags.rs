//! kube-proxy's command line: every flag of 1.36, and what each sets.
//!
//! Owns the table of flags and how words become settings. Never reads files or the environment. Tests are at the end of
//! this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::decode::{FieldError, with_port};
use super::duration;
use super::kube_proxy::{KubeProxyConfiguration, Vmodule};

/// What a command line asks for besides settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine {
    pub config: Option<String>,
    pub write_config_to: Option<String>,
    pub cleanup: bool,
    pub init_only: bool,
    pub version: bool,
    pub help: bool,
    /// Address of the API server, in place of the kubeconfig's.
    pub master: Option<String>,
    pub boot_id_file: Option<String>,
    pub machine_id_file: Option<String>,
    /// In the order given.
    settings: Vec<(&'static Flag, String)>,
    pub warnings: Vec<String>,
    /// Everything that is wrong with it.
    pub errors: Vec<FieldError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `--flag` alone is true.
    Boolean,
    Valued,
}

/// When a flag counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Says what to do, and is no setting.
    Command,
    /// Counts beside a configuration file.
    Always,
    /// Ignored when there is a configuration file.
    WithoutFile,
}

#[derive(Debug)]
struct Flag {
    name: &'static str,
    kind: Kind,
    scope: Scope,
    /// Why not to use it any more.
    deprecated: Option<&'static str>,
    set: fn(&mut KubeProxyConfiguration, &str) -> Result<(), String>,
}

impl PartialEq for Flag {
    fn eq(&self, other: &Flag) -> bool {
        self.name == other.name
    }
}

impl Eq for Flag {}

type Outcome = Result<(), String>;

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number that fits"))
}

fn time(text: &str) -> Result<std::time::Duration, String> {
    duration::parse(text).ok_or_else(|| format!("{text:?} is not a duration such as 30s"))
}

fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|part| !part.is_empty()).map(|part| part.trim().to_string()).collect()
}

fn feature_gates(c: &mut KubeProxyConfiguration, text: &str) -> Outcome {
    for part in list(text) {
        let (name, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not NAME=true or NAME=false"))?;
        c.feature_gates.insert(name.trim().into(), boolean(value.trim())?);
    }
    Ok(())
}

fn vmodule(c: &mut KubeProxyConfiguration, text: &str) -> Outcome {
    for part in list(text) {
        let (pattern, level) = part.split_once('=').ok_or_else(|| format!("{part:?} is not PATTERN=LEVEL"))?;
        c.logging.vmodule.push(Vmodule { file_pattern: pattern.into(), verbosity: number(level)? });
    }
    Ok(())
}

/// The deprecated flags give a port alone; 0 disables.
fn port_of(address: &mut String, text: &str) -> Outcome {
    let port: u16 = number(text)?;
    match address.parse::<std::net::SocketAddr>() {
        _ if port == 0 => address.clear(),
        Ok(held) => *address = std::net::SocketAddr::new(held.ip(), port).to_string(),
        Err(_) => *address = format!("0.0.0.0:{port}"),
    }
    Ok(())
}

fn address(text: &str, port: u16) -> String {
    if text.is_empty() { String::new() } else { with_port(text, port) }
}

const PORT: Option<&str> = Some("it is replaced by the bind address of the same server");

macro_rules! flag {
    ($name:literal, $kind:ident, $scope:ident, $set:expr) => {
        flag!($name, $kind, $scope, None, $set)
    };
    ($name:literal, $kind:ident, $scope:ident, $deprecated:expr, $set:expr) => {
        Flag { name: $name, kind: Kind::$kind, scope: Scope::$scope, deprecated: $deprecated, set: $set }
    };
}

/// Stores a parsed value, and says that it was done.
macro_rules! set {
    ($c:ident . $($field:ident).+ = $value:expr) => {{
        $c.$($field).+ = $value;
        Ok(())
    }};
}

/// Long because there are so many; each line is one flag.
static FLAGS: &[Flag] = &[
    flag!("config", Valued, Command, |_, _| Ok(())),
    flag!("write-config-to", Valued, Command, |_, _| Ok(())),
    flag!("cleanup", Boolean, Command, |_, _| Ok(())),
    flag!("init-only", Boolean, Command, |_, _| Ok(())),
    flag!("version", Boolean, Command, |_, _| Ok(())),
    flag!("help", Boolean, Command, |_, _| Ok(())),
    flag!("master", Valued, Command, |_, _| Ok(())),
    flag!("boot-id-file", Valued, Command, |_, _| Ok(())),
    flag!("machine-id-file", Valued, Command, |_, _| Ok(())),
    flag!("hostname-override", Valued, Always, |c, v| set!(c.hostname_override = v.into())),
    flag!("v", Valued, Always, |c, v| set!(c.logging.verbosity = number(v)?)),
    flag!("vmodule", Valued, Always, vmodule),
    flag!("logging-format", Valued, Always, |c, v| set!(c.logging.format = v.into())),
    flag!("log-flush-frequency", Valued, Always, |c, v| set!(c.logging.flush_frequency = time(v)?)),
    flag!("log-text-info-buffer-size", Valued, Always, |c, v| set!(c.logging.options.text.info_buffer_size = v.into())),
    flag!("log-text-split-stream", Boolean, Always, |c, v| set!(c.logging.options.text.split_stream = boolean(v)?)),
    flag!("log-json-info-buffer-size", Valued, Always, |c, v| set!(c.logging.options.json.info_buffer_size = v.into())),
    flag!("log-json-split-stream", Boolean, Always, |c, v| set!(c.logging.options.json.split_stream = boolean(v)?)),
    flag!("kubeconfig", Valued, WithoutFile, |c, v| set!(c.client_connection.kubeconfig = v.into())),
    flag!("kube-api-content-type", Valued, WithoutFile, |c, v| set!(c.client_connection.content_type = v.into())),
    flag!("kube-api-qps", Valued, WithoutFile, |c, v| set!(c.client_connection.qps = number(v)?)),
    flag!("kube-api-burst", Valued, WithoutFile, |c, v| set!(c.client_connection.burst = number(v)?)),
    flag!("feature-gates", Valued, WithoutFile, feature_gates),
    flag!("bind-address", Valued, WithoutFile, |c, v| set!(c.bind_address = v.into())),
    flag!("healthz-bind-address", Valued, WithoutFile, |c, v| set!(c.healthz_bind_address = address(v, 10_256))),
    flag!("metrics-bind-address", Valued, WithoutFile, |c, v| set!(c.metrics_bind_address = address(v, 10_249))),
    flag!("healthz-port", Valued, WithoutFile, PORT, |c, v| port_of(&mut c.healthz_bind_address, v)),
    flag!("metrics-port", Valued, WithoutFile, PORT, |c, v| port_of(&mut c.metrics_bind_address, v)),
    flag!("bind-address-hard-fail", Boolean, WithoutFile, |c, v| set!(c.bind_address_hard_fail = boolean(v)?)),
    flag!("profiling", Boolean, WithoutFile, |c, v| set!(c.enable_profiling = boolean(v)?)),
    flag!("show-hidden-metrics-for-version", Valued, WithoutFile, |c, v| set!(c.show_hidden_metrics_for_version = v.into())),
    flag!("proxy-mode", Valued, WithoutFile, |c, v| set!(c.mode = v.into())),
    flag!("iptables-masquerade-bit", Valued, WithoutFile, |c, v| set!(c.iptables.masquerade_bit = number(v)?)),
    flag!("iptables-localhost-nodeports", Boolean, WithoutFile, |c, v| set!(c.iptables.localhost_node_ports = boolean(v)?)),
    flag!("iptables-sync-period", Valued, WithoutFile, |c, v| {
        // The flag counts in nftables mode, too.
        c.nftables.sync_period = time(v)?;
        set!(c.iptables.sync_period = time(v)?)
    }),
    flag!("iptables-min-sync-period", Valued, WithoutFile, |c, v| {
        c.nftables.min_sync_period = time(v)?;
        set!(c.iptables.min_sync_period = time(v)?)
    }),
    flag!("ipvs-sync-period", Valued, WithoutFile, |c, v| set!(c.ipvs.sync_period = time(v)?)),
    flag!("ipvs-min-sync-period", Valued, WithoutFile, |c, v| set!(c.ipvs.min_sync_period = time(v)?)),
    flag!("ipvs-scheduler", Valued, WithoutFile, |c, v| set!(c.ipvs.scheduler = v.into())),
    flag!("ipvs-exclude-cidrs", Valued, WithoutFile, |c, v| set!(c.ipvs.exclude_cidrs = list(v))),
    flag!("ipvs-strict-arp", Boolean, WithoutFile, |c, v| set!(c.ipvs.strict_arp = boolean(v)?)),
    flag!("ipvs-tcp-timeout", Valued, WithoutFile, |c, v| set!(c.ipvs.tcp_timeout = time(v)?)),
    flag!("ipvs-tcpfin-timeout", Valued, WithoutFile, |c, v| set!(c.ipvs.tcp_fin_timeout = time(v)?)),
    flag!("ipvs-udp-timeout", Valued, WithoutFile, |c, v| set!(c.ipvs.udp_timeout = time(v)?)),
    flag!("masquerade-all", Boolean, WithoutFile, |c, v| {
        c.nftables.masquerade_all = boolean(v)?;
        set!(c.iptables.masquerade_all = boolean(v)?)
    }),
    flag!("detect-local-mode", Valued, WithoutFile, |c, v| set!(c.detect_local_mode = v.into())),
    flag!("pod-bridge-interface", Valued, WithoutFile, |c, v| set!(c.detect_local.bridge_interface = v.into())),
    flag!("pod-interface-name-prefix", Valued, WithoutFile, |c, v| set!(c.detect_local.interface_name_prefix = v.into())),
    flag!("cluster-cidr", Valued, WithoutFile, |c, v| set!(c.cluster_cidr = v.into())),
    flag!("nodeport-addresses", Valued, WithoutFile, |c, v| set!(c.node_port_addresses = list(v))),
    flag!("oom-score-adj", Valued, WithoutFile, |c, v| set!(c.oom_score_adj = number(v)?)),
    flag!("conntrack-max-per-core", Valued, WithoutFile, |c, v| set!(c.conntrack.max_per_core = number(v)?)),
    flag!("conntrack-min", Valued, WithoutFile, |c, v| set!(c.conntrack.min = number(v)?)),
    flag!("conntrack-tcp-timeout-established", Valued, WithoutFile, |c, v| set!(c.conntrack.tcp_established_timeout = time(v)?)),
    flag!("conntrack-tcp-timeout-close-wait", Valued, WithoutFile, |c, v| set!(c.conntrack.tcp_close_wait_timeout = time(v)?)),
    flag!("conntrack-tcp-be-liberal", Boolean, WithoutFile, |c, v| set!(c.conntrack.tcp_be_liberal = boolean(v)?)),
    flag!("conntrack-udp-timeout", Valued, WithoutFile, |c, v| set!(c.conntrack.udp_timeout = time(v)?)),
    flag!("conntrack-udp-timeout-stream", Valued, WithoutFile, |c, v| set!(c.conntrack.udp_stream_timeout = time(v)?)),
    flag!("config-sync-period", Valued, WithoutFile, |c, v| set!(c.config_sync_period = time(v)?)),
];

/// Every flag's name.
pub fn names() -> impl Iterator<Item = &'static str> {
    FLAGS.iter().map(|flag| flag.name)
}

/// Reads a command line (without the program's name). What is wrong is for [`settle`](super::effective::settle) to tell,
/// with the file's mistakes.
pub fn parse(words: &[String]) -> CommandLine {
    let mut line = CommandLine::default();
    let mut errors = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let Some((name, value)) = split(word) else {
            errors.push(FieldError::new(word.as_str(), "unexpected argument"));
            continue;
        };
        let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) else {
            errors.push(FieldError::new(format!("--{name}"), "unknown flag"));
            continue;
        };
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Boolean) => "true".into(),
            (None, Kind::Valued) => match rest.next() {
                Some(value) => value.clone(),
                None => {
                    errors.push(FieldError::new(format!("--{name}"), "needs a value"));
                    continue;
                }
            },
        };
        if let Some(why) = flag.deprecated {
            line.warnings.push(format!("--{name} is deprecated: {why}"));
        }
        if let Err(message) = line.take(flag, value) {
            errors.push(FieldError::new(format!("--{name}"), message));
        }
    }
    CommandLine { errors, ..line }
}

/// The flag's name with dashes, and its value if it is in the same word.
fn split(word: &str) -> Option<(String, Option<String>)> {
    let (name, value) = if let Some(long) = word.strip_prefix("--") {
        match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        }
    } else {
        // `-v` is the only short flag with a value: -v 2, -v=2, -v2.
        match word.strip_prefix('-')? {
            "h" => ("help", None),
            short => {
                let rest = short.strip_prefix('v')?;
                let value = rest.strip_prefix('=').unwrap_or(rest);
                ("v", (!rest.is_empty()).then_some(value))
            }
        }
    };
    (!name.is_empty()).then(|| (name.replace('_', "-"), value.map(String::from)))
}

impl CommandLine {
    fn take(&mut self, flag: &'static Flag, value: String) -> Result<(), String> {
        match flag.name {
            "config" => self.config = Some(value).filter(|path| !path.is_empty()),
            "write-config-to" => self.write_config_to = Some(value).filter(|path| !path.is_empty()),
            "cleanup" => self.cleanup = boolean(&value)?,
            "init-only" => self.init_only = boolean(&value)?,
            "version" => self.version = !matches!(value.as_str(), "false" | "0"),
            "help" => self.help = boolean(&value)?,
            "master" => self.master = Some(value).filter(|address| !address.is_empty()),
            "boot-id-file" => self.boot_id_file = Some(value),
            "machine-id-file" => self.machine_id_file = Some(value),
            _ => {
                // Whether the value is one is known at once, and what it does only with the file's settings.
                (flag.set)(&mut KubeProxyConfiguration::default(), &value)?;
                self.settings.push((flag, value));
            }
        }
        Ok(())
    }

    /// Sets what the flags say on top of a file's settings, or of the defaults. Beside a file most flags do not count;
    /// returns a warning for those.
    pub fn apply(&self, config: &mut KubeProxyConfiguration, with_file: bool) -> Vec<String> {
        if !with_file {
            self.choose_family(config);
        }
        let mut warnings = Vec::new();
        for (flag, value) in &self.settings {
            if with_file && flag.scope == Scope::WithoutFile {
                warnings.push(format!("--{} does not count beside --config", flag.name));
                continue;
            }
            // The value was tried when the command line was read.
            drop((flag.set)(config, value));
        }
        warnings
    }

    /// The family of --bind-address chooses the default addresses of the servers.
    fn choose_family(&self, config: &mut KubeProxyConfiguration) {
        let bind = self.settings.iter().rev().find(|(flag, _)| flag.name == "bind-address");
        if bind.is_some_and(|(_, address)| address.contains(':')) {
            config.healthz_bind_address = "[::]:10256".into();
            config.metrics_bind_address = "[::1]:10249".into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    fn configured(text: &str, with_file: bool) -> (KubeProxyConfiguration, Vec<String>) {
        let mut config = KubeProxyConfiguration::default();
        let warnings = parse(&words(text)).apply(&mut config, with_file);
        (config, warnings)
    }

    #[test]
    fn every_flag_of_kube_proxy_is_there() {
        let all = "config write-config-to cleanup init-only master kubeconfig kube-api-content-type kube-api-qps kube-api-burst \
            feature-gates hostname-override bind-address healthz-bind-address metrics-bind-address bind-address-hard-fail profiling \
            show-hidden-metrics-for-version proxy-mode iptables-masquerade-bit iptables-localhost-nodeports iptables-sync-period \
            iptables-min-sync-period ipvs-sync-period ipvs-min-sync-period ipvs-scheduler ipvs-exclude-cidrs ipvs-strict-arp \
            ipvs-tcp-timeout ipvs-tcpfin-timeout ipvs-udp-timeout masquerade-all detect-local-mode pod-bridge-interface \
            pod-interface-name-prefix cluster-cidr nodeport-addresses oom-score-adj conntrack-max-per-core conntrack-min \
            conntrack-tcp-timeout-established conntrack-tcp-timeout-close-wait conntrack-tcp-be-liberal conntrack-udp-timeout \
            conntrack-udp-timeout-stream config-sync-period healthz-port metrics-port v vmodule logging-format log-flush-frequency \
            log-text-info-buffer-size log-text-split-stream log-json-info-buffer-size log-json-split-stream version boot-id-file \
            machine-id-file";
        for name in all.split_whitespace() {
            assert!(names().any(|known| known == name), "no --{name}");
        }
    }

    #[test]
    fn flags_are_written_in_several_ways() {
        let (config, _) =
            configured("--proxy-mode=ipvs --ipvs_scheduler lc --masquerade-all -v2 --nodeport-addresses 10.0.0.0/8,fd00::/8", false);
        assert_eq!((config.mode.as_str(), config.ipvs.scheduler.as_str(), config.logging.verbosity), ("ipvs", "lc", 2));
        assert!(config.iptables.masquerade_all && config.nftables.masquerade_all);
        assert_eq!(config.node_port_addresses, ["10.0.0.0/8", "fd00::/8"]);
        for text in ["-v 4", "-v=4", "--v=4", "--v 4"] {
            assert_eq!(configured(text, false).0.logging.verbosity, 4, "{text}");
        }
        let (config, _) = configured("--iptables-min-sync-period 5s --iptables-sync-period=1m", false);
        assert_eq!(config.nftables.min_sync_period, Duration::from_secs(5));
        assert_eq!(config.iptables.sync_period, Duration::from_secs(60));
    }

    #[test]
    fn beside_a_file_only_a_few_flags_count() {
        let (config, warnings) = configured("--proxy-mode=ipvs --hostname-override=n1 -v=3 --cluster-cidr=10.0.0.0/8", true);
        assert_eq!((config.mode.as_str(), config.hostname_override.as_str(), config.logging.verbosity), ("", "n1", 3));
        assert_eq!(warnings, ["--proxy-mode does not count beside --config", "--cluster-cidr does not count beside --config"]);
    }

    #[test]
    fn every_wrong_flag_is_told_at_once() {
        let errors = parse(&words("--no-such --conntrack-min=x stray --ipvs-udp-timeout=5 --cleanup=maybe --kubeconfig")).errors;
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["--no-such", "--conntrack-min", "stray", "--ipvs-udp-timeout", "--cleanup", "--kubeconfig"]);
    }

    #[test]
    fn deprecated_ports_still_work_and_warn() {
        let line = parse(&words("--healthz-port=0 --metrics-port=9000"));
        let mut config = KubeProxyConfiguration::default();
        line.apply(&mut config, false);
        assert_eq!((config.healthz_bind_address.as_str(), config.metrics_bind_address.as_str()), ("", "127.0.0.1:9000"));
        assert!(line.warnings[0].starts_with("--healthz-port is deprecated"));
    }

    #[test]
    fn the_family_of_the_bind_address_chooses_the_servers() {
        let (config, _) = configured("--bind-address=::", false);
        assert_eq!((config.healthz_bind_address.as_str(), config.metrics_bind_address.as_str()), ("[::]:10256", "[::1]:10249"));
        assert_eq!(configured("--metrics-bind-address=0.0.0.0", false).0.metrics_bind_address, "0.0.0.0:10249");
        assert_eq!(configured("--healthz-bind-address=", false).0.healthz_bind_address, "");
    }
}
