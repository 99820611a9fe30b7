//! `longshore trace` and `longshore plan`: what the rules do with a packet, and what manifests would change.

use super::Fault;
use super::client::{Client, Socket};
use crate::run::proxy::Objects;
use crate::run::proxy_settings::ProxySettings;
use clap::Args;
use longshore_dataplane::backend::iptables::{accounting, plane::is_liberal};
use longshore_dataplane::backend::{self, NodeAddresses};
use longshore_dataplane::model::Protocol;
use longshore_dataplane::sim::Packet;
use longshore_dataplane::store::ServiceStore;
use longshore_dataplane::trace::{self, Held, Rules, Setting, agree};
use longshore_dataplane::wire::ServiceCidr;
use longshore_dataplane::{Family, addresses};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// How rules depend on the node. What is not given is as the daemon has it, or as by default when there is none.
#[derive(Args)]
struct NodeFlags {
    /// What rules are written in: nftables, ipvs, iptables or userspace
    #[arg(long, value_parser = ["nftables", "ipvs", "iptables", "userspace"], value_name = "MODE")]
    proxy_mode: Option<String>,
    /// Name of this node
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Addresses of pods, one range per family
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    cluster_cidr: Option<Vec<String>>,
    /// Where node ports answer: primary, or ranges of addresses
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    nodeport_addresses: Option<Vec<String>>,
    #[command(flatten)]
    socket: Socket,
}

fn given<T: Clone>(held: &mut T, flag: &Option<T>) {
    if let Some(value) = flag {
        held.clone_from(value);
    }
}

/// This node, with what its daemon was told.
struct Node {
    settings: ProxySettings,
    links: Vec<(String, IpAddr)>,
}

impl Node {
    fn of(flags: &NodeFlags) -> Node {
        let mut settings = ProxySettings::beside(&flags.socket.socket).unwrap_or_default();
        given(&mut settings.mode, &flags.proxy_mode);
        given(&mut settings.node_name, &flags.node_name);
        given(&mut settings.cluster_cidrs, &flags.cluster_cidr);
        given(&mut settings.node_port_addresses, &flags.nodeport_addresses);
        Node { settings, links: addresses::all().unwrap_or_default() }
    }

    fn setting(&self, family: Family) -> Result<Setting, Fault> {
        let host = crate::run::host_addresses::host_ips();
        let own = host.into_iter().filter(|ip| self.links.iter().any(|(_, held)| held == ip));
        let config = self.settings.config(&own.collect::<Vec<_>>()).map_err(|e| Fault::from(e.to_string()))?;
        let addresses = NodeAddresses::of(&config, family, &self.links);
        Ok(Setting { config, family, addresses, liberal: is_liberal(), accounting: accounting::exist() })
    }

    fn has(&self, ip: IpAddr) -> bool {
        self.links.iter().any(|(_, held)| *held == ip)
    }

    fn store(&self, setting: &Setting, objects: &Objects) -> ServiceStore {
        let mut store = ServiceStore::new(&setting.config.node_name, None, &setting.config.node_ips);
        store.set_service_cidr("", Some(&self.range()));
        objects.ranges.iter().for_each(|(name, object)| {
            store.set_service_cidr(name, Some(object));
        });
        objects.services.values().for_each(|object| {
            store.set_service(object);
        });
        objects.slices.values().for_each(|object| {
            store.set_slice(object);
        });
        store
    }

    fn range(&self) -> ServiceCidr {
        let mut range = ServiceCidr::default();
        range.spec.cidrs.clone_from(&self.settings.service_cidrs);
        range
    }
}

fn read(path: &Path) -> Result<Objects, Fault> {
    Objects::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()).into())
}

fn kernel(setting: &Setting) -> Result<Held, Fault> {
    backend::held(&setting.config, setting.family).map_err(|e| e.to_string().into())
}

/// Say what happens to a packet: which service it is for, where it goes, and why
#[derive(Args)]
#[command(after_help = "Examples:
  longshore trace 10.244.0.5 10.96.0.10:53/udp           from a pod to a service of the daemon's
  longshore trace 203.0.113.9 192.0.2.1:30080 --kernel   and whether the kernel's rules say the same
  longshore trace 10.244.0.5 10.96.0.1:80 --services dir --proxy-mode ipvs   without a daemon")]
pub struct Trace {
    /// Address of the sender
    #[arg(value_name = "SRC")]
    source: IpAddr,
    /// Where to; the protocol is tcp unless it says /udp or /sctp
    #[arg(value_name = "DST:PORT[/PROTOCOL]")]
    destination: String,
    /// Interface that it arrives on; for the node's own addresses none
    #[arg(long = "in", value_name = "INTERFACE")]
    interface: Option<String>,
    /// Services from files instead of the daemon
    #[arg(long, value_name = "FILE|DIR")]
    services: Option<PathBuf>,
    /// Ask the kernel's rules, too; ends with 1 when they say something else (needs root)
    #[arg(long)]
    kernel: bool,
    #[command(flatten)]
    node: NodeFlags,
}

impl Trace {
    pub async fn main(self) -> Result<(), Fault> {
        let (destination, protocol) = destination(&self.destination)?;
        if self.source.is_ipv4() != destination.is_ipv4() {
            return Err("source and destination are of different families".into());
        }
        let node = Node::of(&self.node);
        let setting = node.setting(Family::of(destination.ip()))?;
        let objects = match &self.services {
            Some(path) => read(path)?,
            None => daemons(&Client::new(&self.node.socket)).await?,
        };
        let store = node.store(&setting, &objects);
        let interface = self.interface.or_else(|| (!node.has(self.source)).then(|| "unknown".into()));
        let packet = Packet { protocol, source: SocketAddr::new(self.source, 40_000), destination, interface };
        let rules = Rules::compiled(&store, &setting);
        let trace = trace::trace(&store, &setting, &rules, &packet).ok_or("the compiled rules cannot be followed")?;
        print!("{trace}");
        if self.kernel { self::compare(&store, &setting, &trace) } else { Ok(()) }
    }
}

fn compare(store: &ServiceStore, setting: &Setting, trace: &trace::Trace) -> Result<(), Fault> {
    let held = kernel(setting)?;
    let rules = Rules::held(&held, store, setting).map_err(|why| Fault::from(format!("kernel    {why}")))?;
    let ways = trace::ways(&rules, setting, &trace.packet, trace.is_sticky()).ok_or("the kernel's rules cannot be followed")?;
    if agree(&ways, &trace.ways) {
        println!("kernel    agrees");
        return Ok(());
    }
    println!("kernel    says something else:");
    let other = trace::Trace { ways, matched: None, ..trace.clone() }.to_string();
    other.lines().filter(|line| line.starts_with("result")).for_each(|line| println!("{line}"));
    Err(Fault::quiet(1))
}

fn destination(text: &str) -> Result<(SocketAddr, Protocol), Fault> {
    let (address, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = protocols.into_iter().find(|p| p.to_string() == protocol.to_lowercase());
    let wrong = || Fault { code: 2, message: format!("error: {text:?} is not an address with a port, such as 10.96.0.10:53/udp") };
    Ok((address.parse().map_err(|_| wrong())?, protocol.ok_or_else(wrong)?))
}

/// The daemon's services and slices.
async fn daemons(client: &Client) -> Result<Objects, Fault> {
    let mut objects = Objects::default();
    for path in ["/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"] {
        let list: Value = client.read(path).await?;
        objects.add(Path::new(path), list);
    }
    Ok(objects)
}

/// Print what a set of manifests would change in the kernel's rules, without changing them
#[derive(Args)]
#[command(after_help = "Needs no root, but with --kernel. Ends with 0 whether there is a difference or not.

Examples:
  longshore plan ./services                      everything that would be loaded
  longshore plan ./new --from ./old              the difference between two sets
  longshore plan ./new --kernel                  the difference to what the kernel holds")]
pub struct Plan {
    /// File or directory with Services, EndpointSlices and ServiceCIDRs
    #[arg(value_name = "FILE|DIR")]
    services: PathBuf,
    /// What is programmed before
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "kernel")]
    from: Option<PathBuf>,
    /// The kernel's rules are what is programmed before
    #[arg(long)]
    kernel: bool,
    #[command(flatten)]
    node: NodeFlags,
}

impl Plan {
    pub fn main(self) -> Result<(), Fault> {
        let node = Node::of(&self.node);
        let (after, from) = (read(&self.services)?, self.from.as_deref().map(read).transpose()?);
        for family in Family::ALL {
            let setting = node.setting(family)?;
            let held = match &from {
                Some(from) => Held::of(&node.store(&setting, from), &setting),
                None if self.kernel => kernel(&setting)?,
                None => Held::nothing(&setting.config.mode),
            };
            for step in trace::plan(&node.store(&setting, &after), &setting, held) {
                println!("# {family}, {}: {} lines", step.title, step.lines.len());
                step.lines.iter().for_each(|line| println!("{line}"));
            }
        }
        Ok(())
    }
}
