//! Certificates in DER, as the authority of this node writes them.
//!
//! Written by hand since a library's names hold each kind of attribute once, and a client is in any number of groups.
//! Must never sign: what is to be signed goes out, a signature comes in. Tests: at the end of this file.

use crate::time::Wall;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const UTF8: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const LONG_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]` and `[3]` around what is inside.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// `[0]` in the place of another tag.
const KEY_ID: u8 = 0x80;
const TRUE: [u8; 3] = [0x01, 0x01, 0xff];

const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANIZATION: &[u8] = &[0x55, 4, 10];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 17];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const AUTHORITY: &[u8] = &[0x55, 0x1d, 35];
const EXTENDED_USAGE: &[u8] = &[0x55, 0x1d, 37];
/// id-kp-serverAuth, id-kp-clientAuth
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// How an authority signs, as certificates name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    EcdsaSha256,
    EcdsaSha384,
    Ed25519,
}

/// The certificate of somebody who signs no others.
#[derive(Clone, Debug)]
pub struct Leaf<'a> {
    pub serial: [u8; 16],
    /// Names in DER.
    pub issuer: &'a [u8],
    pub subject: &'a [u8],
    pub from: Wall,
    pub until: Wall,
    /// SubjectPublicKeyInfo in DER.
    pub key: &'a [u8],
    /// Of the authority; empty: it has none.
    pub authority: &'a [u8],
    /// GeneralNames in DER; empty: none.
    pub names: &'a [u8],
    /// The key may also encipher other keys, as RSA can.
    pub encipherment: bool,
    pub server: bool,
    pub client: bool,
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let mut out = vec![tag];
    match u8::try_from(len) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = len.to_be_bytes();
            let digits = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
            out.push(0x80 | u8::try_from(digits.len()).expect("a length has at most eight bytes"));
            out.extend_from_slice(digits);
        }
    }
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}

fn attribute(kind: &[u8], text: &str) -> Vec<u8> {
    tlv(SET, &[&tlv(SEQUENCE, &[&tlv(OID, &[kind]), &tlv(UTF8, &[text.as_bytes()])])])
}

/// The name of a user who is in these groups.
pub fn name(user: &str, groups: &[&str]) -> Vec<u8> {
    let mut parts: Vec<Vec<u8>> = groups.iter().map(|g| attribute(ORGANIZATION, g)).collect();
    parts.push(attribute(COMMON_NAME, user));
    tlv(SEQUENCE, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Years up to 2049 have the short form.
fn time(at: Wall) -> Vec<u8> {
    let digits: String = at.rfc3339().chars().filter(char::is_ascii_digit).collect();
    match digits.as_str() < "2050" {
        true => tlv(UTC_TIME, &[&digits.as_bytes()[2..], b"Z"]),
        false => tlv(LONG_TIME, &[digits.as_bytes(), b"Z"]),
    }
}

fn algorithm(a: Algorithm) -> Vec<u8> {
    let oid: &[u8] = match a {
        Algorithm::EcdsaSha256 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
        Algorithm::EcdsaSha384 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3],
        Algorithm::Ed25519 => &[0x2b, 0x65, 0x70],
    };
    tlv(SEQUENCE, &[&tlv(OID, &[oid])])
}

fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &TRUE } else { &[] };
    tlv(SEQUENCE, &[&tlv(OID, &[oid]), critical, &tlv(OCTETS, &[value])])
}

/// What the authority signs.
pub fn to_be_signed(leaf: &Leaf<'_>, by: Algorithm) -> Vec<u8> {
    let mut serial = leaf.serial;
    // Positive, and no zero in front.
    serial[0] = serial[0] & 0x7f | 0x40;
    let usage: [u8; 2] = if leaf.encipherment { [5, 0xa0] } else { [7, 0x80] };
    let purposes = [(leaf.server, SERVER_AUTH), (leaf.client, CLIENT_AUTH)];
    let purposes: Vec<u8> = purposes.iter().filter(|(is, _)| *is).flat_map(|(_, oid)| tlv(OID, &[oid])).collect();
    let mut extensions = vec![
        extension(KEY_USAGE, true, &tlv(BIT_STRING, &[&usage])),
        extension(EXTENDED_USAGE, false, &tlv(SEQUENCE, &[&purposes])),
        extension(BASIC_CONSTRAINTS, true, &tlv(SEQUENCE, &[])),
    ];
    if !leaf.authority.is_empty() {
        extensions.push(extension(AUTHORITY, false, &tlv(SEQUENCE, &[&tlv(KEY_ID, &[leaf.authority])])));
    }
    if !leaf.names.is_empty() {
        extensions.push(extension(ALTERNATIVE_NAME, false, leaf.names));
    }
    tlv(
        SEQUENCE,
        &[
            &tlv(VERSION, &[&tlv(INTEGER, &[&[2]])]),
            &tlv(INTEGER, &[&serial]),
            &algorithm(by),
            leaf.issuer,
            &tlv(SEQUENCE, &[&time(leaf.from), &time(leaf.until)]),
            leaf.subject,
            leaf.key,
            &tlv(EXTENSIONS, &[&tlv(SEQUENCE, &[&extensions.concat()])]),
        ],
    )
}

/// The certificate, once it is signed.
pub fn signed(body: &[u8], by: Algorithm, signature: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[body, &algorithm(by), &tlv(BIT_STRING, &[&[0], signature])])
}

/// PKCS #8 around the key of RFC 5915 on the curve P-256, as programs in Go write it.
pub fn p256_key(key: &[u8]) -> Vec<u8> {
    let kind: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    let curve: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    tlv(SEQUENCE, &[&tlv(INTEGER, &[&[0]]), &tlv(SEQUENCE, &[&tlv(OID, &[kind]), &tlv(OID, &[curve])]), &tlv(OCTETS, &[key])])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf<'a>(subject: &'a [u8], key: &'a [u8], until: Wall) -> Leaf<'a> {
        let from = Wall::from_seconds(1_000_000_000);
        Leaf {
            serial: [0xff; 16],
            issuer: subject,
            subject,
            from,
            until,
            key,
            authority: &[1, 2],
            names: &[],
            encipherment: true,
            server: false,
            client: true,
        }
    }

    /// Ed25519 of RFC 8410.
    const KEY: &[u8] = &[
        0x30, 42, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 33, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
        23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
    ];

    #[test]
    fn another_reader_finds_what_was_written() {
        let groups: Vec<String> = (0..300).map(|n| format!("group-{n}-ß")).collect();
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let subject = name("alice", &groups);
        for until in [2_000_000_000, 4_000_000_000] {
            let body = to_be_signed(&leaf(&subject, KEY, Wall::from_seconds(until)), Algorithm::Ed25519);
            let der = signed(&body, Algorithm::Ed25519, &[7; 64]);
            let (rest, c) = x509_parser::parse_x509_certificate(&der).unwrap();
            assert!(rest.is_empty() && c.version().0 == 2);
            assert_eq!(c.subject().iter_common_name().next().unwrap().as_str(), Ok("alice"));
            assert_eq!(c.subject().iter_organization().map(|o| o.as_str().unwrap()).collect::<Vec<_>>(), groups);
            assert_eq!((c.validity().not_before.timestamp(), c.validity().not_after.timestamp()), (1_000_000_000, until));
            let usage = c.key_usage().unwrap().unwrap().value;
            assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
            let extended = c.extended_key_usage().unwrap().unwrap().value;
            assert!(extended.client_auth && !extended.server_auth);
            assert!(!c.is_ca() && c.basic_constraints().unwrap().is_some());
        }
    }
}
