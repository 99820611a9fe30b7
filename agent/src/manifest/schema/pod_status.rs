//! The status of a Pod. What lies in lists that are written as a whole is left open.

use super::pod::RESOURCES;
use super::{AMOUNTS, Field, Shape};

pub const STATUS: Shape = Shape::Object(FIELDS);

const FIELDS: &[Field] = &[
    ("observedGeneration", Shape::Int64),
    ("phase", Shape::Text),
    ("conditions", Shape::Keyed(&["type"], &Shape::Object(CONDITION))),
    ("message", Shape::Text),
    ("reason", Shape::Text),
    ("nominatedNodeName", Shape::Text),
    ("hostIP", Shape::Text),
    ("hostIPs", Shape::Atomic(&Shape::Keyed(&["ip"], &IP))),
    ("podIP", Shape::Text),
    ("podIPs", Shape::Keyed(&["ip"], &IP)),
    ("startTime", Shape::Time),
    ("initContainerStatuses", Shape::List(&Shape::Any)),
    ("containerStatuses", Shape::List(&Shape::Any)),
    ("ephemeralContainerStatuses", Shape::List(&Shape::Any)),
    ("qosClass", Shape::Text),
    ("resize", Shape::Text),
    ("resourceClaimStatuses", Shape::Retained(&Shape::Keyed(&["name"], &Shape::Object(CLAIM)))),
    ("extendedResourceClaimStatus", Shape::Any),
    ("nodeAllocatableResourceClaimStatuses", Shape::List(&Shape::Any)),
    ("allocatedResources", AMOUNTS),
    ("resources", RESOURCES),
];

const IP: Shape = Shape::Object(&[("ip", Shape::Text)]);
const CLAIM: &[Field] = &[("name", Shape::Text), ("resourceClaimName", Shape::Text)];

const CONDITION: &[Field] = &[
    ("type", Shape::Text),
    ("status", Shape::Text),
    ("reason", Shape::Text),
    ("message", Shape::Text),
    ("observedGeneration", Shape::Int64),
    ("lastProbeTime", Shape::Time),
    ("lastTransitionTime", Shape::Time),
];
