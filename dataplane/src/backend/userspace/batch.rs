//! Many datagrams with one system call.
//!
//! Owns the buffers, one set for the thread: they are filled and emptied without waiting in between. Tests: the
//! namespace tests.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

const DATAGRAMS: usize = 32;
/// No datagram is larger.
const LARGEST: usize = 64 * 1024;

/// Datagrams that were received together, in order.
pub struct Batch {
    bytes: Vec<u8>,
    /// How long each is, and where it came from.
    received: Vec<(usize, Option<SocketAddr>)>,
}

impl Batch {
    pub fn new() -> Batch {
        Batch { bytes: vec![0; DATAGRAMS * LARGEST], received: Vec::with_capacity(DATAGRAMS) }
    }

    /// Takes what is there; never waits.
    pub fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        self.received.clear();
        let mut slices: Vec<[IoSliceMut; 1]> = self.bytes.chunks_mut(LARGEST).map(|chunk| [IoSliceMut::new(chunk)]).collect();
        let mut headers: MultiHeaders<SockaddrStorage> = MultiHeaders::preallocate(DATAGRAMS, None);
        let results = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        self.received.extend(results.map(|one| (one.bytes, one.address.as_ref().and_then(address))));
        Ok(self.received.len())
    }

    pub fn sources(&self) -> impl Iterator<Item = Option<SocketAddr>> {
        self.received.iter().map(|(_, from)| *from)
    }

    /// Sends some of them on; what the socket does not take at once is lost, as on any full queue.
    pub fn send(&self, which: std::ops::Range<usize>, socket: RawFd, to: Option<SocketAddr>) -> io::Result<usize> {
        let lengths = &self.received[which.clone()];
        let chunks = self.bytes.chunks(LARGEST).skip(which.start);
        let slices: Vec<[IoSlice; 1]> = chunks.zip(lengths).map(|(chunk, (len, _))| [IoSlice::new(&chunk[..*len])]).collect();
        let addresses = vec![to.map(SockaddrStorage::from); slices.len()];
        let mut headers = MultiHeaders::preallocate(slices.len(), None);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent = sendmmsg(socket, &mut headers, &slices, &addresses, [], flags)?.count();
        Ok(sent)
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddr::new(v4.ip().into(), v4.port()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| SocketAddr::new(v6.ip().into(), v6.port())))
}
