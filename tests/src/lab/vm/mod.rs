//! Other kernels: a script runs as the only user of a machine of its own, and tells how it went.
//!
//! [`user_mode`] is User-mode Linux: native speed, this machine's files (writes go to memory), no
//! PSI, no nftables families. [`Qemu`] is Debian's stock cloud kernel with nothing but the programs
//! and modules it is given: everything a kernel has, at a tenth of the speed or less. Which kernel
//! can show what is told in the test environment's notes; figures from either are ratios at best.

mod cpio;
mod qemu;
mod user_mode;

pub use qemu::Qemu;
pub use user_mode::{user_mode, user_mode_systemd};

use super::process::Running;
use super::wait::wait_until;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How a script went.
#[derive(Debug)]
pub struct Report {
    /// Its exit status.
    pub status: i32,
    /// What it printed, on both channels.
    pub output: String,
}

/// Waits for the machine to end, then reads its report from two files that it wrote.
fn report(mut machine: Running, output: &Path, status: impl Fn() -> Option<i32>, limit: Duration) -> Result<Report> {
    let read = || String::from_utf8_lossy(&fs::read(output).unwrap_or_default()).into_owned();
    let tell = |machine: &Running| format!("it printed:\n{}\nits console:\n{}", read(), machine.output());
    wait_until("the virtual machine has ended", limit, || machine.ended().is_some()).with_context(|| tell(&machine))?;
    let status = status().with_context(|| format!("the script did not finish; {}", tell(&machine)))?;
    Ok(Report { status, output: read() })
}
