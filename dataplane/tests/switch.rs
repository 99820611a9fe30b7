//! Another backend, another proxy, a restart: established connections live on, and only one set of rules remains.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use lab::objects::{PORT, TARGET_PORT, node_port, service, slices, vip};
use lab::traffic::{serve, tcp, tcp_here};
use lab::{Lab, Namespace, apply, eventually, programmed, start};
use longshore_dataplane::backend::iptables::variant::{Commands, Variant};
use longshore_dataplane::{Change, Config, Dataplane, Family, IptablesConfig, IpvsConfig, Mode};

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

/// Two services that another proxy is told of as well.
fn shared_objects() -> Vec<Change> {
    let spec = serde_json::json!({"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ipFamilies": ["IPv4"],
        "ports": [{"name": "t", "port": PORT}]});
    let slice = lab::objects::slice("web", false, &[("10.1.0.12".into(), "node")], TARGET_PORT);
    [vec![service("web", spec), slice], echo_service()].concat()
}

/// Counts packets that leave for a service untranslated.
const LEAKS: &str = "table inet leaks { counter untranslated { }; \
    chain forward { type filter hook forward priority 10; ip daddr 10.96.0.0/16 counter name untranslated; }; }";

/// Opens connections to the service from everywhere before, while and after `act` runs; each must be answered, and no
/// packet may go out untranslated.
fn under_traffic(lab: &Lab, act: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let answers = [const { AtomicUsize::new(0) }; 3];
    let ask = |answers: &AtomicUsize| {
        while !stop.load(Ordering::Relaxed) {
            assert_eq!(tcp_here(cluster_ip()).unwrap().server, "p1");
            answers.fetch_add(1, Ordering::Relaxed);
        }
    };
    let ask = &ask;
    let counts = || answers.each_ref().map(|count| count.load(Ordering::Relaxed));
    let everybody_asks = || {
        let before = counts();
        eventually("everybody is answered", || counts().iter().zip(before).all(|(now, before)| *now > before));
    };
    std::thread::scope(|scope| {
        for (from, answers) in [&lab.outside, &lab.pods[0], &lab.node].into_iter().zip(&answers) {
            scope.spawn(move || from.run(|| ask(answers)));
        }
        // Whatever comes of it, the clients are to stop.
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            everybody_asks();
            act();
            everybody_asks();
        }));
        stop.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let leaked = lab.nft("list counter inet leaks untranslated");
    assert!(leaked.contains("packets 0 "), "{leaked}");
}

/// We run, are killed, the other proxy takes over; then it is killed, and we take over. Packets flow all the time.
fn handed_over_and_back(config: impl Fn(&Lab) -> Config, theirs: impl Fn(&Lab), is_theirs: impl Fn(&Lab) -> bool) {
    let lab = served_lab();
    lab.node.command("nft", &[LEAKS]);
    let config = || Config { families: vec![Family::V4], ..config(&lab) };
    let started = || {
        let dataplane = Dataplane::start(config()).unwrap();
        apply(&dataplane, shared_objects().into_iter().chain([Change::Synced]));
        dataplane
    };
    drop(started());
    let mut talks = vec![Talk::begin(&lab.outside, echo_at()), Talk::begin(&lab.pods[0], echo_at())];
    for _ in 0..2 {
        under_traffic(&lab, || theirs(&lab));
        assert!(is_theirs(&lab));
        talks.push(Talk::begin(&lab.outside, echo_at()));
        under_traffic(&lab, || drop(started()));
        assert!(!is_theirs(&lab));
        talks.iter_mut().for_each(Talk::goes_on);
        tcp(&lab.pods[0], cluster_ip()).unwrap();
        // All is ours again: there is nothing more to write.
        assert_eq!(started().status().counters.kernel_writes, 0);
    }
}

/// What kube-proxy 1.36 sends at its start in mode nftables, in the order and by the names that it uses: base chains
/// made anew, static chains emptied and filled, and a chain and elements for each service.
fn theirs_nftables() -> String {
    let bases = [
        ("filter-prerouting-pre-dnat", "filter hook prerouting priority -110"),
        ("filter-output-pre-dnat", "filter hook output priority -110"),
        ("filter-input", "filter hook input priority 0"),
        ("filter-forward", "filter hook forward priority 0"),
        ("filter-output", "filter hook output priority 0"),
        ("nat-prerouting", "nat hook prerouting priority -100"),
        ("nat-output", "nat hook output priority -100"),
        ("nat-postrouting", "nat hook postrouting priority 100"),
    ];
    let mut text = String::from("add table ip kube-proxy { comment \"rules for kube-proxy\" ; }\n");
    for (name, hook) in bases {
        let add = format!("add chain ip kube-proxy {name} {{ type {hook} ; }}\n");
        text += &format!("{add}delete chain ip kube-proxy {name}\n{add}");
    }
    text += "add set ip kube-proxy cluster-ips { type ipv4_addr ; comment \"Active ClusterIPs\" ; }
        add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }
        add map ip kube-proxy no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict ; }
        add chain ip kube-proxy services
        flush chain ip kube-proxy services
        add chain ip kube-proxy masquerading
        flush chain ip kube-proxy masquerading
        add chain ip kube-proxy cluster-ips-check
        flush chain ip kube-proxy cluster-ips-check
        add chain ip kube-proxy service-endpoints-check
        flush chain ip kube-proxy service-endpoints-check
        add rule ip kube-proxy nat-output jump services
        add rule ip kube-proxy nat-prerouting jump services
        add rule ip kube-proxy nat-postrouting jump masquerading
        add rule ip kube-proxy filter-forward ct state new jump service-endpoints-check
        add rule ip kube-proxy filter-forward ct state new jump cluster-ips-check
        add rule ip kube-proxy filter-output ct state new jump service-endpoints-check
        add rule ip kube-proxy filter-output ct state new jump cluster-ips-check
        add rule ip kube-proxy masquerading mark and 0x4000 != 0 mark set mark xor 0x4000 masquerade fully-random
        add rule ip kube-proxy cluster-ips-check ip daddr @cluster-ips reject
        add rule ip kube-proxy service-endpoints-check ip daddr . meta l4proto . th dport vmap @no-endpoint-services
        add rule ip kube-proxy services ip daddr @cluster-ips ip saddr != 10.1.0.0/16 mark set mark or 0x4000
        add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips\n";
    for (chain, ip, endpoint) in [
        ("service-EY6G6EI5-ns1/web/tcp/t", "10.96.0.10", "10.1.0.12 . 8080"),
        ("service-FYLF5H77-ns1/echo/tcp/t", "10.96.0.30", "10.1.0.12 . 9"),
    ] {
        text += &format!(
            "add chain ip kube-proxy {chain}
            flush chain ip kube-proxy {chain}
            add rule ip kube-proxy {chain} meta l4proto tcp dnat ip to numgen random mod 1 map {{ 0 : {endpoint} }}
            add element ip kube-proxy cluster-ips {{ {ip} }}
            add element ip kube-proxy service-ips {{ {ip} . tcp . 80 : goto {chain} }}\n"
        );
    }
    text
}

#[test]
fn an_upstream_proxy_in_mode_nftables_takes_over_from_us_and_we_from_it_with_traffic_running() {
    let theirs = |lab: &Lab| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), theirs_nftables()).unwrap();
        lab.nft(&format!("-f {}", file.path().display()));
    };
    let is_theirs = |lab: &Lab| lab.nft("list ruleset").contains("service-EY6G6EI5-ns1/web/tcp/t");
    handed_over_and_back(Lab::config, theirs, is_theirs);
}

/// What kube-proxy 1.36 feeds to iptables-restore at its start: every chain whole.
const THEIRS_IPTABLES: &str = "*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name ct_state_invalid_dropped_pkts -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-WKNMHKR23N4FB52A - [0:0]
:KUBE-SEP-YW5EXJQSY34YA4RF - [0:0]
:KUBE-SVC-7DFKH5HBVBASIDHX - [0:0]
:KUBE-SEP-6XEEOM2ABNFG4PJI - [0:0]
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-SERVICES -m comment --comment \"ns1/web:t cluster IP\" -m tcp -p tcp -d 10.96.0.10 --dport 80 -j KUBE-SVC-WKNMHKR23N4FB52A
-A KUBE-SVC-WKNMHKR23N4FB52A -m comment --comment \"ns1/web:t cluster IP\" -m tcp -p tcp -d 10.96.0.10 --dport 80 ! -s 10.1.0.0/16 -j KUBE-MARK-MASQ
-A KUBE-SVC-WKNMHKR23N4FB52A -m comment --comment \"ns1/web:t -> 10.1.0.12:8080\" -j KUBE-SEP-YW5EXJQSY34YA4RF
-A KUBE-SEP-YW5EXJQSY34YA4RF -m comment --comment ns1/web:t -s 10.1.0.12 -j KUBE-MARK-MASQ
-A KUBE-SEP-YW5EXJQSY34YA4RF -m comment --comment ns1/web:t -m tcp -p tcp -j DNAT --to-destination 10.1.0.12:8080
-A KUBE-SERVICES -m comment --comment \"ns1/echo:t cluster IP\" -m tcp -p tcp -d 10.96.0.30 --dport 80 -j KUBE-SVC-7DFKH5HBVBASIDHX
-A KUBE-SVC-7DFKH5HBVBASIDHX -m comment --comment \"ns1/echo:t cluster IP\" -m tcp -p tcp -d 10.96.0.30 --dport 80 ! -s 10.1.0.0/16 -j KUBE-MARK-MASQ
-A KUBE-SVC-7DFKH5HBVBASIDHX -m comment --comment \"ns1/echo:t -> 10.1.0.12:9\" -j KUBE-SEP-6XEEOM2ABNFG4PJI
-A KUBE-SEP-6XEEOM2ABNFG4PJI -m comment --comment ns1/echo:t -s 10.1.0.12 -j KUBE-MARK-MASQ
-A KUBE-SEP-6XEEOM2ABNFG4PJI -m comment --comment ns1/echo:t -m tcp -p tcp -j DNAT --to-destination 10.1.0.12:9
-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
";

#[test]
fn an_upstream_proxy_in_mode_iptables_takes_over_from_us_and_we_from_it_with_traffic_running() {
    for variant in [Variant::Legacy, Variant::Nft] {
        let commands = Commands::of(variant, Family::V4);
        // A mark that only their rules of this test have; accounting objects are the kernel's, and may be missing here.
        let theirs = THEIRS_IPTABLES
            .replace(" -m nfacct --nfacct-name ct_state_invalid_dropped_pkts", "")
            .replace("COMMIT\n*nat", "-A KUBE-SERVICES -m comment --comment theirs -d 203.0.113.77 -j RETURN\nCOMMIT\n*nat");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &theirs).unwrap();
        let ours = |lab: &Lab| {
            for family in Family::ALL {
                // The kubelet's chain says which variant this node uses.
                let hint = ["-t", "mangle", "-N", "KUBE-IPTABLES-HINT"];
                // The second time it is there already.
                let made = lab.node.run(|| std::process::Command::new(Commands::of(variant, family).iptables).args(hint).output());
                drop(made.unwrap());
            }
            iptables(lab.config())
        };
        let restored = |lab: &Lab| drop(lab.node.command(commands.restore, &["--noflush", file.path().to_str().unwrap()]));
        let is_theirs = |lab: &Lab| lab.node.command(commands.save, &["-t", "filter"]).contains("--comment theirs");
        handed_over_and_back(ours, restored, is_theirs);
    }
}
