//! Hosts that exist only as network namespaces, on a network with no way out of the machine.
//!
//! A [`Network`] is a switch with a node and some outside hosts on it, in both address families. The
//! first outside host is the node's default route and leads nowhere: a packet to a service or pod
//! address that no rule takes ends there, where a test can see it. Names carry the lab's id.

use super::Home;
use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const NAMESPACES: &str = "/run/netns";
const PREFIX: &str = "longshore-lab";

/// The node's addresses on the lab's network.
pub const NODE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// Addresses of services and pods, as the daemon and the CNI configuration get them.
pub const SERVICE_CIDRS: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];
pub const CLUSTER_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/56"];

/// A network namespace; removed when dropped.
pub struct Namespace {
    name: String,
    handle: File,
    /// Whether dropping it removes it.
    owned: bool,
}

impl Namespace {
    /// Makes `longshore-lab-<id>-<role>` with its loopback up.
    pub fn create(home: &Home, role: &str) -> Result<Namespace> {
        let name = format!("{PREFIX}-{}-{role}", home.id());
        ip(&["netns", "add", &name])?;
        let path = Path::new(NAMESPACES).join(&name);
        let handle = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let namespace = Namespace { name, handle, owned: true };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// One that exists already and outlives this value.
    pub fn open(path: &Path) -> Result<Namespace> {
        let handle = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Namespace { name, handle, owned: false })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// For `nsenter --net=PATH`.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.name)
    }

    /// A command that will run in the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        self.adopt(&mut command);
        command
    }

    /// Makes an existing command run in the namespace. Only the network changes: /sys and the
    /// cgroups stay as they are, unlike with `ip netns exec`.
    pub fn adopt(&self, command: &mut Command) {
        let handle = self.handle.try_clone().expect("descriptors can be duplicated");
        // SAFETY: the closure makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(move || Ok(setns(handle.as_fd(), CloneFlags::CLONE_NEWNET)?));
        }
    }

    /// Runs a program in the namespace and returns what it printed; an error with its complaints
    /// when it fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let (program, rest) = arguments.split_first().context("no program given")?;
        let mut command = self.command(program);
        command.args(rest);
        output(command)
    }

    /// Runs `work` on a thread of its own that is in the namespace; sockets made there stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.handle.as_fd(), CloneFlags::CLONE_NEWNET)?;
                anyhow::Ok(work())
            });
            match thread.join() {
                Ok(outcome) => outcome.with_context(|| format!("cannot enter {}", self.name)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// `ip` commands for the namespace, one per line.
    pub fn ip(&self, commands: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run ip: install the package iproute2")?;
        child.stdin.take().expect("piped above").write_all(commands.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("ip in {}: {commands}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Sets a sysctl in the namespace (dots or slashes between the parts).
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.enter(|| fs::write(&path, value))?.with_context(|| format!("cannot set {name} to {value}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.owned {
            ip(&["netns", "del", &self.name]).ok();
        }
    }
}

/// A host beside the node.
pub struct Outside {
    pub namespace: Namespace,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

/// The node, the hosts outside, and the switch between them.
pub struct Network {
    pub node: Namespace,
    pub outside: Vec<Outside>,
    switch: Namespace,
}

impl Network {
    /// Builds the network. `outside` hosts are made, the first of which is everyone's default route.
    pub fn new(home: &Home, outside: usize) -> Result<Network> {
        let switch = Namespace::create(home, "switch")?;
        switch.ip("link add name lan type bridge forward_delay 0\nlink set lan up")?;
        // Frames between hosts must not meet the switch's own connection tracking.
        for family in ["iptables", "ip6tables"] {
            switch.sysctl(&format!("net.bridge.bridge-nf-call-{family}"), "0").ok();
        }
        let node = Namespace::create(home, "node")?;
        attach(&switch, &node, "node", NODE_V4, NODE_V6)?;
        for (sysctl, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.bridge.bridge-nf-call-iptables", "1"),
            ("net.bridge.bridge-nf-call-ip6tables", "1"),
        ] {
            node.sysctl(sysctl, value)?;
        }
        let mut network = Network { node, outside: Vec::new(), switch };
        for _ in 0..outside {
            network.add_outside(home)?;
        }
        Ok(network)
    }

    /// Adds a host to the network and returns its index.
    pub fn add_outside(&mut self, home: &Home) -> Result<usize> {
        let index = self.outside.len();
        let last = u8::try_from(if index == 0 { 1 } else { 20 + index }).context("too many hosts")?;
        let v4 = Ipv4Addr::new(192, 0, 2, last);
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into());
        let namespace = Namespace::create(home, &format!("out{index}"))?;
        attach(&self.switch, &namespace, &format!("out{index}"), v4, v6)?;
        for cidr in SERVICE_CIDRS.iter().chain(&CLUSTER_CIDRS) {
            let via: IpAddr = if cidr.contains(':') { NODE_V6.into() } else { NODE_V4.into() };
            namespace.ip(&format!("route add {cidr} via {via}"))?;
        }
        if index == 0 {
            self.node.ip(&format!("route add default via {v4}"))?;
            self.node.ip(&format!("route add default via {v6}"))?;
        }
        self.outside.push(Outside { namespace, v4, v6 });
        Ok(index)
    }
}

/// Plugs a host into the switch. Addresses skip duplicate detection, which would delay them.
fn attach(switch: &Namespace, host: &Namespace, port: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    switch.ip(&format!("link add {port} type veth peer name eth0 netns {}\nlink set {port} master lan up", host.name()))?;
    host.ip(&format!("link set eth0 up\naddress add {v4}/24 dev eth0\naddress add {v6}/64 dev eth0 nodad"))
}

/// Names of the namespaces that carry a lab's id.
pub fn namespaces(id: &str) -> Vec<String> {
    let prefix = format!("{PREFIX}-{id}-");
    let entries = fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

/// Removes the namespaces that carry a lab's id.
pub fn remove_namespaces(id: &str) -> Result<()> {
    namespaces(id).iter().try_for_each(|name| ip(&["netns", "del", name]))
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments);
    output(command).map(|_| ())
}

/// Runs a command to its end; what it printed, or an error with its complaints.
pub fn output(mut command: Command) -> Result<String> {
    let shown = |command: &Command| {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    };
    let output = command.output().with_context(|| format!("cannot run {}", shown(&command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        bail!("{}: {}: {}", shown(&command), output.status, said.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
