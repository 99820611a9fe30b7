//! Static pods: what a file of `staticPodPath` or an answer of `staticPodURL` becomes (specification of the kubelet, 1.2).
//!
//! These are the kubelet's rules, not those of the manifests directory: the name tells the node, the uid follows from
//! the content and the place, and nothing of an API server may be referred to. Must never read a file. Tests: at the
//! end of this file.

use super::{Object, Rules, complete};
use crate::pod::Pod;
use serde_json::{Value, json};

/// Where the pod came from; a kubelet's annotation says so.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// What the pod is known by: it changes with what the pod is.
pub const HASH: &str = "kubernetes.io/config.hash";

/// A file by its absolute path, or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    File(&'a str),
    Url(&'a str),
}

impl Origin<'_> {
    fn source(self) -> &'static str {
        match self {
            Origin::File(_) => "file",
            Origin::Url(_) => "http",
        }
    }
}

/// The pod that this document is on the node of this name, or what is wrong with it, all at once. Fields that nobody
/// knows are passed over, as a kubelet does.
pub fn settle(mut document: Value, from: Origin<'_>, node: &str) -> Result<Pod, String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (kind, version) = (text(&document["kind"]), text(&document["apiVersion"]));
    if kind != "Pod" || version != "v1" {
        return Err(format!("a static pod is a Pod of v1, and this is {kind:?} of {version:?}"));
    }
    let name = text(&document["metadata"]["name"]);
    if name.is_empty() {
        return Err("metadata.name: Required value".into());
    }
    if !document["spec"].is_object() {
        return Err("spec: must be an object".into());
    }
    if let Some(what) = reference(&document["spec"]) {
        return Err(format!("static pods may not reference {what}"));
    }
    let mut uid = text(&document["metadata"]["uid"]);
    if uid.is_empty() {
        uid = digest(&document, from, node);
    }
    if let Some(o) = document.as_object_mut() {
        o.remove("status");
    }
    document["metadata"]["name"] = format!("{name}-{}", node.to_ascii_lowercase()).into();
    if text(&document["metadata"]["namespace"]).is_empty() {
        document["metadata"]["namespace"] = "default".into();
    }
    if document["metadata"]["annotations"].is_null() {
        document["metadata"]["annotations"] = json!({});
    }
    if let Some(annotations) = document["metadata"]["annotations"].as_object_mut() {
        annotations.insert(HASH.into(), uid.as_str().into());
        annotations.insert(SOURCE.into(), from.source().into());
    }
    document["spec"]["nodeName"] = node.into();
    if matches!(from, Origin::File(_)) {
        let everything = json!({"operator": "Exists", "effect": "NoExecute"});
        match document["spec"]["tolerations"].as_array_mut() {
            Some(list) => list.push(everything),
            None => document["spec"]["tolerations"] = json!([everything]),
        }
    }
    let (object, faults) = complete(document, &Rules { control_plane: true, ..Rules::default() });
    let wrong: Vec<String> = faults.iter().map(|f| format!("{}: {}", f.field, f.message)).collect();
    match object {
        Some(Object::Pod(mut pod)) if wrong.is_empty() => {
            // Of others an API server fills this in; here there is none.
            pod.spec.service_account_name.clear();
            pod.metadata.uid = uid;
            Ok(*pod)
        }
        _ => Err(wrong.join("; ")),
    }
}

/// The same of an address, which may tell of several.
pub fn settle_all(document: Value, from: Origin<'_>, node: &str) -> Result<Vec<Pod>, String> {
    if document["kind"] != "PodList" {
        return Ok(vec![settle(document, from, node)?]);
    }
    let named = |(i, mut item): (usize, Value)| {
        if let Some(o) = item.as_object_mut() {
            o.entry("kind").or_insert_with(|| "Pod".into());
            o.entry("apiVersion").or_insert_with(|| "v1".into());
        }
        settle(item, from, node).map_err(|e| format!("items[{i}]: {e}"))
    };
    document["items"].as_array().cloned().unwrap_or_default().into_iter().enumerate().map(named).collect()
}

/// 32 hexadecimal digits of FNV-1a over what is written, where, and on which node.
fn digest(document: &Value, from: Origin<'_>, node: &str) -> String {
    let place = match from {
        Origin::File(path) => format!("host:{node}file:{path}"),
        Origin::Url(url) => format!("url:{url}"),
    };
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013B;
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let written = document.to_string();
    let hash = written.bytes().chain(place.bytes()).fold(BASIS, |h, b| (h ^ u128::from(b)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

/// What of an API server this specification refers to, in a kubelet's words.
fn reference(spec: &Value) -> Option<&'static str> {
    let named = |field: &str| spec[field].as_str().is_some_and(|s| !s.is_empty());
    if named("serviceAccountName") || named("serviceAccount") {
        return Some("serviceaccounts");
    }
    let containers = || {
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        lists.into_iter().flat_map(|l| spec[l].as_array().into_iter().flatten())
    };
    let from = |what: &str, key: &str| {
        containers().any(|c| {
            let whole = c["envFrom"].as_array().into_iter().flatten().any(|e| e[what].is_object());
            whole || c["env"].as_array().into_iter().flatten().any(|e| e["valueFrom"][key].is_object())
        })
    };
    if from("secretRef", "secretKeyRef") || spec["imagePullSecrets"].as_array().is_some_and(|l| !l.is_empty()) {
        return Some("secrets");
    }
    if from("configMapRef", "configMapKeyRef") {
        return Some("configmaps");
    }
    if spec["resourceClaims"].as_array().is_some_and(|l| !l.is_empty()) {
        return Some("resourceclaims");
    }
    const VOLUMES: &[(&str, &str)] = &[
        ("configMap", "configmaps (via configmap volumes)"),
        ("secret", "secrets (via secret volumes)"),
        ("csi", "csidrivers (via CSI volumes)"),
        ("glusterfs", "endpoints (via glusterFS volumes)"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
        ("azureFile", "secrets (via azureFile volumes)"),
    ];
    const SOURCES: &[(&str, &str)] = &[
        ("configMap", "configmaps (via projected volumes)"),
        ("secret", "secrets (via projected volumes)"),
        ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    let in_table = |v: &Value, table: &[(&str, &'static str)]| table.iter().find(|(k, _)| v[*k].is_object()).map(|(_, what)| *what);
    spec["volumes"].as_array().into_iter().flatten().find_map(|v| {
        let sources = v["projected"]["sources"].as_array().into_iter().flatten();
        in_table(v, VOLUMES).or_else(|| sources.into_iter().find_map(|s| in_table(s, SOURCES)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Origin<'_> = Origin::File("/etc/kubernetes/manifests/etcd.yaml");

    fn etcd() -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "etcd", "namespace": "kube-system", "annotations": {"a": "b"}},
            "spec": {"hostNetwork": true, "priorityClassName": "system-node-critical", "somethingNew": 1,
                "containers": [{"name": "etcd", "image": "etcd:3"}], "volumes": [{"name": "data", "hostPath": {"path": "/var/lib/etcd"}}]}})
    }

    #[test]
    fn its_name_tells_the_node_and_its_uid_what_it_is_and_where() {
        let pod = settle(etcd(), FILE, "n1").unwrap();
        assert_eq!(
            (pod.metadata.name.as_str(), pod.metadata.namespace.as_str(), pod.spec.node_name.as_str()),
            ("etcd-n1", "kube-system", "n1")
        );
        let uid = pod.metadata.uid.to_string();
        assert!(uid.len() == 32 && uid.bytes().all(|b| b.is_ascii_hexdigit()), "{uid}");
        assert_eq!((pod.metadata.annotations[HASH].as_str(), pod.metadata.annotations[SOURCE].as_str()), (uid.as_str(), "file"));
        assert_eq!(settle(etcd(), FILE, "n1").unwrap(), pod, "the same again");
        let of = |v: Value, from, node| settle(v, from, node).unwrap().metadata.uid.to_string();
        let mut edited = etcd();
        edited["spec"]["containers"][0]["image"] = "etcd:4".into();
        for other in [of(edited, FILE, "n1"), of(etcd(), Origin::File("/etc/kubernetes/manifests/x.yaml"), "n1"), of(etcd(), FILE, "n2")] {
            assert_ne!(other, uid);
        }
        let mut given = etcd();
        given["metadata"]["uid"] = "mine".into();
        assert_eq!(of(given, FILE, "n1"), "mine");
    }

    #[test]
    fn one_of_a_file_stays_whatever_taint_comes() {
        let tolerates = |p: &Pod| p.spec.tolerations.iter().any(|t| t.key.is_empty() && t.operator == "Exists" && t.effect == "NoExecute");
        assert!(tolerates(&settle(etcd(), FILE, "n1").unwrap()));
        let mut nowhere = etcd();
        nowhere["metadata"]["namespace"] = Value::Null;
        let by_url = settle(nowhere, Origin::Url("http://x"), "n1").unwrap();
        assert_eq!(by_url.metadata.namespace, "default");
        assert!(!tolerates(&by_url));
        assert_eq!(by_url.metadata.annotations[SOURCE], "http");
    }

    #[test]
    fn nothing_of_an_api_server_may_be_referred_to() {
        for (pointer, value, told) in [
            ("/spec/serviceAccountName", json!("robot"), "serviceaccounts"),
            ("/spec/imagePullSecrets", json!([{"name": "s"}]), "secrets"),
            ("/spec/containers/0/envFrom", json!([{"configMapRef": {"name": "c"}}]), "configmaps"),
            ("/spec/containers/0/env", json!([{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]), "secrets"),
            ("/spec/volumes/0", json!({"name": "v", "secret": {"secretName": "s"}}), "secrets (via secret volumes)"),
            ("/spec/volumes/0", json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}), "persistentvolumeclaims"),
            (
                "/spec/volumes/0",
                json!({"name": "v", "projected": {"sources": [{"downwardAPI": {}}, {"serviceAccountToken": {"path": "t"}}]}}),
                "serviceaccounts (via projected volumes)",
            ),
        ] {
            let mut pod = etcd();
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            let parent = pod.pointer_mut(parent).unwrap();
            match field.parse::<usize>() {
                Ok(i) => parent[i] = value,
                Err(_) => parent[field] = value,
            }
            assert_eq!(settle(pod, FILE, "n1").unwrap_err(), format!("static pods may not reference {told}"));
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_field() {
        let error = settle(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": []}}), FILE, "n1");
        assert!(error.unwrap_err().contains("spec.containers"), "containers are wanted");
        let error = settle(json!({"apiVersion": "apps/v1", "kind": "Deployment"}), FILE, "n1").unwrap_err();
        assert!(error.contains("Deployment"), "{error}");
        assert_eq!(settle(json!({"apiVersion": "v1", "kind": "Pod"}), FILE, "n1").unwrap_err(), "metadata.name: Required value");
        for odd in [json!("text"), json!([1]), json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": "all"})] {
            assert!(settle(odd, FILE, "n1").is_err());
        }
        let mut odd = etcd();
        odd["metadata"]["annotations"] = json!(["a"]);
        assert!(settle(odd, FILE, "n1").is_err());
    }

    #[test]
    fn an_address_may_tell_of_several() {
        let list = json!({"apiVersion": "v1", "kind": "PodList", "items": [etcd(), {"metadata": {"name": "b"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}]});
        let pods = settle_all(list, Origin::Url("http://x"), "n1").unwrap();
        assert_eq!(pods.iter().map(|p| p.metadata.name.as_str()).collect::<Vec<_>>(), ["etcd-n1", "b-n1"]);
        let bad = json!({"kind": "PodList", "items": [{"metadata": {}}]});
        assert!(settle_all(bad, Origin::Url("http://x"), "n1").unwrap_err().starts_with("items[0]: "));
    }
}
