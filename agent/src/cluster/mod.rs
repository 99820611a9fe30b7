#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! What a member of a cluster decides: whom it talks to and as whom, what a watch told, what is told back.
//!
//! Must never do I/O: `run::client` speaks to the server, `run::cluster` carries out what is decided here.
//! Tests: in each file, and the whole against the API of a lone node over TLS in `agent/tests/cluster`.

pub mod bootstrap;
pub mod certificate;
pub mod correlate;
pub mod kubeconfig;
pub mod mirror;
pub mod node_object;
pub mod pace;
pub mod references;
pub mod reflect;
pub mod report;
pub mod signing_request;
