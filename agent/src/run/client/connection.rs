//! The one connection: made when it is needed, watched while it is idle, made anew when it broke or is to show another
//! certificate.
//!
//! A peer that is gone without a word is noticed by pings within 30 s. Several requests that find no connection make
//! one together, and when that fails they all fail with it: a server that is away is tried at a bounded pace, whoever
//! asks.

use super::ClientError;
use super::credentials::Credentials;
use super::trust::{self, Own};
use crate::cluster::kubeconfig::{Kubeconfig, Server};
use crate::cluster::pace::Backoff;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

/// For the connection and for the handshake of TLS.
const CONNECT: Duration = Duration::from_secs(10);
/// A silent peer is asked whether it is there this often, and given this long.
const PING_EVERY: Duration = Duration::from_secs(15);
const PING_ANSWER: Duration = Duration::from_secs(10);
/// A server that is away is tried this soon again, and at most this seldom: what happened meanwhile is to be reported
/// within seconds of its return, and one connection each few seconds is no burden.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_AT_MOST: Duration = Duration::from_secs(2);
/// Bytes of a watch that may be under way; all watches share twice as many.
const WINDOW: u32 = 1 << 20;
/// What was asked before another certificate came has this long to be answered.
const LEAVE: Duration = Duration::from_secs(60);

type Sender = SendRequest<Full<Bytes>>;

struct Link {
    sender: Sender,
    serial: u64,
    /// The certificate that the server saw.
    shown: Rc<Option<Own>>,
    /// Ends the connection with the link.
    driver: Driver,
}

impl Link {
    /// Ends it once all that is under way has its answers.
    fn leave(self) {
        let Link { sender, mut driver, .. } = self;
        drop(sender);
        tokio::task::spawn_local(async move {
            // One that takes too long is cut off.
            let _ = tokio::time::timeout(LEAVE, &mut driver.0).await;
        });
    }
}

struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub struct Connection {
    kubeconfig: Kubeconfig,
    link: RefCell<Option<Link>>,
    /// One at a time.
    dialing: tokio::sync::Mutex<Backoff>,
    made: Cell<u64>,
    /// The attempt that failed last: its number, why, and not before when there is another.
    failed: RefCell<Option<(u64, String, Instant)>>,
    attempts: Cell<u64>,
    /// Connections before this one are being left.
    current: watch::Sender<u64>,
}

impl Connection {
    pub fn new(kubeconfig: &Kubeconfig) -> Connection {
        Connection {
            kubeconfig: kubeconfig.clone(),
            link: RefCell::new(None),
            dialing: tokio::sync::Mutex::new(Backoff::new(RETRY, RETRY_AT_MOST)),
            made: Cell::new(0),
            failed: RefCell::default(),
            attempts: Cell::new(0),
            current: watch::Sender::new(0),
        }
    }

    /// The number of the first connection that is not being left.
    pub fn current(&self) -> watch::Receiver<u64> {
        self.current.subscribe()
    }

    /// This connection is no good any more, unless it was replaced meanwhile.
    pub fn broke(&self, serial: u64) {
        let mut link = self.link.borrow_mut();
        if link.as_ref().is_some_and(|l| l.serial == serial) {
            drop(link.take());
        }
    }

    fn there(&self) -> Option<(Sender, u64)> {
        let link = self.link.borrow();
        link.as_ref().filter(|l| !l.sender.is_closed()).map(|l| (l.sender.clone(), l.serial))
    }

    /// The connection, and its number.
    pub async fn link(&self, credentials: &Credentials) -> Result<(Sender, u64), ClientError> {
        if let Some(there) = self.there() {
            return Ok(there);
        }
        let before = self.attempts.get();
        let mut backoff = self.dialing.lock().await;
        if let Some(there) = self.there() {
            return Ok(there);
        }
        let failed = self.failed.borrow().clone();
        if let Some((attempt, why, not_before)) = failed {
            // It failed while we waited for our turn: for all who waited.
            if attempt > before {
                return Err(ClientError::Down { server: self.kubeconfig.server.url(), why });
            }
            tokio::time::sleep_until(not_before).await;
        }
        self.attempts.set(self.attempts.get() + 1);
        let made = async { self.dial(self.own(credentials).await?).await };
        let link = made.await.inspect_err(|error| {
            let not_before = Instant::now() + backoff.next(super::chance());
            *self.failed.borrow_mut() = Some((self.attempts.get(), error.to_string(), not_before));
        })?;
        backoff.reset();
        drop(self.failed.take());
        let there = (link.sender.clone(), link.serial);
        *self.link.borrow_mut() = Some(link);
        Ok(there)
    }

    /// Makes a new connection if the certificate is another than the server saw. New requests go there, those under way
    /// are answered on the old one, and watches end, to begin anew where they were. Whether there was one to be made.
    pub async fn follow(&self, credentials: &Credentials) -> Result<bool, ClientError> {
        let _one = self.dialing.lock().await;
        let shown = self.link.borrow().as_ref().map(|l| l.shown.clone());
        let own = self.own(credentials).await?;
        // The next connection shows it.
        if shown.is_none_or(|shown| *shown == own) {
            return Ok(false);
        }
        let link = self.dial(own).await?;
        let serial = link.serial;
        if let Some(old) = self.link.replace(Some(link)) {
            old.leave();
        }
        self.current.send_replace(serial);
        tracing::info!(server = %self.kubeconfig.server.url(), "there is another client certificate; all goes on with it");
        Ok(true)
    }

    async fn own(&self, credentials: &Credentials) -> Result<Option<Own>, ClientError> {
        if self.kubeconfig.server.tls { credentials.certificate().await } else { Ok(None) }
    }

    async fn dial(&self, own: Option<Own>) -> Result<Link, ClientError> {
        let (sender, driver) = self.open(own.clone()).await?;
        let serial = self.made.get() + 1;
        self.made.set(serial);
        Ok(Link { sender, serial, shown: Rc::new(own), driver })
    }

    async fn open(&self, own: Option<Own>) -> Result<(Sender, Driver), ClientError> {
        let server = &self.kubeconfig.server;
        let failed = |source| ClientError::Connect { server: server.url(), source };
        let late = |_| failed(io::Error::from(io::ErrorKind::TimedOut));
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect((server.host.as_str(), server.port))).await;
        let stream = stream.map_err(late)?.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        if !server.tls {
            return handshake(TokioIo::new(stream), server).await;
        }
        let config = trust::config(&self.kubeconfig, own)?;
        let name = self.kubeconfig.server_name.as_deref().unwrap_or(&server.host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|e| ClientError::Material { what: "name of the server", why: format!("{name:?}: {e}") })?;
        let stream = tokio::time::timeout(CONNECT, TlsConnector::from(config).connect(name, stream)).await;
        let stream = stream.map_err(late)?.map_err(failed)?;
        // One that chose nothing is taken for a server of HTTP/1.1.
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(ClientError::OldServer { server: server.url() });
        }
        handshake(TokioIo::new(stream), server).await
    }
}

async fn handshake<I>(io: I, server: &Server) -> Result<(Sender, Driver), ClientError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let made = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .handshake(io)
        .await;
    let (sender, connection) = made.map_err(|source| ClientError::Broken { server: server.url(), source })?;
    let driver = tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the API server ended");
        }
    });
    Ok((sender, Driver(driver)))
}

pub async fn send(mut link: Sender, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
    link.ready().await?;
    link.send_request(request).await
}

/// All of the client lives on one thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
