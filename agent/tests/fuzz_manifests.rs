//! Texts of every kind, mutated from a corpus: the reader never panics, takes a document whole or not
//! at all, and a store that held something good still holds it after the worst of files.
//!
//! Seeded (see `fuzz`). The function [`one`] is what a libFuzzer target calls with its bytes.
#![allow(clippy::unwrap_used)]

mod fuzz;

use fuzz::Dice;
use longshore::manifest::store::{Record, Store};
use longshore::manifest::{Object, Rules, read, text};
use longshore::time::Wall;

const EXAMPLES: &[&str] = &[
    include_str!("../examples/manifests/10-greeting.yaml"),
    include_str!("../examples/manifests/20-web.yaml"),
    include_str!("../examples/manifests/21-web-1.yaml"),
    include_str!("../examples/manifests/30-client.yaml"),
];

const NASTY: &[&str] = &[
    "",
    "---\n...\n---\n",
    "\u{feff}---\na: &a [*a]\n",
    "a: &a {b: 1}\nc: {<<: *a, b: 2}\n<<: [*a, *a]\n",
    "{\"kind\": \"List\", \"items\": [{\"kind\": \"List\", \"items\": [{\"kind\": \"List\", \"items\": [{\"kind\": \"List\", \"items\": [{\"kind\": \"List\"}]}]}]}]}",
    "{\"a\": 1}{\"a\": 1}\n[1]",
    "kind: Pod\napiVersion: v1\nmetadata: {name: a, labels: {? [x]: y}}\n",
    "kind: PodList\napiVersion: v1\nitems: [null, 5, {}, {metadata: null}]\n",
    "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b, ports: [{containerPort: 1e400}], resources: {limits: {cpu: 1e18E, memory: -0.0000000001}}}]}\n",
    "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {a: !!binary aGk=, b: .inf, c: 0o7}\n",
    "apiVersion: v1\nkind: Endpoints\nmetadata: {name: a}\nsubsets: [{addresses: [{ip: '::ffff:1.2.3.4'}], ports: []}]\n",
    "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIPs: [None, '', 1.2.3.4], ipFamilies: [IPv6, IPv4, IPv4], ports: [{port: 1}]}\n",
    "a: |\n  ---\n  x\n--- !<tag:x> {}\n%YAML 9.9\n---\n",
    "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - {name: c, image: i, env: [{name: A, valueFrom: {fieldRef: {fieldPath: \"metadata.labels[\"}}}]}\n",
];

/// Pieces that mean something to a parser.
const WORDS: &[&str] = &[
    "\n---\n",
    "\n...\n",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "{",
    "}",
    "[",
    "]",
    ": ",
    "- ",
    "? ",
    "|",
    ">-",
    "\"",
    "'",
    "#",
    "~",
    "null",
    "yes",
    "0644",
    "1e999",
    "-9223372036854775809",
    "18446744073709551616",
    ".nan",
    "\t",
    "\r\n",
    "\u{0}",
    "\u{2028}",
    "ß",
    "\\ud800",
    "kind: List\nitems:\n- ",
    "kind: ",
    "apiVersion: v1",
    "spec",
    "metadata",
    "..",
    "/",
    "%",
    "@",
    "`",
];

fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(bytes.len() + 1);
    match dice.below(8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        1 if at < bytes.len() => bytes[at] = u8::try_from(dice.below(256)).unwrap(),
        2 => {
            let end = (at + dice.below(40)).min(bytes.len());
            bytes.drain(at..end);
        }
        3 => {
            let end = (at + dice.below(60)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            let to = dice.below(bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        4 => bytes.truncate(at),
        5 => {
            let from = dice.below(other.len() + 1);
            let end = (from + dice.below(200)).min(other.len());
            bytes.splice(at..at, other[from..end].iter().copied());
        }
        _ => {
            let word = WORDS[dice.below(WORDS.len())];
            bytes.splice(at..at, word.bytes());
        }
    }
    bytes.truncate(64 << 10);
}

/// What must hold of any bytes.
fn one(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let rules = Rules::default();
    let contents = read("f.yaml", &text, &rules);
    assert_eq!(contents, read("f.yaml", &text, &rules), "the same text reads the same");
    let broken: Vec<usize> = contents.problems.iter().map(|p| p.document).collect();
    // A document by itself gives what it gave among the others, and all of it or nothing.
    let whole: usize = text::documents(&text).len();
    assert!(broken.iter().all(|d| *d <= whole));
    for p in &contents.problems {
        assert!(!p.to_string().contains('\n') && !p.message.is_empty(), "{p}");
    }
    for o in &contents.objects {
        let key = o.key();
        assert!(!key.name.is_empty() && !key.namespace.is_empty());
        if let Object::Pod(p) = o {
            assert!(!p.spec.containers.is_empty());
        }
    }
    // The last good version stays.
    let mut store = Store::new(Record::new());
    store.set_file("f.yaml", read("f.yaml", EXAMPLES[2], &rules));
    let before = store.settle(Wall::from_seconds(1), Vec::new()).diff;
    assert_eq!(before.set_pods.len(), 1);
    let is_broken = !broken.is_empty();
    store.set_file("f.yaml", contents);
    let after = store.settle(Wall::from_seconds(2), Vec::new());
    if is_broken {
        assert_eq!(after.diff.remove_pods, []);
        assert!(!after.new_problems.is_empty());
    }
    assert_eq!(store.settle(Wall::from_seconds(3), Vec::new()), Default::default(), "settled is settled");
}

#[test]
fn no_text_makes_the_reader_panic_or_lose_what_was_good() {
    let corpus: Vec<&str> = EXAMPLES.iter().chain(NASTY).copied().collect();
    fuzz::drive(&corpus, 1500, 6, mutate, one);
}

#[test]
fn the_examples_are_good() {
    for text in EXAMPLES {
        assert_eq!(read("f", text, &Rules::default()).problems, []);
    }
}
