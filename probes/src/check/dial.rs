//! Connections for checks, with the texts that Go's dialer has for what goes wrong: events show them.
//!
//! No SO_LINGER, which a kubelet sets in the belief that it shortens TIME-WAIT. On Linux it does not, and
//! closing such a socket holds up its thread for a second when the other end has just vanished, however
//! non-blocking the socket: here that thread would be the whole node's.
//! Tests: `tests/http.rs`, `tests/tcp.rs`.

use super::url::join;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::TcpStream;

/// Connects to a host by address or name; the text says what failed, as `dial tcp ...`.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return to(SocketAddr::new(ip, port)).await;
    }
    let found = tokio::net::lookup_host((host, port)).await;
    let mut last = format!("dial tcp: lookup {host}: no such host");
    for address in found.into_iter().flatten() {
        match to(address).await {
            Ok(s) => return Ok(s),
            Err(e) => last = e,
        }
    }
    Err(last)
}

async fn to(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address)
        .await
        .map_err(|e| format!("dial tcp {}: connect: {}", join(&address.ip().to_string(), address.port()), reason(&e)))
}

/// An error of the system by its name in Go: that of C, without the capital.
pub(super) fn reason(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(n) => nix::errno::Errno::from_raw(n).desc().to_lowercase(),
        None => e.to_string(),
    }
}
