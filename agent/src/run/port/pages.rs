//! Pages of figures: the summary, metrics, and what this daemon says of itself.

use super::Port;
use crate::api::{Failure, Query};
use crate::port::route::Found;
use crate::run::api::{Answer, Reply, json, with_status};
use crate::run::clock;
use crate::run::prober;
use crate::run::stats::targets;
use crate::stats::{Figures, metrics as text, summary};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use longshore_dataplane::metrics::text::Page;
use longshore_probes::ProbeKind;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Bytes of a number in a body.
const NUMBER: usize = 64;
const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.";

/// Requests by method, path, and code.
#[derive(Default)]
pub struct Counts {
    requests: RefCell<BTreeMap<(&'static str, &'static str, u16), u64>>,
    total: Cell<u64>,
}

impl Counts {
    /// Only what is in the table has a name of its own: nobody fills our memory with paths.
    pub fn request(&self, method: &Method, found: &Found, status: StatusCode) {
        let path = found.row.map_or("other", |r| r.path.split('/').next().unwrap_or("other"));
        let method = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"].into_iter().find(|m| method.as_str() == *m).unwrap_or("other");
        *self.requests.borrow_mut().entry((method, path, status.as_u16())).or_default() += 1;
        self.total.set(self.total.get() + 1);
    }
}

pub fn metrics(page: String) -> Response<Reply> {
    with_status(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page)
}

/// `prober_probe_total`
pub fn probes(counts: &prober::Counts) -> String {
    let mut page = Page::default();
    page.metric("prober_probe_total", "counter", "Cumulative number of a liveness, readiness or startup probe for a container by result.");
    counts.each(|probe, result, n| {
        let kind = match probe.kind {
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
            ProbeKind::Startup => "Startup",
        };
        let labels = [
            ("container", &*probe.container),
            ("namespace", &*probe.namespace),
            ("pod", &*probe.pod),
            ("pod_uid", &*probe.uid),
            ("probe_type", kind),
            ("result", result),
        ];
        page.sample("prober_probe_total", &labels, n);
    });
    page.into_string()
}

/// What the node's state says of itself.
struct Known {
    pods: usize,
    running_pods: usize,
    active: usize,
    containers: BTreeMap<&'static str, usize>,
    v2: bool,
}

impl Port {
    async fn figures(&self, brief: bool) -> Result<Figures, Failure> {
        let targets = self.server.ask(|n, _| targets(n)).await?;
        let stats = self.stats.clone();
        let read = tokio::task::spawn_blocking(move || stats.read(&targets, brief)).await;
        read.map_err(|e| Failure::internal(e.to_string()))
    }

    pub(super) async fn summary(&self, query: &Query) -> Answer {
        let brief = query.flag("only_cpu_and_memory")?;
        let mut figures = self.figures(brief).await?;
        if !brief {
            self.add_layers(&mut figures).await;
        }
        Ok(json(&summary::summary(&figures, brief)))
    }

    /// What only the runtime knows: writable layers, and the disk of images.
    async fn add_layers(&self, figures: &mut Figures) {
        let client = &self.server.client;
        match client.list_container_stats().await {
            Ok(all) => {
                let by_id: BTreeMap<String, (u64, u64)> = all
                    .into_iter()
                    .filter_map(|s| {
                        let layer = s.writable_layer?;
                        Some((s.attributes?.id, (layer.used_bytes?.value, layer.inodes_used.map_or(0, |n| n.value))))
                    })
                    .collect();
                for c in figures.pods.iter_mut().flat_map(|p| &mut p.containers) {
                    c.rootfs = by_id.get(&c.id).copied();
                }
            }
            Err(error) => tracing::debug!(%error, "the runtime does not tell what containers have written"),
        }
        let Ok(images) = client.image_fs_info().await else { return };
        let Some(fs) = images.image_filesystems.into_iter().next() else { return };
        let Some(at) = fs.fs_id.map(|id| id.mountpoint) else { return };
        let used = (fs.used_bytes.map_or(0, |n| n.value), fs.inodes_used.map_or(0, |n| n.value));
        figures.node.images = crate::run::stats::disk(std::path::Path::new(&at)).map(|whole| crate::stats::Disk {
            used: used.0,
            inodes_used: used.1,
            ..whole
        });
    }

    pub(super) async fn resource_metrics(&self) -> Answer {
        Ok(metrics(text::resource(&self.figures(true).await?)))
    }

    pub(super) async fn cadvisor_metrics(&self) -> Answer {
        Ok(metrics(text::cadvisor(&self.figures(false).await?)))
    }

    /// The kubelet's own.
    pub(super) async fn metrics(&self) -> Answer {
        let known = self.server.ask(|n, _| {
            let mut containers: BTreeMap<&'static str, usize> = BTreeMap::new();
            for c in n.pods.values().flat_map(|e| &e.observed.containers) {
                use longshore_cri::snapshot::ContainerState as S;
                let state = match c.state {
                    S::Created => "created",
                    S::Running { .. } => "running",
                    S::Exited(_) => "exited",
                    S::Unknown => "unknown",
                };
                *containers.entry(state).or_default() += 1;
            }
            Known {
                pods: n.pods.len(),
                running_pods: n.pods.values().filter(|e| e.observed.sandboxes.iter().any(|s| s.ready)).count(),
                active: n.pods.values().filter(|e| !e.is_over()).count(),
                containers,
                v2: n.config.cgroup_v2,
            }
        });
        let known = known.await?;
        let mut page = Page::default();
        page.single(
            "kubelet_active_pods",
            "gauge",
            "The number of pods the kubelet considers active and which are being considered when admitting new pods.",
            known.active,
        );
        page.single("kubelet_cgroup_version", "gauge", "cgroup version on the hosts.", if known.v2 { 2 } else { 1 });
        page.single("kubelet_desired_pods", "gauge", "The number of pods the kubelet is being instructed to run.", known.pods);
        page.metric("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
        page.sample("kubelet_node_name", &[("node", &self.node_name)], 1);
        page.metric("kubelet_running_containers", "gauge", "Number of containers currently running");
        for (state, n) in &known.containers {
            page.sample("kubelet_running_containers", &[("container_state", state)], n);
        }
        page.single("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox", known.running_pods);
        page.metric("kubelet_http_requests_total", "counter", "Number of the http requests received since the server started");
        for ((method, path, code), n) in self.counts.requests.borrow().iter() {
            page.sample("kubelet_http_requests_total", &[("code", &code.to_string()), ("method", method), ("path", path)], n);
        }
        if let Some(until) = self.serving.until() {
            let left = (until.0 - clock::now().wall.0) as f64 / 1e9;
            page.single(
                "kubelet_certificate_manager_server_ttl_seconds",
                "gauge",
                "Gauge of the shortest TTL (time-to-live) of the Kubelet's serving certificate.",
                left,
            );
        }
        page.metric("kubernetes_build_info", "gauge", "A metric with a constant '1' value labeled by what this was built as.");
        page.sample("kubernetes_build_info", &[("git_version", crate::KUBERNETES_VERSION), ("major", "1"), ("minor", "36")], 1);
        self.process(&mut page);
        Ok(metrics(page.into_string()))
    }

    fn process(&self, page: &mut Page) {
        let Ok(me) = procfs::process::Process::myself() else { return };
        if let Ok(stat) = me.stat() {
            let cpu = (stat.utime + stat.stime) as f64 / 100.0;
            page.single("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", cpu);
            page.single("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", stat.rss * procfs::page_size());
            page.single("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", stat.vsize);
        }
        if let Ok(fds) = me.fd_count() {
            page.single("process_open_fds", "gauge", "Number of open file descriptors.", fds);
        }
        page.single(
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            self.started.seconds(),
        );
    }

    pub(super) fn statusz(&self) -> String {
        let now = clock::now().wall;
        let up = now.since(self.started).as_secs();
        let mut paths: Vec<String> =
            crate::port::route::TABLE.iter().map(|r| format!("/{}", r.path.split('/').next().unwrap_or_default())).collect();
        paths.sort();
        paths.dedup();
        format!(
            "\nkubelet statusz\n{WARNING}\n\nStarted: {}\nUp: {} hr {:02} min {:02} sec\nBinary version: {}\nPaths: {}\n",
            self.started.rfc3339(),
            up / 3600,
            up / 60 % 60,
            up % 60,
            crate::KUBERNETES_VERSION.trim_start_matches('v'),
            paths.join(" ")
        )
    }

    pub(super) fn flagz(&self) -> String {
        let flags: Vec<String> = self.flags.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        format!("\nkubelet flagz\n{WARNING}\n\n{}", flags.concat())
    }

    /// `PUT /debug/flags/v` with a number.
    pub(super) async fn set_verbosity(&self, request: Request<Incoming>) -> Answer {
        let set = self.verbosity.as_ref().ok_or_else(|| Failure::new(501, "NotImplemented", "this daemon's log has one level"))?;
        let body = Limited::new(request.into_body(), NUMBER).collect().await;
        let body = body.map_err(|e| Failure::bad_request(format!("error reading request body: {e}")))?.to_bytes();
        let said = String::from_utf8_lossy(&body).trim().to_owned();
        let level: u8 =
            said.parse().map_err(|_| Failure::bad_request(format!("failed to set klog.logging.verbosity {said}: a number is wanted")))?;
        set(level).map_err(Failure::internal)?;
        Ok(super::text(StatusCode::OK, format!("successfully set klog.logging.verbosity to {level}")))
    }
}
