//! The certificates by which a node is known: what they say, what it asks for, and when it is time for the next.
//!
//! The rules are those of client-go's certificate manager as a kubelet uses it. Must never read a file or a clock, nor
//! make a key. Tests: at the end of this file.

use crate::api::access::NODE_GROUP;
use crate::api::signing::{KUBELET, SERVING};
use crate::time::Wall;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use x509_parser::extensions::{GeneralName, SubjectAlternativeName};

/// What a certificate says, with the end of the shortest-lived one of its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub from: Wall,
    pub until: Wall,
    pub user: String,
    pub groups: Vec<String>,
    pub dns: BTreeSet<String>,
    pub ips: BTreeSet<IpAddr>,
}

/// Reads a chain in PEM, in which other things may stand as well. The error says what is wrong with it.
pub fn read(pem: &[u8]) -> Result<Certificate, String> {
    let mut read: Option<Certificate> = None;
    for der in CertificateDer::pem_slice_iter(pem) {
        let der = der.map_err(|e| e.to_string())?;
        let (_, c) = x509_parser::parse_x509_certificate(&der).map_err(|e| e.to_string())?;
        let until = Wall::from_seconds(c.validity().not_after.timestamp());
        match &mut read {
            Some(leaf) => leaf.until = leaf.until.min(until),
            None => read = Some(leaf(&c, until)),
        }
    }
    read.ok_or_else(|| "there is no certificate in it".to_owned())
}

fn leaf(c: &x509_parser::certificate::X509Certificate<'_>, until: Wall) -> Certificate {
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().unwrap_or_default().to_owned();
    let names = c.subject_alternative_name().ok().flatten();
    let (dns, ips) = names.map(|n| hosts(n.value)).unwrap_or_default();
    Certificate {
        from: Wall::from_seconds(c.validity().not_before.timestamp()),
        until,
        user: c.subject().iter_common_name().next().map(text).unwrap_or_default(),
        groups: c.subject().iter_organization().map(text).collect(),
        dns,
        ips,
    }
}

/// Names and addresses of hosts.
pub type Hosts = (BTreeSet<String>, BTreeSet<IpAddr>);

pub(super) fn hosts(names: &SubjectAlternativeName<'_>) -> Hosts {
    let (mut dns, mut ips) = Hosts::default();
    for name in &names.general_names {
        match name {
            GeneralName::DNSName(n) => drop(dns.insert((*n).to_owned())),
            GeneralName::IPAddress(bytes) => ips.extend(address(bytes)),
            _ => {}
        }
    }
    (dns, ips)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match *bytes {
        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

impl Certificate {
    pub fn has_ended(&self, now: Wall) -> bool {
        now > self.until
    }

    /// When to ask for the next: after 70 to 90 % of its life, so that nodes that were born together do not ask together
    /// for ever. One that came late in its life is used for half of what was left of it: a signer with an odd clock must
    /// not be asked again and again.
    pub fn rotate_at(&self, came: Wall, chance: f64) -> Wall {
        let due = self.from + self.until.since(self.from).mul_f64(0.7 + 0.2 * chance.clamp(0.0, 1.0));
        due.max(came + self.until.since(came) / 2)
    }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be known to the API server.
    Client,
    /// To serve the kubelet's port.
    Serving,
}

impl Purpose {
    pub fn signer(self) -> &'static str {
        match self {
            Purpose::Client => KUBELET,
            Purpose::Serving => SERVING,
        }
    }

    /// Of keys on elliptic curves, which encipher no others.
    pub fn usages(self) -> [&'static str; 2] {
        ["digital signature", if self == Purpose::Client { "client auth" } else { "server auth" }]
    }

    /// How its files begin.
    pub fn prefix(self) -> &'static str {
        match self {
            Purpose::Client => "kubelet-client",
            Purpose::Serving => "kubelet-server",
        }
    }

    /// As people call it.
    pub fn word(self) -> &'static str {
        match self {
            Purpose::Client => "client",
            Purpose::Serving => "serving",
        }
    }
}

/// What a node asks to have certified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub purpose: Purpose,
    pub user: String,
    pub dns: BTreeSet<String>,
    pub ips: BTreeSet<IpAddr>,
}

impl Wish {
    pub const GROUP: &'static str = NODE_GROUP;

    pub fn client(node: &str) -> Wish {
        Wish { purpose: Purpose::Client, user: format!("system:node:{node}"), dns: BTreeSet::new(), ips: BTreeSet::new() }
    }

    /// For the `status.addresses` of a node. None: there is no address yet; names alone are not asked for.
    pub fn serving(node: &str, addresses: &Value) -> Option<Wish> {
        let (mut dns, mut ips) = (BTreeSet::new(), BTreeSet::new());
        for a in addresses.as_array().into_iter().flatten() {
            let text = a["address"].as_str().unwrap_or_default();
            match (a["type"].as_str().unwrap_or_default(), text.parse::<IpAddr>()) {
                ("Hostname" | "InternalIP" | "ExternalIP", Ok(ip)) => drop(ips.insert(ip)),
                ("Hostname" | "InternalDNS" | "ExternalDNS", _) if !text.is_empty() => drop(dns.insert(text.to_owned())),
                _ => {}
            }
        }
        (!ips.is_empty()).then(|| Wish { purpose: Purpose::Serving, user: format!("system:node:{node}"), dns, ips })
    }

    /// More than what is wished for does no harm.
    pub fn is_met_by(&self, c: &Certificate) -> bool {
        c.user == self.user && c.groups.iter().any(|g| g == Wish::GROUP) && self.dns.is_subset(&c.dns) && self.ips.is_subset(&c.ips)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use serde_json::json;
    use std::time::{Duration, UNIX_EPOCH};

    fn pem(user: &str, from: u64, until: u64, names: &[SanType]) -> String {
        let mut p = CertificateParams::default();
        p.distinguished_name.push(DnType::OrganizationName, NODE_GROUP);
        p.distinguished_name.push(DnType::CommonName, user);
        p.subject_alt_names = names.to_vec();
        p.not_before = (UNIX_EPOCH + Duration::from_secs(from)).into();
        p.not_after = (UNIX_EPOCH + Duration::from_secs(until)).into();
        p.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn at(s: i64) -> Wall {
        Wall::from_seconds(s)
    }

    #[test]
    fn a_chain_is_good_until_the_first_of_it_ends() {
        let key = KeyPair::generate().unwrap().serialize_pem();
        let text = format!("{key}{}{}", pem("system:node:n", 1000, 9000, &[]), pem("authority", 0, 5000, &[]));
        let c = read(text.as_bytes()).unwrap();
        assert_eq!(
            (c.user.as_str(), c.groups.as_slice(), c.from, c.until),
            ("system:node:n", &[NODE_GROUP.to_owned()][..], at(1000), at(5000))
        );
        assert!(!c.has_ended(at(5000)) && c.has_ended(at(5001)));
        assert_eq!(read(key.as_bytes()).unwrap_err(), "there is no certificate in it");
        assert!(read(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    }

    #[test]
    fn the_next_is_asked_for_after_seventy_to_ninety_percent_of_the_life() {
        let c = read(pem("system:node:n", 1000, 2000, &[]).as_bytes()).unwrap();
        let due = |came, chance| c.rotate_at(at(came), chance).seconds();
        assert_eq!((due(1000, 0.0), due(1000, 1.0), due(1000, 7.0)), (1700, 1900, 1900));
        assert_eq!(due(1800, 0.0), 1900, "half of what was left");
        assert_eq!(due(3000, 0.0), 3000, "it had ended when it came");
        // A signer dates ten minutes back by five: the least that a cluster signs is still rotated at its time.
        let least = read(pem("system:node:n", 700, 1600, &[]).as_bytes()).unwrap();
        assert_eq!(least.rotate_at(at(1000), 0.0).seconds(), 1330);
    }

    #[test]
    fn a_serving_certificate_is_for_the_nodes_addresses() {
        let address = |t: &str, a: &str| json!({"type": t, "address": a});
        let none = json!([address("Hostname", "n.example"), address("InternalDNS", "x")]);
        assert_eq!(Wish::serving("n", &none), None, "no address yet");
        assert_eq!(Wish::serving("n", &Value::Null), None);
        let all = json!([
            address("Hostname", "10.0.0.9"),
            address("InternalIP", "10.0.0.1"),
            address("InternalIP", "fd00::1"),
            address("ExternalDNS", "n.example"),
            address("InternalIP", "10.0.0.1"),
            address("ExternalIP", "odd"),
            address("ExternalDNS", "")
        ]);
        let wish = Wish::serving("n", &all).unwrap();
        let ips: Vec<String> = wish.ips.iter().map(IpAddr::to_string).collect();
        assert_eq!(ips, ["10.0.0.1", "10.0.0.9", "fd00::1"]);
        assert_eq!(wish.dns.iter().collect::<Vec<_>>(), ["n.example"]);
        let san = |ips: &[&str]| -> Vec<SanType> {
            let dns = ["n.example", "more.example"].map(|n| SanType::DnsName(n.try_into().unwrap()));
            ips.iter().map(|i| SanType::IpAddress(i.parse().unwrap())).chain(dns).collect()
        };
        let has = |user: &str, ips: &[&str]| wish.is_met_by(&read(pem(user, 0, 1, &san(ips)).as_bytes()).unwrap());
        assert!(has("system:node:n", &["10.0.0.1", "10.0.0.9", "fd00::1"]));
        assert!(!has("system:node:n", &["10.0.0.1", "fd00::1"]), "one is missing");
        assert!(!has("system:node:m", &["10.0.0.1", "10.0.0.9", "fd00::1"]), "somebody else's");
        assert!(Wish::client("n").is_met_by(&read(pem("system:node:n", 0, 1, &[]).as_bytes()).unwrap()));
    }
}
