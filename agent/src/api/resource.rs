//! The table of what this API serves: one row for each resource.
//!
//! A row says everything about a resource that is data: its names, its scope, what may be done with it, its
//! sub-resources, and where its objects are kept. Fields, merge keys and shapes are the tables of
//! `manifest::schema`; columns are in `api::table`. Must never hold state. Tests: in this file.

use super::failure::Subject;

/// Index of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u8);

/// Where a lone node keeps the objects of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// What a person would write: files of the manifests directory.
    Files,
    /// What the node or its programs write: the state directory.
    State,
    /// Computed; nobody writes it.
    Computed,
    /// Questions: answered and forgotten.
    Question,
}

/// What may be done with a resource.
pub type Verbs = &'static [&'static str];

const ALL: Verbs = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const CREATE: Verbs = &["create"];
const GET: Verbs = &["get"];
const STATUS: Verbs = &["get", "patch", "update"];
const STREAM: Verbs = &["create", "get"];
const PROXY: Verbs = &["create", "delete", "get", "patch", "update"];

#[derive(Debug)]
pub struct Sub {
    pub name: &'static str,
    /// Group, version and kind of what is sent and answered, where they are not the resource's own.
    pub kind: Option<(&'static str, &'static str, &'static str)>,
    pub verbs: Verbs,
}

#[derive(Debug)]
pub struct Resource {
    /// Empty: the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub verbs: Verbs,
    pub subs: &'static [Sub],
    pub home: Home,
    /// Its generation counts the changes of its spec.
    pub generation: bool,
}

const STATUS_SUB: Sub = Sub { name: "status", kind: None, verbs: STATUS };
const RESIZE: Sub = Sub { name: "resize", kind: None, verbs: STATUS };
const EPHEMERAL: Sub = Sub { name: "ephemeralcontainers", kind: None, verbs: STATUS };

const fn stream(name: &'static str, kind: &'static str) -> Sub {
    Sub { name, kind: Some(("", "v1", kind)), verbs: STREAM }
}

const POD_SUBS: &[Sub] = &[
    stream("attach", "PodAttachOptions"),
    Sub { name: "binding", kind: Some(("", "v1", "Binding")), verbs: CREATE },
    EPHEMERAL,
    Sub { name: "eviction", kind: Some(("policy", "v1", "Eviction")), verbs: CREATE },
    stream("exec", "PodExecOptions"),
    Sub { name: "log", kind: None, verbs: GET },
    stream("portforward", "PodPortForwardOptions"),
    Sub { name: "proxy", kind: Some(("", "v1", "PodProxyOptions")), verbs: PROXY },
    RESIZE,
    STATUS_SUB,
];
const SERVICE_SUBS: &[Sub] = &[Sub { name: "proxy", kind: Some(("", "v1", "ServiceProxyOptions")), verbs: PROXY }, STATUS_SUB];
const NODE_SUBS: &[Sub] = &[Sub { name: "proxy", kind: Some(("", "v1", "NodeProxyOptions")), verbs: PROXY }, STATUS_SUB];
const ACCOUNT_SUBS: &[Sub] = &[Sub { name: "token", kind: Some(("authentication.k8s.io", "v1", "TokenRequest")), verbs: CREATE }];
const REQUEST_SUBS: &[Sub] = &[Sub { name: "approval", kind: None, verbs: STATUS }, STATUS_SUB];
const ONLY_STATUS: &[Sub] = &[STATUS_SUB];

/// A row with what most rows have.
const fn row(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str, singular: &'static str) -> Resource {
    Resource {
        group,
        version,
        kind,
        plural,
        singular,
        short: &[],
        categories: &[],
        namespaced: true,
        verbs: ALL,
        subs: &[],
        home: Home::State,
        generation: false,
    }
}

const fn question(group: &'static str, kind: &'static str, plural: &'static str, singular: &'static str, namespaced: bool) -> Resource {
    Resource { namespaced, verbs: CREATE, home: Home::Question, ..row(group, "v1", kind, plural, singular) }
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";

/// All of them, by group and plural.
pub static RESOURCES: &[Resource] = &[
    Resource { short: &["cm"], home: Home::Files, ..row("", "v1", "ConfigMap", "configmaps", "configmap") },
    Resource { short: &["ep"], home: Home::Files, generation: true, ..row("", "v1", "Endpoints", "endpoints", "endpoints") },
    Resource { short: &["ev"], ..row("", "v1", "Event", "events", "event") },
    Resource {
        short: &["ns"],
        namespaced: false,
        subs: &[Sub { name: "finalize", kind: None, verbs: &["update"] }, STATUS_SUB],
        home: Home::Files,
        ..row("", "v1", "Namespace", "namespaces", "namespace")
    },
    Resource { short: &["no"], namespaced: false, subs: NODE_SUBS, ..row("", "v1", "Node", "nodes", "node") },
    Resource {
        short: &["pvc"],
        subs: ONLY_STATUS,
        home: Home::Files,
        ..row("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim")
    },
    Resource {
        short: &["pv"],
        namespaced: false,
        subs: ONLY_STATUS,
        home: Home::Files,
        ..row("", "v1", "PersistentVolume", "persistentvolumes", "persistentvolume")
    },
    Resource {
        short: &["po"],
        categories: &["all"],
        subs: POD_SUBS,
        home: Home::Files,
        generation: true,
        ..row("", "v1", "Pod", "pods", "pod")
    },
    Resource { home: Home::Files, ..row("", "v1", "Secret", "secrets", "secret") },
    Resource {
        short: &["sa"],
        subs: ACCOUNT_SUBS,
        home: Home::Files,
        ..row("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount")
    },
    Resource {
        short: &["svc"],
        categories: &["all"],
        subs: SERVICE_SUBS,
        home: Home::Files,
        ..row("", "v1", "Service", "services", "service")
    },
    question(AUTHENTICATION, "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview", false),
    question(AUTHENTICATION, "TokenReview", "tokenreviews", "tokenreview", false),
    question(AUTHORIZATION, "LocalSubjectAccessReview", "localsubjectaccessreviews", "localsubjectaccessreview", true),
    question(AUTHORIZATION, "SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview", false),
    question(AUTHORIZATION, "SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview", false),
    question(AUTHORIZATION, "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview", false),
    Resource {
        short: &["csr"],
        namespaced: false,
        subs: REQUEST_SUBS,
        ..row("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", "certificatesigningrequest")
    },
    row("coordination.k8s.io", "v1", "Lease", "leases", "lease"),
    Resource { home: Home::Files, generation: true, ..row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice") },
    Resource { short: &["ev"], ..row("events.k8s.io", "v1", "Event", "events", "event") },
    Resource {
        namespaced: false,
        subs: ONLY_STATUS,
        home: Home::Files,
        ..row("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", "servicecidr")
    },
    Resource { namespaced: false, home: Home::Files, ..row("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", "runtimeclass") },
    Resource { namespaced: false, home: Home::Files, ..row(STORAGE, "v1", "CSIDriver", "csidrivers", "csidriver") },
    Resource { namespaced: false, ..row(STORAGE, "v1", "CSINode", "csinodes", "csinode") },
    Resource {
        short: &["sc"],
        namespaced: false,
        home: Home::Files,
        ..row(STORAGE, "v1", "StorageClass", "storageclasses", "storageclass")
    },
    Resource { namespaced: false, subs: ONLY_STATUS, ..row(STORAGE, "v1", "VolumeAttachment", "volumeattachments", "volumeattachment") },
];

/// Kinds that need a controller, which a node has not: group, plural, kind.
pub const CONTROLLED: &[(&str, &str, &str)] = &[
    ("apps", "daemonsets", "DaemonSet"),
    ("apps", "deployments", "Deployment"),
    ("apps", "replicasets", "ReplicaSet"),
    ("apps", "statefulsets", "StatefulSet"),
    ("batch", "cronjobs", "CronJob"),
    ("batch", "jobs", "Job"),
];

impl Id {
    pub fn row(self) -> &'static Resource {
        &RESOURCES[usize::from(self.0)]
    }

    pub fn all() -> impl Iterator<Item = Id> {
        (0..RESOURCES.len()).map(|i| Id(u8::try_from(i).expect("the table is short")))
    }

    /// By what stands in a path.
    pub fn find(group: &str, version: &str, plural: &str) -> Option<Id> {
        Id::all().find(|i| i.row().group == group && i.row().version == version && i.row().plural == plural)
    }

    /// By what stands in an object.
    pub fn of_kind(api_version: &str, kind: &str) -> Option<Id> {
        Id::all().find(|i| i.row().kind == kind && i.row().api_version() == api_version)
    }

    /// For failures that speak of the resource: `pods "web"`.
    pub fn subject(self, name: &str) -> Subject<'_> {
        Subject { group: self.row().group, kind: self.row().plural, name }
    }

    /// For failures that speak of the kind: `Pod "web"`.
    pub fn kind_subject(self, name: &str) -> Subject<'_> {
        Subject { group: self.row().group, kind: self.row().kind, name }
    }

    /// The path of a list; of all namespaces without one.
    pub fn path(self, namespace: Option<&str>) -> String {
        let (root, plural) = (self.row().root(), self.row().plural);
        match namespace {
            Some(n) => format!("{root}/namespaces/{}/{plural}", super::query::encode(n)),
            None => format!("{root}/{plural}"),
        }
    }

    /// The row under which the objects are kept: the two faces of events share one.
    pub fn kept(self) -> Id {
        if self.row().group == "events.k8s.io" { EVENTS.with_group("") } else { self }
    }

    fn with_group(self, group: &str) -> Id {
        Id::find(group, "v1", self.row().plural).expect("a row of the table")
    }
}

/// Some rows that code speaks of.
pub const CONFIG_MAPS: Id = Id(0);
pub const ENDPOINTS: Id = Id(1);
pub const EVENTS: Id = Id(2);
pub const NAMESPACES: Id = Id(3);
pub const NODES: Id = Id(4);
pub const PODS: Id = Id(7);
pub const SECRETS: Id = Id(8);
pub const ACCOUNTS: Id = Id(9);
pub const SERVICES: Id = Id(10);
pub const REQUESTS: Id = Id(17);
pub const LEASES: Id = Id(18);
pub const SLICES: Id = Id(19);

impl Resource {
    /// `v1`, or the group with its version.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.into() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `/api/v1`, `/apis/discovery.k8s.io/v1`
    pub fn root(&self) -> String {
        if self.group.is_empty() { format!("/api/{}", self.version) } else { format!("/apis/{}/{}", self.group, self.version) }
    }

    /// As errors name it: `pods`, `endpointslices.discovery.k8s.io`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.into() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub fn sub(&self, name: &str) -> Option<&'static Sub> {
        self.subs.iter().find(|s| s.name == name)
    }

    pub fn has_status(&self) -> bool {
        self.sub("status").is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_rows_and_back() {
        for id in Id::all() {
            let r = id.row();
            assert_eq!(Id::find(r.group, r.version, r.plural), Some(id));
            assert_eq!(Id::of_kind(&r.api_version(), r.kind), Some(id));
        }
        let named = [
            (CONFIG_MAPS, "ConfigMap"),
            (ENDPOINTS, "Endpoints"),
            (EVENTS, "Event"),
            (NAMESPACES, "Namespace"),
            (NODES, "Node"),
            (PODS, "Pod"),
            (SECRETS, "Secret"),
            (ACCOUNTS, "ServiceAccount"),
            (SERVICES, "Service"),
            (REQUESTS, "CertificateSigningRequest"),
            (LEASES, "Lease"),
            (SLICES, "EndpointSlice"),
        ];
        for (id, kind) in named {
            assert_eq!(id.row().kind, kind);
        }
        assert_eq!(Id::find("events.k8s.io", "v1", "events").map(Id::kept), Some(EVENTS));
        assert_eq!(PODS.kept(), PODS);
    }

    #[test]
    fn the_table_is_in_order() {
        let keys: Vec<_> = RESOURCES.iter().map(|r| r.group).collect();
        assert!(keys.is_sorted());
    }
}
