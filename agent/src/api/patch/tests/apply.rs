use super::super::{Editor, PatchKind, manager_of, track};
use super::{editor, pod_fields};
use crate::api::Failure;
use crate::time::Wall;
use serde_json::{Value, json};

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

fn send(live: &Value, config: &Value, e: &Editor<'_>) -> Result<Value, Failure> {
    super::super::apply(PatchKind::Apply, live, config.to_string().as_bytes(), pod_fields(), e)
}

fn good(live: &Value, config: &Value, e: &Editor<'_>) -> Value {
    send(live, config, e).unwrap_or_else(|f| panic!("{}", f.message))
}

/// The fields of one manager.
fn owned(v: &Value, manager: &str) -> Value {
    let list = v.pointer("/metadata/managedFields").and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().find(|e| e["manager"] == manager).map_or(Value::Null, |e| e["fieldsV1"].clone())
}

fn spec_of(v: &Value) -> &Value {
    &v["spec"]
}

#[test]
fn an_applier_owns_what_it_says_and_nothing_else() {
    let config = pod(
        json!({"containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80}], "args": ["a"]}], "nodeSelector": {"a": "b"}}),
    );
    let made = good(&Value::Null, &config, &Editor { now: Wall::from_seconds(60), ..editor("me") });
    assert_eq!(spec_of(&made), spec_of(&config));
    let want = json!([{"manager": "me", "operation": "Apply", "apiVersion": "v1", "time": "1970-01-01T00:01:00Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {
            "f:nodeSelector": {},
            "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}]);
    assert_eq!(made["metadata"]["managedFields"], want);
}

#[test]
fn applying_twice_changes_nothing() {
    let config = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"a": "b"}, "finalizers": ["x"]},
        "spec": {"containers": [{"name": "c", "image": "x", "env": [{"name": "A", "value": "1"}]}]}});
    let once = good(&Value::Null, &config, &editor("me"));
    let mut stored = once.clone();
    // What the server adds by itself.
    stored["metadata"]["uid"] = json!("1-2");
    stored["spec"]["restartPolicy"] = json!("Always");
    let again = good(&stored, &config, &Editor { now: Wall::from_seconds(3600), ..editor("me") });
    assert_eq!(again, stored);
}

#[test]
fn what_is_not_applied_any_more_goes_unless_another_owns_it() {
    let first =
        pod(json!({"hostname": "h", "subdomain": "s", "containers": [{"name": "c", "image": "x", "env": [{"name": "A"}, {"name": "B"}]}]}));
    let live = good(&Value::Null, &first, &editor("me"));
    let live = good(&live, &pod(json!({"subdomain": "s"})), &editor("other"));
    let live = good(&live, &pod(json!({"containers": [{"name": "c", "image": "x", "env": [{"name": "B"}]}]})), &editor("me"));
    assert_eq!(spec_of(&live), &json!({"subdomain": "s", "containers": [{"name": "c", "image": "x", "env": [{"name": "B"}]}]}));
    assert_eq!(owned(&live, "other"), json!({"f:spec": {"f:subdomain": {}}}));
    let live = good(&live, &pod(json!({})), &editor("other"));
    assert_eq!(spec_of(&live)["subdomain"], Value::Null);
}

#[test]
fn fields_that_the_server_set_below_an_element_go_with_it() {
    let mut live =
        good(&Value::Null, &pod(json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]})), &editor("me"));
    live["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    let out = good(&live, &pod(json!({"containers": [{"name": "b", "image": "x"}]})), &editor("me"));
    assert_eq!(spec_of(&out), &json!({"containers": [{"name": "b", "image": "x"}]}));
}

#[test]
fn a_field_of_another_is_a_conflict_with_its_name() {
    let live = good(&Value::Null, &pod(json!({"hostname": "h", "containers": [{"name": "c", "image": "x"}]})), &editor("them"));
    let config = pod(json!({"containers": [{"name": "c", "image": "y"}]}));
    let f = send(&live, &config, &editor("me")).unwrap_err();
    assert_eq!((f.code, f.reason.as_str()), (409, "Conflict"));
    assert_eq!(f.message, "Apply failed with 1 conflict: conflict with \"them\": .spec.containers[name=\"c\"].image");
    let cause = &f.details.unwrap().causes[0];
    assert_eq!((cause.reason.as_str(), cause.message.as_str()), ("FieldManagerConflict", "conflict with \"them\""));
    assert_eq!(cause.field, ".spec.containers[name=\"c\"].image");

    let forced = good(&live, &config, &Editor { force: true, ..editor("me") });
    assert_eq!(forced["spec"]["containers"][0]["image"], "y");
    let theirs = json!({"f:spec": {"f:hostname": {}, "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}}}}});
    assert_eq!(owned(&forced, "them"), theirs);
}

#[test]
fn the_same_value_is_shared_without_a_conflict() {
    let config = pod(json!({"hostname": "h"}));
    let live = good(&Value::Null, &config, &editor("them"));
    let live = good(&live, &config, &editor("me"));
    assert_eq!(owned(&live, "them"), owned(&live, "me"));
    assert!(send(&live, &pod(json!({"hostname": "i"})), &editor("me")).is_err());
}

#[test]
fn conflicts_with_several_are_told_by_manager() {
    let live = track(&Value::Null, &pod(json!({"hostname": "h", "subdomain": "s"})), pod_fields(), &editor("kubectl-create"));
    let live = good(&live, &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"a": "1"}}}), &editor("them"));
    let config = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"a": "2"}}, "spec": {"hostname": "i", "subdomain": "t"}});
    assert_eq!(
        send(&live, &config, &editor("me")).unwrap_err().message,
        "Apply failed with 3 conflicts: conflicts with \"kubectl-create\" using v1:\n- .spec.hostname\n- .spec.subdomain\nconflicts with \"them\":\n- .metadata.labels.a"
    );
}

#[test]
fn a_create_and_an_update_are_tracked() {
    let made =
        track(&Value::Null, &pod(json!({"hostname": "h", "containers": [{"name": "c", "image": "x"}]})), pod_fields(), &editor("curl"));
    let want = json!([{"manager": "curl", "operation": "Update", "apiVersion": "v1", "time": "1970-01-01T00:00:00Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {".": {}, "f:hostname": {}, "f:containers": {".": {}, "k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}}}}}}]);
    assert_eq!(made["metadata"]["managedFields"], want);

    let mut changed = made.clone();
    changed["spec"]["hostname"] = json!("i");
    changed["metadata"]["labels"] = json!({"a": "b"});
    let after = track(&made, &changed, pod_fields(), &Editor { now: Wall::from_seconds(5), ..editor("edit") });
    assert_eq!(owned(&after, "edit"), json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:hostname": {}}}));
    assert_eq!(owned(&after, "curl")["f:spec"].get("f:hostname"), None);

    let same = track(&after, &after, pod_fields(), &Editor { now: Wall::from_seconds(9), ..editor("edit") });
    assert_eq!(same, after, "a write that changes nothing leaves the times");
}

#[test]
fn status_has_owners_of_its_own() {
    let made = track(&Value::Null, &pod(json!({"hostname": "h"})), pod_fields(), &editor("curl"));
    let mut told = made.clone();
    told["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let after = track(&made, &told, pod_fields(), &Editor { subresource: "status", ..editor("kubelet") });
    let list = after["metadata"]["managedFields"].as_array().unwrap();
    let entry = list.iter().find(|e| e["manager"] == "kubelet").unwrap();
    assert_eq!(entry["subresource"], "status");
    let conditions = json!({".": {}, "k:{\"type\":\"Ready\"}": {".": {}, "f:type": {}, "f:status": {}}});
    assert_eq!(entry["fieldsV1"]["f:status"]["f:conditions"], conditions);
    let f = send(
        &after,
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "status": {"phase": "Failed"}}),
        &Editor { subresource: "status", ..editor("me") },
    )
    .unwrap_err();
    assert_eq!(f.message, "Apply failed with 1 conflict: conflict with \"kubelet\" with subresource \"status\" using v1: .status.phase");
    // Status cannot be written through the object itself.
    let config = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "status": {"phase": "Failed"}});
    let out = good(&after, &config, &editor("me"));
    assert_eq!((&out["status"], owned(&out, "me")), (&told["status"], Value::Null));
}

#[test]
fn an_object_without_owners_gets_one_with_the_first_apply() {
    let live = pod(json!({"hostname": "h"}));
    assert_eq!(track(&live, &live, pod_fields(), &editor("edit")), live, "an update does not begin it");
    let f = send(&live, &pod(json!({"hostname": "i"})), &editor("me")).unwrap_err();
    assert!(
        f.message.starts_with("Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .spec.hostname"),
        "{}",
        f.message
    );
    let out = good(&live, &pod(json!({"hostname": "h"})), &editor("me"));
    assert_eq!(owned(&out, "me"), json!({"f:spec": {"f:hostname": {}}}));
}

#[test]
fn kubectl_takes_over_what_it_applied_from_its_side_before() {
    let key = "kubectl.kubernetes.io/last-applied-configuration";
    let old = pod(json!({"hostname": "h", "subdomain": "s"}));
    let mut live = old.clone();
    live["metadata"]["annotations"] = json!({key: old.to_string()});
    let live = track(&Value::Null, &live, pod_fields(), &editor("kubectl-client-side-apply"));
    let config = pod(json!({"hostname": "i", "subdomain": "s"}));
    assert!(send(&live, &config, &editor("me")).is_err(), "others do not");
    let out = good(&live, &config, &editor("kubectl"));
    assert_eq!(out["spec"]["hostname"], "i");
    assert_eq!(out["metadata"]["annotations"][key], json!(format!("{config}\n")), "the annotation stays true");
    let again = good(&out, &config, &editor("kubectl"));
    assert_eq!(again, out);
    // A value that someone else set since is a conflict still.
    let mut edited = live.clone();
    edited["spec"]["hostname"] = json!("x");
    let edited = track(&live, &edited, pod_fields(), &editor("edit"));
    assert!(send(&edited, &config, &editor("kubectl")).unwrap_err().message.contains("\"edit\""));
}

#[test]
fn what_cannot_be_applied_is_refused() {
    let fail = |config: Value, e: &Editor<'_>| {
        let f = send(&Value::Null, &config, e).unwrap_err();
        (f.code, f.message)
    };
    let e = editor("me");
    assert_eq!(
        fail(pod(json!({})), &editor("")),
        (422, "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch".into())
    );
    let mut with_owners = pod(json!({}));
    with_owners["metadata"]["managedFields"] = json!([]);
    assert_eq!(fail(with_owners, &e), (400, "metadata.managedFields must be nil".into()));
    assert_eq!(
        fail(json!({"apiVersion": "v1", "kind": "Service", "metadata": {}}), &e),
        (400, "invalid object type: /v1, Kind=Service".into())
    );
    let typed = |told: &str| (500, format!("failed to create typed patch object (default/web; /v1, Kind=Pod): {told}"));
    assert_eq!(fail(pod(json!({"hostnam": "x"})), &e), typed(".spec.hostnam: field not declared in schema"));
    assert_eq!(
        fail(pod(json!({"containers": [{"name": "c"}, {"name": "c"}]})), &e),
        typed(".spec.containers: duplicate entries for key [name=\"c\"]")
    );
    assert_eq!(fail(pod(json!({"containers": {"name": "c"}})), &e), typed(".spec.containers: expected list, got map[name:c]"));
    // A key that is null is none: applied again, the element would not be found.
    assert!(fail(pod(json!({"containers": [{"name": null}]})), &e).1.contains("omits all key fields"));
    assert_eq!(fail(json!([]), &e).0, 400);
}

#[test]
fn the_order_of_a_configuration_wins_over_that_of_the_object() {
    let names = |list: &[&str]| -> Value { pod(json!({"containers": list.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()})) };
    for (live, config, want) in [
        (["a", "b", "c"].as_slice(), ["c", "a"].as_slice(), ["b", "c", "a"].as_slice()),
        (&["a", "s", "b"], &["a", "b", "c"], &["a", "s", "b", "c"]),
        (&["a"], &["b"], &["a", "b"]),
        (&["a", "b"], &["b", "x", "a"], &["b", "x", "a"]),
    ] {
        let live = good(&Value::Null, &names(live), &editor("them"));
        let out = good(&live, &names(config), &editor("me"));
        let got: Vec<&str> = out["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(got, want, "{config:?}");
    }
}

#[test]
fn too_many_updaters_become_ancient_changes() {
    let mut live = track(&Value::Null, &pod(json!({})), pod_fields(), &editor("m0"));
    for i in 1..=14_i64 {
        let mut next = live.clone();
        next["metadata"]["labels"][format!("l{i}")] = json!("x");
        live = track(&live, &next, pod_fields(), &Editor { now: Wall::from_seconds(i), ..editor(&format!("m{i}")) });
    }
    let list = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(list.len(), 10);
    assert_eq!(list[0]["manager"], "ancient-changes");
    assert!(owned(&live, "ancient-changes")["f:metadata"]["f:labels"].get("f:l1").is_some());
}

#[test]
fn owners_may_be_reset_and_garbage_is_not_taken() {
    let made = track(&Value::Null, &pod(json!({"hostname": "h"})), pod_fields(), &editor("curl"));
    let mut reset = made.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    assert_eq!(track(&made, &reset, pod_fields(), &editor("curl"))["metadata"].get("managedFields"), None);
    let mut garbage = made.clone();
    garbage["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Frob"}]);
    assert_eq!(track(&made, &garbage, pod_fields(), &editor("curl")), made);
    let mut silent = made.clone();
    silent["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!(track(&made, &silent, pod_fields(), &editor("curl")), made, "a client that does not know of owners loses none");
}

#[test]
fn a_yaml_body_is_applied() {
    let body = b"apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - {name: c, image: x}\n";
    let out = super::super::apply(PatchKind::Apply, &Value::Null, body, pod_fields(), &editor("me")).unwrap();
    assert_eq!(out["spec"]["containers"][0]["image"], "x");
}

#[test]
fn objects_of_unknown_kinds_are_owned_field_by_field() {
    let e = Editor { api_version: "x/v1", kind: "Thing", ..editor("me") };
    let config = json!({"apiVersion": "x/v1", "kind": "Thing", "metadata": {"name": "t"}, "a": {"b": 1}, "l": [1, {"c": 2}]});
    let out = super::super::apply(PatchKind::Apply, &Value::Null, config.to_string().as_bytes(), None, &e).unwrap();
    assert_eq!(owned(&out, "me"), json!({"f:a": {".": {}, "f:b": {}}, "f:l": {}}));
}

#[test]
fn a_client_that_names_no_manager_is_known_by_its_program() {
    assert_eq!(manager_of(Some("me"), "kubectl/v1.36"), "me");
    assert_eq!(manager_of(None, "kubectl/v1.36 (linux/amd64)"), "kubectl");
    assert_eq!(manager_of(Some(""), "a\u{7}b/1"), "ab");
    assert_eq!(manager_of(None, &"x".repeat(500)).len(), 128);
    let unnamed = track(&Value::Null, &pod(json!({"hostname": "h"})), pod_fields(), &editor(""));
    assert_ne!(owned(&unnamed, "unknown"), Value::Null);
}
