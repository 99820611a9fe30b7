//! Patches, bodies in protobuf, selectors and paths of every kind, mutated from a corpus: nothing panics, what is refused is
//! refused with a status of its own, and what was applied once changes nothing when it is applied again.
//!
//! Seeded (see `fuzz`). The function [`one`] is what a libFuzzer target calls with its bytes.
#![allow(clippy::unwrap_used)]

mod fuzz;

use fuzz::Dice;
use longshore::api::patch::{self, Editor, PatchKind};
use longshore::api::selector::{Fields, Labels};
use longshore::api::{Failure, Query, protobuf, route};
use longshore::manifest::schema::shape_of;
use longshore::time::Wall;
use serde_json::{Value, json};

const CORPUS: &[&str] = &[
    r#"[{"op":"add","path":"/metadata/labels/a~1b","value":"x"},{"op":"copy","from":"/spec","path":"/status"},{"op":"remove","path":"/spec/containers/0/env/-1"}]"#,
    r#"[{"op":"test","path":"","value":null},{"op":"move","from":"/spec/containers/0","path":"/spec/containers/-"},{"op":"replace","path":"/spec/containers/0/ports/0/containerPort","value":81}]"#,
    r#"{"metadata":{"labels":{"a":null,"b":"c"},"finalizers":null},"spec":{"containers":[{"name":"c","image":null}]}}"#,
    r#"{"spec":{"$setElementOrder/containers":[{"name":"d"},{"name":"c"}],"containers":[{"name":"c","env":[{"name":"A","$patch":"delete"}]},{"name":"d","image":"x"},{"$patch":"replace"}]}}"#,
    r#"{"spec":{"volumes":[{"$retainKeys":["name","hostPath"],"name":"v","hostPath":{"path":"/a"}}]},"metadata":{"$deleteFromPrimitiveList/finalizers":["x"]}}"#,
    r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"y","ports":[{"containerPort":80}]}]}}"#,
    "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  finalizers: [x, z]\nspec:\n  hostAliases:\n  - {ip: 10.0.0.1, hostnames: [a]}\n  tolerations: [{key: a}]\n",
    "a=b,c!=d,e in (f,,g),h notin (),!i,j>3",
    r"metadata.name=a\,b,spec.nodeName!=n,status.phase==Running",
    "\n\x05\n\x01p\x1a\0\x12\x1a\n\x05\n\x01v\x12\0\x12\x11\n\x01c\x12\x01x\x32\x09\n\x01h\x10\0\x18P*\0",
    "\n\x10\n\x01s\x1a\0\x42\x09\x08\x01\x10\x01Z\x03\n\x01a\x12\x0e\n\x0c\x18P\"\x08\x08\x01\x10\0\x1a\x02ab",
    "/api/v1/namespaces/a%2fb/pods/c/log?container=x&follow=1&labelSelector=a%3Db",
];

const WORDS: &[&str] = &[
    "\"$patch\":\"delete\"",
    "\"$patch\":\"merge\"",
    "\"$retainKeys\":[]",
    "\"$setElementOrder/containers\":",
    "\"$deleteFromPrimitiveList/\":",
    "null",
    "{}",
    "[]",
    "[[]]",
    "\"\"",
    "1e400",
    "-0",
    "18446744073709551616",
    "/-",
    "~0",
    "~",
    "/-1",
    "/99999999999999999999",
    "\"name\":",
    "\"containers\":",
    "\"managedFields\":[{\"manager\":\"x\",\"operation\":\"Update\",\"apiVersion\":\"v1\",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":{\"f:spec\":{\"k:{\":{}}}}],",
    "\u{0}",
    "\u{2028}",
    "(",
    ")",
    ",",
    "=",
    "!",
    "\\",
    " in ",
    "%2",
    "%00",
    "..",
    "ß",
];

fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(bytes.len() + 1);
    match dice.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        1 => {
            let end = (at + dice.below(30)).min(bytes.len());
            bytes.drain(at..end);
        }
        2 => {
            let end = (at + dice.below(60)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            let to = dice.below(bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        3 => {
            let from = dice.below(other.len() + 1);
            let end = (from + dice.below(100)).min(other.len());
            bytes.splice(at..at, other[from..end].iter().copied());
        }
        _ => {
            let word = WORDS[dice.below(WORDS.len())];
            bytes.splice(at..at, word.bytes());
        }
    }
    bytes.truncate(32 << 10);
}

fn live() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default", "uid": "1", "labels": {"a": "b"},
            "finalizers": ["x", "y"], "managedFields": [{"manager": "them", "operation": "Apply", "apiVersion": "v1",
                "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}}}}]},
        "spec": {"containers": [{"name": "c", "image": "x", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]}],
            "volumes": [{"name": "v", "emptyDir": {}}], "nodeName": "n"},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}})
}

fn is_told(f: &Failure) {
    assert!((400..=500).contains(&f.code) && !f.message.is_empty(), "{f:?}");
    assert!(serde_json::from_slice::<Value>(&f.body()).is_ok());
}

/// A body in protobuf: `raw` in the envelope of a kind.
fn enveloped(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let text = |number: u8, t: &str| [&[number << 3 | 2, u8::try_from(t.len()).unwrap()], t.as_bytes()].concat();
    let meta = [text(1, api_version), text(2, kind)].concat();
    let (low, high) = (raw.len() & 0x7f | 0x80, raw.len() >> 7 & 0x7f | 0x80);
    let len = [low, high, raw.len() >> 14].map(|b| u8::try_from(b).unwrap());
    [b"k8s\0\n", &[u8::try_from(meta.len()).unwrap()][..], &meta, &[0x12], &len, raw].concat()
}

/// What must hold of any bytes.
fn one(bytes: &[u8]) {
    let live = live();
    let fields = shape_of("v1", "Pod");
    let editor = Editor { manager: "me", api_version: "v1", kind: "Pod", subresource: "", force: true, now: Wall::from_seconds(1) };
    for kind in [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply] {
        for live in [&live, &Value::Null] {
            match patch::apply(kind, live, bytes, fields, &editor) {
                Err(f) => is_told(&f),
                Ok(new) => {
                    assert!(!patch::deeper_than(&new, 3 * patch::MOST_DEPTH));
                    let tracked = patch::track(live, &new, fields, &editor);
                    assert_eq!(patch::track(&tracked, &tracked, fields, &editor), tracked, "nothing changed");
                    if kind == PatchKind::Apply {
                        let later = Editor { now: Wall::from_seconds(9), ..editor };
                        assert_eq!(patch::apply(kind, &new, bytes, fields, &later).unwrap(), new, "applied twice");
                    }
                }
            }
        }
    }
    let text = String::from_utf8_lossy(bytes);
    match Labels::parse(&text) {
        Ok(l) => assert!(l.matches(&live) || !l.is_everything()),
        Err(f) => is_told(&f),
    }
    for kind in ["Pod", "Event", "ConfigMap"] {
        match Fields::parse(&text, "v1", kind) {
            Ok(f) => assert!(f.matches(&live) || !f.is_everything()),
            Err(f) => is_told(&f),
        }
    }
    for (api_version, kind) in [("v1", "Pod"), ("v1", "Service"), ("coordination.k8s.io/v1", "Lease"), ("v1", "DeleteOptions")] {
        match protobuf::decode(&enveloped(api_version, kind, bytes)) {
            Ok(object) => assert_eq!((object["kind"].as_str(), object["apiVersion"].as_str()), (Some(kind), Some(api_version))),
            Err(f) => is_told(&f),
        }
    }
    let _ = protobuf::decode(bytes);
    let (path, query) = text.split_once('?').unwrap_or((&text, ""));
    let _ = route::route(path);
    let q = Query::parse(query);
    assert_eq!(Query::parse(q.suffix().trim_start_matches('?')), q);
}

#[test]
fn no_bytes_make_patches_selectors_or_paths_panic() {
    fuzz::drive(CORPUS, 1500, 5, mutate, one);
}
