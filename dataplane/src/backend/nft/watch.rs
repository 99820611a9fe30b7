//! The news that somebody else changed nftables' rules.
//!
//! Owns a socket that hears of every commit in the network namespace but those of one other socket, which the kernel
//! leaves out by a filter: our own changes cost no wake-up. Decides nothing but whose table it is. Tests: the namespace
//! tests.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_sys::{Socket, SocketAddr, constants::NETLINK_NETFILTER};

use super::render;
use crate::model::Family;
use crate::netlink::attr::Messages;

/// NFNLGRP_NFTABLES
const GROUP: u32 = 7;
const ROOM: usize = 32 * 1024;

#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Watch {
    /// Hears of commits by all sockets but the one with this netlink port.
    pub fn open(own_port: u32) -> io::Result<Watch> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        leave_out(&socket, own_port)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        socket.add_membership(GROUP)?;
        Ok(Watch { socket, buffer: Vec::with_capacity(ROOM) })
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as it lives, and the borrow is no longer than that.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }

    /// Reads all that came in, and says whether any of it was about a table. News may have been lost: then it is taken
    /// that there was.
    pub fn heard_of(&mut self, family: Family, table: &str) -> bool {
        let mut heard = false;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => heard |= Messages(&self.buffer).any(|message| is_about(&message, family, table)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return heard,
                // ENOBUFS: the kernel had more to tell than there was room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => heard = true,
                Err(_) => return true,
            }
        }
    }
}

fn is_about(message: &crate::netlink::attr::Message, family: Family, table: &str) -> bool {
    let named = message.attrs().find(render::TABLE).and_then(|attr| attr.str());
    message.kind != render::NEW_GENERATION && message.family() == family.number() && named == Some(table)
}

/// The kernel drops messages about commits of this port before they get to the socket. All messages of one buffer are
/// about the same commit.
fn leave_out(socket: &Socket, port: u32) -> io::Result<()> {
    /// Where a netlink header has the port of the socket that committed.
    const PORT_OFFSET: u32 = 12;
    let statement = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, PORT_OFFSET),
        // The filter's loads are big endian.
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, u32::from_be_bytes(port.to_ne_bytes())),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let len = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).expect("socket options are small");
    // SAFETY: the pointers describe `filter` and `program`, which outlive the call; the kernel copies both.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, std::ptr::from_ref(&filter).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
