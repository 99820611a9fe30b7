//! Lists: whole or in pieces, selected, as objects or as tables.

use super::{Answer, Api, json, reply, serve};
use crate::api::print::{self, Form, Include};
use crate::api::request::Request;
use crate::api::selector::{Fields, Labels};
use crate::api::store::Name;
use crate::api::{Failure, Query};
use crate::run::clock;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where the next piece begins.
#[derive(Serialize, Deserialize)]
struct Continue {
    v: String,
    /// Of the first piece: a watch from there sees whatever changed between the pieces.
    rv: u64,
    ns: String,
    name: String,
}

/// The two selectors of a request.
pub struct Selection {
    labels: Labels,
    fields: Fields,
}

impl Selection {
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }

    /// An object as the store has it.
    pub fn takes(&self, bytes: &Bytes) -> bool {
        self.is_everything() || serde_json::from_slice(bytes).is_ok_and(|o| self.matches(&o))
    }
}

/// A watch of one object is a watch with its name selected.
pub fn selection(r: &Request, query: &Query) -> Result<Selection, Failure> {
    let row = r.resource.row();
    let mut fields = query.get("fieldSelector").unwrap_or_default().to_owned();
    if !r.name.is_empty() {
        let comma = if fields.is_empty() { "" } else { "," };
        fields = format!("{fields}{comma}metadata.name={}", r.name);
    }
    let labels = Labels::parse(query.get("labelSelector").unwrap_or_default())?;
    Ok(Selection { labels, fields: Fields::parse(&fields, &row.api_version(), row.kind)? })
}

pub fn list(api: &Api, r: &Request, query: &Query, form: Form) -> Answer {
    let selection = selection(r, query)?;
    let from = query.get("continue").map(read).transpose()?;
    let store = api.store();
    known(query, store.revision())?;
    let limit = query.number("limit")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let revision = from.as_ref().map_or(store.revision(), |f| f.rv);
    let after = from.map(|f| Name::new(&f.ns, &f.name));
    let namespace = (!r.namespace.is_empty()).then_some(r.namespace.as_str());
    let mut found: Vec<Bytes> = Vec::new();
    let mut more = None;
    let mut last: Option<&Name> = None;
    let mut rest = 0;
    for (name, entry) in store.list(r.resource.kept(), namespace, after.as_ref()) {
        if !selection.takes(&entry.bytes) {
            continue;
        }
        if limit.is_some_and(|l| found.len() == l) {
            more = more.or(last.map(|n| write(n, revision)));
            rest += 1;
            continue;
        }
        found.push(entry.bytes.clone());
        last = Some(name);
    }
    let remaining = if more.is_some() && selection.is_everything() { Some(rest) } else { None };
    let mut metadata = serde_json::json!({"resourceVersion": revision.to_string()});
    if let Some(token) = more {
        metadata["continue"] = token.into();
        if let Some(n) = remaining {
            metadata["remainingItemCount"] = n.into();
        }
    }
    Ok(match form {
        Form::Whole | Form::Aggregated if r.resource == r.resource.kept() => reply::bytes(joined(r, &metadata, &found)),
        _ => formed(r, query, form, &metadata, &found),
    })
}

/// The list around items that are JSON already.
fn joined(r: &Request, metadata: &Value, items: &[Bytes]) -> Vec<u8> {
    let row = r.resource.row();
    let size = items.iter().map(|i| i.len() + 1).sum::<usize>();
    let mut out = Vec::with_capacity(size + 256);
    let head = format!(r#"{{"kind":"{}List","apiVersion":"{}","metadata":{metadata},"items":["#, row.kind, row.api_version());
    out.extend_from_slice(head.as_bytes());
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
    out.extend_from_slice(b"]}");
    out
}

fn formed(r: &Request, query: &Query, form: Form, metadata: &Value, items: &[Bytes]) -> hyper::Response<super::Reply> {
    let read = |b: &Bytes| {
        let mut object: Value = serde_json::from_slice(b).expect("written by the store");
        serve::face(r, &mut object);
        object
    };
    let objects: Vec<Value> = items.iter().map(read).collect();
    let revision = metadata["resourceVersion"].as_str().unwrap_or_default();
    let mut answer = match form {
        Form::Table => {
            let include = Include::parse(query.get("includeObject"));
            print::table(r.resource, objects, revision, include, true, clock::now().wall)
        }
        Form::Metadata => print::metadata_list(&objects, revision),
        Form::Whole | Form::Aggregated => {
            let row = r.resource.row();
            serde_json::json!({"kind": format!("{}List", row.kind), "apiVersion": row.api_version(), "items": objects})
        }
    };
    answer["metadata"] = metadata.clone();
    json(&answer)
}

/// A client may know a revision that this server has not seen yet, after a restart with a clock that went back.
pub fn known(query: &Query, revision: u64) -> Result<(), Failure> {
    let wanted = wanted(query)?;
    let exact = query.get("resourceVersionMatch") == Some("Exact");
    if wanted > revision {
        let mut f = Failure::new(504, "Timeout", format!("Too large resource version: {wanted}, current: {revision}"));
        f.details = Some(Box::new(crate::api::failure::Details { retry_after_seconds: 1, ..Default::default() }));
        return Err(f);
    }
    if exact && wanted != revision {
        return Err(expired(wanted));
    }
    Ok(())
}

/// The revision that a request names; 0: none.
pub fn wanted(query: &Query) -> Result<u64, Failure> {
    let text = query.get("resourceVersion").unwrap_or("0");
    text.parse().map_err(|_| Failure::bad_request(format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax")))
}

fn write(last: &Name, revision: u64) -> String {
    let token = Continue { v: "longshore/v1".into(), rv: revision, ns: last.namespace.to_string(), name: last.name.to_string() };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).expect("plain data serialises"))
}

fn read(token: &str) -> Result<Continue, Failure> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let token = bytes.and_then(|b| serde_json::from_slice::<Continue>(&b).ok()).filter(|c| c.v == "longshore/v1");
    token.ok_or_else(|| Failure::bad_request("continue key is not valid: take it as the last list gave it"))
}

/// What happened since is forgotten.
pub fn expired(revision: u64) -> Failure {
    Failure::expired(format!("too old resource version: {revision}"))
}
