//! Names of chains and sets that belong to one service port: kube-proxy's.
//!
//! Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::SocketAddr;

use sha2::{Digest, Sha256};

use crate::model::{ObjectName, Protocol};

/// Longest name without its prefix.
const LONGEST: usize = 240;

/// Eight letters of a hash, then the name itself, cut where the kernel would not take it.
fn hashed(name: &str) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha256::digest(name.as_bytes());
    let bits = digest.iter().take(5).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    let hash: String = (0..8).rev().map(|i| char::from(LETTERS[(bits >> (5 * i)) as usize & 31])).collect();
    let mut whole = format!("{hash}-{name}");
    if whole.len() > LONGEST {
        whole.truncate((0..=LONGEST - 3).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or(0));
        whole.push_str("...");
    }
    whole
}

fn plain(service: &ObjectName, protocol: Protocol, port: &str) -> String {
    format!("{service}/{protocol}/{port}")
}

/// Of a service port.
pub fn service_port(service: &ObjectName, protocol: Protocol, port: &str) -> String {
    hashed(&plain(service, protocol, port))
}

/// Of an endpoint of a service port. `base` is the port's name from [`service_port`].
pub fn endpoint(base: &str, endpoint: SocketAddr) -> String {
    let name = base.split_once('-').map_or(base, |(_, name)| name);
    hashed(&format!("{name}__{}/{}", endpoint.ip().to_string().replace(':', "."), endpoint.port()))
}

/// A number from a name, of so many bits.
pub fn number(name: &str, bits: u32) -> u32 {
    let digest = Sha256::digest(name.as_bytes());
    let word = u32::from_be_bytes([digest[8], digest[9], digest[10], digest[11]]);
    word >> (32 - bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kube_proxys() {
        let svc1 = ObjectName::new("ns1", "svc1");
        let p80 = service_port(&svc1, Protocol::Tcp, "p80");
        assert_eq!(p80, "ULMVA6XW-ns1/svc1/tcp/p80");
        assert_eq!(service_port(&svc1, Protocol::Tcp, ""), "6KJ5P52A-ns1/svc1/tcp/");
        assert_eq!(endpoint(&p80, "10.180.0.1:80".parse().unwrap()), "5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80");
        let v6 = "[fd00:10:244::5]:80".parse().unwrap();
        assert_eq!(endpoint(&p80, v6), "X7RBS4B7-ns1/svc1/tcp/p80__fd00.10.244..5/80");
    }

    #[test]
    fn names_at_their_limits_are_cut_and_still_differ() {
        let long = ObjectName::new(&"n".repeat(63), &"s".repeat(253));
        let [a, b] = ["port-a", "port-b"].map(|port| service_port(&long, Protocol::Udp, port));
        assert!(a.len() == 240 && a.ends_with("...") && a != b);
        let [a, b] = ["10.0.0.1:80", "10.0.0.2:80"].map(|ip| endpoint(&a, ip.parse().unwrap()));
        assert!(a.len() <= 240 && a != b);
    }
}
