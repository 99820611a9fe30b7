//! The tables as the kernel has them, rule by rule: for the laws, for the simulator, and for showing a plan.
//!
//! Owns what iptables-restore would do, and what it would refuse. Never touches the kernel. Tests: `tests`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use super::diff::Holding;
use super::ir::{Line, Op, Place, Rule, Table, Target, Write};
use super::names::Chain;
use super::parse::Saved;
use super::program::Program;
use super::schema::{JUMPS, Options};
use crate::model::ObjectName;
use crate::resolve::Resolved;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub chains: BTreeMap<Place, Vec<Rule>>,
}

impl Image {
    /// The tables of a node that forwards these services and whose own tables hold nothing else: what a packet meets
    /// there, and what is shown of a plan that was not carried out.
    pub fn of<'a>(options: &Options, services: impl Iterator<Item = (&'a ObjectName, &'a Resolved)>) -> Image {
        let mut image = Image::default();
        for jump in JUMPS {
            image.chains.insert((jump.table, Chain::BuiltIn(jump.from)), Vec::new());
        }
        let mut program = Program::new(options.clone());
        program.adopt(image.holding());
        services.for_each(|(name, resolved)| program.set(name, resolved));
        let plan = program.plan(&program.waiting());
        let writes: Vec<Write> = plan.writes().cloned().collect();
        image.apply(&writes).expect("a whole program applies to nothing");
        for jump in JUMPS {
            let rules = image.chains.entry((jump.table, Chain::BuiltIn(jump.from))).or_default();
            rules.insert(0, jump.rule());
        }
        image
    }

    /// Applies operations as strictly as iptables-restore does; the error says which it would refuse.
    pub fn apply(&mut self, writes: &[Write]) -> Result<(), String> {
        let mut sorted: Vec<&Write> = writes.iter().collect();
        sorted.sort_by_key(|write| (write.section, write.op.phase()));
        sorted.into_iter().try_for_each(|write| self.one(write).ok_or_else(|| format!("{write:?}")))
    }

    fn one(&mut self, write: &Write) -> Option<()> {
        let place = write.place();
        match &write.op {
            Op::Declare(_) => drop(self.chains.insert(place, Vec::new())),
            Op::Append(_, rule) | Op::Insert(_, rule) => {
                if let Some(Target::Jump(to)) = rule.target {
                    self.chains.contains_key(&(place.0, to)).then_some(())?;
                }
                let rules = self.chains.get_mut(&place)?;
                let at = if matches!(write.op, Op::Append(..)) { rules.len() } else { 0 };
                rules.insert(at, rule.clone());
            }
            Op::Delete(_, rule) => {
                let rules = self.chains.get_mut(&place)?;
                let at = rules.iter().position(|held| held == rule)?;
                rules.remove(at);
            }
            Op::Remove(chain) => {
                let jumps = |rule: &Rule| rule.target == Some(Target::Jump(*chain));
                let of_table = self.chains.iter().filter(|((table, _), _)| *table == place.0);
                let used = of_table.flat_map(|(_, rules)| rules).any(jumps);
                (!used && self.chains.get(&place)?.is_empty()).then_some(())?;
                self.chains.remove(&place);
            }
        }
        Some(())
    }

    /// Takes one line of iptables-save in, as [`Holding::take`] does: of the built-in chains only the jumps to ours.
    /// Rules that are none we write are left out.
    pub fn take(&mut self, table: &mut Option<Table>, line: &Saved) {
        match (line, *table) {
            (Saved::Table(named), _) => *table = *named,
            (Saved::Chain(Some(chain)), Some(table)) => drop(self.chains.entry((table, *chain)).or_default()),
            (Saved::Rule(Some(chain), Line::Rule(rule)), Some(table)) => {
                let jump = matches!(rule.target, Some(Target::Jump(Chain::Fixed(_))));
                if jump || !matches!(chain, Chain::BuiltIn(_)) {
                    self.chains.entry((table, *chain)).or_default().push(rule.clone());
                }
            }
            _ => {}
        }
    }

    /// What reading the kernel would find.
    pub fn holding(&self) -> Holding {
        let mut have = Holding::default();
        self.chains.keys().for_each(|place| have.declare(*place));
        for (place, rules) in &self.chains {
            rules.iter().for_each(|rule| have.append(*place, Line::Rule(rule.clone())));
        }
        have
    }
}
