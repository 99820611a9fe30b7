//! Lets servers on unix sockets hear clients that name the socket as the authority of their requests.
//!
//! Go's usual ways to dial a socket send its path as `:authority`, and our HTTP/2 refuses what is no authority. So the
//! first bytes of a connection pass through here: wherever a header block gives `:authority` a value, another of the
//! same length takes its place. The block is walked without its tables: what changes is a literal, and since an entry
//! of a table counts by its length, the tables of both sides stay equal (RFC 7541, 4.1).
//!
//! Must never wait for more than it needs to decide. Tests: at the end of this file.

use bytes::{Buf as _, BytesMut};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
/// What every peer takes unless it says otherwise, and ours says nothing.
const FRAME: usize = 16_384;
/// A block that is larger is passed on as it is; the server has a limit of its own.
const BLOCK: usize = 1 << 20;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// One direction of one connection, from the client.
#[derive(Debug, Default)]
pub struct Rewriter {
    stage: Stage,
    /// Read and not yet passed on.
    held: BytesMut,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Preface,
    /// So many bytes of a frame that is none of ours go through first.
    Frames(usize),
    /// Within a header block: the head of its first frame, what precedes the block in it, and the block so far.
    Block { flags: u8, stream: [u8; 4], priority: Vec<u8>, block: Vec<u8> },
    /// It is no HTTP/2, or past what we understand.
    Through,
}

impl Rewriter {
    /// Takes bytes of the client, and appends to `out` what the server is to read.
    pub fn pass(&mut self, bytes: &[u8], out: &mut BytesMut) {
        self.held.extend_from_slice(bytes);
        while self.step(out) {}
    }

    /// False: more bytes are needed.
    fn step(&mut self, out: &mut BytesMut) -> bool {
        match &mut self.stage {
            Stage::Through => {
                out.extend_from_slice(&self.held.split());
                false
            }
            Stage::Preface => {
                let n = self.held.len().min(PREFACE.len());
                if self.held[..n] != PREFACE[..n] {
                    self.stage = Stage::Through;
                } else if n == PREFACE.len() {
                    out.extend_from_slice(&self.held.split_to(n));
                    self.stage = Stage::Frames(0);
                } else {
                    return false;
                }
                true
            }
            Stage::Frames(left) if *left > 0 => {
                let n = (*left).min(self.held.len());
                out.extend_from_slice(&self.held.split_to(n));
                *left -= n;
                n > 0
            }
            Stage::Frames(_) | Stage::Block { .. } => self.frame(out),
        }
    }

    fn frame(&mut self, out: &mut BytesMut) -> bool {
        let Some(head) = self.held.get(..HEAD) else { return false };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let stream = [head[5], head[6], head[7], head[8]];
        let wanted = if matches!(self.stage, Stage::Block { .. }) { CONTINUATION } else { HEADERS };
        if kind != wanted {
            if wanted == CONTINUATION {
                // Within a block anything else is an error, which the server may find for itself.
                self.close(false, out);
            } else {
                self.stage = Stage::Frames(HEAD + length);
            }
            return true;
        }
        if self.held.len() < HEAD + length {
            if length > FRAME {
                self.stage = Stage::Through;
                return true;
            }
            return false;
        }
        let payload = self.held[HEAD..HEAD + length].to_vec();
        match &mut self.stage {
            Stage::Block { block, .. } => block.extend_from_slice(&payload),
            stage => {
                let Some((priority, block)) = opened(flags, &payload) else {
                    *stage = Stage::Through;
                    return true;
                };
                *stage = Stage::Block { flags, stream, priority, block };
            }
        }
        self.held.advance(HEAD + length);
        let Stage::Block { block, .. } = &self.stage else { return true };
        if block.len() > BLOCK || flags & END_HEADERS != 0 {
            self.close(flags & END_HEADERS != 0, out);
        }
        true
    }

    /// Passes the block on.
    fn close(&mut self, whole: bool, out: &mut BytesMut) {
        let Stage::Block { flags, stream, priority, block } = std::mem::replace(&mut self.stage, Stage::Frames(0)) else { return };
        let block = match whole.then(|| rewrite(&block)).flatten() {
            Some(changed) => changed,
            None => block,
        };
        let mut payload = priority;
        payload.extend_from_slice(&block);
        let pieces = payload.chunks(FRAME).count().max(1);
        for i in 0..pieces {
            let piece = payload.chunks(FRAME).nth(i).unwrap_or_default();
            let last = if i + 1 == pieces && whole { END_HEADERS } else { 0 };
            let (kind, flags) = if i == 0 { (HEADERS, flags & !(PADDED | END_HEADERS) | last) } else { (CONTINUATION, last) };
            let n = u32::try_from(piece.len()).expect("a frame is small").to_be_bytes();
            out.extend_from_slice(&[n[1], n[2], n[3], kind, flags]);
            out.extend_from_slice(&stream);
            out.extend_from_slice(piece);
        }
        if !whole {
            self.stage = Stage::Through;
        }
    }
}

/// Priority and the beginning of the block, of the payload of a HEADERS frame; without the padding.
fn opened(flags: u8, payload: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut rest, mut padding) = (payload, 0);
    if flags & PADDED != 0 {
        let (n, more) = rest.split_first()?;
        (padding, rest) = (usize::from(*n), more);
    }
    let priority = rest.get(..if flags & PRIORITY != 0 { 5 } else { 0 })?;
    let rest = &rest[priority.len()..];
    Some((priority.to_vec(), rest.get(..rest.len().checked_sub(padding)?)?.to_vec()))
}

/// The block with another authority. None: it cannot be read.
fn rewrite(block: &[u8]) -> Option<Vec<u8>> {
    const AUTHORITY: usize = 1;
    let mut out = Vec::with_capacity(block.len() + 64);
    let mut at = 0;
    while let Some(first) = block.get(at) {
        let start = at;
        let bits = match first {
            0x80.. => {
                integer(block, &mut at, 7)?;
                out.extend_from_slice(&block[start..at]);
                continue;
            }
            0x40..=0x7f => 6,
            0x20..=0x3f => {
                integer(block, &mut at, 5)?;
                out.extend_from_slice(&block[start..at]);
                continue;
            }
            _ => 4,
        };
        let name = integer(block, &mut at, bits)?;
        if name == 0 {
            string(block, &mut at)?;
        }
        let value = at;
        let length = string(block, &mut at)?;
        if name == AUTHORITY {
            out.extend_from_slice(&block[start..value]);
            write_integer(&mut out, length);
            out.resize(out.len() + length, b'x');
        } else {
            out.extend_from_slice(&block[start..at]);
        }
    }
    Some(out)
}

/// An integer with a prefix of so many bits (RFC 7541, 5.1).
fn integer(block: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let most = (1_usize << bits) - 1;
    let mut n = usize::from(*block.get(*at)?) & most;
    *at += 1;
    if n < most {
        return Some(n);
    }
    for shift in (0..28).step_by(7) {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        n = n.checked_add((byte & 0x7f) << shift)?;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

/// The length of a string that is not compressed, with its bit for that.
fn write_integer(out: &mut Vec<u8>, n: usize) {
    if n < 0x7f {
        out.push(u8::try_from(n).expect("seven bits"));
        return;
    }
    out.push(0x7f);
    let mut left = n - 0x7f;
    while left >= 0x80 {
        out.push(u8::try_from(left & 0x7f).expect("seven bits") | 0x80);
        left >>= 7;
    }
    out.push(u8::try_from(left).expect("seven bits"));
}

/// Steps over a string; how many bytes it has when it is decoded.
fn string(block: &[u8], at: &mut usize) -> Option<usize> {
    let compressed = block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let bytes = block.get(*at..at.checked_add(length)?)?;
    *at += length;
    if compressed { decoded(bytes) } else { Some(length) }
}

/// Symbols that the code of RFC 7541, appendix B, has of each length; codes of one length follow each other, and each
/// length goes on where the one before ended.
const OF_LENGTH: [u32; 31] = [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];

/// How many symbols these bytes are. The rest at the end has to be the beginning of the longest code: ones.
fn decoded(bytes: &[u8]) -> Option<usize> {
    let (mut symbols, mut code, mut length, mut first) = (0, 0_u32, 0_usize, 0_u32);
    for bit in bytes.iter().flat_map(|b| (0..8).rev().map(move |i| u32::from(b >> i & 1))) {
        (code, length) = (code << 1 | bit, length + 1);
        first = (first + OF_LENGTH.get(length - 1)?) << 1;
        let of_length = OF_LENGTH.get(length)?;
        if code >= first && code - first < *of_length {
            (symbols, code, length, first) = (symbols + 1, 0, 0, 0);
        }
    }
    (length < 8 && code + 1 == 1 << length).then_some(symbols)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let n = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[n[1], n[2], n[3], kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn passed(bytes: &[u8], step: usize) -> Vec<u8> {
        let (mut r, mut out) = (Rewriter::default(), BytesMut::new());
        bytes.chunks(step).for_each(|c| r.pass(c, &mut out));
        out.to_vec()
    }

    /// `:method POST`, `:authority` by a literal that is remembered, `:path` by one that is not.
    fn block(authority: &[u8]) -> Vec<u8> {
        [&[0x83, 0x41][..], authority, &[0x04, 0x02, b'/', b'x']].concat()
    }

    #[test]
    fn the_length_of_compressed_texts_is_that_of_the_specification() {
        // RFC 7541, C.4.1: www.example.com; C.4.2: no-cache; C.6.1: a date.
        assert_eq!(decoded(&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]), Some(15));
        assert_eq!(decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]), Some(8));
        let date = [
            0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66, 0xe0, 0x82, 0xa6, 0x2d, 0x1b,
            0xff,
        ];
        assert_eq!(decoded(&date), Some("Mon, 21 Oct 2013 20:13:21 GMT".len()));
        assert_eq!(decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xb0]), None, "the rest is not ones");
        assert_eq!(decoded(&[]), Some(0));
    }

    #[test]
    fn an_authority_is_replaced_by_another_of_its_length_however_it_comes() {
        let path = b"/var/lib/kubelet/device-plugins/kubelet.sock";
        let length = u8::try_from(path.len()).unwrap();
        let plain = [&[length][..], path].concat();
        let replaced = block(&[&[length][..], &vec![b'x'; path.len()]].concat());
        let settings = frame(4, 0, &[]);
        let data = frame(0, 1, b"hello");
        let send = |headers: Vec<u8>| [PREFACE, &settings, &headers, &data].concat();
        let want = send(frame(HEADERS, END_HEADERS, &replaced));
        let b = block(&plain);
        let padded = [&[3][..], &b, &[0, 0, 0]].concat();
        let split = [frame(HEADERS, 0, &b[..5]), frame(CONTINUATION, 0, &b[5..9]), frame(CONTINUATION, END_HEADERS, &b[9..])].concat();
        for headers in [frame(HEADERS, END_HEADERS, &b), frame(HEADERS, END_HEADERS | PADDED, &padded), split] {
            for step in [1, 2, 7, 4096] {
                assert_eq!(passed(&send(headers.clone()), step), want);
            }
        }
        // www.example.com, compressed: fifteen bytes.
        let compressed = [0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        let want = send(frame(HEADERS, END_HEADERS, &block(&[&[15][..], &[b'x'; 15]].concat())));
        assert_eq!(passed(&send(frame(HEADERS, END_HEADERS, &block(&compressed))), 4096), want);
    }

    #[test]
    fn priority_stays_and_a_long_block_is_cut_again() {
        let long = vec![b'a'; 20_000];
        let mut value = Vec::new();
        write_integer(&mut value, long.len());
        let b = block(&[&value[..], &long].concat());
        let payload = [&[0, 0, 0, 0, 9][..], &b].concat();
        let (one, two) = payload.split_at(16_000);
        let bytes = [PREFACE, &frame(HEADERS, PRIORITY | 1, one), &frame(CONTINUATION, END_HEADERS, two)].concat();
        let x = [&[0, 0, 0, 0, 9][..], &block(&[&value[..], &vec![b'x'; long.len()]].concat())].concat();
        let (one, two) = x.split_at(FRAME);
        let want = [PREFACE, &frame(HEADERS, PRIORITY | 1, one), &frame(CONTINUATION, END_HEADERS, two)].concat();
        assert_eq!(passed(&bytes, 999), want);
    }

    #[test]
    fn what_is_not_understood_goes_through_as_it_came() {
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            [PREFACE, &frame(HEADERS, END_HEADERS, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff])].concat(),
            [PREFACE, &frame(HEADERS, 0, &[0x83]), &frame(0, 0, b"no continuation")].concat(),
            [PREFACE, &frame(HEADERS, END_HEADERS | PADDED, &[9, 0x83])].concat(),
        ] {
            for step in [1, 4096] {
                assert_eq!(passed(&bytes, step), bytes);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_lost_or_made_of_what_has_no_authority(bytes in proptest::collection::vec(0_u8..=255, 0..400), step in 1_usize..50) {
            let whole = [PREFACE, &bytes].concat();
            let once = passed(&whole, whole.len());
            proptest::prop_assert_eq!(&once, &passed(&whole, step));
        }
    }
}
