//! What the daemon's service proxy tells: events about services, and what becomes of packets.
//!
//! The daemon programs its kernel's services, so it lives in a network namespace that leads nowhere.

use anyhow::{Context as _, Result, ensure};
use longshore_cri::fake::Options as FakeOptions;
use longshore_tests::lab::FakeNode;
use longshore_tests::lab::daemon::{Options, binary};
use longshore_tests::lab::net::SERVICE_CIDRS;
use longshore_tests::lab::wait::wait_for;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// A node with services of one family.
fn node(mode: &str) -> Result<FakeNode> {
    let arguments = ["--proxy-mode", mode].map(String::from).to_vec();
    let service_cidrs = vec![SERVICE_CIDRS[0].to_owned()];
    FakeNode::start(Options { arguments, service_cidrs, ..Options::default() }, FakeOptions::default(), |_| {})
}

fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec: {{ {spec}, ports: [ {{ name: http, port: 80 }} ] }}\n---\n")
}

fn slice(name: &str, endpoints: &[&str]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|ip| format!("{{ addresses: [ {ip} ] }}")).collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{ name: {name}-1, labels: {{ kubernetes.io/service-name: {name} }} }}\n\
         endpoints: [ {} ]\nports: [ {{ name: http, port: 8080 }} ]\n---\n",
        endpoints.join(", ")
    )
}

#[test]
fn what_the_proxy_cannot_do_as_asked_shows_as_an_event_about_the_service() -> Result<()> {
    let node = node("nftables")?;
    let external = "externalIPs: [ 198.51.100.7 ]";
    node.daemon.apply("two.yaml", &(service("first", external) + &service("second", external)))?;
    let told = |reason: &str, object: &str| -> Result<_> {
        let said = node.run(&["get", "events"])?;
        ensure!(said.out.lines().any(|line| line.contains(reason) && line.contains(object) && line.contains("Warning")), "{said:?}");
        Ok(Some(()))
    };
    wait_for("one of two with the same address is told of", SOON, || told("DuplicateFrontend", "service/second"))?;
    node.daemon.apply("third.yaml", &service("third", "clusterIP: 10.96.0.77"))?;
    node.daemon.apply("fourth.yaml", &service("fourth", "clusterIP: 10.96.0.77"))?;
    wait_for("so is one of two with the same cluster IP", SOON, || told("DuplicateFrontend", "service/third"))?;
    node.daemon.apply("dual.yaml", &service("dual", "ipFamilyPolicy: RequireDualStack"))?;
    wait_for("so is one that asks for addresses that this node has not", SOON, || told("FailedAllocation", "service/dual"))
}

#[test]
fn packets_are_traced_by_the_rules_of_the_mode_in_force_and_the_kernel_agrees() -> Result<()> {
    for mode in ["nftables", "iptables", "userspace"] {
        let node = node(mode)?;
        let objects = |endpoints: &[&str]| service("web", "clusterIP: 10.96.0.50") + &slice("web", endpoints);
        node.daemon.apply("web.yaml", &objects(&["10.244.0.11", "10.244.0.12", "10.244.0.13"]))?;
        let (binary, socket) = (binary()?, node.daemon.socket());
        let (binary, socket) = (binary.to_str().context("a name")?, socket.to_str().context("a name")?);
        let trace = |more: &[&str]| {
            let words = [&[binary, "trace", "--socket", socket, "10.244.0.9", "10.96.0.50:80", "--in", "cni0"], more].concat();
            node.namespace.run(&words)
        };
        let agrees: &[&str] = if mode == "userspace" { &[] } else { &["--kernel"] };
        let said = wait_for("the kernel has it", SOON, || -> Result<_> {
            let said = trace(agrees)?;
            ensure!(said.contains("33.33 %  to 10.244.0.12:8080"), "{said}");
            Ok(Some(said))
        })?;
        ensure!(said.contains(&format!("mode      {mode}\n")), "{said}");
        ensure!(said.contains("cluster IP of Service default/web, port http"), "{said}");
        ensure!(mode == "userspace" || said.contains("kernel    agrees"), "{said}");
        if mode != "userspace" {
            // Somebody else's meddling is found, at the latest when it is asked about. (It is mended soon.)
            let file = tempfile::NamedTempFile::new()?;
            std::fs::write(file.path(), objects(&["10.244.0.11"]))?;
            let other = trace(&["--kernel", "--services", file.path().to_str().context("a name")?]);
            ensure!(other.is_err(), "the kernel has more endpoints than the file: {other:?}");
        }
        let (before, after) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
        std::fs::write(before.path(), objects(&["10.244.0.11"]))?;
        std::fs::write(after.path(), objects(&["10.244.0.11", "10.244.0.99"]))?;
        let paths = [after.path(), before.path()].map(|path| path.to_str().unwrap_or_default().to_owned());
        let plan = node.namespace.run(&[binary, "plan", "--socket", socket, &paths[0], "--from", &paths[1]])?;
        ensure!(plan.contains("10.244.0.99") && plan.lines().count() < 25, "{mode}: {plan}");
        let none = node.namespace.run(&[binary, "plan", "--socket", socket, &paths[0], "--from", &paths[0]])?;
        ensure!(none.is_empty(), "{mode}: {none}");
    }
    Ok(())
}
