//! Calls a plugin on its socket.

use super::Local;
use crate::grpc::frame::{self, Code, LARGEST, Status};
use crate::grpc::messages::Message;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    #[error("connect to {}: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("{method}: {source}")]
    Broken { method: &'static str, source: hyper::Error },
    #[error("{what} did not come within {} s", within.as_secs())]
    Late { what: String, within: Duration },
    #[error("{method}: code {}: {}", status.code as u8, status.message)]
    Refused { method: &'static str, status: Status },
}

/// A connection to one plugin.
pub struct Channel {
    sender: SendRequest<Full<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Channel {
    pub async fn dial(path: &Path, within: Duration) -> Result<Channel, GrpcError> {
        let late = |_| GrpcError::Late { what: format!("a connection to {}", path.display()), within };
        let failed = |source| GrpcError::Connect { path: path.to_owned(), source };
        let made = async {
            let stream = UnixStream::connect(path).await.map_err(failed)?;
            http2::handshake(Local, TokioIo::new(stream)).await.map_err(|source| GrpcError::Broken { method: "handshake", source })
        };
        let (sender, connection) = timeout(within, made).await.map_err(late)??;
        let driver = tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to a plugin ended");
            }
        });
        Ok(Channel { sender, driver })
    }

    /// Calls, and reads the one answer.
    pub async fn call<Q: Message, A: Message + Default>(
        &mut self,
        method: &'static str,
        question: &Q,
        within: Duration,
    ) -> Result<A, GrpcError> {
        let late = |_| GrpcError::Late { what: method.to_owned(), within };
        let one = async {
            let mut messages = self.open(method, question).await?;
            match messages.next().await? {
                Some(answer) => Ok(answer),
                None => Err(GrpcError::Refused { method, status: Status::new(Code::Internal, "there was no answer") }),
            }
        };
        timeout(within, one).await.map_err(late)?
    }

    /// Calls; answers come as they come.
    pub async fn open<Q: Message>(&mut self, method: &'static str, question: &Q) -> Result<Messages, GrpcError> {
        let broken = |source| GrpcError::Broken { method, source };
        let mut request = Request::new(Full::from(frame::write(question)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("http://localhost{method}").parse().expect("methods are plain paths");
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        self.sender.ready().await.map_err(broken)?;
        let response = self.sender.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            let status = Status::new(Code::Unknown, format!("HTTP {}", head.status));
            return Err(GrpcError::Refused { method, status });
        }
        check(method, &head.headers)?;
        Ok(Messages { method, body, read: Vec::new() })
    }
}

/// What the plugin says of how it went.
fn check(method: &'static str, headers: &HeaderMap) -> Result<(), GrpcError> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let code = match text("grpc-status") {
        None | Some("0") => return Ok(()),
        Some("3") => Code::InvalidArgument,
        Some("5") => Code::NotFound,
        Some("8") => Code::ResourceExhausted,
        Some("12") => Code::Unimplemented,
        Some("13") => Code::Internal,
        Some("14") => Code::Unavailable,
        Some(_) => Code::Unknown,
    };
    let message = Status::unescape(text("grpc-message").unwrap_or_default());
    Err(GrpcError::Refused { method, status: Status { code, message } })
}

/// Answers of one call.
pub struct Messages {
    method: &'static str,
    body: Incoming,
    read: Vec<u8>,
}

impl Messages {
    /// None: there are no more.
    pub async fn next<A: Message + Default>(&mut self) -> Result<Option<A>, GrpcError> {
        let method = self.method;
        loop {
            if let Some(message) = frame::take(&mut self.read) {
                return message.map(Some).map_err(|status| GrpcError::Refused { method, status });
            }
            let Some(part) = self.body.frame().await else { return Ok(None) };
            let part = part.map_err(|source| GrpcError::Broken { method, source })?;
            match part.into_data() {
                Ok(data) if self.read.len() + data.len() > LARGEST + 5 => {
                    let status = Status::new(Code::ResourceExhausted, "the answer is too large");
                    return Err(GrpcError::Refused { method, status });
                }
                Ok(data) => self.read.extend_from_slice(&data),
                Err(part) => {
                    if let Ok(trailers) = part.into_trailers() {
                        check(method, &trailers)?;
                    }
                }
            }
        }
    }
}
