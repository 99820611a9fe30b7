//! What is wrong with a manifest: paths to fields, messages in the API server's words, one line each.

use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// A field's path: `spec.containers[0].image`. Empty: the object as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    pub fn root(name: &str) -> Path {
        Path(name.to_owned())
    }

    pub fn child(&self, name: &str) -> Path {
        if self.0.is_empty() { Path(name.to_owned()) } else { Path(format!("{}.{name}", self.0)) }
    }

    pub fn index(&self, i: usize) -> Path {
        Path(format!("{}[{i}]", self.0))
    }

    pub fn key(&self, key: &str) -> Path {
        Path(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// In which way something is wrong: what programs go by, as messages are for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    #[default]
    Invalid,
    Required,
    NotSupported,
    Duplicate,
    NotFound,
    Forbidden,
    TooLong,
    TooMany,
    /// Nobody knows the field.
    UnknownField,
    /// No value of the field's type.
    Shape,
    /// Bytes that are not in the spelling for bytes.
    Encoding,
}

/// One fault of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    pub field: String,
    pub message: String,
}

impl Fault {
    pub fn new(kind: FaultKind, path: &Path, message: impl Into<String>) -> Fault {
        Fault { kind, field: path.0.clone(), message: message.into() }
    }

    /// `value` as JSON writes it.
    pub fn invalid(path: &Path, value: &str, why: &str) -> Fault {
        Fault::new(FaultKind::Invalid, path, format!("Invalid value: {value}: {why}"))
    }

    pub fn unsupported(path: &Path, value: &str, choices: &[&str]) -> Fault {
        let choices: BTreeSet<String> = choices.iter().map(|c| format!("{c:?}")).collect();
        let choices: Vec<String> = choices.into_iter().collect();
        Fault::new(FaultKind::NotSupported, path, format!("Unsupported value: {value:?}: supported values: {}", choices.join(", ")))
    }
}

/// Collects the faults of one object, in the words of `k8s.io/apimachinery`'s field errors.
#[derive(Debug, Default)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    pub fn required(&mut self, path: &Path, why: &str) {
        let message = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        self.0.push(Fault::new(FaultKind::Required, path, message));
    }

    pub fn invalid(&mut self, path: &Path, value: &str, why: &str) {
        self.0.push(Fault::invalid(path, &format!("{value:?}"), why));
    }

    pub fn invalid_number(&mut self, path: &Path, value: i64, why: &str) {
        self.0.push(Fault::invalid(path, &value.to_string(), why));
    }

    pub fn duplicate(&mut self, path: &Path, value: &str) {
        self.0.push(Fault::new(FaultKind::Duplicate, path, format!("Duplicate value: {value:?}")));
    }

    pub fn unsupported(&mut self, path: &Path, value: &str, choices: &[&str]) {
        self.0.push(Fault::unsupported(path, value, choices));
    }

    pub fn forbidden(&mut self, path: &Path, why: &str) {
        self.0.push(Fault::new(FaultKind::Forbidden, path, format!("Forbidden: {why}")));
    }

    pub fn not_found(&mut self, path: &Path, value: &str) {
        self.0.push(Fault::new(FaultKind::NotFound, path, format!("Not found: {value:?}")));
    }

    pub fn too_many(&mut self, path: &Path, n: usize, most: usize) {
        self.0.push(Fault::new(FaultKind::TooMany, path, format!("Too many: {n}: must have at most {most} items")));
    }

    pub fn too_long(&mut self, path: &Path, most: usize) {
        self.0.push(Fault::new(FaultKind::TooLong, path, format!("Too long: may not be more than {most} bytes")));
    }
}

/// What is wrong with a manifest, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    pub file: String,
    /// Counted from 1; 0: unknown.
    #[serde(skip_serializing_if = "is_zero")]
    pub line: usize,
    /// Counted from 1 over the documents that hold something; 0: the file as a whole.
    #[serde(skip_serializing_if = "is_zero")]
    pub document: usize,
    /// `Pod default/web`; empty where the document does not tell.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// `spec.containers[0].image`; empty: the object as a whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    pub message: String,
    #[serde(skip)]
    pub kind: FaultKind,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl fmt::Display for Problem {
    /// `20-web.yaml: document 2: Pod default/web: spec.containers[0].image: Required value`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.document > 0 {
            write!(f, ": document {}", self.document)?;
        }
        for part in [&self.object, &self.field].into_iter().filter(|p| !p.is_empty()) {
            write!(f, ": {part}")?;
        }
        // One line, whatever a parser says.
        write!(f, ": {}", self.message.replace(['\n', '\r'], " "))
    }
}
