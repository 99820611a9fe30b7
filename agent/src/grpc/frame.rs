//! A message in a body: a byte that says whether it is compressed, four of its length, and itself.

use super::messages::Message;

/// What servers in Go take by default, in bytes.
pub const LARGEST: usize = 4 << 20;
const HEAD: usize = 5;

/// Why an answer is none. The numbers are gRPC's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    pub code: Code,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

impl Status {
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code, message: message.into() }
    }

    /// As the trailer `grpc-message` has it: what is not plain is written by its bytes.
    pub fn escaped(&self) -> String {
        let one = |b: u8| if (0x20..0x7f).contains(&b) && b != b'%' { char::from(b).to_string() } else { format!("%{b:02X}") };
        self.message.bytes().map(one).collect()
    }

    /// Reads what `escaped` writes.
    pub fn unescape(text: &str) -> String {
        let mut out = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((first, more)) = rest.split_first() {
            let byte = more.get(..2).and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
            match byte.filter(|_| *first == b'%') {
                Some(b) => {
                    out.push(b);
                    rest = &more[2..];
                }
                None => {
                    out.push(*first);
                    rest = more;
                }
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

pub fn write<M: Message>(message: &M) -> Vec<u8> {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).expect("a message is smaller than 4 GiB");
    [&[0][..], &length.to_be_bytes(), &body].concat()
}

/// Takes the first whole message; None: it is not there yet.
pub fn take<M: Message + Default>(bytes: &mut Vec<u8>) -> Option<Result<M, Status>> {
    let head = bytes.get(..HEAD)?;
    let length = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).expect("32 bits fit");
    if head[0] != 0 {
        return Some(Err(Status::new(Code::Unimplemented, "compressed messages are not read here")));
    }
    if length > LARGEST {
        let message = format!("received message larger than max ({length} vs. {LARGEST})");
        return Some(Err(Status::new(Code::ResourceExhausted, message)));
    }
    let body = bytes.get(HEAD..HEAD + length)?;
    let read = M::decode(body).map_err(|e| Status::new(Code::Internal, format!("the message cannot be read: {e}")));
    bytes.drain(..HEAD + length);
    Some(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::messages::RegistrationStatus;

    #[test]
    fn messages_stand_one_after_the_other() {
        let one = RegistrationStatus { plugin_registered: true, error: "no".into() };
        let mut bytes = [write(&one), write(&RegistrationStatus::default())].concat();
        let last = bytes.pop().unwrap();
        assert_eq!(take::<RegistrationStatus>(&mut bytes), Some(Ok(one)));
        assert_eq!(take::<RegistrationStatus>(&mut bytes), None, "a byte is missing");
        bytes.push(last);
        assert_eq!(take::<RegistrationStatus>(&mut bytes), Some(Ok(RegistrationStatus::default())));
        assert!(bytes.is_empty());
    }

    #[test]
    fn what_is_too_large_compressed_or_no_message_is_refused() {
        let code = |mut bytes: Vec<u8>| take::<RegistrationStatus>(&mut bytes).unwrap().unwrap_err().code;
        assert_eq!(code(vec![0, 0xff, 0, 0, 0]), Code::ResourceExhausted);
        assert_eq!(code(vec![1, 0, 0, 0, 0]), Code::Unimplemented);
        assert_eq!(code(vec![0, 0, 0, 0, 2, 0xff, 0xff]), Code::Internal);
    }

    #[test]
    fn a_text_of_any_kind_fits_into_a_trailer() {
        let status = Status::new(Code::Unknown, "100 % süß\n");
        assert_eq!(status.escaped(), "100 %25 s%C3%BC%C3%9F%0A");
        assert_eq!(Status::unescape(&status.escaped()), status.message);
        assert_eq!(Status::unescape("50%"), "50%");
    }
}
