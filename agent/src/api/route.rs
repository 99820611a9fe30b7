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

/// What a path asks for that is no object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Version,
    Why { namespace: String, name: String },
}

/// Reads a path (without its query). None: nothing is there.
pub fn route(path: &str) -> Option<Route> {
    let parts: Vec<String> = path.split('/').skip(1).map(|p| decode(p, false)).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["longshore", "v1", "version"] => Some(Route::Version),
        ["longshore", "v1", "why", "namespaces", namespace, "pods", name] => {
            Some(Route::Why { namespace: filled(namespace)?, name: filled(name)? })
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
    fn own_paths_are_beside_those_of_the_kubernetes_api() {
        let s = String::from;
        let cases = [
            ("/longshore/v1/version", Some(Route::Version)),
            ("/longshore/v1/why/namespaces/a/pods/web", Some(Route::Why { namespace: s("a"), name: s("web") })),
            ("/longshore/v1/why/namespaces//pods/web", None),
            ("/api/v1/pods", None),
            ("/", None),
        ];
        for (path, want) in cases {
            assert_eq!(route(path), want, "{path}");
        }
    }
}
