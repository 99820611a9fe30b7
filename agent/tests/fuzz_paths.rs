//! Paths and queries of requests, names of objects and of their files, and selectors, mutated from a corpus: nothing
//! panics, what a path is read as leads back to it, no name leads out of the directory, and a selector of two parts takes
//! what both take.
//!
//! Seeded (see `fuzz`). The function [`one`] is what a libFuzzer target calls with its bytes.
#![allow(clippy::unwrap_used)]

mod fuzz;

use fuzz::Dice;
use longshore::api::query::{decode, encode};
use longshore::api::request::{Request, Target, target};
use longshore::api::resource::{CONFIG_MAPS, Home, Id, NAMESPACES};
use longshore::api::selector::{Fields, Labels};
use longshore::api::write::{Caller, Context, Effect, Op, Validation, decide};
use longshore::api::{Failure, Query, access::User, route};
use longshore::run::sources::door::file_name;
use longshore::run::sources::replace::MOST_NAME;
use longshore::time::Wall;
use serde_json::{Value, json};

const CORPUS: &[&str] = &[
    "GET /api/v1/namespaces/a%2fb/pods/c/log?container=x&follow=1&labelSelector=a%3Db",
    "GET /api/v1/watch/namespaces/a/pods?resourceVersion=7&timeoutSeconds=1",
    "POST /apis/discovery.k8s.io/v1/namespaces/a/endpointslices?dryRun=All&fieldManager=m",
    "DELETE /api/v1/namespaces/a/pods/b?gracePeriodSeconds=-1",
    "PATCH /api/v1/nodes/n/status",
    "PUT /apis/certificates.k8s.io/v1/certificatesigningrequests/x/approval",
    "GET /api/v1/namespaces/a/services/https:b:80/proxy/x/../y//z/?q=%00",
    "GET /apis/apps/v1/namespaces/a/deployments/b",
    "GET /openapi/v3/apis/storage.k8s.io/v1",
    "HEAD /longshore/v1/why/namespaces/a/pods/web",
    "GET /api/v1/namespaces/x/finalize",
    "a=b,c!=d,e in (f,,g),h notin (),!i,j>3",
    "x/y in (a,b),z notin (c),tier,!gone,n<5",
    r"metadata.name=a\,b,spec.nodeName!=n,status.phase==Running",
    "metadata.namespace=default,involvedObject.name=web",
    "web-1.example.com",
    "../../../etc/passwd",
    ".hidden.yaml.part.longshore",
];

const WORDS: &[&str] = &[
    "/",
    "//",
    "/.",
    "/..",
    "%2f",
    "%2F",
    "%",
    "%2",
    "%00",
    "%ff",
    "%zz",
    "?",
    "&",
    "=",
    "+",
    "#",
    "\\",
    "\u{0}",
    "\n",
    "ß",
    "\u{2028}",
    " in ",
    " notin ",
    "(",
    ")",
    ",",
    "!",
    "!=",
    "==",
    ">",
    "<",
    "namespaces/",
    "/watch",
    "pods",
    "/status",
    "/proxy/",
    "metadata.name",
    ".",
    "-",
    ".yaml",
    "~",
    "a",
    "A",
    "0123456789012345678901234567890123456789012345678901234567890123456789",
];

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW", ""];

fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(bytes.len() + 1);
    match dice.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        1 => {
            let end = (at + dice.below(20)).min(bytes.len());
            bytes.drain(at..end);
        }
        2 => {
            let from = dice.below(other.len() + 1);
            let end = (from + dice.below(40)).min(other.len());
            bytes.splice(at..at, other[from..end].iter().copied());
        }
        _ => {
            bytes.splice(at..at, WORDS[dice.below(WORDS.len())].bytes());
        }
    }
    bytes.truncate(4 << 10);
}

/// The path that a request is written with.
fn path_of(r: &Request) -> String {
    let row = r.resource.row();
    let mut out = row.root();
    if !r.namespace.is_empty() {
        out += &format!("/namespaces/{}", encode(&r.namespace));
    }
    out += &format!("/{}", row.plural);
    for part in [&r.name, &r.sub].into_iter().filter(|p| !p.is_empty()) {
        out += &format!("/{}", encode(part));
    }
    let rest: Vec<String> = r.rest.split('/').map(encode).collect();
    out + &rest.join("/")
}

fn request(text: &str) {
    let (method, url) = text.split_once(' ').unwrap_or(("GET", text));
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let q = Query::parse(query);
    assert_eq!(Query::parse(q.suffix().trim_start_matches('?')), q);
    for name in ["watch", "limit", "resourceVersion", "gracePeriodSeconds", "command"] {
        let _ = (q.get(name), q.all(name), q.flag(name), q.number(name));
    }
    let _ = route::route(path);
    for method in METHODS.iter().copied().chain([method]) {
        let Some(Target::Resource(r)) = target(method, path, &q) else { continue };
        let row = r.resource.row();
        assert!(row.namespaced || r.namespace.is_empty(), "{r:?}");
        assert!(r.sub.is_empty() || (!r.name.is_empty() && row.sub(&r.sub).is_some()), "{r:?}");
        assert!(r.rest.is_empty() || r.sub == "proxy", "{r:?}");
        assert!(!r.is_allowed() || row.sub(&r.sub).map_or(row.verbs, |s| s.verbs).contains(&r.verb), "{r:?}");
        let mut plain = Query::default();
        if r.verb == "watch" {
            plain.push("watch", "true");
        }
        let again = target(method, &path_of(&r), &plain);
        // Who asks for a proxy with `watch` asks the one behind it.
        let same = matches!(&again, Some(Target::Resource(a)) if (a.resource, &a.namespace, &a.name, &a.sub, &a.rest) == (r.resource, &r.namespace, &r.name, &r.sub, &r.rest));
        assert!(same, "{text:?}: {r:?} is written {} and read {again:?}", path_of(&r));
    }
}

fn caller() -> Caller {
    let user = User::new("eve", &[]);
    Caller { user, manager: "m".into(), now: Wall::from_seconds(1), seed: 7, dry_run: false, validation: Validation::Ignore, force: false }
}

/// What is kept in files, under whatever name, has a file of its own in the directory.
fn name(text: &str) {
    let context = Context { node: "n".into(), lone: true, ..Context::default() };
    for id in Id::all().filter(|i| i.row().home == Home::Files && i.row().kind != "Pod") {
        let namespace = if id.row().namespaced { "default" } else { "" };
        let object = json!({"metadata": {"name": text}, "spec": {"ports": [{"port": 80}]}, "addressType": "IPv4"});
        let r = Request {
            verb: "create",
            resource: id,
            namespace: namespace.into(),
            name: String::new(),
            sub: String::new(),
            rest: String::new(),
        };
        match decide(Op::Create(object), &r, None, &caller(), &context) {
            Ok(outcome) => {
                let Effect::Put(_) = outcome.effect else { panic!("{outcome:?}") };
                let file = file_name(id, namespace, text);
                assert!(!file.contains(['/', '\0', '\\', '%', '\n']) && !file.starts_with('.') && file.ends_with(".yaml"), "{file:?}");
                assert!(file.len() <= MOST_NAME && file.starts_with(id.row().plural), "{file:?}");
                let other = format!("{}x", text.get(..text.len().min(200)).unwrap_or("y"));
                assert_ne!(file, file_name(id, namespace, &other));
            }
            Err(f) => is_told(&f),
        }
    }
}

fn is_told(f: &Failure) {
    assert!((400..=500).contains(&f.code) && !f.message.is_empty(), "{f:?}");
    assert!(serde_json::from_slice::<Value>(&f.body()).is_ok());
}

fn objects() -> Vec<Value> {
    let labels = [json!({}), json!({"a": "b", "e": "f", "n": "4", "tier": ""}), json!({"x/y": "a", "j": "9", "c": "d"})];
    labels
        .into_iter()
        .map(|l| json!({"metadata": {"name": "a", "namespace": "default", "labels": l}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}}))
        .collect()
}

fn selector(text: &str) {
    match Labels::parse(text) {
        Err(f) => is_told(&f),
        // A zero ends a selector, as in an API server: what is put behind it counts for nothing.
        Ok(_) if text.contains('\0') => {}
        Ok(alone) => {
            let comma = if text.trim().is_empty() { "" } else { "," };
            let with = |more: &str| Labels::parse(&format!("{text}{comma}{more}"));
            for object in objects() {
                // What ends in a comma has no room for another.
                if let (Ok(both), Ok(never)) = (with("!zz-none"), with("zz-none")) {
                    assert_eq!(both.matches(&object), alone.matches(&object), "{text:?}");
                    assert!(!never.matches(&object), "{text:?}");
                }
                assert!(!alone.is_everything() || alone.matches(&object), "{text:?}");
            }
        }
    }
    for kind in ["Pod", "Event", "ConfigMap"] {
        match Fields::parse(text, "v1", kind) {
            Err(f) => is_told(&f),
            Ok(alone) => {
                let comma = if text.is_empty() { "" } else { "," };
                let with = |more: &str| Fields::parse(&format!("{text}{comma}{more}"), "v1", kind);
                for object in objects() {
                    if let (Ok(both), Ok(never)) = (with("metadata.name=a"), with("metadata.name=zz")) {
                        assert_eq!(both.matches(&object), alone.matches(&object), "{text:?}");
                        assert!(!never.matches(&object), "{text:?}");
                    }
                }
            }
        }
    }
}

/// What must hold of any bytes.
fn one(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(decode(&encode(&text), false), text);
    assert_eq!(decode(&encode(&text), true), text);
    let _ = (decode(&text, false), decode(&text, true));
    request(&text);
    selector(&text);
    name(&text);
}

#[test]
fn no_bytes_lead_a_path_a_name_or_a_selector_astray() {
    fuzz::drive(CORPUS, 3000, 5, mutate, one);
}

#[test]
fn the_corpus_is_of_use() {
    let read = |t: &&str| t.split_once(' ').is_some_and(|(m, url)| target(m, url.split('?').next().unwrap(), &Query::default()).is_some());
    assert!(CORPUS.iter().filter(|t| read(t)).count() >= 8);
    assert!(file_name(CONFIG_MAPS, "a", "b") != file_name(NAMESPACES, "", "b"));
}
