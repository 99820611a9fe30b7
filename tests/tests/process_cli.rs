//! The command line against a running daemon, whose runtime is the one in memory.
//!
//! The daemon programs its kernel's services, so it lives in a network namespace that leads nowhere.

use anyhow::{Context, Result, ensure};
use longshore_cri::fake::{Behaviour, ExecScript, Model, Options as FakeOptions, RemoteImage, Subject};
use longshore_tests::lab::FakeNode;
use longshore_tests::lab::daemon::{Options, binary};
use longshore_tests::lab::fake_node::{ONE, run};
use longshore_tests::lab::wait::wait_for;
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn node(script: impl FnOnce(&mut Model)) -> Result<FakeNode> {
    node_with(Options::default(), script)
}

fn node_with(options: Options, script: impl FnOnce(&mut Model)) -> Result<FakeNode> {
    FakeNode::start(options, FakeOptions::default(), script)
}

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
    node.apply("lost", "{ containers: [ { name: main, image: 'lost:1' } ] }")?;
    let pull_fails = || -> Result<_> {
        let said = node.run(&["logs", "lost"])?;
        ensure!(said.err.contains("container \"main\" in pod \"lost\" is waiting to start: trying and failing to pull image"), "{said:?}");
        Ok(Some(said.code))
    };
    assert_eq!(wait_for("the pull fails", SOON, pull_fails)?, Some(1));
    let said = node.run(&["exec", "lost", "--", "ls"])?;
    assert!(
        said.code == Some(1) && said.err.contains("container not found (\"main\")") && said.err.contains("longshore why lost"),
        "{said:?}"
    );
    node.apply("bad", "{ containers: [ { name: main } ] }")?;
    node.daemon.apply("front.yaml", "apiVersion: v1\nkind: Service\nmetadata: { name: front }\nspec: { ports: [ { port: 0 } ] }\n")?;
    node.daemon.apply("torn.yaml", "kind: [")?;
    for (object, what) in [("pod/bad", "spec.containers[0].image"), ("service/front", "spec.ports[0].port"), ("node/lab", "torn.yaml")] {
        wait_for("what is refused shows as an event", SOON, || -> Result<_> {
            let said = node.run(&["get", "events"])?;
            let told = said.out.lines().any(|l| l.contains("FailedValidation") && l.contains(object) && l.contains(what));
            ensure!(told, "{object}: {said:?}");
            Ok(Some(()))
        })?;
    }
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

#[test]
fn logs_are_read_cut_and_followed_over_restarts() -> Result<()> {
    let lines = |n: &[&str]| n.iter().map(|l| (*l).to_owned()).collect();
    let node = node(|m| {
        let run = |attempt| Subject::Run { pod: "talk".into(), container: "main".into(), attempt };
        m.script(run(0), Behaviour { output: lines(&["one", "two", "three"]), ..Behaviour::exits(300, 1) });
        m.script(run(1), Behaviour { output: lines(&["again"]), ..Behaviour::default() });
    })?;
    node.apply("talk", ONE)?;
    node.wait_for_phase("talk", "Running")?;
    let socket = node.daemon.socket();
    let mut follow = Command::new(binary()?)
        .args(["logs", "-f", "pod/talk", "--socket"])
        .arg(&socket)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot follow")?;
    let mut followed = BufReader::new(follow.stdout.take().context("piped above")?).lines();
    for want in ["one", "two", "three", "again"] {
        assert_eq!(followed.next().context("the log ended")??, want);
    }
    assert_eq!(node.run(&["logs", "talk"])?.out, "again\n");
    assert_eq!(node.run(&["logs", "-p", "talk", "--tail", "2"])?.out, "two\nthree\n");
    assert_eq!(node.run(&["logs", "-p", "talk", "--limit-bytes", "5"])?.out, "one\nt");
    let stamped = node.run(&["logs", "talk", "--timestamps"])?.out;
    assert!(stamped.ends_with("Z again\n") && stamped.starts_with("20"), "{stamped}");
    assert_eq!(node.run(&["logs", "talk", "--since-time", "2999-01-01T00:00:00Z"])?.out, "");
    let said = node.run(&["logs", "talk", "-c", "other"])?;
    assert!(said.code == Some(1) && said.err.contains("container other is not valid for pod talk; it has: main"), "{said:?}");

    let log = node.daemon.pod_logs();
    let log = std::fs::read_dir(&log)?.flatten().next().context("no log directory")?.path().join("main/1.log");
    let rotated = log.with_extension("log.20260101-000000");
    std::fs::rename(&log, &rotated)?;
    std::fs::write(&log, "2026-11-20T10:00:00Z stdout P after \n2026-11-20T10:00:00Z stdout F rotation\n")?;
    assert_eq!(followed.next().context("the log ended")??, "after rotation");
    node.daemon.remove("talk.yaml")?;
    assert!(followed.next().is_none(), "it ends with the pod");
    assert!(follow.wait()?.success());
    Ok(())
}

#[test]
fn why_names_the_reason_of_the_moment() -> Result<()> {
    let node = node(|m| m.script(Subject::Image("app:1".into()), Behaviour::exits(10, 3)))?;
    node.apply("crash", ONE)?;
    node.apply("lost", "{ containers: [ { name: main, image: 'lost:1' } ] }")?;
    let says = |pod: &str, want: &str| {
        let asked = || -> Result<_> {
            let said = node.run(&["why", pod])?;
            ensure!(said.out.contains(want), "{said:?}");
            Ok(Some(said.out))
        };
        wait_for(&format!("why {pod} says {want:?}"), SOON, asked)
    };
    let text = says("pod/crash", "exited 3 for the")?;
    assert!(text.starts_with("pod default/crash: Running, not ready\n") && text.contains("container main: restarting in "), "{text}");
    says("lost", "lost:1")?;
    let said = node.run(&["why", "nobody"])?;
    assert!(said.code == Some(1) && said.err.contains("pods \"nobody\" not found; if its manifest is there, longshore check"), "{said:?}");
    Ok(())
}

#[test]
fn why_tells_of_pulls_probes_and_ends() -> Result<()> {
    let node = node(|m| {
        m.publish("docker.io/library/slow:1", RemoteImage { pull_ms: 600_000, ..RemoteImage::default() });
        m.script_exec("main", &[], ExecScript { exit_code: 1, stderr: b"not yet".to_vec(), ..ExecScript::default() });
        m.script(Subject::Image("app:1".into()), Behaviour::ignores_term());
    })?;
    let probe = "{ exec: { command: [ check ] }, periodSeconds: 1, failureThreshold: 2 }";
    node.apply("probed", &format!("{{ containers: [ {{ name: main, image: 'app:1', readinessProbe: {probe} }} ] }}"))?;
    node.apply("pulled", "{ containers: [ { name: main, image: 'slow:1' } ] }")?;
    let says = |pod: &str, want: &str| {
        let asked = || -> Result<_> {
            let said = node.run(&["why", pod])?;
            ensure!(said.out.contains(want), "{said:?}");
            Ok(Some(said.out))
        };
        wait_for(&format!("why {pod} says {want:?}"), SOON, asked)
    };
    says("pulled", "container main: waiting for image slow:1: pull for ")?;
    says("probed", "container main: readiness probe failing 2/2, not ready: not yet")?;
    node.daemon.remove("probed.yaml")?;
    let text = says("probed", "because its manifest is gone; ")?;
    assert!(text.contains("of its grace left") && text.contains("stop container main within 30s"), "{text}");
    Ok(())
}

#[test]
fn the_supervisor_is_told_of_readiness_and_life() -> Result<()> {
    let place = tempfile::tempdir()?;
    let path = place.path().join("notify");
    let supervisor = std::os::unix::net::UnixDatagram::bind(&path)?;
    supervisor.set_read_timeout(Some(SOON))?;
    let environment = vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string()), ("WATCHDOG_USEC".to_owned(), "300000".to_owned())];
    let _node = node_with(Options { environment, ..Options::default() }, |_| {})?;
    let heard = || -> Result<String> {
        let mut buffer = [0; 256];
        let n = supervisor.recv(&mut buffer).context("the daemon says nothing")?;
        Ok(String::from_utf8_lossy(&buffer[..n]).trim().to_owned())
    };
    assert_eq!([heard()?, heard()?, heard()?], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    Ok(())
}

#[test]
fn another_user_is_turned_away_whatever_the_mode() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let node = node(|_| {})?;
    let socket = node.daemon.socket();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666))?;
    // A copy where every user may reach it.
    let open = tempfile::tempdir()?;
    std::fs::set_permissions(open.path(), std::fs::Permissions::from_mode(0o755))?;
    let program = open.path().join("longshore");
    // By another process: a file that this one writes is still open in what other tests fork meanwhile, and cannot be run.
    ensure!(Command::new("cp").arg(binary()?).arg(&program).status()?.success());
    let mut c = Command::new(&program);
    c.args(["get", "pods", "--socket"]).arg(&socket).uid(65534).gid(65534);
    let Output { status, stderr, .. } = c.output()?;
    let err = String::from_utf8_lossy(&stderr);
    assert!(status.code() == Some(1) && err.contains("the daemon broke off"), "{err}");
    wait_for("the daemon tells of it", SOON, || Ok::<_, &str>(node.daemon.log().contains("turned away").then_some(())))
}

#[test]
fn a_changed_label_is_seen_by_watchers_and_services() -> Result<()> {
    let node = node(|_| {})?;
    node.apply("web", ONE)?;
    let service = "apiVersion: v1\nkind: Service\nmetadata: { name: front }\nspec: { selector: { app: new }, ports: [ { port: 80 } ] }\n";
    node.daemon.apply("service.yaml", service)?;
    node.wait_for_phase("web", "Running")?;
    let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{ name: web, labels: {{ app: new }} }}\nspec: {ONE}\n");
    node.daemon.apply("web.yaml", &text)?;
    let endpoints = || -> Result<_> { Ok(node.run(&["get", "ep", "front"])?.out.contains(":80").then_some(())) };
    wait_for("the service has the pod", SOON, endpoints)
}

#[test]
fn a_pod_is_described_with_its_events() -> Result<()> {
    let node = node(|_| {})?;
    node.apply("web", ONE)?;
    node.wait_for_phase("web", "Running")?;
    let text = node.run(&["describe", "pod/web"])?.out;
    for want in ["Name:             web\n", "Labels:           app=web\n", "State:          Running\n", "Container started\n"] {
        assert!(text.contains(want), "{want:?} is not in\n{text}");
    }
    Ok(())
}

#[test]
fn a_watch_tells_of_pods_that_come_and_go() -> Result<()> {
    let node = node(|_| {})?;
    node.apply("first", ONE)?;
    node.wait_for_phase("first", "Running")?;
    let mut watch = Command::new(binary()?)
        .args(["get", "pods", "-w", "--socket"])
        .arg(node.daemon.socket())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot watch")?;
    let mut lines = BufReader::new(watch.stdout.take().context("piped above")?).lines();
    let mut until = |what: &str| -> Result<()> {
        loop {
            let line = lines.next().context("the watch ended")??;
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.starts_with(&what.split(' ').collect::<Vec<_>>()) {
                return Ok(());
            }
        }
    };
    until("NAME READY STATUS")?;
    until("first 1/1 Running")?;
    node.apply("second", ONE)?;
    until("second 1/1 Running")?;
    node.daemon.remove("first.yaml")?;
    until("first 1/1 Terminating")?;
    watch.kill()?;
    watch.wait()?;
    Ok(())
}

#[test]
fn a_second_daemon_is_told_who_is_first() -> Result<()> {
    let node = node(|_| {})?;
    let state = node.daemon.state_directory();
    let elsewhere = state.with_file_name("run2");
    let mut second = node.namespace.command(binary()?);
    second.args(["run", "--state-dir"]).arg(&state).arg("--run-dir").arg(&elsewhere);
    let Output { status, stderr, .. } = second.output()?;
    let err = String::from_utf8_lossy(&stderr);
    let pid = node.daemon.pid().context("it runs")?;
    assert!(status.code() == Some(1) && err.contains(&format!("in use by another longshore (process {pid})")), "{err}");
    Ok(())
}

#[test]
fn a_stop_is_prompt_and_leaves_containers_running() -> Result<()> {
    let mut node = node(|_| {})?;
    node.apply("web", ONE)?;
    node.wait_for_phase("web", "Running")?;
    let status = node.daemon.stop()?.context("it ran")?;
    assert_eq!(status.code(), Some(0));
    assert_eq!(node.fake.with(|m, _| m.count(longshore_cri::error::Verb::StopContainer)), 0);
    // Nobody finds the copy of the listener that a program which was just being started has for a moment.
    ensure!(!node.daemon.socket().exists(), "the socket is still there");
    let said = node.run(&["get", "pods"])?;
    assert!(said.code == Some(1) && said.err.contains("Is it running?"), "{said:?}");
    node.daemon.launch()?;
    let pod = node.wait_for_phase("web", "Running")?;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    Ok(())
}

#[test]
fn the_command_line_explains_itself() -> Result<()> {
    let said = run("/nowhere", &["completion", "bash"]);
    // `--socket` is no option of a command that needs no daemon.
    ensure!(said?.code == Some(2));
    let Output { status, stdout, .. } = Command::new(binary()?).args(["completion", "bash"]).output()?;
    assert!(status.success() && String::from_utf8_lossy(&stdout).contains("describe"));
    let help = Command::new(binary()?).args(["logs", "--help"]).output()?;
    assert!(String::from_utf8_lossy(&help.stdout).contains("Examples:"));
    Ok(())
}
