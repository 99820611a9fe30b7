//! Writes the connection tracker's settings.
//!
//! Owns the files. What cannot be written is told, and the proxy goes on: a container with a read-only /proc forwards as
//! well as any. Tests are at the end of this file.

use std::io;
use std::path::Path;

use super::sysctl::{Wanted, Write, plan};

/// Writes what differs, below `root` (`/` but in tests), for the calling thread's network namespace. Returns what could
/// not be written.
pub fn apply(root: &Path, wanted: &Wanted) -> Vec<(Write, io::Error)> {
    let current = |path: &str| std::fs::read_to_string(root.join(path)).ok()?.trim().parse().ok();
    let mut failed = Vec::new();
    for write in plan(wanted, cores(root), current) {
        match std::fs::write(root.join(&write.path), write.value.to_string()) {
            Ok(()) => tracing::info!(setting = %write.path, value = write.value, "set"),
            Err(error) => {
                tracing::warn!(setting = %write.path, value = write.value, %error, "cannot be set, and stays as it is");
                failed.push((write, error));
            }
        }
    }
    failed
}

/// All cores of the machine, and not only those of our cgroup: the table is the machine's.
fn cores(root: &Path) -> u64 {
    let present = std::fs::read_to_string(root.join("sys/devices/system/cpu/present")).unwrap_or_default();
    let ranges = present.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<u64>().ok()? - first.parse::<u64>().ok()? + 1)
    });
    match ranges.sum() {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        cores => cores,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn settings_that_cannot_be_written_are_told_and_the_rest_is_written() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let read = |name: &str| std::fs::read_to_string(root.path().join("proc/sys/net/netfilter").join(name)).unwrap();
        write("sys/devices/system/cpu/present", "0-2,4\n");
        write("proc/sys/net/netfilter/nf_conntrack_max", "65536\n");
        // A directory cannot be written, not even by root.
        std::fs::create_dir_all(root.path().join("proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established")).unwrap();
        let wanted =
            Wanted { max_per_core: 32_768, tcp_established: Duration::from_secs(9), udp: Duration::from_secs(7), ..Wanted::default() };
        let failed = apply(root.path(), &wanted);
        assert_eq!(read("nf_conntrack_max"), "131072");
        assert_eq!(read("nf_conntrack_udp_timeout"), "7");
        assert_eq!(failed.len(), 1);
        assert!(failed[0].0.path.ends_with("tcp_timeout_established"));
    }
}
