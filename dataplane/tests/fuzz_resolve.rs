//! Bytes of every kind, read as a cluster's objects that come, change and go: the store and `resolve` never panic, what
//! they say keeps to the rules, depends on the objects alone and not on their history, and can be written down in every
//! mode.
//!
//! Seeded (see `fuzz`). The function [`one`] is what a libFuzzer target calls with its bytes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../agent/tests/fuzz/mod.rs"]
mod fuzz;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use fuzz::Dice;
use longshore_dataplane::backend::NodeAddresses;
use longshore_dataplane::config::IpvsConfig;
use longshore_dataplane::model::address::parse_ip;
use longshore_dataplane::model::{FrontendKey, ObjectName};
use longshore_dataplane::resolve::{Action, Resolved};
use longshore_dataplane::store::ServiceStore;
use longshore_dataplane::trace::{Held, Setting, plan};
use longshore_dataplane::{Config, DetectLocal, Family, IptablesConfig, Mode, wire};

/// Few enough that objects meet; the last are none, or strange.
const ADDRESSES: [&str; 16] = [
    "10.1.0.1",
    "10.1.0.2",
    "10.1.0.3",
    "fd00:1::1",
    "fd00:1::2",
    "10.96.0.1",
    "10.96.0.2",
    "fd00:96::1",
    "198.51.100.1",
    "203.0.113.1",
    "::ffff:10.1.0.1",
    "127.0.0.1",
    "010.1.0.1",
    "",
    "None",
    "0.0.0.0",
];
const RANGES: [&str; 8] = ["10.0.0.0/8", "198.51.100.0/24", "0.0.0.0/0", "::/0", "fd00::/16", "10.1.0.1/33", " 10.1.0.0/16", "x"];
const NAMES: [&str; 4] = ["a", "b", "c", ""];
const PORTS: [i32; 8] = [80, 53, 8080, 30_080, 65_535, 0, -1, 65_536];
const PROTOCOLS: [&str; 5] = ["TCP", "UDP", "SCTP", "", "tcp"];
const NODES: [&str; 2] = ["node", "elsewhere"];
const ZONES: [&str; 2] = ["east", "west"];
const POLICIES: [&str; 3] = ["Cluster", "Local", "local"];
const FAMILIES: [&str; 4] = ["IPv4", "IPv6", "FQDN", ""];
const TYPES: [&str; 5] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName", ""];

/// Bytes as choices; when they end, all is the first.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.next() % list.len()]
    }

    fn text(&mut self, list: &[&str]) -> String {
        self.of(list).into()
    }

    fn maybe(&mut self, list: &[&str]) -> Option<String> {
        self.flag().then(|| self.text(list))
    }

    fn flag(&mut self) -> bool {
        self.next() % 2 == 1
    }

    fn several<T>(&mut self, most: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.next() % (most + 1)).map(|_| one(self)).collect()
    }

    fn service(&mut self) -> wire::Service {
        let cluster_ips = self.several(3, |c| c.text(&ADDRESSES));
        let ports = self.several(3, |c| wire::ServicePort {
            name: c.text(&NAMES),
            protocol: c.text(&PROTOCOLS),
            port: c.of(&PORTS),
            node_port: c.of(&PORTS),
            ..Default::default()
        });
        let mut service = wire::Service::default();
        service.metadata.creation_timestamp = self.maybe(&["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "yesterday"]);
        service.spec = wire::ServiceSpec {
            type_: self.text(&TYPES),
            cluster_ip: cluster_ips.first().cloned().unwrap_or_default(),
            cluster_ips,
            ports,
            external_ips: self.several(2, |c| c.text(&ADDRESSES)),
            session_affinity: self.text(&["", "None", "ClientIP"]),
            internal_traffic_policy: self.maybe(&POLICIES),
            external_traffic_policy: self.maybe(&POLICIES),
            load_balancer_source_ranges: self.several(2, |c| c.text(&RANGES)),
            health_check_node_port: self.of(&PORTS),
            ..Default::default()
        };
        service.status.load_balancer.ingress = self.several(2, |c| wire::LoadBalancerIngress {
            ip: c.text(&ADDRESSES),
            ip_mode: c.maybe(&["VIP", "Proxy"]),
            ..Default::default()
        });
        service
    }

    fn slice(&mut self) -> wire::EndpointSlice {
        let mut slice = wire::EndpointSlice { address_type: self.text(&FAMILIES), ..Default::default() };
        slice.metadata.labels.insert("kubernetes.io/service-name".into(), self.text(&NAMES));
        slice.ports = self.several(3, |c| wire::EndpointPort {
            name: c.maybe(&NAMES),
            protocol: c.maybe(&PROTOCOLS),
            port: c.flag().then(|| c.of(&PORTS)),
            app_protocol: None,
        });
        slice.endpoints = self.several(4, |c| {
            let hint = |c: &mut Self, list: &[&str]| c.several(2, |c| wire::NamedHint { name: c.text(list) });
            wire::Endpoint {
                addresses: c.several(2, |c| c.text(&ADDRESSES)),
                conditions: wire::EndpointConditions {
                    ready: c.flag().then(|| c.flag()),
                    serving: c.flag().then(|| c.flag()),
                    terminating: c.flag().then(|| c.flag()),
                },
                node_name: c.maybe(&NODES),
                hints: c.flag().then(|| wire::EndpointHints { for_zones: hint(c, &ZONES), for_nodes: hint(c, &NODES) }),
                ..Default::default()
            }
        });
        slice
    }
}

/// What there is in the end.
#[derive(Default)]
struct Cluster {
    services: BTreeMap<String, wire::Service>,
    slices: BTreeMap<String, wire::EndpointSlice>,
    zone: Option<String>,
    node_ips: Vec<IpAddr>,
}

fn object_name(name: &str) -> ObjectName {
    ObjectName::new("ns1", name)
}

/// Carries the bytes out, one change after the other.
fn live(bytes: &[u8], store: &mut ServiceStore) -> Cluster {
    let (mut choices, mut cluster) = (Choices(bytes), Cluster::default());
    while !choices.0.is_empty() {
        let kind = choices.next() % 8;
        let name = choices.text(&NAMES[..3]);
        match kind {
            0..3 => {
                let mut service = choices.service();
                (service.metadata.namespace, service.metadata.name) = ("ns1".into(), name.clone());
                store.set_service(&service);
                cluster.services.insert(name, service);
            }
            3..5 => {
                let mut slice = choices.slice();
                (slice.metadata.namespace, slice.metadata.name) = ("ns1".into(), name.clone());
                store.set_slice(&slice);
                cluster.slices.insert(name, slice);
            }
            5 => {
                store.delete_service(object_name(&name));
                cluster.services.remove(&name);
            }
            6 => {
                store.delete_slice(&object_name(&name));
                cluster.slices.remove(&name);
            }
            _ => {
                cluster.zone = choices.maybe(&ZONES);
                cluster.node_ips = choices.several(2, |c| c.text(&ADDRESSES)).iter().filter_map(|text| text.parse().ok()).collect();
                store.set_zone(cluster.zone.as_deref());
                store.set_node_ips(&cluster.node_ips);
            }
        }
    }
    cluster
}

/// The same objects, come all at once, slices first and the last first.
fn anew(cluster: &Cluster) -> ServiceStore {
    let mut store = ServiceStore::new("node", cluster.zone.as_deref(), &cluster.node_ips);
    cluster.slices.values().rev().for_each(|slice| _ = store.set_slice(slice));
    cluster.services.values().rev().for_each(|service| _ = store.set_service(service));
    store
}

/// Addresses that slices of this service have for a family, with any of their ports.
fn known(cluster: &Cluster, service: &str, family: Family) -> BTreeSet<SocketAddr> {
    let of = cluster.slices.values().filter(|slice| slice.metadata.labels["kubernetes.io/service-name"] == service);
    of.filter(|slice| slice.address_type == family.to_string())
        .flat_map(|slice| {
            let ports: Vec<u16> = slice.ports.iter().filter_map(|port| u16::try_from(port.port?).ok()).collect();
            let ips = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses).filter_map(|ip| parse_ip(ip));
            ips.flat_map(move |ip| ports.clone().into_iter().map(move |port| SocketAddr::new(ip, port))).collect::<Vec<_>>()
        })
        .collect()
}

/// What must hold of one service in one family.
fn keeps_to_the_rules(cluster: &Cluster, service: &str, family: Family, resolved: &Resolved) {
    let known = known(cluster, service, family);
    let is_fine = |list: &[SocketAddr]| {
        let ours = |address: &SocketAddr| Family::of(address.ip()) == family && address.port() != 0 && known.contains(address);
        assert!(list.iter().all(ours), "{list:?} of {known:?}");
        assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len(), "{list:?}");
    };
    for frontend in &resolved.frontends {
        if let FrontendKey::Vip { ip, port, .. } = frontend.key {
            assert!(Family::of(ip) == family && port != 0);
        }
        assert!(frontend.source_ranges.iter().all(|range| range.family() == family));
        match &frontend.action {
            Action::Forward { endpoints } | Action::ForwardMasked { endpoints } => {
                assert!(!endpoints.is_empty());
                is_fine(endpoints);
            }
            Action::ForwardLocal { cluster, local } => {
                assert!(!cluster.is_empty());
                is_fine(cluster);
                is_fine(local);
            }
            Action::Refuse | Action::Drop => {}
        }
    }
    resolved.udp.iter().for_each(|port| is_fine(&port.serving));
    assert!(resolved.hairpins.iter().all(|ip| known.iter().any(|address| address.ip() == *ip)));
    assert!(resolved.frontends.is_empty() || resolved.cluster_ip.is_some_and(|ip| Family::of(ip) == family));
}

fn setting(mode: &Mode, family: Family) -> Setting {
    let config = Config { mode: mode.clone(), detect_local: DetectLocal::None, ..Config::default() };
    let ip: IpAddr = if family == Family::V4 { "192.0.2.1" } else { "fd00:2::1" }.parse().unwrap();
    let addresses = NodeAddresses { node_ports: vec![ip], links: vec![("eth0".into(), ip)] };
    Setting { config, family, addresses, liberal: false, accounting: false }
}

/// What must hold of any bytes.
fn one(bytes: &[u8]) {
    let mut store = ServiceStore::new("node", None, &[]);
    let cluster = live(bytes, &mut store);
    store.take_events().iter().for_each(|event| assert!(!event.message.is_empty()));
    let again = anew(&cluster);
    assert_eq!(store.services(), again.services());
    for family in Family::ALL {
        let mut taken = BTreeSet::new();
        for service in cluster.services.keys() {
            let resolved = store.resolve(&object_name(service), family);
            assert_eq!(resolved, again.resolve(&object_name(service), family), "it depends on history");
            keeps_to_the_rules(&cluster, service, family, &resolved);
            for frontend in &resolved.frontends {
                assert!(taken.insert(frontend.key), "two have {:?}", frontend.key);
            }
        }
    }
    // Writing it down costs more than all of the above: one mode and family is as good as another.
    let modes = [Mode::Nftables, Mode::Iptables(IptablesConfig::default()), Mode::Ipvs(IpvsConfig::default()), Mode::Userspace];
    let chosen = bytes.iter().fold(0, |sum, byte| sum + usize::from(*byte));
    let setting = setting(&modes[chosen % modes.len()], Family::ALL[chosen / modes.len() % 2]);
    let held = Held::of(&store, &setting);
    let _ = plan(&again, &setting, Held::nothing(&setting.config.mode));
    assert_eq!(plan(&again, &setting, held), [], "what is there already is to be written");
}

/// Chains of choices that lead far.
fn corpus() -> Vec<Vec<u8>> {
    let service = |name: u8, ip: u8, kind: u8, local: u8| {
        // One cluster IP, one port of TCP with a node port; the type; an external IP, affinity, both policies, a range, and an
        // address of a load balancer.
        vec![0, name, 1, ip, 1, 0, 0, 0, 3, 0, kind, 1, 8, 2, 1, local, 1, local, 1, 1, 2, 1, 9, 1, 0]
    };
    let slice = |name: u8, owner: u8, ips: [u8; 2], node: u8| {
        // IPv4; one port; two endpoints, each ready and on a node.
        let mut bytes = vec![3, name, 0, owner, 1, 1, 0, 1, 0, 1, 2, 2];
        ips.iter().for_each(|ip| bytes.extend([1, *ip, 1, 1, 0, 0, 1, node, 0]));
        bytes
    };
    let moved = || vec![7, 0, 1, 0, 1, 0];
    let mut corpus = vec![Vec::new(), service(0, 5, 1, 0)];
    for (kind, local) in (0..5).flat_map(|kind| [(kind, 0), (kind, 1)]) {
        let (first, second) = (service(0, 5, kind, local), service(1, 6, kind, 1 - local));
        corpus.push([first, slice(0, 0, [0, 1], local), slice(1, 0, [1, 2], 1), second, slice(2, 1, [2, 0], 0), moved()].concat());
    }
    corpus
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(bytes.len() + 1);
    match dice.below(6) {
        0 | 1 if at < bytes.len() => bytes[at] = u8::try_from(dice.below(256)).unwrap(),
        2 => drop(bytes.drain(at..(at + dice.below(9)).min(bytes.len()))),
        3 => {
            let from = dice.below(other.len() + 1);
            bytes.splice(at..at, other[from..(from + dice.below(40)).min(other.len())].iter().copied());
        }
        4 => bytes.extend_from_slice(other),
        _ => bytes.extend((0..dice.below(60)).map(|_| u8::try_from(dice.below(256)).unwrap())),
    }
    bytes.truncate(2048);
}

#[test]
fn no_objects_make_resolve_panic_or_forget_its_rules() {
    fuzz::drive(&corpus(), 20_000, 8, mutate, one);
}

/// A corpus that resolves to nothing would show nothing.
#[test]
fn the_corpus_reaches_every_action() {
    let mut seen = BTreeSet::new();
    let mut look = |bytes: &[u8]| {
        let mut store = ServiceStore::new("node", None, &[]);
        let cluster = live(bytes, &mut store);
        for name in cluster.services.keys() {
            for frontend in store.resolve(&object_name(name), Family::V4).frontends {
                seen.insert(match frontend.action {
                    Action::Forward { .. } => "forward",
                    Action::ForwardMasked { .. } => "masked",
                    Action::ForwardLocal { .. } => "local",
                    Action::Refuse => "refuse",
                    Action::Drop => "drop",
                });
            }
        }
    };
    corpus().iter().for_each(|bytes| look(bytes));
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["drop", "forward", "local", "masked", "refuse"]);
}
