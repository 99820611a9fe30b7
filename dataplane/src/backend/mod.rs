//! Backends: each writes resolved frontends down in one kernel mechanism's terms.
//!
//! The same six files in each: `ir` (what can be said), `compile` (resolved frontends to it), `diff` (the smallest
//! transaction), `render` (to and from the kernel's format), `kernel` (the only I/O), and `mod` (the owner of what is
//! desired and what is applied).
//!
//! Owns the seam between the actor and the backends: [`Plane`] is one family's rules in one backend. A backend never
//! decides where packets may go, and never talks to the API. Tests: each backend's.

mod fallback;
mod hold;
pub mod iptables;
pub mod ipvs;
pub mod nft;
pub mod userspace;

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::config::{Config, DetectLocal, Mode, NodePortAddresses};
use crate::events::Event;
use crate::metrics::Counts;
use crate::model::{Cidr, Family, ObjectName};
use crate::resolve::Resolved;
use crate::snapshot::{ServiceSnapshot, Traffic};
use crate::trace::Held;

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error(transparent)]
    Nftables(#[from] nft::kernel::KernelError),
    #[error(transparent)]
    Iptables(#[from] iptables::kernel::IptablesError),
    #[error(transparent)]
    Ipvs(#[from] ipvs::kernel::KernelError),
    #[error(transparent)]
    Userspace(#[from] userspace::plane::UserspaceError),
}

/// What a family's rules depend on besides services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub family: Family,
    /// Already settled: never [`DetectLocal::NodeCidr`].
    pub detect_local: DetectLocal,
    pub masquerade_all: bool,
    /// The mark's bit as a number.
    pub masquerade_mark: u32,
    /// Node ports answer on every local address but loopback, else on those of [`NodeAddresses::node_ports`].
    pub node_ports_everywhere: bool,
    /// Endpoints count their connections (nftables alone).
    pub endpoint_counters: bool,
    /// The node's connection tracker takes packets outside the window (`nf_conntrack_tcp_be_liberal`), so invalid ones
    /// need not be dropped (nftables alone; iptables has its own).
    pub liberal: bool,
}

impl Options {
    pub fn of(config: &Config, family: Family) -> Options {
        Options {
            family,
            detect_local: match &config.detect_local {
                DetectLocal::NodeCidr => DetectLocal::ClusterCidr(config.pod_cidrs.clone()),
                other => other.clone(),
            },
            masquerade_all: config.masquerade_all,
            masquerade_mark: 1 << (config.masquerade_bit & 31),
            node_ports_everywhere: match &config.node_port_addresses {
                NodePortAddresses::All => true,
                NodePortAddresses::Primary => !config.node_ips.iter().any(|ip| Family::of(*ip) == family && !ip.is_loopback()),
                NodePortAddresses::Cidrs(cidrs) => {
                    let mut ours = cidrs.iter().filter(|cidr| cidr.family() == family).peekable();
                    ours.peek().is_none() || ours.any(|cidr| cidr.prefix == 0)
                }
            },
            endpoint_counters: config.endpoint_counters,
            liberal: false,
        }
    }
}

/// This node's addresses of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    /// Those that answer on node ports; never loopback. Of all links but `kube-ipvs0`, when
    /// [`Options::node_ports_everywhere`] and the plane [`Plane::wants_addresses`].
    pub node_ports: Vec<IpAddr>,
    /// Every address with its link's name, when the plane [`Plane::wants_addresses`].
    pub links: Vec<(String, IpAddr)>,
}

impl NodeAddresses {
    /// One family's part of the addresses on `links`, and which of them answer on node ports.
    pub fn of(config: &Config, family: Family, links: &[(String, IpAddr)]) -> NodeAddresses {
        let links: Vec<_> = links.iter().filter(|(_, ip)| Family::of(*ip) == family).cloned().collect();
        // The ipvs backend's link has services' addresses, not the node's.
        let own = links.iter().filter(|(link, _)| link != ipvs::ir::LINK).map(|(_, ip)| *ip);
        let mut node_ports: Vec<_> = match &config.node_port_addresses {
            _ if Options::of(config, family).node_ports_everywhere => own.collect(),
            NodePortAddresses::Cidrs(cidrs) => own.filter(|ip| cidrs.iter().any(|cidr| cidr.contains(*ip))).collect(),
            _ => config.node_ips.iter().copied().filter(|ip| Family::of(*ip) == family).collect(),
        };
        node_ports.retain(|ip| !ip.is_loopback());
        node_ports.sort_unstable();
        node_ports.dedup();
        NodeAddresses { node_ports, links }
    }
}

/// What [`Plane::read`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// No rules for services: some may be programmed before the others.
    Nothing,
    /// Rules that forward services now. They must all be known before the first is changed.
    Rules,
}

/// What [`Plane::apply`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    pub transactions: u64,
    /// An element, a rule, a chain.
    pub writes: u64,
}

impl Written {
    pub fn add(&mut self, other: Written) {
        self.transactions += other.transactions;
        self.writes += other.writes;
    }
}

/// One family's rules in one backend: what is desired, what the kernel holds, and the way from one to the other.
///
/// The actor calls `read` when `needs_read`, then `set` for every service, then `apply`; later `set` for services that
/// changed, and `apply`. After any error it calls `forget`, and the next pass reads again.
pub trait Plane: Send {
    fn family(&self) -> Family;

    /// Whether the kernel must be read before anything can be applied.
    fn needs_read(&self) -> bool;

    /// Forgets what the kernel holds.
    fn forget(&mut self);

    /// Learns what the kernel holds. Nothing is written.
    fn read(&mut self) -> Result<Found, BackendError>;

    /// What is desired of one service from now on; an empty one removes it. No two services have the same frontend in
    /// the end, but between the calls of one pass two may have it for a moment: the one that keeps it can be set before
    /// or after the one that loses it. So a frontend that a service no longer has is removed only if the service was
    /// the last to set it.
    fn set(&mut self, name: &ObjectName, resolved: Resolved);

    fn set_node_addresses(&mut self, addresses: NodeAddresses);

    /// All ranges that cluster IPs are allocated from, none within another. Packets to unallocated ones should be dropped.
    fn set_service_cidrs(&mut self, cidrs: &[Cidr]) {
        let _ = cidrs;
    }

    /// Whether [`Plane::set_node_addresses`] is to be told of all links' addresses, and of every change of them.
    fn wants_addresses(&self) -> bool {
        false
    }

    /// Whether something desired may differ from what the kernel holds.
    fn is_touched(&self) -> bool;

    /// Brings the kernel to what is desired, by the smallest change, in an order that never leaves a service without
    /// an endpoint that it has before and after.
    fn apply(&mut self, now: Instant) -> Result<Written, BackendError>;

    /// Looks, cheaply, whether somebody else changed what is ours; if so, the caller calls [`Plane::forget`].
    fn audit(&mut self, now: Instant) -> Result<bool, BackendError>;

    /// Becomes readable when somebody may have changed what is ours: [`Plane::audit`] tells.
    fn alarm(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// When to call [`Plane::audit`] and [`Plane::apply`] again although nothing changed.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// What users should be told since the last call.
    fn take_events(&mut self) -> Vec<Event> {
        Vec::new()
    }

    /// What was counted since the last call, for metrics.
    fn take_counts(&mut self) -> Counts {
        Counts::default()
    }

    /// How many frontends the kernel holds, as far as is known.
    fn frontends(&self) -> usize;

    /// What is programmed, by namespace and name.
    fn services(&self) -> Vec<ServiceSnapshot>;

    /// What the kernel counted of new connections, where it does.
    fn traffic(&mut self) -> Result<Vec<Traffic>, BackendError> {
        Ok(Vec::new())
    }

    /// Deletes all that is ours, and nothing else.
    fn delete(&mut self) -> Result<(), BackendError>;

    /// Another plane forwards by now: takes no new connections, and deletes all that is ours once no connection needs it.
    /// False while some do: then it is to be called again at [`Plane::next_deadline`].
    fn retire(&mut self, _now: Instant) -> Result<bool, BackendError> {
        self.delete().map(|()| true)
    }
}

/// The options, with what this node's settings say.
fn settled(config: &Config, family: Family) -> Options {
    Options { liberal: iptables::plane::is_liberal(), ..Options::of(config, family) }
}

/// Opens one family's rules in the calling thread's network namespace, and sees that they can be read. Nothing is
/// written.
pub fn open(config: &Config, family: Family) -> Result<Box<dyn Plane>, BackendError> {
    let options = settled(config, family);
    let plane: Box<dyn Plane> = match &config.mode {
        Mode::Nftables => Box::new(nft::plane::NftPlane::open(&config.table, options)?),
        Mode::Iptables(own) => Box::new(iptables::plane::IptablesPlane::open(config, own, family)?),
        Mode::Ipvs(own) => Box::new(ipvs::plane::IpvsPlane::open(options, own, config.audit)?),
        // It listens on node ports anyway.
        Mode::Userspace => return Ok(Box::new(userspace::plane::UserspacePlane::open(options)?)),
    };
    Ok(if config.hold_node_ports { Box::new(hold::Holding::around(plane)) } else { plane })
}

/// Opens the rules of all families. Where the mode cannot work and [`Config::fall_back`] allows it, another is taken,
/// and `config` has it from then on.
pub fn open_all(config: &mut Config) -> Result<Vec<Box<dyn Plane>>, BackendError> {
    let all = |mode: &Mode| -> Result<Vec<Box<dyn Plane>>, BackendError> {
        let config = Config { mode: mode.clone(), ..config.clone() };
        config.families.iter().map(|family| open(&config, *family)).collect()
    };
    if !config.fall_back {
        return all(&config.mode);
    }
    let (mode, planes, refused) = fallback::first_that_works(&config.mode, all)?;
    if let Some(error) = refused {
        let (wanted, taken) = (config.mode.name(), mode.name());
        tracing::warn!(%error, "mode {wanted} cannot work here: services are forwarded by mode {taken}");
        config.mode = mode;
    }
    Ok(planes)
}

/// What the kernel holds of one family's rules in the configured mode, in the calling thread's network namespace, for
/// `longshore trace` and `plan`. Nothing is written.
pub fn held(config: &Config, family: Family) -> Result<Held, BackendError> {
    Ok(match &config.mode {
        Mode::Nftables => {
            let options = settled(config, family);
            Held::Nftables(Box::new(nft::kernel::Kernel::open(&config.table)?.read(&options)?))
        }
        Mode::Iptables(_) => iptables::kernel::Kernel::open(family)?.read_rules()?,
        Mode::Ipvs(_) => {
            let rules = ipvs::xtables::Xtables::find(family).map_err(ipvs::kernel::KernelError::from)?;
            Held::Ipvs(Box::new(ipvs::kernel::Kernel::open(family, rules, None)?.read()?))
        }
        Mode::Userspace => Held::nothing(&config.mode),
    })
}

/// A plane that is to retire, with its mode's name.
pub type Leaving = (&'static str, Box<dyn Plane>);

/// What an earlier process has left of backends that must go slowly, for connections to live on.
pub fn leavings(keep: &Mode) -> Result<Vec<Leaving>, BackendError> {
    if matches!(keep, Mode::Ipvs(_)) {
        return Ok(Vec::new());
    }
    let name = Mode::Ipvs(Default::default()).name();
    let planes = ipvs::plane::leavings()?;
    Ok(planes.into_iter().map(|plane| (name, Box::new(plane) as Box<dyn Plane>)).collect())
}

/// Deletes what the backends have in the calling thread's network namespace, but for the one to `keep`; nothing else.
/// Every one is tried; the first error is returned.
pub fn cleanup(keep: Option<&Mode>) -> Result<(), BackendError> {
    let mut outcome = Ok(());
    if !matches!(keep, Some(Mode::Nftables)) {
        outcome = outcome.and(nft::cleanup());
    }
    // Its jumps to chains that both have come first. When another mode takes over, it retires instead.
    if keep.is_none() {
        outcome = outcome.and(ipvs::plane::cleanup().map_err(BackendError::from));
    }
    if !matches!(keep, Some(Mode::Iptables(_))) {
        outcome = outcome.and(iptables::cleanup().map_err(BackendError::from));
    }
    if !matches!(keep, Some(Mode::Userspace)) {
        outcome = outcome.and(userspace::cleanup().map_err(|error| userspace::plane::UserspaceError::from(error).into()));
    }
    outcome
}

/// Services that the cluster itself needs to work are programmed before the others: the API server's, and those of
/// the system, DNS among them.
pub fn is_critical(name: &ObjectName) -> bool {
    name.as_str() == "default/kubernetes" || name.namespace() == "kube-system"
}
