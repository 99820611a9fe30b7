//! One family's IPVS rules: what is desired, and the kernel that holds it.
//!
//! Owns the order of reading, changing and draining, and the looks at whether others changed something. Decides
//! nothing about rules. Tests: the tests on other kernels.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::compile::{Around, Balance, compile};
use super::diff::drains;
use super::drain::{Drain, LOOK};
use super::ir::{CLOSED, Image, Item, LINK, OPEN, Op, Server};
use super::kernel::{Kernel, KernelError, Unwanted, connections, has_ipvs, unload};
use super::render::describe;
use super::sets::Set;
use super::state::State;
use super::xtables::Xtables;
use super::{setup, view};
use crate::backend::{BackendError, Found, NodeAddresses, Options, Plane, Written};
use crate::config::{Config, IpvsConfig};
use crate::events::{Event, Regarding};
use crate::metrics::Counts;
use crate::model::{Family, ObjectName};
use crate::netlink::ipvs::Spread;
use crate::resolve::Resolved;
use crate::snapshot::ServiceSnapshot;

/// IPVS tells nobody of changes: in every so many audits all that is ours is looked at.
const DEEP_AUDIT: u32 = 30;

#[derive(Debug)]
pub struct IpvsPlane {
    state: State,
    kernel: Kernel,
    drain: Drain,
    config: IpvsConfig,
    /// Drains count from here.
    epoch: Instant,
    /// Settings are written before the first operation.
    prepared: bool,
    /// Entries that found no room in their set.
    waiting: Vec<(Set, Item)>,
    events: Vec<Event>,
    last_look: Option<Instant>,
    /// The virtual server whose destinations were compared last.
    looked_at: Option<Server>,
    /// Another plane has taken over.
    retiring: bool,
    /// The kernel was read, and nothing was applied since.
    fresh: bool,
    /// Between looks at all that is ours.
    look_every: Duration,
    /// Times since it was last asked that iptables-restore failed.
    restore_failures: u64,
}

impl IpvsPlane {
    /// Loads modules that are missing, and sees that IPVS has the scheduler.
    /// `audit` is the time between two audits.
    pub fn open(options: Options, config: &IpvsConfig, audit: Duration) -> Result<IpvsPlane, KernelError> {
        let balance = Balance::parse(&config.scheduler).ok_or_else(|| KernelError::NoScheduler { name: config.scheduler.clone() })?;
        let tried = setup::load_modules(balance.scheduler);
        let family = options.family;
        let mut kernel = Kernel::open(family, Xtables::find(family)?, tried)?;
        let in_use = kernel.servers()?.iter().any(|(_, spread)| spread.scheduler == balance.scheduler);
        if !in_use {
            let netmask = if family == Family::V4 { 32 } else { 128 };
            let spread = Spread { scheduler: balance.scheduler, flags: balance.flags, timeout: 0, netmask };
            kernel.probe(setup::probe_server(family), spread)?;
        }
        kernel.set_sizes()?;
        let mut plane = IpvsPlane::with(options, balance, config, kernel);
        plane.look_every = audit.saturating_mul(DEEP_AUDIT);
        Ok(plane)
    }

    fn with(options: Options, balance: Balance, config: &IpvsConfig, kernel: Kernel) -> IpvsPlane {
        IpvsPlane {
            state: State::new(options, balance, config.exclude_cidrs.clone()),
            kernel,
            drain: Drain::new(config.drain),
            config: config.clone(),
            epoch: Instant::now(),
            prepared: false,
            waiting: Vec::new(),
            events: Vec::new(),
            last_look: None,
            fresh: false,
            retiring: false,
            looked_at: None,
            look_every: Duration::ZERO,
            restore_failures: 0,
        }
    }

    fn since_epoch(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }

    fn prepare(&mut self) -> Result<u64, KernelError> {
        let mut written = 0;
        for (name, value) in setup::settings(self.config.strict_arp, setup::kernel_version()) {
            match setup::set(name, value) {
                Ok(changed) => written += u64::from(changed),
                Err(error) => tracing::error!(name, value, %error, "cannot make a setting that IPVS needs"),
            }
        }
        let seconds = |timeout: Duration| u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        let wanted = [self.config.tcp_timeout, self.config.tcp_fin_timeout, self.config.udp_timeout].map(seconds);
        if wanted != [0; 3] {
            written += u64::from(self.kernel.set_timeouts(wanted)?);
        }
        self.prepared = true;
        Ok(written)
    }

    /// Destinations that are idle, or whose time is up.
    fn drained(&mut self, now: Duration) -> Result<Vec<Op>, KernelError> {
        let mut ops = Vec::new();
        for server in self.drain.due(now) {
            let destinations = self.kernel.destinations(&server)?;
            let finished = self.drain.finished(&server, |address| connections(&destinations, address), now);
            ops.extend(finished.into_iter().map(|address| Op::DeleteDestination(server, address)));
        }
        Ok(ops)
    }

    fn carry_out(&mut self, ops: &[Op], now: Duration, written: &mut Written) -> Result<(), KernelError> {
        if ops.is_empty() {
            return Ok(());
        }
        let (state, drain) = (&mut self.state, &mut self.drain);
        let loaded = state.saved().clone();
        let mut done = 0;
        let outcome = self.kernel.apply(ops, &loaded, |op| {
            done += 1;
            state.done(op);
            follow(drain, op, now);
        });
        self.restore_failures += u64::from(matches!(outcome, Err(KernelError::Rules(_))));
        let unwanted = outcome?;
        written.add(Written { transactions: 1, writes: done });
        self.report(ops, &unwanted);
        Ok(())
    }

    /// Says what the kernel does not want, each once: it is not tried again until something about it changes.
    fn report(&mut self, ops: &[Op], unwanted: &[Unwanted]) {
        let mut full: BTreeMap<Set, u32> = BTreeMap::new();
        for one in unwanted.iter().filter(|one| !one.why.is_empty()) {
            let op = &ops[one.index];
            match op {
                Op::Add(item @ Item::Entry(set, _)) if one.full => {
                    *full.entry(*set).or_default() += 1;
                    self.waiting.push((*set, *item));
                }
                _ => {
                    let what = describe(op, self.state.family());
                    tracing::error!(what, why = one.why, "the kernel does not take");
                    self.tell("FailedToProgram", format!("the kernel does not take {what}: {}", one.why));
                }
            }
        }
        for (set, entries) in full {
            let name = set.name(self.state.family());
            tracing::error!(
                set = name,
                entries,
                "the set is full; services left out of it are not masqueraded or filtered as they should be"
            );
            let message = format!(
                "set {name} is full: {entries} entries are left out, whose services are not masqueraded or filtered as they should be"
            );
            self.tell("IPSetFull", message);
        }
    }

    /// Sets and virtual servers do not say whose they are: the node is told of.
    fn tell(&mut self, reason: &'static str, message: String) {
        self.events.push(Event { warning: true, regarding: Regarding::Node, reason, action: "Program", message });
    }

    /// A set that lost entries may have room for those that wait.
    fn make_room(&mut self, ops: &[Op]) {
        let shrunk = |set: &Set| ops.iter().any(|op| matches!(op, Op::Delete(Item::Entry(of, _)) if of == set));
        let (again, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|(set, _)| shrunk(set));
        self.waiting = waiting;
        let again: Vec<(Set, Item)> = again;
        again.into_iter().for_each(|(_, item)| self.state.retry(item));
    }

    /// Destinations that were found on their way out go on with it.
    fn drain_found(&mut self, now: Duration) {
        let Some(have) = self.state.have() else { return };
        let mut leaving: Vec<(Server, SocketAddr)> = Vec::new();
        for (server, held) in have.servers.iter().filter(|(server, _)| drains(server)) {
            let Some(wanted) = self.state.wanted(server) else { continue };
            let closed = held.destinations.iter().filter(|(_, weight)| **weight == CLOSED).map(|(address, _)| *address);
            leaving.extend(closed.filter(|address| wanted.endpoints.binary_search(address).is_err()).map(|address| (*server, address)));
        }
        leaving.into_iter().for_each(|(server, address)| self.drain.begin(server, address, now));
    }

    fn delete_servers(&mut self) -> Result<(), KernelError> {
        if self.state.have().is_none() {
            let read = self.kernel.read()?;
            self.state.adopt(read);
        }
        let Some(have) = self.state.have() else { return Ok(()) };
        let servers: Vec<Op> = have.servers.keys().map(|server| Op::DeleteServer(*server)).collect();
        let addresses: Vec<Op> = have.addresses.iter().map(|ip| Op::Delete(Item::Address(*ip))).collect();
        let loaded = self.state.saved().clone();
        self.kernel.apply(&servers, &loaded, |_| {})?;
        self.kernel.apply(&addresses, &loaded, |_| {})?;
        Ok(())
    }

    /// Begins to retire: what new connections would need goes, and every destination is closed. Connections that there
    /// are need nothing but their virtual server and its address.
    fn close(&mut self, now: Duration) -> Result<(), KernelError> {
        if self.state.have().is_none() {
            let read = self.kernel.read()?;
            self.state.adopt(read);
        }
        // They may be in the other variant's tables.
        Xtables::all(self.state.family()).iter().try_for_each(unload)?;
        self.kernel.destroy_sets()?;
        let Some(have) = self.state.have() else { return Ok(()) };
        let mut ops = Vec::new();
        for (server, held) in &have.servers {
            if !drains(server) {
                ops.push(Op::DeleteServer(*server));
            }
            let open = held.destinations.iter().filter(|(_, weight)| drains(server) && **weight != CLOSED);
            ops.extend(open.map(|(address, _)| Op::EditDestination(*server, *address, CLOSED)));
        }
        self.carry_out(&ops, now, &mut Written::default())?;
        let have = self.state.have().map(|have| have.servers.clone()).unwrap_or_default();
        for (server, held) in &have {
            held.destinations.keys().for_each(|address| self.drain.begin(*server, *address, now));
        }
        self.retiring = true;
        Ok(())
    }

    /// Virtual servers without destinations, and addresses without virtual servers.
    fn idle(&self) -> Vec<Op> {
        let Some(have) = self.state.have() else { return Vec::new() };
        let (busy, idle): (Vec<_>, Vec<_>) = have.servers.iter().partition(|(_, held)| !held.destinations.is_empty());
        let needed = |ip: &std::net::IpAddr| busy.iter().any(|(server, _)| server.ip == *ip);
        let servers = idle.iter().map(|(server, _)| Op::DeleteServer(**server));
        let addresses = have.addresses.iter().filter(|ip| !needed(ip)).map(|ip| Op::Delete(Item::Address(*ip)));
        servers.chain(addresses).collect()
    }

    /// Deletes all that is ours, with the rules in each of these commands' tables.
    fn delete_all(&mut self, rules: &[Xtables]) -> Result<(), KernelError> {
        self.delete_servers()?;
        rules.iter().try_for_each(unload)?;
        self.state.forget();
        // Each is tried whatever becomes of the other.
        let sets = self.kernel.destroy_sets();
        self.kernel.delete_link().and(sets)
    }
}

/// Whether everything of ours is as we left it, as far as that can be seen without reading destinations.
fn is_intact(kernel: &mut Kernel, have: &Image) -> Result<bool, KernelError> {
    let on_link = kernel.link()?;
    let addresses = kernel.addresses()?;
    let held = addresses.iter().filter(|address| Some(address.link) == on_link);
    if on_link.is_some() != have.link || held.count() < have.addresses.len() {
        return Ok(false);
    }
    let sizes = kernel.set_sizes()?;
    let same = |(set, entries): (&Set, &std::collections::BTreeSet<_>)| match sizes.get(set) {
        // Older kernels do not count.
        Some(Some(count)) => *count as usize == entries.len(),
        Some(None) => true,
        None => false,
    };
    if !have.sets.iter().all(same) {
        return Ok(false);
    }
    let servers: BTreeMap<Server, Spread> = kernel.servers()?.into_iter().collect();
    if have.servers.iter().any(|(server, held)| servers.get(server) != Some(&held.spread)) {
        return Ok(false);
    }
    Ok(match &have.skeleton {
        Some(skeleton) => kernel.saved()?.is(skeleton),
        None => true,
    })
}

/// Whether some virtual servers, those after the ones of the last call, have their destinations. All have had their
/// turn when everything is looked at.
fn some_are_intact(kernel: &mut Kernel, have: &Image, looked_at: &mut Option<Server>) -> Result<bool, KernelError> {
    let after = looked_at.take().map_or(Bound::Unbounded, Bound::Excluded);
    let portion = have.servers.len().div_ceil(DEEP_AUDIT as usize);
    for (server, held) in have.servers.range((after, Bound::Unbounded)).take(portion) {
        *looked_at = Some(*server);
        if kernel.weights(server)? != held.destinations {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Keeps the books of what drains.
fn follow(drain: &mut Drain, op: &Op, now: Duration) {
    match op {
        Op::EditDestination(server, address, CLOSED) => drain.begin(*server, *address, now),
        Op::EditDestination(server, address, OPEN) | Op::AddDestination(server, address, _) => drain.end(server, address),
        Op::DeleteDestination(server, address) => drain.end(server, address),
        Op::DeleteServer(server) => drain.end_server(server),
        _ => {}
    }
}

impl Plane for IpvsPlane {
    fn family(&self) -> Family {
        self.state.family()
    }

    fn needs_read(&self) -> bool {
        self.state.have().is_none()
    }

    fn forget(&mut self) {
        self.state.forget();
        self.waiting.clear();
    }

    fn read(&mut self) -> Result<Found, BackendError> {
        self.forget();
        let read = self.kernel.read()?;
        let found = if read.image.servers.is_empty() && read.saved.is_empty() { Found::Nothing } else { Found::Rules };
        self.state.adopt(read);
        self.fresh = true;
        Ok(found)
    }

    fn set(&mut self, name: &ObjectName, resolved: Resolved) {
        let fragment = compile(&resolved, self.family(), self.state.balance);
        self.state.set(name, fragment);
    }

    fn set_node_addresses(&mut self, addresses: NodeAddresses) {
        let usable = |ip: &std::net::IpAddr| !matches!(ip, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local());
        self.state.set_around(Around {
            node_ports: addresses.node_ports.into_iter().filter(usable).collect(),
            elsewhere: addresses.links.into_iter().filter(|(link, _)| link != LINK).map(|(_, ip)| ip).collect(),
        });
    }

    fn wants_addresses(&self) -> bool {
        true
    }

    fn is_touched(&self) -> bool {
        self.state.is_touched()
    }

    fn apply(&mut self, now: Instant) -> Result<Written, BackendError> {
        let mut written = Written::default();
        let at = self.since_epoch(now);
        if !self.prepared {
            written.writes += self.prepare()?;
        }
        let ops = self.state.plan();
        self.carry_out(&ops, at, &mut written)?;
        self.state.tried();
        self.make_room(&ops);
        if std::mem::take(&mut self.fresh) {
            self.drain_found(at);
            self.last_look = Some(now);
        }
        let ops = self.drained(at)?;
        self.carry_out(&ops, at, &mut written)?;
        Ok(written)
    }

    fn audit(&mut self, now: Instant) -> Result<bool, BackendError> {
        let Some(have) = self.state.have() else { return Ok(false) };
        if self.last_look.is_some_and(|at| now.saturating_duration_since(at) < self.look_every) {
            let intact = self.kernel.link()?.is_some() == have.link && some_are_intact(&mut self.kernel, have, &mut self.looked_at)?;
            return Ok(!intact);
        }
        self.last_look = Some(now);
        Ok(!is_intact(&mut self.kernel, have)?)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.drain.next_look().map(|at| self.epoch + at)
    }

    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn take_counts(&mut self) -> Counts {
        Counts { restore_failures: std::mem::take(&mut self.restore_failures), ..Counts::default() }
    }

    fn frontends(&self) -> usize {
        self.state.have().map_or(0, |have| have.servers.len())
    }

    fn services(&self) -> Vec<ServiceSnapshot> {
        view::services(&self.state)
    }

    fn retire(&mut self, now: Instant) -> Result<bool, BackendError> {
        let at = self.since_epoch(now);
        let first = !self.retiring;
        if first {
            self.close(at)?;
        }
        // Idle ones are found at once, not a second later.
        let looked = if first { at + LOOK } else { at };
        let ops = self.drained(looked)?;
        self.carry_out(&ops, at, &mut Written::default())?;
        let ops = self.idle();
        self.carry_out(&ops, at, &mut Written::default())?;
        let gone = self.state.have().is_none_or(|have| have.servers.is_empty());
        if gone {
            self.kernel.delete_link()?;
        }
        Ok(gone)
    }

    fn delete(&mut self) -> Result<(), BackendError> {
        Ok(self.delete_all(&[self.kernel.rules()])?)
    }
}

/// Deletes what this backend has in the calling thread's network namespace, in both families and whichever iptables
/// its rules are in. Nothing is loaded for it, and nothing of others is touched.
pub fn cleanup() -> Result<(), KernelError> {
    // Without IPVS nothing of it can be there.
    if !has_ipvs()? {
        return Ok(());
    }
    let mut outcome = Ok(());
    for family in Family::ALL {
        outcome = outcome.and(cleanup_family(family));
    }
    outcome
}

/// What an earlier process left here, to be retired.
pub fn leavings() -> Result<Vec<IpvsPlane>, KernelError> {
    if !has_ipvs()? {
        return Ok(Vec::new());
    }
    Family::ALL.into_iter().map(leaving).collect()
}

fn leaving(family: Family) -> Result<IpvsPlane, KernelError> {
    let kernel = Kernel::open(family, Xtables::find(family)?, None)?;
    let balance = Balance::parse("").expect("empty is a scheduler");
    let options = Options::of(&Config::default(), family);
    Ok(IpvsPlane::with(options, balance, &IpvsConfig::default(), kernel))
}

fn cleanup_family(family: Family) -> Result<(), KernelError> {
    leaving(family)?.delete_all(&Xtables::all(family))
}
