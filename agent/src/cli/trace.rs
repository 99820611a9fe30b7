//! `longshore trace` and `longshore plan`: what the rules do with a packet, and what manifests would change.

use super::Fault;
use super::client::{Client, Socket};
use crate::run::proxy::Objects;
use clap::Args;
use longshore_dataplane::backend::Options;
use longshore_dataplane::backend::nft::diff::Image;
use longshore_dataplane::backend::nft::kernel::Kernel;
use longshore_dataplane::backend::nft::table::Loaded;
use longshore_dataplane::backend::nft::text;
use longshore_dataplane::model::Protocol;
use longshore_dataplane::sim::Packet;
use longshore_dataplane::store::ServiceStore;
use longshore_dataplane::trace::{self, Question, agree};
use longshore_dataplane::{Cidr, Config, DetectLocal, Family, NodePortAddresses, TABLE, addresses};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// How rules depend on the node.
#[derive(Args)]
struct NodeFlags {
    /// Name of this node; the host's name unless set
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Addresses of pods, one range per family
    #[arg(long, value_delimiter = ',', default_value = "10.244.0.0/16", value_name = "CIDR")]
    cluster_cidr: Vec<String>,
    /// Where node ports answer: primary, or ranges of addresses
    #[arg(long, value_delimiter = ',', default_value = "primary", value_name = "CIDR")]
    nodeport_addresses: Vec<String>,
}

impl NodeFlags {
    fn config(&self, local: &[IpAddr]) -> Result<Config, Fault> {
        let cidr = |text: &String| Cidr::parse(text).ok_or_else(|| Fault::from(format!("{text:?} is not an address range")));
        let ranges = |texts: &[String]| texts.iter().map(cidr).collect::<Result<Vec<_>, _>>();
        let primary = self.nodeport_addresses.iter().any(|text| text == "primary");
        Ok(Config {
            node_name: crate::run::process::node_name(self.node_name.clone()),
            node_ips: crate::run::assemble::host_ips().into_iter().filter(|ip| local.contains(ip)).collect(),
            detect_local: DetectLocal::ClusterCidr(ranges(&self.cluster_cidr)?),
            node_port_addresses: if primary {
                NodePortAddresses::Primary
            } else {
                NodePortAddresses::Cidrs(ranges(&self.nodeport_addresses)?)
            },
            ..Config::default()
        })
    }
}

/// Addresses of this node.
fn local() -> Vec<IpAddr> {
    addresses::all().unwrap_or_default().into_iter().map(|(_, ip)| ip).collect()
}

fn node_port_ips(config: &Config, local: &[IpAddr]) -> Vec<IpAddr> {
    let ips = match &config.node_port_addresses {
        NodePortAddresses::Cidrs(cidrs) => local.iter().copied().filter(|ip| cidrs.iter().any(|cidr| cidr.contains(*ip))).collect(),
        _ => config.node_ips.clone(),
    };
    ips.into_iter().filter(|ip| !ip.is_loopback()).collect()
}

fn store(config: &Config, objects: &Objects) -> ServiceStore {
    let mut store = ServiceStore::new(&config.node_name, None, &config.node_ips);
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

fn read(path: &std::path::Path) -> Result<Objects, Fault> {
    Objects::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()).into())
}

fn kernel(options: &Options) -> Result<Loaded, Fault> {
    Kernel::open(TABLE).and_then(|mut kernel| kernel.read(options)).map_err(|e| e.to_string().into())
}

/// Say what happens to a packet: which service it is for, where it goes, and why
#[derive(Args)]
#[command(after_help = "Examples:
  longshore trace 10.244.0.5 10.96.0.10:53/udp           from a pod to a service of the daemon's
  longshore trace 203.0.113.9 192.0.2.1:30080 --kernel   and whether the kernel's rules say the same
  longshore trace 10.244.0.5 10.96.0.1:80 --services dir without a daemon")]
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
    #[command(flatten)]
    socket: Socket,
}

impl Trace {
    pub async fn main(self) -> Result<(), Fault> {
        let (destination, protocol) = destination(&self.destination)?;
        if self.source.is_ipv4() != destination.is_ipv4() {
            return Err("source and destination are of different families".into());
        }
        let local = local();
        let config = self.node.config(&local)?;
        let objects = match &self.services {
            Some(path) => read(path)?,
            None => daemons(&Client::new(&self.socket)).await?,
        };
        let store = store(&config, &objects);
        let options = Options::of(&config, Family::of(destination.ip()));
        let own = local.contains(&self.source);
        let interface = self.interface.or_else(|| (!own).then(|| "unknown".into()));
        let packet = Packet { protocol, source: SocketAddr::new(self.source, 40_000), destination, interface };
        let question = Question { packet, node_port_ips: node_port_ips(&config, &local), local };
        let image = trace::image(&store, &options, &question.node_port_ips);
        let trace = trace::trace(&store, &options, &image, &question).ok_or("the compiled rules cannot be followed")?;
        print!("{trace}");
        if self.kernel { self::compare(&options, &question, &trace) } else { Ok(()) }
    }
}

fn compare(options: &Options, question: &Question, trace: &trace::Trace) -> Result<(), Fault> {
    let program = match kernel(options)? {
        Loaded::Ours(program) => program,
        Loaded::Nothing => return Err("kernel    holds no rules of ours in nftables".into()),
        Loaded::Foreign => return Err("kernel    holds rules that were made with other settings, or by somebody else".into()),
    };
    let ways = trace::ways(&Image::of(options, &program), options, question).ok_or("the kernel's rules cannot be followed")?;
    if agree(&ways, &trace.ways) {
        println!("kernel    agrees");
        return Ok(());
    }
    println!("kernel    says something else:");
    print!(
        "{}",
        trace::Trace { ways, matched: None, ..trace.clone() }
            .to_string()
            .lines()
            .filter(|l| l.starts_with("result"))
            .fold(String::new(), |all, l| all + l + "\n")
    );
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
        objects.add(std::path::Path::new(path), list);
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
        let local = local();
        let config = self.node.config(&local)?;
        let after = store(&config, &read(&self.services)?);
        let before = self.from.as_deref().map(|path| read(path).map(|objects| store(&config, &objects))).transpose()?;
        let ips = node_port_ips(&config, &local);
        for family in Family::ALL {
            let options = Options::of(&config, family);
            let held = match &before {
                Some(before) => Loaded::Ours(trace::program(before, &options, &ips)),
                None if self.kernel => kernel(&options)?,
                None => Loaded::Nothing,
            };
            for (index, transaction) in trace::plan(&after, &options, &ips, held).iter().enumerate() {
                println!("# {family}, transaction {}: {} operations", index + 1, transaction.len());
                transaction.iter().for_each(|op| println!("{}", text::line(family, TABLE, op)));
            }
        }
        Ok(())
    }
}
