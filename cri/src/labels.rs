//! What is written on sandboxes and containers when they are created, and read back later: by this
//! daemon after a restart, or by another kubelet that takes over.
//!
//! | key | on | form | who reads it |
//! |---|---|---|---|
//! | label `io.kubernetes.pod.name` | both | text | any kubelet |
//! | label `io.kubernetes.pod.namespace` | both | text | any kubelet |
//! | label `io.kubernetes.pod.uid` | both | text | any kubelet; without it an object is not ours |
//! | label `io.kubernetes.container.name` | container | text | any kubelet |
//! | `io.kubernetes.container.hash` | container | hex of [`container_hash`] | any kubelet |
//! | `io.kubernetes.container.restartCount` | container | decimal | any kubelet |
//! | `io.kubernetes.container.terminationMessagePath` | container | path | any kubelet |
//! | `io.kubernetes.container.terminationMessagePolicy` | container | `File`, `FallbackToLogsOnError` | any kubelet |
//! | `io.kubernetes.container.preStopHandler` | container | JSON of a LifecycleHandler; absent without hook | any kubelet |
//! | `io.kubernetes.container.ports` | container | JSON list of ContainerPorts; absent without ports | any kubelet |
//! | `io.kubernetes.pod.deletionGracePeriod` | container | decimal seconds; absent unless deleted | any kubelet |
//! | `io.kubernetes.pod.terminationGracePeriod` | container | decimal seconds | any kubelet |
//! | `longshore.dev/crash-streak` | container | decimal: failed runs in a row before this one | Longshore |
//! | `longshore.dev/kind` | container | `init`, `sidecar`, `regular`, `ephemeral` | Longshore, for pods whose definition is gone |
//!
//! A sandbox carries the pod's own labels and annotations besides. CRI objects cannot be changed
//! once made, so only facts known at creation stand here.
//!
//! Owns the spelling of the keys and the container hash. Must never fail on what others wrote: a
//! value that does not parse reads as absent. Tests: below.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

pub const HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const PRE_STOP_HANDLER: &str = "io.kubernetes.container.preStopHandler";
pub const PORTS: &str = "io.kubernetes.container.ports";
pub const DELETION_GRACE_PERIOD: &str = "io.kubernetes.pod.deletionGracePeriod";
pub const TERMINATION_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Everything under this prefix is Longshore's own.
pub const LONGSHORE_PREFIX: &str = "longshore.dev/";
pub const CRASH_STREAK: &str = "longshore.dev/crash-streak";
pub const KIND: &str = "longshore.dev/kind";

/// Which pod something belongs to. Clones share their text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodIdentity {
    pub uid: Arc<str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl PodIdentity {
    pub fn new(uid: &str, namespace: &str, name: &str) -> Self {
        PodIdentity { uid: uid.into(), namespace: namespace.into(), name: name.into() }
    }

    /// Adds the three labels that make an object this pod's.
    pub fn write(&self, labels: &mut BTreeMap<String, String>) {
        for (key, value) in [(POD_NAME, &self.name), (POD_NAMESPACE, &self.namespace), (POD_UID, &self.uid)] {
            labels.insert(key.into(), value.to_string());
        }
    }

    /// `None` where one of the three labels is missing: the object is not a kubelet's.
    pub fn read(labels: &BTreeMap<String, String>) -> Option<Self> {
        let get = |key| labels.get(key).filter(|v: &&String| !v.is_empty());
        Some(PodIdentity::new(get(POD_UID)?, get(POD_NAMESPACE)?, get(POD_NAME)?))
    }

    /// The label filter that finds everything of one pod.
    pub fn selector(uid: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(POD_UID.to_owned(), uid.to_owned())])
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TerminationMessagePolicy {
    #[default]
    File,
    FallbackToLogsOnError,
}

/// The part a container plays in its pod; decides the order in which a pod is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    Init,
    Sidecar,
    Regular,
    Ephemeral,
}

impl ContainerKind {
    pub fn as_str(self) -> &'static str {
        match self {
            ContainerKind::Init => "init",
            ContainerKind::Sidecar => "sidecar",
            ContainerKind::Regular => "regular",
            ContainerKind::Ephemeral => "ephemeral",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Init, Self::Sidecar, Self::Regular, Self::Ephemeral].into_iter().find(|k| k.as_str() == text)
    }
}

/// A ContainerPort of the Kubernetes API, in its JSON form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub name: Box<str>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub host_port: i32,
    pub container_port: i32,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub protocol: Box<str>,
    #[serde(default, rename = "hostIP", skip_serializing_if = "str::is_empty")]
    pub host_ip: Box<str>,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// The facts that ride on a container as annotations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerFacts {
    /// See [`container_hash`]. `None` where absent or not hexadecimal: treated as equal.
    pub hash: Option<u32>,
    pub restart_count: u32,
    pub termination_message_path: Box<str>,
    pub termination_message_policy: TerminationMessagePolicy,
    /// JSON of the LifecycleHandler, as the Kubernetes API writes it.
    pub pre_stop_handler: Option<Box<str>>,
    pub ports: Box<[ContainerPort]>,
    /// Seconds.
    pub deletion_grace_period: Option<i64>,
    /// Seconds.
    pub termination_grace_period: Option<i64>,
    /// Failed runs in a row before this one; `None` where another kubelet made the container.
    pub crash_streak: Option<u32>,
    pub kind: Option<ContainerKind>,
}

impl ContainerFacts {
    /// Adds the annotations to `out`, which may hold those of device plugins already.
    pub fn write(&self, out: &mut BTreeMap<String, String>) {
        let mut put = |key: &str, value: String| out.insert(key.to_owned(), value);
        if let Some(hash) = self.hash {
            put(HASH, format!("{hash:x}"));
        }
        put(RESTART_COUNT, self.restart_count.to_string());
        put(TERMINATION_MESSAGE_PATH, self.termination_message_path.to_string());
        let policy = match self.termination_message_policy {
            TerminationMessagePolicy::File => "File",
            TerminationMessagePolicy::FallbackToLogsOnError => "FallbackToLogsOnError",
        };
        put(TERMINATION_MESSAGE_POLICY, policy.into());
        if let Some(hook) = &self.pre_stop_handler {
            put(PRE_STOP_HANDLER, hook.to_string());
        }
        if !self.ports.is_empty() {
            let json = serde_json::to_string(&self.ports).expect("strings and numbers serialize");
            put(PORTS, json);
        }
        if let Some(seconds) = self.deletion_grace_period {
            put(DELETION_GRACE_PERIOD, seconds.to_string());
        }
        if let Some(seconds) = self.termination_grace_period {
            put(TERMINATION_GRACE_PERIOD, seconds.to_string());
        }
        if let Some(streak) = self.crash_streak {
            put(CRASH_STREAK, streak.to_string());
        }
        if let Some(kind) = self.kind {
            put(KIND, kind.as_str().into());
        }
    }

    /// Reads back what any kubelet wrote; what does not parse reads as absent.
    pub fn read(annotations: &BTreeMap<String, String>) -> Self {
        let get = |key| annotations.get(key).map(String::as_str);
        ContainerFacts {
            hash: get(HASH).and_then(|t| u32::from_str_radix(t, 16).ok()),
            restart_count: get(RESTART_COUNT).and_then(|t| t.parse().ok()).unwrap_or(0),
            termination_message_path: get(TERMINATION_MESSAGE_PATH).unwrap_or("").into(),
            termination_message_policy: match get(TERMINATION_MESSAGE_POLICY) {
                Some("FallbackToLogsOnError") => TerminationMessagePolicy::FallbackToLogsOnError,
                _ => TerminationMessagePolicy::File,
            },
            pre_stop_handler: get(PRE_STOP_HANDLER).map(Into::into),
            ports: get(PORTS).and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default(),
            deletion_grace_period: get(DELETION_GRACE_PERIOD).and_then(|t| t.parse().ok()),
            termination_grace_period: get(TERMINATION_GRACE_PERIOD).and_then(|t| t.parse().ok()),
            crash_streak: get(CRASH_STREAK).and_then(|t| t.parse().ok()),
            kind: get(KIND).and_then(ContainerKind::parse),
        }
    }
}

/// The hash that tells whether a running container still is what its pod asks for. It covers name
/// and image alone, so that a newer kubelet with more fields restarts nothing.
///
/// FNV-1a of 32 bits over Go's dump of the JSON bytes of `{"image":…,"name":…}`.
pub fn container_hash(name: &str, image: &str) -> u32 {
    let mut json = String::with_capacity(name.len() + image.len() + 24);
    json.push_str("{\"image\":");
    go_json_string(image, &mut json);
    json.push_str(",\"name\":");
    go_json_string(name, &mut json);
    json.push('}');

    let mut hash = Fnv32a::new();
    hash.write(b"([]uint8)[");
    for (i, byte) in json.bytes().enumerate() {
        if i > 0 {
            hash.write(b" ");
        }
        hash.write(byte.to_string().as_bytes());
    }
    hash.write(b"]");
    hash.0
}

struct Fnv32a(u32);

impl Fnv32a {
    fn new() -> Self {
        Fnv32a(0x811c_9dc5)
    }

    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u32::from(*b)).wrapping_mul(0x0100_0193);
        }
    }
}

/// A JSON string as Go writes it: HTML characters and the two line separators are escaped too.
fn go_json_string(text: &str, out: &mut String) {
    use std::fmt::Write;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a String cannot fail");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hash_matches_the_vectors_of_a_1_36_kubelet() {
        let hex = |name, image| format!("{:x}", container_hash(name, image));
        assert_eq!(hex("web", "registry.k8s.io/pause:3.10"), "4f3b3ba7");
        assert_eq!(hex("c", "docker.io/library/busybox:latest"), "8468e76c");
    }

    #[test]
    fn facts_have_the_spelling_a_kubelet_expects() {
        let facts = ContainerFacts {
            hash: Some(0x0fed),
            restart_count: 3,
            termination_message_path: "/dev/termination-log".into(),
            pre_stop_handler: Some(r#"{"exec":{"command":["true"]}}"#.into()),
            ports: Box::new([ContainerPort {
                name: "http".into(),
                host_port: 0,
                container_port: 80,
                protocol: "TCP".into(),
                host_ip: "".into(),
            }]),
            termination_grace_period: Some(30),
            crash_streak: Some(2),
            kind: Some(ContainerKind::Regular),
            ..ContainerFacts::default()
        };
        let mut out = BTreeMap::from([("vendor/device".to_owned(), "x".to_owned())]);
        facts.write(&mut out);
        let lines: Vec<_> = out.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            lines,
            [
                "io.kubernetes.container.hash=fed",
                r#"io.kubernetes.container.ports=[{"name":"http","containerPort":80,"protocol":"TCP"}]"#,
                r#"io.kubernetes.container.preStopHandler={"exec":{"command":["true"]}}"#,
                "io.kubernetes.container.restartCount=3",
                "io.kubernetes.container.terminationMessagePath=/dev/termination-log",
                "io.kubernetes.container.terminationMessagePolicy=File",
                "io.kubernetes.pod.terminationGracePeriod=30",
                "longshore.dev/crash-streak=2",
                "longshore.dev/kind=regular",
                "vendor/device=x",
            ]
        );
    }

    #[test]
    fn what_others_wrote_wrongly_reads_as_absent() {
        let junk: BTreeMap<_, _> =
            [HASH, RESTART_COUNT, PORTS, CRASH_STREAK, KIND, DELETION_GRACE_PERIOD].map(|k| (k.to_owned(), "zz!".to_owned())).into();
        assert_eq!(ContainerFacts::read(&junk), ContainerFacts::default());
    }

    #[test]
    fn an_object_without_all_three_labels_is_not_ours() {
        let mut labels = BTreeMap::new();
        PodIdentity::new("u", "ns", "p").write(&mut labels);
        assert_eq!(PodIdentity::read(&labels), Some(PodIdentity::new("u", "ns", "p")));
        for key in [POD_UID, POD_NAME, POD_NAMESPACE] {
            let mut fewer = labels.clone();
            fewer.remove(key);
            assert_eq!(PodIdentity::read(&fewer), None, "{key}");
        }
    }

    fn port() -> impl Strategy<Value = ContainerPort> {
        ("[a-z]{0,5}", 0..65536i32, 1..65536i32, "(TCP|UDP|SCTP|)", "[0-9.]{0,8}").prop_map(
            |(name, host_port, container_port, protocol, host_ip)| ContainerPort {
                name: name.into(),
                host_port,
                container_port,
                protocol: protocol.into(),
                host_ip: host_ip.into(),
            },
        )
    }

    prop_compose! {
        fn facts()(
            hash: Option<u32>, restart_count: u32, path in ".*", fallback: bool,
            hook in proptest::option::of(".*"), ports in prop::collection::vec(port(), 0..4),
            deletion: Option<i64>, termination: Option<i64>, crash_streak: Option<u32>,
            kind in proptest::option::of(prop::sample::select(vec![
                ContainerKind::Init, ContainerKind::Sidecar,
                ContainerKind::Regular, ContainerKind::Ephemeral,
            ])),
        ) -> ContainerFacts {
            ContainerFacts {
                hash,
                restart_count,
                termination_message_path: path.into(),
                termination_message_policy: if fallback {
                    TerminationMessagePolicy::FallbackToLogsOnError
                } else {
                    TerminationMessagePolicy::File
                },
                pre_stop_handler: hook.map(Into::into),
                ports: ports.into(),
                deletion_grace_period: deletion,
                termination_grace_period: termination,
                crash_streak,
                kind,
            }
        }
    }

    proptest! {
        #[test]
        fn facts_survive_the_way_through_the_runtime(facts in facts()) {
            let mut out = BTreeMap::new();
            facts.write(&mut out);
            prop_assert_eq!(ContainerFacts::read(&out), facts);
        }

        #[test]
        fn reading_never_fails(map in prop::collection::btree_map(
            prop::sample::select(vec![HASH, RESTART_COUNT, PORTS, KIND, CRASH_STREAK])
                .prop_map(str::to_owned), ".*", 0..5)) {
            ContainerFacts::read(&map);
        }
    }
}
