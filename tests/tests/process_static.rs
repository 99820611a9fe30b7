//! Static pods of a member of a cluster, and what the API server shows of them.

use anyhow::{Context, Result, ensure};
use longshore_cri::error::Verb;
use longshore_cri::fake::Options as FakeOptions;
use longshore_tests::lab::control_plane::{ControlPlane, Line};
use longshore_tests::lab::daemon::Options;
use longshore_tests::lab::{FakeNode, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const WEB: &str = "/api/v1/namespaces/default/pods/web-lab";

/// A member with a directory of static pods, which `fill` makes ready; the directory is gone when it is dropped.
fn join(fill: impl FnOnce(&Path, &ControlPlane) -> Result<()>) -> Result<(ControlPlane, FakeNode, tempfile::TempDir)> {
    let base = tempfile::tempdir()?;
    let directory = base.path().join("manifests");
    fs::create_dir(&directory)?;
    let (plane, node) = FakeNode::join_with(
        Options::default(),
        FakeOptions::default(),
        |_| {},
        |plane, o| {
            fill(&directory, plane)?;
            o.arguments.extend(["--static-pod-path".to_owned(), directory.to_string_lossy().into_owned()]);
            Ok(())
        },
    )?;
    Ok((plane, node, base))
}

fn file(base: &tempfile::TempDir) -> PathBuf {
    base.path().join("manifests/web")
}

fn manifest(command: &str) -> String {
    let spec = json!({"containers": [{"name": "main", "image": "app:1", "command": [command]}]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}}, "spec": spec}).to_string()
}

fn is_running(pod: &Value) -> bool {
    pod["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn hash(pod: &Value) -> String {
    pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].as_str().unwrap_or_default().to_owned()
}

fn starts(node: &FakeNode) -> usize {
    node.fake.with(|m, _| m.count(Verb::StartContainer))
}

#[test]
fn a_static_pod_is_shown_by_a_mirror_that_belongs_to_the_node() -> Result<()> {
    let (plane, node, _base) = join(|dir, _| Ok(fs::write(dir.join("web"), manifest("a"))?))?;
    let web = plane.wait(WEB, "its status is told", is_running)?;
    let object = plane.get("/api/v1/nodes/lab")?.context("a node")?;
    let owner = &web["metadata"]["ownerReferences"][0];
    ensure!(owner["kind"] == "Node" && owner["uid"] == object["metadata"]["uid"] && owner["controller"] == true, "{web:#}");
    ensure!(hash(&web).len() == 32 && web["metadata"]["annotations"]["kubernetes.io/config.hash"] == hash(&web), "{web:#}");
    ensure!(web["metadata"]["labels"]["app"] == "web" && web["spec"]["nodeName"] == "lab", "{web:#}");
    // Pods of the server are unaffected.
    plane.bind("other", "lab", json!({"containers": [{"name": "main", "image": "app:1"}]}))?;
    plane.wait("/api/v1/namespaces/default/pods/other", "it runs", is_running)?;
    ensure!(starts(&node) == 2);
    // Whoever deletes the mirror deletes no pod.
    plane.delete(WEB)?;
    let again = plane.wait(WEB, "it is there again", |p| p["metadata"]["uid"] != web["metadata"]["uid"] && is_running(p))?;
    ensure!(hash(&again) == hash(&web) && starts(&node) == 2, "{again:#}");
    Ok(())
}

#[test]
fn an_edited_file_is_another_pod_and_one_that_is_gone_is_none() -> Result<()> {
    let (plane, node, base) = join(|dir, _| Ok(fs::write(dir.join("web"), manifest("a"))?))?;
    let before = plane.wait(WEB, "its status is told", is_running)?;
    fs::write(file(&base), manifest("b"))?;
    let after = plane.wait(WEB, "the other is shown", |p| hash(p) != hash(&before) && is_running(p))?;
    ensure!(after["spec"]["containers"][0]["command"][0] == "b" && starts(&node) == 2, "{after:#}");
    ensure!(node.fake.with(|m, _| m.count(Verb::StopContainer)) == 1);
    // What cannot be understood changes nothing.
    fs::write(file(&base), "kind: Pod\nmetadata: [")?;
    wait_until("it is told", SOON, || node.daemon.log().contains("no static pod can be made of this file"))?;
    ensure!(is_running(&plane.get(WEB)?.context("there")?));
    fs::remove_file(file(&base))?;
    plane.wait_gone(WEB)?;
    ensure!(node.fake.with(|m, _| m.count(Verb::StopContainer)) == 2);
    Ok(())
}

#[test]
fn a_restart_leaves_static_pods_alone_and_forgets_those_that_went_meanwhile() -> Result<()> {
    let (plane, mut node, base) = join(|dir, _| {
        fs::write(dir.join("web"), manifest("a"))?;
        Ok(fs::write(dir.join("gone"), manifest("a").replace("\"web\"", "\"gone\""))?)
    })?;
    let before = plane.wait(WEB, "it runs", is_running)?;
    let gone = "/api/v1/namespaces/default/pods/gone-lab";
    plane.wait(gone, "it runs", is_running)?;
    node.daemon.kill_nine();
    fs::remove_file(base.path().join("manifests/gone"))?;
    node.daemon.launch()?;
    plane.wait_gone(gone)?;
    let after = plane.get(WEB)?.context("there")?;
    ensure!(starts(&node) == 2 && after["metadata"]["uid"] == before["metadata"]["uid"], "{after:#}");
    ensure!(after["status"] == before["status"], "was {before:#} and is {after:#}");
    Ok(())
}

#[test]
fn static_pods_run_before_anybody_has_heard_of_an_api_server() -> Result<()> {
    let (plane, node, _base) = join(|dir, plane| {
        plane.line(Line::Down);
        Ok(fs::write(dir.join("web"), manifest("a"))?)
    })?;
    node.until("it is started", |m| m.count(Verb::StartContainer) == 1)?;
    plane.line(Line::Good);
    plane.wait(WEB, "it is shown", is_running)?;
    ensure!(starts(&node) == 1);
    Ok(())
}

#[test]
fn a_static_pod_that_refers_to_objects_of_the_server_is_refused() -> Result<()> {
    let (plane, node, _base) = join(|dir, _| {
        fs::write(dir.join("bad"), manifest("a").replace("\"main\"", "\"main\", \"envFrom\": [{\"secretRef\": {\"name\": \"s\"}}]"))?;
        Ok(fs::write(dir.join("good"), manifest("a"))?)
    })?;
    plane.wait(WEB, "the good one runs", is_running)?;
    ensure!(node.daemon.log().contains("static pods may not reference secrets"), "{}", node.daemon.log());
    Ok(())
}
