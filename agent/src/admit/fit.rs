//! What a pod asks for that this node has not left.

use super::Rejection;
use crate::env::NodeFacts;
use crate::pod::Pod;
use crate::pod::resources::{Amounts, NANO, is_extended, requests};
use std::collections::BTreeSet;

/// A resource of which there is too little, in the unit that a kubelet tells: thousandths of processors, else units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    pub name: String,
    pub requested: i128,
    pub used: i128,
    pub capacity: i128,
}

impl Shortage {
    /// How much would have to become free.
    pub fn missing(&self) -> i128 {
        self.requested - (self.capacity - self.used)
    }

    pub(super) fn rejection(&self) -> Rejection {
        let Shortage { name, requested, used, capacity } = self;
        let text = format!("Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}");
        Rejection::new(format!("OutOf{name}"), text)
    }
}

/// How much of a resource a pod asks for, in the unit of shortages.
pub fn request(pod: &Pod, asked: &Amounts, name: &str) -> i128 {
    match name {
        "pods" => 1,
        _ => in_units(name, asked.get(name).copied().unwrap_or_else(|| requests(pod).get(name).copied().unwrap_or(0))),
    }
}

fn in_units(name: &str, nanos: i128) -> i128 {
    let unit = if name == "cpu" { NANO / 1000 } else { NANO };
    (nanos + unit - 1).div_euclid(unit)
}

/// All of them, in the order in which they count.
pub fn shortages(pod: &Pod, active: &[&Pod], node: &NodeFacts, max_pods: usize) -> Vec<Shortage> {
    let count = |n: usize| i128::try_from(n).unwrap_or(i128::MAX);
    let mut out = Vec::new();
    if active.len() >= max_pods {
        out.push(Shortage { name: "pods".into(), requested: 1, used: count(active.len()), capacity: count(max_pods) });
    }
    let wanted = requests(pod);
    let mut used = Amounts::new();
    for (k, n) in active.iter().flat_map(|p| requests(p)) {
        *used.entry(k).or_default() += n;
    }
    const FIRST: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
    let rest: BTreeSet<&str> = wanted.keys().map(String::as_str).filter(|k| !FIRST.contains(k)).collect();
    for name in FIRST.into_iter().chain(rest) {
        let asked = wanted.get(name).copied().unwrap_or(0);
        let capacity = match node.allocatable.get(name) {
            Some(n) => *n,
            None if name.starts_with("hugepages-") => 0,
            // Nobody has counted it.
            None => continue,
        };
        // Of an extended resource that the node does not have others take care.
        if name == "pods" || asked <= 0 || (is_extended(name) && !node.allocatable.contains_key(name)) {
            continue;
        }
        let taken = used.get(name).copied().unwrap_or(0);
        if asked + taken > capacity {
            let (requested, used, capacity) = (in_units(name, asked), in_units(name, taken), in_units(name, capacity));
            out.push(Shortage { name: name.into(), requested, used, capacity });
        }
    }
    out
}
