//! What iptables-save prints, and what iptables-restore takes, to typed rules.
//!
//! Owns the two spellings of one rule: ours, and the one that the tools print. A rule with anything in it that we never
//! write is foreign. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::SocketAddr;

use super::ir::{Address, Comment, Interface, Line, Match, Rule, State, Table, Target};
use super::names::Chain;
use super::render::probability;
use crate::model::address::parse_ip;
use crate::model::{Cidr, Protocol};

/// One line of iptables-save.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    Table(Option<Table>),
    /// A chain; `None` when its name is none that we give.
    Chain(Option<Chain>),
    Rule(Option<Chain>, Line),
    /// A comment, a commit.
    Nothing,
}

/// Reads one line of iptables-save.
pub fn saved(line: &str) -> Saved {
    let line = line.trim();
    if let Some(name) = line.strip_prefix('*') {
        return Saved::Table(Table::ALL.into_iter().find(|table| table.name() == name));
    }
    if let Some(rest) = line.strip_prefix(':') {
        return Saved::Chain(rest.split(' ').next().and_then(Chain::parse));
    }
    let Some(rest) = line.strip_prefix("-A ") else { return Saved::Nothing };
    let (chain, arguments) = rest.split_once(' ').unwrap_or((rest, ""));
    let foreign = || Line::Foreign(arguments.into());
    Saved::Rule(Chain::parse(chain), rule(arguments).map_or_else(foreign, Line::Rule))
}

/// Reads a rule's arguments; `None` when there is something that we never write.
pub fn rule(arguments: &str) -> Option<Rule> {
    let words = words(arguments)?;
    let mut reader = Reader { words: words.iter().map(String::as_str).collect(), at: 0, rule: Rule::default(), random_mode: false };
    while reader.option()? {}
    Some(reader.rule)
}

/// Splits as a shell would: double quotes keep blanks, a backslash keeps what follows.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Some(words);
        }
        let mut word = String::new();
        let mut quoted = false;
        while let Some(c) = chars.next_if(|c| quoted || !c.is_whitespace()) {
            match c {
                '"' => quoted = !quoted,
                '\\' => word.push(chars.next()?),
                c => word.push(c),
            }
        }
        if quoted {
            return None;
        }
        words.push(word);
    }
}

struct Reader<'a> {
    words: Vec<&'a str>,
    at: usize,
    rule: Rule,
    random_mode: bool,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at).copied();
        self.at += 1;
        word
    }

    fn next_if(&mut self, expected: &str) -> bool {
        let found = self.words.get(self.at) == Some(&expected);
        self.at += usize::from(found);
        found
    }

    /// Reads one option with its values. False at the end; `None` for one that we never write.
    fn option(&mut self) -> Option<bool> {
        if self.at >= self.words.len() {
            return Some(false);
        }
        let not = self.next_if("!");
        let option = self.next()?;
        match option {
            "-s" => self.rule.source = Some(self.address(not)?),
            "-d" => self.rule.destination = Some(self.address(not)?),
            "-i" => self.rule.interface = Some(Interface { name: self.next()?.into(), not }),
            "-m" if !not => self.load()?,
            "--mark" => {
                let (value, mask) = number_and_mask(self.next()?)?;
                self.rule.matches.push(Match::Mark { value, mask, not });
            }
            "--ctstate" => {
                let states = states(self.next()?)?;
                self.rule.matches.push(Match::Conntrack { states, not });
            }
            _ if not => return None,
            "-p" => self.rule.protocol = Some(protocol(self.next()?)?),
            "--comment" => {
                let text = self.next()?;
                let comment = Comment::new(text);
                (comment.as_str() == text).then_some(())?;
                self.rule.matches.push(Match::Comment(comment));
            }
            "--dport" => {
                let port = self.next()?.parse().ok()?;
                let place = self.rule.matches.iter_mut().find(|m| matches!(m, Match::Port(None)))?;
                *place = Match::Port(Some(port));
            }
            "--src-type" => self.local(Match::SourceIsLocal)?,
            "--dst-type" => self.local(Match::DestinationIsLocal)?,
            "--mode" => {
                (self.next()? == "random").then_some(())?;
                self.random_mode = true;
            }
            "--probability" if self.random_mode => {
                let one_in = one_in(self.next()?)?;
                self.rule.matches.push(Match::OneIn(one_in));
            }
            "--nfacct-name" => {
                let name = self.next()?.into();
                self.rule.matches.push(Match::Account(name));
            }
            "-j" => self.target()?,
            _ => return None,
        }
        Some(true)
    }

    fn address(&mut self, not: bool) -> Option<Address> {
        let text = self.next()?;
        let within = Cidr::parse(text).or_else(|| {
            let ip = parse_ip(text)?;
            Cidr::new(ip, if ip.is_ipv4() { 32 } else { 128 })
        })?;
        Some(Address { within, not })
    }

    fn load(&mut self) -> Option<()> {
        match self.next()? {
            "comment" | "addrtype" | "mark" | "conntrack" | "statistic" | "nfacct" => Some(()),
            "recent" => self.recent(),
            name => {
                protocol(name)?;
                self.rule.matches.push(Match::Port(None));
                Some(())
            }
        }
    }

    fn local(&mut self, what: Match) -> Option<()> {
        (self.next()? == "LOCAL").then_some(())?;
        self.rule.matches.push(what);
        Some(())
    }

    /// The options of `recent`, in any order.
    fn recent(&mut self) -> Option<()> {
        let (mut check, mut set, mut reap, mut list, mut seconds) = (false, false, false, None, None);
        while let Some(option) = self.words.get(self.at) {
            match *option {
                "--rcheck" => check = true,
                "--set" => set = true,
                "--reap" => reap = true,
                "--rsource" => {}
                "--name" | "--seconds" | "--mask" => {
                    let value = *self.words.get(self.at + 1)?;
                    match *option {
                        "--name" => list = Some(Chain::parse(value)?),
                        "--seconds" => seconds = Some(value.parse().ok()?),
                        // The whole address counts, unless it says otherwise.
                        _ => ["255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"].contains(&value).then_some(())?,
                    }
                    self.at += 1;
                }
                _ => break,
            }
            self.at += 1;
        }
        let held = match (check, set, reap, seconds) {
            (true, false, true, Some(seconds)) => Match::Remembered { list: list?, seconds },
            (false, true, false, None) => Match::Remember { list: list? },
            _ => return None,
        };
        self.rule.matches.push(held);
        Some(())
    }

    fn target(&mut self) -> Option<()> {
        let target = match self.next()? {
            "ACCEPT" => Target::Accept,
            "DROP" => Target::Drop,
            "RETURN" => Target::Return,
            "REJECT" => {
                if self.next_if("--reject-with") {
                    ["icmp-port-unreachable", "icmp6-port-unreachable"].contains(&self.next()?).then_some(())?;
                }
                Target::Reject
            }
            "MARK" => {
                let how = self.next()?;
                let (value, mask) = number_and_mask(self.next()?)?;
                match how {
                    "--set-xmark" => Target::Mark { value, mask },
                    "--or-mark" => Target::Mark { value, mask: value },
                    "--xor-mark" => Target::Mark { value, mask: 0 },
                    _ => return None,
                }
            }
            "MASQUERADE" => Target::Masquerade { random: self.next_if("--random-fully") },
            "DNAT" => {
                (self.next()? == "--to-destination").then_some(())?;
                Target::Dnat(self.next()?.parse::<SocketAddr>().ok()?)
            }
            name => Target::Jump(Chain::parse(name)?),
        };
        self.rule.target = Some(target);
        Some(())
    }
}

fn protocol(name: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|protocol| protocol.to_string() == name)
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn number_and_mask(text: &str) -> Option<(u32, u32)> {
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text)?, u32::MAX)),
    }
}

fn states(text: &str) -> Option<Box<[State]>> {
    let named = |name: &str| State::ALL.iter().find(|(_, known)| *known == name).map(|(state, _)| *state);
    let mut states: Vec<State> = text.split(',').map(named).collect::<Option<_>>()?;
    states.sort_unstable();
    Some(states.into())
}

/// The count whose share is this, to the kernel: it keeps 31 bits of it.
fn one_in(text: &str) -> Option<u32> {
    let to_kernel = |share: f64| (share * f64::from(1u32 << 31)).round();
    let share: f64 = text.parse().ok()?;
    let count = (1.0 / share).round();
    let count = (1.0..=f64::from(u32::MAX)).contains(&count).then_some(count as u32)?;
    let ours: f64 = probability(count).parse().ok()?;
    (to_kernel(ours) == to_kernel(share)).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::iptables::names::{ChainHash, Fixed, Kind};
    use crate::backend::iptables::render;
    use crate::resolve::MAX_ENDPOINTS;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn chain() -> impl Strategy<Value = Chain> {
        let kinds = proptest::sample::select(vec![Kind::Cluster, Kind::Local, Kind::External, Kind::Firewall, Kind::Endpoint]);
        let hashed = (kinds, "[a-z]{1,9}").prop_map(|(kind, name)| Chain::Of(kind, ChainHash::of_port(&name, Protocol::Tcp)));
        prop_oneof![Just(Chain::Fixed(Fixed::MarkMasq)), Just(Chain::Fixed(Fixed::NodePorts)), hashed]
    }

    fn address() -> impl Strategy<Value = Option<Address>> {
        let v4 = (any::<[u8; 4]>(), 0u8..=32).prop_map(|(ip, prefix)| (IpAddr::from(ip), prefix));
        let v6 = (any::<[u8; 16]>(), 0u8..=128).prop_map(|(ip, prefix)| (IpAddr::from(ip), prefix));
        let address = (prop_oneof![v4, v6], any::<bool>());
        // IPv4 in IPv6 is IPv4 to everybody.
        let cidr = address.prop_filter_map("mapped", |((ip, prefix), not)| {
            (ip == ip.to_canonical()).then_some(())?;
            Some(Address { within: Cidr::new(ip, prefix)?, not })
        });
        proptest::option::of(cidr)
    }

    fn matching() -> impl Strategy<Value = Match> {
        let states = proptest::collection::btree_set(proptest::sample::select(State::ALL.map(|(state, _)| state).to_vec()), 1..4);
        prop_oneof![
            "[ -~]{1,40}".prop_map(|text| Match::Comment(Comment::new(&text))),
            Just(Match::SourceIsLocal),
            Just(Match::DestinationIsLocal),
            (any::<u32>(), any::<u32>(), any::<bool>()).prop_map(|(value, mask, not)| Match::Mark { value, mask, not }),
            (states, any::<bool>()).prop_map(|(states, not)| Match::Conntrack { states: states.into_iter().collect(), not }),
            (chain(), any::<u32>()).prop_map(|(list, seconds)| Match::Remembered { list, seconds }),
            chain().prop_map(|list| Match::Remember { list }),
            (1..=MAX_ENDPOINTS as u32).prop_map(Match::OneIn),
            "[a-z_]{1,30}".prop_map(|name| Match::Account(name.into())),
        ]
    }

    fn target() -> impl Strategy<Value = Target> {
        prop_oneof![
            chain().prop_map(Target::Jump),
            proptest::sample::select(vec![Target::Accept, Target::Drop, Target::Return, Target::Reject]),
            (any::<u32>(), any::<u32>()).prop_map(|(value, mask)| Target::Mark { value, mask }),
            any::<u32>().prop_map(|value| Target::Mark { value, mask: value }),
            any::<bool>().prop_map(|random| Target::Masquerade { random }),
            (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| Target::Dnat((ip, port).into())),
            (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| Target::Dnat((ip, port).into())),
        ]
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let protocol = proptest::option::of(proptest::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]));
        let interface = proptest::option::of(("[a-z0-9]{1,10}[+]?", any::<bool>()));
        let matches = proptest::collection::vec(matching(), 0..4);
        (protocol, address(), address(), interface, matches, proptest::option::of(any::<u16>()), proptest::option::of(target())).prop_map(
            |(protocol, source, destination, interface, mut matches, port, target)| {
                if protocol.is_some() {
                    matches.push(Match::Port(port));
                }
                let interface = interface.map(|(name, not)| Interface { name: name.into(), not });
                Rule { protocol, source, destination, interface, matches, target }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_rendered_is_read_back(held in any_rule()) {
            let mut text = String::new();
            render::rule(&mut text, &held);
            prop_assert_eq!(rule(&text), Some(held), "{}", text);
        }

        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,80}") {
            saved(&text);
            saved(&format!("-A KUBE-SERVICES {text}"));
        }

        #[test]
        fn no_name_ends_a_line_or_a_comment(name in any::<String>()) {
            let comment = Comment::new(&name);
            prop_assert!(!comment.as_str().contains(['\n', '"', '\\', '\'']));
            prop_assert!(comment.as_str().len() <= Comment::MAX);
        }
    }

    #[test]
    fn every_probability_is_known_by_the_form_that_the_kernel_gives_it() {
        for count in 1..=MAX_ENDPOINTS as u32 {
            let written: f64 = probability(count).parse().unwrap();
            let printed = (written * f64::from(1u32 << 31)).round() / f64::from(1u32 << 31);
            assert_eq!(one_in(&format!("{printed:.11}")), Some(count));
        }
        assert_eq!(one_in("0.7"), None);
        assert_eq!(one_in("0"), None);
        assert_eq!(one_in("nan"), None);
    }

    /// As `iptables-save` 1.8.9 prints them, and as kube-proxy writes them.
    #[test]
    fn both_spellings_of_a_rule_are_one() {
        let pairs = [
            ("-j MARK --set-xmark 0x4000/0x4000", "-j MARK --or-mark 0x00004000"),
            ("-j MARK --set-xmark 0x4000/0x0", "-j MARK --xor-mark 0x00004000"),
            ("-m mark ! --mark 0x4000/0x4000 -j RETURN", "-m mark ! --mark 0x00004000/0x00004000 -j RETURN"),
            ("-s 10.1.0.1/32 -m comment --comment \"ns1/x\" -j KUBE-MARK-MASQ", "-m comment --comment ns1/x -s 10.1.0.1 -j KUBE-MARK-MASQ"),
            (
                "-p tcp -m comment --comment \"ns1/x\" -m recent --set --name KUBE-SEP-ABCDEFGHABCDEFGH --mask 255.255.255.255 --rsource -m tcp -j DNAT --to-destination 10.1.0.1:80",
                "-m comment --comment ns1/x -m recent --name KUBE-SEP-ABCDEFGHABCDEFGH --set -m tcp -p tcp -j DNAT --to-destination 10.1.0.1:80",
            ),
            (
                "! -s 10.0.0.0/8 -d 10.96.0.1/32 -p tcp -m comment --comment \"ns1/x cluster IP\" -m tcp --dport 80 -j KUBE-MARK-MASQ",
                "-m comment --comment \"ns1/x cluster IP\" -m tcp -p tcp -d 10.96.0.1 --dport 80 ! -s 10.0.0.0/8 -j KUBE-MARK-MASQ",
            ),
            (
                "-m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-ABCDEFGHABCDEFGH --mask 255.255.255.255 --rsource -j KUBE-SEP-ABCDEFGHABCDEFGH",
                "-m recent --name KUBE-SEP-ABCDEFGHABCDEFGH --rcheck --seconds 10800 --reap -j KUBE-SEP-ABCDEFGHABCDEFGH",
            ),
            (
                "-m statistic --mode random --probability 0.33333333349 -j KUBE-SEP-ABCDEFGHABCDEFGH",
                "-m statistic --mode random --probability 0.3333333333 -j KUBE-SEP-ABCDEFGHABCDEFGH",
            ),
            (
                "-d 10.96.0.1/32 -p udp -m addrtype --dst-type LOCAL -m udp --dport 80 -j REJECT --reject-with icmp-port-unreachable",
                "-m addrtype --dst-type LOCAL -m udp -p udp -d 10.96.0.1 --dport 80 -j REJECT",
            ),
            ("-i br+ -j KUBE-SERVICES", "-i br+ -j KUBE-SERVICES"),
        ];
        for (printed, written) in pairs {
            assert!(rule(printed).is_some(), "{printed}");
            assert_eq!(rule(printed), rule(written), "{written}");
        }
    }

    #[test]
    fn what_we_never_write_is_foreign() {
        for text in
            ["-o eth0 -j ACCEPT", "-j DOCKER", "! -p tcp -j DROP", "-m limit --limit 3/sec -j ACCEPT", "-j DNAT --to-destination 10.0.0.1"]
        {
            assert_eq!(rule(text), None, "{text}");
            let Saved::Rule(_, line) = saved(&format!("-A INPUT {text}")) else { panic!("{text}") };
            assert_eq!(line, Line::Foreign(text.into()));
        }
    }
}
