//! What a data plane is told at its start, and the changes it is told later.
//!
//! Owns [`Config`] and [`Change`], and the reading of kube-proxy's configuration: `kube_proxy` has its fields, `decode`
//! reads it, `flags` overrides it, `validate` judges it, `effective` says what it means here. Never reads files or the environment.

pub mod decode;
pub mod duration;
pub mod effective;
pub mod flags;
pub mod kube_proxy;
pub mod validate;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::conntrack::sysctl::Wanted as Conntrack;
use crate::model::{Cidr, Family};
use crate::wire;

/// How a data plane runs. `Config { node_name, ..Config::default() }` is a working one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What the rules are written in.
    pub mode: Mode,
    /// Where the mode cannot work, another is taken; the relay in user space only when there is no packet filter at all.
    pub fall_back: bool,
    /// Holds every node port with a socket, so that no local process listens in vain on a service's port.
    pub hold_node_ports: bool,
    /// Decides which endpoints are local, and node hints.
    pub node_name: String,
    /// The node's `topology.kubernetes.io/zone`, if it has one.
    pub zone: Option<String>,
    /// The node's addresses; used for [`NodePortAddresses::Primary`].
    pub node_ips: Vec<IpAddr>,
    /// Stands in for the node's own address of its family (bindAddress).
    pub bind_ip: Option<IpAddr>,
    /// The node's pod ranges; used for [`DetectLocal::NodeCidr`].
    pub pod_cidrs: Vec<Cidr>,
    /// Families to program; each has its own table.
    pub families: Vec<Family>,
    /// How packets of pods are told from others.
    pub detect_local: DetectLocal,
    /// Masks the source of every connection to a cluster IP.
    pub masquerade_all: bool,
    /// The bit of the packet mark (0 to 31) that asks for masquerading.
    pub masquerade_bit: u8,
    pub node_port_addresses: NodePortAddresses,
    /// Changes that arrive within this time are programmed together.
    pub coalesce: Duration,
    /// Time between looks at whether somebody else changed the kernel's rules.
    pub audit: Duration,
    /// Name of the kernel's tables.
    pub table: String,
    pub servers: Servers,
    /// Settings of the connection tracker to make at the start.
    pub conntrack: Option<Conntrack>,
    /// After so long a change that is not programmed makes the proxy unhealthy.
    pub health_timeout: Duration,
    /// Endpoints count their connections, too; it costs load time and 16 bytes per endpoint and CPU.
    pub endpoint_counters: bool,
    /// Deletes what the other backends left in the kernel, once everything is programmed by this one.
    pub take_over: bool,
    /// A network namespace to program instead of the caller's.
    pub netns: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            mode: Mode::Nftables,
            fall_back: false,
            hold_node_ports: false,
            node_name: String::new(),
            zone: None,
            node_ips: Vec::new(),
            bind_ip: None,
            pod_cidrs: Vec::new(),
            families: Family::ALL.into(),
            detect_local: DetectLocal::None,
            masquerade_all: false,
            masquerade_bit: 14,
            node_port_addresses: NodePortAddresses::Primary,
            coalesce: Duration::from_millis(3),
            audit: Duration::from_secs(1),
            table: crate::TABLE.into(),
            servers: Servers::default(),
            conntrack: None,
            health_timeout: Duration::from_secs(60),
            endpoint_counters: false,
            take_over: true,
            netns: None,
        }
    }
}

/// What this process serves over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers {
    /// `/healthz` and `/livez`.
    pub health: Option<SocketAddr>,
    /// `/metrics`, `/configz`, `/proxyMode`, `/healthz`.
    pub metrics: Option<SocketAddr>,
    /// Fail at the start when one of the two cannot listen, instead of trying again and again.
    pub hard_fail: bool,
    /// The effective KubeProxyConfiguration as JSON, for `/configz`; may be empty.
    pub configuration: String,
    /// Listen on the healthCheckNodePorts of services.
    pub service_health: bool,
}

impl Default for Servers {
    fn default() -> Self {
        Servers { health: None, metrics: None, hard_fail: false, configuration: String::new(), service_health: true }
    }
}

/// The mechanism that forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    Nftables,
    Ipvs(IpvsConfig),
    Iptables(IptablesConfig),
    /// No packet filter at all: this process relays.
    Userspace,
}

impl Mode {
    /// As configuration and `/proxyMode` spell it.
    pub fn name(&self) -> &'static str {
        match self {
            Mode::Nftables => "nftables",
            Mode::Ipvs(_) => "ipvs",
            Mode::Iptables(_) => "iptables",
            Mode::Userspace => "userspace",
        }
    }
}

/// The part of `KubeProxyConfiguration.ipvs` that is about rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpvsConfig {
    /// The kernel's name of the scheduler; empty is `rr`.
    pub scheduler: String,
    /// Virtual servers within these are never touched.
    pub exclude_cidrs: Vec<Cidr>,
    pub strict_arp: bool,
    /// Time-outs of IPVS connections; zero keeps what the kernel has.
    pub tcp_timeout: Duration,
    pub tcp_fin_timeout: Duration,
    pub udp_timeout: Duration,
    /// An endpoint that was removed keeps its connections no longer than this.
    pub drain: Duration,
}

impl Default for IpvsConfig {
    fn default() -> Self {
        IpvsConfig {
            scheduler: String::new(),
            exclude_cidrs: Vec::new(),
            strict_arp: false,
            tcp_timeout: Duration::ZERO,
            tcp_fin_timeout: Duration::ZERO,
            udp_timeout: Duration::ZERO,
            drain: Duration::from_secs(900),
        }
    }
}

/// The part of `KubeProxyConfiguration.iptables` that is about rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IptablesConfig {
    /// Node ports answer on 127.0.0.1, too (IPv4 only).
    pub localhost_node_ports: bool,
}

impl Default for IptablesConfig {
    fn default() -> Self {
        IptablesConfig { localhost_node_ports: true }
    }
}

/// How a packet's source is recognised as a pod (detectLocalMode).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetectLocal {
    /// Source in one of these; a family without any has no detector.
    ClusterCidr(Vec<Cidr>),
    /// Source in one of [`Config::pod_cidrs`].
    NodeCidr,
    /// Arrived on this interface.
    BridgeInterface(String),
    /// Arrived on an interface whose name starts so.
    InterfacePrefix(String),
    /// No detector: cluster IPs are not masked, and pods count as external.
    None,
}

/// On which of the node's addresses node ports answer; loopback never does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The addresses in [`Config::node_ips`]; every address, for a family that has none there.
    Primary,
    /// Every address of the node.
    All,
    /// Addresses of interfaces within these; every address, for a family that has none here.
    Cidrs(Vec<Cidr>),
}

/// A change of the desired state. Later changes of the same object replace earlier ones.
#[derive(Debug, Clone)]
pub enum Change {
    SetService(Arc<wire::Service>),
    DeleteService {
        namespace: String,
        name: String,
    },
    SetSlice(Arc<wire::EndpointSlice>),
    DeleteSlice {
        namespace: String,
        name: String,
    },
    /// This node's zone label.
    SetZone(Option<String>),
    /// This node: its zone, its addresses, its pod ranges, whether it may get traffic. Replaces what [`Config`] said.
    SetNode(Arc<wire::Node>),
    SetServiceCidr(Arc<wire::ServiceCidr>),
    DeleteServiceCidr {
        name: String,
    },
    /// The first lists of services and of slices are complete. Nothing is programmed before.
    Synced,
}
