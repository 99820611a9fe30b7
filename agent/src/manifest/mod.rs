#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Manifests: texts to objects, with the API server's defaulting.
//!
//! Must never read a file; `run::sources::manifests` does.

pub mod default;

use crate::pod::{ConfigData, Pod, Referent};
use longshore_dataplane::wire::{EndpointSlice, Service};
use serde_json::Value;
use std::collections::BTreeMap;

/// One object of a manifest.
#[derive(Clone, Debug)]
pub enum Object {
    Pod(Box<Pod>),
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    Config { kind: Referent, namespace: String, name: String, data: ConfigData },
}

/// What is wrong with a manifest, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// Counted from 1; 0: the file as a whole.
    pub document: usize,
    /// `spec.containers[0].image`; empty: the document as a whole.
    pub field: String,
    pub message: String,
}

/// Reads one file's text. Objects that are good stand beside the problems of those that are not.
pub fn read(file: &str, text: &str) -> (Vec<Object>, Vec<Problem>) {
    let (mut objects, mut problems) = (Vec::new(), Vec::new());
    let options = serde_saphyr::options! { legacy_octal_numbers: true, strict_booleans: false };
    let documents: Vec<Value> = match serde_saphyr::from_multiple_with_options(text, options) {
        Ok(d) => d,
        Err(e) => {
            problems.push(Problem { file: file.into(), document: 0, field: String::new(), message: e.to_string() });
            return (objects, problems);
        }
    };
    for (i, mut d) in documents.into_iter().enumerate() {
        strip_nulls(&mut d);
        if d.is_null() {
            continue;
        }
        match object(d) {
            Ok(o) => objects.extend(o),
            Err((field, message)) => problems.push(Problem { file: file.into(), document: i + 1, field, message }),
        }
    }
    (objects, problems)
}

fn strip_nulls(v: &mut Value) {
    match v {
        Value::Object(m) => {
            m.retain(|_, v| !v.is_null());
            m.values_mut().for_each(strip_nulls);
        }
        Value::Array(a) => a.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

type Fault = (String, String);

fn typed<T: serde::de::DeserializeOwned>(v: Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(v).map_err(|e| (e.path().to_string(), e.inner().to_string()))
}

fn object(v: Value) -> Result<Vec<Object>, Fault> {
    let kind = v.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(match kind.as_str() {
        "List" => {
            let items = v.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            let mut out = Vec::new();
            for item in items {
                out.extend(object(item)?);
            }
            out
        }
        "Pod" => {
            let mut pod: Pod = typed(v)?;
            default::pod(&mut pod);
            vec![Object::Pod(Box::new(pod))]
        }
        "Service" => {
            let mut s: Service = typed(v)?;
            default::namespace(&mut s.metadata.namespace);
            vec![Object::Service(Box::new(s))]
        }
        "EndpointSlice" => {
            let mut s: EndpointSlice = typed(v)?;
            default::namespace(&mut s.metadata.namespace);
            vec![Object::EndpointSlice(Box::new(s))]
        }
        "ConfigMap" | "Secret" => vec![config(&kind, &v)?],
        other => return Err(("kind".into(), format!("this node cannot run a {other:?}"))),
    })
}

fn config(kind: &str, v: &Value) -> Result<Object, Fault> {
    let meta: crate::pod::Meta = typed(v.get("metadata").cloned().unwrap_or_default())?;
    let strings =
        |key: &str| -> Result<BTreeMap<String, String>, Fault> { typed(v.get(key).cloned().unwrap_or_else(|| serde_json::json!({}))) };
    let mut data = ConfigData { kind: v.get("type").and_then(Value::as_str).unwrap_or_default().into(), ..ConfigData::default() };
    let encoded = if kind == "Secret" { "data" } else { "binaryData" };
    for (k, text) in strings(encoded)? {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(&text);
        let bytes = bytes.map_err(|e| (format!("{encoded}.{k}"), format!("not base64: {e}")))?;
        data.data.insert(k, bytes.into());
    }
    for (k, text) in strings(if kind == "Secret" { "stringData" } else { "data" })? {
        data.data.insert(k, text.into_bytes().into());
    }
    let mut namespace = meta.namespace;
    default::namespace(&mut namespace);
    let kind = if kind == "Secret" { Referent::Secret } else { Referent::ConfigMap };
    Ok(Object::Config { kind, namespace, name: meta.name, data })
}
