//! What the start of many pods costs the daemon in CPU, as its own code and as calls to the kernel, and nothing else:
//! for work on that figure, in a minute.

use super::{all_at_once, line, median, ms, none_left, number};
use anyhow::{Context, Result};
use longshore_tests::lab::daemon::Options;
use longshore_tests::lab::{Daemon, Lab};
use procfs::process::Process;
use std::time::Duration;

const ROUNDS: usize = 5;

/// User and system time, to a hundredth of a second.
fn spent(daemon: &Daemon) -> Result<(Duration, Duration)> {
    let stat = Process::new(daemon.pid().context("the daemon runs")?)?.stat()?;
    let time = |ticks: u64| Duration::from_millis(ticks * 1000 / procfs::ticks_per_second());
    Ok((time(stat.utime), time(stat.stime)))
}

pub fn measure(lab: &Lab, count: usize) -> Result<()> {
    let mut daemon = lab.daemon(Options::default())?;
    let (mut user, mut system, mut both) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..number("LONGSHORE_BENCH_ROUNDS").unwrap_or(ROUNDS) {
        if round > 0 {
            none_left(lab, &daemon)?;
            daemon.stop()?;
            daemon.launch()?;
        }
        let before = spent(&daemon)?;
        all_at_once(&daemon, count)?;
        let after = spent(&daemon)?;
        let (u, s) = (after.0 - before.0, after.1 - before.1);
        println!("  {count} pods: {} of its own, {} in the kernel", ms(u), ms(s));
        user.push(u);
        system.push(s);
        both.push(u + s);
    }
    line("our CPU, median", ms(median(&both)), "500 ms");
    line("  its own code", ms(median(&user)), "");
    line("  calls to the kernel", ms(median(&system)), "");
    Ok(())
}
