//! The endpoints of one service port: merged from slices, then sorted into those traffic may use.
//!
//! Owns de-duplication, the terminating fall-backs and the cluster and local lists, as kube-proxy's
//! CategorizeEndpoints has them. Tests are at the end of this file.

use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::topology::Topology;
use crate::model::Endpoint;

/// Most endpoints of one list, in every backend. nftables' numbers of chains have so many bits; iptables asks half a list's
/// rules one after the other, and the kernel keeps a probability in 31 bits; IPVS looks through all destinations at each
/// change. Those beyond, by address, get no new connections.
pub const MAX_ENDPOINTS: usize = 0x3fff;

/// One endpoint of a service port: the slice's endpoint with the slice's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortEndpoint {
    pub endpoint: Endpoint,
    pub port: u16,
}

impl PortEndpoint {
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.endpoint.ip, self.port)
    }

    fn ready(&self) -> bool {
        self.endpoint.ready
    }

    /// On its way out, but still answering: used when nothing is ready.
    fn fallback(&self) -> bool {
        self.endpoint.serving && self.endpoint.terminating && !self.endpoint.ready
    }
}

/// Sorts and removes duplicates. While the controller moves an endpoint between slices it stands in both: the one
/// that is not terminating wins.
pub fn merge(mut endpoints: Vec<PortEndpoint>) -> Vec<PortEndpoint> {
    let usefulness = |e: &PortEndpoint| (e.endpoint.terminating, !e.endpoint.ready, !e.endpoint.serving);
    endpoints.sort_by(|a, b| a.address().cmp(&b.address()).then_with(|| usefulness(a).cmp(&usefulness(b))));
    endpoints.dedup_by(|later, first| later.address().cmp(&first.address()) == Ordering::Equal);
    endpoints
}

/// What a service port needs its endpoints for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    pub cluster: bool,
    pub local: bool,
}

/// The endpoints of one service port, by what traffic may use them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Categories {
    pub cluster: Arc<[SocketAddr]>,
    pub local: Arc<[SocketAddr]>,
    /// Tells "nothing anywhere" (refuse) from "nothing on this node" (drop).
    pub any: bool,
    /// Addresses of this node's pods among the above: a pod may be balanced back to itself.
    pub local_ips: Vec<IpAddr>,
    /// How many the longer list would have beyond [`MAX_ENDPOINTS`].
    pub left_out: usize,
}

/// Sorts merged endpoints into lists; `zone` is this node's.
pub fn categorize(endpoints: &[PortEndpoint], uses: Use, zone: Option<&Arc<str>>) -> Categories {
    let topology = Topology::of(endpoints.iter().map(|e| &e.endpoint), zone);
    let select = |admit: &dyn Fn(&PortEndpoint) -> bool| -> Vec<&PortEndpoint> { endpoints.iter().filter(|e| admit(e)).collect() };
    let mut cluster = Vec::new();
    if uses.cluster {
        cluster = select(&|e| e.ready() && topology.admits(&e.endpoint));
        if cluster.is_empty() {
            cluster = select(&PortEndpoint::fallback);
        }
    }
    let mut local = Vec::new();
    if uses.local {
        local = select(&|e| e.ready() && e.endpoint.local);
        if local.is_empty() {
            local = select(&|e| e.fallback() && e.endpoint.local);
        }
    }
    let any = !cluster.is_empty() || (uses.local && endpoints.iter().any(|e| e.ready() || e.fallback()));
    let left_out = cluster.len().max(local.len()).saturating_sub(MAX_ENDPOINTS);
    cluster.truncate(MAX_ENDPOINTS);
    local.truncate(MAX_ENDPOINTS);
    let mut local_ips: Vec<IpAddr> = cluster.iter().chain(&local).filter(|e| e.endpoint.local).map(|e| e.endpoint.ip).collect();
    local_ips.sort_unstable();
    local_ips.dedup();
    let addresses = |list: Vec<&PortEndpoint>| list.into_iter().map(PortEndpoint::address).collect();
    Categories { cluster: addresses(cluster), local: addresses(local), any, local_ips, left_out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Hints;

    /// An endpoint from flags: r ready, s serving, t terminating, l local, then hints: n node hint for us,
    /// N node hint for another, a/b zone hints.
    fn ep(last: u8, flags: &str) -> PortEndpoint {
        let has = |c: char| flags.contains(c);
        let zones: Box<[Arc<str>]> =
            [('a', "zone-a"), ('b', "zone-b")].iter().filter(|(c, _)| has(*c)).map(|(_, z)| Arc::from(*z)).collect();
        let this_node = (has('n') || has('N')).then_some(has('n'));
        let hints = (this_node.is_some() || !zones.is_empty()).then(|| Box::new(Hints { this_node, zones }));
        PortEndpoint {
            endpoint: Endpoint {
                ip: IpAddr::from([10, 1, 2, last]),
                ready: has('r'),
                serving: has('s') || has('r'),
                terminating: has('t'),
                local: has('l'),
                hints,
            },
            port: 80,
        }
    }

    const CLUSTER: Use = Use { cluster: true, local: false };
    const LOCAL: Use = Use { cluster: false, local: true };
    const BOTH: Use = Use { cluster: true, local: true };

    /// (flags of endpoints 1.., uses, zone) to (cluster, local, any), endpoints by last byte.
    fn check(flags: &[&str], uses: Use, zone: Option<&str>, cluster: &[u8], local: &[u8], any: bool) {
        let endpoints: Vec<_> = flags.iter().zip(1..).map(|(f, i)| ep(i, f)).collect();
        let zone = zone.map(Arc::from);
        let got = categorize(&endpoints, uses, zone.as_ref());
        let last = |list: &[SocketAddr]| -> Vec<u8> {
            list.iter()
                .map(|a| match a.ip() {
                    IpAddr::V4(v4) => v4.octets()[3],
                    IpAddr::V6(_) => 0,
                })
                .collect()
        };
        assert_eq!((last(&got.cluster), last(&got.local), got.any), (cluster.into(), local.into(), any), "{flags:?}");
    }

    #[test]
    fn ready_endpoints_serve_and_terminating_ones_stand_in() {
        check(&["r", "r", "s"], CLUSTER, None, &[1, 2], &[], true);
        check(&["", "st", "t"], CLUSTER, None, &[2], &[], true);
        check(&["r", "st"], CLUSTER, None, &[1], &[], true);
        check(&["", "s"], CLUSTER, None, &[], &[], false);
        check(&[], BOTH, None, &[], &[], false);
    }

    #[test]
    fn local_lists_fall_back_to_terminating_pods_of_this_node() {
        check(&["rl", "r"], LOCAL, None, &[], &[1], true);
        check(&["r", "stl"], BOTH, None, &[1], &[2], true);
        check(&["r", "st"], BOTH, None, &[1], &[], true);
        check(&["st", "stl"], BOTH, None, &[1, 2], &[2], true);
        check(&["r", "r"], LOCAL, None, &[], &[], true);
        check(&["", ""], LOCAL, None, &[], &[], false);
    }

    #[test]
    fn zone_hints_narrow_the_cluster_list_but_never_the_local_one() {
        check(&["ra", "rb"], CLUSTER, Some("zone-a"), &[1], &[], true);
        check(&["ra", "rbl"], BOTH, Some("zone-a"), &[1], &[2], true);
        check(&["rab", "rb"], CLUSTER, Some("zone-b"), &[1, 2], &[], true);
    }

    #[test]
    fn zone_hints_are_ignored_unless_complete_and_useful() {
        check(&["ra", "rb"], CLUSTER, None, &[1, 2], &[], true);
        check(&["ra", "r"], CLUSTER, Some("zone-a"), &[1, 2], &[], true);
        check(&["ra", "ra"], CLUSTER, Some("zone-b"), &[1, 2], &[], true);
        // Only unready endpoints in our zone: no filtering; an unready one's missing hints do not matter.
        check(&["rb", "a"], CLUSTER, Some("zone-a"), &[1], &[], true);
        check(&["ra", "rb", ""], CLUSTER, Some("zone-a"), &[1], &[], true);
        // The terminating fall-back looks at all zones.
        check(&["sta", "stb"], CLUSTER, Some("zone-a"), &[1, 2], &[], true);
    }

    #[test]
    fn node_hints_win_over_zone_hints_and_fall_back_to_them() {
        check(&["rna", "rNa", "rNb"], CLUSTER, Some("zone-a"), &[1], &[], true);
        check(&["rNa", "rNb"], CLUSTER, Some("zone-a"), &[1], &[], true);
        check(&["rn", "r"], CLUSTER, Some("zone-a"), &[1, 2], &[], true);
        check(&["rN", "rN"], CLUSTER, None, &[1, 2], &[], true);
    }

    #[test]
    fn an_endpoint_in_two_slices_counts_once_and_the_living_one_wins() {
        let merged = merge(vec![ep(2, "st"), ep(1, "r"), ep(2, "r"), ep(2, "st")]);
        assert_eq!(merged, [ep(1, "r"), ep(2, "r")]);
    }

    #[test]
    fn lists_are_cut_where_backends_end_and_it_is_said_how_much() {
        let many = |count: u32| -> Vec<PortEndpoint> {
            let with_ip = |n: u32| PortEndpoint {
                endpoint: Endpoint { ip: (0x0a00_0000 + n).to_be_bytes().into(), ..ep(0, "rl").endpoint },
                port: 80,
            };
            (0..count).map(with_ip).collect()
        };
        let got = categorize(&many(MAX_ENDPOINTS as u32), BOTH, None);
        assert_eq!((got.cluster.len(), got.local.len(), got.left_out), (MAX_ENDPOINTS, MAX_ENDPOINTS, 0));
        let got = categorize(&many(MAX_ENDPOINTS as u32 + 7), BOTH, None);
        assert_eq!(
            (got.cluster.len(), got.local.len(), got.local_ips.len(), got.left_out),
            (MAX_ENDPOINTS, MAX_ENDPOINTS, MAX_ENDPOINTS, 7)
        );
        assert_eq!(got.cluster[0].ip(), IpAddr::from([10, 0, 0, 0]));
    }

    #[test]
    fn pods_of_this_node_are_known_for_hairpins() {
        let got = categorize(&[ep(1, "rl"), ep(2, "r"), ep(3, "stl")], BOTH, None);
        assert_eq!(got.local_ips, [IpAddr::from([10, 1, 2, 1])]);
    }
}
