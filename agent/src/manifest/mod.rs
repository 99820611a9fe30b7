#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Manifests: texts to objects, with the API server's defaulting and validation.
//!
//! A document is taken whole or not at all, and all that is wrong with it is told at once. Must never
//! read a file (`run::sources::manifests` does) nor remember anything (`store` does). Tests: `tests/`,
//! and `agent/tests/fuzz_manifests.rs` for texts of any kind.

pub mod change;
mod config;
pub mod default;
mod endpoints;
mod kind;
pub mod problem;
pub mod schema;
pub mod store;
pub mod text;
pub mod validate;

#[cfg(test)]
mod tests;

pub use problem::Problem;

use crate::pod::{ConfigData, Meta, Pod, Referent};
use longshore_dataplane::wire::{EndpointSlice, Service};
use std::fmt;

/// One object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    Pod(Box<Pod>),
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    Config { kind: Referent, metadata: Box<Meta>, data: ConfigData },
}

/// The kinds of object that a directory may hold, in the order in which they are handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    ConfigMap,
    Secret,
    Service,
    EndpointSlice,
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
            Kind::Pod => "Pod",
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
        write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

impl Object {
    pub fn key(&self) -> Key {
        let (kind, namespace, name) = match self {
            Object::Pod(p) => (Kind::Pod, &p.metadata.namespace, &p.metadata.name),
            Object::Service(s) => (Kind::Service, &s.metadata.namespace, &s.metadata.name),
            Object::EndpointSlice(s) => (Kind::EndpointSlice, &s.metadata.namespace, &s.metadata.name),
            Object::Config { kind, metadata, .. } => ((*kind).into(), &metadata.namespace, &metadata.name),
        };
        Key { kind, namespace: namespace.clone(), name: name.clone() }
    }
}

/// What of the node's configuration decides whether a manifest is good.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Of services, first and last.
    pub node_ports: (u16, u16),
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { node_ports: (30000, 32767) }
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
                }));
            }
        }
    }
    out
}
