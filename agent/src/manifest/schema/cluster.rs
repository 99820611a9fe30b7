//! Small kinds that a cluster keeps for its nodes: leases, accounts, runtime classes, ranges of service
//! addresses and requests for certificates.

use super::meta::{META, NAME, REFERENCE};
use super::pod::TOLERATIONS;
use super::{AMOUNTS, CONDITIONS, Field, Shape, TEXT_MAP, TEXTS};

pub const LEASE: &[Field] = &[("apiVersion", Shape::Text), ("kind", Shape::Text), ("metadata", META), ("spec", Shape::Object(LEASE_SPEC))];

const LEASE_SPEC: &[Field] = &[
    ("holderIdentity", Shape::Text),
    ("leaseDurationSeconds", Shape::Int32),
    ("acquireTime", Shape::Time),
    ("renewTime", Shape::Time),
    ("leaseTransitions", Shape::Int32),
    ("strategy", Shape::Text),
    ("preferredHolder", Shape::Text),
];

pub const SERVICE_ACCOUNT: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("secrets", Shape::Keyed(&["name"], &REFERENCE)),
    ("imagePullSecrets", Shape::List(&NAME)),
    ("automountServiceAccountToken", Shape::Bool),
];

pub const RUNTIME_CLASS: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("handler", Shape::Text),
    ("overhead", Shape::Object(&[("podFixed", AMOUNTS)])),
    ("scheduling", Shape::Object(&[("nodeSelector", Shape::Atomic(&TEXT_MAP)), ("tolerations", TOLERATIONS)])),
];

pub const SERVICE_CIDR: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("spec", Shape::Object(&[("cidrs", TEXTS)])),
    ("status", Shape::Object(&[("conditions", CONDITIONS)])),
];

pub const SIGNING_REQUEST: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("spec", Shape::Object(SIGNING_SPEC)),
    (
        "status",
        Shape::Object(&[
            ("certificate", Shape::Text),
            ("conditions", Shape::Replaced(&Shape::Keyed(&["type"], &Shape::Object(SIGNING_CONDITION)))),
        ]),
    ),
];

const SIGNING_SPEC: &[Field] = &[
    ("request", Shape::Text),
    ("signerName", Shape::Text),
    ("expirationSeconds", Shape::Int32),
    ("usages", TEXTS),
    ("username", Shape::Text),
    ("uid", Shape::Text),
    ("groups", TEXTS),
    ("extra", Shape::Map(&TEXTS)),
];

const SIGNING_CONDITION: &[Field] = &[
    ("type", Shape::Text),
    ("status", Shape::Text),
    ("reason", Shape::Text),
    ("message", Shape::Text),
    ("lastUpdateTime", Shape::Time),
    ("lastTransitionTime", Shape::Time),
];
