//! The data plane's thread: takes changes in, brings the kernel to what is desired, tries again after failures.
//!
//! Owns the store, the tables and the kernel sockets. All decisions are made in pure modules; here they are put in
//! order. Tests: the namespace tests.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::addresses;
use crate::backend::nft::compile::compile;
use crate::backend::nft::kernel::{Kernel, KernelError};
use crate::backend::nft::schema::Options;
use crate::backend::nft::table::{Loaded, Table};
use crate::config::{Config, NodePortAddresses};
use crate::conntrack::plan::StaleFlows;
use crate::conntrack::worker::Worker;
use crate::inbox::{Inbox, Pending};
use crate::malloc;
use crate::model::{Family, ObjectName};
use crate::snapshot::{Snapshot, Status};
use crate::store::ServiceStore;
use crate::view;

const FIRST_RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// A pass over so many services leaves much freed memory behind.
const LARGE: usize = 1000;
/// When others change nftables all the time, our tables are read as a whole no more often than this.
const DEEP_AUDIT: Duration = Duration::from_secs(30);

/// One family's table with what waits for it.
#[derive(Debug)]
struct Plane {
    table: Table,
    /// Services to compile before the next commit.
    waiting: BTreeSet<ObjectName>,
    stale: StaleFlows,
    /// The kernel's number of our table.
    handle: Option<u64>,
}

pub struct Actor {
    config: Config,
    inbox: Arc<Inbox>,
    status: watch::Sender<Status>,
    kernel: Kernel,
    store: ServiceStore,
    planes: Vec<Plane>,
    conntrack: Worker,
    synced: bool,
    /// Number of the last change that was taken in.
    taken: u64,
    generation: u32,
    last_read: Instant,
    next_audit: Instant,
    retry: Option<(Instant, Duration)>,
    watch: Option<addresses::Watch>,
}

impl Actor {
    /// Opens the kernel in the calling thread's network namespace, and sees that every family's tables can be read.
    pub fn open(config: Config, inbox: Arc<Inbox>, status: watch::Sender<Status>) -> Result<Actor, KernelError> {
        let mut kernel = Kernel::open(&config.table)?;
        let generation = kernel.generation()?;
        let mut planes = Vec::new();
        for family in &config.families {
            kernel.table_handle(*family)?;
            let table = Table::new(options(&config, *family));
            planes.push(Plane { table, waiting: BTreeSet::new(), stale: StaleFlows::default(), handle: None });
        }
        let audit = config.audit;
        let store = ServiceStore::new(&config.node_name, config.zone.as_deref(), &config.node_ips);
        let conntrack = Worker::new(status.clone(), config.node_ips.clone());
        Ok(Actor {
            conntrack,
            config,
            inbox,
            status,
            kernel,
            store,
            planes,
            synced: false,
            taken: 0,
            generation,
            last_read: Instant::now(),
            next_audit: Instant::now() + audit,
            retry: None,
            watch: None,
        })
    }

    /// Runs until it is told to shut down.
    pub async fn run(mut self) {
        self.watch_addresses();
        loop {
            self.wait().await;
            let pending = self.inbox.take();
            if let Some(keep_rules) = pending.shutdown {
                if !keep_rules {
                    self.delete_tables();
                }
                return;
            }
            let mut questions = Vec::new();
            self.take_in(pending, &mut questions);
            if self.synced && self.has_work() && self.may_try() {
                let large = self.planes.iter().any(|plane| plane.waiting.len() > LARGE || plane.table.needs_read());
                self.pass_and_report();
                if large {
                    malloc::trim();
                }
            }
            for question in questions {
                // Whoever asked may have given up.
                let _ = question.send(self.snapshot());
            }
        }
    }

    /// Returns when there may be something to do. Changes are given a little time to gather.
    async fn wait(&mut self) {
        let retry_at = self.retry.map(|(at, _)| at);
        let audit_at = self.next_audit;
        let watch = &mut self.watch;
        let moved = async {
            match watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.inbox.arrived.notified() => {
                // Even the shortest sleep takes a millisecond.
                if !self.config.coalesce.is_zero() {
                    sleep(self.config.coalesce).await;
                }
            }
            () = sleep_until(retry_at.unwrap_or(audit_at)), if retry_at.is_some() => {}
            () = sleep_until(audit_at), if self.synced => self.audit(),
            result = moved => {
                if let Err(error) = result {
                    tracing::warn!(%error, "no longer told of address changes");
                    self.watch = None;
                }
                self.refresh_addresses();
            }
        }
    }

    fn take_in(&mut self, pending: Pending, questions: &mut Vec<tokio::sync::oneshot::Sender<Snapshot>>) {
        questions.extend(pending.snapshots);
        for (_, service) in pending.services.iter().filter(|(_, service)| service.is_some()) {
            service.iter().for_each(|service| self.store.set_service(service));
        }
        for ((namespace, name), _) in pending.services.iter().filter(|(_, service)| service.is_none()) {
            self.store.delete_service(ObjectName::new(namespace, name));
        }
        for ((namespace, name), slice) in &pending.slices {
            match slice {
                Some(slice) => self.store.set_slice(slice),
                None => self.store.delete_slice(&ObjectName::new(namespace, name)),
            }
        }
        if let Some(zone) = pending.zone {
            self.store.set_zone(zone.as_deref());
        }
        self.taken = pending.generation;
        if pending.synced && !self.synced {
            self.synced = true;
            self.refresh_addresses();
        }
        let dirty = self.store.take_dirty();
        for plane in &mut self.planes {
            plane.waiting.extend(dirty.iter().cloned());
        }
    }

    fn has_work(&self) -> bool {
        let reported = self.status.borrow().programmed_generation;
        self.taken != reported
            || self.planes.iter().any(|plane| plane.table.needs_read() || !plane.waiting.is_empty())
            || self.planes.iter().any(|plane| plane.table.is_touched())
    }

    /// False while a back-off lasts. A kernel that refuses would otherwise be read anew at each change.
    fn may_try(&self) -> bool {
        self.retry.is_none_or(|(at, _)| at <= Instant::now())
    }

    fn pass_and_report(&mut self) {
        let result = self.pass();
        self.delete_stale_flows();
        match &result {
            Ok(()) => self.retry = None,
            Err(error) => {
                let delay = self.retry.map_or(FIRST_RETRY, |(_, delay)| (delay * 2).min(LAST_RETRY));
                tracing::warn!(%error, retry_in = ?delay, "cannot program services");
                self.retry = Some((Instant::now() + delay, delay));
            }
        }
        let frontends = self.planes.iter().filter_map(|plane| plane.table.have()).map(|p| p.frontends.len()).sum();
        let services = self.store.services();
        self.status.send_modify(|status| {
            status.counters.passes += 1;
            status.counters.failed_passes += u64::from(result.is_err());
            status.counters.services = services;
            status.counters.frontends = frontends;
            status.last_error = result.as_ref().err().map(ToString::to_string);
            if result.is_ok() {
                status.ready = true;
                status.programmed_generation = self.taken;
            }
        });
    }

    /// Brings every family's table to what is desired. A family that fails does not hold up the other.
    fn pass(&mut self) -> Result<(), KernelError> {
        let mut outcome = Ok(());
        for index in 0..self.planes.len() {
            if let Err(error) = self.pass_family(index) {
                // What the kernel holds now is not known: the next pass reads it.
                self.planes[index].table.forget();
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }

    fn pass_family(&mut self, index: usize) -> Result<(), KernelError> {
        let loaded = self.read_if_needed(index)?;
        self.compile_waiting(index);
        self.create_if_needed(index, loaded)?;
        let transactions = self.planes[index].table.plan();
        for transaction in &transactions {
            self.commit(index, transaction)?;
        }
        self.planes[index].table.committed();
        Ok(())
    }

    /// What was found, when it had to be read.
    fn read_if_needed(&mut self, index: usize) -> Result<Option<Loaded>, KernelError> {
        let plane = &mut self.planes[index];
        if !plane.table.needs_read() {
            return Ok(None);
        }
        let loaded = self.kernel.read(plane.table.options())?;
        plane.handle = self.kernel.table_handle(plane.table.options().family)?;
        self.last_read = Instant::now();
        self.status.send_modify(|status| status.counters.kernel_reads += 1);
        plane.waiting.extend(self.store.names().cloned());
        Ok(match loaded {
            Loaded::Ours(program) => {
                plane.table.adopt(program);
                None
            }
            other => Some(other),
        })
    }

    fn compile_waiting(&mut self, index: usize) {
        let plane = &mut self.planes[index];
        let family = plane.table.options().family;
        for name in std::mem::take(&mut plane.waiting) {
            let resolved = self.store.resolve(&name, family);
            let after = resolved.udp.clone();
            let fragment = compile(resolved, |key| plane.table.loaded(key));
            let before = plane.table.set(&name, fragment);
            plane.stale.note(&before.udp, &after);
        }
    }

    fn create_if_needed(&mut self, index: usize, loaded: Option<Loaded>) -> Result<(), KernelError> {
        let Some(loaded) = loaded else { return Ok(()) };
        if loaded == Loaded::Foreign {
            tracing::info!(table = %self.config.table, "replacing rules that somebody else wrote");
        }
        let ops = self.planes[index].table.plan_creation(&loaded);
        self.commit(index, &ops)?;
        let plane = &mut self.planes[index];
        plane.table.created(&loaded);
        plane.handle = self.kernel.table_handle(plane.table.options().family)?;
        Ok(())
    }

    fn commit(&mut self, index: usize, ops: &[crate::backend::nft::ir::Op]) -> Result<(), KernelError> {
        let family = self.planes[index].table.options().family;
        self.kernel.commit(family, ops)?;
        self.generation = self.generation.wrapping_add(1);
        self.status.send_modify(|status| {
            status.counters.kernel_transactions += 1;
            status.counters.kernel_writes += ops.len() as u64;
        });
        Ok(())
    }

    fn delete_stale_flows(&mut self) {
        for plane in self.planes.iter_mut().filter(|p| !p.stale.is_empty() && !p.table.needs_read()) {
            let stale = std::mem::take(&mut plane.stale);
            if let Err(error) = self.conntrack.delete(plane.table.options().family, stale) {
                tracing::warn!(%error, "cannot start the thread that deletes stale flows");
            }
        }
    }

    /// Looks whether somebody else changed our tables.
    fn audit(&mut self) {
        self.next_audit = Instant::now() + self.config.audit;
        let now = match self.kernel.generation() {
            Ok(generation) => generation,
            Err(error) => {
                tracing::warn!(%error, "cannot ask for the generation of the kernel's rules");
                return;
            }
        };
        if now == self.generation {
            return;
        }
        let deep = self.last_read.elapsed() >= DEEP_AUDIT;
        for plane in &mut self.planes {
            let handle = self.kernel.table_handle(plane.table.options().family).ok().flatten();
            let replaced = handle != plane.handle;
            if replaced {
                tracing::warn!(family = %plane.table.options().family, "somebody replaced or deleted our table");
                self.status.send_modify(|status| status.counters.foreign_changes += 1);
            }
            if replaced || deep {
                plane.table.forget();
            }
        }
        // A change within a table that is still there is found by the next deep look.
        if deep || self.planes.iter().all(|plane| plane.table.needs_read()) {
            self.generation = now;
        }
    }

    fn watch_addresses(&mut self) {
        if !matches!(self.config.node_port_addresses, NodePortAddresses::Cidrs(_)) {
            return;
        }
        match addresses::Watch::open() {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => tracing::warn!(%error, "changes of this node's addresses go unnoticed"),
        }
    }

    fn refresh_addresses(&mut self) {
        let ips: Vec<IpAddr> = match &self.config.node_port_addresses {
            NodePortAddresses::All => Vec::new(),
            NodePortAddresses::Primary => self.config.node_ips.clone(),
            NodePortAddresses::Cidrs(cidrs) => match addresses::all() {
                Ok(all) => all.into_iter().filter(|ip| cidrs.iter().any(|cidr| cidr.contains(*ip))).collect(),
                Err(error) => {
                    tracing::warn!(%error, "cannot read this node's addresses");
                    return;
                }
            },
        };
        for plane in &mut self.planes {
            let options = plane.table.options();
            let ours = |ip: &&IpAddr| Family::of(**ip) == options.family && !ip.is_loopback();
            let wanted = if options.node_ports_everywhere { Vec::new() } else { ips.iter().filter(ours).copied().collect() };
            plane.table.set_node_port_ips(wanted);
        }
    }

    fn delete_tables(&mut self) {
        for family in self.config.families.clone() {
            if let Err(error) = self.kernel.delete_table(family) {
                tracing::warn!(%error, "cannot delete our rules");
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let tables = self.planes.iter().map(|plane| &plane.table);
        Snapshot { status: self.status.borrow().clone(), services: tables.flat_map(view::services).collect() }
    }
}

fn options(config: &Config, family: Family) -> Options {
    let of_family = |ip: &IpAddr| Family::of(*ip) == family;
    Options {
        family,
        detect_local: config.detect_local.clone(),
        masquerade_all: config.masquerade_all,
        masquerade_mark: 1 << (config.masquerade_bit & 31),
        node_ports_everywhere: match &config.node_port_addresses {
            NodePortAddresses::All => true,
            NodePortAddresses::Primary => !config.node_ips.iter().any(of_family),
            NodePortAddresses::Cidrs(cidrs) => {
                let mut ours = cidrs.iter().filter(|cidr| cidr.family() == family).peekable();
                ours.peek().is_none() || ours.any(|cidr| cidr.prefix == 0)
            }
        },
    }
}
