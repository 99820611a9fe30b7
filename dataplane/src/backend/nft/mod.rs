//! The nftables backend: flat maps and a handful of static chains, by raw netlink.
//!
//! `Table` owns, for one family, what is desired and what the kernel holds. Everything here is pure but `kernel`.
//! Tests: `tests` (laws), `compile`, `render`, and the namespace tests.

pub mod compile;
pub mod diff;
pub mod exprs;
pub mod ir;
pub mod kernel;

pub mod program;
pub mod read;
pub mod render;
pub mod schema;
pub mod table;
#[cfg(test)]
mod tests;
