//! The conversation with the kernel over one netlink socket.
//!
//! Owns sequence numbers, buffers, and how answers are matched with requests. Every call blocks until the kernel has
//! answered, which it does before `send` returns. Tests: at the end of this file, and the namespace tests.

use std::io;
use std::os::fd::AsRawFd;

use netlink_sys::{Socket, SocketAddr, constants::NETLINK_NETFILTER};

use super::attr::{Attrs, HEADER_LEN, Message, Messages, Writer};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_MULTI: u16 = 2;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

pub const NLM_F_REQUEST: u16 = 1;
pub const NLM_F_ACK: u16 = 4;
pub const NLM_F_DUMP: u16 = 0x300;

/// Room for one answer: the kernel fills dumps in pieces of at most 32 KiB.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// The kernel answers at once; silence for so long means that something is wrong.
const ANSWER_SECONDS: libc::time_t = 10;
/// A dump that others keep disturbing is taken again so many times.
const DUMP_ATTEMPTS: u32 = 5;

/// Requests to be sent together, one after the other.
#[derive(Debug, Default)]
pub struct Pipeline {
    writer: Writer,
    /// Where each request ends.
    ends: Vec<usize>,
}

/// Most bytes of one system call, about; and most requests, whose refusals must all fit the receive buffer.
const CHUNK_BYTES: usize = 64 * 1024;
const CHUNK_REQUESTS: usize = 128;

impl Pipeline {
    /// Adds a request: its kind, its flags, the fixed part before its attributes, and its attributes.
    pub fn add(&mut self, kind: u16, flags: u16, fixed: &[u8], attributes: impl FnOnce(&mut Writer)) {
        self.writer.begin_with(kind, flags | NLM_F_REQUEST, 0, fixed);
        attributes(&mut self.writer);
        self.writer.end();
        self.ends.push(self.writer.bytes().len());
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn start(&self, position: usize) -> usize {
        position.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// How many requests from this one on go together; at least one.
    fn fitting(&self, position: usize) -> usize {
        let limit = self.start(position) + CHUNK_BYTES;
        let some = self.ends[position..].iter().take(CHUNK_REQUESTS);
        some.take_while(|end| **end <= limit).count().max(1)
    }

    /// The bytes of some requests, numbered from `first`; the last asks for an acknowledgement. Refusals of the others
    /// come without being asked for.
    fn chunk(&self, position: usize, count: usize, first: u32) -> Vec<u8> {
        let (start, end) = (self.start(position), self.ends[position + count - 1]);
        let mut bytes = self.writer.bytes()[start..end].to_vec();
        for (index, seq) in (position..position + count).zip(first..) {
            let at = self.start(index) - start;
            bytes[at + 8..at + 12].copy_from_slice(&seq.to_ne_bytes());
            if index + 1 == position + count {
                let flags = u16::from_ne_bytes([bytes[at + 6], bytes[at + 7]]) | NLM_F_ACK;
                bytes[at + 6..at + 8].copy_from_slice(&flags.to_ne_bytes());
            }
        }
        bytes
    }
}

/// What the kernel answered to a message it did not accept.
#[derive(Debug, thiserror::Error)]
#[error("{source}{}", detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
pub struct Refused {
    /// The sequence number of the message.
    pub seq: u32,
    pub source: io::Error,
    /// The kernel's own words, when it has any.
    pub detail: Option<String>,
}

impl Refused {
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("cannot open a netlink socket of protocol {protocol} (for netfilter: CONFIG_NETFILTER_NETLINK): {source}")]
    Open { protocol: isize, source: io::Error },
    #[error("cannot send by netlink: {0}")]
    Send(#[source] io::Error),
    #[error("cannot receive by netlink: {0}")]
    Receive(#[source] io::Error),
    #[error("the kernel refused: {0}")]
    Refused(#[from] Refused),
    #[error("somebody else kept changing what was being read")]
    Disturbed,
}

impl SocketError {
    /// The errno of the answer, when there was one.
    pub fn refused_with(&self) -> Option<i32> {
        match self {
            SocketError::Refused(refused) => Some(refused.errno()),
            _ => None,
        }
    }
}

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct NetlinkSocket {
    socket: Socket,
    seq: u32,
    buffer: Vec<u8>,
    send_room: usize,
}

/// A socket to netfilter.
pub type NetfilterSocket = NetlinkSocket;

impl NetlinkSocket {
    /// Opens a socket to netfilter.
    pub fn open() -> Result<NetlinkSocket, SocketError> {
        NetlinkSocket::open_protocol(NETLINK_NETFILTER)
    }

    /// Opens a socket of a netlink protocol: `NETLINK_ROUTE`, say.
    pub fn open_protocol(protocol: isize) -> Result<NetlinkSocket, SocketError> {
        let socket = prepare(protocol).map_err(|source| SocketError::Open { protocol, source })?;
        Ok(NetlinkSocket { socket, seq: 0, buffer: Vec::with_capacity(RECEIVE_BUFFER), send_room: 0 })
    }

    /// The socket's netlink port, which the kernel tells others as the author of a change.
    pub fn port(&self) -> io::Result<u32> {
        let mut address = SocketAddr::new(0, 0);
        self.socket.get_address(&mut address)?;
        Ok(address.port_number())
    }

    /// A fresh sequence number; `count` of them are reserved.
    pub fn reserve_seq(&mut self, count: u32) -> u32 {
        let first = self.seq.wrapping_add(1);
        self.seq = self.seq.wrapping_add(count);
        first
    }

    /// Sends one request without `NLM_F_DUMP` and hands its answers to `each`. The request must ask for an
    /// acknowledgement unless it has an answer of its own.
    pub fn request(&mut self, message: &[u8], seq: u32, mut each: impl FnMut(Message)) -> Result<(), SocketError> {
        self.send(message)?;
        loop {
            let mut finished = false;
            self.receive(|answer| {
                if answer.seq != seq {
                    return Ok(());
                }
                finished = true;
                if answer.kind != NLMSG_ERROR {
                    each(answer);
                    return Ok(());
                }
                refusal(&answer)
            })?;
            if finished {
                return Ok(());
            }
        }
    }

    /// Sends one dump request, built by `build` for a sequence number, and hands every answer to `each`. When the
    /// dump was disturbed it is taken again, after `restart`.
    pub fn dump<S>(
        &mut self,
        state: &mut S,
        build: impl Fn(u32) -> Vec<u8>,
        restart: impl Fn(&mut S),
        mut each: impl FnMut(&mut S, Message),
    ) -> Result<(), SocketError> {
        for _ in 0..DUMP_ATTEMPTS {
            let seq = self.reserve_seq(1);
            self.send(&build(seq))?;
            if self.dump_answers(seq, |answer| each(state, answer))? {
                return Ok(());
            }
            restart(state);
        }
        Err(SocketError::Disturbed)
    }

    /// False when the dump was disturbed.
    fn dump_answers(&mut self, seq: u32, mut each: impl FnMut(Message)) -> Result<bool, SocketError> {
        let (mut done, mut intact) = (false, true);
        while !done {
            self.receive(|answer| {
                if answer.seq != seq {
                    return Ok(());
                }
                intact &= answer.flags & NLM_F_DUMP_INTR == 0;
                match answer.kind {
                    NLMSG_ERROR => {
                        done = true;
                        return refusal(&answer);
                    }
                    NLMSG_DONE => {
                        done = true;
                        return done_status(&answer);
                    }
                    _ => each(answer),
                }
                done |= answer.flags & NLM_F_MULTI == 0;
                Ok(())
            })?;
        }
        Ok(intact)
    }

    /// Sends a batch whose last inner message, with sequence number `last`, asks for an acknowledgement. All of it is
    /// done, or nothing: then the first refusal is returned.
    pub fn batch(&mut self, bytes: &[u8], first: u32, last: u32) -> Result<(), SocketError> {
        self.send(bytes)?;
        let mut refused = None;
        let mut finished = false;
        while !finished {
            self.receive(|answer| {
                let ours = answer.seq.wrapping_sub(first) <= last.wrapping_sub(first);
                if answer.kind != NLMSG_ERROR || !ours {
                    return Ok(());
                }
                if let Err(error) = refusal(&answer) {
                    // An error on the frame itself is the only answer there will be.
                    finished |= answer.seq == first;
                    refused.get_or_insert(error);
                }
                finished |= answer.seq == last;
                Ok(())
            })?;
        }
        refused.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Sends independent requests in as few system calls as it can. Each is carried out whatever becomes of the
    /// others; those that the kernel refused are returned with their positions, in order.
    pub fn pipeline(&mut self, requests: &Pipeline) -> Result<Vec<(usize, Refused)>, SocketError> {
        let mut refused = Vec::new();
        let mut position = 0;
        while position < requests.len() {
            let count = requests.fitting(position);
            let first = self.reserve_seq(u32::try_from(count).expect("a chunk is short"));
            self.send(&requests.chunk(position, count, first))?;
            self.pipeline_answers(first, count, |offset, error| refused.push((position + offset, error)))?;
            position += count;
        }
        Ok(refused)
    }

    fn pipeline_answers(&mut self, first: u32, count: usize, mut each: impl FnMut(usize, Refused)) -> Result<(), SocketError> {
        let mut finished = false;
        while !finished {
            self.receive(|answer| {
                let offset = answer.seq.wrapping_sub(first) as usize;
                if answer.kind == NLMSG_ERROR && offset < count {
                    refusal(&answer).unwrap_or_else(|error| each(offset, error));
                    finished |= offset + 1 == count;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), SocketError> {
        self.make_room(bytes.len())?;
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SocketError::Send(error)),
            }
        }
    }

    /// A message must fit the send buffer as a whole.
    fn make_room(&mut self, len: usize) -> Result<(), SocketError> {
        const USUAL: usize = 128 * 1024;
        if len <= USUAL.max(self.send_room) {
            return Ok(());
        }
        let wanted = libc::c_int::try_from(len.next_power_of_two()).unwrap_or(libc::c_int::MAX);
        set_option(&self.socket, libc::SO_SNDBUFFORCE, &wanted).map_err(SocketError::Send)?;
        self.send_room = len.next_power_of_two();
        Ok(())
    }

    fn receive(&mut self, mut each: impl FnMut(Message) -> Result<(), Refused>) -> Result<(), SocketError> {
        self.buffer.clear();
        loop {
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SocketError::Receive(error)),
            }
        }
        let mut first_refusal = Ok(());
        for message in Messages(&self.buffer) {
            let result = each(message);
            if first_refusal.is_ok() {
                first_refusal = result;
            }
        }
        Ok(first_refusal?)
    }
}

fn prepare(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // Answers then carry the kernel's words, and not the whole request.
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    be_patient(&socket)?;
    Ok(socket)
}

fn be_patient(socket: &Socket) -> io::Result<()> {
    let patience = libc::timeval { tv_sec: ANSWER_SECONDS, tv_usec: 0 };
    set_option(socket, libc::SO_RCVTIMEO, &patience)
}

fn set_option<T>(socket: &Socket, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).expect("socket options are small");
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, std::ptr::from_ref(value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn done_status(answer: &Message) -> Result<(), Refused> {
    let status = answer.body.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
    refused(answer.seq, status, None)
}

/// Reads an `nlmsgerr`; errno 0 is an acknowledgement.
fn refusal(answer: &Message) -> Result<(), Refused> {
    let status = answer.body.get(..4).and_then(|b| b.try_into().ok()).map_or(-libc::EPROTO, i32::from_ne_bytes);
    let mut detail = None;
    if answer.flags & NLM_F_ACK_TLVS != 0 {
        let request = answer.body.get(4..).unwrap_or_default();
        let capped = answer.flags & NLM_F_CAPPED != 0;
        let len = request.get(..4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes) as usize;
        let skip = if capped { HEADER_LEN } else { len.next_multiple_of(4) };
        detail = Attrs(request.get(skip..).unwrap_or_default()).find(NLMSGERR_ATTR_MSG).and_then(|a| a.str());
    }
    refused(answer.seq, status, detail)
}

fn refused(seq: u32, status: i32, detail: Option<&str>) -> Result<(), Refused> {
    if status == 0 {
        return Ok(());
    }
    Err(Refused { seq, source: io::Error::from_raw_os_error(-status), detail: detail.map(String::from) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
    use std::os::unix::thread::JoinHandleExt;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn requests_go_together_in_order_and_only_the_last_is_acknowledged() {
        let mut pipeline = Pipeline::default();
        for number in 0..300u32 {
            pipeline.add(7, 0x100, &[1, 2, 3], |w| w.put(1, &number.to_ne_bytes()));
        }
        let (mut position, mut sizes) = (0, Vec::new());
        while position < pipeline.len() {
            let count = pipeline.fitting(position);
            let chunk = pipeline.chunk(position, count, 1000);
            let messages: Vec<Message> = Messages(&chunk).collect();
            assert_eq!(messages.len(), count);
            for (offset, message) in messages.iter().enumerate() {
                let number = message.attrs().find(1).and_then(|a| a.native_u32());
                assert_eq!((message.seq as usize, number), (1000 + offset, Some((position + offset) as u32)));
                let acknowledged = message.flags & NLM_F_ACK != 0;
                assert_eq!((acknowledged, message.flags & 0x100), (offset + 1 == count, 0x100));
            }
            sizes.push(count);
            position += count;
        }
        assert_eq!(sizes, [128, 128, 44]);
    }

    /// A socket whose kernel is the other end of a pair.
    fn with_peer() -> (NetlinkSocket, OwnedFd) {
        let (ours, kernels) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).unwrap();
        // SAFETY: the descriptor is open, and given away here.
        let socket = unsafe { Socket::from_raw_fd(ours.into_raw_fd()) };
        be_patient(&socket).unwrap();
        (NetlinkSocket { socket, seq: 0, buffer: Vec::with_capacity(RECEIVE_BUFFER), send_room: 0 }, kernels)
    }

    /// An answer as the kernel gives it: 0 is an acknowledgement.
    fn answer(peer: &OwnedFd, seq: u32, errno: i32) {
        let mut w = Writer::default();
        w.begin_with(NLMSG_ERROR, 0, seq, &(-errno).to_ne_bytes());
        w.end();
        nix::unistd::write(peer, w.bytes()).unwrap();
    }

    #[test]
    fn a_refusal_keeps_its_number_whichever_it_is() {
        for errno in [libc::EBUSY, libc::ENOBUFS, libc::EINTR, libc::EPERM] {
            let (mut socket, peer) = with_peer();
            answer(&peer, 1, errno);
            let error = socket.request(&[], 1, |_| {}).unwrap_err();
            assert_eq!(error.refused_with(), Some(errno), "{error}");
            assert!(error.to_string().starts_with("the kernel refused: "), "{error}");
        }
    }

    #[test]
    fn of_requests_sent_together_each_refusal_is_told_and_the_others_are_done() {
        let (mut socket, peer) = with_peer();
        let mut requests = Pipeline::default();
        (0..4).for_each(|kind| requests.add(kind, 0, &[], |_| {}));
        // Only refusals and the last are answered.
        for (seq, errno) in [(2, libc::EBUSY), (3, libc::ENOBUFS), (4, 0)] {
            answer(&peer, seq, errno);
        }
        let refused = socket.pipeline(&requests).unwrap();
        let refused: Vec<(usize, i32)> = refused.iter().map(|(position, refused)| (*position, refused.errno())).collect();
        assert_eq!(refused, [(1, libc::EBUSY), (2, libc::ENOBUFS)]);
    }

    #[test]
    fn a_refused_batch_is_one_error_and_the_next_one_is_not_mixed_up_with_it() {
        let (mut socket, peer) = with_peer();
        for (seq, errno) in [(2, libc::EBUSY), (3, libc::ENOENT), (4, 0)] {
            answer(&peer, seq, errno);
        }
        let error = socket.batch(&[0], 1, 4).unwrap_err();
        assert_eq!(error.refused_with(), Some(libc::EBUSY), "the first");
        // An answer that comes late is to nobody.
        answer(&peer, 3, libc::ENOENT);
        answer(&peer, 8, 0);
        socket.batch(&[0], 5, 8).unwrap();
    }

    extern "C" fn note_signal(_: libc::c_int) {
        SIGNALS.fetch_add(1, Ordering::SeqCst);
    }

    static SIGNALS: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn a_call_that_signals_interrupt_goes_on() {
        let action = SigAction::new(SigHandler::Handler(note_signal), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing but count; calls are not restarted by the kernel.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
        let (mut socket, peer) = with_peer();
        let asking = std::thread::spawn(move || socket.request(&[1], 7, |_| {}).map_err(|error| error.to_string()));
        // The request is out, so the answer is waited for; each signal ends a call.
        assert_eq!(nix::unistd::read(&peer, &mut [0; 8]), Ok(1));
        for count in 1..=20 {
            // SAFETY: the thread was not joined yet.
            assert_eq!(unsafe { libc::pthread_kill(asking.as_pthread_t(), libc::SIGUSR1) }, 0);
            while SIGNALS.load(Ordering::SeqCst) < count {
                std::thread::yield_now();
            }
        }
        answer(&peer, 7, 0);
        assert_eq!(asking.join().unwrap(), Ok(()));
    }

    #[test]
    fn a_request_larger_than_a_chunk_goes_alone() {
        let mut pipeline = Pipeline::default();
        for _ in 0..2 {
            pipeline.add(7, 0, &[0; 4], |w| (0..2).for_each(|kind| w.put(kind, &[0; 40_000])));
        }
        assert_eq!((pipeline.fitting(0), pipeline.fitting(1)), (1, 1));
        assert_eq!(Messages(&pipeline.chunk(1, 1, 5)).count(), 1);
    }
}
