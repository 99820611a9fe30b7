//! Commands in containers: the runtime's streaming server does the talking, this passes its bytes on.

use super::{Answer, Reply, Server};
use crate::api::{Failure, Kind, Query};
use crate::log::choose::named;
use crate::node::NodeState;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue, UPGRADE};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use longshore_cri::exec::Streams;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;

/// The runtime's streaming server is on this machine.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

impl Server {
    pub(super) async fn exec(self: Rc<Self>, namespace: String, name: String, query: &Query, request: Request<Incoming>) -> Answer {
        if !request.headers().contains_key(UPGRADE) {
            return Err(Failure::bad_request("unable to upgrade: the request asks for no other protocol (SPDY/3.1 or websocket)"));
        }
        let command = query.all("command");
        if command.is_empty() {
            return Err(Failure::bad_request("you must specify at least one command to run: command=..."));
        }
        let streams = streams(query)?;
        let container = query.get("container").unwrap_or_default().to_owned();
        let id = self.ask(move |n, _| running(n, &namespace, &name, &container)).await??;
        let url = self.client.exec_url(&id, &command, streams).await;
        let url = url.map_err(|e| Failure::internal(format!("the runtime does not run the command: {e}")))?;
        relay(&url, request).await
    }
}

fn streams(query: &Query) -> Result<Streams, Failure> {
    let tty = query.flag("tty")?;
    // With a terminal both outputs are one.
    let s = Streams { stdin: query.flag("stdin")?, stdout: query.flag("stdout")?, stderr: query.flag("stderr")? && !tty, tty };
    if !(s.stdin || s.stdout || s.stderr) {
        return Err(Failure::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(s)
}

fn running(n: &NodeState, namespace: &str, name: &str, container: &str) -> Result<Box<str>, Failure> {
    let e = n.by_name(namespace, name).ok_or_else(|| Failure::not_found(Kind::Pod, name))?;
    let container = named(&e.desired.pod, container)?;
    let record = e.observed.container(&container).filter(|r| r.state.is_running());
    let missing =
        || Failure::internal(format!("container not found ({container:?}): it does not run in pod {name:?}; see longshore why {name}"));
    record.map(|r| r.id.clone()).ok_or_else(missing)
}

/// Sends the same request on to `url` and, once both sides have switched protocols, joins them.
async fn relay(url: &str, mut request: Request<Incoming>) -> Answer {
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
