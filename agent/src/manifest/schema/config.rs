//! ConfigMap, Secret and Namespace of core/v1.

use super::meta::META;
use super::{Field, Shape, TEXT_MAP, TEXTS};

pub const CONFIG_MAP: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("data", TEXT_MAP),
    ("binaryData", TEXT_MAP),
    ("immutable", Shape::Bool),
];

pub const SECRET: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("data", TEXT_MAP),
    ("stringData", TEXT_MAP),
    ("type", Shape::Text),
    ("immutable", Shape::Bool),
];

pub const NAMESPACE: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("spec", Shape::Object(&[("finalizers", TEXTS)])),
    ("status", Shape::Object(&[("phase", Shape::Text), ("conditions", Shape::Keyed(&["type"], &Shape::Object(CONDITION)))])),
];

const CONDITION: &[Field] = &[
    ("type", Shape::Text),
    ("status", Shape::Text),
    ("reason", Shape::Text),
    ("message", Shape::Text),
    ("lastTransitionTime", Shape::Time),
];
