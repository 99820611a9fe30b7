//! The watch of a manifests directory, with real files: what the node is told, and when it is not.
#![allow(clippy::unwrap_used)]

use longshore::manifest::Rules;
use longshore::node::Event;
use longshore::pod::Pod;
use longshore::run::sources::manifests::{Manifests, Problems, Tell};
use longshore::run::sources::ready::Ready;
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{Instant, timeout};

const DEADLINE: Duration = Duration::from_secs(15);

/// What was told, in order, in short.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Set(String, Arc<Pod>),
    Removed(String),
    Config(String),
    NoConfig(String),
    Services(Vec<String>),
    Ready,
    Invalid(String),
}

struct Node {
    base: TempDir,
    manifests: PathBuf,
    told: Rc<RefCell<Vec<Told>>>,
    problems: Problems,
    tasks: Vec<JoinHandle<()>>,
}

fn on_a_node<F: Future<Output = ()>>(test: impl FnOnce(TempDir) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test(tempfile::tempdir().unwrap()));
}

impl Node {
    fn start(base: TempDir, name: &str) -> Node {
        let manifests = base.path().join(name);
        let state = base.path().join("state");
        fs::create_dir_all(&state).unwrap();
        let source = Manifests::new(manifests.clone(), &state, Rules::default());
        let problems = source.problems();
        let told: Rc<RefCell<Vec<Told>>> = Rc::default();
        let (to, mut events) = mpsc::channel(64);
        let (services, log) = (told.clone(), told.clone());
        let set = move |list: Vec<Arc<longshore_dataplane::wire::Service>>, _| {
            services.borrow_mut().push(Told::Services(list.iter().map(|s| s.metadata.name.clone()).collect()));
        };
        let ready = Ready::new(1, to.clone());
        let tell = Tell { to, set_services: Box::new(set), show: None, ready };
        let run = tokio::task::spawn_local(source.run(tell, tokio::sync::mpsc::channel(1).1));
        let listen = tokio::task::spawn_local(async move {
            while let Some(e) = events.recv().await {
                log.borrow_mut().push(match e {
                    Event::SetPod(p) => Told::Set(p.metadata.name.clone(), p),
                    Event::RemovePod(uid) => Told::Removed(uid.to_string()),
                    Event::SetConfig { name, .. } => Told::Config(name),
                    Event::RemoveConfig { name, .. } => Told::NoConfig(name),
                    Event::SourcesReady => Told::Ready,
                    Event::Invalid { name, .. } => Told::Invalid(name),
                    other => panic!("{other:?}"),
                });
            }
        });
        Node { base, manifests, told, problems, tasks: vec![run, listen] }
    }

    /// Ends without a word, as by `kill -9`; the files stay.
    fn kill(self) -> TempDir {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.base
    }

    async fn until<T>(&self, what: &str, mut look: impl FnMut(&[Told]) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(t) = look(&self.told.borrow()) {
                return t;
            }
            assert!(Instant::now() < end, "{what}: told {:?}, problems {:?}", self.told.borrow(), self.problems.list());
            let _ = timeout(Duration::from_millis(5), std::future::pending::<()>()).await;
        }
    }

    async fn ready(&self) {
        self.until("ready", |t| t.contains(&Told::Ready).then_some(())).await;
    }

    /// The latest that was told of a pod, once it satisfies.
    async fn pod(&self, name: &str, is: impl Fn(&Pod) -> bool) -> Arc<Pod> {
        self.until(name, |t| {
            let last = t.iter().rev().find_map(|t| match t {
                Told::Set(n, p) if n == name => Some(p.clone()),
                _ => None,
            });
            last.filter(|p| is(p))
        })
        .await
    }

    async fn removed(&self, p: &Pod) {
        let gone = Told::Removed(p.metadata.uid.clone());
        self.until("removal", |t| t.contains(&gone).then_some(())).await;
    }

    async fn problem(&self, part: &str) {
        self.until(part, |_| self.problems.list().iter().any(|p| p.to_string().contains(part)).then_some(())).await;
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.manifests, name, text);
    }
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).unwrap();
}

fn pod(name: &str, image: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: '{image}'}}]}}\n---\n")
}

fn image(p: &Pod) -> &str {
    &p.spec.containers[0].image
}

#[test]
fn services_and_configuration_are_told_before_the_pods() {
    on_a_node(|base| async move {
        let dir = base.path().join("m");
        fs::create_dir(&dir).unwrap();
        write(&dir, "1.yaml", &pod("web", "x:1"));
        write(&dir, "2.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n");
        write(&dir, "3.json", r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {}}"#);
        write(&dir, ".1.yaml.swp", "][");
        write(&dir, "notes.txt", "][");
        let n = Node::start(base, "m");
        n.ready().await;
        let kinds: Vec<Told> =
            n.told.borrow().iter().map(|t| if let Told::Set(n, _) = t { Told::Removed(n.clone()) } else { t.clone() }).collect();
        let services = Told::Services(vec!["s".into()]);
        // The pod is written here as a removal, to compare names alone.
        let place = |t: &Told| kinds.iter().position(|k| k == t).unwrap_or_else(|| panic!("{t:?} in {kinds:?}"));
        assert!(place(&services) < place(&Told::Removed("web".into())));
        assert!(place(&Told::Config("m".into())) < place(&Told::Removed("web".into())));
        assert_eq!(kinds.last(), Some(&Told::Ready));
        assert_eq!((kinds.len(), n.problems.list().len()), (4, 0));
    });
}

#[test]
fn edits_are_heard_whatever_the_editor_does() {
    on_a_node(|base| async move {
        fs::create_dir(base.path().join("m")).unwrap();
        let n = Node::start(base, "m");
        n.ready().await;
        n.write("a.yaml", &pod("web", "x:1"));
        let first = n.pod("web", |_| true).await;
        n.write("a.yaml", &pod("web", "x:2"));
        let second = n.pod("web", |p| image(p) == "x:2").await;
        assert_eq!((&second.metadata.uid, second.metadata.generation), (&first.metadata.uid, 2));
        // Written beside and renamed over.
        n.write(".a.yaml.tmp", &pod("web", "x:3"));
        fs::rename(n.manifests.join(".a.yaml.tmp"), n.manifests.join("a.yaml")).unwrap();
        n.pod("web", |p| image(p) == "x:3").await;
        // Renamed away and written anew, with time between.
        fs::rename(n.manifests.join("a.yaml"), n.manifests.join("a.yaml~")).unwrap();
        let _ = timeout(Duration::from_millis(100), std::future::pending::<()>()).await;
        n.write("a.yaml", &pod("web", "x:4"));
        let last = n.pod("web", |p| image(p) == "x:4").await;
        assert_eq!(last.metadata.uid, first.metadata.uid);
        assert!(!n.told.borrow().iter().any(|t| matches!(t, Told::Removed(_))));
        fs::remove_file(n.manifests.join("a.yaml")).unwrap();
        n.removed(&last).await;
    });
}

#[test]
fn a_file_that_is_still_being_written_waits() {
    on_a_node(|base| async move {
        use std::io::Write as _;
        fs::create_dir(base.path().join("m")).unwrap();
        let n = Node::start(base, "m");
        n.write("a.yaml", &(pod("one", "x:1") + &pod("two", "x:1")));
        n.pod("two", |_| true).await;
        let mut f = fs::File::create(n.manifests.join("a.yaml")).unwrap();
        f.write_all(pod("one", "x:2").as_bytes()).unwrap();
        // The rest follows later; meanwhile another file proves that the watch is awake.
        n.write("b.yaml", &pod("three", "x:1"));
        n.pod("three", |_| true).await;
        assert!(!n.told.borrow().iter().any(|t| matches!(t, Told::Removed(_))), "half a file ended a pod");
        f.write_all(pod("two", "x:2").as_bytes()).unwrap();
        drop(f);
        n.pod("two", |p| image(p) == "x:2").await;
        n.pod("one", |p| image(p) == "x:2").await;
        assert!(!n.told.borrow().iter().any(|t| matches!(t, Told::Removed(_))));
    });
}

#[test]
fn a_broken_file_keeps_its_pods_also_over_a_restart() {
    on_a_node(|base| async move {
        fs::create_dir(base.path().join("m")).unwrap();
        let n = Node::start(base, "m");
        n.write("a.yaml", &pod("web", "x:1"));
        n.write("b.yaml", &pod("other", "x:1"));
        let web = n.pod("web", |_| true).await;
        n.pod("other", |_| true).await;
        n.write("a.yaml", &pod("web", ""));
        n.problem("a.yaml: document 1: Pod default/web: spec.containers[0].image: Required value").await;
        n.until("the refusal", |t| t.contains(&Told::Invalid("web".into())).then_some(())).await;
        n.write("b.yaml", &pod("other", "x:2"));
        n.pod("other", |p| image(p) == "x:2").await;
        assert!(!n.told.borrow().iter().any(|t| matches!(t, Told::Removed(_))));

        let n = Node::start(n.kill(), "m");
        n.ready().await;
        assert_eq!(n.pod("web", |_| true).await, web, "what was good last, as it was");
        n.problem("Required value").await;
        n.write("a.yaml", &pod("web", "x:2"));
        assert_eq!(n.pod("web", |p| image(p) == "x:2").await.metadata.uid, web.metadata.uid);
        n.until("no problems", |_| n.problems.list().is_empty().then_some(())).await;
    });
}

#[test]
fn uids_outlive_restarts_and_edits_but_not_removals() {
    on_a_node(|base| async move {
        fs::create_dir(base.path().join("m")).unwrap();
        let n = Node::start(base, "m");
        n.write("a.yaml", &pod("web", "x:1"));
        let p = n.pod("web", |_| true).await;
        let n = Node::start(n.kill(), "m");
        assert_eq!(n.pod("web", |_| true).await, p);
        fs::remove_file(n.manifests.join("a.yaml")).unwrap();
        n.removed(&p).await;
        n.write("a.yaml", &pod("web", "x:1"));
        let again = n.pod("web", |q| q.metadata.uid != p.metadata.uid).await;
        let base = n.kill();
        fs::remove_file(base.path().join("state/objects.jsonl")).unwrap();
        let n = Node::start(base, "m");
        let derived = n.pod("web", |_| true).await;
        assert_eq!(derived.metadata.uid, p.metadata.uid, "without a record the uid follows from the pod");
        assert_ne!(again.metadata.uid, p.metadata.uid);
    });
}

#[test]
fn a_directory_may_come_later_be_replaced_and_go() {
    on_a_node(|base| async move {
        let n = Node::start(base, "m");
        n.ready().await;
        fs::create_dir(&n.manifests).unwrap();
        n.write("a.yaml", &pod("web", "x:1"));
        let p = n.pod("web", |_| true).await;
        let fresh = n.base.path().join("fresh");
        fs::create_dir(&fresh).unwrap();
        write(&fresh, "a.yaml", &pod("web", "x:2"));
        fs::rename(&n.manifests, n.base.path().join("old")).unwrap();
        fs::rename(&fresh, &n.manifests).unwrap();
        assert_eq!(n.pod("web", |p| image(p) == "x:2").await.metadata.uid, p.metadata.uid);
        n.write("b.yaml", &pod("late", "x:1"));
        n.pod("late", |_| true).await;
        fs::remove_dir_all(&n.manifests).unwrap();
        n.removed(&p).await;
    });
}

#[test]
fn a_single_file_and_links_as_of_a_mounted_config_map_are_followed() {
    on_a_node(|base| async move {
        write(base.path(), "one.yaml", &pod("web", "x:1"));
        let n = Node::start(base, "one.yaml");
        n.pod("web", |_| true).await;
        fs::write(&n.manifests, pod("web", "x:2")).unwrap();
        n.pod("web", |p| image(p) == "x:2").await;
        write(n.base.path(), "draft", &pod("web", "x:3"));
        fs::rename(n.base.path().join("draft"), &n.manifests).unwrap();
        n.pod("web", |p| image(p) == "x:3").await;
        let base = n.kill();

        let dir = base.path().join("mounted");
        for version in ["..v1", "..v2"] {
            fs::create_dir_all(dir.join(version)).unwrap();
        }
        write(&dir.join("..v1"), "a.yaml", &pod("linked", "x:1"));
        write(&dir.join("..v2"), "a.yaml", &pod("linked", "x:2"));
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, dir.join(name)).unwrap();
        link("..v1", "..data");
        link("..data/a.yaml", "a.yaml");
        let n = Node::start(base, "mounted");
        n.pod("linked", |p| image(p) == "x:1").await;
        let dir = n.manifests.clone();
        std::os::unix::fs::symlink("..v2", dir.join("..new")).unwrap();
        fs::rename(dir.join("..new"), dir.join("..data")).unwrap();
        n.pod("linked", |p| image(p) == "x:2").await;
    });
}
