//! The whole daemon while its disk is full or may not be written: writes through its API are refused in words that
//! kubectl can show, nothing is lost, the pods run on, and all goes on when there is room again.

use anyhow::{Context, Result, ensure};
use longshore_cri::error::Verb;
use longshore_cri::fake::Options as FakeOptions;
use longshore_tests::lab::FakeNode;
use longshore_tests::lab::client::{Request, http_on};
use longshore_tests::lab::daemon::Options;
use longshore_tests::lab::fake_node::ONE;
use longshore_tests::lab::wait::wait_until;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A small file system in the place of one of a daemon's directories. Only this thread and what it starts see it.
struct Disk(PathBuf);

impl Disk {
    fn over(place: PathBuf) -> Result<Disk> {
        let before: Vec<_> = fs::read_dir(&place)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
        let kept: Vec<(PathBuf, Vec<u8>)> =
            before.into_iter().filter(|p| p.is_file()).map(|p| Ok((p.clone(), fs::read(&p)?))).collect::<Result<_>>()?;
        mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=256k"))?;
        for (path, content) in kept {
            fs::write(path, content)?;
        }
        Ok(Disk(place))
    }

    /// Takes all the room that there is.
    fn fill(&self) -> Result<()> {
        ensure!(fs::write(self.0.join("filler"), vec![0; 256 << 10]).is_err(), "there was more room");
        Ok(())
    }

    fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.join("filler"))?)
    }

    fn writable(&self, may: bool) -> Result<()> {
        let flags = if may { MsFlags::empty() } else { MsFlags::MS_RDONLY };
        Ok(mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT | flags, Some("size=256k"))?)
    }
}

/// A node with a running pod, with a small disk in the place that is told.
fn node(place: impl Fn(&FakeNode) -> PathBuf) -> Result<(FakeNode, Disk)> {
    unshare(CloneFlags::CLONE_NEWNS).context("needs root")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let mut node = FakeNode::start(Options::default(), FakeOptions::default(), |_| {})?;
    node.apply("web", ONE)?;
    node.wait_for_phase("web", "Running")?;
    node.daemon.kill_nine();
    let disk = Disk::over(place(&node))?;
    node.daemon.launch()?;
    node.wait_for_phase("web", "Running")?;
    Ok((node, disk))
}

fn ask(node: &FakeNode, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = body.to_string();
    let request = Request { method, path, headers: &[("content-type", kind)], body: body.as_bytes() };
    let answer = http_on(&node.daemon.socket(), &request, SOON)?;
    Ok((answer.status, serde_json::from_slice(&answer.body).with_context(|| answer.text())?))
}

fn done(node: &FakeNode, method: &str, path: &str, body: &Value) -> Result<Value> {
    let (status, said) = ask(node, method, path, body)?;
    ensure!((200..300).contains(&status), "{method} {path}: {status} {said}");
    Ok(said)
}

/// Refused with a Status that says what could not be done, and why.
fn refused(node: &FakeNode, method: &str, path: &str, body: &Value, why: &str) -> Result<()> {
    let (status, said) = ask(node, method, path, body)?;
    ensure!(status == 500 && said["kind"] == "Status" && said["reason"] == "InternalError", "{method} {path}: {status} {said}");
    let message = said["message"].as_str().unwrap_or_default();
    ensure!(message.contains("was not made") && message.contains(why), "{method} {path}: {message}");
    Ok(())
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"v": "x".repeat(8 << 10)}})
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "app:1"}]}})
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> =
        fs::read_dir(directory)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    names.retain(|n| n != "filler");
    names.sort();
    Ok(names)
}

fn starts(node: &FakeNode) -> usize {
    node.fake.with(|m, _| m.count(Verb::StartContainer))
}

#[test]
fn a_full_directory_of_manifests_refuses_what_is_new_and_takes_it_when_there_is_room() -> Result<()> {
    let (node, disk) = node(|n| n.daemon.manifests())?;
    done(&node, "POST", MAPS, &map("before"))?;
    let (files, started) = (names(&disk.0)?, starts(&node));
    disk.fill()?;
    let full = "No space left on device";
    refused(&node, "POST", MAPS, &map("new"), full)?;
    refused(&node, "POST", PODS, &pod("new"), full)?;
    refused(&node, "PATCH", &format!("{MAPS}/before"), &json!({"data": {"w": "y".repeat(8 << 10)}}), full)?;
    refused(&node, "PATCH", &format!("{PODS}/web"), &json!({"metadata": {"annotations": {"a": "y".repeat(8 << 10)}}}), full)?;
    ensure!(names(&disk.0)? == files, "{:?}", names(&disk.0)?);
    ensure!(ask(&node, "GET", &format!("{MAPS}/new"), &json!({}))?.0 == 404);
    ensure!(done(&node, "GET", &format!("{MAPS}/before"), &json!({}))?["data"]["w"].is_null());
    node.wait_for_phase("web", "Running")?;
    ensure!(starts(&node) == started, "a container was started anew");
    // What goes away needs no room.
    done(&node, "DELETE", &format!("{MAPS}/before"), &json!({}))?;
    disk.clear()?;
    done(&node, "POST", PODS, &pod("new"))?;
    node.wait_for_phase("new", "Running")?;
    done(&node, "PATCH", &format!("{PODS}/web"), &json!({"metadata": {"annotations": {"a": "b"}}}))?;
    ensure!(names(&disk.0)? == ["pods.default.new.yaml", "web.yaml"], "{:?}", names(&disk.0)?);
    ensure!(starts(&node) == started + 1);
    Ok(())
}

#[test]
fn a_directory_that_may_not_be_written_keeps_its_pods_and_says_so() -> Result<()> {
    let (node, disk) = node(|n| n.daemon.manifests())?;
    let started = starts(&node);
    disk.writable(false)?;
    let why = "Read-only file system";
    refused(&node, "POST", PODS, &pod("new"), why)?;
    refused(&node, "PATCH", &format!("{PODS}/web"), &json!({"metadata": {"labels": {"a": "b"}}}), why)?;
    refused(&node, "DELETE", &format!("{PODS}/web"), &json!({}), why)?;
    let web = node.wait_for_phase("web", "Running")?;
    ensure!(web["metadata"]["deletionTimestamp"].is_null() && web["metadata"]["labels"]["a"].is_null(), "{web}");
    ensure!(starts(&node) == started);
    disk.writable(true)?;
    done(&node, "PATCH", &format!("{PODS}/web"), &json!({"metadata": {"labels": {"a": "b"}}}))?;
    done(&node, "DELETE", &format!("{PODS}/web?gracePeriodSeconds=1"), &json!({}))?;
    wait_until("the pod is gone", SOON, || ask(&node, "GET", &format!("{PODS}/web"), &json!({})).is_ok_and(|(status, _)| status == 404))?;
    ensure!(names(&disk.0)?.is_empty(), "{:?}", names(&disk.0)?);
    Ok(())
}

#[test]
fn a_full_state_directory_loses_no_pod_and_no_identity() -> Result<()> {
    let (mut node, disk) = node(|n| n.daemon.state_directory())?;
    let uid = |v: &Value| v["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let web = uid(&node.wait_for_phase("web", "Running")?);
    disk.fill()?;
    // Objects that are files need no room there, and pods start.
    done(&node, "POST", MAPS, &json!({"metadata": {"name": "m"}}))?;
    done(&node, "POST", PODS, &pod("new"))?;
    let new = uid(&node.wait_for_phase("new", "Running")?);
    let lease = json!({"metadata": {"name": "l", "annotations": {"a": "x".repeat(8 << 10)}}});
    let nodes = json!({"metadata": {"name": "other", "annotations": {"a": "x".repeat(8 << 10)}}});
    refused(&node, "POST", "/api/v1/nodes", &nodes, "No space left on device")?;
    ensure!(ask(&node, "GET", "/api/v1/nodes/other", &json!({}))?.0 == 404);
    node.wait_for_phase("web", "Running")?;
    // A node that starts now still looks after its pods.
    let started = starts(&node);
    node.daemon.kill_nine();
    node.daemon.launch()?;
    ensure!(uid(&node.wait_for_phase("web", "Running")?) == web && starts(&node) == started);
    disk.clear()?;
    done(&node, "POST", "/apis/coordination.k8s.io/v1/namespaces/default/leases", &lease)?;
    // A write of its own brings the record up to date.
    done(&node, "PATCH", &format!("{MAPS}/m"), &json!({"data": {"a": "b"}}))?;
    let started = starts(&node);
    node.daemon.kill_nine();
    node.daemon.launch()?;
    for (name, before) in [("web", &web), ("new", &new)] {
        let after = uid(&node.wait_for_phase(name, "Running")?);
        ensure!(after == *before, "{name} was {before} and is {after}");
    }
    ensure!(starts(&node) == started, "a container was started anew");
    done(&node, "GET", "/apis/coordination.k8s.io/v1/namespaces/default/leases/l", &json!({}))?;
    Ok(())
}
