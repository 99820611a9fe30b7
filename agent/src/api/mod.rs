#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The Kubernetes API's paths, objects and errors, as the daemon's socket speaks them.
//!
//! Owns which path means what, how an object of this node reads on the wire, and the `Status` objects
//! that errors are. Must never look anything up; `run::server` does. Tests: in each file.

pub mod failure;
pub mod object;
pub mod patch;
pub mod protobuf;
pub mod query;
pub mod route;
pub mod selector;

pub use failure::Failure;
pub use object::{EventObject, List, PodObject};
pub use query::Query;
pub use route::{Kind, Route};
