//! The certificates of a node: the whole daemon against the API over TLS, from a bootstrap token on.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use longshore::cluster::certificate::{self, Certificate};
use longshore::run::api::signing::Approval;
use longshore_cri::error::Verb;
use longshore_cri::fake::Options as FakeOptions;
use longshore_tests::lab::control_plane::{ControlPlane, Line, Signing};
use longshore_tests::lab::daemon::Options;
use longshore_tests::lab::kubelet_port::ADDRESS;
use longshore_tests::lab::wait::{wait_for, wait_until};
use longshore_tests::lab::{FakeNode, client};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const NODE: &str = "/api/v1/nodes/lab";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const SOON: Duration = Duration::from_secs(60);
const BY_HAND: Signing = Signing { approval: Approval::ByHand, life: Duration::from_secs(3600) };

/// A node that joins, and its files.
struct Joined {
    plane: ControlPlane,
    node: FakeNode,
    kubeconfig: PathBuf,
    pki: PathBuf,
}

/// By the bootstrap kubeconfig, into directories that are not there yet.
fn join(signing: Signing, more: &[&str]) -> Result<Joined> {
    let mut files = None;
    let (plane, node) = FakeNode::join_as(
        signing,
        Options::default(),
        FakeOptions::default(),
        |_| {},
        |plane, base, o| {
            let (kubeconfig, pki) = files.insert((base.join("kubernetes/kubelet.conf"), base.join("certificates/pki")));
            let text = |p: &Path| p.to_string_lossy().into_owned();
            let mut all = vec!["--bootstrap-kubeconfig".to_owned(), text(&plane.bootstrap)];
            all.extend(["--kubeconfig".into(), text(kubeconfig), "--cert-dir".into(), text(pki)]);
            all.extend(more.iter().map(|a| (*a).to_owned()));
            o.arguments.extend(all);
            Ok(())
        },
    )?;
    let (kubeconfig, pki) = files.context("set above")?;
    Ok(Joined { plane, node, kubeconfig, pki })
}

impl Joined {
    fn current(&self) -> PathBuf {
        self.pki.join("kubelet-client-current.pem")
    }

    fn wait_until_ready(&self) -> Result<Value> {
        let ready = self.plane.wait(NODE, "the node is ready", is_ready);
        ready.with_context(|| format!("the daemon logged:\n{}", self.node.daemon.log()))
    }

    fn wait_for_log(&self, words: &[&str]) -> Result<String> {
        let line = || self.node.daemon.log().lines().find(|l| words.iter().all(|w| l.contains(w))).map(str::to_owned);
        let told = wait_for(&format!("the daemon logs {words:?}"), SOON, || Ok::<_, &str>(line()));
        told.with_context(|| self.node.daemon.log())
    }

    /// Of this signer, in the order in which they came.
    fn requests(&self, signer: &str) -> Result<Vec<Value>> {
        let list = self.plane.get(REQUESTS)?.context("a list")?;
        let mut all: Vec<Value> = list["items"].as_array().cloned().unwrap_or_default();
        all.retain(|r| r["spec"]["signerName"] == signer);
        all.sort_by_key(|r| r["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok()));
        Ok(all)
    }

    /// The first that nobody has decided on.
    fn open_request(&self, signer: &str) -> Result<String> {
        let open = || -> Result<Option<String>> {
            let all = self.requests(signer)?;
            let open = all.iter().find(|r| r["status"]["conditions"].as_array().is_none_or(Vec::is_empty));
            Ok(open.and_then(|r| r["metadata"]["name"].as_str().map(str::to_owned)))
        };
        wait_for("there is a request to decide on", SOON, open).with_context(|| self.node.daemon.log())
    }

    /// As `kubectl certificate approve` and `deny` do it.
    fn decide(&self, name: &str, kind: &str) -> Result<()> {
        let mut object = self.plane.get(&format!("{REQUESTS}/{name}"))?.context("the request")?;
        object["status"]["conditions"] =
            json!([{"type": kind, "status": "True", "reason": "KubectlDecided", "message": "This CSR was looked at by hand"}]);
        let answer = self.plane.ask("PUT", &format!("{REQUESTS}/{name}/approval"), "application/json", &object)?;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    }

    fn run(&self, name: &str) -> Result<()> {
        let spec = json!({"containers": [{"name": "main", "image": "app:1"}]});
        self.plane.bind(name, "lab", spec)?;
        let running = |p: &Value| p["status"]["phase"] == "Running" && is_ready(p);
        let runs = self.plane.wait(&format!("/api/v1/namespaces/default/pods/{name}"), "it runs", running);
        runs.map(drop).with_context(|| self.node.daemon.log())
    }

    fn starts(&self) -> usize {
        self.node.fake.with(|m, _| m.count(Verb::StartContainer))
    }
}

const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";

fn is_ready(object: &Value) -> bool {
    object["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn read(path: &Path) -> Result<Certificate> {
    certificate::read(&std::fs::read(path).with_context(|| path.display().to_string())?).map_err(anyhow::Error::msg)
}

fn now() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?)
}

#[test]
fn a_node_joins_by_a_bootstrap_token() -> Result<()> {
    let mut j = join(Signing::default(), &[])?;
    j.wait_until_ready()?;
    j.run("web")?;
    let made = j.requests(KUBELET)?;
    ensure!(made.len() == 1 && made[0]["spec"]["username"] == "system:bootstrap:abcdef", "{made:#?}");
    ensure!(made[0]["metadata"]["name"].as_str().is_some_and(|n| n.starts_with("node-csr-")), "{made:#?}");
    ensure!(made[0]["spec"]["usages"] == json!(["digital signature", "client auth"]), "{made:#?}");
    // The files are those that a kubelet leaves.
    let target = std::fs::read_link(j.current())?;
    let name = target.file_name().and_then(|n| n.to_str()).context("a name")?;
    ensure!(target.is_absolute() && name.starts_with("kubelet-client-20") && name.len() == "kubelet-client-2026-01-01-00-00-00.pem".len());
    ensure!(!j.pki.join("kubelet-client.key.tmp").exists());
    let kubeconfig = std::fs::read_to_string(&j.kubeconfig)?;
    for line in
        ["current-context: default-context", &format!("client-certificate: {}", j.current().display()), "server: https://127.0.0.1:6444"]
    {
        ensure!(kubeconfig.contains(line), "no {line}:\n{kubeconfig}");
    }
    for path in [&j.kubeconfig, &target] {
        ensure!(std::fs::metadata(path)?.permissions().mode() & 0o777 == 0o600, "{}", path.display());
    }
    // A node that has joined needs no bootstrap kubeconfig, and asks for nothing.
    let (starts, written) = (j.starts(), std::fs::metadata(&j.kubeconfig)?.modified()?);
    std::fs::remove_file(&j.plane.bootstrap)?;
    j.node.daemon.kill_nine();
    j.node.daemon.launch()?;
    j.run("more")?;
    ensure!(j.starts() == starts + 1 && j.requests(KUBELET)?.len() == 1 && std::fs::metadata(&j.kubeconfig)?.modified()? == written);
    Ok(())
}

#[test]
fn a_node_that_waits_for_approval_says_how_and_asks_once_however_often_it_is_killed() -> Result<()> {
    let mut j = join(BY_HAND, &[])?;
    let name = j.open_request(KUBELET)?;
    j.wait_for_log(&[&format!("kubectl certificate approve {name}")])?;
    for _ in 0..3 {
        j.node.daemon.kill_nine();
        j.node.daemon.launch()?;
        // The connection may be lost while it waits, as well.
        j.plane.cut();
    }
    ensure!(j.plane.get(NODE)?.is_none(), "a node without a certificate");
    j.decide(&name, "Approved")?;
    j.wait_until_ready()?;
    ensure!(j.requests(KUBELET)?.len() == 1);
    Ok(())
}

#[test]
fn a_request_that_is_denied_is_told_and_the_next_is_another() -> Result<()> {
    let mut j = join(BY_HAND, &[])?;
    let first = j.open_request(KUBELET)?;
    j.decide(&first, "Denied")?;
    j.wait_for_log(&[&first, "it is denied, reason: KubectlDecided, message: This CSR was looked at by hand"])?;
    // It answers, and does not ask at once again.
    j.node.daemon.get("pods")?;
    ensure!(j.requests(KUBELET)?.len() == 1);
    j.node.daemon.kill_nine();
    j.node.daemon.launch()?;
    let second = j.open_request(KUBELET)?;
    ensure!(first != second);
    j.plane.delete(&format!("{REQUESTS}/{second}"))?;
    j.wait_for_log(&[&second, "it was deleted"])?;
    j.node.daemon.kill_nine();
    j.node.daemon.launch()?;
    let third = j.open_request(KUBELET)?;
    j.decide(&third, "Approved")?;
    j.wait_until_ready().map(drop)
}

#[test]
fn certificates_are_renewed_under_running_watches() -> Result<()> {
    let life = Duration::from_secs(14);
    let j = join(Signing { life, ..Signing::default() }, &["-v", "debug"])?;
    j.wait_until_ready()?;
    j.run("first")?;
    let starts = j.starts();
    let mut seen = vec![read(&j.current())?];
    while seen.len() < 4 {
        let last = seen.last().context("never empty")?.clone();
        let other = || Ok::<_, anyhow::Error>(Some(read(&j.current())?).filter(|c| *c != last));
        seen.push(wait_for("there is another certificate", SOON, other).with_context(|| j.node.daemon.log())?);
        j.run(&format!("pod-{}", seen.len()))?;
    }
    ensure!(now()? > seen[0].until.seconds(), "the first has ended: nobody is known by it any more");
    ensure!(j.starts() == starts + 3 && j.plane.get("/api/v1/namespaces/default/pods/first")?.is_some());
    let log = j.node.daemon.log();
    for trouble in ["asking anew", "cannot be watched", "trying again", "cannot be told"] {
        ensure!(!log.contains(trouble), "{trouble}:\n{log}");
    }
    ensure!(log.matches("all goes on with it").count() >= 3, "{log}");
    let asked = j.requests(KUBELET)?;
    ensure!(asked[0]["spec"]["username"] == "system:bootstrap:abcdef", "{asked:#?}");
    for later in &asked[1..] {
        ensure!(later["spec"]["username"] == "system:node:lab", "{later:#}");
        ensure!(later["metadata"]["name"].as_str().is_some_and(|n| n.starts_with("csr-")), "{later:#}");
    }
    Ok(())
}

#[test]
fn a_certificate_that_ends_while_the_server_is_away_is_replaced_after_it() -> Result<()> {
    let life = Duration::from_secs(12);
    let j = join(Signing { life, ..Signing::default() }, &[])?;
    j.wait_until_ready()?;
    j.run("web")?;
    let starts = j.starts();
    j.plane.line(Line::Down);
    let end = read(&j.current())?.until.seconds();
    wait_until("the certificate has ended", SOON, || now().is_ok_and(|n| n > end + 1))?;
    j.plane.line(Line::Good);
    j.run("more")?;
    ensure!(j.starts() == starts + 1 && read(&j.current())?.until.seconds() > end);
    let by: Vec<Value> = j.requests(KUBELET)?.iter().map(|r| r["spec"]["username"].clone()).collect();
    ensure!(by.iter().filter(|u| **u == "system:bootstrap:abcdef").count() >= 2, "{by:?}");
    Ok(())
}

#[test]
fn a_certificate_that_somebody_puts_in_its_place_is_used() -> Result<()> {
    let life = Duration::from_secs(20);
    let j = join(Signing { life, ..Signing::default() }, &["--rotate-certificates=false"])?;
    j.wait_until_ready()?;
    let end = read(&j.current())?.until.seconds();
    let own = j.plane.pki()?.client("system:node:lab", &["system:nodes"], Duration::from_secs(3600))?;
    let file = j.pki.join("by-hand.pem");
    std::fs::write(&file, own.certificate + &own.key)?;
    symlink(&file, j.pki.join("link"))?;
    std::fs::rename(j.pki.join("link"), j.current())?;
    j.wait_for_log(&["all goes on with it"])?;
    wait_until("the first has ended", SOON, || now().is_ok_and(|n| n > end + 1))?;
    j.run("web")?;
    ensure!(j.requests(KUBELET)?.len() == 1, "nobody wished for another");
    Ok(())
}

/// What the port shows: its certificate, or why not.
fn shown(j: &Joined) -> Result<Result<Certificate, String>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(j.plane.pki()?.certificate().as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_root_certificates(roots);
    let mut connection = ClientConnection::new(Arc::new(config.with_no_client_auth()), ServerName::try_from("127.0.0.1")?)?;
    let mut stream = j.node.namespace.enter(|| client::connect(ADDRESS.parse().expect("an address"), SOON))??;
    while connection.is_handshaking() {
        if let Err(e) = connection.complete_io(&mut stream) {
            return Ok(Err(e.to_string()));
        }
    }
    let der = connection.peer_certificates().and_then(|c| c.first()).context("no certificate")?;
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64_STANDARD.encode(der));
    Ok(Ok(certificate::read(pem.as_bytes()).map_err(anyhow::Error::msg)?))
}

#[test]
fn the_port_is_served_with_a_certificate_of_the_cluster_and_with_the_next() -> Result<()> {
    let signing = Signing { approval: Approval::ByHand, life: Duration::from_secs(24) };
    let j = join(signing, &["--rotate-server-certificates", "--rotate-certificates=false", "--kubelet-bind-address", ADDRESS])?;
    let client = j.open_request(KUBELET)?;
    j.decide(&client, "Approved")?;
    let first = j.open_request(SERVING)?;
    // Until somebody approves it, the port says what a kubelet says.
    let refused = shown(&j)?.expect_err("a certificate that nobody approved");
    ensure!(refused.contains("InternalError"), "{refused}");
    let request = j.plane.get(&format!("{REQUESTS}/{first}"))?.context("the request")?;
    ensure!(request["spec"]["username"] == "system:node:lab", "{request:#}");
    ensure!(request["spec"]["usages"] == json!(["digital signature", "server auth"]), "{request:#}");
    j.decide(&first, "Approved")?;
    let served = |other_than: Option<&Certificate>| {
        let show = || Ok::<_, anyhow::Error>(shown(&j)?.ok().filter(|c| Some(c) != other_than));
        wait_for("the port shows it", SOON, show).with_context(|| j.node.daemon.log())
    };
    let one = served(None)?;
    ensure!(one.user == "system:node:lab" && one.dns.contains("lab") && one.ips.iter().any(|ip| ip.to_string() == "127.0.0.1"), "{one:?}");
    ensure!(j.pki.join("kubelet-server-current.pem").is_symlink());
    let second = j.open_request(SERVING)?;
    j.decide(&second, "Approved")?;
    served(Some(&one)).map(drop)
}

/// A daemon that does not start, and what it says.
fn refuses(arguments: impl FnOnce(&Path) -> Result<Vec<String>>) -> Result<String> {
    let mut node =
        FakeNode::with(FakeOptions::default(), |_| {}, |home, _| Ok(Options { arguments: arguments(home.base())?, ..Options::default() }))?;
    ensure!(node.daemon.launch().is_err(), "it started");
    Ok(node.daemon.log())
}

#[test]
fn files_that_are_wrong_are_told_at_the_start() -> Result<()> {
    let text = |p: PathBuf| p.to_string_lossy().into_owned();
    let with = |base: &Path, bootstrap: &str, pki: PathBuf| -> Result<Vec<String>> {
        std::fs::write(base.join("bootstrap.conf"), bootstrap)?;
        let (bootstrap, kubeconfig) = (text(base.join("bootstrap.conf")), text(base.join("kubelet.conf")));
        Ok(["--bootstrap-kubeconfig", &bootstrap, "--kubeconfig", &kubeconfig, "--cert-dir", &text(pki)].map(str::to_owned).to_vec())
    };
    let good = "{current-context: a, contexts: [{name: a, context: {cluster: c}}], clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]}";
    let cases: [(&str, &str, &[&str]); 3] = [
        (
            "{current-context: b",
            "pki",
            &["kubelet.conf is of no use (No such file or directory), and neither is the bootstrap one", "bootstrap.conf"],
        ),
        ("{current-context: b}", "pki", &["current-context names \"b\", which is not in contexts"]),
        (good, "bootstrap.conf/pki", &["bootstrap.conf/pki: Not a directory"]),
    ];
    for (bootstrap, pki, words) in cases {
        let log = refuses(|base| with(base, bootstrap, base.join(pki)))?;
        for word in words {
            ensure!(log.contains(word), "no {word}:\n{log}");
        }
    }
    // One that is not there.
    let log = refuses(|base| {
        let mut all = with(base, good, base.join("pki"))?;
        all[1] = text(base.join("gone.conf"));
        Ok(all)
    })?;
    ensure!(log.contains("gone.conf") && log.contains("No such file"), "{log}");
    Ok(())
}
