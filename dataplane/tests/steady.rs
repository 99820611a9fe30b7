//! Two hundred endpoint changes a second, for as long as one likes: neither memory nor latency grows.
//!
//! Ten seconds by default; `LONGSHORE_CHURN_SECONDS` says otherwise (`make soak`). Time is measured and printed; only the
//! long form, on a machine of its own, judges it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::{Lab, programmed};
use longshore_dataplane::{Change, Config, Dataplane, Family, IptablesConfig, Mode, wire};
use serde_json::json;

const RATE: u32 = 200;
const SERVICES: usize = 500;
/// One of so many changes is waited for; the others go by unwatched, as they do in a cluster.
const WATCHED: u32 = 7;
/// What the allocator may keep of a burst.
const SLACK_KIB: u64 = 8 << 10;

fn service(index: usize) -> Change {
    let ip = format!("10.96.{}.{}", index >> 8, index & 255);
    let object = json!({"metadata": {"name": format!("s{index}"), "namespace": "ns1"}, "spec": {
        "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"], "ports": [{"name": "t", "port": 80, "protocol": "TCP"}]}});
    Change::SetService(Arc::new(serde_json::from_value(object).unwrap()))
}

/// Endpoints that differ from round to round, in number too.
fn slice(index: usize, round: usize) -> Change {
    let endpoint = |n| json!({"addresses": [format!("10.1.{}.{}", 1 + index % 250, 1 + (round + n) % 250)], "nodeName": "elsewhere"});
    let object: wire::EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": format!("s{index}-a"), "namespace": "ns1", "labels": {"kubernetes.io/service-name": format!("s{index}")}},
        "addressType": "IPv4", "endpoints": (0..1 + round % 3).map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "t", "port": 8080, "protocol": "TCP"}]}))
    .unwrap();
    Change::SetSlice(Arc::new(object))
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What a stretch of time showed.
struct Stretch {
    latencies: Vec<Duration>,
    resident: u64,
}

impl Stretch {
    fn at(&self, percent: usize) -> Duration {
        self.latencies[(self.latencies.len() * percent / 100).min(self.latencies.len() - 1)]
    }
}

/// Changes at the rate, from the moment `began` on.
fn stretch(dataplane: &Dataplane, held: &mut [Change], began: Instant, changes: std::ops::Range<u32>) -> Stretch {
    let mut latencies = Vec::new();
    for number in changes {
        // The rate is what is asked for here: behind it, there is no pause.
        std::thread::sleep((Duration::from_secs(1) * number / RATE).saturating_sub(began.elapsed()));
        let index = number as usize * 7 % SERVICES;
        held[index] = slice(index, number as usize);
        let asked = Instant::now();
        let generation = dataplane.apply(held[index].clone());
        if number.is_multiple_of(WATCHED) {
            programmed(dataplane, generation);
            latencies.push(asked.elapsed());
        }
    }
    latencies.sort();
    Stretch { latencies, resident: resident_kib() }
}

fn steady(mode: Mode) {
    let seconds: u32 = std::env::var("LONGSHORE_CHURN_SECONDS").map_or(10, |text| text.parse().unwrap());
    let lab = Lab::new();
    let name = mode.name();
    let started = |slices: &[Change]| {
        let config = Config { mode: mode.clone(), families: vec![Family::V4], ..lab.config() };
        let dataplane = Dataplane::start(config).unwrap();
        lab::apply(&dataplane, (0..SERVICES).map(service).chain(slices.iter().cloned()).chain([Change::Synced]));
        dataplane
    };
    let mut held: Vec<Change> = (0..SERVICES).map(|index| slice(index, 0)).collect();
    let dataplane = started(&held);
    let (began, each) = (Instant::now(), RATE * seconds / 5);
    let stretches: Vec<Stretch> = (0..5).map(|n| stretch(&dataplane, &mut held, began, n * each..(n + 1) * each)).collect();
    let took = began.elapsed();
    println!("{name}: {} changes in {took:.1?}, {SERVICES} services", 5 * each);
    for s in &stretches {
        println!("  p50 {:.2?}  p99 {:.2?}  resident {} KiB", s.at(50), s.at(99), s.resident);
    }
    let (first, last) = (&stretches[0], &stretches[4]);
    assert!(last.resident <= first.resident + SLACK_KIB, "{name}: from {} to {} KiB", first.resident, last.resident);
    if seconds >= 300 {
        assert!(last.at(50) <= 2 * first.at(50), "{name}: p50 from {:?} to {:?}", first.at(50), last.at(50));
    }
    programmed(&dataplane, dataplane.apply(held[0].clone()));
    assert_eq!(dataplane.status().counters.failed_passes, 0);
    dataplane.shutdown(true);
    // All of it is in the kernel: one that starts now has nothing to write.
    assert_eq!(started(&held).status().counters.kernel_writes, 0);
}

#[test]
fn steady_churn_grows_neither_memory_nor_latency() {
    // One after the other: the memory is the process's.
    steady(Mode::Nftables);
    steady(Mode::Iptables(IptablesConfig::default()));
}
