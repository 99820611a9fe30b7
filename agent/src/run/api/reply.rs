//! Responses: bodies, and the few shapes that they have.

use crate::api::Failure;
use ::bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{Response, StatusCode, header};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

pub type Answer = Result<Response<Reply>, Failure>;

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

pub fn json(value: &serde_json::Value) -> Response<Reply> {
    bytes(serde_json::to_vec(value).expect("plain data serialises"))
}

/// JSON that is written already.
pub fn bytes(text: impl Into<Bytes>) -> Response<Reply> {
    with_status(StatusCode::OK, "application/json", text)
}

pub fn with_status(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Reply> {
    let mut r = Response::new(Reply::whole(text));
    *r.status_mut() = status;
    r.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    r
}

/// A response whose end is not known yet.
pub fn stream(kind: &'static str, from: mpsc::Receiver<Bytes>) -> Response<Reply> {
    let mut r = Response::new(Reply::Stream(from));
    r.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    r
}

pub fn failure(f: &Failure) -> Response<Reply> {
    let status = StatusCode::from_u16(f.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut r = with_status(status, "application/json", f.body());
    if let Some(seconds) = f.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        r.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if status == StatusCode::UNAUTHORIZED {
        r.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    r
}
