//! One family's nftables rules: the table that is desired, and the kernel that holds it.
//!
//! Owns the order of reading, making and changing. Decides nothing about rules. Tests: the namespace tests.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::compile::compile;
use super::diff;
use super::ir::Op;
use super::kernel::{Kernel, KernelError};
use super::schema::{self, KeyKind};
use super::table::{Loaded, Table};
use super::traffic::{self, Totals};
use super::view;
use super::watch::Watch;
use crate::backend::{BackendError, Found, NodeAddresses, Options, Plane, Written};
use crate::metrics::Counts;
use crate::model::{Cidr, Family, ObjectName};
use crate::resolve::Resolved;
use crate::snapshot::{ServiceSnapshot, Traffic};

/// When others change nftables all the time, our table is read as a whole no more often than this.
const DEEP_AUDIT: Duration = Duration::from_secs(30);
/// Between two repairs of what others changed.
const REPAIR_PAUSE: Duration = Duration::from_millis(200);

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
    /// Tells of others' commits; without it the generation does, later.
    watch: Option<Watch>,
    last_repair: Option<Instant>,
    /// What deleted elements counted.
    totals: Totals,
    /// Somebody changed our table, too soon after the last time.
    suspect: bool,
    /// The beginning of our clock.
    began: Instant,
    /// When to look for chains that nobody needs.
    tidy_at: Option<Instant>,
    /// Times since it was last asked that such chains could not be deleted.
    cleanup_failures: u64,
}

impl NftPlane {
    pub fn open(table: &str, options: Options) -> Result<NftPlane, KernelError> {
        let mut kernel = Kernel::open(table)?;
        let generation = kernel.generation()?;
        kernel.table_handle(options.family)?;
        let watch = kernel.watch().inspect_err(|error| tracing::warn!(%error, "changes of our rules by others are found late"));
        Ok(NftPlane {
            watch: watch.ok(),
            last_repair: None,
            totals: Totals::default(),
            suspect: false,
            table: Table::new(options),
            kernel,
            to_make: None,
            handle: None,
            generation,
            last_read: None,
            began: Instant::now(),
            tidy_at: None,
            cleanup_failures: 0,
        })
    }

    /// Where no news come: by the number of commits.
    fn audit_generation(&mut self, now: Instant) -> Result<bool, BackendError> {
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
        let family = self.family();
        for (set, key) in traffic::deleted(self.table.options(), self.table.want(), ops) {
            if let Some((data, counter)) = self.kernel.counted(family, set, &key) {
                self.totals.add(family, set, &key, &data, counter);
            }
        }
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
        // What was told so far is about what is read now.
        let family = self.family();
        self.watch.iter_mut().for_each(|watch| {
            watch.heard_of(family, self.kernel.table());
        });
        self.suspect = false;
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
        let fragment = compile(name, resolved, &self.table);
        self.table.set(name, fragment);
    }

    fn set_node_addresses(&mut self, addresses: NodeAddresses) {
        let everywhere = self.table.options().node_ports_everywhere;
        self.table.set_node_port_ips(if everywhere { Vec::new() } else { addresses.node_ports });
    }

    fn set_service_cidrs(&mut self, cidrs: &[Cidr]) {
        self.table.set_service_cidrs(cidrs);
    }

    fn is_touched(&self) -> bool {
        self.table.is_touched()
    }

    fn apply(&mut self, now: Instant) -> Result<Written, BackendError> {
        let mut written = Written::default();
        if let Some(loaded) = self.to_make.take() {
            self.make(&loaded, &mut written)?;
        }
        let next = self.table.retire_chains(now.duration_since(self.began).as_secs());
        self.tidy_at = next.map(|second| self.began + Duration::from_secs(second));
        for transaction in self.table.plan() {
            if let Err(error) = self.commit(&transaction, &mut written) {
                self.cleanup_failures += u64::from(diff::tidies(&transaction));
                return Err(error.into());
            }
        }
        self.table.committed();
        self.last_read.get_or_insert(now);
        Ok(written)
    }

    fn audit(&mut self, now: Instant) -> Result<bool, BackendError> {
        let family = self.family();
        let Some(watch) = &mut self.watch else { return self.audit_generation(now) };
        self.suspect |= watch.heard_of(family, self.kernel.table());
        // Somebody who changes it all the time must not make us read it all the time.
        let soon = self.last_repair.is_some_and(|at| now.duration_since(at) < REPAIR_PAUSE);
        if !self.suspect || soon {
            return Ok(false);
        }
        self.last_repair = Some(now);
        Ok(true)
    }

    fn alarm(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(Watch::descriptor)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let look = self.last_repair.filter(|_| self.suspect).map(|at| at + REPAIR_PAUSE);
        self.tidy_at.into_iter().chain(look).min()
    }

    fn take_counts(&mut self) -> Counts {
        Counts { cleanup_failures: std::mem::take(&mut self.cleanup_failures), ..Counts::default() }
    }

    fn frontends(&self) -> usize {
        self.table.have().map_or(0, |have| have.frontends.len())
    }

    fn services(&self) -> Vec<ServiceSnapshot> {
        view::services(&self.table)
    }

    fn traffic(&mut self) -> Result<Vec<Traffic>, BackendError> {
        let family = self.family();
        let endpoints = self.table.options().endpoint_counters;
        let mut counted = Vec::new();
        for sets in KeyKind::ALL.map(schema::frontend_sets) {
            for set in [Some(sets.frontends), endpoints.then_some(sets.endpoints)].into_iter().flatten() {
                let elements = self.kernel.all_counted(family, set)?;
                counted.extend(elements.into_iter().map(|(key, data, counter)| (set, key, data, counter)));
            }
        }
        let sums = self.totals.sum(family, self.table.want(), counted);
        Ok(view::traffic(&self.table, &sums))
    }

    fn delete(&mut self) -> Result<(), BackendError> {
        Ok(self.kernel.delete_table(self.family())?)
    }
}
