//! The client of an API server: one HTTP/2 connection for everything that this node asks of it and watches on it.
//!
//! A library would bring its own types, a second connection for each watch over HTTP/1.1, and a megabyte of program;
//! what a node needs are six verbs. Owns the connection, credentials and the pace of requests. Must never decide what
//! follows from an answer. Tests: `agent/tests/cluster`.

mod connection;
mod credentials;
mod stream;
mod trust;

pub use stream::Frames;
pub use trust::bytes;

use crate::api::Failure;
use crate::cluster::kubeconfig::{self, Kubeconfig, KubeconfigError};
use crate::cluster::pace::Limit;
use crate::typed;
use bytes::Bytes;
use connection::Connection;
use credentials::Credentials;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;

/// How long an answer may take to begin, and then each part of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// No answer that a node asks for is larger.
const LARGEST: usize = 64 << 20;
/// How often a server that asks us to come back later is asked again within one request.
const AGAIN: u32 = 3;
/// It never makes us wait longer than this in one go.
const LATER_AT_MOST: Duration = Duration::from_secs(30);

pub const JSON: &str = "application/json";
pub const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("kubeconfig {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    #[error("{what} {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{what}: {why}")]
    Material { what: &'static str, why: String },
    #[error("connect to {server}: {source}")]
    Connect { server: String, source: std::io::Error },
    #[error("no connection to {server}: {why}")]
    Down { server: String, why: String },
    #[error("the server {server} does not speak HTTP/2")]
    OldServer { server: String },
    #[error("the connection to {server} broke: {source}")]
    Broken { server: String, source: hyper::Error },
    #[error("{what} did not come within {} s", within.as_secs())]
    Late { what: String, within: Duration },
    #[error("the answer to {what} is larger than {LARGEST} bytes, or broke off")]
    Large { what: String },
    #[error("{what}: {}", failure.message)]
    Refused { what: String, failure: Box<Failure> },
    #[error("the answer to {what} cannot be read: {source}")]
    Answer { what: String, source: serde_json::Error },
    #[error("credentials by {command}: {why}")]
    Plugin { command: String, why: String },
}

impl ClientError {
    /// What the server said, where it said anything.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            ClientError::Refused { failure, .. } => Some(failure),
            _ => None,
        }
    }

    /// Nobody answered: the connection is tried again at its own pace.
    pub fn is_outage(&self) -> bool {
        use ClientError::{Broken, Connect, Down};
        matches!(self, Connect { .. } | Down { .. } | Broken { .. })
    }

    pub fn code(&self) -> u16 {
        self.failure().map_or(0, |f| f.code)
    }
}

/// How the server is spoken to.
#[derive(Clone, Debug)]
pub struct Config {
    pub kubeconfig: PathBuf,
    /// Requests a second and in a burst; watches and leases do not count. Zero: no limit.
    pub qps: f64,
    pub burst: u32,
    pub user_agent: String,
}

/// A request that is not a watch.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    pub method: Method,
    /// With its query, already encoded.
    pub path: &'a str,
    pub kind: &'static str,
    pub body: Bytes,
    /// Of the whole answer; also: this request does not wait for its turn.
    pub urgent: Option<Duration>,
}

impl<'a> Ask<'a> {
    pub fn get(path: &'a str) -> Ask<'a> {
        Ask { method: Method::GET, path, kind: JSON, body: Bytes::new(), urgent: None }
    }

    pub fn send(method: Method, path: &'a str, kind: &'static str, body: &Value) -> Ask<'a> {
        Ask { method, path, kind, body: body.to_string().into(), urgent: None }
    }

    pub fn urgent(self, within: Duration) -> Ask<'a> {
        Ask { urgent: Some(within), ..self }
    }

    fn what(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

struct Inner {
    kubeconfig: Kubeconfig,
    connection: Connection,
    credentials: Credentials,
    limit: RefCell<Limit>,
    user_agent: HeaderValue,
    /// False: nobody is asked anything yet.
    admitted: watch::Sender<bool>,
}

/// Clones share everything.
#[derive(Clone)]
pub struct Client(Rc<Inner>);

impl Client {
    /// Reads the kubeconfig. Nobody is spoken to before the first request.
    pub fn open(config: &Config) -> Result<Client, ClientError> {
        let kubeconfig = read(&config.kubeconfig)?;
        let user_agent = HeaderValue::from_str(&config.user_agent).unwrap_or_else(|_| HeaderValue::from_static("longshore"));
        let limit = RefCell::new(Limit::new(config.qps, config.burst, crate::run::clock::mono()));
        let credentials = Credentials::new(&kubeconfig);
        let (connection, admitted) = (Connection::new(&kubeconfig), watch::Sender::new(true));
        Ok(Client(Rc::new(Inner { connection, credentials, limit, user_agent, kubeconfig, admitted })))
    }

    pub fn server(&self) -> String {
        self.0.kubeconfig.server.url()
    }

    /// From now on requests wait until there is a certificate to [`show`](Client::show).
    pub fn hold(&self) {
        self.0.admitted.send_replace(false);
    }

    /// Shows the certificate of this file, which has its key too, and nothing else.
    pub fn show(&self, file: &Path) {
        self.0.credentials.show(file);
        self.0.admitted.send_replace(true);
    }

    /// Whether its certificate may be replaced by others.
    pub fn is_known_by_file(&self) -> bool {
        self.0.credentials.are_files()
    }

    /// Goes over to another certificate, if there is another than the server saw.
    pub async fn follow(&self) -> Result<bool, ClientError> {
        self.0.connection.follow(&self.0.credentials).await
    }

    async fn admitted(&self) {
        // The sender is as old as the client.
        let _ = self.0.admitted.subscribe().wait_for(|admitted| *admitted).await;
    }

    /// Asks, and reads the answer.
    pub async fn ask(&self, ask: Ask<'_>) -> Result<Value, ClientError> {
        self.admitted().await;
        let what = ask.what();
        let within = ask.urgent.unwrap_or(PATIENCE);
        let mut again = 0;
        loop {
            let answered = tokio::time::timeout(within, async {
                let (response, _) = self.answer(&ask, ask.urgent.is_none()).await?;
                let later = later(&response);
                let status = response.status();
                let body = Limited::new(response.into_body(), LARGEST).collect().await;
                Ok::<_, ClientError>((status, later, body.map_err(|_| ClientError::Large { what: what.clone() })?.to_bytes()))
            });
            let (status, wait, body) = match answered.await {
                Ok(r) => r?,
                Err(_) => return Err(ClientError::Late { what, within }),
            };
            match wait {
                Some(wait) if again < AGAIN && ask.urgent.is_none() => {
                    again += 1;
                    tokio::time::sleep(wait).await;
                }
                _ if status.is_success() => return parse(&what, &body),
                _ => return Err(ClientError::Refused { failure: failure(status, &body), what }),
            }
        }
    }

    /// Begins a watch: `path` has its query. The server ends it when it likes.
    pub async fn watch(&self, path: &str) -> Result<Frames, ClientError> {
        self.admitted().await;
        let ask = Ask::get(path);
        let what = ask.what();
        let response = tokio::time::timeout(PATIENCE, self.answer(&ask, false)).await;
        let (response, serial) = response.map_err(|_| ClientError::Late { what: what.clone(), within: PATIENCE })??;
        let status = response.status();
        if !status.is_success() {
            let wait = later(&response);
            let body = tokio::time::timeout(PATIENCE, Limited::new(response.into_body(), LARGEST).collect()).await;
            let body = body.ok().and_then(Result::ok).map(|b| b.to_bytes()).unwrap_or_default();
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
            }
            return Err(ClientError::Refused { what, failure: failure(status, &body) });
        }
        Ok(Frames::new(response.into_body(), what, serial, self.0.connection.current()))
    }

    /// Waits until one more request may go.
    async fn turn(&self) {
        let wait = self.0.limit.borrow_mut().take(crate::run::clock::mono());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends it over the connection, which is made where there is none; credentials that are refused are got anew once.
    /// Only what can be sent waits for its turn: a server that is away must not use up the turns of when it is back.
    /// The number of the connection that it came by comes with the answer.
    async fn answer(&self, ask: &Ask<'_>, in_turn: bool) -> Result<(Response<Incoming>, u64), ClientError> {
        self.0.connection.link(&self.0.credentials).await?;
        if in_turn {
            self.turn().await;
        }
        let mut renewed = false;
        loop {
            let (link, serial) = self.0.connection.link(&self.0.credentials).await?;
            let request = self.request(ask).await?;
            match connection::send(link, request).await {
                Ok(r) if r.status() == StatusCode::UNAUTHORIZED && !renewed => {
                    renewed = true;
                    let others = self.0.credentials.renew();
                    // Why there is no other certificate is told by whoever keeps it.
                    if !self.follow().await.unwrap_or(false) && !others {
                        return Ok((r, serial));
                    }
                }
                Ok(r) => return Ok((r, serial)),
                Err(source) => {
                    self.0.connection.broke(serial);
                    return Err(ClientError::Broken { server: self.server(), source });
                }
            }
        }
    }

    async fn request(&self, ask: &Ask<'_>) -> Result<Request<Full<Bytes>>, ClientError> {
        let server = &self.0.kubeconfig.server;
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        let material = |e: &dyn std::fmt::Display| ClientError::Material { what: "address of a request", why: e.to_string() };
        *request.uri_mut() = format!("{}{}", server.url(), ask.path).parse().map_err(|e: hyper::http::uri::InvalidUri| material(&e))?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(JSON));
        headers.insert(USER_AGENT, self.0.user_agent.clone());
        if !ask.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(ask.kind));
        }
        self.0.credentials.sign(headers).await?;
        Ok(request)
    }
}

/// Reads the kubeconfig of this path.
pub fn read(path: &Path) -> Result<Kubeconfig, ClientError> {
    let text = std::fs::read_to_string(path).map_err(|source| ClientError::Unreadable { path: path.to_owned(), source })?;
    Ok(kubeconfig::settle(path, &text)?)
}

/// A number between 0 and 1.
pub fn chance() -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let chance = (crate::run::api::seed() >> 11) as f64 / (1u64 << 53) as f64;
    chance
}

/// A server with too much to do says when to come back.
fn later(response: &Response<Incoming>) -> Option<Duration> {
    let busy = matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    busy.then(|| Duration::from_secs(seconds).min(LATER_AT_MOST))
}

fn parse(what: &str, body: &[u8]) -> Result<Value, ClientError> {
    serde_json::from_slice(body).map_err(|source| ClientError::Answer { what: what.to_owned(), source })
}

/// What a server says that refuses; some stand behind proxies that know no Status.
fn failure(status: StatusCode, body: &[u8]) -> Box<Failure> {
    let told = typed::read_text::<Failure>(body).ok().filter(|f| !f.message.is_empty());
    let mut failure = told.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&body[..body.len().min(1024)]).trim().to_owned();
        Failure::new(status.as_u16(), "", if text.is_empty() { status.to_string() } else { text })
    });
    failure.code = status.as_u16();
    Box::new(failure)
}
