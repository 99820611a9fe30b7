//! The pods of `staticPodPath`: a directory, or one file, read as a kubelet reads it.
//!
//! A file that cannot be understood is told of and passed over; what it held before runs on, since a slip of the pen is
//! no reason to end an API server. What a file becomes is decided by `manifest::static_pod`. Tests: in this file,
//! `tests/tests/process_static.rs`.

use super::files::{self, Stamp};
use super::ready::Ready;
use super::watch::{Nudge, Watch};
use crate::manifest::static_pod::{Origin, settle};
use crate::manifest::text;
use crate::node::Event;
use crate::pod::{ObjectName, Pod, PodUid};
use crate::run::clock;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// When the pod was seen first.
pub const SEEN: &str = "kubernetes.io/config.seen";
/// A burst of changes is one change.
const COALESCE: Duration = Duration::from_millis(10);
/// How often to look for a directory that is not there.
const ABSENT: Duration = Duration::from_secs(1);

struct File {
    stamp: Stamp,
    /// The last that could be understood.
    pod: Option<Arc<Pod>>,
}

/// One directory, or one file.
pub struct Statics {
    path: PathBuf,
    node: String,
    /// `fileCheckFrequency`: everything is looked at this often, whatever was heard.
    period: Duration,
    files: BTreeMap<String, File>,
    told: BTreeMap<PodUid, Arc<Pod>>,
    /// Names that two files claim, of which was spoken.
    doubles: BTreeSet<(String, ObjectName)>,
}

impl Statics {
    pub fn new(path: PathBuf, node: &str, period: Duration) -> Statics {
        Statics { path, node: node.into(), period, files: BTreeMap::new(), told: BTreeMap::new(), doubles: BTreeSet::new() }
    }

    /// Watches until the node ends.
    pub async fn run(mut self, to: mpsc::Sender<Event>, ready: Ready) {
        let mut watch = Watch::new(&self.path);
        let mut ready = Some(ready);
        while !to.is_closed() {
            let there = watch.arm();
            let wait = self.look(&watch);
            for e in self.changes() {
                // The node may be ending.
                let _ = to.send(e).await;
            }
            if let Some(ready) = ready.take() {
                ready.told().await;
            }
            let most = wait.unwrap_or(if there { self.period } else { self.period.min(ABSENT) });
            let heard = tokio::select! {
                () = to.closed() => return,
                n = watch.heard(most) => n,
            };
            if heard == Nudge::Heard {
                watch.drain(COALESCE).await;
            }
        }
    }

    /// Reads what changed. Some: a file is being written; look again then.
    fn look(&mut self, watch: &Watch) -> Option<Duration> {
        let listing = match files::list_all(&self.path) {
            Ok(l) => l,
            // As an empty one.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => files::Listing::default(),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the static pods cannot be read; those that are known run on");
                return None;
            }
        };
        self.files.retain(|name, _| listing.files.contains_key(name));
        let mut wait = None;
        for (name, stamp) in listing.files {
            if let Some(more) = watch.being_written(&name, stamp.alone) {
                wait = Some(wait.map_or(more, |w: Duration| w.min(more)));
            } else if self.files.get(&name).is_none_or(|f| f.stamp != stamp) {
                let before = self.files.remove(&name).and_then(|f| f.pod);
                let pod = self.read(&name, stamp.alone).or(before);
                self.files.insert(name, File { stamp, pod });
            }
        }
        wait
    }

    fn read(&self, name: &str, alone: bool) -> Option<Arc<Pod>> {
        let path = if alone { self.path.clone() } else { self.path.join(name) };
        let path = std::path::absolute(&path).unwrap_or(path);
        let read = files::text(&path).map_err(|e| e.to_string()).and_then(|t| {
            if t.len() > text::MOST_BYTES {
                return Err(format!("it has more than {} bytes", text::MOST_BYTES));
            }
            settle(text::one(&t)?, Origin::File(&path.to_string_lossy()), &self.node)
        });
        match read {
            Ok(pod) => Some(Arc::new(pod)),
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "no static pod can be made of this file");
                None
            }
        }
    }

    /// What the node is to be told: what went, and then what came.
    fn changes(&mut self) -> Vec<Event> {
        let mut names = BTreeMap::new();
        let mut wanted: BTreeMap<PodUid, Arc<Pod>> = BTreeMap::new();
        let mut events = Vec::new();
        let mut doubles = BTreeSet::new();
        for (file, pod) in self.files.iter().filter_map(|(n, f)| Some((n, f.pod.as_ref()?))) {
            let name = pod.object_name();
            if names.insert(name.clone(), pod.uid()).is_some() {
                let double = (file.clone(), name);
                if !self.doubles.contains(&double) {
                    events.push(duplicate(pod));
                }
                doubles.insert(double);
                continue;
            }
            wanted.insert(pod.uid(), pod.clone());
        }
        self.doubles = doubles;
        let gone: Vec<PodUid> = self.told.keys().filter(|u| !wanted.contains_key(*u)).cloned().collect();
        for uid in gone {
            // Another of its name takes its place: it is ended by that, and waited for.
            let replaced = self.told.remove(&uid).is_some_and(|p| names.contains_key(&p.object_name()));
            if !replaced {
                events.push(Event::RemovePod(uid));
            }
        }
        for (uid, pod) in wanted {
            if let std::collections::btree_map::Entry::Vacant(new) = self.told.entry(uid) {
                let mut stamped = (*pod).clone();
                stamped.metadata.annotations.insert(SEEN.into(), clock::now().wall.rfc3339_micro());
                events.push(Event::SetPod(new.insert(Arc::new(stamped)).clone()));
            }
        }
        events
    }
}

fn duplicate(pod: &Pod) -> Event {
    let (namespace, name) = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
    let message = format!("due to duplicate pod name {name:?}");
    Event::Invalid { kind: "Pod".into(), namespace, name, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn manifest(name: &str, image: &str) -> String {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name} }}\nspec: {{ containers: [ {{ name: c, image: {image:?} }} ] }}\n")
    }

    fn told(s: &mut Statics) -> Vec<String> {
        let watch = Watch::new(&s.path);
        s.look(&watch);
        let text = |e: Event| match e {
            Event::SetPod(p) => format!("set {} {}", p.metadata.name, p.spec.containers[0].image),
            Event::RemovePod(_) => "remove".into(),
            Event::Invalid { name, message, .. } => format!("invalid {name} {message}"),
            other => format!("{other:?}"),
        };
        s.changes().into_iter().map(text).collect()
    }

    #[tokio::test]
    async fn files_come_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut s = Statics::new(at("manifests"), "n1", Duration::from_secs(20));
        assert_eq!(told(&mut s), Vec::<String>::new(), "one that is not there is empty");
        fs::create_dir(at("manifests")).unwrap();
        // Whatever it is called; but for names that begin with a dot, and what lies deeper.
        for name in ["manifests/web", "manifests/.hidden.yaml"] {
            fs::write(at(name), manifest("web", "a")).unwrap();
        }
        fs::create_dir(at("manifests/more.yaml")).unwrap();
        assert_eq!(told(&mut s), ["set web-n1 a"]);
        assert_eq!(told(&mut s), Vec::<String>::new());
        fs::write(at("manifests/web"), manifest("web", "bb")).unwrap();
        assert_eq!(told(&mut s), ["set web-n1 bb"], "the new one takes its place");
        fs::write(at("manifests/web"), "kind: [").unwrap();
        assert_eq!(told(&mut s), Vec::<String>::new(), "what was good runs on");
        fs::write(at("manifests/web2"), manifest("web", "ccc")).unwrap();
        let dup = told(&mut s);
        assert!(dup.len() == 1 && dup[0].starts_with("invalid web-n1 due to duplicate pod name"), "{dup:?}");
        assert_eq!(told(&mut s), Vec::<String>::new(), "it is said once");
        fs::remove_file(at("manifests/web")).unwrap();
        assert_eq!(told(&mut s), ["set web-n1 ccc"]);
        fs::remove_file(at("manifests/web2")).unwrap();
        assert_eq!(told(&mut s), ["remove"]);
    }

    #[tokio::test]
    async fn a_single_file_is_a_source_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod");
        fs::write(&path, manifest("web", "a")).unwrap();
        let mut s = Statics::new(path, "n1", Duration::from_secs(20));
        assert_eq!(told(&mut s), ["set web-n1 a"]);
    }
}
