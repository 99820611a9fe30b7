//! What an interrupted runtime leaves behind goes with its pod: tasks that CRI does not know, and processes.

use anyhow::{Context, Result};
use longshore_tests::lab::containerd::Binary;
use longshore_tests::lab::daemon::Options;
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{Lab, image, pods};
use serde_json::Value;
use std::fs;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(40);

fn pod(name: &str, seconds: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name} }}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers: [{{ name: main, image: {}, imagePullPolicy: IfNotPresent, command: [sleep, '{seconds}'] }}]\n",
        image::BUSYBOX
    )
}

fn wait_until_gone(lab: &Lab, name: &str) -> Result<()> {
    wait_for("the runtime holds nothing of the pod", SOON, || -> Result<Option<()>> {
        let all = pods::observe(&lab.containerd.socket())?;
        Ok(all.iter().all(|p| &*p.name != name).then_some(()))
    })
}

#[test]
fn a_task_that_the_runtime_lost_sight_of_goes_with_its_pod() -> Result<()> {
    for binary in Binary::every()? {
        let lab = Lab::with(&binary, 0)?;
        let daemon = lab.daemon(Options::default())?;
        daemon.apply("brief.yaml", &pod("brief", "1"))?;
        // Its sandbox stays while its container waits for the back-off to pass.
        let waits = |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
        daemon.wait_for_pod(("default", "brief"), "between two runs", SOON, waits)?;
        let pods = pods::observe(&lab.containerd.socket())?;
        let id = pods.iter().flat_map(|p| &p.containers).map(|c| c.id.to_string()).next().context("its record stays")?;
        // As after a StartContainer whose caller went away: a task, and a container that reads Exited.
        lab.containerd.ctr(&["tasks", "start", "--null-io", "--detach", &id])?;
        daemon.remove("brief.yaml")?;
        wait_until_gone(&lab, "brief").with_context(|| format!("containerd {:?}; log:\n{}", binary.version(), daemon.log()))?;
        assert!(daemon.log().contains("lost sight of this container's task"), "{}", daemon.log());
    }
    Ok(())
}

#[test]
fn a_process_that_outlived_its_pod_is_killed() -> Result<()> {
    let lab = Lab::up()?;
    let daemon = lab.daemon(Options::default())?;
    daemon.apply("host.yaml", &pod("host", "100000"))?;
    let seen = daemon.wait_until_ready(("default", "host"), SOON)?;
    let uid = seen["metadata"]["uid"].as_str().context("a uid")?;
    let group = format!("{}/kubepods/besteffort/pod{uid}", lab.home.cgroup());
    let mut stray = Command::new("sleep").arg("100000").spawn()?;
    let places = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup"];
    let joined = places.iter().filter(|p| fs::write(format!("{p}{group}/cgroup.procs"), stray.id().to_string()).is_ok()).count();
    assert!(joined > 0, "the pod has no group at {group}");
    daemon.remove("host.yaml")?;
    wait_until_gone(&lab, "host")?;
    let ended = wait_for("the stray process ends", SOON, || -> Result<_> { Ok(stray.try_wait()?) })?;
    assert!(!ended.success());
    wait_for("the group is gone", SOON, || -> Result<Option<()>> {
        Ok(places.iter().all(|p| !fs::exists(format!("{p}{group}")).unwrap_or(true)).then_some(()))
    })
}
