//! Which fields an object may have and of what shape: kubectl's strict checking, and how patches merge.
//!
//! Walks an untyped object along a table of the API's fields, reports all that is wrong, and takes out
//! what it reported, so that the rest can still be typed and validated. Fields that the API has and this
//! node does not model are in the tables too. The same tables tell strategic merge patches and
//! server-side apply what a list's elements are told apart by (`api::patch`). Must never judge values
//! beyond their shape and range. Tests: `manifest/tests/schema.rs`.

mod cluster;
mod config;
mod discovery;
mod event;
mod meta;
mod node;
mod pod;
mod pod_status;
mod service;
mod storage;
mod volume;

pub use config::{CONFIG_MAP, NAMESPACE, SECRET};
pub use discovery::{ENDPOINT_SLICE, ENDPOINTS};
pub use pod::POD;
pub use service::SERVICE;

use super::problem::{Fault, FaultKind, Path};
use crate::quantity::Quantity;
use crate::time::Wall;
use serde_json::{Map, Value};

/// The shape of one field.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Text,
    Bool,
    Int32,
    Int64,
    /// 1 to 65535; 0 where the API takes it for absent.
    Port,
    /// 0 to 0777.
    Mode,
    Amount,
    /// A port number or the name of a port.
    PortRef,
    Time,
    /// One of these; the empty text is an absent field.
    OneOf(&'static [&'static str]),
    /// Anything: the API has the field, nobody here reads it.
    Any,
    /// A list that has one owner and is replaced as a whole.
    List(&'static Shape),
    /// A list of objects that are told apart by these fields; a strategic merge looks at the first only.
    Keyed(&'static [&'static str], &'static Shape),
    /// A list whose elements stand for themselves, each once.
    Set(&'static Shape),
    Map(&'static Shape),
    Object(&'static [Field]),
    /// Server-side apply owns it as a whole; a strategic merge goes on as the inner shape says.
    Atomic(&'static Shape),
    /// A strategic merge replaces it as a whole; server-side apply goes on as the inner shape says.
    Replaced(&'static Shape),
    /// Clients that compute a strategic merge name the fields of the elements that stay (`$retainKeys`).
    Retained(&'static Shape),
}

/// A field's name and shape.
pub type Field = (&'static str, Shape);

pub const TEXTS: Shape = Shape::List(&Shape::Text);
pub const TEXT_MAP: Shape = Shape::Map(&Shape::Text);
pub const INTS: Shape = Shape::List(&Shape::Int64);
pub const AMOUNTS: Shape = Shape::Map(&Shape::Amount);
pub const PROTOCOL: Shape = Shape::OneOf(&["SCTP", "TCP", "UDP"]);

const CONDITION: Shape = Shape::Object(&[
    ("type", Shape::Text),
    ("status", Shape::Text),
    ("reason", Shape::Text),
    ("message", Shape::Text),
    ("observedGeneration", Shape::Int64),
    ("lastTransitionTime", Shape::Time),
]);
const CONDITIONS: Shape = Shape::Keyed(&["type"], &CONDITION);

impl Shape {
    /// Without what says how it is merged.
    pub fn inner(self) -> Shape {
        match self {
            Shape::Atomic(s) | Shape::Replaced(s) | Shape::Retained(s) => s.inner(),
            other => other,
        }
    }

    /// The shape of a field of this object or map; `Any` where there is no telling.
    pub fn field(self, name: &str) -> Shape {
        match self.inner() {
            Shape::Object(fields) => fields.iter().find(|(n, _)| *n == name).map_or(Shape::Any, |(_, s)| *s),
            Shape::Map(s) => *s,
            _ => Shape::Any,
        }
    }
}

/// The fields of a kind that the API serves.
pub fn shape_of(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    Some(match (api_version, kind) {
        ("v1", "Pod") => POD,
        ("v1", "Service") => SERVICE,
        ("v1", "Endpoints") => ENDPOINTS,
        ("discovery.k8s.io/v1", "EndpointSlice") => ENDPOINT_SLICE,
        ("v1", "ConfigMap") => CONFIG_MAP,
        ("v1", "Secret") => SECRET,
        ("v1", "Namespace") => NAMESPACE,
        ("v1", "Node") => node::NODE,
        ("v1", "Event") => event::EVENT,
        ("events.k8s.io/v1", "Event") => event::EVENT_OF_EVENTS,
        ("coordination.k8s.io/v1", "Lease") => cluster::LEASE,
        ("v1", "ServiceAccount") => cluster::SERVICE_ACCOUNT,
        ("node.k8s.io/v1", "RuntimeClass") => cluster::RUNTIME_CLASS,
        ("networking.k8s.io/v1", "ServiceCIDR") => cluster::SERVICE_CIDR,
        ("certificates.k8s.io/v1", "CertificateSigningRequest") => cluster::SIGNING_REQUEST,
        ("v1", "PersistentVolume") => storage::VOLUME,
        ("v1", "PersistentVolumeClaim") => storage::CLAIM,
        ("storage.k8s.io/v1", "StorageClass") => storage::CLASS,
        ("storage.k8s.io/v1", "CSINode") => storage::CSI_NODE,
        ("storage.k8s.io/v1", "CSIDriver") => storage::CSI_DRIVER,
        ("storage.k8s.io/v1", "VolumeAttachment") => storage::ATTACHMENT,
        _ => return None,
    })
}

/// Checks `v` and reports into `out`. False: the value must go.
pub fn check(v: &mut Value, shape: Shape, path: &Path, out: &mut Vec<Fault>) -> bool {
    match shape {
        Shape::Any => true,
        Shape::Atomic(s) | Shape::Replaced(s) | Shape::Retained(s) => check(v, *s, path, out),
        Shape::Object(fields) => match v {
            Value::Object(m) => {
                object(m, fields, path, out);
                true
            }
            _ => wrong(v, "an object", path, out),
        },
        Shape::List(inner) | Shape::Keyed(_, inner) | Shape::Set(inner) => match v {
            Value::Array(a) => {
                // Indices stay true for the messages that come later, so nothing is taken out of a list.
                for (i, v) in a.iter_mut().enumerate() {
                    if !check(v, *inner, &path.index(i), out) {
                        *v = blank(*inner);
                    }
                }
                true
            }
            _ => wrong(v, "a list", path, out),
        },
        Shape::Map(inner) => match v {
            Value::Object(m) => {
                m.retain(|k, v| !v.is_null() && check(v, *inner, &path.key(k), out));
                true
            }
            _ => wrong(v, "a map", path, out),
        },
        _ => scalar(v, shape, path, out),
    }
}

fn blank(shape: Shape) -> Value {
    match shape.inner() {
        Shape::Object(_) | Shape::Map(_) => Value::Object(Map::new()),
        Shape::List(_) | Shape::Keyed(..) | Shape::Set(_) => Value::Array(Vec::new()),
        Shape::Text => Value::String(String::new()),
        Shape::Bool => Value::Bool(false),
        _ => Value::Number(0.into()),
    }
}

fn object(m: &mut Map<String, Value>, fields: &[Field], path: &Path, out: &mut Vec<Fault>) {
    m.retain(|k, v| {
        let Some((_, shape)) = fields.iter().find(|(name, _)| name == k) else {
            let hint = nearest(k, fields).map_or_else(String::new, |n| format!(", did you mean {n}?"));
            out.push(Fault::new(FaultKind::UnknownField, &path.child(k), format!("unknown field{hint}")));
            return false;
        };
        if v.is_null() || matches!((&*v, shape), (Value::String(s), Shape::OneOf(_)) if s.is_empty()) {
            return false;
        }
        check(v, *shape, &path.child(k), out)
    });
}

fn scalar(v: &mut Value, shape: Shape, path: &Path, out: &mut Vec<Fault>) -> bool {
    match shape {
        Shape::Text => match v {
            Value::String(_) => true,
            Value::Bool(_) | Value::Number(_) => {
                let message = format!("must be a text, not {}; put it in quotes", name_of(v));
                out.push(Fault::new(FaultKind::Shape, path, message));
                false
            }
            _ => wrong(v, "a text", path, out),
        },
        Shape::Bool => v.is_boolean() || wrong(v, "true or false", path, out),
        Shape::Int32 => integer(v, i64::from(i32::MIN), i64::from(i32::MAX), path, out),
        Shape::Int64 => integer(v, i64::MIN, i64::MAX, path, out),
        Shape::Port => {
            integer(v, i64::from(i32::MIN), i64::from(i32::MAX), path, out)
                && ((0..=65535).contains(&v.as_i64().unwrap_or(-1)) || invalid(v, "must be between 1 and 65535, inclusive", path, out))
        }
        Shape::Mode => {
            integer(v, i64::from(i32::MIN), i64::from(i32::MAX), path, out)
                && ((0..=0o777).contains(&v.as_i64().unwrap_or(-1))
                    || invalid(v, "must be a number between 0 and 0777 (octal), both inclusive", path, out))
        }
        Shape::PortRef => match v {
            Value::String(_) => true,
            Value::Number(_) => scalar(v, Shape::Port, path, out),
            _ => wrong(v, "a port's number or name", path, out),
        },
        Shape::Amount => match v {
            Value::String(s) => match Quantity::parse(s) {
                Ok(_) => true,
                Err(e) => {
                    out.push(Fault::new(FaultKind::Shape, path, e.to_string()));
                    false
                }
            },
            Value::Number(n) => Quantity::parse(&n.to_string()).is_ok() || wrong(v, "an amount such as 250m or 64Mi", path, out),
            _ => wrong(v, "an amount such as 250m or 64Mi", path, out),
        },
        Shape::Time => match v {
            Value::String(s) if Wall::parse_rfc3339(s).is_some() => true,
            _ => wrong(v, "a time such as 2006-01-02T15:04:05Z", path, out),
        },
        Shape::OneOf(choices) => match v {
            Value::String(s) if choices.contains(&s.as_str()) => true,
            Value::String(s) => {
                out.push(Fault::unsupported(path, s, choices));
                false
            }
            _ => wrong(v, "a text", path, out),
        },
        // Told by `check`.
        _ => true,
    }
}

/// Whole numbers may be written `80.0`, as JSON has one kind of number.
fn integer(v: &mut Value, least: i64, most: i64, path: &Path, out: &mut Vec<Fault>) -> bool {
    if let Some(f) = v.as_f64().filter(|f| v.is_f64() && f.fract() == 0.0 && f.abs() < 9e15) {
        #[allow(clippy::cast_possible_truncation)]
        let whole = f as i64;
        *v = Value::Number(whole.into());
    }
    match v.as_i64() {
        Some(n) if (least..=most).contains(&n) => true,
        Some(_) => wrong(v, "a number of 32 bits", path, out),
        None => wrong(v, "a whole number", path, out),
    }
}

fn invalid(v: &Value, why: &str, path: &Path, out: &mut Vec<Fault>) -> bool {
    out.push(Fault::invalid(path, &v.to_string(), why));
    false
}

fn wrong(v: &Value, wanted: &str, path: &Path, out: &mut Vec<Fault>) -> bool {
    out.push(Fault::new(FaultKind::Shape, path, format!("must be {wanted}, not {}", name_of(v))));
    false
}

/// The value as a message names it.
fn name_of(v: &Value) -> String {
    match v {
        Value::Null => "empty".into(),
        Value::Bool(b) => format!("the boolean {b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) if s.len() <= 40 => format!("the text {s:?}"),
        Value::String(_) => "a text".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// The field that was probably meant: another spelling, or nearly the same letters.
fn nearest(wrong: &str, fields: &[Field]) -> Option<&'static str> {
    let plain = |s: &str| s.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let target = plain(wrong);
    let allowed = (target.chars().count() / 4).clamp(1, 4);
    let scored = fields.iter().map(|(name, _)| (distance(&target, &plain(name)), *name));
    scored.filter(|(d, _)| *d <= allowed).min().map(|(_, name)| name)
}

/// Edits between two texts.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    if a.len().abs_diff(b.len()) > 8 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let here = row[j + 1];
            row[j + 1] = (before + usize::from(ca != *cb)).min(here + 1).min(row[j] + 1);
            before = here;
        }
    }
    row[b.len()]
}
