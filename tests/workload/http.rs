//! A small HTTP/1.1 server with paths for probe and service tests. One request per connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

static HEALTHY: AtomicBool = AtomicBool::new(true);

struct Request {
    path: String,
    query: String,
    headers: Vec<(String, String)>,
}

struct Reply {
    status: &'static str,
    location: Option<String>,
    body: String,
}

pub fn serve(port: u16) {
    for stream in crate::listen(port).incoming() {
        let Ok(stream) = stream else { continue };
        std::thread::spawn(move || {
            let Ok(peer) = stream.peer_addr() else { return };
            let Some(request) = read(&stream) else { return };
            // A client that went away needs no answer.
            send(&stream, &reply(&request, peer)).ok();
        });
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let target = first.split(' ').nth(1)?.to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut headers = Vec::new();
    while let Some(Ok(line)) = lines.next() {
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Some(Request { path: path.to_owned(), query: query.to_owned(), headers })
}

fn reply(request: &Request, peer: SocketAddr) -> Reply {
    let parameter = |name: &str| request.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let header = |name: &str| request.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let ok = |body: String| Reply { status: "200 OK", location: None, body };
    let refuse = |status, body: &str| Reply { status, location: None, body: body.to_owned() };
    match request.path.as_str() {
        "/healthz" if HEALTHY.load(Ordering::Relaxed) => ok("ok\n".to_owned()),
        "/healthz" => refuse("503 Service Unavailable", "unhealthy\n"),
        "/healthy" | "/unhealthy" => {
            HEALTHY.store(request.path == "/healthy", Ordering::Relaxed);
            ok("noted\n".to_owned())
        }
        "/" | "/hostname" => ok(crate::hostname() + "\n"),
        "/client" => ok(crate::client(peer) + "\n"),
        "/env" => ok(std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect()),
        // Answers only a prober that sends the header a probe's `httpHeaders` promised.
        "/pulse" if header("x-pulse") == Some("yes") => ok("beating\n".to_owned()),
        "/pulse" => refuse("400 Bad Request", "header X-Pulse: yes is missing\n"),
        "/redirect" => Reply { status: "302 Found", location: Some(parameter("to").unwrap_or("/healthz").to_owned()), body: String::new() },
        "/bytes" => ok("x".repeat(parameter("n").and_then(|n| n.parse().ok()).unwrap_or_default())),
        _ => refuse("404 Not Found", "no such path\n"),
    }
}

fn send(mut stream: &TcpStream, reply: &Reply) -> std::io::Result<()> {
    let location = reply.location.as_ref().map_or_else(String::new, |to| format!("Location: {to}\r\n"));
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{location}Connection: close\r\n\r\n",
        reply.status,
        reply.body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(reply.body.as_bytes())
}
