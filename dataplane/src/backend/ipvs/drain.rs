//! Destinations on their way out: closed to new connections, and deleted when their last connection is gone or their
//! time is up.
//!
//! Owns who they are and when to look at them again. Time comes in as the time since some fixed moment. Never talks to
//! the kernel. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::ir::Server;

/// How often connections are counted while something drains.
pub const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Drain {
    /// How long a destination may keep its connections.
    bound: Duration,
    /// When each one's time is up.
    leaving: BTreeMap<Server, BTreeMap<SocketAddr, Duration>>,
    next_look: Option<Duration>,
}

impl Drain {
    pub fn new(bound: Duration) -> Drain {
        Drain { bound, leaving: BTreeMap::new(), next_look: None }
    }

    /// Begins to drain a destination; its time runs from the first call.
    pub fn begin(&mut self, server: Server, address: SocketAddr, now: Duration) {
        self.leaving.entry(server).or_default().entry(address).or_insert(now + self.bound);
        self.next_look.get_or_insert(now + LOOK);
    }

    /// Stops draining it: it is gone, or wanted again.
    pub fn end(&mut self, server: &Server, address: &SocketAddr) {
        if let Some(leaving) = self.leaving.get_mut(server) {
            leaving.remove(address);
            if leaving.is_empty() {
                self.end_server(server);
            }
        }
    }

    pub fn end_server(&mut self, server: &Server) {
        self.leaving.remove(server);
        if self.leaving.is_empty() {
            self.next_look = None;
        }
    }

    pub fn is_leaving(&self, server: &Server, address: &SocketAddr) -> bool {
        self.leaving.get(server).is_some_and(|leaving| leaving.contains_key(address))
    }

    /// When to look at connections next.
    pub fn next_look(&self) -> Option<Duration> {
        self.next_look
    }

    /// The servers to look at, when it is time; the next look is then later.
    pub fn due(&mut self, now: Duration) -> Vec<Server> {
        if self.next_look.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.next_look = Some(now + LOOK);
        self.leaving.keys().copied().collect()
    }

    /// Which of a server's destinations may be deleted, by how many connections each has.
    pub fn finished(&self, server: &Server, connections: impl Fn(&SocketAddr) -> u64, now: Duration) -> Vec<SocketAddr> {
        let leaving = self.leaving.get(server).into_iter().flatten();
        leaving.filter(|(address, until)| now >= **until || connections(address) == 0).map(|(address, _)| *address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    const SERVER: Server = Server { ip: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1)), protocol: Protocol::Tcp, port: 80 };

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 1, 0, last], 80))
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_destination_leaves_when_it_is_idle_or_its_time_is_up() {
        let mut drain = Drain::new(at(30));
        drain.begin(SERVER, address(1), at(0));
        drain.begin(SERVER, address(2), at(10));
        drain.begin(SERVER, address(1), at(10));
        assert!(drain.due(Duration::from_millis(999)).is_empty());
        assert_eq!(drain.due(at(1)), [SERVER]);
        assert!(drain.due(at(1)).is_empty(), "the next look is later");
        let busy = |_: &SocketAddr| 3;
        assert!(drain.finished(&SERVER, busy, at(29)).is_empty());
        assert_eq!(drain.finished(&SERVER, busy, at(30)), [address(1)], "time runs from the first removal");
        assert_eq!(drain.finished(&SERVER, |a| u64::from(*a == address(1)), at(12)), [address(2)]);
    }

    #[test]
    fn nothing_is_looked_at_when_nothing_drains() {
        let mut drain = Drain::new(at(30));
        assert_eq!(drain.next_look(), None);
        drain.begin(SERVER, address(1), at(5));
        assert_eq!(drain.next_look(), Some(at(6)));
        drain.end(&SERVER, &address(1));
        assert_eq!(drain.next_look(), None);
        assert!(drain.due(at(100)).is_empty());
    }
}
