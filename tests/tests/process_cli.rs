//! The command line against a running daemon, whose runtime is the one in memory.
//!
//! The daemon programs its kernel's services, so it lives in a network namespace that leads nowhere.

use anyhow::{Context, Result, ensure};
use longshore_cri::fake::{Behaviour, FakeRuntime, Model, Options as FakeOptions, Subject};
use longshore_tests::lab::daemon::{Options, binary};
use longshore_tests::lab::net::Namespace;
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{Daemon, Home};
use serde_json::Value;
use std::process::{Command, Output};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// A daemon on a runtime in memory. Fields are dropped in order.
struct Node {
    daemon: Daemon,
    _namespace: Namespace,
    fake: FakeRuntime,
    /// Runs `fake` until it is dropped.
    _runtime: Thread,
    _home: Home,
}

struct Thread(Option<tokio::sync::oneshot::Sender<()>>, Option<std::thread::JoinHandle<()>>);

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.0.take());
        if let Some(t) = self.1.take() {
            let _ = t.join();
        }
    }
}

fn node(script: impl FnOnce(&mut Model)) -> Result<Node> {
    let home = Home::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut model = Model::new();
    model.preload("docker.io/library/app:1");
    script(&mut model);
    let fake = {
        let _inside = runtime.enter();
        FakeRuntime::serve(&home.base().join("cri.sock"), model, FakeOptions::default())?
    };
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        let _ = runtime.block_on(stopped);
    });
    let namespace = Namespace::create(&home, "node")?;
    let mut daemon = Daemon::prepare(&home, Some(&namespace), &fake.endpoint(), Options::default())?;
    daemon.launch()?;
    Ok(Node { daemon, _namespace: namespace, fake, _runtime: Thread(Some(stop), Some(thread)), _home: home })
}

impl Node {
    fn apply(&self, name: &str, spec: &str) -> Result<()> {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name}, labels: {{ app: {name} }} }}\nspec: {spec}\n");
        self.daemon.apply(&format!("{name}.yaml"), &text)
    }

    /// Runs the command line, whatever comes of it.
    fn run(&self, arguments: &[&str]) -> Result<Said> {
        run(&self.daemon.socket().to_string_lossy(), arguments)
    }

    fn wait_for_phase(&self, name: &str, phase: &str) -> Result<Value> {
        let what = format!("in phase {phase}");
        let pod = self.daemon.wait_for_pod(("default", name), &what, SOON, |p| p["status"]["phase"] == phase);
        pod.with_context(|| format!("the daemon logged:\n{}", self.daemon.log()))
    }
}

#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(socket: &str, arguments: &[&str]) -> Result<Said> {
    let Output { status, stdout, stderr } = Command::new(binary()?).args(arguments).args(["--socket", socket]).output()?;
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
    Ok(Said { code: status.code(), out: text(stdout), err: text(stderr) })
}

const ONE: &str = "{ containers: [ { name: main, image: 'app:1' } ] }";

#[test]
fn a_running_pod_shows_in_every_form() -> Result<()> {
    let node = node(|_| {})?;
    node.apply("web", ONE)?;
    let pod = node.wait_for_phase("web", "Running")?;
    assert_eq!((&pod["kind"], &pod["apiVersion"]), (&Value::from("Pod"), &Value::from("v1")));
    assert_eq!(pod["spec"]["nodeName"], "lab");
    assert!(pod["metadata"]["uid"].is_string() && pod["metadata"]["creationTimestamp"].is_string(), "{pod:#}");

    let table = node.run(&["get", "pods"])?.out;
    let words: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(words[1][..4], ["web", "1/1", "Running", "0"]);
    let ip = pod["status"]["podIP"].as_str().context("no address")?;
    let wide = node.run(&["get", "po", "-A", "-o", "wide"])?.out;
    assert!(wide.contains("default     web") && wide.contains(ip) && wide.contains("lab"), "{wide}");
    assert_eq!(node.run(&["get", "pod/web", "-o", "name"])?.out, "pod/web\n");
    let yaml = node.run(&["get", "pod", "web", "-o", "yaml"])?.out;
    assert!(yaml.contains("\n  phase: Running\n") && yaml.starts_with("apiVersion: v1\nkind: Pod\n"), "{yaml}");
    let events = node.run(&["get", "events"])?.out;
    assert!(events.contains("Started") && events.contains("pod/web"), "{events}");
    Ok(())
}

#[test]
fn services_and_their_endpoints_show_without_a_control_plane() -> Result<()> {
    let node = node(|_| {})?;
    node.apply("web", ONE)?;
    let service = "apiVersion: v1\nkind: Service\nmetadata: { name: front }\nspec: { selector: { app: web }, ports: [ { port: 80 } ] }\n";
    node.daemon.apply("service.yaml", service)?;
    let pod = node.wait_for_phase("web", "Running")?;
    let endpoint = format!("{}:80", pod["status"]["podIP"].as_str().context("no address")?);
    let endpoints = || -> Result<_> {
        let said = node.run(&["get", "ep", "front"])?.out;
        Ok(said.contains(&endpoint).then_some(()))
    };
    wait_for("the service has its endpoint", SOON, endpoints)?;
    let table = node.run(&["get", "svc", "--no-headers"])?.out;
    let row: Vec<&str> = table.lines().find(|l| l.starts_with("front")).context("no row")?.split_whitespace().collect();
    assert!(row[1] == "ClusterIP" && row[2].starts_with("10.96.") && row[4] == "80/TCP", "{table}");
    Ok(())
}

#[test]
fn mistakes_are_told_with_their_remedy() -> Result<()> {
    let node = node(|_| {})?;
    let said = node.run(&["get", "pod", "nobody"])?;
    assert_eq!((said.code, said.err.trim()), (Some(1), "error from daemon (NotFound): pods \"nobody\" not found"));
    let said = node.run(&["get", "deployments"])?;
    assert!(said.code == Some(1) && said.err.contains("there are: pods (po)"), "{said:?}");
    let said = node.run(&["get", "pods", "-n", "empty"])?;
    assert_eq!((said.code, said.err.trim()), (Some(0), "No resources found in empty namespace."));
    let said = run("/nowhere/longshore.sock", &["get", "pods"])?;
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("/nowhere/longshore.sock") && said.err.contains("systemctl start longshore"), "{said:?}");
    Ok(())
}

#[test]
fn the_socket_is_for_root_alone() -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let node = node(|_| {})?;
    let mode = std::fs::metadata(node.daemon.socket())?.mode();
    ensure!(mode & 0o777 == 0o600, "mode {mode:o}");
    Ok(())
}

#[test]
fn a_crashing_container_is_counted() -> Result<()> {
    let node = node(|m| m.script(Subject::Image("app:1".into()), Behaviour::exits(10, 3)))?;
    node.apply("crash", ONE)?;
    let crashed = || -> Result<_> {
        let said = node.run(&["get", "pods"])?.out;
        Ok(said.contains("CrashLoopBackOff").then_some(said))
    };
    let table = wait_for("the pod backs off", SOON, crashed).with_context(|| node.daemon.log())?;
    assert!(table.contains("0/1") && table.contains(" ago)"), "{table}");
    ensure!(node.fake.with(|m, _| m.count(longshore_cri::error::Verb::StartContainer)) >= 2);
    Ok(())
}
