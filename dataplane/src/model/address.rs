//! Addresses and prefixes as Kubernetes reads them.
//!
//! Owns lenient parsing: leading zeros in IPv4 bytes are decimal, IPv4-mapped IPv6 is IPv4.
//! Tests are at the end of this file.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Family;

/// Parses an address as the API accepted it for older objects: `010.0.0.1` is 10.0.0.1.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    let ip = match text.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) => IpAddr::V4(parse_v4_with_leading_zeros(text)?),
    };
    Some(match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    })
}

fn parse_v4_with_leading_zeros(text: &str) -> Option<Ipv4Addr> {
    let mut bytes = [0u8; 4];
    let mut parts = text.split('.');
    for byte in &mut bytes {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        *byte = part.trim_start_matches('0').parse().or_else(|e| if part.bytes().all(|c| c == b'0') { Ok(0) } else { Err(e) }).ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(bytes))
}

/// The address's bytes in network order.
pub fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The reverse of [`octets`]; `None` unless there are 4 or 16 bytes.
pub fn from_octets(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

/// An address prefix; the host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    pub ip: IpAddr,
    pub prefix: u8,
}

impl Cidr {
    /// Masks the host bits away; `None` when the prefix is longer than the address.
    pub fn new(ip: IpAddr, prefix: u8) -> Option<Cidr> {
        let masked = match ip {
            IpAddr::V4(v4) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
            }
            IpAddr::V6(v6) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
            }
            _ => return None,
        };
        Some(Cidr { ip: masked, prefix })
    }

    /// Parses `address/prefix`, with white space around it, as source ranges may be written.
    pub fn parse(text: &str) -> Option<Cidr> {
        let (ip, prefix) = text.trim().split_once('/')?;
        Cidr::new(parse_ip(ip)?, prefix.parse().ok()?)
    }

    /// The prefix that is just this range, if there is one.
    pub fn from_range(first: IpAddr, last: IpAddr) -> Option<Cidr> {
        let bits = if first.is_ipv4() { 32 } else { 128 };
        (0..=bits).find_map(|prefix| Cidr::new(first, prefix).filter(|c| c.ip == first && c.last() == last))
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        let ones = self.mask().into_iter().zip(octets(self.ip)).map(|(mask, byte)| byte | !mask);
        from_octets(&ones.collect::<Vec<u8>>()).expect("as long as the first address")
    }

    /// Without those that lie within others, in order.
    pub fn aggregate(ranges: impl IntoIterator<Item = Cidr>) -> Box<[Cidr]> {
        let mut ranges: Vec<Cidr> = ranges.into_iter().collect();
        // Of ranges with the same first address, the widest comes first.
        ranges.sort_unstable();
        let mut kept: Vec<Cidr> = Vec::new();
        for range in ranges {
            if !kept.iter().any(|wider| wider.prefix <= range.prefix && wider.contains(range.ip)) {
                kept.push(range);
            }
        }
        kept.into()
    }

    pub fn family(&self) -> Family {
        Family::of(self.ip)
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        Family::of(ip) == self.family() && Cidr::new(ip, self.prefix).is_some_and(|c| c.ip == self.ip)
    }

    /// The prefix as a mask of the address's length, in network order.
    pub fn mask(&self) -> Vec<u8> {
        let all = octets(match self.ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::BROADCAST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(u128::MAX)),
        });
        from_octets(&all)
            .and_then(|ones| Cidr::new(ones, self.prefix))
            .map(|c| octets(c.ip))
            .expect("a prefix that fits the address fits its mask")
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_are_decimal_and_mapped_addresses_are_ipv4() {
        assert_eq!(parse_ip("010.000.0.09"), Some("10.0.0.9".parse().unwrap()));
        assert_eq!(parse_ip("::ffff:10.0.0.1"), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(parse_ip("10.0.0"), None);
        assert_eq!(parse_ip("10.0.0.256"), None);
        assert_eq!(parse_ip("10.0.0.1.1"), None);
        assert_eq!(parse_ip("None"), None);
    }

    #[test]
    fn cidr_masks_host_bits_and_knows_its_members() {
        let cidr = Cidr::parse(" 10.1.2.3/16 ").unwrap();
        assert_eq!(cidr.to_string(), "10.1.0.0/16");
        assert!(cidr.contains("10.1.255.1".parse().unwrap()));
        assert!(!cidr.contains("10.2.0.1".parse().unwrap()));
        assert!(!cidr.contains("fd00::1".parse().unwrap()));
        assert_eq!(cidr.mask(), [255, 255, 0, 0]);
        assert!(Cidr::parse("0.0.0.0/0").unwrap().contains("203.0.113.7".parse().unwrap()));
        assert_eq!(Cidr::parse("fd00::/129"), None);
        assert_eq!(cidr.last(), "10.1.255.255".parse::<IpAddr>().unwrap());
        assert_eq!(Cidr::from_range(cidr.ip, cidr.last()), Some(cidr));
        assert_eq!(Cidr::from_range(cidr.ip, "10.1.255.254".parse().unwrap()), None);
    }

    #[test]
    fn ranges_within_others_are_left_out() {
        let ranges = ["10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/16", "192.0.2.1/32", "fd00::/8", "192.0.2.1/32"];
        let kept = Cidr::aggregate(ranges.map(|range| Cidr::parse(range).unwrap()));
        assert_eq!(kept.iter().map(Cidr::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"]);
    }
}
