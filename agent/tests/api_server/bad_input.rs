//! What nobody should send: refused with the right status, nothing changed, and the next request is served.

use super::server::{MAPS, PODS, Server, map, parts, pod, request, revision, with_server};
use longshore::api::resource::{Home, Id, RESOURCES};
use serde_json::{Value, json};
use std::time::Duration;

const JSON: &str = "application/json";

fn status_line(answer: &str) -> &str {
    answer.lines().next().unwrap_or_default()
}

#[test]
fn bodies_that_are_too_large_are_refused_before_they_are_read() {
    with_server(parts(), async |server| {
        let before = server.api.store().revision();
        let body = format!("{{\"metadata\":{{\"name\":\"m\"}},\"data\":{{\"v\":\"{}\"}}}}", "x".repeat(10 << 20));
        let head = format!("POST {MAPS} HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-type: {JSON}\r\n");
        let told = server.raw(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
        assert!(status_line(&told).starts_with("HTTP/1.1 413") && told.contains("RequestEntityTooLarge"), "{told}");
        let told = server.raw(format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).await;
        assert!(status_line(&told).starts_with("HTTP/1.1 413"), "{told}");
        assert_eq!(server.api.store().revision(), before);
    });
}

#[test]
fn bodies_that_are_no_objects_are_refused() {
    with_server(parts(), async |server| {
        let before = server.api.store().revision();
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let nested = format!(r#"{{"metadata":{{"name":"m"}},"data":{}1{}}}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
        for body in ["", "{", "null", "[]", "1", "\"x\"", "{}", "\u{0}", "{\"metadata\":[]}", "{\"metadata\":{\"name\":7}}", &deep, &nested]
        {
            for kind in [JSON, "application/yaml"] {
                let answer = server.ask("POST", MAPS, kind, body.to_owned()).await;
                assert!(matches!(answer.status, 400 | 422), "{kind} {body:.30} {} {:?}", answer.status, answer.body);
            }
        }
        assert_eq!(server.ask("POST", MAPS, JSON, vec![0xff, 0xfe]).await.status, 400);
        assert_eq!(server.ask("POST", MAPS, "application/vnd.kubernetes.protobuf", "k8s\0\u{a}\u{ff}").await.status, 400);
        for kind in ["text/plain", "application/xml", "application/cbor"] {
            let told = server.ask("POST", MAPS, kind, map("m", 1).to_string()).await.refused(415, "UnsupportedMediaType");
            assert!(told.contains(kind), "{told}");
        }
        assert_eq!(server.api.store().revision(), before);
    });
}

#[test]
fn paths_that_lead_nowhere_are_told() {
    with_server(parts(), async |server| {
        for path in
            ["/", "/api/v2", "/api/v1/nonsense", "/apis/x/v1/y", "/api/v1/namespaces/default/pods/p/none", "/api/v1/pods/p", "/%00/../x"]
        {
            server.get(path).await.refused(404, "NotFound");
        }
        assert!(server.get(&format!("{MAPS}/none")).await.refused(404, "NotFound").contains("configmaps \"none\" not found"));
        let told = server.post("/apis/apps/v1/namespaces/default/deployments", &json!({})).await.refused(405, "MethodNotAllowed");
        assert!(told.contains("Pod"), "the way out is told: {told}");
        server.post(&format!("{MAPS}/m"), &map("m", 1)).await.refused(405, "MethodNotAllowed");
        server.put(MAPS, &map("m", 1)).await.refused(405, "MethodNotAllowed");
        server.ask("BREW", MAPS, "", "").await.refused(405, "MethodNotAllowed");
        assert_eq!(server.get(&format!("{PODS}/p/log")).await.status, 503, "there is no node here");
    });
}

#[test]
fn half_a_request_is_waited_for_no_longer_than_the_limit() {
    let mut parts = parts();
    parts.limits.greeting = Duration::from_millis(100);
    parts.limits.sending = Duration::from_millis(100);
    with_server(parts, async |server| {
        for half in
            ["", "P", "PRI * HTTP/2.0\r\n\r\nSM", "GET / HT", "GET /version HTTP/1.1\r\nhost: no", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
        {
            let mut bytes = half.as_bytes().to_vec();
            let told = hold(server, &mut bytes).await;
            assert!(!told.contains("200 OK"), "{half:?} {told}");
        }
        let told = hold(server, &mut format!("POST {MAPS} HTTP/1.1\r\nhost: node\r\ncontent-length: 100\r\n\r\n{{").into_bytes()).await;
        assert!(status_line(&told).starts_with("HTTP/1.1 408"), "{told}");
        server.get("/version").await.ok();
    });
}

/// Sends that and nothing more, and reads until the server hangs up.
async fn hold(server: &Server, bytes: &mut [u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = server.connect().await;
    stream.write_all(bytes).await.unwrap();
    let mut told = Vec::new();
    let _ = stream.read_to_end(&mut told).await;
    String::from_utf8_lossy(&told).into_owned()
}

#[test]
fn a_head_without_end_is_refused() {
    with_server(parts(), async |server| {
        let head = format!("GET /version HTTP/1.1\r\nhost: node\r\nx: {}\r\n\r\n", "y".repeat(200 << 10));
        let told = server.raw(head.as_bytes()).await;
        assert!(status_line(&told).starts_with("HTTP/1.1 431"), "{told}");
        let many = format!("GET /version HTTP/1.1\r\nhost: node\r\n{}\r\n", "a: b\r\n".repeat(5000));
        assert!(status_line(&server.raw(many.as_bytes()).await).starts_with("HTTP/1.1 431"));
        assert!(
            status_line(&server.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS on the wrong door\r\n\r\n").await)
                .starts_with("HTTP/1.1 400")
        );
    });
}

#[test]
fn fields_that_nobody_knows_are_dropped_told_or_refused_as_the_client_wishes() {
    with_server(parts(), async |server| {
        let mut object = pod("p", "n");
        object["spec"]["containers"][0]["imagePull"] = "Never".into();
        let path = |how: &str| format!("{PODS}?dryRun=All&fieldValidation={how}");
        let told = server.post(&path("Strict"), &object).await.refused(400, "BadRequest");
        assert!(told.contains("strict decoding error: unknown field \"spec.containers[0].imagePull\""), "{told}");
        let warned = server.post(&path("Warn"), &object).await;
        assert_eq!(warned.ok()["spec"]["containers"][0]["imagePull"], Value::Null);
        assert!(warned.headers["warning"].to_str().unwrap().starts_with("299 - \"unknown field \\\"spec.containers[0].imagePull\\\""));
        let ignored = server.post(&path("Ignore"), &object).await;
        ignored.ok();
        assert!(!ignored.headers.contains_key("warning"));
        server.post(&path("Perhaps"), &object).await.refused(400, "BadRequest");
    });
}

#[test]
fn an_object_that_is_not_of_its_path_is_refused() {
    with_server(parts(), async |server| {
        server.namespace("other").await;
        let made = server.post(MAPS, &map("m", 1)).await.ok();
        let path = format!("{MAPS}/m");
        let with = |pointer: &str, value: &str| {
            let mut o = made.clone();
            *o.pointer_mut(pointer).unwrap() = value.into();
            o
        };
        assert!(server.put(&path, &with("/kind", "Secret")).await.refused(400, "BadRequest").contains("does not match the expected kind"));
        server.put(&path, &with("/apiVersion", "v9")).await.refused(400, "BadRequest");
        assert!(server.put(&path, &with("/metadata/namespace", "other")).await.refused(400, "BadRequest").contains("namespace"));
        assert!(
            server.put(&path, &with("/metadata/name", "n")).await.refused(400, "BadRequest").contains("does not match the name on the URL")
        );
        server.put(&path, &with("/metadata/uid", "another")).await.refused(409, "Conflict");
        server.put(&path, &with("/metadata/resourceVersion", "1")).await.refused(409, "Conflict");
        server.post(MAPS, &with("/metadata/name", "n")).await.refused(500, "");
        server.put(&format!("{MAPS}/none"), &map("none", 1)).await.refused(404, "NotFound");
        let told = server.post("/api/v1/namespaces/nowhere/configmaps", &map("m", 1)).await.refused(404, "NotFound");
        assert!(told.contains("namespaces \"nowhere\" not found"), "{told}");
        server.post(MAPS, &map("Not A Name", 1)).await.refused(422, "Invalid");
        server.post(MAPS, &json!({"data": {}})).await.refused(422, "Invalid");
        assert_eq!(server.get(&path).await.ok(), made, "nothing of that changed it");
    });
}

/// The path of a resource's collection.
fn collection(id: Id) -> String {
    let row = id.row();
    let root = if row.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}/{}", row.group, row.version) };
    if row.namespaced { format!("{root}/namespaces/default/{}", row.plural) } else { format!("{root}/{}", row.plural) }
}

/// Objects in which one part is not what it should be.
fn odd(id: Id, name: &str) -> Vec<Value> {
    let row = id.row();
    let good = json!({"apiVersion": row.api_version(), "kind": row.kind, "metadata": {"name": name}});
    let values = [json!(null), json!(1), json!("x"), json!([null]), json!({"x": {"y": []}})];
    let places = ["apiVersion", "kind", "metadata", "spec", "status", "data", "deleteOptions", "target"];
    let inner = ["labels", "annotations", "finalizers", "ownerReferences", "managedFields", "generateName", "creationTimestamp"];
    let inside = ["token", "audiences", "boundObjectRef", "resourceAttributes", "nonResourceAttributes", "containers", "ports", "extra"];
    let mut out: Vec<Value> = values.to_vec();
    for value in values {
        for field in places {
            let mut o = good.clone();
            o[field] = value.clone();
            out.push(o);
        }
        for field in inner {
            let mut o = good.clone();
            o["metadata"][field] = value.clone();
            out.push(o);
        }
        for field in inside {
            let mut o = good.clone();
            o["spec"] = json!({});
            o["spec"][field] = value.clone();
            out.push(o);
        }
    }
    out
}

/// Strategic merges and applies go the same way for all kinds.
fn methods(id: Id) -> Vec<(&'static str, &'static str)> {
    let mut out = vec![("POST", JSON)];
    if id.row().home != Home::Question {
        out.extend([("PUT", JSON), ("PATCH", "application/merge-patch+json"), ("DELETE", JSON)]);
    }
    if matches!(id.row().kind, "Pod" | "Event") {
        out.extend([("PATCH", "application/strategic-merge-patch+json"), ("PATCH", "application/apply-patch+yaml")]);
    }
    out
}

#[test]
fn no_body_breaks_any_resource() {
    with_server(parts(), async |server| {
        server.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "x"}})).await.ok();
        server.post(PODS, &pod("x", "")).await.ok();
        let mut line = None;
        for id in (0..RESOURCES.len()).map(|n| Id(u8::try_from(n).unwrap())) {
            let path = collection(id);
            let subs = id.row().subs.iter().map(|s| format!("{path}/x/{}", s.name));
            for path in [path.clone(), format!("{path}/x")].into_iter().chain(subs) {
                for object in odd(id, "x") {
                    for (method, kind) in methods(id) {
                        let url = format!("{path}?dryRun=All&fieldManager=m&force=true");
                        let answer = server.again(&mut line, request(method, &url, kind, object.to_string())).await;
                        let told = || format!("{method} {path} {kind} {object}: {} {:?}", answer.status, answer.body);
                        // A patch that makes no sense to it is an API server's 500 without a reason.
                        let patch = method == "PATCH" && answer.status == 500 && answer.json()["reason"].is_null();
                        assert!(answer.status < 500 || answer.status == 503 || patch, "{}", told());
                        assert!(answer.json().is_object(), "{}", told());
                    }
                }
            }
        }
    });
}

#[test]
fn patches_that_cannot_be_are_refused_and_change_nothing() {
    with_server(parts(), async |server| {
        let made = server.post(MAPS, &map("m", 1)).await.ok();
        let path = format!("{MAPS}/m");
        for (kind, body, status) in [
            ("application/json-patch+json", r#"[{"op":"test","path":"/data/v","value":"2"}]"#, 422),
            ("application/json-patch+json", "{}", 400),
            ("application/merge-patch+json", "[]", 400),
            ("application/merge-patch+json", r#"{"metadata":{"name":"other"}}"#, 422),
            ("application/merge-patch+json", r#"{"metadata":{"resourceVersion":"1"}}"#, 409),
            ("application/merge-patch+json", r#"{"data":{"v":1}}"#, 400),
            ("application/apply-patch+yaml", "data: {v: '2'}\n", 400),
            ("application/json", "{}", 415),
        ] {
            let answer = server.ask("PATCH", &path, kind, body).await;
            let reason = answer.json()["reason"].clone();
            assert!(answer.status == status || (status == 400 && answer.status == 422), "{kind} {body}: {} {reason}", answer.status);
        }
        let apply =
            server.ask("PATCH", &path, "application/apply-patch+yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n").await;
        assert!(apply.refused(422, "Invalid").contains("fieldManager"));
        server.ask("PATCH", &format!("{MAPS}/none"), "application/merge-patch+json", "{}").await.refused(404, "NotFound");
        assert_eq!(server.get(&path).await.ok(), made);
        assert_eq!(revision(&made), server.api.store().revision());
    });
}

#[test]
fn a_client_that_hangs_up_leaves_its_write_whole() {
    with_server(parts(), async |server| {
        for n in 0..20 {
            let body = map(&format!("m{n}"), n).to_string();
            let head =
                format!("POST {MAPS} HTTP/1.1\r\nhost: node\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let mut stream = server.connect().await;
            tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
            drop(stream);
        }
        let mut r = request("GET", MAPS, "", "");
        r.headers_mut().insert("connection", "close".parse().unwrap());
        for object in server.send(r).await.ok()["items"].as_array().unwrap() {
            assert_eq!(object["metadata"]["name"], format!("m{}", object["data"]["v"].as_str().unwrap()));
        }
    });
}
