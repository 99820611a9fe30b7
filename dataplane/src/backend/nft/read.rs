//! What a dump of the kernel means: nothing, ours, or somebody else's.
//!
//! Owns the judgement whether a table is exactly as we write it. Anything unknown makes it foreign, and it is then
//! replaced as a whole. Tests: `tests`, and the namespace tests.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::diff::class_element;
use super::ir::{Chain, Data, Op, Structure, Verdict};
use super::program::{Dispatch, Element, FrontendRules, Program, Reader};
use super::schema::{self, KeyKind, Options, class_chain, class_chain_name, class_needs, frontend_sets};
use super::sticky;
use super::table::Loaded;
use crate::model::Cidr;

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
    let mut sticky: BTreeMap<u32, Vec<Element>> = BTreeMap::new();
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
                    match Dispatch::of_key(&element.key)? {
                        Dispatch::Class(class) => {
                            (class_element(kind, class) == element).then_some(())?;
                            chains.insert((kind, class));
                        }
                        Dispatch::Sticky(_, id) => sticky.entry(id).or_default().push(element),
                    }
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
    let mut ports = HashMap::new();
    for elements in sticky.values() {
        let (name, port) = sticky::read(options, &mut structure, elements)?;
        ports.insert(Arc::from(name), Arc::new(port));
    }
    let rules = std::mem::take(&mut structure.chains.get_mut(schema::SERVICE_CIDRS_CHAIN)?.rules);
    let service_cidrs: Option<Box<[Cidr]>> = rules.iter().map(|rule| schema::read_service_cidr(options.family, rule)).collect();
    let as_written = structure == schema::structure(options) && refusals == schema::refusal_verdicts().len();
    as_written.then_some(())?;
    let program = Program { sticky: ports, service_cidrs: service_cidrs?, ..reader.finish(chains)? };
    // A number without chain would let packets go untranslated.
    let leads = |rules: &Arc<FrontendRules>| match rules.dispatch {
        Some(Dispatch::Sticky(_, id)) => program.sticky.values().any(|port| port.id == id),
        _ => true,
    };
    program.frontends.values().all(leads).then_some(())?;
    Some(Loaded::Ours(program))
}

fn refusal(element: &Element) -> Option<()> {
    let number = u32::from_ne_bytes(element.key.as_slice().try_into().ok()?);
    let Data::Verdict(verdict) = &element.data else { return None };
    let known: [(u32, Verdict); 2] = schema::refusal_verdicts();
    known.iter().any(|(n, v)| *n == number && v == verdict).then_some(())
}
