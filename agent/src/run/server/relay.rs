//! Passes a request on to another server of this machine, and what comes after both have switched protocols.

use super::{Answer, Reply};
use crate::api::Failure;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

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

/// Sends the same request on to `url` and, once both sides have switched protocols, joins them until either goes or
/// nothing was said for `idle`. What was sent to us to tell who asks is not for the runtime. A redirection is not
/// followed and not passed on: who follows one leads the other side wherever it says.
pub async fn relay(url: &str, mut request: Request<Incoming>, idle: Duration) -> Answer {
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
    onward.headers_mut().remove(AUTHORIZATION);
    onward.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str()).map_err(|e| broken(&e))?);
    let mut answer = sender.send_request(onward).await.map_err(|e| broken(&e))?;
    if answer.status().is_redirection() {
        return Err(broken(&"it redirects, which no streaming server does"));
    }
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (head, body) = answer.into_parts();
        return Ok(Response::from_parts(head, Reply::Relayed(body)));
    }
    let runtime = hyper::upgrade::on(&mut answer);
    let (head, _) = answer.into_parts();
    tokio::task::spawn_local(async move {
        match tokio::try_join!(client, runtime) {
            Ok((client, runtime)) => join(TokioIo::new(client), TokioIo::new(runtime), idle).await,
            Err(error) => tracing::debug!(%error, "a stream was given up before it began"),
        }
    });
    Ok(Response::from_parts(head, Reply::empty()))
}

/// Passes bytes both ways. Either side may go whenever it likes.
async fn join(client: impl AsyncRead + AsyncWrite + Unpin, runtime: impl AsyncRead + AsyncWrite + Unpin, idle: Duration) {
    let heard = Rc::new(Cell::new(Instant::now()));
    let (mut client, mut runtime) = (Heard(client, heard.clone()), Heard(runtime, heard.clone()));
    let silence = async {
        while heard.get().elapsed() < idle {
            tokio::time::sleep_until(heard.get() + idle).await;
        }
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut runtime) => {}
        () = silence => tracing::info!(?idle, "a stream on which nothing was said is closed"),
    }
}

/// Notes when something was read.
struct Heard<S>(S, Rc<Cell<Instant>>);

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(cx, buffer);
        if read.is_ready() {
            self.1.set(Instant::now());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::task::LocalSet;

    fn alone(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn a_stream_on_which_nothing_is_said_is_closed() {
        alone(async {
            let ((client, mut outside), (runtime, _inside)) = (duplex(64), duplex(64));
            join(client, runtime, Duration::from_millis(20)).await;
            assert_eq!(outside.read(&mut [0; 8]).await.unwrap(), 0);
        });
    }

    /// Asks through a relay to a runtime's server that gives this answer: what the client hears, and what the server
    /// was asked.
    async fn ask(answer: &'static str) -> (String, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/exec/token", listener.local_addr().unwrap());
        let runtime = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut asked).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            // What is tunnelled after that would come here.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            String::from_utf8(asked).unwrap() + &String::from_utf8_lossy(&rest)
        };
        let (mut client, ours) = duplex(64 * 1024);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let url = url.clone();
            async move {
                let answer = relay(&url, request, Duration::from_secs(3600)).await;
                Ok::<_, std::convert::Infallible>(
                    answer.unwrap_or_else(|f| crate::run::api::with_status(StatusCode::BAD_GATEWAY, "text/plain", f.message)),
                )
            }
        });
        let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(ours), service).with_upgrades();
        let talk = async {
            let head = "POST /exec/a/b/c HTTP/1.1\r\nhost: node\r\nauthorization: Bearer secret\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\n\r\n";
            client.write_all(head.as_bytes()).await.unwrap();
            let mut heard = Vec::new();
            while !heard.windows(4).any(|w| w == b"\r\n\r\n") {
                client.read_buf(&mut heard).await.unwrap();
            }
            // The relay may have hung up by now, which is as good.
            let _ = client.write_all(b"tunnelled").await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut heard).await;
            String::from_utf8_lossy(&heard).into_owned()
        };
        let mut out = (String::new(), String::new());
        let both = async { out = tokio::join!(talk, runtime) };
        LocalSet::new().run_until(async { drop(tokio::join!(served, both)) }).await;
        out
    }

    #[test]
    fn what_is_said_after_the_switch_reaches_the_runtime_but_not_who_says_it() {
        alone(async {
            let (heard, asked) = ask("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\n\r\n").await;
            assert!(heard.starts_with("HTTP/1.1 101"), "{heard}");
            assert!(asked.ends_with("tunnelled") && !asked.contains("secret"), "{asked}");
        });
    }

    /// CVE-2018-1002105: after an answer that was no switch, bytes went on to the other side as if it were one.
    #[test]
    fn nothing_is_tunnelled_after_an_answer_that_is_no_switch() {
        alone(async {
            let (heard, asked) = ask("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno").await;
            assert!(heard.starts_with("HTTP/1.1 403") && heard.ends_with("no"), "{heard}");
            assert!(!asked.contains("tunnelled"), "{asked}");
        });
    }

    /// CVE-2020-8559: who followed the redirection of an upgrade was led to another node, with his credentials.
    #[test]
    fn a_redirection_of_the_runtime_is_neither_followed_nor_passed_on() {
        alone(async {
            for status in ["302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
                let answer =
                    format!("HTTP/1.1 {status}\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let (heard, asked) = ask(Box::leak(answer.into_boxed_str())).await;
                assert!(heard.starts_with("HTTP/1.1 502") && !heard.contains("location:"), "{heard}");
                assert!(!asked.contains("tunnelled"), "{asked}");
            }
        });
    }

    #[test]
    fn what_is_said_on_either_side_comes_out_on_the_other() {
        alone(async {
            let ((client, mut outside), (runtime, mut inside)) = (duplex(64), duplex(64));
            let talk = async {
                outside.write_all(b"hello").await.unwrap();
                let mut got = [0; 5];
                inside.read_exact(&mut got).await.unwrap();
                inside.write_all(&got).await.unwrap();
                outside.read_exact(&mut got).await.unwrap();
                assert_eq!(&got, b"hello");
                drop((outside, inside));
            };
            tokio::join!(join(client, runtime, Duration::from_secs(3600)), talk);
        });
    }
}
