//! `longshore proxy`, `trace` and `plan`: the real program, on files, in a network of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_longshore");

/// A network namespace with nothing but a loopback, for as long as this value lives.
struct Network(File);

impl Network {
    fn new() -> Network {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
            Network(File::open("/proc/thread-self/ns/net").unwrap())
        };
        let network = std::thread::spawn(make).join().unwrap();
        assert!(network.command("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        network
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())).arg(program);
        command
    }

    fn rules(&self) -> String {
        String::from_utf8(self.command("nft").args(["list", "ruleset"]).output().unwrap().stdout).unwrap()
    }
}

/// Ends with the test, as by a crash.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn proxy(network: &Network, services: &Path, flags: &[&str]) -> Running {
    let mut command = network.command(PROGRAM);
    command.args(["proxy", "--services", services.to_str().unwrap(), "--mode", "nftables", "--hostname-override", "n1"]);
    command.args(["--oom-score-adj", "0", "--conntrack-max-per-core", "0", "--cluster-cidr", "10.1.0.0/16"]).args(flags);
    Running(command.stderr(Stdio::null()).spawn().unwrap())
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::yield_now();
    }
}

fn services(ip: &str, endpoints: &[&str]) -> String {
    let list: String = endpoints.iter().map(|ip| format!("- addresses: [{ip}]\n")).collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: ns1}}\nspec:\n  clusterIP: {ip}\n  ports:\n  - {{name: http, port: 80}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-1, namespace: ns1, labels: {{kubernetes.io/service-name: web}}}}\n\
         addressType: IPv4\nports:\n- {{name: http, port: 8080}}\nendpoints:\n{list}"
    )
}

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_proxy_follows_files_and_leaves_its_rules_to_the_next_one() {
    let network = Network::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("web.yaml");
    std::fs::write(&file, services("10.96.0.1", &["10.1.0.1"])).unwrap();
    let first = proxy(&network, dir.path(), &[]);
    eventually("the service is programmed", || network.rules().contains("10.96.0.1 . tcp . 80 . 0 : 10.1.0.1 . 8080"));
    std::fs::write(&file, services("10.96.0.1", &["10.1.0.1", "10.1.0.2"])).unwrap();
    eventually("the change is programmed", || network.rules().contains("10.96.0.1 . tcp . 80 . 1 : 10.1.0.2 . 8080"));
    drop(first);
    let left = network.rules();
    assert!(left.contains("10.1.0.2"), "the rules outlive the program");
    std::fs::write(
        dir.path().join("more.json"),
        r#"{"kind": "ServiceList", "items": [{"metadata": {"name": "x"},
        "spec": {"clusterIP": "10.96.0.2", "ports": [{"port": 53, "protocol": "UDP"}]}}]}"#,
    )
    .unwrap();
    let _second = proxy(&network, dir.path(), &["--metrics-bind-address=127.0.0.1:10249"]);
    eventually("a list is read, too", || network.rules().contains("10.96.0.2 . udp . 53"));
    std::fs::remove_file(&file).unwrap();
    eventually("what is gone is gone", || !network.rules().contains("10.96.0.1 "));
    let cleaned = network.command(PROGRAM).args(["proxy", "--cleanup"]).output().unwrap();
    assert!(cleaned.status.success(), "{}", text(&cleaned.stderr));
}

#[test]
fn a_changed_configuration_file_is_taken_on_while_running() {
    let network = Network::new();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("services")).unwrap();
    std::fs::write(dir.path().join("services/web.yaml"), services("10.96.0.1", &["10.1.0.1"])).unwrap();
    let config = dir.path().join("config.yaml");
    let write = |extra: &str| {
        let text = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\noomScoreAdj: 0\n\
             conntrack: {{maxPerCore: 0}}\nclusterCIDR: 10.1.0.0/16\n{extra}"
        );
        std::fs::write(&config, text).unwrap();
    };
    write("");
    let mut command = network.command(PROGRAM);
    command.args(["proxy", "--services"]).arg(dir.path().join("services")).arg("--config").arg(&config);
    let _proxy = Running(command.stderr(Stdio::null()).spawn().unwrap());
    eventually("the detector is there", || network.rules().contains("ip saddr != 10.1.0.0/16"));
    write("detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0}\n");
    eventually("another detector is there", || network.rules().contains("iifname != \"cni0\""));
    // A file that cannot be changes nothing.
    write("mode: nonsense\n");
    write("nodePortAddresses: [\"0.0.0.0/0\"]\n");
    eventually("node ports answer everywhere", || network.rules().contains("fib daddr type local"));
}

#[test]
fn everything_wrong_is_told_at_once() {
    let out = run(&["proxy", "--services", ".", "--mode", "x", "--masquerade-all=maybe", "--no-such-flag"]);
    assert_eq!(out.status.code(), Some(2));
    let error = text(&out.stderr);
    assert!(error.contains("--masquerade-all: \"maybe\"") && error.contains("--no-such-flag: unknown flag"), "{error}");
    let out = run(&["proxy", "--services", ".", "--mode", "x", "--oom-score-adj=9999"]);
    let error = text(&out.stderr);
    assert!(error.contains("error: mode: \"x\" is none of") && error.contains("error: oomScoreAdj: "), "{error}");
    assert_eq!(text(&run(&["proxy", "--version"]).stdout), "Kubernetes v1.36.2\n");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("written.yaml");
    let out = run(&["proxy", "--mode", "ipvs", "--ipvs-scheduler=lc", "--write-config-to", path.to_str().unwrap()]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written.contains("kind: KubeProxyConfiguration") && written.contains("scheduler: lc"), "{written}");
    let out = run(&["proxy", "--config", path.to_str().unwrap(), "--write-config-to", dir.path().join("again").to_str().unwrap()]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(std::fs::read_to_string(dir.path().join("again")).unwrap(), written);
}

#[test]
fn trace_says_what_happens_to_a_packet_and_whether_the_kernel_agrees() {
    let network = Network::new();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("web.yaml"), services("10.96.0.1", &["10.1.0.1", "10.1.0.2"])).unwrap();
    let _proxy = proxy(&network, dir.path(), &[]);
    eventually("it is programmed", || network.rules().contains("10.1.0.2"));
    let trace = |destination: &str, kernel: bool| {
        let mut command = network.command(PROGRAM);
        command
            .args(["trace", "10.1.0.9", destination, "--cluster-cidr", "10.1.0.0/16", "--node-name", "n1", "--services"])
            .arg(dir.path());
        command.args(kernel.then_some("--kernel")).output().unwrap()
    };
    let out = trace("10.96.0.1:80", true);
    let said = text(&out.stdout);
    assert!(out.status.success(), "{said}{}", text(&out.stderr));
    for part in [
        "cluster IP of Service ns1/web, port http",
        "50.00 %  to 10.1.0.2:8080 with its source kept (EndpointSlice ns1/web-1)",
        "kernel    agrees",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    assert!(text(&trace("10.96.0.1:81", false).stdout).contains("refused"));
    // Somebody else's rules would be mended; other files are what differs here.
    std::fs::write(dir.path().join("later.yaml"), "kind: nothing\n").unwrap();
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("web.yaml"), services("10.96.0.1", &["10.1.0.7"])).unwrap();
    let mut command = network.command(PROGRAM);
    command.args(["trace", "10.1.0.9", "10.96.0.1:80", "--cluster-cidr", "10.1.0.0/16", "--kernel", "--services"]).arg(other.path());
    let out = command.output().unwrap();
    assert!(out.status.code() == Some(1) && text(&out.stdout).contains("kernel    says something else"), "{}", text(&out.stdout));
}

#[test]
fn plan_prints_the_difference_between_manifests_without_root() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(before.path().join("web.yaml"), services("10.96.0.1", &["10.1.0.1", "10.1.0.2"])).unwrap();
    std::fs::write(after.path().join("web.yaml"), services("10.96.0.1", &["10.1.0.1", "10.1.0.3"])).unwrap();
    let out = Command::new(PROGRAM).arg("plan").arg(after.path()).arg("--from").arg(before.path()).output().unwrap();
    let lines = text(&out.stdout);
    let wanted = "# IPv4, transaction 1: 2 lines\n\
        delete element ip kube-proxy endpoint-ips { 10.96.0.1 . tcp . 80 . 1 }\n\
        add element ip kube-proxy endpoint-ips { 10.96.0.1 . tcp . 80 . 1 : 10.1.0.3 . 8080 }\n";
    assert_eq!(lines, wanted, "{}", text(&out.stderr));
    let whole = text(&Command::new(PROGRAM).arg("plan").arg(after.path()).output().unwrap().stdout);
    assert!(whole.contains("add chain ip kube-proxy services") && whole.contains("{ 10.96.0.1 }"), "{whole}");
}
