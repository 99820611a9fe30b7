//! Netlink messages and sockets, shared by every backend.
//!
//! `attr` (pure) owns how messages and attributes lie in memory; `socket` owns the blocking conversation with the
//! kernel: requests, dumps and batches. `genl`, `ipvs`, `ipset`, `accounting` and `route` (pure but for the look-up of a
//! family) own the messages of those five. None knows what a service is.

pub mod accounting;
pub mod attr;
pub mod genl;
pub mod ipset;
pub mod ipvs;
pub mod local;
pub mod route;
pub mod socket;
