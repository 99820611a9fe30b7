//! The crate's own picture of services and endpoints: numbers and shared names.
//!
//! Owns the compact types that the store keeps and `resolve` reads. Kubernetes types enter through
//! [`convert`] alone. Never touches the world. Tests: `convert` and `address`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod address;
pub mod convert;
pub mod time;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use address::Cidr;

/// An IP family. Each has its own table in the kernel and its own program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    pub fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The family's number in netfilter's messages.
    pub fn number(self) -> u8 {
        match self {
            Family::V4 => 2,
            Family::V6 => 10,
        }
    }

    pub fn address_len(self) -> usize {
        match self {
            Family::V4 => 4,
            Family::V6 => 16,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The protocol's number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    pub fn from_number(number: u8) -> Option<Protocol> {
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.number() == number)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// `namespace/name` of a Service or of a slice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Arc<str>);

impl ObjectName {
    pub fn new(namespace: &str, name: &str) -> ObjectName {
        ObjectName(format!("{namespace}/{name}").into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(_, name)| name)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a proxy needs to know of its own node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `topology.kubernetes.io/zone`
    pub zone: Option<String>,
    /// At most one of each family; the first is the primary one.
    pub ips: Vec<IpAddr>,
    pub pod_cidrs: Vec<Cidr>,
    /// Whether load balancers may send it traffic.
    pub eligible: bool,
}

/// A Service that has virtual addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// When it was created: the smaller the older. Only to be compared.
    pub created: u64,
    /// At most one per family, at the family's index.
    pub cluster_ips: [Option<IpAddr>; 2],
    pub external_ips: Box<[IpAddr]>,
    pub load_balancer_vips: Box<[IpAddr]>,
    /// Empty means that every source is allowed.
    pub source_ranges: Box<[Cidr]>,
    pub ports: Box<[ServicePort]>,
    /// Seconds a client sticks to its endpoint; `None` without session affinity.
    pub affinity_seconds: Option<u32>,
    pub internal_policy_local: bool,
    /// Already false for a Service that its type keeps inside the cluster.
    pub external_policy_local: bool,
    /// 0 when the Service has none.
    pub health_check_node_port: u16,
}

impl Service {
    pub fn cluster_ip(&self, family: Family) -> Option<IpAddr> {
        self.cluster_ips[family as usize]
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub port: u16,
    /// 0 when the port has none.
    pub node_port: u16,
}

/// One EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    pub service: ObjectName,
    pub family: Family,
    pub ports: Box<[SlicePort]>,
    pub endpoints: Box<[Endpoint]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub ip: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// On this node.
    pub local: bool,
    pub hints: Option<Box<Hints>>,
}

/// Where the slice controller wants an endpoint's traffic to come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hints {
    /// `None` without node hints, else whether they name this node.
    pub this_node: Option<bool>,
    pub zones: Box<[Arc<str>]>,
}

/// A packet's destination that a service answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKey {
    Vip { ip: IpAddr, protocol: Protocol, port: u16 },
    NodePort { protocol: Protocol, port: u16 },
}

impl FrontendKey {
    pub fn protocol(&self) -> Protocol {
        match *self {
            FrontendKey::Vip { protocol, .. } | FrontendKey::NodePort { protocol, .. } => protocol,
        }
    }
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrontendKey::Vip { ip, protocol, port } => {
                write!(f, "{protocol} {}", SocketAddr::new(*ip, *port))
            }
            FrontendKey::NodePort { protocol, port } => write!(f, "{protocol} nodePort {port}"),
        }
    }
}
