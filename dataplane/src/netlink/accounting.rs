//! Accounting objects in netfilter netlink: named counters that rules count packets in.
//!
//! Owns the messages that make, read and delete one, and the subsystem's numbers. Never decides which there are. Tests
//! are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::attr::{Message, Writer};
use super::socket::{NLM_F_ACK, NLM_F_REQUEST};

/// The kinds of messages: the subsystem above the command.
const fn kind(command: u16) -> u16 {
    7 << 8 | command
}
const NEW: u16 = kind(0);
const GET: u16 = kind(1);
const DELETE: u16 = kind(3);

const NLM_F_CREATE: u16 = 0x400;

const NAME: u16 = 1;
const PACKETS: u16 = 2;
const BYTES: u16 = 3;

/// Longer names are cut by the kernel.
pub const LONGEST_NAME: usize = 31;

/// What an object has counted since it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    pub name: String,
    pub packets: u64,
    pub bytes: u64,
}

fn message(kind: u16, flags: u16, seq: u32, name: &str) -> Vec<u8> {
    let mut w = Writer::default();
    w.begin(kind, NLM_F_REQUEST | flags, seq, 0, 0);
    w.put_str(NAME, name);
    w.end();
    w.bytes().to_vec()
}

/// Makes an object. The kernel answers EBUSY when it is there already, and leaves what it has counted.
pub fn make(seq: u32, name: &str) -> Vec<u8> {
    message(NEW, NLM_F_CREATE | NLM_F_ACK, seq, name)
}

/// Asks for an object; the answer is the object, or a refusal.
pub fn get(seq: u32, name: &str) -> Vec<u8> {
    message(GET, 0, seq, name)
}

/// Deletes an object. The kernel answers EBUSY while a rule counts in it.
pub fn delete(seq: u32, name: &str) -> Vec<u8> {
    message(DELETE, NLM_F_ACK, seq, name)
}

/// `None` for any other message.
pub fn parse(message: &Message) -> Option<Counter> {
    if message.kind != NEW {
        return None;
    }
    let attrs = message.attrs();
    let number = |kind| attrs.find(kind)?.u64();
    Some(Counter { name: attrs.find(NAME)?.str()?.into(), packets: number(PACKETS)?, bytes: number(BYTES)? })
}

/// As the kernel tells of an object.
pub fn put(w: &mut Writer, counter: &Counter) {
    w.begin(NEW, 0, 0, 0, 0);
    w.put_str(NAME, &counter.name);
    w.put_u64(PACKETS, counter.packets);
    w.put_u64(BYTES, counter.bytes);
    w.end();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attr::Messages;

    /// Recorded: what Linux 6.18 answers for an object that has counted three datagrams of 84 bytes.
    const ANSWER: [u8; 60] = [
        60, 0, 0, 0, 0, 7, 2, 0, 2, 0, 0, 0, 105, 59, 0, 0, // nlmsghdr
        0, 0, 0, 0, // nfgenmsg
        8, 0, 1, 0, b'w', b'e', b'b', 0, // name
        12, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, // packets
        12, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 252, // bytes
        8, 0, 4, 0, 0, 0, 0, 2, // uses, the object's own among them
    ];

    #[test]
    fn an_object_is_read_as_the_kernel_tells_it() {
        let read = Messages(&ANSWER).next().and_then(|m| parse(&m));
        assert_eq!(read, Some(Counter { name: "web".into(), packets: 3, bytes: 252 }));
        let mut other = ANSWER;
        other[4] = 1;
        assert_eq!(Messages(&other).next().and_then(|m| parse(&m)), None, "a request is no answer");
        let cut = Messages(&ANSWER[..40]).next().and_then(|m| parse(&m));
        assert_eq!(cut, None);
    }

    #[test]
    fn requests_have_the_kernels_bytes() {
        let made = make(9, "web");
        assert_eq!(made, [28, 0, 0, 0, 0, 7, 5, 4, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 1, 0, b'w', b'e', b'b', 0]);
        assert_eq!(get(9, "web")[4..8], [1, 7, 1, 0]);
        assert_eq!(delete(9, "web")[4..8], [3, 7, 5, 0]);
    }

    #[test]
    fn the_names_of_kube_proxy_fit() {
        use crate::backend::iptables::schema::{INVALID_DROPPED, LOCALHOST_ACCEPTED};
        assert!([INVALID_DROPPED, LOCALHOST_ACCEPTED].iter().all(|name| name.len() <= LONGEST_NAME));
    }
}
