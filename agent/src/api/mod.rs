#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The Kubernetes API as values: what there is, who may do what, what a request asks for, what a write makes of an
//! object, and how it is shown.
//!
//! A resource is a row of [`resource::RESOURCES`]; its fields are a table of `manifest::schema`. Must never look
//! anything up nor touch a socket or a file; `run::api` does. Tests: in each file, and `agent/tests/api_*.rs`.

pub mod access;
pub mod discovery;
pub mod events;
pub mod failure;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod print;
pub mod protobuf;
pub mod query;
pub mod request;
pub mod resource;
pub mod route;
pub mod selector;
pub mod signing;
pub mod store;
pub mod write;
pub mod x509;

pub use failure::Failure;
pub use object::{EventObject, List, PodObject};
pub use query::Query;
