//! Laws of the IPVS backend: differences, histories, restarts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;

use super::compile::{Around, Balance, compile};
use super::diff::{Stages, drains};
use super::ir::{CLOSED, Held, Image, Item, OPEN, Op, Server, Wanted};
use super::render::Saved;
use super::state::{Read, State};
use super::verdict::send;
use crate::backend::{Options, nft};
use crate::config::DetectLocal;
use crate::model::{Cidr, Family, FrontendKey, ObjectName, Protocol};
use crate::resolve::{Action, Frontend, FrontendKind, HealthCheck, Resolved};
use crate::sim::{Outcome, Packet, Remembered, Surroundings};

const NODE: [u8; 4] = [192, 0, 2, 1];

pub fn options(detect_local: DetectLocal, masquerade_all: bool) -> Options {
    Options {
        family: Family::V4,
        detect_local,
        masquerade_all,
        masquerade_mark: 1 << 14,
        node_ports_everywhere: false,
        endpoint_counters: false,
        liberal: false,
    }
}

pub fn state() -> State {
    let options = options(DetectLocal::ClusterCidr(vec![Cidr::parse("10.1.0.0/16").unwrap()]), false);
    let mut state = State::new(options, Balance::parse("").unwrap(), vec![Cidr::parse("203.0.113.0/24").unwrap()]);
    state.set_around(around(&[NODE]));
    state
}

fn around(node_ports: &[[u8; 4]]) -> Around {
    let ips: Vec<IpAddr> = node_ports.iter().map(|ip| IpAddr::from(*ip)).collect();
    Around { elsewhere: ips.iter().copied().chain([[198, 51, 100, 2].into()]).collect(), node_ports: ips }
}

fn endpoints(bits: u16) -> Arc<[SocketAddr]> {
    (0..16u8).filter(|i| bits & 1 << i != 0).map(|i| SocketAddr::from(([10, 1, 0, i + 1], 80))).collect()
}

fn action() -> impl Strategy<Value = Action> {
    let list = || (1u16..=u16::MAX).prop_map(endpoints);
    prop_oneof![
        list().prop_map(|endpoints| Action::Forward { endpoints }),
        list().prop_map(|endpoints| Action::ForwardMasked { endpoints }),
        (list(), any::<u16>()).prop_map(|(cluster, l)| Action::ForwardLocal { cluster, local: endpoints(l) }),
        Just(Action::Refuse),
        Just(Action::Drop),
    ]
}

fn key() -> impl Strategy<Value = (FrontendKey, FrontendKind)> {
    let protocol = || proptest::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let kinds = vec![FrontendKind::ClusterIp, FrontendKind::ExternalIp, FrontendKind::LoadBalancer];
    let vip = (0u8..5, protocol(), proptest::sample::select(kinds)).prop_map(|(last, protocol, kind)| {
        let network = if kind == FrontendKind::ClusterIp { [10, 96, 0, last] } else { [198, 51, 100, last] };
        (FrontendKey::Vip { ip: network.into(), protocol, port: 80 }, kind)
    });
    let node_port =
        (30000u16..30003, protocol()).prop_map(|(port, protocol)| (FrontendKey::NodePort { protocol, port }, FrontendKind::NodePort));
    prop_oneof![3 => vip, 1 => node_port]
}

/// A service; `index` keeps the frontends of two services apart, as the store does.
fn resolved() -> impl Strategy<Value = Resolved> {
    let ranges = proptest::sample::subsequence(vec!["203.0.113.0/28", "192.0.2.0/24"], 0..3);
    let frontends = proptest::collection::vec((key(), action(), proptest::option::of(1u32..100), ranges), 0..4);
    (frontends, any::<u16>(), proptest::option::of(31000u16..31003)).prop_map(|(frontends, here, health)| {
        let mut seen = BTreeSet::new();
        let frontends = frontends.into_iter().filter(|((key, _), ..)| seen.insert(*key));
        Resolved {
            frontends: frontends
                .map(|((key, kind), action, affinity, ranges)| frontend(key, kind, suited(kind, action), affinity, &ranges))
                .collect(),
            hairpins: endpoints(here).iter().map(SocketAddr::ip).collect(),
            health: health.map(|port| HealthCheck { port, local_endpoints: 1 }),
            ..Resolved::default()
        }
    })
}

/// An action that `resolve` gives to such a frontend.
fn suited(kind: FrontendKind, action: Action) -> Action {
    match (kind == FrontendKind::ClusterIp, action) {
        (true, Action::ForwardMasked { endpoints } | Action::ForwardLocal { cluster: endpoints, .. }) => Action::Forward { endpoints },
        (false, Action::Forward { endpoints }) => Action::ForwardMasked { endpoints },
        (_, action) => action,
    }
}

fn frontend(key: FrontendKey, kind: FrontendKind, action: Action, affinity_seconds: Option<u32>, ranges: &[&str]) -> Frontend {
    let restricted = kind == FrontendKind::LoadBalancer;
    let mut source_ranges: Vec<Cidr> = ranges.iter().filter(|_| restricted).filter_map(|range| Cidr::parse(range)).collect();
    // As `resolve` has it: where this node is let in, so is the address itself.
    if let (FrontendKey::Vip { ip, .. }, true) = (key, source_ranges.iter().any(|range| range.contains(NODE.into()))) {
        source_ranges.extend(Cidr::new(ip, 32));
    }
    let source_ranges = source_ranges.into();
    Frontend { key, kind, port_name: format!("{key}").into(), action, affinity_seconds, source_ranges }
}

fn held() -> impl Strategy<Value = Held> {
    let destinations = proptest::collection::btree_map(0u8..16, prop_oneof![Just(OPEN), Just(CLOSED), Just(7)], 0..8);
    (destinations, any::<bool>()).prop_map(|(destinations, odd)| Held {
        spread: super::ir::Spread {
            scheduler: Balance::parse(if odd { "lc" } else { "rr" }).unwrap().scheduler,
            flags: 0,
            timeout: 0,
            netmask: 32,
        },
        destinations: destinations.into_iter().map(|(last, weight)| (([10, 1, 0, last + 1], 80).into(), weight)).collect(),
    })
}

fn wanted(held: &Held) -> Wanted {
    Wanted { spread: held.spread, endpoints: held.destinations.keys().copied().collect() }
}

fn difference(server: Server, have: Option<&Held>, want: Option<&Wanted>) -> Vec<Op> {
    let mut stages = Stages::default();
    stages.server(server, have, want);
    stages.into_ops()
}

proptest! {
    #[test]
    fn applying_the_difference_gives_what_was_wanted(
        have in proptest::option::of(held()), want in proptest::option::of(held()), tcp: bool,
    ) {
        let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
        let server = Server { ip: [10, 96, 0, 1].into(), protocol, port: 80 };
        let want = want.as_ref().map(wanted);
        let mut image = Image::default();
        image.servers.extend(have.clone().map(|have| (server, have)));
        let ops = difference(server, have.as_ref(), want.as_ref());
        for op in &ops {
            prop_assert_eq!(image.apply(op), Some(()), "{:?}", op);
        }
        let got = image.servers.remove(&server);
        prop_assert_eq!(got.is_some(), want.is_some());
        if let (Some(got), Some(want)) = (&got, &want) {
            prop_assert_eq!(got.spread, want.spread);
            for (address, weight) in &got.destinations {
                let open = want.endpoints.contains(address);
                // What is there beyond the wanted drains: that is for TCP alone.
                prop_assert_eq!(*weight, if open { OPEN } else { CLOSED });
                prop_assert!(open || drains(&server));
            }
            prop_assert!(want.endpoints.iter().all(|endpoint| got.destinations.contains_key(endpoint)));
            // And then nothing is left to do.
            prop_assert_eq!(difference(server, Some(got), Some(want)), Vec::<Op>::new());
        }
    }

    #[test]
    fn operations_are_bounded_by_what_changed(before: u16, came in 0u32..16, went in 0u32..16) {
        let server = Server { ip: [10, 96, 0, 1].into(), protocol: Protocol::Tcp, port: 80 };
        let of = |bits| Resolved {
            frontends: vec![frontend(FrontendKey::Vip { ip: server.ip, protocol: server.protocol, port: 80 }, FrontendKind::ClusterIp,
                Action::Forward { endpoints: endpoints(bits) }, None, &[])],
            ..Resolved::default()
        };
        let after = (before | 1 << came) & !(1 << went);
        let (mut state, mut image) = (state(), Image::default());
        let name = ObjectName::new("ns", "web");
        for bits in [before, after] {
            state.set(&name, compile(&of(bits), Family::V4, state.balance));
            if bits == before {
                sync(&mut state, &mut image, false);
            }
        }
        prop_assert_eq!(state.plan().len(), (before ^ after).count_ones() as usize);
    }

    /// Any history of changes, failures half way, kills and restarts ends with the kernel holding what is desired, and
    /// nothing of others is touched.
    #[test]
    fn the_kernel_converges_whatever_happens(steps in proptest::collection::vec(
        (0u8..3, proptest::option::weighted(0.8, resolved()), 0u8..8, 0usize..40), 1..15))
    {
        let mut desired: HashMap<ObjectName, Resolved> = HashMap::new();
        let mut image = Image::default();
        let foreign = foreign();
        image.servers.extend(foreign.clone());
        let mut state = state();
        for (service, resolved, event, cut) in steps {
            let name = ObjectName::new("ns", &format!("svc{service}"));
            let resolved = apart(resolved.unwrap_or_default(), service);
            state.set(&name, compile(&resolved, Family::V4, state.balance));
            desired.insert(name, resolved);
            match event {
                // A kill in the middle, and a new process.
                0 => {
                    if state.have().is_none() { state.adopt(read(&image, &state.around().clone())); }
                    for op in state.plan().iter().take(cut) {
                        prop_assert_eq!(image.apply(op), Some(()), "{:?}", op);
                    }
                    state = restarted(&desired, &image, &state.around().clone());
                }
                // A failure in the middle.
                1 => {
                    if state.have().is_none() { state.adopt(read(&image, &state.around().clone())); }
                    for op in state.plan().iter().take(cut) {
                        prop_assert_eq!(image.apply(op), Some(()), "{:?}", op);
                    }
                    state.forget();
                }
                // Another address of this node.
                2 => state.set_around(around(&[NODE, [192, 0, 2, service]])),
                3 => state.set_around(around(&[NODE])),
                _ => {}
            }
            sync(&mut state, &mut image, true);
            check(&state, &image, &foreign)?;
        }
        // A restart in sync writes nothing.
        let mut again = restarted(&desired, &image, state.around());
        prop_assert_eq!(again.plan(), Vec::<Op>::new());
    }
}

/// Frontends of different services differ, but for shared addresses; and a service has one cluster IP.
fn apart(mut resolved: Resolved, service: u8) -> Resolved {
    let cluster_ip = IpAddr::from([10, 96, 0, service]);
    for frontend in &mut resolved.frontends {
        match &mut frontend.key {
            FrontendKey::Vip { ip, .. } if frontend.kind == FrontendKind::ClusterIp => *ip = cluster_ip,
            FrontendKey::Vip { port, .. } | FrontendKey::NodePort { port, .. } => *port += u16::from(service) * 10,
        }
    }
    let mut seen = BTreeSet::new();
    resolved.frontends.retain(|frontend| seen.insert(frontend.key));
    Resolved { cluster_ip: Some(cluster_ip), ..resolved }
}

/// Virtual servers of somebody else: outside of all that is ours, in an excluded range, and on this node's address.
fn foreign() -> BTreeMap<Server, Held> {
    let spread = super::ir::Spread { scheduler: Balance::parse("wlc").unwrap().scheduler, flags: 0, timeout: 0, netmask: 32 };
    let addresses = [[172, 16, 0, 1], [203, 0, 113, 5], NODE];
    let server = |ip: [u8; 4]| Server { ip: ip.into(), protocol: Protocol::Tcp, port: 5432 };
    addresses.map(|ip| (server(ip), Held { spread, destinations: BTreeMap::from([(([10, 9, 9, 9], 1).into(), 3)]) })).into()
}

fn read(image: &Image, around: &Around) -> Read {
    let saved = image.skeleton.as_ref().map(|skeleton| Saved::of(skeleton)).unwrap_or_default();
    Read { image: Image { skeleton: None, ..image.clone() }, saved, elsewhere: around.elsewhere.clone() }
}

fn restarted(desired: &HashMap<ObjectName, Resolved>, image: &Image, around: &Around) -> State {
    let mut state = state();
    state.set_around(around.clone());
    state.adopt(read(image, around));
    for (name, resolved) in desired {
        state.set(name, compile(resolved, Family::V4, state.balance));
    }
    state
}

fn sync(state: &mut State, image: &mut Image, drained: bool) {
    if state.have().is_none() {
        state.adopt(read(image, &state.around().clone()));
    }
    for op in state.plan() {
        image.apply(&op).unwrap_or_else(|| panic!("{op:?}"));
        state.done(&op);
    }
    state.tried();
    if !drained {
        return;
    }
    // All connections end.
    let closed: Vec<Op> = image
        .servers
        .iter()
        .filter(|(server, _)| state.wanted(server).is_some())
        .flat_map(|(server, held)| {
            held.destinations.iter().filter(|(_, weight)| **weight == CLOSED).map(|(a, _)| Op::DeleteDestination(*server, *a))
        })
        .collect();
    for op in closed {
        image.apply(&op).unwrap();
        state.done(&op);
    }
}

fn check(state: &State, image: &Image, foreign: &BTreeMap<Server, Held>) -> Result<(), TestCaseError> {
    for (server, held) in foreign {
        prop_assert_eq!(image.servers.get(server), Some(held), "somebody else's");
    }
    let ours: Vec<&Server> = image.servers.keys().filter(|server| !foreign.contains_key(server)).collect();
    let around = state.around();
    let mut wanted: BTreeMap<Server, Arc<Wanted>> = BTreeMap::new();
    let mut items: BTreeSet<Item> = BTreeSet::new();
    for (_, fragment) in state.fragments() {
        wanted.extend(fragment.servers(around).map(|(server, wanted)| (server, wanted.clone())));
        items.extend(fragment.items(around));
    }
    prop_assert_eq!(ours, wanted.keys().collect::<Vec<_>>());
    for (server, wanted) in &wanted {
        let held = &image.servers[server];
        prop_assert_eq!(held.spread, wanted.spread);
        prop_assert_eq!(held.destinations.keys().collect::<Vec<_>>(), wanted.endpoints.iter().collect::<Vec<_>>());
        prop_assert!(held.destinations.values().all(|weight| *weight == OPEN));
    }
    let entries = image.sets.iter().flat_map(|(set, entries)| entries.iter().map(|entry| Item::Entry(*set, *entry)));
    let held: BTreeSet<Item> = entries.chain(image.addresses.iter().map(|ip| Item::Address(*ip))).collect();
    prop_assert_eq!(&held, &items);
    let used: BTreeSet<_> =
        image.sets.iter().filter(|(set, entries)| set.decides_rules() && !entries.is_empty()).map(|(set, _)| *set).collect();
    prop_assert_eq!(&image.skeleton.as_ref().unwrap().used, &used);
    Ok(())
}

/// Where a packet comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Pod(u8),
    Node,
    Outside(u8),
}

impl From {
    fn packet(self, protocol: Protocol, destination: SocketAddr) -> Packet {
        let (source, interface) = match self {
            From::Pod(last) => ([10, 1, 0, last], Some("veth1")),
            From::Node => (NODE, None),
            From::Outside(last) => ([203, 0, 113, last], Some("eth0")),
        };
        Packet { protocol, source: (source, 40_000).into(), destination, interface: interface.map(String::from) }
    }
}

/// What IPVS does where it cannot do as nftables does; see `verdict`.
fn excepted(from: From, frontend: Option<&Frontend>, detector: bool, masquerade_all: bool) -> Option<Expected> {
    let own = from == From::Node;
    let frontend = frontend?;
    match &frontend.action {
        Action::ForwardLocal { cluster, local } => {
            let list = if local.is_empty() { cluster } else { local };
            Some(Expected::To(list.to_vec(), false))
        }
        Action::Drop => Some(Expected::Refused),
        Action::Refuse if own => Some(Expected::Refused),
        Action::Forward { endpoints } if own && !detector && !masquerade_all => Some(Expected::To(endpoints.to_vec(), true)),
        _ => None,
    }
}

#[derive(Debug)]
enum Expected {
    Refused,
    /// One of these, and whether the source is masked; a pod's own packet to itself always is.
    To(Vec<SocketAddr>, bool),
}

fn local() -> [IpAddr; 2] {
    [NODE.into(), [198, 51, 100, 2].into()]
}

fn nft_verdict(options: &Options, services: &[(ObjectName, Resolved)], packet: &Packet, draw: u32) -> Option<Outcome> {
    let mut table = nft::table::Table::new(options.clone());
    table.set_node_port_ips(vec![NODE.into()]);
    for (name, resolved) in services {
        table.set(name, nft::compile::compile(name, resolved.clone(), &()));
    }
    let mut image = nft::diff::Image::default();
    image.apply(&table.plan_creation(&nft::table::Loaded::Foreign)[1..]).unwrap();
    let mut random = |below: u32| draw % below;
    crate::sim::send(
        &image,
        packet,
        &mut Surroundings { family: Family::V4, local: &local(), random: &mut random, remembered: &mut Remembered::new() },
    )
}

fn ipvs_verdict(options: &Options, services: &[(ObjectName, Resolved)], packet: &Packet, draw: u32) -> Option<Outcome> {
    let (mut state, mut image) = (State::new(options.clone(), Balance::parse("").unwrap(), Vec::new()), Image::default());
    state.set_around(around(&[NODE]));
    for (name, resolved) in services {
        state.set(name, compile(resolved, Family::V4, state.balance));
    }
    sync(&mut state, &mut image, true);
    let mut random = |below: u32| draw % below;
    send(&image, packet, &mut Surroundings { family: Family::V4, local: &local(), random: &mut random, remembered: &mut Remembered::new() })
}

proptest! {
    /// The same packet, the same cluster, two backends: one verdict, but for the exceptions.
    #[test]
    fn nftables_and_ipvs_agree(
        services in proptest::collection::vec(resolved(), 1..4),
        from in proptest::sample::select(vec![From::Pod(1), From::Pod(2), From::Node, From::Outside(9), From::Outside(77)]),
        which: prop::sample::Index,
        known_port in prop::bool::weighted(0.9),
        masquerade_all: bool,
        detector in prop::bool::weighted(0.8),
        draw: u32,
    ) {
        let detect = if detector { DetectLocal::ClusterCidr(vec![Cidr::parse("10.1.0.0/16").unwrap()]) } else { DetectLocal::None };
        let options = options(detect, masquerade_all);
        let numbered = services.into_iter().zip(0u8..);
        let services: Vec<_> = numbered.map(|(r, i)| (ObjectName::new("ns", &format!("svc{i}")), with_hairpins(apart(r, i)))).collect();
        let frontends: Vec<&Frontend> = services.iter().flat_map(|(_, resolved)| &resolved.frontends).collect();
        prop_assume!(!frontends.is_empty());
        let frontend = frontends[which.index(frontends.len())];
        let (ip, port) = match frontend.key {
            FrontendKey::Vip { ip, port, .. } => (ip, port),
            FrontendKey::NodePort { port, .. } => (NODE.into(), port),
        };
        let port = if known_port { port } else { port + 5 };
        let packet = from.packet(frontend.key.protocol(), SocketAddr::new(ip, port));
        let theirs = nft_verdict(&options, &services, &packet, draw);
        let ours = ipvs_verdict(&options, &services, &packet, draw);
        let frontend = known_port.then_some(frontend);
        // The firewall of a load balancer comes first.
        let allowed = |f: &Frontend| f.source_ranges.is_empty() || f.source_ranges.iter().any(|range| range.contains(packet.source.ip()));
        if frontend.is_none() && !ip.eq(&IpAddr::from(NODE)) && ip != IpAddr::from([198, 51, 100, 2]) {
            prop_assert_eq!(ours, Some(Outcome::Refused));
        } else if let Some(expected) = excepted(from, frontend, detector, masquerade_all).filter(|_| frontend.is_none_or(|f| from == From::Node || allowed(f))) {
            let denied = from == From::Node && frontend.is_some_and(|f| !f.source_ranges.is_empty() && !f.source_ranges.iter().any(|r| r.contains(ip)));
            match (expected, ours) {
                (Expected::Refused, ours) => prop_assert_eq!(ours, Some(Outcome::Refused)),
                (Expected::To(..), ours) if denied => prop_assert_eq!(ours, Some(Outcome::Dropped)),
                (Expected::To(list, masked), Some(Outcome::Delivered { to, masked: was })) => {
                    prop_assert!(list.contains(&to));
                    prop_assert_eq!(was, masked || to.ip() == packet.source.ip());
                }
                (expected, ours) => prop_assert!(false, "{:?} {:?}", expected, ours),
            }
        } else {
            match (ours, theirs) {
                (Some(Outcome::Delivered { to: a, masked: am }), Some(Outcome::Delivered { to: b, masked: bm })) if a != b => {
                    // The draws differ, and a pod's own address is always masked.
                    let own = |to: SocketAddr| to.ip() == packet.source.ip();
                    prop_assert!(am == bm || own(a) || own(b), "{:?} {:?}", ours, theirs);
                }
                (ours, theirs) => prop_assert_eq!(ours, theirs),
            }
        }
    }
}

/// Every endpoint is a pod of this node.
fn with_hairpins(resolved: Resolved) -> Resolved {
    Resolved { hairpins: endpoints(u16::MAX).iter().map(SocketAddr::ip).collect(), ..resolved }
}

/// What carries a packet to a virtual server is there before the server, and goes after it.
#[test]
fn a_virtual_server_comes_last_and_goes_first() {
    let service = Resolved {
        frontends: vec![frontend(
            FrontendKey::Vip { ip: [10, 96, 0, 1].into(), protocol: Protocol::Tcp, port: 80 },
            FrontendKind::ClusterIp,
            Action::Forward { endpoints: endpoints(3) },
            None,
            &[],
        )],
        ..Resolved::default()
    };
    let (mut state, mut image) = (state(), Image::default());
    let name = ObjectName::new("ns", "web");
    let rank = |op: &Op| match op {
        Op::CreateLink | Op::CreateSet(_) => 0,
        Op::Add(_) => 1,
        Op::Load(_) => 2,
        Op::AddServer(..) => 3,
        _ => 4,
    };
    state.adopt(read(&image, &state.around().clone()));
    state.set(&name, compile(&service, Family::V4, state.balance));
    let ranks: Vec<u8> = state.plan().iter().map(rank).collect();
    assert!(ranks.is_sorted() && ranks.contains(&4), "{ranks:?}");
    sync(&mut state, &mut image, true);
    state.set(&name, compile(&Resolved::default(), Family::V4, state.balance));
    let ops = state.plan();
    let rank = |op: &Op| match op {
        Op::DeleteServer(_) => 0,
        Op::Load(_) => 1,
        Op::Delete(_) => 2,
        other => panic!("{other:?}"),
    };
    assert!(ops.iter().map(rank).is_sorted() && ops.len() == 5, "{ops:?}");
}

/// An endpoint that comes back while it drains takes connections again at once, and keeps those it has.
#[test]
fn an_endpoint_that_comes_back_gets_its_weight_back() {
    let server = Server { ip: [10, 96, 0, 1].into(), protocol: Protocol::Tcp, port: 80 };
    let address = SocketAddr::from(([10, 1, 0, 1], 80));
    let spread = super::ir::Spread { scheduler: Balance::parse("").unwrap().scheduler, flags: 0, timeout: 0, netmask: 32 };
    let held = Held { spread, destinations: BTreeMap::from([(address, CLOSED)]) };
    let want = Wanted { spread, endpoints: [address].into() };
    assert_eq!(difference(server, Some(&held), Some(&want)), [Op::EditDestination(server, address, OPEN)]);
}
