//! What happens to the kernel's rules, as `nft monitor` prints it.

use anyhow::Result;
use longshore_tests::lab::Lab;
use longshore_tests::lab::process::Running;
use longshore_tests::lab::wait::wait_for;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

pub struct Watch<'a> {
    lab: &'a Lab,
    monitor: Running,
}

impl<'a> Watch<'a> {
    pub fn begin(lab: &'a Lab) -> Result<Watch<'a>> {
        let mut command = Command::new("nft");
        command.arg("monitor");
        let log = lab.home.base().join("nft-monitor.log");
        let monitor = Running::start(command, &log, Some(&lab.network.node), &(lab.home.cgroup() + "/monitor"))?;
        let watch = Watch { lab, monitor };
        watch.mark("begin")?;
        Ok(watch)
    }

    /// Makes a change that is not the daemon's, over and over until it shows: it listens, and what came before has been printed.
    fn mark(&self, name: &str) -> Result<()> {
        wait_for("the monitor hears", SOON, || -> Result<_> {
            self.lab.network.node.run(&["nft", "add", "table", "ip", name])?;
            self.lab.network.node.run(&["nft", "delete", "table", "ip", name])?;
            Ok(self.monitor.output().contains(&format!("table ip {name}")).then_some(()))
        })
    }

    /// Lines that are not about our own marks.
    pub fn changes(&self) -> Result<usize> {
        self.mark("end")?;
        let ours = |l: &str| ["begin", "end"].iter().any(|m| l.ends_with(&format!("table ip {m}")));
        // Each change ends with a line about the process that made it.
        Ok(self.monitor.output().lines().filter(|l| l.starts_with("add ") || l.starts_with("delete ")).filter(|l| !ours(l)).count())
    }
}
