//! What a dump of the kernel means: nothing, ours, or somebody else's.
//!
//! Owns the judgement whether a table is exactly as we write it. Anything unknown makes it foreign, and it is then
//! replaced as a whole. Tests: `tests`, and the namespace tests.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;

use super::diff::dispatch_element;
use super::ir::{Chain, Data, Op, Structure, Verdict};
use super::program::{Class, Element, Reader};
use super::schema::{self, KeyKind, Options, class_chain, class_chain_name, class_needs, frontend_sets};
use super::table::Loaded;

/// Judges a table by the operations that would make it.
pub fn read(options: &Options, ops: Vec<Op>) -> Loaded {
    if ops.is_empty() {
        return Loaded::Nothing;
    }
    ours(options, ops).unwrap_or(Loaded::Foreign)
}

fn ours(options: &Options, ops: Vec<Op>) -> Option<Loaded> {
    let mut structure = Structure::default();
    let mut reader = Reader::new(options.family);
    let mut chains = BTreeSet::new();
    let mut refusals = 0;
    for op in ops {
        match op {
            Op::AddTable => {}
            Op::AddSet { name, spec } => {
                structure.sets.insert(name, spec);
            }
            Op::AddChain { name, base } => {
                structure.chains.insert(name, Chain { base, rules: Vec::new() });
            }
            Op::AddRule { chain, rule } => structure.chains.get_mut(&chain)?.rules.push(rule),
            Op::AddElement { set, key, data } => {
                let element = Element { set, key, data };
                if let Some(kind) = KeyKind::ALL.into_iter().find(|kind| frontend_sets(*kind).dispatch == set) {
                    chains.insert(dispatched(kind, &element)?);
                } else if set == schema::REFUSAL_VERDICTS {
                    refusals += 1;
                    refusal(&element)?;
                } else {
                    reader.element(&element)?;
                }
            }
            _ => return None,
        }
    }
    for (kind, class) in &chains {
        class_needs(*class).is_none_or(|needed| chains.contains(&(*kind, needed))).then_some(())?;
        let chain = structure.chains.remove(&class_chain_name(*kind, *class))?;
        (chain == class_chain(options, *kind, *class)).then_some(())?;
    }
    let as_written = structure == schema::structure(options) && refusals == schema::refusal_verdicts().len();
    as_written.then_some(())?;
    reader.finish(chains).map(Loaded::Ours)
}

fn dispatched(kind: KeyKind, element: &Element) -> Option<(KeyKind, Class)> {
    let class = Class::decode(u32::from_ne_bytes(element.key.as_slice().try_into().ok()?))?;
    (dispatch_element(kind, class) == *element).then_some((kind, class))
}

fn refusal(element: &Element) -> Option<()> {
    let number = u32::from_ne_bytes(element.key.as_slice().try_into().ok()?);
    let Data::Verdict(verdict) = &element.data else { return None };
    let known: [(u32, Verdict); 2] = schema::refusal_verdicts();
    known.iter().any(|(n, v)| *n == number && v == verdict).then_some(())
}
