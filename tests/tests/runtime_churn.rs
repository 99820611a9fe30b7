//! The daemon killed at random moments while pods come and go: what was running keeps running.

use anyhow::{Context, Result};
use longshore_tests::lab::daemon::{Options, is_ready};
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{Daemon, Lab, image, pods};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(90);
const STEADY: usize = 5;

fn pod(name: &str, arguments: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name} }}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers: [{{ name: main, image: {}, imagePullPolicy: IfNotPresent, args: {arguments} }}]\n",
        image::WORKLOAD
    )
}

/// Running containers of the steady pods: id, restart count, process.
fn steady(lab: &Lab) -> Result<BTreeSet<(String, u32, Option<i32>)>> {
    let all = pods::observe(&lab.containerd.socket())?;
    let kept = all.iter().filter(|p| p.name.starts_with("steady"));
    Ok(kept.flat_map(|p| p.running().map(|c| (c.id.to_string(), c.attempt, c.pid)).collect::<Vec<_>>()).collect())
}

/// Seconds of churn; longer in a soak.
fn seconds() -> u64 {
    std::env::var("LONGSHORE_CHURN_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(25)
}

#[test]
fn nothing_that_runs_notices_a_daemon_that_dies_at_any_moment() -> Result<()> {
    let lab = Lab::up()?;
    let mut daemon = lab.daemon(Options::default())?;
    for i in 0..STEADY {
        daemon.apply(&format!("steady-{i}.yaml"), &pod(&format!("steady-{i}"), "[sleep]"))?;
    }
    for i in 0..STEADY {
        daemon.wait_until_ready(("default", &format!("steady-{i}")), SOON)?;
    }
    let before = steady(&lab)?;
    assert_eq!(before.len(), STEADY);
    let (kills, last) = churn(&mut daemon)?;
    let outcome = at_rest(&lab, &daemon, last);
    let logs = || format!("the daemon logged:\n{}\nthe runtime logged:\n{}", daemon.log(), lab.containerd.log());
    outcome.with_context(|| format!("after {kills} kills; tasks: {:?}; {}", lab.containerd.ctr(&["tasks", "ls"]), logs()))?;
    assert_eq!(steady(&lab)?, before, "a steady container was restarted over {kills} kills");
    Ok(())
}

/// Adds and removes pods, and kills the daemon in between at odd moments. Returns how often, and the number of the
/// one pod that is left.
fn churn(daemon: &mut Daemon) -> Result<(u32, u32)> {
    let end = Instant::now() + Duration::from_secs(seconds());
    let (mut kills, mut n) = (0, 0_u32);
    while Instant::now() < end {
        n += 1;
        daemon.apply(&format!("brief-{n}.yaml"), &pod(&format!("brief-{n}"), if n % 3 == 0 { "[exit, '1']" } else { "[sleep]" }))?;
        if n > 2 {
            daemon.remove(&format!("brief-{}.yaml", n - 2))?;
        }
        // Odd moments: from the middle of a start to after its end.
        std::thread::sleep(Duration::from_millis(u64::from(n * 137 % 900)));
        daemon.kill_nine();
        kills += 1;
        daemon.spawn()?;
        std::thread::sleep(Duration::from_millis(u64::from(n * 61 % 400)));
    }
    if n > 1 {
        daemon.remove(&format!("brief-{}.yaml", n - 1))?;
    }
    daemon.apply(&format!("brief-{n}.yaml"), &pod(&format!("brief-{n}"), "[sleep]"))?;
    Ok((kills, n))
}

fn at_rest(lab: &Lab, daemon: &Daemon, last: u32) -> Result<()> {
    let survivor = format!("brief-{last}");
    daemon.wait_for_pod(("default", &survivor), "ready", SOON, is_ready)?;
    wait_for("only the wanted pods are left in the runtime", SOON, || -> Result<Option<()>> {
        let all = pods::observe(&lab.containerd.socket())?;
        let strangers: Vec<&str> = all.iter().map(|p| &*p.name).filter(|n| !n.starts_with("steady") && **n != *survivor).collect();
        if strangers.is_empty() { Ok(Some(())) } else { anyhow::bail!("{strangers:?} are left") }
    })
}
