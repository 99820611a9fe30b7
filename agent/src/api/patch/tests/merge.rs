use super::super::merge::{apply, diff};
use serde_json::{Value, json};

#[test]
fn the_examples_of_the_rfc_hold() {
    for (live, patch, want) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        (json!(null), json!({"a": 1}), json!({"a": 1})),
    ] {
        assert_eq!(apply(&live, patch.clone()).unwrap(), want, "{live} {patch}");
    }
}

#[test]
fn only_an_object_is_a_merge_patch() {
    for patch in [json!([1]), json!("x"), json!(null), json!(3)] {
        let f = apply(&json!({}), patch).unwrap_err();
        assert_eq!((f.code, f.message.as_str()), (400, "Invalid JSON Patch"));
    }
}

#[test]
fn a_difference_says_only_what_is_different() {
    let a = json!({"same": {"x": 1}, "gone": 1, "in": {"a": 1, "b": 2}});
    let b = json!({"same": {"x": 1}, "in": {"a": 1, "c": 3}, "new": [1]});
    assert_eq!(diff(&a, &b), json!({"gone": null, "in": {"b": null, "c": 3}, "new": [1]}));
    assert_eq!(diff(&a, &a), Value::Object(serde_json::Map::new()));
}
