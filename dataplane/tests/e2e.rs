//! What Kubernetes' end-to-end tests outside the conformance suite demand of a service proxy, each under its name, with
//! packets. `conformance.md` says which test answers which demand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use lab::objects::{NODE_PORT, PORT, TARGET_PORT, node_port, pod_ip, service, slice as slice_of, slices, slices_on, vip};
use lab::traffic::{ask, connected, is_refused, serve, tcp, tcp_here, udp};
use lab::{Lab, NODE_V4, NODE_V6, Namespace, apply, eventually};
use longshore_dataplane::conntrack::sysctl::Wanted as Conntrack;
use longshore_dataplane::{Change, Config, Dataplane, IptablesConfig, Mode, NodePortAddresses, wire};
use serde_json::{Value, json};

const FAMILIES: [bool; 2] = [false, true];

/// A lab in each mode of this kernel, with a server in every pod.
fn in_every_mode(test: impl Fn(&Lab, &Mode)) {
    for mode in [Mode::Nftables, Mode::Iptables(IptablesConfig::default())] {
        println!("{}", mode.name());
        let lab = Lab::new();
        (0..3).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
        test(&lab, &mode);
    }
}

fn start(lab: &Lab, mode: &Mode, changes: impl IntoIterator<Item = Change>) -> Dataplane {
    let config = Config { mode: mode.clone(), node_port_addresses: NodePortAddresses::All, ..lab.config() };
    let dataplane = Dataplane::start(config).unwrap();
    apply(&dataplane, changes.into_iter().chain([Change::Synced]));
    dataplane
}

fn web(extra: Value, pods: &[usize]) -> Vec<Change> {
    [service("web", extra)].into_iter().chain(slices("web", pods)).collect()
}

fn at(v6: bool, port: u16) -> SocketAddr {
    SocketAddr::new(vip(v6), port)
}

fn node(v6: bool, port: u16) -> SocketAddr {
    SocketAddr::new(if v6 { NODE_V6 } else { NODE_V4 }.parse().unwrap(), port)
}

fn who(from: &Namespace, to: SocketAddr) -> BTreeSet<String> {
    from.run(|| (0..40).map(|_| tcp_here(to).unwrap().server).collect())
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| name.to_string()).collect()
}

/// One endpoint with these conditions.
fn conditioned(pod: usize, conditions: &Value) -> Change {
    let object: wire::EndpointSlice = serde_json::from_value(json!({"addressType": "IPv4",
        "metadata": {"name": "web-IPv4", "namespace": "ns1", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": [pod_ip(pod, false)], "nodeName": "node", "conditions": conditions}],
        "ports": [{"name": "t", "port": TARGET_PORT}, {"name": "u", "port": TARGET_PORT, "protocol": "UDP"}]}))
    .unwrap();
    Change::SetSlice(Arc::new(object))
}

#[test]
fn services_should_be_updated_after_adding_or_deleting_ports() {
    in_every_mode(|lab, mode| {
        let ports = |numbers: &[u16]| -> Value {
            json!({"ports": numbers.iter().map(|port| json!({"name": "t", "port": port})).collect::<Vec<_>>()})
        };
        let dataplane = start(lab, mode, web(ports(&[80]), &[0]));
        for step in [&[80, 81][..], &[81], &[82]] {
            apply(&dataplane, [service("web", ports(step))]);
            for (v6, port) in FAMILIES.into_iter().flat_map(|v6| [80, 81, 82].map(|port| (v6, port))) {
                let answer = tcp(&lab.pods[2], at(v6, port));
                assert_eq!(answer.is_ok(), step.contains(&port), "{port} of {step:?}: {answer:?}");
            }
        }
    });
}

#[test]
fn services_should_preserve_source_pod_ip_for_traffic_thru_service_cluster_ip() {
    in_every_mode(|lab, mode| {
        let _dataplane = start(lab, mode, web(json!({}), &[0]));
        for v6 in FAMILIES {
            let own: IpAddr = pod_ip(2, v6).parse().unwrap();
            assert_eq!(tcp(&lab.pods[2], at(v6, PORT)).unwrap().seen_client, own);
            assert_eq!(udp(&lab.pods[2], at(v6, PORT)).unwrap().seen_client, own);
        }
    });
}

#[test]
fn services_should_be_able_to_up_and_down_services_and_work_after_a_service_has_been_recreated() {
    in_every_mode(|lab, mode| {
        let named = |name: &str, last: u8| {
            let ips = [format!("10.96.0.{last}"), format!("fd00:96::{last}")];
            service(name, json!({"clusterIP": ips[0], "clusterIPs": ips, "ipFamilies": ["IPv4", "IPv6"]}))
        };
        let to = |last: u8| SocketAddr::new(IpAddr::from([10, 96, 0, last]), PORT);
        let deleted = |name: &str| Change::DeleteService { namespace: "ns1".into(), name: name.into() };
        let changes = [named("one", 21), named("two", 22)].into_iter().chain(slices("one", &[0])).chain(slices("two", &[1]));
        let dataplane = start(lab, mode, changes);
        apply(&dataplane, [deleted("one")]);
        assert!(tcp(&lab.pods[2], to(21)).is_err(), "it is deleted");
        assert_eq!(tcp(&lab.pods[2], to(22)).unwrap().server, "p1", "the other is not");
        apply(&dataplane, [named("three", 23)].into_iter().chain(slices("three", &[2])));
        assert_eq!(tcp(&lab.pods[0], to(23)).unwrap().server, "p2");
        apply(&dataplane, [named("one", 21)]);
        assert_eq!(tcp(&lab.pods[2], to(21)).unwrap().server, "p0", "the same address again");
        assert_eq!(tcp(&lab.pods[2], to(22)).unwrap().server, "p1");
    });
}

#[test]
fn services_should_be_possible_to_connect_via_externalip_when_the_external_ip_is_not_assigned_to_a_node() {
    in_every_mode(|lab, mode| {
        let ips = ["203.0.113.250", "fd00:100::250"];
        let _dataplane = start(lab, mode, web(json!({"externalIPs": ips}), &[0]));
        for ip in ips {
            let to = SocketAddr::new(ip.parse().unwrap(), PORT);
            for from in [&lab.pods[1], &lab.pods[0], &lab.node, &lab.outside] {
                assert_eq!((tcp(from, to).unwrap().server, udp(from, to).unwrap().server), ("p0".into(), "p0".into()), "{to}");
            }
        }
    });
}

#[test]
fn services_should_be_able_to_update_the_type_to_nodeport_with_one_port_number_for_different_protocols() {
    in_every_mode(|lab, mode| {
        let dataplane = start(lab, mode, web(json!({"ports": [{"name": "t", "port": PORT}]}), &[0]));
        assert!(tcp(&lab.outside, node(false, NODE_PORT)).is_err());
        apply(&dataplane, [service("web", node_port())]);
        for v6 in FAMILIES {
            let to = node(v6, NODE_PORT);
            assert_eq!((tcp(&lab.outside, to).unwrap().server, udp(&lab.outside, to).unwrap().server), ("p0".into(), "p0".into()));
        }
    });
}

/// With publishNotReadyAddresses the controller says "ready" of all; without, of none that ends.
#[test]
fn services_should_be_able_to_connect_to_terminating_and_unready_endpoints_only_if_publishnotreadyaddresses_is_true() {
    in_every_mode(|lab, mode| {
        let published = json!({"ready": true, "serving": false, "terminating": true});
        let dataplane = start(lab, mode, [service("web", node_port()), conditioned(0, &published)]);
        for to in [at(false, PORT), node(false, NODE_PORT)] {
            assert_eq!(tcp(&lab.pods[1], to).unwrap().server, "p0");
        }
        for hidden in [json!({"ready": false, "serving": false, "terminating": true}), json!({"ready": false})] {
            apply(&dataplane, [conditioned(0, &hidden)]);
            for to in [at(false, PORT), node(false, NODE_PORT)] {
                assert!(is_refused(&tcp(&lab.pods[1], to)), "{hidden}");
            }
        }
    });
}

#[test]
fn services_should_serve_endpoints_on_same_port_and_different_protocol_on_type_loadbalancer_with_and_without_nodeports() {
    in_every_mode(|lab, mode| {
        let balanced = |ports: Value| {
            let object = json!({"metadata": {"name": "web", "namespace": "ns1"},
                "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ipFamilies": ["IPv4"],
                    "allocateLoadBalancerNodePorts": false, "ports": ports},
                "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.9"}]}}});
            Change::SetService(Arc::new(serde_json::from_value(object).unwrap()))
        };
        let bare = json!([{"name": "t", "port": PORT, "protocol": "TCP"}, {"name": "u", "port": PORT, "protocol": "UDP"}]);
        let dataplane = start(lab, mode, [balanced(bare.clone())].into_iter().chain(slices("web", &[0])));
        let balancer = SocketAddr::new("198.51.100.9".parse().unwrap(), PORT);
        for (ports, open) in [(bare.clone(), false), (node_port()["ports"].clone(), true), (bare, false)] {
            apply(&dataplane, [balanced(ports)]);
            for (from, to) in [(&lab.pods[1], at(false, PORT)), (&lab.pods[1], balancer), (&lab.outside, balancer), (&lab.node, balancer)] {
                assert_eq!((tcp(from, to).unwrap().server, udp(from, to).unwrap().server), ("p0".into(), "p0".into()));
            }
            assert_eq!(tcp(&lab.outside, node(false, NODE_PORT)).is_ok(), open);
        }
    });
}

/// Rules or elements are all that can be asked for: hardly a kernel has SCTP.
#[test]
fn services_should_create_a_clusterip_and_a_nodeport_service_with_sctp_ports() {
    in_every_mode(|lab, mode| {
        let port = json!([{"name": "s", "port": 5060, "nodePort": 30_506, "protocol": "SCTP"}]);
        let mut changes = vec![service("web", json!({"type": "NodePort", "ports": port}))];
        let object: wire::EndpointSlice = serde_json::from_value(json!({"addressType": "IPv4",
            "metadata": {"name": "web-IPv4", "namespace": "ns1", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [{"addresses": ["10.1.0.11"]}], "ports": [{"name": "s", "port": 5061, "protocol": "SCTP"}]}))
        .unwrap();
        changes.push(Change::SetSlice(Arc::new(object)));
        let dataplane = start(lab, mode, changes);
        assert_eq!(dataplane.status().last_error, None);
        let (listed, wanted) = match mode {
            Mode::Nftables => (lab.nft("list table ip kube-proxy"), ["10.96.0.10 . sctp . 5060", "sctp . 30506", "10.1.0.11 . 5061"]),
            _ => {
                let wanted = ["-d 10.96.0.10/32 -p sctp", "--comment \"ns1/web:s\" -m sctp --dport 30506", "10.1.0.11:5061"];
                (lab.node.command("iptables-save", &["-t", "nat"]), wanted)
            }
        };
        wanted.iter().for_each(|part| assert!(listed.contains(part), "no {part:?} in\n{listed}"));
    });
}

#[test]
fn services_should_give_up_the_nodeport_of_another_policy_and_the_healthcheck_nodeport_with_it() {
    in_every_mode(|lab, mode| {
        let spec = |policy: &str, check: u16| {
            let mut spec = node_port();
            spec["type"] = "LoadBalancer".into();
            spec["externalTrafficPolicy"] = policy.into();
            spec["healthCheckNodePort"] = check.into();
            service("web", spec)
        };
        let elsewhere = slices_on("web", &[(0, "elsewhere")]);
        let dataplane = start(lab, mode, [spec("Local", 31_000)].into_iter().chain(elsewhere));
        let checked = |port: u16| lab.outside.run(|| TcpStream::connect_timeout(&node(false, port), Duration::from_secs(2)).is_ok());
        eventually("balancers can ask", || checked(31_000));
        assert!(tcp(&lab.outside, node(false, NODE_PORT)).is_err(), "no endpoint here");
        apply(&dataplane, [spec("Cluster", 0)]);
        assert_eq!(tcp(&lab.outside, node(false, NODE_PORT)).unwrap().server, "p0");
        eventually("nobody is to ask", || !checked(31_000));
        apply(&dataplane, [spec("Local", 31_001)]);
        eventually("balancers can ask at the new port", || checked(31_001));
        assert!(!checked(31_000) && tcp(&lab.outside, node(false, NODE_PORT)).is_err());
    });
}

/// The client keeps its port: its flow must move to whoever serves now.
#[test]
fn conntrack_should_be_able_to_preserve_udp_traffic_when_server_pod_cycles() {
    in_every_mode(|lab, mode| {
        let mut local = node_port();
        local["internalTrafficPolicy"] = "Local".into();
        let dataplane = start(lab, mode, web(node_port(), &[]));
        let cases = [
            ("for a NodePort service", node_port(), &lab.outside, node(false, NODE_PORT)),
            ("for a ClusterIP service", node_port(), &lab.pods[2], at(false, PORT)),
            ("for a ClusterIP service with InternalTrafficPolicy set to Local", local, &lab.pods[2], at(false, PORT)),
            ("for a ClusterIP service with a client that is hostNetwork", node_port(), &lab.node, at(false, PORT)),
        ];
        for (index, (what, spec, from, to)) in cases.into_iter().enumerate() {
            // The client is there first: "initial unready endpoints get ready".
            apply(&dataplane, [service("web", spec)].into_iter().chain(slices("web", &[])));
            let any = SocketAddr::from(([0, 0, 0, 0], 5400 + index as u16));
            let client = from.run(|| connected(any, to).unwrap());
            assert!(ask(&client).is_err(), "{what}");
            for pod in [0, 1, 0] {
                apply(&dataplane, slices("web", &[pod]));
                eventually(what, || ask(&client).is_ok_and(|answer| answer.server == format!("p{pod}")));
                apply(&dataplane, slices("web", &[]));
            }
        }
    });
}

#[test]
fn conntrack_should_be_able_to_cleanup_conntrack_entries_when_udp_service_target_port_changes_for_a_nodeport_service() {
    in_every_mode(|lab, mode| {
        serve(&lab.pods[0], "other", TARGET_PORT + 1);
        let dataplane = start(lab, mode, web(node_port(), &[0]));
        let client = lab.outside.run(|| connected("0.0.0.0:5410".parse().unwrap(), node(false, NODE_PORT)).unwrap());
        assert_eq!(ask(&client).unwrap().server, "p0");
        apply(&dataplane, FAMILIES.map(|v6| slice_of("web", v6, &[(pod_ip(0, v6), "node")], TARGET_PORT + 1)));
        eventually("the flow goes to the new port", || ask(&client).is_ok_and(|answer| answer.server == "other"));
    });
}

#[test]
fn kubeproxy_should_set_tcp_close_wait_timeout_to_one_hour() {
    let lab = Lab::new();
    let read = || lab.node.run(|| std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait").unwrap());
    assert_eq!(read().trim(), "60");
    let hour = Duration::from_secs(3600);
    let config = Config { conntrack: Some(Conntrack { tcp_close_wait: hour, ..Conntrack::default() }), ..lab.config() };
    let _dataplane = Dataplane::start(config).unwrap();
    assert_eq!(read().trim(), "3600");
}

#[test]
fn networking_should_function_for_multiple_endpoint_services_with_same_selector() {
    in_every_mode(|lab, mode| {
        let second = |name: &str| service(name, json!({"clusterIP": "10.96.0.40", "clusterIPs": ["10.96.0.40"], "ipFamilies": ["IPv4"]}));
        let changes = web(json!({}), &[0, 1]).into_iter().chain([second("again")]).chain(slices("again", &[0, 1]));
        let dataplane = start(lab, mode, changes);
        let other: SocketAddr = "10.96.0.40:80".parse().unwrap();
        for to in [at(false, PORT), other] {
            assert_eq!(who(&lab.pods[2], to), names(&["p0", "p1"]));
        }
        apply(&dataplane, [Change::DeleteService { namespace: "ns1".into(), name: "web".into() }]);
        assert!(tcp(&lab.pods[2], at(false, PORT)).is_err());
        assert_eq!(who(&lab.pods[2], other), names(&["p0", "p1"]));
    });
}

#[test]
fn networking_should_update_nodeport_http_and_udp() {
    in_every_mode(|lab, mode| {
        let dataplane = start(lab, mode, web(node_port(), &[0]));
        let mut spec = node_port();
        (0..2).for_each(|port| spec["ports"][port]["nodePort"] = (NODE_PORT + 1).into());
        apply(&dataplane, [service("web", spec)]);
        for v6 in FAMILIES {
            let (before, after) = (node(v6, NODE_PORT), node(v6, NODE_PORT + 1));
            assert!(tcp(&lab.outside, before).is_err() && udp(&lab.outside, before).is_err(), "the old port is given up");
            assert_eq!((tcp(&lab.outside, after).unwrap().server, udp(&lab.outside, after).unwrap().server), ("p0".into(), "p0".into()));
        }
    });
}

/// Sends back all that it gets, by both protocols.
fn echo(namespace: &Namespace, port: u16) {
    let (listener, socket) = namespace.run(|| (TcpListener::bind(("0.0.0.0", port)).unwrap(), UdpSocket::bind(("0.0.0.0", port)).unwrap()));
    std::thread::spawn(move || {
        for mut stream in std::iter::from_fn(|| listener.accept().ok()).map(|(stream, _)| stream) {
            let mut all = Vec::new();
            if stream.read_to_end(&mut all).is_ok() {
                let _ = stream.write_all(&all);
            }
        }
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], client);
        }
    });
}

#[test]
fn networking_should_support_basic_functionality_for_service_with_large_requests_http_and_udp() {
    in_every_mode(|lab, mode| {
        echo(&lab.pods[0], TARGET_PORT + 2);
        let slice = slice_of("web", false, &[(pod_ip(0, false), "node")], TARGET_PORT + 2);
        let _dataplane = start(lab, mode, [service("web", node_port()), slice]);
        for (from, to) in [(&lab.pods[1], at(false, PORT)), (&lab.outside, node(false, NODE_PORT))] {
            let (stream, datagram) = (vec![b'x'; 1 << 20], (0..9000u16).map(|n| n as u8).collect::<Vec<u8>>());
            let (back, answer) = from.run(|| {
                let mut connection = TcpStream::connect_timeout(&to, Duration::from_secs(2)).unwrap();
                connection.write_all(&stream).unwrap();
                connection.shutdown(std::net::Shutdown::Write).unwrap();
                let mut back = Vec::new();
                connection.read_to_end(&mut back).unwrap();
                // Six fragments.
                let socket = connected("0.0.0.0:0".parse().unwrap(), to).unwrap();
                socket.send(&datagram).unwrap();
                let mut answer = vec![0; 65_536];
                let length = socket.recv(&mut answer).unwrap();
                answer.truncate(length);
                (back, answer)
            });
            assert!(back == stream && answer == datagram);
        }
    });
}

#[test]
fn networking_should_function_for_service_endpoints_using_hostnetwork() {
    in_every_mode(|lab, mode| {
        serve(&lab.node, "host", TARGET_PORT);
        let slice = |v6: bool| slice_of("web", v6, &[((if v6 { NODE_V6 } else { NODE_V4 }).to_string(), "node")], TARGET_PORT);
        let _dataplane = start(lab, mode, [service("web", node_port()), slice(false), slice(true)]);
        for v6 in FAMILIES {
            for (from, to) in [
                (&lab.pods[0], at(v6, PORT)),
                (&lab.node, at(v6, PORT)),
                (&lab.pods[0], node(v6, NODE_PORT)),
                (&lab.node, node(v6, NODE_PORT)),
                (&lab.outside, node(v6, NODE_PORT)),
            ] {
                assert_eq!(tcp(from, to).unwrap().server, "host", "{to}");
            }
            // A server of all the node's addresses answers inside with another than it was asked at, behind any proxy.
            assert_eq!(udp(&lab.outside, node(v6, NODE_PORT)).unwrap().server, "host");
        }
    });
}

#[test]
fn dual_stack_should_create_services_with_ip_families_in_any_order_and_function_over_the_secondary_family() {
    in_every_mode(|lab, mode| {
        let both = ["10.96.0.10", "fd00:96::10"];
        let dataplane = start(lab, mode, web(json!({}), &[0]));
        for families in [&[false][..], &[true], &[true, false], &[false, true]] {
            let ips: Vec<&str> = families.iter().map(|v6| both[usize::from(*v6)]).collect();
            let kinds: Vec<&str> = families.iter().map(|v6| if *v6 { "IPv6" } else { "IPv4" }).collect();
            let mut spec = node_port();
            spec.as_object_mut()
                .unwrap()
                .extend(json!({"clusterIP": ips[0], "clusterIPs": ips, "ipFamilies": kinds}).as_object().unwrap().clone());
            apply(&dataplane, [service("web", spec)]);
            for v6 in FAMILIES {
                for (from, to) in [(&lab.pods[1], at(v6, PORT)), (&lab.outside, node(v6, NODE_PORT))] {
                    assert_eq!(tcp(from, to).is_ok(), families.contains(&v6), "{to} of {families:?}");
                    assert_eq!(udp(from, to).is_ok(), families.contains(&v6), "{to} of {families:?}");
                }
            }
        }
    });
}

/// One pod after the other: a new one becomes ready, then an old one ends and goes.
#[test]
fn loadbalancers_should_not_have_connectivity_disruption_during_rolling_update_with_external_traffic_policy_cluster_and_local() {
    in_every_mode(|lab, mode| {
        let dataplane = start(lab, mode, web(node_port(), &[0, 1]));
        for policy in ["Cluster", "Local"] {
            let mut spec = node_port();
            spec["externalTrafficPolicy"] = policy.into();
            apply(&dataplane, [service("web", spec)]);
            let (ended, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                let (ended, asked) = (&ended, &asked);
                for to in [node(false, NODE_PORT), at(false, PORT)] {
                    scope.spawn(move || {
                        lab.outside.run(|| {
                            while !ended.load(Ordering::Relaxed) {
                                tcp_here(to).unwrap_or_else(|error| panic!("{policy} {to}: {error}"));
                                asked.fetch_add(1, Ordering::Relaxed);
                            }
                        });
                    });
                }
                for round in 0..6 {
                    let [kept, old, new] = [0, 1, 2].map(|n| (round + n) % 3);
                    apply(&dataplane, slices("web", &[kept.min(old), kept.max(old)]));
                    apply(&dataplane, slices("web", &[0, 1, 2]));
                    apply(&dataplane, slices("web", &[kept.min(new), kept.max(new)]));
                    let before = asked.load(Ordering::Relaxed);
                    eventually("connections go on", || asked.load(Ordering::Relaxed) > before + 4 || ended.load(Ordering::Relaxed));
                }
                ended.store(true, Ordering::Relaxed);
            });
            apply(&dataplane, slices("web", &[0, 1]));
        }
    });
}

#[test]
fn service_cidrs_should_create_services_and_serve_on_different_service_cidrs() {
    in_every_mode(|lab, mode| {
        let range = |name: &str, cidr: &str| {
            let object = json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]}});
            Change::SetServiceCidr(Arc::new(serde_json::from_value(object).unwrap()))
        };
        let second = service("second", json!({"clusterIP": "10.98.0.1", "clusterIPs": ["10.98.0.1"], "ipFamilies": ["IPv4"]}));
        let changes = web(json!({}), &[0]).into_iter().chain([range("kubernetes", "10.96.0.0/24")]);
        let dataplane = start(lab, mode, changes);
        apply(&dataplane, [range("more", "10.98.0.0/24"), second].into_iter().chain(slices("second", &[1])));
        assert_eq!(tcp(&lab.pods[2], at(false, PORT)).unwrap().server, "p0");
        assert_eq!(tcp(&lab.pods[2], "10.98.0.1:80".parse().unwrap()).unwrap().server, "p1");
    });
}

/// "Service endpoints latency should not be very high": 200 services, 15 at a time, each until a packet has come through.
#[test]
fn service_endpoints_latency_should_not_be_very_high() {
    let lab = Lab::new();
    serve(&lab.pods[0], "p0", TARGET_PORT);
    let dataplane = start(&lab, &Mode::Nftables, []);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..15 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= 200 {
                        return;
                    }
                    let ip = format!("10.96.1.{number}");
                    let name = format!("latency-{number}");
                    dataplane.apply(service(&name, json!({"clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"]})));
                    dataplane.apply(slice_of(&name, false, &[(pod_ip(0, false), "node")], TARGET_PORT));
                    let to = SocketAddr::new(ip.parse().unwrap(), PORT);
                    eventually(&name, || tcp(&lab.pods[1], to).is_ok());
                }
            });
        }
    });
    assert_eq!(dataplane.status().counters.services, 200);
}
