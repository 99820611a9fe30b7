//! Netlink messages and sockets, shared by every backend.
//!
//! `attr` (pure) owns how messages and attributes lie in memory; `socket` owns the blocking conversation with the
//! kernel: requests, dumps and batches. Neither knows what a service is.

pub mod attr;
pub mod socket;
