//! What Kubernetes' conformance suite demands of a service proxy, each under its name, with packets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use lab::objects::{NODE_PORT, PORT, TARGET_PORT, pod_ip, service, slices, vip};
use lab::traffic::{is_refused, serve, tcp, tcp_here, udp};
use lab::{Lab, NODE_V4, NODE_V6, Namespace, apply, start};
use longshore_dataplane::{Change, wire};
use serde_json::{Value, json};

const FAMILIES: [bool; 2] = [false, true];

fn lab() -> Lab {
    let lab = Lab::new();
    for pod in 0..3 {
        serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT);
        serve(&lab.pods[pod], &format!("p{pod}-second"), TARGET_PORT + 1);
    }
    lab
}

fn at(v6: bool, port: u16) -> SocketAddr {
    SocketAddr::new(vip(v6), port)
}

fn node(v6: bool) -> SocketAddr {
    SocketAddr::new(if v6 { NODE_V6 } else { NODE_V4 }.parse().unwrap(), NODE_PORT)
}

/// A slice of these pods, with these named ports.
fn slice(name: &str, v6: bool, pods: &[usize], ports: Value) -> Change {
    let endpoints: Vec<Value> = pods.iter().map(|pod| json!({"addresses": [pod_ip(*pod, v6)], "nodeName": "node"})).collect();
    let object: wire::EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": format!("{name}-{v6}"), "namespace": "ns1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": if v6 { "IPv6" } else { "IPv4" }, "endpoints": endpoints, "ports": ports}))
    .unwrap();
    Change::SetSlice(Arc::new(object))
}

fn who(lab: &Lab, to: SocketAddr) -> BTreeSet<String> {
    lab.outside.run(|| (0..40).map(|_| tcp_here(to).unwrap().server).collect())
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| name.to_string()).collect()
}

#[test]
fn services_should_serve_a_basic_endpoint_from_pods() {
    let lab = lab();
    let dataplane = start(&lab, [service("web", json!({}))]);
    for v6 in FAMILIES {
        assert!(is_refused(&tcp(&lab.pods[2], at(v6, PORT))), "no endpoint yet");
    }
    let steps: [(&[usize], &[&str]); 3] = [(&[0], &["p0"]), (&[0, 1], &["p0", "p1"]), (&[1], &["p1"])];
    for (pods, servers) in steps {
        apply(&dataplane, slices("web", pods));
        FAMILIES.into_iter().for_each(|v6| assert_eq!(who(&lab, at(v6, PORT)), names(servers)));
    }
    apply(&dataplane, slices("web", &[]));
    FAMILIES.into_iter().for_each(|v6| assert!(is_refused(&tcp(&lab.pods[2], at(v6, PORT)))));
}

#[test]
fn services_should_serve_multiport_endpoints_from_pods() {
    let lab = lab();
    let spec = json!({"ports": [{"name": "one", "port": PORT}, {"name": "two", "port": PORT + 1}]});
    let port = |name: &str, port: u16| json!([{"name": name, "port": port}]);
    let dataplane = start(&lab, [service("web", spec)]);
    for v6 in FAMILIES {
        apply(&dataplane, [slice("a", v6, &[0], port("one", TARGET_PORT)), slice("b", v6, &[1], port("two", TARGET_PORT + 1))]);
        assert_eq!(who(&lab, at(v6, PORT)), names(&["p0"]));
        assert_eq!(who(&lab, at(v6, PORT + 1)), names(&["p1-second"]));
        apply(&dataplane, [slice("a", v6, &[], port("one", TARGET_PORT))]);
        assert!(is_refused(&tcp(&lab.pods[2], at(v6, PORT))));
        assert_eq!(who(&lab, at(v6, PORT + 1)), names(&["p1-second"]), "the other port is not touched");
    }
}

#[test]
fn services_should_serve_endpoints_on_same_port_and_different_protocols() {
    let lab = lab();
    let dataplane = start(&lab, [service("web", json!({}))].into_iter().chain(slices("web", &[1])));
    for v6 in FAMILIES {
        assert_eq!(
            (tcp(&lab.pods[0], at(v6, PORT)).unwrap().server, udp(&lab.pods[0], at(v6, PORT)).unwrap().server),
            ("p1".into(), "p1".into())
        );
    }
    apply(&dataplane, [service("web", json!({"ports": [{"name": "u", "port": PORT, "protocol": "UDP"}]}))]);
    for v6 in FAMILIES {
        assert!(is_refused(&tcp(&lab.pods[0], at(v6, PORT))), "TCP went");
        udp(&lab.pods[0], at(v6, PORT)).unwrap();
    }
}

#[test]
fn services_should_be_able_to_create_a_functioning_nodeport_service() {
    let lab = lab();
    let _dataplane = start(&lab, [service("web", lab::objects::node_port())].into_iter().chain(slices("web", &[0, 1])));
    for v6 in FAMILIES {
        assert_eq!(who(&lab, node(v6)), names(&["p0", "p1"]));
        for from in [&lab.pods[2], &lab.node] {
            tcp(from, node(v6)).unwrap();
            udp(from, node(v6)).unwrap();
        }
    }
}

#[test]
fn services_should_be_able_to_change_the_type_to_and_from_externalname() {
    let lab = lab();
    // A stale cluster IP in the object counts for nothing.
    let external_name = || service("web", json!({"type": "ExternalName", "externalName": "example.com"}));
    let cluster_ip = || service("web", json!({"type": "ClusterIP"}));
    let node_port = || service("web", lab::objects::node_port());
    let dataplane = start(&lab, [external_name()].into_iter().chain(slices("web", &[0])));
    let answers = |to: SocketAddr| tcp(&lab.pods[2], to).is_ok();
    let steps = [(cluster_ip(), true, false), (external_name(), false, false), (node_port(), true, true), (external_name(), false, false)];
    for (change, by_ip, by_port) in steps {
        apply(&dataplane, [change]);
        for v6 in FAMILIES {
            if by_ip {
                assert!(answers(at(v6, PORT)));
            }
            assert_eq!(answers(node(v6)), by_port);
        }
        let listed = lab.nft("list ruleset");
        assert_eq!(listed.contains("10.96.0.10"), by_ip, "the cluster IP of an ExternalName service is gone");
    }
}

#[test]
fn endpointslice_should_support_multiple_ports_and_endpoint_ips_specified_in_multiple_endpointslices() {
    let lab = lab();
    let spec = json!({"ports": [{"name": "one", "port": PORT}, {"name": "two", "port": PORT + 1}]});
    let both = json!([{"name": "one", "port": TARGET_PORT}, {"name": "two", "port": TARGET_PORT + 1}]);
    // Each slice has its own number for the same named port.
    let other = json!([{"name": "one", "port": TARGET_PORT + 1}]);
    let dataplane = start(&lab, [service("web", spec), slice("a", false, &[0, 1], both.clone()), slice("b", false, &[2], other)]);
    assert_eq!(who(&lab, at(false, PORT)), names(&["p0", "p1", "p2-second"]));
    assert_eq!(who(&lab, at(false, PORT + 1)), names(&["p0-second", "p1-second"]));
    // An endpoint that moves between slices is in both for a moment.
    apply(&dataplane, [slice("c", false, &[0, 1], both)]);
    assert_eq!(who(&lab, at(false, PORT + 1)), names(&["p0-second", "p1-second"]));
    apply(&dataplane, [Change::DeleteSlice { namespace: "ns1".into(), name: "a-false".into() }]);
    assert_eq!(who(&lab, at(false, PORT + 1)), names(&["p0-second", "p1-second"]));
}

#[test]
fn services_should_fall_back_to_terminating_endpoints_when_there_are_no_ready_ones() {
    let lab = lab();
    let ending = |pods: &[(usize, bool)]| {
        let endpoints: Vec<Value> = pods
            .iter()
            .map(|(pod, ready)| {
                let conditions = json!({"ready": ready, "serving": true, "terminating": !ready});
                json!({"addresses": [pod_ip(*pod, false)], "nodeName": "node", "conditions": conditions})
            })
            .collect();
        let object: wire::EndpointSlice = serde_json::from_value(json!({"addressType": "IPv4", "endpoints": endpoints,
            "metadata": {"name": "web-a", "namespace": "ns1", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "t", "port": TARGET_PORT}]}))
        .unwrap();
        Change::SetSlice(Arc::new(object))
    };
    for (internal, external) in [("Cluster", "Cluster"), ("Local", "Cluster"), ("Cluster", "Local"), ("Local", "Local")] {
        let mut spec = lab::objects::node_port();
        spec["internalTrafficPolicy"] = internal.into();
        spec["externalTrafficPolicy"] = external.into();
        let dataplane = start(&lab, [service("web", spec), ending(&[(0, true), (1, false)])]);
        for to in [at(false, PORT), node(false)] {
            assert_eq!(who(&lab, to), names(&["p0"]), "a ready one is preferred");
        }
        apply(&dataplane, [ending(&[(0, false), (1, false)])]);
        for to in [at(false, PORT), node(false)] {
            assert_eq!(who(&lab, to), names(&["p0", "p1"]), "{internal} {external}: those that end still serve");
        }
    }
}

#[test]
fn services_should_implement_the_proxy_name_and_headless_labels() {
    let lab = lab();
    let Change::SetService(plain) = service("web", json!({})) else { panic!("it is a service") };
    let mut foreign = (*plain).clone();
    foreign.metadata.labels.insert("service.kubernetes.io/service-proxy-name".into(), "other".into());
    let dataplane = start(&lab, [Change::SetService(plain.clone())].into_iter().chain(slices("web", &[0])));
    for _ in 0..2 {
        tcp(&lab.pods[2], at(false, PORT)).unwrap();
        apply(&dataplane, [Change::SetService(Arc::new(foreign.clone()))]);
        assert!(!lab.nft("list ruleset").contains("10.96.0.10"), "another proxy's service");
        apply(&dataplane, [Change::SetService(plain.clone())]);
    }
    for v6 in [false, true] {
        let Change::SetSlice(mut slice) = slices("web", &[0]).swap_remove(usize::from(v6)) else { panic!("it is a slice") };
        Arc::make_mut(&mut slice).metadata.labels.insert("service.kubernetes.io/headless".into(), String::new());
        apply(&dataplane, [Change::SetSlice(slice)]);
        assert!(is_refused(&tcp(&lab.pods[2], at(v6, PORT))), "the slice has no virtual address in front");
    }
}

#[test]
fn kubernetes_should_be_able_to_use_the_secure_master_service_and_its_endpointslices() {
    const API_PORT: u16 = 6443;
    let lab = Lab::new();
    // The API server runs on a node, not in a pod: here, on the host outside and on this node itself.
    serve(&lab.outside, "elsewhere", API_PORT);
    serve(&lab.node, "here", API_PORT);
    let spec = json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv4"],
        "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": API_PORT}]});
    let object = json!({"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": spec});
    // As the API server writes it: no node, no target.
    let endpoints = |ips: &[&str]| {
        let endpoints: Vec<Value> = ips.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
        let slice = json!({"metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "https", "port": API_PORT, "protocol": "TCP"}]});
        Change::SetSlice(Arc::new(serde_json::from_value(slice).unwrap()))
    };
    let api = Change::SetService(Arc::new(serde_json::from_value(object).unwrap()));
    let dataplane = start(&lab, [api, endpoints(&["192.0.2.2"])]);
    let to: SocketAddr = "10.96.0.1:443".parse().unwrap();
    let ask = |from: &Namespace| -> BTreeSet<String> { from.run(|| (0..30).map(|_| tcp_here(to).unwrap().server).collect()) };
    for from in [&lab.pods[0], &lab.node] {
        assert_eq!(ask(from), names(&["elsewhere"]));
    }
    apply(&dataplane, [endpoints(&["192.0.2.2", NODE_V4])]);
    assert_eq!(ask(&lab.pods[0]), names(&["elsewhere", "here"]), "pods reach one on their own node, too");
    apply(&dataplane, [endpoints(&[NODE_V4])]);
    for from in [&lab.pods[0], &lab.node] {
        assert_eq!(ask(from), names(&["here"]));
    }
}

#[test]
fn dns_should_provide_dns_for_the_cluster_and_for_services_by_udp_and_tcp() {
    let lab = Lab::new();
    // Each listens on another port than the Service's.
    (1..3).for_each(|pod| serve(&lab.pods[pod], &format!("dns{pod}"), 5353));
    let ips = ["10.96.0.53", "fd00:96::53"];
    let spec = json!({"clusterIP": ips[0], "clusterIPs": ips, "ipFamilies": ["IPv4", "IPv6"],
        "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]});
    let object = json!({"metadata": {"name": "kube-dns", "namespace": "kube-system"}, "spec": spec});
    let slice = |v6: bool| {
        let endpoints: Vec<Value> = (1..3).map(|pod| json!({"addresses": [pod_ip(pod, v6)], "nodeName": "node"})).collect();
        let slice = json!({"metadata": {"name": format!("kube-dns-{v6}"), "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"}}, "addressType": if v6 { "IPv6" } else { "IPv4" }, "endpoints": endpoints,
            "ports": [{"name": "dns", "port": 5353, "protocol": "UDP"}, {"name": "dns-tcp", "port": 5353, "protocol": "TCP"}]});
        Change::SetSlice(Arc::new(serde_json::from_value(slice).unwrap()))
    };
    let dns = Change::SetService(Arc::new(serde_json::from_value(object).unwrap()));
    let _dataplane = start(&lab, [dns, slice(false), slice(true)]);
    for ip in ips {
        let to = SocketAddr::new(ip.parse().unwrap(), 53);
        for from in [&lab.pods[0], &lab.pods[1], &lab.node] {
            // A resolver's questions come from a new port each, and are spread like connections.
            let by_udp: BTreeSet<String> = (0..30).map(|_| udp(from, to).unwrap().server).collect();
            let by_tcp: BTreeSet<String> = (0..30).map(|_| tcp(from, to).unwrap().server).collect();
            assert_eq!((by_udp, by_tcp), (names(&["dns1", "dns2"]), names(&["dns1", "dns2"])), "{to}");
        }
    }
}

/// `conformance.md` says which test shows which demand: each must be there, and every item of the suite must have one.
#[test]
fn every_test_of_the_table_exists_and_every_item_of_the_suite_is_in_it() {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let table = std::fs::read_to_string(top.join("dataplane/tests/conformance.md")).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| item") && !line.starts_with("| file"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    for row in &rows {
        let [_, demand, tests] = row[..] else { panic!("{row:?}") };
        let named: Vec<(&str, &str)> = tests.split('`').filter_map(|text| text.split_once(".rs::")).collect();
        assert!(!named.is_empty() || tests == "API only", "{demand:?} has no test");
        for (file, test) in named {
            let text = std::fs::read_to_string(top.join(format!("{file}.rs"))).unwrap_or_else(|error| panic!("{file}.rs: {error}"));
            assert!(text.contains(&format!("fn {test}(")), "{file}.rs has no test {test}");
        }
    }
    let numbers = |text: &str| -> Vec<u32> {
        let ends: Vec<u32> = text.split(['–', ',']).map(|number| number.trim().parse().unwrap()).collect();
        if text.contains('–') { (ends[0]..=ends[1]).collect() } else { ends }
    };
    let items: BTreeSet<u32> =
        rows.iter().filter(|row| row[0].starts_with(|c: char| c.is_ascii_digit())).flat_map(|row| numbers(row[0])).collect();
    assert_eq!(items, (1..=23).collect());
}
