//! The two accounting objects that kube-proxy's rules count in, by netlink, in the network namespace of the calling
//! thread.
//!
//! Owns their making, reading and deletion. Both families count in the same two. A kernel without them is no error: it
//! just counts nothing. Never decides which rule counts. Tests: the namespace tests.

use super::schema::{INVALID_DROPPED, LOCALHOST_ACCEPTED};
use crate::netlink::accounting::{delete, get, make, parse};
use crate::netlink::socket::{NetlinkSocket, SocketError};

const NAMES: [&str; 2] = [INVALID_DROPPED, LOCALHOST_ACCEPTED];

/// Sees that both are there; those that are keep what they counted.
pub fn ensure() -> Result<(), SocketError> {
    let mut socket = NetlinkSocket::open()?;
    for name in NAMES {
        let seq = socket.reserve_seq(1);
        match socket.request(&make(seq, name), seq, |_| {}) {
            Err(error) if matches!(error.refused_with(), Some(libc::EBUSY | libc::EEXIST)) => {}
            other => other?,
        }
    }
    Ok(())
}

/// What one has counted; `None` where it is not.
pub fn packets(name: &str) -> Option<u64> {
    let mut socket = NetlinkSocket::open().ok()?;
    let seq = socket.reserve_seq(1);
    let mut counted = None;
    // A refusal says that there is none.
    socket.request(&get(seq, name), seq, |message| counted = parse(&message).map(|counter| counter.packets)).ok()?;
    counted
}

/// Whether rules of this node can count in them.
pub fn exist() -> bool {
    NAMES.into_iter().all(|name| packets(name).is_some())
}

/// Takes them away, but for those in which somebody's rules still count.
pub fn remove() {
    let Ok(mut socket) = NetlinkSocket::open() else { return };
    for name in NAMES {
        let seq = socket.reserve_seq(1);
        // In use, not there, or no such thing in this kernel: all the same here.
        let _ = socket.request(&delete(seq, name), seq, |_| {});
    }
}
