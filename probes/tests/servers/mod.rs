//! Small servers for checks to meet, in the process of the test.
#![allow(dead_code, clippy::unwrap_used)]

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper_util::rt::{TokioExecutor, TokioIo};
use longshore_probes::{HttpCheck, Outcome, check};
use rustls::pki_types::PrivateKeyDer;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub const LONG: Duration = Duration::from_secs(5);

/// The requests that a server got, as they came.
pub type Heard = Arc<Mutex<Vec<String>>>;

/// How a scripted connection ends after its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Close,
    Reset,
    /// Stays open and silent.
    Hang,
}

pub async fn listener(address: &str) -> (TcpListener, SocketAddr) {
    let l = TcpListener::bind(address).await.unwrap();
    let a = l.local_addr().unwrap();
    (l, a)
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    listener("127.0.0.1:0").await.1
}

/// Reads one request's head per connection and answers with whatever the script makes of it.
pub async fn scripted(script: impl Fn(&str) -> (Vec<u8>, End) + Send + Sync + 'static) -> (SocketAddr, Heard) {
    scripted_on("127.0.0.1:0", script).await
}

pub async fn scripted_on(on: &str, script: impl Fn(&str) -> (Vec<u8>, End) + Send + Sync + 'static) -> (SocketAddr, Heard) {
    let (listener, address) = listener(on).await;
    let heard = Heard::default();
    let (notes, script) = (heard.clone(), Arc::new(script));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(one(stream, notes.clone(), script.clone()));
        }
    });
    (address, heard)
}

async fn one(mut stream: TcpStream, heard: Heard, script: Arc<impl Fn(&str) -> (Vec<u8>, End)>) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(n @ 1..) => head.extend_from_slice(&buffer[..n]),
            _ => return,
        }
        // Not every client sends text.
        if head.first().is_some_and(|b| !b.is_ascii_alphabetic()) {
            break;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    heard.lock().unwrap().push(head.clone());
    let (answer, end) = script(&head);
    let _ = stream.write_all(&answer).await;
    match end {
        End::Close => {}
        End::Reset => stream.set_zero_linger().unwrap(),
        End::Hang => std::future::pending().await,
    }
}

/// An answer with a body and its length.
pub fn answer(status: &str, headers: &str, body: &str) -> (Vec<u8>, End) {
    (format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes(), End::Close)
}

/// Serves HTTP over TLS with a certificate that nobody would trust, in the protocols of `alpn`; the body
/// tells protocol, authority or Host, and User-Agent.
pub async fn secure(alpn: &[&str]) -> SocketAddr {
    let made = rcgen::generate_simple_self_signed(["somebody.else".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listener("127.0.0.1:0").await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(|r: hyper::Request<hyper::body::Incoming>| async move {
                    let header = |n: &str| r.headers().get(n).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
                    let host = r.uri().authority().map(ToString::to_string).unwrap_or_else(|| header("host"));
                    let text = format!("{:?} {} {host} {}", r.version(), r.uri().path(), header("user-agent"));
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
                });
                let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

pub fn http(at: SocketAddr, path: &str) -> HttpCheck {
    HttpCheck { https: false, host: at.ip().to_string(), port: at.port(), path: path.into(), headers: Vec::new() }
}

pub fn https(at: SocketAddr, path: &str) -> HttpCheck {
    HttpCheck { https: true, ..http(at, path) }
}

pub async fn ask(check: &HttpCheck) -> Outcome {
    check::run(&longshore_probes::Check::Http(check.clone()), LONG).await
}
