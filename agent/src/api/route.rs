//! Which path means what.

use super::query::decode;

/// The kinds of object that a client can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Pod,
    Service,
    EndpointSlice,
    Event,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Pod, Kind::Service, Kind::EndpointSlice, Kind::Event];

    /// `Pod`
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pod => "Pod",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Event => "Event",
        }
    }

    /// `pods`, as it stands in paths
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Pod => "pods",
            Kind::Service => "services",
            Kind::EndpointSlice => "endpointslices",
            Kind::Event => "events",
        }
    }

    /// `v1`, or the group with its version
    pub fn api_version(self) -> &'static str {
        match self {
            Kind::EndpointSlice => "discovery.k8s.io/v1",
            Kind::Pod | Kind::Service | Kind::Event => "v1",
        }
    }

    /// As errors name it: `pods`, `endpointslices.discovery.k8s.io`.
    pub fn resource(self) -> &'static str {
        match self {
            Kind::EndpointSlice => "endpointslices.discovery.k8s.io",
            other => other.plural(),
        }
    }

    /// `/api/v1`, `/apis/discovery.k8s.io/v1`
    pub fn root(self) -> &'static str {
        match self {
            Kind::EndpointSlice => "/apis/discovery.k8s.io/v1",
            Kind::Pod | Kind::Service | Kind::Event => "/api/v1",
        }
    }

    /// The path of a list; of all namespaces without one.
    pub fn path(self, namespace: Option<&str>) -> String {
        match namespace {
            Some(n) => format!("{}/namespaces/{}/{}", self.root(), super::query::encode(n), self.plural()),
            None => format!("{}/{}", self.root(), self.plural()),
        }
    }
}

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Healthz,
    Version,
    /// None: all namespaces.
    List {
        kind: Kind,
        namespace: Option<String>,
    },
    Get {
        kind: Kind,
        namespace: String,
        name: String,
    },
    Log {
        namespace: String,
        name: String,
    },
    Exec {
        namespace: String,
        name: String,
    },
    Why {
        namespace: String,
        name: String,
    },
}

/// Reads a path (without its query). None: nothing is there.
pub fn route(path: &str) -> Option<Route> {
    let parts: Vec<String> = path.split('/').skip(1).map(|p| decode(p, false)).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz"] => Some(Route::Healthz),
        ["version"] | ["longshore", "v1", "version"] => Some(Route::Version),
        ["longshore", "v1", "why", "namespaces", namespace, "pods", name] => {
            Some(Route::Why { namespace: filled(namespace)?, name: filled(name)? })
        }
        ["api", "v1", rest @ ..] => object("/api/v1", rest),
        ["apis", "discovery.k8s.io", "v1", rest @ ..] => object("/apis/discovery.k8s.io/v1", rest),
        _ => None,
    }
}

fn object(root: &str, rest: &[&str]) -> Option<Route> {
    let kind = |plural: &str| Kind::ALL.into_iter().find(|k| k.root() == root && k.plural() == plural);
    match rest {
        [plural] => Some(Route::List { kind: kind(plural)?, namespace: None }),
        ["namespaces", namespace, plural] => Some(Route::List { kind: kind(plural)?, namespace: Some(filled(namespace)?) }),
        ["namespaces", namespace, plural, name] => {
            Some(Route::Get { kind: kind(plural)?, namespace: filled(namespace)?, name: filled(name)? })
        }
        ["namespaces", namespace, "pods", name, sub] => {
            let (namespace, name) = (filled(namespace)?, filled(name)?);
            match (root, *sub) {
                ("/api/v1", "log") => Some(Route::Log { namespace, name }),
                ("/api/v1", "exec") => Some(Route::Exec { namespace, name }),
                _ => None,
            }
        }
        _ => None,
    }
}

fn filled(part: &str) -> Option<String> {
    (!part.is_empty()).then(|| part.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_kubernetes_api() {
        let s = String::from;
        let cases = [
            ("/healthz", Some(Route::Healthz)),
            ("/longshore/v1/version", Some(Route::Version)),
            ("/api/v1/pods", Some(Route::List { kind: Kind::Pod, namespace: None })),
            ("/api/v1/namespaces/a/services", Some(Route::List { kind: Kind::Service, namespace: Some(s("a")) })),
            ("/api/v1/namespaces/a/pods/web", Some(Route::Get { kind: Kind::Pod, namespace: s("a"), name: s("web") })),
            ("/api/v1/namespaces/a/pods/web/log", Some(Route::Log { namespace: s("a"), name: s("web") })),
            ("/api/v1/namespaces/a/pods/web/exec", Some(Route::Exec { namespace: s("a"), name: s("web") })),
            ("/longshore/v1/why/namespaces/a/pods/web", Some(Route::Why { namespace: s("a"), name: s("web") })),
            ("/apis/discovery.k8s.io/v1/endpointslices", Some(Route::List { kind: Kind::EndpointSlice, namespace: None })),
            ("/api/v1/endpointslices", None),
            ("/apis/discovery.k8s.io/v1/pods", None),
            ("/api/v1/namespaces//pods", None),
            ("/api/v1/namespaces/a/services/web/log", None),
            ("/", None),
            ("", None),
        ];
        for (path, want) in cases {
            assert_eq!(route(path), want, "{path}");
        }
    }

    #[test]
    fn every_kind_is_found_at_its_own_path() {
        for kind in Kind::ALL {
            assert_eq!(route(&kind.path(None)), Some(Route::List { kind, namespace: None }));
            assert_eq!(route(&kind.path(Some("a b"))), Some(Route::List { kind, namespace: Some("a b".into()) }));
        }
    }
}
