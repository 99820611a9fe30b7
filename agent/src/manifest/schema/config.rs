//! ConfigMap, Secret and Namespace of core/v1.

use super::meta::META;
use super::{Field, Shape, TEXT_MAP};

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

pub const NAMESPACE: &[Field] =
    &[("apiVersion", Shape::Text), ("kind", Shape::Text), ("metadata", META), ("spec", Shape::Any), ("status", Shape::Any)];
