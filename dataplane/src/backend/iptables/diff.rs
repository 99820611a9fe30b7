//! From what the kernel holds to what is desired: the fewest lines.
//!
//! Owns the knowledge of what the kernel holds, as fingerprints: a few bytes for each chain. A chain of a service's own
//! is written anew as a whole when anything in it differs; in the chains of all services single rules come and go. The
//! same path serves one change and the first program. Tests: `tests` (laws).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::compile::Compiled;
use super::ir::{Line, Op, Place, Rule, Section, Table, Target, Write, is_shared};
use super::names::{Chain, Fixed};
use super::parse::Saved;
use super::schema::{self, Jump, Options};

/// So many deletions of single rules in one chain, and it is written anew: each deletion makes iptables look through
/// the chain from its head.
pub const MANY_DELETIONS: usize = 64;

/// A chain's rules in order, as one number, and how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    number: u64,
    rules: u32,
}

impl Digest {
    fn then(self, line: u64) -> Digest {
        let mut hasher = DefaultHasher::new();
        (self.number, line).hash(&mut hasher);
        Digest { number: hasher.finish(), rules: self.rules + 1 }
    }

    fn of<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Digest {
        rules.into_iter().fold(Digest::default(), |digest, rule| digest.then(rule.fingerprint_without_comment()))
    }
}

/// Rules of a chain of all services, in no order, each with how often it is there.
type Bag = HashMap<u64, u32>;

/// What the kernel holds of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holding {
    /// Chains of services, in nat.
    own: HashMap<Chain, Digest>,
    shared: HashMap<Place, Bag>,
    /// The other fixed chains, and the built-in ones as far as they concern us.
    fixed: BTreeMap<Place, Vec<Rule>>,
    /// The rules that must stand last in nat's KUBE-SERVICES. They are not in its bag.
    last: Vec<Rule>,
    /// A chain of all services in which something stands that must be cleared away.
    disorder: HashSet<Place>,
}

/// The chain whose last rules are not any service's.
pub const NAT_SERVICES: Place = (Table::Nat, Chain::Fixed(Fixed::Services));

impl Holding {
    /// Takes one line of iptables-save in. `table` is the one that the line stands in.
    pub fn take(&mut self, table: &mut Option<Table>, line: Saved) {
        match (line, *table) {
            (Saved::Table(named), _) => *table = named,
            (Saved::Chain(Some(chain)), Some(table)) => self.declare((table, chain)),
            (Saved::Rule(Some(chain), line), Some(table)) => self.append((table, chain), line),
            _ => {}
        }
    }

    pub fn declare(&mut self, place: Place) {
        self.disorder.remove(&place);
        match place {
            (Table::Nat, Chain::Of(..)) => drop(self.own.insert(place.1, Digest::default())),
            // Such a chain elsewhere is not ours; and the built-in ones come with their tables.
            (_, Chain::Of(..) | Chain::BuiltIn(_)) => {}
            (_, chain) if is_shared(chain) => {
                self.shared.insert(place, Bag::new());
                if place == NAT_SERVICES {
                    self.last.clear();
                }
            }
            _ => drop(self.fixed.insert(place, Vec::new())),
        }
    }

    pub fn append(&mut self, place: Place, line: Line) {
        let (table, chain) = place;
        if let Chain::Of(..) = chain {
            if let Some(digest) = self.own.get_mut(&chain).filter(|_| table == Table::Nat) {
                *digest = digest.then(match &line {
                    Line::Rule(rule) => rule.fingerprint_without_comment(),
                    Line::Foreign(text) => fingerprint(text),
                });
            }
            return;
        }
        match line {
            Line::Rule(rule) if place == NAT_SERVICES && is_last(&rule) => self.last.push(rule),
            Line::Rule(rule) if is_shared(chain) => {
                if place == NAT_SERVICES && !self.last.is_empty() {
                    self.disorder.insert(place);
                }
                *self.shared.entry(place).or_default().entry(rule.fingerprint()).or_default() += 1;
            }
            // Of the built-in chains only the jumps to ours concern us.
            Line::Rule(rule) if matches!(chain, Chain::BuiltIn(_)) && !matches!(rule.target, Some(Target::Jump(Chain::Fixed(_)))) => {}
            Line::Rule(rule) => self.fixed.entry(place).or_default().push(rule),
            Line::Foreign(_) if matches!(chain, Chain::BuiltIn(_) | Chain::Fixed(Fixed::Firewall)) => {}
            Line::Foreign(_) => drop(self.disorder.insert(place)),
        }
    }

    /// To be told what was committed.
    pub fn written<'a>(&mut self, writes: impl Iterator<Item = &'a Write>) {
        let mut sorted: Vec<&Write> = writes.collect();
        sorted.sort_by_key(|write| (write.section, write.op.phase()));
        for write in sorted {
            let place = write.place();
            match &write.op {
                Op::Declare(_) => self.declare(place),
                Op::Append(_, rule) => self.append(place, Line::Rule(rule.clone())),
                Op::Insert(_, rule) => self.insert(place, rule.clone()),
                Op::Delete(_, rule) => self.deleted(place, rule),
                Op::Remove(chain) => {
                    self.own.remove(chain);
                    self.shared.remove(&place);
                    self.fixed.remove(&place);
                }
            }
        }
    }

    /// A rule at a chain's head.
    pub fn insert(&mut self, place: Place, rule: Rule) {
        if is_shared(place.1) {
            *self.shared.entry(place).or_default().entry(rule.fingerprint()).or_default() += 1;
        } else {
            self.fixed.entry(place).or_default().insert(0, rule);
        }
    }

    fn deleted(&mut self, place: Place, rule: &Rule) {
        let held = if place == NAT_SERVICES { Some(&mut self.last) } else { self.fixed.get_mut(&place) };
        let found = held.and_then(|held| held.iter().position(|held| held == rule).map(|at| held.remove(at)));
        if found.is_none()
            && let Some(bag) = self.shared.get_mut(&place)
            && let Some(count) = bag.get_mut(&rule.fingerprint())
        {
            *count -= 1;
            if *count == 0 {
                bag.remove(&rule.fingerprint());
            }
        }
    }

    pub fn has(&self, place: Place) -> bool {
        let (table, chain) = place;
        self.fixed.contains_key(&place) || self.shared.contains_key(&place) || (table == Table::Nat && self.own.contains_key(&chain))
    }

    /// Rules of a fixed or built-in chain that we can read.
    pub fn rules(&self, place: Place) -> &[Rule] {
        self.fixed.get(&place).map_or(&[], Vec::as_slice)
    }

    /// How many rules stand in our chains of one table.
    pub fn rule_count(&self, table: Table) -> usize {
        let own = self.own.values().filter(|_| table == Table::Nat).map(|digest| digest.rules as usize);
        let shared = self.shared.iter().filter(|((of, _), _)| *of == table).flat_map(|(_, bag)| bag.values()).map(|count| *count as usize);
        let fixed = self.fixed.iter().filter(|((of, chain), _)| *of == table && !matches!(chain, Chain::BuiltIn(_)));
        let last = if table == Table::Nat { self.last.len() } else { 0 };
        own.chain(shared).chain(fixed.map(|(_, rules)| rules.len())).sum::<usize>() + last
    }

    /// Whether there is any rule for a service.
    pub fn forwards(&self) -> bool {
        !self.own.is_empty() || self.shared.values().any(|bag| !bag.is_empty())
    }

    pub fn own_chains(&self) -> impl Iterator<Item = Chain> {
        self.own.keys().copied()
    }

    fn has_shared(&self, place: Place, rule: &Rule) -> bool {
        self.shared.get(&place).is_some_and(|bag| bag.contains_key(&rule.fingerprint()))
    }
}

fn fingerprint(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Whether a rule of nat's KUBE-SERVICES leads to the node ports.
fn is_last(rule: &Rule) -> bool {
    rule.target == Some(Target::Jump(Chain::Fixed(Fixed::NodePorts)))
}

fn nat(op: Op) -> Write {
    Write { section: Section::Nat, op }
}

/// A write into a chain of all services: what comes, comes before nat changes, and what goes, goes after.
fn shared(place: Place, op: Op) -> Write {
    let section = match (place.0, &op) {
        (Table::Nat, _) => Section::Nat,
        (Table::Mangle, _) => Section::Mangle,
        (Table::Filter, Op::Delete(..)) => Section::FilterLast,
        (Table::Filter, _) => Section::FilterFirst,
    };
    Write { section, op }
}

/// One service, from `before` (nothing, when it is not known) to `after`.
pub fn service(have: &Holding, before: Option<&Compiled>, after: &Compiled) -> Vec<Write> {
    let mut writes = Vec::new();
    for (chain, rules) in &after.chains {
        if have.own.get(chain) != Some(&Digest::of(rules)) {
            writes.push(nat(Op::Declare(*chain)));
            writes.extend(rules.iter().map(|rule| nat(Op::Append(*chain, rule.clone()))));
        }
    }
    let gone = before.into_iter().flat_map(|before| before.chains.keys());
    for chain in gone.filter(|chain| !after.chains.contains_key(chain) && have.own.contains_key(chain)) {
        writes.extend([nat(Op::Declare(*chain)), nat(Op::Remove(*chain))]);
    }
    // The head of a chain is where insertions go: the last is the first then.
    for (place, rule) in after.shared.iter().rev() {
        if !have.has_shared(*place, rule) {
            writes.push(shared(*place, Op::Insert(place.1, rule.clone())));
        }
    }
    for (place, rule) in before.into_iter().flat_map(|before| &before.shared) {
        if !after.shared.iter().any(|kept| (&kept.0, &kept.1) == (place, rule)) && have.has_shared(*place, rule) {
            writes.push(shared(*place, Op::Delete(place.1, rule.clone())));
        }
    }
    writes
}

/// Chains of services that no service has: of services deleted while nobody looked.
pub fn sweep(have: &Holding, wanted: &HashSet<Chain>) -> Vec<Write> {
    let mut stale: Vec<Chain> = have.own_chains().filter(|chain| !wanted.contains(chain)).collect();
    stale.sort_unstable();
    stale.into_iter().flat_map(|chain| [nat(Op::Declare(chain)), nat(Op::Remove(chain))]).collect()
}

/// The chains of all services that hold rules of none, or in the wrong order: they are to be written anew.
pub fn untidy(have: &Holding, wanted: &HashMap<Place, HashMap<u64, u32>>) -> Vec<Place> {
    let none = Bag::new();
    let extra = |(place, bag): (&Place, &Bag)| {
        let wanted = wanted.get(place).unwrap_or(&none);
        let more = bag.iter().any(|(rule, count)| *count > wanted.get(rule).copied().unwrap_or(0));
        (more || have.disorder.contains(place)).then_some(*place)
    };
    let mut places: Vec<Place> = have.shared.iter().filter_map(extra).collect();
    places.sort_unstable();
    places
}

/// Writes a chain of all services anew. `last` ends nat's KUBE-SERVICES. What a filter chain refuses without need goes
/// after nat changed, as always; what it is to refuse must be in it before.
pub fn rewrite<'a>(place: Place, rules: impl Iterator<Item = &'a Rule>, last: &'a [Rule]) -> Vec<Write> {
    let last = if place == NAT_SERVICES { last } else { &[] };
    let section = if place.0 == Table::Nat { Section::Nat } else { Section::FilterLast };
    let rules = rules.chain(last).map(|rule| Write { section, op: Op::Append(place.1, rule.clone()) });
    [Write { section, op: Op::Declare(place.1) }].into_iter().chain(rules).collect()
}

/// The fixed part: chains that are missing, fixed chains that differ, the guard in the kubelet's chain.
pub fn fixed(have: &Holding, options: &Options) -> Vec<Write> {
    let mut writes = Vec::new();
    let (places, rules, guard) = (schema::places(), schema::fixed(options), schema::martian_guard(options));
    for place in places.iter().filter(|place| !is_shared(place.1) || !have.has(**place)) {
        let wanted = rules.iter().find(|(held, _)| held == place).map_or(&[][..], |(_, rules)| rules);
        // Others may write into the kubelet's chain.
        let differs = place.1 != Chain::Fixed(Fixed::Firewall) && !is_shared(place.1) && have.rules(*place) != wanted;
        if differs || !have.has(*place) || have.disorder.contains(place) {
            writes.push(shared(*place, Op::Declare(place.1)));
            writes.extend(wanted.iter().map(|rule| shared(*place, Op::Append(place.1, rule.clone()))));
        }
    }
    let firewall = (Table::Filter, Chain::Fixed(Fixed::Firewall));
    if let Some(guard) = guard.filter(|guard| !have.rules(firewall).contains(guard)) {
        writes.push(shared(firewall, Op::Append(firewall.1, guard)));
    }
    writes
}

/// The last rules of nat's KUBE-SERVICES, when they are others than before.
pub fn last(have: &Holding, wanted: &[Rule]) -> Vec<Write> {
    if have.last == wanted {
        return Vec::new();
    }
    let chain = NAT_SERVICES.1;
    let gone = have.last.iter().map(|rule| nat(Op::Delete(chain, rule.clone())));
    gone.chain(wanted.iter().map(|rule| nat(Op::Append(chain, rule.clone())))).collect()
}

pub fn has_jump(have: &Holding, jump: &Jump) -> bool {
    have.rules((jump.table, Chain::BuiltIn(jump.from))).contains(&jump.rule())
}

/// Takes away all chains of ours but the kubelet's, which nothing may jump to any more.
pub fn delete(have: &Holding, places: &[Place]) -> Vec<Write> {
    let ours = places.iter().filter(|(_, chain)| *chain != Chain::Fixed(Fixed::Firewall));
    let fixed = ours.filter(|place| have.has(**place)).copied();
    let own = have.own_chains().map(|chain| (Table::Nat, chain));
    let gone = |place: Place| [shared(place, Op::Declare(place.1)), shared(place, Op::Remove(place.1))];
    fixed.chain(own).flat_map(gone).collect()
}
