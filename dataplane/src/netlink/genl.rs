//! Generic netlink: families have names, and numbers that the kernel gives out as they are loaded.
//!
//! Owns the look-up of a family's number, and the header of its messages. Tests: the tests on other kernels.

use super::attr::Writer;
use super::socket::{NLM_F_REQUEST, NetlinkSocket, SocketError};

/// The family that knows the others.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// The fixed part of a message: its command and the version of its family.
pub fn header(command: u8, version: u8) -> [u8; 4] {
    [command, version, 0, 0]
}

/// The number of a family; `None` when the kernel has none of this name now.
pub fn family(socket: &mut NetlinkSocket, name: &str) -> Result<Option<u16>, SocketError> {
    let seq = socket.reserve_seq(1);
    let mut writer = Writer::default();
    writer.begin_with(CONTROLLER, NLM_F_REQUEST, seq, &header(GET_FAMILY, 1));
    writer.put_str(FAMILY_NAME, name);
    writer.end();
    let mut number = None;
    let answer = socket.request(writer.bytes(), seq, |answer| {
        number = answer.attrs().find(FAMILY_ID).and_then(|a| a.native_u16());
    });
    match answer {
        Err(error) if error.refused_with() == Some(libc::ENOENT) => Ok(None),
        other => other.map(|()| number),
    }
}
