//! ConfigMaps and Secrets, to bytes by key.

use super::kind::typed;
use super::problem::{Fault, FaultKind, Faults, Path};
use super::{Object, default, validate};
use crate::pod::{ConfigData, Meta, Referent};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    metadata: Meta,
    data: BTreeMap<String, String>,
    binary_data: BTreeMap<String, String>,
    string_data: BTreeMap<String, String>,
    #[serde(rename = "type")]
    kind: String,
    immutable: bool,
}

pub fn object(kind: Referent, v: Value, out: &mut Faults) -> Option<Object> {
    let mut w: Wire = typed(v, out)?;
    default::meta(&mut w.metadata);
    let mut data = ConfigData { immutable: w.immutable, ..ConfigData::default() };
    match kind {
        Referent::ConfigMap => {
            for k in w.binary_data.keys().filter(|k| w.data.contains_key(*k)) {
                out.invalid(&Path::root("data").key(k), k, "duplicate of key present in binaryData");
            }
            plain(w.data, &mut data);
            data.binary = w.binary_data.keys().cloned().collect();
            encoded(w.binary_data, "binaryData", &mut data, out);
        }
        Referent::Secret => {
            data.kind = if w.kind.is_empty() { "Opaque".into() } else { w.kind };
            encoded(w.data, "data", &mut data, out);
            // Write-only in the API: laid over `data`.
            plain(w.string_data, &mut data);
        }
    }
    validate::config::check(kind, &w.metadata, &data, out);
    Some(Object::Config { kind, metadata: Box::new(w.metadata), data })
}

fn plain(from: BTreeMap<String, String>, to: &mut ConfigData) {
    to.data.extend(from.into_iter().map(|(k, v)| (k, v.into_bytes().into())));
}

fn encoded(from: BTreeMap<String, String>, field: &str, to: &mut ConfigData, out: &mut Faults) {
    for (k, text) in from {
        // Line breaks are taken, as Go's decoder does.
        let bare: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        match STANDARD.decode(&bare) {
            Ok(bytes) => {
                to.data.insert(k, bytes.into());
            }
            Err(e) => {
                let hint = if field == "data" { "; plain text belongs into stringData" } else { "; plain text belongs into data" };
                let why = format!("not base64: {}{hint}", e.to_string().to_lowercase().trim_end_matches('.'));
                out.0.push(Fault::new(FaultKind::Encoding, &Path::root(field).key(&k), why));
            }
        }
    }
}

/// What an API server's object holds. Such an object was checked already: what this cannot read is told, and the rest
/// of it is good.
pub fn data(kind: Referent, v: &Value) -> Result<ConfigData, String> {
    let w: Wire = crate::typed::read(v).map_err(|e| e.to_string())?;
    let mut data = ConfigData { immutable: w.immutable, ..ConfigData::default() };
    let mut faults = Faults::default();
    match kind {
        Referent::ConfigMap => {
            plain(w.data, &mut data);
            data.binary = w.binary_data.keys().cloned().collect();
            encoded(w.binary_data, "binaryData", &mut data, &mut faults);
        }
        Referent::Secret => {
            data.kind = w.kind;
            encoded(w.data, "data", &mut data, &mut faults);
        }
    }
    match faults.0.first() {
        Some(f) => Err(format!("{}: {}", f.field, f.message)),
        None => Ok(data),
    }
}
