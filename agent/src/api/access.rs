//! Who may do what: three roles, and a small file that says who has them.
//!
//! Must never read the file nor check a credential: both are values here. Tests: at the end of this file.

use super::Failure;
use super::failure::Subject;
use super::request::Request;
use super::resource::{EVENTS, LEASES, NODES, PODS, REQUESTS, SECRETS};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Somebody whose credentials were checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

pub const MASTERS: &str = "system:masters";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const NODE_GROUP: &str = "system:nodes";
pub const BOOTSTRAP: &str = "system:bootstrappers";
const PROXY_USER: &str = "system:kube-proxy";

impl User {
    pub fn new(name: &str, groups: &[&str]) -> User {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        groups.push(AUTHENTICATED.into());
        User { name: name.into(), groups, ..User::default() }
    }

    pub fn anonymous() -> User {
        User { name: "system:anonymous".into(), groups: vec![UNAUTHENTICATED.into()], ..User::default() }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// The role file: `user:NAME` and `group:NAME`, by role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Roles {
    /// Everything.
    pub admin: Vec<String>,
    /// Reads everything but secrets.
    pub viewer: Vec<String>,
    /// What a kubelet and a service proxy need.
    pub node: Vec<String>,
}

/// What is asked to be allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub verb: String,
    pub group: String,
    pub resource: String,
    pub sub: String,
    pub namespace: String,
    pub name: String,
    /// Of what is no resource.
    pub path: String,
}

impl Attributes {
    pub fn of(r: &Request) -> Attributes {
        let row = r.resource.row();
        Attributes {
            verb: r.verb.into(),
            group: row.group.into(),
            resource: row.plural.into(),
            sub: r.sub.clone(),
            namespace: r.namespace.clone(),
            // A namespace is in itself.
            name: r.name.clone(),
            path: String::new(),
        }
    }

    pub fn path(verb: &str, path: &str) -> Attributes {
        Attributes { verb: verb.into(), path: path.into(), ..Attributes::default() }
    }

    /// `pods "web" is forbidden: User "eve" cannot delete resource "pods" in API group "" in the namespace "default"`
    pub fn forbidden(&self, user: &User) -> Failure {
        let name = &user.name;
        if !self.path.is_empty() {
            let message = format!("forbidden: User {name:?} cannot {} path {:?}", self.verb, self.path);
            return Failure::new(403, "Forbidden", message);
        }
        let sub = if self.sub.is_empty() { String::new() } else { format!("/{}", self.sub) };
        let place =
            if self.namespace.is_empty() { "at the cluster scope".to_owned() } else { format!("in the namespace {:?}", self.namespace) };
        let resource = format!("{}{sub}", self.resource);
        self.refused(&format!("User {name:?} cannot {} resource {resource:?} in API group {:?} {place}", self.verb, self.group))
    }

    /// Forbidden for another reason than the role.
    pub fn refused(&self, why: &str) -> Failure {
        Failure::forbidden(Subject { group: &self.group, kind: &self.resource, name: &self.name }, why)
    }

    fn reads(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

impl Roles {
    fn has(list: &[String], user: &User) -> bool {
        list.iter().any(|subject| match subject.split_once(':') {
            Some(("user", name)) => name == user.name,
            Some(("group", name)) => user.is_in(name),
            _ => false,
        })
    }

    /// What is wrong with the file, if anything.
    pub fn check(&self) -> Result<(), String> {
        let all = self.admin.iter().chain(&self.viewer).chain(&self.node);
        match all.into_iter().find(|s| !matches!(s.split_once(':'), Some(("user" | "group", name)) if !name.is_empty())) {
            Some(subject) => Err(format!("{subject:?}: write user:NAME or group:NAME")),
            None => Ok(()),
        }
    }

    /// Some: why it is allowed.
    pub fn allow(&self, user: &User, a: &Attributes) -> Option<&'static str> {
        if user.is_in(MASTERS) || Roles::has(&self.admin, user) {
            return Some("admin");
        }
        if everybody(user, a) {
            return Some("everybody");
        }
        if Roles::has(&self.viewer, user) && viewer(a) {
            return Some("viewer");
        }
        if (user.is_in(NODE_GROUP) || Roles::has(&self.node, user)) && node(user, a) {
            return Some("node");
        }
        if user.name == PROXY_USER && proxy(a) {
            return Some("proxy");
        }
        let request = a.resource == REQUESTS.row().plural && a.group == REQUESTS.row().group && a.sub.is_empty();
        (user.is_in(BOOTSTRAP) && request && matches!(a.verb.as_str(), "create" | "get" | "list" | "watch")).then_some("bootstrapper")
    }
}

/// Discovery, health, and questions about oneself.
fn everybody(user: &User, a: &Attributes) -> bool {
    if !a.path.is_empty() {
        let open = ["/healthz", "/livez", "/readyz", "/version"];
        let discovery = ["/api", "/apis", "/openapi"];
        let under = |roots: &[&str]| roots.iter().any(|r| a.path == *r || a.path.starts_with(&format!("{r}/")));
        return a.verb == "get" && (under(&open) || (user.is_in(AUTHENTICATED) && under(&discovery)));
    }
    user.is_in(AUTHENTICATED) && a.verb == "create" && a.resource.starts_with("selfsubject")
}

fn viewer(a: &Attributes) -> bool {
    // The log of a node is that of everything on it.
    let subs: &[&str] =
        if a.resource == NODES.row().plural { &["", "status", "healthz", "metrics", "pods", "stats"] } else { &["", "status", "log"] };
    a.path.is_empty() && a.reads() && a.resource != SECRETS.row().plural && subs.contains(&a.sub.as_str())
}

fn is(a: &Attributes, resource: &str, verbs: &[&str]) -> bool {
    a.resource == resource && verbs.contains(&a.verb.as_str())
}

/// A kubelet, with the service proxy beside it. One that is named as a node writes only to that node.
fn node(user: &User, a: &Attributes) -> bool {
    let own = user.name.strip_prefix("system:node:");
    let mine = own.is_none_or(|own| own == a.name || a.name.is_empty() && a.verb == "create");
    if a.reads() && a.path.is_empty() {
        const READ: &[&str] = &[
            "configmaps",
            "csidrivers",
            "csinodes",
            "endpoints",
            "endpointslices",
            "leases",
            "namespaces",
            "nodes",
            "persistentvolumeclaims",
            "persistentvolumes",
            "pods",
            "runtimeclasses",
            "secrets",
            "serviceaccounts",
            "servicecidrs",
            "services",
            "volumeattachments",
            "certificatesigningrequests",
        ];
        return READ.contains(&a.resource.as_str());
    }
    const WRITE: &[&str] = &["create", "update", "patch", "delete"];
    match () {
        () if a.resource == EVENTS.row().plural => is(a, "events", &["create", "update", "patch"]),
        () if a.resource == NODES.row().plural => mine && is(a, "nodes", &["create", "update", "patch"]),
        () if a.resource == "csinodes" => mine && is(a, "csinodes", WRITE),
        () if a.resource == LEASES.row().plural => a.namespace == "kube-node-lease" && mine && is(a, "leases", WRITE),
        () if a.resource == PODS.row().plural => match a.sub.as_str() {
            "" => is(a, "pods", &["create", "delete"]),
            "status" => is(a, "pods", &["update", "patch"]),
            "eviction" => is(a, "pods", &["create"]),
            _ => false,
        },
        () if a.resource == "serviceaccounts" => a.sub == "token" && a.verb == "create",
        () if a.resource == REQUESTS.row().plural => a.sub.is_empty() && a.verb == "create",
        () => a.verb == "create" && matches!(a.resource.as_str(), "tokenreviews" | "subjectaccessreviews" | "localsubjectaccessreviews"),
    }
}

fn proxy(a: &Attributes) -> bool {
    const READ: &[&str] = &["endpointslices", "nodes", "servicecidrs", "services"];
    (a.path.is_empty() && a.reads() && READ.contains(&a.resource.as_str())) || is(a, "events", &["create", "update", "patch"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(verb: &str, resource: &str, sub: &str, namespace: &str, name: &str) -> Attributes {
        Attributes {
            verb: verb.into(),
            resource: resource.into(),
            sub: sub.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Attributes::default()
        }
    }

    fn roles() -> Roles {
        Roles { admin: vec!["user:root".into()], viewer: vec!["group:ops".into()], node: vec![] }
    }

    #[test]
    fn roles_come_by_user_and_by_group() {
        let r = roles();
        assert!(r.allow(&User::new("root", &[]), &ask("delete", "pods", "", "a", "b")).is_some());
        assert!(r.allow(&User::new("x", &[MASTERS]), &ask("delete", "secrets", "", "a", "b")).is_some());
        let viewer = User::new("eve", &["ops"]);
        assert!(r.allow(&viewer, &ask("list", "pods", "", "", "")).is_some());
        assert!(r.allow(&viewer, &ask("get", "pods", "log", "a", "b")).is_some());
        assert!(r.allow(&viewer, &ask("get", "nodes", "metrics", "", "n")).is_some());
        for (verb, resource, sub) in [
            ("get", "nodes", "log"),
            ("get", "nodes", "proxy"),
            ("list", "secrets", ""),
            ("get", "pods", "exec"),
            ("create", "pods", ""),
            ("get", "pods", "proxy"),
        ] {
            assert!(r.allow(&viewer, &ask(verb, resource, sub, "a", "b")).is_none(), "{verb} {resource}/{sub}");
        }
        assert!(r.allow(&User::new("nobody", &[]), &ask("get", "pods", "", "a", "b")).is_none());
    }

    #[test]
    fn a_node_writes_to_itself_alone() {
        let r = roles();
        let node = User::new("system:node:n1", &[NODE_GROUP]);
        assert!(r.allow(&node, &ask("patch", "nodes", "status", "", "n1")).is_some());
        assert!(r.allow(&node, &ask("patch", "nodes", "status", "", "n2")).is_none());
        assert!(r.allow(&node, &ask("update", "leases", "", "kube-node-lease", "n1")).is_some());
        assert!(r.allow(&node, &ask("update", "leases", "", "default", "n1")).is_none());
        assert!(r.allow(&node, &ask("patch", "pods", "status", "a", "b")).is_some());
        assert!(r.allow(&node, &ask("patch", "pods", "", "a", "b")).is_none());
        assert!(r.allow(&node, &ask("create", "serviceaccounts", "token", "a", "b")).is_some());
    }

    #[test]
    fn strangers_see_health_and_no_more() {
        let r = roles();
        let nobody = User::anonymous();
        assert!(r.allow(&nobody, &Attributes::path("get", "/healthz")).is_some());
        assert!(r.allow(&nobody, &Attributes::path("get", "/api")).is_none());
        assert!(r.allow(&User::new("x", &[]), &Attributes::path("get", "/apis/apps/v1")).is_some());
        assert!(r.allow(&nobody, &ask("create", "selfsubjectaccessreviews", "", "", "")).is_none());
    }

    #[test]
    fn the_file_names_users_and_groups() {
        assert_eq!(
            Roles { admin: vec!["alice".into()], ..Roles::default() }.check().unwrap_err(),
            "\"alice\": write user:NAME or group:NAME"
        );
        assert!(roles().check().is_ok());
    }
}
