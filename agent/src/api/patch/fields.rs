//! Sets of fields, as `FieldsV1` writes them.
//!
//! A set is a tree of path elements. An element is kept as it is written: `f:name` a field, `k:{...}` an
//! element of a list by its keys, `v:...` one by its value, `i:0` one by its place. Must never look at a
//! shape; `typed` does. Tests: `tests/apply.rs`.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How deep a set that a client wrote may be.
const MOST_DEPTH: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// The field itself is in the set.
    pub here: bool,
    pub below: BTreeMap<String, Fields>,
}

impl Fields {
    pub fn leaf() -> Fields {
        Fields { here: true, below: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        !self.here && self.below.is_empty()
    }

    /// Puts a subtree in, unless it is empty.
    pub fn put(&mut self, element: String, f: Fields) {
        if !f.is_empty() {
            self.below.insert(element, f);
        }
    }

    pub fn union(&self, other: &Fields) -> Fields {
        let mut out = self.clone();
        out.here |= other.here;
        for (k, f) in &other.below {
            let merged = out.below.get(k).map_or_else(|| f.clone(), |mine| mine.union(f));
            out.below.insert(k.clone(), merged);
        }
        out
    }

    pub fn difference(&self, other: &Fields) -> Fields {
        let mut out = Fields { here: self.here && !other.here, below: BTreeMap::new() };
        for (k, f) in &self.below {
            out.put(k.clone(), other.below.get(k).map_or_else(|| f.clone(), |o| f.difference(o)));
        }
        out
    }

    pub fn intersection(&self, other: &Fields) -> Fields {
        let mut out = Fields { here: self.here && other.here, below: BTreeMap::new() };
        for (k, f) in &self.below {
            if let Some(o) = other.below.get(k) {
                out.put(k.clone(), f.intersection(o));
            }
        }
        out
    }

    /// Takes out a field and all that is below it.
    pub fn cut(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let element = format!("f:{first}");
        if rest.is_empty() {
            self.below.remove(&element);
        } else if let Some(f) = self.below.get_mut(&element) {
            f.cut(rest);
            if f.is_empty() {
                self.below.remove(&element);
            }
        }
    }

    /// Takes out a field and leaves what is below it.
    pub fn strip(&mut self, path: &[&str]) {
        match path.split_first() {
            None => self.here = false,
            Some((first, rest)) => {
                let element = format!("f:{first}");
                if let Some(f) = self.below.get_mut(&element) {
                    f.strip(rest);
                    if f.is_empty() {
                        self.below.remove(&element);
                    }
                }
            }
        }
    }

    /// Paths as messages print them: `.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, at: &str, out: &mut Vec<String>) {
        if self.here {
            out.push(at.to_owned());
        }
        for (k, f) in &self.below {
            f.collect(&format!("{at}{}", printed(k)), out);
        }
    }

    pub fn to_value(&self) -> Value {
        let mut m = Map::new();
        if self.here && !self.below.is_empty() {
            m.insert(".".into(), Value::Object(Map::new()));
        }
        m.extend(self.below.iter().map(|(k, f)| (k.clone(), f.to_value())));
        Value::Object(m)
    }

    /// None: that is no set of fields.
    pub fn from_value(v: &Value) -> Option<Fields> {
        let mut out = Fields::read(v, MOST_DEPTH)?;
        // The whole object is no field of itself.
        out.here = v.get(".").is_some();
        Some(out)
    }

    fn read(v: &Value, depth: usize) -> Option<Fields> {
        let m = v.as_object()?;
        let mut out = Fields { here: m.is_empty() || m.contains_key("."), below: BTreeMap::new() };
        for (k, v) in m.iter().filter(|(k, _)| *k != ".") {
            out.put(canonical(k)?, Fields::read(v, depth.checked_sub(1)?)?);
        }
        Some(out)
    }
}

/// The element as this module writes it.
fn canonical(element: &str) -> Option<String> {
    let (kind, rest) = element.split_once(':')?;
    match kind {
        "f" => Some(element.to_owned()),
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).ok()?;
            Some(format!("k:{}", Value::Object(keys)))
        }
        "v" => serde_json::from_str::<Value>(rest).ok().map(|v| format!("v:{v}")),
        "i" => rest.parse::<i64>().ok().map(|i| format!("i:{i}")),
        _ => None,
    }
}

fn printed(element: &str) -> String {
    let (kind, rest) = element.split_once(':').unwrap_or(("f", element));
    match kind {
        "f" => format!(".{rest}"),
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", keys.join(","))
        }
        "v" => format!("[={rest}]"),
        _ => format!("[{rest}]"),
    }
}
