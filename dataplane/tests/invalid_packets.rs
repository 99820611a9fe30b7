//! "Conntrack should not be vulnerable to the invalid conntrack state bug": a server that sends a packet far outside the
//! window, which the connection tracker does not know as its connection's, and so does not translate back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use lab::objects::{PORT, TARGET_PORT, service, slices, vip};
use lab::{Lab, apply};
use longshore_dataplane::conntrack::sysctl::Wanted as Conntrack;
use longshore_dataplane::{Change, Config, Dataplane, IptablesConfig, Mode};
use serde_json::json;

fn option(stream: &TcpStream, name: i32, value: i32) {
    let size = size_of::<i32>() as u32;
    // SAFETY: the pointer is to an i32 of that size, and the call keeps nothing.
    let done = unsafe { libc::setsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, name, (&raw const value).cast(), size) };
    assert_eq!(done, 0, "option {name}: {}", std::io::Error::last_os_error());
}

/// The next sequence number of one of the connection's queues; it must be under repair.
fn sequence(stream: &TcpStream, queue: i32) -> u32 {
    option(stream, libc::TCP_REPAIR_QUEUE, queue);
    let (mut value, mut size) = (0u32, size_of::<u32>() as u32);
    // SAFETY: the pointers are to a u32 and to its size.
    let done =
        unsafe { libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ, (&raw mut value).cast(), &raw mut size) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    value
}

fn checksum(words: impl Iterator<Item = u8>) -> u16 {
    let bytes: Vec<u8> = words.collect();
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// A segment of one byte, a hundred million bytes too early in the stream's future.
fn send_outside_the_window(stream: &TcpStream) {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap()) else { unreachable!() };
    option(stream, libc::TCP_REPAIR, 1);
    let (received, sent) = (sequence(stream, 1), sequence(stream, 2));
    option(stream, libc::TCP_REPAIR, 0);
    let mut segment = Vec::new();
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(sent.wrapping_add(100_000_000).to_be_bytes());
    segment.extend(received.to_be_bytes());
    // Five words of header; PSH and ACK; a window.
    segment.extend([0x50, 0x18, 0x10, 0x00, 0, 0, 0, 0, b'x']);
    let pseudo = from.ip().octets().into_iter().chain(to.ip().octets()).chain([0, 6, 0, segment.len() as u8]);
    let sum = checksum(pseudo.chain(segment.iter().copied()));
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    send_raw(&segment, to);
}

fn send_raw(segment: &[u8], to: SocketAddrV4) {
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp).unwrap();
    let sent = sendto(raw.as_raw_fd(), segment, &SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0)), MsgFlags::empty()).unwrap();
    assert_eq!(sent, segment.len());
}

#[test]
fn conntrack_should_not_be_vulnerable_to_the_invalid_conntrack_state_bug() {
    for mode in [Mode::Nftables, Mode::Iptables(IptablesConfig::default())] {
        let lab = Lab::new();
        assert_eq!(lab.node.run(|| std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal").unwrap()).trim(), "0");
        let listener = lab.pods[0].run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, TARGET_PORT)).unwrap());
        let dataplane = Dataplane::start(Config { mode: mode.clone(), ..lab.config() }).unwrap();
        apply(&dataplane, [service("web", json!({}))].into_iter().chain(slices("web", &[0])).chain([Change::Synced]));
        let mut client = lab.pods[2].run(|| TcpStream::connect(SocketAddr::new(vip(false), PORT)).unwrap());
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut heard = [0; 5];
        server.write_all(b"first").unwrap();
        client.read_exact(&mut heard).unwrap();
        lab.pods[0].run(|| send_outside_the_window(&server));
        // Whatever the client's kernel thinks of it, it answers before this comes back.
        lab.pods[0].command("busybox", &["ping", "-c", "1", "10.1.0.13"]);
        server.write_all(b"after").unwrap_or_else(|error| panic!("{}: {error}", mode.name()));
        client.read_exact(&mut heard).unwrap_or_else(|error| panic!("{}: the connection is lost: {error}", mode.name()));
        assert_eq!(&heard, b"after", "{}", mode.name());
    }
}

/// Where the tracker lets such packets pass, translated, nothing is dropped, and it is set before rules are made by it.
#[test]
fn a_liberal_connection_tracker_needs_no_rule_from_the_first_start_on() {
    for mode in [Mode::Nftables, Mode::Iptables(IptablesConfig::default())] {
        let lab = Lab::new();
        let conntrack = Some(Conntrack { tcp_be_liberal: true, ..Conntrack::default() });
        let dataplane = Dataplane::start(Config { mode: mode.clone(), conntrack, ..lab.config() }).unwrap();
        apply(&dataplane, [service("web", json!({}))].into_iter().chain(slices("web", &[0])).chain([Change::Synced]));
        let rules = if mode == Mode::Nftables { lab.nft("list ruleset") } else { lab.node.command("iptables-save", &["-t", "filter"]) };
        assert!(!rules.to_lowercase().contains("invalid drop") && !rules.contains("INVALID"), "{rules}");
    }
}
