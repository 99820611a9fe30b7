//! `metadata` of every kind (meta/v1 ObjectMeta), and references to objects.

use super::{Field, Shape, TEXT_MAP};

pub const META: Shape = Shape::Object(META_FIELDS);

const META_FIELDS: &[Field] = &[
    ("name", Shape::Text),
    ("generateName", Shape::Text),
    ("namespace", Shape::Text),
    ("uid", Shape::Text),
    ("resourceVersion", Shape::Text),
    ("generation", Shape::Int64),
    ("creationTimestamp", Shape::Time),
    ("deletionTimestamp", Shape::Time),
    ("deletionGracePeriodSeconds", Shape::Int64),
    ("labels", TEXT_MAP),
    ("annotations", TEXT_MAP),
    ("ownerReferences", Shape::Keyed(&["uid"], &Shape::Atomic(&Shape::Object(OWNER)))),
    ("finalizers", Shape::Set(&Shape::Text)),
    ("managedFields", Shape::List(&Shape::Any)),
    ("selfLink", Shape::Any),
    ("clusterName", Shape::Any),
];

const OWNER: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("name", Shape::Text),
    ("uid", Shape::Text),
    ("controller", Shape::Bool),
    ("blockOwnerDeletion", Shape::Bool),
];

/// core/v1 ObjectReference.
pub const REFERENCE: Shape = Shape::Atomic(&REFERENCE_FIELDS);
/// The same where its fields may have owners each (the claim of a volume).
pub const REFERENCE_FIELDS: Shape = Shape::Object(&[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("namespace", Shape::Text),
    ("name", Shape::Text),
    ("uid", Shape::Text),
    ("resourceVersion", Shape::Text),
    ("fieldPath", Shape::Text),
]);

/// core/v1 LocalObjectReference.
pub const NAME: Shape = Shape::Atomic(&Shape::Object(&[("name", Shape::Text)]));
/// core/v1 SecretReference.
pub const SECRET_NAME: Shape = Shape::Atomic(&Shape::Object(&[("name", Shape::Text), ("namespace", Shape::Text)]));

/// meta/v1 LabelSelector.
pub const LABEL_SELECTOR: Shape = Shape::Atomic(&Shape::Object(&[("matchLabels", TEXT_MAP), ("matchExpressions", Shape::List(&TERM))]));
const TERM: Shape = Shape::Object(&[("key", Shape::Text), ("operator", Shape::Text), ("values", super::TEXTS)]);

/// core/v1 NodeSelector.
pub const NODE_SELECTOR: Shape = Shape::Atomic(&Shape::Object(&[("nodeSelectorTerms", Shape::List(&NODE_TERM))]));
pub const NODE_TERM: Shape =
    Shape::Atomic(&Shape::Object(&[("matchExpressions", Shape::List(&TERM)), ("matchFields", Shape::List(&TERM))]));
