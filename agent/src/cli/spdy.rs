//! SPDY/3.1 as far as the streams of a command need it: opening streams, data, ends.
//!
//! Why not WebSocket, which streaming servers of runtimes speak as well: its `v4.channel.k8s.io` cannot say that
//! standard input has ended, so that `echo | exec -i cat` would never return.
//! Headers are compressed by the protocol; blocks that store them as they are satisfy it, and headers that
//! come back hold nothing that is needed here. Pure. Tests: in this file.

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FIN: u8 = 1;
/// Longest data in one frame that we write.
pub const CHUNK: usize = 32 * 1024;

/// What comes from the other side.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Data {
        stream: u32,
        bytes: Vec<u8>,
        last: bool,
    },
    /// The stream was cut off.
    Reset {
        stream: u32,
    },
    /// To be sent back as it came.
    Ping(Vec<u8>),
    GoAway,
    /// Nothing to do about it.
    Other,
}

fn control(kind: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80, 3];
    out.extend_from_slice(&kind.to_be_bytes());
    let length = u32::try_from(payload.len()).expect("frames are small");
    out.extend_from_slice(&(u32::from(flags) << 24 | length).to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Opens streams; owns the state of the header compression.
#[derive(Default)]
pub struct Opener {
    begun: bool,
}

impl Opener {
    /// A frame that opens stream `id` (odd, rising) with one header.
    pub fn open(&mut self, id: u32, name: &str, value: &str) -> Vec<u8> {
        self.open_with(id, &[(name, value)])
    }

    /// The same with any headers.
    pub fn open_with(&mut self, id: u32, pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut headers = u32::try_from(pairs.len()).expect("headers are few").to_be_bytes().to_vec();
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            headers.extend_from_slice(&u32::try_from(text.len()).expect("headers are short").to_be_bytes());
            headers.extend_from_slice(text.as_bytes());
        }
        let mut payload = id.to_be_bytes().to_vec();
        // No associated stream, highest priority, no credential slot.
        payload.extend_from_slice(&[0; 6]);
        payload.extend(self.stored(&headers));
        control(SYN_STREAM, 0, &payload)
    }

    /// One zlib stream runs through all frames: its header once, then a stored block each, and an empty one after it
    /// that makes the reader hand the bytes out.
    fn stored(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = if std::mem::replace(&mut self.begun, true) { Vec::new() } else { vec![0x78, 0x01] };
        for block in [bytes, &[]] {
            let n = u16::try_from(block.len()).expect("headers are short");
            out.push(0);
            out.extend_from_slice(&n.to_le_bytes());
            out.extend_from_slice(&(!n).to_le_bytes());
            out.extend_from_slice(block);
        }
        out
    }
}

/// Data of a stream; `last` closes our side of it.
pub fn data(stream: u32, bytes: &[u8], last: bool) -> Vec<u8> {
    let mut out = stream.to_be_bytes().to_vec();
    let length = u32::try_from(bytes.len()).expect("chunks are small");
    out.extend_from_slice(&(u32::from(if last { FIN } else { 0 }) << 24 | length).to_be_bytes());
    out.extend_from_slice(bytes);
    out
}

/// Takes the first frame off `buffer`; None: it is not whole yet.
pub fn take(buffer: &mut Vec<u8>) -> Option<Frame> {
    let head: [u8; 8] = buffer.get(..8)?.try_into().expect("eight bytes");
    let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
    if buffer.len() < 8 + length {
        return None;
    }
    let rest = buffer.split_off(8 + length);
    let frame = std::mem::replace(buffer, rest);
    let body = &frame[8..];
    if word & 0x8000_0000 == 0 {
        return Some(Frame::Data { stream: word, bytes: body.to_vec(), last: head[4] & FIN != 0 });
    }
    let stream = body.get(..4).map(|b| u32::from_be_bytes(b.try_into().expect("four bytes")) & 0x7fff_ffff);
    Some(match (word & 0xffff, stream) {
        (k, Some(stream)) if k == u32::from(RST_STREAM) => Frame::Reset { stream },
        // A reply that closes at once tells nothing that the stream's end would not.
        (k, Some(stream)) if k == u32::from(SYN_REPLY) && head[4] & FIN != 0 => Frame::Reset { stream },
        (k, _) if k == u32::from(PING) => Frame::Ping(frame),
        (k, _) if k == u32::from(GOAWAY) => Frame::GoAway,
        _ => Frame::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stream_is_opened_with_its_header_in_the_open() {
        let mut o = Opener::default();
        let first = o.open(1, "streamtype", "error");
        assert_eq!(first[..8], [0x80, 3, 0, 1, 0, 0, 0, first.len() as u8 - 8]);
        assert_eq!(first[8..18], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(first[18..20], [0x78, 0x01]);
        let block = [&[0, 0, 0, 1, 0, 0, 0, 10][..], b"streamtype", &[0, 0, 0, 5], b"error"].concat();
        assert_eq!(first[20..25], [0, 27, 0, !27, 0xff]);
        assert_eq!(first[25..52], block[..]);
        assert_eq!(first[52..], [0, 0, 0, 0xff, 0xff]);
        // Only the first carries the beginning of the compressed stream.
        assert_eq!(o.open(3, "streamtype", "stdin")[18], 0);
    }

    #[test]
    fn frames_are_told_apart() {
        let mut b =
            [control(PING, 0, &[0, 0, 0, 7]), control(RST_STREAM, 0, &[0, 0, 0, 3, 0, 0, 0, 5]), control(GOAWAY, 0, &[0; 8])].concat();
        b.extend(control(SYN_REPLY, 0, &[0, 0, 0, 1, 9, 9]));
        assert_eq!(take(&mut b), Some(Frame::Ping(control(PING, 0, &[0, 0, 0, 7]))));
        assert_eq!(take(&mut b), Some(Frame::Reset { stream: 3 }));
        assert_eq!(take(&mut b), Some(Frame::GoAway));
        assert_eq!(take(&mut b), Some(Frame::Other));
        assert_eq!(take(&mut b), None);
    }

    proptest! {
        #[test]
        fn data_arrives_whole_however_it_is_cut(parts in proptest::collection::vec((1u32..9, proptest::collection::vec(any::<u8>(), 0..50), any::<bool>()), 0..6), cut in 1usize..20) {
            let wire: Vec<u8> = parts.iter().flat_map(|(s, b, l)| data(*s, b, *l)).collect();
            let (mut buffer, mut got) = (Vec::new(), Vec::new());
            for piece in wire.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(f) = take(&mut buffer) {
                    got.push(f);
                }
            }
            let want: Vec<Frame> = parts.into_iter().map(|(stream, bytes, last)| Frame::Data { stream, bytes, last }).collect();
            prop_assert_eq!(got, want);
            prop_assert!(buffer.is_empty());
        }
    }
}
