//! Laws of the nftables backend: programs, differences, tables.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;

use super::compile::{Fragment, Held, compile};
use super::diff::{Image, Scope, diff};
use super::ir::Op;
use super::names;
use super::program::{Dispatch, FrontendRules, Program, STICKY_BITS, Shared};
use super::read::read;
use super::schema::{KeyKind, Options, class_needs};
use super::table::{Loaded, Table};
use crate::config::DetectLocal;
use crate::model::{Cidr, Family, FrontendKey, ObjectName, Protocol};
use crate::resolve::{Action, Frontend, FrontendKind, Resolved};

fn options() -> Options {
    Options {
        family: Family::V4,
        detect_local: DetectLocal::None,
        masquerade_all: false,
        masquerade_mark: 1 << 14,
        node_ports_everywhere: true,
        endpoint_counters: false,
        liberal: false,
    }
}

fn endpoints(bits: u16) -> Arc<[SocketAddr]> {
    (0..16u8).filter(|i| bits & 1 << i != 0).map(|i| SocketAddr::from(([10, 0, 0, i], 80))).collect()
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

fn key() -> impl Strategy<Value = FrontendKey> {
    let vip = (0u8..6, any::<bool>()).prop_map(|(last, udp)| FrontendKey::Vip {
        ip: IpAddr::from([10, 96, 0, last]),
        protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
        port: 80,
    });
    let node_port = (30000u16..30003).prop_map(|port| FrontendKey::NodePort { protocol: Protocol::Tcp, port });
    prop_oneof![3 => vip, 1 => node_port]
}

fn resolved() -> impl Strategy<Value = Resolved> {
    let frontends = proptest::collection::hash_map(key(), action(), 0..4);
    let affinity = prop_oneof![2 => Just(None), 1 => (10u32..12).prop_map(Some)];
    (frontends, proptest::collection::hash_set(0u8..5, 0..3), affinity).prop_map(|(frontends, pods, affinity)| Resolved {
        frontends: frontends.into_iter().map(|(key, action)| Frontend { affinity_seconds: affinity, ..frontend(key, action) }).collect(),
        cluster_ip: None,
        hairpins: pods.into_iter().map(|last| IpAddr::from([10, 0, 0, last])).collect(),
        ..Resolved::default()
    })
}

fn frontend(key: FrontendKey, action: Action) -> Frontend {
    Frontend { key, kind: FrontendKind::ExternalIp, port_name: "".into(), action, affinity_seconds: None, source_ranges: [].into() }
}

fn web() -> ObjectName {
    ObjectName::new("ns", "web")
}

/// A program that is held.
struct Kept<'a>(&'a Program);

impl Held for Kept<'_> {
    fn rules(&self, key: &FrontendKey) -> Option<Arc<FrontendRules>> {
        self.0.frontends.get(key).cloned()
    }

    fn sticky_id(&self, name: &str) -> u32 {
        names::number(name, STICKY_BITS)
    }
}

/// The program of some frontends, compiled from nothing.
fn program(resolved: Resolved) -> Program {
    let fragment = compile(&web(), resolved, &());
    let mut chains = BTreeSet::new();
    for (key, rules) in &fragment.frontends {
        let kind = KeyKind::of(key);
        let classes = rules.dispatch.and_then(Dispatch::class).into_iter().flat_map(|class| [Some(class), class_needs(class)]);
        chains.extend(classes.flatten().map(|class| (kind, class)));
    }
    Program {
        frontends: fragment.frontends.into_iter().collect(),
        shared: fragment.shared.into_iter().collect(),
        sticky: fragment.sticky.into_iter().collect(),
        chains,
        service_cidrs: [].into(),
    }
}

fn whole_diff(have: &Program, want: &Program) -> Vec<Vec<Op>> {
    let frontends: BTreeSet<FrontendKey> = have.frontends.keys().chain(want.frontends.keys()).copied().collect();
    let shared: BTreeSet<Shared> = have.shared.iter().chain(&want.shared).copied().collect();
    let (frontends, shared): (Vec<_>, Vec<_>) = (frontends.into_iter().collect(), shared.into_iter().collect());
    let sticky: BTreeSet<Arc<str>> = have.sticky.keys().chain(want.sticky.keys()).cloned().collect();
    let sticky: Vec<_> = sticky.into_iter().collect();
    diff(&options(), have, want, Scope { frontends: &frontends, shared: &shared, sticky: &sticky })
}

/// What reading the kernel would find.
fn read_back(image: &Image) -> Loaded {
    let mut ops: Vec<Op> = image.exists.then_some(Op::AddTable).into_iter().collect();
    let structure = image.structure.clone();
    ops.extend(structure.sets.into_iter().map(|(name, spec)| Op::AddSet { name, spec }));
    for (name, chain) in structure.chains {
        ops.push(Op::AddChain { name: name.clone(), base: chain.base });
        ops.extend(chain.rules.into_iter().map(|rule| Op::AddRule { chain: name.clone(), rule }));
    }
    let elements = image.elements.clone();
    ops.extend(elements.into_iter().map(|((set, key), data)| Op::AddElement { set, key, data }));
    read(&options(), ops)
}

proptest! {
    #[test]
    fn applying_the_difference_gives_what_was_wanted(have in resolved(), want in resolved()) {
        let (have, want) = (program(have), program(want));
        let mut image = Image::of(&options(), &have);
        for transaction in whole_diff(&have, &want) {
            prop_assert_eq!(image.apply(&transaction), Ok(()));
        }
        prop_assert_eq!(&image, &Image::of(&options(), &want));
        prop_assert_eq!(read_back(&image), Loaded::Ours(want));
    }

    #[test]
    fn there_is_no_difference_to_oneself(one in resolved()) {
        let one = program(one);
        prop_assert_eq!(whole_diff(&one, &one.clone()), Vec::<Vec<Op>>::new());
    }

    #[test]
    fn operations_are_bounded_by_what_changed(before in 1u16.., came in 0u32..16, went in 0u32..16) {
        let vip = FrontendKey::Vip { ip: IpAddr::from([10, 96, 0, 1]), protocol: Protocol::Tcp, port: 80 };
        let of = |bits| Resolved {
            frontends: vec![frontend(vip, Action::Forward { endpoints: endpoints(bits) })],
            ..Resolved::default()
        };
        let after = (before | 1 << came) & !(1 << went);
        prop_assume!(after != 0);
        let have = program(of(before));
        let fragment = compile(&web(), of(after), &Kept(&have));
        let mut want = have.clone();
        want.frontends = fragment.frontends.into_iter().collect();
        let ops: usize = whole_diff(&have, &want).iter().map(Vec::len).sum();
        // Each endpoint that came or went: a slot replaced, one deleted; and the class once.
        let changed = (before ^ after).count_ones() as usize;
        prop_assert!(ops <= 3 * changed + 2 * usize::from(changed > 0), "{} operations for {}", ops, changed);
    }

    /// Any history of changes, commits, failures and restarts ends with the kernel holding what is desired.
    #[test]
    fn the_table_converges_whatever_happens(steps in proptest::collection::vec(
        (0u8..4, proptest::option::weighted(0.8, resolved()), 0u8..9), 1..25))
    {
        let mut table = Table::new(options());
        let mut image = Image::default();
        let mut desired: HashMap<ObjectName, Resolved> = HashMap::new();
        for (service, resolved, event) in steps {
            let name = ObjectName::new("ns", &format!("svc{service}"));
            let mut resolved = resolved.unwrap_or_default();
            // No two services have the same frontend: that was settled before.
            let taken: Vec<FrontendKey> = desired.iter().filter(|(other, _)| **other != name)
                .flat_map(|(_, other): (_, &Resolved)| other.frontends.iter().map(|f| f.key)).collect();
            resolved.frontends.retain(|frontend| !taken.contains(&frontend.key));
            let fragment = compile(&name, resolved.clone(), &table);
            table.set(&name, fragment);
            desired.insert(name, resolved);
            match event {
                0 => table.forget(),
                1 => { image = Image::default(); table.forget(); }
                3 => { image.structure.chains.clear(); table.forget(); }
                2 => continue,
                4 => table.set_service_cidrs(&[Cidr::parse("10.96.0.0/16").unwrap()]),
                5 => table.set_service_cidrs(&[Cidr::parse("10.96.0.0/12").unwrap(), Cidr::parse("172.16.0.0/16").unwrap()]),
                _ => {}
            }
            sync(&mut table, &mut image, &desired);
            prop_assert_eq!(&image, &Image::of(&options(), table.want()));
        }
        sync(&mut table, &mut image, &desired);
        prop_assert!(table.plan().is_empty());
        // Every frontend is served as if it had been compiled from nothing.
        for (name, resolved) in &desired {
            for claimed in &resolved.frontends {
                let held = &table.want().frontends[&claimed.key];
                let fresh = compile(name, Resolved { frontends: vec![claimed.clone()], ..Resolved::default() }, &());
                let class = |rules: &FrontendRules| rules.dispatch.and_then(Dispatch::class);
                prop_assert_eq!(class(held), class(&fresh.frontends[0].1));
            }
        }
        // Chains that nobody needs go after a while, and not before.
        let chains = table.want().chains.clone();
        let at = table.retire_chains(1000);
        prop_assert_eq!(&table.want().chains, &chains);
        if let Some(at) = at {
            table.retire_chains(at);
            table.plan().iter().for_each(|transaction| image.apply(transaction).unwrap());
            table.committed();
        }
        let used = |frontend: &(&FrontendKey, &Arc<FrontendRules>)| frontend.1.dispatch.and_then(Dispatch::class)
            .map(|class| (KeyKind::of(frontend.0), class));
        let needed: BTreeSet<_> = table.want().frontends.iter().filter_map(|f| used(&f))
            .flat_map(|(kind, class)| [Some((kind, class)), class_needs(class).map(|needed| (kind, needed))]).flatten().collect();
        prop_assert_eq!(&table.want().chains, &needed);
        prop_assert_eq!(&image, &Image::of(&options(), table.want()));
    }
}

#[test]
fn a_frontend_can_go_from_one_service_to_another_in_either_order() {
    let vip = FrontendKey::Vip { ip: IpAddr::from([10, 96, 0, 1]), protocol: Protocol::Tcp, port: 80 };
    let with = || Resolved { frontends: vec![frontend(vip, Action::Refuse)], ..Resolved::default() };
    let (a, b) = (ObjectName::new("ns", "a"), ObjectName::new("ns", "b"));
    for order in [[&a, &b], [&b, &a]] {
        let mut table = Table::new(options());
        table.set(&a, compile(&a, with(), &table));
        for _ in 0..2 {
            for name in order {
                let resolved = if *name == b { with() } else { Resolved::default() };
                table.set(name, compile(name, resolved, &table));
            }
            assert!(table.want().frontends.contains_key(&vip), "{order:?}");
        }
        table.set(&b, Fragment::default());
        assert!(table.want().frontends.is_empty());
    }
}

fn sync(table: &mut Table, image: &mut Image, desired: &HashMap<ObjectName, Resolved>) {
    if table.needs_read() {
        match read_back(image) {
            Loaded::Ours(program) => {
                table.adopt(program);
                for (name, resolved) in desired {
                    let fragment: Fragment = compile(name, resolved.clone(), table);
                    table.set(name, fragment);
                }
            }
            loaded => {
                image.apply(&table.plan_creation(&loaded)).unwrap();
                table.created(&loaded);
            }
        }
    }
    for transaction in table.plan() {
        image.apply(&transaction).unwrap();
    }
    table.committed();
}
