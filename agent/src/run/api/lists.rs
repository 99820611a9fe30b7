//! Lists: whole or in pieces, selected, as objects or as tables.

use super::{Answer, Api, json, reply, serve, writes};
use crate::api::print::{self, Form, Include};
use crate::api::request::Request;
use crate::api::selector::{Fields, Labels};
use crate::api::store::Name;
use crate::api::{Failure, Query};
use crate::manifest::problem::{Faults, Path};
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
    /// Of the first piece: all pieces show what was there then. Or [`NOW`].
    rv: u64,
    ns: String,
    name: String,
}

/// In the place of a revision: what is there when it is asked for.
const NOW: u64 = 0;

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
    let limit = query.number("limit")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let store = api.store();
    let (revision, after) = begins(query, limit.is_some(), store.revision())?;
    let namespace = (!r.namespace.is_empty()).then_some(r.namespace.as_str());
    let mut piece = Piece { selection: &selection, limit, found: Vec::new(), last: None, rest: 0 };
    if revision == store.revision() {
        store.list(r.resource.kept(), namespace, after.as_ref()).for_each(|(name, entry)| piece.take(name, &entry.bytes));
    } else {
        let then = store.at(r.resource.kept(), revision, namespace, after.as_ref());
        let then = then.map_err(|_| after.as_ref().map_or_else(too_old, out_of_step))?;
        then.iter().for_each(|(name, bytes)| piece.take(name, bytes));
    }
    let mut metadata = serde_json::json!({"resourceVersion": revision.to_string()});
    if let Some(last) = piece.last.filter(|_| piece.rest > 0) {
        metadata["continue"] = write(&last, revision).into();
        if selection.is_everything() {
            metadata["remainingItemCount"] = piece.rest.into();
        }
    }
    let found = piece.found;
    Ok(match form {
        Form::Whole | Form::Aggregated if r.resource == r.resource.kept() => reply::bytes(joined(r, &metadata, &found)),
        _ => formed(r, query, form, &metadata, &found),
    })
}

/// What is selected, up to a limit.
struct Piece<'a> {
    selection: &'a Selection,
    limit: Option<usize>,
    found: Vec<Bytes>,
    last: Option<Name>,
    /// What did not fit in.
    rest: usize,
}

impl Piece<'_> {
    fn take(&mut self, name: &Name, bytes: &Bytes) {
        if !self.selection.takes(bytes) {
            return;
        }
        if self.limit.is_some_and(|l| self.found.len() == l) {
            self.rest += 1;
            return;
        }
        self.found.push(bytes.clone());
        if self.limit == Some(self.found.len()) {
            self.last = Some(name.clone());
        }
    }
}

/// At which revision a list is, and behind which object it begins.
fn begins(query: &Query, limited: bool, current: u64) -> Result<(u64, Option<Name>), Failure> {
    options(query)?;
    let wanted = wanted(query)?;
    if let Some(token) = query.get("continue") {
        if wanted > 0 {
            return Err(Failure::bad_request("specifying resource version is not allowed when using continue"));
        }
        let from = read(token)?;
        known(from.rv, current)?;
        return Ok((if from.rv == NOW { current } else { from.rv }, Some(Name::new(&from.ns, &from.name))));
    }
    known(wanted, current)?;
    // A list in pieces has always been at the revision that is named.
    let exact = query.get("resourceVersionMatch").map_or(limited, |m| m == "Exact");
    Ok((if exact && wanted > 0 { wanted } else { current }, None))
}

/// Which of the options go together.
fn options(query: &Query) -> Result<(), Failure> {
    let refuse = |tell: &dyn Fn(&mut Faults)| Err(writes::options_invalid("ListOptions", "meta.k8s.io", tell));
    if query.get("sendInitialEvents").is_some() {
        return refuse(&|f| f.forbidden(&Path::root("sendInitialEvents"), "sendInitialEvents is forbidden for list"));
    }
    let path = Path::root("resourceVersionMatch");
    let Some(wish) = query.get("resourceVersionMatch") else { return Ok(()) };
    match (wish, query.get("resourceVersion")) {
        (_, None) => refuse(&|f| f.forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided")),
        _ if query.get("continue").is_some() => {
            refuse(&|f| f.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"))
        }
        ("Exact", Some("0")) => refuse(&|f| f.forbidden(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")),
        ("Exact" | "NotOlderThan", _) => Ok(()),
        (other, _) => refuse(&|f| f.unsupported(&path, other, &["Exact", "NotOlderThan"])),
    }
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
pub fn known(wanted: u64, current: u64) -> Result<(), Failure> {
    if wanted <= current {
        return Ok(());
    }
    let mut f = Failure::new(504, "Timeout", format!("Too large resource version: {wanted}, current: {current}"));
    f.details = Some(Box::new(crate::api::failure::Details { retry_after_seconds: 1, ..Default::default() }));
    Err(f)
}

/// The revision that a request names; 0: none.
pub fn wanted(query: &Query) -> Result<u64, Failure> {
    let text = query.get("resourceVersion").unwrap_or("0");
    text.parse().map_err(|_| {
        Failure::bad_request(format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"))
    })
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

/// What was there then is forgotten.
fn too_old() -> Failure {
    Failure::expired("The resourceVersion for the provided list is too old.")
}

/// What was there when the list began is forgotten. Who does not mind can go on with what is there now.
fn out_of_step(after: &Name) -> Failure {
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
        the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with \
        the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the \
        first chunk was returned and now may show up in the list.";
    Failure { resume: Some(write(after, NOW).into()), ..Failure::expired(message) }
}

/// What happened since is forgotten.
pub fn expired(revision: u64) -> Failure {
    Failure::expired(format!("too old resource version: {revision}"))
}
