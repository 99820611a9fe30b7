//! What a member of a cluster costs: the whole daemon against the API over TLS, its runtime in memory.
//!
//! `LONGSHORE_BENCH_PART=cluster`; `LONGSHORE_BENCH_OUTAGE` says for how many seconds the API server is away.

use super::{line, median, mib, ms, number};
use anyhow::{Context, Result};
use longshore::api::resource::{SERVICES, SLICES};
use longshore_cri::fake::Options as FakeOptions;
use longshore_tests::lab::control_plane::{ControlPlane, Line};
use longshore_tests::lab::daemon::Options;
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{FakeNode, usage};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const NODE: &str = "/api/v1/nodes/lab";
const PODS: &str = "/api/v1/namespaces/default/pods";
const PATIENCE: Duration = Duration::from_secs(240);
const SERVICES_OF_ALL: usize = 10_000;
const CHANGES: usize = 30;

fn is_ready(object: &Value) -> bool {
    object["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn resident(node: &FakeNode) -> Result<String> {
    Ok(mib(usage::of(node.daemon.pid().context("the daemon runs")?)?.resident))
}

fn pods_that(plane: &ControlPlane, are: impl Fn(&Value) -> bool) -> Result<usize> {
    let list = plane.get(PODS)?.context("a list")?;
    Ok(list["items"].as_array().map_or(0, |l| l.iter().filter(|p| are(p)).count()))
}

pub fn measure(count: usize) -> Result<()> {
    println!("a member of a cluster, its runtime in memory:");
    let (plane, mut node) = FakeNode::join(Options::default(), FakeOptions::default(), |_| {})?;
    plane.wait(NODE, "the node is ready", is_ready)?;
    std::thread::sleep(Duration::from_secs(5));
    line("resident, idle", resident(&node)?, "15 MiB");
    let began = Instant::now();
    for i in 0..count {
        plane.bind(&format!("p{i}"), "lab", json!({"containers": [{"name": "main", "image": "app:1"}]}))?;
    }
    wait_for("all pods are ready", PATIENCE, || anyhow::Ok((pods_that(&plane, is_ready)? == count).then_some(())))?;
    line(&format!("{count} pods bound one after the other, all Ready"), ms(began.elapsed()), "");
    std::thread::sleep(Duration::from_secs(5));
    line("resident, with the pods", resident(&node)?, "25 MiB");
    changes(&plane, &node)?;
    outage(&plane, &node, count)?;
    services(&plane, &mut node)
}

/// From the runtime's event to the status at the API server.
fn changes(plane: &ControlPlane, node: &FakeNode) -> Result<()> {
    let mut took = Vec::new();
    for i in 0..CHANGES {
        let path = format!("{PODS}/p{i}");
        let status = plane.get(&path)?.context("there")?["status"]["containerStatuses"][0].clone();
        let id = status["containerID"].as_str().and_then(|id| id.split_once("://")).context("an id")?.1.to_owned();
        let began = Instant::now();
        node.fake.with(|m, now| m.crash(now, &id, 1)).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        while plane.get(&path)?.context("there")?["status"]["containerStatuses"][0] == status {
            anyhow::ensure!(began.elapsed() < PATIENCE, "the change was not told");
        }
        took.push(began.elapsed());
    }
    took.sort();
    line("event of the runtime to status there, median", ms(median(&took)), "");
    line("  longest", ms(*took.last().context("some")?), "100 ms");
    Ok(())
}

/// The server is away while containers end and start.
fn outage(plane: &ControlPlane, node: &FakeNode, count: usize) -> Result<()> {
    let seconds = number("LONGSHORE_BENCH_OUTAGE").unwrap_or(60);
    let pid = node.daemon.pid().context("the daemon runs")?;
    let restarts = |p: &Value| p["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0);
    let last = format!("{PODS}/p{}", count - 1);
    let id = plane.get(&last)?.context("there")?["status"]["containerStatuses"][0]["containerID"].clone();
    let id = id.as_str().and_then(|id| id.split_once("://")).context("an id")?.1.to_owned();
    let before = usage::of(pid)?;
    plane.line(Line::Down);
    node.fake.with(|m, now| m.crash(now, &id, 1)).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    std::thread::sleep(Duration::from_secs(seconds as u64));
    let after = usage::of(pid)?;
    plane.line(Line::Good);
    let back = Instant::now();
    wait_for("what happened is told", PATIENCE, || anyhow::Ok((restarts(&plane.get(&last)?.context("there")?) > 0).then_some(())))?;
    line(&format!("away for {seconds} s: told after its return"), ms(back.elapsed()), "5 s");
    line("  resident before and after", format!("{}, {}", mib(before.resident), mib(after.resident)), "flat");
    let cpu = (after.cpu - before.cpu).as_secs_f64() / seconds as f64;
    line("  CPU meanwhile", format!("{:.1} m", 1000.0 * cpu), "");
    Ok(())
}

/// From the start of the daemon until all of the cluster's services are in the kernel.
fn services(plane: &ControlPlane, node: &mut FakeNode) -> Result<()> {
    for p in 0..pods_that(plane, |_| true)? {
        plane.ask("DELETE", &format!("{PODS}/p{p}?gracePeriodSeconds=0"), "", &Value::Null)?;
    }
    plane.with(|api| {
        for i in 0..SERVICES_OF_ALL {
            let (a, b) = (i / 250, i % 250 + 1);
            let meta = json!({"name": format!("s{i}"), "namespace": "default", "uid": format!("s-{i}"), "resourceVersion": "1"});
            let spec = json!({"type": "ClusterIP", "clusterIP": format!("10.96.{a}.{b}"), "clusterIPs": [format!("10.96.{a}.{b}")],
                "ipFamilies": ["IPv4"], "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}], "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster"});
            api.publish(SERVICES, json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}));
            api.publish(SLICES, slice(&format!("s{i}"), i));
        }
    })?;
    // The one that is told of last has somebody who answers.
    node.namespace.ip("addr add 192.0.2.7/32 dev lo\nroute add 10.96.0.0/16 dev lo src 192.0.2.7\n")?;
    let _listener = node.namespace.enter(|| TcpListener::bind("192.0.2.7:8080"))??;
    plane.with(|api| {
        let last = format!("s{}", SERVICES_OF_ALL - 1);
        let mut slice = slice(&last, SERVICES_OF_ALL - 1);
        slice["endpoints"] = json!([{"addresses": ["192.0.2.7"], "conditions": {"ready": true}}]);
        api.publish(SLICES, slice);
    })?;
    node.daemon.kill_nine();
    node.namespace.run(&["nft", "flush", "ruleset"])?;
    let began = Instant::now();
    node.daemon.spawn()?;
    let last = SERVICES_OF_ALL - 1;
    let to: SocketAddr = format!("10.96.{}.{}:80", last / 250, last % 250 + 1).parse()?;
    wait_for("the last service answers", PATIENCE, || {
        let answers = node.namespace.enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(20)).is_ok());
        anyhow::Ok(answers.is_ok_and(|a| a).then_some(()))
    })?;
    line(&format!("{SERVICES_OF_ALL} services, start to the last one's answer"), ms(began.elapsed()), "2 s");
    // What lists took is given back within a minute.
    std::thread::sleep(Duration::from_secs(75));
    line("  resident with them", resident(node)?, "40 MiB");
    Ok(())
}

/// Two endpoints of the service of this name.
fn slice(service: &str, i: usize) -> Value {
    let (a, b) = (i / 250, i % 250 + 1);
    let meta = json!({"name": format!("{service}-a"), "namespace": "default", "uid": format!("e-{i}"), "resourceVersion": "1",
        "labels": {"kubernetes.io/service-name": service}});
    let one = |n: u8| json!({"addresses": [format!("10.{n}.{a}.{b}")], "conditions": {"ready": true}});
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": [one(200), one(201)]})
}
