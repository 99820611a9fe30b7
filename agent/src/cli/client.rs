//! Talks to the daemon over its socket.

use crate::api::{Failure, Query};
use crate::typed;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use std::io;
use std::path::PathBuf;
use tokio::net::UnixStream;

/// Where to find the daemon.
#[derive(Clone, Debug, clap::Args)]
pub struct Socket {
    /// Socket of the daemon
    #[arg(long, env = "LONGSHORE_SOCKET", default_value = "/run/longshore/longshore.sock", value_name = "PATH")]
    pub socket: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no daemon answers on {}: {source}\nIs it running? Try: systemctl start longshore (or name its socket with --socket)", socket.display())]
    NotRunning { socket: PathBuf, source: io::Error },
    #[error("{} may only be used by root: {source}", socket.display())]
    Denied { socket: PathBuf, source: io::Error },
    #[error("connect to {}: {source}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("the daemon broke off: {0}")]
    Broken(#[from] hyper::Error),
    #[error("{}{}", if .0.reason.is_empty() { String::from("error: ") } else { format!("error from daemon ({}): ", .0.reason) }, .0.message)]
    Refused(Failure),
    #[error("the daemon's answer cannot be read: {0}")]
    Unreadable(#[from] typed::Wrong),
    #[error("{0}")]
    Stream(String),
}

pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(socket: &Socket) -> Client {
        Client { socket: socket.socket.clone() }
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let socket = || self.socket.clone();
        UnixStream::connect(&self.socket).await.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning { socket: socket(), source },
            io::ErrorKind::PermissionDenied => ClientError::Denied { socket: socket(), source },
            _ => ClientError::Connect { socket: socket(), source },
        })
    }

    /// Sends a request with `headers`; any answer is fine.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        headers: &[(&'static str, String)],
    ) -> Result<Response<Incoming>, ClientError> {
        let io = hyper_util::rt::TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        // Ends with the connection, or with us.
        tokio::spawn(async move { connection.with_upgrades().await });
        let mut request = Request::builder().method(method).uri(format!("{path}{}", query.suffix())).header("host", "longshore");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| ClientError::Stream(format!("request for {path}: {e}")))?;
        Ok(sender.send_request(request).await?)
    }

    /// An answer whose body is still to be read. Errors of the daemon are errors.
    pub async fn open(&self, path: &str, query: &Query) -> Result<Response<Incoming>, ClientError> {
        let response = self.send(Method::GET, path, query, &[]).await?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
    }

    pub async fn get(&self, path: &str) -> Result<Bytes, ClientError> {
        let response = self.open(path, &Query::default()).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    }

    pub async fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        Ok(typed::read_text(&self.get(path).await?)?)
    }
}

/// The error in an answer.
pub async fn refused(response: Response<Incoming>) -> ClientError {
    let code = response.status();
    let body = match response.into_body().collect().await {
        Ok(b) => b.to_bytes(),
        Err(e) => return e.into(),
    };
    let failure = typed::read_text::<Failure>(&body);
    let plain = || Failure::new(code.as_u16(), "", String::from_utf8_lossy(&body).trim());
    ClientError::Refused(failure.unwrap_or_else(|_| plain()))
}
