//! Another backend, another proxy, a restart: established connections live on, and only one set of rules remains.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use lab::objects::{PORT, TARGET_PORT, node_port, service, slices, vip};
use lab::traffic::{serve, tcp};
use lab::{Lab, Namespace, apply, eventually, programmed, start};
use longshore_dataplane::{Change, Config, Dataplane, IptablesConfig, IpvsConfig, Mode};

const ECHO_PORT: u16 = 9;

/// A connection through the service that says something now and then.
struct Talk(TcpStream);

impl Talk {
    fn begin(from: &Namespace, to: SocketAddr) -> Talk {
        let stream = from.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(2)).unwrap());
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Talk(stream)
    }

    fn goes_on(&mut self) {
        let said = vec![7u8; 32 * 1024];
        let mut heard = vec![0; said.len()];
        let mut writer = self.0.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&said).unwrap());
            self.0.read_exact(&mut heard).unwrap();
        });
        assert_eq!(said, heard);
    }
}

/// Says back whatever it hears.
fn echo(namespace: &Namespace) {
    let listener = namespace.run(|| TcpListener::bind(("0.0.0.0", ECHO_PORT)).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut stream, &mut writer);
            });
        }
    });
}

fn echo_service() -> Vec<Change> {
    let spec = serde_json::json!({"clusterIP": "10.96.0.30", "clusterIPs": ["10.96.0.30"], "ipFamilies": ["IPv4"],
        "ports": [{"name": "t", "port": PORT}]});
    vec![service("echo", spec), lab::objects::slice("echo", false, &[("10.1.0.12".into(), "node")], ECHO_PORT)]
}

fn objects() -> Vec<Change> {
    let mut changes = vec![service("web", node_port())];
    changes.extend(slices("web", &[1]));
    changes.extend(echo_service());
    changes
}

fn iptables(config: Config) -> Config {
    Config { mode: Mode::Iptables(IptablesConfig::default()), ..config }
}

fn has_nft(lab: &Lab) -> bool {
    lab.nft("list tables").lines().any(|line| line.ends_with(" kube-proxy"))
}

/// In either variant.
fn has_iptables(lab: &Lab) -> bool {
    let saved = |command: &str| lab.node.command(command, &["-t", "nat"]);
    ["iptables-nft-save", "iptables-legacy-save"].iter().any(|command| saved(command).contains("KUBE-SVC-"))
}

fn served_lab() -> Lab {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    echo(&lab.pods[1]);
    lab
}

fn echo_at() -> SocketAddr {
    SocketAddr::new("10.96.0.30".parse().unwrap(), PORT)
}

fn cluster_ip() -> SocketAddr {
    SocketAddr::new(vip(false), PORT)
}

#[test]
fn changing_the_backend_of_a_running_node_keeps_established_connections() {
    let lab = served_lab();
    let dataplane = start(&lab, objects());
    let mut talks = vec![Talk::begin(&lab.outside, echo_at()), Talk::begin(&lab.pods[0], echo_at())];
    for to_iptables in [true, false] {
        let config = if to_iptables { iptables(lab.config()) } else { lab.config() };
        let generation = dataplane.reconfigure(config);
        programmed(&dataplane, generation);
        eventually("the old rules are gone", || has_nft(&lab) != to_iptables && has_iptables(&lab) == to_iptables);
        talks.iter_mut().for_each(Talk::goes_on);
        tcp(&lab.pods[0], cluster_ip()).unwrap();
        talks.push(Talk::begin(&lab.outside, echo_at()));
        // Changes go to the new rules.
        apply(&dataplane, slices("web", &[]));
        assert!(tcp(&lab.pods[0], cluster_ip()).is_err());
        apply(&dataplane, slices("web", &[1]));
        tcp(&lab.pods[0], cluster_ip()).unwrap();
    }
    talks.iter_mut().for_each(Talk::goes_on);
}

#[test]
fn rules_of_another_mode_found_at_the_start_go_after_the_first_full_program() {
    let lab = served_lab();
    let began = |config: Config| {
        let dataplane = Dataplane::start(config).unwrap();
        apply(&dataplane, objects().into_iter().chain([Change::Synced]));
        dataplane
    };
    drop(began(iptables(lab.config())));
    assert!(has_iptables(&lab) && !has_nft(&lab));
    let mut talk = Talk::begin(&lab.outside, echo_at());
    let second = began(lab.config());
    eventually("iptables is empty", || !has_iptables(&lab));
    talk.goes_on();
    tcp(&lab.pods[0], cluster_ip()).unwrap();
    drop(second);
    let _third = began(iptables(lab.config()));
    eventually("nftables is empty", || !has_nft(&lab));
    talk.goes_on();
    tcp(&lab.pods[0], cluster_ip()).unwrap();
}

#[test]
fn a_mode_that_cannot_be_is_told_and_the_rules_stay() {
    let lab = served_lab();
    let dataplane = start(&lab, objects());
    let ipvs = IpvsConfig { scheduler: "no-such-scheduler".into(), ..IpvsConfig::default() };
    let generation = dataplane.reconfigure(Config { mode: Mode::Ipvs(ipvs), ..lab.config() });
    programmed(&dataplane, generation);
    tcp(&lab.pods[0], cluster_ip()).unwrap();
    assert!(has_nft(&lab));
    apply(&dataplane, slices("web", &[]));
    assert!(tcp(&lab.pods[0], cluster_ip()).is_err(), "changes are still programmed");
}
