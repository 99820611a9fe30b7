//! Laws of the nftables backend: programs, differences, tables.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;

use super::compile::{Fragment, compile};
use super::diff::{Image, Scope, diff};
use super::ir::Op;
use super::program::{Program, Shared};
use super::read::read;
use super::schema::{KeyKind, Options, class_needs};
use super::table::{Loaded, Table};
use crate::config::DetectLocal;
use crate::model::{Family, FrontendKey, ObjectName, Protocol};
use crate::resolve::{Action, Frontend, FrontendKind, Resolved};

fn options() -> Options {
    Options {
        family: Family::V4,
        detect_local: DetectLocal::None,
        masquerade_all: false,
        masquerade_mark: 1 << 14,
        node_ports_everywhere: true,
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
    (frontends, proptest::collection::hash_set(0u8..5, 0..3)).prop_map(|(frontends, pods)| Resolved {
        frontends: frontends.into_iter().map(|(key, action)| frontend(key, action)).collect(),
        cluster_ip: None,
        hairpins: pods.into_iter().map(|last| IpAddr::from([10, 0, 0, last])).collect(),
        ..Resolved::default()
    })
}

fn frontend(key: FrontendKey, action: Action) -> Frontend {
    Frontend { key, kind: FrontendKind::ExternalIp, port_name: "".into(), action, affinity_seconds: None, source_ranges: [].into() }
}

/// The program of some frontends, compiled from nothing.
fn program(resolved: Resolved) -> Program {
    let fragment = compile(resolved, |_| None);
    let mut chains = BTreeSet::new();
    for (key, rules) in &fragment.frontends {
        let kind = KeyKind::of(key);
        let classes = rules.class.into_iter().flat_map(|class| [Some(class), class_needs(class)]);
        chains.extend(classes.flatten().map(|class| (kind, class)));
    }
    Program { frontends: fragment.frontends.into_iter().collect(), shared: fragment.shared.into_iter().collect(), chains }
}

fn whole_diff(have: &Program, want: &Program) -> Vec<Vec<Op>> {
    let frontends: BTreeSet<FrontendKey> = have.frontends.keys().chain(want.frontends.keys()).copied().collect();
    let shared: BTreeSet<Shared> = have.shared.iter().chain(&want.shared).copied().collect();
    let (frontends, shared): (Vec<_>, Vec<_>) = (frontends.into_iter().collect(), shared.into_iter().collect());
    diff(&options(), have, want, Scope { frontends: &frontends, shared: &shared })
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
        let fragment = compile(of(after), |key| have.frontends.get(key).cloned());
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
        (0u8..4, proptest::option::weighted(0.8, resolved()), 0u8..8), 1..25))
    {
        let mut table = Table::new(options());
        let mut image = Image::default();
        let mut desired: HashMap<ObjectName, Resolved> = HashMap::new();
        for (service, resolved, event) in steps {
            let name = ObjectName::new("ns", &format!("svc{service}"));
            let resolved = resolved.unwrap_or_default();
            let fragment = compile(resolved.clone(), |key| table.loaded(key));
            table.set(&name, fragment);
            desired.insert(name, resolved);
            match event {
                0 => table.forget(),
                1 => { image = Image::default(); table.forget(); }
                3 => { image.structure.chains.clear(); table.forget(); }
                2 => continue,
                _ => {}
            }
            sync(&mut table, &mut image, &desired);
            prop_assert_eq!(&image, &Image::of(&options(), table.want()));
        }
        sync(&mut table, &mut image, &desired);
        prop_assert!(table.plan().is_empty());
        // Every claimed frontend is served by the first service by name that claims it.
        for (name, resolved) in &desired {
            for claimed in &resolved.frontends {
                let first = desired.iter().filter(|(_, r)| r.frontends.iter().any(|f| f.key == claimed.key))
                    .map(|(name, _)| name).min().unwrap();
                if first == name {
                    let held = &table.want().frontends[&claimed.key];
                    let fresh = compile(Resolved { frontends: vec![claimed.clone()], ..Resolved::default() }, |_| None);
                    prop_assert_eq!(held.class, fresh.frontends[0].1.class);
                }
            }
        }
    }
}

fn sync(table: &mut Table, image: &mut Image, desired: &HashMap<ObjectName, Resolved>) {
    if table.needs_read() {
        match read_back(image) {
            Loaded::Ours(program) => {
                table.adopt(program);
                for (name, resolved) in desired {
                    let fragment: Fragment = compile(resolved.clone(), |key| table.loaded(key));
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
