//! Doors and connections: who comes in, and how much of us anybody may take before we know who it is.

use super::{Api, reply};
use crate::api::access::{MASTERS, User};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// What one client, or all of them, may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    /// Of a request, in bytes.
    pub body: usize,
    pub head: usize,
    /// For the TLS handshake, and for the head of a request.
    pub greeting: Duration,
    /// For a request's body.
    pub sending: Duration,
    /// A watcher that takes nothing for so long is let go.
    pub stalled: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 2000,
            body: 3 << 20,
            head: 64 << 10,
            greeting: Duration::from_secs(10),
            sending: Duration::from_secs(60),
            stalled: Duration::from_secs(60),
        }
    }
}

/// Where connections come from.
pub enum Door {
    /// Root, or the daemon's own user; both may do everything.
    Unix(UnixListener),
    Tls(TcpListener, Arc<dyn Fn() -> Arc<ServerConfig>>),
}

/// Counts itself.
struct Guest(Rc<Cell<usize>>);

impl Guest {
    fn enter(count: &Rc<Cell<usize>>, most: usize) -> Option<Guest> {
        (count.get() < most).then(|| {
            count.set(count.get() + 1);
            Guest(count.clone())
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Serves a door for ever.
pub async fn serve(api: Rc<Api>, door: Door) {
    let count = Rc::new(Cell::new(0));
    loop {
        let taken = match &door {
            Door::Unix(listener) => listener.accept().await.map(|(stream, _)| unix(&api, &count, stream)),
            Door::Tls(listener, config) => listener.accept().await.map(|(stream, from)| {
                let Some(guest) = Guest::enter(&count, api.limits.connections) else {
                    tracing::warn!(%from, "a connection is turned away: there are {} already", api.limits.connections);
                    return;
                };
                let _ = stream.set_nodelay(true);
                tokio::task::spawn_local(tls(api.clone(), config(), stream, guest));
            }),
        };
        if let Err(error) = taken {
            // Out of descriptors, most likely: give others time to end.
            tracing::warn!(%error, "a connection could not be taken");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn unix(api: &Rc<Api>, count: &Rc<Cell<usize>>, stream: tokio::net::UnixStream) {
    let own = nix::unistd::geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|c| c.uid() == 0 || c.uid() == own) {
        tracing::warn!("a client that is neither root nor this daemon's user was turned away");
        return;
    }
    let Some(guest) = Guest::enter(count, api.limits.connections) else { return };
    let user = User::new("root", &[MASTERS]);
    tokio::task::spawn_local(connection(api.clone(), stream, Some(user), guest));
}

async fn tls(api: Rc<Api>, config: Arc<ServerConfig>, stream: tokio::net::TcpStream, guest: Guest) {
    let handshake = tokio::time::timeout(api.limits.greeting, TlsAcceptor::from(config).accept(stream)).await;
    match handshake {
        Ok(Ok(stream)) => {
            let peer = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
            let user = peer.and_then(|c| super::auth::by_certificate(c));
            connection(api, stream, user, guest).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// Cuts the connection that a request came by: who takes nothing of an answer without end would hold it for ever.
#[derive(Clone)]
pub struct Cut(Arc<Notify>);

impl Cut {
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// `peer` is who the connection itself says it is.
async fn connection(api: Rc<Api>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: Option<User>, guest: Guest) {
    let limits = api.limits;
    let greeted = Rc::new(Cell::new(false));
    let first = greeted.clone();
    let cut = Arc::new(Notify::new());
    let scissors = Cut(cut.clone());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        first.set(true);
        request.extensions_mut().insert(scissors.clone());
        let (api, peer) = (api.clone(), peer.clone());
        async move {
            let answer = api.answer(peer, request).await;
            Ok::<_, Infallible>(answer.unwrap_or_else(|f| reply::failure(&f)))
        }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(LocalExecutor);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.greeting).max_buf_size(limits.head.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1000)
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let mut served = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    // Telling HTTP/1 from HTTP/2 and the preface of the latter have no limit of their own.
    let ended = async {
        match tokio::time::timeout(limits.greeting, &mut served).await {
            Ok(ended) => ended,
            Err(_) if !greeted.get() => Err("it came in and asked for nothing".into()),
            Err(_) => served.await,
        }
    };
    let ended = tokio::select! {
        ended = ended => ended,
        () = cut.notified() => Err("it took nothing of what it asked for".into()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection broke");
    }
    drop(guest);
}

/// Everything stays on this thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
