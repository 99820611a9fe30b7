#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Logs of containers as the runtime writes them: lines to read, and which file is asked for
//! (specification of the kubelet, 11.5).
//!
//! Must never open a file; `run::server::logs` does. Tests: in each file.

pub mod choose;
pub mod line;
pub mod wish;

pub use choose::choose;
pub use line::{Options, Printer, Stream};
pub use wish::Wish;
