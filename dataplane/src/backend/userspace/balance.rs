//! Whose turn it is, and who stays with whom.
//!
//! Owns one service port's round robin and its clients' affinity. Time comes in as what has passed since some start.
//! Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Clients remembered; those beyond are balanced unremembered.
const MOST_CLIENTS: usize = 262_144;

#[derive(Debug, Default)]
pub struct Balancer {
    next: usize,
    /// With whom a client is, and when it came last.
    clients: HashMap<IpAddr, (SocketAddr, Duration)>,
}

impl Balancer {
    /// The endpoints in the order in which they are to be tried for a new connection.
    pub fn order(&mut self, client: IpAddr, endpoints: &Arc<[SocketAddr]>, affinity: Option<Duration>, now: Duration) -> Vec<SocketAddr> {
        if endpoints.is_empty() {
            return Vec::new();
        }
        let start = self.next % endpoints.len();
        self.next = start + 1;
        let mut order: Vec<SocketAddr> = endpoints[start..].iter().chain(&endpoints[..start]).copied().collect();
        if let Some(kept) = affinity.and_then(|seconds| self.kept(client, seconds, now))
            && let Some(at) = order.iter().position(|endpoint| *endpoint == kept)
        {
            order[..=at].rotate_right(1);
        }
        order
    }

    fn kept(&self, client: IpAddr, affinity: Duration, now: Duration) -> Option<SocketAddr> {
        let (endpoint, last) = self.clients.get(&client)?;
        (now.saturating_sub(*last) <= affinity).then_some(*endpoint)
    }

    /// A client's connection reached this endpoint.
    pub fn reached(&mut self, client: IpAddr, endpoint: SocketAddr, affinity: Option<Duration>, now: Duration) {
        let Some(affinity) = affinity else {
            self.clients.clear();
            return;
        };
        if self.clients.len() >= MOST_CLIENTS && !self.clients.contains_key(&client) {
            self.clients.retain(|_, (_, last)| now.saturating_sub(*last) <= affinity);
        }
        if self.clients.len() < MOST_CLIENTS || self.clients.contains_key(&client) {
            self.clients.insert(client, (endpoint, now));
        }
    }

    /// An endpoint did not answer a client: it need not stay.
    pub fn failed(&mut self, client: IpAddr) {
        self.clients.remove(&client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(lasts: &[u8]) -> Arc<[SocketAddr]> {
        lasts.iter().map(|last| SocketAddr::from(([10, 1, 0, *last], 80))).collect()
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));

    #[test]
    fn everybody_has_a_turn_and_the_others_are_tried_after() {
        let (mut balancer, three) = (Balancer::default(), endpoints(&[1, 2, 3]));
        let mut first = || balancer.order(CLIENT, &three, None, Duration::ZERO)[0];
        let turns: Vec<SocketAddr> = (0..6).map(|_| first()).collect();
        assert_eq!(turns[..3], turns[3..]);
        assert_eq!(turns[..3], three[..]);
        let order = balancer.order(CLIENT, &three, None, Duration::ZERO);
        assert_eq!(order.len(), 3);
        assert!(three.iter().all(|endpoint| order.contains(endpoint)));
        assert!(balancer.order(CLIENT, &endpoints(&[]), None, Duration::ZERO).is_empty());
    }

    #[test]
    fn a_client_stays_until_its_time_is_over_or_its_endpoint_gone() {
        let (mut balancer, three) = (Balancer::default(), endpoints(&[1, 2, 3]));
        let affinity = Some(Duration::from_secs(10));
        let at = Duration::from_secs;
        balancer.reached(CLIENT, three[2], affinity, at(0));
        for second in [1, 5, 10] {
            assert_eq!(balancer.order(CLIENT, &three, affinity, at(second))[0], three[2]);
        }
        // The others keep their order behind it.
        assert_eq!(balancer.order(CLIENT, &three, affinity, at(10)), [three[2], three[0], three[1]]);
        balancer.reached(CLIENT, three[2], affinity, at(8));
        assert_eq!(balancer.order(CLIENT, &three, affinity, at(18))[0], three[2], "the last connection counts");
        assert_eq!(balancer.kept(CLIENT, at(10), at(19)), None);
        balancer.reached(CLIENT, three[2], affinity, at(20));
        let two = endpoints(&[1, 2]);
        assert!(two.contains(&balancer.order(CLIENT, &two, affinity, at(21))[0]));
        balancer.failed(CLIENT);
        assert_eq!(balancer.kept(CLIENT, at(10), at(21)), None);
    }
}
