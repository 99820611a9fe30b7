//! The command line of a kubelet 1.36, as pflag reads it: `--flag=value`, `--flag value`, `--bool`, `--bool=false`,
//! `_` for `-`. Most flags set a field of the configuration ([`fields`]); the others are here.

use super::FieldError;
use super::fields::{self, Field, Kind, TAINT};
use longshore_dataplane::config::duration;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a command line says.
#[derive(Debug, Default)]
pub struct CommandLine {
    /// Fields of the configuration, in the order given.
    pub settings: Vec<(&'static Field, Value)>,
    /// Flags that are no fields; the last one counts.
    own: BTreeMap<&'static str, String>,
    pub warnings: Vec<String>,
    /// All that is wrong with it.
    pub errors: Vec<FieldError>,
}

/// Flags that are no fields: whether each is a boolean.
const OWN: &[(&str, bool)] = &[
    ("bootstrap-kubeconfig", false),
    ("cert-dir", false),
    ("cloud-provider", false),
    ("config", false),
    ("config-dir", false),
    // Of this program alone, as state-dir and run-dir are.
    ("container-logs-dir", false),
    ("exit-on-lock-contention", true),
    ("help", true),
    ("hostname-override", false),
    ("image-credential-provider-bin-dir", false),
    ("image-credential-provider-config", false),
    ("kubeconfig", false),
    ("lock-file", false),
    ("node-ip", false),
    ("node-labels", false),
    ("root-dir", false),
    ("run-dir", false),
    ("runtime-cgroups", false),
    ("state-dir", false),
    ("version", true),
];

/// Accepted for older units; they do nothing.
const PAST: &[(&str, bool)] = &[
    ("application-metrics-count-limit", false),
    ("boot-id-file", false),
    ("container-hints", false),
    ("containerd", false),
    ("enable-load-reader", true),
    ("event-storage-age-limit", false),
    ("event-storage-event-limit", false),
    ("experimental-allocatable-ignore-eviction", true),
    ("experimental-mounter-path", false),
    ("global-housekeeping-interval", false),
    ("housekeeping-interval", false),
    ("log-cadvisor-usage", true),
    ("machine-id-file", false),
    ("maximum-dead-containers", false),
    ("maximum-dead-containers-per-container", false),
    ("minimum-container-ttl-duration", false),
    ("pod-infra-container-image", false),
    ("storage-driver-user", false),
    ("storage-driver-password", false),
    ("storage-driver-host", false),
    ("storage-driver-db", false),
    ("storage-driver-table", false),
    ("storage-driver-secure", true),
    ("storage-driver-buffer-duration", false),
];

/// Own flags that are accepted and do nothing here.
const IDLE: &[&str] = &[
    "cloud-provider",
    "exit-on-lock-contention",
    "image-credential-provider-bin-dir",
    "image-credential-provider-config",
    "lock-file",
    "runtime-cgroups",
];

impl CommandLine {
    /// What an own flag was given; empty counts as not given.
    pub fn own(&self, name: &str) -> Option<&str> {
        self.own.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// Own flags that are given and do nothing here.
    pub fn without_effect(&self) -> Vec<&'static str> {
        IDLE.iter().filter(|n| self.own(n).is_some()).copied().collect()
    }
}

/// Every flag, and whether it takes a value.
pub fn names() -> Vec<(&'static str, bool)> {
    let of_fields = fields::FIELDS.iter().filter(|f| !f.flag.is_empty()).map(|f| (f.flag, f.kind != Kind::Bool));
    let mut all: Vec<_> = of_fields.chain(OWN.iter().map(|(n, boolean)| (*n, !boolean))).collect();
    all.sort_unstable();
    all
}

pub fn parse(words: &[String]) -> CommandLine {
    let mut line = CommandLine::default();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let short = |w: &str| match w {
            "-h" => Some("--help".to_owned()),
            _ => w
                .strip_prefix("-v")
                .filter(|n| n.is_empty() || n.starts_with(|c: char| c == '=' || c.is_ascii_digit()))
                .map(|n| if n.is_empty() { "--v".into() } else { format!("--v={}", n.trim_start_matches('=')) }),
        };
        let full = short(word).unwrap_or_else(|| word.clone());
        let Some(body) = full.strip_prefix("--").filter(|b| !b.is_empty()) else {
            line.errors.push(FieldError::new(word, "is not a flag; a kubelet takes no other arguments"));
            continue;
        };
        let (name, value) = body.split_once('=').map_or((body, None), |(n, v)| (n, Some(v.to_owned())));
        let name = name.replace('_', "-");
        let field = fields::by_flag(&name);
        let boolean = match (field, OWN.iter().chain(PAST).find(|(n, _)| *n == name)) {
            (Some(f), _) => f.kind == Kind::Bool,
            (None, Some((_, boolean))) => *boolean,
            (None, None) => {
                line.errors.push(FieldError::new(format!("--{name}"), "unknown flag"));
                continue;
            }
        };
        let value = value.or_else(|| if boolean { Some("true".into()) } else { rest.next().cloned() });
        match (value, field) {
            (None, _) => line.errors.push(FieldError::new(format!("--{name}"), "needs a value")),
            (Some(v), Some(f)) => set(&mut line, f, &v),
            (Some(v), None) => own(&mut line, &name, v, boolean),
        }
    }
    line
}

fn own(line: &mut CommandLine, name: &str, value: String, boolean: bool) {
    if boolean && truth(&value).is_none() && !(name == "version" && value == "raw") {
        return line.errors.push(FieldError::new(format!("--{name}"), format!("{value:?} is not true or false")));
    }
    match OWN.iter().find(|(n, _)| *n == name) {
        None => line.warnings.push(format!("--{name} does nothing any more")),
        Some(_) if boolean && truth(&value) == Some(false) => {}
        // Labels add up over several flags.
        Some((n, _)) if *n == "node-labels" => {
            let all = line.own.entry(n).or_default();
            if !all.is_empty() {
                all.push(',');
            }
            all.push_str(&value);
        }
        Some((n, _)) => drop(line.own.insert(n, value)),
    }
}

/// A list or map goes on where the flag stands again, and the first replaces what the file says.
fn set(line: &mut CommandLine, field: &'static Field, text: &str) {
    match value_of(field, text) {
        Err(message) => line.errors.push(FieldError::new(format!("--{}", field.flag), message)),
        Ok(value) => match (line.settings.iter_mut().find(|(f, _)| std::ptr::eq(*f, field)), value) {
            (Some((_, Value::Array(all))), Value::Array(more)) => all.extend(more),
            (Some((_, Value::Object(all))), Value::Object(more)) => all.extend(more),
            (Some((_, before)), value) => *before = value,
            (None, value) => line.settings.push((field, value)),
        },
    }
}

/// As Go's `strconv.ParseBool`.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn value_of(field: &Field, text: &str) -> Result<Value, String> {
    let not = |what: &str| format!("{text:?} is not {what}");
    let number = || text.parse::<i64>().map_err(|_| not("a whole number"));
    Ok(match field.kind {
        Kind::Bool => truth(text).ok_or_else(|| not("true or false"))?.into(),
        Kind::Int32 => i32::try_from(number()?).map_err(|_| not("a number of 32 bits"))?.into(),
        Kind::Int64 => number()?.into(),
        Kind::Float => text.parse::<f64>().map_err(|_| not("a number"))?.into(),
        Kind::Text | Kind::Quantity => text.into(),
        Kind::Duration | Kind::Flush => duration::parse_signed(text).map(|_| text.into()).ok_or_else(|| not("a duration such as 1m30s"))?,
        Kind::Texts => items(text).map(str::trim).map(Value::from).collect::<Vec<_>>().into(),
        Kind::Ints => items(text)
            .map(|t| t.parse::<i64>().map(Value::from))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| not("a list of numbers"))?
            .into(),
        Kind::TextMap => map(text, '=')?,
        Kind::Thresholds => map(text, '<')?,
        Kind::BoolMap => {
            let Value::Object(all) = map(text, '=')? else { return Err(not("a map")) };
            let one = |(k, v): (String, Value)| Ok((k, truth(v.as_str().unwrap_or_default()).ok_or_else(|| not("true or false"))?.into()));
            Value::Object(all.into_iter().map(one).collect::<Result<Map<_, _>, String>>()?)
        }
        Kind::TextsMap => {
            let mut all = Map::new();
            for item in items(text) {
                let (k, v) = item.split_once(':').ok_or_else(|| not("name:value,..."))?;
                let list = all.entry(k.trim()).or_insert_with(|| json!([]));
                list.as_array_mut().expect("only lists are put in").push(v.trim().into());
            }
            Value::Object(all)
        }
        Kind::Objects(TAINT) => items(text).map(taint).collect::<Result<Vec<_>, _>>()?.into(),
        Kind::Objects(_) if field.flag == "reserved-memory" => text.split(';').map(memory).collect::<Result<Vec<_>, _>>()?.into(),
        Kind::Objects(_) => items(text)
            .map(|i| {
                let (pattern, n) = i.split_once('=').ok_or_else(|| not("pattern=N,..."))?;
                Ok(json!({"filePattern": pattern, "verbosity": n.parse::<u32>().map_err(|_| not("pattern=N,..."))?}))
            })
            .collect::<Result<Vec<_>, String>>()?
            .into(),
    })
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|t| !t.trim().is_empty())
}

fn map(text: &str, between: char) -> Result<Value, String> {
    let one = |item: &str| {
        let (k, v) = item.split_once(between).ok_or_else(|| format!("{item:?} is not name{between}value"))?;
        Ok((k.trim().to_owned(), Value::from(v.trim())))
    };
    Ok(Value::Object(items(text).map(one).collect::<Result<_, String>>()?))
}

/// `key=value:effect`
fn taint(text: &str) -> Result<Value, String> {
    let (what, effect) = text.trim().rsplit_once(':').ok_or_else(|| format!("{text:?} is not a taint such as key=value:NoSchedule"))?;
    let (key, value) = what.split_once('=').unwrap_or((what, ""));
    let mut taint = json!({"key": key, "effect": effect});
    if !value.is_empty() {
        taint["value"] = value.into();
    }
    Ok(taint)
}

/// `0:memory=1Gi,hugepages-1Gi=2Gi`
fn memory(text: &str) -> Result<Value, String> {
    let (node, limits) = text.split_once(':').ok_or_else(|| format!("{text:?} is not node:memory=amount"))?;
    let node: u32 = node.trim().parse().map_err(|_| format!("{node:?} is not the number of a NUMA node"))?;
    Ok(json!({"numaNode": node, "limits": map(limits, '=')?}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settle;

    fn parsed(words: &[&str]) -> CommandLine {
        parse(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_read_as_pflag_reads_them_and_go_before_the_file() {
        let line = parsed(&[
            "--max-pods=20",
            "--cluster_dns",
            "10.96.0.10,10.96.0.11",
            "--cluster-dns=10.96.0.12",
            "--fail-swap-on=false",
            "--register-node",
            "--feature-gates=A=true",
            "--feature-gates",
            "B=false",
            "--eviction-hard=memory.available<200Mi,nodefs.available<5%",
            "--register-with-taints=a=b:NoSchedule,c:NoExecute",
            "-v",
            "4",
            "--kubeconfig=/k",
            "--node-labels=a=b",
            "--node-labels",
            "c=d",
            "--pod-infra-container-image=registry/pause:3.9",
            "--version=false",
            "--reserved-memory=0:memory=1Gi;1:memory=2Gi",
        ]);
        assert_eq!(line.errors, []);
        let file = json!({"apiVersion": super::super::API_VERSION, "kind": super::super::KIND, "maxPods": 50, "clusterDomain": "x",
            "featureGates": {"A": false, "C": true}, "clusterDNS": ["10.0.0.1"]});
        let c = settle(Some(&file), &line).unwrap().config;
        assert_eq!((c.number("maxPods"), c.text("clusterDomain"), c.truth("failSwapOn")), (20, "x", false));
        assert_eq!(c.texts("clusterDNS"), ["10.96.0.10", "10.96.0.11", "10.96.0.12"]);
        assert_eq!(c.get("featureGates"), Some(&json!({"A": true, "B": false, "C": true})));
        assert_eq!(c.get("evictionHard"), Some(&json!({"memory.available": "200Mi", "nodefs.available": "5%"})));
        assert_eq!(c.get("registerWithTaints").unwrap()[1], json!({"key": "c", "effect": "NoExecute"}));
        assert_eq!((c.number("logging.verbosity"), &c.get("reservedMemory").unwrap()[1]["numaNode"]), (4, &json!(1)));
        assert_eq!((line.own("node-labels"), line.own("kubeconfig"), line.own("version")), (Some("a=b,c=d"), Some("/k"), None));
        assert_eq!(line.warnings.len(), 1);
    }

    #[test]
    fn every_wrong_flag_is_named() {
        let line = parsed(&["--max-pods=x", "--no-such", "run", "--register-node=maybe", "--system-reserved=cpu", "--config"]);
        let fields: Vec<&str> = line.errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["--max-pods", "--no-such", "run", "--register-node", "--system-reserved", "--config"]);
    }
}
