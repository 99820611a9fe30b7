//! A client, a node and a host of servers, each a network namespace; no way out.
//!
//! ```text
//!   CLIENT 192.0.2.2 ── 192.0.2.1 NODE 198.51.100.1 ── 198.51.100.2 SERVERS (all of 10.128.0.0/9, port 8080)
//! ```
//!
//! The node has no default route: a packet to a service that is not translated comes back as unreachable at once.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

pub const PORT: u16 = 8080;

#[derive(Clone)]
pub struct Namespace(std::sync::Arc<File>);

impl Namespace {
    fn new() -> Namespace {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("making network namespaces needs root");
            Namespace(File::open("/proc/thread-self/ns/net").unwrap().into())
        };
        let namespace = std::thread::spawn(make).join().unwrap();
        namespace.ip("link set lo up");
        namespace
    }

    /// Where other processes find it.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// Runs in a thread of its own inside the namespace.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = || {
                setns(&*self.0, CloneFlags::CLONE_NEWNET).unwrap();
                act()
            };
            scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread.
    pub fn enter(&self) {
        setns(&*self.0, CloneFlags::CLONE_NEWNET).unwrap();
    }

    pub fn ip(&self, commands: &str) {
        for line in commands.lines().map(str::trim) {
            let status = self.run(|| Command::new("ip").args(line.split_whitespace()).status().unwrap());
            assert!(status.success(), "ip {line}");
        }
    }

    fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/net/{name}");
        self.run(|| std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}")));
    }
}

pub struct Network {
    pub client: Namespace,
    pub node: Namespace,
    _servers: Namespace,
}

impl Network {
    pub fn new() -> Network {
        let (client, node, servers) = (Namespace::new(), Namespace::new(), Namespace::new());
        for (name, other) in [("client", &client), ("servers", &servers)] {
            let peer = other.path();
            node.ip(&format!("link add {name} type veth peer name eth0 netns {}", peer.display()));
            node.ip(&format!("link set {name} up"));
            other.ip("link set eth0 up");
        }
        node.ip("addr add 192.0.2.1/24 dev client
            addr add 198.51.100.1/24 dev servers
            route add 10.128.0.0/9 via 198.51.100.2");
        client.ip("addr add 192.0.2.2/24 dev eth0
            route add default via 192.0.2.1");
        servers.ip("addr add 198.51.100.2/24 dev eth0
            route add default via 198.51.100.1
            route add local 10.128.0.0/9 dev lo");
        node.sysctl("ipv4/ip_forward", "1");
        node.sysctl("ipv4/icmp_ratelimit", "0");
        // Connections are closed at once, and are many.
        for state in ["close", "time_wait", "syn_sent", "fin_wait", "last_ack"] {
            node.sysctl(&format!("netfilter/nf_conntrack_tcp_timeout_{state}"), "1");
        }
        servers.run(serve);
        Network { client, node, _servers: servers }
    }
}

/// Tells every connection which address it reached. Ends with the process.
fn serve() {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
    std::thread::spawn(move || {
        for mut stream in std::iter::from_fn(|| listener.accept().ok()).map(|(stream, _)| stream) {
            if let Ok(IpAddr::V4(reached)) = stream.local_addr().map(|address| address.ip()) {
                // The client may be gone.
                let _ = stream.write_all(&reached.octets());
            }
        }
    });
}
