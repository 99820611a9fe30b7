//! Whether anybody changed iptables' tables since the last look, without running a command.
//!
//! Owns a socket. Tells only that something changed, not what. Tests: the namespace tests.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::ir::Table;
use super::variant::Variant;
use crate::backend::nft::kernel::Kernel as Nftables;
use crate::model::Family;

/// `IPT_SO_GET_INFO`, the same number for IPv6.
const GET_INFO: libc::c_int = 64;

/// What is different after a change: of legacy tables the numbers and sizes of their rules, else nftables' generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look(Vec<u32>);

#[derive(Debug)]
pub enum Watch {
    Legacy(Family, OwnedFd),
    Nft(Box<Nftables>),
}

/// `struct ipt_getinfo`
#[repr(C)]
#[derive(Default)]
struct Info {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    entries: u32,
    size: u32,
}

impl Watch {
    /// In the calling thread's network namespace.
    pub fn open(variant: Variant, family: Family) -> io::Result<Watch> {
        match variant {
            Variant::Nft => Nftables::open(crate::TABLE).map(|kernel| Watch::Nft(Box::new(kernel))).map_err(io::Error::other),
            Variant::Legacy => {
                let address_family = if family == Family::V4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
                let socket = socket(address_family, SockType::Raw, SockFlag::SOCK_CLOEXEC, nix::sys::socket::SockProtocol::Raw)?;
                Ok(Watch::Legacy(family, socket))
            }
        }
    }

    pub fn look(&mut self) -> io::Result<Look> {
        match self {
            Watch::Nft(kernel) => kernel.generation().map(|generation| Look(vec![generation])).map_err(io::Error::other),
            Watch::Legacy(family, socket) => {
                let mut look = Vec::new();
                for table in Table::ALL {
                    let info = info(socket, *family, table)?;
                    look.extend([info.entries, info.size]);
                }
                Ok(Look(look))
            }
        }
    }
}

fn info(socket: &OwnedFd, family: Family, table: Table) -> io::Result<Info> {
    let mut info = Info::default();
    info.name[..table.name().len()].copy_from_slice(table.name().as_bytes());
    let mut len = libc::socklen_t::try_from(size_of::<Info>()).expect("a small structure");
    let level = if family == Family::V4 { libc::SOL_IP } else { libc::SOL_IPV6 };
    // SAFETY: the pointer and the length describe `info`, which is plain numbers and outlives the call.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, std::ptr::from_mut(&mut info).cast(), &raw mut len) };
    if result == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}
