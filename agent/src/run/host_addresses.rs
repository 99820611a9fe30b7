//! This host's own addresses, those that others know it by.
//!
//! Owns the choice, which is the kubelet's: of each family the first address of the link that the default route leaves
//! by; without such a route, the first that is usable. Tests are at the end of this file.

use std::net::IpAddr;

/// One address of each family that has any; 127.0.0.1 on a host that has none.
pub fn host_ips() -> Vec<IpAddr> {
    let held: Vec<(String, IpAddr)> = nix::ifaddrs::getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            let ip = v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))?;
            Some((interface.interface_name, ip))
        })
        .collect();
    // Of the calling thread's network namespace.
    let routes = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let (v4, v6) = (routes("route"), routes("ipv6_route"));
    let found: Vec<IpAddr> =
        [choose(&held, true, default_link_v4(&v4)), choose(&held, false, default_link_v6(&v6))].into_iter().flatten().collect();
    if found.is_empty() { vec![IpAddr::from([127, 0, 0, 1])] } else { found }
}

/// What a member of a cluster is known by: what was wished for, else one of those that were found, of IPv4 where nobody
/// wishes for the other family (specification of the kubelet, 1.9).
pub fn of_member(found: Vec<IpAddr>, wished: &[IpAddr]) -> Vec<IpAddr> {
    match wished {
        [family] if family.is_unspecified() => {
            let of_family = found.iter().position(|ip| ip.is_ipv4() == family.is_ipv4());
            found.into_iter().skip(of_family.unwrap_or(0)).take(1).collect()
        }
        [] => found.into_iter().take(1).collect(),
        _ => wished.to_vec(),
    }
}

fn choose(held: &[(String, IpAddr)], v4: bool, outward: Option<&str>) -> Option<IpAddr> {
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local(),
        IpAddr::V6(a) => !a.is_loopback() && (a.segments()[0] & 0xffc0) != 0xfe80,
    };
    let family = || held.iter().filter(|(_, ip)| ip.is_ipv4() == v4 && usable(ip));
    let outwards = family().find(|(link, _)| Some(link.as_str()) == outward);
    // The pods' bridge is nobody's way to this host.
    outwards.or_else(|| family().find(|(link, _)| !link.starts_with("cni"))).map(|(_, ip)| *ip)
}

const UP: u32 = 1;
const REJECT: u32 = 0x200;

/// The link of the default route of least metric, as `/proc/net/route` has it.
fn default_link_v4(routes: &str) -> Option<&str> {
    let default = |line: &'_ str| -> Option<(u32, usize)> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[_, destination, _, flags, _, _, metric, mask, ..] = &fields[..] else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let is_default = destination == "00000000" && mask == "00000000" && flags & UP != 0 && flags & REJECT == 0;
        is_default.then_some((metric.parse().ok()?, 0))
    };
    least(routes, default)
}

/// The same of `/proc/net/ipv6_route`, whose numbers are all hexadecimal.
fn default_link_v6(routes: &str) -> Option<&str> {
    let default = |line: &'_ str| -> Option<(u32, usize)> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[destination, length, _, _, _, metric, _, _, flags, _] = &fields[..] else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let is_default = length == "00" && destination.bytes().all(|b| b == b'0') && flags & UP != 0 && flags & REJECT == 0;
        is_default.then_some((u32::from_str_radix(metric, 16).ok()?, 9))
    };
    least(routes, default)
}

/// The name of the link in the line of least metric; `of` says the metric, and in which field the name stands.
fn least(routes: &str, of: impl Fn(&str) -> Option<(u32, usize)>) -> Option<&str> {
    let lines = routes.lines().filter_map(|line| of(line).map(|(metric, field)| (metric, line.split_whitespace().nth(field))));
    lines.min_by_key(|(metric, _)| *metric).and_then(|(_, link)| link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_known_by_one_address_unless_two_are_wished_for() {
        let ip = |t: &str| t.parse::<IpAddr>().unwrap();
        let found = || vec![ip("192.0.2.1"), ip("2001:db8::1")];
        assert_eq!(of_member(found(), &[]), [ip("192.0.2.1")]);
        assert_eq!(of_member(found(), &[ip("::")]), [ip("2001:db8::1")]);
        assert_eq!(of_member(vec![ip("2001:db8::1")], &[ip("0.0.0.0")]), [ip("2001:db8::1")], "better than none");
        assert_eq!(of_member(found(), &[ip("192.0.2.9"), ip("2001:db8::9")]), [ip("192.0.2.9"), ip("2001:db8::9")]);
    }

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        wlan0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
        br0\t0000010A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
    const ROUTES_V6: &str = "\
        fd000001000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001      br0\n\
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000002000000000000000000000002 00000400 00000001 00000000 00000003     eth1\n\
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";

    fn held() -> Vec<(String, IpAddr)> {
        let held = [
            ("lo", "127.0.0.1"),
            ("br0", "10.1.0.1"),
            ("br0", "fd00:1::1"),
            ("eth0", "192.0.2.1"),
            ("eth1", "fe80::1"),
            ("eth1", "fd00:2::1"),
            ("eth1", "169.254.0.9"),
        ];
        held.into_iter().map(|(link, ip)| (link.into(), ip.parse().unwrap())).collect()
    }

    #[test]
    fn the_default_route_of_least_metric_says_which_link_leads_outside() {
        assert_eq!(default_link_v4(ROUTES), Some("eth0"));
        assert_eq!(default_link_v6(ROUTES_V6), Some("eth1"));
        let without =
            |text: &str, link: &str| text.lines().filter(|line| !line.contains(link)).map(|line| format!("{line}\n")).collect::<String>();
        assert_eq!(default_link_v4(&without(ROUTES, "eth0")), Some("wlan0"));
        assert_eq!(default_link_v6(&without(ROUTES_V6, "eth1")), None, "one that refuses leads nowhere");
        assert_eq!((default_link_v4(""), default_link_v6("")), (None, None));
    }

    #[test]
    fn an_address_of_that_link_comes_before_those_of_bridges() {
        let text = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string());
        assert_eq!(text(choose(&held(), true, Some("eth0"))).as_deref(), Some("192.0.2.1"));
        assert_eq!(text(choose(&held(), false, Some("eth1"))).as_deref(), Some("fd00:2::1"));
        // A link without a usable address, or none at all: the first there is.
        assert_eq!(text(choose(&held(), true, Some("eth1"))).as_deref(), Some("10.1.0.1"));
        assert_eq!(text(choose(&held(), true, None)).as_deref(), Some("10.1.0.1"));
        let pods = vec![("cni0".to_string(), IpAddr::from([10, 244, 0, 1]))];
        assert_eq!(choose(&pods, true, None), None);
    }
}
