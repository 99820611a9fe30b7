//! Event, of core/v1 and of events.k8s.io/v1.

use super::meta::{META, REFERENCE};
use super::{Field, Shape};

pub const EVENT: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("involvedObject", REFERENCE),
    ("related", REFERENCE),
    ("reason", Shape::Text),
    ("message", Shape::Text),
    ("source", SOURCE),
    ("firstTimestamp", Shape::Time),
    ("lastTimestamp", Shape::Time),
    ("count", Shape::Int32),
    ("type", Shape::Text),
    ("eventTime", Shape::Time),
    ("series", SERIES),
    ("action", Shape::Text),
    ("reportingComponent", Shape::Text),
    ("reportingInstance", Shape::Text),
];

pub const EVENT_OF_EVENTS: &[Field] = &[
    ("apiVersion", Shape::Text),
    ("kind", Shape::Text),
    ("metadata", META),
    ("regarding", REFERENCE),
    ("related", REFERENCE),
    ("reason", Shape::Text),
    ("note", Shape::Text),
    ("type", Shape::Text),
    ("eventTime", Shape::Time),
    ("series", SERIES),
    ("action", Shape::Text),
    ("reportingController", Shape::Text),
    ("reportingInstance", Shape::Text),
    ("deprecatedSource", SOURCE),
    ("deprecatedFirstTimestamp", Shape::Time),
    ("deprecatedLastTimestamp", Shape::Time),
    ("deprecatedCount", Shape::Int32),
];

const SOURCE: Shape = Shape::Object(&[("component", Shape::Text), ("host", Shape::Text)]);
const SERIES: Shape = Shape::Object(&[("count", Shape::Int32), ("lastObservedTime", Shape::Time)]);
