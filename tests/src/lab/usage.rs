//! What a process costs: the figures that budgets are about.

use anyhow::{Context, Result};
use procfs::process::Process;
use std::time::Duration;

/// Resources of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, in KiB.
    pub resident: u64,
    /// Of these, pages that belong to it alone: neither files nor shared memory.
    pub anonymous: u64,
    /// User and system time since its start, to a hundredth of a second.
    pub cpu: Duration,
    pub threads: u64,
    pub files: usize,
}

/// The usage of the process `pid` now.
pub fn of(pid: i32) -> Result<Usage> {
    let process = Process::new(pid).with_context(|| format!("no process {pid}"))?;
    let status = process.status().with_context(|| format!("no status of process {pid}"))?;
    let stat = process.stat()?;
    let ticks = stat.utime + stat.stime;
    Ok(Usage {
        resident: status.vmrss.context("a zombie has no memory")?,
        anonymous: status.rssanon.context("no RssAnon")?,
        cpu: Duration::from_millis(ticks * 1000 / procfs::ticks_per_second()),
        threads: status.threads,
        files: process.fd_count()?,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_and_time_that_are_used_show_up() {
        let own = i32::try_from(std::process::id()).expect("fits");
        let before = super::of(own).expect("we exist");
        let memory = vec![1u8; 32 << 20];
        let mut digest = sha2::Sha256::default();
        while super::of(own).expect("we exist").cpu == before.cpu {
            sha2::Digest::update(&mut digest, &memory);
        }
        let after = super::of(own).expect("we exist");
        assert!(after.resident >= before.resident + (30 << 10), "{before:?} {after:?}");
        assert!(after.cpu > before.cpu);
    }
}
