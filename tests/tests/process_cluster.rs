//! The whole daemon as a member of a cluster, against the API over TLS.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use longshore::run::api::pki::Pki;
use longshore_cri::error::Verb;
use longshore_cri::fake::Options as FakeOptions;
use longshore_tests::lab::client::{Request, http_on};
use longshore_tests::lab::control_plane::{ControlPlane, Line};
use longshore_tests::lab::daemon::Options;
use longshore_tests::lab::kubelet_port::KubeletPort;
use longshore_tests::lab::{FakeNode, wait_until};
use serde_json::{Value, json};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const NODE: &str = "/api/v1/nodes/lab";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/lab";
const SOON: Duration = Duration::from_secs(60);

fn join() -> Result<(ControlPlane, FakeNode)> {
    FakeNode::join(Options::default(), FakeOptions::default(), |_| {})
}

fn pod(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

fn one() -> Value {
    json!({"containers": [{"name": "main", "image": "app:1"}]})
}

fn is_ready(object: &Value) -> bool {
    object["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn is_running(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running" && is_ready(pod)
}

fn starts(node: &FakeNode) -> usize {
    node.fake.with(|m, _| m.count(Verb::StartContainer))
}

#[test]
fn a_node_registers_tells_how_it_is_and_keeps_its_lease() -> Result<()> {
    let (plane, node) = join()?;
    let object = plane.wait(NODE, "the node is ready", is_ready)?;
    ensure!(object["metadata"]["labels"]["kubernetes.io/hostname"] == "lab", "{object:#}");
    let status = &object["status"];
    for field in ["cpu", "memory", "pods", "ephemeral-storage"] {
        ensure!(status["capacity"][field].is_string() && status["allocatable"][field].is_string(), "{field}: {status:#}");
    }
    ensure!(status["nodeInfo"]["kubeletVersion"] == longshore::KUBERNETES_VERSION);
    ensure!(status["conditions"].as_array().is_some_and(|c| c.len() == 4), "{status:#}");
    let lease =
        plane.wait(LEASE, "the lease is the node's", |l| l["metadata"]["ownerReferences"][0]["uid"] == object["metadata"]["uid"])?;
    ensure!(lease["spec"]["holderIdentity"] == "lab" && lease["spec"]["leaseDurationSeconds"] == 40);
    let events = plane.get("/api/v1/namespaces/default/events")?.context("a list")?;
    let told = |reason: &str| events["items"].as_array().into_iter().flatten().any(|e| e["reason"] == reason);
    ensure!(told("Starting"), "{events:#}");
    drop(node);
    Ok(())
}

#[test]
fn a_pod_that_is_bound_runs_and_one_that_is_deleted_ends_and_goes() -> Result<()> {
    let (plane, node) = join()?;
    plane.bind("web", "lab", one())?;
    let web = plane.wait(&pod("web"), "the pod runs", is_running)?;
    ensure!(web["status"]["podIP"].is_string() && web["status"]["hostIP"].is_string(), "{web:#}");
    plane.delete(&pod("web"))?;
    plane.wait_gone(&pod("web"))?;
    ensure!(node.fake.with(|m, _| m.count(Verb::StopContainer)) == 1);
    ensure!(starts(&node) == 1);
    Ok(())
}

#[test]
fn configuration_is_read_before_a_pod_starts_and_followed_while_it_runs() -> Result<()> {
    let (plane, node) = join()?;
    let maps = "/api/v1/namespaces/default/configmaps";
    plane.create(maps, &json!({"metadata": {"name": "m"}, "data": {"k": "first"}}))?;
    let mut spec = one();
    spec["volumes"] = json!([{"name": "v", "configMap": {"name": "m"}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    plane.bind("web", "lab", spec)?;
    let web = plane.wait(&pod("web"), "the pod runs", is_running)?;
    let uid = web["metadata"]["uid"].as_str().context("a uid")?;
    let file = node.daemon.root_directory().join(format!("pods/{uid}/volumes/kubernetes.io~configmap/v/k"));
    ensure!(std::fs::read_to_string(&file)? == "first");
    plane.patch(&format!("{maps}/m"), &json!({"data": {"k": "second"}}))?;
    wait_until("the file follows", SOON, || std::fs::read_to_string(&file).is_ok_and(|t| t == "second"))?;
    // One that is missing is named, and one that comes lets the pod start.
    let mut spec = one();
    spec["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "later"}}]);
    plane.bind("waits", "lab", spec)?;
    let waits = |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["message"] == "configmap \"later\" not found";
    plane.wait(&pod("waits"), "it says what is missing", waits)?;
    plane.create(maps, &json!({"metadata": {"name": "later"}, "data": {"K": "v"}}))?;
    plane.wait(&pod("waits"), "it runs", is_running)?;
    Ok(())
}

#[test]
fn a_token_of_its_service_account_is_in_the_pods_volume() -> Result<()> {
    let (plane, node) = join()?;
    plane.create("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "robot"}}))?;
    let mut spec = one();
    spec["serviceAccountName"] = "robot".into();
    spec["volumes"] =
        json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "t", "mountPath": "/t"}]);
    plane.bind("web", "lab", spec)?;
    let web = plane.wait(&pod("web"), "the pod runs", is_running)?;
    let uid = web["metadata"]["uid"].as_str().context("a uid")?;
    let token = std::fs::read_to_string(node.daemon.root_directory().join(format!("pods/{uid}/volumes/kubernetes.io~projected/t/token")))?;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let reviewed = plane.create("/apis/authentication.k8s.io/v1/tokenreviews", &review)?;
    ensure!(reviewed["status"]["user"]["username"] == "system:serviceaccount:default:robot", "{reviewed:#}");
    Ok(())
}

#[test]
fn a_restart_of_the_daemon_touches_nothing() -> Result<()> {
    let (plane, mut node) = join()?;
    for name in ["a", "b", "c"] {
        plane.bind(name, "lab", one())?;
    }
    for name in ["a", "b", "c"] {
        plane.wait(&pod(name), "it runs", is_running)?;
    }
    let before: Vec<Value> =
        ["a", "b", "c"].iter().map(|n| Ok(plane.get(&pod(n))?.context("there")?["status"].clone())).collect::<Result<_>>()?;
    let started = starts(&node);
    node.daemon.kill_nine();
    // One goes while nobody watches.
    plane.delete(&pod("b"))?;
    node.daemon.launch()?;
    plane.wait_gone(&pod("b"))?;
    plane.bind("d", "lab", one())?;
    plane.wait(&pod("d"), "it runs", is_running)?;
    ensure!(starts(&node) == started + 1, "a container was started anew");
    for (name, before) in [("a", &before[0]), ("c", &before[2])] {
        let now = plane.get(&pod(name))?.context("there")?["status"].clone();
        ensure!(now == *before, "{name} was {before:#} and is {now:#}");
    }
    Ok(())
}

#[test]
fn an_outage_of_the_server_costs_nothing_and_what_happened_is_told_after_it() -> Result<()> {
    let (plane, node) = join()?;
    plane.bind("a", "lab", one())?;
    plane.wait(&pod("a"), "it runs", is_running)?;
    for outage in [Line::Down, Line::Silent] {
        let started = starts(&node);
        plane.line(outage);
        // Its container ends, and is started again with nobody to tell.
        let id = plane.get(&pod("a"))?.context("there")?["status"]["containerStatuses"][0]["containerID"].clone();
        let id = id.as_str().and_then(|id| id.split_once("://")).context("an id")?.1.to_owned();
        node.fake.with(|m, now| m.crash(now, &id, 1)).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        node.until("it is started again", |m| m.count(Verb::StartContainer) > started)?;
        plane.bind(&format!("new-{outage:?}").to_lowercase(), "lab", one())?;
        plane.line(Line::Good);
        plane.wait(&pod(&format!("new-{outage:?}").to_lowercase()), "what came meanwhile runs", is_running)?;
        plane.wait(&pod("a"), "the restart is told", |p| {
            p["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1) && is_running(p)
        })?;
    }
    Ok(())
}

#[test]
fn a_watch_that_expired_begins_anew_and_tells_only_what_changed() -> Result<()> {
    let (plane, node) = join()?;
    plane.bind("a", "lab", one())?;
    plane.bind("b", "lab", one())?;
    plane.wait(&pod("a"), "it runs", is_running)?;
    plane.wait(&pod("b"), "it runs", is_running)?;
    let started = starts(&node);
    plane.line(Line::Down);
    plane.delete(&pod("a"))?;
    plane.bind("c", "lab", one())?;
    plane.compact()?;
    plane.line(Line::Good);
    plane.wait_gone(&pod("a"))?;
    plane.wait(&pod("c"), "it runs", is_running)?;
    ensure!(starts(&node) == started + 1);
    for _ in 0..20 {
        plane.cut();
    }
    plane.bind("d", "lab", one())?;
    plane.wait(&pod("d"), "it runs", is_running)?;
    ensure!(starts(&node) == started + 2 && is_running(&plane.get(&pod("b"))?.context("there")?));
    Ok(())
}

#[test]
fn an_object_that_cannot_be_read_is_told_and_the_others_are_unaffected() -> Result<()> {
    let (plane, node) = join()?;
    // As a server of another version might store it.
    plane.with(|api| {
        let odd = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "odd", "namespace": "default", "uid": "odd-1", "resourceVersion": "1"},
            "spec": {"nodeName": "lab", "containers": "none"}});
        api.publish(longshore::api::resource::PODS, odd);
    })?;
    let huge = "x".repeat(5 << 20);
    plane.with(move |api| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "huge", "namespace": "default", "uid": "huge-1", "annotations": {"a": huge}},
            "spec": {"nodeName": "lab", "containers": [{"name": "main", "image": "app:1"}]}});
        api.publish(longshore::api::resource::PODS, pod);
    })?;
    plane.bind("good", "lab", one())?;
    plane.wait(&pod("good"), "it runs", is_running)?;
    plane.wait(&pod("huge"), "it runs", is_running)?;
    let told = || {
        let events = plane.get("/api/v1/namespaces/default/events")?.context("a list")?;
        let about =
            |e: &Value| e["involvedObject"]["name"] == "odd" && e["message"].as_str().is_some_and(|m| m.contains("spec.containers"));
        anyhow::Ok(events["items"].as_array().into_iter().flatten().any(about))
    };
    wait_until("an event names the field", SOON, || told().unwrap_or(false))?;
    drop(node);
    Ok(())
}

#[test]
fn services_of_the_cluster_answer_on_the_node() -> Result<()> {
    let (plane, node) = join()?;
    node.namespace.ip("addr add 192.0.2.7/32 dev lo\nroute add 10.96.0.0/16 dev lo src 192.0.2.7\n")?;
    let listener = node.namespace.enter(|| TcpListener::bind("192.0.2.7:8080"))??;
    let server = std::thread::spawn(move || listener.accept().map(|(_, from)| from));
    let service = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 80, "targetPort": 8080}]}});
    plane.create("/api/v1/namespaces/default/services", &service)?;
    let slice = json!({"metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": [{"addresses": ["192.0.2.7"], "conditions": {"ready": true}}]});
    plane.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice)?;
    let connect = || {
        node.namespace.enter(|| TcpStream::connect_timeout(&"10.96.0.77:80".parse().expect("an address"), Duration::from_secs(1)).is_ok())
    };
    wait_until("the service answers", SOON, || connect().unwrap_or(false))?;
    ensure!(server.join().is_ok_and(|r| r.is_ok()));
    Ok(())
}

#[test]
fn services_are_watched_by_the_proxys_own_credentials_where_there_are_some() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let wrong = dir.path().join("proxy.conf");
    let (plane, node) = FakeNode::join_with(
        Options::default(),
        FakeOptions::default(),
        |_| {},
        |plane, o| {
            // Of somebody who may do nothing.
            let own = Pki::open(&plane.pki)?.client("mallory", &[], Duration::from_secs(3600))?;
            let data = |pem: &str| BASE64_STANDARD.encode(pem);
            let authority = data(&std::fs::read_to_string(plane.pki.join("ca.crt"))?);
            let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
                "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:6444", "certificate-authority-data": authority}}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "users": [{"name": "x", "user": {"client-certificate-data": data(&own.certificate), "client-key-data": data(&own.key)}}]});
            std::fs::write(&wrong, config.to_string())?;
            o.arguments.extend(["--proxy-kubeconfig".to_owned(), wrong.to_string_lossy().into_owned()]);
            Ok(())
        },
    )?;
    plane.wait(NODE, "the node is ready", is_ready)?;
    wait_until("who may not is told", SOON, || {
        let log = node.daemon.log();
        log.lines().any(|l| l.contains("endpointslices") && l.contains("mallory"))
    })
}

#[test]
fn what_is_written_to_the_nodes_own_socket_belongs_to_the_api_server() -> Result<()> {
    let (_plane, node) = join()?;
    let body = json!({"metadata": {"name": "web"}, "spec": one()}).to_string();
    let request = Request {
        method: "POST",
        path: "/api/v1/namespaces/default/pods",
        headers: &[("content-type", "application/json")],
        body: body.as_bytes(),
    };
    let answer = http_on(&node.daemon.socket(), &request, SOON)?;
    ensure!(answer.status == 405 && answer.text().contains("API server, https://127.0.0.1:6444"), "{}", answer.text());
    Ok(())
}

#[test]
fn the_port_of_a_member_asks_the_api_server_who_somebody_is_and_what_he_may() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("config.yaml");
    let (plane, node) = FakeNode::join_with(
        Options::default(),
        FakeOptions::default(),
        |_| {},
        |plane, o| {
            let ca = plane.pki.join("ca.crt");
            std::fs::write(&config, format!("authentication: {{ x509: {{ clientCAFile: {} }} }}\n", ca.display()))?;
            o.arguments.extend(["--kubelet-config".to_owned(), config.to_string_lossy().into_owned()]);
            Ok(())
        },
    )?;
    let object = plane.wait(NODE, "the node is ready", is_ready)?;
    ensure!(object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 10250, "{object:#}");
    plane.bind("web", "lab", one())?;
    plane.wait(&pod("web"), "it runs", is_running)?;
    let pki = Pki::open(&plane.pki)?;
    let day = Duration::from_secs(24 * 3600);
    let as_member =
        |name: &str, groups: &[&str]| KubeletPort::of_member(&node.daemon, &node.namespace, Some(&pki.client(name, groups, day)?));
    let pods: Value = serde_json::from_str(&as_member("kube-apiserver", &["system:masters"])?.get("/pods")?)?;
    ensure!(pods["items"][0]["metadata"]["name"] == "web", "{pods:#}");
    let refused = as_member("mallory", &[])?.ask("GET", "/metrics", b"")?;
    ensure!(refused.status == 403 && refused.text().contains("mallory"), "{}", refused.text());
    let nobody = || KubeletPort::of_member(&node.daemon, &node.namespace, None);
    ensure!(nobody()?.ask("GET", "/pods", b"")?.status == 401);
    ensure!(nobody()?.and_token("wrong").ask("GET", "/pods", b"")?.status == 401);
    // The server knows this token; its owner may do nothing here.
    plane.create("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "robot"}}))?;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}});
    let token = plane.create("/api/v1/namespaces/default/serviceaccounts/robot/token", &request)?;
    let robot = nobody()?.and_token(token["status"]["token"].as_str().context("a token")?);
    let refused = robot.ask("GET", "/pods", b"")?;
    ensure!(refused.status == 403 && refused.text().contains("system:serviceaccount:default:robot"), "{}", refused.text());
    Ok(())
}
