//! `longshore proxy`: the service proxy alone, on services and a configuration from files, as a process.

mod proxy;

use anyhow::{Result, ensure};
use longshore_tests::lab::Running;
use longshore_tests::lab::client::get;
use longshore_tests::lab::control_plane::{ControlPlane, Line, Signing};
use longshore_tests::lab::daemon::binary;
use longshore_tests::lab::wait::{wait_for, wait_until};
use proxy::{CLUSTER_IP, NODE_PORT, Node, SOON, answers, ask, cluster_ip, node_port, pod_ip, service, without_loss};
use serde_json::json;
use std::net::SocketAddr;

const MODES: [&str; 2] = ["nftables", "iptables"];

fn served() -> Result<Node> {
    let node = Node::new()?;
    node.serve()?;
    node.write(node.services()?.join("service.yaml"), &service("web", CLUSTER_IP, 80, Some(NODE_PORT)))?;
    node.endpoints(&[0])?;
    Ok(node)
}

#[test]
fn services_of_a_folder_are_followed_kept_after_the_end_and_gone_after_a_cleanup() -> Result<()> {
    for mode in MODES {
        let node = served()?;
        ensure!(node.rules()?.is_empty());
        let arguments = ["--mode", mode, "--cluster-cidr", "10.244.0.0/16"];
        let mut running = node.proxy(&arguments)?;
        for from in [node.outside(), &node.pods[2], &node.network.node] {
            answers(from, cluster_ip(), "pod0 ")?;
        }
        answers(node.outside(), node_port(), "pod0 ")?;
        without_loss(node.outside(), cluster_ip(), || {
            node.endpoints(&[1])?;
            answers(node.outside(), cluster_ip(), "pod1 ")
        })?;
        // A file that makes no sense takes nothing away from what the others say.
        node.write(node.services()?.join("wrong.yaml"), "kind: Service\nmetadata: { name: [ ] }\n")?;
        wait_until("the wrong file is told of", SOON, || running.output().contains("this object is left out"))?;
        answers(node.outside(), cluster_ip(), "pod1 ")?;
        let ended = running.stop(SOON)?;
        ensure!(ended.success(), "{ended}");
        answers(node.outside(), cluster_ip(), "pod1 ")?;
        // The next one takes on what is there, and what changed meanwhile.
        node.endpoints(&[0])?;
        let mut running = without_loss(node.outside(), cluster_ip(), || {
            let running = node.proxy(&arguments)?;
            answers(node.outside(), cluster_ip(), "pod0 ")?;
            Ok(running)
        })?;
        running.stop(SOON)?;
        let (content, said) = node.run(&["--cleanup"])?;
        ensure!(content, "{said}");
        let left = node.rules()?;
        ensure!(left.is_empty(), "{mode}: {left:?}");
    }
    Ok(())
}

/// A configuration file with these lines besides the usual.
fn configure(node: &Node, mode: &str, lines: &str) -> Result<()> {
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration";
    node.write(node.file("config.yaml")?, &format!("{head}\nmode: {mode}\n{lines}"))
}

fn configz(node: &Node) -> Result<serde_json::Value> {
    let to = SocketAddr::from(([127, 0, 0, 1], 10249));
    let text = node.network.node.enter(|| get(to, "/configz", SOON))??;
    Ok(serde_json::from_str(&text)?)
}

/// Goes through changes that upstream restarts for; the service answers all the time.
fn changes_are_taken_on(node: &Node, mode: &str) -> Result<()> {
    let outside = node.outside();
    // Pods are told from others by range: their addresses stay.
    configure(node, mode, "clusterCIDR: 10.244.0.0/16\nnodePortAddresses: [ 192.0.2.0/24 ]\n")?;
    answers(&node.pods[2], cluster_ip(), &format!("pod1 {}", pod_ip(2)))?;
    answers(outside, node_port(), "pod1 ")?;
    // No longer, with a range that is not theirs; and the node port is at none of the node's addresses.
    configure(node, mode, "clusterCIDR: 10.200.0.0/16\nnodePortAddresses: [ 198.51.100.0/24 ]\n")?;
    answers(&node.pods[2], cluster_ip(), "pod1 10.244.0.1")?;
    wait_until("the node port is closed", SOON, || ask(outside, node_port()).is_err())?;
    let lines = "detectLocalMode: InterfaceNamePrefix\ndetectLocal: { interfaceNamePrefix: cni }\nnodePortAddresses: [ primary ]\n";
    configure(node, mode, &format!("{lines}{mode}: {{ syncPeriod: 47s }}\nlogging: {{ verbosity: 4 }}\n"))?;
    answers(&node.pods[2], cluster_ip(), &format!("pod1 {}", pod_ip(2)))?;
    answers(outside, node_port(), "pod1 ")?;
    wait_for("the configuration in force is shown", SOON, || -> Result<_> {
        let shown = configz(node)?;
        let text = shown.to_string();
        ensure!(text.contains("47s") && text.contains("InterfaceNamePrefix"), "{text}");
        Ok(Some(()))
    })
}

#[test]
fn a_changed_configuration_is_in_force_without_a_restart_and_without_loss() -> Result<()> {
    let node = served()?;
    node.endpoints(&[1])?;
    configure(&node, "nftables", "clusterCIDR: 10.244.0.0/16\n")?;
    let config = node.file("config.yaml")?;
    let mut running = node.proxy(&["--config", config.to_str().unwrap_or_default()])?;
    answers(node.outside(), cluster_ip(), "pod1 ")?;
    ensure!(!running.output().contains("DEBUG"));
    without_loss(node.outside(), cluster_ip(), || {
        changes_are_taken_on(&node, "nftables")?;
        // One that comes later by name does not get the address, and only a log that says more tells of events.
        node.write(node.services()?.join("yet-another.yaml"), &service("yet-another", CLUSTER_IP, 80, None))?;
        wait_until("the log says more", SOON, || running.output().contains("DEBUG event: "))?;
        // Another mode is one more such change.
        changes_are_taken_on(&node, "iptables")?;
        configure(&node, "iptables", "clusterCIDR: nowhere\nbindAddress: [ ]\n")?;
        wait_until("a wrong one is told of, whole", SOON, || {
            let said = running.output();
            said.lines().any(|line| line.contains("is not taken on") && line.contains("clusterCIDR") && line.contains("bindAddress"))
        })
    })?;
    let left = node.rules()?;
    ensure!(left.iter().any(|rule| rule.contains("KUBE-SVC-")) && !left.iter().any(|rule| rule.starts_with("table")), "{left:?}");
    ensure!(running.ended().is_none(), "{}", running.output());
    Ok(())
}

#[test]
fn called_kube_proxy_it_follows_an_api_server_with_that_programs_command_line() -> Result<()> {
    let node = Node::new()?;
    node.serve()?;
    let plane = ControlPlane::start(&node.home, &node.network.node, "n1", Signing::default())?;
    let service = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": CLUSTER_IP, "ports": [{"port": 80, "targetPort": 8080}]}});
    plane.create("/api/v1/namespaces/default/services", &service)?;
    let slice = |pod: usize| {
        json!({"metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": [{"addresses": [pod_ip(pod)], "conditions": {"ready": true}}]})
    };
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    plane.create(slices, &slice(0))?;
    // As kubeadm has it: all in a file.
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration";
    let client = format!("clientConnection: {{ kubeconfig: {} }}\nclusterCIDR: 10.244.0.0/16\nmode: ''\n", plane.kubeconfig.display());
    node.write(node.file("config.conf")?, &format!("{head}\n{client}"))?;
    let program = node.file("kube-proxy")?;
    std::os::unix::fs::symlink(binary()?, &program)?;
    let said = std::process::Command::new(&program).arg("--version").output()?;
    ensure!(said.stdout == b"Kubernetes v1.36.2\n", "{said:?}");
    let mut command = std::process::Command::new(&program);
    command.arg(format!("--config={}", node.file("config.conf")?.display())).arg("--hostname-override=n1");
    let mut running = Running::start(command, &node.file("log")?, Some(&node.network.node), &node.home.cgroup())?;
    answers(node.outside(), cluster_ip(), "pod0 ")?;
    ensure!(node.rules()?.iter().any(|rule| rule.contains("KUBE-SVC-")), "the mode is iptables");
    without_loss(node.outside(), cluster_ip(), || {
        plane.line(Line::Down);
        plane.patch(&format!("{slices}/web-1"), &json!({"endpoints": slice(1)["endpoints"]}))?;
        plane.line(Line::Good);
        answers(node.outside(), cluster_ip(), "pod1 ")
    })?;
    // What cannot be as asked is told to the server.
    let mut twin = service.clone();
    twin["metadata"]["name"] = "zzz-twin".into();
    twin["spec"]["externalIPs"] = json!([CLUSTER_IP]);
    twin["spec"]["clusterIP"] = "10.96.0.51".into();
    plane.create("/api/v1/namespaces/default/services", &twin)?;
    let told = |e: &serde_json::Value| e["involvedObject"]["name"] == "zzz-twin" && e["source"]["component"] == "kube-proxy";
    plane.wait("/api/v1/namespaces/default/events", "the twin is told of", |l| l["items"].as_array().into_iter().flatten().any(told))?;
    ensure!(running.stop(SOON)?.success());
    Ok(())
}

#[test]
fn all_mistakes_of_the_command_line_and_the_file_are_told_at_once() -> Result<()> {
    let node = Node::new()?;
    configure(&node, "fast", "bindAddress: here\noomScoreAdj: many\niptables: { syncPeriod: 1s, minSyncPeriod: 5s, masqueradeBit: 40 }\n")?;
    let config = node.file("config.yaml")?;
    let services = node.services()?;
    let arguments = ["--services", services.to_str().unwrap_or_default(), "--config", config.to_str().unwrap_or_default()];
    let (content, said) = node.run(&[&arguments[..], &["--no-such", "--conntrack-min", "x"]].concat())?;
    ensure!(!content);
    for field in ["--no-such", "--conntrack-min", "oomScoreAdj", "mode", "bindAddress", "iptables.minSyncPeriod", "iptables.masqueradeBit"]
    {
        ensure!(said.lines().any(|line| line.starts_with(&format!("error: {field}: "))), "{field} is missing: {said}");
    }
    ensure!(said.lines().count() == 7, "{said}");
    ensure!(node.rules()?.is_empty());
    Ok(())
}
