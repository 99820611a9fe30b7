//! Writes of one moment, sent in one call.
//!
//! HTTP/2 hands over a request's headers, its body and the body's end one by one, and each would be a call to the
//! kernel here and a wake-up over there. Owns the bytes between such a write and the call. Must never hold them for
//! longer than the tasks that are ready take for one turn. Tests are at the end of this file.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may wait; more are sent before anything is added.
const MOST: usize = 64 * 1024;

#[derive(Debug)]
pub struct Gather<T> {
    inner: T,
    waiting: Vec<u8>,
    /// Others had their turn to add to what waits.
    yielded: bool,
}

impl<T> Gather<T> {
    pub fn new(inner: T) -> Self {
        Gather { inner, waiting: Vec::new(), yielded: false }
    }
}

impl<T: AsyncWrite + Unpin> Gather<T> {
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sent = 0;
        let outcome = loop {
            let rest = &self.waiting[sent..];
            if rest.is_empty() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.inner).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => sent += n,
                Poll::Ready(Err(e)) => break Poll::Ready(Err(e)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.waiting.drain(..sent);
        outcome
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.waiting.len() >= MOST {
            ready!(this.send(cx))?;
        }
        let before = this.waiting.len();
        parts.iter().for_each(|part| this.waiting.extend_from_slice(part));
        Poll::Ready(Ok(this.waiting.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.waiting.is_empty() && !this.yielded {
            this.yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(this.send(cx))?;
        this.yielded = false;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.send(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gather<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Waker;
    use tokio::io::AsyncWriteExt as _;

    /// Takes so many bytes at a time, and remembers each call.
    struct Calls(usize, Vec<Vec<u8>>);

    impl AsyncWrite for Calls {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let taken = &bytes[..bytes.len().min(self.0)];
            self.1.push(taken.to_vec());
            Poll::Ready(Ok(taken.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_is_written_before_the_next_turn_goes_out_in_one_call() {
        let mut gather = Gather::new(Calls(usize::MAX, Vec::new()));
        let mut cx = Context::from_waker(Waker::noop());
        let mut write = |gather: &mut Gather<Calls>, text: &str| {
            assert!(matches!(Pin::new(&mut *gather).poll_write(&mut cx, text.as_bytes()), Poll::Ready(Ok(n)) if n == text.len()));
            Pin::new(gather).poll_flush(&mut cx).is_ready()
        };
        assert!(!write(&mut gather, "headers "));
        assert!(gather.inner.1.is_empty());
        assert!(write(&mut gather, "body"));
        assert_eq!(gather.inner.1, [b"headers body"]);
        assert!(!write(&mut gather, "next"), "the next moment is a moment of its own");
    }

    #[tokio::test]
    async fn everything_comes_through_in_order_whatever_the_socket_takes() {
        let mut gather = Gather::new(Calls(1000, Vec::new()));
        let text: Vec<u8> = (0..3 * MOST).map(|n| (n % 251) as u8).collect();
        for part in text.chunks(777) {
            gather.write_all(part).await.unwrap();
        }
        gather.flush().await.unwrap();
        assert_eq!(gather.inner.1.concat(), text);
        gather.write_all(b"last words").await.unwrap();
        poll_fn(|cx| Pin::new(&mut gather).poll_shutdown(cx)).await.unwrap();
        assert!(gather.inner.1.concat().ends_with(b"last words"));
    }
}
