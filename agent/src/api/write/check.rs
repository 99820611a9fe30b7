//! Shape, defaults and validity of an object that a client sends.

use super::super::resource::{ACCOUNTS, CONFIG_MAPS, Id, PODS, REQUESTS, SECRETS, SERVICES, SLICES};
use super::super::signing;
use super::meta;
use super::{Context, Failure, canonical, refuse};
use crate::manifest::problem::{Fault, FaultKind, Faults, Path};
use crate::manifest::schema::{self, Field, Shape};
use crate::manifest::validate::names;
use crate::manifest::{self};
use serde_json::Value;
use std::collections::BTreeMap;

/// What becomes of fields that nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validation {
    /// Dropped.
    Ignore,
    /// Dropped, and told in a warning.
    #[default]
    Warn,
    /// The request fails.
    Strict,
}

impl Validation {
    pub fn parse(text: &str) -> Result<Validation, Failure> {
        match text {
            "" | "Warn" => Ok(Validation::Warn),
            "Ignore" => Ok(Validation::Ignore),
            "Strict" => Ok(Validation::Strict),
            other => Err(Failure::bad_request(format!("fieldValidation: {other:?} is none of Ignore, Warn, Strict"))),
        }
    }
}

/// The fields of a resource's objects.
pub fn shape_of(id: Id) -> Option<&'static [Field]> {
    let row = id.row();
    schema::shape_of(&row.api_version(), row.kind)
}

/// Whether the object is of the kind, and of the namespace, that the path says.
pub fn belongs(object: &mut Value, id: Id, namespace: &str) -> Result<(), Failure> {
    let row = id.row();
    if !object.is_object() {
        return Err(Failure::bad_request("the body is no object with apiVersion, kind and metadata"));
    }
    let version = row.api_version();
    for (field, wanted) in [("apiVersion", version.as_str()), ("kind", row.kind)] {
        match object.get(field).map(|v| v.as_str().unwrap_or("?")) {
            None | Some("") => object[field] = wanted.into(),
            Some(given) if given == wanted => {}
            Some(given) => {
                let message = format!("the {field} in the data ({given}) does not match the expected {field} ({wanted})");
                return Err(Failure::bad_request(message));
            }
        }
    }
    if !row.namespaced {
        meta::of(object).remove("namespace");
        return Ok(());
    }
    match meta::text(object, "namespace") {
        "" => meta::set(object, "namespace", namespace),
        given if given == namespace => {}
        given => {
            let message =
                format!("the namespace of the provided object does not match the namespace sent on the request ({given}, not {namespace})");
            return Err(Failure::bad_request(message));
        }
    }
    Ok(())
}

/// Takes out what no field is, and says so as the client wishes; gives the warnings.
pub fn shape(object: &mut Value, id: Id, how: Validation) -> Result<Vec<String>, Failure> {
    let Some(fields) = shape_of(id) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    // Only the server writes these, and clients send them back.
    let managed = meta::of(object).remove("managedFields");
    schema::check(object, Shape::Object(fields), &Path::default(), &mut found);
    if let Some(managed) = managed {
        meta::set(object, "managedFields", managed);
    }
    let (unsupported, found): (Vec<Fault>, Vec<Fault>) = found.into_iter().partition(|f| f.kind == FaultKind::NotSupported);
    let (unknown, wrong): (Vec<Fault>, Vec<Fault>) = found.into_iter().partition(|f| f.kind == FaultKind::UnknownField);
    let row = id.row();
    let handled = |what: String| {
        Failure::bad_request(format!("{} in version {:?} cannot be handled as a {}: {what}", row.kind, row.version, row.kind))
    };
    let lists = |faults: &[Fault]| faults.iter().map(|f| format!("{}: {}", f.field, f.message)).collect::<Vec<_>>().join(", ");
    if !wrong.is_empty() {
        return Err(handled(lists(&wrong)));
    }
    let told: Vec<String> = unknown.iter().map(|f| format!("unknown field {:?}", f.field)).collect();
    // A value that is none of those that there are is for validation to refuse.
    if !unsupported.is_empty() && (how != Validation::Strict || told.is_empty()) {
        return Err(refuse::invalid(id, meta::text(object, "name"), &unsupported));
    }
    match how {
        Validation::Strict if !told.is_empty() => Err(handled(format!("strict decoding error: {}", told.join(", ")))),
        Validation::Warn => Ok(told),
        _ => Ok(Vec::new()),
    }
}

/// Fills in defaults, and refuses what an API server refuses.
pub fn complete(object: Value, id: Id, context: &Context) -> Result<Value, Failure> {
    let name = meta::text(&object, "name").to_owned();
    let (mut object, faults) = completed(object, id, context);
    canonical::canonical(&mut object, id);
    if id == SECRETS && faults.iter().any(|f| f.kind == FaultKind::Encoding) {
        let told: Vec<String> = faults.iter().map(|f| format!("{}: {}", f.field, f.message)).collect();
        return Err(Failure::bad_request(format!("Secret in version \"v1\" cannot be handled as a Secret: {}", told.join(", "))));
    }
    if faults.is_empty() { Ok(object) } else { Err(refuse::invalid(id, &name, &faults)) }
}

fn completed(object: Value, id: Id, context: &Context) -> (Value, Vec<Fault>) {
    if !matches!(id, PODS | SERVICES | SLICES | CONFIG_MAPS | SECRETS) {
        let faults = plain(&object, id);
        return (object, faults);
    }
    let (typed, faults) = manifest::complete(object.clone(), &context.rules);
    let Some(typed) = typed else { return (object, faults) };
    let mut object = object;
    match id {
        SECRETS => secret(&mut object),
        CONFIG_MAPS => {}
        _ => {
            let typed = typed.to_value();
            // Metadata and status are no business of the types, which leave parts of them out.
            for (field, value) in typed.as_object().into_iter().flatten().filter(|(f, _)| !matches!(f.as_str(), "metadata" | "status")) {
                overlay(&mut object[field.as_str()], value);
            }
        }
    }
    (object, faults)
}

/// What is in `typed` counts; what the types do not have stays.
fn overlay(object: &mut Value, typed: &Value) {
    match (object, typed) {
        (Value::Object(object), Value::Object(typed)) => {
            for (k, v) in typed {
                overlay(object.entry(k.clone()).or_insert(Value::Null), v);
            }
        }
        (Value::Array(object), Value::Array(typed)) if object.len() == typed.len() => {
            object.iter_mut().zip(typed).for_each(|(o, t)| overlay(o, t));
        }
        (object, typed) => *object = typed.clone(),
    }
}

/// `stringData` is laid over `data`, and the type has a default.
fn secret(object: &mut Value) {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let Some(all) = object.as_object_mut() else { return };
    if let Some(Value::Object(texts)) = all.remove("stringData") {
        let data = all.entry("data").or_insert_with(|| Value::Object(serde_json::Map::new()));
        for (k, v) in texts {
            data[k] = engine.encode(v.as_str().unwrap_or_default()).into();
        }
    }
    let kind = all.entry("type").or_insert(Value::Null);
    if kind.as_str().is_none_or(str::is_empty) {
        *kind = "Opaque".into();
    }
}

/// Metadata of kinds that have no types here.
pub fn plain(object: &Value, id: Id) -> Vec<Fault> {
    let mut out = Faults::default();
    let texts = |field: &str| -> BTreeMap<String, String> {
        let map = object["metadata"][field].as_object();
        map.into_iter().flatten().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
    };
    let rule = match id {
        REQUESTS => names::path_segment,
        _ if id.row().kind == "Namespace" => names::label,
        _ => names::subdomain,
    };
    let namespace = if id.row().namespaced { meta::text(object, "namespace") } else { "default" };
    let (name, generate) = (meta::text(object, "name"), meta::text(object, "generateName"));
    manifest::validate::meta::check(name, generate, namespace, &texts("labels"), &texts("annotations"), rule, &mut out);
    if id == ACCOUNTS && object["secrets"].is_object() {
        out.invalid(&Path::root("secrets"), "object", "must be a list");
    }
    if id == REQUESTS {
        out.0.extend(signing::check(object).0);
    }
    out.0
}
