//! The lines of a watch.

use super::ClientError;
use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

/// No event is larger: an object has at most 1.5 MiB in a store, and some servers allow more.
const LONGEST: usize = 32 << 20;
/// A buffer that was needed once for something large is given back.
const KEEP: usize = 64 << 10;

#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

/// The events of a watch, one after the other.
pub struct Frames {
    body: Incoming,
    buffer: BytesMut,
    /// Where to look for the next end of a line.
    looked: usize,
    what: String,
    /// The number of its connection, and of the first that is not being left.
    serial: u64,
    current: watch::Receiver<u64>,
}

impl Frames {
    pub(super) fn new(body: Incoming, what: String, serial: u64, current: watch::Receiver<u64>) -> Frames {
        Frames { body, buffer: BytesMut::new(), looked: 0, what, serial, current }
    }

    /// The next event: its type and object. None: the watch has ended, by the server or because its connection is being
    /// left.
    pub async fn next(&mut self) -> Result<Option<(String, Value)>, ClientError> {
        loop {
            if let Some(at) = self.buffer[self.looked..].iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(self.looked + at + 1);
                self.looked = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let frame: Frame =
                    serde_json::from_slice(&line).map_err(|source| ClientError::Answer { what: self.what.clone(), source })?;
                return Ok(Some((frame.kind, frame.object)));
            }
            self.looked = self.buffer.len();
            if self.looked > LONGEST {
                return Err(ClientError::Large { what: self.what.clone() });
            }
            if self.looked == 0 && self.buffer.capacity() > KEEP {
                self.buffer = BytesMut::new();
            }
            let frame = tokio::select! {
                frame = self.body.frame() => frame,
                // The sender's end is that of the client.
                _ = self.current.wait_for(|c| *c > self.serial) => None,
            };
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(mut data) = frame.into_data() {
                        while data.has_remaining() {
                            let chunk = data.chunk();
                            self.buffer.extend_from_slice(chunk);
                            let n = chunk.len();
                            data.advance(n);
                        }
                    }
                }
                Some(Err(source)) => return Err(ClientError::Broken { server: self.what.clone(), source }),
            }
        }
    }
}
