//! What the port answers: one table of paths with what each needs to be allowed.
//!
//! What is authorised and what is answered are read from the same parts of the path, so that no spelling of a path
//! can be allowed as one thing and answered as another.

use crate::api::access::Attributes;
use crate::api::query::decode;

/// What answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    Health,
    Pods,
    RunningPods,
    Summary,
    Metrics,
    CadvisorMetrics,
    ProbeMetrics,
    ResourceMetrics,
    SliMetrics,
    Configz,
    Statusz,
    Flagz,
    ContainerLogs,
    Exec,
    Attach,
    PortForward,
    Run,
    Checkpoint,
    NodeLogs,
    Profiles,
    Verbosity,
}

/// By which setting an endpoint can be turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// By none; the read-only port has it as well.
    Open,
    /// `enableDebuggingHandlers`; without it nothing is there.
    Debugging,
    /// The same, but what is turned off says so.
    Told,
    /// `enableSystemLogHandler`
    Logs,
    /// `enableProfilingHandler`
    Profiling,
    /// `enableDebugFlagsHandler`
    Flags,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    pub endpoint: Endpoint,
    pub methods: &'static [&'static str],
    /// Parts in braces stand for anything; `*` at the end for any rest, none included.
    pub path: &'static str,
    /// Of the node; any one that is allowed is enough.
    pub subresources: &'static [&'static str],
    pub switch: Switch,
    /// It acts in a container. Then it needs what creates, even where it is asked for by a GET, as WebSocket does: who
    /// may read does not get to run commands.
    pub acts: bool,
}

const fn read(endpoint: Endpoint, path: &'static str, subresources: &'static [&'static str]) -> Row {
    Row { endpoint, methods: &["GET"], path, subresources, switch: Switch::Open, acts: false }
}

const fn act(endpoint: Endpoint, methods: &'static [&'static str], path: &'static str) -> Row {
    Row { endpoint, methods, path, subresources: &["proxy"], switch: Switch::Told, acts: true }
}

pub const TABLE: &[Row] = &[
    read(Endpoint::Health, "healthz/*", &["healthz", "proxy"]),
    read(Endpoint::Pods, "pods", &["pods", "proxy"]),
    read(Endpoint::Summary, "stats/summary", &["stats"]),
    read(Endpoint::Metrics, "metrics", &["metrics"]),
    read(Endpoint::CadvisorMetrics, "metrics/cadvisor", &["metrics"]),
    read(Endpoint::ProbeMetrics, "metrics/probes", &["metrics"]),
    read(Endpoint::ResourceMetrics, "metrics/resource", &["metrics"]),
    read(Endpoint::SliMetrics, "metrics/slis", &["metrics"]),
    read(Endpoint::Statusz, "statusz", &["statusz"]),
    read(Endpoint::Flagz, "flagz", &["configz"]),
    Row { switch: Switch::Told, ..read(Endpoint::RunningPods, "runningpods", &["pods", "proxy"]) },
    Row { switch: Switch::Debugging, ..read(Endpoint::Configz, "configz", &["configz", "proxy"]) },
    Row { switch: Switch::Told, ..read(Endpoint::ContainerLogs, "containerLogs/{namespace}/{pod}/{container}", &["proxy"]) },
    act(Endpoint::Exec, &["GET", "POST"], "exec/{namespace}/{pod}/{container}"),
    act(Endpoint::Exec, &["GET", "POST"], "exec/{namespace}/{pod}/{uid}/{container}"),
    act(Endpoint::Attach, &["GET", "POST"], "attach/{namespace}/{pod}/{container}"),
    act(Endpoint::Attach, &["GET", "POST"], "attach/{namespace}/{pod}/{uid}/{container}"),
    act(Endpoint::PortForward, &["GET", "POST"], "portForward/{namespace}/{pod}"),
    act(Endpoint::PortForward, &["GET", "POST"], "portForward/{namespace}/{pod}/{uid}"),
    act(Endpoint::Run, &["POST"], "run/{namespace}/{pod}/{container}"),
    act(Endpoint::Run, &["POST"], "run/{namespace}/{pod}/{uid}/{container}"),
    Row {
        endpoint: Endpoint::Checkpoint,
        methods: &["POST"],
        path: "checkpoint/{namespace}/{pod}/{container}",
        subresources: &["checkpoint"],
        switch: Switch::Debugging,
        acts: true,
    },
    Row { switch: Switch::Logs, ..read(Endpoint::NodeLogs, "logs/*", &["log"]) },
    Row { methods: &["GET", "POST"], switch: Switch::Profiling, ..read(Endpoint::Profiles, "debug/pprof/*", &["proxy"]) },
    Row { methods: &["PUT"], switch: Switch::Flags, ..read(Endpoint::Verbosity, "debug/flags/v", &["proxy"]) },
];

/// A path, read.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// None: nothing is there.
    pub row: Option<&'static Row>,
    /// The method is one of the row's.
    pub method_fits: bool,
    pub namespace: String,
    pub pod: String,
    pub uid: Option<String>,
    pub container: String,
    /// What a `*` stands for.
    pub rest: Vec<String>,
    verb: &'static str,
    subresources: &'static [&'static str],
}

/// Reads a path without its query.
pub fn find(method: &str, path: &str) -> Found {
    let parts: Vec<String> = path.trim_start_matches('/').split('/').map(|p| decode(p, false)).collect();
    // A directory may be asked for with a slash at its end.
    let asked = if parts.len() > 1 && parts.last().is_some_and(String::is_empty) { &parts[..parts.len() - 1] } else { &parts[..] };
    let clean = asked.iter().all(|p| !p.is_empty() && p != "." && p != ".." && !p.contains(['/', '\0']));
    let matching = TABLE.iter().filter(|r| clean && fits(r, asked));
    let row = matching.clone().find(|r| r.methods.contains(&method)).or_else(|| matching.clone().next());
    let mut found = Found { row, method_fits: row.is_some_and(|r| r.methods.contains(&method)), ..Found::default() };
    // A path below a known one needs what that needs, whether or not anything is there.
    let root = parts.first().map_or("", String::as_str);
    let near = row.or_else(|| TABLE.iter().find(|r| r.path.split('/').next() == Some(root) && root != "debug"));
    found.subresources = near.map_or(&["proxy"], |r| r.subresources);
    found.verb = if near.is_some_and(|r| r.acts) { "create" } else { verb(method) };
    if let Some(row) = row {
        fill(&mut found, row, asked);
    }
    found
}

fn fits(row: &Row, parts: &[String]) -> bool {
    let pattern: Vec<&str> = row.path.split('/').collect();
    let (fixed, open) = match pattern.split_last() {
        Some((&"*", fixed)) => (fixed, true),
        _ => (&pattern[..], false),
    };
    let long_enough = if open { parts.len() >= fixed.len() } else { parts.len() == fixed.len() };
    long_enough && fixed.iter().zip(parts).all(|(p, have)| p.starts_with('{') || p == have)
}

fn fill(found: &mut Found, row: &Row, parts: &[String]) {
    for (i, p) in row.path.split('/').enumerate() {
        let have = parts.get(i).cloned().unwrap_or_default();
        match p {
            "{namespace}" => found.namespace = have,
            "{pod}" => found.pod = have,
            "{uid}" => found.uid = Some(have),
            "{container}" => found.container = have,
            "*" => found.rest = parts.get(i..).unwrap_or_default().to_vec(),
            _ => {}
        }
    }
}

fn verb(method: &str) -> &'static str {
    match method {
        "POST" => "create",
        "GET" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

impl Found {
    /// What has to be allowed: any one of these.
    pub fn attributes(&self, node: &str) -> Vec<Attributes> {
        let of = |sub: &&str| Attributes {
            verb: self.verb.into(),
            resource: "nodes".into(),
            sub: (*sub).into(),
            name: node.into(),
            ..Attributes::default()
        };
        self.subresources.iter().map(of).collect()
    }

    /// What somebody is told who may not.
    pub fn forbidden(&self, user: &str) -> String {
        let (verb, subs) = (self.verb, self.subresources.join(" "));
        format!("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{subs}])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn needs(method: &str, path: &str) -> (String, Vec<&'static str>) {
        let found = find(method, path);
        (found.verb.to_owned(), found.subresources.to_vec())
    }

    /// Method, path, what answers, verb, and the subresources of which one is needed.
    type Case = (&'static str, &'static str, Option<Endpoint>, &'static str, &'static [&'static str]);
    const CASES: &[Case] = &[
        ("GET", "/healthz", Some(Endpoint::Health), "get", &["healthz", "proxy"]),
        ("GET", "/healthz/syncloop", Some(Endpoint::Health), "get", &["healthz", "proxy"]),
        ("GET", "/pods", Some(Endpoint::Pods), "get", &["pods", "proxy"]),
        ("GET", "/pods/", Some(Endpoint::Pods), "get", &["pods", "proxy"]),
        ("GET", "/runningpods/", Some(Endpoint::RunningPods), "get", &["pods", "proxy"]),
        ("GET", "/stats/summary", Some(Endpoint::Summary), "get", &["stats"]),
        ("GET", "/stats/container", None, "get", &["stats"]),
        ("GET", "/metrics", Some(Endpoint::Metrics), "get", &["metrics"]),
        ("GET", "/metrics/cadvisor", Some(Endpoint::CadvisorMetrics), "get", &["metrics"]),
        ("GET", "/metrics/probes", Some(Endpoint::ProbeMetrics), "get", &["metrics"]),
        ("GET", "/metrics/resource", Some(Endpoint::ResourceMetrics), "get", &["metrics"]),
        ("GET", "/metrics/slis", Some(Endpoint::SliMetrics), "get", &["metrics"]),
        ("GET", "/configz", Some(Endpoint::Configz), "get", &["configz", "proxy"]),
        ("GET", "/statusz", Some(Endpoint::Statusz), "get", &["statusz"]),
        ("GET", "/flagz", Some(Endpoint::Flagz), "get", &["configz"]),
        ("GET", "/containerLogs/a/b/c", Some(Endpoint::ContainerLogs), "get", &["proxy"]),
        ("GET", "/exec/a/b/c", Some(Endpoint::Exec), "create", &["proxy"]),
        ("POST", "/exec/a/b/u/c", Some(Endpoint::Exec), "create", &["proxy"]),
        ("GET", "/attach/a/b/u/c", Some(Endpoint::Attach), "create", &["proxy"]),
        ("GET", "/portForward/a/b", Some(Endpoint::PortForward), "create", &["proxy"]),
        ("POST", "/portForward/a/b/u", Some(Endpoint::PortForward), "create", &["proxy"]),
        ("POST", "/run/a/b/c", Some(Endpoint::Run), "create", &["proxy"]),
        ("POST", "/checkpoint/a/b/c", Some(Endpoint::Checkpoint), "create", &["checkpoint"]),
        ("GET", "/logs/", Some(Endpoint::NodeLogs), "get", &["log"]),
        ("GET", "/logs/apt/history.log", Some(Endpoint::NodeLogs), "get", &["log"]),
        ("GET", "/debug/pprof/heap", Some(Endpoint::Profiles), "get", &["proxy"]),
        ("PUT", "/debug/flags/v", Some(Endpoint::Verbosity), "update", &["proxy"]),
        ("HEAD", "/pods", Some(Endpoint::Pods), "", &["pods", "proxy"]),
        ("DELETE", "/pods", Some(Endpoint::Pods), "delete", &["pods", "proxy"]),
        ("GET", "/", None, "get", &["proxy"]),
        ("GET", "/podsx", None, "get", &["proxy"]),
        ("GET", "/exec/a/b", None, "create", &["proxy"]),
        ("GET", "/debug/vars", None, "get", &["proxy"]),
    ];

    #[test]
    fn every_path_needs_what_it_is() {
        for (method, path, endpoint, verb, subs) in CASES {
            let found = find(method, path);
            assert_eq!(found.row.map(|r| r.endpoint), *endpoint, "{path}");
            assert_eq!(needs(method, path), ((*verb).to_owned(), subs.to_vec()), "{method} {path}");
        }
        for row in TABLE {
            assert!(CASES.iter().any(|c| c.2 == Some(row.endpoint)), "{row:?} has no case");
        }
    }

    #[test]
    fn a_websocket_needs_what_creates_though_it_begins_with_a_get() {
        for path in ["/exec/a/b/c", "/attach/a/b/c", "/portForward/a/b"] {
            let found = find("GET", path);
            assert!(found.method_fits && found.attributes("n").iter().all(|a| a.verb == "create"), "{path}");
        }
    }

    #[test]
    fn what_is_allowed_is_what_is_answered_however_a_path_is_spelled() {
        let spellings = [
            "/metrics/../exec/a/b/c",
            "/metrics/%2e%2e/exec/a/b/c",
            "/pods//exec/a/b/c",
            "/healthz/..",
            "//exec/a/b/c/..",
            "/pods%2F..%2Fexec/a/b/c",
        ];
        for path in spellings {
            let found = find("GET", path);
            assert!(found.row.is_none_or(|r| r.endpoint == Endpoint::Exec && found.verb == "create"), "{path}: {found:?}");
        }
        assert_eq!(needs("GET", "/%65xec/a/b/c").0, "create");
        assert_eq!(find("GET", "/%65xec/a/b/c").row.map(|r| r.endpoint), Some(Endpoint::Exec));
    }

    #[test]
    fn names_are_taken_out_of_the_path() {
        let f = find("POST", "/exec/kube-system/web/1-2/main");
        assert_eq!(
            (f.namespace.as_str(), f.pod.as_str(), f.uid.as_deref(), f.container.as_str()),
            ("kube-system", "web", Some("1-2"), "main")
        );
        assert_eq!(find("GET", "/logs/apt/history.log").rest, ["apt", "history.log"]);
        assert_eq!(
            find("GET", "/exec/a/b/c").forbidden("eve"),
            "Forbidden (user=eve, verb=create, resource=nodes, subresource(s)=[proxy])"
        );
        assert_eq!(find("GET", "/pods").forbidden("eve"), "Forbidden (user=eve, verb=get, resource=nodes, subresource(s)=[pods proxy])");
    }

    proptest! {
        /// Whatever is answered is never allowed by less than its own row says.
        #[test]
        fn no_path_is_answered_for_less(method in "GET|POST|PUT", path in "(/|/exec|/pods|/metrics|/a|/b|/\\.\\.|/%2e|/%2F|/debug|/pprof|/logs){1,7}") {
            let found = find(&method, &path);
            if let Some(row) = found.row {
                prop_assert_eq!(found.subresources, row.subresources);
                prop_assert!(!row.acts || found.verb == "create");
            }
        }
    }
}
