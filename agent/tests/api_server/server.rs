//! A server for one test, and a client that speaks to it.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use longshore::api::access::Roles;
use longshore::api::write::Context;
use longshore::run::api::auth::Credentials;
use longshore::run::api::{Api, Door, Limits, Parts, serve};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, LocalSet};

/// Nothing here takes so long; a test that hangs fails.
const DEADLINE: Duration = Duration::from_secs(120);

pub struct Server {
    pub api: Rc<Api>,
    _dir: TempDir,
    socket: PathBuf,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    /// The object of a request that went well.
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{} {:?}", self.status, self.body);
        self.json()
    }

    /// The message of a request that was refused like this.
    pub fn refused(&self, code: u16, reason: &str) -> String {
        let status = self.json();
        assert_eq!((self.status, status["kind"].as_str(), status["status"].as_str()), (code, Some("Status"), Some("Failure")), "{status}");
        assert_eq!((status["code"].as_u64(), status["reason"].as_str().unwrap_or_default()), (Some(code.into()), reason), "{status}");
        status["message"].as_str().unwrap().to_owned()
    }
}

pub fn parts() -> Parts {
    Parts {
        context: Context::default(),
        roles: Roles::default(),
        credentials: Credentials::default(),
        state: None,
        files: None,
        node: None,
        limits: Limits::default(),
    }
}

/// Runs a test on a thread of its own, as the daemon runs the server.
pub fn alone(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { tokio::time::timeout(DEADLINE, test).await.expect("the test ends in time") });
}

/// A server with a namespace, and a test for it.
pub fn with_server(parts: Parts, test: impl AsyncFnOnce(&Server)) {
    alone(async {
        let server = Server::start(parts);
        server.namespace("default").await;
        test(&server).await;
    });
}

impl Server {
    pub fn start(parts: Parts) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let api = Api::start(parts);
        tokio::task::spawn_local(serve(api.clone(), Door::Unix(listener)));
        Server { api, _dir: dir, socket }
    }

    pub async fn namespace(&self, name: &str) {
        let answer = self.post("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await;
        assert!(matches!(answer.status, 201 | 409), "{:?}", answer.body);
    }

    pub async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let (sender, _connection) = handshake(self.connect().await).await;
        send(sender, request).await.unwrap()
    }

    /// On the connection of the request before; a server that broke it has failed.
    pub async fn again(&self, line: &mut Option<(Sender, Connection)>, request: Request<Full<Bytes>>) -> Answer {
        if line.as_ref().is_none_or(|(sender, _)| sender.is_closed()) {
            *line = Some(handshake(self.connect().await).await);
        }
        let (sender, _) = line.as_mut().unwrap();
        sender.ready().await.unwrap();
        let told = format!("{} {}", request.method(), request.uri());
        let (head, body) = sender.send_request(request).await.unwrap_or_else(|e| panic!("{told}: {e}")).into_parts();
        Answer { status: head.status.as_u16(), headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    pub async fn ask(&self, method: &str, path: &str, kind: &str, body: impl Into<Bytes>) -> Answer {
        self.send(request(method, path, kind, body)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, "application/json", body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, "application/json", body.to_string()).await
    }

    /// A merge patch.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.ask("PATCH", path, "application/merge-patch+json", body.to_string()).await
    }

    pub async fn delete(&self, path: &str, options: &Value) -> Answer {
        self.ask("DELETE", path, "application/json", options.to_string()).await
    }

    /// Sends bytes as they are and reads until the server hangs up.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let (mut reader, mut writer) = self.connect().await.into_split();
        let writing = async {
            // A server that has heard enough need not listen to the rest.
            let _ = writer.write_all(bytes).await;
        };
        let mut text = Vec::new();
        let reading = async {
            let _ = reader.read_to_end(&mut text).await;
        };
        tokio::join!(writing, reading);
        String::from_utf8_lossy(&text).into_owned()
    }

    pub async fn watch(&self, path: &str) -> Watch {
        let (mut sender, connection) = handshake(self.connect().await).await;
        let response = sender.send_request(request("GET", path, "", "")).await.unwrap();
        assert_eq!(response.status(), 200);
        Watch { body: response.into_body(), read: Vec::new(), _sender: sender, connection }
    }
}

pub type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

/// Ends with its owner.
pub struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub async fn handshake(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static) -> (Sender, Connection) {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let task = tokio::task::spawn_local(async {
        let _ = connection.await;
    });
    (sender, Connection(task))
}

pub async fn send(mut sender: Sender, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.collect().await?.to_bytes() })
}

pub fn request(method: &str, path: &str, kind: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let builder = Request::builder().method(method).uri(path).header("host", "node");
    let builder = if kind.is_empty() { builder } else { builder.header("content-type", kind) };
    builder.body(Full::new(body.into())).unwrap()
}

/// One event of a watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub what: String,
    pub revision: u64,
    pub name: String,
    pub object: Value,
}

pub struct Watch {
    body: Incoming,
    read: Vec<u8>,
    _sender: Sender,
    connection: Connection,
}

impl Watch {
    /// None: the server has ended it.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.read.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(event(&serde_json::from_slice(&line).unwrap()));
            }
            let frame = self.body.frame().await?.ok()?;
            self.read.extend_from_slice(frame.data_ref()?);
        }
    }

    /// Hangs up.
    pub fn end(self) {
        drop(self.connection);
    }
}

fn event(line: &Value) -> Event {
    let object = line["object"].clone();
    Event {
        what: line["type"].as_str().unwrap().to_owned(),
        revision: object["metadata"]["resourceVersion"].as_str().map_or(0, |r| r.parse().unwrap()),
        name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        object,
    }
}

pub fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub fn map(name: &str, value: impl ToString) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"v": value.to_string()}})
}

pub fn pod(name: &str, node: &str) -> Value {
    let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "x:1"}]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

pub const PODS: &str = "/api/v1/namespaces/default/pods";

/// A small generator of numbers (xorshift).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }
}
