//! What the API server refuses at creation, with its messages (core/v1 1.36).
//!
//! Runs after defaulting, on typed objects. Reports all faults, never stops at the first. Must never
//! change an object. Tests: `manifest/tests/`.

pub mod config;
mod container;
mod environment;
pub mod meta;
pub mod names;
mod pod;
mod probe;
mod resources;
mod security;
mod service;
pub mod slice;
mod volume;

pub use pod::{alone, pod};
pub use service::service;
pub use slice::slice;
