//! The ipsets that the rules look packets up in.
//!
//! Owns their names, types and comments, which are kube-proxy's to the letter: people and other versions look for
//! them. Never says what is in them. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::model::{Family, Protocol};
use crate::netlink::ipset::SetType;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    LoopBack,
    ClusterIp,
    ExternalIp,
    ExternalIpLocal,
    LoadBalancer,
    LoadBalancerLocal,
    LoadBalancerFw,
    LoadBalancerSourceCidr,
    LoadBalancerSourceIp,
    NodePortTcp,
    NodePortLocalTcp,
    NodePortUdp,
    NodePortLocalUdp,
    NodePortSctp,
    NodePortLocalSctp,
    HealthCheckNodePort,
    IpvsIps,
}

struct Spec {
    name: &'static str,
    /// No name is longer than 31 bytes, so some are cut.
    name_v6: &'static str,
    set_type: SetType,
    comment: &'static str,
}

impl Set {
    pub const ALL: [Set; 17] = [
        Set::LoopBack,
        Set::ClusterIp,
        Set::ExternalIp,
        Set::ExternalIpLocal,
        Set::LoadBalancer,
        Set::LoadBalancerLocal,
        Set::LoadBalancerFw,
        Set::LoadBalancerSourceCidr,
        Set::LoadBalancerSourceIp,
        Set::NodePortTcp,
        Set::NodePortLocalTcp,
        Set::NodePortUdp,
        Set::NodePortLocalUdp,
        Set::NodePortSctp,
        Set::NodePortLocalSctp,
        Set::HealthCheckNodePort,
        Set::IpvsIps,
    ];

    pub fn name(self, family: Family) -> &'static str {
        match family {
            Family::V4 => self.spec().name,
            Family::V6 => self.spec().name_v6,
        }
    }

    pub fn set_type(self) -> SetType {
        self.spec().set_type
    }

    /// What rules that use it say.
    pub fn comment(self) -> &'static str {
        self.spec().comment
    }

    pub fn from_name(name: &str, family: Family) -> Option<Set> {
        Set::ALL.into_iter().find(|set| set.name(family) == name)
    }

    /// Where a node port is, and where it also is under externalTrafficPolicy Local.
    pub fn node_ports(protocol: Protocol) -> (Set, Set) {
        match protocol {
            Protocol::Tcp => (Set::NodePortTcp, Set::NodePortLocalTcp),
            Protocol::Udp => (Set::NodePortUdp, Set::NodePortLocalUdp),
            Protocol::Sctp => (Set::NodePortSctp, Set::NodePortLocalSctp),
        }
    }

    /// Whether there are rules that are there only when the set has entries.
    pub fn decides_rules(self) -> bool {
        !matches!(self, Set::HealthCheckNodePort | Set::IpvsIps)
    }

    // A flat table.
    fn spec(self) -> Spec {
        let (name, name_v6, set_type, comment) = match self {
            Set::LoopBack => (
                "KUBE-LOOP-BACK",
                "KUBE-6-LOOP-BACK",
                SetType::IpPortIp,
                "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose",
            ),
            Set::ClusterIp => {
                ("KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP", SetType::IpPort, "Kubernetes service cluster ip + port for masquerade purpose")
            }
            Set::ExternalIp => (
                "KUBE-EXTERNAL-IP",
                "KUBE-6-EXTERNAL-IP",
                SetType::IpPort,
                "Kubernetes service external ip + port for masquerade and filter purpose",
            ),
            Set::ExternalIpLocal => (
                "KUBE-EXTERNAL-IP-LOCAL",
                "KUBE-6-EXTERNAL-IP-LOCAL",
                SetType::IpPort,
                "Kubernetes service external ip + port with externalTrafficPolicy=local",
            ),
            Set::LoadBalancer => ("KUBE-LOAD-BALANCER", "KUBE-6-LOAD-BALANCER", SetType::IpPort, "Kubernetes service lb portal"),
            Set::LoadBalancerLocal => (
                "KUBE-LOAD-BALANCER-LOCAL",
                "KUBE-6-LOAD-BALANCER-LOCAL",
                SetType::IpPort,
                "Kubernetes service load balancer ip + port with externalTrafficPolicy=local",
            ),
            Set::LoadBalancerFw => (
                "KUBE-LOAD-BALANCER-FW",
                "KUBE-6-LOAD-BALANCER-FW",
                SetType::IpPort,
                "Kubernetes service load balancer ip + port for load balancer with sourceRange",
            ),
            Set::LoadBalancerSourceCidr => (
                "KUBE-LOAD-BALANCER-SOURCE-CIDR",
                "KUBE-6-LOAD-BALANCER-SOURCE-CID",
                SetType::IpPortNet,
                "Kubernetes service load balancer ip + port + source cidr for packet filter purpose",
            ),
            Set::LoadBalancerSourceIp => (
                "KUBE-LOAD-BALANCER-SOURCE-IP",
                "KUBE-6-LOAD-BALANCER-SOURCE-IP",
                SetType::IpPortIp,
                "Kubernetes service load balancer ip + port + source IP for packet filter purpose",
            ),
            Set::NodePortTcp => {
                ("KUBE-NODE-PORT-TCP", "KUBE-6-NODE-PORT-TCP", SetType::Port, "Kubernetes nodeport TCP port for masquerade purpose")
            }
            Set::NodePortLocalTcp => (
                "KUBE-NODE-PORT-LOCAL-TCP",
                "KUBE-6-NODE-PORT-LOCAL-TCP",
                SetType::Port,
                "Kubernetes nodeport TCP port with externalTrafficPolicy=local",
            ),
            Set::NodePortUdp => {
                ("KUBE-NODE-PORT-UDP", "KUBE-6-NODE-PORT-UDP", SetType::Port, "Kubernetes nodeport UDP port for masquerade purpose")
            }
            Set::NodePortLocalUdp => (
                "KUBE-NODE-PORT-LOCAL-UDP",
                "KUBE-6-NODE-PORT-LOCAL-UDP",
                SetType::Port,
                "Kubernetes nodeport UDP port with externalTrafficPolicy=local",
            ),
            Set::NodePortSctp => (
                "KUBE-NODE-PORT-SCTP-HASH",
                "KUBE-6-NODE-PORT-SCTP-HASH",
                SetType::IpPort,
                "Kubernetes nodeport SCTP port for masquerade purpose with type 'hash ip:port'",
            ),
            Set::NodePortLocalSctp => (
                "KUBE-NODE-PORT-LOCAL-SCTP-HASH",
                "KUBE-6-NODE-PORT-LOCAL-SCTP-HAS",
                SetType::IpPort,
                "Kubernetes nodeport SCTP port with externalTrafficPolicy=local with type 'hash ip:port'",
            ),
            Set::HealthCheckNodePort => {
                ("KUBE-HEALTH-CHECK-NODE-PORT", "KUBE-6-HEALTH-CHECK-NODE-PORT", SetType::Port, "Kubernetes health check node port")
            }
            Set::IpvsIps => ("KUBE-IPVS-IPS", "KUBE-6-IPVS-IPS", SetType::Ip, "Addresses on the ipvs interface"),
        };
        Spec { name, name_v6, set_type, comment }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ipv6_sets_are_cut_to_what_fits() {
        for set in Set::ALL {
            let long = set.name(Family::V4).replacen("KUBE-", "KUBE-6-", 1);
            assert_eq!(set.name(Family::V6), &long[..long.len().min(31)]);
            assert_eq!(Set::from_name(set.name(Family::V6), Family::V6), Some(set));
            assert_eq!(Set::from_name(set.name(Family::V6), Family::V4), None);
        }
    }
}
