//! Ours, following the files: the data plane in a process of its own.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use longshore_dataplane::{Change, Cidr, Config, Dataplane, DetectLocal, Family, IptablesConfig, Mode};
use rustix::fs::inotify;
use serde_json::Value;

pub const VERB: &str = "serve-files";

/// `MODE FOLDER`
pub fn main(mut words: impl Iterator<Item = String>) {
    let mode = words.next().unwrap();
    let folder = words.next().unwrap();
    let folder = Path::new(&folder);
    let dataplane = Dataplane::start(config(&mode)).unwrap();
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, folder, inotify::WatchFlags::MOVED_TO).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        read(&dataplane, &entry.unwrap().path());
    }
    dataplane.apply(Change::Synced);
    let mut buffer = [MaybeUninit::uninit(); 64 * 1024];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    loop {
        let event = events.next().unwrap();
        if let Some(name) = event.file_name() {
            read(&dataplane, &folder.join(OsStr::from_bytes(name.to_bytes())));
        }
    }
}

pub fn config(mode: &str) -> Config {
    Config {
        mode: match mode {
            "nftables" => Mode::Nftables,
            "iptables" => Mode::Iptables(IptablesConfig::default()),
            other => panic!("no mode {other}"),
        },
        node_name: "node".into(),
        families: vec![Family::V4],
        detect_local: DetectLocal::ClusterCidr(vec![Cidr::parse("10.128.0.0/9").unwrap()]),
        ..Config::default()
    }
}

/// A file may be gone, or come again at once: what counts is what it says when it is read.
fn read(dataplane: &Dataplane, path: &Path) {
    if path.extension().is_none_or(|extension| extension != "json") {
        return;
    }
    let mut list: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for object in list["items"].as_array_mut().unwrap() {
        let object = object.take();
        dataplane.apply(if object["kind"] == "Service" {
            Change::SetService(Arc::new(serde_json::from_value(object).unwrap()))
        } else {
            Change::SetSlice(Arc::new(serde_json::from_value(object).unwrap()))
        });
    }
}
