//! `grpc.health.v1.Health/Check` over plain HTTP/2, just enough of it for a prober.
//!
//! Every request is taken for a Check, so headers need no HPACK decoding; the service name is in the
//! message. The empty name and `up` are SERVING, `down` is NOT_SERVING, others are NOT_FOUND.

use std::io::{Read, Write};
use std::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const OK: u8 = b'0';
const NOT_FOUND: u8 = b'5';

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

pub fn serve(port: u16) {
    for stream in crate::listen(port).incoming() {
        let Ok(stream) = stream else { continue };
        // A broken connection is the client's way to leave.
        std::thread::spawn(move || converse(stream).ok());
    }
}

fn converse(mut stream: TcpStream) -> std::io::Result<()> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface)?;
    if preface != PREFACE {
        return Ok(());
    }
    write(&mut stream, SETTINGS, 0, 0, &[])?;
    loop {
        let frame = read(&mut stream)?;
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => write(&mut stream, SETTINGS, ACK, 0, &[])?,
            PING if frame.flags & ACK == 0 => write(&mut stream, PING, ACK, 0, &frame.payload)?,
            DATA if frame.flags & END_STREAM != 0 && !frame.payload.is_empty() => {
                answer(&mut stream, &frame)?;
            }
            _ => {}
        }
    }
}

fn read(stream: &mut TcpStream) -> std::io::Result<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    let [.., a, b, c, d] = head;
    let stream = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
    Ok(Frame { kind: head[3], flags: head[4], stream, payload })
}

fn write(out: &mut TcpStream, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(payload.len()).expect("replies are short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    out.write_all(&frame)
}

fn answer(out: &mut TcpStream, request: &Frame) -> std::io::Result<()> {
    let (grpc_status, serving) = match service(request).as_deref() {
        Some(b"" | b"up") => (OK, Some(1)),
        Some(b"down") => (OK, Some(2)),
        _ => (NOT_FOUND, None),
    };
    // :status 200 (static index 8), then content-type (static index 31) as a literal.
    let mut head = vec![0x88, 0x0f, 0x10, 16];
    head.extend(b"application/grpc");
    write(out, HEADERS, END_HEADERS, request.stream, &head)?;
    if let Some(serving) = serving {
        // Uncompressed, two bytes long: field 1 (status), a varint.
        write(out, DATA, 0, request.stream, &[0, 0, 0, 0, 2, 0x08, serving])?;
    }
    let mut trailers = vec![0, 11];
    trailers.extend(b"grpc-status");
    trailers.extend([1, grpc_status]);
    write(out, HEADERS, END_HEADERS | END_STREAM, request.stream, &trailers)
}

/// The `service` field of the HealthCheckRequest; `None` where the message is not one.
fn service(request: &Frame) -> Option<Vec<u8>> {
    let payload = if request.flags & PADDED == 0 {
        &request.payload[..]
    } else {
        let padding = usize::from(*request.payload.first()?);
        request.payload.get(1..request.payload.len().checked_sub(padding)?)?
    };
    match payload.get(5..)? {
        [] => Some(Vec::new()),
        [0x0a, length, name @ ..] if usize::from(*length) == name.len() => Some(name.to_vec()),
        _ => None,
    }
}
