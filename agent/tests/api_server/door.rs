//! Writes that become files, with the reader of the manifests directory as the daemon runs it: crashes at every point at
//! which it waits, full disks and directories that take nothing.

use super::journal::{Disk, directory};
use super::server::{MAPS, Server, alone, map, parts};
use longshore::api::write::Context;
use longshore::manifest::Rules;
use longshore::run::api::Show;
use longshore::run::api::persist::Journal;
use longshore::run::sources::door;
use longshore::run::sources::manifests::{Manifests, Tell};
use longshore::run::sources::ready::Ready;
use nix::mount::MsFlags;
use serde_json::{Value, json};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as Polling, Poll};
use tokio::sync::mpsc;

/// A future that is dropped where it stands when it has been polled so often.
struct Mortal<F> {
    inner: Option<Pin<Box<F>>>,
    left: usize,
    dead: Rc<Cell<bool>>,
}

impl<F: Future<Output = ()>> Future for Mortal<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Polling<'_>) -> Poll<()> {
        if self.left == 0 {
            self.inner = None;
            self.dead.set(true);
            return Poll::Ready(());
        }
        self.left -= 1;
        match &mut self.inner {
            Some(inner) => inner.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}

struct Node {
    manifests: PathBuf,
    state: PathBuf,
}

impl Node {
    fn new(base: &Path) -> Node {
        let (manifests, state) = (base.join("manifests"), base.join("state"));
        for dir in [&manifests, &state] {
            fs::create_dir_all(dir).unwrap();
        }
        Node { manifests, state }
    }

    /// A daemon without pods: the API, its journal, and the reader of the directory, which dies after so many polls.
    fn live(&self, polls: usize, test: impl AsyncFnOnce(&Server, &Cell<bool>)) {
        alone(async {
            let mut parts = parts();
            let (files, wishes) = door::door();
            parts.context = Context { node: "n".into(), lone: true, ..Context::default() };
            parts.state = Some(Journal::open(&self.state.join("api.jsonl")).unwrap());
            parts.files = Some(Rc::new(files));
            let server = Server::start(parts);
            let show = Show::new(server.api.clone(), "n");
            let (to, mut events) = mpsc::channel(64);
            tokio::task::spawn_local(async move { while events.recv().await.is_some() {} });
            let source = Manifests::new(self.manifests.clone(), &self.state, Rules::default());
            let ready = Ready::new(1, to.clone());
            let tell = Tell { to, set_services: Box::new(|_, _| {}), show: Some(show), ready };
            let dead = Rc::new(Cell::new(false));
            tokio::task::spawn_local(Mortal { inner: Some(Box::pin(source.run(tell, wishes))), left: polls, dead: dead.clone() });
            test(&server, &dead).await;
        });
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.manifests.join(name)).unwrap_or_default()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(&self.manifests).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

const ENDLESS: usize = usize::MAX;
const TWO: &str = "# by hand\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}  # kept\ndata: {v: old}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n";

/// As soon as the directory has been read. None: the daemon died before.
async fn shown(server: &Server, dead: &Cell<bool>, name: &str) -> Option<Value> {
    while !dead.get() {
        let answer = server.get(&format!("{MAPS}/{name}")).await;
        if answer.status == 200 {
            return Some(answer.json());
        }
        tokio::task::yield_now().await;
    }
    None
}

/// What became of a change.
#[derive(Debug, PartialEq)]
enum Told {
    Done,
    Dead,
}

/// Asks for one change of a daemon that dies after so many polls.
fn ask(node: &Node, polls: usize, method: &str, name: &str, body: &Value) -> Told {
    let mut told = Told::Dead;
    node.live(polls, async |server, dead| {
        if shown(server, dead, "other").await.is_none() {
            return;
        }
        let (path, kind) = match method {
            "POST" => (MAPS.to_owned(), "application/json"),
            "PATCH" => (format!("{MAPS}/{name}"), "application/merge-patch+json"),
            _ => (format!("{MAPS}/{name}"), "application/json"),
        };
        let answer = server.ask(method, &path, kind, body.to_string()).await;
        match answer.status {
            503 => assert!(dead.get()),
            200 | 201 => told = Told::Done,
            other => panic!("{other} {:?}", answer.body),
        }
    });
    told
}

/// The value of an object in the next life; None: it is not there. And who it is.
fn found(node: &Node, name: &str) -> Option<(String, String)> {
    let mut out = None;
    node.live(ENDLESS, async |server, dead| {
        shown(server, dead, "other").await.unwrap();
        let answer = server.get(&format!("{MAPS}/{name}")).await;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        out = (answer.status == 200).then(|| (text(&answer.json()["data"]["v"]), text(&answer.json()["metadata"]["uid"])));
    });
    out
}

#[test]
fn a_crash_wherever_the_reader_waits_leaves_the_old_or_the_new() {
    for (method, name, body, old, new) in [
        ("PATCH", "m", json!({"data": {"v": "new"}}), Some("old"), Some("new")),
        ("POST", "n", map("n", "new"), None, Some("new")),
        ("DELETE", "m", json!({}), Some("old"), None),
    ] {
        let mut seen = Vec::new();
        for polls in 1.. {
            let base = directory();
            let node = Node::new(base.path());
            fs::write(node.manifests.join("two.yaml"), TWO).unwrap();
            let before = found(&node, name);
            assert_eq!(before.as_ref().map(|(v, _)| v.as_str()), old);
            let told = ask(&node, polls, method, name, &body);
            let after = found(&node, name);
            let value = after.as_ref().map(|(v, _)| v.as_str());
            assert!(value == old || value == new, "{method} dead after {polls} polls: {after:?}");
            assert!(told == Told::Dead || value == new, "{method}: what was acknowledged is there");
            if let (Some((_, was)), Some((_, is))) = (&before, &after) {
                assert_eq!(was, is, "{method} dead after {polls} polls: it is the same object");
            }
            let expected: &[&str] =
                if method == "POST" && value.is_some() { &["configmaps.default.n.yaml", "two.yaml"] } else { &["two.yaml"] };
            assert_eq!(node.names(), expected);
            assert!(node.text("two.yaml").contains("name: other"), "the other document is whole");
            assert!(method != "POST" || node.text("two.yaml") == TWO, "and the other file as it was");
            seen.push(value.map(str::to_owned));
            if told == Told::Done {
                break;
            }
        }
        assert!(seen.contains(&old.map(str::to_owned)) && seen.last() == Some(&new.map(str::to_owned)), "{method} {seen:?}");
    }
}

#[test]
fn what_is_edited_right_behind_a_write_is_heard_of() {
    let base = directory();
    let node = Node::new(base.path());
    let path = node.manifests.join("two.yaml");
    fs::write(&path, TWO).unwrap();
    // One that is heard of only when all is looked at again, every 20 s, outlasts the test.
    node.live(ENDLESS, async |server, dead| {
        shown(server, dead, "other").await.unwrap();
        for n in 0..20 {
            server.patch(&format!("{MAPS}/m"), &value(format!("api{n}"))).await.ok();
            let edited = node.text("two.yaml").replace(&format!("v: api{n}"), &format!("v: hand{n}"));
            assert!(edited.contains(&format!("v: hand{n}")), "{edited}");
            if n % 2 == 0 {
                fs::write(&path, edited).unwrap();
            } else {
                fs::write(node.manifests.join("draft~"), edited).unwrap();
                fs::rename(node.manifests.join("draft~"), &path).unwrap();
            }
            while shown(server, dead, "m").await.unwrap()["data"]["v"] != format!("hand{n}") {
                tokio::task::yield_now().await;
            }
        }
    });
}

/// A refusal that reads well in kubectl: what could not be done, where, and why.
fn is_told(answer: &super::server::Answer, why: &str) {
    let told = answer.refused(500, "InternalError");
    assert!(told.contains("could not be written and was not made") && told.contains(why), "{told}");
}

fn value(v: impl ToString) -> Value {
    json!({"data": {"v": v.to_string()}})
}

/// Every kind of change is refused, and nothing is different afterwards.
async fn takes_nothing(server: &Server, node: &Node, why: &str, large: &str) {
    let (names, two) = (node.names(), node.text("two.yaml"));
    let before = server.get(MAPS).await.ok();
    let path = format!("{MAPS}/m");
    is_told(&server.post(MAPS, &map("new", large)).await, why);
    is_told(&server.patch(&path, &value(large)).await, why);
    is_told(&server.put(&path, &map("m", large)).await, why);
    is_told(&server.patch(&path, &json!({"metadata": {"labels": {"l": "x".repeat(60)}, "annotations": {"a": large}}})).await, why);
    server.get(&format!("{MAPS}/new")).await.refused(404, "NotFound");
    assert_eq!((server.get(MAPS).await.ok()["items"].clone(), node.names(), node.text("two.yaml")), (before["items"].clone(), names, two));
}

#[test]
fn a_full_directory_of_manifests_is_told_and_changes_nothing() {
    let base = directory();
    let disk = Disk::new("128k");
    let node = Node { manifests: disk.0.join("manifests"), state: base.path().join("state") };
    fs::create_dir_all(&node.manifests).unwrap();
    fs::create_dir_all(&node.state).unwrap();
    fs::write(node.manifests.join("two.yaml"), TWO).unwrap();
    node.live(ENDLESS, async |server, dead| {
        shown(server, dead, "other").await.unwrap();
        let mut watch = server.watch(&format!("{MAPS}?watch=1&resourceVersion={}", server.api.store().revision())).await;
        let large = "x".repeat(150 << 10);
        takes_nothing(server, &node, "No space left on device", &large).await;
        // A removal needs no space, and makes some.
        server.delete(&format!("{MAPS}/m"), &json!({})).await.ok();
        assert_eq!(watch.next().await.unwrap().what, "DELETED", "the watcher saw none of what was refused");
        disk.grow("1m");
        server.post(MAPS, &map("new", &large)).await.ok();
        assert_eq!((watch.next().await.unwrap().name.as_str(), node.names().len()), ("new", 2));
    });
    assert_eq!(found(&node, "new").unwrap().0.len(), 150 << 10);
    assert_eq!(found(&node, "m"), None);
}

#[test]
fn a_directory_that_may_not_be_written_is_told_and_changes_nothing() {
    let base = directory();
    let disk = Disk::new("1m");
    let node = Node { manifests: disk.0.join("manifests"), state: base.path().join("state") };
    fs::create_dir_all(&node.manifests).unwrap();
    fs::create_dir_all(&node.state).unwrap();
    fs::write(node.manifests.join("two.yaml"), TWO).unwrap();
    disk.change(MsFlags::MS_RDONLY, "size=1m");
    node.live(ENDLESS, async |server, dead| {
        shown(server, dead, "other").await.unwrap();
        takes_nothing(server, &node, "Read-only file system", "new").await;
        is_told(&server.delete(&format!("{MAPS}/m"), &json!({})).await, "Read-only file system");
        server.get(&format!("{MAPS}/m")).await.ok();
        disk.change(MsFlags::empty(), "size=1m");
        server.patch(&format!("{MAPS}/m"), &value("new")).await.ok();
        server.delete(&format!("{MAPS}/other"), &json!({})).await.ok();
    });
    assert!(node.text("two.yaml").contains("v: new") && !node.text("two.yaml").contains("other"));
}

#[test]
fn a_full_state_directory_loses_no_file_and_no_identity() {
    let base = directory();
    let disk = Disk::new("256k");
    let node = Node { manifests: base.path().join("manifests"), state: disk.0.join("state") };
    fs::create_dir_all(&node.manifests).unwrap();
    fs::create_dir_all(&node.state).unwrap();
    fs::write(node.manifests.join("two.yaml"), TWO).unwrap();
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let before = found(&node, "m").unwrap();
    node.live(ENDLESS, async |server, dead| {
        shown(server, dead, "other").await.unwrap();
        fs::write(node.state.join("filler"), vec![0; 256 << 10]).unwrap_err();
        // What is kept in files needs none of it.
        server.patch(&format!("{MAPS}/m"), &value("new")).await.ok();
        server.post(MAPS, &map("n", 1)).await.ok();
        // What is kept there is refused.
        let nodes = server.post("/api/v1/nodes", &json!({"metadata": {"name": "x", "annotations": {"a": "x".repeat(20 << 10)}}})).await;
        let told = nodes.refused(500, "InternalError");
        assert!(told.contains("could not be written down and was not made") && told.contains("No space left"), "{told}");
        server.get("/api/v1/nodes/x").await.refused(404, "NotFound");
        fs::remove_file(node.state.join("filler")).unwrap();
        server.post(leases, &json!({"metadata": {"name": "l"}})).await.ok();
        server.post(MAPS, &map("later", 1)).await.ok();
    });
    let after = found(&node, "m").unwrap();
    assert_eq!((after.0.as_str(), &after.1), ("new", &before.1));
    let first = found(&node, "n").unwrap();
    assert_eq!(found(&node, "n").unwrap(), first, "it is the same object in each life");
}
