//! The program called `kubelet`, with kubeadm's own command line and files, on a runtime in memory.

use anyhow::{Context, Result, ensure};
use longshore_cri::fake::Options as FakeOptions;
use longshore_tests::lab::FakeNode;
use longshore_tests::lab::control_plane::{ControlPlane, Signing};
use longshore_tests::lab::daemon::{Options, binary};
use longshore_tests::lab::process::Running;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// As `kubeadm init` 1.36 writes it, with the lab's directories.
fn kubeadm_config(base: &Path) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    cacheTTL: 0s
    enabled: true
  x509:
    clientCAFile: {base}/control-plane/pki/ca.crt
authorization:
  mode: Webhook
  webhook:
    cacheAuthorizedTTL: 0s
    cacheUnauthorizedTTL: 0s
cgroupDriver: cgroupfs
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: \"\"
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {{}}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
kind: KubeletConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: \"0\"
    text:
      infoBufferSize: \"0\"
  verbosity: 0
memorySwap: {{}}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: {base}/static
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
",
        base = base.display()
    )
}

struct Node {
    node: FakeNode,
    base: PathBuf,
    cgroup: String,
}

impl Node {
    fn new(with: impl FnOnce(&longshore_tests::lab::home::Home, &longshore_tests::lab::net::Namespace) -> Result<()>) -> Result<Node> {
        let mut place = None;
        let node = FakeNode::with(
            FakeOptions::default(),
            |_| {},
            |home, namespace| {
                place = Some((home.base().to_owned(), home.cgroup()));
                with(home, namespace)?;
                Ok(Options::default())
            },
        )?;
        let (base, cgroup) = place.context("set above")?;
        std::fs::create_dir_all(base.join("static"))?;
        std::fs::create_dir_all(base.join("d"))?;
        std::fs::write(base.join("config.yaml"), kubeadm_config(&base))?;
        std::os::unix::fs::symlink(binary()?, base.join("kubelet"))?;
        Ok(Node { node, base, cgroup })
    }

    /// The words of 10-kubeadm.conf, kubeadm-flags.env and KUBELET_EXTRA_ARGS.
    fn start(&self, arguments: &[String]) -> Result<Running> {
        let mut command = Command::new(self.base.join("kubelet"));
        let at = |name: &str| self.base.join(name).display().to_string();
        command.args(arguments).arg(format!("--config={}", at("config.yaml")));
        command.arg(format!("--container-runtime-endpoint={}", self.node.fake.endpoint()));
        command.args(["--pod-infra-container-image=registry.k8s.io/pause:3.10", "--hostname-override=lab"]);
        // The lab has places of its own, and perhaps an older kernel's cgroups.
        command.args(["--fail-cgroupv1=false", "--fail-swap-on=false", "--cgroup-root", &self.cgroup]);
        for name in ["root-dir", "state-dir", "run-dir", "container-logs-dir"] {
            command.arg(format!("--{name}={}", at(name)));
        }
        std::fs::write(
            self.base.join("d/10.conf"),
            format!("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\npodLogsDir: {}\n", at("pod-logs")),
        )?;
        command.arg(format!("--config-dir={}", at("d")));
        Running::start(command, &self.base.join("log"), Some(&self.node.namespace), &self.cgroup)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.base.join("log")).unwrap_or_default()
    }
}

fn is_ready(object: &Value) -> bool {
    object["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

#[test]
fn a_kubeadm_nodes_unit_runs_unchanged() -> Result<()> {
    let mut plane = None;
    let node = Node::new(|home, namespace| {
        plane = Some(ControlPlane::start(home, namespace, "lab", Signing::default())?);
        Ok(())
    })?;
    let plane = plane.context("set above")?;
    let mut running = node.start(&[
        format!("--bootstrap-kubeconfig={}", node.base.join("bootstrap-kubelet.conf").display()),
        format!("--kubeconfig={}", plane.kubeconfig.display()),
        "--register-with-taints=example.com/new=yes:NoSchedule".into(),
        "--node-labels=example.com/a=b".into(),
    ])?;
    let object = plane.wait("/api/v1/nodes/lab", "the node is ready", is_ready).with_context(|| node.log())?;
    ensure!(object["spec"]["taints"].as_array().is_some_and(|t| t.iter().any(|t| t["key"] == "example.com/new")), "{object:#}");
    ensure!(object["metadata"]["labels"]["example.com/a"] == "b", "{object:#}");
    ensure!(object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 10250, "{object:#}");
    plane.bind("web", "lab", json!({"containers": [{"name": "main", "image": "app:1"}]}))?;
    plane.wait("/api/v1/namespaces/default/pods/web", "the pod runs", |p| p["status"]["phase"] == "Running").with_context(|| node.log())?;
    ensure!(!node.log().contains("not known") && !node.log().contains("without effect"), "{}", node.log());
    ensure!(running.stop(SOON)?.success());
    Ok(())
}

#[test]
fn without_a_kubeconfig_it_runs_static_pods_alone() -> Result<()> {
    let node = Node::new(|_, _| Ok(()))?;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: { name: alone }\nspec: { containers: [{ name: main, image: 'app:1' }] }\n";
    std::fs::write(node.base.join("static/alone.yaml"), pod)?;
    // There is no cluster whose authority would vouch for clients.
    let mut running = node.start(&["--client-ca-file=".into()])?;
    node.node.until("the static pod runs", |m| m.count(longshore_cri::error::Verb::StartContainer) == 1).with_context(|| node.log())?;
    ensure!(running.stop(SOON)?.success());
    Ok(())
}

#[test]
fn ten_mistakes_are_all_named_and_the_version_is_what_tools_parse() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let program = dir.path().join("kubelet");
    std::os::unix::fs::symlink(binary()?, &program)?;
    let said = Command::new(&program).arg("--version").output()?;
    ensure!(said.stdout == b"Kubernetes v1.36.2\n" && said.status.success(), "{said:?}");
    let config = dir.path().join("config.yaml");
    let wrong = "port: 70000\nmaxPods: many\nhealthzPort: -1\naddress: here\nsyncFrequency: soon\ncgroupDriver: other\nclusterDNS: [dns]\n";
    std::fs::write(&config, format!("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n{wrong}"))?;
    let said = Command::new(&program).arg(format!("--config={}", config.display())).args(["--no-such", "--max-pods=x", "word"]).output()?;
    let text = String::from_utf8_lossy(&said.stderr);
    let named = [
        "port:",
        "maxPods:",
        "healthzPort:",
        "address:",
        "syncFrequency:",
        "cgroupDriver:",
        "clusterDNS[0]:",
        "--no-such:",
        "--max-pods:",
        "word:",
    ];
    ensure!(!said.status.success() && named.iter().all(|n| text.contains(&format!("error: {n}"))), "{text}");
    Ok(())
}
