//! What a change costs, beside the same change as bare messages in the same machine.

use super::super::lab::Lab;
use super::super::lab::objects::slice;
use super::{config, start_with};
use longshore_dataplane::config::IpvsConfig;
use longshore_dataplane::netlink::genl;
use longshore_dataplane::netlink::ipvs::{DEL_DEST, FAMILY, NEW_DEST, SET_DEST, Server, VERSION, put_destination};
use longshore_dataplane::netlink::socket::{NetlinkSocket, Pipeline};
use longshore_dataplane::{Change, Config, Dataplane, Family, wire};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CHANGES: usize = 60;

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

fn programmed(dataplane: &Dataplane, generation: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
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
    let began = Instant::now();
    let dataplane = start_with(config, []);
    let mut last = 0;
    for index in 0..services {
        dataplane.apply(service(index));
        last = dataplane.apply(endpoints(index, [0, 1]));
    }
    programmed(&dataplane, last);
    let cold = began.elapsed();
    let change = |round: usize| {
        let began = Instant::now();
        programmed(&dataplane, dataplane.apply(endpoints(round % services, [0, 2 + round / services])));
        began.elapsed()
    };
    let times = (0..CHANGES).map(change).collect();
    dataplane.shutdown(false);
    (cold, median(times))
}

/// The same two messages, sent and acknowledged, by a thread that is woken up for each as the data plane's is.
fn bare(lab: &Lab) -> Duration {
    lab.node.command("ipvsadm", &["-A", "-t", "10.99.0.1:80", "-s", "rr"]);
    lab.node.command("ipvsadm", &["-a", "-t", "10.99.0.1:80", "-r", "10.1.0.20:8080", "-m"]);
    let (ask, asked) = std::sync::mpsc::channel::<usize>();
    let (answer, answered) = std::sync::mpsc::channel::<()>();
    let worker = lab.node.spawn(move || {
        let mut socket = NetlinkSocket::open_protocol(16).unwrap();
        let family = genl::family(&mut socket, FAMILY).unwrap().unwrap();
        let server = Server { ip: IpAddr::from([10, 99, 0, 1]), protocol: longshore_dataplane::model::Protocol::Tcp, port: 80 };
        let address = |index: usize| SocketAddr::new(pod(index).parse().unwrap(), 8080);
        for round in asked {
            let mut pipeline = Pipeline::default();
            let mut add = |command: u8, index: usize, weight: Option<u32>| {
                pipeline.add(family, 0, &genl::header(command, VERSION), |w| put_destination(w, &server, address(index), weight));
            };
            add(NEW_DEST, round + 1, Some(1));
            add(SET_DEST, round, Some(0));
            assert!(socket.pipeline(&pipeline).unwrap().is_empty());
            answer.send(()).unwrap();
            // Not timed: nothing is left behind.
            let mut pipeline = Pipeline::default();
            pipeline.add(family, 0, &genl::header(DEL_DEST, VERSION), |w| put_destination(w, &server, address(round), None));
            assert!(socket.pipeline(&pipeline).unwrap().is_empty());
        }
    });
    let change = |round: usize| {
        let began = Instant::now();
        ask.send(round).unwrap();
        answered.recv().unwrap();
        began.elapsed()
    };
    let times = (0..CHANGES).map(change).collect();
    drop(ask);
    worker.join().unwrap();
    lab.node.command("ipvsadm", &["-D", "-t", "10.99.0.1:80"]);
    median(times)
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn a_change_costs_little_more_than_its_bare_message_however_many_services_there_are() {
    let lab = Lab::new();
    lab.node.command("modprobe", &["-a", "ip_vs", "ip_vs_rr"]);
    let bare = bare(&lab);
    let sizes = [100, 2000];
    let [(few_cold, few), (many_cold, many)] = sizes.map(|services| ours(&lab, services));
    let ratio = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
    println!("bare messages: {bare:?}");
    println!("{} services: cold {few_cold:?}, a change {few:?}, {:.2} of bare", sizes[0], ratio(few, bare));
    println!(
        "{} services: cold {many_cold:?}, a change {many:?}, {:.2} of bare, {:.2} of {} services",
        sizes[1],
        ratio(many, bare),
        ratio(many, few),
        sizes[0]
    );
}
