//! One family's rules: what is desired, what the kernel holds, and what differs.
//!
//! Owns the fragments of all services, and what was applied of them. Never talks to the kernel: it is told what was
//! read, committed and refused. Tests: `tests`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::compile::{Fragment, compile, shared};
use super::diff::{self, Holding, MANY_DELETIONS, NAT_SERVICES};
use super::ir::{Op, Place, Rule, Section, Table, Write};
use super::names::Chain;
use super::render::{Input, render};
use super::schema::{JUMPS, Jump, Options, to_node_ports};
use crate::backend::is_critical;
use crate::model::ObjectName;
use crate::resolve::Resolved;

/// Above so many endpoints a cluster is large: kube-proxy leaves comments out then.
const LARGE: usize = 1000;

/// Writes that belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    /// `None`: of no service alone.
    pub service: Option<ObjectName>,
    pub writes: Vec<Write>,
}

/// What brings the kernel to what is desired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub pieces: Vec<Piece>,
    /// Services that are as desired after it, with those that need no write.
    services: Vec<ObjectName>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub fn input(&self) -> Input {
        let pieces: Vec<&[Write]> = self.pieces.iter().map(|piece| &piece.writes[..]).collect();
        render(&pieces)
    }

    /// Whose a line of the input is: `Some(None)` is nobody's alone.
    pub fn piece_of(&self, line: usize) -> Option<Option<&ObjectName>> {
        let piece = self.input().piece_of(line)?;
        Some(self.pieces.get(piece)?.service.as_ref())
    }

    /// Services for which there is something to write.
    pub fn services_written(&self) -> Vec<ObjectName> {
        self.pieces.iter().filter_map(|piece| piece.service.clone()).collect()
    }

    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.pieces.iter().flat_map(|piece| &piece.writes)
    }
}

#[derive(Debug)]
pub struct Program {
    options: Options,
    want: HashMap<ObjectName, Arc<Fragment>>,
    /// What the kernel holds of each service, where we know.
    applied: HashMap<ObjectName, Arc<Fragment>>,
    /// Endpoints of all services.
    endpoints: usize,
    /// Frontends that the kernel holds.
    frontends: usize,
    /// `None` until the kernel was read.
    have: Option<Holding>,
    /// The kernel was read, and all that is desired not compared with it yet.
    adopting: bool,
    touched: BTreeSet<ObjectName>,
    /// The addresses of node ports changed.
    touched_addresses: bool,
    /// Services whose rules the kernel refused. They stay as they are.
    rejected: BTreeSet<ObjectName>,
}

impl Program {
    pub fn new(options: Options) -> Program {
        Program {
            options,
            want: HashMap::new(),
            applied: HashMap::new(),
            endpoints: 0,
            frontends: 0,
            have: None,
            adopting: false,
            touched: BTreeSet::new(),
            touched_addresses: false,
            rejected: BTreeSet::new(),
        }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn needs_read(&self) -> bool {
        self.have.is_none()
    }

    pub fn is_touched(&self) -> bool {
        self.adopting || self.touched_addresses || self.touched.iter().any(|name| !self.rejected.contains(name))
    }

    /// Rules in our chains of tables filter and nat, where the kernel was read.
    pub fn rules(&self) -> Option<[usize; 2]> {
        self.have.as_ref().map(|have| [Table::Filter, Table::Nat].map(|table| have.rule_count(table)))
    }

    /// Frontends that the kernel holds.
    pub fn frontends(&self) -> usize {
        self.frontends
    }

    pub fn applied(&self) -> impl Iterator<Item = (&ObjectName, &Arc<Fragment>)> {
        self.applied.iter()
    }

    pub fn set(&mut self, name: &ObjectName, resolved: &Resolved) {
        let fragment = Fragment::of(resolved);
        if self.want.get(name).map_or(&Fragment::default(), |held| held) == &fragment {
            return;
        }
        self.rejected.remove(name);
        self.touched.insert(name.clone());
        self.endpoints += fragment.endpoints();
        let before =
            if fragment == Fragment::default() { self.want.remove(name) } else { self.want.insert(name.clone(), Arc::new(fragment)) };
        self.endpoints -= before.map_or(0, |before| before.endpoints());
    }

    pub fn set_node_port_ips(&mut self, mut ips: Vec<IpAddr>) {
        ips.sort_unstable();
        ips.dedup();
        if self.options.node_port_ips != ips {
            self.options.node_port_ips = ips;
            self.touched_addresses = true;
        }
    }

    /// Whether all is to be compared with what was read; then it may also be said anew what can be counted.
    pub fn is_adopting(&self) -> bool {
        self.adopting
    }

    /// Whether there are accounting objects to count in. To be told before a plan that compares everything.
    pub fn set_accounting(&mut self, accounting: bool) {
        self.options.accounting = accounting;
    }

    /// Whether this is what we think that the kernel holds.
    pub fn holds(&self, have: &Holding) -> bool {
        self.have.as_ref() == Some(have)
    }

    pub fn forget(&mut self) {
        self.have = None;
    }

    /// Takes what was read from the kernel as the state to start from.
    pub fn adopt(&mut self, have: Holding) {
        self.have = Some(have);
        self.adopting = true;
        // Those that were refused are as they were.
        self.applied.retain(|name, _| self.rejected.contains(name));
        self.frontends = self.applied.values().map(|fragment| frontends(fragment)).sum();
        self.touched.extend(self.want.keys().cloned());
    }

    /// Leaves a service as the kernel has it, until it changes or is to be tried again.
    pub fn reject(&mut self, name: &ObjectName) {
        self.rejected.insert(name.clone());
    }

    pub fn rejected(&self) -> &BTreeSet<ObjectName> {
        &self.rejected
    }

    pub fn try_rejected_again(&mut self) {
        self.touched.append(&mut self.rejected);
    }

    /// Jumps that are missing, in the order in which they are to be put at the heads of their chains.
    pub fn missing_jumps(&self) -> Vec<Jump> {
        let Some(have) = &self.have else { return Vec::new() };
        let missing = |jump: &Jump| !have.rules((jump.table, Chain::BuiltIn(jump.from))).contains(&jump.rule());
        JUMPS.into_iter().filter(missing).collect()
    }

    /// To be told of a jump that was made.
    pub fn jump_made(&mut self, jump: &Jump) {
        if let Some(have) = &mut self.have {
            have.insert((jump.table, Chain::BuiltIn(jump.from)), jump.rule());
        }
    }

    /// Services that wait, the most important first.
    pub fn waiting(&self) -> Vec<ObjectName> {
        let mut names: Vec<ObjectName> = self.touched.iter().filter(|name| !self.rejected.contains(*name)).cloned().collect();
        names.sort_by_key(|name| !is_critical(name));
        names
    }

    /// What brings the kernel to what is desired of these services, and of all that is no service's.
    pub fn plan(&self, services: &[ObjectName]) -> Plan {
        let Some(have) = &self.have else { return Plan::default() };
        let large = self.endpoints > LARGE;
        let mut pieces = Vec::new();
        for name in services {
            let before = self.applied.get(name).map(|fragment| compile(name, fragment, &self.options, large));
            let nothing = Arc::default();
            let after = compile(name, self.want.get(name).unwrap_or(&nothing), &self.options, large);
            let writes = diff::service(have, before.as_ref(), &after);
            pieces.push(Piece { service: Some(name.clone()), writes });
        }
        // What is nobody's is cleared away with the last of those that are somebody's.
        let planned: HashSet<&ObjectName> = services.iter().collect();
        let complete = self.touched.iter().all(|name| self.rejected.contains(name) || planned.contains(name));
        let anew = self.to_write_anew(have, &pieces, complete);
        let mut common = Vec::new();
        if self.adopting {
            common.extend(diff::fixed(have, &self.options));
        }
        if self.adopting && complete {
            common.extend(diff::sweep(have, &self.wanted_chains()));
        }
        let last = to_node_ports(&self.options);
        if (self.adopting || self.touched_addresses) && !anew.contains(&NAT_SERVICES) {
            common.extend(diff::last(have, &last));
        }
        if !anew.is_empty() {
            for piece in &mut pieces {
                // In a filter chain, what comes does so before the chain is written anew: nothing may pass meanwhile.
                let kept = |write: &Write| write.section == Section::FilterFirst && !matches!(write.op, Op::Delete(..));
                piece.writes.retain(|write| !anew.contains(&write.place()) || kept(write));
            }
            let rules = self.all_shared(services);
            for place in &anew {
                let of_place = rules.get(place).map_or(&[][..], Vec::as_slice);
                common.extend(diff::rewrite(*place, of_place.iter(), &last));
            }
        }
        pieces.insert(0, Piece { service: None, writes: common });
        pieces.retain(|piece| !piece.writes.is_empty());
        Plan { pieces, services: services.into() }
    }

    /// Chains of all services that are to be written as a whole.
    fn to_write_anew(&self, have: &Holding, pieces: &[Piece], complete: bool) -> BTreeSet<Place> {
        let mut deletions: BTreeMap<Place, usize> = BTreeMap::new();
        for write in pieces.iter().flat_map(|piece| &piece.writes) {
            if let Op::Delete(..) = write.op {
                *deletions.entry(write.place()).or_default() += 1;
            }
        }
        let mut anew: BTreeSet<Place> =
            deletions.into_iter().filter(|(_, count)| *count > MANY_DELETIONS).map(|(place, _)| place).collect();
        if self.adopting && complete {
            let counts = |rules: &Vec<Rule>| {
                let mut bag: HashMap<u64, u32> = HashMap::new();
                rules.iter().for_each(|rule| *bag.entry(rule.fingerprint()).or_default() += 1);
                bag
            };
            let everything: Vec<ObjectName> = self.want.keys().filter(|name| !self.rejected.contains(*name)).cloned().collect();
            let wanted = self.all_shared(&everything).iter().map(|(place, rules)| (*place, counts(rules))).collect();
            anew.extend(diff::untidy(have, &wanted));
        }
        anew
    }

    /// The rules of all services in the chains of all: as desired of those that are being written, of others as applied.
    fn all_shared(&self, services: &[ObjectName]) -> HashMap<Place, Vec<Rule>> {
        let written: HashSet<&ObjectName> = services.iter().collect();
        let others = self.applied.iter().filter(|(name, _)| !written.contains(name));
        let mut all: Vec<(&ObjectName, &Arc<Fragment>)> =
            services.iter().filter_map(|name| self.want.get_key_value(name)).chain(others).collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        let mut rules: HashMap<Place, Vec<Rule>> = HashMap::new();
        for (name, fragment) in all {
            for (place, rule) in shared(name, fragment, &self.options) {
                rules.entry(place).or_default().push(rule);
            }
        }
        rules
    }

    fn wanted_chains(&self) -> HashSet<Chain> {
        let held = self.want.iter().chain(&self.applied);
        let compiled = held.map(|(name, fragment)| compile(name, fragment, &self.options, true));
        compiled.flat_map(|compiled| compiled.chains.into_keys()).collect()
    }

    /// To be told once a plan is committed.
    pub fn committed(&mut self, plan: &Plan) {
        let Some(have) = &mut self.have else { return };
        have.written(plan.writes());
        for name in &plan.services {
            self.touched.remove(name);
            let after = self.want.get(name).cloned();
            self.frontends += after.as_deref().map_or(0, frontends);
            let before = match after {
                Some(after) => self.applied.insert(name.clone(), after),
                None => self.applied.remove(name),
            };
            self.frontends -= before.as_deref().map_or(0, frontends);
        }
        self.adopting &= self.touched.iter().any(|name| !self.rejected.contains(name));
        self.touched_addresses = false;
    }
}

fn frontends(fragment: &Fragment) -> usize {
    fragment.ports.iter().map(|port| port.frontends.len()).sum()
}
