//! The command line on real runtimes: commands in containers, and logs as a runtime writes them.

use anyhow::{Context, Result, ensure};
use longshore_tests::lab::daemon::{Options, binary};
use longshore_tests::lab::{Daemon, Lab, containerd, image};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// A pod whose only container runs a shell script.
fn manifest(name: &str, script: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: {}
    imagePullPolicy: IfNotPresent
    command: [ sh, -c, {script:?} ]
",
        image::BUSYBOX
    )
}

fn on_every_runtime(test: impl Fn(&Daemon) -> Result<()>) -> Result<()> {
    for binary in &containerd::Binary::every()? {
        let lab = Lab::with(binary, 1)?;
        let daemon = lab.daemon(Options::default())?;
        test(&daemon).with_context(|| format!("on containerd {:?}; the daemon logged:\n{}", binary.version(), daemon.log()))?;
    }
    Ok(())
}

fn command(daemon: &Daemon, arguments: &[&str]) -> Result<Command> {
    let mut c = Command::new(binary()?);
    c.env("LONGSHORE_SOCKET", daemon.socket()).args(arguments);
    Ok(c)
}

fn run(daemon: &Daemon, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let Output { status, stdout, stderr } = command(daemon, arguments)?.stdin(Stdio::null()).output()?;
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
    Ok((status.code(), text(stdout), text(stderr)))
}

#[test]
fn commands_run_in_containers_with_their_streams_and_exit_codes() -> Result<()> {
    on_every_runtime(|daemon| {
        daemon.apply("web.yaml", &manifest("web", "trap exit TERM; while :; do sleep 1; done"))?;
        daemon.wait_until_ready(("default", "web"), SOON)?;
        let said = run(daemon, &["exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7"])?;
        assert_eq!(said, (Some(7), "out\n".into(), "err\n".into()));
        let (code, _, err) = run(daemon, &["exec", "web", "--", "no-such-program"])?;
        ensure!(code != Some(0) && err.contains("no-such-program"), "{code:?} {err}");

        // Standard input has an end, and what it is fed comes back whole.
        let mut cat = command(daemon, &["exec", "-i", "web", "--", "cat"])?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let fed: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).take(4_000_000).collect();
        let mut input = cat.stdin.take().context("piped above")?;
        let sent = fed.clone();
        let feeder = std::thread::spawn(move || input.write_all(&sent));
        let Output { status, stdout, .. } = cat.wait_with_output()?;
        feeder.join().expect("the feeder does not panic")?;
        ensure!(status.success() && stdout == fed, "{status}: {} of {} bytes came back", stdout.len(), fed.len());
        Ok(())
    })
}

#[test]
fn a_terminal_in_a_container_has_the_size_of_ours() -> Result<()> {
    on_every_runtime(|daemon| {
        daemon.apply("web.yaml", &manifest("web", "trap exit TERM; while :; do sleep 1; done"))?;
        daemon.wait_until_ready(("default", "web"), SOON)?;
        // script(1) gives the command line a terminal of its own.
        let size =
            "tty >/dev/null && n=0 && while [ \"$(stty size)\" != '33 99' ] && [ $n -lt 100 ]; do n=$((n+1)); sleep 0.1; done; stty size";
        let line = format!("stty rows 33 cols 99; {} exec -it web -- sh -c '{}'", binary()?.display(), size.replace('\'', "'\\''"));
        let mut with_terminal = Command::new("script");
        with_terminal.args(["-q", "-e", "-c", &line, "/dev/null"]).env("LONGSHORE_SOCKET", daemon.socket()).stdin(Stdio::null());
        let Output { stdout, .. } = with_terminal.output().context("script(1) is part of util-linux")?;
        let text = String::from_utf8_lossy(&stdout);
        ensure!(text.contains("33 99"), "{text:?}");
        Ok(())
    })
}

#[test]
fn logs_are_followed_over_a_restart() -> Result<()> {
    on_every_runtime(|daemon| {
        let script = "echo run; sleep 0.3; exit 1";
        daemon.apply("talk.yaml", &manifest("talk", script))?;
        daemon.wait_for_pod(("default", "talk"), "started", SOON, |p| p["status"]["containerStatuses"][0]["containerID"].is_string())?;
        let mut child: Child = command(daemon, &["logs", "-f", "talk", "--timestamps"])?.stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("piped above")?).lines();
        let mut times = Vec::new();
        for _ in 0..2 {
            let line = lines.next().context("the log ended")??;
            let (time, text) = line.split_once(' ').context("no time in front")?;
            assert_eq!(text, "run");
            times.push(time.to_owned());
        }
        ensure!(times[0] < times[1], "{times:?}");
        child.kill()?;
        child.wait()?;
        Ok(())
    })
}

#[test]
fn other_protocols_pass_through_to_the_runtime() -> Result<()> {
    on_every_runtime(|daemon| {
        daemon.apply("web.yaml", &manifest("web", "trap exit TERM; while :; do sleep 1; done"))?;
        daemon.wait_until_ready(("default", "web"), SOON)?;
        let mut socket = UnixStream::connect(daemon.socket())?;
        socket.set_read_timeout(Some(SOON))?;
        let path = "/api/v1/namespaces/default/pods/web/exec?command=echo&command=over+there&stdout=true";
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let asked = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        );
        socket.write_all(asked.as_bytes())?;
        // Channel 1 is standard output; channel 3 tells how the command ended.
        let (mut heard, mut chunk) = (Vec::new(), [0; 4096]);
        let has = |heard: &[u8], what: &[u8]| heard.windows(what.len()).any(|w| w == what);
        while !(has(&heard, b"\x01over there\n") && has(&heard, b"\x03{\"metadata\":{},\"status\":\"Success\"")) {
            let n = socket.read(&mut chunk)?;
            ensure!(n > 0, "it ended with {}", String::from_utf8_lossy(&heard));
            heard.extend_from_slice(&chunk[..n]);
        }
        ensure!(heard.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&heard));
        Ok(())
    })
}
