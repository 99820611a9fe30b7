//! The daemon's socket: the Kubernetes API's paths over HTTP/1.1, for root on this machine.
//!
//! Owns the socket and its connections. Asks the node's owner through the event loop, between two events;
//! must never keep a copy of state or change any. Who may talk is settled by the socket's mode and the
//! peer's credentials, before a byte is read. Tests: `tests/tests/cli.rs`.

mod body;
mod changes;
mod exec;
mod listen;
mod logs;
mod objects;
pub mod services;

pub use changes::Changes;
pub use listen::{ListenError, SOCKET, listen};
pub use services::ServiceView;

use super::event_loop::Question;
use super::events::Recorder;
use crate::api::{Failure, Kind, Query, Route, route};
use crate::node::NodeState;
use crate::run::clock;
use crate::why;
use body::Reply;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use longshore_cri::client::Client;
use std::convert::Infallible;
use std::rc::Rc;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

/// What the server needs of the daemon.
pub struct Server {
    pub ask: mpsc::Sender<Question>,
    pub services: Rc<dyn ServiceView>,
    pub changes: Rc<Changes>,
    pub client: Client,
    pub node_name: String,
}

type Answer = Result<Response<Reply>, Failure>;

/// Serves for ever.
pub async fn serve(listener: UnixListener, server: Rc<Server>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if listen::may_talk(&stream) => {
                let server = server.clone();
                tokio::task::spawn_local(async move {
                    let service = hyper::service::service_fn(move |r| {
                        let server = server.clone();
                        async move { Ok::<_, Infallible>(server.answer(r).await) }
                    });
                    let io = hyper_util::rt::TokioIo::new(stream);
                    let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades();
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a client's connection broke");
                    }
                });
            }
            Ok(_) => tracing::warn!("a client that is neither root nor this daemon's user was turned away"),
            Err(error) => {
                // Out of descriptors, most likely: give others time to end.
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

impl Server {
    /// Asks the node's owner. Fails only while the daemon ends.
    pub async fn ask<T: 'static>(&self, question: impl FnOnce(&NodeState, &Recorder) -> T + 'static) -> Result<T, Failure> {
        let (to, from) = tokio::sync::oneshot::channel();
        let ask: Question = Box::new(move |n, r| {
            // Nobody waits for the answer any more: fine.
            let _ = to.send(question(n, r));
        });
        let ending = || Failure::new(503, "ServiceUnavailable", "the daemon is stopping; try again when it is back");
        self.ask.send(ask).await.map_err(|_| ending())?;
        from.await.map_err(|_| ending())
    }

    async fn answer(self: Rc<Self>, request: Request<Incoming>) -> Response<Reply> {
        match self.route(request).await {
            Ok(r) => r,
            Err(f) => {
                let status = StatusCode::from_u16(f.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                with_status(status, "application/json", f.body())
            }
        }
    }

    async fn route(self: Rc<Self>, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let Some(to) = route::route(&path) else { return Err(Failure::no_such_path(&path)) };
        let method = request.method().clone();
        let allowed = match to {
            Route::Exec { .. } => matches!(method, Method::GET | Method::POST),
            _ => matches!(method, Method::GET | Method::HEAD),
        };
        if !allowed {
            return Err(Failure::method_not_allowed(method.as_str(), &path));
        }
        match to {
            Route::Healthz => Ok(with_status(StatusCode::OK, "text/plain; charset=utf-8", "ok")),
            Route::Version => Ok(json(version(&self.node_name))),
            Route::List { kind, namespace } if query.flag("watch")? => self.watch(kind, namespace, &query),
            Route::List { kind, namespace } => self.list(kind, namespace.as_deref()).await,
            Route::Get { kind, namespace, name } => self.get(kind, &namespace, &name).await,
            Route::Log { namespace, name } => self.log(namespace, name, &query).await,
            Route::Exec { namespace, name } => self.exec(namespace, name, &query, request).await,
            Route::Why { namespace, name } => {
                let pod = name.clone();
                let told = self.ask(move |n, _| why::why(n, &namespace, &pod, clock::now())).await?;
                let unknown = || {
                    let mut f = Failure::not_found(Kind::Pod, &name);
                    f.message.push_str("; if its manifest is there, longshore check DIR tells what is wrong with it");
                    f
                };
                let told = told.ok_or_else(unknown)?;
                Ok(json(serde_json::to_vec(&told).expect("plain data serialises")))
            }
        }
    }
}

fn version(node: &str) -> Vec<u8> {
    let v = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"), "kubernetes": crate::KUBERNETES_VERSION, "gitVersion": crate::KUBERNETES_VERSION,
        "major": "1", "minor": "36", "platform": format!("linux/{}", crate::run::assemble::architecture()), "node": node, "pid": std::process::id(),
    });
    serde_json::to_vec(&v).expect("plain data serialises")
}

fn json(bytes: Vec<u8>) -> Response<Reply> {
    with_status(StatusCode::OK, "application/json", bytes)
}

fn with_status(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Response<Reply> {
    let mut r = Response::new(Reply::whole(bytes));
    *r.status_mut() = status;
    r.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    r
}

/// A response whose end is not known yet.
fn stream(kind: &'static str, from: mpsc::Receiver<Bytes>) -> Response<Reply> {
    let mut r = Response::new(Reply::Stream(from));
    r.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    r
}
