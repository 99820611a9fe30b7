//! What IPVS needs of a kernel once: modules, and settings.
//!
//! Owns the list of them. A setting that cannot be written is told of, and the rest goes on. Tests: the tests on other
//! kernels.

use std::fs;
use std::io;
use std::process::Command;

use super::ir::Server;
use crate::model::{Family, Protocol};
use crate::netlink::ipvs::Scheduler;

/// A server that no service has: addresses for documentation.
pub fn probe_server(family: Family) -> Server {
    let ip = match family {
        Family::V4 => [198, 51, 100, 0].into(),
        Family::V6 => std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0).into(),
    };
    Server { ip, protocol: Protocol::Tcp, port: 20000 }
}

/// Loads the modules that are not there by themselves when they are needed. Returns what went wrong, if something did;
/// it matters only if they turn out to be missing.
pub fn load_modules(scheduler: Scheduler) -> Option<String> {
    let scheduler = format!("ip_vs_{}", scheduler.name());
    let modules = ["ip_vs", &scheduler, "nf_conntrack", "ip_set", "dummy"];
    let wanted: Vec<&str> = modules.into_iter().filter(|module| !fs::exists(format!("/sys/module/{module}")).unwrap_or(false)).collect();
    if wanted.is_empty() {
        return None;
    }
    match Command::new("modprobe").args(["-a", "--"]).args(&wanted).output() {
        Err(error) => Some(format!("modprobe: {error}")),
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ")),
    }
}

/// Settings that this kernel should have: names under /proc/sys, with their values.
pub fn settings(strict_arp: bool, kernel: (u32, u32)) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![
        // IPVS and netfilter translate the same packets.
        ("net/ipv4/vs/conntrack", "1"),
        // What went to a server that is gone ends with the next packet.
        ("net/ipv4/vs/expire_nodest_conn", "1"),
        // Clients with affinity leave a server that takes no new connections.
        ("net/ipv4/vs/expire_quiescent_template", "1"),
        ("net/ipv4/ip_forward", "1"),
    ];
    if ((4, 1)..(5, 9)).contains(&kernel) {
        settings.push(("net/ipv4/vs/conn_reuse_mode", "0"));
    }
    if strict_arp {
        settings.extend([("net/ipv4/conf/all/arp_ignore", "1"), ("net/ipv4/conf/all/arp_announce", "2")]);
    }
    settings
}

/// The running kernel's version.
pub fn kernel_version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Writes a setting of the calling thread's network namespace if it is another. True when it was.
pub fn set(name: &str, value: &str) -> io::Result<bool> {
    let path = format!("/proc/sys/{name}");
    if fs::read_to_string(&path)?.trim() == value {
        return Ok(false);
    }
    fs::write(&path, value).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_delay_reused_ports_are_told_not_to() {
        let reuse = |kernel| settings(false, kernel).contains(&("net/ipv4/vs/conn_reuse_mode", "0"));
        assert_eq!([(4, 0), (4, 1), (5, 8), (5, 9), (6, 1)].map(reuse), [false, true, true, false, false]);
    }

    #[test]
    fn arp_is_made_strict_on_demand() {
        let arp = |strict| settings(strict, (6, 1)).iter().filter(|(name, _)| name.contains("arp_")).count();
        assert_eq!((arp(false), arp(true)), (0, 2));
    }
}
