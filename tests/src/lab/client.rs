//! Small clients with deadlines: HTTP, TCP and UDP from any namespace.
//!
//! Every call makes a fresh connection, so that each one meets the service rules anew.

use super::net::Namespace;
use anyhow::{Context, Result, bail};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// What a server answered.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An HTTP/1.1 request for one answer.
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

impl Default for Request<'_> {
    fn default() -> Self {
        Request { method: "GET", path: "/", headers: &[], body: &[] }
    }
}

/// Sends a request and reads the answer; `limit` holds for the connection and for each read.
pub fn http(to: SocketAddr, request: &Request<'_>, limit: Duration) -> Result<Response> {
    exchange(connect(to, limit)?, &to.to_string(), request)
}

/// The same over a unix socket.
pub fn http_on(socket: &Path, request: &Request<'_>, limit: Duration) -> Result<Response> {
    let stream = UnixStream::connect(socket).with_context(|| format!("nobody answers on {}", socket.display()))?;
    stream.set_read_timeout(Some(limit)).and_then(|()| stream.set_write_timeout(Some(limit)))?;
    exchange(stream, "node", request)
}

/// The same on a connection that is there.
pub fn exchange(mut stream: impl Read + Write, to: &str, request: &Request<'_>) -> Result<Response> {
    let Request { method, path, headers, body } = request;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for (name, value) in *headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    // A server may answer and close before it has read a body that it does not need: the answer counts, not the write.
    let sent = stream.write_all(&[head.as_bytes(), body].concat());
    if !sent.as_ref().is_err_and(|e| e.kind() == ErrorKind::BrokenPipe) {
        sent?;
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset && !answer.is_empty() => {}
        other => drop(other.with_context(|| format!("no answer from {to}"))?),
    }
    parse(&answer).with_context(|| format!("{to} answered no HTTP: {:?}", String::from_utf8_lossy(&answer)))
}

fn parse(answer: &[u8]) -> Option<Response> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let body = &answer[end + 4..];
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if chunked { unchunk(body)? } else { body.to_vec() };
    Some(Response { status, headers, body })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let chunk = rest.get(line + 2..line + 2 + size)?;
        if size == 0 {
            return Some(body);
        }
        body.extend(chunk);
        rest = rest.get(line + 2 + size + 2..)?;
    }
}

/// What a path holds. Anything but a 200 is an error that shows the answer.
pub fn get(to: SocketAddr, path: &str, limit: Duration) -> Result<String> {
    let response = http(to, &Request { path, ..Request::default() }, limit)?;
    if response.status != 200 {
        bail!("{to}{path} answered {}: {}", response.status, response.text());
    }
    Ok(response.text())
}

/// Opens a connection; reads and writes on it have the same limit.
pub fn connect(to: SocketAddr, limit: Duration) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, limit).with_context(|| format!("cannot connect to {to}"))?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// Sends a message, closes that half, and returns all that comes back.
pub fn tcp(to: SocketAddr, message: &[u8], limit: Duration) -> Result<Vec<u8>> {
    let mut stream = connect(to, limit)?;
    stream.write_all(message)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("no answer from {to}"))?;
    Ok(answer)
}

/// Sends a datagram from a new port and returns the answer.
pub fn udp(to: SocketAddr, message: &[u8], limit: Duration) -> Result<Vec<u8>> {
    let socket = match to {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    socket.set_read_timeout(Some(limit))?;
    socket.connect(to)?;
    socket.send(message).with_context(|| format!("cannot send to {to}"))?;
    let mut answer = vec![0; 65536];
    let length = socket.recv(&mut answer).with_context(|| format!("no answer from {to}"))?;
    answer.truncate(length);
    Ok(answer)
}

impl Namespace {
    /// [`get`] from a host of the lab.
    pub fn get(&self, to: SocketAddr, path: &str, limit: Duration) -> Result<String> {
        self.enter(|| get(to, path, limit))?
    }

    /// [`tcp`] from a host of the lab.
    pub fn tcp(&self, to: SocketAddr, message: &[u8], limit: Duration) -> Result<Vec<u8>> {
        self.enter(|| tcp(to, message, limit))?
    }

    /// [`udp`] from a host of the lab.
    pub fn udp(&self, to: SocketAddr, message: &[u8], limit: Duration) -> Result<Vec<u8>> {
        self.enter(|| udp(to, message, limit))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunked_answers_are_put_together() {
        let answer = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let response = parse(answer).expect("well formed");
        assert_eq!((response.status, response.text()), (201, "abcde".to_owned()));
        assert_eq!(response.header("x-a"), Some("b"));
    }
}
