//! This node's addresses, and the news that they changed.
//!
//! Owns a routing netlink socket in the actor's network namespace. Never decides which addresses answer on node
//! ports. Tests: the namespace tests.

use std::io;
use std::net::IpAddr;

use crate::backend::ipvs::ir::LINK;
use crate::netlink::attr::Messages;
use crate::netlink::route::parse_address;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, constants::NETLINK_ROUTE};

/// RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR.
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;

/// Every address of the calling thread's network namespace, with its link's name.
pub fn all() -> io::Result<Vec<(String, IpAddr)>> {
    let mut found: Vec<(String, IpAddr)> = nix::ifaddrs::getifaddrs()?
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            let ip = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
            Some((interface.interface_name, ip))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Tells when an address came or went.
pub struct Watch(TokioSocket);

impl Watch {
    /// Needs a tokio runtime with I/O.
    pub fn open() -> io::Result<Watch> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, ADDRESS_GROUPS))?;
        Ok(Watch(socket))
    }

    /// Returns at the next change on a link other than the ipvs backend's: what is there, we put there. Messages may be
    /// lost: the addresses must be read anew anyway.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(8192);
        loop {
            buffer.clear();
            match self.0.recv(&mut buffer).await {
                // The kernel dropped messages: there were changes.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                other => other.map(drop)?,
            }
            let ours = nix::net::if_::if_nametoindex(LINK).ok();
            let address_links = Messages(&buffer).map(|message| parse_address(&message).map(|address| address.link));
            if ours.is_none() || address_links.into_iter().any(|link| link != ours) {
                return Ok(());
            }
        }
    }
}
