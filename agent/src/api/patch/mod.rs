//! Patches: what becomes of an object when a client sends a part of it.
//!
//! Owns the four kinds of patch that the API has, and who owns which field (`metadata.managedFields`).
//! Must never default, validate or store: the caller does that with the result. Objects come in as the
//! API serves them. Tests: `tests/`, and `agent/tests/fuzz_patches.rs`.

pub mod apply;
mod fields;
pub mod json;
mod managers;
pub mod merge;
pub mod strategic;
mod text;
mod typed;

#[cfg(test)]
mod tests;

pub use apply::{Editor, manager_of, track};

use super::Failure;
use crate::manifest::schema::Field;
use serde_json::Value;

/// The most bytes of one patch, and of what copies within one may add (3 MiB, as upstream).
pub const MOST_BYTES: usize = 3 << 20;
/// The most levels of lists and objects within each other.
pub const MOST_DEPTH: usize = 100;

/// The kinds of patch, by their content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchKind {
    const ALL: [PatchKind; 4] = [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply];

    pub fn content_type(self) -> &'static str {
        match self {
            PatchKind::Json => "application/json-patch+json",
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::Strategic => "application/strategic-merge-patch+json",
            PatchKind::Apply => "application/apply-patch+yaml",
        }
    }

    /// 415 for a type that is none, or not of this kind of object (`shaped`: it has a table of fields).
    pub fn from_content_type(text: &str, shaped: bool) -> Result<PatchKind, Failure> {
        let text = text.split(';').next().unwrap_or_default();
        let known = || PatchKind::ALL.into_iter().filter(|k| shaped || *k != PatchKind::Strategic);
        known().find(|k| k.content_type() == text).ok_or_else(|| {
            let accepted: Vec<&str> = known().map(PatchKind::content_type).collect();
            Failure::unsupported_media_type(&accepted)
        })
    }
}

/// `live` as the patch makes it; of an apply with its `metadata.managedFields`, which for the other kinds
/// [`track`] brings up to date once the result has been defaulted. Null as `live`: there is no such object
/// yet, which only an apply can change.
pub fn apply(kind: PatchKind, live: &Value, body: &[u8], shape: Option<&'static [Field]>, editor: &Editor<'_>) -> Result<Value, Failure> {
    if body.len() > MOST_BYTES {
        return Err(Failure::too_large(&format!("limit is {MOST_BYTES}")));
    }
    let patch = read(kind, body)?;
    if kind != PatchKind::Json && deeper_than(&patch, MOST_DEPTH) {
        return Err(Failure::bad_request(format!("error decoding patch: deeper than {MOST_DEPTH} levels")));
    }
    match (kind, shape) {
        (PatchKind::Json, _) => json::apply(live, &patch),
        (PatchKind::Merge, _) => merge::apply(live, patch),
        (PatchKind::Strategic, Some(fields)) => strategic::apply(live, patch, fields),
        (PatchKind::Strategic, None) => Err(PatchKind::from_content_type(kind.content_type(), false).err().unwrap_or_default()),
        (PatchKind::Apply, fields) => apply::apply(live, &patch, fields.unwrap_or_default(), editor),
    }
}

fn read(kind: PatchKind, body: &[u8]) -> Result<Value, Failure> {
    if kind != PatchKind::Apply {
        return serde_json::from_slice(body).map_err(|e| Failure::bad_request(format!("error decoding patch: {e}")));
    }
    let bad = |e: &str| Failure::bad_request(format!("error decoding YAML: {e}"));
    let text = std::str::from_utf8(body).map_err(|e| bad(&e.to_string()))?;
    let mut documents = crate::manifest::text::documents(text).into_iter();
    match (documents.next(), documents.next()) {
        (Some(d), None) => d.content.map_err(|m| bad(&m.message)),
        (None, _) => Err(bad("the body is empty")),
        (Some(_), Some(_)) => Err(bad("the body has more than one document")),
    }
}

/// Whether a value has more levels than `most`.
pub fn deeper_than(v: &Value, most: usize) -> bool {
    match v {
        Value::Object(m) => most == 0 || m.values().any(|v| deeper_than(v, most - 1)),
        Value::Array(a) => most == 0 || a.iter().any(|v| deeper_than(v, most - 1)),
        _ => false,
    }
}
