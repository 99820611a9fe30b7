//! The daemon's own time: with a runtime in memory, whose calls take next to none.

use super::journal::Journal;
use super::line;
use anyhow::{Context, Result};
use longshore_cri::fake::Options as FakeOptions;
use longshore_cri::snapshot::ContainerState;
use longshore_tests::lab::FakeNode;
use longshore_tests::lab::daemon::{Options, is_ready};
use longshore_tests::lab::fake_node::ONE;
use std::time::{Duration, Instant};

const SAMPLES: usize = 200;

pub fn measure() -> Result<()> {
    println!("the daemon's own time, on a runtime in memory ({SAMPLES} pods one after the other):");
    let node = FakeNode::start(Options::default(), FakeOptions::default(), |_| {})?;
    let (mut starts, mut exits) = (Vec::new(), Vec::new());
    for n in 0..SAMPLES {
        let name = format!("p{n}");
        let mut journal = Journal::tail(&node.daemon)?;
        let began = Instant::now();
        node.apply(&name, &ONE.replace("{ containers", "{ restartPolicy: Never, containers"))?;
        starts.push(journal.wait("Ready", is_ready)? - began);
        let id = node.fake.with(|m, _| {
            let pods = m.observe_all();
            let containers = pods.iter().filter(|p| *p.name == *name).flat_map(|p| &p.containers);
            let id = containers.filter(|c| matches!(c.state, ContainerState::Running { .. })).map(|c| c.id.to_string()).next();
            id.context("it runs")
        })?;
        let began = Instant::now();
        node.fake.with(|m, now| m.crash(now, &id, 1)).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        exits.push(journal.wait("an exit", |r| r["status"]["phase"] == "Failed")? - began);
        node.remove(&name)?;
        node.until("the pod is gone", |m| m.observe_all().is_empty())?;
    }
    starts.sort();
    exits.sort();
    line("manifest to Ready, median", ms(percentile(&starts, 50)), "");
    line("manifest to Ready, p99", ms(percentile(&starts, 99)), "20 ms");
    line("runtime event to status, median", ms(percentile(&exits, 50)), "");
    line("runtime event to status, p99", ms(percentile(&exits, 99)), "50 ms");
    println!();
    Ok(())
}

fn percentile(sorted: &[Duration], n: usize) -> Duration {
    sorted.get((sorted.len() * n / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn ms(d: Duration) -> String {
    format!("{:.1} ms", d.as_secs_f64() * 1000.0)
}
