//! No packet to a service goes out untranslated while its endpoints change as fast as they can.
//!
//! Two look-ups of one packet can lie on different sides of a commit. A counter sees every packet that still has a
//! service's address as its destination when it is forwarded or sent.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lab::objects::{PORT, TARGET_PORT, pod_ip, service, slices, vip};
use lab::traffic::{serve, tcp_here};
use lab::{Lab, eventually, programmed};
use longshore_dataplane::backend::nft::compile::compile;
use longshore_dataplane::backend::nft::kernel::Kernel;
use longshore_dataplane::backend::nft::schema::Options;
use longshore_dataplane::backend::nft::table::{Loaded, Table};
use longshore_dataplane::model::{FrontendKey, ObjectName, Protocol};
use longshore_dataplane::resolve::{Action, Frontend, FrontendKind, Resolved};
use longshore_dataplane::{Change, Cidr, Dataplane, DetectLocal, Family};
use serde_json::json;

const RUN: Duration = Duration::from_secs(6);

/// A table of its own, after translation and before any refusal.
const LEAKS: &str = "table inet leaks { counter untranslated { }; \
    chain forward { type filter hook forward priority -10; jump check; }; \
    chain output { type filter hook output priority -10; jump check; }; \
    chain check { ip daddr 10.96.0.0/16 counter name untranslated; ip6 daddr fd00:96::/64 counter name untranslated; }; }";

/// Sends datagrams from ever new ports until told to stop, and counts them.
fn send(to: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) {
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    while !stop.load(Ordering::Relaxed) {
        let socket = UdpSocket::bind(any).unwrap();
        // Refusals of others' datagrams do not matter here.
        if socket.send_to(b"x", to).is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The web service's slots as the kernel has them, changed without any pause between commits.
struct Churn {
    kernel: Kernel,
    table: Table,
}

impl Churn {
    /// To be called in the node's namespace.
    fn adopt(options: Options) -> Churn {
        let mut kernel = Kernel::open(longshore_dataplane::TABLE).unwrap();
        let mut table = Table::new(options);
        match kernel.read(table.options()).unwrap() {
            Loaded::Ours(program) => table.adopt(program),
            other => panic!("the data plane had programmed it: {other:?}"),
        }
        Churn { kernel, table }
    }

    fn set(&mut self, pods: &[usize]) {
        let endpoints: Arc<[SocketAddr]> =
            pods.iter().map(|pod| SocketAddr::new(pod_ip(*pod, false).parse().unwrap(), TARGET_PORT)).collect();
        let frontend = |protocol| Frontend {
            key: FrontendKey::Vip { ip: vip(false), protocol, port: PORT },
            kind: FrontendKind::ClusterIp,
            port_name: "".into(),
            action: Action::Forward { endpoints: endpoints.clone() },
            affinity_seconds: None,
            source_ranges: [].into(),
        };
        let frontends = [Protocol::Tcp, Protocol::Udp].map(frontend).into();
        let resolved = Resolved { frontends, cluster_ip: Some(vip(false)), ..Resolved::default() };
        let name = ObjectName::new("ns1", "web");
        let fragment = compile(&name, resolved, &self.table);
        self.table.set(&name, fragment);
        for transaction in self.table.plan() {
            self.kernel.commit(Family::V4, &transaction).unwrap();
        }
        self.table.committed();
    }
}

#[test]
fn no_packet_is_untranslated_under_full_speed_churn() {
    let lab = Lab::new();
    (0..3).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    lab.node.command("nft", &[LEAKS]);
    for name in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        lab.node.sysctl(&format!("netfilter/{name}"), "1");
    }
    let dataplane = Dataplane::start(lab.config()).unwrap();
    dataplane.apply(service("web", json!({})));
    slices("web", &[0, 1, 2]).into_iter().for_each(|change| {
        dataplane.apply(change);
    });
    let first = dataplane.apply(Change::Synced);
    programmed(&dataplane, first);
    dataplane.shutdown(true);

    let (stop, sent, connected) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let to = SocketAddr::new(vip(false), PORT);
    let rounds = std::thread::scope(|scope| {
        for from in [&lab.outside, &lab.node] {
            let (stop, sent) = (&stop, &sent);
            scope.spawn(move || from.run(|| send(to, stop, sent)));
        }
        scope.spawn(|| {
            lab.pods[2].run(|| {
                while !stop.load(Ordering::Relaxed) {
                    // The flood can fill the connection tracker, and then the odd connection fails.
                    connected.fetch_add(u64::from(tcp_here(to).is_ok()), Ordering::Relaxed);
                }
            });
        });
        let rounds = lab.node.run(churn);
        stop.store(true, Ordering::Relaxed);
        rounds
    });

    let leaked = lab.nft("list counter inet leaks untranslated");
    let (sent, connected) = (sent.into_inner(), connected.into_inner());
    println!("{rounds} commits, {sent} flows, {connected} connections: {leaked}");
    // Of connections few come through the flood.
    assert!(rounds > 5_000 && sent > 5_000 && connected > 0, "too little to tell: {rounds} {sent} {connected}");
    assert!(leaked.contains("packets 0 "), "{leaked}");

    // The counter does count.
    let nobody: SocketAddr = "10.96.200.200:80".parse().unwrap();
    lab.outside.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", nobody)).unwrap();
    eventually("an untranslated packet is seen", || lab.nft("list counter inet leaks untranslated").contains("packets 1 "));
}

/// A slot removed, one replaced, one added, and the count changed each time; always somebody answers.
fn churn() -> u64 {
    let cidrs = ["10.1.0.0/16", "fd00:1::/64"].map(|cidr| Cidr::parse(cidr).unwrap()).into();
    let mut churn = Churn::adopt(Options {
        family: Family::V4,
        detect_local: DetectLocal::ClusterCidr(cidrs),
        masquerade_all: false,
        masquerade_mark: 1 << 14,
        node_ports_everywhere: false,
        endpoint_counters: false,
        liberal: false,
    });
    let lists: [&[usize]; 6] = [&[0, 1, 2], &[0, 2], &[1, 2], &[1], &[0], &[0, 1]];
    let end = Instant::now() + RUN;
    let mut rounds = 0;
    while Instant::now() < end {
        for list in lists {
            churn.set(list);
            rounds += 1;
        }
    }
    rounds
}
