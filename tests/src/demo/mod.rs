//! What `make run` does: a node from nothing, serving the example manifests, for a human to look at.
//!
//! With a sandbox, everything is inside network namespaces with no way out; without, the node is this
//! machine, whose changed settings are recorded and restored by [`clean`]. Either way one lab with a
//! fixed name holds it all, so that a run that was killed is cleaned up by the next, or by [`clean`].

pub mod machine;

use crate::lab::client::get;
use crate::lab::containerd::{self, Binary};
use crate::lab::daemon::{self, Options, copy_manifests, is_ready};
use crate::lab::net::{NODE_V4, NODE_V6, Namespace, namespaces, output};
use crate::lab::wait::wait_for;
use crate::lab::{Containerd, Daemon, Home, Network, PodNetwork, home, image, pods};
use anyhow::{Context, Result, bail, ensure};
use machine::Changes;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// On the machine's own network the bridge must not be one that is there already.
const BRIDGE: &str = "longshore0";
/// The tables of the daemon's rules; named after the program whose place it takes.
const TABLES: [(&str, &str); 2] = [("ip", "kube-proxy"), ("ip6", "kube-proxy")];
/// What a kubelet and a service proxy set, as Kubernetes' nodes have them.
const DAEMON_SYSCTLS: [&str; 9] = [
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
    "net.ipv4.conf.all.route_localnet",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
];
const READY_LIMIT: Duration = Duration::from_secs(240);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What to bring up.
pub struct Plan {
    /// The lab's name; what [`clean`] is told.
    pub name: String,
    /// Inside network namespaces of its own?
    pub sandbox: bool,
    /// The socket of a containerd that is there already, instead of a private one.
    pub runtime: Option<PathBuf>,
    /// A containerd to start, instead of the one in PATH.
    pub containerd: Option<PathBuf>,
    pub manifests: PathBuf,
    /// More of the daemon's command line.
    pub arguments: Vec<String>,
}

/// The demonstration, up; taken down by [`Demo::down`].
pub struct Demo {
    daemon: Daemon,
    containerd: Option<Containerd>,
    network: Option<Network>,
    socket: PathBuf,
    /// Images that a runtime of somebody else's was given.
    lent: Vec<String>,
    home: Home,
}

/// Tells a human what happens, and how long each step took.
struct Progress {
    since: Instant,
}

impl Progress {
    fn step(&mut self, text: &str) {
        println!("{:>7.2} s  {text}", self.since.elapsed().as_secs_f64());
        self.since = Instant::now();
    }
}

/// Brings everything up and shows that it works.
pub fn up(plan: &Plan) -> Result<Demo> {
    ensure!(nix::unistd::geteuid().is_root(), "containers and network namespaces need root");
    let binary = daemon::binary()?;
    println!("the daemon is {}", binary.display());
    let mut progress = Progress { since: Instant::now() };
    take_away_killed_run(&plan.name)?;
    let home = Home::named(&plan.name)?;
    let mut changes = Changes::recorded()?;
    for module in changes.load_modules()? {
        progress.step(&format!("kernel module {module} loaded"));
    }
    let network = if plan.sandbox {
        let network = Network::new(&home, 1)?;
        progress.step("a network of its own: one node, one host outside, no way out");
        Some(network)
    } else {
        ensure_no_other_proxy()?;
        for change in changes.prepare_network()? {
            progress.step(&format!("set {change}"));
        }
        None
    };
    let node = network.as_ref().map(|network| &network.node);
    let containerd = plan.runtime.is_none().then(|| private_containerd(plan, &home, node, &mut progress));
    let containerd = containerd.transpose()?;
    let socket = match (&plan.runtime, &containerd) {
        (Some(socket), _) => socket.clone(),
        (None, Some(containerd)) => containerd.socket(),
        (None, None) => unreachable!("one of the two is made above"),
    };
    changes.remember(&DAEMON_SYSCTLS)?;
    let endpoint = format!("unix://{}", socket.display());
    let daemon = Daemon::prepare(&home, node, &endpoint, options(plan))?;
    let lent = if plan.runtime.is_some() { lend_images(&home, &socket, &mut progress)? } else { Vec::new() };
    let mut demo = Demo { daemon, containerd, network, socket, lent, home };
    if let Err(error) = demo.serve(&plan.manifests, &mut progress) {
        demo.down().context("nor could everything be taken down again")?;
        return Err(error);
    }
    Ok(demo)
}

fn private_containerd(plan: &Plan, home: &Home, node: Option<&Namespace>, progress: &mut Progress) -> Result<Containerd> {
    let binary = plan.containerd.as_deref().map_or_else(Binary::in_path, Binary::at)?;
    let containerd = Containerd::start(&binary, home, node, &pod_network(plan.sandbox))?;
    let (major, minor) = binary.version();
    progress.step(&format!("containerd {major}.{minor} answers on {}", containerd.socket().display()));
    for archive in image::standard()? {
        containerd.import(&archive)?;
        progress.step(&format!("image {} built and imported", archive.name));
    }
    Ok(containerd)
}

/// Gives the example's images to a containerd that is there already; returns those that it did not have.
fn lend_images(home: &Home, socket: &Path, progress: &mut Progress) -> Result<Vec<String>> {
    let have = containerd::ctr(socket, &["images", "ls", "--quiet"])
        .with_context(|| format!("no containerd at {}: give a runtime of another kind the example's images yourself", socket.display()))?;
    let mut lent = Vec::new();
    for archive in image::standard()?.into_iter().filter(|archive| have.lines().all(|name| name != archive.name)) {
        let file = home.base().join("import.tar");
        fs::write(&file, archive.to_tar()).with_context(|| format!("cannot write {}", file.display()))?;
        containerd::ctr(socket, &["images", "import", &file.display().to_string()])?;
        progress.step(&format!("image {} built and imported", archive.name));
        lent.push(archive.name);
    }
    Ok(lent)
}

fn pod_network(sandbox: bool) -> PodNetwork {
    if sandbox {
        return PodNetwork::default();
    }
    PodNetwork { bridge: BRIDGE.to_owned(), masquerade: true, ..PodNetwork::v4_only() }
}

fn options(plan: &Plan) -> Options {
    let mut options = Options { node_name: "demo".to_owned(), ..Options::default() };
    options.arguments.clone_from(&plan.arguments);
    if !plan.sandbox {
        options.cluster_cidrs.truncate(1);
        options.service_cidrs.truncate(1);
    }
    options
}

impl Demo {
    fn serve(&mut self, manifests: &Path, progress: &mut Progress) -> Result<()> {
        let count = copy_manifests(manifests, &self.daemon.manifests())?;
        self.daemon.launch()?;
        progress.step(&format!("longshore answers; it has {count} manifests"));
        self.wait_for_pods()?;
        progress.step("all pods are ready");
        self.show()
    }

    fn wait_for_pods(&self) -> Result<()> {
        wait_for("all pods are ready", READY_LIMIT, || {
            let list = self.daemon.get("pods")?;
            let pods = list["items"].as_array().context("no list of pods")?;
            let waiting: Vec<String> = pods.iter().filter(|pod| !is_ready(pod)).map(describe).collect();
            if pods.is_empty() || !waiting.is_empty() {
                bail!("not ready: {}", waiting.join(", "));
            }
            Ok(Some(()))
        })
        .with_context(|| format!("the daemon logged:\n{}", self.daemon.log()))
    }

    /// Prints the tables, and what the first service answers from everywhere.
    fn show(&self) -> Result<()> {
        for kind in ["pods", "services"] {
            println!("\n$ longshore get {kind} -A\n{}", self.daemon.cli(&["get", kind, "-A"])?.trim_end());
        }
        println!();
        for (from, namespace, to) in self.views()? {
            let ask = || match &namespace {
                Some(namespace) => namespace.get(to, "/", ANSWER_LIMIT),
                None => get(to, "/", ANSWER_LIMIT),
            };
            let answer = wait_for(&format!("{to} answers {from}"), READY_LIMIT, || ask().map(Some))?;
            println!("{from}, http://{to}/ answers:");
            answer.lines().for_each(|line| println!("    {line}"));
        }
        Ok(())
    }

    /// From where to ask, and what: the service's addresses from the node and a pod, its node port
    /// from outside.
    fn views(&self) -> Result<Vec<(&'static str, Option<Namespace>, SocketAddr)>> {
        let service = self.daemon.find("services", "default", "web")?;
        let Some(service) = service else { return Ok(Vec::new()) };
        let port = |name: &str| {
            let number = service["spec"]["ports"][0][name].as_u64();
            number.and_then(|number| u16::try_from(number).ok())
        };
        let addresses = service["spec"]["clusterIPs"].as_array();
        let addresses: Vec<IpAddr> = addresses.into_iter().flatten().filter_map(|ip| ip.as_str()?.parse().ok()).collect();
        let cluster_port = port("port").context("the service has no port")?;
        let node = |network: &Network| Namespace::open(&network.node.path());
        let node = self.network.as_ref().map(node).transpose()?;
        let mut views = Vec::new();
        for ip in &addresses {
            let node = node.as_ref().map(|node| Namespace::open(&node.path())).transpose()?;
            views.push(("on the node", node, (*ip, cluster_port).into()));
            views.push(("in the pod client", Some(self.pod("client")?), (*ip, cluster_port).into()));
        }
        if let (Some(network), Some(port)) = (&self.network, port("nodePort")) {
            let outside = &network.outside[0].namespace;
            for ip in [IpAddr::from(NODE_V4), NODE_V6.into()].iter().take(addresses.len()) {
                views.push(("on the host outside", Some(Namespace::open(&outside.path())?), (*ip, port).into()));
            }
        }
        Ok(views)
    }

    /// The network namespace of a pod.
    fn pod(&self, name: &str) -> Result<Namespace> {
        let pid = pods::with_client(&format!("unix://{}", self.socket.display()), async |client| {
            let pods = client.list(None).await?.pods;
            let pod = pods.values().find(|pod| &*pod.identity.name == name).context("no such pod")?;
            let sandbox = pod.sandboxes.first().context("the pod has no sandbox")?;
            let status = client.sandbox_status(&sandbox.id).await?;
            status.and_then(|status| status.pid).context("the sandbox tells no process")
        });
        let pid = pid.with_context(|| format!("pod {name}"))?;
        Namespace::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// A command line that talks to the daemon.
    pub fn invitation(&self) -> String {
        self.daemon.invocation(&["get", "pods", "-A"])
    }

    /// The directory whose files are the node's pods and services.
    pub fn manifests(&self) -> PathBuf {
        self.daemon.manifests()
    }

    /// Ends the daemon and its pods, and the runtime when it is our own.
    pub fn down(mut self) -> Result<()> {
        let mut progress = Progress { since: Instant::now() };
        // Those of others in a runtime of somebody else's stay.
        let list = self.daemon.get("pods").unwrap_or_default();
        let uids = list["items"].as_array().into_iter().flatten().filter_map(|pod| pod["metadata"]["uid"].as_str());
        let ours: BTreeSet<String> = uids.map(str::to_owned).collect();
        self.daemon.stop()?;
        progress.step("longshore has left; its pods run on");
        let own = self.containerd.is_some();
        let count = pods::remove(&self.socket, |uid| own || ours.contains(uid))?;
        progress.step(&format!("{count} pods removed"));
        if let Some(containerd) = &mut self.containerd {
            containerd.stop()?;
            progress.step("containerd has left");
        }
        for name in &self.lent {
            containerd::ctr(&self.socket, &["images", "rm", name])?;
        }
        drop(self.home);
        if self.network.is_none() {
            clear_network();
        }
        Ok(())
    }
}

fn describe(pod: &Value) -> String {
    let name = pod["metadata"]["name"].as_str().unwrap_or("?");
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let message = conditions.filter_map(|it| it["message"].as_str()).next_back().unwrap_or("no status yet");
    format!("{name} ({message})")
}

/// Leaves the machine as it was before the first [`up`].
pub fn clean(name: &str) -> Result<()> {
    let mut progress = Progress { since: Instant::now() };
    if take_away_killed_run(name)? {
        progress.step("the last run's processes, mounts and files are gone");
    }
    for done in Changes::recorded()?.restore()? {
        progress.step(&done);
    }
    home::vacate()
}

/// Ends what a killed run left behind; says whether there was one. An error when one is alive.
fn take_away_killed_run(name: &str) -> Result<bool> {
    if !home::exists(name) {
        return Ok(false);
    }
    let home = Home::named(name).context("stop the other run first (Ctrl-C)")?;
    let sandboxed = !namespaces(name).is_empty();
    if !sandboxed {
        // Pods on the machine's own network have to be given back by the network plugins.
        home.end_daemons()?;
        if let Some(binary) = Containerd::previous(&home)? {
            let containerd = Containerd::start(&binary, &home, None, &pod_network(false))?;
            pods::remove_all(&containerd.socket())?;
        }
        clear_network();
    }
    drop(home);
    Ok(true)
}

/// Removes the bridge and the daemon's rules from the machine's own network.
fn clear_network() {
    let quietly = |program: &str, arguments: &[&str]| {
        // What is not there needs no removing.
        output({
            let mut command = Command::new(program);
            command.args(arguments);
            command
        })
        .ok();
    };
    quietly("ip", &["link", "delete", BRIDGE]);
    // We came upon none of these tables, so they are ours.
    for (family, table) in TABLES {
        quietly("nft", &["delete", "table", family, table]);
    }
}

/// The rules of another service proxy would fight with the daemon's, and be taken for them by [`clean`].
fn ensure_no_other_proxy() -> Result<()> {
    for (family, table) in TABLES {
        let found = Command::new("nft").args(["list", "table", family, table]).output();
        if found.is_ok_and(|found| found.status.success()) {
            bail!("a service proxy is at work here (nftables table {family} {table}): use the sandbox");
        }
    }
    Ok(())
}
