//! Waits until addresses that were put on a link are the node's.
//!
//! The kernel acknowledges an IPv6 address before packets to it are for the node: the route to it is made by a worker of
//! the kernel's a moment later, and until then such packets go wherever the default route leads. Owns that wait. Tests:
//! the namespace tests.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::attr::Writer;
use super::route::{self, IS_LOCAL};
use super::socket::{NLM_F_REQUEST, NetlinkSocket, SocketError};

/// The kernel's worker needs no more than a processor.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_micros(200);

/// Returns when packets to these addresses are for this node, or after a while all the same, with a warning. `socket` is
/// one for routes.
pub fn wait(socket: &mut NetlinkSocket, ips: impl IntoIterator<Item = IpAddr>) -> Result<(), SocketError> {
    let deadline = Instant::now() + PATIENCE;
    for ip in ips.into_iter().filter(IpAddr::is_ipv6) {
        while !is_local(socket, ip)? {
            if Instant::now() >= deadline {
                tracing::warn!(%ip, "packets to this address of a service are still not for this node");
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
    }
    Ok(())
}

fn is_local(socket: &mut NetlinkSocket, ip: IpAddr) -> Result<bool, SocketError> {
    let seq = socket.reserve_seq(1);
    let mut w = Writer::default();
    w.begin_with(route::GET_ROUTE, NLM_F_REQUEST, seq, &route::route_header(ip));
    route::put_destination(&mut w, ip);
    w.end();
    let mut kind = None;
    match socket.request(w.bytes(), seq, |answer| kind = route::parse_route_kind(&answer)) {
        // No way there yet.
        Err(error) if error.refused_with().is_some() => Ok(false),
        other => other.map(|()| kind == Some(IS_LOCAL)),
    }
}
