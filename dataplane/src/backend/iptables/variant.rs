//! Which of the two iptables a node uses: its rules must be in the one, or in the other.
//!
//! Owns the decision, which is that of the `iptables-wrappers` in Kubernetes' images: where the kubelet has its chains;
//! else where there are more rules. Never runs anything. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::model::Family;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    Legacy,
    Nft,
}

/// The commands of one variant and family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commands {
    pub variant: Variant,
    pub family: Family,
    pub iptables: &'static str,
    pub save: &'static str,
    pub restore: &'static str,
}

const fn commands(variant: Variant, family: Family, names: [&'static str; 3]) -> Commands {
    Commands { variant, family, iptables: names[0], save: names[1], restore: names[2] }
}

impl Commands {
    /// Under the names that say which variant they are.
    pub fn of(variant: Variant, family: Family) -> Commands {
        let names = match (variant, family) {
            (Variant::Legacy, Family::V4) => ["iptables-legacy", "iptables-legacy-save", "iptables-legacy-restore"],
            (Variant::Nft, Family::V4) => ["iptables-nft", "iptables-nft-save", "iptables-nft-restore"],
            (Variant::Legacy, Family::V6) => ["ip6tables-legacy", "ip6tables-legacy-save", "ip6tables-legacy-restore"],
            (Variant::Nft, Family::V6) => ["ip6tables-nft", "ip6tables-nft-save", "ip6tables-nft-restore"],
        };
        commands(variant, family, names)
    }

    /// Under the names that every distribution has.
    pub fn plain(variant: Variant, family: Family) -> Commands {
        let names = match family {
            Family::V4 => ["iptables", "iptables-save", "iptables-restore"],
            Family::V6 => ["ip6tables", "ip6tables-save", "ip6tables-restore"],
        };
        commands(variant, family, names)
    }
}

/// What a variant's `-save` commands print, in both families.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The kubelet has one of its chains there.
    pub kubelet: bool,
    /// Rules of anybody.
    pub rules: usize,
}

impl Evidence {
    /// Takes in what one command printed.
    pub fn take(&mut self, saved: &str) {
        let kubelets = |line: &str| {
            let name = line.strip_prefix(':').and_then(|rest| rest.split(' ').next());
            matches!(name, Some("KUBE-IPTABLES-HINT" | "KUBE-KUBELET-CANARY"))
        };
        self.kubelet |= saved.lines().any(kubelets);
        self.rules += saved.lines().filter(|line| line.starts_with('-')).count();
    }
}

/// `None` for a variant that is not installed or that the kernel does not have; `None` when there is neither.
pub fn choose(legacy: Option<Evidence>, nft: Option<Evidence>) -> Option<Variant> {
    match (legacy, nft) {
        (_, Some(nft)) if nft.kubelet => Some(Variant::Nft),
        (Some(legacy), _) if legacy.kubelet => Some(Variant::Legacy),
        (Some(legacy), Some(nft)) => Some(if legacy.rules > nft.rules { Variant::Legacy } else { Variant::Nft }),
        (Some(_), None) => Some(Variant::Legacy),
        (None, Some(_)) => Some(Variant::Nft),
        (None, None) => None,
    }
}

/// The variant that `iptables --version` names: `iptables v1.8.9 (nf_tables)`. Older than 1.8 it is legacy.
pub fn parse_version(text: &str) -> Option<(Variant, [u32; 3])> {
    let number = text.split_whitespace().find_map(|word| word.strip_prefix('v'))?;
    let mut parts = number.split('.').map(|part| part.parse().ok());
    let version = [parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?];
    let variant = if text.contains("(nf_tables)") { Variant::Nft } else { Variant::Legacy };
    Some((variant, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(saved: &str) -> Option<Evidence> {
        let mut evidence = Evidence::default();
        evidence.take(saved);
        Some(evidence)
    }

    const HINT: &str = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n";
    const RULES: &str = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j DROP\n-A INPUT -j ACCEPT\nCOMMIT\n";

    #[test]
    fn the_kubelets_chains_decide_then_the_number_of_rules() {
        let none = evidence("");
        let cases = [
            (none, evidence(HINT), Variant::Nft),
            (evidence(HINT), none, Variant::Legacy),
            (evidence(HINT), evidence(RULES), Variant::Legacy),
            (evidence(RULES), evidence(&HINT.replace("IPTABLES-HINT", "KUBELET-CANARY")), Variant::Nft),
            (evidence(RULES), none, Variant::Legacy),
            (evidence(RULES), evidence(RULES), Variant::Nft),
            (none, none, Variant::Nft),
            (none, None, Variant::Legacy),
            (None, none, Variant::Nft),
        ];
        for (legacy, nft, expected) in cases {
            assert_eq!(choose(legacy, nft), Some(expected), "{legacy:?} {nft:?}");
        }
        assert_eq!(choose(None, None), None);
    }

    #[test]
    fn versions_are_read_as_they_are_printed() {
        assert_eq!(parse_version("iptables v1.8.9 (nf_tables)\n"), Some((Variant::Nft, [1, 8, 9])));
        assert_eq!(parse_version("ip6tables v1.8.9 (legacy)"), Some((Variant::Legacy, [1, 8, 9])));
        assert_eq!(parse_version("iptables v1.6.1"), Some((Variant::Legacy, [1, 6, 1])));
        assert_eq!(parse_version("command not found"), None);
    }
}
