//! The daemon on real runtimes: pods come with their manifests, go with them, and outlive the daemon.
//!
//! What the runtime holds is asked of the runtime, not of the daemon.

use anyhow::{Context, Result};
use longshore_cri::ContainerState;
use longshore_tests::lab::daemon::Options;
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{Daemon, Lab, containerd, image, pods, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// A pod of one container that runs the test program.
fn manifest(name: &str, arguments: &[&str]) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: main
    image: {}
    imagePullPolicy: IfNotPresent
    args: {arguments:?}
",
        image::WORKLOAD
    )
}

/// A running container, told from any other run of it: pod, id, restart count and process.
type Run = (String, String, u32, Option<i32>);

fn running(lab: &Lab) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for pod in pods::observe(&lab.containerd.socket())? {
        let alive = pod.containers.iter().filter(|it| matches!(it.state, ContainerState::Running { .. }));
        runs.extend(alive.map(|it| (pod.name.to_string(), it.id.to_string(), it.attempt, it.pid)));
    }
    runs.sort();
    Ok(runs)
}

/// Waits until exactly these pods have a running container each.
fn wait_for_runs(lab: &Lab, daemon: &Daemon, names: &[&str]) -> Result<Vec<Run>> {
    wait_for(&format!("{names:?} run"), SOON, || -> Result<_> {
        let runs = running(lab)?;
        let have: Vec<&str> = runs.iter().map(|run| run.0.as_str()).collect();
        Ok((have == names).then_some(runs))
    })
    .with_context(|| format!("the daemon logged:\n{}", daemon.log()))
}

fn on_every_runtime(test: impl Fn(&Lab, &mut Daemon) -> Result<()>) -> Result<()> {
    for binary in &containerd::Binary::every()? {
        let lab = Lab::with(binary, 1)?;
        let endpoint = lab.containerd.endpoint();
        let mut daemon = Daemon::prepare(&lab.home, Some(&lab.network.node), &endpoint, Options::default())?;
        let outcome = daemon.spawn().and_then(|()| test(&lab, &mut daemon));
        outcome.with_context(|| format!("on containerd {:?}; the daemon logged:\n{}", binary.version(), daemon.log()))?;
    }
    Ok(())
}

#[test]
fn pods_come_and_go_with_their_manifests() -> Result<()> {
    on_every_runtime(|lab, daemon| {
        daemon.apply("one.yaml", &manifest("one", &["sleep"]))?;
        daemon.apply("two.yaml", &manifest("two", &["sleep"]))?;
        let both = wait_for_runs(lab, daemon, &["one", "two"])?;
        daemon.remove("one.yaml")?;
        let left = wait_for_runs(lab, daemon, &["two"])?;
        assert_eq!(left[0], both[1]);
        wait_until("nothing of the pod is left in the runtime", SOON, || {
            pods::observe(&lab.containerd.socket()).is_ok_and(|pods| pods.iter().all(|pod| &*pod.name != "one"))
        })
    })
}

#[test]
fn no_container_notices_that_the_daemon_was_killed() -> Result<()> {
    on_every_runtime(|lab, daemon| {
        daemon.apply("one.yaml", &manifest("one", &["sleep"]))?;
        daemon.apply("two.yaml", &manifest("two", &["sleep"]))?;
        let before = wait_for_runs(lab, daemon, &["one", "two"])?;
        for _ in 0..3 {
            daemon.kill_nine();
            daemon.spawn()?;
        }
        // What it does about a new pod it has done about the old ones too.
        daemon.apply("zero.yaml", &manifest("zero", &["sleep"]))?;
        let after = wait_for_runs(lab, daemon, &["one", "two", "zero"])?;
        assert_eq!(after[..2], before[..]);
        Ok(())
    })
}

#[test]
fn pods_outlive_a_kill_of_the_runtime_and_are_looked_after_again() -> Result<()> {
    for binary in &containerd::Binary::every()? {
        let mut lab = Lab::with(binary, 1)?;
        let endpoint = lab.containerd.endpoint();
        let mut daemon = Daemon::prepare(&lab.home, Some(&lab.network.node), &endpoint, Options::default())?;
        daemon.spawn()?;
        daemon.apply("one.yaml", &manifest("one", &["sleep"]))?;
        let before = wait_for_runs(&lab, &daemon, &["one"])?;
        lab.containerd.kill_nine();
        daemon.apply("two.yaml", &manifest("two", &["sleep"]))?;
        lab.containerd.launch()?;
        let after = wait_for_runs(&lab, &daemon, &["one", "two"])?;
        assert_eq!(after[0], before[0]);
    }
    Ok(())
}

#[test]
fn a_container_that_ends_is_started_again() -> Result<()> {
    on_every_runtime(|lab, daemon| {
        daemon.apply("brief.yaml", &manifest("brief", &["exit", "0", "1"]))?;
        wait_for("its second run", SOON, || -> Result<_> {
            let pods = pods::observe(&lab.containerd.socket())?;
            let attempts = pods.iter().flat_map(|pod| &pod.containers).map(|container| container.attempt);
            Ok(attempts.max().filter(|attempt| *attempt >= 1))
        })?;
        Ok(())
    })
}
