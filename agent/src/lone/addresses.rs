//! Cluster IPs and node ports: what a manifest fixes is taken, the rest is given from the ranges and
//! stays with the service as long as it exists.
//!
//! A new address is picked by the hash of the service's name, so that even a machine that lost its record
//! gives most services the address they had. The lower part of each range is left to fixed addresses, as
//! an API server does.

use crate::pod::ObjectName;
use longshore_dataplane::wire::Service;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    base: IpAddr,
    prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address range; write ADDRESS/BITS, such as 10.96.0.0/16")]
pub struct ParseRangeError(String);

impl Range {
    pub fn parse(text: &str) -> Result<Range, ParseRangeError> {
        let error = || ParseRangeError(text.to_owned());
        let (ip, prefix) = text.split_once('/').ok_or_else(error)?;
        let base: IpAddr = ip.parse().map_err(|_| error())?;
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        if prefix > if base.is_ipv4() { 32 } else { 128 } {
            return Err(error());
        }
        Ok(Range { base, prefix }.masked())
    }

    fn bits(self) -> u8 {
        if self.base.is_ipv4() { 32 } else { 128 }
    }

    fn number(ip: IpAddr) -> u128 {
        match ip {
            IpAddr::V4(a) => u128::from(u32::from(a)),
            IpAddr::V6(a) => u128::from(a),
        }
    }

    fn address(self, n: u128) -> IpAddr {
        match self.base {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(n).unwrap_or(0))),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(n)),
        }
    }

    fn masked(self) -> Range {
        let host = self.host_bits();
        let n = Range::number(self.base);
        let masked = if host >= 128 { 0 } else { n >> host << host };
        Range { base: self.address(masked), prefix: self.prefix }
    }

    fn host_bits(self) -> u32 {
        u32::from(self.bits() - self.prefix)
    }

    pub fn is_ipv4(self) -> bool {
        self.base.is_ipv4()
    }

    pub fn contains(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.is_ipv4() && {
            let host = self.host_bits();
            host >= 128 || Range::number(ip) >> host == Range::number(self.base) >> host
        }
    }

    /// Usable offsets: the first address is left out, and the last of IPv4; never more than 2^20 are searched.
    fn size(self) -> u128 {
        let all = 1_u128.checked_shl(self.host_bits()).unwrap_or(u128::MAX).min(1 << 20);
        all.saturating_sub(if self.is_ipv4() { 2 } else { 1 })
    }

    pub fn nth(self, offset: u128) -> IpAddr {
        self.address(Range::number(self.base) + offset)
    }
}

/// What may be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// One per family; the first is the family of single-stack services.
    pub services: Vec<Range>,
    /// First and last.
    pub node_ports: (u16, u16),
    /// Addresses that the node itself uses, such as that of its DNS.
    pub reserved: Vec<IpAddr>,
}

/// What one service was given, by `namespace/name` in the record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Given {
    pub cluster_ips: Vec<IpAddr>,
    /// By `port/protocol`.
    pub node_ports: BTreeMap<String, u16>,
}

/// Services with all that they need, the record after, and who was refused what.
pub type Outcome = (Vec<Service>, BTreeMap<String, Given>, Vec<(ObjectName, String)>);

struct Pool<'a> {
    ranges: &'a Ranges,
    ips: BTreeSet<IpAddr>,
    ports: BTreeSet<(u16, String)>,
}

/// Gives every service its addresses and ports.
pub fn give<'a>(ranges: &Ranges, before: &BTreeMap<String, Given>, services: impl Iterator<Item = &'a Service>) -> Outcome {
    let services: Vec<&Service> = services.collect();
    let mut pool = Pool { ranges, ips: ranges.reserved.iter().copied().collect(), ports: BTreeSet::new() };
    let (mut out, mut given, mut refused) = (Vec::new(), BTreeMap::new(), Vec::new());
    let key = |s: &Service| format!("{}/{}", s.metadata.namespace, s.metadata.name);
    // Fixed addresses first, then those on record, then new ones: nobody loses what he has to a newcomer.
    for s in &services {
        pool.take_fixed(s);
    }
    let rank = |s: &&&Service| !before.contains_key(&key(s));
    let mut order: Vec<&&Service> = services.iter().collect();
    order.sort_by_key(rank);
    for s in order {
        match pool.one(s, before.get(&key(s))) {
            Ok((service, g)) => {
                if g != Given::default() {
                    given.insert(key(s), g);
                }
                out.push(service);
            }
            Err(why) => refused.push((ObjectName::new(&s.metadata.namespace, &s.metadata.name), why)),
        }
    }
    (out, given, refused)
}

impl Pool<'_> {
    fn take_fixed(&mut self, s: &Service) {
        let fixed = s.spec.cluster_ips.iter().chain([&s.spec.cluster_ip]).filter_map(|t| t.parse::<IpAddr>().ok());
        self.ips.extend(fixed);
        for p in s.spec.ports.iter().filter(|p| p.node_port != 0) {
            self.ports.insert((u16::try_from(p.node_port).unwrap_or(0), protocol(&p.protocol)));
        }
    }

    fn one(&mut self, s: &Service, before: Option<&Given>) -> Result<(Service, Given), String> {
        let mut s = s.clone();
        let mut given = Given::default();
        if s.spec.type_.is_empty() {
            s.spec.type_ = "ClusterIP".into();
        }
        if s.spec.session_affinity.is_empty() {
            s.spec.session_affinity = "None".into();
        }
        for p in &mut s.spec.ports {
            p.protocol = protocol(&p.protocol);
        }
        if s.spec.type_ == "ExternalName" {
            return Ok((s, given));
        }
        self.cluster_ips(&mut s, before, &mut given)?;
        if matches!(s.spec.type_.as_str(), "NodePort" | "LoadBalancer") {
            self.node_ports(&mut s, before, &mut given)?;
        }
        Ok((s, given))
    }

    fn families(&self, s: &Service) -> Result<Vec<Range>, String> {
        let all = &self.ranges.services;
        let of = |name: &String| all.iter().find(|r| r.is_ipv4() == (name == "IPv4")).copied();
        if !s.spec.ip_families.is_empty() {
            let missing = |n: &String| format!("spec.ipFamilies: this node has no service range for {n}");
            return s.spec.ip_families.iter().map(|n| of(n).ok_or_else(|| missing(n))).collect();
        }
        match s.spec.ip_family_policy.as_deref() {
            Some("RequireDualStack") if all.len() < 2 => {
                Err("spec.ipFamilyPolicy: RequireDualStack needs a service range of each family (--service-cidr)".into())
            }
            Some("RequireDualStack" | "PreferDualStack") => Ok(all.clone()),
            _ => Ok(all.iter().take(1).copied().collect()),
        }
    }

    fn cluster_ips(&mut self, s: &mut Service, before: Option<&Given>, given: &mut Given) -> Result<(), String> {
        let families = self.families(s)?;
        s.spec.ip_families = families.iter().map(|r| if r.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned()).collect();
        s.spec.ip_family_policy.get_or_insert_with(|| "SingleStack".into());
        if s.spec.cluster_ip == "None" {
            s.spec.cluster_ips = vec!["None".into()];
            return Ok(());
        }
        let fixed: Vec<IpAddr> = [s.spec.cluster_ip.clone()].iter().chain(&s.spec.cluster_ips).filter_map(|t| t.parse().ok()).collect();
        let mut ips = Vec::new();
        for range in families {
            let same = |ip: &&IpAddr| ip.is_ipv4() == range.is_ipv4();
            let ip = match fixed.iter().find(same) {
                Some(ip) => *ip,
                None => {
                    let kept = before.and_then(|g| g.cluster_ips.iter().find(|ip| range.contains(**ip)).copied());
                    let ip = kept.filter(|ip| !self.ips.contains(ip)).or_else(|| self.free_ip(range, s));
                    let ip = ip.ok_or("spec.clusterIP: the range of service addresses is used up (--service-cidr)")?;
                    given.cluster_ips.push(ip);
                    ip
                }
            };
            self.ips.insert(ip);
            ips.push(ip.to_string());
        }
        s.spec.cluster_ip = ips.first().cloned().unwrap_or_default();
        s.spec.cluster_ips = ips;
        Ok(())
    }

    fn free_ip(&self, range: Range, s: &Service) -> Option<IpAddr> {
        let size = range.size();
        // The lower band is for addresses that manifests fix.
        let band = (size / 16).clamp(16, 256).min(size / 2);
        let wide = size.saturating_sub(band).max(1);
        let start = hash(&format!("{}/{}", s.metadata.namespace, s.metadata.name)) % wide;
        let upper = (0..wide).map(|i| band + 1 + (start + i) % wide);
        let lower = 1..=band;
        upper.chain(lower).filter(|n| *n <= size).map(|n| range.nth(n)).find(|ip| !self.ips.contains(ip))
    }

    fn node_ports(&mut self, s: &mut Service, before: Option<&Given>, given: &mut Given) -> Result<(), String> {
        let full = format!("{}/{}", s.metadata.namespace, s.metadata.name);
        let (first, last) = self.ranges.node_ports;
        for p in &mut s.spec.ports {
            if p.node_port != 0 {
                continue;
            }
            let key = format!("{}/{}", p.port, p.protocol);
            let free = |n: &u16, pool: &Pool<'_>| !pool.ports.contains(&(*n, p.protocol.clone()));
            let kept = before.and_then(|g| g.node_ports.get(&key)).copied().filter(|n| free(n, self));
            let wide = u128::from(last.saturating_sub(first)) + 1;
            let band = u128::from(u16::try_from((wide / 32).clamp(16, 128)).unwrap_or(16)).min(wide / 2);
            let start = hash(&format!("{full}:{key}")) % (wide - band).max(1);
            let offsets = (0..wide - band).map(|i| band + (start + i) % (wide - band)).chain(0..band);
            let port = |o: u128| first + u16::try_from(o).unwrap_or(0);
            let n = kept.or_else(|| offsets.map(port).find(|n| free(n, self)));
            let n = n.ok_or("spec.ports: the range of node ports is used up (--service-node-port-range)")?;
            self.ports.insert((n, p.protocol.clone()));
            given.node_ports.insert(key, n);
            p.node_port = i32::from(n);
        }
        Ok(())
    }
}

fn protocol(p: &str) -> String {
    if p.is_empty() { "TCP".into() } else { p.to_owned() }
}

fn hash(text: &str) -> u128 {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(0, |n, b| n << 8 | u128::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_dataplane::wire::{ObjectMeta, ServicePort};

    fn ranges() -> Ranges {
        Ranges {
            services: vec![Range::parse("10.96.0.0/24").unwrap(), Range::parse("fd00:96::/112").unwrap()],
            node_ports: (30000, 32767),
            reserved: vec!["10.96.0.10".parse().unwrap()],
        }
    }

    fn service(name: &str, kind: &str) -> Service {
        let mut s = Service {
            metadata: ObjectMeta { name: name.into(), namespace: "default".into(), ..ObjectMeta::default() },
            ..Service::default()
        };
        s.spec.type_ = kind.into();
        s.spec.ports = vec![ServicePort { port: 80, ..ServicePort::default() }];
        s
    }

    #[test]
    fn an_address_once_given_stays_whoever_comes_later() {
        let a = service("a", "NodePort");
        let (first, record, _) = give(&ranges(), &BTreeMap::new(), [&a].into_iter());
        let mut newcomer = service("0-first", "NodePort");
        newcomer.spec.ports[0].node_port = 31000;
        let (second, after, refused) = give(&ranges(), &record, [&newcomer, &a].into_iter());
        assert_eq!(second.iter().find(|s| s.metadata.name == "a"), Some(&first[0]));
        assert_eq!((after["default/a"].clone(), refused), (record["default/a"].clone(), vec![]));
        assert_ne!(first[0].spec.cluster_ip, "10.96.0.10");
        assert!((30000..=32767).contains(&first[0].spec.ports[0].node_port));
    }

    #[test]
    fn a_lost_record_gives_most_services_what_they_had() {
        let a = service("a", "ClusterIP");
        let (one, ..) = give(&ranges(), &BTreeMap::new(), [&a].into_iter());
        let (two, ..) = give(&ranges(), &BTreeMap::new(), [&service("zz", "ClusterIP"), &a].into_iter());
        assert_eq!(two.iter().find(|s| s.metadata.name == "a").unwrap().spec.cluster_ip, one[0].spec.cluster_ip);
    }

    #[test]
    fn fixed_addresses_are_never_given_to_others() {
        let small = Ranges { services: vec![Range::parse("10.96.0.0/30").unwrap()], ..ranges() };
        let mut fixed = service("fixed", "ClusterIP");
        fixed.spec.cluster_ip = "10.96.0.1".into();
        let (out, _, refused) =
            give(&small, &BTreeMap::new(), [&service("a", "ClusterIP"), &fixed, &service("b", "ClusterIP")].into_iter());
        let ips: BTreeSet<_> = out.iter().map(|s| s.spec.cluster_ip.clone()).collect();
        assert_eq!(ips, ["10.96.0.1", "10.96.0.2"].map(str::to_owned).into());
        assert_eq!(refused.len(), 1);
    }

    #[test]
    fn dual_stack_is_given_where_asked() {
        let mut s = service("a", "ClusterIP");
        s.spec.ip_family_policy = Some("PreferDualStack".into());
        let (out, ..) = give(&ranges(), &BTreeMap::new(), [&s].into_iter());
        assert_eq!(out[0].spec.cluster_ips.len(), 2);
        assert_eq!(out[0].spec.ip_families, ["IPv4", "IPv6"]);
        let mut headless = service("h", "ClusterIP");
        headless.spec.cluster_ip = "None".into();
        let (out, record, _) = give(&ranges(), &BTreeMap::new(), [&headless].into_iter());
        assert_eq!((out[0].spec.cluster_ip.as_str(), record.len()), ("None", 0));
    }

    #[test]
    fn ranges_are_read_and_contain_what_they_should() {
        let r = Range::parse("10.96.7.9/16").unwrap();
        assert!(r.contains("10.96.255.255".parse().unwrap()) && !r.contains("10.97.0.0".parse().unwrap()));
        assert!(Range::parse("10.96.0.0").is_err() && Range::parse("10.96.0.0/33").is_err());
    }
}
