//! grpc: asks the standard health service. Tests: `tests/grpc.rs`.

use super::stream::{Noting, Stream};
use super::url::join;
use super::{dial, drive};
use crate::Outcome;
use crate::check::http::Agent;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::header::{HeaderValue, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::BoxError;

/// The messages and the client of `proto/health.proto`, generated.
mod v1 {
    #![allow(clippy::all, clippy::unwrap_used, missing_docs, dead_code)]
    tonic::include_proto!("grpc.health.v1");
}

/// First pause before a connection is tried again; each is 1.6 times the one before.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn probe(host: IpAddr, port: u16, service: &str, timeout: Duration) -> Outcome {
    let address = join(&host.to_string(), port);
    let heard = Arc::new(AtomicBool::new(false));
    let asked = ask(host, port, &address, service, timeout, &heard);
    let within = go_seconds(timeout);
    match tokio::time::timeout(timeout, asked).await {
        Ok(Ok(answer)) => judge(answer.status),
        Ok(Err(status)) => Outcome::Failure(failed(&status, &within)),
        Err(_) if heard.load(Relaxed) => Outcome::Failure(format!("timeout: health rpc did not complete within {within}")),
        Err(_) => {
            let text = format!("timeout: failed to connect service {address:?} within {within}: context deadline exceeded");
            Outcome::Failure(text)
        }
    }
}

/// Asks as soon as somebody there speaks HTTP/2: until then Go's client goes on trying, and with it the
/// check, to the end of its time.
async fn ask(
    host: IpAddr,
    port: u16,
    address: &str,
    service: &str,
    timeout: Duration,
    heard: &Arc<AtomicBool>,
) -> Result<v1::HealthCheckResponse, Status> {
    let origin = Uri::builder().scheme("http").authority(address).path_and_query("/").build();
    let origin = origin.map_err(|e| Status::internal(e.to_string()))?;
    let mut pause = PAUSE;
    loop {
        match attempt(host, port, &origin, service, timeout, heard).await {
            Err(_) if !heard.load(Relaxed) => {}
            answer => return answer,
        }
        tokio::time::sleep(pause).await;
        pause = pause.mul_f64(1.6);
    }
}

async fn attempt(
    host: IpAddr,
    port: u16,
    origin: &Uri,
    service: &str,
    timeout: Duration,
    heard: &Arc<AtomicBool>,
) -> Result<v1::HealthCheckResponse, Status> {
    let stream = dial::connect(&host.to_string(), port).await.map_err(Status::unavailable)?;
    let stream = TokioIo::new(Noting::telling(Stream::Plain(stream), heard.clone()));
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, mut connection) = builder.handshake(stream).await.map_err(|e| Status::unavailable(e.to_string()))?;
    let mut client = v1::health_client::HealthClient::with_origin(Asking(sender), origin.clone());
    let mut request = tonic::Request::new(v1::HealthCheckRequest { service: service.to_owned() });
    request.set_timeout(timeout);
    drive(&mut connection, client.check(request)).await.map(tonic::Response::into_inner)
}

/// One connection as a client of generated code wants it, with the name that probes go by.
struct Asking(SendRequest<Full<Bytes>>);

impl tower::Service<Request<Body>> for Asking {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut sender = self.0.clone();
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            head.headers.insert(USER_AGENT, HeaderValue::from_static(Agent::Probe.name()));
            // Whole and in one frame with the end of the stream, as Go sends it: small servers wait for that.
            let body = body.collect().await?.to_bytes();
            Ok(sender.send_request(Request::from_parts(head, Full::new(body))).await?)
        })
    }
}

fn judge(status: i32) -> Outcome {
    match v1::health_check_response::ServingStatus::try_from(status) {
        Ok(v1::health_check_response::ServingStatus::Serving) => Outcome::Success("service healthy".into()),
        Ok(other) => Outcome::Failure(format!("service unhealthy (responded with {:?})", other.as_str_name())),
        Err(_) => Outcome::Failure(format!("service unhealthy (responded with \"{status}\")")),
    }
}

fn failed(status: &Status, within: &str) -> String {
    match status.code() {
        Code::Unimplemented => {
            format!("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}", status.message())
        }
        Code::DeadlineExceeded => format!("timeout: health rpc did not complete within {within}"),
        code => format!("error: health rpc probe failed: rpc error: code = {} desc = {}", name(code), status.message()),
    }
}

/// A code by its name in Go.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// Whole seconds as Go prints them: `1s`, `1m30s`, `1h0m0s`. Timeouts of probes have no fractions.
fn go_seconds(d: Duration) -> String {
    let (h, m, s) = (d.as_secs() / 3600, d.as_secs() / 60 % 60, d.as_secs() % 60);
    match (h, m) {
        (0, 0) => format!("{s}s"),
        (0, _) => format!("{m}m{s}s"),
        _ => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_in_go() {
        let shown = [1, 90, 3600].map(|s| go_seconds(Duration::from_secs(s)));
        assert_eq!(shown, ["1s", "1m30s", "1h0m0s"]);
    }

    #[test]
    fn only_a_serving_service_is_healthy() {
        assert_eq!(judge(1), Outcome::Success("service healthy".into()));
        assert_eq!(judge(2).text(), "service unhealthy (responded with \"NOT_SERVING\")");
        assert_eq!(judge(7).text(), "service unhealthy (responded with \"7\")");
    }
}
