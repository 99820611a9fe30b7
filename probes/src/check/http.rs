//! httpGet.

use crate::{HttpCheck, Outcome};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

/// On whose behalf a request goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    Probe,
    Lifecycle,
}

pub(super) async fn probe(check: &HttpCheck, timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, get(check, Agent::Probe)).await {
        Ok(Ok((status, body))) if (200..400).contains(&status) => Outcome::Success(body),
        Ok(Ok((status, _))) => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
        Ok(Err(e)) => Outcome::Failure(e),
        Err(_) => {
            Outcome::Failure(format!("Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)", check.path))
        }
    }
}

/// A hook's request: any answer is success.
pub async fn request(check: &HttpCheck, agent: Agent) -> Result<(), String> {
    get(check, agent).await.map(drop)
}

async fn get(check: &HttpCheck, agent: Agent) -> Result<(u16, String), String> {
    let stream =
        TcpStream::connect((check.host.as_str(), check.port)).await.map_err(|e| format!("dial tcp {}:{}: {e}", check.host, check.port))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let name = match agent {
        Agent::Probe => "kube-probe/1.36",
        Agent::Lifecycle => "kube-lifecycle/1.36",
    };
    let mut request = hyper::Request::get(check.path.as_str()).header("Host", format!("{}:{}", check.host, check.port));
    request = request.header("User-Agent", name).header("Accept", "*/*").header("Connection", "close");
    for (k, v) in &check.headers {
        request = request.header(k.as_str(), v.as_str());
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let answer = sender.send_request(request).await.map_err(|e| e.to_string());
    let out = match answer {
        Ok(a) => {
            let status = a.status().as_u16();
            let body = a.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            Ok((status, String::from_utf8_lossy(&body[..body.len().min(10_240)]).into_owned()))
        }
        Err(e) => Err(e),
    };
    driver.abort();
    out
}
