//! The API server in this process, without a node, spoken to over real connections.
//!
//! Needs root: one test fills a file system of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod bad_input;
mod journal;
mod laws;
mod lists;
mod server;
mod tls;
mod watchers;
mod writes;
