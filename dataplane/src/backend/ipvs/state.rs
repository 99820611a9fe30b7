//! One family's services: what is desired, what the kernel holds, and what differs.
//!
//! Owns the fragments of all services and how many of them need each set entry and address. Never talks to the
//! kernel: it is told what was read, and what became of each operation. Tests: `tests`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::compile::{Around, Balance, Fragment};
use super::diff::Stages;
use super::ir::{Entry, Held, Image, Item, Op, Server, Wanted};
use super::render::Saved;
use super::sets::Set;
use super::skeleton::Skeleton;
use crate::backend::{self, is_critical};
use crate::model::{Cidr, Family, ObjectName};

/// What was read from the kernel.
#[derive(Debug, Clone, Default)]
pub struct Read {
    /// Without rules; with all virtual servers of the family, whosever they are.
    pub image: Image,
    pub saved: Saved,
    /// Addresses on links that are not ours.
    pub elsewhere: BTreeSet<IpAddr>,
}

#[derive(Debug)]
pub struct State {
    pub common: backend::Options,
    pub balance: Balance,
    exclude: Vec<Cidr>,
    around: Around,
    fragments: HashMap<ObjectName, Fragment>,
    want: BTreeMap<Server, (ObjectName, Arc<Wanted>)>,
    references: BTreeMap<Item, u32>,
    /// How many entries each set is to have.
    sizes: BTreeMap<Set, usize>,
    denied: BTreeMap<Server, u32>,
    /// `None` until the kernel was read.
    have: Option<Image>,
    /// Virtual servers that were found and are not ours.
    foreign: BTreeMap<Server, Held>,
    saved: Arc<Saved>,
    touched: BTreeSet<Server>,
    touched_items: BTreeSet<Item>,
    rules_touched: bool,
}

impl State {
    pub fn new(common: backend::Options, balance: Balance, exclude: Vec<Cidr>) -> State {
        State {
            common,
            balance,
            exclude,
            around: Around::default(),
            fragments: HashMap::new(),
            want: BTreeMap::new(),
            references: BTreeMap::new(),
            sizes: BTreeMap::new(),
            denied: BTreeMap::new(),
            have: None,
            foreign: BTreeMap::new(),
            saved: Arc::default(),
            touched: BTreeSet::new(),
            touched_items: BTreeSet::new(),
            rules_touched: true,
        }
    }

    pub fn family(&self) -> Family {
        self.common.family
    }

    pub fn around(&self) -> &Around {
        &self.around
    }

    pub fn have(&self) -> Option<&Image> {
        self.have.as_ref()
    }

    pub fn fragments(&self) -> impl Iterator<Item = (&ObjectName, &Fragment)> {
        self.fragments.iter()
    }

    pub fn wanted(&self, server: &Server) -> Option<&Arc<Wanted>> {
        self.want.get(server).map(|(_, wanted)| wanted)
    }

    pub fn is_touched(&self) -> bool {
        !self.touched.is_empty() || !self.touched_items.is_empty() || self.rules_touched
    }

    /// Puts a service's fragment in the place of the one before; an empty one removes it.
    pub fn set(&mut self, name: &ObjectName, fragment: Fragment) {
        let around = std::mem::take(&mut self.around);
        self.claim(name, &fragment, &around);
        let kept: BTreeSet<Server> = fragment.servers(&around).map(|(server, _)| server).collect();
        let empty = fragment.is_empty();
        let before = if empty { self.fragments.remove(name) } else { self.fragments.insert(name.clone(), fragment) };
        if let Some(before) = before {
            self.release(name, &before, &around, &kept);
        }
        self.around = around;
    }

    /// This node's addresses changed: some virtual servers are elsewhere now.
    pub fn set_around(&mut self, around: Around) {
        if self.around == around {
            return;
        }
        let before = std::mem::replace(&mut self.around, around.clone());
        let fragments = std::mem::take(&mut self.fragments);
        for (name, fragment) in &fragments {
            self.claim(name, fragment, &around);
        }
        for (name, fragment) in &fragments {
            let kept = fragment.servers(&around).map(|(server, _)| server).collect();
            self.release(name, fragment, &before, &kept);
        }
        self.fragments = fragments;
    }

    fn claim(&mut self, name: &ObjectName, fragment: &Fragment, around: &Around) {
        for item in fragment.items(around) {
            let count = self.references.entry(item).or_default();
            *count += 1;
            if *count == 1 {
                self.item_changed(item, true);
            }
        }
        for server in fragment.denied() {
            *self.denied.entry(server).or_default() += 1;
            self.rules_touched = true;
        }
        for (server, wanted) in fragment.servers(around) {
            let unchanged = self.want.get(&server).is_some_and(|(_, held)| Arc::ptr_eq(held, wanted) || held == wanted);
            if !unchanged {
                self.touched.insert(server);
            }
            self.want.insert(server, (name.clone(), wanted.clone()));
        }
    }

    /// `kept` are the virtual servers that the service still has. Others of which it was not the last to be told are
    /// somebody else's by now.
    fn release(&mut self, name: &ObjectName, fragment: &Fragment, around: &Around, kept: &BTreeSet<Server>) {
        for item in fragment.items(around) {
            let Some(count) = self.references.get_mut(&item) else { continue };
            *count -= 1;
            if *count == 0 {
                self.references.remove(&item);
                self.item_changed(item, false);
            }
        }
        for server in fragment.denied() {
            self.rules_touched = true;
            if let Some(count) = self.denied.get_mut(&server) {
                *count -= 1;
            }
            self.denied.retain(|_, count| *count > 0);
        }
        for (server, _) in fragment.servers(around) {
            if !kept.contains(&server) && self.want.get(&server).is_some_and(|(owner, _)| owner == name) {
                self.want.remove(&server);
                self.touched.insert(server);
            }
        }
    }

    fn item_changed(&mut self, item: Item, wanted: bool) {
        self.touched_items.insert(item);
        if let Item::Entry(set, _) = item {
            let size = self.sizes.entry(set).or_default();
            *size = if wanted { *size + 1 } else { size.saturating_sub(1) };
            self.rules_touched |= set.decides_rules() && *size == usize::from(wanted);
        }
    }

    fn skeleton(&self) -> Skeleton {
        Skeleton {
            family: self.common.family,
            masquerade_mark: self.common.masquerade_mark,
            masquerade_all: self.common.masquerade_all,
            detect_local: self.common.detect_local.clone(),
            used: self.sizes.iter().filter(|(set, size)| set.decides_rules() && **size > 0).map(|(set, _)| *set).collect(),
            denied: self.denied.keys().copied().collect(),
        }
    }

    /// Forgets what the kernel holds: it must be read again.
    pub fn forget(&mut self) {
        self.have = None;
        self.foreign.clear();
    }

    /// Takes what was read as the state to start from.
    pub fn adopt(&mut self, read: Read) {
        let Read { mut image, saved, elsewhere } = read;
        let servers = std::mem::take(&mut image.servers);
        let (ours, foreign) = servers.into_iter().partition(|(server, _)| self.is_ours(server, &image, &elsewhere));
        image.servers = ours;
        self.touched.extend(image.servers.keys().chain(self.want.keys()));
        let entries = image.sets.iter().flat_map(|(set, entries)| entries.iter().map(|entry| Item::Entry(*set, *entry)));
        let addresses = image.addresses.iter().map(|ip| Item::Address(*ip));
        self.touched_items.extend(entries.chain(addresses).chain(self.references.keys().copied()));
        self.rules_touched = true;
        (self.have, self.foreign, self.saved) = (Some(image), foreign, Arc::new(saved));
    }

    /// Whether a virtual server that was found is one of a service, of ours or of another proxy's: servers themselves
    /// do not say. Its address is on our link, or it is an address of this node with a node port, or our sets have it.
    fn is_ours(&self, server: &Server, image: &Image, elsewhere: &BTreeSet<IpAddr>) -> bool {
        if self.exclude.iter().any(|cidr| cidr.contains(server.ip)) {
            return false;
        }
        let holds = |set: Set, entry: Entry| image.sets.get(&set).is_some_and(|entries| entries.contains(&entry));
        let named = Entry::IpPort(server.ip, server.protocol, server.port);
        let (node_ports, _) = Set::node_ports(server.protocol);
        let sets = [Set::ClusterIp, Set::ExternalIp, Set::ExternalIpLocal, Set::LoadBalancer, node_ports];
        image.addresses.contains(&server.ip)
            || sets.into_iter().any(|set| holds(set, named))
            || (elsewhere.contains(&server.ip) && holds(node_ports, Entry::Port(server.port)))
    }

    /// Operations that bring the kernel to what is desired, in order; none when it is there.
    pub fn plan(&mut self) -> Vec<Op> {
        let Some(have) = &mut self.have else { return Vec::new() };
        // What a service needs is ours from now on, whoever made it.
        for server in self.touched.iter().filter(|server| self.want.contains_key(server)) {
            have.servers.extend(self.foreign.remove_entry(server));
        }
        let mut stages = Stages::default();
        stages.structure.extend((!have.link).then_some(Op::CreateLink));
        stages.structure.extend(Set::ALL.into_iter().filter(|set| !have.sets.contains_key(set)).map(Op::CreateSet));
        for item in &self.touched_items {
            let held = match item {
                Item::Address(ip) => have.addresses.contains(ip),
                Item::Entry(set, entry) => have.sets.get(set).is_some_and(|entries| entries.contains(entry)),
            };
            stages.item(*item, held, self.references.contains_key(item));
        }
        if self.rules_touched || have.skeleton.is_none() {
            self.plan_rules(&mut stages);
        }
        let have = self.have.as_ref().expect("it was there above");
        let mut servers: Vec<&Server> = self.touched.iter().collect();
        // What the cluster itself needs to work comes first.
        servers.sort_by_cached_key(|server| !self.want.get(server).is_some_and(|(name, _)| is_critical(name)));
        for server in servers {
            let wanted = self.want.get(server).map(|(_, wanted)| &**wanted);
            let excluded = self.exclude.iter().any(|cidr| cidr.contains(server.ip));
            if wanted.is_some() || !excluded {
                stages.server(*server, have.servers.get(server), wanted);
            }
        }
        stages.into_ops()
    }

    fn plan_rules(&mut self, stages: &mut Stages) {
        let wanted = Arc::new(self.skeleton());
        let Some(have) = &mut self.have else { return };
        if have.skeleton.is_none() && self.saved.is(&wanted) {
            have.skeleton = Some(wanted);
            return;
        }
        if have.skeleton.is_some() || self.saved.is_empty() {
            stages.rules(have.skeleton.as_ref(), &wanted);
            return;
        }
        // Other rules than ours of now: what they were for is served until the virtual servers are right.
        let used = self.saved.used(self.common.family).union(&wanted.used).copied().collect();
        let between = Skeleton { used, ..Skeleton::clone(&wanted) };
        if between != *wanted {
            stages.rules_after = Some(Op::Load(wanted.clone()));
        }
        if !self.saved.is(&between) {
            stages.rules_before = Some(Op::Load(Arc::new(between)));
        }
    }

    /// What `iptables-restore` must know of the rules that are loaded.
    pub fn saved(&self) -> &Arc<Saved> {
        &self.saved
    }

    /// To be told once an operation is carried out.
    pub fn done(&mut self, op: &Op) {
        let Some(have) = &mut self.have else { return };
        if let Op::Load(skeleton) = op {
            self.saved = Arc::new(Saved::of(skeleton));
        }
        // Refused only if the kernel knew more than we did; then it is as it should be now.
        let _ = have.apply(op);
    }

    /// To be told once all operations of a plan were tried. Those that the kernel does not want are not tried again
    /// until something about them changes, or the kernel is read anew.
    pub fn tried(&mut self) {
        self.touched.clear();
        self.touched_items.clear();
        self.rules_touched = false;
    }

    /// Tries an item again at the next plan.
    pub fn retry(&mut self, item: Item) {
        self.touched_items.insert(item);
    }
}
