//! From the program that is loaded to the one that is wanted: the smallest transactions.
//!
//! Owns the order of operations. New dispatch chains come in a transaction of their own, before anything refers to
//! them: a packet that entered the rules before a commit sees chains as they were, but looks maps up as they are.
//! Never looks at services. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ir::{Bytes, Chain, Data, Expr, Op, Structure, Verdict};
use super::program::{Class, Dispatch, Element, FrontendRules, Program, Shared, frontend_elements, shared_element};
use super::schema::{self, KeyKind, Options, class_chain, class_chain_name, frontend_sets};
use super::sticky;
use crate::model::FrontendKey;

/// Element operations of one transaction, about: it must not hold the kernel's lock for long.
const CHUNK: usize = 4096;

/// What may differ between two programs. Everything else is known to be the same.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// In order of importance: the first are committed first.
    pub frontends: &'a [FrontendKey],
    pub shared: &'a [Shared],
    /// Names of service ports with affinity.
    pub sticky: &'a [Arc<str>],
}

/// Transactions that turn `have` into `want`, in order. `want` must hold the chains of all its classes.
pub fn diff(options: &Options, have: &Program, want: &Program, scope: Scope) -> Vec<Vec<Op>> {
    let mut transactions = Vec::new();
    let chains: Vec<Op> = want.chains.difference(&have.chains).flat_map(|(kind, class)| add_chain(options, *kind, *class)).collect();
    transactions.extend(Some(chains).filter(|ops| !ops.is_empty()));
    if have.service_cidrs != want.service_cidrs {
        transactions.push(service_cidrs(options, want));
    }
    // Chains that elements lead to are made before, and go after.
    let sticky = |name: &Arc<str>| (have.sticky.get(name), want.sticky.get(name));
    for name in scope.sticky {
        if let (before, Some(after)) = sticky(name)
            && before != Some(after)
        {
            transactions.push(sticky::change(options, name, before.map(|s| &**s), Some(&**after)));
        }
    }

    let mut chunk = Chunk::default();
    for shared in scope.shared.iter().filter(|s| want.shared.contains(s) && !have.shared.contains(s)) {
        chunk.add(shared_element(shared));
        chunk.close_when_full(&mut transactions);
    }
    for key in scope.frontends {
        frontend(&mut chunk, key, have.frontends.get(key), want.frontends.get(key));
        chunk.close_when_full(&mut transactions);
    }
    for shared in scope.shared.iter().filter(|s| !want.shared.contains(s) && have.shared.contains(s)) {
        chunk.delete(shared_element(shared));
        chunk.close_when_full(&mut transactions);
    }
    chunk.close(&mut transactions);

    for name in scope.sticky {
        if let (Some(before), None) = sticky(name) {
            transactions.push(sticky::change(options, name, Some(&**before), None));
        }
    }
    let gone = delete_chains(have.chains.difference(&want.chains).copied());
    transactions.extend(Some(gone).filter(|ops| !ops.is_empty()));
    transactions
}

/// One transaction that replaces whatever the table holds, or makes it.
pub fn replace(options: &Options, exists: bool, structure: &Structure, want: &Program) -> Vec<Op> {
    let mut ops = create(exists, structure);
    let fresh = Program::default();
    let frontends: Vec<FrontendKey> = want.frontends.keys().copied().collect();
    let shared: Vec<Shared> = want.shared.iter().copied().collect();
    let sticky: Vec<Arc<str>> = want.sticky.keys().cloned().collect();
    let scope = Scope { frontends: &frontends, shared: &shared, sticky: &sticky };
    ops.extend(diff(options, &fresh, want, scope).into_iter().flatten());
    ops
}

/// The table with its fixed part.
pub fn create(exists: bool, structure: &Structure) -> Vec<Op> {
    let mut ops = Vec::new();
    if exists {
        ops.push(Op::DeleteTable);
    }
    ops.push(Op::AddTable);
    for (name, spec) in &structure.sets {
        ops.push(Op::AddSet { name: name.clone(), spec: spec.clone() });
    }
    // All chains before any rule: rules name chains.
    for (name, chain) in &structure.chains {
        ops.push(Op::AddChain { name: name.clone(), base: chain.base });
    }
    for (name, chain) in &structure.chains {
        ops.extend(chain.rules.iter().map(|rule| Op::AddRule { chain: name.clone(), rule: rule.clone() }));
    }
    for (number, verdict) in schema::refusal_verdicts() {
        ops.push(Op::AddElement { set: schema::REFUSAL_VERDICTS, key: number_key(number), data: Data::Verdict(verdict) });
    }
    ops
}

fn number_key(number: u32) -> Bytes {
    Bytes::EMPTY.component(&number.to_ne_bytes())
}

fn service_cidrs(options: &Options, want: &Program) -> Vec<Op> {
    let chain = || schema::SERVICE_CIDRS_CHAIN.to_string();
    let rule = |cidr| Op::AddRule { chain: chain(), rule: schema::service_cidr_rule(options.family, cidr) };
    [Op::FlushChain { name: chain() }].into_iter().chain(want.service_cidrs.iter().map(rule)).collect()
}

/// The element by which a frontend's number leads to a chain.
pub fn dispatch_element(kind: KeyKind, dispatch: Dispatch, chain: String) -> Element {
    Element { set: frontend_sets(kind).dispatch, key: number_key(dispatch.encode()), data: Data::Verdict(Verdict::Goto(chain)) }
}

pub fn class_element(kind: KeyKind, class: Class) -> Element {
    dispatch_element(kind, Dispatch::Class(class), class_chain_name(kind, class))
}

fn add_chain(options: &Options, kind: KeyKind, class: Class) -> Vec<Op> {
    let name = class_chain_name(kind, class);
    let mut ops = vec![Op::AddChain { name: name.clone(), base: None }];
    let rules = class_chain(options, kind, class).rules;
    ops.extend(rules.into_iter().map(|rule| Op::AddRule { chain: name.clone(), rule }));
    let Element { set, key, data } = class_element(kind, class);
    ops.push(Op::AddElement { set, key, data });
    ops
}

/// Chains go to each other, so all rules go before the first chain.
fn delete_chains(chains: impl Iterator<Item = (KeyKind, Class)> + Clone) -> Vec<Op> {
    let elements = chains.clone().map(|(kind, class)| delete_element(class_element(kind, class)));
    let names = chains.map(|(kind, class)| class_chain_name(kind, class));
    let flushes = names.clone().map(|name| Op::FlushChain { name });
    elements.chain(flushes).chain(names.map(|name| Op::DeleteChain { name })).collect()
}

/// Whether a transaction only takes away chains that nobody needs any more.
pub fn tidies(ops: &[Op]) -> bool {
    let takes_away =
        |op: &Op| matches!(op, Op::DeleteElement { .. } | Op::FlushChain { .. } | Op::DeleteChain { .. } | Op::DeleteSet { .. });
    ops.iter().all(takes_away) && ops.iter().any(|op| matches!(op, Op::DeleteChain { .. }))
}

fn frontend(chunk: &mut Chunk, key: &FrontendKey, have: Option<&Arc<FrontendRules>>, want: Option<&Arc<FrontendRules>>) {
    if let (Some(have), Some(want)) = (have, want)
        && Arc::ptr_eq(have, want)
    {
        return;
    }
    let elements =
        |rules: Option<&Arc<FrontendRules>>| -> Vec<Element> { rules.map(|rules| frontend_elements(key, rules)).unwrap_or_default() };
    let (mut before, mut after) = (elements(have), elements(want));
    // Both are short, and nearly the same.
    before.sort_unstable();
    after.sort_unstable();
    chunk.deletes.extend(before.iter().filter(|e| after.binary_search(e).is_err()).cloned());
    chunk.adds.extend(after.into_iter().filter(|e| before.binary_search(e).is_err()));
}

/// Element operations on their way into one transaction.
#[derive(Debug, Default)]
struct Chunk {
    deletes: Vec<Element>,
    adds: Vec<Element>,
}

impl Chunk {
    fn add(&mut self, element: Element) {
        self.adds.push(element);
    }

    fn delete(&mut self, element: Element) {
        self.deletes.push(element);
    }

    fn close_when_full(&mut self, transactions: &mut Vec<Vec<Op>>) {
        if self.deletes.len() + self.adds.len() >= CHUNK {
            self.close(transactions);
        }
    }

    /// A transaction is one instant, so its order is free, but for deleting a key before adding it anew. Operations on
    /// one set in a row share a message.
    fn close(&mut self, transactions: &mut Vec<Vec<Op>>) {
        self.deletes.sort_by_key(|e| e.set);
        self.adds.sort_by_key(|e| e.set);
        let deletes = self.deletes.drain(..).map(delete_element);
        let adds = self.adds.drain(..).map(|e| Op::AddElement { set: e.set, key: e.key, data: e.data });
        let ops: Vec<Op> = deletes.chain(adds).collect();
        transactions.extend(Some(ops).filter(|ops| !ops.is_empty()));
    }
}

fn delete_element(element: Element) -> Op {
    let upto = if let Data::Upto(end) = element.data { Some(end) } else { None };
    Op::DeleteElement { set: element.set, key: element.key, upto }
}

/// A table as flat as the kernel has it: for the laws, and for the simulator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub exists: bool,
    pub structure: Structure,
    pub elements: BTreeMap<(&'static str, Bytes), Data>,
}

impl Image {
    /// The table that holds a program.
    pub fn of(options: &Options, program: &Program) -> Image {
        let mut image = Image::default();
        let ops = replace(options, false, &schema::structure(options), program);
        image.apply(&ops).expect("a whole program applies to nothing");
        image
    }

    /// Applies a transaction as strictly as the kernel does; the error says which operation it would refuse.
    pub fn apply(&mut self, ops: &[Op]) -> Result<(), String> {
        ops.iter().try_for_each(|op| self.apply_one(op).ok_or_else(|| format!("{op:?}")))
    }

    fn apply_one(&mut self, op: &Op) -> Option<()> {
        let structure = &mut self.structure;
        match op {
            Op::AddTable => self.exists = true,
            Op::DeleteTable => {
                self.exists.then_some(())?;
                *self = Image::default();
            }
            Op::AddSet { name, spec } => {
                let held = structure.sets.entry(name.clone()).or_insert_with(|| spec.clone());
                (held == spec).then_some(())?;
            }
            Op::DeleteSet { name } => {
                let uses = |expr: &Expr| matches!(expr, Expr::Lookup { set, .. } | Expr::Remember { set, .. } if set == name);
                (!structure.rules().any(|rule| rule.exprs.iter().any(uses))).then_some(())?;
                structure.sets.remove(name)?;
            }
            Op::AddChain { name, base } => {
                structure.chains.entry(name.clone()).or_insert_with(|| Chain { base: *base, rules: Vec::new() });
            }
            Op::DeleteChain { name } => {
                let goes_there = |data: &Data| matches!(data, Data::Verdict(Verdict::Goto(chain)) if chain == name);
                (!self.elements.values().any(goes_there)).then_some(())?;
                let to_it = |expr: &Expr| matches!(expr, Expr::Verdict(Verdict::Goto(to) | Verdict::Jump(to)) if to == name);
                (!structure.rules().any(|rule| rule.exprs.iter().any(to_it))).then_some(())?;
                structure.chains.remove(name)?;
            }
            Op::FlushChain { name } => structure.chains.get_mut(name)?.rules.clear(),
            Op::AddRule { chain, rule } => {
                let known = rule.exprs.iter().all(|expr| match expr {
                    Expr::Lookup { set, .. } | Expr::Remember { set, .. } => structure.sets.contains_key(set),
                    Expr::Verdict(Verdict::Goto(to) | Verdict::Jump(to)) => structure.chains.contains_key(to),
                    _ => true,
                });
                known.then_some(())?;
                structure.chains.get_mut(chain)?.rules.push(rule.clone());
            }
            Op::AddElement { set, key, data } => {
                structure.sets.get(*set)?;
                let held = self.elements.entry((set, *key)).or_insert_with(|| data.clone());
                (held == data).then_some(())?;
            }
            Op::DeleteElement { set, key, upto } => {
                let held = self.elements.remove(&(*set, *key))?;
                let end = if let Data::Upto(end) = held { Some(end) } else { None };
                (end == *upto).then_some(())?;
            }
        }
        Some(())
    }
}
