//! Strategic merge patch: lists are merged by the keys of the kind's shape, and a patch may hold
//! directives (`$patch`, `$retainKeys`, `$setElementOrder/x`, `$deleteFromPrimitiveList/x`).
//!
//! Follows what API servers do, with their words where a client sees them. Tests: `tests/strategic.rs`.

use super::merge::without_nulls;
use super::text::go;
use crate::api::Failure;
use crate::manifest::schema::{Field, Shape};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

pub fn apply(live: &Value, patch: Value, fields: &'static [Field]) -> Result<Value, Failure> {
    let Value::Object(patch) = patch else {
        return Err(Failure::bad_request("error decoding patch: a strategic merge patch is an object"));
    };
    let live = live.as_object().cloned().unwrap_or_default();
    merge_object(live, patch, Shape::Object(fields)).map(Value::Object)
}

fn merge_object(mut live: Object, mut patch: Object, shape: Shape) -> Result<Object, Failure> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(Value::String(d)) if d == "replace" => {
            patch.remove(DIRECTIVE);
            return Ok(plain_object(patch));
        }
        Some(Value::String(d)) if d == "delete" => return Ok(Object::new()),
        Some(other) => return Err(bad_directive(other, &patch)),
    }
    retain(&mut live, &mut patch)?;
    set_orders(&mut live, &mut patch, shape)?;
    for (k, v) in patch {
        if let Some(list) = k.strip_prefix(DELETE) {
            delete_values(&mut live, list, &v)?;
        } else if v.is_null() {
            live.remove(&k);
        } else if let Some(merged) = merge_value(live.remove(&k), v, shape.field(&k))? {
            live.insert(k, merged);
        }
    }
    Ok(live)
}

/// None: the field goes, or stays away.
fn merge_value(live: Option<Value>, patch: Value, shape: Shape) -> Result<Option<Value>, Failure> {
    match (live, patch) {
        (Some(Value::Object(live)), Value::Object(patch)) if matches!(shape, Shape::Replaced(_)) => {
            drop(live);
            Ok(Some(Value::Object(plain_object(patch))))
        }
        (Some(Value::Object(live)), Value::Object(patch)) => merge_object(live, patch, shape).map(|m| Some(Value::Object(m))),
        (Some(Value::Array(live)), Value::Array(patch)) => merge_list(live, patch, shape).map(|l| Some(Value::Array(l))),
        (_, patch) => Ok(plain(patch)),
    }
}

fn bad_directive(d: &Value, of: &Object) -> Failure {
    Failure::unknown(format!("unknown patch type: {} in map: {}", go(d), go(&Value::Object(of.clone()))))
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN || key.starts_with(ORDER) || key.starts_with(DELETE)
}

/// A value that had nothing to be merged with: without nulls and directives. None: it says that it is to go.
fn plain(v: Value) -> Option<Value> {
    let mut v = match v {
        Value::Object(m) if m.contains_key(DIRECTIVE) => return None,
        Value::Object(m) => Value::Object(plain_object(m)),
        Value::Array(a) => Value::Array(a.into_iter().filter_map(plain).collect()),
        other => other,
    };
    without_nulls(&mut v);
    Some(v)
}

fn plain_object(m: Object) -> Object {
    m.into_iter().filter(|(k, v)| !is_directive(k) && !v.is_null()).filter_map(|(k, v)| Some((k, plain(v)?))).collect()
}

/// `$retainKeys`: the names of the fields that may stay, those of the patch among them.
fn retain(live: &mut Object, patch: &mut Object) -> Result<(), Failure> {
    let bad = || Failure::bad_request("invalid patch format of retainKeys");
    let Some(keys) = patch.remove(RETAIN) else { return Ok(()) };
    let Value::Array(keys) = keys else { return Err(bad()) };
    let keys: BTreeSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let told = |(k, v): (&String, &Value)| v.is_null() || is_directive(k) || keys.contains(k.as_str());
    if !patch.iter().all(told) {
        return Err(bad());
    }
    live.retain(|k, _| keys.contains(k.as_str()));
    Ok(())
}

/// `$deleteFromPrimitiveList/x`: values that leave the list x.
fn delete_values(live: &mut Object, list: &str, values: &Value) -> Result<(), Failure> {
    if values.is_null() {
        live.remove(list);
        return Ok(());
    }
    let (Some(Value::Array(l)), Value::Array(values)) = (live.get_mut(list), values) else { return Ok(()) };
    element_kind(l.iter().chain(values))?;
    let gone: BTreeSet<String> = values.iter().map(Value::to_string).collect();
    l.retain(|v| !gone.contains(&v.to_string()));
    Ok(())
}

/// What all elements of a list are; lists may not be in it, nor two kinds of things.
fn element_kind<'a>(values: impl Iterator<Item = &'a Value>) -> Result<Option<&'static str>, Failure> {
    let mut kind = None;
    for v in values {
        let this = match v {
            Value::Null => continue,
            Value::Array(_) => return Err(Failure::unprocessable("lists of lists are not supported")),
            Value::Object(_) => "map",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
        };
        match kind {
            Some(k) if k != this => return Err(Failure::unknown(format!("expected a {k}, but received a {this}"))),
            _ => kind = Some(this),
        }
    }
    Ok(kind)
}

/// How the elements of a list are told apart: by a field, or each by itself.
fn merge_key(shape: Shape) -> Option<&'static str> {
    match shape {
        Shape::Keyed(keys, _) => keys.first().copied(),
        Shape::Atomic(s) | Shape::Retained(s) => merge_key(*s),
        _ => None,
    }
}

fn merges(shape: Shape) -> bool {
    match shape {
        Shape::Keyed(..) | Shape::Set(_) => true,
        Shape::Atomic(s) | Shape::Retained(s) => merges(*s),
        _ => false,
    }
}

fn element(shape: Shape) -> Shape {
    match shape.inner() {
        Shape::Keyed(_, s) | Shape::Set(s) | Shape::List(s) => *s,
        _ => Shape::Any,
    }
}

/// What an element is told apart by, as text.
fn identity(v: &Value, key: Option<&str>) -> Result<String, Failure> {
    let Some(key) = key else { return Ok(v.to_string()) };
    let Value::Object(m) = v else { return Err(Failure::unknown(format!("expected a map, but received {}", go(v)))) };
    match m.get(key) {
        Some(v) => Ok(v.to_string()),
        None => Err(Failure::unknown(format!("map: {} does not contain declared merge key: {key}", go(v)))),
    }
}

/// The same, of elements that the live object happens to have without their key.
fn loose_identity(v: &Value, key: Option<&str>) -> Option<String> {
    match key {
        None => Some(v.to_string()),
        Some(key) => v.get(key).map(Value::to_string),
    }
}

fn merge_list(live: Vec<Value>, patch: Vec<Value>, shape: Shape) -> Result<Vec<Value>, Failure> {
    if !merges(shape) {
        return Ok(patch.into_iter().filter_map(plain).collect());
    }
    let kind = element_kind(live.iter().chain(&patch))?;
    let key = merge_key(shape);
    if kind != Some("map") {
        let order: Vec<String> = patch.iter().map(Value::to_string).collect();
        let mut seen = BTreeSet::new();
        let all: Vec<Value> = live.iter().cloned().chain(patch).filter(|v| seen.insert(v.to_string())).collect();
        return Ok(ordered(all, &order, &live, None));
    }
    if key.is_none() {
        return Err(Failure::unknown("cannot merge lists without merge key"));
    }
    let (live, patch) = special_elements(live, patch, key)?;
    let order = patch.iter().map(|v| identity(v, key)).collect::<Result<Vec<_>, _>>()?;
    let server_order = live.clone();
    let all = merge_elements(live, patch, key, element(shape))?;
    Ok(ordered(all, &order, &server_order, key))
}

/// Carries out `$patch` of elements. Returns what is left of both lists.
fn special_elements(mut live: Vec<Value>, patch: Vec<Value>, key: Option<&str>) -> Result<(Vec<Value>, Vec<Value>), Failure> {
    let (mut rest, mut replace) = (Vec::new(), false);
    let mut gone = BTreeSet::new();
    for v in patch {
        match v.get(DIRECTIVE) {
            None => rest.push(v),
            Some(Value::String(d)) if d == "delete" => {
                gone.insert(identity(&v, key)?);
            }
            Some(Value::String(d)) if d == "replace" => replace = true,
            Some(Value::String(d)) if d == "merge" => {
                return Err(Failure::unknown("merging lists cannot yet be specified in the patch"));
            }
            Some(other) => return Err(bad_directive(other, v.as_object().unwrap_or(&Object::new()))),
        }
    }
    if replace {
        return Ok((rest.into_iter().filter_map(plain).collect(), Vec::new()));
    }
    if !gone.is_empty() {
        live.retain(|v| loose_identity(v, key).is_none_or(|k| !gone.contains(&k)));
    }
    Ok((live, rest))
}

fn merge_elements(mut live: Vec<Value>, patch: Vec<Value>, key: Option<&str>, shape: Shape) -> Result<Vec<Value>, Failure> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (i, v) in live.iter().enumerate() {
        if let Some(k) = loose_identity(v, key) {
            places.entry(k).or_insert(i);
        }
    }
    for v in patch {
        let id = identity(&v, key)?;
        match (places.get(&id), v) {
            (Some(i), Value::Object(patch)) => {
                let old = match live[*i].take() {
                    Value::Object(m) => m,
                    _ => Object::new(),
                };
                live[*i] = Value::Object(merge_object(old, patch, shape)?);
            }
            (_, v) => {
                places.insert(id, live.len());
                live.extend(plain(v));
            }
        }
    }
    Ok(live)
}

/// Elements that the patch speaks of stand in its order, those that it does not where they stood before
/// them, as far as both can be had.
fn ordered(all: Vec<Value>, order: &[String], live: &[Value], key: Option<&str>) -> Vec<Value> {
    let rank: BTreeMap<&String, usize> = order.iter().enumerate().rev().map(|(i, k)| (k, i)).collect();
    let mut before: BTreeMap<String, usize> = BTreeMap::new();
    for (i, v) in live.iter().enumerate() {
        before.entry(loose_identity(v, key).unwrap_or_default()).or_insert(i);
    }
    let place = |v: &Value| loose_identity(v, key).and_then(|k| before.get(&k).copied());
    let ranked = |v: &Value| loose_identity(v, key).and_then(|k| rank.get(&k).copied());
    let (mut told, mut others): (Vec<Value>, Vec<Value>) = all.into_iter().partition(|v| ranked(v).is_some());
    told.sort_by_key(|v| ranked(v));
    others.sort_by_key(|v| place(v).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(told.len() + others.len());
    let (mut told, mut others) = (told.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(o), Some(t)) = (others.peek(), told.peek()) {
        let first = matches!((place(o), place(t)), (Some(o), Some(t)) if o < t);
        out.extend(if first { others.next() } else { told.next() });
    }
    out.extend(told);
    out.extend(others);
    out
}

/// `$setElementOrder/x`: merges the list x and puts it in order.
fn set_orders(live: &mut Object, patch: &mut Object, shape: Shape) -> Result<(), Failure> {
    let orders: Vec<String> = patch.keys().filter(|k| k.starts_with(ORDER)).cloned().collect();
    for directive in orders {
        let Some(order) = patch.remove(&directive) else { continue };
        let list = directive.trim_start_matches(ORDER);
        let Value::Array(order) = order else { return Err(not_a_list(&order)) };
        let shape = shape.field(list);
        let key = merge_key(shape);
        let old = match live.get(list) {
            None => None,
            Some(Value::Array(a)) => Some(a.clone()),
            Some(other) => return Err(not_a_list(other)),
        };
        let new = match patch.remove(list) {
            None => None,
            Some(Value::Array(a)) => Some(a),
            Some(other) => return Err(not_a_list(&other)),
        };
        let order = order.iter().map(|v| identity(v, key)).collect::<Result<Vec<_>, _>>()?;
        follows(new.as_deref().unwrap_or_default(), &order, key)?;
        let merged = match (&old, new) {
            (None, None) => continue,
            (Some(old), None) => old.clone(),
            (None, Some(new)) => new.into_iter().filter_map(plain).collect(),
            (Some(old), Some(new)) => merge_list(old.clone(), new, shape)?,
        };
        live.insert(list.to_owned(), Value::Array(ordered(merged, &order, &old.unwrap_or_default(), key)));
    }
    Ok(())
}

fn not_a_list(v: &Value) -> Failure {
    Failure::unknown(format!("expected a []interface {{}}, but received {}", go(v)))
}

/// The elements of the patch have to stand in the order that they are to have.
fn follows(patch: &[Value], order: &[String], key: Option<&str>) -> Result<(), Failure> {
    if order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for v in patch.iter().filter(|v| v.get(DIRECTIVE).is_none()) {
        let id = identity(v, key)?;
        if !rest.any(|o| *o == id) {
            let list = go(&Value::Array(patch.to_vec()));
            let order = order.join(" ");
            return Err(Failure::unknown(format!("The order in patch list:\n{list}\n doesn't match $setElementOrder list:\n[{order}]\n")));
        }
    }
    Ok(())
}
