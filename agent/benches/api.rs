//! What the API costs: memory, lists, watches and writes, over a real socket.
//!
//! Prints one line for each promise. The floor of durable writes is what the disk takes for the same bytes.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use longshore::api::access::Roles;
use longshore::api::resource::{PODS, SERVICES};
use longshore::api::write::Context;
use longshore::run::api::auth::Credentials;
use longshore::run::api::persist::Journal;
use longshore::run::api::{Api, Door, Limits, Parts, serve};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
const WATCHERS: usize = 500;

fn resident() -> i64 {
    let pages: i64 = std::fs::read_to_string("/proc/self/statm")
        .expect("a kernel with /proc")
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    pages * 4096
}

fn pod(n: usize) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("web-{n}"), "namespace": "default", "uid": format!("uid-of-pod-{n}"), "labels": {"app": "web", "tier": "front"},
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "node", "containers": [{"name": "main", "image": "registry.example.com/team/web:1.2.3",
            "ports": [{"name": "http", "containerPort": 8080}], "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}}, "env": [{"name": "A", "value": "b"}]}],
            "volumes": [{"name": "data", "emptyDir": {}}]}});
    let condition = |t: &str| json!({"type": t, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let conditions = ["Initialized", "PodScheduled", "ContainersReady", "Ready", "PodReadyToStartContainers"].map(condition);
    pod["status"] = json!({"phase": "Running", "podIP": "10.244.0.1", "podIPs": [{"ip": "10.244.0.1"}], "qosClass": "Burstable",
        "conditions": conditions,
        "containerStatuses": [{"name": "main", "ready": true, "restartCount": 0, "containerID": "containerd://0123456789abcdef0123456789abcdef", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]});
    pod
}

fn service(n: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("service-{n}"), "namespace": "default", "uid": format!("uid-of-service-{n}"), "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web"}},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}], "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"},
        "status": {"loadBalancer": {}}})
}

fn config(n: usize, x: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c-{n}")}, "data": {"x": x.to_string()}})
}

type Sender = SendRequest<Full<Bytes>>;

async fn connect(socket: &Path) -> Sender {
    let stream = tokio::net::UnixStream::connect(socket).await.expect("the server listens");
    let (sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.expect("it answers");
    tokio::task::spawn_local(connection);
    sender
}

async fn ask(to: &mut Sender, method: &str, path: &str, body: Option<&Value>) -> Bytes {
    let body = body.map_or_else(Bytes::new, |b| b.to_string().into());
    let request = hyper::Request::builder().method(method).uri(path).header("host", "x").header("content-type", "application/json");
    let answer = to.send_request(request.body(Full::new(body)).expect("a good request")).await.expect("an answer");
    assert!(answer.status().is_success(), "{method} {path}: {}", answer.status());
    answer.into_body().collect().await.expect("a whole answer").to_bytes()
}

fn start(state: Option<Journal>, socket: &Path) -> Rc<Api> {
    let parts = Parts {
        context: Context::default(),
        roles: Roles::default(),
        credentials: Credentials::default(),
        state,
        files: None,
        node: None,
        limits: Limits::default(),
    };
    let api = Api::start(parts);
    api.make_standard_namespaces();
    let listener = tokio::net::UnixListener::bind(socket).expect("a socket");
    tokio::task::spawn_local(serve(api.clone(), Door::Unix(listener)));
    api
}

fn median(mut all: Vec<Duration>) -> (Duration, Duration) {
    all.sort_unstable();
    (all[all.len() / 2], all[all.len() * 99 / 100])
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, measure());
}

async fn measure() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("api.sock");
    let before = resident();
    let api = start(None, &socket);
    (0..1000).for_each(|n| {
        api.publish(PODS, pod(n));
    });
    (0..10_000).for_each(|n| {
        api.publish(SERVICES, service(n));
    });
    let mib = |bytes: i64| f64::from(i32::try_from(bytes / 1024).unwrap_or(i32::MAX)) / 1024.0;
    println!("1,000 pods and 10,000 services in memory: {:.1} MiB (promise 25)", mib(resident() - before));
    lists(&socket).await;
    watches(&socket).await;
    crowd(&socket).await;
    println!("after all of it: {:.1} MiB", mib(resident() - before));
    writes("2,000 writes kept in memory", &socket, 1).await;
    let durable = dir.path().join("durable.sock");
    let journal = Journal::open(&dir.path().join("api.jsonl")).expect("a journal");
    let _durable = start(Some(journal), &durable);
    writes("2,000 durable writes, one client", &durable, 1).await;
    writes("2,000 durable writes, 32 clients", &durable, 32).await;
    floor(dir.path());
}

async fn lists(socket: &Path) {
    let mut client = connect(socket).await;
    let mut took = Vec::new();
    let mut size = 0;
    for _ in 0..11 {
        let begin = Instant::now();
        size = ask(&mut client, "GET", "/api/v1/services", None).await.len();
        took.push(begin.elapsed());
    }
    println!("list of 10,000 services ({size} bytes): median {:?} (promise 150 ms)", median(took).0);
    let mut took = Vec::new();
    for _ in 0..5 {
        let begin = Instant::now();
        ask(&mut client, "GET", "/api/v1/services?labelSelector=app%3Dweb", None).await;
        took.push(begin.elapsed());
    }
    println!("the same selected by a label: median {:?}", median(took).0);
}

/// From the answer to a write to the event at a watcher.
async fn watches(socket: &Path) {
    let mut writer = connect(socket).await;
    ask(&mut writer, "POST", CONFIGS, Some(&config(0, 0))).await;
    let mut watcher = connect(socket).await;
    let request = hyper::Request::builder()
        .uri(format!("{CONFIGS}?watch=1"))
        .header("host", "x")
        .body(Full::new(Bytes::new()))
        .expect("a good request");
    let mut body = watcher.send_request(request).await.expect("a watch").into_body();
    body.frame().await;
    let mut took = Vec::new();
    for x in 1..=500 {
        let begin = Instant::now();
        let change = config(0, x);
        let path = format!("{CONFIGS}/c-0");
        let (_, seen) = tokio::join!(ask(&mut writer, "PUT", &path, Some(&change)), async {
            body.frame().await;
            Instant::now()
        });
        took.push(seen - begin);
    }
    let (p50, p99) = median(took);
    println!("a write until its event is read: p50 {p50:?}, p99 {p99:?} (promise 2 ms after the write)");
}

async fn crowd(socket: &Path) {
    let mut bodies = Vec::new();
    for _ in 0..WATCHERS {
        let mut watcher = connect(socket).await;
        let request = hyper::Request::builder()
            .uri(format!("{CONFIGS}?watch=1"))
            .header("host", "x")
            .body(Full::new(Bytes::new()))
            .expect("a good request");
        let mut body = watcher.send_request(request).await.expect("a watch").into_body();
        body.frame().await;
        bodies.push((watcher, body));
    }
    let mut writer = connect(socket).await;
    let mut took = Vec::new();
    for x in 1000..1020 {
        let begin = Instant::now();
        ask(&mut writer, "PUT", &format!("{CONFIGS}/c-0"), Some(&config(0, x))).await;
        for (_, body) in &mut bodies {
            body.frame().await;
        }
        took.push(begin.elapsed());
    }
    println!("a write until all of {WATCHERS} watchers have read it: median {:?}", median(took).0);
}

async fn writes(what: &str, socket: &Path, clients: usize) {
    let begin = Instant::now();
    let each = 2000 / clients;
    let tasks: Vec<_> = (0..clients)
        .map(|c| {
            let socket = socket.to_owned();
            tokio::task::spawn_local(async move {
                let mut client = connect(&socket).await;
                for n in 0..each {
                    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": format!("w-{c}-{n}-")}, "data": {"x": "y"}});
                    ask(&mut client, "POST", CONFIGS, Some(&body)).await;
                }
            })
        })
        .collect();
    for t in tasks {
        t.await.expect("no panic");
    }
    let took = begin.elapsed();
    println!("{what}: {took:?}, {:.0} a second (promise 2,000)", (each * clients) as f64 / took.as_secs_f64());
}

fn floor(dir: &Path) {
    let mut file = std::fs::File::create(dir.join("floor")).expect("a file");
    let line = vec![b'x'; 400];
    let begin = Instant::now();
    for _ in 0..200 {
        file.write_all(&line).and_then(|()| file.sync_data()).expect("a disk");
    }
    println!("the disk alone, one line and one flush: {:?}", begin.elapsed() / 200);
}
