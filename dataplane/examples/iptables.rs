//! What one endpoint change costs with iptables, beside the floor: the same lines fed to a bare `iptables-restore`.
//!
//! `iptables [VARIANT] [SERVICES...]` (default both variants, 1000 and 10000 services of two endpoints), in a network
//! namespace of its own. Changes and floors take turns, so that a busy machine does the same to both. Needs root.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be taken ends")]

use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_dataplane::backend::iptables::names::{ChainHash, service_port};
use longshore_dataplane::backend::iptables::variant::{Commands, Variant};
use longshore_dataplane::model::{ObjectName, Protocol};
use longshore_dataplane::{Change, Config, Dataplane, DetectLocal, Family, IptablesConfig, Mode, wire};
use nix::sched::{CloneFlags, unshare};

const BUDGET: f64 = 1.2;

fn service(index: usize) -> wire::Service {
    wire::Service {
        metadata: wire::ObjectMeta { name: format!("service-{index}"), namespace: "ns".into(), ..Default::default() },
        spec: wire::ServiceSpec {
            cluster_ip: format!("10.{}.{}.{}", 96 + (index >> 16), index >> 8 & 255, index & 255),
            ports: vec![wire::ServicePort { name: "http".into(), port: 80, ..Default::default() }],
            ..Default::default()
        },
        ..Default::default()
    }
}

fn ip(index: usize, last: u8) -> String {
    format!("10.{}.{}.{last}", 128 + (index >> 8 & 63), index & 255)
}

fn slice(index: usize, lasts: [u8; 2]) -> Change {
    let endpoint = |last: u8| wire::Endpoint { addresses: vec![ip(index, last)], ..Default::default() };
    let owner = ("kubernetes.io/service-name".to_string(), format!("service-{index}"));
    Change::SetSlice(Arc::new(wire::EndpointSlice {
        metadata: wire::ObjectMeta {
            name: format!("service-{index}-abcde"),
            namespace: "ns".into(),
            labels: [owner].into(),
            ..Default::default()
        },
        address_type: "IPv4".into(),
        ports: vec![wire::EndpointPort { name: Some("http".into()), port: Some(8080), ..Default::default() }],
        endpoints: lasts.map(endpoint).into(),
    }))
}

/// The lines that the change from `before` to `after` needs, written by hand.
fn input(index: usize, before: [u8; 2], after: [u8; 2]) -> String {
    let name = service_port(&ObjectName::new("ns", &format!("service-{index}")), "http");
    let hash = |hash: ChainHash| format!("{hash:?}");
    let svc = format!("KUBE-SVC-{}", hash(ChainHash::of_port(&name, Protocol::Tcp)));
    let address = |last: u8| format!("{}:8080", ip(index, last));
    let sep = |last: u8| format!("KUBE-SEP-{}", hash(ChainHash::of_endpoint(&name, Protocol::Tcp, address(last).parse().unwrap())));
    let [kept, went] = before;
    let [_, came] = after;
    let vip = service(index).spec.cluster_ip;
    format!(
        "*nat\n:{svc} - [0:0]\n:{new} - [0:0]\n:{old} - [0:0]\n\
         -A {svc} -m comment --comment \"{name} cluster IP\" -m tcp -p tcp -d {vip}/32 --dport 80 ! -s 10.128.0.0/9 -j KUBE-MARK-MASQ\n\
         -A {svc} -m comment --comment \"{name} -> {}\" -m statistic --mode random --probability 0.5000000000 -j {first}\n\
         -A {svc} -m comment --comment \"{name} -> {}\" -j {new}\n\
         -A {new} -m comment --comment \"{name}\" -s {} -j KUBE-MARK-MASQ\n\
         -A {new} -m comment --comment \"{name}\" -m tcp -p tcp -j DNAT --to-destination {}\n-X {old}\nCOMMIT\n",
        address(kept),
        address(came),
        ip(index, came),
        address(came),
        new = sep(came),
        old = sep(went),
        first = sep(kept),
    )
}

fn wait(dataplane: &Dataplane, generation: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(dataplane.wait_programmed(generation)).unwrap();
}

fn restore(commands: Commands, text: &str) -> Duration {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let began = Instant::now();
    let stdin = File::open(file.path()).unwrap();
    let status = Command::new(commands.restore).args(["-w", "5", "--noflush"]).stdin(stdin).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{text}");
    began.elapsed()
}

fn resident_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn measure(variant: Variant, services: usize) {
    let commands = Commands::of(variant, Family::V4);
    // The chain by which the kubelet tells which variant a node uses.
    let hint = Command::new(commands.iptables).args(["-t", "mangle", "-N", "KUBE-IPTABLES-HINT"]).status().unwrap();
    assert!(hint.success());
    let config = || Config {
        mode: Mode::Iptables(IptablesConfig::default()),
        node_name: "node".into(),
        families: vec![Family::V4],
        detect_local: DetectLocal::ClusterCidr(vec![longshore_dataplane::Cidr::parse("10.128.0.0/9").unwrap()]),
        coalesce: Duration::ZERO,
        ..Config::default()
    };
    let fill = |dataplane: &Dataplane| {
        for index in 0..services {
            dataplane.apply(Change::SetService(Arc::new(service(index))));
            dataplane.apply(slice(index, [1, 2]));
        }
        let began = Instant::now();
        let last = dataplane.apply(Change::Synced);
        wait(dataplane, last);
        began.elapsed()
    };
    let dataplane = Dataplane::start(config()).unwrap();
    let took = fill(&dataplane);
    println!(
        "{variant:?}, {services} services: first program {took:?}, resident {} KiB (peak {})",
        resident_kib("VmRSS:"),
        resident_kib("VmHWM:")
    );
    let rounds = if services > 2000 { 20 } else { 100 };
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let index = round * 7919 % services;
        for (before, after) in [([1, 2], [1, 3]), ([1, 3], [1, 2])] {
            let began = Instant::now();
            let generation = dataplane.apply(slice(index, after));
            wait(&dataplane, generation);
            ours.push(began.elapsed());
            // Back by hand: the lines are the same, whatever the data plane thinks that there is.
            floor.push(restore(commands, &input(index, after, before)));
        }
        restore(commands, &input(index, [1, 3], [1, 2]));
    }
    ours.sort();
    floor.sort();
    let at = |times: &[Duration], percent: usize| times[(times.len() - 1) * percent / 100];
    let ratio = at(&ours, 50).as_secs_f64() / at(&floor, 50).as_secs_f64();
    println!("  one endpoint replaced: p50 {:?}, p99 {:?}", at(&ours, 50), at(&ours, 99));
    println!("  the same by hand:      p50 {:?}, p99 {:?}", at(&floor, 50), at(&floor, 99));
    println!("  ratio {ratio:.2}, budget {BUDGET}");
    drop(dataplane);
    let dataplane = Dataplane::start(config()).unwrap();
    let took = fill(&dataplane);
    println!("  restart: {took:?}, {} writes", dataplane.status().counters.kernel_writes);
    dataplane.shutdown(false);
    let gone = Command::new(commands.iptables).args(["-t", "mangle", "-X", "KUBE-IPTABLES-HINT"]).status().unwrap();
    assert!(gone.success());
}

fn main() {
    unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named = |name: &str| arguments.iter().any(|argument| argument == name);
    let sizes: Vec<usize> = arguments.iter().filter_map(|text| text.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![1_000, 10_000] } else { sizes };
    for (variant, name) in [(Variant::Legacy, "legacy"), (Variant::Nft, "nft")] {
        if named(name) || !(named("legacy") || named("nft")) {
            sizes.iter().for_each(|services| measure(variant, *services));
        }
    }
}
