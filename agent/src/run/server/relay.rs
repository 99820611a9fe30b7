//! Passes a request on to another server of this machine, and what comes after both have switched protocols.

use super::{Answer, Reply};
use crate::api::Failure;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

/// The runtime's streaming server is on this machine.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Whether the request can be passed on to a runtime: clients that get an error here try SPDY next, which every
/// runtime speaks.
pub fn upgradable(request: &Request<Incoming>) -> Result<(), Failure> {
    let Some(protocol) = request.headers().get(UPGRADE) else {
        return Err(Failure::bad_request("unable to upgrade: the request asks for no other protocol (SPDY/3.1 or websocket)"));
    };
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let runtime_speaks =
        |p: &str| matches!(p.trim(), "v4.channel.k8s.io" | "v4.base64.channel.k8s.io" | "channel.k8s.io" | "base64.channel.k8s.io");
    let known = offered.flat_map(|v| v.split(',')).any(runtime_speaks);
    if protocol.as_bytes().eq_ignore_ascii_case(b"websocket") && !known {
        return Err(Failure::bad_request(
            "unable to upgrade: the runtime speaks none of the websocket protocols that are offered; use SPDY/3.1",
        ));
    }
    Ok(())
}

/// Sends the same request on to `url` and, once both sides have switched protocols, joins them.
pub async fn relay(url: &str, mut request: Request<Incoming>) -> Answer {
    let broken = |e: &dyn std::fmt::Display| Failure::new(502, "BadGateway", format!("the runtime's streaming server at {url}: {e}"));
    let to: Uri = url.parse().map_err(|e| broken(&e))?;
    let authority = to.authority().ok_or_else(|| broken(&"no address in it"))?;
    let address = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80));
    let connected = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(address)).await;
    let stream = connected.map_err(|e| broken(&e))?.map_err(|e| broken(&e))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| broken(&e))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "the runtime's stream broke");
        }
    });
    let client = hyper::upgrade::on(&mut request);
    let path = to.path_and_query().map_or("/", |p| p.as_str());
    let mut onward = Request::builder().method(request.method()).uri(path).body(Empty::<Bytes>::new()).map_err(|e| broken(&e))?;
    onward.headers_mut().clone_from(request.headers());
    onward.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str()).map_err(|e| broken(&e))?);
    let mut answer = sender.send_request(onward).await.map_err(|e| broken(&e))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (head, body) = answer.into_parts();
        return Ok(Response::from_parts(head, Reply::Relayed(body)));
    }
    let runtime = hyper::upgrade::on(&mut answer);
    let (head, _) = answer.into_parts();
    tokio::task::spawn_local(async move {
        match tokio::try_join!(client, runtime) {
            Ok((client, runtime)) => {
                // Either side may go whenever it likes.
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(runtime)).await;
            }
            Err(error) => tracing::debug!(%error, "a stream was given up before it began"),
        }
    });
    Ok(Response::from_parts(head, Reply::empty()))
}
