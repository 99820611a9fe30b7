//! Streams of checks: one type for plain and for secure ones, so that the protocols are compiled once, and
//! a wrapper that remembers what a bad answer looked like. Tests: `tests/http.rs`, `tests/grpc.rs`.

use super::dial::reason;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

pub(super) enum Stream {
    Plain(TcpStream),
    Secure(Box<TlsStream<Noting<TcpStream>>>),
}

impl Stream {
    fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let tcp = match self {
            Stream::Plain(s) => s,
            Stream::Secure(s) => &s.get_ref().0.inner,
        };
        ends(tcp)
    }
}

fn ends(s: &TcpStream) -> Option<(SocketAddr, SocketAddr)> {
    s.local_addr().ok().zip(s.peer_addr().ok())
}

/// Bytes of an answer that are kept, for telling what kind of server gave it.
const FIRST: usize = 64;

/// A stream that remembers how what it read began.
pub(super) struct Noting<S> {
    inner: S,
    first: [u8; FIRST],
    length: usize,
    http2: Option<Arc<AtomicBool>>,
}

impl<S> Noting<S> {
    pub fn new(inner: S) -> Noting<S> {
        Noting { inner, first: [0; FIRST], length: 0, http2: None }
    }

    /// Sets `http2` when the other end has begun to speak that.
    pub fn telling(inner: S, http2: Arc<AtomicBool>) -> Noting<S> {
        Noting { http2: Some(http2), ..Noting::new(inner) }
    }

    pub fn first(&self) -> &[u8] {
        &self.first[..self.length]
    }

    fn note(&mut self, read: &[u8]) {
        let n = read.len().min(FIRST - self.length);
        self.first[self.length..self.length + n].copy_from_slice(&read[..n]);
        self.length += n;
        // A server's first frame has settings (4) for the whole connection (stream 0).
        if let ([_, _, _, 4, _, 0, 0, 0, 0, ..], Some(told)) = (self.first(), &self.http2) {
            told.store(true, Ordering::Relaxed);
        }
    }
}

impl Noting<TcpStream> {
    /// A failed read or write, as Go tells it.
    pub fn broken(&self, e: &io::Error) -> String {
        broken(ends(&self.inner), e)
    }
}

impl Noting<Stream> {
    pub fn broken(&self, e: &io::Error) -> String {
        broken(self.inner.ends(), e)
    }
}

fn broken(ends: Option<(SocketAddr, SocketAddr)>, e: &io::Error) -> String {
    match (e.kind(), ends) {
        (io::ErrorKind::UnexpectedEof, _) => "EOF".to_owned(),
        (io::ErrorKind::BrokenPipe, Some((own, peer))) => format!("write tcp {own}->{peer}: write: {}", reason(e)),
        (_, Some((own, peer))) => format!("read tcp {own}->{peer}: read: {}", reason(e)),
        // The kernel forgets the peer of a connection that was reset.
        (_, None) => format!("read: {}", reason(e)),
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noting<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if self.length < FIRST {
            self.note(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Secure(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Stream::Secure(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_flush(cx),
            Stream::Secure(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Stream::Secure(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
