//! Services to kernel rules: the service proxy of a node.
//!
//! `store → resolve → compile → diff → kernel`; all but the last arrow is pure. Give a [`Dataplane`] the cluster's
//! Services and EndpointSlices as [`Change`]s, and it keeps the kernel of one network namespace forwarding.
//!
//! | module | owns |
//! |---|---|
//! | [`wire`] | Kubernetes' objects as JSON has them |
//! | [`model`] | our compact types, and the conversion |
//! | [`store`] | the desired state |
//! | [`resolve`] | what each service's packets may do |
//! | [`backend`] | the rules of one kernel mechanism |
//! | [`conntrack`] | stale flows |
//! | [`health`] | what health checks are answered |
//! | [`metrics`] | what is counted |
//! | [`sim`] | what the rules do with a packet |
//! | [`trace`] | why |
//! | [`netlink`] | messages and sockets |
//! | `actor`, `dataplane`, `inbox` | the thread and the handle to it |

mod actor;
pub mod addresses;
pub mod backend;
mod claims;
pub mod config;
pub mod conntrack;
mod dataplane;
pub mod events;
pub mod health;
mod inbox;
mod malloc;
pub mod metrics;
pub mod model;
pub mod netlink;
mod netns;
pub mod resolve;
pub mod sim;
pub mod snapshot;
pub mod store;
pub mod trace;
pub mod wire;

pub use config::{Change, Config, DetectLocal, IptablesConfig, IpvsConfig, Mode, NodePortAddresses};
pub use dataplane::{Dataplane, StartError, Stopped, cleanup};
pub use model::{Cidr, Family};
pub use snapshot::{Counters, FrontendSnapshot, ServiceSnapshot, Snapshot, Status};

/// The tables' name, in families ip and ip6: kube-proxy's, so that either proxy's first program replaces the other's.
pub const TABLE: &str = "kube-proxy";
