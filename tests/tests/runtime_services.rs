//! Services in front of real pods, asked from everywhere: outside, the node, a pod, and the pod itself.

use anyhow::{Context, Result, ensure};
use longshore_tests::lab::daemon::Options;
use longshore_tests::lab::net::{NODE_V4, NODE_V6, Namespace};
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{Daemon, Lab, Running, image, pods};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(3);
const NODE_PORT: u16 = 30080;

fn service() -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: web }}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  clusterIP: 10.96.1.80
  clusterIPs: [10.96.1.80, 'fd00:10:96::180']
  selector: {{ app: web }}
  ports: [{{ port: 80, targetPort: http, nodePort: {NODE_PORT} }}]
"
    )
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name}, labels: {{ app: web }} }}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: main
    image: {}
    imagePullPolicy: IfNotPresent
    args: [serve-http]
    ports: [{{ name: http, containerPort: 8080 }}]
    readinessProbe: {{ httpGet: {{ path: /healthz, port: http }}, periodSeconds: 1, failureThreshold: 1 }}
",
        image::WORKLOAD
    )
}

/// The service's addresses in both families.
fn cluster() -> [SocketAddr; 2] {
    ["10.96.1.80:80", "[fd00:10:96::180]:80"].map(|address| address.parse().expect("an address"))
}

fn node_ports() -> [SocketAddr; 2] {
    [IpAddr::from(NODE_V4), NODE_V6.into()].map(|ip| (ip, NODE_PORT).into())
}

fn start(lab: &Lab) -> Result<Daemon> {
    let endpoint = lab.containerd.endpoint();
    let mut daemon = Daemon::prepare(&lab.home, Some(&lab.network.node), &endpoint, Options::default())?;
    daemon.apply("service.yaml", &service())?;
    daemon.apply("alpha.yaml", &pod("alpha"))?;
    daemon.apply("beta.yaml", &pod("beta"))?;
    daemon.spawn()?;
    Ok(daemon)
}

/// Who answers at an address, asked over and over until exactly `expected` have been met in a row of
/// twenty answers. One failed answer starts the row anew.
fn wait_for_answers(from: &Namespace, to: SocketAddr, expected: &[&str], daemon: &Daemon) -> Result<()> {
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    wait_for(&format!("{to} is answered by {expected:?}"), SOON, || -> Result<Option<()>> {
        let mut met = BTreeSet::new();
        for _ in 0..20 {
            met.insert(from.get(to, "/hostname", ANSWER)?.trim().to_owned());
        }
        Ok((met == expected).then_some(()))
    })
    .with_context(|| format!("from {}; the daemon logged:\n{}", from.name(), daemon.log()))
}

/// The network of a pod, and its own address in the family of `of`.
fn network_of(lab: &Lab, name: &str, of: IpAddr) -> Result<(Namespace, IpAddr)> {
    let pods = pods::observe(&lab.containerd.socket())?;
    let pod = pods.iter().find(|pod| &*pod.name == name).with_context(|| format!("no pod {name}"))?;
    let sandbox = pod.sandboxes.first().context("no sandbox")?;
    let pid = sandbox.pid.context("no process")?;
    let own = sandbox.ips.iter().find(|ip| ip.is_ipv4() == of.is_ipv4()).context("no address in that family")?;
    Ok((Namespace::open(Path::new(&format!("/proc/{pid}/ns/net")))?, *own))
}

#[test]
fn a_service_is_answered_by_all_its_pods_from_everywhere() -> Result<()> {
    let lab = Lab::up()?;
    let daemon = start(&lab)?;
    let both = ["alpha", "beta"];
    let outside = &lab.network.outside[0].namespace;
    for to in cluster() {
        wait_for_answers(outside, to, &both, &daemon)?;
        wait_for_answers(&lab.network.node, to, &both, &daemon)?;
        // One of its answers is the pod's own: out of its network and in again.
        let (inside, _) = network_of(&lab, "alpha", to.ip())?;
        wait_for_answers(&inside, to, &both, &daemon)?;
    }
    for to in node_ports() {
        wait_for_answers(outside, to, &both, &daemon)?;
    }
    Ok(())
}

#[test]
fn a_pod_that_is_not_ready_gets_no_new_connections() -> Result<()> {
    let lab = Lab::up()?;
    let daemon = start(&lab)?;
    let outside = &lab.network.outside[0].namespace;
    for to in cluster() {
        wait_for_answers(outside, to, &["alpha", "beta"], &daemon)?;
        let (_, beta) = network_of(&lab, "beta", to.ip())?;
        outside.get((beta, 8080).into(), "/unhealthy", ANSWER)?;
        wait_for_answers(outside, to, &["alpha"], &daemon)?;
        outside.get((beta, 8080).into(), "/healthy", ANSWER)?;
    }
    daemon.remove("alpha.yaml")?;
    wait_for_answers(outside, cluster()[0], &["beta"], &daemon)
}

/// Everything that happens to the node's rules, as `nft monitor` prints it, until it is stopped.
fn watch_rules(lab: &Lab) -> Result<Running> {
    let mut command = Command::new("nft");
    command.arg("monitor");
    let log = lab.home.base().join("nft-monitor.log");
    let monitor = Running::start(command, &log, Some(&lab.network.node), &(lab.home.cgroup() + "/monitor"))?;
    let node = &lab.network.node;
    // It listens once it shows a change: these are not the daemon's.
    wait_for("the monitor has begun", SOON, || -> Result<_> {
        node.run(&["nft", "add", "table", "ip", "probe"])?;
        node.run(&["nft", "delete", "table", "ip", "probe"])?;
        Ok(monitor.output().contains("probe").then_some(()))
    })?;
    Ok(monitor)
}

#[test]
fn no_connection_notices_that_the_daemon_was_killed() -> Result<()> {
    let lab = Lab::up()?;
    let mut daemon = start(&lab)?;
    let outside = &lab.network.outside[0].namespace;
    for to in cluster() {
        wait_for_answers(outside, to, &["alpha", "beta"], &daemon)?;
    }
    let monitor = watch_rules(&lab)?;
    let over = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| -> Result<usize> {
        let client = scope.spawn(|| -> Result<usize> {
            let mut asked = 0;
            while !over.load(Ordering::Relaxed) {
                for to in cluster() {
                    let begun = Instant::now();
                    outside.get(to, "/hostname", ANSWER).with_context(|| format!("request {asked}"))?;
                    // A lost packet is sent again after a second.
                    ensure!(begun.elapsed() < Duration::from_millis(900), "request {asked} to {to} lost a packet");
                    asked += 1;
                }
            }
            Ok(asked)
        });
        daemon.kill_nine();
        daemon.spawn()?;
        // What it has done about a new pod it has done about the old ones too.
        daemon.apply("gamma.yaml", &pod("gamma"))?;
        let settled = wait_for_answers(&lab.network.node, cluster()[0], &["alpha", "beta", "gamma"], &daemon);
        over.store(true, Ordering::Relaxed);
        let asked = client.join().expect("the client does not panic");
        settled.and(asked)
    })?;
    assert!(asked > 100, "only {asked} requests");
    let changes = monitor.output();
    let bad = |line: &&str| line.contains("refused-ips {") || line.starts_with("delete") && line.contains("endpoint-ips { 10.96.1.80");
    let bad: Vec<&str> = changes.lines().filter(bad).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    Ok(())
}
