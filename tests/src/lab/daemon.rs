//! The daemon under test, started in the lab and driven as a user would: signals and its command line.

use super::net::{CLUSTER_CIDRS, Namespace, SERVICE_CIDRS, output};
use super::process::Running;
use super::wait::wait_for;
use super::{Containerd, Home};
use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// Names the binary to test where it is not beside the tests' own.
const BINARY: &str = "LONGSHORE_BINARY";
/// The first service address but nine, as clusters have it.
pub const DNS_ADDRESS: &str = "10.96.0.10";
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// The built daemon: `$LONGSHORE_BINARY`, or the one that cargo put next to this program.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY) {
        return fs::canonicalize(&path).with_context(|| format!("{BINARY} is {}", path.display()));
    }
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let beside = own.ancestors().skip(1).take(2).map(|directory| directory.join("longshore"));
    beside
        .into_iter()
        .find(|path| path.is_file())
        .with_context(|| format!("no longshore beside {}: build it first (make build), or set {BINARY}", own.display()))
}

/// What may differ between daemons of a test.
#[derive(Clone, Debug)]
pub struct Options {
    pub node_name: String,
    pub cluster_cidrs: Vec<String>,
    pub service_cidrs: Vec<String>,
    /// More of the command line, after everything else.
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            node_name: "lab".to_owned(),
            cluster_cidrs: CLUSTER_CIDRS.map(str::to_owned).to_vec(),
            service_cidrs: SERVICE_CIDRS.map(str::to_owned).to_vec(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }
}

/// A daemon with its directories; killed when dropped, its pods left to the [`Home`].
pub struct Daemon {
    binary: PathBuf,
    base: PathBuf,
    cgroup: String,
    endpoint: String,
    namespace: Option<PathBuf>,
    options: Options,
    running: Option<Running>,
}

impl Daemon {
    /// Prepares a daemon's directories under `home`, and starts it in `namespace` on `containerd`.
    /// It works on the manifests that are, or will be, in [`manifests`](Self::manifests).
    pub fn start(home: &Home, namespace: Option<&Namespace>, containerd: &Containerd, options: Options) -> Result<Daemon> {
        let endpoint = containerd.endpoint();
        let mut daemon = Daemon::prepare(home, namespace, &endpoint, options)?;
        daemon.launch()?;
        Ok(daemon)
    }

    /// The same without starting it.
    pub fn prepare(home: &Home, namespace: Option<&Namespace>, endpoint: &str, options: Options) -> Result<Daemon> {
        let daemon = Daemon {
            binary: binary()?,
            base: home.directory("longshore")?,
            cgroup: home.cgroup(),
            endpoint: endpoint.to_owned(),
            namespace: namespace.map(Namespace::path),
            options,
            running: None,
        };
        for name in ["manifests", "state", "root", "run", "pod-logs", "container-logs"] {
            home.directory(&format!("longshore/{name}"))?;
        }
        Ok(daemon)
    }

    /// The directory of manifests it watches.
    pub fn manifests(&self) -> PathBuf {
        self.base.join("manifests")
    }

    /// What a kubelet has in /var/lib/kubelet: pods' volumes.
    pub fn root_directory(&self) -> PathBuf {
        self.base.join("root")
    }

    pub fn state_directory(&self) -> PathBuf {
        self.base.join("state")
    }

    /// Where containers' logs are, as /var/log/pods.
    pub fn pod_logs(&self) -> PathBuf {
        self.base.join("pod-logs")
    }

    pub fn socket(&self) -> PathBuf {
        self.base.join("run/longshore.sock")
    }

    /// Puts a manifest into the directory, whole or not at all.
    pub fn apply(&self, name: &str, manifest: &str) -> Result<()> {
        let path = self.manifests().join(name);
        let draft = self.base.join(format!("{name}.draft"));
        fs::write(&draft, manifest).and_then(|()| fs::rename(&draft, &path)).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Takes a manifest away.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.manifests().join(name);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// Starts it (again), without waiting for anything.
    pub fn spawn(&mut self) -> Result<()> {
        let namespace = self.namespace.as_deref().map(Namespace::open).transpose()?;
        let log = self.base.join("longshore.log");
        // Its own cgroup beside the pods', so that an accounting of one is not of the other.
        let cgroup = self.cgroup.clone() + "/daemon";
        self.running = Some(Running::start(self.command_line(), &log, namespace.as_ref(), &cgroup)?);
        Ok(())
    }

    /// Starts it (again), and waits until it answers on its socket.
    pub fn launch(&mut self) -> Result<()> {
        self.spawn()?;
        wait_for("the daemon answers on its socket", START_LIMIT, || -> Result<_> {
            if let Some(status) = self.running.as_mut().and_then(Running::ended) {
                return Ok(Some(Err(anyhow!("it ended: {status}"))));
            }
            self.get("pods").map(|_| Some(Ok(())))
        })
        .flatten()
        .with_context(|| format!("the daemon does not start; it logged:\n{}", self.log()))
    }

    fn command_line(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("run");
        for (flag, place) in [
            ("--manifests", self.manifests()),
            ("--state-dir", self.state_directory()),
            ("--root-dir", self.root_directory()),
            ("--run-dir", self.base.join("run")),
            ("--pod-logs-dir", self.pod_logs()),
            ("--container-logs-dir", self.base.join("container-logs")),
        ] {
            command.arg(flag).arg(place);
        }
        let Options { node_name, cluster_cidrs, service_cidrs, arguments, environment } = &self.options;
        command.args(["--runtime-endpoint", &self.endpoint, "--node-name", node_name]);
        command.args(["--cluster-cidr", &cluster_cidrs.join(",")]);
        command.args(["--service-cidr", &service_cidrs.join(",")]);
        command.args(["--dns-address", DNS_ADDRESS]);
        match super::on_systemd() {
            // Slices have names of their own; the lab's group is not systemd's.
            true => command.args(["--cgroup-driver", "systemd"]),
            false => command.args(["--cgroup-driver", "cgroupfs", "--cgroup-root", &self.cgroup]),
        };
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// TERM; an error when it does not leave in time. Its pods run on.
    pub fn stop(&mut self) -> Result<Option<ExitStatus>> {
        self.running.take().map(|mut running| running.stop(STOP_LIMIT)).transpose()
    }

    /// `kill -9`. Its pods run on.
    pub fn kill_nine(&mut self) {
        self.running.take();
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running.as_ref().context("the daemon is not running")?.signal(signal)
    }

    pub fn pid(&self) -> Option<i32> {
        self.running.as_ref().map(Running::pid)
    }

    /// Whether it has ended by itself, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.running.as_mut().and_then(Running::ended)
    }

    /// All it has logged, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.base.join("longshore.log")).unwrap_or_default()).into_owned()
    }

    /// Runs its command line (`longshore get …`) and returns what it printed.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--socket").arg(self.socket());
        output(command)
    }

    /// The command line that [`cli`](Self::cli) runs, for a human to type.
    pub fn invocation(&self, arguments: &[&str]) -> String {
        let (binary, socket) = (self.binary.display(), self.socket());
        format!("{binary} {} --socket {}", arguments.join(" "), socket.display())
    }

    /// All objects of a kind (`pods`, `services`), in all namespaces, as a list object.
    pub fn get(&self, kind: &str) -> Result<Value> {
        let text = self.cli(&["get", kind, "-A", "-o", "json"])?;
        serde_json::from_str(&text).with_context(|| format!("get {kind} printed no JSON: {text}"))
    }

    /// One object, or `None`.
    pub fn find(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let mut list = self.get(kind)?;
        let items = list["items"].as_array_mut().context("no items")?;
        let found = items.iter().position(|item| item["metadata"]["namespace"] == namespace && item["metadata"]["name"] == name);
        Ok(found.map(|at| items.swap_remove(at)))
    }

    /// Waits until a pod fulfils a condition; the error shows the pod as it was last.
    pub fn wait_for_pod(
        &self,
        (namespace, name): (&str, &str),
        what: &str,
        limit: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        wait_for(&format!("pod {namespace}/{name} is {what}"), limit, || match self.find("pods", namespace, name)? {
            Some(pod) if condition(&pod) => Ok(Some(pod)),
            Some(pod) => bail!("{:#}", pod["status"]),
            None => bail!("there is no such pod"),
        })
    }

    /// Waits until a pod is Ready.
    pub fn wait_until_ready(&self, pod: (&str, &str), limit: Duration) -> Result<Value> {
        self.wait_for_pod(pod, "ready", limit, is_ready)
    }
}

/// Whether a pod's condition Ready is True.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|it| it["type"] == "Ready" && it["status"] == "True")
}

/// Copies manifests (files ending in .yaml, .yml or .json) from one directory to another.
pub fn copy_manifests(from: &Path, to: &Path) -> Result<usize> {
    let entries = fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?;
    let mut count = 0;
    for path in entries.flatten().map(|entry| entry.path()) {
        let kind = path.extension().and_then(|extension| extension.to_str());
        if let (Some("yaml" | "yml" | "json"), Some(name)) = (kind, path.file_name()) {
            fs::copy(&path, to.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
            count += 1;
        }
    }
    Ok(count)
}
