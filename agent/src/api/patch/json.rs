//! JSON patch (RFC 6902), as API servers carry it out.
//!
//! Where they are more lenient than the RFC this follows them: a replaced or copied member need not
//! exist, and an index may count from the end. Tests: `tests/json.rs`.

use super::{MOST_BYTES, MOST_DEPTH, deeper_than};
use crate::api::Failure;
use serde_json::{Map, Value};

/// The most operations of one patch, as upstream.
pub const MOST_OPERATIONS: usize = 10_000;

const MISSING: &str = "missing value";
const BAD_INDEX: &str = "invalid index detected";
const TEST_FAILED: &str = "test failed";

/// What went wrong with one operation, in the words of the library that API servers use.
type Outcome<T> = Result<T, String>;

/// Bounds what a small patch may make of itself.
struct Budget {
    /// Bytes that copies have added.
    copied: usize,
    /// Bytes that moves have looked at.
    moved: usize,
}

/// Moves make nothing larger; this bounds the time that they take.
const MOST_MOVED: usize = 64 * MOST_BYTES;

/// `live` with the operations carried out, or nothing of them.
pub fn apply(live: &Value, patch: &Value) -> Result<Value, Failure> {
    let Value::Array(operations) = patch else {
        return Err(Failure::bad_request("error decoding patch: a JSON patch is a list of operations"));
    };
    if operations.len() > MOST_OPERATIONS {
        let message = format!("The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {}", operations.len());
        return Err(Failure::too_large(&message));
    }
    let mut doc = live.clone();
    let mut budget = Budget { copied: 0, moved: 0 };
    for o in operations {
        let Value::Object(o) = o else {
            return Err(Failure::bad_request("error decoding patch: an operation is an object with op and path"));
        };
        operate(&mut doc, o, &mut budget).map_err(Failure::unprocessable)?;
    }
    Ok(doc)
}

fn operate(doc: &mut Value, o: &Map<String, Value>, budget: &mut Budget) -> Outcome<()> {
    let op = o.get("op").and_then(Value::as_str).unwrap_or("unknown");
    let text = |key: &str| o.get(key).and_then(Value::as_str).ok_or_else(|| format!("{op} operation failed to decode {key}: {MISSING}"));
    let value = || o.get("value").cloned().unwrap_or(Value::Null);
    match op {
        "add" => add(doc, text("path")?, value(), op),
        "remove" => remove(doc, text("path")?).map(drop),
        "replace" => replace(doc, text("path")?, value()),
        "test" => test(doc, text("path")?, &value()),
        "move" => {
            let (from, path) = (text("from")?, text("path")?);
            let v = get(doc, from, op, "from")?.cloned().unwrap_or(Value::Null);
            remove(doc, from).map_err(|e| format!("error in move for path: '{from}': {e}"))?;
            charge(&v, &mut budget.moved, MOST_MOVED)?;
            add(doc, path, v, op)
        }
        "copy" => {
            let v = get(doc, text("from")?, op, "from")?.cloned().unwrap_or(Value::Null);
            charge(&v, &mut budget.copied, MOST_BYTES)?;
            add(doc, text("path")?, v, op)
        }
        other => Err(format!("Unexpected kind: {other}")),
    }
}

/// Ten thousand copies of copies would fill the memory.
fn charge(v: &Value, spent: &mut usize, most: usize) -> Outcome<()> {
    *spent = spent.saturating_add(size(v, most));
    if *spent > most {
        return Err(format!("Unable to complete the copy, the accumulated size increase of copy is {spent}, exceeding the limit {most}"));
    }
    Ok(())
}

/// About the bytes of a value when written; `most` or more: it has been looked at no further.
fn size(v: &Value, most: usize) -> usize {
    match v {
        Value::String(s) => s.len() + 2,
        Value::Array(a) => a.iter().fold(2, |n, v| if n >= most { n } else { n + 1 + size(v, most - n) }),
        Value::Object(m) => m.iter().fold(2, |n, (k, v)| if n >= most { n } else { n + 4 + k.len() + size(v, most - n) }),
        _ => 8,
    }
}

fn unescape(token: &str) -> String {
    // In this order: `~01` is `~1`, not `/`.
    token.replace("~1", "/").replace("~0", "~")
}

/// The container that a pointer's last token is in, and that token.
fn find<'v>(doc: &'v mut Value, path: &str) -> Option<(&'v mut Value, String)> {
    let tokens: Vec<&str> = path.split('/').skip(1).collect();
    let (last, parents) = tokens.split_last()?;
    if tokens.len() > MOST_DEPTH {
        return None;
    }
    let mut at = doc;
    for token in parents {
        at = match at {
            Value::Object(m) => m.get_mut(&unescape(token))?,
            Value::Array(a) => {
                let i = index(&unescape(token), a.len(), a.len()).ok()?;
                a.get_mut(i)?
            }
            _ => return None,
        };
    }
    (at.is_object() || at.is_array()).then(|| (at, unescape(last)))
}

/// An index into a list of `len`; counted from the end of `span` when negative.
fn index(token: &str, len: usize, span: usize) -> Outcome<usize> {
    let n: i64 = token.parse().map_err(|_| format!("value was not a proper array index: '{token}'"))?;
    let bad = || format!("Unable to access invalid index: {n}: {BAD_INDEX}");
    let at = if n < 0 { span.checked_sub(usize::try_from(n.unsigned_abs()).map_err(|_| bad())?) } else { usize::try_from(n).ok() };
    at.filter(|i| *i < len).ok_or_else(bad)
}

fn missing(op: &str, what: &str, path: &str) -> String {
    format!("{op} operation does not apply: doc is missing {what}: \"{path}\": {MISSING}")
}

/// None: the container has no such member.
fn get<'v>(doc: &'v mut Value, path: &str, op: &str, what: &str) -> Outcome<Option<&'v Value>> {
    let (at, key) = find(doc, path).ok_or_else(|| missing(op, &format!("{what} path"), path))?;
    match at {
        Value::Object(m) => Ok(m.get(&key)),
        Value::Array(a) => {
            let i = index(&key, a.len(), a.len()).map_err(|e| format!("error in {op} for path: '{path}': {e}"))?;
            Ok(a.get(i))
        }
        _ => Ok(None),
    }
}

fn add(doc: &mut Value, path: &str, v: Value, op: &str) -> Outcome<()> {
    let what = if op == "add" { "path" } else { "destination path" };
    let depth = path.split('/').count();
    if deeper_than(&v, MOST_DEPTH.saturating_sub(depth)) {
        return Err(format!("error in {op} for path: '{path}': deeper than {MOST_DEPTH} levels"));
    }
    let (at, key) = find(doc, path).ok_or_else(|| missing(op, what, path))?;
    match at {
        Value::Object(m) => {
            m.insert(key, v);
        }
        Value::Array(a) if key == "-" => a.push(v),
        Value::Array(a) => {
            let span = a.len() + 1;
            let i = index(&key, span, span).map_err(|e| format!("error in {op} for path: '{path}': {e}"))?;
            a.insert(i, v);
        }
        _ => return Err(missing(op, what, path)),
    }
    Ok(())
}

fn remove(doc: &mut Value, path: &str) -> Outcome<Value> {
    let (at, key) = find(doc, path).ok_or_else(|| missing("remove", "path", path))?;
    match at {
        Value::Object(m) => m.remove(&key).ok_or_else(|| format!("Unable to remove nonexistent key: {key}: {MISSING}")),
        Value::Array(a) => index(&key, a.len(), a.len()).map(|i| a.remove(i)),
        _ => Err(missing("remove", "path", path)),
    }
    .map_err(|e| format!("error in remove for path: '{path}': {e}"))
}

fn replace(doc: &mut Value, path: &str, v: Value) -> Outcome<()> {
    if deeper_than(&v, MOST_DEPTH.saturating_sub(path.split('/').count())) {
        return Err(format!("error in replace for path: '{path}': deeper than {MOST_DEPTH} levels"));
    }
    if path.is_empty() {
        if !v.is_object() {
            return Err("replace operation value must be object or array".into());
        }
        *doc = v;
        return Ok(());
    }
    let (at, key) = find(doc, path).ok_or_else(|| missing("replace", "path", path))?;
    match at {
        // An API server adds what is not there.
        Value::Object(m) => {
            m.insert(key, v);
        }
        Value::Array(a) => {
            let i = index(&key, a.len(), a.len()).map_err(|_| missing("replace", "key", path))?;
            a[i] = v;
        }
        _ => return Err(missing("replace", "path", path)),
    }
    Ok(())
}

fn test(doc: &mut Value, path: &str, wanted: &Value) -> Outcome<()> {
    let same = if path.is_empty() {
        doc == wanted
    } else {
        // Null and absent are the same.
        get(doc, path, "test", "")?.unwrap_or(&Value::Null) == wanted
    };
    if same { Ok(()) } else { Err(format!("testing value {path} failed: {TEST_FAILED}")) }
}
