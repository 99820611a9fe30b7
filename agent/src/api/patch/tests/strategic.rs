use super::super::strategic::apply;
use super::pod_fields;
use crate::api::Failure;
use crate::manifest::schema::shape_of;
use serde_json::{Value, json};

fn send(live: &Value, patch: &Value) -> Result<Value, Failure> {
    apply(live, patch.clone(), pod_fields().unwrap())
}

/// The spec that becomes of a spec.
fn spec(live: Value, patch: Value) -> Value {
    let out = send(&json!({"spec": live}), &json!({"spec": patch})).unwrap_or_else(|e| panic!("{patch}: {e:?}"));
    out["spec"].clone()
}

fn refused(live: Value, patch: Value) -> (u16, String) {
    let f = send(&json!({"spec": live}), &json!({"spec": patch})).expect_err("a refusal");
    (f.code, f.message)
}

#[test]
fn elements_are_found_by_the_key_of_their_list() {
    for (live, patch, want) in [
        (
            json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}),
            json!({"containers": [{"name": "b", "image": "z"}]}),
            json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "z"}]}),
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 81}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 81, "name": "x"}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 81, "name": "x"}]}]}),
        ),
        (
            json!({"containers": [{"name": "a", "env": [{"name": "A", "value": "1"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "B", "value": "2"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}]}),
        ),
        (
            json!({"containers": [{"name": "a", "volumeMounts": [{"mountPath": "/a", "name": "v"}]}]}),
            json!({"containers": [{"name": "a", "volumeMounts": [{"mountPath": "/a", "readOnly": true}]}]}),
            json!({"containers": [{"name": "a", "volumeMounts": [{"mountPath": "/a", "name": "v", "readOnly": true}]}]}),
        ),
        (
            json!({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}]}),
            json!({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["b"]}]}),
            json!({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["b"]}]}),
        ),
    ] {
        assert_eq!(spec(live, patch.clone()), want, "{patch}");
    }
}

#[test]
fn lists_without_a_key_are_replaced() {
    assert_eq!(
        spec(
            json!({"tolerations": [{"key": "a"}], "nodeSelector": {"a": "1"}}),
            json!({"tolerations": [{"key": "b"}], "nodeSelector": {"b": "2"}})
        ),
        json!({"tolerations": [{"key": "b"}], "nodeSelector": {"a": "1", "b": "2"}})
    );
    let live = json!({"containers": [{"name": "a", "args": ["x", "y"]}]});
    let patch = json!({"containers": [{"name": "a", "args": ["z"]}]});
    assert_eq!(spec(live, patch), json!({"containers": [{"name": "a", "args": ["z"]}]}));
}

#[test]
fn null_takes_out_and_new_values_come_without_nulls() {
    assert_eq!(spec(json!({"nodeName": "n", "hostname": "h"}), json!({"nodeName": null, "absent": null})), json!({"hostname": "h"}));
    assert_eq!(
        spec(json!({}), json!({"securityContext": {"runAsUser": 1, "fsGroup": null}})),
        json!({"securityContext": {"runAsUser": 1}})
    );
}

#[test]
fn finalizers_and_node_cidrs_are_united() {
    let out = send(&json!({"metadata": {"finalizers": ["a", "b"]}}), &json!({"metadata": {"finalizers": ["b", "c"]}})).unwrap();
    assert_eq!(out, json!({"metadata": {"finalizers": ["a", "b", "c"]}}));
    let out = send(
        &json!({"metadata": {"finalizers": ["a", "b"]}}),
        &json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b"]}}),
    )
    .unwrap();
    assert_eq!(out, json!({"metadata": {"finalizers": ["b"]}}));
}

#[test]
fn elements_objects_and_lists_go_by_directive() {
    for (live, patch, want) in [
        (
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b"}]}),
        ),
        (
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "c", "image": "x"}, {"$patch": "replace"}]}),
            json!({"containers": [{"name": "c", "image": "x"}]}),
        ),
        (
            json!({"securityContext": {"runAsUser": 1, "fsGroup": 2}}),
            json!({"securityContext": {"$patch": "replace", "runAsUser": 3}}),
            json!({"securityContext": {"runAsUser": 3}}),
        ),
        (json!({"securityContext": {"runAsUser": 1}}), json!({"securityContext": {"$patch": "delete"}}), json!({"securityContext": {}})),
        (json!({}), json!({"securityContext": {"$patch": "delete"}}), json!({})),
        (json!({"containers": []}), json!({"containers": [{"name": "a", "$patch": "delete"}]}), json!({"containers": []})),
    ] {
        assert_eq!(spec(live, patch.clone()), want, "{patch}");
    }
}

#[test]
fn retained_keys_leave_one_kind_of_volume() {
    let live = json!({"volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}, {"name": "w", "emptyDir": {}}]});
    let patch = json!({"volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/a"}}]});
    let want = json!({"volumes": [{"name": "v", "hostPath": {"path": "/a"}}, {"name": "w", "emptyDir": {}}]});
    assert_eq!(spec(live.clone(), patch), want);
    let patch = json!({"volumes": [{"$retainKeys": ["name"], "name": "v", "hostPath": {"path": "/a"}}]});
    assert_eq!(refused(live, patch), (400, "invalid patch format of retainKeys".into()));
}

#[test]
fn an_order_of_elements_is_kept_around_those_of_others() {
    let live = json!({"containers": [{"name": "a"}, {"name": "s"}, {"name": "b"}]});
    let patch = json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "x"}]});
    assert_eq!(spec(live.clone(), patch), json!({"containers": [{"name": "s"}, {"name": "b"}, {"name": "a", "image": "x"}]}));
    let patch = json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "c"}, {"name": "b"}], "containers": [{"name": "c"}]});
    assert_eq!(spec(live.clone(), patch), json!({"containers": [{"name": "a"}, {"name": "c"}, {"name": "s"}, {"name": "b"}]}));
    let patch = json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b", "image": "x"}]});
    assert!(refused(live, patch).1.starts_with("The order in patch list:"));
}

#[test]
fn what_makes_no_sense_is_refused_in_the_words_of_an_api_server() {
    let live = json!({"containers": [{"name": "a"}]});
    for (patch, code, want) in [
        (json!({"containers": [{"image": "x"}]}), 500, "map: map[image:x] does not contain declared merge key: name"),
        (json!({"containers": [{"name": "a", "$patch": "frob"}]}), 500, "unknown patch type: frob in map: map[$patch:frob name:a]"),
        (json!({"containers": [["a"]]}), 422, "the server rejected our request due to an error in our request"),
        (json!({"containers": [{"name": "a"}, "b"]}), 500, "expected a map, but received a string"),
        (json!({"$setElementOrder/containers": "x"}), 500, "expected a []interface {}, but received x"),
        (json!({"$patch": "merge"}), 500, "unknown patch type: merge in map: map[$patch:merge]"),
    ] {
        assert_eq!(refused(live.clone(), patch), (code, want.into()));
    }
}

#[test]
fn ports_of_a_service_merge_by_their_number() {
    let fields = shape_of("v1", "Service").unwrap();
    let live = json!({"spec": {"ports": [{"port": 80, "nodePort": 30080}, {"port": 443}], "selector": {"a": "1"}}});
    let patch = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}], "selector": {"b": "2"}}});
    let want =
        json!({"spec": {"ports": [{"port": 80, "nodePort": 30080, "targetPort": 8080}, {"port": 443}], "selector": {"a": "1", "b": "2"}}});
    assert_eq!(apply(&live, patch, fields).unwrap(), want);
}

#[test]
fn conditions_and_addresses_of_a_node_merge_by_type() {
    let fields = shape_of("v1", "Node").unwrap();
    let live = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "DiskPressure", "status": "False"}],
        "images": [{"names": ["a"]}]}});
    let patch = json!({"status": {"$setElementOrder/conditions": [{"type": "Ready"}, {"type": "DiskPressure"}],
        "conditions": [{"type": "Ready", "status": "True"}], "images": [{"names": ["b"]}]}});
    let want = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}],
        "images": [{"names": ["b"]}]}});
    assert_eq!(apply(&live, patch, fields).unwrap(), want);
}
