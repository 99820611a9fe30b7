//! Operations as netlink requests, and rules as `iptables-save` prints them and `iptables-restore` reads them.
//!
//! Owns both formats. Rules are written exactly as iptables prints them, so that what is loaded can be compared as
//! text. Never sends anything. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::ir::{Entry, Item, LINK, Op};
use super::sets::Set;
use super::skeleton::{Chain, JUMPS, Jump, Match, Rule, Side, Skeleton, Table, Target};
use crate::model::Family;
use crate::netlink::route::{self, LinkAddress};
use crate::netlink::socket::Pipeline;
use crate::netlink::{genl, ipset, ipvs};

/// What the numbers of this kernel are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    pub family: Family,
    /// IPVS's number in generic netlink.
    pub ipvs: u16,
    /// The link's index; 0 while there is none.
    pub link: u32,
}

/// Which socket an operation goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Ipvs,
    Sets,
    Route,
    Rules,
}

pub fn channel(op: &Op) -> Channel {
    match op {
        Op::CreateLink | Op::Add(Item::Address(_)) | Op::Delete(Item::Address(_)) => Channel::Route,
        Op::CreateSet(_) | Op::Add(Item::Entry(..)) | Op::Delete(Item::Entry(..)) => Channel::Sets,
        Op::Load(_) => Channel::Rules,
        _ => Channel::Ipvs,
    }
}

/// Adds an operation's request. Rules have none, and new sets are made one by one, with a revision that is asked for.
pub fn render(pipeline: &mut Pipeline, op: &Op, numbers: &Numbers) {
    let mut ipvs = |command: u8, fill: &dyn Fn(&mut crate::netlink::attr::Writer)| {
        pipeline.add(numbers.ipvs, 0, &genl::header(command, ipvs::VERSION), fill);
    };
    match op {
        Op::AddServer(server, spread) => ipvs(ipvs::NEW_SERVICE, &|w| ipvs::put_server(w, server, Some(spread))),
        Op::EditServer(server, spread) => ipvs(ipvs::SET_SERVICE, &|w| ipvs::put_server(w, server, Some(spread))),
        Op::DeleteServer(server) => ipvs(ipvs::DEL_SERVICE, &|w| ipvs::put_server(w, server, None)),
        Op::AddDestination(server, address, weight) => {
            ipvs(ipvs::NEW_DEST, &|w| ipvs::put_destination(w, server, *address, Some(*weight)));
        }
        Op::EditDestination(server, address, weight) => {
            ipvs(ipvs::SET_DEST, &|w| ipvs::put_destination(w, server, *address, Some(*weight)));
        }
        Op::DeleteDestination(server, address) => ipvs(ipvs::DEL_DEST, &|w| ipvs::put_destination(w, server, *address, None)),
        Op::Add(item) => render_item(pipeline, item, true, numbers),
        Op::Delete(item) => render_item(pipeline, item, false, numbers),
        Op::CreateLink => {
            let flags = route::CREATE | route::EXCLUSIVE;
            pipeline.add(route::NEW_LINK, flags, &route::link_header(0), |w| route::put_dummy(w, LINK));
        }
        Op::CreateSet(_) | Op::Load(_) => {}
    }
}

fn render_item(pipeline: &mut Pipeline, item: &Item, add: bool, numbers: &Numbers) {
    match item {
        Item::Entry(set, entry) => {
            let kind = if add { ipset::ADD } else { ipset::DELETE };
            pipeline.add(kind, 0, &ipset::HEADER, |w| ipset::put_entry(w, set.name(numbers.family), entry));
        }
        Item::Address(ip) => {
            let address = LinkAddress { link: numbers.link, ip: *ip, prefix: ipvs::whole(*ip) };
            let (kind, flags) = if add { (route::NEW_ADDRESS, route::CREATE | route::EXCLUSIVE) } else { (route::DELETE_ADDRESS, 0) };
            pipeline.add(kind, flags, &route::address_header(&address), |w| route::put_address(w, &address));
        }
    }
}

/// What an operation is about, for messages.
pub fn describe(op: &Op, family: Family) -> String {
    let entry = |set: &Set, entry: &Entry| format!("{entry} in set {}", set.name(family));
    match op {
        Op::CreateLink => format!("link {LINK}"),
        Op::CreateSet(set) => format!("set {}", set.name(family)),
        Op::Add(Item::Entry(set, e)) => format!("entry {}", entry(set, e)),
        Op::Delete(Item::Entry(set, e)) => format!("the removal of entry {}", entry(set, e)),
        Op::Add(Item::Address(ip)) => format!("address {ip} on {LINK}"),
        Op::Delete(Item::Address(ip)) => format!("the removal of address {ip} from {LINK}"),
        Op::Load(_) => "the iptables rules".into(),
        Op::AddServer(server, spread) | Op::EditServer(server, spread) => {
            format!("virtual server {server} with scheduler {}", spread.scheduler.name())
        }
        Op::DeleteServer(server) => format!("the removal of virtual server {server}"),
        Op::AddDestination(server, address, _) | Op::EditDestination(server, address, _) => {
            format!("destination {address} of virtual server {server}")
        }
        Op::DeleteDestination(server, address) => format!("the removal of destination {address} of virtual server {server}"),
    }
}

/// A rule as `iptables-save` prints it, without `-A` and the chain.
pub fn rule(rule: &Rule, family: Family) -> String {
    let mut text = String::new();
    // Addresses, interfaces and protocols come first, wherever they were given.
    let first = |m: &&Match| matches!(m, Match::Source(_) | Match::NotSource(_) | Match::NotInterface(_) | Match::Protocol(_));
    for one in rule.matches.iter().filter(first).chain(rule.matches.iter().filter(|m| !first(m))) {
        put_match(&mut text, one, family);
        text.push(' ');
    }
    put_target(&mut text, rule.target, family);
    text
}

fn put_match(text: &mut String, one: &Match, family: Family) {
    // Writing to a string cannot fail.
    let _ = match one {
        Match::Source(cidr) => write!(text, "-s {cidr}"),
        Match::NotSource(cidr) => write!(text, "! -s {cidr}"),
        Match::NotInterface(name) => write!(text, "! -i {name}"),
        Match::Protocol(protocol) => write!(text, "-p {protocol}"),
        Match::Comment(comment) => write!(text, "-m comment --comment \"{}\"", comment.replace('\'', "\\'")),
        Match::Set(set, sides) => {
            let side = |side: &Side| if *side == Side::Source { "src" } else { "dst" };
            let sides: Vec<&str> = sides.iter().map(side).collect();
            write!(text, "-m set --match-set {} {}", set.name(family), sides.join(","))
        }
        Match::Marked(mark) => write!(text, "-m mark --mark {mark:#x}/{mark:#x}"),
        Match::NotMarked(mark) => write!(text, "-m mark ! --mark {mark:#x}/{mark:#x}"),
        Match::New => write!(text, "-m conntrack --ctstate NEW"),
        Match::Established => write!(text, "-m conntrack --ctstate RELATED,ESTABLISHED"),
        Match::FromElsewhere => write!(text, "-m addrtype ! --src-type LOCAL"),
        Match::ToHere => write!(text, "-m addrtype --dst-type LOCAL"),
        Match::NotBridged => write!(text, "-m physdev ! --physdev-is-in"),
        Match::Ipvs(server) => {
            write!(text, "-m ipvs --vproto {} --vaddr {} --vport {}", server.protocol.number(), server.ip, server.port)
        }
    };
}

fn put_target(text: &mut String, target: Target, family: Family) {
    let _ = match target {
        Target::Return => write!(text, "-j RETURN"),
        Target::Accept => write!(text, "-j ACCEPT"),
        Target::Drop => write!(text, "-j DROP"),
        Target::Reject if family == Family::V4 => write!(text, "-j REJECT --reject-with icmp-port-unreachable"),
        Target::Reject => write!(text, "-j REJECT --reject-with icmp6-port-unreachable"),
        Target::Masquerade => write!(text, "-j MASQUERADE"),
        Target::MasqueradeRandom => write!(text, "-j MASQUERADE --random-fully"),
        Target::SetMark(mark) => write!(text, "-j MARK --set-xmark {mark:#x}/{mark:#x}"),
        Target::ClearMark(mark) => write!(text, "-j MARK --set-xmark 0x0/{mark:#x}"),
        Target::FlipMark(mark) => write!(text, "-j MARK --set-xmark {mark:#x}/0x0"),
        Target::Goto(chain) => write!(text, "-j {}", chain.name()),
    };
}

fn jump(jump: &Jump) -> String {
    format!("-m comment --comment \"{}\" -j {}", jump.comment, jump.to.name())
}

/// What `iptables-save` printed of our chains, and which of our jumps are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    /// By table and name; a chain without rules is there, too.
    chains: BTreeMap<(Table, String), Vec<String>>,
    /// Positions in [`JUMPS`].
    jumps: Vec<usize>,
}

impl Saved {
    /// Reads the print of all tables. Anything that is not ours is passed over.
    pub fn read(text: &str) -> Saved {
        let mut saved = Saved::default();
        let mut table = None;
        for line in text.lines().map(str::trim_end) {
            if let Some(name) = line.strip_prefix('*') {
                table = [Table::Nat, Table::Filter].into_iter().find(|table| table.name() == name);
            } else if let Some(table) = table {
                saved.take(table, line);
            }
        }
        saved
    }

    /// What will be there once these rules are loaded.
    pub fn of(skeleton: &Skeleton) -> Saved {
        Saved { chains: chains(skeleton), jumps: (0..JUMPS.len()).collect() }
    }

    fn take(&mut self, table: Table, line: &str) {
        let ours = |name: &str| Chain::ALL.into_iter().any(|chain| chain.table() == table && chain.name() == name);
        if let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
            if ours(chain) {
                self.chains.entry((table, chain.into())).or_default();
            }
            return;
        }
        let Some((chain, rest)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) else { return };
        if ours(chain) {
            self.chains.entry((table, chain.into())).or_default().push(rest.into());
        }
        let found = JUMPS.iter().position(|known| known.to.table() == table && known.from == chain && jump(known) == rest);
        self.jumps.extend(found);
    }

    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.jumps.is_empty()
    }

    /// Whether these are the rules, to the letter, with every jump in place.
    pub fn is(&self, skeleton: &Skeleton) -> bool {
        self.missing_jumps().next().is_none() && self.chains == chains(skeleton)
    }

    fn missing_jumps(&self) -> impl Iterator<Item = &'static Jump> {
        JUMPS.iter().enumerate().filter(|(index, _)| !self.jumps.contains(index)).map(|(_, jump)| jump)
    }

    /// Sets that its rules name because they have entries.
    pub fn used(&self, family: Family) -> BTreeSet<Set> {
        // This one names its sets always.
        let always = (Chain::IpvsFilter.table(), Chain::IpvsFilter.name().to_string());
        let rules = self.chains.iter().filter(|(chain, _)| **chain != always).flat_map(|(_, rules)| rules);
        let sets = rules.flat_map(|rule| rule.split(' ')).filter_map(|word| Set::from_name(word, family));
        sets.filter(|set| set.decides_rules()).collect()
    }

    /// What `iptables-restore --noflush` must read for the rules to be these.
    pub fn load(&self, skeleton: &Skeleton) -> String {
        let chains = chains(skeleton);
        let mut text = String::new();
        for table in [Table::Nat, Table::Filter] {
            let _ = writeln!(text, "*{}", table.name());
            let of_table = || chains.iter().filter(|((of, _), _)| *of == table);
            for ((_, name), _) in of_table() {
                let _ = writeln!(text, ":{name} - [0:0]");
            }
            for jump_missing in self.missing_jumps().filter(|jump| jump.to.table() == table) {
                let _ = writeln!(text, "-I {} 1 {}", jump_missing.from, jump(jump_missing));
            }
            for ((_, name), rules) in of_table() {
                for rule in rules {
                    let _ = writeln!(text, "-A {name} {rule}");
                }
            }
            text.push_str("COMMIT\n");
        }
        text
    }

    /// Whether the chains that the iptables backend has, too, are for IPVS.
    pub fn are_ours(&self) -> bool {
        let node_ports = rule(&Rule { matches: vec![Match::ToHere], target: Target::Goto(Chain::NodePort) }, Family::V4);
        let services = self.chains.get(&(Table::Nat, Chain::Services.name().into()));
        services.is_some_and(|rules| rules.contains(&node_ports))
    }

    /// What it must read for them to go. Chains that the iptables backend has filled by now stay, and so do the jumps to
    /// them that are the same there.
    pub fn unload(&self) -> String {
        let goes = |chain: Chain| self.are_ours() || !chain.is_shared();
        // Both backends jump from INPUT and FORWARD to this one, but each with a comment of its own.
        let jump_goes = |jump: &Jump| goes(jump.to) || jump.to == Chain::ProxyFirewall;
        let mut text = String::new();
        for table in [Table::Nat, Table::Filter] {
            let held = |chain: &&Chain| chain.table() == table && self.chains.contains_key(&(table, chain.name().into()));
            let chains: Vec<Chain> = Chain::ALL.iter().filter(held).copied().filter(|chain| goes(*chain)).collect();
            let jumps = self.jumps.iter().map(|index| &JUMPS[*index]).filter(|jump| jump.to.table() == table && jump_goes(jump));
            let jumps: Vec<&Jump> = jumps.collect();
            if chains.is_empty() && jumps.is_empty() {
                continue;
            }
            let _ = writeln!(text, "*{}", table.name());
            for chain in &chains {
                let _ = writeln!(text, ":{} - [0:0]", chain.name());
            }
            for gone in jumps {
                let _ = writeln!(text, "-D {} {}", gone.from, jump(gone));
            }
            for chain in &chains {
                let _ = writeln!(text, "-X {}", chain.name());
            }
            text.push_str("COMMIT\n");
        }
        text
    }
}

/// All chains of the rules, as text.
fn chains(skeleton: &Skeleton) -> BTreeMap<(Table, String), Vec<String>> {
    let rules = skeleton.rules();
    let of = |chain: Chain| rules.of(chain).map(|one| rule(one, skeleton.family)).collect();
    Chain::ALL.into_iter().map(|chain| ((chain.table(), chain.name().to_string()), of(chain))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DetectLocal;
    use crate::model::{Cidr, Protocol};

    fn skeleton(family: Family, used: &[Set]) -> Skeleton {
        let cidrs = ["10.1.0.0/16", "fd00:1::/64"].map(|cidr| Cidr::parse(cidr).unwrap());
        Skeleton {
            family,
            masquerade_mark: 0x4000,
            masquerade_all: false,
            detect_local: DetectLocal::ClusterCidr(cidrs.into()),
            used: used.iter().copied().collect(),
            denied: BTreeSet::new(),
        }
    }

    /// What iptables-save would print after such an input, read.
    fn restored(input: &str) -> Saved {
        Saved::read(&input.replace("-I ", "-A ").replace(" 1 -m comment", " -m comment"))
    }

    fn conditional() -> BTreeSet<Set> {
        Set::ALL.into_iter().filter(|set| set.decides_rules()).collect()
    }

    #[test]
    fn rules_that_were_loaded_are_recognised() {
        for family in Family::ALL {
            let one = skeleton(family, &Set::ALL);
            let saved = restored(&Saved::default().load(&one));
            assert!(saved.is(&one));
            assert_eq!(saved.used(family), conditional());
            assert!(!saved.is(&skeleton(family, &[])));
            // Nothing is jumped to twice.
            assert!(!saved.load(&one).contains("-I "));
            assert!(restored(&saved.unload()).chains.values().all(Vec::is_empty));
        }
    }

    #[test]
    fn rules_are_written_as_iptables_prints_them() {
        let mut one = skeleton(Family::V4, &[Set::ClusterIp, Set::NodePortTcp, Set::NodePortSctp]);
        let vip = crate::netlink::ipvs::Server { ip: [192, 0, 2, 9].into(), protocol: Protocol::Tcp, port: 80 };
        one.denied.insert(vip);
        let text = Saved::default().load(&one);
        let expected = [
            "-A KUBE-SERVICES -s 127.0.0.0/8 -j RETURN",
            "-A KUBE-SERVICES ! -s 10.1.0.0/16 -m comment --comment \"Kubernetes service cluster ip + port for masquerade purpose\" -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ",
            "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT",
            "-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT",
            "-A KUBE-NODE-PORT -p tcp -m comment --comment \"Kubernetes nodeport TCP port for masquerade purpose\" -m set --match-set KUBE-NODE-PORT-TCP dst -j KUBE-MARK-MASQ",
            "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
            "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0",
            "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
            "-A KUBE-IPVS-OUT-FILTER -s 192.0.2.9/32 -m ipvs --vproto 6 --vaddr 192.0.2.9 --vport 80 -j DROP",
            "-A KUBE-NODE-PORT -p sctp -m comment --comment \"Kubernetes nodeport SCTP port for masquerade purpose with type \\'hash ip:port\\'\" -m set --match-set KUBE-NODE-PORT-SCTP-HASH dst,dst -j KUBE-MARK-MASQ",
            "-I OUTPUT 1 -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-OUT-FILTER",
        ];
        for line in expected {
            assert!(text.lines().any(|got| got == line), "no {line:?} in\n{text}");
        }
    }

    #[test]
    fn chains_of_the_other_backend_stay_when_it_takes_over() {
        let ours = Saved::default().load(&skeleton(Family::V4, &Set::ALL));
        let saved = restored(&ours.replace("-A KUBE-SERVICES", "-A KUBE-OTHER"));
        let text = saved.unload();
        assert!(!text.contains("-X KUBE-SERVICES") && !text.contains("-D OUTPUT -m comment --comment \"kubernetes service portals\""));
        assert!(text.contains("-X KUBE-IPVS-FILTER") && text.contains("-D INPUT -m comment --comment \"kube-proxy firewall rules\""));
    }

    #[test]
    fn every_operation_but_rules_and_sets_is_one_request() {
        let server = crate::netlink::ipvs::Server { ip: [10, 96, 0, 1].into(), protocol: Protocol::Tcp, port: 80 };
        let spread = crate::backend::ipvs::compile::Balance::parse("").map(|b| ipvs::Spread {
            scheduler: b.scheduler,
            flags: 0,
            timeout: 0,
            netmask: 32,
        });
        let spread = spread.unwrap();
        let address = "10.1.0.1:80".parse().unwrap();
        let ops = [
            Op::CreateLink,
            Op::Add(Item::Entry(Set::NodePortTcp, Entry::Port(1))),
            Op::Delete(Item::Address(server.ip)),
            Op::AddServer(server, spread),
            Op::EditServer(server, spread),
            Op::AddDestination(server, address, 1),
            Op::EditDestination(server, address, 0),
            Op::DeleteDestination(server, address),
            Op::DeleteServer(server),
        ];
        let mut pipeline = Pipeline::default();
        let numbers = Numbers { family: Family::V4, ipvs: 30, link: 5 };
        ops.iter().for_each(|op| render(&mut pipeline, op, &numbers));
        assert_eq!(pipeline.len(), ops.len());
    }
}
