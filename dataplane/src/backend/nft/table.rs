//! One family's table: what is desired, what the kernel holds, and what differs.
//!
//! Owns the fragments of all services. Never talks to the kernel: it is told what was read and what was committed.
//! Tests: `tests`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::compile::{Fragment, Held};
use super::diff::{Scope, create, diff, replace};
use super::ir::Op;
use super::names;
use super::program::{Class, Dispatch, FrontendRules, Program, STICKY_BITS, STICKY_IDS, Shared};
use super::schema::{self, KeyKind, Options, class_needs};
use super::sticky::Sticky;
use crate::backend::is_critical;
use crate::model::{Cidr, FrontendKey, ObjectName};

/// Seconds after which a chain that nobody needs goes. It costs each commit a little, and somebody may soon need it.
pub const IDLE: u64 = 60;

/// What was found in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    Nothing,
    /// A table of this name that is not as we write it.
    Foreign,
    Ours(Program),
}

#[derive(Debug)]
pub struct Table {
    options: Options,
    fragments: HashMap<ObjectName, Fragment>,
    /// Frontends that a service was given before the one that had them was told.
    moved: HashSet<FrontendKey>,
    references: HashMap<Shared, u32>,
    node_port_ips: Vec<IpAddr>,
    want: Program,
    /// `None` until the kernel was read.
    have: Option<Program>,
    /// With whether it is one of those that the cluster itself needs.
    touched: HashMap<FrontendKey, bool>,
    touched_shared: HashSet<Shared>,
    touched_sticky: BTreeSet<Arc<str>>,
    /// How many frontends and other chains need a class's chain.
    uses: HashMap<(KeyKind, Class), u32>,
    /// Chains that nobody needs, and since when, in seconds of the caller's clock.
    idle: BTreeMap<(KeyKind, Class), Option<u64>>,
}

impl Table {
    pub fn new(options: Options) -> Table {
        Table {
            options,
            fragments: HashMap::new(),
            moved: HashSet::new(),
            references: HashMap::new(),
            node_port_ips: Vec::new(),
            want: Program::default(),
            have: None,
            touched: HashMap::new(),
            touched_shared: HashSet::new(),
            touched_sticky: BTreeSet::new(),
            uses: HashMap::new(),
            idle: BTreeMap::new(),
        }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether the kernel must be read before anything can be planned.
    pub fn needs_read(&self) -> bool {
        self.have.is_none()
    }

    /// Whether something desired may differ from what the kernel holds.
    pub fn is_touched(&self) -> bool {
        let cidrs = self.have.as_ref().is_some_and(|have| have.service_cidrs != self.want.service_cidrs);
        !self.touched.is_empty() || !self.touched_shared.is_empty() || !self.touched_sticky.is_empty() || cidrs
    }

    /// What the kernel holds, as far as we know.
    pub fn have(&self) -> Option<&Program> {
        self.have.as_ref()
    }

    pub fn want(&self) -> &Program {
        &self.want
    }

    pub fn fragment(&self, name: &ObjectName) -> Option<&Fragment> {
        self.fragments.get(name)
    }

    pub fn fragments(&self) -> impl Iterator<Item = (&ObjectName, &Fragment)> {
        self.fragments.iter()
    }

    /// Ranges of cluster IPs.
    pub fn set_service_cidrs(&mut self, cidrs: &[Cidr]) {
        self.want.service_cidrs = cidrs.into();
    }

    /// Addresses of this node that answer on node ports, when not all do.
    pub fn set_node_port_ips(&mut self, ips: Vec<IpAddr>) {
        let before = std::mem::replace(&mut self.node_port_ips, ips);
        for ip in self.node_port_ips.clone() {
            self.refer(Shared::NodePortIp(ip));
        }
        for ip in before {
            self.release(Shared::NodePortIp(ip));
        }
    }

    /// Puts a service's fragment in the place of the one before; an empty fragment removes it. Returns the one before.
    pub fn set(&mut self, name: &ObjectName, fragment: Fragment) -> Fragment {
        let empty = fragment == Fragment::default();
        for shared in &fragment.shared {
            self.refer(*shared);
        }
        let had: HashSet<FrontendKey> = self.fragments.get(name).into_iter().flat_map(|f| &f.frontends).map(|(key, _)| *key).collect();
        for (key, rules) in &fragment.frontends {
            if !had.contains(key) && self.want.frontends.contains_key(key) {
                self.moved.insert(*key);
            }
            self.want_frontend(key, Some(rules.clone()), is_critical(name));
        }
        for (port, sticky) in &fragment.sticky {
            self.want_sticky(port, Some(sticky));
        }
        let kept_ports: Vec<Arc<str>> = fragment.sticky.iter().map(|(port, _)| port.clone()).collect();
        let kept: HashSet<FrontendKey> = fragment.frontends.iter().map(|(key, _)| *key).collect();
        let before = if empty { self.fragments.remove(name) } else { self.fragments.insert(name.clone(), fragment) };
        let before = before.unwrap_or_default();
        for (key, _) in before.frontends.iter().filter(|(key, _)| !kept.contains(key)) {
            if !self.moved.remove(key) {
                self.want_frontend(key, None, false);
            }
        }
        for shared in &before.shared {
            self.release(*shared);
        }
        for (port, _) in before.sticky.iter().filter(|(port, _)| !kept_ports.contains(port)) {
            self.want_sticky(port, None);
        }
        before
    }

    fn want_sticky(&mut self, port: &Arc<str>, sticky: Option<&Arc<Sticky>>) {
        if self.want.sticky.get(port) == sticky {
            return;
        }
        self.touched_sticky.insert(port.clone());
        match sticky {
            Some(sticky) => self.want.sticky.insert(port.clone(), sticky.clone()),
            None => self.want.sticky.remove(port),
        };
    }

    fn refer(&mut self, shared: Shared) {
        let count = self.references.entry(shared).or_default();
        *count += 1;
        if *count == 1 {
            self.want.shared.insert(shared);
            self.touched_shared.insert(shared);
        }
    }

    fn release(&mut self, shared: Shared) {
        let Some(count) = self.references.get_mut(&shared) else { return };
        *count -= 1;
        if *count == 0 {
            self.references.remove(&shared);
            self.want.shared.remove(&shared);
            self.touched_shared.insert(shared);
        }
    }

    fn want_frontend(&mut self, key: &FrontendKey, rules: Option<Arc<FrontendRules>>, critical: bool) {
        let unchanged = match (self.want.frontends.get(key), &rules) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after) || before == after,
            (None, None) => true,
            _ => false,
        };
        if unchanged {
            return;
        }
        self.touched.insert(*key, critical);
        let chains = |rules: &FrontendRules| {
            let class = rules.dispatch.and_then(Dispatch::class);
            let kind = KeyKind::of(key);
            class.into_iter().flat_map(move |class| [Some(class), class_needs(class)]).flatten().map(move |class| (kind, class))
        };
        for chain in rules.iter().flat_map(|rules| chains(rules)) {
            *self.uses.entry(chain).or_default() += 1;
            self.idle.remove(&chain);
            self.want.chains.insert(chain);
        }
        let before = match rules {
            Some(rules) => self.want.frontends.insert(*key, rules),
            None => self.want.frontends.remove(key),
        };
        for chain in before.iter().flat_map(|rules| chains(rules)) {
            let uses = self.uses.entry(chain).or_default();
            *uses = uses.saturating_sub(1);
            if *uses == 0 {
                self.uses.remove(&chain);
                self.idle.insert(chain, None);
            }
        }
    }

    /// Lets go of chains that nobody needed for a while; `now` is in seconds. The maps ceased to refer to them long
    /// before. Returns when to call this again.
    pub fn retire_chains(&mut self, now: u64) -> Option<u64> {
        for since in self.idle.values_mut() {
            since.get_or_insert(now);
        }
        let wants = &mut self.want;
        self.idle.retain(|chain, since| {
            let stays = since.is_none_or(|since| now < since + IDLE);
            if !stays {
                wants.chains.remove(chain);
            }
            stays
        });
        self.idle.values().flatten().min().map(|since| since + IDLE)
    }

    /// Forgets what the kernel holds: it must be read again.
    pub fn forget(&mut self) {
        self.have = None;
    }

    /// Takes what was read from the kernel as the state to start from. Fragments should be compiled anew after this,
    /// so that endpoints keep the slots they have in the kernel.
    pub fn adopt(&mut self, program: Program) {
        for chain in program.chains.iter().filter(|chain| !self.uses.contains_key(*chain)) {
            self.want.chains.insert(*chain);
            self.idle.entry(*chain).or_default();
        }
        for key in program.frontends.keys().chain(self.want.frontends.keys()) {
            self.touched.entry(*key).or_insert(false);
        }
        self.touched_shared.extend(program.shared.iter().chain(&self.want.shared).copied());
        self.touched_sticky.extend(program.sticky.keys().chain(self.want.sticky.keys()).cloned());
        self.have = Some(program);
    }

    /// Transactions that make a table where there is none of ours. After them the kernel holds what
    /// [`Table::created`] says.
    pub fn plan_creation(&self, loaded: &Loaded) -> Vec<Op> {
        let structure = schema::structure(&self.options);
        match loaded {
            Loaded::Nothing => create(false, &structure),
            // Somebody else's rules go, and ours come, in one instant.
            _ => replace(&self.options, true, &structure, &self.want),
        }
    }

    /// To be told once [`Table::plan_creation`] is committed.
    pub fn created(&mut self, loaded: &Loaded) {
        match loaded {
            Loaded::Nothing => self.adopt(Program::default()),
            _ => {
                self.have = Some(self.want.clone());
                self.touched.clear();
                self.touched_shared.clear();
                self.touched_sticky.clear();
            }
        }
    }

    /// Transactions that bring the kernel to what is desired, in order; none when it is there.
    pub fn plan(&self) -> Vec<Vec<Op>> {
        let Some(have) = &self.have else { return Vec::new() };
        let mut frontends: Vec<(bool, FrontendKey)> = self.touched.iter().map(|(key, critical)| (!critical, *key)).collect();
        // What the cluster itself needs to work comes first.
        frontends.sort_unstable();
        let frontends: Vec<FrontendKey> = frontends.into_iter().map(|(_, key)| key).collect();
        let shared: Vec<Shared> = self.touched_shared.iter().copied().collect();
        let sticky: Vec<Arc<str>> = self.touched_sticky.iter().cloned().collect();
        diff(&self.options, have, &self.want, Scope { frontends: &frontends, shared: &shared, sticky: &sticky })
    }

    /// To be told once [`Table::plan`] is committed.
    pub fn committed(&mut self) {
        let Some(have) = &mut self.have else { return };
        for (key, _) in self.touched.drain() {
            match self.want.frontends.get(&key) {
                Some(rules) => have.frontends.insert(key, rules.clone()),
                None => have.frontends.remove(&key),
            };
        }
        for shared in self.touched_shared.drain() {
            if self.want.shared.contains(&shared) {
                have.shared.insert(shared);
            } else {
                have.shared.remove(&shared);
            }
        }
        for port in std::mem::take(&mut self.touched_sticky) {
            match self.want.sticky.get(&port) {
                Some(sticky) => have.sticky.insert(port, sticky.clone()),
                None => have.sticky.remove(&port),
            };
        }
        have.service_cidrs.clone_from(&self.want.service_cidrs);
        have.chains.clone_from(&self.want.chains);
    }
}

impl Held for Table {
    fn rules(&self, key: &FrontendKey) -> Option<Arc<FrontendRules>> {
        let loaded = self.have.as_ref().and_then(|have| have.frontends.get(key));
        loaded.or_else(|| self.want.frontends.get(key)).cloned()
    }

    fn sticky_id(&self, name: &str) -> u32 {
        let programs = || self.have.iter().chain([&self.want]);
        if let Some(port) = programs().find_map(|program| program.sticky.get(name)) {
            return port.id;
        }
        let taken: HashSet<u32> = programs().flat_map(|program| program.sticky.values().map(|port| port.id)).collect();
        let first = names::number(name, STICKY_BITS);
        (0..STICKY_IDS).map(|step| (first + step) % STICKY_IDS).find(|id| !taken.contains(id)).unwrap_or(first)
    }
}
