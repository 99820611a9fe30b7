//! `make run` in its sandbox: it shows a working node, and nothing of it stays.

use anyhow::{Context, Result};
use longshore_tests::lab::wait::wait_until;
use longshore_tests::lab::{Lab, containerd, home, net, pods};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn tool(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore-lab"));
    command.args(["--name", name]).args(arguments).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts it and reads on until everything has answered.
fn up(name: &str) -> Result<Child> {
    let mut child = tool(name, &["up", "--sandbox"]).stderr(Stdio::inherit()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
    let invited = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("Try it")));
    // The rest must not meet a closed pipe.
    std::thread::spawn(move || lines.for_each(drop));
    invited.context("it left before everything had answered")??;
    Ok(child)
}

fn nothing_is_left(name: &str) {
    assert!(!home::exists(name));
    assert!(net::namespaces(name).is_empty());
}

#[test]
fn every_containerd_serves_the_example_node() -> Result<()> {
    for (at, binary) in containerd::Binary::every()?.iter().enumerate() {
        let name = format!("demo-{}-{at}", std::process::id());
        let path = binary.path().display().to_string();
        let output = tool(&name, &["up", "--sandbox", "--once", "--containerd", &path]).output()?;
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        for from in ["on the node", "in the pod client", "on the host outside"] {
            assert_eq!(said.matches(&format!("{from}, http://")).count(), 2, "{said}");
        }
        assert_eq!(said.matches("Hello from a machine without a control plane.").count(), 6, "{said}");
        nothing_is_left(&name);
    }
    Ok(())
}

#[test]
fn an_interrupt_takes_everything_down() -> Result<()> {
    let name = format!("demo-{}-interrupt", std::process::id());
    let mut child = up(&name)?;
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT)?;
    let mut status = None;
    wait_until("it has left", SOON, || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    })?;
    assert!(status.is_some_and(|status| status.success()));
    nothing_is_left(&name);
    Ok(())
}

#[test]
fn a_killed_run_is_taken_away_by_the_next_and_by_clean() -> Result<()> {
    let name = format!("demo-{}-kill", std::process::id());
    let mut first = up(&name)?;
    let busy = tool(&name, &["up", "--sandbox", "--once"]).output()?;
    assert!(!busy.status.success() && String::from_utf8_lossy(&busy.stderr).contains("in use"));
    first.kill()?;
    first.wait()?;
    let mut second = up(&name)?;
    second.kill()?;
    second.wait()?;
    assert!(home::exists(&name));
    let clean = tool(&name, &["clean"]).output()?;
    assert!(clean.status.success(), "{}", String::from_utf8_lossy(&clean.stderr));
    nothing_is_left(&name);
    Ok(())
}

#[test]
fn a_containerd_that_is_there_already_is_used_and_left_as_it_was() -> Result<()> {
    let lab = Lab::up()?;
    let images = || lab.containerd.ctr(&["images", "ls", "--quiet"]);
    for name in images()?.lines().filter(|name| name.contains("demo")) {
        lab.containerd.ctr(&["images", "rm", name])?;
    }
    let before = images()?;
    let name = format!("demo-{}-named", std::process::id());
    // On the lab's network: what it sets there goes with it, and the rest is taken back.
    let on_the_node = |arguments: &[&str]| {
        let mut command = lab.network.node.command(env!("CARGO_BIN_EXE_longshore-lab"));
        command.args(["--name", &name]).args(arguments).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).output()
    };
    let output = on_the_node(&["up", "--once", "--runtime-endpoint", &lab.containerd.endpoint()])?;
    let cleaned = on_the_node(&["clean"])?;
    assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("Hello from a machine without a control plane."), "{said}");
    assert_eq!(images()?, before);
    assert_eq!(pods::observe(&lab.containerd.socket())?.len(), 0);
    nothing_is_left(&name);
    Ok(())
}
