//! One family's iptables rules: what is desired, and the commands that bring the kernel to it.
//!
//! Owns the order of reading, writing and making jumps, and what is done when iptables refuses some service's rules:
//! the others' are written all the same. Decides nothing about rules. Tests: the namespace tests.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::ir::{Place, Table};
use super::kernel::{IptablesError, Kernel};
use super::names::{Chain, Fixed};
use super::program::{Plan, Program};
use super::render::render;
use super::schema::{JUMPS, Jump, Options, is_shared_with_ipvs, places};
use super::variant::{Commands, Variant};
use super::watch::{Look, Watch};
use super::{accounting, diff, view};
use crate::backend::{BackendError, Found, NodeAddresses, Plane, Written, ipvs};
use crate::config::{Config, IptablesConfig};
use crate::events::Event;
use crate::metrics::{Counts, Rules};
use crate::model::{Family, ObjectName};
use crate::resolve::Resolved;
use crate::snapshot::ServiceSnapshot;

/// Canaries are looked at so often even when nothing seems to have changed; and when others change iptables all the
/// time, our rules are read as a whole no more often than this.
const DEEP_AUDIT: Duration = Duration::from_secs(30);
/// When a service's rules were refused, they are tried again after this.
const REJECTED_RETRY: Duration = Duration::from_secs(30);
/// So many services refused at once, and the cause is no service's.
const MOST_REJECTED: usize = 8;

/// Services that the nft variant is fed at once.
const NFT_PORTION: usize = 500;

const ROUTE_LOCALNET: &str = "/proc/sys/net/ipv4/conf/all/route_localnet";
const BE_LIBERAL: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";

#[derive(Debug)]
pub struct IptablesPlane {
    program: Program,
    kernel: Kernel,
    watch: Option<Watch>,
    seen: Option<Look>,
    next_deep: Option<Instant>,
    retry_rejected: Option<Instant>,
    events: Vec<Event>,
    /// The kernel was told to route packets for 127.0.0.1.
    localhost_open: bool,
    /// Whether iptables and the kernel have what counts packets by name; asked once.
    can_count: Option<bool>,
    /// Since it was last asked. The rules are asked for anew.
    counts: Counts,
    /// Lines of rules fed in this pass, in tables filter and nat.
    fed: [usize; 2],
}

impl IptablesPlane {
    pub fn open(config: &Config, own: &IptablesConfig, family: Family) -> Result<IptablesPlane, IptablesError> {
        Ok(IptablesPlane::with(config, own, Kernel::open(family)?))
    }

    /// The variant is known.
    pub fn with(config: &Config, own: &IptablesConfig, kernel: Kernel) -> IptablesPlane {
        let Commands { variant, family, .. } = kernel.commands();
        let watch =
            Watch::open(variant, family).inspect_err(|error| tracing::warn!(%error, %family, "cannot tell when iptables changes")).ok();
        IptablesPlane {
            program: Program::new(Options::of(config, own, family, is_liberal())),
            kernel,
            watch,
            seen: None,
            next_deep: None,
            retry_rejected: None,
            events: Vec::new(),
            localhost_open: false,
            can_count: None,
            counts: Counts::default(),
            fed: [0; 2],
        }
    }

    fn look(&mut self) -> Option<Look> {
        self.watch.as_mut().and_then(|watch| watch.look().ok())
    }

    /// Writes what is desired of these services; when iptables refuses, finds out whose fault it is.
    fn write(&mut self, services: Vec<ObjectName>, written: &mut Written) -> Result<(), IptablesError> {
        // The last is written first.
        let mut stack = self.portions(services);
        loop {
            let Some(mut services) = stack.pop() else {
                // After a refusal everything was read and waits to be compared.
                let waiting = self.program.waiting();
                if waiting.is_empty() {
                    return Ok(());
                }
                stack = self.portions(waiting);
                continue;
            };
            services.retain(|name| !self.program.rejected().contains(name));
            let plan = self.program.plan(&services);
            let Err(error) = self.restore(&plan, written) else {
                self.program.committed(&plan);
                continue;
            };
            let IptablesError::Refused { line, .. } = &error else { return Err(error) };
            let culprit = line.and_then(|line| plan.piece_of(line));
            let suspects = plan.services_written();
            match (culprit, &suspects[..]) {
                (Some(Some(service)), _) | (None, [service]) => {
                    self.reject(service.clone(), &error)?;
                    stack.push(services);
                }
                (None, [_, _, ..]) => {
                    let middle = suspects.len() / 2;
                    let first: BTreeSet<&ObjectName> = suspects[..middle].iter().collect();
                    let (before, after): (Vec<_>, Vec<_>) = services.into_iter().partition(|name| first.contains(name));
                    stack.extend([after, before]);
                }
                _ => return Err(error),
            }
            // Sections before the one that was refused are in force.
            let have = self.kernel.read()?;
            self.program.adopt(have);
        }
    }

    /// What is written at once, the first last. nft's restore takes time by the square of what it is fed: 10,000 services
    /// 62 s as a whole, and 4.4 s so (legacy, where each costs as much as the table is large, 0.7 s as a whole).
    fn portions(&self, services: Vec<ObjectName>) -> Vec<Vec<ObjectName>> {
        let portion = match self.kernel.commands().variant {
            Variant::Legacy => usize::MAX,
            Variant::Nft => NFT_PORTION,
        };
        if services.len() <= portion {
            return vec![services];
        }
        services.chunks(portion).rev().map(<[ObjectName]>::to_vec).collect()
    }

    fn restore(&mut self, plan: &Plan, written: &mut Written) -> Result<(), IptablesError> {
        if plan.is_empty() {
            return Ok(());
        }
        let input = plan.input();
        self.kernel.restore(&input).inspect_err(|_| {
            self.counts.restore_failures += 1;
            self.counts.partial_restore_failures += u64::from(!self.program.is_adopting());
        })?;
        for (table, fed) in [Table::Filter, Table::Nat].into_iter().zip(&mut self.fed) {
            *fed += plan.writes().filter(|write| write.section.table() == table && write.op.is_about_a_rule()).count();
        }
        written.add(Written { transactions: 1, writes: plan.writes().count() as u64 });
        Ok(())
    }

    fn reject(&mut self, service: ObjectName, error: &IptablesError) -> Result<(), IptablesError> {
        tracing::error!(%service, %error, family = %self.family(), "iptables refuses this service's rules; it stays as it was");
        self.events.push(Event::warning(
            &service,
            "FailedToProgram",
            "Program",
            format!("iptables refuses the rules of {service}: {error}"),
        ));
        self.program.reject(&service);
        if self.program.rejected().len() > MOST_REJECTED {
            let said = format!("the rules of more than {MOST_REJECTED} services: {error}");
            return Err(IptablesError::Failed { command: self.kernel.commands().restore, said });
        }
        Ok(())
    }

    /// Chains are filled before anything jumps to them.
    fn make_jumps(&mut self, written: &mut Written) -> Result<(), IptablesError> {
        for jump in self.program.missing_jumps() {
            self.kernel.insert(&jump)?;
            self.program.jump_made(&jump);
            written.add(Written { transactions: 1, writes: 1 });
        }
        Ok(())
    }

    /// Node ports on 127.0.0.1 need it; the guard against strangers' packets is there before.
    fn open_localhost(&mut self) {
        if self.localhost_open || !self.program.options().localhost_node_ports {
            return;
        }
        self.localhost_open = true;
        let current = std::fs::read_to_string(ROUTE_LOCALNET).unwrap_or_default();
        if current.trim() != "1"
            && let Err(error) = std::fs::write(ROUTE_LOCALNET, "1")
        {
            tracing::warn!(%error, "cannot set net.ipv4.conf.all.route_localnet: node ports will not answer on 127.0.0.1");
        }
    }

    /// Makes what the rules count in. Where that cannot be, they do without, as kube-proxy's do.
    fn prepare_accounting(&mut self) {
        let family = self.family();
        if self.can_count.is_none() {
            let able = self.kernel.can_count();
            let told = able.inspect_err(|error| tracing::debug!(%error, %family, "cannot tell whether iptables can count by name"));
            self.can_count = told.ok();
        }
        let able = self.can_count.unwrap_or(false);
        let ready = able && accounting::ensure().inspect_err(|error| tracing::debug!(%error, %family, "packets are not counted")).is_ok();
        self.program.set_accounting(ready);
    }

    fn everything(&mut self, now: Instant) -> Result<Written, IptablesError> {
        let mut written = Written::default();
        if self.retry_rejected.is_some_and(|at| at <= now) {
            self.retry_rejected = None;
            self.program.try_rejected_again();
        }
        if self.program.is_adopting() {
            self.prepare_accounting();
        }
        let waiting = self.program.waiting();
        self.write(waiting, &mut written)?;
        self.make_jumps(&mut written)?;
        self.open_localhost();
        self.retry_rejected = (!self.program.rejected().is_empty()).then(|| self.retry_rejected.unwrap_or(now + REJECTED_RETRY));
        if written.transactions > 0 || self.seen.is_none() {
            self.seen = self.look();
        }
        Ok(written)
    }

    /// Deletes what is ours in one variant. Chains that both have stay when they are the ipvs backend's by now.
    fn delete_from(kernel: Kernel) -> Result<(), IptablesError> {
        let have = kernel.read()?;
        let keep_shared = ipvs::xtables::has_taken_over(kernel.commands());
        let kept = |table: Table, to: Fixed| keep_shared && is_shared_with_ipvs(table, to);
        // The ipvs backend's jumps to this one have another comment.
        let stays = |jump: &Jump| kept(jump.table, jump.to) && jump.to != Fixed::ProxyFirewall;
        let ours = |jump: &&Jump| jump.is_ours_alone() && diff::has_jump(&have, jump) && !stays(jump);
        for jump in JUMPS.iter().filter(ours) {
            kernel.delete(jump)?;
        }
        let goes = |place: &Place| !matches!(place, (table, Chain::Fixed(fixed)) if kept(*table, *fixed));
        let places: Vec<Place> = places().into_iter().filter(goes).collect();
        let writes = diff::delete(&have, &places);
        if !writes.is_empty() {
            kernel.restore(&render(&[&writes]))?;
        }
        accounting::remove();
        Ok(())
    }
}

/// Deletes our rules, in whichever variant they are, from the calling thread's network namespace. Every one is tried;
/// the first error is returned.
pub fn cleanup() -> Result<(), IptablesError> {
    let mut outcome = Ok(());
    for kernel in Family::ALL.into_iter().flat_map(Kernel::all) {
        outcome = outcome.and(IptablesPlane::delete_from(kernel));
    }
    outcome
}

impl Plane for IptablesPlane {
    fn family(&self) -> Family {
        self.program.options().family()
    }

    fn needs_read(&self) -> bool {
        self.program.needs_read()
    }

    fn forget(&mut self) {
        self.program.forget();
    }

    fn read(&mut self) -> Result<Found, BackendError> {
        self.seen = self.look();
        let have = self.kernel.read()?;
        let found = if have.forwards() { Found::Rules } else { Found::Nothing };
        self.program.adopt(have);
        Ok(found)
    }

    fn set(&mut self, name: &ObjectName, resolved: Resolved) {
        self.program.set(name, &resolved);
    }

    fn set_node_addresses(&mut self, addresses: NodeAddresses) {
        let everywhere = self.program.options().common.node_ports_everywhere;
        self.program.set_node_port_ips(if everywhere { Vec::new() } else { addresses.node_ports });
    }

    fn is_touched(&self) -> bool {
        self.program.is_touched()
    }

    fn apply(&mut self, now: Instant) -> Result<Written, BackendError> {
        Ok(self.everything(now)?)
    }

    fn audit(&mut self, now: Instant) -> Result<bool, BackendError> {
        let look = self.look();
        let changed = look != self.seen;
        let due = self.next_deep.is_none_or(|at| at <= now);
        if !changed && !due {
            return Ok(false);
        }
        if !self.kernel.canaries_live() {
            tracing::warn!(family = %self.family(), "somebody flushed iptables");
            return Ok(true);
        }
        if !due {
            return Ok(false);
        }
        self.next_deep = Some(now + DEEP_AUDIT);
        if !changed {
            return Ok(false);
        }
        self.seen = look;
        // Others' rules are no concern of ours.
        let have = self.kernel.read()?;
        Ok(!self.program.holds(&have))
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.retry_rejected
    }

    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn take_counts(&mut self) -> Counts {
        let rules = self.program.rules().map(|total| Rules { total, last: std::mem::take(&mut self.fed) });
        Counts { rules, ..std::mem::take(&mut self.counts) }
    }

    fn frontends(&self) -> usize {
        self.program.frontends()
    }

    fn services(&self) -> Vec<ServiceSnapshot> {
        let family = self.family();
        let mut services: Vec<ServiceSnapshot> = self.program.applied().map(|(name, held)| view::service(name, held, family)).collect();
        services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        services
    }

    fn delete(&mut self) -> Result<(), BackendError> {
        self.program.forget();
        Ok(IptablesPlane::delete_from(self.kernel)?)
    }
}

/// Whether the connection tracker takes packets outside the window.
pub fn is_liberal() -> bool {
    std::fs::read_to_string(BE_LIBERAL).is_ok_and(|text| text.trim() != "0")
}
