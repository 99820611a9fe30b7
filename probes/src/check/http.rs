//! httpGet, of probes and of hooks. Tests: `tests/http.rs`.

use super::request::Headers;
use super::stream::{Noting, Stream};
use super::url::Url;
use super::{dial, drive, tls};
use crate::{HttpCheck, Outcome};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue, LOCATION, REFERER};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bytes of a body that are read.
const BODY_MAX: usize = 10 * 1024;
const REQUESTS_MAX: u32 = 10;
const INVALID_HOST: &str = "http: invalid Host header";
const PLAIN_ANSWER: &str = "http: server gave HTTP response to HTTPS client";

/// On whose behalf a request goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    Probe,
    Lifecycle,
}

impl Agent {
    pub(super) fn name(self) -> &'static str {
        match self {
            Agent::Probe => "kube-probe/1.36",
            Agent::Lifecycle => "kube-lifecycle/1.36",
        }
    }
}

struct Answer {
    status: u16,
    location: Option<String>,
    /// Or why it could not be read.
    body: Result<String, String>,
}

/// How far a request has come, for telling where it was when its time was up.
#[derive(Default)]
struct Progress {
    url: String,
    reading: bool,
}

pub(super) async fn probe(check: &HttpCheck, timeout: Duration) -> Outcome {
    let mut at = Progress::default();
    match tokio::time::timeout(timeout, get(check, check.https, &check.headers, Agent::Probe, &mut at)).await {
        Ok(Ok(answer)) => judge(answer),
        Ok(Err(e)) => Outcome::Failure(e),
        Err(_) if at.reading => {
            Outcome::Unreadable("context deadline exceeded (Client.Timeout or context cancellation while reading body)".into())
        }
        Err(_) => Outcome::Failure(failed(&at.url, "context deadline exceeded (Client.Timeout exceeded while awaiting headers)")),
    }
}

fn judge(a: Answer) -> Outcome {
    match (a.status, a.body) {
        (_, Err(e)) => Outcome::Unreadable(e),
        (200..300, Ok(body)) => Outcome::Success(body),
        // A redirect that was not followed.
        (300..400, Ok(body)) => Outcome::Warning(format!("Probe terminated redirects, Response body: {body}")),
        (status, Ok(_)) => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
    }
}

/// A hook's request: any answer is success. An https hook that meets a plain server is asked again in
/// plain, without its credentials; then this gives the `host:port` that answered so.
pub async fn hook(check: &HttpCheck) -> Result<Option<String>, String> {
    let mut at = Progress::default();
    match get(check, check.https, &check.headers, Agent::Lifecycle, &mut at).await {
        Ok(_) => Ok(None),
        Err(e) if e.contains(PLAIN_ANSWER) => {
            let headers: Vec<_> = check.headers.iter().filter(|(n, _)| !n.eq_ignore_ascii_case("Authorization")).cloned().collect();
            let again = get(check, false, &headers, Agent::Lifecycle, &mut at).await;
            again.map(|_| Some(super::url::join(&check.host, check.port))).map_err(|_| e)
        }
        Err(e) => Err(e),
    }
}

/// An error as Go's client wraps it.
fn failed(url: &str, e: &str) -> String {
    format!("Get {url:?}: {e}")
}

/// Asks, and follows redirects as long as they stay with the host.
async fn get(check: &HttpCheck, https: bool, given: &[(String, String)], agent: Agent, at: &mut Progress) -> Result<Answer, String> {
    let mut url = Url::of_probe(https, &check.host, check.port, &check.path);
    at.url = url.to_string();
    let mut headers = Headers::new(given, agent).map_err(|e| failed(&at.url, &e))?;
    for asked in 1.. {
        let answer = ask(&url, &headers, at).await.map_err(|e| failed(&at.url, &e))?;
        at.reading = false;
        let Some(location) = answer.location.as_deref().filter(|_| matches!(answer.status, 301 | 302 | 303 | 307 | 308)) else {
            return Ok(answer);
        };
        let next = url
            .join(location)
            .map_err(|e| failed(location, &format!("failed to parse Location header {location:?}: parse {location:?}: {e}")))?;
        if next.host() != url.host() {
            return Ok(answer);
        }
        if asked == REQUESTS_MAX {
            return Err(failed(location, "stopped after 10 redirects"));
        }
        redirect(&mut headers, &url, &next, location);
        at.url = next.to_string();
        url = next;
    }
    unreachable!("the loop ends at its limit")
}

/// What a request takes along when it follows: where it comes from, unless that was given, and a Host of
/// its own along relative redirects only.
fn redirect(headers: &mut Headers, from: &Url, to: &Url, location: &str) {
    let absolute = location.split(['/', '?', '#']).next().is_some_and(|s| s.contains(':'));
    if absolute {
        headers.host = None;
    }
    if headers.referer_given {
        return;
    }
    headers.map.remove(REFERER);
    let told = from.scheme != "https" || to.scheme == "https";
    if told && let Ok(v) = HeaderValue::from_str(&from.to_string()) {
        headers.map.insert(REFERER, v);
    }
}

async fn ask(url: &Url, headers: &Headers, at: &mut Progress) -> Result<Answer, String> {
    let https = match url.scheme.as_str() {
        "http" => false,
        "https" => true,
        other => return Err(format!("unsupported protocol scheme {other:?}")),
    };
    if url.host().is_empty() {
        return Err("http: no Host in request URL".into());
    }
    let port = url.port().ok_or_else(|| format!("dial tcp: address {}: invalid port", url.authority))?;
    let stream = dial::connect(url.host(), port).await?;
    if !https {
        return http1(Stream::Plain(stream), url, headers, at).await;
    }
    let stream = secure(stream, url.host()).await?;
    let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = Stream::Secure(Box::new(stream));
    if two { http2(stream, url, headers, at).await } else { http1(stream, url, headers, at).await }
}

async fn secure(stream: TcpStream, host: &str) -> Result<TlsStream<Noting<TcpStream>>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("tls: invalid server name {host:?}"))?;
    let connecting = TlsConnector::from(tls::config()).connect(name, Noting::new(stream));
    connecting.into_fallible().await.map_err(|(e, stream)| tls_failed(&e, &stream))
}

fn tls_failed(e: &std::io::Error, notes: &Noting<TcpStream>) -> String {
    if notes.first().starts_with(b"HTTP/") {
        return PLAIN_ANSWER.into();
    }
    match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => format!("remote error: tls: {}", words(&format!("{alert:?}"))),
        Some(rustls::Error::InvalidMessage(_)) => "tls: first record does not look like a TLS handshake".into(),
        Some(other) => format!("tls: {other}"),
        None => notes.broken(e),
    }
}

/// `HandshakeFailure` as `handshake failure`.
fn words(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push(' ');
        }
        out.extend(c.to_lowercase());
    }
    out
}

async fn http1(stream: Stream, url: &Url, headers: &Headers, at: &mut Progress) -> Result<Answer, String> {
    let host = HeaderValue::from_str(headers.host.as_deref().unwrap_or(&url.authority)).map_err(|_| INVALID_HOST)?;
    let mut map = HeaderMap::with_capacity(headers.map.len() + 2);
    map.insert(HOST, host);
    map.extend(headers.map.iter().map(|(n, v)| (n.clone(), v.clone())));
    if !map.contains_key(CONNECTION) {
        map.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = url.target().parse().map_err(|e| format!("parse {:?}: {e}", url.target()))?;
    *request.headers_mut() = map;
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.title_case_headers(true).allow_obsolete_multiline_headers_in_responses(true);
    let (mut sender, mut connection) = builder.handshake(TokioIo::new(Noting::new(stream))).await.map_err(|e| e.to_string())?;
    let answer = drive(&mut connection, async { Ok(read(sender.send_request(request).await?, at).await) }).await;
    answer.map_err(|e| http_failed(&e, &connection.into_parts().io.into_inner()))
}

async fn http2(stream: Stream, url: &Url, headers: &Headers, at: &mut Progress) -> Result<Answer, String> {
    let mut map = headers.map.clone();
    // Of the connection, not of the request: HTTP/2 has no such headers.
    for name in ["connection", "keep-alive", "proxy-connection", "upgrade"] {
        map.remove(name);
    }
    let authority = headers.host.as_deref().unwrap_or(&url.authority);
    let uri = hyper::Uri::builder().scheme("https").authority(authority).path_and_query(url.target());
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = uri.build().map_err(|_| INVALID_HOST)?;
    *request.headers_mut() = map;
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, mut connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| deepest(&e))?;
    drive(&mut connection, async { Ok(read(sender.send_request(request).await?, at).await) }).await.map_err(|e: hyper::Error| deepest(&e))
}

/// An answer with as much of its body as is wanted.
async fn read(response: Response<Incoming>, at: &mut Progress) -> Answer {
    at.reading = true;
    let status = response.status().as_u16();
    let location = response.headers().get(LOCATION).filter(|l| !l.is_empty());
    let location = location.map(|l| String::from_utf8_lossy(l.as_bytes()).into_owned());
    let mut incoming = response.into_body();
    let mut body = Vec::new();
    while body.len() < BODY_MAX {
        match incoming.frame().await {
            None => break,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    body.extend_from_slice(&data[..data.len().min(BODY_MAX - body.len())]);
                }
            }
            Some(Err(e)) => {
                return Answer { status, location, body: Err(body_failed(&e)) };
            }
        }
    }
    let body = String::from_utf8(body).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
    Answer { status, location, body: Ok(body) }
}

/// The error of the system below one of hyper's.
fn system(e: &hyper::Error) -> Option<&std::io::Error> {
    let mut source = std::error::Error::source(e);
    while let Some(s) = source {
        if let Some(io) = s.downcast_ref() {
            return Some(io);
        }
        source = s.source();
    }
    None
}

fn body_failed(e: &hyper::Error) -> String {
    let cut = system(e).is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof);
    if cut || e.is_incomplete_message() { "unexpected EOF".into() } else { deepest(e) }
}

/// What went wrong before an answer came, as Go has it.
fn http_failed(e: &hyper::Error, stream: &Noting<Stream>) -> String {
    if let Some(io) = system(e) {
        return stream.broken(io);
    }
    let got = stream.first();
    if got.is_empty() && (e.is_incomplete_message() || e.is_closed() || e.is_canceled()) {
        return "EOF".into();
    }
    let what = if e.is_incomplete_message() {
        "unexpected EOF".to_owned()
    } else if e.is_parse() {
        let line = got.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
        format!("malformed HTTP response {:?}", String::from_utf8_lossy(line))
    } else {
        return deepest(e);
    };
    format!("net/http: HTTP/1.x transport connection broken: {what}")
}

fn deepest(e: &dyn std::error::Error) -> String {
    let mut e = e;
    while let Some(source) = e.source() {
        e = source;
    }
    e.to_string()
}
