//! Longshore: a Kubernetes node's kubelet and service proxy in one small daemon.
//!
//! Everything outside [`run`] is pure: values in, values out, no clock, no file, no socket. `run` is
//! the thin shell that turns the world into events and effects into the world.

pub mod admit;
pub mod api;
pub mod cgroup;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod describe;
pub mod env;
pub mod grpc;
pub mod image;
pub mod log;
pub mod lone;
pub mod manifest;
pub mod node;
pub mod plan;
pub mod pod;
pub mod port;
pub mod quantity;
pub mod run;
pub mod stats;
pub mod status;
pub mod table;
pub mod time;
pub mod typed;
pub mod volume;
pub mod why;
pub mod work;

/// The release of Kubernetes whose behaviour this is.
pub const KUBERNETES_VERSION: &str = "v1.36.2";
