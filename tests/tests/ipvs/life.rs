//! Restarts, kills, other owners, draining, bad input.

use super::super::lab::objects::{TARGET_PORT, node_port, pod_ip, slice, slices, slices_on};
use super::super::lab::traffic::{serve, tcp};
use super::super::lab::{Lab, eventually, programmed};
use super::{FAMILIES, apply, cluster_ip, config, everything, members, node_address, rules, servers, start, start_with, web};
use longshore_dataplane::config::{IptablesConfig, IpvsConfig, Mode};
use longshore_dataplane::{Change, Cidr, Config, Dataplane, Family, cleanup, wire};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Echoes what it gets, for connections that last.
fn echo(lab: &Lab, pod: usize, port: u16) {
    let listener = lab.pods[pod].run(|| TcpListener::bind(("0.0.0.0", port)).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok(len @ 1..) = stream.read(&mut buffer) {
                    stream.write_all(&buffer[..len]).unwrap();
                }
            });
        }
    });
}

fn connect(lab: &Lab, to: SocketAddr) -> TcpStream {
    let stream = lab.outside.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap());
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

fn is_alive(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut answer).is_ok() && answer == *b"ping"
}

/// A connection that is used all the time.
struct Beating {
    ended: Arc<AtomicBool>,
    beats: std::thread::JoinHandle<TcpStream>,
}

impl Beating {
    fn start(mut stream: TcpStream) -> Beating {
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        let beats = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                assert!(is_alive(&mut stream), "the connection was lost");
                std::thread::sleep(Duration::from_millis(50));
            }
            stream
        });
        Beating { ended, beats }
    }

    /// It falls silent, and stays open. Fails if it was lost before.
    fn stop(self) -> TcpStream {
        self.ended.store(true, Ordering::Relaxed);
        self.beats.join().unwrap()
    }
}

/// A service of each kind, with addresses of its own, so that everything that can be written is.
pub fn cluster() -> Vec<Change> {
    let service = |name: &str, last: u8, spec: serde_json::Value, status: serde_json::Value| {
        let mut all = json!({"clusterIP": format!("10.96.0.{last}"), "clusterIPs": [format!("10.96.0.{last}"), format!("fd00:96::{last}")],
            "ipFamilies": ["IPv4", "IPv6"], "ports": [{"name": "t", "port": 80, "protocol": "TCP"}]});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let object = json!({"metadata": {"name": name, "namespace": "ns1"}, "spec": all, "status": status});
        Change::SetService(Arc::new(serde_json::from_value::<wire::Service>(object).unwrap()))
    };
    let ingress = |ip: &str| json!({"loadBalancer": {"ingress": [{"ip": ip}]}});
    let node_port = |port: u16| {
        json!([{"name": "t", "port": 80, "protocol": "TCP", "nodePort": port},
        {"name": "u", "port": 53, "protocol": "UDP", "nodePort": port}, {"name": "s", "port": 99, "protocol": "SCTP", "nodePort": port}])
    };
    let none = json!({});
    let mut changes = vec![
        service("plain", 1, json!({}), none.clone()),
        service("sticky", 2, json!({"sessionAffinity": "ClientIP"}), none.clone()),
        service("ports", 3, json!({"type": "NodePort", "ports": node_port(30003)}), none.clone()),
        service(
            "local",
            4,
            json!({"type": "LoadBalancer", "ports": node_port(30004), "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 31004}),
            ingress("203.0.113.4"),
        ),
        service(
            "guarded",
            5,
            json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["198.51.100.0/24", "192.0.2.0/24"]}),
            ingress("203.0.113.5"),
        ),
        service("closed", 6, json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["198.51.100.0/24"]}), ingress("203.0.113.6")),
        service("external", 7, json!({"externalIPs": ["203.0.113.7", "192.0.2.1"]}), none.clone()),
        service("empty", 8, json!({}), none),
    ];
    for name in ["plain", "sticky", "ports", "local", "guarded", "closed", "external"] {
        changes.extend(slices_on(name, &[(0, "node"), (1, "elsewhere")]));
    }
    changes
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn the_kernels_tables_are_the_golden_ones() {
    let lab = Lab::new();
    let _dataplane = start(&lab, cluster());
    let found = everything(&lab);
    let golden = include_str!("golden.txt");
    if found != golden {
        println!("---- found ----\n{found}---- end ----");
    }
    assert!(found == golden, "other tables than golden.txt");
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn a_restart_adopts_what_is_there_without_a_write() {
    let lab = Lab::new();
    (0..2).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let first = start(&lab, cluster());
    assert!(first.status().counters.kernel_writes > 0);
    drop(first);
    let before = everything(&lab);
    let second = start(&lab, cluster());
    let counters = second.status().counters;
    assert_eq!((counters.kernel_writes, counters.kernel_reads), (0, 2), "{counters:?}");
    assert_eq!(everything(&lab), before);
    drop(second);
    // What changed while nobody looked is one difference: an endpoint less, which then drains.
    let mut changes = cluster();
    changes.extend(slices_on("plain", &[(0, "node")]));
    let third = start(&lab, changes);
    assert_eq!(third.status().counters.kernel_writes, 2, "one per family");
    eventually("the endpoint that went is deleted", || !servers(&lab, "10.96.0.1:80").iter().any(|line| line.contains("10.1.0.12")));
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn a_proxy_that_is_killed_at_any_moment_leaves_what_another_repairs() {
    let lab = Lab::new();
    ipvsadm(&lab, &["-A", "-t", "172.16.0.1:5432", "-s", "wlc"]);
    start(&lab, cluster()).shutdown(true);
    let wanted = everything(&lab);
    cleanup(Some(&lab.node.path())).unwrap();
    for (round, moment) in [0, 20, 90, 300, 1200].into_iter().enumerate() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["inside::victim::a_proxy_that_never_rests", "--exact", "--ignored", "--nocapture"])
            .env("LONGSHORE_NETNS", lab.node.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It says when it begins to write.
        let mut said = child.stdout.take().unwrap();
        let mut text = Vec::new();
        let mut byte = [0; 1];
        while !String::from_utf8_lossy(&text).contains("begins") {
            assert_eq!(said.read(&mut byte).unwrap(), 1, "it ended: {}", String::from_utf8_lossy(&text));
            text.push(byte[0]);
        }
        // Any moment will do; these are spread over the first writes and the churn.
        std::thread::sleep(Duration::from_millis(moment));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut repaired = start_with(config(&lab, IpvsConfig { drain: Duration::from_secs(1), ..IpvsConfig::default() }), cluster());
        eventually("all is as it should be", || everything(&lab) == wanted);
        if round % 2 == 0 {
            repaired = {
                drop(repaired);
                start(&lab, cluster())
            };
            assert_eq!(repaired.status().counters.kernel_writes, 0);
            drop(repaired);
            cleanup(Some(&lab.node.path())).unwrap();
            assert_eq!(servers(&lab, ""), ["-A -t 172.16.0.1:5432 -s wlc"], "somebody else's");
        }
    }
}

fn ipvsadm(lab: &Lab, args: &[&str]) {
    lab.node.command("ipvsadm", args);
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn servers_of_others_stay_whatever_we_do() {
    let lab = Lab::new();
    // Elsewhere, on this node's address, in an excluded range, and for a packet mark.
    ipvsadm(&lab, &["-A", "-t", "172.16.0.1:5432", "-s", "wlc"]);
    ipvsadm(&lab, &["-a", "-t", "172.16.0.1:5432", "-r", "172.16.0.2:5432", "-m"]);
    ipvsadm(&lab, &["-A", "-t", "192.0.2.1:5432", "-s", "rr"]);
    ipvsadm(&lab, &["-A", "-t", "203.0.113.99:80", "-s", "rr"]);
    ipvsadm(&lab, &["-A", "-f", "7", "-s", "rr"]);
    let foreign = servers(&lab, "");
    let excluding = IpvsConfig { exclude_cidrs: vec![Cidr::parse("203.0.113.96/28").unwrap()], ..IpvsConfig::default() };
    let dataplane = start_with(config(&lab, excluding), cluster());
    let others = |lab: &Lab| servers(lab, "").into_iter().filter(|line| foreign.contains(line)).count();
    assert_eq!(others(&lab), foreign.len());
    dataplane.shutdown(true);
    // Another life, with nothing to do: ours go, theirs do not.
    start(&lab, []).shutdown(true);
    assert_eq!(servers(&lab, ""), foreign);
    start(&lab, cluster()).shutdown(true);
    cleanup(Some(&lab.node.path())).unwrap();
    assert_eq!(servers(&lab, ""), foreign);
    assert_eq!(lab.node.command("ipset", &["list", "-n"]), "", "of either family");
    assert!(!(rules(&lab, false) + &rules(&lab, true)).contains("KUBE"), "{}", rules(&lab, false));
    assert!(!lab.node.command("ip", &["link"]).contains("kube-ipvs0"));
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn a_removed_endpoint_keeps_its_connections_until_they_end() {
    let lab = Lab::new();
    (0..2).for_each(|pod| echo(&lab, pod, TARGET_PORT));
    // Silence ends a connection for IPVS.
    let ipvs = IpvsConfig { tcp_timeout: Duration::from_secs(3), ..IpvsConfig::default() };
    let dataplane = start_with(config(&lab, ipvs.clone()), web(json!({}), &[0]));
    let mut lasting = connect(&lab, cluster_ip(false));
    assert!(is_alive(&mut lasting));
    apply(&dataplane, slices("web", &[1]));
    let leaving = |lab: &Lab| servers(lab, "-t 10.96.0.10:80 -r 10.1.0.11");
    assert_eq!(leaving(&lab), ["-a -t 10.96.0.10:80 -r 10.1.0.11:8080 -m -w 0"]);
    assert!(is_alive(&mut lasting));
    // UDP has nothing to finish.
    assert!(servers(&lab, "-u 10.96.0.10:80 -r 10.1.0.11").is_empty());
    // It comes back: its weight does, and the connection never knew.
    apply(&dataplane, slices("web", &[0, 1]));
    assert_eq!(leaving(&lab), ["-a -t 10.96.0.10:80 -r 10.1.0.11:8080 -m -w 1"]);
    assert!(is_alive(&mut lasting));
    apply(&dataplane, slices("web", &[1]));
    // A restart goes on with it.
    drop(dataplane);
    let dataplane = start_with(config(&lab, ipvs), web(json!({}), &[1]));
    assert_eq!(dataplane.status().counters.kernel_writes, 0);
    assert!(is_alive(&mut lasting) && leaving(&lab).len() == 1);
    eventually("the endpoint is deleted with its last connection", || leaving(&lab).is_empty());
    // One without connections goes at the first look.
    apply(&dataplane, slices("web", &[2]));
    eventually("the idle endpoint is deleted", || servers(&lab, "-r 10.1.0.12").is_empty());
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn draining_ends_when_its_time_is_up() {
    let lab = Lab::new();
    (0..2).for_each(|pod| echo(&lab, pod, TARGET_PORT));
    let dataplane = start_with(config(&lab, IpvsConfig { drain: Duration::from_secs(3), ..IpvsConfig::default() }), web(json!({}), &[0]));
    let mut lasting = connect(&lab, cluster_ip(false));
    assert!(is_alive(&mut lasting));
    apply(&dataplane, slices("web", &[1]));
    let began = Instant::now();
    let leaving = |lab: &Lab| servers(lab, "-t 10.96.0.10:80 -r 10.1.0.11");
    assert_eq!(leaving(&lab).len(), 1);
    eventually("its time is up", || leaving(&lab).is_empty());
    assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(!is_alive(&mut lasting));
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn every_scheduler_of_the_kernel_can_be_had() {
    let lab = Lab::new();
    let names = ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "fo", "ovf", "mh", "sh:sh-port,sh-fallback"];
    (0..2).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    for name in names {
        // Each takes over from the one before.
        let scheduled = config(&lab, IpvsConfig { scheduler: name.into(), ..IpvsConfig::default() });
        let dataplane = start_with(Config { families: vec![Family::V4], ..scheduled }, web(json!({}), &[0, 1]));
        let expected = match name {
            "mh" => "-A -t 10.96.0.10:80 -s mh -b mh-port".into(),
            "sh:sh-port,sh-fallback" => "-A -t 10.96.0.10:80 -s sh -b sh-fallback,sh-port".into(),
            name => format!("-A -t 10.96.0.10:80 -s {name}"),
        };
        assert_eq!(servers(&lab, "-A -t 10.96.0.10:80"), [expected]);
        assert!(tcp(&lab.outside, cluster_ip(false)).is_ok(), "{name}");
        drop(dataplane);
    }
    let missing = Dataplane::start(config(&lab, IpvsConfig { scheduler: "nosuch".into(), ..IpvsConfig::default() }));
    let error = missing.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("ip_vs_nosuch") && error.contains("CONFIG_IP_VS_NOSUCH"), "{error}");
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn what_others_break_is_repaired() {
    let lab = Lab::new();
    let mut quick = config(&lab, IpvsConfig::default());
    quick.audit = Duration::from_millis(20);
    let dataplane = start_with(quick, cluster());
    let wanted = everything(&lab);
    let breaks: [&[&str]; 7] = [
        &["ipvsadm", "-d", "-t", "10.96.0.1:80", "-r", "10.1.0.11:8080"],
        &["ipvsadm", "-D", "-t", "10.96.0.1:80"],
        &["ipvsadm", "-C"],
        &["ipset", "del", "KUBE-CLUSTER-IP", "10.96.0.1,tcp:80"],
        &["ip", "address", "del", "10.96.0.1/32", "dev", "kube-ipvs0"],
        &["ip", "link", "del", "kube-ipvs0"],
        &["iptables-legacy", "-t", "nat", "-F"],
    ];
    for command in breaks {
        let seen = || dataplane.status().counters.foreign_changes;
        let before = seen();
        lab.node.command(command[0], &command[1..]);
        eventually(&format!("noticed {command:?}"), || seen() > before);
        eventually(&format!("repaired after {command:?}"), || everything(&lab) == wanted);
    }
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn a_full_set_leaves_the_rest_programmed_and_takes_what_waits_when_there_is_room() {
    let lab = Lab::new();
    (0..2).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    // The real limit is 65,536; this one is as good.
    lab.node.command("ipset", &["create", "KUBE-CLUSTER-IP", "hash:ip,port", "maxelem", "3"]);
    let dataplane = start(&lab, cluster());
    assert_eq!(members(&lab, "KUBE-CLUSTER-IP").len(), 3);
    assert_eq!(servers(&lab, "-A -t 10.96.0.").len(), 8, "every server is there");
    let writes = dataplane.status().counters.kernel_writes;
    apply(&dataplane, slices_on("empty", &[(0, "node")]));
    assert_eq!(dataplane.status().counters.kernel_writes, writes + 2, "what found no room is not tried again and again");
    // All but three go: those that are left must be in the set.
    for name in ["plain", "sticky", "ports", "local", "guarded", "closed"] {
        apply(&dataplane, [Change::DeleteService { namespace: "ns1".into(), name: name.into() }]);
    }
    eventually("what waited is in", || members(&lab, "KUBE-CLUSTER-IP") == ["10.96.0.7,tcp:80", "10.96.0.8,tcp:80"]);
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn an_endpoint_that_the_kernel_refuses_concerns_nobody_else() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let bad = [("224.0.0.1".to_string(), "node"), ("0.0.0.0".to_string(), "node"), (pod_ip(1, false), "node")];
    let mut changes = web(json!({}), &[]);
    changes.push(slice("web", false, &bad, TARGET_PORT));
    let dataplane = start(&lab, changes);
    assert!(dataplane.status().last_error.is_none());
    assert_eq!(servers(&lab, "-a -t 10.96.0.10:80"), ["-a -t 10.96.0.10:80 -r 10.1.0.12:8080 -m -w 1"]);
    assert_eq!(tcp(&lab.outside, cluster_ip(false)).unwrap().server, "p1");
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn settings_and_new_addresses_of_the_node_are_followed() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let ipvs = IpvsConfig { strict_arp: true, tcp_timeout: Duration::from_secs(333), ..IpvsConfig::default() };
    let node_port_addresses = longshore_dataplane::NodePortAddresses::All;
    let dataplane = start_with(Config { node_port_addresses, ..config(&lab, ipvs) }, web(node_port(), &[1]));
    let setting = |name: &str| lab.node.run(|| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap().trim().to_string());
    let names = [
        "vs/conntrack",
        "vs/expire_nodest_conn",
        "vs/expire_quiescent_template",
        "ip_forward",
        "conf/all/arp_ignore",
        "conf/all/arp_announce",
    ];
    assert_eq!(names.map(setting), ["1", "1", "1", "1", "1", "2"]);
    assert!(lab.node.command("ipvsadm", &["-L", "--timeout"]).contains("333"));
    // Every address but loopback and link-local ones answers; one that comes does, too.
    assert_eq!(servers(&lab, "-A -t").len(), 6, "{:?}", servers(&lab, "-A -t"));
    assert_eq!(tcp(&lab.outside, node_address(false)).unwrap().server, "p1");
    lab.node.ip("addr add 192.0.2.77/24 dev uplink");
    let another: SocketAddr = "192.0.2.77:30080".parse().unwrap();
    eventually("the new address answers", || tcp(&lab.outside, another).is_ok_and(|answer| answer.server == "p1"));
    lab.node.ip("addr del 192.0.2.77/24 dev uplink");
    eventually("the address that went has no server", || servers(&lab, "192.0.2.77").is_empty());
    drop(dataplane);
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn the_mode_is_switched_to_iptables_and_back_without_leavings() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let iptables = || Config { mode: Mode::Iptables(IptablesConfig::default()), ..lab.config() };
    let chains = |lab: &Lab| rules(lab, false) + &rules(lab, true);
    let answers = |lab: &Lab| {
        for v6 in FAMILIES {
            assert_eq!(tcp(&lab.outside, cluster_ip(v6)).unwrap().server, "p1");
            assert_eq!(tcp(&lab.pods[0], node_address(v6)).unwrap().server, "p1");
        }
    };
    for _ in 0..2 {
        let dataplane = start_with(iptables(), web(node_port(), &[1]));
        // Closed connections hold their servers for two minutes; new ones do not find them.
        let closed = |lab: &Lab| servers(lab, "-a").iter().all(|line| line.ends_with("-w 0"));
        let sets = |lab: &Lab| lab.node.command("ipset", &["list", "-n"]);
        eventually("ipvs is closed", || closed(&lab) && sets(&lab).is_empty() && !chains(&lab).contains("KUBE-IPVS"));
        answers(&lab);
        drop(dataplane);
        let dataplane = start(&lab, web(node_port(), &[1]));
        eventually("nothing of iptables is left", || !chains(&lab).contains("KUBE-SVC-") && !chains(&lab).contains("KUBE-NODEPORTS"));
        answers(&lab);
        drop(dataplane);
    }
}

#[test]
#[ignore = "runs inside User-mode Linux"]
fn established_connections_survive_a_change_of_the_mode() {
    let lab = Lab::new();
    echo(&lab, 0, TARGET_PORT);
    let iptables = || Config { mode: Mode::Iptables(IptablesConfig::default()), ..lab.config() };
    // Silence ends a connection for IPVS.
    let ipvs = || config(&lab, IpvsConfig { tcp_timeout: Duration::from_secs(3), ..IpvsConfig::default() });
    let dataplane = start_with(ipvs(), web(json!({}), &[0]));
    let through_ipvs = Beating::start(connect(&lab, cluster_ip(false)));
    programmed(&dataplane, dataplane.reconfigure(iptables()));
    eventually("only the connection's server is left", || servers(&lab, "-A") == ["-A -t 10.96.0.10:80 -s rr"]);
    let mut through_iptables = connect(&lab, cluster_ip(false));
    assert!(is_alive(&mut through_iptables));
    // Back and forth before the last one has gone.
    programmed(&dataplane, dataplane.reconfigure(ipvs()));
    assert!(is_alive(&mut through_iptables));
    assert_eq!(servers(&lab, "-a -t 10.96.0.10:80"), ["-a -t 10.96.0.10:80 -r 10.1.0.11:8080 -m -w 1"]);
    // The same by a new process.
    drop(dataplane);
    let dataplane = start_with(iptables(), web(json!({}), &[0]));
    assert!(is_alive(&mut through_iptables));
    let _silent = through_ipvs.stop();
    eventually("ipvs goes with its last connection", || {
        servers(&lab, "").is_empty() && !lab.node.command("ip", &["link"]).contains("kube-ipvs0")
    });
    programmed(&dataplane, dataplane.reconfigure(ipvs()));
    assert!(is_alive(&mut through_iptables));
    assert!(is_alive(&mut connect(&lab, cluster_ip(false))), "a new one is through ipvs");
    eventually("iptables' rules are gone", || !rules(&lab, false).contains("KUBE-SVC-"));
    assert!(is_alive(&mut through_iptables));
}
