//! The container runtime, seen as a small set of verbs and one snapshot per pod.
//!
//! Owns: the wire messages ([`v1`]), the facts that Longshore and any other kubelet write on
//! sandboxes and containers ([`labels`]), the way from plain inputs to messages ([`sandbox_config`],
//! [`container_config`], [`resources`], [`security`]), the way from messages to an
//! [`ObservedPod`] ([`snapshot`]), and the calls themselves ([`client`],
//! [`images`], [`exec`], [`events`], [`exit_watch`]).
//!
//! Must never: know Kubernetes API types, decide what to do about what it sees, retry by itself.
//!
//! Tests stand beside the pure modules; `tests/` runs the client against the fake runtime of the
//! feature `fake`.

pub mod client;
pub mod container_config;
pub mod containerd;
pub mod error;
pub mod events;
pub mod exec;
pub mod exit_watch;
#[cfg(feature = "fake")]
pub mod fake;
pub mod images;
pub mod labels;
pub mod resources;
pub mod sandbox_config;
pub mod security;
pub mod snapshot;
pub mod v1;

pub use client::Client;
pub use error::{Error, Kind, Verb};
pub use snapshot::{ContainerState, ObservedContainer, ObservedPod, ObservedSandbox};
