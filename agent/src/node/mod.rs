#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The node as one value: `step(state, event, now) -> effects`.
//!
//! | state | writer | rebuilt after a crash from |
//! |---|---|---|
//! | pods, their definitions | the manifests source | the directory, read again |
//! | life of each pod | `step` | the directory, deletion deadlines and outcomes in the state directory |
//! | snapshots | the observer's events | the runtime |
//! | probe verdicts | the prober's events | probed again; readiness from the last status until then |
//! | image and start failures | job results | nothing: tried again |
//! | statuses | `status`, after each change | the state directory (times, readiness), the rest computed |
//! | ConfigMaps, Secrets, Services | the manifests source | the directory |
//!
//! Must never do I/O or keep a second copy of anything for display. Tests: `node/reported_tests.rs`, and the laws
//! in `node/simulator`.

pub mod effect;
pub mod event;
pub mod orphan;
#[cfg(test)]
mod preempt_tests;
pub mod probing;
pub mod reconcile;
#[cfg(test)]
mod reported_tests;
pub mod results;
#[cfg(test)]
pub(crate) mod simulator;
pub mod state;
mod step;

pub use effect::{Effect, Job, JobId};
pub use event::Event;
pub use state::{NodeState, PodEntry};
pub use step::step;
