//! `/metrics/resource` and `/metrics/cadvisor`.

use super::{ContainerFigures, Figures, Interface, PodFigures, Pressure, Usage};
use crate::time::Wall;
use longshore_dataplane::metrics::text::{Labels, Page};

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// One metric over whatever has a value: a row each.
struct Metric<'a> {
    page: &'a mut Page,
    name: &'static str,
}

impl Metric<'_> {
    /// With the time at which it was so, in milliseconds.
    fn row(&mut self, labels: Labels, value: Option<f64>, at: Wall) {
        if let Some(value) = value {
            self.page.sample(self.name, labels, format_args!("{value} {}", at.0 / 1_000_000));
        }
    }
}

fn metric<'a>(page: &'a mut Page, name: &'static str, kind: &str, help: &str) -> Metric<'a> {
    page.metric(name, kind, help);
    Metric { page, name }
}

fn memory(u: &Usage, of: impl Fn(&super::Memory) -> u64) -> Option<f64> {
    u.memory.as_ref().map(|m| of(m) as f64)
}

/// What metrics-server reads.
pub fn resource(f: &Figures) -> String {
    let mut page = Page::default();
    let cpu = |u: &Usage| u.cpu.map(|c| seconds(c.total));
    let working = |u: &Usage| memory(u, |m| m.working_set);
    let swap = |u: &Usage| u.memory.and_then(|m| m.swap).map(|n| n as f64);
    let swap_limit = |u: &Usage| u.memory.and_then(|m| m.swap_limit).map(|n| n as f64);
    type Read<'a> = &'a dyn Fn(&Usage) -> Option<f64>;
    let of_containers: [(&str, &str, &str, Read); 4] = [
        ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds", &cpu),
        ("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes", &working),
        ("container_swap_limit_bytes", "gauge", "Current amount of the container swap limit in bytes", &swap_limit),
        ("container_swap_usage_bytes", "gauge", "Current amount of the container swap usage in bytes", &swap),
    ];
    for (name, kind, help, read) in of_containers {
        let mut m = metric(&mut page, name, kind, help);
        each(f, |p, c| m.row(&[("container", &c.name), ("namespace", &p.namespace), ("pod", &p.name)], read(&c.usage), c.usage.at));
    }
    page.metric("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds");
    each(f, |p, c| {
        let labels: Labels = &[("container", &c.name), ("namespace", &p.namespace), ("pod", &p.name)];
        page.sample("container_start_time_seconds", labels, c.started.0 as f64 / 1e9);
    });
    let of_node: [(&str, &str, &str, Read); 3] = [
        ("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds", &cpu),
        ("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes", &working),
        ("node_swap_usage_bytes", "gauge", "Current swap usage of the node in bytes", &swap),
    ];
    for (name, kind, help, read) in of_node {
        metric(&mut page, name, kind, help).row(&[], read(&f.node.usage), f.node.usage.at);
    }
    let of_pods: [(&str, &str, &str, Read); 3] = [
        ("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds", &cpu),
        ("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", &working),
        ("pod_swap_usage_bytes", "gauge", "Current amount of the pod swap usage in bytes", &swap),
    ];
    for (name, kind, help, read) in of_pods {
        let mut m = metric(&mut page, name, kind, help);
        f.pods.iter().for_each(|p| m.row(&[("namespace", &p.namespace), ("pod", &p.name)], read(&p.usage), p.usage.at));
    }
    let failed = f.node.usage.cpu.is_none() || f.node.usage.memory.is_none();
    page.single("resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise", u8::from(failed));
    page.single("scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise", u8::from(failed));
    page.into_string()
}

fn each(f: &Figures, mut take: impl FnMut(&PodFigures, &ContainerFigures)) {
    f.pods.iter().for_each(|p| p.containers.iter().for_each(|c| take(p, c)));
}

/// A group with the labels that name it.
struct Group<'a> {
    labels: [(&'static str, &'a str); 6],
    usage: &'a Usage,
    started: Wall,
}

fn groups(f: &Figures) -> Vec<Group<'_>> {
    let group = |id, name, image, container, pod, namespace, usage, started| Group {
        labels: [("container", container), ("id", id), ("image", image), ("name", name), ("namespace", namespace), ("pod", pod)],
        usage,
        started,
    };
    let mut out = vec![group("/", "", "", "", "", "", &f.node.usage, f.node.started)];
    for p in &f.pods {
        out.push(group(&p.cgroup, "", "", "", &p.name, &p.namespace, &p.usage, p.started));
        out.extend(p.containers.iter().map(|c| group(&c.cgroup, &c.id, &c.image, &c.name, &p.name, &p.namespace, &c.usage, c.started)));
    }
    out
}

/// What dashboards read.
pub fn cadvisor(f: &Figures) -> String {
    let mut page = Page::default();
    let all = groups(f);
    type Read = fn(&Usage) -> Option<f64>;
    const OF_GROUPS: &[(&str, &str, &str, Read)] = &[
        ("container_cpu_cfs_periods_total", "counter", "Number of elapsed enforcement period intervals.", |u| {
            u.cpu.map(|c| c.periods as f64)
        }),
        ("container_cpu_cfs_throttled_periods_total", "counter", "Number of throttled period intervals.", |u| {
            u.cpu.map(|c| c.throttled as f64)
        }),
        ("container_cpu_cfs_throttled_seconds_total", "counter", "Total time duration the container has been throttled.", |u| {
            u.cpu.map(|c| seconds(c.throttled_time))
        }),
        ("container_cpu_system_seconds_total", "counter", "Cumulative system cpu time consumed in seconds.", |u| {
            u.cpu.map(|c| seconds(c.system))
        }),
        ("container_cpu_user_seconds_total", "counter", "Cumulative user cpu time consumed in seconds.", |u| {
            u.cpu.map(|c| seconds(c.user))
        }),
        ("container_memory_cache", "gauge", "Number of bytes of page cache memory.", |u| memory(u, |m| m.cache)),
        ("container_memory_mapped_file", "gauge", "Size of memory mapped files in bytes.", |u| memory(u, |m| m.mapped)),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |u| memory(u, |m| m.rss)),
        ("container_memory_swap", "gauge", "Container swap usage in bytes.", |u| u.memory.and_then(|m| m.swap).map(|n| n as f64)),
        (
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |u| memory(u, |m| m.usage),
        ),
        ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |u| memory(u, |m| m.working_set)),
        ("container_processes", "gauge", "Number of processes running inside the container.", |u| u.processes.map(|n| n as f64)),
        ("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container.", |u| memory(u, |m| m.limit.unwrap_or(0))),
    ];
    page.metric("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.");
    for g in &all {
        let labels = [&[g.labels[0], ("cpu", "total")], &g.labels[1..]].concat();
        Metric { page: &mut page, name: "container_cpu_usage_seconds_total" }.row(
            &labels,
            g.usage.cpu.map(|c| seconds(c.total)),
            g.usage.at,
        );
    }
    for (name, kind, help, read) in OF_GROUPS {
        let mut m = metric(&mut page, name, kind, help);
        all.iter().for_each(|g| m.row(&g.labels, read(g.usage), g.usage.at));
    }
    let mut m = metric(&mut page, "container_last_seen", "gauge", "Last time a container was seen by the exporter");
    all.iter().for_each(|g| m.row(&g.labels, Some(g.usage.at.seconds() as f64), g.usage.at));
    let mut m = metric(&mut page, "container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.");
    all.iter().for_each(|g| m.row(&g.labels, Some(g.started.seconds() as f64), g.usage.at));
    pressures(&mut page, &all);
    networks(&mut page, f);
    page.single("machine_cpu_cores", "gauge", "Number of logical CPU cores.", f.node.cores);
    page.single("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.", f.node.memory);
    page.into_string()
}

fn pressures(page: &mut Page, all: &[Group]) {
    type Read = fn(&Usage) -> Option<Pressure>;
    const OF: [(&str, &str, Read); 3] = [
        ("container_pressure_cpu_waiting_seconds_total", "container_pressure_cpu_stalled_seconds_total", |u| u.cpu_pressure),
        ("container_pressure_io_waiting_seconds_total", "container_pressure_io_stalled_seconds_total", |u| u.io_pressure),
        ("container_pressure_memory_waiting_seconds_total", "container_pressure_memory_stalled_seconds_total", |u| u.memory_pressure),
    ];
    for (waiting, stalled, read) in OF {
        let mut m = metric(page, waiting, "counter", "Total time duration tasks in the container have waited due to congestion.");
        all.iter().for_each(|g| m.row(&g.labels, read(g.usage).map(|p| p.some.total as f64 / 1e6), g.usage.at));
        let mut m =
            metric(page, stalled, "counter", "Total time duration no tasks in the container could make progress due to congestion.");
        all.iter().for_each(|g| m.row(&g.labels, read(g.usage).map(|p| p.full.total as f64 / 1e6), g.usage.at));
    }
}

fn networks(page: &mut Page, f: &Figures) {
    type Read = fn(&Interface) -> u64;
    const OF: [(&str, &str, Read); 8] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |i| i.rx_bytes),
        ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", |i| i.rx_errors),
        ("container_network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving", |i| i.rx_dropped),
        ("container_network_receive_packets_total", "Cumulative count of packets received", |i| i.rx_packets),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |i| i.tx_bytes),
        ("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", |i| i.tx_errors),
        ("container_network_transmit_packets_dropped_total", "Cumulative count of packets dropped while transmitting", |i| i.tx_dropped),
        ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |i| i.tx_packets),
    ];
    for (name, help, read) in OF {
        let mut m = metric(page, name, "counter", help);
        let mut row = |id: &str, pod: &str, namespace: &str, i: &Interface, at| {
            let labels: Labels = &[
                ("container", ""),
                ("id", id),
                ("image", ""),
                ("interface", &i.name),
                ("name", ""),
                ("namespace", namespace),
                ("pod", pod),
            ];
            m.row(labels, Some(read(i) as f64), at);
        };
        f.node.network.iter().for_each(|i| row("/", "", "", i, f.node.usage.at));
        f.pods.iter().for_each(|p| p.network.iter().for_each(|i| row(&p.cgroup, &p.name, &p.namespace, i, p.usage.at)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::figures;
    use super::*;

    #[test]
    fn resource_metrics_are_what_metrics_server_reads() {
        let page = resource(&figures());
        for line in [
            "container_cpu_usage_seconds_total{container=\"main\",namespace=\"default\",pod=\"web\"} 5 100000",
            "container_memory_working_set_bytes{container=\"main\",namespace=\"default\",pod=\"web\"} 60 100000",
            "container_start_time_seconds{container=\"main\",namespace=\"default\",pod=\"web\"} 50",
            "node_cpu_usage_seconds_total 5 100000",
            "node_memory_working_set_bytes 60 100000",
            "pod_cpu_usage_seconds_total{namespace=\"default\",pod=\"web\"} 5 100000",
            "resource_scrape_error 0",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }

    #[test]
    fn cadvisor_metrics_name_node_pods_and_containers() {
        let page = cadvisor(&figures());
        for line in [
            "container_memory_usage_bytes{container=\"main\",id=\"/kubepods/pod1/abc\",image=\"app:1\",name=\"abc\",namespace=\"default\",pod=\"web\"} 100 100000",
            "container_memory_usage_bytes{container=\"\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"} 100 100000",
            "container_network_receive_bytes_total{container=\"\",id=\"/kubepods/pod1\",image=\"\",interface=\"eth0\",name=\"\",namespace=\"default\",pod=\"web\"} 10 100000",
            "machine_cpu_cores 2",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }

    #[test]
    fn every_sample_belongs_to_a_metric_that_was_announced_once() {
        for page in [resource(&figures()), cadvisor(&figures())] {
            let mut announced = Vec::new();
            for line in page.lines() {
                if let Some(rest) = line.strip_prefix("# TYPE ") {
                    let name = rest.split(' ').next().unwrap().to_owned();
                    assert!(!announced.contains(&name), "{name} twice");
                    announced.push(name);
                } else if !line.starts_with('#') {
                    let name = line.split(['{', ' ']).next().unwrap();
                    assert_eq!(announced.last().map(String::as_str), Some(name));
                }
            }
        }
    }
}
