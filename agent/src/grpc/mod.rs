#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! gRPC as the node's own sockets speak it: the messages of the plugin APIs, how they stand in a body, and what clients
//! have to be helped with.
//!
//! Must never open a socket: `run::grpc` does. Tests: in each file.

pub mod authority;
pub mod frame;
pub mod messages;
