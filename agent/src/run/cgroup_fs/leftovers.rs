//! Processes that outlived their pod: a runtime that was interrupted forgets some.
//!
//! Must be given groups of pods only: whatever is found below them is killed.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Rounds of killing: a process may fork while the list is read.
const ROUNDS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// Kills every process in these groups and below, and waits until they are gone, for half a second at most.
pub fn end(groups: impl Iterator<Item = PathBuf>) {
    let groups: Vec<PathBuf> = groups.filter(|g| g.is_dir()).collect();
    let mut told = BTreeSet::new();
    for _ in 0..ROUNDS {
        let mut found = BTreeSet::new();
        groups.iter().for_each(|g| collect(g, &mut found));
        if found.is_empty() {
            return;
        }
        for pid in found {
            if told.insert(pid) {
                tracing::warn!(pid, group = %groups[0].display(), "a process outlived its pod and is killed");
            }
            // It may have ended since; what cannot be killed shows in the next round.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(PAUSE);
    }
}

fn collect(group: &Path, found: &mut BTreeSet<i32>) {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    // 0 stands for a process of another namespace of process numbers; a signal to it would be to ourselves.
    found.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|pid| *pid > 1));
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}
