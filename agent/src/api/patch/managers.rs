//! `metadata.managedFields`: who owns which fields of an object.
//!
//! Must never decide who gets a field; `apply` does. Tests: `tests/apply.rs`.

use super::fields::Fields;
use crate::time::Wall;
use serde_json::{Map, Value, json};

/// More managers that update than these are merged into one.
const MOST_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// Who owns fields: appliers of any version are one, updaters are one for each version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    pub name: String,
    pub applies: bool,
    /// Of an applier, the version that it applied last.
    pub api_version: String,
    pub subresource: String,
}

impl Manager {
    pub fn same(&self, other: &Manager) -> bool {
        let same_version = self.applies || self.api_version == other.api_version;
        self.name == other.name && self.applies == other.applies && self.subresource == other.subresource && same_version
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub manager: Manager,
    pub time: Option<String>,
    pub fields: Fields,
}

/// What the list of an object says. None: it is no such list.
pub fn read(list: &Value) -> Option<Vec<Entry>> {
    list.as_array()?.iter().map(entry).collect()
}

fn entry(v: &Value) -> Option<Entry> {
    let text = |key: &str| v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let applies = match text("operation").as_str() {
        "Apply" => true,
        "Update" => false,
        _ => return None,
    };
    if text("apiVersion").is_empty() || text("fieldsType") != "FieldsV1" {
        return None;
    }
    let empty = json!({});
    let fields = Fields::from_value(v.get("fieldsV1").filter(|f| !f.is_null()).unwrap_or(&empty))?;
    let manager = Manager { name: text("manager"), applies, api_version: text("apiVersion"), subresource: text("subresource") };
    let time = v.get("time").and_then(Value::as_str).map(str::to_owned);
    Some(Entry { manager, time, fields })
}

/// The list as it is stored: appliers first, then by time and name. None: nobody owns anything.
pub fn write(mut entries: Vec<Entry>) -> Option<Value> {
    entries.retain(|e| !e.fields.is_empty());
    if entries.is_empty() {
        return None;
    }
    entries.sort_by_cached_key(|e| {
        let m = &e.manager;
        (!m.applies, seconds(e), m.name.clone(), m.api_version.clone(), m.subresource.clone())
    });
    Some(Value::Array(entries.into_iter().map(written).collect()))
}

fn seconds(e: &Entry) -> i64 {
    e.time.as_deref().and_then(Wall::parse_rfc3339).map_or(0, Wall::seconds)
}

fn written(e: Entry) -> Value {
    let mut m = Map::new();
    let mut put = |k: &str, v: String| {
        if !v.is_empty() {
            m.insert(k.into(), Value::String(v));
        }
    };
    put("manager", e.manager.name);
    put("operation", if e.manager.applies { "Apply" } else { "Update" }.into());
    put("apiVersion", e.manager.api_version);
    put("time", e.time.unwrap_or_default());
    put("fieldsType", "FieldsV1".into());
    put("subresource", e.manager.subresource);
    m.insert("fieldsV1".into(), e.fields.to_value());
    Value::Object(m)
}

/// Merges the oldest updaters when there are too many, those of one version with each other.
pub fn cap(entries: &mut Vec<Entry>) {
    let mut updaters: Vec<Entry> = Vec::new();
    entries.retain(|e| {
        if !e.manager.applies {
            updaters.push(e.clone());
        }
        e.manager.applies
    });
    updaters.sort_by_key(|e| (seconds(e), e.manager.name.clone()));
    let mut first: Vec<Entry> = Vec::new();
    let mut count = updaters.len();
    for e in updaters {
        let oldest = first.iter_mut().find(|f| f.manager.api_version == e.manager.api_version);
        match oldest {
            Some(bucket) if count > MOST_UPDATERS => {
                (bucket.manager.name, bucket.manager.subresource) = (ANCIENT.into(), String::new());
                bucket.fields = bucket.fields.union(&e.fields);
                bucket.time = e.time;
                count -= 1;
            }
            _ => first.push(e),
        }
    }
    entries.append(&mut first);
}
