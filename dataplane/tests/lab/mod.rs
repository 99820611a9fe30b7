//! A small network in namespaces of its own, with no way out: a node with a bridge and pods, and a host outside.
//!
//! ```text
//!   p1 10.1.0.11 ─┐
//!   p2 10.1.0.12 ─┤ br0 10.1.0.1  NODE  up 192.0.2.1 ── 192.0.2.2 OUTSIDE
//!   p3 10.1.0.13 ─┘
//! ```
//!
//! (and the same in fd00:1::/64 and fd00:2::/64). The node's default route leads to the outside host, so a packet that
//! was not translated arrives there. Needs root; without it everything here fails loudly.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod cluster;
pub mod objects;
pub mod traffic;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use longshore_dataplane::{Change, Cidr, Config, Dataplane, DetectLocal, NodePortAddresses, Status};
use nix::sched::{CloneFlags, setns, unshare};

pub const NODE_V4: &str = "192.0.2.1";
pub const NODE_V6: &str = "fd00:2::1";
pub const PODS: usize = 3;

/// A network namespace that lives as long as this value.
pub struct Namespace(File);

impl Namespace {
    pub fn new() -> Namespace {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("making network namespaces needs root");
            Namespace(File::open("/proc/thread-self/ns/net").unwrap())
        };
        let namespace = thread::spawn(make).join().unwrap();
        // Link-local addresses are needed for neighbour discovery, and would be tentative for two seconds.
        for name in ["accept_dad", "dad_transmits"] {
            namespace.sysctl(&format!("ipv6/conf/default/{name}"), "0");
        }
        namespace.ip("link set lo up");
        namespace
    }

    /// Where other processes and threads find it.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// Runs in a thread of its own inside the namespace.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = || {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                act()
            };
            scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread inside the namespace that may outlive this call.
    pub fn spawn<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        let file = self.0.try_clone().unwrap();
        thread::spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        })
    }

    pub fn command(&self, program: &str, args: &[&str]) -> String {
        let output = self.run(|| Command::new(program).args(args).output().unwrap());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Several `ip` commands, one per line.
    pub fn ip(&self, commands: &str) {
        let run = || {
            let pipe = || Stdio::piped();
            let mut child = Command::new("ip").args(["-batch", "-"]).stdin(pipe()).stderr(pipe()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        };
        let output = self.run(run);
        assert!(output.status.success(), "ip: {}\n{commands}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/net/{name}");
        self.run(|| std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}")));
    }
}

pub struct Lab {
    pub node: Namespace,
    pub pods: Vec<Namespace>,
    pub outside: Namespace,
}

impl Lab {
    pub fn new() -> Lab {
        let lab = Lab { node: Namespace::new(), pods: (0..PODS).map(|_| Namespace::new()).collect(), outside: Namespace::new() };
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            lab.node.sysctl(name, "1");
        }
        // Refusals are many here, and all to the same clients: none is rationed, neither for a client nor for the host.
        for (name, none) in
            [("ipv4/icmp_ratelimit", "0"), ("ipv6/icmp/ratelimit", "0"), ("ipv4/icmp_ratemask", "0"), ("ipv6/icmp/ratemask", "\n")]
        {
            lab.node.sysctl(name, none);
        }
        lab.node.ip("link add br0 type bridge
            link set br0 up
            addr add 10.1.0.1/16 dev br0
            addr add fd00:1::1/64 dev br0 nodad");
        // Pod to pod through a service on one bridge: translation must happen to bridged packets too.
        for name in ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"] {
            lab.node.sysctl(name, "1");
        }
        for (index, pod) in lab.pods.iter().enumerate() {
            lab.connect(&format!("veth{index}"), pod);
            lab.node.ip(&format!("link set veth{index} master br0"));
            lab.node.ip(&format!("link set veth{index} type bridge_slave hairpin on"));
            let last = index + 11;
            pod.ip(&format!(
                "addr add 10.1.0.{last}/16 dev eth0
                addr add fd00:1::{last}/64 dev eth0 nodad
                route add default via 10.1.0.1
                route add default via fd00:1::1"
            ));
        }
        lab.connect("uplink", &lab.outside);
        lab.node.ip(&format!(
            "addr add {NODE_V4}/24 dev uplink
            addr add {NODE_V6}/64 dev uplink nodad
            route add default via 192.0.2.2
            route add default via fd00:2::2"
        ));
        lab.outside.ip(&format!(
            "addr add 192.0.2.2/24 dev eth0
            addr add fd00:2::2/64 dev eth0 nodad
            route add default via {NODE_V4}
            route add default via {NODE_V6}"
        ));
        lab
    }

    fn connect(&self, name: &str, other: &Namespace) {
        let peer = other.path();
        self.node.ip(&format!("link add {name} type veth peer name eth0 netns {}", peer.display()));
        self.node.ip(&format!("link set {name} up"));
        other.ip("link set eth0 up");
    }

    pub fn config(&self) -> Config {
        Config {
            node_name: "node".into(),
            node_ips: vec![NODE_V4.parse().unwrap(), NODE_V6.parse().unwrap()],
            detect_local: DetectLocal::ClusterCidr(["10.1.0.0/16", "fd00:1::/64"].map(|cidr| Cidr::parse(cidr).unwrap()).into()),
            node_port_addresses: NodePortAddresses::Primary,
            netns: Some(self.node.path()),
            ..Config::default()
        }
    }

    pub fn nft(&self, args: &str) -> String {
        self.node.command("nft", &args.split_whitespace().collect::<Vec<_>>())
    }
}

/// A data plane with these objects, programmed.
pub fn start(lab: &Lab, changes: impl IntoIterator<Item = Change>) -> Dataplane {
    let dataplane = Dataplane::start(lab.config()).unwrap();
    apply(&dataplane, changes.into_iter().chain([Change::Synced]));
    dataplane
}

/// Applies, and waits until the kernel has it.
pub fn apply(dataplane: &Dataplane, changes: impl IntoIterator<Item = Change>) {
    let last = changes.into_iter().map(|change| dataplane.apply(change)).last().unwrap();
    programmed(dataplane, last);
}

/// Waits until everything applied so far is in the kernel.
pub fn programmed(dataplane: &Dataplane, generation: u64) -> Status {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let wait = async { tokio::time::timeout(Duration::from_secs(20), dataplane.wait_programmed(generation)).await };
    match runtime.block_on(wait) {
        Ok(outcome) => outcome.unwrap(),
        Err(_) => panic!("not programmed within 20 s: {:?}", dataplane.status()),
    }
    dataplane.status()
}

/// How long anything may take. A virtual machine of one processor on a busy host needs most of it to take another
/// mode's jumps away, which are a command each.
const LIMIT: Duration = Duration::from_secs(40);

/// Asks until the answer is yes; fails when it takes too long.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        thread::yield_now();
    }
}
