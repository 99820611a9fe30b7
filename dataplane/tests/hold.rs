//! Node ports that are held against local processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use lab::objects::{NODE_PORT, TARGET_PORT, node_port, service, slices};
use lab::traffic::{both, is_refused, serve, tcp};
use lab::{Lab, NODE_V4, eventually, programmed};
use longshore_dataplane::{Change, Config, Dataplane};

fn apply(dataplane: &Dataplane, changes: impl IntoIterator<Item = Change>) {
    let last = changes.into_iter().map(|change| dataplane.apply(change)).last().unwrap();
    programmed(dataplane, last);
}

fn is_taken<T>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

#[test]
fn held_node_ports_answer_as_before_and_are_no_local_processes() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let dataplane = Dataplane::start(Config { hold_node_ports: true, ..lab.config() }).unwrap();
    let mut changes = vec![service("web", node_port())];
    changes.extend(slices("web", &[1]));
    apply(&dataplane, changes.into_iter().chain([Change::Synced]));
    for any in ["0.0.0.0", "::", NODE_V4] {
        assert!(is_taken(lab.node.run(|| TcpListener::bind((any, NODE_PORT)))), "TCP {any}");
        assert!(is_taken(lab.node.run(|| UdpSocket::bind((any, NODE_PORT)))), "UDP {any}");
    }
    let to = SocketAddr::new(NODE_V4.parse().unwrap(), NODE_PORT);
    both(&lab.outside, to).into_iter().for_each(|answer| assert_eq!(answer.unwrap().server, "p1"));
    // Nothing listens: where no rule takes the packet, it is refused and does not hang.
    assert!(is_refused(&tcp(&lab.node, ([127, 0, 0, 1], NODE_PORT).into())));
    apply(&dataplane, [Change::DeleteService { namespace: "ns1".into(), name: "web".into() }]);
    // A command that another test starts at this moment has our sockets until it is executed.
    let free = || lab.node.run(|| TcpListener::bind(("0.0.0.0", NODE_PORT)).is_ok() && UdpSocket::bind(("0.0.0.0", NODE_PORT)).is_ok());
    eventually("the ports are free", free);
}

#[test]
fn a_port_that_is_taken_holds_up_no_service() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let taken = lab.node.run(|| TcpListener::bind(("0.0.0.0", NODE_PORT)).unwrap());
    let dataplane = Dataplane::start(Config { hold_node_ports: true, ..lab.config() }).unwrap();
    let mut changes = vec![service("web", node_port())];
    changes.extend(slices("web", &[1]));
    apply(&dataplane, changes.clone().into_iter().chain([Change::Synced]));
    let to = SocketAddr::new(NODE_V4.parse().unwrap(), NODE_PORT);
    both(&lab.outside, to).into_iter().for_each(|answer| assert_eq!(answer.unwrap().server, "p1"));
    assert!(is_taken(lab.node.run(|| UdpSocket::bind(("0.0.0.0", NODE_PORT)))), "the other protocol is held");
    drop(taken);
    // The next time that it is looked at, it is held. A command that another test starts at this moment has a copy of
    // our socket until it is executed, and a look that binds is in the way of a later try: so each look is a new try.
    eventually("it is held", || {
        apply(&dataplane, [Change::DeleteService { namespace: "ns1".into(), name: "web".into() }]);
        apply(&dataplane, changes.clone());
        is_taken(lab.node.run(|| TcpListener::bind(("0.0.0.0", NODE_PORT))))
    });
}
