//! Events have two faces: core/v1 and events.k8s.io/v1. They are kept with the first.

use serde_json::Value;

/// Field of core/v1, field of events.k8s.io/v1.
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(object: &mut Value, version: &str, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let Value::Object(fields) = object else { return };
    for (from, to) in names {
        if let Some(v) = fields.remove(from) {
            fields.insert(to.into(), v);
        }
    }
    fields.insert("apiVersion".into(), version.into());
}

pub fn to_events_group(object: &mut Value) {
    rename(object, "events.k8s.io/v1", NAMES.iter().copied());
    for field in ["reportingController", "reportingInstance"] {
        if object[field] == "" {
            object.as_object_mut().map(|o| o.remove(field));
        }
    }
}

pub fn to_core(object: &mut Value) {
    rename(object, "v1", NAMES.iter().map(|(core, other)| (*other, *core)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_two_faces_of_an_event_hold_the_same() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"name": "a"}, "message": "m", "count": 2});
        let mut other = core.clone();
        to_events_group(&mut other);
        assert_eq!(
            other,
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "regarding": {"name": "a"}, "note": "m", "deprecatedCount": 2})
        );
        to_core(&mut other);
        assert_eq!(other, core);
    }
}
