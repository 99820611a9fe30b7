//! Replays `vectors/recorded.json`: requests, and what a real API server of 1.36 answered, in the order in which they
//! were made. This one has to answer the same, but for identities, times and revisions, and for the differences that
//! are named below with their reasons.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use longshore::api::access::Roles;
use longshore::api::write::Context;
use longshore::run::api::auth::Credentials;
use longshore::run::api::pki::Signer;
use longshore::run::api::{Api, Door, Limits, Parts, serve};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use tokio::task::LocalSet;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Step {
    name: String,
    method: String,
    path: String,
    #[serde(default)]
    body: Option<Value>,
    /// A body that is no JSON.
    #[serde(default)]
    raw: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    accept: Option<String>,
    user_agent: String,
    status: u16,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    answer: Option<Value>,
    #[serde(default)]
    text: Option<String>,
}

/// Steps whose status and reason are the same and whose words are not, on purpose, and why.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("update with another uid", "an API server tells of its storage"),
    ("json patch that fails its test", "the reason is told as a cause"),
    ("json patch of nowhere", "the reason is told as a cause"),
    ("json patch of nonsense", "Go's types"),
    ("patch that is no object", "the parser's words"),
    ("patch of another content type", "the types that there are"),
    ("create in another namespace", "both namespaces are named"),
    ("create of another kind", "both kinds are named"),
    ("wrong type of a field", "the field and what it must be, not Go's types"),
    ("body that is no json", "the parser's words"),
    ("body of an unknown type", "the type that was sent is named"),
    ("empty body", "the parser's words"),
    ("list by an exact old revision", "revisions are this server's own"),
    ("a form that there is not", "protobuf is not answered with"),
    ("a secret of wrong bytes", "the key is named, with the way out"),
    ("a namespace of a wrong name", "the rule that holds for the name is told whole"),
    ("another command", "an API server adds the difference of two Go structures"),
    ("an ephemeral container changed", "an API server adds the difference of two Go structures"),
    ("a pod with many faults", "a value that is none of those that there are is told first, and alone"),
    ("a service with wrong ports", "in another order, and the target port follows the port"),
    ("delete with a wrong uid", "it has a uid of this run in it"),
    ("a path to nowhere", "the path is named"),
    ("a token that lasts too short", "the same in other details"),
];

/// Replaces what no two servers have in common.
fn plain(v: &mut Value) {
    match v {
        Value::Object(m) => {
            for (k, v) in m.iter_mut() {
                let volatile = ["uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "time"].contains(&k.as_str());
                if k == "columnDefinitions" {
                    // Descriptions are documentation of the API.
                    v.as_array_mut().into_iter().flatten().for_each(|c| c["description"] = "".into());
                } else if k == "cells" {
                    v.as_array_mut().into_iter().flatten().filter(|c| is_age(c)).for_each(|c| *c = "*".into());
                } else if (volatile && (v.is_string() || v.is_null())) || k == "username" || k == "groups" || k == "extra" {
                    *v = "*".into();
                } else {
                    plain(v);
                }
            }
        }
        Value::Array(a) => a.iter_mut().for_each(plain),
        _ => {}
    }
}

fn is_age(cell: &Value) -> bool {
    cell.as_str().and_then(|c| c.strip_suffix('s')).is_some_and(|c| c.parse::<u32>().is_ok())
}

/// What only one of the two tells, and nobody misses: kinds of items in lists, empty details, the reason why something
/// is allowed, managers of questions, times that are made at the moment.
fn tidy(v: &mut Value) {
    let question = v["kind"].as_str().is_some_and(|k| k.ends_with("Review"));
    if question {
        v["metadata"] = Value::Null;
        for field in ["/status/reason", "/status/userInfo/uid"] {
            if let Some(r) = v.pointer_mut(field) {
                *r = Value::Null;
            }
        }
    }
    if v["kind"] == "Status" && v["details"].as_object().is_some_and(serde_json::Map::is_empty) {
        v["details"] = Value::Null;
    }
    for item in v["items"].as_array_mut().into_iter().flatten() {
        item["kind"] = Value::Null;
        item["apiVersion"] = Value::Null;
    }
    for c in v.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        if c["type"] == "PodScheduled" || c["type"] == "DisruptionTarget" {
            c["lastTransitionTime"] = "*".into();
        }
    }
    if v["metadata"]["generateName"].is_string() {
        v["metadata"]["name"] = "*".into();
    }
}

/// Fills in `${step:/pointer}` from earlier answers.
fn filled(v: &Value, answers: &BTreeMap<String, Value>) -> Value {
    match v {
        Value::String(s) => match s.strip_prefix("${").and_then(|s| s.strip_suffix('}')).and_then(|s| s.split_once(':')) {
            Some((step, pointer)) => answers[step].pointer(pointer).unwrap().clone(),
            None => v.clone(),
        },
        Value::Array(a) => a.iter().map(|v| filled(v, answers)).collect(),
        Value::Object(m) => m.iter().map(|(k, v)| (k.clone(), filled(v, answers))).collect(),
        _ => v.clone(),
    }
}

async fn ask(socket: &Path, step: &Step, answers: &BTreeMap<String, Value>) -> (u16, Vec<String>, Bytes) {
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::task::spawn_local(connection);
    let body = match (&step.raw, &step.body) {
        (Some(raw), _) => raw.clone(),
        (None, Some(body)) => filled(body, answers).to_string(),
        (None, None) => String::new(),
    };
    let mut request = hyper::Request::builder().method(step.method.as_str()).uri(&step.path).header("host", "x");
    request = request.header("user-agent", &step.user_agent).header("accept", step.accept.as_deref().unwrap_or("application/json"));
    if let Some(kind) = &step.content_type {
        request = request.header("content-type", kind);
    }
    let answer = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let warnings = answer.headers().get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
    (status, warnings, answer.into_body().collect().await.unwrap().to_bytes())
}

/// How the two answers differ; empty: they do not.
fn compare(step: &Step, status: u16, warnings: &[String], body: &Bytes) -> Vec<String> {
    let mut out = Vec::new();
    if status != step.status {
        out.push(format!("status {status}, not {}: {}", step.status, String::from_utf8_lossy(body)));
        return out;
    }
    if warnings != step.warnings {
        out.push(format!("warnings {warnings:?}, not {:?}", step.warnings));
    }
    let Some(mut want) = step.answer.clone() else {
        assert!(step.text.is_some());
        return out;
    };
    let mut got: Value = serde_json::from_slice(body).unwrap_or_else(|_| json!(String::from_utf8_lossy(body)));
    plain(&mut want);
    plain(&mut got);
    tidy(&mut want);
    tidy(&mut got);
    if OTHER_WORDS.iter().any(|(name, _)| *name == step.name) {
        for v in [&mut got, &mut want] {
            v["message"] = "*".into();
            v["details"] = "*".into();
        }
    }
    differences("", &got, &want, &mut out);
    out
}

fn differences(at: &str, got: &Value, want: &Value, out: &mut Vec<String>) {
    match (got, want) {
        (Value::Object(g), Value::Object(w)) => {
            let keys: std::collections::BTreeSet<&String> = g.keys().chain(w.keys()).collect();
            for k in keys {
                differences(&format!("{at}.{k}"), g.get(k).unwrap_or(&Value::Null), w.get(k).unwrap_or(&Value::Null), out);
            }
        }
        (Value::Array(g), Value::Array(w)) if g.len() == w.len() => {
            g.iter().zip(w).enumerate().for_each(|(i, (g, w))| differences(&format!("{at}[{i}]"), g, w, out));
        }
        (g, w) if g == w => {}
        (g, w) => out.push(format!("{at}: {g}, not {w}")),
    }
}

#[test]
fn every_answer_is_that_of_a_real_api_server() {
    let steps: Vec<Step> = serde_json::from_str(include_str!("vectors/recorded.json")).unwrap();
    assert!(steps.len() > 100, "the recording is there");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let wrong = LocalSet::new().block_on(&runtime, replay(&steps));
    assert!(wrong.is_empty(), "{} of {} answers differ:\n{}", wrong.len(), steps.len(), wrong.join("\n"));
}

async fn replay(steps: &[Step]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let mut credentials = Credentials::default();
    credentials.signer = Signer::generate("https://kubernetes.default.svc.cluster.local").map(Rc::new);
    let parts = Parts {
        context: Context::default(),
        roles: Roles::default(),
        credentials,
        state: None,
        files: None,
        node: None,
        limits: Limits::default(),
    };
    let api = Api::start(parts);
    api.make_standard_namespaces();
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::task::spawn_local(serve(api, Door::Unix(listener)));
    let mut answers = BTreeMap::new();
    let mut wrong = Vec::new();
    for step in steps {
        let (status, warnings, body) = ask(&socket, step, &answers).await;
        let found = compare(step, status, &warnings, &body);
        if !found.is_empty() {
            wrong.push(format!("{}:\n    {}", step.name, found.join("\n    ")));
        }
        answers.insert(step.name.clone(), serde_json::from_slice(&body).unwrap_or(Value::Null));
    }
    wrong
}
