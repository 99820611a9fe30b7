//! The simulator and the kernel give the same answer for the same packet.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::net::{IpAddr, SocketAddr};

use lab::objects::{PORT, TARGET_PORT, pod_ip, service, slices_on};
use lab::traffic::{is_refused, is_silence, serve, tcp};
use lab::{Lab, NODE_V4, programmed};
use longshore_dataplane::backend::nft::diff::Image;
use longshore_dataplane::backend::nft::kernel::Kernel;
use longshore_dataplane::backend::nft::schema::Options;
use longshore_dataplane::backend::nft::table::Loaded;
use longshore_dataplane::model::Protocol;
use longshore_dataplane::sim::{Outcome, Packet, Remembered, Surroundings, send};
use longshore_dataplane::{Change, Dataplane, Family};
use serde_json::json;

/// (name, last byte of the cluster IP and of the node port, policies, pods with their nodes)
type Case = (&'static str, u16, &'static str, &'static str, &'static [(usize, &'static str)]);

const CASES: [Case; 5] = [
    ("plain", 21, "Cluster", "Cluster", &[(1, "node")]),
    ("local-here", 22, "Local", "Cluster", &[(1, "node")]),
    ("local-elsewhere", 23, "Local", "Cluster", &[(2, "elsewhere")]),
    ("internal-elsewhere", 24, "Cluster", "Local", &[(2, "elsewhere")]),
    ("nobody", 25, "Local", "Cluster", &[]),
];

fn changes(case: &Case) -> Vec<Change> {
    let (name, last, external, internal, pods) = *case;
    let ip = format!("10.96.0.{last}");
    let spec = json!({"type": "NodePort", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
        "externalTrafficPolicy": external, "internalTrafficPolicy": internal,
        "ports": [{"name": "t", "port": PORT, "nodePort": 30000 + last}]});
    let mut changes = vec![service(name, spec)];
    changes.extend(slices_on(name, pods));
    changes
}

/// The table as the kernel has it, with what it depends on.
fn loaded(lab: &Lab) -> Image {
    let config = lab.config();
    let options = Options {
        family: Family::V4,
        detect_local: config.detect_local,
        masquerade_all: false,
        masquerade_mark: 1 << config.masquerade_bit,
        node_ports_everywhere: false,
        endpoint_counters: false,
        liberal: false,
    };
    let read = lab.node.run(|| Kernel::open(longshore_dataplane::TABLE).unwrap().read(&options).unwrap());
    match read {
        Loaded::Ours(program) => Image::of(&options, &program),
        other => panic!("the data plane had programmed it: {other:?}"),
    }
}

#[test]
fn the_simulator_agrees_with_the_kernel() {
    let lab = Lab::new();
    (0..3).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let dataplane = Dataplane::start(lab.config()).unwrap();
    CASES.iter().flat_map(changes).for_each(|change| {
        dataplane.apply(change);
    });
    let last = dataplane.apply(Change::Synced);
    programmed(&dataplane, last);
    let image = loaded(&lab);

    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let local = [ip(NODE_V4), ip("10.1.0.1"), ip("127.0.0.1")];
    let sources = [
        ("pod 0", &lab.pods[0], ip(&pod_ip(0, false)), Some("br0")),
        ("pod 1", &lab.pods[1], ip(&pod_ip(1, false)), Some("br0")),
        ("node", &lab.node, ip(NODE_V4), None),
        ("outside", &lab.outside, ip("192.0.2.2"), Some("uplink")),
    ];
    let mut outcomes = [0; 3];
    for (name, last, ..) in CASES {
        let cluster_ip = SocketAddr::new(ip(&format!("10.96.0.{last}")), PORT);
        let node_port = SocketAddr::new(ip(NODE_V4), 30000 + last);
        for (who, namespace, source, interface) in &sources {
            for destination in [cluster_ip, node_port] {
                let packet = Packet {
                    protocol: Protocol::Tcp,
                    source: SocketAddr::new(*source, 40_000),
                    destination,
                    interface: interface.map(String::from),
                };
                let mut remembered = Remembered::new();
                let mut around = Surroundings { family: Family::V4, local: &local, random: &mut |_| 0, remembered: &mut remembered };
                let expected = send(&image, &packet, &mut around).unwrap();
                let got = tcp(namespace, destination);
                let what = format!("{name}: {who} to {destination}: expected {expected:?}, got {got:?}");
                match expected {
                    Outcome::Refused => assert!(is_refused(&got), "{what}"),
                    Outcome::Dropped => assert!(is_silence(&got), "{what}"),
                    Outcome::Delivered { to, masked } => {
                        let answer = got.unwrap_or_else(|_| panic!("{what}"));
                        let server = (0..3).find(|pod| ip(&pod_ip(*pod, false)) == to.ip()).unwrap();
                        assert_eq!(answer.server, format!("p{server}"), "{what}");
                        // The node's own packets may get another address of the node.
                        let kept = answer.seen_client == *source;
                        assert_eq!(kept, !masked, "{what}");
                    }
                }
                outcomes[match expected {
                    Outcome::Delivered { .. } => 0,
                    Outcome::Refused => 1,
                    Outcome::Dropped => 2,
                }] += 1;
            }
        }
    }
    println!("delivered, refused, dropped: {outcomes:?}");
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}
