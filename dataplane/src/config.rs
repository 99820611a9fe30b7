//! What a data plane is told at its start, and the changes it is told later.
//!
//! Owns [`Config`] and [`Change`]. Never reads files or the environment.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Cidr, Family};
use crate::wire;

/// How a data plane runs. `Config { node_name, ..Config::default() }` is a working one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Decides which endpoints are local, and node hints.
    pub node_name: String,
    /// The node's `topology.kubernetes.io/zone`, if it has one.
    pub zone: Option<String>,
    /// The node's addresses; used for [`NodePortAddresses::Primary`].
    pub node_ips: Vec<IpAddr>,
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
    /// A network namespace to program instead of the caller's.
    pub netns: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            node_name: String::new(),
            zone: None,
            node_ips: Vec::new(),
            families: Family::ALL.into(),
            detect_local: DetectLocal::None,
            masquerade_all: false,
            masquerade_bit: 14,
            node_port_addresses: NodePortAddresses::Primary,
            coalesce: Duration::from_millis(3),
            audit: Duration::from_secs(1),
            table: crate::TABLE.into(),
            netns: None,
        }
    }
}

/// How a packet's source is recognised as a pod (detectLocalMode).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetectLocal {
    /// Source in one of these; a family without any has no detector.
    ClusterCidr(Vec<Cidr>),
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
    /// The first lists of services and of slices are complete. Nothing is programmed before.
    Synced,
}
