//! Tests of manifests: what is told of a bad one, word by word, and what becomes of a good one.

mod change;
mod defaults;
mod kinds;
mod pods;
mod round_trip;
mod schema;
mod services;
mod store;

use super::{Contents, Object, Rules, read};
use crate::pod::Pod;

/// Problems of a text, as they are printed, without the file's name.
fn told(text: &str) -> Vec<String> {
    let Contents { objects, problems } = read("f", text, &Rules::default());
    assert!(problems.is_empty() || objects.is_empty(), "a document with problems gives no objects: {text}");
    problems.iter().map(|p| p.to_string().trim_start_matches("f: ").to_owned()).collect()
}

fn one(text: &str) -> Object {
    let c = read("f", text, &Rules::default());
    assert_eq!(c.problems, [], "{text}");
    c.objects.into_iter().next().expect("an object")
}

fn pod_of(text: &str) -> Pod {
    match one(text) {
        Object::Pod(p) => *p,
        other => panic!("{other:?}"),
    }
}

/// A pod `web` with this in its spec; lines of `spec` stand at the left edge.
fn pod(spec: &str) -> String {
    let spec: String = spec.lines().map(|l| format!("  {l}\n")).collect();
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n{spec}")
}

/// A pod `web` with one container `c` and these fields in it, in flow style.
fn container(fields: &str) -> String {
    let comma = if fields.is_empty() { "" } else { ", " };
    pod(&format!("containers: [{{name: c, image: x:1{comma}{fields}}}]"))
}

/// What is told of the container's fields, with the paths cut to be relative to the container.
fn told_of_container(fields: &str) -> Vec<String> {
    let cut = |l: String| l.replace("document 1: Pod default/web: ", "").replace("spec.containers[0].", "");
    told(&container(fields)).into_iter().map(cut).collect()
}

/// What is told of the pod's spec, with relative paths; a good container is added.
fn told_of_spec(spec: &str) -> Vec<String> {
    let cut = |l: String| l.replace("document 1: Pod default/web: ", "").trim_start_matches("spec.").to_owned();
    told(&pod(&format!("{spec}\ncontainers: [{{name: c, image: x:1}}]"))).into_iter().map(cut).collect()
}
