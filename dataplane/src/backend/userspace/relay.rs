//! The thread on which everything is relayed, and what the relays share with the plane.
//!
//! Owns a runtime of its own: a slow pass of the data plane holds up no datagram. Tests: the namespace tests.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, SockaddrStorage, connect, shutdown};
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use super::balance::Balancer;
use super::compile::{Around, Rule};

/// The relay's thread never waits for anything but readiness, so it closes a socket as soon as it has a processor.
const CLOSING: Duration = Duration::from_secs(2);

/// Time-outs, as the connection tracker has them.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Of one attempt to connect to an endpoint.
    pub connect: Duration,
    /// A UDP session that was never answered ends after this,
    pub unanswered: Duration,
    /// and one that was, after this.
    pub stream: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Times { connect: Duration::from_secs(2), unanswered: Duration::from_secs(30), stream: Duration::from_secs(120) }
    }
}

/// What is decided about one listener's clients; it changes while clients come.
#[derive(Debug)]
pub struct Listener {
    state: Mutex<(Arc<Rule>, Arc<Around>)>,
    balancer: Arc<Mutex<Balancer>>,
    pub changed: Notify,
    pub times: Times,
    began: Instant,
}

impl Listener {
    pub fn new(rule: Arc<Rule>, around: Arc<Around>, balancer: Arc<Mutex<Balancer>>, times: Times, began: Instant) -> Listener {
        Listener { state: Mutex::new((rule, around)), balancer, changed: Notify::new(), times, began }
    }

    pub fn set(&self, rule: Arc<Rule>, around: Arc<Around>) {
        // Nothing is done in two steps under these locks, so a panic elsewhere leaves them whole.
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = (rule, around);
        self.changed.notify_one();
    }

    fn state(&self) -> (Arc<Rule>, Arc<Around>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Since the start.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The endpoints to try for a client, in order; none, when it is to be refused.
    pub fn candidates(&self, client: IpAddr) -> Vec<SocketAddr> {
        let (rule, around) = self.state();
        let endpoints = rule.endpoints(client, &around);
        self.balancer().order(client, &endpoints, rule.affinity, self.now())
    }

    pub fn reached(&self, client: IpAddr, endpoint: SocketAddr) {
        let affinity = self.state().0.affinity;
        self.balancer().reached(client, endpoint, affinity, self.now());
    }

    pub fn failed(&self, client: IpAddr) {
        self.balancer().failed(client);
    }

    pub fn serves(&self, endpoint: SocketAddr) -> bool {
        self.state().0.serves(endpoint)
    }

    fn balancer(&self) -> std::sync::MutexGuard<'_, Balancer> {
        self.balancer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that can be taken from its address at once, whoever else holds its descriptor: a command that is being
/// started has copies of all of ours until it is executed, and closing ours leaves the socket to them.
pub trait Silence {
    fn silence(&self) -> io::Result<()>;
}

impl Silence for TcpListener {
    /// Listens no longer.
    fn silence(&self) -> io::Result<()> {
        Ok(shutdown(self.as_raw_fd(), Shutdown::Both)?)
    }
}

impl Silence for UdpSocket {
    /// Hears nobody but itself.
    fn silence(&self) -> io::Result<()> {
        Ok(connect(self.as_raw_fd(), &SockaddrStorage::from(self.local_addr()?))?)
    }
}

/// A socket that tells when it is closed.
#[derive(Debug)]
pub struct Telling<S: Silence> {
    socket: S,
    /// Gone after the socket: fields are dropped in this order.
    _closed: Sender<Infallible>,
}

impl<S: Silence> Drop for Telling<S> {
    fn drop(&mut self) {
        if let Err(error) = self.socket.silence() {
            tracing::debug!(%error, "a socket may hear clients until every copy of it is closed");
        }
    }
}

impl<S: Silence> Deref for Telling<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.socket
    }
}

/// A socket that clients are served on.
#[derive(Debug)]
pub struct Open {
    pub rules: Arc<Listener>,
    task: AbortHandle,
    closed: Receiver<Infallible>,
}

/// Closes sockets, and returns when they are closed. Until the relay's thread lets go of one, the kernel takes in what
/// clients send to it, and nobody would ever answer.
pub fn close(leaving: Vec<Open>) {
    leaving.iter().for_each(|open| open.task.abort());
    let deadline = Instant::now() + CLOSING;
    for open in leaving {
        let left = deadline.saturating_duration_since(Instant::now());
        // Nothing is ever sent: it is over when the sender is gone.
        if let Err(mpsc::RecvTimeoutError::Timeout) = open.closed.recv_timeout(left) {
            tracing::warn!("a socket is still open after {CLOSING:?}: its clients may be left without an answer");
        }
    }
}

/// The thread; what is relayed on it ends when this is dropped.
pub struct Relay {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// In the calling thread's network namespace.
    pub fn start(name: &str) -> io::Result<Relay> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            // A dropped sender ends it as well.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Relay { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Opens a socket and serves clients on it.
    pub fn serve<S: Silence + Send + 'static, F: Future<Output = ()> + Send + 'static>(
        &self,
        rules: Arc<Listener>,
        open: impl FnOnce() -> io::Result<S>,
        serve: impl FnOnce(Telling<S>, Arc<Listener>) -> F,
    ) -> io::Result<Open> {
        let _within = self.handle.enter();
        let (sender, closed) = mpsc::channel();
        let socket = Telling { socket: open()?, _closed: sender };
        let task = self.handle.spawn(serve(socket, rules.clone())).abort_handle();
        Ok(Open { rules, task, closed })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that relays panicked");
        }
    }
}
