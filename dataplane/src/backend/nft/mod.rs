//! The nftables backend: flat maps and a handful of static chains, by raw netlink.
//!
//! `Table` owns, for one family, what is desired and what the kernel holds; `plane` puts it and the kernel together.
//! Everything here is pure but `kernel` and `plane`. Tests: `tests` (laws), `compile`, `render`, and the namespace tests.

pub mod compile;
pub mod diff;
pub mod exprs;
pub mod ir;
pub mod kernel;
pub mod names;
pub mod plane;
pub mod program;
pub mod read;
pub mod render;
pub mod schema;
pub mod sticky;
pub mod table;
#[cfg(test)]
mod tests;
pub mod text;
pub mod traffic;
mod view;
pub mod watch;

use super::BackendError;
use crate::model::Family;

/// Deletes our tables from the calling thread's network namespace.
pub fn cleanup() -> Result<(), BackendError> {
    let mut kernel = kernel::Kernel::open(crate::TABLE)?;
    for family in Family::ALL {
        if kernel.table_handle(family)?.is_some() {
            kernel.delete_table(family)?;
        }
    }
    Ok(())
}
