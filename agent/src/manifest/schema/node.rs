//! Node of core/v1.

use super::meta::META;
use super::{AMOUNTS, Field, Shape, TEXTS};

pub const NODE: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("spec", Shape::Object(SPEC)),
    ("status", Shape::Object(STATUS)),
];

const SPEC: &[Field] = &[
    ("podCIDR", Shape::Text),
    ("podCIDRs", Shape::Set(&Shape::Text)),
    ("providerID", Shape::Text),
    ("unschedulable", Shape::Bool),
    ("taints", Shape::List(&Shape::Object(TAINT))),
    ("externalID", Shape::Text),
    ("configSource", Shape::Any),
];

const TAINT: &[Field] = &[("key", Shape::Text), ("value", Shape::Text), ("effect", Shape::Text), ("timeAdded", Shape::Time)];

const STATUS: &[Field] = &[
    ("phase", Shape::Text),
    ("capacity", AMOUNTS),
    ("allocatable", AMOUNTS),
    ("conditions", Shape::Keyed(&["type"], &Shape::Object(CONDITION))),
    ("addresses", Shape::Keyed(&["type"], &Shape::Object(&[("type", Shape::Text), ("address", Shape::Text)]))),
    ("daemonEndpoints", Shape::Object(&[("kubeletEndpoint", Shape::Object(&[("Port", Shape::Int32)]))])),
    ("nodeInfo", Shape::Object(INFO)),
    ("images", Shape::List(&Shape::Object(&[("names", TEXTS), ("sizeBytes", Shape::Int64)]))),
    ("volumesInUse", TEXTS),
    ("volumesAttached", Shape::List(&Shape::Object(&[("name", Shape::Text), ("devicePath", Shape::Text)]))),
    ("runtimeHandlers", Shape::List(&Shape::Object(HANDLER))),
    ("features", Shape::Object(&[("supplementalGroupsPolicy", Shape::Bool)])),
    ("declaredFeatures", TEXTS),
    ("config", Shape::Any),
];

const CONDITION: &[Field] = &[
    ("type", Shape::Text),
    ("status", Shape::Text),
    ("reason", Shape::Text),
    ("message", Shape::Text),
    ("lastHeartbeatTime", Shape::Time),
    ("lastTransitionTime", Shape::Time),
];

const INFO: &[Field] = &[
    ("machineID", Shape::Text),
    ("systemUUID", Shape::Text),
    ("bootID", Shape::Text),
    ("kernelVersion", Shape::Text),
    ("osImage", Shape::Text),
    ("containerRuntimeVersion", Shape::Text),
    ("kubeletVersion", Shape::Text),
    ("kubeProxyVersion", Shape::Text),
    ("operatingSystem", Shape::Text),
    ("architecture", Shape::Text),
    ("swap", Shape::Object(&[("capacity", Shape::Int64)])),
];

const HANDLER: &[Field] =
    &[("name", Shape::Text), ("features", Shape::Object(&[("recursiveReadOnlyMounts", Shape::Bool), ("userNamespaces", Shape::Bool)]))];
