//! Answers calls on a socket. Clients that name the socket as their authority are understood (`grpc::authority`).

use super::Local;
use crate::grpc::authority::Rewriter;
use crate::grpc::frame::{self, Code, LARGEST, Status};
use crate::grpc::messages::Message;
use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

const GRPC: &str = "application/grpc";
/// Connections at once: more than a node has plugins and monitors.
const CONNECTIONS: usize = 128;
/// For the request's message.
const SENDING: Duration = Duration::from_secs(30);
/// A peer that is gone is noticed.
const PING_EVERY: Duration = Duration::from_secs(60);

/// A message on its way out, framed.
pub type Answer = Result<Vec<u8>, Status>;

/// Who answers at a socket.
pub trait Service {
    /// `message` is framed, as `frame::take` reads it.
    fn call(self: Rc<Self>, path: String, message: Vec<u8>) -> LocalBoxFuture<'static, Answer>;
}

/// The message of a request.
pub fn request<M: Message + Default>(mut message: Vec<u8>) -> Result<M, Status> {
    frame::take(&mut message).unwrap_or_else(|| Err(Status::new(Code::Internal, "the request has no message")))
}

pub fn reply<M: Message>(message: &M) -> Answer {
    Ok(frame::write(message))
}

/// Serves until the listener fails.
pub async fn serve(listener: UnixListener, service: Rc<dyn Service>) {
    let room = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = service.clone();
                tokio::task::spawn_local(async move {
                    connection(stream, service).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection of a plugin could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, service: Rc<dyn Service>) {
    let handler = service_fn(move |request| answer(service.clone(), request));
    let made = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .max_concurrent_streams(100)
        .serve_connection(TokioIo::new(Lenient::new(stream)), handler);
    if let Err(error) = made.await {
        tracing::debug!(%error, "a connection of a plugin ended");
    }
}

async fn answer(service: Rc<dyn Service>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(match called(service, request).await {
        Ok(message) => {
            let trailers = std::future::ready(Some(Ok(status(0, ""))));
            response(Full::from(message).with_trailers(trailers).boxed_unsync())
        }
        Err(s) => {
            let mut r = response(Full::default().boxed_unsync());
            r.headers_mut().extend(status(s.code as u8, &s.escaped()));
            r
        }
    })
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

fn response(body: Body) -> Response<Body> {
    let mut r = Response::new(body);
    r.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    r
}

fn status(code: u8, message: &str) -> HeaderMap {
    let mut out = HeaderMap::new();
    out.insert("grpc-status", HeaderValue::from(u16::from(code)));
    if let Ok(text) = HeaderValue::from_str(message)
        && !message.is_empty()
    {
        out.insert("grpc-message", text);
    }
    out
}

async fn called(service: Rc<dyn Service>, request: Request<Incoming>) -> Answer {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if request.method() != Method::POST || !kind.starts_with(GRPC) {
        return Err(Status::new(Code::Unimplemented, format!("{} {} is no call", request.method(), request.uri().path())));
    }
    let path = request.uri().path().to_owned();
    let body = tokio::time::timeout(SENDING, Limited::new(request.into_body(), LARGEST + 5).collect()).await;
    let body = body.map_err(|_| Status::new(Code::Unavailable, "the request did not come in time"))?;
    let body = body.map_err(|e| Status::new(Code::ResourceExhausted, format!("the request: {e}")))?;
    service.call(path, body.to_bytes().to_vec()).await
}

/// A stream whose reader sees other authorities than its peer wrote.
struct Lenient {
    inner: UnixStream,
    rewriter: Rewriter,
    /// Rewritten and not yet read.
    ready: BytesMut,
}

impl Lenient {
    fn new(inner: UnixStream) -> Lenient {
        Lenient { inner, rewriter: Rewriter::default(), ready: BytesMut::new() }
    }
}

impl AsyncRead for Lenient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        while me.ready.is_empty() {
            let mut chunk = [0; 4096];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut me.inner).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            me.rewriter.pass(read.filled(), &mut me.ready);
        }
        let n = me.ready.len().min(buffer.remaining());
        buffer.put_slice(&me.ready.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lenient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A call that is none of ours.
pub fn unknown(path: &str) -> Status {
    Status::new(Code::Unimplemented, format!("unknown method {path}"))
}
