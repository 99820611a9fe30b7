use super::super::json::{MOST_OPERATIONS, apply};
use serde_json::{Value, json};

fn good(live: Value, patch: Value) -> Value {
    apply(&live, &patch).unwrap_or_else(|e| panic!("{patch}: {e:?}"))
}

/// What the one cause of a refusal says.
fn refused(live: Value, patch: Value) -> String {
    let f = apply(&live, &patch).expect_err("a refusal");
    assert_eq!((f.code, f.reason.as_str()), (422, "Invalid"));
    assert_eq!(f.message, "the server rejected our request due to an error in our request");
    f.details.unwrap().causes[0].message.clone()
}

#[test]
fn every_operation_does_what_the_rfc_says() {
    for (live, patch, want) in [
        (json!({"a": 1}), json!([]), json!({"a": 1})),
        (json!({"a": 1}), json!([{"op": "add", "path": "/b", "value": [1]}]), json!({"a": 1, "b": [1]})),
        (json!({"a": 1}), json!([{"op": "add", "path": "/a", "value": 2}]), json!({"a": 2})),
        (json!({"a": [1, 3]}), json!([{"op": "add", "path": "/a/1", "value": 2}]), json!({"a": [1, 2, 3]})),
        (json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), json!({"a": [1, 2]})),
        (json!({"a": [1]}), json!([{"op": "add", "path": "/a/1", "value": 2}]), json!({"a": [1, 2]})),
        (json!({"a": 1, "b": 2}), json!([{"op": "remove", "path": "/a"}]), json!({"b": 2})),
        (json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/0"}]), json!({"a": [2]})),
        (json!({"a": [1, 2]}), json!([{"op": "replace", "path": "/a/0", "value": 9}]), json!({"a": [9, 2]})),
        (json!({"a": 1}), json!([{"op": "replace", "path": "", "value": {"x": 1}}]), json!({"x": 1})),
        (json!({"a": {"b": 1}}), json!([{"op": "move", "from": "/a/b", "path": "/c"}]), json!({"a": {}, "c": 1})),
        (json!({"a": [1, 2, 3]}), json!([{"op": "move", "from": "/a/0", "path": "/a/2"}]), json!({"a": [2, 3, 1]})),
        (json!({"a": {"b": 1}}), json!([{"op": "copy", "from": "/a", "path": "/c"}]), json!({"a": {"b": 1}, "c": {"b": 1}})),
        (json!({"a": [1, {"b": "x"}]}), json!([{"op": "test", "path": "/a/1/b", "value": "x"}]), json!({"a": [1, {"b": "x"}]})),
        (json!({"a/b": 1, "m~n": 2}), json!([{"op": "remove", "path": "/a~1b"}, {"op": "remove", "path": "/m~0n"}]), json!({})),
        (json!({"~1": 1}), json!([{"op": "remove", "path": "/~01"}]), json!({})),
        (json!({"": 1}), json!([{"op": "remove", "path": "/"}]), json!({})),
    ] {
        assert_eq!(good(live, patch.clone()), want, "{patch}");
    }
}

#[test]
fn what_an_api_server_takes_beyond_the_rfc_is_taken() {
    assert_eq!(good(json!({}), json!([{"op": "replace", "path": "/a", "value": 1}])), json!({"a": 1}), "a member that is not there");
    assert_eq!(good(json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/-1"}])), json!({"a": [1]}), "an index from the end");
    assert_eq!(good(json!({"a": [1]}), json!([{"op": "add", "path": "/a/-1", "value": 2}])), json!({"a": [1, 2]}));
    assert_eq!(good(json!({}), json!([{"op": "test", "path": "/a", "value": null}])), json!({}), "null is absent");
}

#[test]
fn an_operation_that_cannot_be_carried_out_says_why() {
    for (live, patch, want) in [
        (
            json!({}),
            json!([{"op": "remove", "path": "/a"}]),
            "error in remove for path: '/a': Unable to remove nonexistent key: a: missing value",
        ),
        (
            json!({}),
            json!([{"op": "add", "path": "/a/b", "value": 1}]),
            "add operation does not apply: doc is missing path: \"/a/b\": missing value",
        ),
        (
            json!({}),
            json!([{"op": "add", "path": "", "value": 1}]),
            "add operation does not apply: doc is missing path: \"\": missing value",
        ),
        (
            json!({"a": [1]}),
            json!([{"op": "add", "path": "/a/3", "value": 1}]),
            "error in add for path: '/a/3': Unable to access invalid index: 3: invalid index detected",
        ),
        (
            json!({"a": [1]}),
            json!([{"op": "add", "path": "/a/x", "value": 1}]),
            "error in add for path: '/a/x': value was not a proper array index: 'x'",
        ),
        (
            json!({"a": [1]}),
            json!([{"op": "replace", "path": "/a/-2", "value": 1}]),
            "replace operation does not apply: doc is missing key: \"/a/-2\": missing value",
        ),
        (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 2}]), "testing value /a failed: test failed"),
        (json!({"a": 1}), json!([{"op": "test", "path": "", "value": {}}]), "testing value  failed: test failed"),
        (
            json!({"a": 1}),
            json!([{"op": "move", "from": "/b", "path": "/c"}]),
            "error in move for path: '/b': error in remove for path: '/b': Unable to remove nonexistent key: b: missing value",
        ),
        (
            json!({"a": {}}),
            json!([{"op": "move", "from": "/a", "path": "/a/b"}]),
            "move operation does not apply: doc is missing destination path: \"/a/b\": missing value",
        ),
        (json!({"a": 1}), json!([{"op": "frobnicate", "path": "/a"}]), "Unexpected kind: frobnicate"),
        (json!({"a": 1}), json!([{"op": "add", "value": 1}]), "add operation failed to decode path: missing value"),
        (
            json!({"a": "x"}),
            json!([{"op": "add", "path": "/a/b", "value": 1}]),
            "add operation does not apply: doc is missing path: \"/a/b\": missing value",
        ),
    ] {
        assert_eq!(refused(live, patch), want);
    }
}

#[test]
fn a_patch_that_fails_half_way_changes_nothing() {
    let live = json!({"a": 1});
    assert!(apply(&live, &json!([{"op": "remove", "path": "/a"}, {"op": "remove", "path": "/a"}])).is_err());
    assert_eq!(live, json!({"a": 1}));
}

#[test]
fn what_is_no_list_of_operations_is_a_bad_request() {
    for patch in [json!({}), json!("x"), json!(null), json!([1])] {
        assert_eq!(apply(&json!({}), &patch).unwrap_err().code, 400, "{patch}");
    }
    let many = vec![json!({"op": "test", "path": "/a", "value": null}); MOST_OPERATIONS + 1];
    let f = apply(&json!({}), &Value::Array(many)).unwrap_err();
    assert_eq!((f.code, f.reason.as_str()), (413, "RequestEntityTooLarge"));
    assert_eq!(f.message, "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001");
}

#[test]
fn copies_of_copies_and_nests_without_end_are_stopped() {
    let double = json!({"op": "copy", "from": "/a", "path": "/a/-"});
    let live = json!({"a": ["x".repeat(1000)]});
    assert!(refused(live, Value::Array(vec![double; 40])).starts_with("Unable to complete the copy"));
    let nest = [
        json!({"op": "move", "from": "/a", "path": "/b/c"}),
        json!({"op": "move", "from": "/b", "path": "/a"}),
        json!({"op": "add", "path": "/b", "value": {}}),
    ];
    let many: Vec<Value> = (0..1000).flat_map(|_| nest.clone()).collect();
    assert!(refused(json!({"a": 1, "b": {}}), Value::Array(many)).contains("deeper than 100 levels"));
}
