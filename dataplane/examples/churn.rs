//! What programming services costs in a real kernel, in a network namespace of its own.
//!
//! `churn [SERVICES...]` (default 100 10000 30000) prints for each number of services with two endpoints: the time of
//! the first full program, of one endpoint change (50th and 99th percentile, with and without the coalescing), the CPU
//! of one change, of a restart, and the resident memory. Needs root.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be taken ends")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_dataplane::{Change, Config, Dataplane, Family, wire};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

const CHANGES: usize = 500;

fn service(index: usize) -> wire::Service {
    wire::Service {
        metadata: wire::ObjectMeta {
            name: format!("service-{index}"),
            namespace: format!("namespace-{}", index % 100),
            ..Default::default()
        },
        spec: wire::ServiceSpec {
            cluster_ip: format!("10.{}.{}.{}", 96 + (index >> 16), index >> 8 & 255, index & 255),
            ports: vec![wire::ServicePort { name: "http".into(), port: 80, ..Default::default() }],
            ..Default::default()
        },
        ..Default::default()
    }
}

fn slice(index: usize, lasts: &[u8]) -> Arc<wire::EndpointSlice> {
    let endpoint = |last: &u8| wire::Endpoint {
        addresses: vec![format!("10.{}.{}.{last}", 128 + (index >> 8 & 63), index & 255)],
        node_name: Some("elsewhere".into()),
        ..Default::default()
    };
    let owner = ("kubernetes.io/service-name".to_string(), format!("service-{index}"));
    Arc::new(wire::EndpointSlice {
        metadata: wire::ObjectMeta {
            name: format!("service-{index}-abcde"),
            namespace: format!("namespace-{}", index % 100),
            labels: [owner].into(),
            ..Default::default()
        },
        address_type: "IPv4".into(),
        ports: vec![wire::EndpointPort { name: Some("http".into()), port: Some(8080), ..Default::default() }],
        endpoints: lasts.iter().map(endpoint).collect(),
    })
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.cast_unsigned())
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn config(coalesce: Duration) -> Config {
    Config { node_name: "node".into(), families: vec![Family::V4], coalesce, ..Config::default() }
}

fn fill(dataplane: &Dataplane, services: usize) -> u64 {
    for index in 0..services {
        dataplane.apply(Change::SetService(Arc::new(service(index))));
        dataplane.apply(Change::SetSlice(slice(index, &[1, 2])));
    }
    dataplane.apply(Change::Synced)
}

fn start(services: usize, coalesce: Duration) -> (Dataplane, Duration, Duration) {
    let dataplane = Dataplane::start(config(coalesce)).unwrap();
    let (began, before) = (Instant::now(), cpu());
    let last = fill(&dataplane, services);
    wait(&dataplane, last);
    (dataplane, began.elapsed(), cpu() - before)
}

fn wait(dataplane: &Dataplane, generation: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(dataplane.wait_programmed(generation)).unwrap();
}

/// Times of single changes, sorted, and the CPU of one.
fn changes(dataplane: &Dataplane, services: usize, lists: [&[u8]; 2]) -> (Vec<Duration>, Duration) {
    let before = cpu();
    let mut times = Vec::new();
    for round in 0..CHANGES {
        let index = round * 7919 % services;
        let change = slice(index, lists[round / services.min(CHANGES) % 2]);
        let began = Instant::now();
        let generation = dataplane.apply(Change::SetSlice(change));
        wait(dataplane, generation);
        times.push(began.elapsed());
    }
    times.sort();
    (times, (cpu() - before) / CHANGES as u32)
}

fn measure(services: usize) {
    let (dataplane, wall, used) = start(services, Duration::from_millis(3));
    println!("{services} services: first program {wall:?}, CPU {used:?}");
    let shapes: [(&str, [&[u8]; 2]); 3] =
        [("replaced", [&[1, 3], &[1, 2]]), ("added or removed", [&[1, 3, 4], &[1, 3]]), ("last", [&[], &[1, 2]])];
    for (what, lists) in shapes {
        let (times, each) = changes(&dataplane, services, lists);
        let at = |percent: usize| times[times.len() * percent / 100];
        println!("  one endpoint {what}: p50 {:?}, p99 {:?}, CPU {each:?}", at(50), at(99));
    }
    println!("  resident {} KiB", resident_kib());
    let last = fill(&dataplane, services);
    wait(&dataplane, last);
    drop(dataplane);

    let (dataplane, wall, used) = start(services, Duration::ZERO);
    let status = dataplane.status();
    println!("  restart: {wall:?}, CPU {used:?}, {} writes", status.counters.kernel_writes);
    let (times, each) = changes(&dataplane, services, [&[1, 5], &[1, 2]]);
    let at = |percent: usize| times[times.len() * percent / 100];
    println!("  one endpoint replaced, not coalesced: p50 {:?}, p99 {:?}, CPU {each:?}", at(50), at(99));
    dataplane.shutdown(false);
}

fn main() {
    unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
    let wanted: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let wanted = if wanted.is_empty() { vec![100, 10_000, 30_000] } else { wanted };
    wanted.into_iter().for_each(measure);
}
