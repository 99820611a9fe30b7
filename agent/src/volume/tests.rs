use super::*;
use crate::cgroup::{Driver, Layout};
use crate::env::NodeFacts;
use crate::env::tests::{Objects, data};
use crate::node::state::NodeConfig;
use crate::plan::backoff;
use crate::pod::resources::NANO;
use crate::pod::{Pod, Referent};
use crate::time::Wall;
use crate::work::dns::Resolv;
use serde_json::{Value, json};

fn config() -> NodeConfig {
    NodeConfig {
        root_dir: "/root".into(),
        pod_logs_dir: "/logs".into(),
        container_logs_dir: "/links".into(),
        cgroups: Layout::new(Driver::Cgroupfs, ""),
        cgroup_v2: true,
        pod_pids_limit: -1,
        cluster_domain: "cluster.local".into(),
        cluster_dns: Vec::new(),
        host_resolv: Resolv::default(),
        limits: backoff::Limits::default(),
        max_pods: 110,
        seccomp_default: false,
        allowed_unsafe_sysctls: Vec::new(),
        single_process_oom_kill: false,
        runtime_name: "containerd".into(),
        started: Wall(0),
    }
}

/// The works of a pod with these volumes, each of them mounted, and the limits of its one container.
fn works_of(volumes: &Value, limits: &Value) -> Result<Vec<VolumeWork>, String> {
    let names: Vec<Value> = volumes.as_array().unwrap().iter().map(|v| json!({ "name": v["name"], "mountPath": "/m" })).collect();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "u1", "labels": { "app": "web", "a": "b\"c" } },
        "spec": { "volumes": volumes, "containers": [{ "name": "main", "resources": { "limits": limits }, "volumeMounts": names }] },
    }))
    .unwrap();
    let mut objects = Objects::default();
    objects.0.insert((Referent::ConfigMap, "settings".into()), data(&[("color", "red"), ("shape", "round")]));
    objects.0.insert((Referent::Secret, "keys".into()), data(&[("color", "secret"), ("k", "v")]));
    objects.0.insert((Referent::ConfigMap, "bad".into()), data(&[("../up", "")]));
    let node = NodeFacts { allocatable: [("memory".to_owned(), NANO << 30)].into(), ..NodeFacts::default() };
    let config = config();
    let ctx = Context { pod: &pod, config: &config, node: &node, objects: &objects, services: &[], pod_ips: &[] };
    works(&ctx).map_err(|e| e.to_string())
}

fn one(source: Value) -> Result<VolumeWork, String> {
    let mut volume = source;
    volume["name"] = json!("x");
    works_of(&json!([volume]), &json!({})).map(|mut w| w.remove(0))
}

/// Names, contents and modes of a configuration volume.
fn payload(source: Value) -> Result<Vec<(String, String, u32)>, String> {
    match one(source)? {
        VolumeWork::Files { files, .. } => {
            Ok(files.into_iter().map(|(n, f)| (n, String::from_utf8(f.bytes.to_vec()).unwrap(), f.mode)).collect())
        }
        other => panic!("{other:?}"),
    }
}

fn file(name: &str, text: &str, mode: u32) -> (String, String, u32) {
    (name.to_owned(), text.to_owned(), mode)
}

#[test]
fn configuration_volumes_hold_what_they_name() {
    let resource = json!({ "containerName": "main", "resource": "requests.memory" });
    for (source, want) in [
        (json!({ "configMap": { "name": "settings" } }), vec![file("color", "red", 0o644), file("shape", "round", 0o644)]),
        (
            json!({ "configMap": { "name": "settings", "defaultMode": 0o600, "items": [{ "key": "color", "path": "a/b" }, { "key": "shape", "path": "c", "mode": 0o444 }] } }),
            vec![file("a/b", "red", 0o600), file("c", "round", 0o444)],
        ),
        (json!({ "secret": { "secretName": "keys", "items": [{ "key": "k", "path": "k" }] } }), vec![file("k", "v", 0o644)]),
        (json!({ "secret": { "secretName": "absent", "optional": true } }), vec![]),
        (json!({ "configMap": { "name": "settings", "optional": true, "items": [{ "key": "no", "path": "no" }] } }), vec![]),
        (
            json!({ "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }, { "path": "r", "mode": 0o400, "resourceFieldRef": resource }] } }),
            vec![file("labels", "a=\"b\\\"c\"\napp=\"web\"", 0o644), file("r", "0", 0o400)],
        ),
        // Where paths meet, the later source wins.
        (
            json!({ "projected": { "defaultMode": 0o440, "sources": [{ "configMap": { "name": "settings" } }, { "secret": { "name": "keys" } }] } }),
            vec![file("color", "secret", 0o440), file("k", "v", 0o440), file("shape", "round", 0o440)],
        ),
    ] {
        assert_eq!(payload(source.clone()), Ok(want), "{source}");
    }
}

#[test]
fn what_is_missing_is_told_in_the_kubelets_words() {
    let up = json!({ "projected": { "sources": [{ "configMap": { "name": "y" } }, { "secret": { "name": "z" } }] } });
    for (source, want) in [
        (json!({ "configMap": { "name": "y" } }), "configmap \"y\" not found"),
        (json!({ "secret": { "secretName": "y" } }), "secret \"y\" not found"),
        (
            json!({ "configMap": { "name": "settings", "items": [{ "key": "k", "path": "p" }] } }),
            "configmap references non-existent config key: k",
        ),
        (json!({ "secret": { "secretName": "keys", "items": [{ "key": "no", "path": "p" }] } }), "references non-existent secret key: no"),
        (up, "[configmap \"y\" not found, secret \"z\" not found]"),
        (json!({ "configMap": { "name": "bad" } }), "invalid path \"../up\": must not contain or start with '..'"),
        (
            json!({ "configMap": { "name": "settings", "items": [{ "key": "color", "path": "/etc/passwd" }] } }),
            "invalid path \"/etc/passwd\": must be relative",
        ),
    ] {
        assert_eq!(payload(source.clone()), Err(format!("MountVolume.SetUp failed for volume \"x\" : {want}")), "{source}");
    }
}

#[test]
fn memory_is_bounded_by_the_smallest_of_node_pod_and_volume() {
    let medium = |volume: Value, limits: Value| match works_of(&json!([volume]), &limits).unwrap().remove(0) {
        VolumeWork::EmptyDir { medium, .. } | VolumeWork::Files { medium, .. } => medium,
        other => panic!("{other:?}"),
    };
    let empty = |e: Value| json!({ "name": "x", "emptyDir": e });
    let memory = |size: i64| Medium::Memory { size: Some(size) };
    assert_eq!(medium(empty(json!({})), json!({})), Medium::Disk);
    assert_eq!(medium(empty(json!({ "medium": "Memory" })), json!({})), memory(1 << 30));
    assert_eq!(medium(empty(json!({ "medium": "Memory" })), json!({ "memory": "64Mi" })), memory(64 << 20));
    assert_eq!(medium(empty(json!({ "medium": "Memory", "sizeLimit": "1Mi" })), json!({ "memory": "64Mi" })), memory(1 << 20));
    assert_eq!(medium(empty(json!({ "medium": "HugePages-1Gi" })), json!({})), Medium::HugePages { size: "1Gi".into() });
    assert_eq!(
        medium(empty(json!({ "medium": "HugePages" })), json!({ "hugepages-2Mi": "4Mi" })),
        Medium::HugePages { size: "2Mi".into() }
    );
    // What is secret stays off the disk.
    let secret = json!({ "name": "x", "secret": { "secretName": "keys" } });
    assert_eq!(medium(secret, json!({ "memory": "64Mi" })), memory(64 << 20));
    assert_eq!(medium(json!({ "name": "x", "configMap": { "name": "settings" } }), json!({})), Medium::Disk);
}

#[test]
fn volumes_are_where_a_kubelet_has_them() {
    let path = |source: Value| match one(source).unwrap() {
        VolumeWork::EmptyDir { path, .. } | VolumeWork::Files { path, .. } | VolumeWork::HostPath { path, .. } => path,
    };
    assert_eq!(path(json!({ "emptyDir": {} })), "/root/pods/u1/volumes/kubernetes.io~empty-dir/x");
    assert_eq!(path(json!({ "configMap": { "name": "settings" } })), "/root/pods/u1/volumes/kubernetes.io~configmap/x");
    assert_eq!(path(json!({ "projected": { "sources": [] } })), "/root/pods/u1/volumes/kubernetes.io~projected/x");
    assert_eq!(path(json!({ "downwardAPI": { "items": [] } })), "/root/pods/u1/volumes/kubernetes.io~downward-api/x");
    assert_eq!(path(json!({ "hostPath": { "path": "/srv" } })), "/srv");
    assert!(one(json!({ "nfs": { "server": "s", "path": "/" } })).unwrap_err().contains("this node cannot mount nfs"));
}

#[test]
fn a_volume_that_no_container_mounts_is_not_made() {
    let pod: Pod = serde_json::from_value(json!({
        "spec": { "volumes": [{ "name": "x", "configMap": { "name": "absent" } }], "containers": [{ "name": "main" }] },
    }))
    .unwrap();
    let (config, node, objects) = (config(), NodeFacts::default(), Objects::default());
    let ctx = Context { pod: &pod, config: &config, node: &node, objects: &objects, services: &[], pod_ips: &[] };
    assert_eq!(works(&ctx), Ok(Vec::new()));
}
