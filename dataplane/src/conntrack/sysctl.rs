//! The connection tracker's settings, as kube-proxy makes them at its start.
//!
//! Owns which settings differ from what is wanted. Never touches files: current values come in. Tests are at the end of
//! this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// The most entries that are asked for, however many cores there are.
const MOST: u64 = 1_048_576;
/// Entries for each bucket of the kernel's table.
const PER_BUCKET: u64 = 4;

pub const HASH_SIZE: &str = "sys/module/nf_conntrack/parameters/hashsize";

/// What is wanted; zero and false keep what the kernel has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub max_per_core: u64,
    /// Least entries, whatever the cores.
    pub min: u64,
    pub tcp_established: Duration,
    pub tcp_close_wait: Duration,
    pub tcp_be_liberal: bool,
    pub udp: Duration,
    pub udp_stream: Duration,
}

/// A value for a file, by its path below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub path: String,
    pub value: u64,
}

fn netfilter(name: &str) -> String {
    format!("proc/sys/net/netfilter/{name}")
}

/// The number of entries, if any is asked for.
fn max_entries(wanted: &Wanted, cores: u64) -> Option<u64> {
    let scaled = wanted.max_per_core.saturating_mul(cores);
    (wanted.max_per_core > 0).then(|| if scaled > MOST { MOST } else { scaled.max(wanted.min) })
}

/// Settings to write. `current` reads a file below the root; one that cannot be read is written.
pub fn plan(wanted: &Wanted, cores: u64, current: impl Fn(&str) -> Option<u64>) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some(max) = max_entries(wanted, cores) {
        // The table's buckets only grow.
        let buckets = max / PER_BUCKET;
        if current(HASH_SIZE).is_some_and(|now| now < buckets) {
            writes.push(Write { path: HASH_SIZE.into(), value: buckets });
        }
        writes.push(Write { path: netfilter("nf_conntrack_max"), value: max });
    }
    let times = [
        ("nf_conntrack_tcp_timeout_established", wanted.tcp_established),
        ("nf_conntrack_tcp_timeout_close_wait", wanted.tcp_close_wait),
        ("nf_conntrack_udp_timeout", wanted.udp),
        ("nf_conntrack_udp_timeout_stream", wanted.udp_stream),
    ];
    let seconds = times.into_iter().filter(|(_, time)| time.as_secs() > 0);
    writes.extend(seconds.map(|(name, time)| Write { path: netfilter(name), value: time.as_secs() }));
    if wanted.tcp_be_liberal {
        writes.push(Write { path: netfilter("nf_conntrack_tcp_be_liberal"), value: 1 });
    }
    writes.retain(|write| current(&write.path) != Some(write.value));
    writes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(writes: &[Write]) -> Vec<(&str, u64)> {
        writes.iter().map(|w| (w.path.rsplit('/').next().unwrap(), w.value)).collect()
    }

    #[test]
    fn the_table_grows_with_the_cores_within_bounds() {
        let of = |max_per_core, min, cores| max_entries(&Wanted { max_per_core, min, ..Wanted::default() }, cores);
        assert_eq!(of(0, 131_072, 8), None);
        assert_eq!(of(32_768, 131_072, 2), Some(131_072));
        assert_eq!(of(32_768, 131_072, 8), Some(262_144));
        assert_eq!(of(32_768, 2_000_000, 64), Some(MOST), "the cap wins over the least");
    }

    #[test]
    fn only_what_differs_is_written() {
        let wanted = Wanted {
            max_per_core: 32_768,
            min: 131_072,
            tcp_established: Duration::from_secs(86_400),
            tcp_close_wait: Duration::from_secs(3_600),
            ..Wanted::default()
        };
        let fresh = plan(&wanted, 2, |path| (path == HASH_SIZE).then_some(16_384));
        let all = [
            ("hashsize", 32_768),
            ("nf_conntrack_max", 131_072),
            ("nf_conntrack_tcp_timeout_established", 86_400),
            ("nf_conntrack_tcp_timeout_close_wait", 3_600),
        ];
        assert_eq!(names(&fresh), all);
        let held = |path: &str| all.iter().find(|(name, _)| path.ends_with(name)).map(|(_, value)| *value);
        assert_eq!(plan(&wanted, 2, held), []);
        let larger = |path: &str| if path == HASH_SIZE { Some(1 << 20) } else { held(path) };
        assert_eq!(plan(&wanted, 2, larger), [], "buckets are never taken away");
        assert_eq!(plan(&Wanted::default(), 2, |_| Some(5)), []);
        let udp =
            Wanted { udp: Duration::from_millis(900), udp_stream: Duration::from_secs(60), tcp_be_liberal: true, ..Wanted::default() };
        assert_eq!(names(&plan(&udp, 2, |_| None)), [("nf_conntrack_udp_timeout_stream", 60), ("nf_conntrack_tcp_be_liberal", 1)]);
    }
}
