//! cgroup settings on their way to the runtime, and back from it.
//!
//! Owns the conversion between [`Resources`] and the message, and the two formulas that the
//! interface itself fixes (shares and quota from millicores). Must never read the machine: sizes
//! and the cgroup version come in as values. Tests: below.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use crate::v1;

/// Settings of one container or sandbox. Zero or empty leaves a setting to the runtime. Times in
/// microseconds, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    pub cpu_shares: i64,
    pub cpu_quota: i64,
    pub cpu_period: i64,
    pub memory_limit: i64,
    pub memory_swap_limit: i64,
    pub oom_score_adj: i64,
    pub cpuset_cpus: Box<str>,
    pub cpuset_mems: Box<str>,
    /// Page size as the runtime spells it (`2MB`, `1GB`) and limit, one per size of the machine.
    pub hugepages: Vec<(Box<str>, u64)>,
    /// cgroup v2 files by name.
    pub unified: BTreeMap<String, String>,
}

impl Resources {
    /// CPU as a kubelet derives it: shares from the request, or from the limit without one, and at
    /// least the minimum; quota and period from the limit. Arguments in millicores, period in µs.
    pub fn cpu(mut self, request: Option<i64>, limit: Option<i64>, period: i64) -> Self {
        self.cpu_shares = shares(request.or(limit).unwrap_or(0));
        if let Some(limit) = limit.filter(|l| *l > 0) {
            self.cpu_quota = quota(limit, period);
            self.cpu_period = period;
        }
        self
    }

    pub fn memory(mut self, limit: i64) -> Self {
        self.memory_limit = limit;
        self
    }

    /// cgroup v2: the kernel kills the whole container, not one process of it.
    pub fn kill_as_group(mut self) -> Self {
        self.unified.insert("memory.oom.group".into(), "1".into());
        self
    }

    /// cgroup v2: how much swap the container may use; 0 is a kubelet's default.
    pub fn swap_max(mut self, bytes: u64) -> Self {
        self.unified.insert("memory.swap.max".into(), bytes.to_string());
        self
    }

    pub fn to_cri(&self) -> v1::LinuxContainerResources {
        v1::LinuxContainerResources {
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_shares: self.cpu_shares,
            memory_limit_in_bytes: self.memory_limit,
            oom_score_adj: self.oom_score_adj,
            cpuset_cpus: self.cpuset_cpus.to_string(),
            cpuset_mems: self.cpuset_mems.to_string(),
            hugepage_limits: self
                .hugepages
                .iter()
                .map(|(size, limit)| v1::HugepageLimit { page_size: size.to_string(), limit: *limit })
                .collect(),
            unified: self.unified.clone(),
            memory_swap_limit_in_bytes: self.memory_swap_limit,
        }
    }

    pub fn from_cri(r: &v1::LinuxContainerResources) -> Self {
        Resources {
            cpu_shares: r.cpu_shares,
            cpu_quota: r.cpu_quota,
            cpu_period: r.cpu_period,
            memory_limit: r.memory_limit_in_bytes,
            memory_swap_limit: r.memory_swap_limit_in_bytes,
            oom_score_adj: r.oom_score_adj,
            cpuset_cpus: r.cpuset_cpus.as_str().into(),
            cpuset_mems: r.cpuset_mems.as_str().into(),
            hugepages: r.hugepage_limits.iter().map(|h| (h.page_size.as_str().into(), h.limit)).collect(),
            unified: r.unified.clone(),
        }
    }
}

/// cgroup v1 shares for so many millicores: 1024 per core, between 2 and 262144.
pub fn shares(milli: i64) -> i64 {
    if milli == 0 { 2 } else { (milli.saturating_mul(1024) / 1000).clamp(2, 262_144) }
}

/// CFS quota in µs for so many millicores: at least 1 ms, and 0 (none) for 0.
pub fn quota(milli: i64, period: i64) -> i64 {
    if milli == 0 { 0 } else { (milli.saturating_mul(period) / 1000).max(1000) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_and_quota_keep_to_their_bounds() {
        assert_eq!([0, 1, 2, 100, 1000, 300_000].map(shares), [2, 2, 2, 102, 1024, 262_144]);
        assert_eq!([0, 1, 10, 250].map(|m| quota(m, 100_000)), [0, 1000, 1000, 25_000]);
    }

    #[test]
    fn cpu_shares_come_from_the_limit_when_nothing_is_requested() {
        let r = Resources::default().cpu(None, Some(500), 100_000);
        assert_eq!((r.cpu_shares, r.cpu_quota, r.cpu_period), (512, 50_000, 100_000));
        let r = Resources::default().cpu(Some(100), None, 100_000);
        assert_eq!((r.cpu_shares, r.cpu_quota, r.cpu_period), (102, 0, 0));
        assert_eq!(Resources::default().cpu(None, None, 100_000).cpu_shares, 2);
    }

    proptest! {
        #[test]
        fn resources_survive_the_message(
            n in prop::array::uniform6(any::<i64>()), cpus in "[0-9,-]{0,8}",
            pages in prop::collection::vec(("(2MB|1GB)", any::<u64>()), 0..3),
            unified in prop::collection::btree_map("[a-z.]{1,8}", "[0-9]{1,4}", 0..3),
        ) {
            let r = Resources {
                cpu_shares: n[0], cpu_quota: n[1], cpu_period: n[2], memory_limit: n[3],
                memory_swap_limit: n[4], oom_score_adj: n[5],
                cpuset_cpus: cpus.as_str().into(), cpuset_mems: "0".into(),
                hugepages: pages.into_iter().map(|(s, l)| (s.into(), l)).collect(),
                unified,
            };
            prop_assert_eq!(Resources::from_cri(&r.to_cri()), r);
        }
    }
}
