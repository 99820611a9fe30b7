//! Relaying datagrams.
//!
//! Owns the sessions of one listener: a client, and a socket of its own towards the endpoint that it was given. A
//! session lives as long as the connection tracker would keep it, and no longer than its endpoint. Tests: the
//! namespace tests.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use super::batch::Batch;
use super::relay::{Listener, Telling};

/// Clients of one listener at a time; datagrams of more are lost.
const MOST_SESSIONS: usize = 65_536;
const SWEEP: Duration = Duration::from_secs(1);

thread_local! {
    /// Used from one `await` to the next, and never across one.
    static BATCH: Rc<RefCell<Batch>> = Rc::new(RefCell::new(Batch::new()));
}

fn with_batch<T>(act: impl FnOnce(&mut Batch) -> T) -> T {
    BATCH.with(|batch| act(&mut batch.borrow_mut()))
}

struct Session {
    upstream: Arc<UdpSocket>,
    endpoint: SocketAddr,
    life: Arc<Life>,
    replies: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.replies.abort();
    }
}

/// What the two directions of a session know of each other.
#[derive(Debug, Default)]
struct Life {
    /// Milliseconds since the start at which a datagram last passed.
    last: AtomicU64,
    answered: AtomicBool,
    /// The endpoint refused.
    dead: AtomicBool,
}

impl Life {
    fn touch(&self, rules: &Listener) {
        let now = u64::try_from(rules.now().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn is_over(&self, rules: &Listener) -> bool {
        let idle = rules.now().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)));
        let limit = if self.answered.load(Ordering::Relaxed) { rules.times.stream } else { rules.times.unanswered };
        self.dead.load(Ordering::Relaxed) || idle > limit
    }
}

/// Relays until the task is aborted.
pub async fn serve(socket: Telling<UdpSocket>, rules: Arc<Listener>) {
    let socket = Arc::new(socket);
    let mut sessions: HashMap<SocketAddr, Session> = HashMap::new();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            ready = socket.readable() => {
                if ready.is_ok() {
                    forward(&socket, &rules, &mut sessions);
                }
            }
            () = rules.changed.notified() => sessions.retain(|_, session| rules.serves(session.endpoint)),
            _ = sweep.tick() => sessions.retain(|_, session| !session.life.is_over(&rules)),
        }
    }
}

/// Passes on what clients sent, those of one client together.
fn forward(socket: &Arc<Telling<UdpSocket>>, rules: &Arc<Listener>, sessions: &mut HashMap<SocketAddr, Session>) {
    with_batch(|batch| {
        // Nothing there, or the refusal of an answer to some client: neither concerns the others.
        let Ok(count) = socket.try_io(Interest::READABLE, || batch.receive(&***socket)) else { return };
        let sources: Vec<Option<SocketAddr>> = batch.sources().collect();
        let mut start = 0;
        while start < count {
            let run = sources[start..].iter().take_while(|source| **source == sources[start]).count();
            if let Some(client) = sources[start] {
                forward_run(batch, start..start + run, client, socket, rules, sessions);
            }
            start += run;
        }
    });
}

fn forward_run(
    batch: &Batch,
    run: std::ops::Range<usize>,
    client: SocketAddr,
    socket: &Arc<Telling<UdpSocket>>,
    rules: &Arc<Listener>,
    sessions: &mut HashMap<SocketAddr, Session>,
) {
    if sessions.get(&client).is_some_and(|session| session.life.is_over(rules)) {
        sessions.remove(&client);
    }
    if !sessions.contains_key(&client) {
        if sessions.len() >= MOST_SESSIONS {
            return;
        }
        let Some(session) = open(client, socket, rules) else { return };
        sessions.insert(client, session);
    }
    let Some(session) = sessions.get(&client) else { return };
    session.life.touch(rules);
    match batch.send(run.clone(), session.upstream.as_raw_fd(), None) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            // It was told of an earlier datagram: this one goes to the next endpoint.
            rules.failed(client.ip());
            sessions.remove(&client);
            if let Some(session) = open(client, socket, rules) {
                let _ = batch.send(run, session.upstream.as_raw_fd(), None);
                sessions.insert(client, session);
            }
        }
        // A full queue, an unreachable network: datagrams may be lost.
        _ => {}
    }
}

/// A session with the first endpoint that can be reached at all.
fn open(client: SocketAddr, socket: &Arc<Telling<UdpSocket>>, rules: &Arc<Listener>) -> Option<Session> {
    let from = client.ip().to_canonical();
    for endpoint in rules.candidates(from) {
        let Ok(upstream) = connect(endpoint) else {
            rules.failed(from);
            continue;
        };
        rules.reached(from, endpoint);
        let (upstream, life) = (Arc::new(upstream), Arc::new(Life::default()));
        life.touch(rules);
        let task = replies(upstream.clone(), socket.clone(), client, rules.clone(), life.clone());
        let replies = tokio::spawn(task).abort_handle();
        return Some(Session { upstream, endpoint, life, replies });
    }
    None
}

fn connect(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if endpoint.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(endpoint)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Passes answers back to the client, from the address that it asked.
async fn replies(upstream: Arc<UdpSocket>, socket: Arc<Telling<UdpSocket>>, client: SocketAddr, rules: Arc<Listener>, life: Arc<Life>) {
    while upstream.readable().await.is_ok() {
        let received = with_batch(|batch| {
            let count = upstream.try_io(Interest::READABLE, || batch.receive(&*upstream))?;
            // What the client's queue does not take is lost.
            let _ = batch.send(0..count, socket.as_raw_fd(), Some(client));
            io::Result::Ok(count)
        });
        match received {
            Ok(_) => {
                life.answered.store(true, Ordering::Relaxed);
                life.touch(&rules);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => {
                // Refused: the next datagram opens another session, with the next endpoint.
                rules.failed(client.ip().to_canonical());
                life.dead.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
}
