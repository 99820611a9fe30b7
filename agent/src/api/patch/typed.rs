//! Objects along their shape: which fields an object has, what differs between two, what a merge of two
//! is, and an object without some of its fields.
//!
//! Follows the rules of structured merge and diff that server-side apply is built on. Where there is no
//! shape, objects have fields with owners each and all else has one owner. Tests: `tests/apply.rs`.

use super::fields::Fields;
use super::text::go;
use crate::manifest::schema::Shape;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How a value is owned.
enum Form {
    Leaf,
    /// With the names that it is known to have, or any.
    Fields(Shape),
    Keyed(&'static [&'static str], Shape),
    Set,
}

/// Of a value that is there; a null takes the form of its shape.
fn form(shape: Shape, v: &Value) -> Form {
    match (shape, v) {
        (Shape::Atomic(_), _) => Form::Leaf,
        (Shape::Replaced(s) | Shape::Retained(s), v) => form(*s, v),
        (Shape::Object(_) | Shape::Map(_), Value::Object(_) | Value::Null) | (Shape::Any, Value::Object(_)) => Form::Fields(shape),
        (Shape::Keyed(keys, s), Value::Array(_) | Value::Null) => Form::Keyed(keys, *s),
        (Shape::Set(_), Value::Array(_) | Value::Null) => Form::Set,
        _ => Form::Leaf,
    }
}

/// Whether the API names this field, other than an entry of a map.
fn is_named(shape: Shape, name: &str) -> bool {
    matches!(shape.inner(), Shape::Object(fields) if fields.iter().any(|(n, _)| *n == name))
}

/// What a list's element is told apart by. Err: it cannot be in such a list.
fn element(keys: Option<&'static [&'static str]>, v: &Value) -> Result<String, String> {
    let Some(keys) = keys else {
        return match v {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            v => Ok(format!("v:{v}")),
        };
    };
    match v {
        Value::Object(m) => {
            let mut found = Map::new();
            for key in keys {
                match m.get(*key).filter(|v| !v.is_null()) {
                    Some(v) => {
                        found.insert((*key).into(), v.clone());
                    }
                    // The one key that the API gives a value by itself.
                    None if *key == "protocol" => {
                        found.insert((*key).into(), "TCP".into());
                    }
                    None => {}
                }
            }
            if found.is_empty() {
                return Err(format!(
                    "associative list with keys has an element that omits all key fields {keys:?} (and doesn't have default values for any key fields)"
                ));
            }
            Ok(format!("k:{}", Value::Object(found)))
        }
        Value::Null => Err("associative list with keys may not have a null element".into()),
        _ => Err("associative list with keys may not have non-map elements".into()),
    }
}

/// What keeps a configuration from being applied: unknown fields, values of the wrong kind, elements twice.
pub fn faults(v: &Value, shape: Shape, path: &str, out: &mut Vec<String>) {
    match (shape.inner(), v) {
        (_, Value::Null) | (Shape::Any, _) => {}
        (Shape::Object(fields), Value::Object(m)) => {
            for (k, v) in m {
                match fields.iter().find(|(n, _)| n == k) {
                    Some((_, s)) => faults(v, *s, &format!("{path}.{k}"), out),
                    None => out.push(format!("{path}.{k}: field not declared in schema")),
                }
            }
        }
        (Shape::Map(s), Value::Object(m)) => m.iter().for_each(|(k, v)| faults(v, *s, &format!("{path}.{k}"), out)),
        (Shape::Object(_) | Shape::Map(_), v) => out.push(format!("{path}: expected map, got {}", go(v))),
        (Shape::List(s), Value::Array(a)) => a.iter().enumerate().for_each(|(i, v)| faults(v, *s, &format!("{path}[{i}]"), out)),
        (Shape::Keyed(keys, s), Value::Array(a)) => list_faults(a, Some(keys), *s, path, out),
        (Shape::Set(s), Value::Array(a)) => list_faults(a, None, *s, path, out),
        (Shape::List(_) | Shape::Keyed(..) | Shape::Set(_), v) => out.push(format!("{path}: expected list, got {}", go(v))),
        (Shape::Bool, Value::Bool(_)) => {}
        (Shape::Bool, v) => out.push(format!("{path}: expected boolean, got {}", go(v))),
        (Shape::Int32 | Shape::Int64 | Shape::Port | Shape::Mode, Value::Number(_)) => {}
        (Shape::Int32 | Shape::Int64 | Shape::Port | Shape::Mode, v) => {
            out.push(format!("{path}: expected numeric (int or float), got {}", go(v)))
        }
        (Shape::Text | Shape::OneOf(_) | Shape::Time, Value::String(_)) => {}
        (Shape::Text | Shape::OneOf(_) | Shape::Time, v) => out.push(format!("{path}: expected string, got {}", go(v))),
        (_, Value::Object(_) | Value::Array(_)) => out.push(format!("{path}: expected scalar, got {}", go(v))),
        _ => {}
    }
}

fn list_faults(a: &[Value], keys: Option<&'static [&'static str]>, s: Shape, path: &str, out: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (i, v) in a.iter().enumerate() {
        match element(keys, v) {
            Err(e) => out.push(format!("{path}: element {i}: {e}")),
            Ok(e) => {
                let at = Fields { here: false, below: BTreeMap::from([(e.clone(), Fields::leaf())]) }.paths().concat();
                if !seen.insert(e) {
                    out.push(format!("{path}: duplicate entries for key {at}"));
                }
                faults(v, s, &format!("{path}{at}"), out);
            }
        }
    }
}

/// The fields that someone who applies this object owns.
pub fn owned(v: &Value, shape: Shape) -> Fields {
    let mut out = Fields::default();
    match (form(shape, v), v) {
        (Form::Fields(shape), Value::Object(m)) => {
            for (k, v) in m {
                let mut f = owned(v, shape.field(k));
                let is_bare = v.is_null() || v.as_object().is_some_and(Map::is_empty);
                f.here |= is_bare || !is_named(shape, k);
                out.put(format!("f:{k}"), f);
            }
        }
        (Form::Keyed(keys, s), Value::Array(a)) => {
            for v in a {
                put_element(&mut out, element(Some(keys), v), owned(v, s));
            }
        }
        (Form::Set, Value::Array(a)) => a.iter().for_each(|v| put_element(&mut out, element(None, v), Fields::leaf())),
        (Form::Leaf, _) => out.here = true,
        _ => {}
    }
    out
}

fn put_element(out: &mut Fields, element: Result<String, String>, mut f: Fields) {
    if let Ok(e) = element {
        f.here = true;
        // Elements that stand twice are owned as one.
        let merged = out.below.get(&e).map_or_else(|| f.clone(), |_| Fields::leaf());
        out.below.insert(e, merged);
    }
}

/// What differs between two objects.
#[derive(Debug, Default)]
pub struct Comparison {
    pub removed: Fields,
    pub modified: Fields,
    pub added: Fields,
}

impl Comparison {
    fn put(&mut self, element: &str, c: Comparison) {
        self.removed.put(element.to_owned(), c.removed);
        self.modified.put(element.to_owned(), c.modified);
        self.added.put(element.to_owned(), c.added);
    }

    /// Added or modified.
    pub fn changed(&self) -> Fields {
        self.modified.union(&self.added)
    }

    pub fn cut(&mut self, path: &[&str]) {
        self.removed.cut(path);
        self.modified.cut(path);
        self.added.cut(path);
    }
}

/// At least one of the two is there.
pub fn compare(old: Option<&Value>, new: Option<&Value>, shape: Shape) -> Comparison {
    let mut out = Comparison::default();
    // Most of an object is as it was.
    if old == new {
        return out;
    }
    let forms = (old.map(|v| form(shape, v)), new.map(|v| form(shape, v)));
    let is_empty = |v: Option<&Value>| match v {
        None | Some(Value::Null) => true,
        Some(Value::Object(m)) => m.is_empty(),
        Some(Value::Array(a)) => a.is_empty(),
        Some(_) => false,
    };
    let both_empty = is_empty(old) && is_empty(new);
    match forms {
        (Some(Form::Fields(_)), Some(Form::Fields(_)) | None) | (None, Some(Form::Fields(_))) if !both_empty => {
            compare_fields(old, new, shape.inner(), &mut out);
        }
        (Some(Form::Keyed(k, s)), Some(Form::Keyed(..)) | None) | (None, Some(Form::Keyed(k, s))) if !both_empty => {
            compare_elements(old, new, Some(k), s, &mut out);
        }
        (Some(Form::Set), Some(Form::Set) | None) | (None, Some(Form::Set)) if !both_empty => {
            compare_elements(old, new, None, Shape::Any, &mut out);
        }
        _ => {
            match (old, new) {
                (None, _) => out.added.here = true,
                (_, None) => out.removed.here = true,
                (Some(a), Some(b)) => out.modified.here = a != b,
            }
            return out;
        }
    }
    out.added.here |= old.is_none();
    out.removed.here |= new.is_none();
    out
}

fn compare_fields(old: Option<&Value>, new: Option<&Value>, shape: Shape, out: &mut Comparison) {
    let none = Map::new();
    let old = old.and_then(Value::as_object).unwrap_or(&none);
    let new = new.and_then(Value::as_object).unwrap_or(&none);
    for (k, v) in old {
        out.put(&format!("f:{k}"), compare(Some(v), new.get(k), shape.field(k)));
    }
    for (k, v) in new.iter().filter(|(k, _)| !old.contains_key(*k)) {
        out.put(&format!("f:{k}"), compare(None, Some(v), shape.field(k)));
    }
}

fn compare_elements(old: Option<&Value>, new: Option<&Value>, keys: Option<&'static [&'static str]>, s: Shape, out: &mut Comparison) {
    let (old, new) = (by_element(old, keys), by_element(new, keys));
    for (e, a) in &old {
        match (a.as_slice(), new.get(e).map_or([].as_slice(), Vec::as_slice)) {
            ([a], []) => out.put(e, compare(Some(a), None, s)),
            ([a], [b]) => out.put(e, compare(Some(a), Some(b), s)),
            // Elements that stand twice are compared as one.
            (a, b) if a == b => {}
            (_, []) => out.put(e, Comparison { removed: Fields::leaf(), ..Comparison::default() }),
            (_, _) => out.put(e, Comparison { modified: Fields::leaf(), ..Comparison::default() }),
        }
    }
    for (e, b) in new.iter().filter(|(e, _)| !old.contains_key(*e)) {
        match b.as_slice() {
            [b] => out.put(e, compare(None, Some(b), s)),
            _ => out.put(e, Comparison { added: Fields::leaf(), ..Comparison::default() }),
        }
    }
}

fn by_element<'a>(list: Option<&'a Value>, keys: Option<&'static [&'static str]>) -> BTreeMap<String, Vec<&'a Value>> {
    let mut out: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for v in list.and_then(Value::as_array).into_iter().flatten() {
        if let Ok(e) = element(keys, v) {
            out.entry(e).or_default().push(v);
        }
    }
    out
}

/// `live` with `config` over it.
pub fn merge(live: &Value, config: &Value, shape: Shape) -> Value {
    match (form(shape, live), form(shape, config), live, config) {
        (Form::Fields(_), Form::Fields(_), Value::Object(a), Value::Object(b)) => {
            let shape = shape.inner();
            let mut out = a.clone();
            for (k, v) in b {
                let merged = out.get(k).map_or_else(|| v.clone(), |old| merge(old, v, shape.field(k)));
                out.insert(k.clone(), merged);
            }
            Value::Object(out)
        }
        (Form::Keyed(keys, s), Form::Keyed(..), Value::Array(a), Value::Array(b)) => merge_lists(a, b, Some(keys), s),
        (Form::Set, Form::Set, Value::Array(a), Value::Array(b)) => merge_lists(a, b, None, Shape::Any),
        // Nothing said about a list or an object leaves it as it is.
        (Form::Fields(_) | Form::Keyed(..) | Form::Set, _, live, Value::Null) => live.clone(),
        (_, _, _, config) => config.clone(),
    }
}

/// The order of the configuration holds for what is in both; what only the live list has keeps its place.
fn merge_lists(live: &[Value], config: &[Value], keys: Option<&'static [&'static str]>, s: Shape) -> Value {
    let ids = |list: &[Value]| list.iter().map(|v| element(keys, v).unwrap_or_default()).collect::<Vec<_>>();
    let (left, right) = (ids(live), ids(config));
    let in_config: BTreeSet<&String> = right.iter().collect();
    let mut found: BTreeMap<&String, Option<&Value>> = BTreeMap::new();
    for (id, v) in left.iter().zip(live) {
        // Of elements that stand twice, none can be merged with.
        found.entry(id).and_modify(|v| *v = None).or_insert(Some(v));
    }
    let merged = |r: usize| match found.get(&right[r]) {
        Some(Some(old)) => merge(old, &config[r], s),
        _ => config[r].clone(),
    };
    let mut shared: VecDeque<&String> = right.iter().filter(|id| found.contains_key(id)).collect();
    let mut done: BTreeSet<&String> = BTreeSet::new();
    let (mut l, mut r, mut out) = (0, 0, Vec::new());
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() {
            if left[l] == right[r] {
                out.push(merged(r));
                done.insert(&right[r]);
                shared.pop_front();
                (l, r) = (l + 1, r + 1);
                continue;
            }
            if in_config.contains(&left[l]) && shared.front().is_some_and(|next| **next != left[l]) {
                l += 1;
                continue;
            }
        }
        if l < left.len() {
            if !in_config.contains(&left[l]) {
                out.push(live[l].clone());
                l += 1;
                continue;
            }
            if done.contains(&left[l]) {
                l += 1;
            }
        }
        if r < right.len() {
            out.push(merged(r));
            done.insert(&right[r]);
            if shared.front().is_some_and(|next| **next == right[r]) {
                shared.pop_front();
            }
            r += 1;
        }
    }
    Value::Array(out)
}

/// `v` without these fields. What is below a field that has one owner stays.
pub fn without(v: &Value, gone: &Fields, shape: Shape) -> Value {
    match (form(shape, v), v) {
        (Form::Fields(_), Value::Object(m)) => {
            let shape = shape.inner();
            let kept = m.iter().filter_map(|(k, v)| match gone.below.get(&format!("f:{k}")) {
                Some(f) if f.here => None,
                Some(f) => Some((k.clone(), without(v, f, shape.field(k)))),
                None => Some((k.clone(), v.clone())),
            });
            Value::Object(kept.collect())
        }
        (Form::Keyed(keys, s), Value::Array(a)) => without_elements(a, gone, Some(keys), s),
        (Form::Set, Value::Array(a)) => without_elements(a, gone, None, Shape::Any),
        _ => v.clone(),
    }
}

fn without_elements(a: &[Value], gone: &Fields, keys: Option<&'static [&'static str]>, s: Shape) -> Value {
    let kept = a.iter().filter_map(|v| match element(keys, v).ok().and_then(|e| gone.below.get(&e)) {
        Some(f) if f.here => None,
        Some(f) => Some(without(v, f, s)),
        None => Some(v.clone()),
    });
    Value::Array(kept.collect())
}

/// The set with the named fields in it that are only on the way to others.
pub fn with_named(set: &Fields, shape: Shape) -> Fields {
    let mut out = Fields { here: set.here, below: BTreeMap::new() };
    for (e, f) in &set.below {
        let (inner, named) = match e.strip_prefix("f:") {
            Some(name) => (shape.field(name), is_named(shape, name)),
            None => match shape.inner() {
                Shape::Keyed(_, s) => (*s, false),
                _ => (Shape::Any, false),
            },
        };
        let mut f = with_named(f, inner);
        f.here |= named;
        out.put(e.clone(), f);
    }
    out
}
