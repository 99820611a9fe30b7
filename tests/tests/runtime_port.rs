//! Commands, streams, logs and figures of real containers through the kubelet's own port, as an API server asks for them.

use anyhow::{Context, Result, ensure};
use longshore_tests::lab::daemon::Options;
use longshore_tests::lab::kubelet_port::{ADDRESS, KubeletPort};
use longshore_tests::lab::wait::{wait_for, wait_until};
use longshore_tests::lab::{Daemon, Lab, containerd, image};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn options() -> Options {
    Options { arguments: vec!["--kubelet-bind-address".into(), ADDRESS.into()], ..Options::default() }
}

fn pod(name: &str, script: &str) -> String {
    let image = image::BUSYBOX;
    format!(
        "{{ apiVersion: v1, kind: Pod, metadata: {{ name: {name} }}, spec: {{ terminationGracePeriodSeconds: 1, restartPolicy: Never, \
         containers: [ {{ name: main, image: '{image}', imagePullPolicy: IfNotPresent, stdin: true, command: [ sh, -c, {script:?} ] }} ] }} }}\n"
    )
}

fn on_every_runtime(test: impl Fn(&Daemon, &KubeletPort) -> Result<()>) -> Result<()> {
    for binary in &containerd::Binary::every()? {
        let lab = Lab::with(binary, 1)?;
        let daemon = lab.daemon(options())?;
        let port = KubeletPort::member(&daemon, &lab.network.node, "kube-apiserver-kubelet-client", &["system:masters"])?;
        test(&daemon, &port).with_context(|| format!("on containerd {:?}; the daemon logged:\n{}", binary.version(), daemon.log()))?;
    }
    Ok(())
}

fn uid(daemon: &Daemon, name: &str) -> Result<String> {
    let found = daemon.find("pods", "default", name)?.context("no pod")?;
    Ok(found["metadata"]["uid"].as_str().context("no uid")?.to_owned())
}

#[test]
fn commands_run_and_ports_are_reached_over_spdy_and_websocket() -> Result<()> {
    on_every_runtime(|daemon, port| {
        let serve =
            "mkdir -p /tmp/w; echo from the pod >/tmp/w/index.html; trap 'exit 0' TERM; httpd -p 8080 -h /tmp/w; while :; do sleep 1; done";
        daemon.apply("web.yaml", &pod("web", serve))?;
        daemon.wait_until_ready(("default", "web"), SOON)?;
        let uid = uid(daemon, "web")?;
        let exec = |script: &str| format!("/exec/default/web/main?command=sh&command=-c&command={script}&output=1");

        let (out, end) = port.exec(&exec("echo+hi"), b"")?;
        ensure!(out == "hi\n" && end.contains("\"Success\""), "{out:?} {end:?}");
        let (out, end) = port.exec(&exec("cat&input=1"), b"from stdin")?;
        ensure!(out == "from stdin" && end.contains("Success"), "{out:?} {end:?}");
        let (_, end) = port.exec(&exec("exit+7"), b"")?;
        ensure!(end.contains("ExitCode") && end.contains('7'), "{end}");
        let (out, _) = port.exec(&format!("/exec/default/web/{uid}/main?command=hostname&output=1"), b"")?;
        ensure!(out == "web\n", "{out:?}");

        let said = port.exec_by_websocket(&exec("echo+out;+echo+err+%3E%262&error=1"), "v4.channel.k8s.io")?;
        ensure!(said.iter().any(|s| *s == (1, "out\n".into())) && said.iter().any(|s| *s == (2, "err\n".into())), "{said:?}");
        ensure!(said.iter().any(|(channel, text)| *channel == 3 && text.contains("Success")), "{said:?}");
        let (head, _, rest) = port.upgrade("GET", &exec("id"), "Upgrade: websocket\r\nSec-WebSocket-Protocol: v9.unheard.of\r\n")?;
        ensure!(head.starts_with("HTTP/1.1 400"), "{head}{}", String::from_utf8_lossy(&rest));

        let request = b"GET / HTTP/1.0\r\n\r\n";
        for path in ["/portForward/default/web".to_owned(), format!("/portForward/default/web/{uid}")] {
            let got = port.forward(&path, 8080, request, b"from the pod\n")?;
            ensure!(got.contains("200 OK") && got.ends_with("from the pod\n"), "{got}");
        }
        let ran = port.ask("POST", "/run/default/web/main?cmd=cat%20/etc/hostname", b"")?;
        ensure!(ran.text() == "web\n", "{ran:?}");
        // Nothing to be joined to, by name or by id.
        for path in ["/exec/default/web/other?command=id&output=1", "/exec/default/web/0-0/main?command=id&output=1"] {
            let (head, ..) = port.upgrade("POST", path, "Upgrade: SPDY/3.1\r\n")?;
            ensure!(head.starts_with("HTTP/1.1 4"), "{path}: {head}");
        }
        Ok(())
    })
}

#[test]
fn who_attaches_hears_the_container_and_is_heard() -> Result<()> {
    on_every_runtime(|daemon, port| {
        daemon.apply("echo.yaml", &pod("echo", "while read -r line; do echo heard $line; done"))?;
        daemon.wait_until_ready(("default", "echo"), SOON)?;
        let said = port.attach("/attach/default/echo/main?input=1&output=1", b"hello\n", "heard hello\n")?;
        ensure!(said.ends_with("heard hello\n"), "{said:?}");
        Ok(())
    })
}

#[test]
fn a_followed_log_goes_on_over_rotation_and_ends_with_the_container() -> Result<()> {
    on_every_runtime(|daemon, port| {
        let script = "echo first; while ! [ -e /tmp/second ]; do sleep 0.1; done; echo second; while ! [ -e /tmp/end ]; do sleep 0.1; done; echo last";
        daemon.apply("talk.yaml", &pod("talk", script))?;
        daemon.wait_until_ready(("default", "talk"), SOON)?;
        let mut stream = port.connect()?;
        stream.write_all(b"GET /containerLogs/default/talk/main?follow=true HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut lines = BufReader::new(stream).lines();
        let mut until = |want: &str| -> Result<()> {
            loop {
                match lines.next().with_context(|| format!("it ended before {want:?}"))?? {
                    line if line == want => return Ok(()),
                    _ => {}
                }
            }
        };
        until("first")?;
        let log = daemon.pod_logs().join(format!("default_talk_{}/main/0.log", uid(daemon, "talk")?));
        // As a rotation does: moved away, and made anew by the runtime, which this daemon asks for in its own time. The
        // line after it is written by the runtime to the file that it holds, so the new one is made by hand.
        let old = std::fs::read(&log)?;
        std::fs::rename(&log, log.with_extension("log.20261120-100000"))?;
        std::fs::write(&log, b"2026-11-20T10:00:00Z stdout F in the new file\n")?;
        until("in the new file")?;
        ensure!(!old.is_empty());
        port.exec("/exec/default/talk/main?command=touch&command=/tmp/second&command=/tmp/end&output=1", b"")?;
        // The end of the answer is that of the container.
        for line in lines.by_ref() {
            line?;
        }
        daemon.wait_for_pod(("default", "talk"), "over", SOON, |p| p["status"]["phase"] == "Succeeded")?;
        Ok(())
    })
}

#[test]
fn figures_of_a_container_are_those_of_its_work() -> Result<()> {
    on_every_runtime(|daemon, port| {
        let busy = "dd if=/dev/zero of=/tmp/file bs=1M count=8 2>/dev/null; echo a line; trap 'exit 0' TERM; while :; do :; done";
        daemon.apply("busy.yaml", &pod("busy", busy))?;
        daemon.wait_until_ready(("default", "busy"), SOON)?;
        let summary = || -> Result<Value> { Ok(serde_json::from_str(&port.get("/stats/summary")?)?) };
        let cpu = |s: &Value| s["pods"][0]["containers"][0]["cpu"]["usageCoreNanoSeconds"].as_u64();
        let first = summary()?;
        let before = cpu(&first).with_context(|| format!("{first:#}"))?;
        // It does nothing but burn.
        let after = wait_for("it has used more", SOON, || -> Result<_> {
            let now = summary()?;
            let rate = now["pods"][0]["containers"][0]["cpu"]["usageNanoCores"].as_u64();
            Ok((cpu(&now) > Some(before + 500_000_000) && rate.is_some_and(|r| r > 1_000_000)).then_some(now))
        })?;
        let (pod, container) = (&after["pods"][0], &after["pods"][0]["containers"][0]);
        ensure!(pod["podRef"]["name"] == "busy" && container["name"] == "main", "{after:#}");
        for (what, of) in [("pod", pod), ("container", container)] {
            let memory = of["memory"]["workingSetBytes"].as_u64().unwrap_or(0);
            ensure!(memory > 4096 && memory < 1 << 30, "{what}: {of:#}");
        }
        ensure!(pod["cpu"]["usageCoreNanoSeconds"].as_u64() >= Some(before), "{pod:#}");
        ensure!(pod["process_stats"]["process_count"].as_u64() >= Some(1), "{pod:#}");
        ensure!(pod["network"]["interfaces"].as_array().is_some_and(|i| i.iter().any(|i| i["name"] == "eth0")), "{pod:#}");
        ensure!(container["logs"]["usedBytes"].as_u64() > Some(0), "{container:#}");
        // The runtime measures layers in its own time.
        wait_until("what it wrote into its layer is told", SOON, || {
            summary().is_ok_and(|s| s["pods"][0]["containers"][0]["rootfs"]["usedBytes"].as_u64() >= Some(8 << 20))
        })?;
        let page = port.get("/metrics/resource")?;
        let of = "container_cpu_usage_seconds_total{container=\"main\",namespace=\"default\",pod=\"busy\"} ";
        let used = page.lines().find_map(|l| l.strip_prefix(of)).with_context(|| page.clone())?;
        ensure!(used.split(' ').next().context("no value")?.parse::<f64>()? > 0.5, "{used}");
        ensure!(port.get("/metrics/cadvisor")?.contains("container_memory_usage_bytes{container=\"main\""));
        Ok(())
    })
}
