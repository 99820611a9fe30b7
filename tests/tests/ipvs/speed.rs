//! What a change costs, beside the same change as bare messages in the same machine.

use super::super::lab::Lab;
use super::super::lab::objects::slice;
use super::{config, start_with};
use longshore_dataplane::config::IpvsConfig;
use longshore_dataplane::model::Protocol;
use longshore_dataplane::netlink::genl;
use longshore_dataplane::netlink::ipvs::{DEL_DEST, FAMILY, NEW_DEST, SET_DEST, Server, VERSION, put_destination};
use longshore_dataplane::netlink::socket::{NetlinkSocket, Pipeline};
use longshore_dataplane::store::ServiceStore;
use longshore_dataplane::{Change, Config, Dataplane, Family, wire};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CHANGES: usize = 100;
const SIZES: [usize; 2] = [100, 5000];
/// NETLINK_GENERIC
const GENERIC: isize = 16;

fn vip(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 0)) + 1 + index as u32)
}

fn pod(index: usize) -> String {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 20)) + index as u32).to_string()
}

fn service(index: usize) -> Change {
    let object = json!({"metadata": {"name": format!("svc{index}"), "namespace": "ns1"},
        "spec": {"clusterIP": vip(index).to_string(), "ports": [{"name": "t", "port": 80, "protocol": "TCP"}]}});
    Change::SetService(Arc::new(serde_json::from_value::<wire::Service>(object).unwrap()))
}

fn endpoints(index: usize, pods: [usize; 2]) -> Change {
    slice(&format!("svc{index}"), false, &pods.map(|index| (pod(index), "elsewhere")), 8080)
}

/// Waits on a runtime that is there already: making one is not timed.
fn programmed(runtime: &tokio::runtime::Runtime, dataplane: &Dataplane, generation: u64) {
    let wait = dataplane.wait_programmed(generation);
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(100), wait).await }).unwrap().unwrap();
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The cold program, and the median of one endpoint replaced by another.
fn ours(lab: &Lab, services: usize) -> (Duration, Duration) {
    let ipvs = IpvsConfig { drain: Duration::from_millis(1), ..IpvsConfig::default() };
    let config = Config { families: vec![Family::V4], coalesce: Duration::ZERO, ..config(lab, ipvs) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let began = Instant::now();
    let dataplane = start_with(config, []);
    let mut last = 0;
    for index in 0..services {
        dataplane.apply(service(index));
        last = dataplane.apply(endpoints(index, [0, 1]));
    }
    programmed(&runtime, &dataplane, last);
    let cold = began.elapsed();
    let change = |round: usize| {
        let object = endpoints(round % services, [0, 2 + round / services]);
        let began = Instant::now();
        programmed(&runtime, &dataplane, dataplane.apply(object));
        began.elapsed()
    };
    let times = (0..CHANGES).map(change).collect();
    dataplane.shutdown(false);
    (cold, median(times))
}

/// The median of one endpoint replaced by another, from the resolved service to the kernel's answer: what the backend
/// itself costs.
fn backend(lab: &Lab, services: usize) -> Duration {
    let ipvs = IpvsConfig { drain: Duration::from_millis(1), ..IpvsConfig::default() };
    let config = Config { families: vec![Family::V4], ..config(lab, ipvs) };
    let change = |object: Change, store: &mut ServiceStore| match object {
        Change::SetService(service) => drop(store.set_service(&service)),
        Change::SetSlice(slice) => drop(store.set_slice(&slice)),
        _ => unreachable!("these are the changes of this test"),
    };
    lab.node.run(|| {
        let mut store = ServiceStore::new("node", None, &[]);
        let mut plane = longshore_dataplane::backend::open(&config, Family::V4).unwrap();
        plane.read().unwrap();
        (0..services).for_each(|index| {
            change(service(index), &mut store);
            change(endpoints(index, [0, 1]), &mut store);
        });
        for name in store.take_dirty() {
            plane.set(&name, store.resolve(&name, Family::V4));
        }
        plane.apply(Instant::now()).unwrap();
        let one = |round: usize| {
            change(endpoints(round % services, [0, 2 + round / services]), &mut store);
            let name = store.take_dirty().pop_first().unwrap();
            let resolved = store.resolve(&name, Family::V4);
            let began = Instant::now();
            plane.set(&name, resolved);
            let written = plane.apply(began).unwrap();
            let took = began.elapsed();
            assert!(written.writes >= 2);
            took
        };
        let times = (0..CHANGES).map(one).collect();
        plane.delete().unwrap();
        median(times)
    })
}

/// The same two messages, sent and acknowledged; by this thread, or by one that is woken up for each as the data
/// plane's is.
fn bare(lab: &Lab, woken: bool) -> Duration {
    lab.node.command("ipvsadm", &["-A", "-t", "10.99.0.1:80", "-s", "rr"]);
    lab.node.command("ipvsadm", &["-a", "-t", "10.99.0.1:80", "-r", "10.1.0.20:8080", "-m"]);
    let mut socket = lab.node.run(|| NetlinkSocket::open_protocol(GENERIC).unwrap());
    let family = genl::family(&mut socket, FAMILY).unwrap().unwrap();
    let server = Server { ip: IpAddr::from([10, 99, 0, 1]), protocol: Protocol::Tcp, port: 80 };
    let mut send = move |messages: &[(u8, usize, Option<u32>)]| {
        let mut pipeline = Pipeline::default();
        for (command, index, weight) in messages {
            let address = SocketAddr::new(pod(*index).parse().unwrap(), 8080);
            pipeline.add(family, 0, &genl::header(*command, VERSION), |w| put_destination(w, &server, address, *weight));
        }
        assert!(socket.pipeline(&pipeline).unwrap().is_empty());
    };
    let (ask, asked) = std::sync::mpsc::channel::<usize>();
    let (answer, answered) = std::sync::mpsc::channel::<()>();
    let mut times = Vec::new();
    let one = move |round: usize| {
        let began = Instant::now();
        send(&[(NEW_DEST, round + 1, Some(1)), (SET_DEST, round, Some(0))]);
        let took = began.elapsed();
        if woken {
            answer.send(()).unwrap();
        }
        // Not timed: nothing is left behind.
        send(&[(DEL_DEST, round, None)]);
        took
    };
    if woken {
        let worker = std::thread::spawn(move || asked.iter().map(one).count());
        for round in 0..CHANGES {
            let began = Instant::now();
            ask.send(round).unwrap();
            answered.recv().unwrap();
            times.push(began.elapsed());
        }
        drop(ask);
        worker.join().unwrap();
    } else {
        times.extend((0..CHANGES).map(one));
    }
    lab.node.command("ipvsadm", &["-D", "-t", "10.99.0.1:80"]);
    median(times)
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn a_change_is_timed_beside_its_bare_message_among_few_and_many_services() {
    let lab = Lab::new();
    lab.node.command("modprobe", &["-a", "ip_vs", "ip_vs_rr"]);
    let (bare_sent, bare_woken) = (bare(&lab, false), bare(&lab, true));
    println!("the bare messages: {bare_sent:?}; with a thread to wake up: {bare_woken:?}");
    let mut told = Vec::new();
    for services in SIZES {
        let backend = backend(&lab, services);
        let (cold, change) = ours(&lab, services);
        let ratio = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
        println!(
            "{services} services: from resolved to kernel {backend:?} ({:.2} of bare), from event to kernel {change:?} ({:.2} of bare and woken), cold {cold:?}",
            ratio(backend, bare_sent),
            ratio(change, bare_woken)
        );
        told.push(backend);
    }
    // Flat: fifty times the services, and no more than half as much again.
    // Figures are told and not asserted: machines are noisy.
    println!("many services over few: {:.2} x (budget 1.5 x)", told[1].as_secs_f64() / told[0].as_secs_f64());
}
