//! The kubelet's own port: listeners, who is let in, and the handlers behind `crate::port`'s table.
//!
//! Owns its connections and what it remembers of clients. What only the node knows it asks through `run::server`, which
//! also relays streams and reads logs; figures come from `run::stats`. Must never decide what a path needs to be
//! allowed: the table does. Tests: `agent/tests/port`, `tests/tests/process_port.rs`, `tests/tests/runtime_port.rs`.

mod access;
mod checks;
mod containers;
mod node_logs;
pub mod open;
mod pages;
mod pods;
pub mod reviews;
pub mod tls;

pub use reviews::{AccessAnswer, Own, ReviewError, Reviews, TokenAnswer};
pub use tls::{Serving, Source, TlsError, self_signed};

use super::api::{self, Answer, Door, Host, Limits, Peer, Reply, with_status};
use super::server::Server;
use super::stats::Reader;
use crate::api::access::UNAUTHENTICATED;
use crate::api::{Failure, Query};
use crate::port::route::{Switch, find};
use crate::port::{Endpoint, Found, PortConfig};
use crate::run::clock;
use crate::time::Wall;
use access::Access;
use futures_util::future::LocalBoxFuture;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, header};
use pages::Counts;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tls::Authorities;
use tokio::net::TcpListener;

/// Requests at once of somebody whom we do not know yet.
const STRANGERS_ASK: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot listen at {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("authorization.mode Webhook needs an API server to ask; without one, set AlwaysAllow or give a kubeconfig")]
    NobodyToAsk,
}

/// Sets how much is logged, by klog's numbers.
pub type Verbosity = Rc<dyn Fn(u8) -> Result<(), String>>;

/// What the port is made of.
pub struct Parts {
    pub config: PortConfig,
    pub node_name: String,
    /// Streams, logs, and questions to the node.
    pub server: Server,
    /// Who answers whose token this is, and what somebody may do.
    pub reviews: Option<Rc<dyn Reviews>>,
    /// The port's certificate.
    pub source: Source,
    /// The whole `KubeletConfiguration`, as `/configz` shows it.
    pub configuration: Value,
    /// The command line, as `/flagz` shows it.
    pub flags: Vec<(String, String)>,
    pub verbosity: Option<Verbosity>,
    pub root_dir: PathBuf,
    /// What `/logs/` shows.
    pub log_dir: PathBuf,
    pub stats: Arc<Reader>,
    pub probes: Rc<super::prober::Counts>,
}

pub struct Port {
    config: PortConfig,
    node_name: String,
    server: Rc<Server>,
    access: Access,
    serving: Rc<Serving>,
    configuration: Value,
    flags: Vec<(String, String)>,
    verbosity: Option<Verbosity>,
    root_dir: PathBuf,
    log_dir: PathBuf,
    stats: Arc<Reader>,
    probes: Rc<super::prober::Counts>,
    counts: Counts,
    checks: checks::Totals,
    checkpoint: tokio::sync::Semaphore,
    started: Wall,
}

/// Opens all listeners that are configured, and serves them on the current local set.
pub async fn start(parts: Parts) -> Result<Rc<Port>, PortError> {
    let config = parts.config;
    let webhook = config.authorization.mode == crate::port::config::Mode::Webhook;
    if config.enable_server && webhook && parts.reviews.is_none() {
        return Err(PortError::NobodyToAsk);
    }
    let file = &config.authentication.x509.client_ca_file;
    let authorities = if file.is_empty() { None } else { Some(Authorities::open(Path::new(file))?) };
    let port = Rc::new(Port {
        access: Access::new(&parts.node_name, &config, parts.reviews, authorities),
        serving: Rc::new(Serving::open(parts.source, &config)?),
        server: Rc::new(Server { idle: config.streaming_connection_idle_timeout.0, ..parts.server }),
        config,
        node_name: parts.node_name,
        configuration: parts.configuration,
        flags: parts.flags,
        verbosity: parts.verbosity,
        root_dir: parts.root_dir,
        log_dir: parts.log_dir,
        stats: parts.stats,
        probes: parts.probes,
        counts: Counts::default(),
        checks: checks::Totals::default(),
        checkpoint: tokio::sync::Semaphore::new(1),
        started: clock::now().wall,
    });
    let faces = [
        (Face::Main, Some(port.config.main()).filter(|_| port.config.enable_server)),
        (Face::ReadOnly, port.config.read_only()),
        (Face::Health, port.config.health()),
    ];
    for (face, address) in faces {
        let Some(address) = address else { continue };
        let listener = TcpListener::bind(address).await.map_err(|source| PortError::Listen { address, source })?;
        tracing::info!(%address, ?face, "the kubelet's port is served");
        let serving = port.serving.clone();
        #[allow(clippy::arc_with_non_send_sync, reason = "a door takes an Arc; all of this stays on one thread")]
        let door = match face {
            Face::Main => Door::Tls(listener, Arc::new(move || serving.config())),
            Face::ReadOnly | Face::Health => Door::Plain(listener),
        };
        tokio::task::spawn_local(api::serve(Rc::new(Front { port: port.clone(), face }), door));
    }
    Ok(port)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Face {
    Main,
    ReadOnly,
    Health,
}

/// One listener of the port.
struct Front {
    port: Rc<Port>,
    face: Face,
}

impl Host for Front {
    fn limits(&self) -> Limits {
        Limits { connections: 1000, strangers: 100, unknown: Duration::from_secs(30), idle: Duration::from_secs(90), ..Limits::default() }
    }

    fn answer(self: Rc<Self>, peer: Peer, request: Request<Incoming>) -> LocalBoxFuture<'static, Response<Reply>> {
        Box::pin(async move {
            let found = find(request.method().as_str(), request.uri().path());
            let method = request.method().clone();
            let answer = match self.face {
                Face::Main => self.port.clone().enter(&peer, &found, request).await,
                Face::ReadOnly => self.port.clone().look(found.clone(), request).await,
                Face::Health => self.port.clone().health(found.clone(), request).await,
            };
            let answer = answer.unwrap_or_else(|f| refusal(&f));
            self.port.counts.request(&method, &found, answer.status());
            answer
        })
    }
}

/// Errors are plain text, as a kubelet tells them.
fn refusal(f: &Failure) -> Response<Reply> {
    let status = StatusCode::from_u16(f.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    text(status, f.message.clone())
}

fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Reply> {
    let mut r = with_status(status, "text/plain; charset=utf-8", body);
    r.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    r
}

fn not_found() -> Failure {
    Failure::new(404, "NotFound", "404: Page Not Found")
}

fn disabled(what: &str) -> Failure {
    Failure::new(405, "MethodNotAllowed", what)
}

impl Port {
    /// The door itself: who, whether he may, and then what.
    async fn enter(self: Rc<Self>, peer: &Peer, found: &Found, mut request: Request<Incoming>) -> Answer {
        let asking = peer.ask(STRANGERS_ASK);
        let _asking = asking.ok_or_else(|| Failure::new(429, "TooManyRequests", "Too many requests, please try again later."))?;
        let user = self.access.who(peer, &mut request).await?;
        if !user.is_in(UNAUTHENTICATED) {
            peer.welcome();
        }
        self.access.may(&user, found).await?;
        peer.welcome();
        let row = found.row.ok_or_else(not_found)?;
        self.is_on(row.switch)?;
        if !found.method_fits {
            return Err(Failure::new(405, "MethodNotAllowed", "405: Method Not Allowed"));
        }
        self.handle(row.endpoint, found.clone(), request).await
    }

    fn is_on(&self, switch: Switch) -> Result<(), Failure> {
        let c = &self.config;
        let debugging = c.enable_debugging_handlers;
        let told = || disabled("Debug endpoints are disabled.");
        match switch {
            Switch::Open => Ok(()),
            Switch::Debugging => {
                if debugging {
                    Ok(())
                } else {
                    Err(not_found())
                }
            }
            _ if !debugging => Err(told()),
            Switch::Logs if !c.enable_system_log_handler => Err(disabled("logs endpoint is disabled.")),
            Switch::Profiling if !c.enable_profiling_handler => Err(disabled("profiling endpoint is disabled.")),
            Switch::Flags if !c.enable_debug_flags_handler => Err(disabled("flags endpoint is disabled.")),
            _ => Ok(()),
        }
    }

    /// The read-only port: what is open, by GET, and nothing else whatever the configuration.
    async fn look(self: Rc<Self>, found: Found, request: Request<Incoming>) -> Answer {
        let row = found.row.filter(|r| r.switch == Switch::Open).ok_or_else(not_found)?;
        if request.method() != hyper::Method::GET {
            return Err(Failure::new(405, "MethodNotAllowed", "405: Method Not Allowed"));
        }
        self.handle(row.endpoint, found, request).await
    }

    /// The health port: health.
    async fn health(self: Rc<Self>, found: Found, request: Request<Incoming>) -> Answer {
        found.row.filter(|r| r.endpoint == Endpoint::Health && found.method_fits).ok_or_else(not_found)?;
        self.handle(Endpoint::Health, found, request).await
    }

    async fn handle(self: Rc<Self>, endpoint: Endpoint, found: Found, request: Request<Incoming>) -> Answer {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        match endpoint {
            Endpoint::Health => self.healthz(&found, &query).await,
            Endpoint::Pods => self.pods().await,
            Endpoint::RunningPods => self.running_pods().await,
            Endpoint::Configz => Ok(api::json(&serde_json::json!({"kubeletconfig": self.configuration}))),
            Endpoint::Statusz => Ok(text(StatusCode::OK, self.statusz())),
            Endpoint::Flagz => Ok(text(StatusCode::OK, self.flagz())),
            Endpoint::Summary => self.summary(&query).await,
            Endpoint::Metrics => self.metrics().await,
            Endpoint::CadvisorMetrics => self.cadvisor_metrics().await,
            Endpoint::ProbeMetrics => Ok(pages::metrics(self.probe_metrics())),
            Endpoint::ResourceMetrics => self.resource_metrics().await,
            Endpoint::SliMetrics => Ok(pages::metrics(self.slis())),
            Endpoint::ContainerLogs => self.container_logs(found, &query).await,
            Endpoint::Exec => self.exec(found, &query, request).await,
            Endpoint::Attach => self.attach(found, &query, request).await,
            Endpoint::PortForward => self.port_forward(found, &query, request).await,
            Endpoint::Run => self.run(found, &query).await,
            Endpoint::Checkpoint => self.checkpoint(found, &query).await,
            Endpoint::NodeLogs => self.node_logs(found, &query).await,
            Endpoint::Profiles => {
                Err(Failure::new(501, "NotImplemented", "pprof describes programs in Go; this one is profiled with perf"))
            }
            Endpoint::Verbosity => self.set_verbosity(request).await,
        }
    }
}
