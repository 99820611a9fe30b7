//! What outlives the process: crashes at every byte, full disks, and directories that are gone.

use super::server::{MAPS, Server, alone, map, parts, with_server};
use longshore::api::resource::{CONFIG_MAPS, Id, SECRETS};
use longshore::api::store::Name;
use longshore::run::api::Parts;
use longshore::run::api::persist::{Journal, Line};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tempfile::TempDir;

type State = BTreeMap<(Id, Name), Value>;

/// In memory, where it is there: these tests open a journal a thousand times.
pub fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn read(path: &Path) -> State {
    let objects = Journal::open(path).unwrap().objects();
    objects.into_iter().map(|(id, o)| ((id, Name::of(&o)), o)).collect()
}

fn in_default(name: &str, value: &str) -> Value {
    let mut o = map(name, value);
    o["metadata"]["namespace"] = "default".into();
    o
}

/// A history, and what is there after each of its changes.
fn history() -> (Vec<Line>, Vec<State>) {
    let mut lines = Vec::new();
    let mut states = vec![State::new()];
    for (turn, id, name) in
        [(0, CONFIG_MAPS, "a"), (1, SECRETS, "a"), (2, CONFIG_MAPS, "ß \"\\\n"), (3, CONFIG_MAPS, "a"), (4, SECRETS, "b")]
    {
        let object = in_default(name, &format!("{turn} \u{2028} {{}}\n"));
        let mut state = states.last().unwrap().clone();
        state.insert((id, Name::of(&object)), object.clone());
        lines.push(Line::put(id, &object, turn % 2 == 0));
        states.push(state);
        if turn == 3 {
            let mut state = states.last().unwrap().clone();
            state.remove(&(SECRETS, Name::new("default", "a")));
            lines.push(Line::remove(SECRETS, &Name::new("default", "a"), true));
            states.push(state);
        }
    }
    (lines, states)
}

#[test]
fn a_journal_that_breaks_off_anywhere_holds_what_was_written_until_there() {
    let dir = directory();
    let path = dir.path().join("objects.jsonl");
    let (lines, states) = history();
    alone(async {
        let journal = Rc::new(Journal::open(&path).unwrap());
        for line in lines {
            journal.clone().append(vec![line]).await.unwrap();
        }
    });
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(whole.iter().filter(|b| **b == b'\n').count() + 1, states.len());
    for end in 0..=whole.len() {
        std::fs::write(&path, &whole[..end]).unwrap();
        let complete = whole[..end].iter().filter(|b| **b == b'\n').count();
        let got = read(&path);
        // A line of which only the end of line is missing counts.
        let last = whole.get(end) == Some(&b'\n');
        assert_eq!(got, states[complete + usize::from(last)], "cut at {end}");
        assert_eq!(read(&path), got, "and again");
    }
}

#[test]
fn a_line_that_is_spoilt_costs_no_other() {
    let dir = directory();
    let path = dir.path().join("objects.jsonl");
    let (lines, states) = history();
    alone(async {
        let journal = Rc::new(Journal::open(&path).unwrap());
        journal.append(lines).await.unwrap();
    });
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.splice(0..0, *b"\xff\xfe nonsense\n{\"r\":\"v1/nothings\",\"o\":{}}\n{\"r\":7}\n\n");
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(&read(&path), states.last().unwrap());
}

fn with_journal(path: &Path) -> Parts {
    let mut parts = parts();
    parts.state = Some(Journal::open(path).unwrap());
    parts
}

/// Names and values of the ConfigMaps.
async fn maps(server: &Server) -> BTreeMap<String, String> {
    let list = server.get(MAPS).await.ok();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    list["items"].as_array().unwrap().iter().map(|o| (text(&o["metadata"]["name"]), text(&o["data"]["v"]))).collect()
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    let dir = directory();
    let path = dir.path().join("objects.jsonl");
    let mut before = BTreeMap::new();
    for round in 0..3 {
        with_server(with_journal(&path), async |server| {
            assert_eq!(maps(server).await, before);
            for n in 0..5 {
                server.post(MAPS, &map(&format!("m{round}-{n}"), n)).await.ok();
            }
            server.put(&format!("{MAPS}/m{round}-1"), &map(&format!("m{round}-1"), "new")).await.ok();
            server.delete(&format!("{MAPS}/m{round}-2"), &json!({})).await.ok();
            before = maps(server).await;
        });
    }
    assert_eq!(before.len(), 12);
}

#[test]
fn a_namespace_that_went_does_not_come_back() {
    let dir = directory();
    let path = dir.path().join("objects.jsonl");
    with_server(with_journal(&path), async |server| {
        server.namespace("gone").await;
        let mut watch = server.watch(&format!("/api/v1/namespaces?watch=1&resourceVersion={}", server.api.store().revision())).await;
        server.delete("/api/v1/namespaces/gone", &json!({})).await.ok();
        while watch.next().await.unwrap().what != "DELETED" {}
    });
    with_server(with_journal(&path), async |server| {
        server.get("/api/v1/namespaces/gone").await.refused(404, "NotFound");
        server.get("/api/v1/namespaces/default").await.ok();
    });
}

#[test]
fn an_old_event_goes_for_good() {
    let dir = directory();
    let path = dir.path().join("objects.jsonl");
    let events = "/api/v1/namespaces/default/events";
    with_server(with_journal(&path), async |server| {
        for (name, last) in [("old", "2020-01-01T00:00:00Z"), ("new", "2100-01-01T00:00:00Z")] {
            let about = json!({"kind": "Pod", "namespace": "default", "name": "p"});
            server.post(events, &json!({"metadata": {"name": name}, "involvedObject": about, "lastTimestamp": last})).await.ok();
        }
        server.api.expire_events().await;
        server.get(&format!("{events}/old")).await.refused(404, "NotFound");
    });
    with_server(with_journal(&path), async |server| {
        server.get(&format!("{events}/old")).await.refused(404, "NotFound");
        server.get(&format!("{events}/new")).await.ok();
    });
}

/// A small file system that only this thread and its children see.
pub struct Disk(pub PathBuf, #[expect(dead_code, reason = "holds the mount point")] TempDir);

impl Disk {
    pub fn new(size: &str) -> Disk {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("needs root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let dir = tempfile::tempdir().unwrap();
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(format!("size={size}").as_str())).unwrap();
        Disk(dir.path().to_owned(), dir)
    }

    pub fn grow(&self, size: &str) {
        self.change(MsFlags::empty(), &format!("size={size}"));
    }

    pub fn change(&self, flags: MsFlags, options: &str) {
        mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT | flags, Some(options)).unwrap();
    }
}

#[test]
fn a_full_disk_is_told_and_changes_nothing() {
    let disk = Disk::new("256k");
    let path = disk.0.join("objects.jsonl");
    let mut there = BTreeMap::new();
    with_server(with_journal(&path), async |server| {
        let mut watch = server.watch(&format!("{MAPS}?watch=1")).await;
        let value = "x".repeat(20 << 10);
        let mut n = 0;
        let refused = loop {
            let answer = server.post(MAPS, &map(&format!("m{n}"), &value)).await;
            if answer.status != 201 {
                break answer;
            }
            assert_eq!(watch.next().await.unwrap().name, format!("m{n}"));
            n += 1;
        };
        assert!(n > 2, "some were written");
        let told = refused.refused(500, "InternalError");
        assert!(told.contains("could not be written down and was not made") && told.contains("No space left"), "{told}");
        server.get(&format!("{MAPS}/m{n}")).await.refused(404, "NotFound");
        let changed = server.put(&format!("{MAPS}/m0"), &map("m0", "y".repeat(20 << 10))).await;
        changed.refused(500, "InternalError");
        assert_eq!(server.get(&format!("{MAPS}/m0")).await.ok()["data"]["v"], value.as_str());
        assert_eq!(maps(server).await.len(), n);
        disk.grow("2m");
        server.post(MAPS, &map("later", 1)).await.ok();
        assert_eq!(watch.next().await.unwrap().name, "later", "the watcher saw none of what was refused");
        there = maps(server).await;
    });
    // Nor does a full disk keep the next one from going on.
    std::fs::write(disk.0.join("filler"), vec![0; 2 << 20]).unwrap_err();
    with_server(with_journal(&path), async |server| {
        assert_eq!(maps(server).await, there);
        server.put(&format!("{MAPS}/m0"), &map("m0", "y".repeat(20 << 10))).await.refused(500, "InternalError");
        std::fs::remove_file(disk.0.join("filler")).unwrap();
        server.delete(&format!("{MAPS}/m1"), &json!({})).await.ok();
        there = maps(server).await;
    });
    with_server(with_journal(&path), async |server| assert_eq!(maps(server).await, there));
}

#[test]
fn a_journal_that_cannot_be_written_anew_goes_on_as_it_is() {
    let dir = directory();
    let (home, away) = (dir.path().join("home"), dir.path().join("away"));
    std::fs::create_dir(&home).unwrap();
    with_server(with_journal(&home.join("objects.jsonl")), async |server| {
        server.post(MAPS, &map("m", 0)).await.ok();
        std::fs::rename(&home, &away).unwrap();
        // Long enough that it is to be written anew several times.
        for n in 0..30 {
            server.put(&format!("{MAPS}/m"), &map("m", format!("{n}-{}", "x".repeat(100 << 10)))).await.ok();
        }
        server.put(&format!("{MAPS}/m"), &map("m", "last")).await.ok();
        std::fs::rename(&away, &home).unwrap();
    });
    with_server(with_journal(&home.join("objects.jsonl")), async |server| {
        assert_eq!(maps(server).await["m"], "last");
    });
}
