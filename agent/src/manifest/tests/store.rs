use crate::manifest::store::{Diff, Record, Settled, Store};
use crate::manifest::{Contents, Key, Kind, Rules, read};
use crate::pod::Pod;
use crate::time::Wall;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

struct Dir {
    store: Store,
    now: i64,
}

fn pod(name: &str, image: &str, command: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: '{image}', command: ['{command}']}}]}}\n---\n"
    )
}

fn map(name: &str, rest: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n{rest}\n---\n")
}

fn contents(file: &str, text: &str) -> Contents {
    read(file, text, &Rules::default())
}

impl Dir {
    fn new(record: Record) -> Dir {
        Dir { store: Store::new(record), now: 1000 }
    }

    fn set(&mut self, file: &str, text: &str) -> Settled {
        self.store.set_file(file, contents(file, text));
        self.settle()
    }

    fn settle(&mut self) -> Settled {
        self.now += 10;
        self.store.settle(Wall::from_seconds(self.now), Vec::new())
    }

    fn remove(&mut self, file: &str) -> Settled {
        self.store.remove_file(file);
        self.settle()
    }
}

fn only(s: &Settled) -> Arc<Pod> {
    assert_eq!(s.diff.set_pods.len(), 1, "{s:?}");
    s.diff.set_pods[0].clone()
}

#[test]
fn a_pod_comes_changes_is_replaced_and_goes() {
    let mut d = Dir::new(Record::new());
    let first = d.set("a.yaml", &pod("web", "x:1", "run"));
    let p1 = only(&first);
    assert_eq!((p1.metadata.generation, p1.metadata.creation_timestamp), (1, Some(Wall::from_seconds(1010))));
    assert!(first.record.keys().eq(["Pod default/web"]) && first.diff.services.is_some(), "services are told once even if there are none");

    let same = d.set("a.yaml", &format!("# a remark\n{}", pod("web", "x:1", "run")));
    assert_eq!(same, Settled::default());

    let p2 = only(&d.set("a.yaml", &pod("web", "x:2", "run")));
    assert_eq!(
        (&p2.metadata.uid, p2.metadata.generation, p2.metadata.creation_timestamp),
        (&p1.metadata.uid, 2, p1.metadata.creation_timestamp)
    );

    let p3 = only(&d.set("a.yaml", &pod("web", "x:2", "other")));
    assert_ne!(p3.metadata.uid, p1.metadata.uid);
    assert_eq!((p3.metadata.generation, p3.metadata.creation_timestamp), (1, Some(Wall::from_seconds(1040))));

    let back = only(&d.set("a.yaml", &pod("web", "x:1", "run")));
    assert!(![&p1.metadata.uid, &p3.metadata.uid].contains(&&back.metadata.uid), "the form is the first, the pod is not");

    let gone = d.remove("a.yaml");
    let key = Key { kind: Kind::Pod, namespace: "default".into(), name: "web".into() };
    assert_eq!(gone.diff, Diff { remove_pods: vec![back.uid()], gone: vec![key], ..Diff::default() });
    let reborn = only(&d.set("a.yaml", &pod("web", "x:1", "run")));
    assert!(![&p1.metadata.uid, &back.metadata.uid].contains(&&reborn.metadata.uid));
}

#[test]
fn labels_change_in_place_without_a_new_generation() {
    let mut d = Dir::new(Record::new());
    let p1 = only(&d.set("a.yaml", &pod("web", "x:1", "run")));
    let p2 = only(&d.set("a.yaml", &pod("web", "x:1", "run").replace("name: web", "name: web, labels: {a: b}")));
    assert_eq!((&p2.metadata.uid, p2.metadata.generation), (&p1.metadata.uid, 1));
    assert_eq!(p2.metadata.labels["a"], "b");
}

#[test]
fn a_broken_file_keeps_what_it_held_until_it_is_mended_or_removed() {
    let mut d = Dir::new(Record::new());
    d.set("a.yaml", &(pod("one", "x:1", "run") + &pod("two", "x:1", "run") + &map("m", "data: {a: b}")));
    let broken = d.set("a.yaml", &(pod("one", "x:2", "run") + &pod("two", "", "run") + "x: [\n"));
    assert_eq!(only(&broken).spec.containers[0].image, "x:2", "a good document counts");
    assert_eq!((broken.diff.remove_pods.len(), broken.diff.remove_configs.len()), (0, 0));
    let said: Vec<String> = broken.new_problems.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("document 2: Pod default/two: spec.containers[0].image: Required value"));
    assert_eq!(d.settle(), Settled::default(), "a problem is told once");
    assert_eq!(d.store.problems().len(), 2);

    let mended = d.set("a.yaml", &pod("one", "x:2", "run"));
    assert_eq!((mended.diff.remove_pods.len(), mended.diff.remove_configs.len()), (1, 1));
    assert_eq!(mended.mended.iter().collect::<Vec<_>>(), ["a.yaml"]);

    d.set("a.yaml", "][");
    let gone = d.remove("a.yaml");
    assert_eq!(gone.diff.remove_pods.len(), 1);
    assert!(d.store.problems().is_empty());
}

#[test]
fn a_broken_file_does_not_touch_the_others() {
    let mut d = Dir::new(Record::new());
    d.set("a.yaml", &pod("one", "x:1", "run"));
    let s = d.set("b.yaml", "[");
    assert_eq!((s.diff, s.new_problems.len()), (Diff::default(), 1));
    d.store.set_unreadable("a.yaml", "permission denied");
    let s = d.settle();
    assert_eq!(s.diff, Diff::default());
    assert_eq!(s.new_problems[0].to_string(), "a.yaml: permission denied");
}

#[test]
fn of_two_objects_of_one_name_that_in_the_first_file_counts() {
    let mut d = Dir::new(Record::new());
    let p1 = only(&d.set("b.yaml", &pod("web", "b:1", "run")));
    let s = d.set("c.yaml", &pod("web", "c:1", "run"));
    assert_eq!(s.diff, Diff::default());
    assert_eq!(s.new_problems[0].to_string(), "c.yaml: Pod default/web: it stands in b.yaml already; that one counts");
    let s = d.remove("b.yaml");
    let p2 = only(&s);
    assert_eq!((&p2.metadata.uid, p2.spec.containers[0].image.as_str()), (&p1.metadata.uid, "c:1"), "it went on in another file");
    assert_eq!(s.mended.len(), 1);
    let twice = d.set("d.yaml", &(map("m", "data: {a: '1'}") + &map("m", "data: {a: '2'}")));
    assert_eq!(twice.diff.set_configs.len(), 1);
    assert_eq!(&*twice.diff.set_configs[0].1.data["a"], b"1");
    assert_eq!(twice.new_problems[0].to_string(), "d.yaml: ConfigMap default/m: it stands twice in this file; the first counts");
}

#[test]
fn an_immutable_object_stays_as_it_is_until_it_is_removed() {
    let mut d = Dir::new(Record::new());
    d.set("a.yaml", &map("m", "immutable: true\ndata: {a: b}"));
    let s = d.set("a.yaml", &map("m", "immutable: true\ndata: {a: c}"));
    assert_eq!(s.diff, Diff::default());
    assert!(s.new_problems[0].to_string().contains("Forbidden: field is immutable when `immutable` is set"));
    d.remove("a.yaml");
    let s = d.set("a.yaml", &map("m", "immutable: true\ndata: {a: c}"));
    assert_eq!((s.diff.set_configs.len(), s.mended.len()), (1, 0));
}

#[test]
fn services_are_told_whole_with_their_times() {
    let mut d = Dir::new(Record::new());
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}], selector: {a: b}}\n---\napiVersion: v1\nkind: Endpoints\nmetadata: {name: s}\nsubsets: [{addresses: [{ip: 192.0.2.1}]}]\n---\napiVersion: v1\nkind: Endpoints\nmetadata: {name: t}\nsubsets: [{addresses: [{ip: 192.0.2.1}]}]\n";
    let (services, slices) = d.set("a.yaml", text).diff.services.unwrap();
    assert_eq!(services[0].metadata.creation_timestamp.as_deref(), Some("1970-01-01T00:16:50Z"));
    assert!(!services[0].metadata.uid.is_empty());
    let names: Vec<&str> = slices.iter().map(|s| s.metadata.name.as_str()).collect();
    assert_eq!(names, ["t-mirrored-v4-0"], "a service with a selector is not mirrored");
    assert_eq!(d.set("b.yaml", &pod("p", "x:1", "run")).diff.services, None);
    assert_eq!(d.remove("a.yaml").diff.services, Some((vec![], vec![])));
}

#[test]
fn after_a_restart_everybody_is_who_he_was() {
    let mut d = Dir::new(Record::new());
    let one = pod("one", "x:1", "run");
    d.set("a.yaml", &one);
    let edited = pod("one", "x:2", "run");
    let s = d.set("a.yaml", &edited);
    let (record, p) = (d.store.record().clone(), only(&s));

    let mut again = Dir::new(record.clone());
    again.store.prime("a.yaml", contents("a.yaml", &edited));
    let s = again.set("a.yaml", &edited);
    assert_eq!((only(&s), s.record), (p.clone(), crate::manifest::store::RecordChanges::new()), "nothing changed, nothing is written");

    let mut without_copy = Dir::new(record.clone());
    assert_eq!(only(&without_copy.set("a.yaml", &edited)), p);

    let mut broken = Dir::new(record.clone());
    broken.store.prime("a.yaml", contents("a.yaml", &edited));
    assert_eq!(only(&broken.set("a.yaml", "][")), p, "what was good last runs on");

    let mut edited_meanwhile = Dir::new(record.clone());
    edited_meanwhile.store.prime("a.yaml", contents("a.yaml", &edited));
    let q = only(&edited_meanwhile.set("a.yaml", &pod("one", "x:3", "run")));
    assert_eq!((&q.metadata.uid, q.metadata.generation), (&p.metadata.uid, 3));

    let mut replaced_meanwhile = Dir::new(record);
    replaced_meanwhile.store.prime("a.yaml", contents("a.yaml", &edited));
    assert_ne!(only(&replaced_meanwhile.set("a.yaml", &pod("one", "x:3", "walk"))).metadata.uid, p.metadata.uid);
}

#[test]
fn a_lost_record_gives_the_same_uid_again() {
    let text = pod("one", "x:1", "run");
    let uid = |d: &mut Dir| only(&d.set("a.yaml", &text)).metadata.uid.clone();
    assert_eq!(uid(&mut Dir::new(Record::new())), uid(&mut Dir::new(Record::new())));
}

#[test]
fn a_crash_between_the_record_and_the_copy_makes_no_third_pod() {
    let (old, new) = (pod("one", "x:1", "run"), pod("one", "x:1", "walk"));
    let mut d = Dir::new(Record::new());
    d.set("a.yaml", &old);
    let s = d.set("a.yaml", &new);
    let mut again = Dir::new(d.store.record().clone());
    again.store.prime("a.yaml", contents("a.yaml", &old));
    assert_eq!(only(&again.set("a.yaml", &new)), only(&s));
}

#[test]
fn an_upgrade_that_changes_digests_replaces_nobody() {
    let text = pod("one", "x:1", "run");
    let mut d = Dir::new(Record::new());
    let s = d.set("a.yaml", &text);
    let mut record = serde_json::to_value(d.store.record()).unwrap();
    record["Pod default/one"]["fixed"] = "of another version".into();
    record["Pod default/one"]["spec"] = "of another version".into();
    let mut again = Dir::new(serde_json::from_value(record).unwrap());
    again.store.prime("a.yaml", contents("a.yaml", &text));
    assert_eq!(only(&again.set("a.yaml", &text)), only(&s));
}

#[test]
fn the_record_does_not_grow_without_end() {
    let mut d = Dir::new(Record::new());
    let many: String = (0..1500).map(|i| map(&format!("m{i}"), "data: {}")).collect();
    d.set("a.yaml", &many);
    let changes = d.set("a.yaml", "").record;
    let forgotten = changes.values().filter(|i| i.is_none()).count();
    assert_eq!((d.store.record().len(), changes.len(), forgotten), (1000, 1500, 500));
    for i in 0..100 {
        d.set("b.yaml", &pod("web", "x:1", &format!("run {i}")));
    }
    assert_eq!(d.set("b.yaml", &pod("web", "x:1", "last")).record.len(), 1, "what did not change is not written");
    let forms = serde_json::to_value(&d.store.record()["Pod default/web"]).unwrap()["incarnations"].as_object().unwrap().len();
    assert_eq!(forms, 32);
}

/// What a file is made to hold: pods with their images. Broken: one more document is none.
type Files = BTreeMap<usize, BTreeMap<usize, usize>>;

proptest! {
    /// Conclusions are drawn about what was touched alone, and come to the same as about everything.
    #[test]
    fn what_was_told_is_what_the_first_file_holds_after_any_history(
        steps in proptest::collection::vec((0..4_usize, 0..6_u8, proptest::collection::btree_map(0..5_usize, 0..3_usize, 0..4), any::<bool>()), 1..25),
    ) {
        let mut d = Dir::new(Record::new());
        let mut files = Files::new();
        let mut told: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
        for (file, what, pods, settles) in steps {
            let name = format!("{file}.yaml");
            match what {
                0 => {
                    files.remove(&file);
                    d.store.remove_file(&name);
                }
                1 => {
                    let held = files.entry(file).or_default();
                    held.extend(pods.clone());
                    d.store.set_file(&name, contents(&name, &(text_of(&pods) + "][\n")));
                }
                _ => {
                    files.insert(file, pods.clone());
                    d.store.set_file(&name, contents(&name, &text_of(&pods)));
                }
            }
            if !settles {
                continue;
            }
            let diff = d.settle().diff;
            for p in diff.remove_pods {
                told.retain(|_, have| have.uid() != p);
            }
            for p in diff.set_pods {
                told.insert(p.metadata.name.clone(), p);
            }
            let mut wanted: BTreeMap<String, String> = BTreeMap::new();
            let mut twice = 0;
            for (pod, image) in files.values().flatten() {
                match wanted.entry(format!("p{pod}")) {
                    Entry::Occupied(_) => twice += 1,
                    Entry::Vacant(e) => drop(e.insert(format!("x:{image}"))),
                }
            }
            let images: BTreeMap<String, String> = told.iter().map(|(n, p)| (n.clone(), p.spec.containers[0].image.clone())).collect();
            prop_assert_eq!(images, wanted);
            let duplicates = d.store.problems().iter().filter(|p| p.message.contains("that one counts")).count();
            prop_assert_eq!(duplicates, twice);
            prop_assert_eq!(d.settle(), Settled::default());
        }
    }
}

fn text_of(pods: &BTreeMap<usize, usize>) -> String {
    pods.iter().map(|(pod_number, image)| pod(&format!("p{pod_number}"), &format!("x:{image}"), "run")).collect()
}
