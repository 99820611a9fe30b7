//! The kubelet's port in this process, spoken to over real connections: who is let in, to what, and how much anybody
//! may take. The node behind it knows one pod, and its runtime is not there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod caches;
mod certificates;
mod lab;
mod lessons;
mod table;
#[path = "../tls_client/mod.rs"]
mod tls_client;
