//! One family's table: what is desired, what the kernel holds, and what differs.
//!
//! Owns the fragments of all services, and who may have a frontend that several claim. Never talks to the kernel: it
//! is told what was read and what was committed. Tests: `tests`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::compile::Fragment;
use super::diff::{Scope, create, diff, replace};
use super::ir::Op;
use super::program::{FrontendRules, Program, Shared};
use super::schema::{self, KeyKind, Options, class_needs};
use crate::model::{FrontendKey, ObjectName};

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
    /// Frontends that more than one service claims. The first by name has it, the others wait.
    contested: HashMap<FrontendKey, BTreeSet<ObjectName>>,
    owners: HashMap<FrontendKey, ObjectName>,
    references: HashMap<Shared, u32>,
    node_port_ips: Vec<IpAddr>,
    want: Program,
    /// `None` until the kernel was read.
    have: Option<Program>,
    touched: HashSet<FrontendKey>,
    touched_shared: HashSet<Shared>,
}

impl Table {
    pub fn new(options: Options) -> Table {
        Table {
            options,
            fragments: HashMap::new(),
            contested: HashMap::new(),
            owners: HashMap::new(),
            references: HashMap::new(),
            node_port_ips: Vec::new(),
            want: Program::default(),
            have: None,
            touched: HashSet::new(),
            touched_shared: HashSet::new(),
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
        !self.touched.is_empty() || !self.touched_shared.is_empty()
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

    /// What is loaded for a frontend, for [`super::compile::compile`].
    pub fn loaded(&self, key: &FrontendKey) -> Option<Arc<FrontendRules>> {
        let loaded = self.have.as_ref().and_then(|have| have.frontends.get(key));
        loaded.or_else(|| self.want.frontends.get(key)).cloned()
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
        for (key, rules) in &fragment.frontends {
            self.claim(name, key, rules);
        }
        let kept: HashSet<FrontendKey> = fragment.frontends.iter().map(|(key, _)| *key).collect();
        let before = if empty { self.fragments.remove(name) } else { self.fragments.insert(name.clone(), fragment) };
        let before = before.unwrap_or_default();
        for (key, _) in before.frontends.iter().filter(|(key, _)| !kept.contains(key)) {
            self.release_claim(name, key);
        }
        for shared in &before.shared {
            self.release(*shared);
        }
        before
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

    fn claim(&mut self, name: &ObjectName, key: &FrontendKey, rules: &Arc<FrontendRules>) {
        let owner = self.owners.entry(*key).or_insert_with(|| name.clone());
        if owner != name {
            let claimants = self.contested.entry(*key).or_insert_with(|| BTreeSet::from([owner.clone()]));
            claimants.insert(name.clone());
            if *owner < *name {
                return;
            }
            *owner = name.clone();
        }
        self.want_frontend(key, Some(rules.clone()));
    }

    fn release_claim(&mut self, name: &ObjectName, key: &FrontendKey) {
        let mut heir = None;
        if let Some(claimants) = self.contested.get_mut(key) {
            claimants.remove(name);
            heir = claimants.first().cloned();
            if claimants.len() < 2 {
                self.contested.remove(key);
            }
        }
        if self.owners.get(key) != Some(name) {
            return;
        }
        let Some(heir) = heir else {
            self.owners.remove(key);
            self.want_frontend(key, None);
            return;
        };
        let theirs = self.fragments.get(&heir).and_then(|f| f.frontends.iter().find(|(k, _)| k == key));
        let rules = theirs.map(|(_, rules)| rules.clone());
        self.owners.insert(*key, heir);
        self.want_frontend(key, rules);
    }

    fn want_frontend(&mut self, key: &FrontendKey, rules: Option<Arc<FrontendRules>>) {
        let unchanged = match (self.want.frontends.get(key), &rules) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after) || before == after,
            (None, None) => true,
            _ => false,
        };
        if unchanged {
            return;
        }
        self.touched.insert(*key);
        let Some(rules) = rules else {
            self.want.frontends.remove(key);
            return;
        };
        if let Some(class) = rules.class {
            let kind = KeyKind::of(key);
            self.want.chains.insert((kind, class));
            self.want.chains.extend(class_needs(class).map(|needed| (kind, needed)));
        }
        self.want.frontends.insert(*key, rules);
    }

    /// Forgets what the kernel holds: it must be read again.
    pub fn forget(&mut self) {
        self.have = None;
    }

    /// Takes what was read from the kernel as the state to start from. Fragments should be compiled anew after this,
    /// so that endpoints keep the slots they have in the kernel.
    pub fn adopt(&mut self, program: Program) {
        // Chains without use stay: deleting them gains nothing, and somebody may soon need them.
        self.want.chains.extend(program.chains.iter().copied());
        self.touched.extend(program.frontends.keys().chain(self.want.frontends.keys()).copied());
        self.touched_shared.extend(program.shared.iter().chain(&self.want.shared).copied());
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
            }
        }
    }

    /// Transactions that bring the kernel to what is desired, in order; none when it is there.
    pub fn plan(&self) -> Vec<Vec<Op>> {
        let Some(have) = &self.have else { return Vec::new() };
        let mut frontends: Vec<FrontendKey> = self.touched.iter().copied().collect();
        // What the cluster itself needs to work comes first.
        frontends.sort_by_cached_key(|key| (!self.owners.get(key).is_some_and(is_critical), *key));
        let shared: Vec<Shared> = self.touched_shared.iter().copied().collect();
        diff(&self.options, have, &self.want, Scope { frontends: &frontends, shared: &shared })
    }

    /// To be told once [`Table::plan`] is committed.
    pub fn committed(&mut self) {
        let Some(have) = &mut self.have else { return };
        for key in self.touched.drain() {
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
        have.chains.clone_from(&self.want.chains);
    }
}

/// The API server's service and those of the system, DNS among them.
fn is_critical(name: &ObjectName) -> bool {
    name.as_str() == "default/kubernetes" || name.namespace() == "kube-system"
}
