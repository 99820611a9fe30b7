//! `longshore proxy` on a node of its own: two pods behind a service, a pod that asks, a host outside.
#![allow(dead_code, reason = "each test binary uses its own part")]

use anyhow::{Context as _, Result, ensure};
use longshore_tests::lab::daemon::binary;
use longshore_tests::lab::net::NODE_V4;
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{Home, Namespace, Network, Running};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

pub const SOON: Duration = Duration::from_secs(20);
/// How long an answer may take that ought to come at once; a lost packet's repetition takes a second.
const PATIENCE: Duration = Duration::from_secs(5);
pub const CLUSTER_IP: &str = "10.96.0.50";
pub const NODE_PORT: u16 = 30050;
const TARGET_PORT: u16 = 8080;

pub struct Node {
    pub network: Network,
    pub pods: Vec<Namespace>,
    pub home: Home,
}

impl Node {
    pub fn new() -> Result<Node> {
        let home = Home::new()?;
        let network = Network::new(&home, 1)?;
        network.node.ip("link add cni0 type bridge forward_delay 0\nlink set cni0 up\naddress add 10.244.0.1/24 dev cni0")?;
        let mut pods = Vec::new();
        for index in 0..3 {
            let pod = Namespace::create(&home, &format!("pod{index}"))?;
            let peer = pod.name();
            network.node.ip(&format!("link add pod{index} type veth peer name eth0 netns {peer}\nlink set pod{index} master cni0 up"))?;
            pod.ip(&format!("link set eth0 up\naddress add {}/24 dev eth0\nroute add default via 10.244.0.1", pod_ip(index)))?;
            pods.push(pod);
        }
        Ok(Node { network, pods, home })
    }

    /// Has two of the pods answer each connection with their name and the client's address.
    pub fn serve(&self) -> Result<()> {
        for (index, pod) in self.pods[..2].iter().enumerate() {
            let listener = pod.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, TARGET_PORT)))??;
            std::thread::spawn(move || {
                for (mut stream, client) in std::iter::from_fn(|| listener.accept().ok()) {
                    let _ = stream.write_all(format!("pod{index} {}", client.ip()).as_bytes());
                }
            });
        }
        Ok(())
    }

    pub fn file(&self, name: &str) -> Result<PathBuf> {
        Ok(self.home.directory("proxy")?.join(name))
    }

    /// Where services come from.
    pub fn services(&self) -> Result<PathBuf> {
        self.home.directory("services")
    }

    /// Replaces a file as a whole.
    pub fn write(&self, path: PathBuf, text: &str) -> Result<()> {
        let beside = path.with_extension("new");
        fs::write(&beside, text)?;
        fs::rename(&beside, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Says who serves.
    pub fn endpoints(&self, pods: &[usize]) -> Result<()> {
        let endpoints: Vec<String> = pods.iter().map(|pod| pod_ip(*pod)).collect();
        self.write(self.services()?.join("slice.yaml"), &slice("web", &endpoints, TARGET_PORT))
    }

    /// Starts a proxy on the services; its log goes on where the last one's ended.
    pub fn proxy(&self, arguments: &[&str]) -> Result<Running> {
        let mut command = std::process::Command::new(binary()?);
        command.args(["proxy", "--services"]).arg(self.services()?).args(["--hostname-override", "n1"]).args(arguments);
        Running::start(command, &self.file("log")?, Some(&self.network.node), &self.home.cgroup())
    }

    /// Runs it to its end: whether it was content, and all that it said.
    pub fn run(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let output = self.network.node.command(binary()?).arg("proxy").args(arguments).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    pub fn outside(&self) -> &Namespace {
        &self.network.outside[0].namespace
    }

    /// Whatever a proxy may have in the kernel. A chain that it shares with the kubelet stays when it goes.
    pub fn rules(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let tables = self.network.node.run(&["nft", "list", "tables"])?;
        found.extend(tables.lines().filter(|line| line.ends_with(" kube-proxy")).map(String::from));
        for save in ["iptables-nft-save", "iptables-legacy-save", "ip6tables-nft-save", "ip6tables-legacy-save"] {
            let saved = self.network.node.run(&[save])?;
            found.extend(
                saved
                    .lines()
                    .filter(|line| line.contains("KUBE-") && !line.contains("KUBE-FIREWALL"))
                    .map(|line| format!("{save}: {line}")),
            );
        }
        Ok(found)
    }
}

pub fn pod_ip(index: usize) -> String {
    format!("10.244.0.{}", 11 + index)
}

pub fn service(name: &str, ip: &str, port: u16, node_port: Option<u16>) -> String {
    let (kind, more) = node_port.map_or(("ClusterIP", String::new()), |port| ("NodePort", format!(", nodePort: {port}")));
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec: {{ type: {kind}, clusterIP: {ip}, clusterIPs: [ {ip} ], \
         ipFamilies: [ IPv4 ], ports: [ {{ name: http, port: {port}{more} }} ] }}\n---\n"
    )
}

pub fn slice(name: &str, endpoints: &[String], port: u16) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|ip| format!("{{ addresses: [ {ip} ], nodeName: n1 }}")).collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{ name: {name}-1, labels: {{ kubernetes.io/service-name: {name} }} }}\n\
         endpoints: [ {} ]\nports: [ {{ name: http, port: {port} }} ]\n---\n",
        endpoints.join(", ")
    )
}

pub fn cluster_ip() -> SocketAddr {
    SocketAddr::new(CLUSTER_IP.parse().expect("an address"), 80)
}

pub fn node_port() -> SocketAddr {
    SocketAddr::new(NODE_V4.into(), NODE_PORT)
}

/// Asks who serves, from the calling thread's namespace.
fn ask_here(to: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.starts_with("pod"), "{text:?} is no answer");
    Ok(text)
}

/// Asks who serves: the pod's name and the client's address as the pod saw it.
pub fn ask(from: &Namespace, to: SocketAddr) -> Result<String> {
    from.enter(|| ask_here(to))?
}

/// Waits for this answer.
pub fn answers(from: &Namespace, to: SocketAddr, wanted: &str) -> Result<()> {
    wait_for(&format!("{to} answers: {wanted}"), SOON, || -> Result<_> {
        let answer = ask(from, to)?;
        ensure!(answer.contains(wanted), "{answer}");
        Ok(Some(()))
    })
}

/// Connects again and again while `act` runs, before and after; every connection must be answered.
pub fn without_loss<T>(from: &Namespace, to: SocketAddr, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let more = || {
        let before = count.load(Ordering::Relaxed);
        wait_for("connections go on", SOON, || -> Result<_> { Ok((count.load(Ordering::Relaxed) > before).then_some(())) })
    };
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            from.enter(|| -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    ask_here(to).with_context(|| format!("connection {count:?} to {to} was lost"))?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })?
        });
        let outcome = more().and_then(|()| act()).and_then(|done| more().map(|()| done));
        stop.store(true, Ordering::Relaxed);
        let asked = asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A lost connection explains whatever came of it.
        asked.and(outcome)
    })
}
