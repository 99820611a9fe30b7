//! A kubelet's configuration from its files, and what the daemon is told of it.
//!
//! Owns reading the file and its drop-ins, and the checks of the machine that a kubelet makes before it starts. What
//! fields mean is `crate::config`. Tests: at the end of this file, `tests/tests/process_kubelet.rs`.

use crate::config::{API_VERSION, CommandLine, Configuration, FieldError, KIND, decode, merge, settle};
use crate::manifest::text;
use crate::plan::backoff::Limits;
use serde_json::Value;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Fields that are paths; one that is relative begins at the file's directory.
const PATHS: [&[&str]; 6] = [
    &["staticPodPath"],
    &["authentication", "x509", "clientCAFile"],
    &["tlsCertFile"],
    &["tlsPrivateKeyFile"],
    &["resolvConf"],
    &["volumePluginDir"],
];

/// What pods and the port are told by a `KubeletConfiguration`, beside what [`super::assemble::Options`] has anyway.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The whole of it; None: the daemon runs by its own flags.
    pub configuration: Option<Value>,
    pub cluster_dns: Vec<IpAddr>,
    /// `--node-ip`: what the node is known by, or its family where it is an unspecified one. Empty: it is found.
    pub node_ips: Vec<IpAddr>,
    /// Empty: pods get nothing of the node's.
    pub resolv_conf: PathBuf,
    pub pod_pids_limit: i64,
    pub seccomp_default: bool,
    pub allowed_unsafe_sysctls: Vec<String>,
    pub single_process_oom_kill: bool,
    pub parallel_pulls: usize,
    pub restarts: Limits,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            configuration: None,
            cluster_dns: Vec::new(),
            node_ips: Vec::new(),
            resolv_conf: "/etc/resolv.conf".into(),
            pod_pids_limit: -1,
            seccomp_default: false,
            allowed_unsafe_sysctls: Vec::new(),
            single_process_oom_kill: false,
            parallel_pulls: 1,
            restarts: Limits::default(),
        }
    }
}

impl Settings {
    pub fn of(c: &Configuration) -> Settings {
        Settings {
            configuration: Some(c.value().clone()),
            node_ips: Vec::new(),
            cluster_dns: c.texts("clusterDNS").iter().filter_map(|t| t.parse().ok()).collect(),
            resolv_conf: c.text("resolvConf").into(),
            pod_pids_limit: c.number("podPidsLimit"),
            seccomp_default: c.truth("seccompDefault"),
            allowed_unsafe_sysctls: c.texts("allowedUnsafeSysctls"),
            single_process_oom_kill: c.truth("singleProcessOOMKill"),
            parallel_pulls: parallel_pulls(c),
            restarts: restarts(c.duration("crashLoopBackOff.maxContainerRestartPeriod")),
        }
    }

    /// The node's own resolver file.
    pub fn host_resolv(&self) -> String {
        std::fs::read_to_string(&self.resolv_conf).unwrap_or_default()
    }
}

/// The first wait is no longer than the longest.
fn restarts(max: Duration) -> Limits {
    Limits { initial: Limits::default().initial.min(max), max }
}

/// No bound is as many as the runtime can take at once.
fn parallel_pulls(c: &Configuration) -> usize {
    const MANY: usize = 64;
    match (c.truth("serializeImagePulls"), usize::try_from(c.number("maxParallelImagePulls"))) {
        (true, _) => 1,
        (false, Ok(0) | Err(_)) => MANY,
        (false, Ok(n)) => n,
    }
}

/// Reads what the command line names and settles it; also the unknown fields.
///
/// # Errors
/// Everything that is wrong.
pub fn load(line: &CommandLine) -> Result<decode::Settled, Vec<FieldError>> {
    let one = |e: String| vec![FieldError::new("--config", e)];
    let mut document = line.own("config").map(|p| file(Path::new(p))).transpose().map_err(one)?;
    if let Some(directory) = line.own("config-dir") {
        for path in drop_ins(Path::new(directory)).map_err(|e| vec![FieldError::new("--config-dir", format!("{directory}: {e}"))])? {
            let patch = file(&path).and_then(|d| named(d, &path)).map_err(|e| vec![FieldError::new("--config-dir", e)])?;
            merge(document.get_or_insert(Value::Null), &patch);
        }
    }
    settle(document.as_ref(), line)
}

/// A drop-in says what it is.
fn named(document: Value, path: &Path) -> Result<Value, String> {
    if document["kind"] == KIND && document["apiVersion"] == API_VERSION {
        Ok(document)
    } else {
        Err(format!("{}: is not of kind {KIND} and apiVersion {API_VERSION}", path.display()))
    }
}

fn file(path: &Path) -> Result<Value, String> {
    let at = |e: String| format!("{}: {e}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| at(e.to_string()))?;
    let mut document = text::one(&text).map_err(at)?;
    let base = path.parent().unwrap_or(Path::new("/"));
    for names in PATHS {
        let place = names.iter().try_fold(&mut document, |v, name| v.get_mut(*name));
        if let Some(Value::String(p)) = place
            && !p.is_empty()
            && !p.starts_with('/')
        {
            *p = base.join(&*p).to_string_lossy().into_owned();
        }
    }
    Ok(document)
}

/// All `*.conf` below, in the order of a walk by names.
fn drop_ins(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = std::fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut out = Vec::new();
    for entry in entries {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            out.extend(drop_ins(&path)?);
        } else if path.extension().is_some_and(|e| e == "conf") {
            out.push(path);
        }
    }
    Ok(out)
}

/// Why a kubelet with this configuration refuses to run on this machine.
pub fn refusal(c: &Configuration) -> Option<String> {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if c.truth("failCgroupV1") && !unified {
        return Some("this machine has cgroups of version 1; failCgroupV1 (--fail-cgroupv1) false allows them".into());
    }
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    if c.truth("failSwapOn") && swaps.lines().nth(1).is_some() {
        return Some("swap is on; turn it off, or set failSwapOn (--fail-swap-on) to false".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flags;

    #[test]
    fn drop_ins_are_laid_over_the_file_in_order_and_flags_over_both() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}")).unwrap();
        };
        write("config.yaml", "maxPods: 10\nclusterDomain: a\nstaticPodPath: pods\nauthentication: {x509: {clientCAFile: ca.crt}}\n");
        write("d/20.conf", "maxPods: 30\nreadOnlyPort: 1\n");
        write("d/10.conf", "maxPods: 20\nclusterDomain: b\n");
        write("d/ignored.yaml", "maxPods: 40\n");
        write("d/sub/5.conf", "readOnlyPort: 2\n");
        let arguments = [
            format!("--config={}", dir.path().join("config.yaml").display()),
            format!("--config-dir={}", dir.path().join("d").display()),
            "--event-qps=7".to_owned(),
        ];
        let c = load(&flags::parse(&arguments)).unwrap().config;
        assert_eq!((c.number("maxPods"), c.text("clusterDomain"), c.number("readOnlyPort")), (30, "b", 2));
        assert_eq!((c.number("eventRecordQPS"), c.text("staticPodPath")), (7, &*dir.path().join("pods").to_string_lossy()));
        std::fs::write(dir.path().join("d/30.conf"), "maxPods: 1\n").unwrap();
        assert!(load(&flags::parse(&arguments)).unwrap_err()[0].to_string().contains("30.conf"));
    }
}
