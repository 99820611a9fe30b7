//! Doors and connections: who comes in, and how much of us anybody may take before we know who it is.
//!
//! Owns how many there are and how long each may stay unknown; who somebody is, and what he is told, is the host's
//! business. Tests: `agent/tests/api_server/{bad_input,tls}.rs`, `agent/tests/port`.

use super::{Api, Reply, reply};
use crate::api::access::{MASTERS, User};
use futures_util::future::LocalBoxFuture;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// What one client, or all of them, may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    /// Connections of whom nobody knows who they are. One more, and the one that has been there longest is cut: so
    /// nobody who can say who he is is kept out by those who cannot.
    pub strangers: usize,
    /// How long somebody may stay unknown.
    pub unknown: Duration,
    /// Of a request, in bytes.
    pub body: usize,
    pub head: usize,
    /// For the TLS handshake, and for the head of the first request.
    pub greeting: Duration,
    /// Until the head of the next request on a connection is there.
    pub idle: Duration,
    /// For a request's body.
    pub sending: Duration,
    /// A watcher that takes nothing for so long is let go.
    pub stalled: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 2000,
            strangers: 500,
            unknown: Duration::from_secs(60),
            body: 3 << 20,
            head: 64 << 10,
            greeting: Duration::from_secs(10),
            idle: Duration::from_secs(10),
            sending: Duration::from_secs(60),
            stalled: Duration::from_secs(60),
        }
    }
}

/// Where connections come from.
pub enum Door {
    /// Root, or the daemon's own user; both may do everything.
    Unix(UnixListener),
    /// None of the TLS: there is no certificate yet, and clients are turned away.
    Tls(TcpListener, Arc<dyn Fn() -> Option<Arc<ServerConfig>>>),
    /// What everybody may read.
    Plain(TcpListener),
}

/// Who answers at a door.
pub trait Host {
    fn limits(&self) -> Limits;
    fn answer(self: Rc<Self>, peer: Peer, request: Request<Incoming>) -> LocalBoxFuture<'static, Response<Reply>>;
}

impl Host for Api {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn answer(self: Rc<Self>, peer: Peer, request: Request<Incoming>) -> LocalBoxFuture<'static, Response<Reply>> {
        Box::pin(async move { self.serve(&peer, request).await.unwrap_or_else(|f| reply::failure(&f)) })
    }
}

/// The other side of a connection.
#[derive(Clone)]
pub struct Peer {
    /// Whom the door knows by the way he came in.
    pub user: Option<User>,
    /// What a client has shown, its own certificate first. The handshake has proved that it has the key to it; the
    /// rest is for the door's TLS or for the host to check.
    pub certificates: Rc<[CertificateDer<'static>]>,
    guest: Rc<Guest>,
}

impl Peer {
    /// The host knows who this is: from now on it may stay.
    pub fn welcome(&self) {
        self.guest.room.welcome(self.guest.number);
    }

    pub fn is_stranger(&self) -> bool {
        self.guest.room.has(self.guest.number)
    }

    /// Counts one more request of somebody unknown; None: he asks too much at once.
    pub fn ask(&self, most: usize) -> Option<Asking> {
        let asks = self.guest.asks.get();
        (!self.is_stranger() || asks < most).then(|| {
            self.guest.asks.set(asks + 1);
            Asking(self.guest.clone())
        })
    }
}

/// A request whose answer is under way.
pub struct Asking(Rc<Guest>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asks.set(self.0.asks.get() - 1);
    }
}

/// All connections of one door.
#[derive(Default)]
struct Room {
    guests: Cell<usize>,
    next: Cell<u64>,
    /// Whom nobody knows yet, in the order in which they came, and how to cut each off.
    strangers: RefCell<VecDeque<(u64, Arc<Notify>)>>,
}

impl Room {
    /// None: it is full of people whom we know.
    fn enter(self: &Rc<Room>, limits: &Limits) -> Option<Guest> {
        if (self.guests.get() >= limits.connections || self.strangers.borrow().len() >= limits.strangers) && !self.cut_oldest() {
            return None;
        }
        let (number, cut) = (self.next.get(), Arc::new(Notify::new()));
        self.next.set(number + 1);
        self.guests.set(self.guests.get() + 1);
        self.strangers.borrow_mut().push_back((number, cut.clone()));
        Some(Guest { room: self.clone(), number, cut, asks: Cell::new(0) })
    }

    fn cut_oldest(&self) -> bool {
        let oldest = self.strangers.borrow_mut().pop_front();
        oldest.inspect(|(_, cut)| cut.notify_one()).is_some()
    }

    fn welcome(&self, number: u64) {
        self.strangers.borrow_mut().retain(|(n, _)| *n != number);
    }

    fn has(&self, number: u64) -> bool {
        self.strangers.borrow().iter().any(|(n, _)| *n == number)
    }
}

/// One connection; counts itself.
struct Guest {
    room: Rc<Room>,
    number: u64,
    cut: Arc<Notify>,
    asks: Cell<usize>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.room.welcome(self.number);
        self.room.guests.set(self.room.guests.get() - 1);
    }
}

/// Serves a door for ever.
pub async fn serve<H: Host + 'static>(host: Rc<H>, door: Door) {
    let room = Rc::new(Room::default());
    loop {
        let taken = match &door {
            Door::Unix(listener) => listener.accept().await.map(|(stream, _)| unix(&host, &room, stream)),
            Door::Tls(listener, config) => listener.accept().await.map(|(stream, from)| {
                let Some(guest) = enter(&host, &room, &stream, from) else { return };
                match config() {
                    Some(config) => drop(tokio::task::spawn_local(tls(host.clone(), config, stream, guest))),
                    None => {
                        tracing::debug!(%from, "a connection is turned away: there is no serving certificate");
                        tokio::task::spawn_local(turn_away(stream, host.limits().greeting, guest));
                    }
                }
            }),
            Door::Plain(listener) => listener.accept().await.map(|(stream, from)| {
                let Some(guest) = enter(&host, &room, &stream, from) else { return };
                let peer = Peer { user: None, certificates: Rc::new([]), guest: Rc::new(guest) };
                tokio::task::spawn_local(connection(host.clone(), stream, peer));
            }),
        };
        if let Err(error) = taken {
            // Out of descriptors, most likely: give others time to end.
            tracing::warn!(%error, "a connection could not be taken");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn enter(host: &Rc<impl Host>, room: &Rc<Room>, stream: &TcpStream, from: std::net::SocketAddr) -> Option<Guest> {
    let _ = stream.set_nodelay(true);
    let guest = room.enter(&host.limits());
    if guest.is_none() {
        tracing::warn!(%from, "a connection is turned away: there are {} already", room.guests.get());
    }
    guest
}

fn unix<H: Host + 'static>(host: &Rc<H>, room: &Rc<Room>, stream: tokio::net::UnixStream) {
    let own = nix::unistd::geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|c| c.uid() == 0 || c.uid() == own) {
        tracing::warn!("a client that is neither root nor this daemon's user was turned away");
        return;
    }
    let Some(guest) = room.enter(&host.limits()) else { return };
    let user = User::new("root", &[MASTERS]);
    let peer = Peer { user: Some(user), certificates: Rc::new([]), guest: Rc::new(guest) };
    peer.welcome();
    tokio::task::spawn_local(connection(host.clone(), stream, peer));
}

/// Says `internal_error` to a greeting of TLS, as a server in Go that has no certificate: clients of a kubelet know it as
/// "remote error: tls: internal error".
async fn turn_away(mut stream: TcpStream, within: Duration, guest: Guest) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];
    let answer = async {
        let mut head = [0; 5];
        stream.read_exact(&mut head).await?;
        // What is not read would cut the answer off.
        let rest = u64::from(u16::from_be_bytes([head[3], head[4]]));
        tokio::io::copy(&mut (&mut stream).take(rest), &mut tokio::io::sink()).await?;
        stream.write_all(&ALERT).await?;
        stream.shutdown().await
    };
    tokio::select! {
        // Who says nothing is told nothing.
        _ = tokio::time::timeout(within, answer) => {}
        () = guest.cut.notified() => {}
    }
}

async fn tls<H: Host + 'static>(host: Rc<H>, config: Arc<ServerConfig>, stream: TcpStream, guest: Guest) {
    let handshake = tokio::time::timeout(host.limits().greeting, TlsAcceptor::from(config).accept(stream));
    let handshake = tokio::select! {
        shaken = handshake => shaken,
        () = guest.cut.notified() => return tracing::debug!("a TLS handshake was cut off: others wait"),
    };
    match handshake {
        Ok(Ok(stream)) => {
            let shown: Vec<_> = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
            let peer = Peer { user: None, certificates: shown.into(), guest: Rc::new(guest) };
            connection(host, stream, peer).await;
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

async fn connection<H: Host + 'static>(host: Rc<H>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: Peer) {
    let limits = host.limits();
    let greeted = Rc::new(Cell::new(false));
    let first = greeted.clone();
    let cut = peer.guest.cut.clone();
    let scissors = Cut(cut.clone());
    let of = peer.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        first.set(true);
        request.extensions_mut().insert(scissors.clone());
        let answer = host.clone().answer(of.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(LocalExecutor);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle).max_buf_size(limits.head.max(8192));
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
        () = cut.notified() => Err("it took nothing of what it asked for, or others wait".into()),
        () = overstayed(&peer, limits.unknown) => Err("nobody knows who it is".into()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection broke");
    }
}

/// When somebody has been unknown for too long.
async fn overstayed(peer: &Peer, most: Duration) {
    tokio::time::sleep(most).await;
    if !peer.is_stranger() {
        std::future::pending::<()>().await;
    }
}

/// Everything stays on this thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
