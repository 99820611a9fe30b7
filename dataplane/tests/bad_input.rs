//! What a cluster or a kernel should not do, and may: each is told of clearly, everything else is programmed, and nothing
//! is lost. (A full ipset, endpoints beyond the limit in mode ipvs, and those that IPVS refuses: in the tests on other kernels. Netlink's refusals one by one:
//! in `netlink::socket`. Settings that cannot be written one by one: in `conntrack::tune`.)

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::objects::{NODE_PORT, PORT, TARGET_PORT, node_port, pod_ip, service, slices, vip};
use lab::traffic::{is_refused, serve, tcp, tcp_here, udp};
use lab::{Lab, NODE_V4, Namespace, apply, eventually, programmed};
use longshore_dataplane::backend::nft::plane::NftPlane;
use longshore_dataplane::backend::nft::watch::Watch;
use longshore_dataplane::backend::{NodeAddresses, Options, Plane};
use longshore_dataplane::conntrack::sysctl::Wanted as Conntrack;
use longshore_dataplane::model::ObjectName;
use longshore_dataplane::netlink::local;
use longshore_dataplane::netlink::socket::NetlinkSocket;
use longshore_dataplane::store::ServiceStore;
use longshore_dataplane::{Change, Config, Dataplane, Family, IptablesConfig, Mode, NodePortAddresses};
use serde_json::{Value, json};

fn modes() -> [Mode; 2] {
    [Mode::Nftables, Mode::Iptables(IptablesConfig::default())]
}

fn start(lab: &Lab, mode: &Mode, changes: Vec<Change>) -> Dataplane {
    let dataplane = Dataplane::start(Config { mode: mode.clone(), ..lab.config() }).unwrap();
    apply(&dataplane, changes.into_iter().chain([Change::Synced]));
    dataplane
}

fn slice(name: &str, service: &str, family: &str, endpoints: Value, ports: Value) -> Change {
    let object = json!({"metadata": {"name": name, "namespace": "ns1", "labels": {"kubernetes.io/service-name": service}},
        "addressType": family, "endpoints": endpoints, "ports": ports});
    Change::SetSlice(Arc::new(serde_json::from_value(object).unwrap()))
}

/// What was said of objects, all in one.
fn told(dataplane: &Dataplane) -> String {
    let events = dataplane.events();
    std::iter::from_fn(|| events.try_next()).map(|event| format!("{:?}: {}\n", event.regarding, event.message)).collect()
}

fn at(v6: bool) -> SocketAddr {
    SocketAddr::new(vip(v6), PORT)
}

#[test]
fn malformed_slices_ports_out_of_range_and_addresses_of_the_wrong_family_are_told_and_the_rest_is_programmed() {
    for mode in modes() {
        let lab = Lab::new();
        (0..2).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
        let port = json!([{"name": "t", "port": TARGET_PORT}]);
        let of = |ips: &[&str]| -> Value { ips.iter().map(|ip| json!({"addresses": [ip], "nodeName": "node"})).collect() };
        let odd = json!({"clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11", "ten"], "ipFamilies": ["IPv4"],
            "externalIPs": ["198.51.100.300"], "type": "NodePort",
            "ports": [{"name": "t", "port": PORT}, {"name": "huge", "port": 65_536, "nodePort": -1}, {"name": "odd", "port": 9, "protocol": "ICMP"}]});
        let changes = vec![
            service("web", json!({})),
            service("odd", odd),
            slice("good", "web", "IPv4", of(&[&pod_ip(0, false)]), port.clone()),
            slice("wrong-family", "web", "IPv4", of(&["fd00:1::12", &pod_ip(1, false)]), port.clone()),
            slice(
                "no-address",
                "web",
                "IPv4",
                json!([{"addresses": []}, {"addresses": ["ten"]}, {"addresses": ["10.1.0.999"]}]),
                port.clone(),
            ),
            slice("no-port", "web", "IPv4", of(&["10.1.0.99"]), json!([{"name": "t", "port": 99_999}])),
            slice("no-family", "web", "IPv5", of(&["10.1.0.98"]), port.clone()),
            slice("names", "web", "FQDN", of(&["pod.example"]), port.clone()),
            slice("nobodys", "", "IPv4", of(&["10.1.0.97"]), port.clone()),
            slice("odd", "odd", "IPv4", of(&[&pod_ip(1, false)]), port),
        ];
        let dataplane = start(&lab, &mode, changes);
        let status = dataplane.status();
        assert!(status.ready && status.last_error.is_none(), "{status:?}");
        let servers: BTreeSet<String> = lab.outside.run(|| (0..40).map(|_| tcp_here(at(false)).unwrap().server).collect());
        assert_eq!(servers.into_iter().collect::<Vec<_>>(), ["p0", "p1"], "those that can be used, and no other");
        assert_eq!(tcp(&lab.outside, "10.96.0.11:80".parse().unwrap()).unwrap().server, "p1");
        let told = told(&dataplane);
        for what in [
            "\"fd00:1::12\" is not an IPv4 address",
            "\"ten\"",
            "\"198.51.100.300\"",
            "99999 is not a port",
            "65536 is not a port",
            "-1 is not a node port",
            "\"ICMP\" is not TCP, UDP or SCTP",
            "addressType \"IPv5\"",
        ] {
            assert!(told.contains(what), "no {what:?} in\n{told}");
        }
    }
}

/// More than the rules of any mode can spread connections over: the first 16,383 are used, and that is told.
fn a_million_endpoints(mode: &Mode) {
    const SLICES: u32 = 1000;
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let spec = |last: u8| {
        json!({"clusterIP": format!("10.96.0.{last}"), "clusterIPs": [format!("10.96.0.{last}")], "ipFamilies": ["IPv4"],
        "ports": [{"name": "t", "port": PORT}]})
    };
    let endpoints = |slice: u32| -> Value {
        let first = u32::from(Ipv4Addr::new(100, 64, 0, 0)) + slice * 1000;
        (first..first + 1000).map(|ip| json!({"addresses": [Ipv4Addr::from(ip)]})).collect()
    };
    let ports = json!([{"name": "t", "port": TARGET_PORT}]);
    let mut changes = vec![service("huge", spec(20)), service("small", spec(21))];
    changes.extend((0..SLICES).map(|n| slice(&format!("huge-{n}"), "huge", "IPv4", endpoints(n), ports.clone())));
    changes.push(slice("small", "small", "IPv4", json!([{"addresses": [pod_ip(1, false)]}]), ports.clone()));
    let dataplane = Dataplane::start(Config { mode: mode.clone(), families: vec![Family::V4], ..lab.config() }).unwrap();
    let last = changes.into_iter().chain([Change::Synced]).map(|change| dataplane.apply(change)).last().unwrap();
    let small: SocketAddr = "10.96.0.21:80".parse().unwrap();
    eventually("the small one answers", || tcp(&lab.outside, small).is_ok());
    eventually("the huge one is programmed", || dataplane.status().programmed_generation >= last);
    assert_eq!(dataplane.status().last_error, None);
    let wanted = "Service(ns1/huge): only 16383 of 1000000 IPv4 endpoints of a port of ns1/huge get connections\n";
    assert_eq!(told(&dataplane), wanted);
    // A change of a small one, while the huge one is there, is a small change.
    let before = dataplane.status().counters.kernel_writes;
    apply(&dataplane, [slice("small", "small", "IPv4", json!([]), ports)]);
    assert!(is_refused(&tcp(&lab.outside, small)));
    assert!(dataplane.status().counters.kernel_writes - before < 20);
    // All but one go, and that one answers.
    apply(&dataplane, (1..SLICES).map(|n| Change::DeleteSlice { namespace: "ns1".into(), name: format!("huge-{n}") }));
    let one = json!([{"addresses": [pod_ip(1, false)]}]);
    apply(&dataplane, [slice("huge-0", "huge", "IPv4", one, json!([{"name": "t", "port": TARGET_PORT}]))]);
    assert_eq!(tcp(&lab.outside, "10.96.0.20:80".parse().unwrap()).unwrap().server, "p1");
    assert_eq!(told(&dataplane), "", "once");
}

#[test]
fn a_million_endpoints_in_one_service_hold_up_no_other_with_nftables() {
    a_million_endpoints(&Mode::Nftables);
}

#[test]
fn a_million_endpoints_in_one_service_hold_up_no_other_with_iptables() {
    a_million_endpoints(&Mode::Iptables(IptablesConfig::default()));
}

#[test]
fn names_at_their_length_limits_are_programmed_and_told_apart() {
    for mode in modes() {
        let lab = Lab::new();
        (0..2).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
        let (namespace, stem, port) = ("n".repeat(63), "s".repeat(62), "p".repeat(63));
        let named = |end: &str, last: u8, pod: usize| {
            let name = format!("{stem}{end}");
            let ports = [("TCP", ""), ("UDP", "u")].map(|(protocol, more)| {
                json!({"name": format!("{}{more}", &port[more.len()..]), "protocol": protocol, "port": PORT, "nodePort": NODE_PORT + u16::from(last)})
            });
            let ip = format!("10.96.0.{last}");
            let object = json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"type": "NodePort", "clusterIP": ip,
                "clusterIPs": [ip], "ipFamilies": ["IPv4"], "sessionAffinity": "ClientIP", "ports": ports}});
            let target = ports.clone().map(|port| json!({"name": port["name"], "protocol": port["protocol"], "port": TARGET_PORT}));
            let slice = json!({"metadata": {"name": format!("{end}{}", "e".repeat(252)), "namespace": namespace,
                "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4", "ports": target,
                "endpoints": [{"addresses": [pod_ip(pod, false)], "nodeName": "node"}]});
            let slice = Change::SetSlice(Arc::new(serde_json::from_value(slice).unwrap()));
            [Change::SetService(Arc::new(serde_json::from_value(object).unwrap())), slice]
        };
        let changes = [named("a", 31, 0), named("b", 32, 1)].concat();
        let dataplane = start(&lab, &mode, changes);
        assert_eq!(dataplane.status().last_error, None);
        for (last, server) in [(31u8, "p0"), (32, "p1")] {
            let cluster = SocketAddr::new(Ipv4Addr::new(10, 96, 0, last).into(), PORT);
            let node = SocketAddr::new(NODE_V4.parse::<IpAddr>().unwrap(), NODE_PORT + u16::from(last));
            for to in [cluster, node] {
                assert_eq!((tcp(&lab.outside, to).unwrap().server, udp(&lab.outside, to).unwrap().server), (server.into(), server.into()));
            }
        }
        let writes = dataplane.status().counters.kernel_writes;
        assert!(writes > 0);
        // Another life finds them again under their shortened names.
        dataplane.shutdown(true);
        let again = start(&lab, &mode, [named("a", 31, 0), named("b", 32, 1)].concat());
        assert_eq!(again.status().counters.kernel_writes, 0, "{}", mode.name());
    }
}

/// The kernel refuses every change of a table that another process says is its own.
#[test]
fn a_table_that_somebody_keeps_from_us_is_told_and_programmed_once_it_is_let_go() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let mut keeper = lab.node.run(|| Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    let mut orders = keeper.stdin.take().unwrap();
    std::io::Write::write_all(&mut orders, b"add table ip kube-proxy { flags owner; }\n").unwrap();
    eventually("the table is somebody's", || lab.nft("list tables").contains("kube-proxy"));
    let dataplane = Dataplane::start(lab.config()).unwrap();
    let changes = [service("web", node_port())].into_iter().chain(slices("web", &[1])).chain([Change::Synced]);
    let last = changes.map(|change| dataplane.apply(change)).last().unwrap();
    eventually("the refusal is told", || dataplane.status().last_error.is_some());
    let error = dataplane.status().last_error.unwrap();
    assert!(error.contains("not permitted"), "{error}");
    assert!(!dataplane.status().ready, "a service of IPv4 is not programmed");
    eventually("the other family is served", || tcp(&lab.outside, at(true)).is_ok());
    // What changes meanwhile is not lost.
    let last = slices("web", &[1]).into_iter().map(|change| dataplane.apply(change)).last().unwrap().max(last);
    drop(orders);
    keeper.wait().unwrap();
    programmed(&dataplane, last);
    assert_eq!(tcp(&lab.outside, at(false)).unwrap().server, "p1");
}

/// Somebody's rule leads to a chain of ours that nobody else needs any more: the kernel keeps it.
#[test]
fn a_chain_that_somebody_still_uses_is_counted_as_a_failed_cleanup_and_holds_up_no_service() {
    let lab = Lab::new();
    lab.node.run(|| {
        let nft = |text: &str| assert!(Command::new("nft").arg(text).status().unwrap().success(), "nft {text}");
        let mut plane = NftPlane::open("kube-proxy", Options::of(&lab.config(), Family::V4)).unwrap();
        let mut store = ServiceStore::new("node", None, &[]);
        let resolved = |store: &mut ServiceStore, change: Change| {
            match change {
                Change::SetService(service) => drop(store.set_service(&service)),
                Change::SetSlice(slice) => drop(store.set_slice(&slice)),
                _ => unreachable!(),
            }
            store.resolve(&ObjectName::new("ns1", "web"), Family::V4)
        };
        let name = ObjectName::new("ns1", "web");
        let began = Instant::now();
        plane.read().unwrap();
        plane.set_node_addresses(NodeAddresses::default());
        resolved(&mut store, service("web", json!({})));
        plane.set(&name, resolved(&mut store, slices("web", &[0, 1]).swap_remove(0)));
        plane.apply(began).unwrap();
        nft("add chain ip kube-proxy theirs");
        nft("add rule ip kube-proxy theirs goto ip-lb-2");
        plane.set(&name, resolved(&mut store, slices("web", &[0]).swap_remove(0)));
        plane.apply(began).unwrap();
        assert_eq!(plane.take_counts().cleanup_failures, 0, "it may be needed again soon");
        let later = plane.next_deadline().unwrap();
        let error = plane.apply(later).unwrap_err().to_string();
        assert!(error.contains("busy"), "{error}");
        assert_eq!(plane.take_counts().cleanup_failures, 1);
        // The next pass reads, and finds a table that is not as ours are.
        plane.forget();
        plane.read().unwrap();
        plane.set(&name, store.resolve(&name, Family::V4));
        plane.apply(later).unwrap();
        assert_eq!(plane.take_counts().cleanup_failures, 0);
        assert!(!lab.nft("list chains").contains("theirs"));
    });
}

/// The kernel makes the route of an IPv6 address a moment after it has acknowledged the address.
#[test]
fn an_ipv6_address_is_waited_for_until_packets_to_it_are_the_nodes_and_not_for_ever() {
    let lab = Lab::new();
    const ROUTE: isize = 0;
    let ip: IpAddr = "fd00:96::77".parse().unwrap();
    let is_local = || lab.node.command("ip", &["-6", "route", "get", "fd00:96::77"]).starts_with("local ");
    assert!(!is_local(), "it goes to the outside host");
    let wait = || lab.node.run(|| local::wait(&mut NetlinkSocket::open_protocol(ROUTE).unwrap(), [ip, vip(false)]).unwrap());
    let began = Instant::now();
    wait();
    assert!(began.elapsed() >= Duration::from_secs(1), "an address that never comes is given up, after a while");
    assert!(!is_local());
    std::thread::scope(|scope| {
        let waited = scope.spawn(|| {
            wait();
            assert!(is_local(), "it came back too soon");
        });
        lab.node.ip("address add fd00:96::77/128 dev lo nodad");
        waited.join().unwrap();
    });
    let began = Instant::now();
    wait();
    assert!(began.elapsed() < Duration::from_secs(2), "one that is there is not waited for");
}

/// Netlink drops news for whom there is no room, and says ENOBUFS.
#[test]
fn news_that_the_kernel_had_no_room_for_count_as_a_change() {
    let node = Namespace::new();
    node.run(|| {
        let mut watch = Watch::open(0).unwrap();
        let nft = |text: &str| assert!(Command::new("nft").arg(text).status().unwrap().success());
        nft("add table ip others");
        nft("add set ip others many { type ipv4_addr; }");
        assert!(!watch.heard_of(Family::V4, "kube-proxy"), "it is not ours");
        let elements: Vec<String> = (0..20_000u32).map(|n| Ipv4Addr::from(0x0a00_0000 + n).to_string()).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("add element ip others many {{ {} }}\n", elements.join(", "))).unwrap();
        assert!(Command::new("nft").arg("-f").arg(file.path()).status().unwrap().success());
        assert!(watch.heard_of(Family::V4, "kube-proxy"), "some of the news may have been about ours");
        assert!(!watch.heard_of(Family::V4, "kube-proxy"), "once");
        nft("add table ip kube-proxy");
        assert!(watch.heard_of(Family::V4, "kube-proxy"), "it goes on hearing");
    });
}

#[test]
fn a_read_only_sysctl_holds_up_no_service() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let before = lab.node.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/route_localnet").unwrap());
    assert_eq!(before.trim(), "0");
    let conntrack = Some(Conntrack { max_per_core: 1_000_000, min: 900_000, udp: Duration::from_secs(77), ..Conntrack::default() });
    let own = Mode::Iptables(IptablesConfig::default());
    let config = Config { mode: own, conntrack, node_port_addresses: NodePortAddresses::All, ..lab.config() };
    // The thread of the data plane has the mounts of the one that starts it.
    let dataplane = lab.node.run(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        for arguments in ["--make-rprivate /", "--bind /proc/sys /proc/sys", "-o remount,bind,ro /proc/sys"] {
            assert!(Command::new("mount").args(arguments.split(' ')).status().unwrap().success(), "mount {arguments}");
        }
        assert!(std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").is_err());
        Dataplane::start(config).unwrap()
    });
    apply(&dataplane, [service("web", node_port())].into_iter().chain(slices("web", &[1])).chain([Change::Synced]));
    assert_eq!(dataplane.status().last_error, None);
    let node = SocketAddr::new(NODE_V4.parse().unwrap(), NODE_PORT);
    for to in [at(false), at(true), node] {
        assert_eq!(tcp(&lab.outside, to).unwrap().server, "p1");
    }
    let after = lab.node.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/route_localnet").unwrap());
    assert_eq!(after.trim(), "0", "it could not be written");
}
