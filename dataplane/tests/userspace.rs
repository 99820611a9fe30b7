//! Relaying in user space, with real connections between namespaces.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use std::time::{Duration, Instant};

use lab::objects::{NODE_PORT, PORT, TARGET_PORT, node_port, service, slices, slices_on, vip};
use lab::traffic::{ask, both, connected, is_refused, serve, tcp, udp};
use lab::{Lab, NODE_V4, NODE_V6, Namespace, eventually, programmed};
use longshore_dataplane::backend::userspace::Times;
use longshore_dataplane::backend::userspace::plane::UserspacePlane;
use longshore_dataplane::backend::{NodeAddresses, Options, Plane};
use longshore_dataplane::store::ServiceStore;
use longshore_dataplane::{Change, Config, Dataplane, Family, Mode};
use nix::sys::socket::{SockType, SockaddrStorage, getsockname, getsockopt, sockopt};
use serde_json::{Value, json};

const FAMILIES: [bool; 2] = [false, true];

fn config(lab: &Lab) -> Config {
    Config { mode: Mode::Userspace, ..lab.config() }
}

fn start(lab: &Lab, changes: impl IntoIterator<Item = Change>) -> Dataplane {
    let dataplane = Dataplane::start(config(lab)).unwrap();
    apply(&dataplane, changes.into_iter().chain([Change::Synced]));
    dataplane
}

fn apply(dataplane: &Dataplane, changes: impl IntoIterator<Item = Change>) {
    let last = changes.into_iter().map(|change| dataplane.apply(change)).last().unwrap();
    programmed(dataplane, last);
}

fn web(extra: Value, pods: &[usize]) -> Vec<Change> {
    let mut changes = vec![service("web", extra)];
    changes.extend(slices("web", pods));
    changes
}

fn cluster_ip(v6: bool) -> SocketAddr {
    SocketAddr::new(vip(v6), PORT)
}

fn node_address(v6: bool) -> SocketAddr {
    SocketAddr::new(if v6 { NODE_V6 } else { NODE_V4 }.parse().unwrap(), NODE_PORT)
}

#[test]
fn every_destination_answers_every_client_with_the_nodes_address() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let mut extra = node_port();
    extra["externalIPs"] = json!(["198.51.100.7", "fd00:100::7"]);
    let _dataplane = start(&lab, web(extra, &[1]));
    for v6 in FAMILIES {
        let external = SocketAddr::new(if v6 { "fd00:100::7" } else { "198.51.100.7" }.parse().unwrap(), PORT);
        for to in [cluster_ip(v6), node_address(v6), external] {
            for (who, from) in [("pod", &lab.pods[0]), ("node", &lab.node), ("outside", &lab.outside), ("itself", &lab.pods[1])] {
                for answer in both(from, to) {
                    let answer = answer.unwrap_or_else(|error| panic!("{who} to {to}: {error}"));
                    assert_eq!(answer.server, "p1");
                    let bridge = if v6 { "fd00:1::1" } else { "10.1.0.1" };
                    assert_eq!(answer.seen_client.to_string(), bridge, "{who} to {to}");
                }
            }
        }
    }
}

#[test]
fn endpoints_take_turns_unless_clients_stay() {
    let lab = Lab::new();
    (0..3).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let dataplane = start(&lab, web(json!({}), &[0, 1, 2]));
    let server = || tcp(&lab.outside, cluster_ip(false)).unwrap().server;
    let turns: Vec<String> = (0..6).map(|_| server()).collect();
    assert_eq!(turns[..3], turns[3..], "round robin");
    assert_eq!(turns.iter().collect::<BTreeSet<_>>().len(), 3);
    apply(&dataplane, [service("web", json!({"sessionAffinity": "ClientIP"}))]);
    let first = server();
    (0..6).for_each(|_| assert_eq!(server(), first));
    // Another client has its own.
    let others: BTreeSet<String> = (0..2).map(|_| tcp(&lab.pods[0], cluster_ip(false)).unwrap().server).collect();
    assert_eq!(others.len(), 1);
}

#[test]
fn an_endpoint_that_does_not_answer_is_passed_over() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    // Nobody listens on pod 0.
    let _dataplane = start(&lab, web(json!({"sessionAffinity": "ClientIP"}), &[0, 1]));
    for v6 in FAMILIES {
        for _ in 0..4 {
            assert_eq!(tcp(&lab.outside, cluster_ip(v6)).unwrap().server, "p1");
        }
        // A refused datagram is lost; the next goes elsewhere.
        let any: SocketAddr = if v6 { "[::]:0" } else { "0.0.0.0:0" }.parse().unwrap();
        let client = lab.outside.run(|| connected(any, cluster_ip(v6)).unwrap());
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        eventually("a datagram reaches the endpoint that listens", || ask(&client).is_ok_and(|answer| answer.server == "p1"));
    }
}

#[test]
fn refused_without_endpoints_and_answered_with_the_first() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let dataplane = start(&lab, web(node_port(), &[]));
    let refused = || {
        for to in [cluster_ip(false), node_address(false), cluster_ip(true), node_address(true)] {
            both(&lab.outside, to).iter().for_each(|answer| assert!(is_refused(answer), "{to}: {answer:?}"));
        }
    };
    refused();
    apply(&dataplane, slices("web", &[1]));
    FAMILIES.into_iter().for_each(|v6| both(&lab.outside, cluster_ip(v6)).into_iter().for_each(|answer| drop(answer.unwrap())));
    apply(&dataplane, slices("web", &[]));
    refused();
}

/// A copy of the socket of this process that is bound there.
fn copy_of_socket_at(address: SocketAddr, kind: SockType) -> OwnedFd {
    let wanted = SockaddrStorage::from(address);
    let is_it = |fd: RawFd| {
        // SAFETY: the descriptor is only borrowed for one question; if it is closed meanwhile, the answer is an error.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        getsockopt(&borrowed, sockopt::SockType) == Ok(kind) && getsockname::<SockaddrStorage>(fd) == Ok(wanted)
    };
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let found: RawFd = fds.into_iter().find(|fd| is_it(*fd)).expect("somebody listens there");
    // SAFETY: as above; the test has just seen that it is open.
    unsafe { BorrowedFd::borrow_raw(found) }.try_clone_to_owned().unwrap()
}

/// As a command has them that is being started.
#[test]
fn copies_of_closed_sockets_hear_nobody() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    // No other test of this process has sockets at these.
    let ips = ["10.96.0.33", "fd00:96::33"];
    let dataplane = start(&lab, web(json!({"clusterIP": ips[0], "clusterIPs": ips}), &[1]));
    for ip in ips {
        let at = SocketAddr::new(ip.parse().unwrap(), PORT);
        both(&lab.outside, at).into_iter().for_each(|answer| drop(answer.unwrap()));
        let copies = [SockType::Stream, SockType::Datagram].map(|kind| copy_of_socket_at(at, kind));
        apply(&dataplane, slices("web", &[]));
        both(&lab.outside, at).iter().for_each(|answer| assert!(is_refused(answer), "{answer:?}"));
        drop(copies);
        apply(&dataplane, slices("web", &[1]));
    }
}

#[test]
fn local_policy_and_source_ranges_look_at_the_client() {
    let lab = Lab::new();
    (1..3).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let mut extra = node_port();
    extra["externalTrafficPolicy"] = "Local".into();
    let mut changes = vec![service("web", extra)];
    changes.extend(slices_on("web", &[(1, "node"), (2, "elsewhere")]));
    let _dataplane = start(&lab, changes);
    let servers = |from: &Namespace| (0..4).map(|_| tcp(from, node_address(false)).unwrap().server).collect::<BTreeSet<_>>();
    assert_eq!(servers(&lab.outside), BTreeSet::from(["p1".to_string()]));
    assert_eq!(servers(&lab.pods[0]).len(), 2, "pods use all endpoints");
    assert_eq!(servers(&lab.node).len(), 2, "so does the node");
}

/// Answers only after the client has said all it has to say: what it said, and how much that was.
fn serve_after_the_end(namespace: &Namespace) {
    let listener = namespace.run(|| TcpListener::bind(("0.0.0.0", TARGET_PORT)).unwrap());
    std::thread::spawn(move || {
        for mut stream in std::iter::from_fn(|| listener.accept().ok()).map(|(stream, _)| stream) {
            let mut said = Vec::new();
            stream.read_to_end(&mut said).unwrap();
            stream.write_all(&said).unwrap();
        }
    });
}

#[test]
fn each_direction_ends_by_itself_and_nothing_is_lost() {
    let lab = Lab::new();
    serve_after_the_end(&lab.pods[1]);
    let _dataplane = start(&lab, web(json!({}), &[1]));
    let mut stream = lab.outside.run(|| TcpStream::connect(cluster_ip(false)).unwrap());
    let said: Vec<u8> = (0..8 << 20).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    stream.write_all(&said).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answered = Vec::new();
    stream.read_to_end(&mut answered).unwrap();
    assert!(answered == said, "{} of {} bytes came back, or others", answered.len(), said.len());
}

#[test]
fn a_reset_is_passed_on() {
    let lab = Lab::new();
    let listener = lab.pods[1].run(|| TcpListener::bind(("0.0.0.0", TARGET_PORT)).unwrap());
    let _dataplane = start(&lab, web(json!({}), &[1]));
    let mut client = lab.outside.run(|| TcpStream::connect(cluster_ip(false)).unwrap());
    let (server, _) = listener.accept().unwrap();
    nix::sys::socket::setsockopt(&server, nix::sys::socket::sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(server);
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn connections_outlive_their_endpoints_place_in_the_service() {
    let lab = Lab::new();
    let listener = lab.pods[1].run(|| TcpListener::bind(("0.0.0.0", TARGET_PORT)).unwrap());
    let dataplane = start(&lab, web(json!({}), &[1]));
    let mut client = lab.outside.run(|| TcpStream::connect(cluster_ip(false)).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    apply(&dataplane, slices("web", &[]));
    client.write_all(b"still there?").unwrap();
    let mut heard = [0; 12];
    server.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still there?");
}

#[test]
fn datagrams_of_a_client_stay_together_until_their_endpoint_goes() {
    let lab = Lab::new();
    (0..2).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let dataplane = start(&lab, web(json!({}), &[0, 1]));
    for v6 in FAMILIES {
        let any: SocketAddr = if v6 { "[::]:0" } else { "0.0.0.0:0" }.parse().unwrap();
        let client = lab.outside.run(|| connected(any, cluster_ip(v6)).unwrap());
        let first = ask(&client).unwrap().server;
        (0..5).for_each(|_| assert_eq!(ask(&client).unwrap().server, first));
        let other = 1 - first[1..].parse::<usize>().unwrap();
        apply(&dataplane, slices("web", &[other]));
        eventually("the session moves", || ask(&client).is_ok_and(|answer| answer.server == format!("p{other}")));
        apply(&dataplane, slices("web", &[0, 1]));
    }
}

#[test]
fn bursts_of_datagrams_pass_both_ways() {
    let lab = Lab::new();
    let server = lab.pods[1].run(|| UdpSocket::bind(("0.0.0.0", TARGET_PORT)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = server.recv_from(&mut buffer) {
            server.send_to(&buffer[..len], from).unwrap();
        }
    });
    let _dataplane = start(&lab, web(json!({}), &[1]));
    let client = lab.outside.run(|| connected("0.0.0.0:0".parse().unwrap(), cluster_ip(false)).unwrap());
    for burst in 0..20u32 {
        let sent: BTreeSet<Vec<u8>> = (0..40u32).map(|index| [burst.to_be_bytes(), index.to_be_bytes()].concat().repeat(100)).collect();
        for datagram in &sent {
            client.send(datagram).unwrap();
        }
        let mut received = BTreeSet::new();
        let mut buffer = [0; 2048];
        while received.len() < sent.len() {
            let len = client.recv(&mut buffer).unwrap_or_else(|error| panic!("burst {burst}, {} of 40: {error}", received.len()));
            received.insert(buffer[..len].to_vec());
        }
        assert_eq!(received, sent);
    }
}

#[test]
fn sessions_end_when_nothing_passes() {
    let lab = Lab::new();
    (0..2).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    lab.node.run(|| {
        let options = Options::of(&config(&lab), Family::V4);
        let times = Times { stream: Duration::from_millis(100), unanswered: Duration::from_millis(50), ..Times::default() };
        let mut plane = UserspacePlane::with(options, times).unwrap();
        let mut store = ServiceStore::new("node", None, &[]);
        for change in web(json!({}), &[0, 1]) {
            match change {
                Change::SetService(object) => drop(store.set_service(&object)),
                Change::SetSlice(object) => drop(store.set_slice(&object)),
                _ => unreachable!(),
            }
        }
        plane.read().unwrap();
        plane.set_node_addresses(NodeAddresses::default());
        for name in store.take_dirty() {
            plane.set(&name, store.resolve(&name, Family::V4));
        }
        plane.apply(Instant::now()).unwrap();
        let client = lab.outside.run(|| connected("0.0.0.0:0".parse().unwrap(), cluster_ip(false)).unwrap());
        let first = ask(&client).unwrap().server;
        assert_eq!(ask(&client).unwrap().server, first);
        let mut pause = Duration::from_millis(50);
        eventually("a pause that is long enough ends the session, and the next has its turn", || {
            std::thread::sleep(pause);
            pause += Duration::from_millis(20);
            ask(&client).unwrap().server != first
        });
        plane.delete().unwrap();
        assert!(is_refused_or_unreachable(&lab, cluster_ip(false)));
    });
}

fn is_refused_or_unreachable(lab: &Lab, to: SocketAddr) -> bool {
    // The default route leads to the outside host, who has no such address and sends the packet back.
    !lab.node.command("ip", &["-o", "addr"]).contains(&format!("{}/", to.ip()))
}

#[test]
fn addresses_come_and_go_with_services_and_others_stay() {
    let lab = Lab::new();
    // A link's own address is on trial for a moment when the link comes up.
    let addresses = || lab.node.command("ip", &["-o", "addr"]).replace(" tentative", "");
    let before = addresses();
    let dataplane = start(&lab, web(json!({"externalIPs": [NODE_V4, "198.51.100.7"]}), &[]));
    let during = addresses();
    for ip in ["10.96.0.10/32", "fd00:96::10/128", "198.51.100.7/32"] {
        assert!(during.contains(ip), "{during}");
    }
    // Somebody takes one away.
    let line = during.lines().find(|line| line.contains("10.96.0.10/32")).unwrap();
    let link = line.split_whitespace().nth(1).unwrap();
    lab.node.ip(&format!("addr del 10.96.0.10/32 dev {link}"));
    eventually("it is put back", || addresses().contains("10.96.0.10/32"));
    apply(&dataplane, [Change::DeleteService { namespace: "ns1".into(), name: "web".into() }]);
    let stripped = |text: &str| text.lines().filter(|line| !line.contains("kube-userspace0")).map(String::from).collect::<Vec<_>>();
    assert_eq!(stripped(&addresses()), stripped(&before), "an address that the node had itself stays");
    apply(&dataplane, web(json!({}), &[]));
    dataplane.shutdown(false);
    assert_eq!(addresses(), before);
}

#[test]
fn a_port_that_a_local_process_has_holds_up_no_other() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let taken = lab.node.run(|| TcpListener::bind((NODE_V4, NODE_PORT)).unwrap());
    let dataplane = start(&lab, web(node_port(), &[1]));
    assert_eq!(tcp(&lab.outside, cluster_ip(false)).unwrap().server, "p1");
    assert_eq!(tcp(&lab.outside, node_address(true)).unwrap().server, "p1");
    assert_eq!(udp(&lab.outside, node_address(false)).unwrap().server, "p1");
    let told: Vec<_> = std::iter::from_fn(|| dataplane.events().try_next()).collect();
    assert!(told.iter().any(|event| event.reason == "FailedToListen" && event.message.contains("tcp 192.0.2.1:30080")), "{told:?}");
    drop(taken);
    eventually("the port is taken when it is free", || tcp(&lab.outside, node_address(false)).is_ok_and(|answer| answer.server == "p1"));
}

#[test]
fn a_restart_takes_over() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    for _ in 0..3 {
        let dataplane = start(&lab, web(node_port(), &[1]));
        for v6 in FAMILIES {
            for answer in [both(&lab.outside, cluster_ip(v6)), both(&lab.pods[0], node_address(v6))].into_iter().flatten() {
                assert_eq!(answer.unwrap().server, "p1");
            }
        }
        drop(dataplane);
    }
}
