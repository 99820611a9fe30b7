//! Services to kernel rules: the service proxy of a node.
//!
//! `store → resolve → compile → diff → kernel`; all but the last arrow is pure. Give a [`Dataplane`] the cluster's
//! Services and EndpointSlices as [`Change`]s, and it keeps the kernel of one network namespace forwarding.
//!
//! | module | owns |
//! |---|---|
//! | [`wire`] | Kubernetes' objects as JSON has them |
//! | [`model`] | our compact types, and the conversion |
//! | [`resolve`] | what each service's packets may do |

pub mod config;
pub mod model;
pub mod resolve;
pub mod wire;

pub use config::{Change, Config, DetectLocal, NodePortAddresses};
pub use model::{Cidr, Family};

/// The tables' name, in families ip and ip6: kube-proxy's, so that either proxy's first program replaces the other's.
pub const TABLE: &str = "kube-proxy";
