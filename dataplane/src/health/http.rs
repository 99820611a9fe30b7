//! The smallest HTTP server that will do: one answer per request, no bodies read.
//!
//! Owns listeners and connections. What is answered is the caller's. Tests: the namespace tests.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A client that sends nothing for so long is hung up on.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections of one listener at once.
const MOST: usize = 256;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Answer {
    pub fn text(body: impl Into<String>) -> Answer {
        Answer { status: 200, content_type: "text/plain; charset=utf-8", headers: Vec::new(), body: body.into() }
    }

    pub fn json(status: u16, body: String) -> Answer {
        Answer { status, content_type: "application/json", headers: Vec::new(), body }
    }

    pub fn not_found() -> Answer {
        Answer { status: 404, ..Answer::text("404 page not found\n") }
    }
}

/// A listener with its tasks; dropping it closes the port.
#[derive(Debug)]
pub struct Server(JoinHandle<()>);

impl Server {
    /// A task that ends with this value.
    pub fn task(work: impl Future<Output = ()> + 'static) -> Server {
        Server(tokio::task::spawn_local(work))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Listens at an address of the calling thread's network namespace. An IPv6 address is for IPv6 alone when `v6_only`.
pub fn bind_at(address: SocketAddr, v6_only: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &v6_only)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::new(128)?)?;
    TcpListener::from_std(std::net::TcpListener::from(socket))
}

/// The address that stands for all of a family.
pub fn any(v4: bool) -> IpAddr {
    if v4 { IpAddr::from([0u8; 4]) } else { IpAddr::from([0u8; 16]) }
}

/// Serves in tasks of the calling thread; `answer` gets the path of each request.
pub fn serve<F, A>(listener: TcpListener, answer: F) -> Server
where
    F: Fn(String) -> A + 'static,
    A: Future<Output = Answer> + 'static,
{
    let answer = Rc::new(answer);
    Server(tokio::task::spawn_local(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            if connections.len() >= MOST {
                connections.join_next().await;
            }
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, say: others will be closed.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let answer = answer.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer.clone();
                async move { Ok::<_, Infallible>(response(answer(request.uri().path().to_string()).await)) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            connections.spawn_local(async move {
                // Whoever asked may have gone.
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }))
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut builder = Response::builder().status(status).header(header::CONTENT_TYPE, answer.content_type);
    builder = builder.header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    for (name, value) in answer.headers {
        builder = builder.header(name, value);
    }
    builder.body(Full::new(Bytes::from(answer.body))).expect("our headers are well formed")
}
