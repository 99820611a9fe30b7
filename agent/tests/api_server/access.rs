//! Who may do what: tokens, roles, and the questions about them. Over the port, where nobody is root by coming in.

use super::server::{MAPS, PODS, map, parts, pod};
use super::tls::{Port, with_port};
use longshore::api::access::{NODE_GROUP, Roles, User};
use longshore::run::api::Parts;
use longshore::run::api::auth::Credentials;
use serde_json::{Value, json};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

fn staffed() -> Parts {
    let people = [
        ("t-admin", User::new("alice", &[])),
        ("t-viewer", User::new("eve", &["ops"])),
        ("t-node", User::new("system:node:n1", &[NODE_GROUP])),
        ("t-nobody", User::new("mallory", &[])),
    ];
    let mut parts = parts();
    parts.credentials = Credentials::with_tokens(people.map(|(token, user)| (token.to_owned(), user)));
    parts.roles = Roles { admin: vec!["user:alice".into()], viewer: vec!["group:ops".into()], node: Vec::new() };
    parts
}

/// Verb, path, body, and what the admin, the viewer, the node and nobody in particular are told.
const TABLE: &[(&str, &str, &str, [bool; 4])] = &[
    ("GET", "/version", "", [true, true, true, true]),
    ("GET", "/apis", "", [true, true, true, true]),
    ("GET", "/longshore/v1/kubeconfig", "", [true, false, false, false]),
    ("GET", "/api/v1/pods", "", [true, true, true, false]),
    ("GET", "/api/v1/pods?watch=1&timeoutSeconds=1", "", [true, true, true, false]),
    ("GET", "/api/v1/secrets", "", [true, false, true, false]),
    ("GET", "/api/v1/namespaces/default/pods/p/log", "", [true, true, true, false]),
    ("POST", "/api/v1/namespaces/default/pods/p/exec?command=sh", "", [true, false, false, false]),
    ("POST", "/api/v1/namespaces/default/configmaps?dryRun=All", "{\"metadata\":{\"name\":\"x\"}}", [true, false, false, false]),
    ("PUT", "/api/v1/namespaces/default/configmaps/m?dryRun=All", "{\"metadata\":{\"name\":\"m\"}}", [true, false, false, false]),
    ("PATCH", "/api/v1/nodes/n1/status?dryRun=All", "{}", [true, false, true, false]),
    ("PATCH", "/api/v1/nodes/n2/status?dryRun=All", "{}", [true, false, false, false]),
    ("PATCH", "/api/v1/namespaces/default/pods/p/status?dryRun=All", "{}", [true, false, true, false]),
    ("PATCH", "/api/v1/namespaces/default/pods/p?dryRun=All", "{}", [true, false, false, false]),
    ("DELETE", "/api/v1/namespaces/default/pods/p?dryRun=All", "", [true, false, true, false]),
    ("DELETE", "/api/v1/namespaces/default/pods?dryRun=All", "", [true, false, false, false]),
    ("POST", "/api/v1/namespaces/default/serviceaccounts/robot/token", "{}", [true, false, true, false]),
    ("POST", REVIEWS, "{\"spec\":{\"token\":\"x\"}}", [true, false, true, false]),
    ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", "{}", [true, true, true, true]),
];

#[test]
fn each_may_what_its_role_says() {
    with_port(staffed(), async |port: &Port| {
        prepare(port).await;
        for (method, path, body, may) in TABLE {
            let kind = if *method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            for (token, may) in ["t-admin", "t-viewer", "t-node", "t-nobody"].iter().zip(may) {
                let answer = port.ask(Some(token), method, path, kind, body).await;
                assert_eq!(answer.status != 403, *may, "{token} {method} {path}: {} {:?}", answer.status, answer.body);
                assert_ne!(answer.status, 401);
                if !may {
                    answer.refused(403, "Forbidden");
                }
            }
            if *path != "/version" {
                assert_eq!(port.ask(None, method, path, kind, body).await.status, 401, "{method} {path}");
            }
        }
        assert_eq!(port.get("t-wrong", "/version").await.refused(401, "Unauthorized"), "Unauthorized");
        let told = port.get("t-nobody", &format!("{MAPS}/m")).await.refused(403, "Forbidden");
        let wanted = "configmaps \"m\" is forbidden: User \"mallory\" cannot get resource \"configmaps\" in API group \"\" in the namespace \"default\"";
        assert_eq!(told, wanted);
    });
}

/// What the table speaks of.
async fn prepare(port: &Port) {
    let made = [
        ("/api/v1/namespaces", json!({"metadata": {"name": "default"}})),
        (MAPS, map("m", 1)),
        (PODS, pod("p", "n1")),
        ("/api/v1/nodes", json!({"metadata": {"name": "n1"}})),
        ("/api/v1/nodes", json!({"metadata": {"name": "n2"}})),
        ("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "robot"}})),
    ];
    for (path, object) in made {
        port.post("t-admin", path, &object).await.ok();
    }
}

#[test]
fn what_a_review_says_is_what_happens() {
    with_port(staffed(), async |port: &Port| {
        prepare(port).await;
        let ask = |user: &str, verb: &str, resource: &str| {
            let attributes = json!({"namespace": "default", "verb": verb, "resource": resource});
            json!({"spec": {"user": user, "groups": if user == "eve" { json!(["ops"]) } else { json!([]) }, "resourceAttributes": attributes}})
        };
        for (user, verb, resource, may) in [
            ("alice", "delete", "secrets", true),
            ("eve", "list", "pods", true),
            ("eve", "list", "secrets", false),
            ("mallory", "get", "pods", false),
        ] {
            let review = port.post("t-node", ACCESS, &ask(user, verb, resource)).await.ok();
            assert_eq!(review["status"]["allowed"], may, "{user} {verb} {resource}");
        }
        let own = json!({"spec": {"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": "default"}}});
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        assert_eq!(port.post("t-viewer", path, &own).await.ok()["status"]["allowed"], false);
        assert_eq!(port.post("t-admin", path, &own).await.ok()["status"]["allowed"], true);
        for spec in
            [json!({}), json!({"user": "eve"}), json!({"user": "eve", "resourceAttributes": {}, "nonResourceAttributes": {}}), json!(7)]
        {
            port.post("t-node", ACCESS, &json!({"spec": spec})).await.refused(400, "BadRequest");
        }
    });
}

#[test]
fn a_token_that_is_asked_for_opens_the_door_as_its_account() {
    with_port(staffed(), async |port: &Port| {
        prepare(port).await;
        let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
        let asked = port.post("t-node", path, &json!({"spec": {"expirationSeconds": 600}})).await.ok();
        let token = asked["status"]["token"].as_str().unwrap();
        let review = async |token: &str, audiences: Value| {
            port.post("t-node", REVIEWS, &json!({"spec": {"token": token, "audiences": audiences}})).await.ok()["status"].clone()
        };
        let known = review(token, json!([])).await;
        assert_eq!((&known["authenticated"], &known["user"]["username"]), (&json!(true), &json!("system:serviceaccount:default:robot")));
        assert_eq!(review(token, json!(["vault"])).await["authenticated"], Value::Null);
        let own = port.post(token, "/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({})).await.ok();
        assert_eq!(own["status"]["userInfo"]["groups"][1], "system:serviceaccounts:default");
        port.get(token, MAPS).await.refused(403, "Forbidden");

        let bound = json!({"spec": {"audiences": ["vault"], "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}}});
        let told = port.post("t-node", path, &bound).await.refused(400, "BadRequest");
        assert!(told.contains("pod running with different serviceaccount name"), "{told}");
        let mut robots = pod("r", "n1");
        robots["spec"]["serviceAccountName"] = "robot".into();
        port.post("t-admin", PODS, &robots).await.ok();
        let mut bound = bound;
        bound["spec"]["boundObjectRef"]["name"] = "r".into();
        let vault = port.post("t-node", path, &bound).await.ok();
        let vault = vault["status"]["token"].as_str().unwrap();
        let known = review(vault, json!(["vault", "other"])).await;
        assert_eq!(
            (&known["audiences"], &known["user"]["extra"]["authentication.kubernetes.io/pod-name"]),
            (&json!(["vault"]), &json!(["r"]))
        );
        port.get(vault, "/version").await.refused(401, "Unauthorized");

        for (spec, code) in [
            (json!({"expirationSeconds": 1}), 422),
            (json!({"boundObjectRef": {"kind": "Node", "name": "n1"}}), 400),
            (json!({"boundObjectRef": {"kind": "Pod", "name": "none"}}), 404),
            (json!({"boundObjectRef": {"kind": "Pod", "name": "r", "uid": "another"}}), 409),
            (json!("words"), 400),
        ] {
            assert_eq!(port.post("t-node", path, &json!({"spec": spec})).await.status, code, "{spec}");
        }

        port.delete("t-admin", &format!("{PODS}/r?gracePeriodSeconds=0")).await.ok();
        assert_eq!(review(vault, json!(["vault"])).await["authenticated"], Value::Null, "its pod is gone");
        port.delete("t-admin", "/api/v1/namespaces/default/serviceaccounts/robot").await.ok();
        assert_eq!(review(token, json!([])).await["authenticated"], Value::Null, "its account is gone");
        port.get(token, "/version").await.refused(401, "Unauthorized");
        port.post("t-admin", "/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "robot"}})).await.ok();
        port.get(token, "/version").await.refused(401, "Unauthorized");
    });
}
