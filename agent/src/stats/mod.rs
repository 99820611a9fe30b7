#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! What containers, pods and the node use: figures as values, read from the kernel's text, and the two forms in which
//! they are told (specification of the kubelet, 11.6 and 11.7).
//!
//! Must never open a file; `run::stats` does. Tests: in each file.

pub mod kernel;
pub mod metrics;
pub mod summary;

use crate::time::Wall;

/// Processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// In nanoseconds since the group was made.
    pub total: u64,
    pub user: u64,
    pub system: u64,
    /// Periods in which there was a limit, those in which it was met, and the time lost to it, in nanoseconds.
    pub periods: u64,
    pub throttled: u64,
    pub throttled_time: u64,
}

/// In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub usage: u64,
    /// Without what the kernel can drop at once.
    pub working_set: u64,
    pub rss: u64,
    pub cache: u64,
    pub mapped: u64,
    /// None: no limit.
    pub limit: Option<u64>,
    pub faults: u64,
    pub major_faults: u64,
    pub swap: Option<u64>,
    pub swap_limit: Option<u64>,
}

/// How long tasks have waited: averages in percent, the total in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    pub total: u64,
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
}

/// Some tasks, and all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    pub some: Stall,
    pub full: Stall,
}

/// What one group uses. What the kernel does not tell is None.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    pub at: Wall,
    pub cpu: Option<Cpu>,
    /// Nanoseconds of a processor in a second, over the last while; None at the first look.
    pub nano_cores: Option<u64>,
    pub memory: Option<Memory>,
    pub processes: Option<u64>,
    pub cpu_pressure: Option<Pressure>,
    pub memory_pressure: Option<Pressure>,
    pub io_pressure: Option<Pressure>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// A file system, or a part of one: `used` of what is counted, the rest of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub available: u64,
    pub capacity: u64,
    pub used: u64,
    pub inodes_free: u64,
    pub inodes: u64,
    pub inodes_used: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerFigures {
    pub name: String,
    pub id: String,
    pub image: String,
    pub started: Wall,
    /// Below the mount point of a hierarchy, with a slash in front.
    pub cgroup: String,
    pub usage: Usage,
    pub logs: Option<Disk>,
    /// What it has written into its own layer, in bytes and files.
    pub rootfs: Option<(u64, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFigures {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub started: Wall,
    pub cgroup: String,
    pub usage: Usage,
    pub network: Vec<Interface>,
    pub containers: Vec<ContainerFigures>,
}

/// Something of the node's own: `kubelet`, `pods`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SystemFigures {
    pub name: &'static str,
    pub started: Wall,
    pub usage: Usage,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFigures {
    pub name: String,
    /// When it booted.
    pub started: Wall,
    pub usage: Usage,
    /// The interface of the default route, if there is one.
    pub default_interface: String,
    pub network: Vec<Interface>,
    pub disk: Option<Disk>,
    pub images: Option<Disk>,
    /// Processes that there can be, and that there are.
    pub processes: Option<(u64, u64)>,
    pub cores: u64,
    pub memory: u64,
    pub system: Vec<SystemFigures>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    pub node: NodeFigures,
    pub pods: Vec<PodFigures>,
}
