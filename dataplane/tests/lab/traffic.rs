//! Servers and clients in namespaces.
//!
//! A server answers every connection or datagram with its name and the address it saw the client at.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::Namespace;

/// How long a client waits for an answer that ought to come at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub server: String,
    pub seen_client: IpAddr,
}

fn parse(text: &str) -> Answer {
    let (server, client) = text.split_once(' ').expect("a name and an address");
    let seen_client: SocketAddr = client.parse().unwrap();
    Answer { server: server.into(), seen_client: seen_client.ip().to_canonical() }
}

/// Serves TCP and UDP in both families on one port, until the process ends.
pub fn serve(namespace: &Namespace, name: &str, port: u16) {
    for ip in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
        let (tcp, udp) = namespace.run(|| (v6_only_listener(ip, port), udp_socket(ip, port)));
        let server = name.to_string();
        std::thread::spawn(move || {
            for (mut stream, client) in std::iter::from_fn(|| tcp.accept().ok()) {
                let _ = stream.write_all(format!("{server} {client}").as_bytes());
            }
        });
        let server = name.to_string();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, client)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(format!("{server} {client}").as_bytes(), client);
            }
        });
    }
}

fn v6_only_listener(ip: IpAddr, port: u16) -> TcpListener {
    let socket = raw_socket(ip, libc::SOCK_STREAM);
    bind(&socket, ip, port);
    nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(128).unwrap()).unwrap();
    socket.into()
}

fn udp_socket(ip: IpAddr, port: u16) -> UdpSocket {
    let socket = raw_socket(ip, libc::SOCK_DGRAM);
    bind(&socket, ip, port);
    socket.into()
}

fn raw_socket(ip: IpAddr, kind: libc::c_int) -> std::os::fd::OwnedFd {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
    let family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = if kind == libc::SOCK_STREAM { SockType::Stream } else { SockType::Datagram };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    if ip.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true).unwrap();
    }
    setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    socket
}

fn bind(socket: &std::os::fd::OwnedFd, ip: IpAddr, port: u16) {
    use std::os::fd::AsRawFd;
    let address = nix::sys::socket::SockaddrStorage::from(SocketAddr::new(ip, port));
    nix::sys::socket::bind(socket.as_raw_fd(), &address).unwrap();
}

/// Connects, and reads what the server says.
pub fn tcp(from: &Namespace, to: SocketAddr) -> io::Result<Answer> {
    from.run(|| tcp_here(to))
}

/// The same from the calling thread's namespace.
pub fn tcp_here(to: SocketAddr) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(parse(&text))
}

/// Sends a datagram from a new port, and waits for the answer.
pub fn udp(from: &Namespace, to: SocketAddr) -> io::Result<Answer> {
    from.run(|| udp_here(to))
}

pub fn udp_here(to: SocketAddr) -> io::Result<Answer> {
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    ask(&connected(any, to)?)
}

/// A UDP socket whose errors (a refusal, say) are reported.
pub fn connected(from: SocketAddr, to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(from)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

pub fn ask(socket: &UdpSocket) -> io::Result<Answer> {
    socket.send(b"who are you?")?;
    let mut buffer = [0; 128];
    // A wait with a limit is not begun again by the kernel when the machine was stopped meanwhile.
    let len = loop {
        match socket.recv(&mut buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    Ok(parse(std::str::from_utf8(&buffer[..len]).unwrap()))
}

/// TCP and UDP to one destination.
pub fn both(from: &Namespace, to: SocketAddr) -> [io::Result<Answer>; 2] {
    [tcp(from, to), udp(from, to)]
}

pub fn is_refused<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

pub fn is_silence<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock))
}
