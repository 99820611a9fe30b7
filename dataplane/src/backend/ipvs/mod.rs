//! The IPVS backend: virtual servers by generic netlink, sets, a link for the services' addresses, and a few rules of
//! iptables around them.
//!
//! `State` owns, for one family, what is desired and what the kernel holds; `drain` the destinations on their way out.
//! Everything here is pure but `kernel`, `plane`, `setup` and `xtables`. Only what is ours is ever deleted: virtual
//! servers have no owner, so that is told by their address (on our link, or one of this node with a node port) and by
//! our sets; a virtual server goes first, and what tells whose it is last. Tests: `tests` (laws), each file's, and the
//! tests on other kernels.

pub mod compile;
pub mod diff;
pub mod drain;
pub mod ir;
pub mod kernel;
pub mod plane;
pub mod render;
pub mod sets;
pub mod setup;
pub mod skeleton;
pub mod state;
#[cfg(test)]
mod tests;
pub mod text;
pub mod verdict;
pub mod view;
pub mod xtables;
