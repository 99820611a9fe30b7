//! Deletion, dry runs, bodies of typed clients, and sub-resources that write.

use super::server::{MAPS, PODS, Server, map, parts, pod, revision, with_server};
use base64::Engine as _;
use serde_json::{Value, json};

async fn is_there(server: &Server, path: &str) -> bool {
    match server.get(path).await.status {
        200 => true,
        404 => false,
        other => panic!("{other}"),
    }
}

#[test]
fn a_deletion_under_a_condition_that_does_not_hold_deletes_nothing() {
    with_server(parts(), async |server| {
        let made = server.post(MAPS, &map("m", 1)).await.ok();
        let path = format!("{MAPS}/m");
        let told = server.delete(&path, &json!({"preconditions": {"uid": "another"}})).await.refused(409, "Conflict");
        assert!(told.contains("does not match the UID in record"), "{told}");
        server.delete(&path, &json!({"preconditions": {"resourceVersion": "1"}})).await.refused(409, "Conflict");
        server.delete(&path, &json!({"propagationPolicy": "Sideways"})).await.refused(400, "BadRequest");
        server.delete(&path, &json!({"gracePeriodSeconds": -5})).await.refused(400, "BadRequest");
        server.delete(&path, &json!([1])).await.refused(400, "BadRequest");
        assert_eq!(server.get(&path).await.ok(), made);
        let met = json!({"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]});
        let told = server.delete(&path, &json!({"preconditions": met})).await.ok();
        assert_eq!((&told["status"], &told["details"]["name"]), (&json!("Success"), &json!("m")));
        server.delete(&path, &json!({})).await.refused(404, "NotFound");
    });
}

#[test]
fn an_object_with_finalizers_goes_when_the_last_is_taken_away() {
    with_server(parts(), async |server| {
        let mut object = map("m", 1);
        object["metadata"]["finalizers"] = json!(["a/b", "c/d"]);
        let from = revision(&server.post(MAPS, &object).await.ok());
        let path = format!("{MAPS}/m");
        let mut watch = server.watch(&format!("{MAPS}?watch=1&resourceVersion={from}")).await;
        let ending = server.delete(&path, &json!({})).await.ok();
        let since = ending["metadata"]["deletionTimestamp"].clone();
        assert!(since.is_string(), "{ending}");
        server.delete(&path, &json!({})).await.ok();
        let left = server.patch(&path, &json!({"metadata": {"finalizers": ["c/d"]}})).await.ok();
        assert_eq!(left["metadata"]["deletionTimestamp"], since, "nobody takes an end back");
        let cleared = server.patch(&path, &json!({"metadata": {"deletionTimestamp": null}})).await.ok();
        assert_eq!(cleared["metadata"]["deletionTimestamp"], since);
        server.patch(&path, &json!({"metadata": {"finalizers": null}})).await.ok();
        assert!(!is_there(server, &path).await);
        let told: Vec<String> = [watch.next().await, watch.next().await, watch.next().await].map(|e| e.unwrap().what).into();
        assert_eq!(told, ["MODIFIED", "MODIFIED", "DELETED"], "the second deletion and the empty patch are no changes");
    });
}

#[test]
fn a_pod_ends_with_its_grace_and_the_grace_only_shrinks() {
    with_server(parts(), async |server| {
        server.post(PODS, &pod("p", "n")).await.ok();
        server.post(PODS, &pod("unbound", "")).await.ok();
        let path = format!("{PODS}/p");
        let ending = server.delete(&path, &json!({})).await.ok();
        assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 30);
        let shorter = server.delete(&path, &json!({"gracePeriodSeconds": 5})).await.ok();
        assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
        let longer = server.delete(&path, &json!({"gracePeriodSeconds": 60})).await.ok();
        assert_eq!(longer["metadata"], shorter["metadata"]);
        server.delete(&format!("{path}?gracePeriodSeconds=0"), &json!({})).await.ok();
        assert!(!is_there(server, &path).await);
        server.delete(&format!("{PODS}/unbound"), &json!({})).await.ok();
        assert!(!is_there(server, &format!("{PODS}/unbound")).await, "what never ran has nothing to end");
    });
}

#[test]
fn a_namespace_goes_with_all_that_is_in_it_and_takes_nothing_new() {
    with_server(parts(), async |server| {
        server.namespace("a").await;
        let maps = "/api/v1/namespaces/a/configmaps";
        let mut held = map("held", 1);
        held["metadata"]["finalizers"] = json!(["x/y"]);
        server.post(maps, &held).await.ok();
        server.post(maps, &map("m", 1)).await.ok();
        let mut watch = server.watch(&format!("/api/v1/namespaces?watch=1&resourceVersion={}", server.api.store().revision())).await;
        let ending = server.delete("/api/v1/namespaces/a", &json!({})).await.ok();
        assert_eq!(ending["status"]["phase"], "Terminating");
        assert_eq!(watch.next().await.unwrap().what, "MODIFIED");
        let told = server.post(maps, &map("new", 1)).await.refused(403, "Forbidden");
        assert!(told.contains("because it is being terminated"), "{told}");
        server.patch(&format!("{maps}/held"), &json!({"metadata": {"finalizers": null}})).await;
        assert_eq!(watch.next().await.unwrap().what, "DELETED");
        assert!(!is_there(server, &format!("{maps}/m")).await && !is_there(server, "/api/v1/namespaces/a").await);
        server.delete("/api/v1/namespaces/default", &json!({})).await.refused(403, "Forbidden");
    });
}

#[test]
fn dry_runs_answer_as_if_and_change_nothing() {
    with_server(parts(), async |server| {
        let made = server.post(MAPS, &map("m", 1)).await.ok();
        server.post(PODS, &pod("p", "n")).await.ok();
        server.post(PODS, &pod("q", "")).await.ok();
        let before = server.api.store().revision();
        let mut watch = server.watch("/api/v1/configmaps?watch=1").await;
        watch.next().await.unwrap();
        let path = format!("{MAPS}/m?dryRun=All");
        assert_eq!(server.post(&format!("{MAPS}?dryRun=All"), &map("new", 1)).await.ok()["metadata"]["name"], "new");
        assert_eq!(server.put(&path, &map("m", 2)).await.ok()["data"]["v"], "2");
        assert_eq!(server.patch(&path, &json!({"data": {"v": "3"}})).await.ok()["data"]["v"], "3");
        server.delete(&path, &json!({})).await.ok();
        server.delete(&format!("{MAPS}/m"), &json!({"dryRun": ["All"]})).await.ok();
        server.delete(&format!("{MAPS}?dryRun=All"), &json!({})).await.ok();
        server.delete("/api/v1/namespaces/default?dryRun=All", &json!({})).await;
        server.namespace("other").await;
        assert_eq!(server.api.store().revision(), before + 1, "but for the namespace that was no dry run");
        server.delete("/api/v1/namespaces/other?dryRun=All", &json!({})).await.ok();
        server.post(&format!("{PODS}/q/binding?dryRun=All"), &json!({"metadata": {"name": "q"}, "target": {"name": "n"}})).await.ok();
        let eviction = json!({"metadata": {"name": "p"}, "deleteOptions": {"dryRun": ["All"]}});
        server.post(&format!("{PODS}/p/eviction"), &eviction).await.ok();
        server.post(&format!("{PODS}/p/eviction?dryRun=All"), &json!({"metadata": {"name": "p"}})).await.ok();
        server.post(&format!("{MAPS}?dryRun=Some"), &map("new", 1)).await.refused(422, "Invalid");
        assert_eq!(server.api.store().revision(), before + 1);
        assert_eq!(server.get(&format!("{MAPS}/m")).await.ok(), made);
        server.put(&format!("{MAPS}/m"), &map("m", 4)).await.ok();
        assert_eq!(watch.next().await.unwrap().object["data"]["v"], "4", "the watcher saw none of it");
    });
}

#[test]
fn a_binding_binds_once_and_says_since_when() {
    with_server(parts(), async |server| {
        server.post(PODS, &pod("p", "")).await.ok();
        let binding = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
        let bind = format!("{PODS}/p/binding");
        server.post(&bind, &binding("")).await.refused(400, "BadRequest");
        assert_eq!(server.post(&bind, &binding("n1")).await.ok()["status"], "Success");
        server.post(&bind, &binding("n2")).await.refused(409, "Conflict");
        let bound = server.get(&format!("{PODS}/p")).await.ok();
        assert_eq!(bound["spec"]["nodeName"], "n1");
        let condition = &bound["status"]["conditions"][0];
        assert_eq!((&condition["type"], &condition["status"]), (&json!("PodScheduled"), &json!("True")));
        assert!(condition["lastTransitionTime"].is_string(), "{condition}");
    });
}

#[test]
fn an_eviction_ends_the_pod_and_says_why() {
    with_server(parts(), async |server| {
        server.post(PODS, &pod("p", "n")).await.ok();
        let eviction =
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}, "deleteOptions": {"gracePeriodSeconds": 7}});
        assert_eq!(server.post(&format!("{PODS}/p/eviction"), &eviction).await.status, 201);
        let ending = server.get(&format!("{PODS}/p")).await.ok();
        assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 7);
        assert_eq!(ending["status"]["conditions"][0]["reason"], "EvictionByEvictionAPI");
    });
}

#[test]
fn status_and_spec_are_written_apart() {
    with_server(parts(), async |server| {
        let made = server.post(PODS, &pod("p", "n")).await.ok();
        let mut both = made.clone();
        both["metadata"]["labels"] = json!({"a": "b"});
        both["status"]["phase"] = "Running".into();
        let whole = server.put(&format!("{PODS}/p"), &both).await.ok();
        assert_eq!((&whole["status"]["phase"], &whole["metadata"]["labels"]["a"]), (&json!("Pending"), &json!("b")));
        both["metadata"]["resourceVersion"] = whole["metadata"]["resourceVersion"].clone();
        both["spec"]["containers"][0]["image"] = "y:2".into();
        let status = server.put(&format!("{PODS}/p/status"), &both).await.ok();
        assert_eq!((&status["status"]["phase"], &status["spec"]["containers"][0]["image"]), (&json!("Running"), &json!("x:1")));
        both["metadata"]["resourceVersion"] = status["metadata"]["resourceVersion"].clone();
        both["spec"]["hostNetwork"] = true.into();
        let told = server.put(&format!("{PODS}/p"), &both).await.refused(422, "Invalid");
        assert!(told.contains("pod updates may not change fields other than"), "{told}");
    });
}

/// The vector of that name.
fn body(name: &str) -> (Vec<u8>, Value) {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("../vectors/protobuf.json")).unwrap();
    let vector = vectors.into_iter().find(|v| v["name"] == name).unwrap();
    (base64::prelude::BASE64_STANDARD.decode(vector["body"].as_str().unwrap()).unwrap(), vector["want"].clone())
}

#[test]
fn bodies_in_protobuf_are_written_as_those_in_json() {
    with_server(parts(), async |server| {
        let kind = "application/vnd.kubernetes.protobuf";
        let (bytes, want) = body("a config map as kubectl creates it");
        let made = server.ask("POST", MAPS, kind, bytes.clone()).await.ok();
        assert_eq!((&made["data"], &made["binaryData"]), (&want["data"], &want["binaryData"]));
        server.ask("POST", MAPS, kind, bytes.clone()).await.refused(409, "AlreadyExists");
        server.ask("PUT", &format!("{MAPS}/web"), kind, bytes).await.ok();
        let may = server.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", kind, body("auth can-i").0).await.ok();
        assert_eq!(may["status"]["allowed"], true);
        server.ask("DELETE", &format!("{MAPS}/web"), kind, body("options of a deletion").0).await.refused(409, "Conflict");
        server.ask("DELETE", &format!("{MAPS}/web"), kind, body("options that say nothing").0).await.ok();
        server.post(PODS, &pod("p", "n")).await.ok();
        let evicted = server.ask("POST", &format!("{PODS}/p/eviction"), kind, body("an eviction with empty options").0).await;
        assert_eq!((evicted.status, is_there(server, &format!("{PODS}/p")).await), (201, false), "{:?}", evicted.body);
    });
}
