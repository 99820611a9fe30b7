//! Probes: what a check is, what its results mean, when the next one is due, and the checks themselves.
//!
//! `outcome`, `spec`, `machine` are pure; `check` does the I/O. Knows nothing of pods or of the runtime:
//! exec checks are described here and made by whoever holds the runtime's client.

pub mod check;
pub mod machine;
pub mod outcome;
pub mod spec;

pub use machine::{Machine, Verdict};
pub use outcome::Outcome;
pub use spec::{Check, HttpCheck, ProbeKind, Settings};
