//! The laboratory: a node on a network of its own, with its own container runtime.
//!
//! [`Lab`] is the usual entry: a [`Home`] directory, a [`Network`] of namespaces with no way out of
//! the machine, a private [`Containerd`] in the node's namespace and the test images in it. The parts
//! also work alone. Nothing here touches a runtime, a network or a cgroup that it did not make.
//! Tested in `tests/tests/runtime_lab.rs`.

pub mod client;
pub mod cni;
pub mod containerd;
mod containerd_config;
pub mod control_plane;
pub mod daemon;
pub mod fake_node;
pub mod home;
pub mod image;
pub mod kubectl;
pub mod kubelet_port;
pub mod net;
pub mod pods;
pub mod process;
pub mod registry;
pub mod usage;
pub mod vm;
pub mod wait;

pub use cni::PodNetwork;
pub use containerd::Containerd;
pub use control_plane::ControlPlane;
pub use daemon::Daemon;
pub use fake_node::FakeNode;
pub use home::Home;
pub use net::{Namespace, Network};
pub use process::Running;
pub use registry::Registry;
pub use wait::wait_until;

use anyhow::Result;

/// Set to `systemd` where the lab's containers are to be scopes of the systemd that runs the machine.
pub const CGROUP_DRIVER: &str = "LONGSHORE_LAB_CGROUP_DRIVER";

/// Whether systemd keeps the cgroups of this lab.
pub fn on_systemd() -> bool {
    std::env::var_os(CGROUP_DRIVER).is_some_and(|driver| driver == "systemd")
}

/// A node with its runtime, ready for a daemon. Fields drop in order: what uses goes before what is
/// used.
pub struct Lab {
    pub containerd: Containerd,
    pub network: Network,
    pub home: Home,
}

impl Lab {
    /// Brings up everything with the containerd found in PATH and the usual network.
    pub fn up() -> Result<Lab> {
        Lab::with(&containerd::Binary::in_path()?, 1)
    }

    /// Brings up a lab on the given containerd with `outside` hosts next to the node.
    pub fn with(binary: &containerd::Binary, outside: usize) -> Result<Lab> {
        let home = Home::new()?;
        let network = Network::new(&home, outside)?;
        let containerd = Containerd::start(binary, &home, Some(&network.node), &PodNetwork::default())?;
        for archive in image::standard()? {
            containerd.import(&archive)?;
        }
        Ok(Lab { containerd, network, home })
    }

    /// Starts the daemon on the node. Drop it before the lab.
    pub fn daemon(&self, options: daemon::Options) -> Result<Daemon> {
        Daemon::start(&self.home, Some(&self.network.node), &self.containerd, options)
    }
}
