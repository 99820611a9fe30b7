#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Manifests: texts to objects, with the API server's defaulting and validation.
//!
//! A document is taken whole or not at all, and all that is wrong with it is told at once. Must never
//! read a file (`run::sources::manifests` does) nor remember anything (`store` does). Tests: `tests/`,
//! and `agent/tests/fuzz_manifests.rs` for texts of any kind.

pub mod change;
mod config;
pub mod default;
pub mod edit;
mod endpoints;
mod kind;
pub mod problem;
pub mod schema;
pub mod static_pod;
pub mod store;
pub mod text;
pub mod validate;

#[cfg(test)]
mod tests;

pub use config::data as config_data;
pub use kind::{complete, refusal};
pub use problem::Problem;

use crate::api::resource::{self, Id};
use crate::api::store::Name;
use crate::pod::{ConfigData, Meta, Pod, Referent};
use longshore_dataplane::wire::{EndpointSlice, Service};
use serde_json::Value;
use std::fmt;

/// One object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    Pod(Box<Pod>),
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    Config {
        kind: Referent,
        metadata: Box<Meta>,
        data: ConfigData,
    },
    /// Of a kind that nothing here acts on by itself: as it is written.
    Other {
        id: Id,
        value: Box<Value>,
    },
}

/// The kinds of object that a directory may hold, in the order in which they are handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    ConfigMap,
    Secret,
    Service,
    EndpointSlice,
    Other(Id),
    Pod,
}

/// What makes an object the same one: kind, namespace and name. Reads `Pod default/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Other(id) => id.row().kind,
            Kind::Pod => "Pod",
        }
    }

    /// The API's resource of this kind.
    pub fn id(self) -> Id {
        match self {
            Kind::ConfigMap => resource::CONFIG_MAPS,
            Kind::Secret => resource::SECRETS,
            Kind::Service => resource::SERVICES,
            Kind::EndpointSlice => resource::SLICES,
            Kind::Other(id) => id,
            Kind::Pod => resource::PODS,
        }
    }

    pub fn of(id: Id) -> Kind {
        match id {
            resource::CONFIG_MAPS => Kind::ConfigMap,
            resource::SECRETS => Kind::Secret,
            resource::SERVICES => Kind::Service,
            resource::SLICES => Kind::EndpointSlice,
            resource::PODS => Kind::Pod,
            other => Kind::Other(other),
        }
    }
}

impl From<Referent> for Kind {
    fn from(r: Referent) -> Kind {
        match r {
            Referent::ConfigMap => Kind::ConfigMap,
            Referent::Secret => Kind::Secret,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind.as_str(), self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind.as_str(), self.name),
        }
    }
}

impl Key {
    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Key> {
        let (kind, rest) = text.split_once(' ')?;
        let id = Id::all().find(|i| i.row().kind == kind && i.row().home == resource::Home::Files)?;
        let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
        Some(Key { kind: Kind::of(id), namespace: namespace.into(), name: name.into() })
    }
}

impl Object {
    pub fn key(&self) -> Key {
        if let Object::Other { id, value } = self {
            let name = Name::of(value);
            return Key { kind: Kind::Other(*id), namespace: name.namespace.into(), name: name.name.into() };
        }
        let (kind, namespace, name) = match self {
            Object::Pod(p) => (Kind::Pod, &p.metadata.namespace, &p.metadata.name),
            Object::Service(s) => (Kind::Service, &s.metadata.namespace, &s.metadata.name),
            Object::EndpointSlice(s) => (Kind::EndpointSlice, &s.metadata.namespace, &s.metadata.name),
            Object::Config { kind, metadata, .. } => ((*kind).into(), &metadata.namespace, &metadata.name),
            Object::Other { .. } => unreachable!("told above"),
        };
        Key { kind, namespace: namespace.clone(), name: name.clone() }
    }

    /// The object as JSON; of ConfigMaps and Secrets the metadata alone, since their bytes have many spellings.
    pub fn to_value(&self) -> Value {
        let written = match self {
            Object::Pod(p) => serde_json::to_value(p),
            Object::Service(s) => serde_json::to_value(s),
            Object::EndpointSlice(s) => serde_json::to_value(s),
            Object::Config { metadata, .. } => serde_json::to_value(serde_json::json!({ "metadata": metadata })),
            Object::Other { value, .. } => return (**value).clone(),
        };
        written.expect("plain data serialises")
    }
}

/// What of the node's configuration decides whether a manifest is good.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Of services, first and last.
    pub node_ports: (u16, u16),
    /// There is one, and it issues tokens.
    pub control_plane: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { node_ports: (30000, 32767), control_plane: false }
    }
}

/// What one file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// Those of the documents that are good.
    pub objects: Vec<Object>,
    pub problems: Vec<Problem>,
}

/// Reads one file's text; `file` is what problems call it.
pub fn read(file: &str, text: &str, rules: &Rules) -> Contents {
    let mut out = Contents::default();
    if text.len() > text::MOST_BYTES {
        let message = format!("the file has {} bytes; {} (10 MiB) are the most", text.len(), text::MOST_BYTES);
        out.problems.push(Problem { file: file.into(), message, ..Problem::default() });
        return out;
    }
    for (i, document) in text::documents(text).into_iter().enumerate() {
        let number = i + 1;
        match document.content {
            Err(m) => {
                out.problems.push(Problem { file: file.into(), line: m.line, document: number, message: m.message, ..Problem::default() });
            }
            Ok(value) => {
                let (objects, faults) = kind::objects(value, rules);
                if faults.is_empty() {
                    out.objects.extend(objects);
                }
                out.problems.extend(faults.into_iter().map(|(object, f)| Problem {
                    file: file.into(),
                    line: 0,
                    document: number,
                    object,
                    field: f.field,
                    message: f.message,
                    kind: f.kind,
                }));
            }
        }
    }
    out
}
