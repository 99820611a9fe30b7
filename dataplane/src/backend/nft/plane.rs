//! One family's nftables rules: the table that is desired, and the kernel that holds it.
//!
//! Owns the order of reading, making and changing. Decides nothing about rules. Tests: the namespace tests.

use std::time::{Duration, Instant};

use super::compile::compile;
use super::ir::Op;
use super::kernel::{Kernel, KernelError};
use super::table::{Loaded, Table};
use super::view;
use crate::backend::{BackendError, Found, NodeAddresses, Options, Plane, Written};
use crate::model::{Family, ObjectName};
use crate::resolve::Resolved;
use crate::snapshot::ServiceSnapshot;

/// When others change nftables all the time, our table is read as a whole no more often than this.
const DEEP_AUDIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct NftPlane {
    table: Table,
    kernel: Kernel,
    /// What was read and is not ours: the table is to be made.
    to_make: Option<Loaded>,
    /// The kernel's number of our table.
    handle: Option<u64>,
    generation: u32,
    last_read: Option<Instant>,
}

impl NftPlane {
    pub fn open(table: &str, options: Options) -> Result<NftPlane, KernelError> {
        let mut kernel = Kernel::open(table)?;
        let generation = kernel.generation()?;
        kernel.table_handle(options.family)?;
        Ok(NftPlane { table: Table::new(options), kernel, to_make: None, handle: None, generation, last_read: None })
    }

    fn make(&mut self, loaded: &Loaded, written: &mut Written) -> Result<(), KernelError> {
        if *loaded == Loaded::Foreign {
            tracing::info!(family = %self.family(), "replacing rules that somebody else wrote");
        }
        let ops = self.table.plan_creation(loaded);
        self.commit(&ops, written)?;
        self.table.created(loaded);
        self.handle = self.kernel.table_handle(self.family())?;
        Ok(())
    }

    fn commit(&mut self, ops: &[Op], written: &mut Written) -> Result<(), KernelError> {
        self.kernel.commit(self.table.options().family, ops)?;
        self.generation = self.generation.wrapping_add(1);
        written.add(Written { transactions: 1, writes: ops.len() as u64 });
        Ok(())
    }
}

impl Plane for NftPlane {
    fn family(&self) -> Family {
        self.table.options().family
    }

    fn needs_read(&self) -> bool {
        self.table.needs_read() && self.to_make.is_none()
    }

    fn forget(&mut self) {
        self.to_make = None;
        self.table.forget();
    }

    fn read(&mut self) -> Result<Found, BackendError> {
        self.forget();
        let loaded = self.kernel.read(self.table.options())?;
        self.handle = self.kernel.table_handle(self.family())?;
        Ok(match loaded {
            Loaded::Ours(program) => {
                self.table.adopt(program);
                Found::Rules
            }
            other => {
                let found = if other == Loaded::Nothing { Found::Nothing } else { Found::Rules };
                self.to_make = Some(other);
                found
            }
        })
    }

    fn set(&mut self, name: &ObjectName, resolved: Resolved) {
        let fragment = compile(resolved, |key| self.table.loaded(key));
        self.table.set(name, fragment);
    }

    fn set_node_addresses(&mut self, addresses: NodeAddresses) {
        let everywhere = self.table.options().node_ports_everywhere;
        self.table.set_node_port_ips(if everywhere { Vec::new() } else { addresses.node_ports });
    }

    fn is_touched(&self) -> bool {
        self.table.is_touched()
    }

    fn apply(&mut self, now: Instant) -> Result<Written, BackendError> {
        let mut written = Written::default();
        if let Some(loaded) = self.to_make.take() {
            self.make(&loaded, &mut written)?;
        }
        for transaction in self.table.plan() {
            self.commit(&transaction, &mut written)?;
        }
        self.table.committed();
        self.last_read.get_or_insert(now);
        Ok(written)
    }

    fn audit(&mut self, now: Instant) -> Result<bool, BackendError> {
        let generation = self.kernel.generation()?;
        if generation == self.generation {
            return Ok(false);
        }
        if self.kernel.table_handle(self.family())? != self.handle {
            return Ok(true);
        }
        // A change within a table that is still there is found by reading it.
        let deep = self.last_read.is_none_or(|at| now.duration_since(at) >= DEEP_AUDIT);
        if deep {
            self.generation = generation;
            self.last_read = None;
        }
        Ok(deep)
    }

    fn frontends(&self) -> usize {
        self.table.have().map_or(0, |have| have.frontends.len())
    }

    fn services(&self) -> Vec<ServiceSnapshot> {
        view::services(&self.table)
    }

    fn delete(&mut self) -> Result<(), BackendError> {
        Ok(self.kernel.delete_table(self.family())?)
    }
}
