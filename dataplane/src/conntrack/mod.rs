//! Stale entries of the connection tracker.
//!
//! A UDP flow has no end, so an entry to an endpoint that went would live on as long as its client talks. `plan`
//! (pure) owns which entries are stale, `exec` deletes them, in `worker`'s thread. SCTP is treated alike; TCP entries are
//! never touched. `sysctl` (pure) owns the tracker's settings, `tune` writes them.

pub mod exec;
pub mod plan;
pub mod sysctl;
pub mod tune;
pub mod worker;
