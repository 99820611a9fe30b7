//! The iptables backend with packets between namespaces, in both variants of iptables.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use lab::objects::{NODE_PORT, PORT, TARGET_PORT, node_port, pod_ip, service, slices, slices_on, vip};
use lab::traffic::{Answer, both, is_refused, is_silence, serve, tcp, udp};
use lab::{Lab, NODE_V4, NODE_V6, Namespace, eventually, programmed};
use longshore_dataplane::backend::iptables::accounting;
use longshore_dataplane::backend::iptables::kernel::Kernel;
use longshore_dataplane::backend::iptables::plane::IptablesPlane;
use longshore_dataplane::backend::iptables::variant::{Commands, Variant};
use longshore_dataplane::backend::{NodeAddresses, Plane};
use longshore_dataplane::model::ObjectName;
use longshore_dataplane::store::ServiceStore;
use longshore_dataplane::{Change, Config, Dataplane, Family, IptablesConfig, Mode, NodePortAddresses};
use serde_json::{Value, json};

const FAMILIES: [bool; 2] = [false, true];
const VARIANTS: [Variant; 2] = [Variant::Legacy, Variant::Nft];

/// A lab whose node uses this variant: its kubelet has its chain there.
fn lab(variant: Variant) -> Lab {
    let lab = Lab::new();
    for family in Family::ALL {
        lab.node.command(Commands::of(variant, family).iptables, &["-t", "mangle", "-N", "KUBE-IPTABLES-HINT"]);
    }
    lab
}

fn config(lab: &Lab) -> Config {
    Config { mode: Mode::Iptables(IptablesConfig::default()), node_port_addresses: NodePortAddresses::All, ..lab.config() }
}

fn start(lab: &Lab, changes: impl IntoIterator<Item = Change>) -> Dataplane {
    let dataplane = Dataplane::start(config(lab)).unwrap();
    apply(&dataplane, changes.into_iter().chain([Change::Synced]));
    dataplane
}

/// Applies, and waits until the kernel has it.
fn apply(dataplane: &Dataplane, changes: impl IntoIterator<Item = Change>) {
    let last = changes.into_iter().map(|change| dataplane.apply(change)).last().unwrap();
    programmed(dataplane, last);
}

const EXTERNAL_IPS: [&str; 2] = ["198.51.100.7", "fd00:100::7"];
const BALANCER_IPS: [&str; 2] = ["198.51.100.1", "fd00:100::1"];

/// A service with every kind of destination.
fn balanced(extra: Value) -> Change {
    let mut object = json!({"metadata": {"name": "web", "namespace": "ns1"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:96::10"],
            "ipFamilies": ["IPv4", "IPv6"], "externalIPs": EXTERNAL_IPS, "ports": node_port()["ports"]},
        "status": {"loadBalancer": {"ingress": BALANCER_IPS.map(|ip| json!({"ip": ip}))}}});
    object["spec"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    Change::SetService(Arc::new(serde_json::from_value(object).unwrap()))
}

fn cluster_ip(v6: bool) -> SocketAddr {
    SocketAddr::new(vip(v6), PORT)
}

fn node_address(v6: bool) -> SocketAddr {
    at(if v6 { NODE_V6 } else { NODE_V4 }, NODE_PORT)
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn destinations(v6: bool) -> [SocketAddr; 4] {
    let of = |ips: [&str; 2]| at(ips[usize::from(v6)], PORT);
    [cluster_ip(v6), node_address(v6), of(EXTERNAL_IPS), of(BALANCER_IPS)]
}

fn outside_ip(v6: bool) -> &'static str {
    if v6 { "fd00:2::2" } else { "192.0.2.2" }
}

fn save(lab: &Lab, variant: Variant, family: Family) -> String {
    let saved = lab.node.command(Commands::of(variant, family).save, &[]);
    // Policies stand with their counters.
    let uncounted = |line: &str| line.split(" [").next().unwrap_or_default().to_string();
    saved.lines().filter(|line| !line.starts_with('#')).map(|line| uncounted(line) + "\n").collect()
}

#[test]
fn every_destination_answers_every_client() {
    for variant in VARIANTS {
        let lab = lab(variant);
        serve(&lab.pods[1], "p1", TARGET_PORT);
        let mut changes = vec![balanced(json!({}))];
        changes.extend(slices("web", &[1]));
        let _dataplane = start(&lab, changes);
        for v6 in FAMILIES {
            let bridge = if v6 { "fd00:1::1" } else { "10.1.0.1" };
            for to in destinations(v6) {
                for (who, from) in [("pod", &lab.pods[0]), ("node", &lab.node), ("outside", &lab.outside)] {
                    for answer in both(from, to) {
                        let answer = answer.unwrap_or_else(|error| panic!("{variant:?}: {who} to {to}: {error}"));
                        assert_eq!(answer.server, "p1");
                        // A pod keeps its address towards the cluster IP; all else is masked.
                        let expected = if who == "pod" && to == cluster_ip(v6) { pod_ip(0, v6) } else { bridge.into() };
                        assert_eq!(answer.seen_client.to_string(), expected, "{variant:?}: {who} to {to}");
                    }
                }
                // A pod reaches itself, and sees another address than its own.
                for answer in both(&lab.pods[1], to) {
                    assert_ne!(answer.unwrap().seen_client.to_string(), pod_ip(1, v6));
                }
            }
        }
    }
}

#[test]
fn local_policy_keeps_the_outside_worlds_address_and_pods_and_node_use_all_endpoints() {
    for variant in VARIANTS {
        let lab = lab(variant);
        (1..3).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
        let local = json!({"externalTrafficPolicy": "Local"});
        let mut changes = vec![balanced(local)];
        changes.extend(slices_on("web", &[(1, "node"), (2, "elsewhere")]));
        let dataplane = start(&lab, changes);
        for v6 in FAMILIES {
            for to in &destinations(v6)[1..] {
                for answer in both(&lab.outside, *to) {
                    let answer = answer.unwrap();
                    assert_eq!((answer.server.as_str(), answer.seen_client.to_string().as_str()), ("p1", outside_ip(v6)), "{to}");
                }
                let mut seen = BTreeSet::new();
                eventually("a pod reaches both endpoints, with its own address", || {
                    let answer = tcp(&lab.pods[0], *to).unwrap();
                    assert_eq!(answer.seen_client.to_string(), pod_ip(0, v6));
                    seen.insert(answer.server);
                    seen.len() == 2
                });
            }
        }
        apply(&dataplane, slices_on("web", &[(2, "elsewhere")]));
        for v6 in FAMILIES {
            let to = node_address(v6);
            if v6 == (variant == Variant::Nft) {
                assert!(is_silence(&tcp(&lab.outside, to)), "none on this node");
            }
            for from in [&lab.pods[0], &lab.node] {
                assert_eq!(tcp(from, to).unwrap().server, "p2");
            }
        }
    }
}

#[test]
fn clients_stay_with_their_endpoint() {
    for variant in VARIANTS {
        let lab = lab(variant);
        (0..3).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
        let mut changes = vec![service("web", json!({"sessionAffinity": "ClientIP"}))];
        changes.extend(slices("web", &[0, 1, 2]));
        let dataplane = start(&lab, changes);
        for v6 in FAMILIES {
            let first = tcp(&lab.outside, cluster_ip(v6)).unwrap().server;
            for _ in 0..12 {
                assert_eq!(tcp(&lab.outside, cluster_ip(v6)).unwrap().server, first);
            }
        }
        // The endpoint's chain and with it the list of its clients outlive a change beside it.
        let before = tcp(&lab.outside, cluster_ip(false)).unwrap().server;
        let kept: usize = before[1..].parse().unwrap();
        apply(&dataplane, slices("web", &[kept, (kept + 1) % 3]));
        assert_eq!(tcp(&lab.outside, cluster_ip(false)).unwrap().server, before);
        apply(&dataplane, slices("web", &[(kept + 1) % 3]));
        assert_ne!(tcp(&lab.outside, cluster_ip(false)).unwrap().server, before);
    }
}

#[test]
fn source_ranges_guard_load_balancer_addresses_only() {
    for variant in VARIANTS {
        let lab = lab(variant);
        serve(&lab.pods[1], "p1", TARGET_PORT);
        let mut changes = vec![balanced(json!({"loadBalancerSourceRanges": ["10.1.0.0/24", " fd00:1::/64 "]}))];
        changes.extend(slices("web", &[1]));
        let dataplane = start(&lab, changes);
        for v6 in FAMILIES {
            let balancer = destinations(v6)[3];
            both(&lab.pods[0], balancer).into_iter().for_each(|answer| drop(answer.unwrap()));
            if v6 == (variant == Variant::Nft) {
                assert!(is_silence(&tcp(&lab.outside, balancer)), "not in the ranges");
            }
            for to in &destinations(v6)[..3] {
                both(&lab.outside, *to).into_iter().for_each(|answer| drop(answer.unwrap()));
            }
        }
        apply(&dataplane, [balanced(json!({"loadBalancerSourceRanges": ["0.0.0.0/0", "::/0"]}))]);
        FAMILIES.into_iter().for_each(|v6| drop(tcp(&lab.outside, destinations(v6)[3]).unwrap()));
    }
}

/// By TCP with IPv4 and by UDP with IPv6, where the kernel of this machine looks at a refusal of TCP a second late.
fn ask_either(from: &Namespace, to: SocketAddr) -> std::io::Result<Answer> {
    if to.is_ipv4() { tcp(from, to) } else { udp(from, to) }
}

#[test]
fn services_without_endpoints_are_refused_and_answer_with_the_first() {
    for variant in VARIANTS {
        let lab = lab(variant);
        serve(&lab.pods[1], "p1", TARGET_PORT);
        let dataplane = start(&lab, [balanced(json!({}))]);
        let all_refused = || {
            for to in FAMILIES.into_iter().flat_map(destinations) {
                for from in [&lab.outside, &lab.pods[0]] {
                    assert!(is_refused(&ask_either(from, to)), "{to}");
                }
            }
        };
        all_refused();
        assert!(is_refused(&tcp(&lab.node, node_address(false))));
        apply(&dataplane, slices("web", &[1]));
        FAMILIES.into_iter().flat_map(destinations).for_each(|to| drop(tcp(&lab.outside, to).unwrap()));
        apply(&dataplane, slices("web", &[]));
        all_refused();
    }
}

#[test]
fn an_internal_policy_of_local_drops_what_finds_no_endpoint_on_this_node() {
    let lab = lab(Variant::Nft);
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let mut changes = vec![service("web", json!({"internalTrafficPolicy": "Local"}))];
    changes.extend(slices_on("web", &[(1, "elsewhere")]));
    let dataplane = start(&lab, changes);
    assert!(is_silence(&tcp(&lab.pods[0], cluster_ip(false))));
    apply(&dataplane, slices_on("web", &[(1, "node")]));
    assert_eq!(tcp(&lab.pods[0], cluster_ip(false)).unwrap().server, "p1");
}

#[test]
fn node_ports_answer_on_127_0_0_1_unless_told_not_to() {
    for variant in VARIANTS {
        let lab = lab(variant);
        serve(&lab.pods[1], "p1", TARGET_PORT);
        let mut changes = vec![service("web", node_port())];
        changes.extend(slices("web", &[1]));
        let dataplane = start(&lab, changes.clone());
        assert_eq!(tcp(&lab.node, at("127.0.0.1", NODE_PORT)).unwrap().server, "p1");
        assert!(is_refused(&tcp(&lab.node, at("::1", NODE_PORT))), "IPv6 never does");
        drop(dataplane);
        let off = Mode::Iptables(IptablesConfig { localhost_node_ports: false });
        let dataplane = Dataplane::start(Config { mode: off, ..config(&lab) }).unwrap();
        apply(&dataplane, changes.into_iter().chain([Change::Synced]));
        assert!(is_refused(&tcp(&lab.node, at("127.0.0.1", NODE_PORT))));
        assert_eq!(tcp(&lab.node, node_address(false)).unwrap().server, "p1");
    }
}

#[test]
fn node_ports_follow_the_configured_addresses() {
    let lab = lab(Variant::Legacy);
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let dataplane = Dataplane::start(Config { node_port_addresses: NodePortAddresses::Primary, ..config(&lab) }).unwrap();
    let mut changes = vec![service("web", node_port())];
    changes.extend(slices("web", &[1]));
    apply(&dataplane, changes.into_iter().chain([Change::Synced]));
    for (primary, other) in [(NODE_V4, "10.1.0.1"), (NODE_V6, "fd00:1::1")] {
        assert_eq!(tcp(&lab.pods[0], at(primary, NODE_PORT)).unwrap().server, "p1");
        assert!(is_refused(&tcp(&lab.pods[0], at(other, NODE_PORT))), "{other}");
    }
}

#[test]
fn a_restart_in_sync_writes_nothing_and_one_after_a_change_writes_the_difference() {
    for variant in VARIANTS {
        let lab = lab(variant);
        serve(&lab.pods[1], "p1", TARGET_PORT);
        let every = json!({"externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP", "healthCheckNodePort": 31000,
            "loadBalancerSourceRanges": ["10.1.0.0/16", "192.0.2.0/24", "fd00:1::/64"]});
        let mut changes = vec![balanced(every)];
        let empty = json!({"clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11"], "ipFamilies": ["IPv4"]});
        changes.push(service("empty", empty));
        changes.extend(slices_on("web", &[(0, "node"), (1, "node"), (2, "elsewhere")]));
        let first = start(&lab, changes.clone());
        assert!(first.status().counters.kernel_writes > 0);
        drop(first);
        let before = Family::ALL.map(|family| save(&lab, variant, family));

        let second = start(&lab, changes.clone());
        let counters = second.status().counters;
        assert_eq!((counters.kernel_writes, counters.kernel_reads), (0, 2), "{variant:?}: {counters:?}");
        assert_eq!(Family::ALL.map(|family| save(&lab, variant, family)), before);
        drop(second);
        // A service that went while nobody looked, and an endpoint that went.
        changes.remove(1);
        changes.extend(slices_on("web", &[(1, "node"), (2, "elsewhere")]));
        let third = start(&lab, changes);
        let writes = third.status().counters.kernel_writes;
        assert!(writes > 0 && writes < 80, "{writes}");
        let after = save(&lab, variant, Family::V4);
        assert!(!after.contains("ns1/empty") && !after.contains("10.1.0.11:8080"), "{after}");
    }
}

#[test]
fn a_flush_by_others_is_repaired() {
    for variant in VARIANTS {
        let lab = lab(variant);
        serve(&lab.pods[1], "p1", TARGET_PORT);
        let mut changes = vec![service("web", node_port())];
        changes.extend(slices("web", &[1]));
        let dataplane = start(&lab, changes);
        let before = Family::ALL.map(|family| save(&lab, variant, family));
        for family in Family::ALL {
            for table in ["mangle", "filter", "nat"] {
                lab.node.command(Commands::of(variant, family).iptables, &["-t", table, "-F"]);
                lab.node.command(Commands::of(variant, family).iptables, &["-t", table, "-X"]);
            }
        }
        eventually("it was noticed", || dataplane.status().counters.foreign_changes > 0);
        eventually("all is back", || {
            let now = Family::ALL.map(|family| save(&lab, variant, family));
            // The kubelet's chain is the kubelet's to bring back.
            now == before.clone().map(|saved| saved.replace(":KUBE-IPTABLES-HINT -\n", ""))
        });
        FAMILIES.into_iter().for_each(|v6| drop(tcp(&lab.pods[0], cluster_ip(v6)).unwrap()));
    }
}

#[test]
fn cleanup_deletes_what_is_ours_and_nothing_else() {
    for variant in VARIANTS {
        let lab = lab(variant);
        let iptables = Commands::of(variant, Family::V4).iptables;
        lab.node.command(iptables, &["-A", "INPUT", "-s", "203.0.113.0/24", "-j", "DROP"]);
        lab.node.command(iptables, &["-t", "nat", "-N", "DOCKER"]);
        lab.node.command(iptables, &["-t", "nat", "-A", "PREROUTING", "-j", "DOCKER"]);
        let before = save(&lab, variant, Family::V4);
        let dataplane = start(&lab, [balanced(json!({}))]);
        let during = save(&lab, variant, Family::V4);
        assert!(during.contains("KUBE-SERVICES"));
        dataplane.shutdown(false);
        let lines = |text: &str| text.lines().map(String::from).collect::<BTreeSet<_>>();
        let left = save(&lab, variant, Family::V4);
        let more: Vec<String> = lines(&left).difference(&lines(&before)).cloned().collect();
        // The kubelet's chain stays, as kube-proxy leaves it.
        let kept: Vec<&String> = more.iter().filter(|line| !line.contains("KUBE-FIREWALL") && !line.starts_with(['*', ':'])).collect();
        assert!(kept.is_empty() && !left.contains("KUBE-SERVICES") && !left.contains("CANARY"), "{variant:?}: {left}");
        assert!(lines(&before).is_subset(&lines(&left)), "{variant:?}: {left}");

        // The rules of a process that is gone.
        start(&lab, [balanced(json!({}))]).shutdown(true);
        for _ in 0..2 {
            longshore_dataplane::cleanup(Some(&lab.node.path())).unwrap();
            assert_eq!(lines(&save(&lab, variant, Family::V4)), lines(&left));
        }
    }
}

#[test]
fn others_changes_are_no_reason_to_write() {
    let lab = lab(Variant::Legacy);
    let dataplane = start(&lab, [balanced(json!({}))]);
    let before = dataplane.status().counters.kernel_writes;
    lab.node.command("iptables-legacy", &["-A", "FORWARD", "-s", "203.0.113.0/24", "-j", "ACCEPT"]);
    apply(&dataplane, slices("web", &[0]));
    apply(&dataplane, slices("web", &[]));
    // Whoever looks finds nothing to do.
    let looked = std::time::Instant::now();
    eventually("an audit or two passed", || looked.elapsed() > std::time::Duration::from_millis(1200));
    assert_eq!(dataplane.status().counters.foreign_changes, 0);
    assert!(dataplane.status().counters.kernel_writes > before);
    let saved = save(&lab, Variant::Legacy, Family::V4);
    assert!(saved.contains("-A FORWARD -s 203.0.113.0/24 -j ACCEPT"), "{saved}");
}

/// A table of its own, after translation and after any refusal. (Packets of the node's own can be held up by the
/// scheduler between the two for longer than a commit takes, and are not counted.)
const LEAKS: &str = "table inet leaks { counter untranslated { }; \
    chain forward { type filter hook forward priority 10; ip daddr 10.96.0.0/16 counter name untranslated; }; }";

#[test]
fn no_packet_is_untranslated_while_the_only_endpoint_comes_and_goes() {
    for variant in VARIANTS {
        let lab = lab(variant);
        serve(&lab.pods[1], "p1", TARGET_PORT);
        lab.node.command("nft", &[LEAKS]);
        let mut changes = vec![service("web", json!({}))];
        changes.extend(slices("web", &[1]));
        let dataplane = start(&lab, changes);
        let stop = std::sync::atomic::AtomicBool::new(false);
        let flood = || {
            let mut sent = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                sent += u32::from(socket.send_to(b"x", cluster_ip(false)).is_ok());
            }
            sent
        };
        let flood = &flood;
        let sent = std::thread::scope(|scope| {
            let floods = [&lab.outside, &lab.pods[0]].map(|from| scope.spawn(|| from.run(flood)));
            for _ in 0..15 {
                apply(&dataplane, slices("web", &[]));
                apply(&dataplane, slices("web", &[1]));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            floods.map(|flood| flood.join().unwrap()).iter().sum::<u32>()
        });
        let leaked = lab.nft("list counter inet leaks untranslated");
        assert!(sent > 1000 && leaked.contains("packets 0 "), "{variant:?}: of {sent} datagrams: {leaked}");
    }
}

/// The rules of a small cluster as `iptables-save` prints them; the golden table.
/// Whether the node's kernel has what counts packets by name. The proxy has made the objects, if it could.
fn counts(lab: &Lab) -> bool {
    lab.node.run(accounting::exist)
}

/// Rules as they are where the kernel cannot count.
fn uncounted(rules: &str) -> String {
    let rules = rules.replace(" -m nfacct --nfacct-name  ct_state_invalid_dropped_pkts", "");
    rules.lines().filter(|line| !line.contains(" -m nfacct ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn iptables_save_prints_kube_proxys_rules() {
    let golden = include_str!("golden/iptables-save.txt");
    for variant in VARIANTS {
        let lab = lab(variant);
        let web = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
            "loadBalancerSourceRanges": ["10.1.0.0/16", "192.0.2.0/24"]});
        let mut changes = vec![balanced(web)];
        let sticky = json!({"clusterIP": "10.96.0.12", "clusterIPs": ["10.96.0.12"], "ipFamilies": ["IPv4"],
            "sessionAffinity": "ClientIP", "ports": [{"name": "t", "port": 443}]});
        changes.push(service("sticky", sticky));
        changes.extend(slices_on("web", &[(0, "node"), (1, "elsewhere"), (2, "elsewhere")]));
        changes.extend(slices("sticky", &[0, 1]));
        let empty = json!({"type": "NodePort", "clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11"], "ipFamilies": ["IPv4"],
            "ports": [{"port": 80, "nodePort": 30081}]});
        changes.push(service("empty", empty));
        let _dataplane = start(&lab, changes);
        // Both variants print the same, but for the order of the tables.
        let saved = save(&lab, variant, Family::V4);
        let mut tables: Vec<&str> = saved.split_inclusive("COMMIT\n").collect();
        tables.sort_unstable();
        let saved = tables.concat();
        if std::env::var_os("LONGSHORE_GOLDEN").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/iptables-save.txt"), &saved).unwrap();
            continue;
        }
        let golden = if counts(&lab) { golden.to_string() } else { uncounted(golden) };
        assert_eq!(saved.lines().collect::<Vec<_>>(), golden.lines().collect::<Vec<_>>(), "{variant:?}");
    }
}

/// What an iptables that refuses some rules leaves: the others.
#[test]
fn a_service_whose_rules_are_refused_holds_up_no_other() {
    let complaints = [
        // As the nft variant complains, and as the legacy one does of what only the kernel refuses.
        "echo \"line $(grep -n evil /dev/fd/3 | head -n 1 | cut -d: -f1): RULE_APPEND failed\" >&2",
        "echo \"iptables-restore: line $(grep -n COMMIT /dev/fd/3 | tail -n 1 | cut -d: -f1) failed\" >&2",
    ];
    for complaint in complaints {
        let lab = lab(Variant::Legacy);
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("restore");
        let text = format!(
            "#!/bin/bash\nset -e\ntmp=$(mktemp -p {dir})\ncat >$tmp\nexec 3<$tmp\n\
             if grep -q evil $tmp; then {complaint}; exit 1; fi\nexec iptables-legacy-restore \"$@\" <$tmp\n",
            dir = folder.path().display()
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let restore: &'static str = Box::leak(script.to_str().unwrap().to_string().into_boxed_str());
        lab.node.run(|| {
            let kernel = Kernel::with(Commands { restore, ..Commands::of(Variant::Legacy, Family::V4) }).unwrap();
            let mut plane = IptablesPlane::with(&config(&lab), &IptablesConfig::default(), kernel);
            let mut store = ServiceStore::new("node", None, &[]);
            for (index, name) in ["a", "evil", "b", "c"].into_iter().enumerate() {
                let ip = format!("10.96.0.{}", 20 + index);
                let Change::SetService(object) = service(name, json!({"clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"]})) else {
                    unreachable!()
                };
                store.set_service(&object);
            }
            plane.read().unwrap();
            plane.set_node_addresses(NodeAddresses::default());
            for name in store.take_dirty() {
                plane.set(&name, store.resolve(&name, Family::V4));
            }
            let now = std::time::Instant::now();
            plane.apply(now).unwrap();
            let served: Vec<String> = plane.services().into_iter().map(|service| service.name).collect();
            assert_eq!(served, ["a", "b", "c"]);
            let counts = plane.take_counts();
            assert!(counts.restore_failures > 0, "{counts:?}");
            assert_eq!(counts.partial_restore_failures, 0, "it was the first program");
            let saved = String::from_utf8(std::process::Command::new("iptables-legacy-save").output().unwrap().stdout).unwrap();
            assert!(saved.contains("ns1/c:t has no endpoints") && !saved.contains("evil"), "{saved}");
            // It is tried again later, and when it changes.
            let later = plane.next_deadline().unwrap();
            assert!(later > now && !plane.is_touched());
            plane.apply(later).unwrap();
            assert_eq!(plane.services().len(), 3);
            let counts = plane.take_counts();
            assert!(counts.partial_restore_failures > 0 && counts.partial_restore_failures <= counts.restore_failures, "{counts:?}");
            plane.set(&ObjectName::new("ns1", "evil"), longshore_dataplane::resolve::Resolved::default());
            plane.apply(later).unwrap();
            assert_eq!(plane.next_deadline(), None);
        });
    }
}

/// "metric for localhost nodeports packets" of the end-to-end tests, and the one of invalid packets.
#[test]
fn localhost_nodeports_and_invalid_packets_are_counted_where_the_kernel_can() {
    for variant in VARIANTS {
        let lab = lab(variant);
        serve(&lab.pods[1], "p1", TARGET_PORT);
        let listens = Some("127.0.0.1:10249".parse().unwrap());
        let servers = longshore_dataplane::config::Servers { metrics: listens, ..Default::default() };
        let dataplane = Dataplane::start(Config { servers, ..config(&lab) }).unwrap();
        apply(&dataplane, [balanced(json!({}))].into_iter().chain(slices("web", &[1])).chain([Change::Synced]));
        let metric = |name: &str| -> Option<u64> {
            let page = lab.node.command("busybox", &["wget", "-q", "-O", "-", "http://127.0.0.1:10249/metrics"]);
            let line = page.lines().find(|line| line.starts_with(&format!("kubeproxy_iptables_{name}_packets_total ")))?;
            Some(line.rsplit(' ').next().unwrap().parse().unwrap())
        };
        let (localhost, invalid) = ("localhost_nodeports_accepted", "ct_state_invalid_dropped");
        // Node ports answer there whether packets are counted or not.
        let to = at("127.0.0.1", NODE_PORT);
        if !counts(&lab) {
            assert_eq!((metric(localhost), metric(invalid)), (None, None), "nothing is said of what is not counted");
            assert!(!save(&lab, variant, Family::V4).contains("nfacct"));
            tcp(&lab.node, to).unwrap();
            continue;
        }
        assert_eq!((metric(localhost), metric(invalid)), (Some(0), Some(0)));
        (0..3).for_each(|_| assert_eq!(tcp(&lab.node, to).unwrap().server, "p1"));
        assert_eq!(metric(localhost), Some(3), "nat rules see the first packet of each connection");
        tcp(&lab.node, node_address(false)).unwrap();
        assert_eq!(metric(localhost), Some(3), "the node's other addresses are not counted");
        // Another start goes on counting, and an end without rules takes the objects away.
        dataplane.shutdown(true);
        let dataplane = start(&lab, [balanced(json!({}))].into_iter().chain(slices("web", &[1])));
        tcp(&lab.node, to).unwrap();
        assert_eq!(lab.node.run(|| accounting::packets("localhost_nps_accepted_pkts")), Some(4));
        dataplane.shutdown(false);
        assert!(!counts(&lab));
    }
}

#[test]
fn the_metrics_of_rules_are_what_iptables_save_has_and_what_was_fed_last() {
    for variant in VARIANTS {
        let lab = lab(variant);
        let listens = Some("127.0.0.1:10249".parse().unwrap());
        let servers = longshore_dataplane::config::Servers { metrics: listens, ..Default::default() };
        let dataplane = Dataplane::start(Config { servers, ..config(&lab) }).unwrap();
        let page = || lab.node.command("busybox", &["wget", "-q", "-O", "-", "http://127.0.0.1:10249/metrics"]);
        let metric = |what: &str, table: &str, family: Family| -> usize {
            let name = format!("kubeproxy_sync_proxy_rules_iptables_{what}{{table=\"{table}\",ip_family=\"{family}\"}} ");
            page().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
        };
        let saved = |table: &str, family: Family| -> usize {
            let rules = lab.node.command(Commands::of(variant, family).save, &["-t", table]);
            rules.lines().filter(|line| line.starts_with("-A KUBE-")).count()
        };
        let agree = || {
            for (table, family) in ["filter", "nat"].into_iter().flat_map(|table| Family::ALL.map(|family| (table, family))) {
                assert_eq!(metric("total", table, family), saved(table, family), "{table} {family}");
            }
        };
        apply(&dataplane, [balanced(json!({}))].into_iter().chain(slices("web", &[0, 1])).chain([Change::Synced]));
        agree();
        assert!(metric("last", "filter", Family::V4) > 0 && metric("last", "nat", Family::V4) > 10);
        let before = metric("total", "nat", Family::V4);
        apply(&dataplane, slices("web", &[0]));
        agree();
        assert!(metric("total", "nat", Family::V4) < before);
        let last = metric("last", "nat", Family::V4);
        assert!(last > 0 && last < before / 2, "{last} of {before}");
        assert_eq!(metric("last", "filter", Family::V4), 0, "a change of endpoints is none there");
    }
}
