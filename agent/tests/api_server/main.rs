//! The API server in this process, without a node, spoken to over real connections.
//!
//! Needs root: some tests fill a file system of their own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod bad_input;
mod door;
mod journal;
mod laws;
mod lists;
mod server;
mod signing;
mod tls;
#[path = "../tls_client/mod.rs"]
mod tls_client;
mod watchers;
mod writes;
