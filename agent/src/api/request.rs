//! What a request asks for: verb, resource, object.
//!
//! Reads a method, a path and a query as an API server does, so that access can be decided and the request be
//! carried out from the same value. Must never look anything up. Tests: at the end of this file.

use super::query::{Query, decode};
use super::resource::{CONTROLLED, Id};

/// One request for a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `get list watch create update patch delete deletecollection`
    pub verb: &'static str,
    pub resource: Id,
    /// Empty: all namespaces, or none where the resource has none.
    pub namespace: String,
    /// Empty: the collection.
    pub name: String,
    /// Empty: the object itself.
    pub sub: String,
    /// What follows a sub-resource that leads on, with its slash: `proxy/metrics`.
    pub rest: String,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Resource(Request),
    /// `/api`, `/apis`, `/apis/GROUP`, `/api/v1`, ...: what is there.
    Discovery(Discovery),
    /// A kind that needs a controller: its row of `CONTROLLED`.
    Controlled(usize),
    /// `healthz`, `version`, `longshore/v1/why/...`
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// `/api`
    Core,
    /// `/apis`
    Groups,
    /// `/apis/apps`
    Group(String),
    /// `/api/v1`, `/apis/apps/v1`
    Version(String, String),
    /// `/openapi/v3`
    OpenApi,
    /// `/openapi/v3/apis/apps/v1`
    OpenApiVersion(String, String),
    /// `/openapi/v2`
    Swagger,
}

/// Reads a path, without its query. None: nothing is there.
pub fn target(method: &str, path: &str, query: &Query) -> Option<Target> {
    let parts: Vec<String> = path.split('/').skip(1).map(|p| decode(p, false)).collect();
    let mut parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    if parts.len() > 1 && parts.last() == Some(&"") && !path.contains("/proxy/") {
        parts.pop();
    }
    let own = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    Some(match parts.as_slice() {
        ["api"] => Target::Discovery(Discovery::Core),
        ["apis"] => Target::Discovery(Discovery::Groups),
        ["apis", group] => Target::Discovery(Discovery::Group((*group).to_owned())),
        ["api", version] => {
            let (group, version) = own("", version);
            Target::Discovery(Discovery::Version(group, version))
        }
        ["apis", group, version] => {
            let (group, version) = own(group, version);
            Target::Discovery(Discovery::Version(group, version))
        }
        ["openapi", "v2"] => Target::Discovery(Discovery::Swagger),
        ["openapi", "v3"] => Target::Discovery(Discovery::OpenApi),
        ["openapi", "v3", "api", version] => {
            let (group, version) = own("", version);
            Target::Discovery(Discovery::OpenApiVersion(group, version))
        }
        ["openapi", "v3", "apis", group, version] => {
            let (group, version) = own(group, version);
            Target::Discovery(Discovery::OpenApiVersion(group, version))
        }
        ["api", version, rest @ ..] => return object(method, "", version, rest, query),
        ["apis", group, version, rest @ ..] => return object(method, group, version, rest, query),
        ["healthz" | "livez" | "readyz" | "version" | "longshore" | "metrics", ..] => Target::Other,
        _ => return None,
    })
}

fn object(method: &str, group: &str, version: &str, rest: &[&str], query: &Query) -> Option<Target> {
    let (namespace, rest) = match rest {
        // The namespace itself, and its own sub-resources.
        ["namespaces"] | ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => ("", rest),
        ["namespaces", "", ..] => return None,
        ["namespaces", namespace, rest @ ..] => (*namespace, rest),
        _ => ("", rest),
    };
    let (watch, rest) = match rest {
        // The old form of watches, which some clients still use.
        ["watch", rest @ ..] => (true, rest),
        _ => (query.flag("watch").unwrap_or(false), rest),
    };
    let (plural, name, sub, tail) = match rest {
        [plural] => (*plural, "", "", &[][..]),
        [plural, name] => (*plural, *name, "", &[][..]),
        [plural, name, sub, tail @ ..] => (*plural, *name, *sub, tail),
        [] => return None,
    };
    if let Some(row) = CONTROLLED.iter().position(|(g, p, _)| *g == group && *p == plural) {
        return Some(Target::Controlled(row));
    }
    let resource = Id::find(group, version, plural)?;
    let row = resource.row();
    // `pods/NAME` needs its namespace, and what has none takes none.
    if (rest.len() > 1 && name.is_empty())
        || (row.namespaced && namespace.is_empty() && !name.is_empty())
        || (!row.namespaced && !namespace.is_empty())
    {
        return None;
    }
    if (!sub.is_empty() && row.sub(sub).is_none()) || (!tail.is_empty() && sub != "proxy") {
        return None;
    }
    let rest = if tail.is_empty() { String::new() } else { format!("/{}", tail.join("/")) };
    let verb = match (method, name.is_empty()) {
        ("GET" | "HEAD", true) => {
            if watch {
                "watch"
            } else {
                "list"
            }
        }
        ("GET" | "HEAD", false) => {
            if watch && sub.is_empty() {
                "watch"
            } else {
                "get"
            }
        }
        ("POST", _) => "create",
        ("PUT", false) => "update",
        ("PATCH", false) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => "",
    };
    Some(Target::Resource(Request { verb, resource, namespace: namespace.into(), name: name.into(), sub: sub.into(), rest }))
}

impl Request {
    /// Whether the resource, or the sub-resource, knows the verb.
    pub fn is_allowed(&self) -> bool {
        let row = self.resource.row();
        let verbs = row.sub(&self.sub).map_or(row.verbs, |s| s.verbs);
        !(self.verb.is_empty() || self.verb == "create" && self.sub.is_empty() && !self.name.is_empty()) && verbs.contains(&self.verb)
    }
}

#[cfg(test)]
mod tests {
    use super::super::resource::{NAMESPACES, NODES, PODS};
    use super::*;

    fn read(method: &str, url: &str) -> Option<Target> {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        target(method, path, &Query::parse(query))
    }

    fn request(method: &str, url: &str) -> (&'static str, Id, String, String, String) {
        match read(method, url) {
            Some(Target::Resource(r)) => (r.verb, r.resource, r.namespace, r.name, r.sub),
            other => panic!("{method} {url}: {other:?}"),
        }
    }

    fn told(verb: &'static str, id: Id, namespace: &str, name: &str, sub: &str) -> (&'static str, Id, String, String, String) {
        (verb, id, namespace.into(), name.into(), sub.into())
    }

    #[test]
    fn paths_and_methods_are_verbs_on_resources() {
        assert_eq!(request("GET", "/api/v1/pods"), told("list", PODS, "", "", ""));
        assert_eq!(request("GET", "/api/v1/pods?watch=1"), told("watch", PODS, "", "", ""));
        assert_eq!(request("GET", "/api/v1/namespaces/a/pods/b"), told("get", PODS, "a", "b", ""));
        assert_eq!(request("POST", "/api/v1/namespaces/a/pods"), told("create", PODS, "a", "", ""));
        assert_eq!(request("DELETE", "/api/v1/namespaces/a/pods"), told("deletecollection", PODS, "a", "", ""));
        assert_eq!(request("PATCH", "/api/v1/namespaces/a/pods/b/status"), told("patch", PODS, "a", "b", "status"));
        assert_eq!(request("GET", "/api/v1/namespaces"), told("list", NAMESPACES, "", "", ""));
        assert_eq!(request("GET", "/api/v1/namespaces/a"), told("get", NAMESPACES, "", "a", ""));
        assert_eq!(request("PUT", "/api/v1/namespaces/a/status"), told("update", NAMESPACES, "", "a", "status"));
        assert_eq!(request("GET", "/api/v1/nodes/n/"), told("get", NODES, "", "n", ""));
    }

    #[test]
    fn what_follows_proxy_is_kept() {
        let Some(Target::Resource(r)) = read("GET", "/api/v1/namespaces/a/pods/b:80/proxy/x/y/") else { panic!("no resource") };
        assert_eq!((r.name.as_str(), r.sub.as_str(), r.rest.as_str()), ("b:80", "proxy", "/x/y/"));
    }

    #[test]
    fn nonsense_leads_nowhere() {
        for url in [
            "/api/v1/pods/b",
            "/api/v1/namespaces/a/nodes",
            "/api/v2/pods",
            "/api/v1/namespaces//pods",
            "/api/v1/namespaces/a/pods/b/none",
            "/x",
        ] {
            assert_eq!(read("GET", url), None, "{url}");
        }
        assert!(matches!(read("GET", "/apis/apps/v1/deployments"), Some(Target::Controlled(1))));
        assert!(matches!(read("GET", "/apis/apps/v1/namespaces/a/deployments/b"), Some(Target::Controlled(1))));
        assert!(matches!(read("GET", "/apis/apps"), Some(Target::Discovery(Discovery::Group(_)))));
    }

    #[test]
    fn verbs_that_a_resource_has_not_are_told() {
        let allowed = |method: &str, url: &str| match read(method, url) {
            Some(Target::Resource(r)) => r.is_allowed(),
            _ => false,
        };
        assert!(allowed("POST", "/api/v1/namespaces/a/pods/b/eviction"));
        assert!(!allowed("GET", "/apis/authentication.k8s.io/v1/tokenreviews"));
        assert!(!allowed("POST", "/api/v1/namespaces/a/pods/b"));
        assert!(!allowed("PUT", "/api/v1/namespaces/a/pods"));
    }
}
