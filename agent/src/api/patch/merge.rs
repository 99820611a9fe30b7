//! JSON merge patch (RFC 7386). Tests: `tests/merge.rs`.

use crate::api::Failure;
use serde_json::{Map, Value};

pub fn apply(live: &Value, patch: Value) -> Result<Value, Failure> {
    if !patch.is_object() {
        return Err(Failure::bad_request("Invalid JSON Patch"));
    }
    let mut out = live.clone();
    merge(&mut out, patch);
    Ok(out)
}

fn merge(live: &mut Value, patch: Value) {
    match (live, patch) {
        (Value::Object(live), Value::Object(patch)) => {
            for (k, mut v) in patch {
                match live.get_mut(&k) {
                    _ if v.is_null() => {
                        live.remove(&k);
                    }
                    Some(old) => merge(old, v),
                    None => {
                        without_nulls(&mut v);
                        live.insert(k, v);
                    }
                }
            }
        }
        (live, mut patch) => {
            without_nulls(&mut patch);
            *live = patch;
        }
    }
}

/// Takes out members that are null, also of objects within lists, as API servers do.
pub(super) fn without_nulls(v: &mut Value) {
    match v {
        Value::Object(m) => {
            m.retain(|_, v| !v.is_null());
            m.values_mut().for_each(without_nulls);
        }
        Value::Array(a) => a.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// The patch that makes `to` of `from`; both without nulls. For clients that write a whole object.
pub fn diff(from: &Value, to: &Value) -> Value {
    let (Value::Object(a), Value::Object(b)) = (from, to) else { return to.clone() };
    let mut out: Map<String, Value> = a.keys().filter(|k| !b.contains_key(*k)).map(|k| (k.clone(), Value::Null)).collect();
    for (k, v) in b {
        match a.get(k) {
            Some(old) if old == v => {}
            // An empty object in a patch changes nothing, so what it stands in for has to be something else.
            Some(old) if old.is_object() && v.is_object() => {
                out.insert(k.clone(), diff(old, v));
            }
            _ => {
                out.insert(k.clone(), v.clone());
            }
        }
    }
    Value::Object(out)
}
