//! Netlink messages in memory: headers, attributes, nesting.
//!
//! Owns alignment and byte order. Attribute integers are big endian, as netfilter wants them. Never touches a
//! socket. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// Length of `nlmsghdr`.
pub const HEADER_LEN: usize = 16;
/// Length of `nfgenmsg`.
pub const NFGEN_LEN: usize = 4;
/// Set on attributes that hold attributes.
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// Longest payload an attribute can have and still be followed by another.
pub const MAX_ATTRIBUTE: usize = u16::MAX as usize - 7;

/// Writes messages one after the other.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Where the current message began.
    message: usize,
}

impl Writer {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Starts a netfilter message; the one before must be ended.
    pub fn begin(&mut self, kind: u16, flags: u16, seq: u32, family: u8, resource: u16) {
        let [high, low] = resource.to_be_bytes();
        self.begin_with(kind, flags, seq, &[family, 0, high, low]);
    }

    /// Starts a message of any protocol, with the fixed part that stands before its attributes.
    pub fn begin_with(&mut self, kind: u16, flags: u16, seq: u32, fixed: &[u8]) {
        self.message = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(fixed);
        self.pad();
    }

    pub fn end(&mut self) {
        let len = u32::try_from(self.bytes.len() - self.message).expect("a message is below 4 GiB");
        self.bytes[self.message..self.message + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Adds flags to the message that was ended last.
    pub fn add_flags(&mut self, flags: u16) {
        let at = self.message + 6;
        if let Some(field) = self.bytes.get_mut(at..at + 2) {
            let before = u16::from_ne_bytes([field[0], field[1]]);
            field.copy_from_slice(&(before | flags).to_ne_bytes());
        }
    }

    /// Bytes of the current message so far.
    pub fn message_len(&self) -> usize {
        self.bytes.len() - self.message
    }

    pub fn put(&mut self, kind: u16, payload: &[u8]) {
        let len = u16::try_from(payload.len() + 4).expect("callers keep attributes below 64 KiB");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
    }

    /// A string with its final NUL.
    pub fn put_str(&mut self, kind: u16, text: &str) {
        let len = u16::try_from(text.len() + 5).expect("callers keep attributes below 64 KiB");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    pub fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    pub fn put_u64(&mut self, kind: u16, value: u64) {
        self.put(kind, &value.to_be_bytes());
    }

    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Writer)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let len = u16::try_from(self.bytes.len() - start).expect("callers keep attributes below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }

    /// Attributes that are encoded already.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A received message, without the buffer around it.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The address family of a netfilter message.
    pub fn family(&self) -> u8 {
        self.body.first().copied().unwrap_or(0)
    }

    /// The attributes of a netfilter or generic netlink message.
    pub fn attrs(&self) -> Attrs<'a> {
        self.attrs_after(NFGEN_LEN)
    }

    /// The attributes after a fixed part of so many bytes.
    pub fn attrs_after(&self, fixed: usize) -> Attrs<'a> {
        Attrs(self.body.get(fixed..).unwrap_or_default())
    }
}

/// The messages of a buffer; ends at the first that is cut short.
#[derive(Debug, Clone, Copy)]
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = self.0.get(..HEADER_LEN)?;
        let len = u32::from_ne_bytes(header[..4].try_into().ok()?) as usize;
        let message = Message {
            kind: u16::from_ne_bytes(header[4..6].try_into().ok()?),
            flags: u16::from_ne_bytes(header[6..8].try_into().ok()?),
            seq: u32::from_ne_bytes(header[8..12].try_into().ok()?),
            body: self.0.get(HEADER_LEN..len)?,
        };
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

/// One attribute: its number without flags, and its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr<'a> {
    pub kind: u16,
    pub payload: &'a [u8],
}

impl<'a> Attr<'a> {
    pub fn attrs(&self) -> Attrs<'a> {
        Attrs(self.payload)
    }

    pub fn u32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.payload.try_into().ok()?))
    }

    pub fn u64(&self) -> Option<u64> {
        Some(u64::from_be_bytes(self.payload.try_into().ok()?))
    }

    /// A number in the machine's own byte order, as all but netfilter have them.
    pub fn native_u32(&self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.payload.try_into().ok()?))
    }

    pub fn native_u16(&self) -> Option<u16> {
        Some(u16::from_ne_bytes(self.payload.try_into().ok()?))
    }

    pub fn u16(&self) -> Option<u16> {
        Some(u16::from_be_bytes(self.payload.try_into().ok()?))
    }

    pub fn u8(&self) -> Option<u8> {
        match self.payload {
            [byte] => Some(*byte),
            _ => None,
        }
    }

    pub fn str(&self) -> Option<&'a str> {
        let text = self.payload.split(|byte| *byte == 0).next()?;
        std::str::from_utf8(text).ok()
    }
}

/// The attributes of a payload; ends at the first that is cut short.
#[derive(Debug, Clone, Copy)]
pub struct Attrs<'a>(pub &'a [u8]);

impl<'a> Attrs<'a> {
    /// The first attribute of this number.
    pub fn find(mut self, kind: u16) -> Option<Attr<'a>> {
        Iterator::find(&mut self, |attr| attr.kind == kind)
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Attr<'a>;

    fn next(&mut self) -> Option<Attr<'a>> {
        let header = self.0.get(..4)?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let payload = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Attr { kind, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        writer.begin(7, 5, 42, 2, 10);
        writer.put_str(1, "kube-proxy");
        writer.nested(2, |w| {
            w.put_u32(3, 0xdead_beef);
            w.put(4, &[1, 2, 3]);
        });
        writer.put_u64(5, 1 << 40);
        writer.end();
        writer.begin(8, 0, 43, 10, 0);
        writer.end();

        let messages: Vec<Message> = Messages(writer.bytes()).collect();
        assert_eq!((messages.len(), messages[0].kind, messages[0].seq, messages[0].family()), (2, 7, 42, 2));
        assert_eq!((messages[1].kind, messages[1].family()), (8, 10));
        let attrs = messages[0].attrs();
        assert_eq!(attrs.find(1).and_then(|a| a.str()), Some("kube-proxy"));
        let nested = attrs.find(2).unwrap().attrs();
        assert_eq!(nested.find(3).and_then(|a| a.u32()), Some(0xdead_beef));
        assert_eq!(nested.find(4).map(|a| a.payload), Some(&[1u8, 2, 3][..]));
        assert_eq!(attrs.find(5).and_then(|a| a.u64()), Some(1 << 40));
        assert_eq!(attrs.find(6), None);
    }

    #[test]
    fn cut_short_input_ends_the_reading() {
        assert_eq!(Messages(&[20, 0, 0, 0, 1]).count(), 0);
        assert_eq!(Attrs(&[12, 0, 1, 0, 9, 9]).count(), 0);
        assert_eq!(Attrs(&[2, 0, 1, 0]).count(), 0);
    }
}
