//! The metrics server's pages.
//!
//! Owns the paths. Numbers come from [`Shared`](super::shared::Shared), the actor's status, the kernel's accounting, and
//! `/proc/self`. Tests: the namespace tests.

use tokio::sync::oneshot;

use super::http::Answer;
use super::server::Context;
use crate::backend::iptables::accounting;
use crate::backend::iptables::schema::{INVALID_DROPPED, LOCALHOST_ACCEPTED};
use crate::metrics::text::Page;
use crate::snapshot::{Snapshot, Status};

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub async fn answer(path: &str, context: &Context) -> Answer {
    let configuration = || context.shared.lock().configuration.clone();
    let metrics = |body: String| Answer { content_type: METRICS_TYPE, ..Answer::text(body) };
    match path {
        "/healthz" => Answer::text("ok"),
        "/proxyMode" => Answer::text(context.shared.lock().mode),
        "/metrics" => metrics(page(context)),
        "/metrics/slis" => metrics(slis(context)),
        "/metrics/services" => services(context).await.map_or_else(Answer::not_found, metrics),
        "/configz" => {
            let configuration = Some(configuration()).filter(|text| !text.is_empty()).unwrap_or_else(|| "{}".into());
            Answer::json(200, format!("{{\"kubeproxy.config.k8s.io\":{configuration}}}"))
        }
        "/statusz" => Answer::text(statusz(context)),
        "/flagz" => Answer::text(format!("kube-proxy flagz\n\nconfiguration={}\n", configuration())),
        _ => Answer::not_found(),
    }
}

fn page(context: &Context) -> String {
    let status = context.status.borrow().clone();
    let mut page = {
        let told = context.shared.lock();
        let families: Vec<_> = told.listen.iter().map(|(family, _)| *family).collect();
        told.metrics.render(told.mode, &families)
    };
    if context.shared.lock().mode == "iptables" {
        accounted(&mut page);
    }
    own(&mut page, &status);
    process(&mut page);
    page.into_string()
}

/// What the rules of mode iptables count in the kernel. Where it cannot count, the metrics are not there.
fn accounted(page: &mut Page) {
    for (name, help, object) in [
        ("ct_state_invalid_dropped", "Packets dropped because the connection tracker finds them invalid.", INVALID_DROPPED),
        ("localhost_nodeports_accepted", "Packets to node ports on loopback addresses.", LOCALHOST_ACCEPTED),
    ] {
        if let Some(packets) = accounting::packets(object) {
            page.single(&format!("kubeproxy_iptables_{name}_packets_total"), "counter", help, packets);
        }
    }
}

/// What upstream's proxy does not count.
fn own(page: &mut Page, status: &Status) {
    let c = &status.counters;
    let p = page;
    p.single("longshore_proxy_ready", "gauge", "Whether the first full program is in the kernel.", u8::from(status.ready));
    let help = "Number of the last change that is in the kernel.";
    p.single("longshore_proxy_programmed_generation", "gauge", help, status.programmed_generation);
    p.single("longshore_proxy_services", "gauge", "Services that exist.", c.services);
    p.single("longshore_proxy_frontends", "gauge", "Destinations in the kernel, in all families.", c.frontends);
    let counters = [
        ("passes_total", "Passes from changed objects to the kernel.", c.passes),
        ("failed_passes_total", "Passes that failed.", c.failed_passes),
        ("kernel_reads_total", "Times that rules were read from the kernel as a whole.", c.kernel_reads),
        ("kernel_writes_total", "Operations committed.", c.kernel_writes),
        ("kernel_transactions_total", "Transactions committed.", c.kernel_transactions),
        ("foreign_changes_total", "Times that somebody else was found to have changed our rules.", c.foreign_changes),
    ];
    for (name, help, value) in counters {
        p.single(&format!("longshore_proxy_{name}"), "counter", help, value);
    }
    p.metric("kubernetes_build_info", "gauge", "The version whose behaviour this is.");
    p.sample("kubernetes_build_info", &[("git_version", "v1.36.2"), ("major", "1"), ("minor", "36")], 1);
}

fn process(page: &mut Page) {
    const TICKS: f64 = 100.0;
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let stat = read("stat");
    // After the name in parentheses: utime is the 12th field, stime the 13th, the start the 20th, memory the 21st and 22nd.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let name = "process_cpu_seconds_total";
    page.single(name, "counter", "CPU time of this process.", (field(11) + field(12)) / TICKS);
    page.single("process_resident_memory_bytes", "gauge", "Resident memory.", field(21) * 4096.0);
    page.single("process_virtual_memory_bytes", "gauge", "Virtual memory.", field(20));
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let up = uptime.split_whitespace().next().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    // When it started is counted from when the machine did.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let started = now - up + field(19) / TICKS;
    page.single("process_start_time_seconds", "gauge", "When this process started.", started);
    if let Some(limit) =
        read("limits").lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse::<u64>().ok())
    {
        page.single("process_max_fds", "gauge", "Most open file descriptors.", limit);
    }
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    page.single("process_open_fds", "gauge", "Open file descriptors.", open);
}

fn slis(context: &Context) -> String {
    let healthy = context.shared.lock().health.live(std::time::SystemTime::now());
    let mut page = Page::default();
    page.metric("kubernetes_healthcheck", "gauge", "Result of each health check.");
    page.sample("kubernetes_healthcheck", &[("name", "proxy"), ("type", "livez")], u8::from(healthy));
    page.into_string()
}

/// Per service: what is programmed, and what was counted. A page of its own, because it is as long as the cluster has
/// services.
async fn services(context: &Context) -> Option<String> {
    let (answer, answered) = oneshot::channel::<Snapshot>();
    context.inbox.ask_snapshot(answer);
    let snapshot = answered.await.ok()?;
    let mut page = Page::default();
    let name = "longshore_service_programmed_generation";
    page.metric(name, "gauge", "Number of the change by which the service's rules came into the kernel.");
    for (service, family, generation) in &snapshot.generations {
        let labels = [("namespace", service.namespace()), ("name", service.name()), ("ip_family", &family.to_string())];
        page.sample(name, &labels, generation);
    }
    for (name, help, of) in [
        ("longshore_service_connections_total", "New connections to a service's destination.", 0),
        ("longshore_service_first_packet_bytes_total", "Bytes of the first packets of these connections.", 1),
    ] {
        page.metric(name, "counter", help);
        for traffic in &snapshot.traffic {
            let endpoint = traffic.endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default();
            let service = &traffic.service;
            let labels = [
                ("namespace", service.namespace()),
                ("name", service.name()),
                ("destination", &traffic.destination),
                ("endpoint", &endpoint),
            ];
            let labels = if traffic.endpoint.is_some() { &labels[..] } else { &labels[..3] };
            page.sample(name, labels, if of == 0 { traffic.connections } else { traffic.bytes });
        }
    }
    Some(page.into_string())
}

fn statusz(context: &Context) -> String {
    let status = context.status.borrow();
    let error = status.last_error.as_deref().unwrap_or("none");
    let (mode, services, generation) = (context.shared.lock().mode, status.counters.services, status.programmed_generation);
    format!(
        "kube-proxy statusz\n\nmode: {mode}\nready: {}\nservices: {services}\nprogrammed generation: {generation}\nlast error: {error}\n",
        status.ready
    )
}
