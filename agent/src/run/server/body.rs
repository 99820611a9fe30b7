//! Bodies of responses.

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

pub enum Reply {
    Whole(Option<Bytes>),
    /// Ends when the sender goes.
    Stream(mpsc::Receiver<Bytes>),
    /// Another server's body, passed on; a break in it ends it.
    Relayed(Incoming),
}

impl Reply {
    pub fn whole(bytes: impl Into<Bytes>) -> Reply {
        Reply::Whole(Some(bytes.into()))
    }

    pub fn empty() -> Reply {
        Reply::Whole(None)
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Reply::Whole(b) => Poll::Ready(b.take().map(|b| Ok(Frame::data(b)))),
            Reply::Stream(r) => r.poll_recv(cx).map(|b| b.map(|b| Ok(Frame::data(b)))),
            Reply::Relayed(i) => Pin::new(i).poll_frame(cx).map(|f| f.and_then(Result::ok).map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Reply::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Whole(b) => SizeHint::with_exact(b.as_ref().map_or(0, |b| b.len() as u64)),
            Reply::Stream(_) => SizeHint::default(),
            Reply::Relayed(i) => i.size_hint(),
        }
    }
}
