//! A strict container runtime in memory: for tests of everything that drives one.
//!
//! [`Model`] is a pure state machine with virtual time, for simulators. [`FakeRuntime`] serves one
//! on a unix socket in real time, for tests of whole processes. Both refuse what containerd
//! refuses, in containerd's words, and a little more: removing what still runs is an error.
//!
//! Must never be lenient: a test that passes here for the wrong reason costs more than it gives.
//! Tests: `fake/tests.rs` and `tests/client.rs`.

mod containers;
mod images;
mod model;
mod script;
mod server;
mod service;
#[cfg(test)]
mod tests;
mod views;

pub use images::RemoteImage;
pub use model::{Model, ModelEvent, Refusal, Usage};
pub use script::{Behaviour, Call, ExecScript, Fault, FaultRule, Life, OnTerm, StartOutcome, Subject};
pub use server::{FakeRuntime, Options};
