//! The kubelet's own port of a running daemon, whose runtime is the one in memory: what each endpoint tells, and to whom.
//! That every endpoint takes the right credentials and no others is shown in `agent/tests/port`.

use anyhow::{Context, Result, ensure};
use longshore_cri::fake::{ExecScript, Model, Options as FakeOptions};
use longshore_tests::lab::FakeNode;
use longshore_tests::lab::client;
use longshore_tests::lab::daemon::Options;
use longshore_tests::lab::fake_node::ONE;
use longshore_tests::lab::kubelet_port::{ADDRESS, KubeletPort};
use longshore_tests::lab::wait::wait_until;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn node_with(arguments: &[&str], script: impl FnOnce(&mut Model)) -> Result<FakeNode> {
    let mut all = vec!["--kubelet-bind-address".to_owned(), ADDRESS.to_owned()];
    all.extend(arguments.iter().map(|a| (*a).to_owned()));
    FakeNode::start(Options { arguments: all, ..Options::default() }, FakeOptions::default(), script)
}

fn admin(node: &FakeNode) -> Result<KubeletPort<'_>> {
    KubeletPort::member(&node.daemon, &node.namespace, "kube-apiserver", &["system:masters"])
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| text.to_owned())
}

#[test]
fn the_port_tells_of_pods_configuration_and_figures() -> Result<()> {
    let node = node_with(&["--max-pods", "7"], |_| {})?;
    node.apply("web", ONE)?;
    let shown = node.wait_for_phase("web", "Running")?;
    let port = admin(&node)?;

    let pods = json(&port.get("/pods")?)?;
    ensure!(pods["kind"] == "PodList" && pods["apiVersion"] == "v1", "{pods:#}");
    let web = &pods["items"][0];
    ensure!(web["metadata"]["uid"] == shown["metadata"]["uid"] && web["status"]["phase"] == "Running", "{web:#}");
    let running = json(&port.get("/runningpods/")?)?;
    let container = &running["items"][0]["spec"]["containers"][0];
    ensure!(running["items"][0]["metadata"]["name"] == "web" && container["name"] == "main", "{running:#}");

    let config = json(&port.get("/configz")?)?["kubeletconfig"].clone();
    ensure!(config["maxPods"] == 7 && config["kind"] == "KubeletConfiguration" && config["port"] == 10250, "{config:#}");
    ensure!(port.get("/flagz")?.contains("max-pods=7"));
    ensure!(port.get("/statusz")?.contains("kubelet statusz"));

    let metrics = port.get("/metrics")?;
    for line in ["kubelet_running_pods 1", "kubelet_running_containers{container_state=\"running\"} 1", "kubelet_node_name{node=\"lab\"} 1"]
    {
        ensure!(metrics.lines().any(|l| l == line), "no {line}:\n{metrics}");
    }
    let resource = port.get("/metrics/resource")?;
    let cpu = resource.lines().find_map(|l| l.strip_prefix("node_cpu_usage_seconds_total ")).context(resource.clone())?;
    ensure!(cpu.split(' ').next().context("no value")?.parse::<f64>()? > 0.0, "{cpu}");
    let summary = json(&port.get("/stats/summary")?)?;
    ensure!(summary["node"]["nodeName"] == "lab" && summary["node"]["memory"]["workingSetBytes"].as_u64() > Some(0), "{summary:#}");
    ensure!(summary["pods"][0]["podRef"]["name"] == "web", "{summary:#}");
    ensure!(port.get("/metrics/cadvisor")?.contains("machine_memory_bytes "));

    // What was asked for health until now shows.
    let health = client::get;
    node.namespace.enter(|| -> Result<()> {
        ensure!(health("127.0.0.1:10248".parse()?, "/healthz", SOON)? == "ok");
        ensure!(client::connect("127.0.0.1:10255".parse()?, SOON).is_err(), "there is a read-only port");
        Ok(())
    })??;
    ensure!(port.get("/metrics/slis")?.contains("kubernetes_healthcheck{name=\"syncloop\",type=\"healthz\"} 1"));
    let request = client::Request { path: "/api/v1/nodes/lab", ..client::Request::default() };
    let shown = json(&client::http_on(&node.daemon.socket(), &request, SOON)?.text())?;
    ensure!(shown["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 10250, "{shown:#}");
    Ok(())
}

#[test]
fn probes_are_counted_by_how_they_came_out() -> Result<()> {
    let answer = ExecScript { exit_code: 0, ..ExecScript::default() };
    let node = node_with(&[], |m| m.script_exec("main", &["check"], answer))?;
    node.apply(
        "web",
        "{ containers: [ { name: main, image: 'app:1', readinessProbe: { periodSeconds: 1, exec: { command: [check] } } } ] }",
    )?;
    node.wait_for_phase("web", "Running")?;
    let port = admin(&node)?;
    let counted = || {
        port.get("/metrics/probes").is_ok_and(|page| {
            let of = |l: &&str| {
                l.contains("container=\"main\"") && l.contains("probe_type=\"Readiness\"") && l.contains("result=\"successful\"")
            };
            page.lines().any(|l| of(&l))
        })
    };
    wait_until("a probe is counted", SOON, counted)
}

#[test]
fn logs_are_read_with_every_option_and_end_with_the_container() -> Result<()> {
    let node = node_with(&[], |_| {})?;
    node.apply("web", ONE)?;
    node.wait_for_phase("web", "Running")?;
    let port = admin(&node)?;
    let pods = json(&port.get("/pods")?)?;
    let uid = pods["items"][0]["metadata"]["uid"].as_str().context("no uid")?.to_owned();
    let log = node.daemon.pod_logs().join(format!("default_web_{uid}/main/0.log"));
    let lines = "2026-11-20T10:00:00.5Z stdout F one\n2026-11-20T10:00:01Z stderr F two\n2026-11-20T10:00:02Z stdout F three\n";
    std::fs::write(&log, lines).with_context(|| log.display().to_string())?;
    let path = "/containerLogs/default/web/main";
    for (query, want) in [
        ("", "one\ntwo\nthree\n"),
        ("?tailLines=1", "three\n"),
        ("?tail=all", "one\ntwo\nthree\n"),
        ("?tail=2", "two\nthree\n"),
        ("?sinceTime=2026-11-20T10:00:01Z", "two\nthree\n"),
        ("?limitBytes=5", "one\nt"),
        ("?timestamps=true&tailLines=1", "2026-11-20T10:00:02.000000000Z three\n"),
        ("?stream=Stderr", "two\n"),
    ] {
        ensure!(port.get(&format!("{path}{query}"))? == want, "{query}");
    }
    let refused = |query: &str| port.ask("GET", &format!("{path}{query}"), b"").map(|a| (a.status, a.text()));
    ensure!(refused("?previous=true")?.1 == "previous terminated container \"main\" in pod \"web\" not found");
    ensure!(refused("?sinceSeconds=1&sinceTime=2026-11-20T10:00:01Z")?.0 == 400);
    let answer = port.ask("GET", "/containerLogs/default/web/side", b"")?;
    ensure!((answer.status, answer.text().as_str()) == (404, "container \"side\" not found in pod \"web\""), "{answer:?}");
    Ok(())
}

#[test]
fn commands_are_run_and_what_fails_says_how() -> Result<()> {
    let say = |code: i32, out: &[u8], err: &[u8]| ExecScript {
        exit_code: code,
        stdout: out.to_vec(),
        stderr: err.to_vec(),
        ..ExecScript::default()
    };
    let node = node_with(&[], |m| {
        m.script_exec("main", &["echo", "hi"], say(0, b"hi\n", b"oh\n"));
        m.script_exec("main", &["false"], say(3, b"", b"no\n"));
    })?;
    node.apply("web", ONE)?;
    node.wait_for_phase("web", "Running")?;
    let port = admin(&node)?;
    let ran = port.ask("POST", "/run/default/web/main?cmd=echo%20hi", b"")?;
    ensure!((ran.status, ran.text().as_str()) == (200, "hi\noh\n"), "{ran:?}");
    let ran = port.ask("POST", "/run/default/web/main?cmd=false", b"")?;
    ensure!((ran.status, ran.text().as_str()) == (500, "command 'false' exited with 3: no\n"), "{ran:?}");
    let checkpoint = port.ask("POST", "/checkpoint/default/web/main", b"")?;
    ensure!(checkpoint.status == 404 && checkpoint.text().contains("the runtime makes no checkpoints"), "{checkpoint:?}");
    // No stream without another protocol, no tunnel where the runtime's server is not there.
    let plain = port.ask("POST", "/exec/default/web/main?command=id&output=1", b"")?;
    ensure!(plain.status == 400 && plain.text().contains("unable to upgrade"), "{plain:?}");
    let (head, ..) = port.upgrade("POST", "/exec/default/web/main?command=echo&command=hi&output=1", "Upgrade: SPDY/3.1\r\n")?;
    ensure!(head.starts_with("HTTP/1.1 502"), "{head}");
    Ok(())
}

/// What takes journalctl's place tells which arguments it was given, one a line.
#[test]
fn the_journal_is_asked_without_a_shell_and_only_where_that_is_allowed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, journal) = (dir.path().join("config.yaml"), dir.path().join("journalctl"));
    std::fs::write(&config, "enableSystemLogQuery: true\n")?;
    std::fs::write(&journal, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n")?;
    std::fs::set_permissions(&journal, std::fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap_or_default());
    let arguments = ["--kubelet-bind-address", ADDRESS, "--kubelet-config", &config.to_string_lossy()].map(str::to_owned).to_vec();
    let options = Options { arguments, environment: vec![("PATH".into(), path)], ..Options::default() };
    let node = FakeNode::start(options, FakeOptions::default(), |_| {})?;
    let port = admin(&node)?;
    let said = port.get("/logs/?query=kubelet&tailLines=2&pattern=%24(id)%20%22x")?;
    let want = "--utc\n--no-pager\n--output=short-precise\n--lines=2\n--unit=kubelet\n--grep=$(id) \"x\n--case-sensitive=false\n";
    ensure!(said == want, "{said}");
    let refused = port.ask("GET", "/logs/?query=--root", b"")?;
    ensure!(refused.status == 400 && refused.text().contains("a service's name"), "{refused:?}");
    Ok(())
}

#[test]
fn tokens_and_roles_of_the_node_hold_at_the_port() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (tokens, roles) = (dir.path().join("tokens"), dir.path().join("roles.yaml"));
    std::fs::write(&tokens, "t-admin,alice,1\nt-viewer,eve,2,\"ops\"\n")?;
    std::fs::write(&roles, "admin: [user:alice]\nviewer: ['group:ops']\n")?;
    let (t, r) = (tokens.to_string_lossy(), roles.to_string_lossy());
    let node = node_with(&["--api-token-file", &t, "--api-role-file", &r], |_| {})?;
    let status = |port: &KubeletPort, path: &str| port.ask("GET", path, b"").map(|a| a.status);
    let (alice, eve) =
        (KubeletPort::token(&node.daemon, &node.namespace, "t-admin")?, KubeletPort::token(&node.daemon, &node.namespace, "t-viewer")?);
    for (path, viewer) in [("/pods", 200), ("/stats/summary", 200), ("/metrics", 200), ("/configz", 403), ("/logs/", 403)] {
        ensure!((status(&alice, path)?, status(&eve, path)?) == (200, viewer), "{path}");
        ensure!(status(&KubeletPort::new(&node.daemon, &node.namespace)?, path)? == 401, "{path}");
        ensure!(status(&KubeletPort::token(&node.daemon, &node.namespace, "t-other")?, path)? == 401, "{path}");
        ensure!(status(&KubeletPort::member(&node.daemon, &node.namespace, "mallory", &[])?, path)? == 403, "{path}");
    }
    Ok(())
}

#[test]
fn the_log_says_more_when_it_is_told_to() -> Result<()> {
    let node = node_with(&[], |_| {})?;
    let port = admin(&node)?;
    let said = port.ask("PUT", "/debug/flags/v", b"4")?;
    ensure!((said.status, said.text().as_str()) == (200, "successfully set klog.logging.verbosity to 4"), "{said:?}");
    node.apply("web", ONE)?;
    node.wait_for_phase("web", "Running")?;
    // A handshake that fails is worth a line only to who looks for faults.
    node.namespace.enter(|| client::tcp(ADDRESS.parse().expect("an address"), b"no TLS at all\r\n\r\n", SOON).ok())?;
    wait_until("it is told", SOON, || node.daemon.log().contains("a TLS handshake failed"))
}

#[test]
fn a_wrong_configuration_of_the_port_is_told_at_the_start() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("config.yaml");
    for (text, told) in [
        ("tlsMinVersion: VersionTLS10\n", "tlsMinVersion: \"VersionTLS10\" is not spoken here"),
        ("tlsCipherSuites: [TLS_RSA_WITH_RC4_128_SHA]\n", "tlsCipherSuites"),
        ("authentication: { x509: { clientCAFile: /nowhere/ca.crt } }\n", "/nowhere/ca.crt"),
        ("readOnlyPort: many\n", "readOnlyPort"),
    ] {
        std::fs::write(&config, text)?;
        let failed = node_with(&["--kubelet-config", &config.to_string_lossy()], |_| {});
        let error = format!("{:#}", failed.err().context("it started")?);
        ensure!(error.contains(told), "{text}: {error}");
    }
    Ok(())
}
