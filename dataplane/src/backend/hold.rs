//! Sockets that keep node ports from local processes.
//!
//! Packets to a node port never reach a socket, so a local process may listen on the same number and wonder why nobody
//! comes. Old proxies held each port with a socket; as an option, so does this. Owns those sockets, around any plane.
//! Nobody listens on them and nobody reads them. Tests: `tests/hold.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};

use super::{BackendError, Found, NodeAddresses, Plane, Written};
use crate::events::Event;
use crate::metrics::Counts;
use crate::model::{Cidr, Family, FrontendKey, ObjectName, Protocol};
use crate::resolve::Resolved;
use crate::snapshot::{ServiceSnapshot, Traffic};

/// Ports that a local process has are tried again after this.
const RETRY: Duration = Duration::from_secs(30);

type Port = (Protocol, u16);

/// A plane whose node ports are held.
pub struct Holding {
    inner: Box<dyn Plane>,
    /// Node ports of each service.
    wanted: HashMap<ObjectName, Vec<Port>>,
    held: BTreeMap<Port, OwnedFd>,
    taken: BTreeSet<Port>,
    touched: bool,
    retry: Option<Instant>,
}

impl Holding {
    pub fn around(inner: Box<dyn Plane>) -> Holding {
        Holding { inner, wanted: HashMap::new(), held: BTreeMap::new(), taken: BTreeSet::new(), touched: false, retry: None }
    }

    fn settle(&mut self, now: Instant) {
        let due = self.retry.is_some_and(|at| at <= now);
        if !std::mem::take(&mut self.touched) && !due {
            return;
        }
        let owners: BTreeMap<Port, &ObjectName> =
            self.wanted.iter().flat_map(|(name, ports)| ports.iter().map(move |port| (*port, name))).collect();
        self.held.retain(|port, _| owners.contains_key(port));
        self.taken.retain(|port| owners.contains_key(port));
        for (port, owner) in &owners {
            if self.held.contains_key(port) || (self.taken.contains(port) && !due) {
                continue;
            }
            match hold(self.inner.family(), *port) {
                Ok(socket) => {
                    self.taken.remove(port);
                    self.held.insert(*port, socket);
                }
                Err(error) => {
                    if self.taken.insert(*port) {
                        let (protocol, number) = port;
                        tracing::warn!(service = %owner, %protocol, port = number, %error, "cannot hold a node port; a local process may have it, and will get no packets from outside");
                    }
                }
            }
        }
        self.retry = (!self.taken.is_empty()).then(|| now + RETRY);
    }
}

/// A bound socket that is not listened on: connections that reach it are refused.
fn hold(family: Family, (protocol, port): Port) -> io::Result<OwnedFd> {
    let (address_family, any) = match family {
        Family::V4 => (AddressFamily::Inet, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        Family::V6 => (AddressFamily::Inet6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
        Protocol::Sctp => return Err(io::ErrorKind::Unsupported.into()),
    };
    let socket = socket(address_family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if family == Family::V6 {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if kind == SockType::Datagram {
        // What reaches it is never read: the kernel makes this its smallest queue.
        setsockopt(&socket, sockopt::RcvBuf, &0)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, port)))?;
    Ok(socket)
}

impl Plane for Holding {
    fn set(&mut self, name: &ObjectName, resolved: Resolved) {
        let port = |key: &FrontendKey| match *key {
            FrontendKey::NodePort { protocol, port } if protocol != Protocol::Sctp => Some((protocol, port)),
            _ => None,
        };
        let ports: Vec<Port> = resolved.frontends.iter().filter_map(|frontend| port(&frontend.key)).collect();
        let before = if ports.is_empty() { self.wanted.remove(name) } else { self.wanted.insert(name.clone(), ports.clone()) };
        self.touched |= before.unwrap_or_default() != ports;
        self.inner.set(name, resolved);
    }

    fn apply(&mut self, now: Instant) -> Result<Written, BackendError> {
        self.settle(now);
        self.inner.apply(now)
    }

    fn is_touched(&self) -> bool {
        self.touched || self.inner.is_touched()
    }

    fn next_deadline(&self) -> Option<Instant> {
        [self.retry, self.inner.next_deadline()].into_iter().flatten().min()
    }

    fn delete(&mut self) -> Result<(), BackendError> {
        self.held.clear();
        self.inner.delete()
    }

    fn family(&self) -> Family {
        self.inner.family()
    }

    fn needs_read(&self) -> bool {
        self.inner.needs_read()
    }

    fn forget(&mut self) {
        self.inner.forget();
    }

    fn read(&mut self) -> Result<Found, BackendError> {
        self.inner.read()
    }

    fn set_node_addresses(&mut self, addresses: NodeAddresses) {
        self.inner.set_node_addresses(addresses);
    }

    fn set_service_cidrs(&mut self, cidrs: &[Cidr]) {
        self.inner.set_service_cidrs(cidrs);
    }

    fn traffic(&mut self) -> Result<Vec<Traffic>, BackendError> {
        self.inner.traffic()
    }

    fn wants_addresses(&self) -> bool {
        self.inner.wants_addresses()
    }

    fn audit(&mut self, now: Instant) -> Result<bool, BackendError> {
        self.inner.audit(now)
    }

    fn alarm(&self) -> Option<BorrowedFd<'_>> {
        self.inner.alarm()
    }

    fn take_events(&mut self) -> Vec<Event> {
        self.inner.take_events()
    }

    fn take_counts(&mut self) -> Counts {
        self.inner.take_counts()
    }

    fn frontends(&self) -> usize {
        self.inner.frontends()
    }

    fn services(&self) -> Vec<ServiceSnapshot> {
        self.inner.services()
    }
}
