//! Probes and hooks on real pods: every kind of check, what its verdict does, and how containers are stopped.

use anyhow::{Context, Result, bail};
use longshore_tests::lab::daemon::{Options, is_ready};
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{Daemon, Lab, image, pods};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(40);
const ANSWER: Duration = Duration::from_secs(3);

struct Node {
    daemon: Daemon,
    lab: Lab,
}

impl Node {
    /// A node with these pods: name, image, seconds of grace, and more of the container's fields.
    fn up(wanted: &[(&str, &str, u32, &str)]) -> Result<Node> {
        let lab = Lab::up()?;
        let endpoint = lab.containerd.endpoint();
        let mut daemon = Daemon::prepare(&lab.home, Some(&lab.network.node), &endpoint, Options::default())?;
        for pod in wanted {
            apply(&daemon, *pod)?;
        }
        daemon.launch()?;
        Ok(Node { daemon, lab })
    }

    fn wait(&self, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        let waited = self.daemon.wait_for_pod(("default", name), what, SOON, condition);
        waited.with_context(|| format!("events: {:#?}\nlog:\n{}", self.events(name), self.daemon.log()))
    }

    /// Events of a pod: type, reason and message, oldest first.
    fn events(&self, pod: &str) -> Result<Vec<(String, String, String)>> {
        let list = self.daemon.get("events")?;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let items = list["items"].as_array().into_iter().flatten().filter(|e| e["involvedObject"]["name"] == pod);
        Ok(items.map(|e| (text(&e["type"]), text(&e["reason"]), text(&e["message"]))).collect())
    }

    fn wait_for_event(&self, pod: &str, kind: &str, reason: &str, message: impl Fn(&str) -> bool) -> Result<()> {
        wait_for(&format!("{pod} has an event {reason}"), SOON, || -> Result<_> {
            let events = self.events(pod)?;
            if events.iter().any(|(k, r, m)| k == kind && r == reason && message(m)) {
                return Ok(Some(()));
            }
            bail!("it has {events:#?}")
        })
    }

    /// Takes pods away and tells how long the container of each went on.
    fn remove(&self, names: &[&str]) -> Result<BTreeMap<String, Duration>> {
        let began = Instant::now();
        for name in names {
            self.daemon.remove(&format!("{name}.yaml"))?;
        }
        let mut took = BTreeMap::new();
        wait_for(&format!("{names:?} are stopped"), SOON, || -> Result<_> {
            let observed = pods::observe(&self.lab.containerd.socket())?;
            for name in names.iter().filter(|name| !observed.iter().any(|p| *p.name == ***name && p.running().next().is_some())) {
                took.entry((*name).to_owned()).or_insert_with(|| began.elapsed());
            }
            Ok((took.len() == names.len()).then_some(()))
        })?;
        Ok(took)
    }
}

fn apply(daemon: &Daemon, (name, image, grace, container): (&str, &str, u32, &str)) -> Result<()> {
    let manifest = format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name}, labels: {{ app: {name} }} }}
spec:
  terminationGracePeriodSeconds: {grace}
  containers:
  - {{ name: main, image: {image}, imagePullPolicy: IfNotPresent, {container} }}
"
    );
    daemon.apply(&format!("{name}.yaml"), &manifest)
}

fn main_status(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn address(pod: &Value) -> Result<std::net::IpAddr> {
    Ok(pod["status"]["podIP"].as_str().context("no address")?.parse()?)
}

const SHELL: &str = image::BUSYBOX;
const PROGRAM: &str = image::WORKLOAD;

#[test]
fn every_kind_of_check_makes_a_pod_ready_or_says_why_not() -> Result<()> {
    let node = Node::up(&[
        (
            "pulse",
            PROGRAM,
            2,
            "args: [serve-http, '8081'], ports: [{ name: web, containerPort: 8081 }], readinessProbe: { httpGet: { path: /pulse, port: web, httpHeaders: [{ name: X-Pulse, value: 'yes' }] }, periodSeconds: 1 }",
        ),
        (
            "file",
            SHELL,
            2,
            "command: [sh, -c, 'touch /tmp/ready; exec workload sleep'], readinessProbe: { exec: { command: [cat, /tmp/ready] }, periodSeconds: 1 }",
        ),
        ("echo", PROGRAM, 2, "args: [tcp-echo], readinessProbe: { tcpSocket: { port: 7 }, periodSeconds: 1 }"),
        ("health", PROGRAM, 2, "args: [grpc-health], readinessProbe: { grpc: { port: 50051 }, periodSeconds: 1 }"),
        ("down", PROGRAM, 2, "args: [grpc-health], readinessProbe: { grpc: { port: 50051, service: down }, periodSeconds: 1 }"),
        ("stranger", PROGRAM, 2, "args: [serve-http], readinessProbe: { httpGet: { path: /pulse, port: 8080 }, periodSeconds: 1 }"),
        ("closed", PROGRAM, 2, "args: [sleep], readinessProbe: { httpGet: { path: /x, port: 81 }, periodSeconds: 1 }"),
        ("missing", SHELL, 2, "args: [workload, sleep], readinessProbe: { exec: { command: [cat, /nothing] }, periodSeconds: 1 }"),
    ])?;
    for name in ["pulse", "file", "echo", "health"] {
        node.wait(name, "ready", is_ready)?;
    }
    let closed = node.wait("closed", "running", |p| main_status(p)["started"] == true)?;
    let refused = format!("Get \"http://{0}:81/x\": dial tcp {0}:81: connect: connection refused", address(&closed)?);
    for (name, why) in [
        ("down", "service unhealthy (responded with \"NOT_SERVING\")"),
        ("stranger", "HTTP probe failed with statuscode: 400"),
        ("closed", refused.as_str()),
        ("missing", "cat: can't open '/nothing': No such file or directory\n"),
    ] {
        node.wait_for_event(name, "Warning", "Unhealthy", |m| m == format!("Readiness probe failed: {why}"))?;
        let pod = node.daemon.find("pods", "default", name)?.context("no pod")?;
        assert!(!is_ready(&pod) && main_status(&pod)["ready"] == false, "{pod:#}");
    }
    Ok(())
}

#[test]
fn endpoints_follow_readiness_and_failing_containers_are_restarted() -> Result<()> {
    let probe = "httpGet: { path: /healthz, port: 8080 }, periodSeconds: 1";
    let stubborn = "command: [workload, ignore-term], livenessProbe: { exec: { command: ['false'] }, periodSeconds: 1, failureThreshold: 1, terminationGracePeriodSeconds: 3 }";
    let slow = "command: [sh, -c, 'sleep 3; touch /tmp/up; exec workload sleep'], startupProbe: { exec: { command: [cat, /tmp/up] }, periodSeconds: 1, failureThreshold: 30 }, livenessProbe: { exec: { command: [cat, /tmp/up] }, periodSeconds: 1, failureThreshold: 1 }, readinessProbe: { exec: { command: [cat, /tmp/up] }, periodSeconds: 10 }";
    let node = Node::up(&[
        ("mortal", PROGRAM, 5, &format!("args: [serve-http], livenessProbe: {{ {probe}, failureThreshold: 2 }}")),
        ("fickle", PROGRAM, 5, &format!("args: [serve-http], readinessProbe: {{ {probe}, failureThreshold: 1 }}")),
        ("stubborn", SHELL, 60, stubborn),
        ("slow", SHELL, 2, slow),
        (
            "never",
            SHELL,
            2,
            "command: [workload, sleep], startupProbe: { exec: { command: ['false'] }, periodSeconds: 1, failureThreshold: 2 }",
        ),
    ])?;
    node.daemon.apply("service.yaml", "apiVersion: v1\nkind: Service\nmetadata: { name: fickle }\nspec: { selector: { app: fickle }, ports: [{ port: 80, targetPort: 8080 }] }\n")?;
    liveness(&node)?;
    readiness(&node)?;
    startup(&node)?;
    let stubborn = node.wait("stubborn", "restarted", |p| main_status(p)["restartCount"].as_u64() >= Some(1))?;
    let last = &main_status(&stubborn)["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 137, "{last:#}");
    // Killed after the probe's three seconds, not after the pod's sixty.
    let lived = seconds(&last["finishedAt"])? - seconds(&last["startedAt"])?;
    assert!((3..=12).contains(&lived), "{last:#}");
    Ok(())
}

fn seconds(time: &Value) -> Result<i64> {
    let text = time.as_str().context("no time")?;
    let time = longshore::time::Wall::parse_rfc3339(text).context("not a time")?;
    Ok(time.seconds())
}

fn liveness(node: &Node) -> Result<()> {
    let mortal = node.wait("mortal", "ready", is_ready)?;
    assert_eq!(main_status(&mortal)["restartCount"], 0);
    let at = (address(&mortal)?, 8080).into();
    wait_for("it takes ill", SOON, || node.lab.network.outside[0].namespace.get(at, "/unhealthy", ANSWER).map(Some))?;
    node.wait("mortal", "restarted", |p| main_status(p)["restartCount"] == 1 && is_ready(p))?;
    node.wait_for_event("mortal", "Warning", "Unhealthy", |m| m == "Liveness probe failed: HTTP probe failed with statuscode: 503")?;
    node.wait_for_event("mortal", "Normal", "Killing", |m| m == "Container main failed liveness probe, will be restarted")
}

fn readiness(node: &Node) -> Result<()> {
    let fickle = node.wait("fickle", "ready", is_ready)?;
    let at = (address(&fickle)?, 8080).into();
    let outside = &node.lab.network.outside[0].namespace;
    for (path, ready) in [("/unhealthy", false), ("/healthy", true)] {
        endpoints(node, !ready)?;
        outside.get(at, path, ANSWER)?;
        node.wait("fickle", path, |p| is_ready(p) == ready)?;
        endpoints(node, ready)?;
    }
    let now = node.wait("fickle", "ready", is_ready)?;
    assert_eq!(main_status(&now)["restartCount"], 0, "readiness restarts nothing");
    Ok(())
}

/// Waits until every slice of the service says so of its endpoint.
fn endpoints(node: &Node, ready: bool) -> Result<()> {
    wait_for(&format!("the endpoints are ready: {ready}"), SOON, || -> Result<_> {
        let list = node.daemon.get("endpointslices")?;
        let own = |s: &&Value| s["metadata"]["labels"]["kubernetes.io/service-name"] == "fickle";
        let slices: Vec<&Value> = list["items"].as_array().into_iter().flatten().filter(own).collect();
        let told: Vec<&Value> = slices.iter().map(|s| &s["endpoints"][0]["conditions"]["ready"]).collect();
        if !told.is_empty() && told.iter().all(|t| **t == ready) { Ok(Some(())) } else { bail!("{slices:#?}") }
    })
}

fn startup(node: &Node) -> Result<()> {
    let slow = node.wait("slow", "ready", is_ready)?;
    assert_eq!(main_status(&slow)["restartCount"], 0, "liveness waits for startup: {slow:#}");
    let events = node.events("slow")?;
    let of = |what: &str| events.iter().filter(|(_, _, m)| m.starts_with(what)).count();
    assert!(of("Startup probe failed: cat") > 0, "{events:#?}");
    assert_eq!(of("Liveness") + of("Readiness"), 0, "{events:#?}");
    node.wait("never", "restarted", |p| main_status(p)["restartCount"].as_u64() >= Some(1))?;
    node.wait_for_event("never", "Normal", "Killing", |m| m == "Container main failed startup probe, will be restarted")
}

#[test]
fn hooks_run_and_containers_stop_within_their_grace() -> Result<()> {
    let node = Node::up(&[
        ("server", PROGRAM, 2, "args: [serve-http], readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }"),
        ("spoilt", SHELL, 2, "command: [workload, sleep], lifecycle: { postStart: { exec: { command: ['false'] } } }"),
        ("exec", SHELL, 30, "command: [workload, sleep], lifecycle: { preStop: { exec: { command: [sleep, '2'] } } }"),
        ("nap", PROGRAM, 30, "args: [sleep], lifecycle: { preStop: { sleep: { seconds: 2 } } }"),
        ("loop", SHELL, 3, "command: [sh, -c, 'while true; do sleep 1; done']"),
        ("deaf", PROGRAM, 5, "args: [ignore-term], lifecycle: { preStop: { sleep: { seconds: 2 } } }"),
        ("late", SHELL, 3, "command: [workload, sleep], lifecycle: { preStop: { exec: { command: [sleep, '60'] } } }"),
    ])?;
    node.wait_for_event("spoilt", "Warning", "FailedPostStartHook", |m| m == "PostStartHook failed")?;
    node.wait_for_event("spoilt", "Normal", "Killing", |m| m == "FailedPostStartHook")?;
    node.wait("spoilt", "restarted", |p| main_status(p)["restartCount"].as_u64() >= Some(1))?;
    let server = node.wait("server", "ready", is_ready)?;
    let told = format!(
        "args: [sleep], lifecycle: {{ preStop: {{ httpGet: {{ host: '{}', port: 8080, path: /unhealthy }} }} }}",
        address(&server)?
    );
    apply(&node.daemon, ("http", PROGRAM, 30, &told))?;
    let names = ["exec", "nap", "loop", "deaf", "late", "http"];
    for name in names {
        node.wait(name, "ready", is_ready)?;
    }
    let took = node.remove(&names)?;
    for (name, least, most) in [
        ("exec", 2.0, 10.0),
        ("nap", 2.0, 10.0),
        // TERM is ignored, by the shell as the first process of its container too: KILL after the grace.
        ("loop", 3.0, 10.0),
        // What the hook took is part of the grace.
        ("deaf", 5.0, 12.0),
        // The hook is given up with the grace; then TERM, which is heard.
        ("late", 3.0, 10.0),
        ("http", 0.0, 8.0),
    ] {
        let t = took[name].as_secs_f64();
        assert!((least..=most).contains(&t), "{name} took {t:.1} s: {took:?}");
    }
    let at = (address(&server)?, 8080).into();
    let asked = node.lab.network.outside[0].namespace.get(at, "/healthz", ANSWER);
    assert!(asked.is_err_and(|e| format!("{e:#}").contains("503")), "the hook's request did not arrive");
    Ok(())
}
