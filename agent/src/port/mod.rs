#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The kubelet's own port as values: what it answers, what each request needs to be allowed, for how long an answer
//! about somebody is believed, and what its parameters say (specification of the kubelet, 11).
//!
//! Must never touch a socket, a file or a clock; `run::port` does. Tests: in each file; over real connections in
//! `agent/tests/port` and `tests/tests/process_port.rs`.

pub mod cache;
pub mod config;
pub mod credential;
pub mod health;
pub mod node_log;
pub mod route;
pub mod streams;

pub use cache::Cache;
pub use config::PortConfig;
pub use route::{Endpoint, Found, find};
