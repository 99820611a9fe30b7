//! What writes make of objects.

use super::super::resource::{ACCOUNTS, CONFIG_MAPS, Id, PODS, SECRETS, SERVICES};
use super::{Caller, Context, DeleteOptions, Effect, Op, Outcome, Validation, decide};
use crate::api::Failure;
use crate::api::patch::PatchKind;
use crate::api::request::Request;
use crate::time::Wall;
use serde_json::{Value, json};

fn caller() -> Caller {
    Caller {
        user: crate::api::access::User::new("eve", &[]),
        manager: "test".into(),
        now: Wall::from_seconds(100),
        seed: 1,
        dry_run: false,
        validation: Validation::Strict,
        force: false,
    }
}

fn request(verb: &'static str, id: Id, name: &str, sub: &str) -> Request {
    let namespace = if id.row().namespaced { "default" } else { "" };
    Request { verb, resource: id, namespace: namespace.into(), name: name.into(), sub: sub.into(), rest: String::new() }
}

fn ask(op: Op, r: &Request, old: Option<&Value>) -> Result<Outcome, Failure> {
    decide(op, r, old, &caller(), &Context::default())
}

fn put(outcome: Outcome) -> Value {
    match outcome.effect {
        Effect::Put(object) | Effect::Ending(object) => object,
        other => panic!("{other:?}"),
    }
}

fn create(id: Id, object: Value) -> Value {
    let mut object = put(ask(Op::Create(object), &request("create", id, "", ""), None).unwrap());
    object["metadata"]["resourceVersion"] = "7".into();
    object
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "x:1"}]}})
}

#[test]
fn a_created_pod_has_an_identity_defaults_and_a_phase() {
    let pod = create(PODS, pod());
    assert_eq!(pod["metadata"]["namespace"], "default");
    assert_eq!(pod["metadata"]["creationTimestamp"], "1970-01-01T00:01:40Z");
    assert_eq!(pod["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert_eq!(pod["metadata"]["generation"], 1);
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(pod["spec"]["restartPolicy"], "Always");
    assert_eq!(pod["metadata"]["managedFields"][0]["manager"], "test");
}

#[test]
fn a_name_can_be_left_to_the_server() {
    let object = json!({"metadata": {"generateName": "web-"}});
    let name = create(CONFIG_MAPS, object)["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
}

#[test]
fn unknown_fields_are_refused_told_or_dropped() {
    let mut object = pod();
    object["spec"]["hostnetwork"] = true.into();
    let how = |validation| {
        let caller = Caller { validation, ..caller() };
        decide(Op::Create(object.clone()), &request("create", PODS, "", ""), None, &caller, &Context::default())
    };
    let refused = how(Validation::Strict).unwrap_err();
    assert_eq!(refused.code, 400);
    assert!(refused.message.contains("strict decoding error: unknown field \"spec.hostnetwork\""), "{}", refused.message);
    assert_eq!(how(Validation::Warn).unwrap().warnings.len(), 1);
    assert!(how(Validation::Ignore).unwrap().warnings.is_empty());
}

#[test]
fn what_an_api_server_refuses_is_refused_in_its_words() {
    let mut object = pod();
    object["spec"]["containers"][0].as_object_mut().unwrap().remove("image");
    let failure = ask(Op::Create(object), &request("create", PODS, "", ""), None).unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (422, "Invalid"));
    assert_eq!(failure.message, "Pod \"web\" is invalid: spec.containers[0].image: Required value");
    let other = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}});
    assert_eq!(ask(Op::Create(other), &request("create", PODS, "", ""), None).unwrap_err().code, 400);
    let elsewhere = json!({"metadata": {"name": "a", "namespace": "kube-system"}});
    assert_eq!(ask(Op::Create(elsewhere), &request("create", CONFIG_MAPS, "", ""), None).unwrap_err().code, 400);
    let there = create(CONFIG_MAPS, json!({"metadata": {"name": "a"}}));
    let failure = ask(Op::Create(json!({"metadata": {"name": "a"}})), &request("create", CONFIG_MAPS, "", ""), Some(&there)).unwrap_err();
    assert_eq!((failure.code, failure.message.as_str()), (409, "configmaps \"a\" already exists"));
}

#[test]
fn an_update_from_an_old_revision_conflicts_and_one_without_does_not() {
    let old = create(CONFIG_MAPS, json!({"metadata": {"name": "a"}, "data": {"x": "1"}}));
    let r = request("update", CONFIG_MAPS, "a", "");
    let mut new = old.clone();
    new["data"]["x"] = "2".into();
    assert_eq!(put(ask(Op::Update(new.clone()), &r, Some(&old)).unwrap())["data"]["x"], "2");
    new["metadata"]["resourceVersion"] = "6".into();
    let failure = ask(Op::Update(new.clone()), &r, Some(&old)).unwrap_err();
    assert_eq!(
        failure.message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    new["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert!(ask(Op::Update(new.clone()), &r, Some(&old)).is_ok());
    new["metadata"]["uid"] = "other".into();
    assert_eq!(ask(Op::Update(new), &r, Some(&old)).unwrap_err().code, 409);
}

#[test]
fn nothing_new_is_no_write() {
    let old = create(CONFIG_MAPS, json!({"metadata": {"name": "a"}, "data": {"x": "1"}}));
    let r = request("update", CONFIG_MAPS, "a", "");
    assert_eq!(ask(Op::Update(old.clone()), &r, Some(&old)).unwrap().effect, Effect::None);
    let patch = Op::Patch(PatchKind::Merge, br#"{"data":{"x":"1"}}"#.to_vec());
    assert_eq!(ask(patch, &r, Some(&old)).unwrap().effect, Effect::None);
}

#[test]
fn only_images_labels_and_little_else_of_a_pod_change() {
    let old = create(PODS, pod());
    let r = request("patch", PODS, "web", "");
    let image = Op::Patch(PatchKind::Strategic, br#"{"spec":{"containers":[{"name":"c","image":"x:2"}]}}"#.to_vec());
    let new = put(ask(image, &r, Some(&old)).unwrap());
    assert_eq!((&new["spec"]["containers"][0]["image"], &new["metadata"]["generation"]), (&json!("x:2"), &json!(2)));
    let command = Op::Patch(PatchKind::Strategic, br#"{"spec":{"containers":[{"name":"c","command":["y"]}]}}"#.to_vec());
    let failure = ask(command, &r, Some(&old)).unwrap_err();
    assert!(failure.message.contains("spec: Forbidden: pod updates may not change fields other than"), "{}", failure.message);
}

#[test]
fn status_and_the_rest_do_not_touch_each_other() {
    let old = create(PODS, pod());
    let both = br#"{"metadata":{"labels":{"a":"b"}},"spec":{"activeDeadlineSeconds":5},"status":{"phase":"Running"}}"#;
    let status = put(ask(Op::Patch(PatchKind::Merge, both.to_vec()), &request("patch", PODS, "web", "status"), Some(&old)).unwrap());
    assert_eq!((&status["status"]["phase"], &status["spec"]), (&json!("Running"), &old["spec"]));
    let spec = put(ask(Op::Patch(PatchKind::Merge, both.to_vec()), &request("patch", PODS, "web", ""), Some(&old)).unwrap());
    assert_eq!((&spec["status"], &spec["spec"]["activeDeadlineSeconds"]), (&old["status"], &json!(5)));
}

#[test]
fn a_running_pod_ends_with_grace_and_then_goes() {
    let old = create(PODS, pod());
    let r = request("delete", PODS, "web", "");
    let delete = |grace: Option<i64>, old: &Value| {
        ask(Op::Delete(DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() }), &r, Some(old)).unwrap()
    };
    let Effect::Ending(ending) = delete(None, &old).effect else { panic!("it ends") };
    assert_eq!(ending["metadata"]["deletionTimestamp"], "1970-01-01T00:02:10Z");
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(delete(Some(60), &ending).effect, Effect::None, "grace does not grow");
    let Effect::Ending(sooner) = delete(Some(5), &ending).effect else { panic!("it ends sooner") };
    assert_eq!(sooner["metadata"]["deletionTimestamp"], "1970-01-01T00:01:45Z");
    assert_eq!(delete(Some(0), &sooner).effect, Effect::Remove);
    let mut over = old.clone();
    over["status"]["phase"] = "Succeeded".into();
    assert_eq!(delete(None, &over).effect, Effect::Remove);
}

#[test]
fn preconditions_of_a_deletion_are_kept() {
    let old = create(CONFIG_MAPS, json!({"metadata": {"name": "a"}}));
    let r = request("delete", CONFIG_MAPS, "a", "");
    let options: DeleteOptions = serde_json::from_value(json!({"preconditions": {"uid": "other"}})).unwrap();
    let failure = ask(Op::Delete(options), &r, Some(&old)).unwrap_err();
    assert!(failure.message.contains("the UID in the precondition (other) does not match the UID in record"), "{}", failure.message);
}

#[test]
fn an_object_with_finalizers_goes_with_the_last_of_them() {
    let old = create(SERVICES, json!({"metadata": {"name": "a", "finalizers": ["x/y"]}, "spec": {"ports": [{"port": 80}]}}));
    let ending = put(ask(Op::Delete(DeleteOptions::default()), &request("delete", SERVICES, "a", ""), Some(&old)).unwrap());
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 0);
    let patch = Op::Patch(PatchKind::Merge, br#"{"metadata":{"finalizers":null}}"#.to_vec());
    assert_eq!(ask(patch, &request("patch", SERVICES, "a", ""), Some(&ending)).unwrap().effect, Effect::Remove);
}

#[test]
fn immutable_data_and_types_stay() {
    let old = create(CONFIG_MAPS, json!({"metadata": {"name": "a"}, "data": {"x": "1"}, "immutable": true}));
    let patch = |body: &[u8], id, old| ask(Op::Patch(PatchKind::Merge, body.to_vec()), &request("patch", id, "a", ""), Some(old));
    let failure = patch(br#"{"data":{"x":"2"}}"#, CONFIG_MAPS, &old).unwrap_err();
    assert!(failure.message.contains("data: Forbidden: field is immutable when `immutable` is set"), "{}", failure.message);
    assert!(patch(br#"{"metadata":{"labels":{"a":"b"}}}"#, CONFIG_MAPS, &old).is_ok());
    let secret = create(SECRETS, json!({"metadata": {"name": "a"}, "stringData": {"x": "1"}}));
    assert_eq!((&secret["data"]["x"], &secret["type"]), (&json!("MQ=="), &json!("Opaque")));
    assert_eq!(patch(br#"{"type":"other"}"#, SECRETS, &secret).unwrap_err().code, 422);
}

#[test]
fn a_service_keeps_what_it_was_given() {
    let mut old = create(SERVICES, json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}));
    old["spec"]["clusterIP"] = "10.96.0.9".into();
    old["spec"]["ports"][0]["nodePort"] = 30_001.into();
    let new = json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80}]}});
    let new = put(ask(Op::Update(new), &request("update", SERVICES, "a", ""), Some(&old)).unwrap());
    assert_eq!((&new["spec"]["clusterIP"], &new["spec"]["ports"][0]["nodePort"]), (&json!("10.96.0.9"), &json!(30_001)));
    let moved = Op::Patch(PatchKind::Merge, br#"{"spec":{"clusterIP":"10.96.0.10"}}"#.to_vec());
    assert_eq!(ask(moved, &request("patch", SERVICES, "a", ""), Some(&old)).unwrap_err().code, 422);
}

#[test]
fn a_pod_is_bound_once_and_evicted_with_a_reason() {
    let mut old = create(PODS, pod());
    let bind = |old: &Value| {
        ask(Op::Create(json!({"target": {"kind": "Node", "name": "m"}})), &request("create", PODS, "web", "binding"), Some(old))
    };
    assert!(bind(&old).unwrap_err().message.contains("already assigned to node \"n\""));
    old["spec"]["nodeName"] = "".into();
    assert_eq!(put(bind(&old).unwrap())["spec"]["nodeName"], "m");
    let running = create(PODS, pod());
    let evicted = ask(Op::Create(json!({})), &request("create", PODS, "web", "eviction"), Some(&running)).unwrap();
    assert_eq!(evicted.answer.as_ref().unwrap()["status"], "Success");
    assert_eq!(put(evicted)["status"]["conditions"][0]["reason"], "EvictionByEvictionAPI");
}

#[test]
fn apply_makes_what_is_not_there_and_twice_is_once() {
    let body = br#"{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"a","labels":{"x":"y"}}}"#.to_vec();
    let r = request("patch", ACCOUNTS, "a", "");
    let made = ask(Op::Patch(PatchKind::Apply, body.clone()), &r, None).unwrap();
    assert_eq!(made.code, 201);
    let made = put(made);
    assert_eq!(made["metadata"]["managedFields"][0]["operation"], "Apply");
    assert_eq!(ask(Op::Patch(PatchKind::Apply, body), &r, Some(&made)).unwrap().effect, Effect::None);
    let merge = Op::Patch(PatchKind::Merge, b"{}".to_vec());
    assert_eq!(ask(merge, &r, None).unwrap_err().code, 404);
}

#[test]
fn ephemeral_containers_are_only_added_and_resources_only_resized() {
    let old = create(PODS, pod());
    let patch = |sub: &str, body: Value, old: &Value| {
        let op = Op::Patch(PatchKind::Strategic, serde_json::to_vec(&body).unwrap());
        ask(op, &request("patch", PODS, "web", sub), Some(old))
    };
    let with = put(patch("ephemeralcontainers", json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "y:1"}]}}), &old).unwrap());
    assert_eq!(with["spec"]["ephemeralContainers"][0]["name"], "d");
    let changed = patch("ephemeralcontainers", json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "y:2"}]}}), &with);
    assert_eq!(changed.unwrap_err().code, 422);
    let limits = json!({"spec": {"containers": [{"name": "c", "image": "z:9", "resources": {"limits": {"cpu": "1"}}}]}});
    let failure = patch("resize", limits, &old).unwrap_err();
    assert!(failure.message.contains("Pod QOS Class may not change"), "{}", failure.message);
}
