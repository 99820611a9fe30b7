//! What holds of patches whatever the values.

use super::super::merge::diff;
use super::super::{Editor, PatchKind, apply, track};
use super::{editor, patched, pod_fields};
use crate::time::Wall;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Values without nulls, of a few names so that they meet.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0..4_i64).prop_map(Value::from), "[ab]{0,2}".prop_map(Value::from)];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map(name(), inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]", Just("a/b".to_owned()), Just("~".to_owned()), Just("$patch".to_owned()), Just("name".to_owned())]
}

fn object() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map(name(), value(), 0..4).prop_map(|m| Value::Object(m.into_iter().collect()))
}

/// Pods as clients write them.
fn pod() -> impl Strategy<Value = Value> {
    let env = proptest::sample::subsequence(vec!["A", "B", "C"], 0..=3).prop_shuffle();
    let container = ("[abc]", "[xy]", env, proptest::option::of(0..3_u16)).prop_map(|(name, image, env, port)| {
        let env: Vec<Value> = env.into_iter().map(|n| json!({"name": n, "value": image})).collect();
        let ports: Vec<Value> = port.into_iter().map(|p| json!({"containerPort": 80 + p})).collect();
        json!({"name": name, "image": image, "env": env, "ports": ports})
    });
    let labels = proptest::collection::btree_map("[abc]", "[xy]", 0..3);
    (
        proptest::collection::vec(container, 0..3),
        labels,
        proptest::option::of("[hi]"),
        proptest::sample::subsequence(vec!["f/a", "f/b"], 0..=2),
    )
        .prop_map(|(mut containers, labels, hostname, finalizers)| {
            let mut seen = std::collections::BTreeSet::new();
            containers.retain(|c| seen.insert(c["name"].to_string()));
            let mut v = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": labels, "finalizers": finalizers},
                "spec": {"containers": containers}});
            if let Some(h) = hostname {
                v["spec"]["hostname"] = json!(h);
            }
            v
        })
}

/// Operations at places that may be there.
fn operations() -> impl Strategy<Value = Value> {
    let path = || {
        proptest::collection::vec(prop_oneof!["[a-c]", Just("0".to_owned()), Just("-".to_owned()), Just("~1".to_owned())], 0..4)
            .prop_map(|p| p.iter().map(|t| format!("/{t}")).collect::<String>())
    };
    let op = prop_oneof![Just("add"), Just("remove"), Just("replace"), Just("move"), Just("copy"), Just("test")];
    let one =
        (op, path(), path(), value()).prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}));
    proptest::collection::vec(one, 0..6).prop_map(Value::Array)
}

fn strip(mut v: Value) -> Value {
    if let Some(Value::Object(m)) = v.get_mut("metadata") {
        m.remove("managedFields");
    }
    v
}

proptest! {
    #[test]
    fn a_merge_of_the_difference_is_the_other_object(a in object(), b in object()) {
        prop_assert_eq!(patched(PatchKind::Merge, &a, &diff(&a, &b)).unwrap(), b);
    }

    #[test]
    fn an_empty_patch_is_identity(a in pod()) {
        for kind in [PatchKind::Merge, PatchKind::Strategic] {
            prop_assert_eq!(patched(kind, &a, &json!({})).unwrap(), a.clone());
        }
        prop_assert_eq!(patched(PatchKind::Json, &a, &json!([])).unwrap(), a);
    }

    #[test]
    fn a_strategic_merge_of_an_object_into_itself_changes_nothing(a in pod()) {
        prop_assert_eq!(patched(PatchKind::Strategic, &a, &a).unwrap(), a);
    }

    #[test]
    fn what_is_added_tests_true_and_can_be_undone(a in object(), v in value()) {
        let add = json!([{"op": "add", "path": "/zz", "value": v}, {"op": "test", "path": "/zz", "value": v}]);
        let with = patched(PatchKind::Json, &a, &add).unwrap();
        prop_assert_eq!(&with["zz"], &v);
        prop_assert_eq!(patched(PatchKind::Json, &with, &json!([{"op": "remove", "path": "/zz"}])).unwrap(), a);
    }

    #[test]
    fn any_patch_is_taken_or_refused(a in object(), p in value(), o in operations(), b in pod()) {
        for live in [&a, &b] {
            for kind in [PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply] {
                for patch in [&p, &json!({"spec": p, "metadata": p, "apiVersion": "v1", "kind": "Pod"}), &json!({"spec": {"containers": [p, p], "volumes": p}})] {
                    if let Err(f) = patched(kind, live, patch) {
                        prop_assert!(f.code >= 400 && !f.message.is_empty());
                    }
                }
            }
            if let Err(f) = patched(PatchKind::Json, live, &o) {
                prop_assert_eq!(f.code, 422);
            }
        }
    }

    #[test]
    fn an_apply_says_what_was_applied_and_applying_it_again_nothing_new(live in pod(), config in pod()) {
        let live = track(&Value::Null, &live, pod_fields(), &editor("them"));
        let e = Editor { force: true, ..editor("me") };
        let send = |live: &Value, e: &Editor<'_>| apply(PatchKind::Apply, live, config.to_string().as_bytes(), pod_fields(), e).unwrap();
        let once = send(&live, &e);
        prop_assert_eq!(send(&once, &Editor { now: Wall::from_seconds(99), ..e }), once.clone());
        // All of the configuration is in the object.
        let merged = patched(PatchKind::Strategic, &once, &config).unwrap();
        prop_assert_eq!(&merged["metadata"], &once["metadata"]);
    }

    #[test]
    fn who_applies_and_then_wants_nothing_leaves_what_was_there(live in pod(), config in pod()) {
        let live = track(&Value::Null, &live, pod_fields(), &editor("them"));
        let send = |live: &Value, config: &Value| {
            apply(PatchKind::Apply, live, config.to_string().as_bytes(), pod_fields(), &editor("me"))
        };
        if let Ok(with) = send(&live, &config) {
            let nothing = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
            let after = send(&with, &nothing).unwrap();
            prop_assert_eq!(sorted(strip(after)), sorted(strip(live)));
        }
    }

    #[test]
    fn all_that_a_create_sets_has_an_owner(live in pod()) {
        let made = track(&Value::Null, &live, pod_fields(), &editor("me"));
        let mut changed = live.clone();
        changed["spec"]["hostname"] = json!("changed");
        let refused = apply(PatchKind::Apply, &made, changed.to_string().as_bytes(), pod_fields(), &editor("you"));
        prop_assert_eq!(refused.is_err(), live["spec"].get("hostname").is_some());
    }
}

/// With lists in one order, which whoever applies decides, and without those that are empty: nobody owns them.
fn sorted(v: Value) -> Value {
    let is_empty = |v: &Value| v.as_array().is_some_and(Vec::is_empty) || v.as_object().is_some_and(Map::is_empty);
    match v {
        Value::Array(a) => {
            let mut a: Vec<Value> = a.into_iter().map(sorted).collect();
            a.sort_by_key(Value::to_string);
            Value::Array(a)
        }
        Value::Object(m) => Value::Object(m.into_iter().map(|(k, v)| (k, sorted(v))).filter(|(_, v)| !is_empty(v)).collect::<Map<_, _>>()),
        other => other,
    }
}
