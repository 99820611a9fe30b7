//! Laws of the iptables backend: rules, differences, programs; and agreement with nftables in the simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;

use super::compile::{Fragment, compile};
use super::diff::{Holding, NAT_SERVICES};
use super::image::Image;
use super::ir::{Line, Op, Place, Rule, Table, Write, is_shared};
use super::names::{BuiltIn, Chain, Fixed, Kind};
use super::parse::{Saved, saved};
use super::program::Program;
use super::schema::{self, JUMPS, Options};
use super::{render, sim};
use crate::backend::Options as Common;
use crate::backend::nft;
use crate::config::DetectLocal;
use crate::model::{Cidr, Family, FrontendKey, ObjectName, Protocol};
use crate::resolve::{Action, Frontend, FrontendKind, HealthCheck, Resolved};
use crate::sim::{Outcome, Packet, Surroundings};

const NODE: [u8; 4] = [192, 0, 2, 1];

fn options() -> Options {
    let common = Common {
        family: Family::V4,
        detect_local: DetectLocal::ClusterCidr(vec![Cidr::parse("10.0.0.0/8").unwrap()]),
        masquerade_all: false,
        masquerade_mark: 1 << 14,
        node_ports_everywhere: true,
        endpoint_counters: false,
        liberal: false,
    };
    Options { common, localhost_node_ports: false, liberal: false, accounting: false, node_port_ips: Vec::new() }
}

fn pods(bits: u8) -> Arc<[SocketAddr]> {
    (0..8u8).filter(|i| bits & 1 << i != 0).map(|i| SocketAddr::from(([10, 1, 0, i + 1], 8080))).collect()
}

/// One service port as `resolve` would give it: from lists and policies to the action of each frontend.
#[derive(Debug, Clone)]
struct Spec {
    last: u8,
    udp: bool,
    cluster: u8,
    local: u8,
    internal_local: bool,
    external_local: bool,
    external_ip: bool,
    balancer: bool,
    node_port: bool,
    affinity: bool,
    ranges: bool,
    health: bool,
}

impl Spec {
    fn resolved(&self) -> Resolved {
        let external = self.external_ip || self.balancer || self.node_port;
        // Pods of this node are among all pods.
        let (cluster, local) = (pods(self.cluster | self.local), pods(self.local));
        let any = !cluster.is_empty();
        let internal = match (self.internal_local, any) {
            (_, false) => Action::Refuse,
            (true, _) if local.is_empty() => Action::Drop,
            (true, _) => Action::Forward { endpoints: local.clone() },
            (false, _) => Action::Forward { endpoints: cluster.clone() },
        };
        let outer = match (self.external_local, any) {
            (_, false) => Action::Refuse,
            (true, _) => Action::ForwardLocal { cluster, local },
            (false, _) => Action::ForwardMasked { endpoints: cluster },
        };
        let protocol = if self.udp { Protocol::Udp } else { Protocol::Tcp };
        let vip = |ip: [u8; 4]| FrontendKey::Vip { ip: ip.into(), protocol, port: 80 };
        let ranges: Box<[Cidr]> = if self.ranges { [Cidr::parse("203.0.113.0/28").unwrap()].into() } else { Box::default() };
        let mut frontends = Vec::new();
        let mut add = |kind, key, action: &Action, source_ranges| {
            let affinity_seconds = self.affinity.then_some(10_800);
            frontends.push(Frontend { key, kind, port_name: "p80".into(), action: action.clone(), affinity_seconds, source_ranges });
        };
        add(FrontendKind::ClusterIp, vip([172, 30, 0, self.last]), &internal, Box::default());
        if self.external_ip {
            add(FrontendKind::ExternalIp, vip([198, 51, 100, self.last]), &outer, Box::default());
        }
        if self.balancer {
            add(FrontendKind::LoadBalancer, vip([198, 51, 101, self.last]), &outer, ranges);
        }
        if self.node_port {
            add(FrontendKind::NodePort, FrontendKey::NodePort { protocol, port: 30000 + u16::from(self.last) }, &outer, Box::default());
        }
        let health = (self.health && external).then_some(HealthCheck { port: 31000, local_endpoints: 0 });
        let cluster_ip = Some([172, 30, 0, self.last].into());
        Resolved { frontends, cluster_ip, internal_local: self.internal_local, health, ..Resolved::default() }
    }
}

fn spec(last: impl Strategy<Value = u8>) -> impl Strategy<Value = Spec> {
    let flags = proptest::collection::vec(any::<bool>(), 9);
    (last, any::<u8>(), prop_oneof![Just(0u8), any::<u8>()], prop_oneof![Just(0u8), Just(6u8), any::<u8>()], flags).prop_map(
        |(last, mask, cluster, local, flags)| Spec {
            last,
            udp: flags[0],
            cluster,
            local: local & mask,
            internal_local: flags[1],
            external_local: flags[2],
            external_ip: flags[3],
            balancer: flags[4],
            node_port: flags[5],
            affinity: flags[6],
            ranges: flags[7],
            health: flags[8],
        },
    )
}

fn name(index: u8) -> ObjectName {
    ObjectName::new("ns1", &format!("svc{index}"))
}

/// What the kernel has before anybody wrote to it.
fn pristine() -> Image {
    let mut image = Image::default();
    for jump in JUMPS {
        image.chains.insert((jump.table, Chain::BuiltIn(jump.from)), Vec::new());
    }
    image
}

/// Does what a plane does, with an image for the kernel. Returns how many lines were written.
fn sync(program: &mut Program, image: &mut Image) -> usize {
    if program.needs_read() {
        program.adopt(image.holding());
    }
    sync_in_portions(program, image, usize::MAX)
}

/// The same, with so many services at once.
fn sync_in_portions(program: &mut Program, image: &mut Image, portion: usize) -> usize {
    let waiting = program.waiting();
    let portions: Vec<&[ObjectName]> = if waiting.is_empty() { vec![&[]] } else { waiting.chunks(portion).collect() };
    let mut lines = 0;
    for services in portions {
        let plan = program.plan(services);
        let writes: Vec<Write> = plan.writes().cloned().collect();
        image.apply(&writes).unwrap_or_else(|refused| panic!("refused {refused} of\n{}", plan.input().text));
        program.committed(&plan);
        lines += writes.len();
    }
    let jumps = program.missing_jumps();
    for jump in &jumps {
        image.chains.get_mut(&(jump.table, Chain::BuiltIn(jump.from))).unwrap().insert(0, jump.rule());
        program.jump_made(jump);
    }
    lines + jumps.len()
}

fn program_of(options: Options, services: &[(ObjectName, Resolved)]) -> (Program, Image) {
    let (mut program, mut image) = (Program::new(options), pristine());
    services.iter().for_each(|(name, resolved)| program.set(name, resolved));
    sync(&mut program, &mut image);
    (program, image)
}

/// The order of services in the chains of all has no meaning.
fn normal(image: &Image) -> BTreeMap<Place, Vec<Rule>> {
    let mut chains = image.chains.clone();
    for (place, rules) in &mut chains {
        if is_shared(place.1) {
            let is_last = |rule: &Rule| *place == NAT_SERVICES && rule.target == Rule::jump(Chain::Fixed(Fixed::NodePorts)).target;
            rules.sort_by_cached_key(|rule| (is_last(rule), format!("{rule:?}")));
        }
    }
    chains
}

fn lines(image: &Image, place: Place) -> Vec<String> {
    let line = |rule: &Rule| {
        let mut text = String::new();
        render::rule(&mut text, rule);
        text.trim().to_string()
    };
    image.chains[&place].iter().map(line).collect()
}

fn nat(name: &str) -> Place {
    (Table::Nat, Chain::parse(name).unwrap())
}

/// Of the specification's worked example.
#[test]
fn the_worked_example_is_written_to_the_letter() {
    let frontend = Frontend {
        key: FrontendKey::Vip { ip: [172, 30, 0, 41].into(), protocol: Protocol::Tcp, port: 80 },
        kind: FrontendKind::ClusterIp,
        port_name: "p80".into(),
        action: Action::Forward { endpoints: [([10, 180, 0, 1], 80).into()].into() },
        affinity_seconds: None,
        source_ranges: [].into(),
    };
    let resolved = Resolved { frontends: vec![frontend], ..Resolved::default() };
    let (_, image) = program_of(options(), &[(ObjectName::new("ns1", "svc1"), resolved)]);
    assert_eq!(
        lines(&image, NAT_SERVICES),
        [
            "-m comment --comment \"ns1/svc1:p80 cluster IP\" -m tcp -p tcp -d 172.30.0.41/32 --dport 80 -j KUBE-SVC-XPGD46QRK7WJZT7O",
            "-m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" \
             -m addrtype --dst-type LOCAL ! -d 127.0.0.0/8 -j KUBE-NODEPORTS",
        ]
    );
    assert_eq!(
        lines(&image, nat("KUBE-SVC-XPGD46QRK7WJZT7O")),
        [
            "-m comment --comment \"ns1/svc1:p80 cluster IP\" -m tcp -p tcp -d 172.30.0.41/32 --dport 80 ! -s 10.0.0.0/8 -j KUBE-MARK-MASQ",
            "-m comment --comment \"ns1/svc1:p80 -> 10.180.0.1:80\" -j KUBE-SEP-SXIVWICOYRO3J4NJ",
        ]
    );
    assert_eq!(
        lines(&image, nat("KUBE-SEP-SXIVWICOYRO3J4NJ")),
        [
            "-m comment --comment \"ns1/svc1:p80\" -s 10.180.0.1/32 -j KUBE-MARK-MASQ",
            "-m comment --comment \"ns1/svc1:p80\" -m tcp -p tcp -j DNAT --to-destination 10.180.0.1:80",
        ]
    );
    let rules = |table| image.chains.iter().filter(move |((t, c), _)| *t == table && !matches!(c, Chain::BuiltIn(_))).map(|(_, r)| r.len());
    assert_eq!(rules(Table::Nat).sum::<usize>(), 5 + 2 + 3);
    assert_eq!(rules(Table::Filter).sum::<usize>(), 3);
}

#[test]
fn a_service_has_two_rules_and_three_for_each_endpoint_or_one_that_refuses() {
    for count in 0..6u32 {
        let spec = Spec { cluster: ((1u16 << count) - 1) as u8, ..plain(1) };
        let compiled = compile(&name(1), &Fragment::of(&spec.resolved()), &options(), false);
        let own: usize = compiled.chains.values().map(Vec::len).sum();
        let expected = if count == 0 { 1 } else { 2 + 3 * count as usize };
        assert_eq!(own + compiled.shared.len(), expected);
    }
}

fn plain(last: u8) -> Spec {
    let no = false;
    Spec {
        last,
        udp: no,
        cluster: 3,
        local: 0,
        internal_local: no,
        external_local: no,
        external_ip: no,
        balancer: no,
        node_port: no,
        affinity: no,
        ranges: no,
        health: no,
    }
}

#[test]
fn jumps_stand_in_kube_proxys_order() {
    let (_, image) = program_of(options(), &[]);
    let order = |table, from| -> Vec<String> {
        let rules = &image.chains[&(table, Chain::BuiltIn(from))];
        rules.iter().map(|rule| format!("{:?}", rule.target)).map(|text| text.replace("Some(Jump(Fixed(", "").replace(")))", "")).collect()
    };
    assert_eq!(order(Table::Filter, BuiltIn::Input), ["Firewall", "ProxyFirewall", "NodePorts", "ExternalServices"]);
    assert_eq!(order(Table::Filter, BuiltIn::Forward), ["ProxyFirewall", "Forward", "Services", "ExternalServices"]);
    assert_eq!(order(Table::Filter, BuiltIn::Output), ["Firewall", "ProxyFirewall", "Services"]);
    assert_eq!(
        lines(&image, (Table::Filter, Chain::BuiltIn(BuiltIn::Input)))[1],
        "-m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL"
    );
}

#[test]
fn an_endpoint_that_changes_touches_its_service_alone() {
    let services: Vec<(ObjectName, Resolved)> = (0..50).map(|i| (name(i), plain(i).resolved())).collect();
    let (mut program, mut image) = program_of(options(), &services);
    program.set(&name(7), &Spec { cluster: 5, ..plain(7) }.resolved());
    let plan = program.plan(&program.waiting());
    let text = plan.input().text;
    // The service's chain, the endpoint that came, the endpoint that went.
    let declared: Vec<&str> = text.lines().filter(|line| line.starts_with(':')).collect();
    assert_eq!(declared.len(), 3, "{text}");
    assert!(text.starts_with("*nat\n") && text.ends_with("COMMIT\n") && !text.contains("KUBE-SERVICES"), "{text}");
    assert_eq!(text.lines().count(), 2 + 3 + 3 + 2 + 1, "{text}");
    assert!(sync(&mut program, &mut image) > 0);
}

#[test]
fn the_last_endpoint_is_refused_before_it_is_untranslated_and_the_first_the_other_way_round() {
    let (mut program, mut image) = program_of(options(), &[(name(1), plain(1).resolved())]);
    program.set(&name(1), &Spec { cluster: 0, ..plain(1) }.resolved());
    let sections = |program: &Program| -> Vec<String> {
        let text = program.plan(&program.waiting()).input().text;
        text.lines().filter(|line| line.starts_with('*')).map(String::from).collect()
    };
    assert_eq!(sections(&program), ["*filter", "*nat"]);
    sync(&mut program, &mut image);
    program.set(&name(1), &plain(1).resolved());
    assert_eq!(sections(&program), ["*nat", "*filter"]);
    // Also when nothing is known of what stands there.
    program.adopt(image.holding());
    assert_eq!(sections(&program), ["*nat", "*filter"]);
    sync(&mut program, &mut image);
    program.set(&name(1), &Spec { cluster: 0, ..plain(1) }.resolved());
    program.adopt(image.holding());
    assert_eq!(sections(&program), ["*filter", "*nat"]);
}

#[test]
fn a_large_cluster_has_fewer_comments_and_takes_over_those_that_are_there() {
    let many: Arc<[SocketAddr]> = (0..1001u16).map(|i| SocketAddr::from(([10, 2, (i >> 8) as u8, i as u8], 80))).collect();
    let mut big = plain(2).resolved();
    big.frontends[0].action = Action::Forward { endpoints: many };
    let (mut program, mut image) = program_of(options(), &[(name(1), plain(1).resolved())]);
    let commented = |image: &Image| image.chains.iter().filter(|(_, rules)| format!("{rules:?}").contains("svc1:p80 -> ")).count();
    assert_eq!(commented(&image), 1);
    program.set(&name(2), &big);
    sync(&mut program, &mut image);
    assert!(!format!("{image:?}").contains("svc2:p80 -> "));
    assert_eq!(commented(&image), 1, "what is there stays");
    program.adopt(image.holding());
    assert_eq!(sync(&mut program, &mut image), 0);
}

#[test]
fn so_many_deletions_that_a_chain_is_written_anew() {
    let services: Vec<(ObjectName, Resolved)> = (0..200).map(|i| (name(i), plain(i).resolved())).collect();
    let (mut program, mut image) = program_of(options(), &services);
    (0..150).for_each(|i| program.set(&name(i), &Resolved::default()));
    let text = program.plan(&program.waiting()).input().text;
    assert!(text.contains(":KUBE-SERVICES - [0:0]") && !text.contains("-D KUBE-SERVICES"), "{text}");
    sync(&mut program, &mut image);
    assert_eq!(normal(&image), normal(&program_of(options(), &services[150..]).1));
}

#[test]
fn names_that_are_no_names_cannot_add_rules() {
    let evil = ObjectName::new("ns1", "x\"\n-A KUBE-SERVICES -j ACCEPT\nCOMMIT\n#");
    let (mut program, _) = program_of(options(), &[]);
    program.set(&evil, &Spec { cluster: 0, ..plain(1) }.resolved());
    let text = program.plan(&program.waiting()).input().text;
    assert_eq!(text.lines().count(), 3, "{text}");
    let longest = ObjectName::new(&"n".repeat(63), &"s".repeat(63));
    let every = Spec { external_local: true, balancer: true, node_port: true, ranges: true, health: true, ..plain(1) };
    let mut resolved = every.resolved();
    resolved.frontends.iter_mut().for_each(|frontend| frontend.port_name = "p".repeat(15).into());
    program.set(&longest, &resolved);
    let text = program.plan(&program.waiting()).input().text;
    let whole = format!("other traffic to {longest}:{} will be dropped by KUBE-PROXY-FIREWALL\"", "p".repeat(15));
    assert!(text.contains(&whole), "{text}");
}

#[test]
fn several_pod_ranges_are_all_spared_from_masquerading() {
    let mut options = options();
    options.common.detect_local = DetectLocal::ClusterCidr(["10.1.0.0/16", "10.9.0.0/16"].map(|c| Cidr::parse(c).unwrap()).into());
    let (_, image) = program_of(options, &[(name(1), plain(1).resolved())]);
    for (source, masked) in [([10, 1, 0, 200], false), ([10, 9, 0, 1], false), ([10, 8, 0, 1], true)] {
        let packet = packet(Protocol::Tcp, source.into(), Some("eth0"), ([172, 30, 0, 1], 80).into());
        let Some(Outcome::Delivered { masked: was, .. }) = verdict(&image, &packet, 0) else { panic!("{source:?}") };
        assert_eq!(was, masked, "{source:?}");
    }
}

/// What reading the kernel's text would find: written as iptables-restore's input, read by `parse`.
fn through_text(image: &Image) -> Holding {
    let mut have = Holding::default();
    for table in Table::ALL {
        let mut at = None;
        have.take(&mut at, saved(&format!("*{}", table.name())));
        let ours = || image.chains.iter().filter(|((held, _), _)| *held == table);
        ours().for_each(|((_, chain), _)| have.take(&mut at, saved(&format!(":{chain} - [0:0]"))));
        for ((_, chain), rules) in ours() {
            for rule in rules {
                let mut text = format!("-A {chain}");
                render::rule(&mut text, rule);
                assert_eq!(saved(&text), Saved::Rule(Some(*chain), Line::Rule(rule.clone())), "{text}");
                have.take(&mut at, saved(&text));
            }
        }
    }
    have
}

type Services = BTreeMap<u8, Spec>;

fn services() -> impl Strategy<Value = Services> {
    proptest::collection::btree_map(0u8..6, spec(Just(0)), 0..6).prop_map(|services| {
        // Each has addresses of its own.
        services.into_iter().map(|(index, spec)| (index, Spec { last: index, ..spec })).collect()
    })
}

fn resolved(services: &Services) -> Vec<(ObjectName, Resolved)> {
    services.iter().map(|(index, spec)| (name(*index), spec.resolved())).collect()
}

fn set_all(program: &mut Program, services: &Services) {
    for index in 0..6 {
        program.set(&name(index), &services.get(&index).map_or_else(Resolved::default, Spec::resolved));
    }
}

proptest! {
    #[test]
    fn applying_the_difference_gives_what_was_wanted(have in services(), want in services()) {
        let (mut program, mut image) = program_of(options(), &resolved(&have));
        set_all(&mut program, &want);
        sync(&mut program, &mut image);
        prop_assert_eq!(normal(&image), normal(&program_of(options(), &resolved(&want)).1));
        prop_assert!(program.holds(&image.holding()));
        prop_assert_eq!(through_text(&image), image.holding());
        let wanted = resolved(&want);
        prop_assert_eq!(normal(&image), normal(&Image::of(&options(), wanted.iter().map(|(name, resolved)| (name, resolved)))));
    }

    #[test]
    fn there_is_no_difference_to_oneself(one in services()) {
        let (mut program, mut image) = program_of(options(), &resolved(&one));
        prop_assert_eq!(sync(&mut program, &mut image), 0);
        // Nor after a restart.
        let mut again = Program::new(options());
        set_all(&mut again, &one);
        again.adopt(image.holding());
        prop_assert_eq!(sync(&mut again, &mut image), 0);
        prop_assert!(!again.is_touched());
    }

    #[test]
    fn operations_are_bounded_by_what_changed(before in 1u8.., came in 0u8..8, went in 0u8..8) {
        let of = |bits: u8| Spec { cluster: bits, ..plain(1) };
        let after = (before | 1 << came) & !(1 << went);
        prop_assume!(after != 0);
        let (mut program, mut image) = program_of(options(), &[(name(1), of(before).resolved()), (name(2), plain(2).resolved())]);
        program.set(&name(1), &of(after).resolved());
        let written = sync(&mut program, &mut image);
        // The service's chain anew, three lines for an endpoint that came, two for one that went.
        let changed = (before ^ after).count_ones() as usize;
        let chain = 2 + after.count_ones() as usize;
        prop_assert!(written <= usize::from(changed > 0) * chain + 3 * changed, "{} lines for {}", written, changed);
    }

    /// Any history of changes, commits, failures, restarts and tampering ends with the kernel holding what is desired.
    #[test]
    fn the_program_converges_whatever_happens(steps in proptest::collection::vec((services(), 0u8..10, any::<prop::sample::Index>()), 1..12)) {
        let (mut program, mut image) = (Program::new(options()), pristine());
        for (services, event, index) in &steps {
            set_all(&mut program, services);
            let places: Vec<Place> = image.chains.keys().copied().collect();
            match event {
                0 => program.forget(),
                1 => { image = pristine(); program.forget(); }
                2 => { program = Program::new(options()); set_all(&mut program, services); }
                3 => {
                    // Somebody emptied one of our chains.
                    image.chains.insert(*index.get(&places), Vec::new());
                    program.forget();
                }
                4 => {
                    let place = *index.get(&places);
                    image.chains.get_mut(&place).unwrap().push(Rule::to(super::ir::Target::Accept));
                    program.forget();
                }
                5 => program.set_node_port_ips(vec![[192, 0, 2, services.len() as u8].into()]),
                6 => continue,
                _ => {}
            }
            if program.needs_read() {
                program.adopt(image.holding());
            }
            sync_in_portions(&mut program, &mut image, 1 + index.index(4));
            prop_assert!(program.holds(&image.holding()));
        }
        let (last, ..) = steps.last().unwrap();
        sync(&mut program, &mut image);
        let mut fresh = normal(&program_of(program.options().clone(), &resolved(last)).1);
        let mut held = normal(&image);
        // What others write into chains that are not ours alone stays.
        let others = |place: &Place| matches!(place.1, Chain::BuiltIn(_) | Chain::Fixed(Fixed::Firewall));
        fresh.retain(|place, _| !others(place));
        held.retain(|place, _| !others(place));
        prop_assert_eq!(held, fresh);
    }

    #[test]
    fn nothing_of_ours_is_left_after_deletion(one in services()) {
        let (_, mut image) = program_of(options(), &resolved(&one));
        for jump in JUMPS.iter().filter(|jump| jump.is_ours_alone()) {
            let rules = image.chains.get_mut(&(jump.table, Chain::BuiltIn(jump.from))).unwrap();
            rules.retain(|rule| *rule != jump.rule());
        }
        let writes = super::diff::delete(&image.holding(), &schema::places());
        prop_assert_eq!(image.apply(&writes), Ok(()));
        let left: BTreeSet<Chain> = image.chains.keys().map(|(_, chain)| *chain).filter(|c| !matches!(c, Chain::BuiltIn(_))).collect();
        prop_assert_eq!(left, BTreeSet::from([Chain::Fixed(Fixed::Firewall)]));
    }

    /// The same packet, the same cluster, two backends: one verdict, but for what stands in `excepted`.
    #[test]
    fn nftables_and_iptables_agree(
        services in services(),
        from in proptest::sample::select(vec![From::Pod(1), From::Pod(2), From::Node, From::Outside(9), From::Outside(77)]),
        to in 0u8..6,
        kind in proptest::sample::select(vec![FrontendKind::ClusterIp, FrontendKind::ExternalIp, FrontendKind::LoadBalancer, FrontendKind::NodePort]),
        udp: bool,
        known_port in prop::bool::weighted(0.9),
        masquerade_all: bool,
        detector in prop::bool::weighted(0.8),
        draw: u32,
    ) {
        let mut options = options();
        options.common.masquerade_all = masquerade_all;
        options.common.detect_local = if detector { DetectLocal::ClusterCidr(vec![Cidr::parse("10.1.0.0/16").unwrap()]) } else { DetectLocal::None };
        let destination: SocketAddr = match kind {
            FrontendKind::ClusterIp => ([172, 30, 0, to], 80).into(),
            FrontendKind::ExternalIp => ([198, 51, 100, to], 80).into(),
            FrontendKind::LoadBalancer => ([198, 51, 101, to], 80).into(),
            FrontendKind::NodePort => (NODE, 30000 + u16::from(to)).into(),
        };
        let destination = SocketAddr::new(destination.ip(), if known_port { destination.port() } else { 9 });
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let packet = packet(protocol, from.address(), from.interface(), destination);
        let held = resolved(&services);
        let ours = verdict(&Image::of(&options, held.iter().map(|(name, resolved)| (name, resolved))), &packet, draw);
        let theirs = nft_verdict(&options.common, &held, &packet, draw);
        if let Some(expected) = excepted(&services, &packet, kind) {
            prop_assert_eq!(ours, Some(expected));
            return Ok(());
        }
        match (ours, theirs) {
            (Some(Outcome::Delivered { to: a, masked: am }), Some(Outcome::Delivered { to: b, masked: bm })) => {
                // Which endpoint it is differs with the draws; a pod's own address is always masked.
                prop_assert!(a == b || pods(255).contains(&a) && pods(255).contains(&b));
                let own = |to: SocketAddr| to != packet.destination && to.ip() == packet.source.ip();
                prop_assert!(am || !own(a) && (own(b) || !bm), "{:?} {:?}", ours, theirs);
                prop_assert!(bm || !own(b) && (own(a) || !am), "{:?} {:?}", ours, theirs);
            }
            (ours, theirs) => prop_assert_eq!(ours, theirs),
        }
    }
}

/// Where iptables gives another verdict than nftables, and which. All are kube-proxy's.
fn excepted(services: &Services, packet: &Packet, kind: FrontendKind) -> Option<Outcome> {
    let of = |ip: IpAddr| services.values().find(|spec| ip == IpAddr::from([172, 30, 0, spec.last]));
    let protocol = |spec: &Spec| if spec.udp { Protocol::Udp } else { Protocol::Tcp };
    let untouched = Outcome::Delivered { to: packet.destination, masked: false };
    if let Some(spec) = of(packet.destination.ip()) {
        // nftables refuses other ports of a cluster IP; iptables lets them pass.
        let known = packet.destination.port() == 80 && packet.protocol == protocol(spec);
        return (!known).then_some(untouched);
    }
    let net = if kind == FrontendKind::LoadBalancer { 101 } else { 100 };
    let spec = services.values().find(|spec| packet.destination == SocketAddr::from(([198, 51, net, spec.last], 80)))?;
    let claimed = packet.protocol == protocol(spec) && if net == 101 { spec.balancer } else { spec.external_ip };
    if !claimed || spec.cluster | spec.local != 0 {
        return None;
    }
    // Nothing jumps from OUTPUT to KUBE-EXTERNAL-SERVICES: the node's own packets to a service without endpoints pass.
    if packet.interface.is_none() {
        return Some(untouched);
    }
    // Source ranges are asked first by nftables; iptables refuses everybody when there is no endpoint.
    (net == 101 && spec.ranges).then_some(Outcome::Refused)
}

#[derive(Debug, Clone, Copy)]
enum From {
    Pod(u8),
    Node,
    Outside(u8),
}

impl From {
    fn address(self) -> IpAddr {
        match self {
            From::Pod(last) => [10, 1, 0, last].into(),
            From::Node => NODE.into(),
            From::Outside(last) => [203, 0, 113, last].into(),
        }
    }

    fn interface(self) -> Option<&'static str> {
        match self {
            From::Pod(_) => Some("br0"),
            From::Node => None,
            From::Outside(_) => Some("uplink"),
        }
    }
}

fn packet(protocol: Protocol, source: IpAddr, interface: Option<&str>, destination: SocketAddr) -> Packet {
    Packet { protocol, source: (source, 40_000).into(), destination, interface: interface.map(String::from) }
}

fn verdict(image: &Image, packet: &Packet, draw: u32) -> Option<Outcome> {
    let local = [IpAddr::from(NODE)];
    let mut random = |below: u32| draw % below;
    let mut remembered = crate::sim::Remembered::new();
    let mut around = Surroundings { family: Family::V4, local: &local, random: &mut random, remembered: &mut remembered };
    sim::send(image, packet, &mut around)
}

fn nft_verdict(common: &Common, services: &[(ObjectName, Resolved)], packet: &Packet, draw: u32) -> Option<Outcome> {
    let mut table = nft::table::Table::new(common.clone());
    for (name, resolved) in services {
        // Pods of this node, for hairpins.
        let hairpins = pods(255).iter().map(SocketAddr::ip).collect();
        let fragment = nft::compile::compile(name, Resolved { hairpins, ..resolved.clone() }, &table);
        table.set(name, fragment);
    }
    let mut image = nft::diff::Image::default();
    image.apply(&table.plan_creation(&nft::table::Loaded::Foreign)[1..]).unwrap();
    let local = [IpAddr::from(NODE)];
    let mut random = |below: u32| draw % below;
    let mut remembered = crate::sim::Remembered::new();
    let mut around = Surroundings { family: Family::V4, local: &local, random: &mut random, remembered: &mut remembered };
    crate::sim::send(&image, packet, &mut around)
}

#[test]
fn affinity_is_asked_before_chance_and_kept_by_the_endpoints_chain() {
    let spec = Spec { affinity: true, ..plain(1) };
    let compiled = compile(&name(1), &Fragment::of(&spec.resolved()), &options(), false);
    let (_, rules) = compiled.chains.iter().find(|(chain, _)| matches!(chain, Chain::Of(Kind::Cluster, _))).unwrap();
    let image = Image { chains: [(NAT_SERVICES, rules.clone())].into() };
    let text = lines(&image, NAT_SERVICES);
    assert_eq!(text.len(), 5);
    assert!(text[1].contains("--rcheck --seconds 10800 --reap -j KUBE-SEP-") && text[2].contains("--rcheck"), "{text:?}");
    assert!(text[3].contains("--probability 0.5000000000") && !text[4].contains("statistic"), "{text:?}");
    let sets = compiled.chains.values().flatten().filter(|rule| format!("{rule:?}").contains("Remember {")).count();
    assert_eq!(sets, 2);
}

#[test]
fn a_declared_chain_is_in_order_again() {
    let (mut program, mut image) = program_of(options(), &[(name(1), plain(1).resolved())]);
    // A foreign rule at the end of nat's KUBE-SERVICES: nothing may stand behind the last rules.
    image.chains.get_mut(&NAT_SERVICES).unwrap().push(Rule::to(super::ir::Target::Drop));
    program.adopt(image.holding());
    let plan = program.plan(&program.waiting());
    assert!(plan.writes().any(|write| write.op == Op::Declare(NAT_SERVICES.1)));
    sync(&mut program, &mut image);
    assert_eq!(normal(&image), normal(&program_of(options(), &[(name(1), plain(1).resolved())]).1));
}
