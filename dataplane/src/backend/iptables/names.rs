//! Names of chains, as kube-proxy gives them: fixed ones, and those made of hashes.
//!
//! Owns the hashes by which tools and other proxies find a service's chains. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::net::SocketAddr;

use sha2::{Digest, Sha256};

use crate::model::{ObjectName, Protocol};

/// RFC 4648.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const HASH_LETTERS: usize = 16;

/// `ns/name:port`, or `ns/name` when the port has no name: how comments, hashes and logs call a service port.
pub fn service_port(service: &ObjectName, port: &str) -> String {
    if port.is_empty() { service.to_string() } else { format!("{service}:{port}") }
}

/// The first 80 bits of a SHA-256: 16 letters of base32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainHash([u8; HASH_LETTERS]);

impl ChainHash {
    /// Of a service port.
    pub fn of_port(service_port: &str, protocol: Protocol) -> ChainHash {
        ChainHash::of(&format!("{service_port}{protocol}"))
    }

    /// Of an endpoint of a service port.
    pub fn of_endpoint(service_port: &str, protocol: Protocol, endpoint: SocketAddr) -> ChainHash {
        ChainHash::of(&format!("{service_port}{protocol}{endpoint}"))
    }

    fn of(text: &str) -> ChainHash {
        let digest = Sha256::digest(text.as_bytes());
        let mut letters = [0; HASH_LETTERS];
        for (group, chunk) in letters.chunks_exact_mut(8).zip(digest.chunks_exact(5)) {
            let bits = chunk.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
            for (letter, shift) in group.iter_mut().zip((0..8).rev()) {
                *letter = BASE32[(bits >> (shift * 5) & 31) as usize];
            }
        }
        ChainHash(letters)
    }

    fn parse(text: &str) -> Option<ChainHash> {
        let letters: [u8; HASH_LETTERS] = text.as_bytes().try_into().ok()?;
        letters.iter().all(|letter| BASE32.contains(letter)).then_some(ChainHash(letters))
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base32 is ASCII")
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the kernel enters a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuiltIn {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// Chains that every node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fixed {
    Services,
    ExternalServices,
    NodePorts,
    Postrouting,
    MarkMasq,
    Forward,
    ProxyFirewall,
    /// The kubelet's, too.
    Firewall,
    Canary,
}

/// What a chain of a service port does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Balances over the cluster list.
    Cluster,
    /// Balances over the local list.
    Local,
    /// Where external destinations enter.
    External,
    /// Checks the sources that may use a load balancer's address.
    Firewall,
    /// One endpoint.
    Endpoint,
}

/// A chain. Names that we would never give have none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    BuiltIn(BuiltIn),
    Fixed(Fixed),
    Of(Kind, ChainHash),
}

const BUILT_IN: [(BuiltIn, &str); 5] = [
    (BuiltIn::Prerouting, "PREROUTING"),
    (BuiltIn::Input, "INPUT"),
    (BuiltIn::Forward, "FORWARD"),
    (BuiltIn::Output, "OUTPUT"),
    (BuiltIn::Postrouting, "POSTROUTING"),
];

const FIXED: [(Fixed, &str); 9] = [
    (Fixed::Services, "KUBE-SERVICES"),
    (Fixed::ExternalServices, "KUBE-EXTERNAL-SERVICES"),
    (Fixed::NodePorts, "KUBE-NODEPORTS"),
    (Fixed::Postrouting, "KUBE-POSTROUTING"),
    (Fixed::MarkMasq, "KUBE-MARK-MASQ"),
    (Fixed::Forward, "KUBE-FORWARD"),
    (Fixed::ProxyFirewall, "KUBE-PROXY-FIREWALL"),
    (Fixed::Firewall, "KUBE-FIREWALL"),
    (Fixed::Canary, "KUBE-PROXY-CANARY"),
];

const KINDS: [(Kind, &str); 5] = [
    (Kind::Cluster, "KUBE-SVC-"),
    (Kind::Local, "KUBE-SVL-"),
    (Kind::External, "KUBE-EXT-"),
    (Kind::Firewall, "KUBE-FW-"),
    (Kind::Endpoint, "KUBE-SEP-"),
];

fn name_of<T: PartialEq>(table: &[(T, &'static str)], wanted: &T) -> &'static str {
    table.iter().find(|(held, _)| held == wanted).map(|(_, name)| *name).expect("the tables hold every variant")
}

impl Chain {
    pub fn parse(text: &str) -> Option<Chain> {
        let built_in = BUILT_IN.iter().find(|(_, name)| *name == text).map(|(held, _)| Chain::BuiltIn(*held));
        let fixed = || FIXED.iter().find(|(_, name)| *name == text).map(|(held, _)| Chain::Fixed(*held));
        let hashed = || KINDS.iter().find_map(|(kind, prefix)| Some(Chain::Of(*kind, ChainHash::parse(text.strip_prefix(prefix)?)?)));
        built_in.or_else(fixed).or_else(hashed)
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Chain::BuiltIn(chain) => f.write_str(name_of(&BUILT_IN, chain)),
            Chain::Fixed(chain) => f.write_str(name_of(&FIXED, chain)),
            Chain::Of(kind, hash) => write!(f, "{}{}", name_of(&KINDS, kind), hash.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the specification's test vectors.
    #[test]
    fn hashes_are_those_of_kube_proxy() {
        let vectors = [
            ("ns1/svc1", "p80", Protocol::Tcp, "XPGD46QRK7WJZT7O"),
            ("default/kubernetes", "https", Protocol::Tcp, "NPX46M4PTMTKRN6Y"),
            ("default/kubernetes", "", Protocol::Tcp, "MBEGLAPII7DDIM3R"),
            ("kube-system/kube-dns", "dns", Protocol::Udp, "TCOU7JCQXEZGVUNU"),
            ("kube-system/kube-dns", "dns-tcp", Protocol::Tcp, "ERIFXISQEP7F7OF4"),
        ];
        for (service, port, protocol, expected) in vectors {
            let (namespace, name) = service.split_once('/').unwrap();
            let service_port = service_port(&ObjectName::new(namespace, name), port);
            assert_eq!(ChainHash::of_port(&service_port, protocol).as_str(), expected, "{service_port}");
        }
        for (endpoint, expected) in [("10.180.0.1:80", "SXIVWICOYRO3J4NJ"), ("[fd00:10:244::5]:80", "JR6YXXN6Y3V4FLYE")] {
            let hash = ChainHash::of_endpoint("ns1/svc1:p80", Protocol::Tcp, endpoint.parse().unwrap());
            assert_eq!(hash.as_str(), expected, "{endpoint}");
        }
    }

    #[test]
    fn every_name_is_read_back_and_others_are_not_ours() {
        let hash = ChainHash::of("x");
        let hashed = KINDS.iter().map(|(kind, _)| Chain::Of(*kind, hash));
        let all = FIXED.iter().map(|(c, _)| Chain::Fixed(*c)).chain(BUILT_IN.iter().map(|(c, _)| Chain::BuiltIn(*c))).chain(hashed);
        for chain in all {
            assert_eq!(Chain::parse(&chain.to_string()), Some(chain));
            // iptables takes names of up to 28 letters.
            assert!(chain.to_string().len() <= 28, "{chain}");
        }
        for other in ["KUBE-SVC-", "KUBE-SVC-abc", "KUBE-KUBELET-CANARY", "KUBE-MARK-DROP", "DOCKER", ""] {
            assert_eq!(Chain::parse(other), None, "{other}");
        }
    }
}
