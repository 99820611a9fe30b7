//! `metadata` of every kind (meta/v1 ObjectMeta).

use super::{Field, Shape, TEXT_MAP, TEXTS};

pub const META: Shape = Shape::Object(&[
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
    ("ownerReferences", Shape::List(&Shape::Object(OWNER))),
    ("finalizers", TEXTS),
    ("managedFields", Shape::Any),
    ("selfLink", Shape::Any),
    ("clusterName", Shape::Any),
]);

const OWNER: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("name", Shape::Text),
    ("uid", Shape::Text),
    ("controller", Shape::Bool),
    ("blockOwnerDeletion", Shape::Bool),
];
