//! What the proxy answers over HTTP: its own health, services' health, metrics.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use lab::objects::{NODE_PORT, PORT, TARGET_PORT, service, slices_on, vip};
use lab::traffic::{serve, tcp, udp};
use lab::{Lab, NODE_V4, NODE_V6, Namespace, apply, eventually, programmed};
use longshore_dataplane::backend::iptables::accounting;
use longshore_dataplane::config::Servers;
use longshore_dataplane::metrics::Metrics;
use longshore_dataplane::{Change, Config, Dataplane, Family, IptablesConfig, Mode, NodePortAddresses, StartError, wire};
use serde_json::{Value, json};

const CHECK_PORT: u16 = 31_000;

struct Page {
    status: u16,
    head: String,
    body: String,
}

/// `None` when nobody listens.
fn get(from: &Namespace, at: SocketAddr, path: &str) -> Option<Page> {
    let text = from.run(|| {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    })?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    Some(Page { status, head: head.to_lowercase(), body: body.into() })
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn serving(lab: &Lab) -> Config {
    let servers = Servers {
        health: Some("0.0.0.0:10256".parse().unwrap()),
        metrics: Some("127.0.0.1:10249".parse().unwrap()),
        configuration: r#"{"kind":"KubeProxyConfiguration"}"#.into(),
        ..Servers::default()
    };
    Config { servers, ..lab.config() }
}

fn balancer() -> Change {
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": CHECK_PORT,
        "ports": [{"name": "t", "port": PORT, "nodePort": NODE_PORT}, {"name": "u", "port": PORT, "protocol": "UDP", "nodePort": NODE_PORT}]});
    service("web", spec)
}

fn slice_of(conditions: Value) -> Change {
    let object: wire::EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "web-IPv4", "namespace": "ns1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "t", "port": TARGET_PORT}],
        "endpoints": [{"addresses": ["10.1.0.11"], "nodeName": "node", "conditions": conditions}]}))
    .unwrap();
    Change::SetSlice(Arc::new(object))
}

fn node(extra: Value) -> Change {
    let mut object = json!({"metadata": {"name": "node"}, "status": {"addresses":
        [{"type": "InternalIP", "address": NODE_V4}, {"type": "InternalIP", "address": NODE_V6}]}});
    object.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    Change::SetNode(Arc::new(serde_json::from_value(object).unwrap()))
}

#[test]
fn health_check_node_ports_tell_load_balancers_of_local_endpoints() {
    let lab = Lab::new();
    let dataplane = Dataplane::start(lab.config()).unwrap();
    let pods = [(0, "node"), (1, "node"), (2, "elsewhere")];
    apply(&dataplane, [balancer()].into_iter().chain(slices_on("web", &pods)).chain([Change::Synced]));
    for ip in [NODE_V4, NODE_V6] {
        eventually("it listens", || get(&lab.outside, at(ip, CHECK_PORT), "/").is_some());
        let page = get(&lab.outside, at(ip, CHECK_PORT), "/anything").unwrap();
        let wanted = "{\n\t\"service\": {\n\t\t\"namespace\": \"ns1\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 2,\n\t\
            \"serviceProxyHealthy\": true\n}";
        assert_eq!((page.status, page.body.as_str()), (200, wanted));
        for header in ["content-type: application/json", "x-content-type-options: nosniff", "x-load-balancing-endpoint-weight: 2"] {
            assert!(page.head.contains(header), "{}", page.head);
        }
    }
    // Not on other addresses than node ports have.
    assert!(get(&lab.pods[0], at("10.1.0.1", CHECK_PORT), "/").is_none());
    // An endpoint on its way out still serves, but balancers are to go elsewhere.
    apply(&dataplane, [slice_of(json!({"ready": false, "serving": true, "terminating": true}))]);
    let page = get(&lab.outside, at(NODE_V4, CHECK_PORT), "/").unwrap();
    assert!(page.status == 503 && page.body.contains("\"localEndpoints\": 0"), "{}", page.body);
    apply(&dataplane, [service("web", json!({}))]);
    eventually("nobody listens", || get(&lab.outside, at(NODE_V4, CHECK_PORT), "/").is_none());
}

#[test]
fn a_health_check_port_that_is_taken_is_told_and_tried_again() {
    let lab = Lab::new();
    let taken = lab.node.run(|| TcpListener::bind(at(NODE_V4, CHECK_PORT)).unwrap());
    let dataplane = Dataplane::start(Config { node_port_addresses: NodePortAddresses::All, ..lab.config() }).unwrap();
    apply(&dataplane, [balancer()].into_iter().chain(slices_on("web", &[(0, "node")])).chain([Change::Synced]));
    let events = dataplane.events();
    let mut event = None;
    eventually("an event tells", || {
        event = events.try_next();
        event.is_some()
    });
    let event = event.unwrap();
    assert_eq!((event.reason, event.action), ("FailedToStartServiceHealthcheck", "Listen"));
    assert!(event.message.starts_with("node node failed to start healthcheck ns1/web on port 31000: "), "{}", event.message);
    drop(taken);
    // At the next change of any health check.
    apply(&dataplane, slices_on("web", &[(0, "node"), (1, "node")]));
    eventually("it listens", || get(&lab.outside, at(NODE_V4, CHECK_PORT), "/").is_some_and(|page| page.status == 200));
}

#[test]
fn kube_proxy_urls_answer_as_upstreams_do() {
    let lab = Lab::new();
    serve(&lab.pods[0], "p0", TARGET_PORT);
    let dataplane = Dataplane::start(serving(&lab)).unwrap();
    let health = at(NODE_V4, 10_256);
    eventually("it listens", || get(&lab.outside, health, "/healthz").is_some());
    apply(&dataplane, [balancer(), node(json!({}))].into_iter().chain(slices_on("web", &[(0, "node")])).chain([Change::Synced]));
    let page = get(&lab.outside, health, "/healthz").unwrap();
    assert!(page.head.starts_with("http/1.1 200 ok"), "{}", page.head);
    let body: Value = serde_json::from_str(&page.body).unwrap();
    assert!(page.body.starts_with("{\"lastUpdated\":\"20") && body["nodeEligible"] == true && body["healthy"] == true, "{}", page.body);
    assert!(body["status"]["IPv4"]["healthy"] == true && body["status"]["IPv6"]["healthy"] == true);
    assert_eq!(get(&lab.outside, health, "/other").unwrap().status, 404);

    // A node about to be deleted is to get no traffic, but its proxy is well.
    let mut changes = vec![json!({"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler"}]}})];
    changes.push(json!({"metadata": {"name": "node", "deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    for leaving in changes {
        apply(&dataplane, [node(leaving)]);
        let page = get(&lab.outside, health, "/healthz").unwrap();
        assert!(page.status == 503 && page.body.contains("\"nodeEligible\":false"), "{}", page.body);
        let page = get(&lab.outside, health, "/livez").unwrap();
        assert!(page.status == 200 && !page.body.contains("nodeEligible"), "{}", page.body);
        apply(&dataplane, [node(json!({}))]);
    }

    let metrics = at("127.0.0.1", 10_249);
    let body = |path: &str| get(&lab.node, metrics, path).map(|page| (page.status, page.body)).unwrap();
    assert_eq!(body("/healthz"), (200, "ok".into()));
    assert_eq!(body("/proxyMode"), (200, "nftables".into()));
    assert_eq!(body("/configz"), (200, r#"{"kubeproxy.config.k8s.io":{"kind":"KubeProxyConfiguration"}}"#.into()));
    assert_eq!(body("/nothing").0, 404);
    assert!(get(&lab.outside, at(NODE_V4, 10_249), "/metrics").is_none(), "only where it was told to listen");
}

#[test]
fn metrics_tell_what_was_programmed_and_what_services_got() {
    let lab = Lab::new();
    (0..2).for_each(|pod| serve(&lab.pods[pod], &format!("p{pod}"), TARGET_PORT));
    let dataplane = Dataplane::start(Config { endpoint_counters: true, ..serving(&lab) }).unwrap();
    apply(&dataplane, [balancer()].into_iter().chain(slices_on("web", &[(0, "elsewhere")])).chain([Change::Synced]));
    let metrics = at("127.0.0.1", 10_249);
    let page = |path: &str| get(&lab.node, metrics, path).unwrap().body;
    eventually("it listens", || get(&lab.node, metrics, "/metrics").is_some());
    let value =
        |page: &str, name: &str| -> Option<f64> { page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()) };
    let first = page("/metrics");
    for (name, wanted) in [
        ("kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}", 1.0),
        ("kubeproxy_sync_proxy_rules_service_changes_total", 1.0),
        ("kubeproxy_sync_proxy_rules_endpoint_changes_total", 2.0),
        ("kubeproxy_sync_proxy_rules_endpoint_changes_pending", 0.0),
        ("kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"external\",ip_family=\"IPv6\"}", 2.0),
        ("longshore_proxy_ready", 1.0),
    ] {
        assert_eq!(value(&first, name), Some(wanted), "{name} in\n{first}");
    }
    let later = slices_on("web", &[(0, "elsewhere"), (1, "node")]).into_iter().map(|change| match change {
        Change::SetSlice(slice) => {
            let mut slice = (*slice).clone();
            let at = longshore_dataplane::model::time::format(std::time::SystemTime::now());
            slice.metadata.annotations.insert("endpoints.kubernetes.io/last-change-trigger-time".into(), at);
            Change::SetSlice(Arc::new(slice))
        }
        other => other,
    });
    apply(&dataplane, later);
    (0..20).for_each(|_| drop(tcp(&lab.outside, SocketAddr::new(vip(false), PORT)).unwrap()));
    udp(&lab.outside, SocketAddr::new(vip(true), PORT)).unwrap();
    let second = page("/metrics");
    assert!(value(&second, "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"}").unwrap() >= 1.0);
    let services = page("/metrics/services");
    let of = |name: &str, labels: &str| {
        value(&services, &format!("longshore_service_{name}{{namespace=\"ns1\",name=\"web\",{labels}}}")).unwrap_or(-1.0)
    };
    assert_eq!(of("connections_total", "destination=\"tcp 10.96.0.10:80\""), 20.0, "{services}");
    assert_eq!(of("connections_total", "destination=\"udp [fd00:96::10]:80\""), 1.0);
    assert!(of("programmed_generation", "ip_family=\"IPv4\"") > 0.0);
    let endpoint = |ip: &str| of("connections_total", &format!("destination=\"tcp 10.96.0.10:80\",endpoint=\"{ip}:8080\""));
    let before = [endpoint("10.1.0.11"), endpoint("10.1.0.12")];
    assert_eq!(before.iter().sum::<f64>(), 20.0, "{services}");
    // What was counted outlives the slots it was counted in.
    apply(&dataplane, slices_on("web", &[(1, "node")]));
    apply(&dataplane, slices_on("web", &[(0, "elsewhere"), (1, "node")]));
    let services = page("/metrics/services");
    let of = |labels: &str| {
        let name =
            format!("longshore_service_connections_total{{namespace=\"ns1\",name=\"web\",destination=\"tcp 10.96.0.10:80\"{labels}}}");
        value(&services, &name).unwrap_or(-1.0)
    };
    assert_eq!(of(""), 20.0, "{services}");
    assert_eq!([of(",endpoint=\"10.1.0.11:8080\""), of(",endpoint=\"10.1.0.12:8080\"")], before, "{services}");
}

#[test]
fn a_server_that_cannot_listen_fails_hard_only_when_asked_to() {
    let lab = Lab::new();
    let taken = lab.node.run(|| TcpListener::bind("0.0.0.0:10256").unwrap());
    let mut config = serving(&lab);
    config.servers.hard_fail = true;
    let error = Dataplane::start(config.clone()).unwrap_err();
    assert!(matches!(error, StartError::Serve(_)), "{error}");
    assert!(error.to_string().starts_with("cannot listen at 0.0.0.0:10256 for health: "), "{error}");
    config.servers.hard_fail = false;
    let dataplane = Dataplane::start(config).unwrap();
    let last = dataplane.apply(Change::Synced);
    programmed(&dataplane, last);
    eventually("an event tells", || dataplane.events().try_next().is_some_and(|e| e.reason == "FailedToStartProxierHealthcheck"));
    drop(taken);
    eventually("it listens in the end", || get(&lab.node, at("127.0.0.1", 10_256), "/livez").is_some());
}

/// Name without `kubeproxy_`, type, labels but `le`, and the modes that have it.
type Metric = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

const F: &[&str] = &["ip_family"];
const ALL: &[&str] = &["nftables", "iptables", "ipvs"];
const NFTABLES: &[&str] = &["nftables"];
const IPTABLES: &[&str] = &["iptables"];

/// All of kube-proxy 1.36's own.
const UPSTREAMS: &[Metric] = &[
    ("sync_proxy_rules_duration_seconds", "histogram", F, ALL),
    ("sync_full_proxy_rules_duration_seconds", "histogram", F, &["nftables", "iptables"]),
    ("sync_partial_proxy_rules_duration_seconds", "histogram", F, &["nftables", "iptables"]),
    ("sync_proxy_rules_last_timestamp_seconds", "gauge", F, ALL),
    ("sync_proxy_rules_last_queued_timestamp_seconds", "gauge", F, ALL),
    ("network_programming_duration_seconds", "histogram", F, ALL),
    ("sync_proxy_rules_endpoint_changes_pending", "gauge", &[], ALL),
    ("sync_proxy_rules_endpoint_changes_total", "counter", &[], ALL),
    ("sync_proxy_rules_service_changes_pending", "gauge", &[], ALL),
    ("sync_proxy_rules_service_changes_total", "counter", &[], ALL),
    ("sync_proxy_rules_no_local_endpoints_total", "gauge", &["ip_family", "traffic_policy"], ALL),
    ("sync_proxy_rules_iptables_total", "gauge", &["ip_family", "table"], IPTABLES),
    ("sync_proxy_rules_iptables_last", "gauge", &["ip_family", "table"], IPTABLES),
    ("sync_proxy_rules_iptables_restore_failures_total", "counter", F, &["iptables", "ipvs"]),
    ("sync_proxy_rules_iptables_partial_restore_failures_total", "counter", F, IPTABLES),
    ("sync_proxy_rules_nftables_sync_failures_total", "counter", F, NFTABLES),
    ("sync_proxy_rules_nftables_cleanup_failures_total", "counter", F, NFTABLES),
    ("conntrack_reconciler_sync_duration_seconds", "histogram", F, ALL),
    ("conntrack_reconciler_deleted_entries_total", "counter", F, ALL),
    ("proxy_healthz_total", "counter", &["code"], ALL),
    ("proxy_livez_total", "counter", &["code"], ALL),
];
/// Where the kernel can count by name.
const COUNTED_IN_THE_KERNEL: &[Metric] = &[
    ("iptables_ct_state_invalid_dropped_packets_total", "counter", &[], IPTABLES),
    ("iptables_localhost_nodeports_accepted_packets_total", "counter", &[], IPTABLES),
];
const OF_PROCESSES: [&str; 7] = [
    "process_cpu_seconds_total counter ",
    "process_max_fds gauge ",
    "process_open_fds gauge ",
    "process_resident_memory_bytes gauge ",
    "process_start_time_seconds gauge ",
    "process_virtual_memory_bytes gauge ",
    "kubernetes_build_info gauge git_version,major,minor",
];

/// Each metric of a page as `name type labels`.
fn metrics_of(page: &str) -> BTreeSet<String> {
    let mut of: BTreeMap<&str, (&str, BTreeSet<&str>)> = BTreeMap::new();
    for line in page.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            of.insert(name, (kind, BTreeSet::new()));
        } else if !line.starts_with('#') {
            let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
            let of_histogram =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| of.contains_key(name.strip_suffix(end)?).then_some(*end));
            let name = of_histogram.map_or(name, |end| name.strip_suffix(end).unwrap());
            let labels = rest.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
            let names = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0));
            of.get_mut(name).unwrap_or_else(|| panic!("{name} has no type")).1.extend(names.filter(|name| *name != "le"));
        }
    }
    let line = |(name, (kind, labels)): (&str, (&str, BTreeSet<&str>))| {
        format!("{name} {kind} {}", labels.into_iter().collect::<Vec<_>>().join(","))
    };
    of.into_iter().map(line).collect()
}

#[test]
fn every_metric_of_the_specification_has_its_name_type_and_labels_in_each_mode_and_no_other_has_its_prefix() {
    let upstreams = |mode: &str, counted: bool| -> BTreeSet<String> {
        let more = if counted { COUNTED_IN_THE_KERNEL } else { &[] };
        let of_mode = UPSTREAMS.iter().chain(more).filter(|(.., modes)| modes.contains(&mode));
        of_mode.map(|(name, kind, labels, _)| format!("kubeproxy_{name} {kind} {}", labels.join(","))).collect()
    };
    let ours = |page: &str| -> BTreeSet<String> { metrics_of(page).into_iter().filter(|line| line.starts_with("kubeproxy_")).collect() };
    for mode in [Mode::Nftables, Mode::Iptables(IptablesConfig::default())] {
        let lab = Lab::new();
        let dataplane = Dataplane::start(Config { mode: mode.clone(), ..serving(&lab) }).unwrap();
        apply(&dataplane, [balancer()].into_iter().chain(slices_on("web", &[(0, "node")])).chain([Change::Synced]));
        eventually("it listens", || get(&lab.node, at("127.0.0.1", 10_249), "/metrics").is_some());
        let page = get(&lab.node, at("127.0.0.1", 10_249), "/metrics").unwrap();
        assert!(page.head.contains("content-type: text/plain; version=0.0.4"), "{}", page.head);
        let counted = matches!(mode, Mode::Iptables(_)) && lab.node.run(accounting::exist);
        assert_eq!(ours(&page.body), upstreams(mode.name(), counted));
        let all = metrics_of(&page.body);
        OF_PROCESSES.iter().for_each(|line| assert!(all.contains(*line), "no {line:?} in {all:#?}"));
    }
    // This kernel has no IPVS; the page is made by the same code.
    assert_eq!(ours(&Metrics::default().render("ipvs", &Family::ALL).into_string()), upstreams("ipvs", false));
}
