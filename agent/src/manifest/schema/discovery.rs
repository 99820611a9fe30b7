//! EndpointSlice of discovery.k8s.io/v1 and Endpoints of core/v1.

use super::meta::{META, REFERENCE};
use super::{Field, PROTOCOL, Shape};

pub const ENDPOINT_SLICE: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("addressType", Shape::OneOf(&["FQDN", "IPv4", "IPv6"])),
    ("endpoints", Shape::List(&Shape::Object(ENDPOINT))),
    ("ports", Shape::List(&PORT)),
];

const PORT: Shape =
    Shape::Atomic(&Shape::Object(&[("name", Shape::Text), ("protocol", PROTOCOL), ("port", Shape::Port), ("appProtocol", Shape::Text)]));

const ENDPOINT: &[Field] = &[
    ("addresses", Shape::Replaced(&Shape::Set(&Shape::Text))),
    ("conditions", Shape::Object(&[("ready", Shape::Bool), ("serving", Shape::Bool), ("terminating", Shape::Bool)])),
    ("hostname", Shape::Text),
    ("targetRef", REFERENCE),
    ("deprecatedTopology", Shape::Any),
    ("nodeName", Shape::Text),
    ("zone", Shape::Text),
    ("hints", Shape::Object(&[("forZones", HINTS), ("forNodes", HINTS)])),
];

const HINTS: Shape = Shape::List(&Shape::Object(&[("name", Shape::Text)]));

pub const ENDPOINTS: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("subsets", Shape::List(&Shape::Object(&[("addresses", ADDRESSES), ("notReadyAddresses", ADDRESSES), ("ports", Shape::List(&PORT))]))),
];

const ADDRESSES: Shape = Shape::List(&Shape::Atomic(&Shape::Object(&[
    ("ip", Shape::Text),
    ("hostname", Shape::Text),
    ("nodeName", Shape::Text),
    ("targetRef", REFERENCE),
])));
