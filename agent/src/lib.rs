//! Longshore: a Kubernetes node's kubelet and service proxy in one small daemon.
//!
//! Everything outside [`run`] is pure: values in, values out, no clock, no file, no socket. `run` is
//! the thin shell that turns the world into events and effects into the world.

pub mod pod;
pub mod quantity;
pub mod time;
