//! kube-proxy's metrics, by its names, labels and buckets.
//!
//! Owns the numbers; the actor and the conntrack thread report, the metrics server renders. Never reads a clock. Tests are
//! at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod histogram;
pub mod text;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::Family;
use histogram::{Histogram, PROGRAMMING_BOUNDS, SYNC_BOUNDS};
use text::Page;

/// Service ports with a Local policy and no endpoint on this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoLocalEndpoints {
    pub internal: usize,
    pub external: usize,
}

/// What one family's backend counted since it was last asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times that iptables-restore did not take what it was fed.
    pub restore_failures: u64,
    /// Those among them that were fed changes alone.
    pub partial_restore_failures: u64,
    /// Times that chains which nobody needs could not be deleted.
    pub cleanup_failures: u64,
    /// `None` where no rules are written by iptables.
    pub rules: Option<Rules>,
}

/// Rules of ours in iptables' tables filter and nat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// In the kernel now.
    pub total: [usize; 2],
    /// Lines of rules fed by the last pass.
    pub last: [usize; 2],
}

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    pub took: Duration,
    /// The kernel was read, and every service looked at.
    pub full: bool,
    pub failed: bool,
    pub ended: SystemTime,
    pub counts: Counts,
}

#[derive(Debug, Clone)]
struct OfFamily {
    sync: Histogram,
    full: Histogram,
    partial: Histogram,
    programming: Histogram,
    last_synced: Option<SystemTime>,
    last_queued: Option<SystemTime>,
    failures: u64,
    restore_failures: u64,
    partial_restore_failures: u64,
    cleanup_failures: u64,
    rules: Rules,
    no_local: NoLocalEndpoints,
    conntrack: Histogram,
    conntrack_deleted: u64,
}

impl Default for OfFamily {
    fn default() -> Self {
        OfFamily {
            sync: Histogram::new(&SYNC_BOUNDS),
            full: Histogram::new(&SYNC_BOUNDS),
            partial: Histogram::new(&SYNC_BOUNDS),
            programming: Histogram::new(&PROGRAMMING_BOUNDS),
            last_synced: None,
            last_queued: None,
            failures: 0,
            restore_failures: 0,
            partial_restore_failures: 0,
            cleanup_failures: 0,
            rules: Rules::default(),
            no_local: NoLocalEndpoints::default(),
            conntrack: Histogram::new(&SYNC_BOUNDS),
            conntrack_deleted: 0,
        }
    }
}

/// Everything that is counted.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    families: [OfFamily; 2],
    pub service_changes: u64,
    pub endpoint_changes: u64,
    pub service_changes_pending: u64,
    pub endpoint_changes_pending: u64,
    /// Answers of the health server: 200 and 503.
    pub healthz: [u64; 2],
    pub livez: [u64; 2],
}

impl Metrics {
    pub fn queued(&mut self, families: &[Family], at: SystemTime) {
        families.iter().for_each(|family| self.families[*family as usize].last_queued = Some(at));
    }

    pub fn passed(&mut self, family: Family, pass: Pass) {
        let of = &mut self.families[family as usize];
        of.sync.observe(pass.took);
        if pass.full { &mut of.full } else { &mut of.partial }.observe(pass.took);
        if pass.failed {
            // What could not be tidied up is counted below.
            of.failures += u64::from(pass.counts.cleanup_failures == 0);
        } else {
            of.last_synced = Some(pass.ended);
        }
        of.restore_failures += pass.counts.restore_failures;
        of.partial_restore_failures += pass.counts.partial_restore_failures;
        of.cleanup_failures += pass.counts.cleanup_failures;
        of.rules = pass.counts.rules.unwrap_or(of.rules);
    }

    /// A change of endpoints that was triggered at a time is in the kernel.
    pub fn programmed(&mut self, family: Family, latency: Duration) {
        self.families[family as usize].programming.observe(latency);
    }

    pub fn set_no_local_endpoints(&mut self, family: Family, count: NoLocalEndpoints) {
        self.families[family as usize].no_local = count;
    }

    pub fn conntrack_cleaned(&mut self, family: Family, took: Duration, deleted: u64) {
        let of = &mut self.families[family as usize];
        of.conntrack.observe(took);
        of.conntrack_deleted += deleted;
    }

    /// The page for `/metrics`: `mode` as `/proxyMode` spells it.
    pub fn render(&self, mode: &str, families: &[Family]) -> Page {
        let mut page = Page::default();
        let names: Vec<(String, &OfFamily)> = families.iter().map(|f| (f.to_string(), &self.families[*f as usize])).collect();
        let histogram = |page: &mut Page, name: &str, help: &str, of: fn(&OfFamily) -> &Histogram| {
            let name = format!("kubeproxy_{name}");
            page.metric(&name, "histogram", help);
            names.iter().for_each(|(family, all)| page.histogram(&name, &[("ip_family", family)], of(all)));
        };
        let by_family = |page: &mut Page, name: &str, kind: &str, help: &str, of: &dyn Fn(&OfFamily) -> f64| {
            let name = format!("kubeproxy_{name}");
            page.metric(&name, kind, help);
            names.iter().for_each(|(family, all)| page.sample(&name, &[("ip_family", family)], of(all)));
        };
        let seconds = |time: Option<SystemTime>| time.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0.0, |d| d.as_secs_f64());
        let p = &mut page;
        histogram(p, "sync_proxy_rules_duration_seconds", "Time of one pass over changed services.", |f| &f.sync);
        if mode != "ipvs" {
            histogram(p, "sync_full_proxy_rules_duration_seconds", "Time of a pass that read the kernel first.", |f| &f.full);
            histogram(p, "sync_partial_proxy_rules_duration_seconds", "Time of a pass over changes alone.", |f| &f.partial);
        }
        let help = "Time from the change of endpoints at its source to the kernel.";
        histogram(p, "network_programming_duration_seconds", help, |f| &f.programming);
        let name = "sync_proxy_rules_last_timestamp_seconds";
        by_family(p, name, "gauge", "When rules were last in sync.", &|f| seconds(f.last_synced));
        let name = "sync_proxy_rules_last_queued_timestamp_seconds";
        by_family(p, name, "gauge", "When a change last came in.", &|f| seconds(f.last_queued));
        self.changes(p);
        let name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
        p.metric(name, "gauge", "Service ports with a Local policy and no endpoint on this node.");
        for (family, of) in &names {
            p.sample(name, &[("traffic_policy", "internal"), ("ip_family", family)], of.no_local.internal);
            p.sample(name, &[("traffic_policy", "external"), ("ip_family", family)], of.no_local.external);
        }
        match mode {
            "nftables" => {
                let (sync, cleanup) = ("sync_proxy_rules_nftables_sync_failures_total", "sync_proxy_rules_nftables_cleanup_failures_total");
                by_family(p, sync, "counter", "Passes that failed.", &|f| f.failures as f64);
                let help = "Times that chains nobody needs could not be deleted.";
                by_family(p, cleanup, "counter", help, &|f| f.cleanup_failures as f64);
            }
            "iptables" | "ipvs" => {
                let name = "sync_proxy_rules_iptables_restore_failures_total";
                by_family(p, name, "counter", "Times that iptables-restore failed.", &|f| f.restore_failures as f64);
            }
            _ => {}
        }
        if mode == "iptables" {
            let name = "sync_proxy_rules_iptables_partial_restore_failures_total";
            let help = "Times that iptables-restore failed on changes alone.";
            by_family(p, name, "counter", help, &|f| f.partial_restore_failures as f64);
            iptables_rules(p, &names);
        }
        histogram(p, "conntrack_reconciler_sync_duration_seconds", "Time of one search for stale flows.", |f| &f.conntrack);
        let name = "conntrack_reconciler_deleted_entries_total";
        by_family(p, name, "counter", "Stale flows deleted.", &|f| f.conntrack_deleted as f64);
        for (name, counts) in [("kubeproxy_proxy_healthz_total", self.healthz), ("kubeproxy_proxy_livez_total", self.livez)] {
            p.metric(name, "counter", "Answers of the health server.");
            p.sample(name, &[("code", "200")], counts[0]);
            p.sample(name, &[("code", "503")], counts[1]);
        }
        page
    }

    fn changes(&self, page: &mut Page) {
        let kinds = [
            ("endpoint", self.endpoint_changes_pending, self.endpoint_changes),
            ("service", self.service_changes_pending, self.service_changes),
        ];
        for (what, pending, total) in kinds {
            let name = format!("kubeproxy_sync_proxy_rules_{what}_changes");
            page.single(&format!("{name}_pending"), "gauge", "Changes that wait for the next pass.", pending);
            page.single(&format!("{name}_total"), "counter", "Changes that came in.", total);
        }
    }
}

fn iptables_rules(page: &mut Page, families: &[(String, &OfFamily)]) {
    for (what, help, of) in [
        ("total", "Rules of ours that iptables has.", (|rules| rules.total) as fn(Rules) -> [usize; 2]),
        ("last", "Rules fed to iptables by the last pass.", |rules| rules.last),
    ] {
        let name = format!("kubeproxy_sync_proxy_rules_iptables_{what}");
        page.metric(&name, "gauge", help);
        for (family, all) in families {
            for (table, count) in ["filter", "nat"].into_iter().zip(of(all.rules)) {
                page.sample(&name, &[("table", table), ("ip_family", family)], count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_upstreams_names_for_the_mode() {
        let mut metrics = Metrics::default();
        let at = UNIX_EPOCH + Duration::from_millis(1500);
        metrics.queued(&[Family::V4], at);
        metrics
            .passed(Family::V4, Pass { took: Duration::from_millis(3), full: true, failed: false, ended: at, counts: Counts::default() });
        metrics
            .passed(Family::V4, Pass { took: Duration::from_millis(1), full: false, failed: true, ended: at, counts: Counts::default() });
        let counts = Counts { cleanup_failures: 1, restore_failures: 2, partial_restore_failures: 1, ..Counts::default() };
        metrics.passed(Family::V4, Pass { took: Duration::from_millis(1), full: false, failed: true, ended: at, counts });
        metrics.programmed(Family::V4, Duration::from_millis(300));
        metrics.set_no_local_endpoints(Family::V4, NoLocalEndpoints { internal: 1, external: 2 });
        metrics.conntrack_cleaned(Family::V4, Duration::from_millis(1), 5);
        metrics.endpoint_changes = 7;
        let page = metrics.render("nftables", &[Family::V4]).into_string();
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 3",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.004\"} 1",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 2",
            "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.5\"} 1",
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} 1.5",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 7",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"external\",ip_family=\"IPv4\"} 2",
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family=\"IPv4\"} 1",
            "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"} 5",
            "kubeproxy_proxy_healthz_total{code=\"200\"} 0",
        ] {
            assert!(page.lines().any(|l| l == line), "no {line} in\n{page}");
        }
        let ipvs = metrics.render("ipvs", &[Family::V4]).into_string();
        assert!(!ipvs.contains("sync_full_proxy_rules"));
        assert!(ipvs.contains("kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family=\"IPv4\"} 2\n"), "{ipvs}");
    }
}
