//! Which mode runs when the configured one cannot work here.
//!
//! Owns the order in which others are tried: packet filters first, and the relay in user space only when there is
//! none. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::config::{IptablesConfig, IpvsConfig, Mode};

/// Opens the first mode that works: the wanted one, and after it the others. The error is the wanted mode's.
pub fn first_that_works<T, E>(wanted: &Mode, mut open: impl FnMut(&Mode) -> Result<T, E>) -> Result<(Mode, T, Option<E>), E> {
    let refused = match open(wanted) {
        Ok(opened) => return Ok((wanted.clone(), opened, None)),
        Err(error) => error,
    };
    let others = [Mode::Nftables, Mode::Iptables(IptablesConfig::default()), Mode::Ipvs(IpvsConfig::default()), Mode::Userspace];
    for mode in others.into_iter().filter(|mode| mode.name() != wanted.name()) {
        if let Ok(opened) = open(&mode) {
            return Ok((mode, opened, Some(refused)));
        }
    }
    Err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is opened where only these modes work, and why not the wanted one.
    fn opened(wanted: Mode, working: &[&str]) -> Result<(&'static str, Option<&'static str>), &'static str> {
        let mut tried = Vec::new();
        let outcome = first_that_works(&wanted, |mode| {
            tried.push(mode.name());
            if working.contains(&mode.name()) { Ok(mode.name()) } else { Err(mode.name()) }
        });
        assert_eq!(tried[0], wanted.name());
        outcome.map(|(mode, opened, refused)| {
            assert_eq!(mode.name(), opened);
            (opened, refused)
        })
    }

    #[test]
    fn user_space_comes_only_when_there_is_no_packet_filter() {
        let all = ["nftables", "iptables", "ipvs", "userspace"];
        assert_eq!(opened(Mode::Nftables, &all), Ok(("nftables", None)));
        assert_eq!(opened(Mode::Userspace, &all), Ok(("userspace", None)), "unless it is asked for");
        for other in ["iptables", "ipvs"] {
            assert_eq!(opened(Mode::Nftables, &[other, "userspace"]), Ok((other, Some("nftables"))));
        }
        let iptables = || Mode::Iptables(IptablesConfig::default());
        assert_eq!(opened(iptables(), &["nftables", "userspace"]), Ok(("nftables", Some("iptables"))));
        assert_eq!(opened(iptables(), &["userspace"]), Ok(("userspace", Some("iptables"))));
        assert_eq!(opened(Mode::Nftables, &[]), Err("nftables"));
    }
}
