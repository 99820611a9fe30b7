//! Services on a kernel without any packet filter: User-mode Linux without its modules.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use longshore_dataplane::{Change, Config, Dataplane, Family};
use longshore_tests::lab::Home;
use longshore_tests::lab::vm::user_mode;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
const VIP: &str = "10.96.0.10";
const ENDPOINT: &str = "10.1.0.11";

#[test]
fn services_are_relayed_where_there_is_no_packet_filter() {
    let home = Home::new().unwrap();
    let own = std::env::current_exe().unwrap().display().to_string();
    // Modules cannot be loaded, neither by us nor by the kernel.
    let script = format!(
        "#!/bin/sh\nrm -f /lib/modules/*\necho /bin/false >/proc/sys/kernel/modprobe\n\
         exec {own} relayed_inside --exact --ignored --nocapture"
    );
    let report = user_mode(&home, &script, 512, LIMIT).unwrap();
    println!("{}", report.output);
    assert!(report.status == 0 && report.output.contains("1 passed"), "{}", report.output);
}

/// Says whom it answers for, to connections and datagrams.
fn serve() {
    let (tcp, udp) = (TcpListener::bind((ENDPOINT, 8080)).unwrap(), UdpSocket::bind((ENDPOINT, 8080)).unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = tcp.accept() {
            stream.write_all(b"pod").unwrap();
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            udp.send_to(b"pod", from).unwrap();
        }
    });
}

fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

#[test]
#[ignore = "runs inside the machine, started by the other test"]
fn relayed_inside() {
    let added = Command::new("ip").args(["address", "add", ENDPOINT, "dev", "lo"]).status().unwrap();
    assert!(added.success());
    serve();
    let config = || Config { node_name: "node".into(), families: vec![Family::V4], ..Config::default() };
    let refused = Dataplane::start(config()).unwrap_err();
    println!("without a way out: {refused}");
    let dataplane = Dataplane::start(Config { fall_back: true, ..config() }).unwrap();
    dataplane.apply(Change::SetService(object(json!({"metadata": {"name": "web", "namespace": "ns1"},
        "spec": {"clusterIP": VIP, "ports": [{"name": "t", "port": 80}, {"name": "u", "port": 80, "protocol": "UDP"}]}}))));
    dataplane.apply(Change::SetSlice(object(json!({"addressType": "IPv4", "endpoints": [{"addresses": [ENDPOINT]}],
        "metadata": {"name": "web-1", "namespace": "ns1", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "t", "port": 8080}, {"name": "u", "port": 8080, "protocol": "UDP"}]}))));
    let last = dataplane.apply(Change::Synced);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let programmed = async { tokio::time::timeout(Duration::from_secs(30), dataplane.wait_programmed(last)).await };
    runtime.block_on(programmed).unwrap_or_else(|_| panic!("{:?}", dataplane.status())).unwrap();

    let vip: SocketAddr = (VIP.parse::<std::net::IpAddr>().unwrap(), 80).into();
    let mut answer = String::new();
    TcpStream::connect(vip).unwrap().read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "pod");
    let client = UdpSocket::bind("0.0.0.0:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.send_to(b"?", vip).unwrap();
    let mut buffer = [0; 16];
    let (len, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from), (&b"pod"[..], vip));
}
