use super::pod_of;
use crate::manifest::change::{Change, change, fixed, spec, uid};
use crate::pod::Pod;

const BASE: &str = "apiVersion: v1
kind: Pod
metadata: {name: web, labels: {a: b}}
spec:
  activeDeadlineSeconds: 100
  tolerations: [{key: k, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]
  initContainers: [{name: i, image: i:1}]
  containers: [{name: c, image: x:1, command: [run]}]
";

fn edited(from: &str, to: &str) -> (Pod, Pod) {
    let text = BASE.replace(from, to);
    assert_ne!(text, BASE, "{from}");
    (pod_of(BASE), pod_of(&text))
}

#[test]
fn what_a_running_pod_may_change_changes_in_place() {
    for (from, to) in [
        ("{a: b}", "{a: c, d: e}"),
        ("labels: {a: b}", "annotations: {x/y: z}"),
        ("x:1", "x:2"),
        ("i:1", "i:2"),
        ("100", "50"),
        ("tolerationSeconds: 5}", "tolerationSeconds: 50}"),
        ("tolerationSeconds: 5}", "tolerationSeconds: 5}, {operator: Exists}"),
    ] {
        let (mut old, new) = edited(from, to);
        old.metadata.uid = "u".into();
        let Change::InPlace(p) = change(&old, &new) else { panic!("{from} -> {to}") };
        assert_eq!((p.metadata.uid.as_str(), &p.spec, &p.metadata.labels), ("u", &new.spec, &new.metadata.labels));
        assert_eq!(fixed(&old), fixed(&new));
    }
}

#[test]
fn everything_else_makes_another_pod() {
    for (from, to) in [
        ("[run]", "[run, fast]"),
        ("100", "200"),
        ("  activeDeadlineSeconds: 100\n", ""),
        ("key: k", "key: other"),
        ("name: c,", "name: d,"),
        ("image: x:1,", "image: x:1, tty: true,"),
        ("  initContainers: [{name: i, image: i:1}]\n", ""),
        ("spec:\n", "spec:\n  terminationGracePeriodSeconds: 5\n"),
        ("spec:\n", "spec:\n  restartPolicy: Never\n"),
    ] {
        let (old, new) = edited(from, to);
        assert_eq!(change(&old, &new), Change::Replace, "{from} -> {to}");
        let one_way = ["100", "  activeDeadlineSeconds: 100\n", "key: k"].contains(&from);
        assert_eq!(fixed(&old) == fixed(&new), one_way, "{from}");
        assert_ne!(spec(&old), spec(&new));
    }
}

#[test]
fn a_deadline_may_be_set_where_there_was_none() {
    let (with, without) = edited("  activeDeadlineSeconds: 100\n", "");
    assert!(matches!(change(&without, &with), Change::InPlace(_)));
}

#[test]
fn the_same_pod_written_otherwise_is_the_same() {
    let (old, new) = edited("{name: web, labels: {a: b}}", "{labels: {\"a\": 'b'}, name: \"web\", namespace: default}");
    assert_eq!(change(&old, &new), Change::Same);
    let (old, mut new) = edited("[run]", "[\"run\"]");
    (new.metadata.uid, new.metadata.generation) = ("u".into(), 7);
    assert_eq!(change(&old, &new), Change::Same);
}

#[test]
fn a_uid_looks_like_one_and_follows_from_its_arguments() {
    let u = uid("Pod", "default", "web", "f", 0);
    assert_eq!(u, uid("Pod", "default", "web", "f", 0));
    assert_eq!((u.len(), u.split('-').count(), &u[14..15]), (36, 5, "8"));
    for other in [uid("Pod", "default", "web", "f", 1), uid("Pod", "default", "web", "g", 0), uid("Pod", "defaultw", "eb", "f", 0)] {
        assert_ne!(u, other);
    }
}
