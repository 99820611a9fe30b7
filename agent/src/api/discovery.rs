//! What there is to ask for, as clients discover it: groups, versions, resources.
//!
//! Made from the table of resources alone. Tests: at the end of this file.

use super::resource::{CONTROLLED, Id, RESOURCES, Resource, Sub};
use serde_json::{Value, json};

/// Groups in the order in which clients prefer them; the core group is apart.
fn groups() -> Vec<&'static str> {
    let mut groups: Vec<&str> = RESOURCES.iter().map(|r| r.group).chain(CONTROLLED.iter().map(|c| c.0)).collect();
    groups.extend(["policy"]);
    groups.sort_unstable();
    groups.dedup();
    groups.retain(|g| !g.is_empty());
    groups
}

fn is_there(group: &str, version: &str) -> bool {
    version == "v1" && (group.is_empty() || groups().contains(&group))
}

fn version_of(group: &str) -> Value {
    json!({"groupVersion": format!("{group}/v1"), "version": "v1"})
}

fn group(name: &str) -> Value {
    json!({"name": name, "versions": [version_of(name)], "preferredVersion": version_of(name)})
}

/// `/api`
pub fn core() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis`
pub fn all() -> Value {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups().into_iter().map(group).collect::<Vec<_>>()})
}

/// `/apis/GROUP`
pub fn one(name: &str) -> Option<Value> {
    let mut found = is_there(name, "v1").then(|| group(name)).filter(|_| !name.is_empty())?;
    found["kind"] = "APIGroup".into();
    found["apiVersion"] = "v1".into();
    Some(found)
}

/// `/api/v1`, `/apis/GROUP/VERSION`
pub fn version(group: &str, version: &str) -> Option<Value> {
    if !is_there(group, version) {
        return None;
    }
    let mut list = Vec::new();
    for r in RESOURCES.iter().filter(|r| r.group == group && r.version == version) {
        let mut entry = json!({"name": r.plural, "singularName": r.singular, "namespaced": r.namespaced, "kind": r.kind, "verbs": r.verbs});
        for (field, names) in [("shortNames", r.short), ("categories", r.categories)] {
            if !names.is_empty() {
                entry[field] = names.into();
            }
        }
        list.push(entry);
        list.extend(r.subs.iter().map(|s| sub(r, s)));
    }
    for (_, plural, kind) in CONTROLLED.iter().filter(|c| c.0 == group) {
        let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"];
        list.push(json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": true, "kind": kind, "verbs": verbs}));
    }
    let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": list}))
}

fn sub(r: &Resource, s: &Sub) -> Value {
    let (group, version, kind) = s.kind.unwrap_or((r.group, r.version, r.kind));
    let mut entry =
        json!({"name": format!("{}/{}", r.plural, s.name), "singularName": "", "namespaced": r.namespaced, "kind": kind, "verbs": s.verbs});
    if group != r.group {
        entry["group"] = group.into();
        entry["version"] = version.into();
    }
    entry
}

/// `/api` or `/apis` with all resources in one answer (apidiscovery.k8s.io/v2).
pub fn aggregated(core: bool) -> Value {
    let names = if core { vec![""] } else { groups() };
    let items: Vec<Value> = names
        .into_iter()
        .map(|group| {
            let mut item = json!({"metadata": {"creationTimestamp": null}, "versions": [{"version": "v1", "resources": resources(group), "freshness": "Current"}]});
            if !group.is_empty() {
                item["metadata"]["name"] = group.into();
            }
            item
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn resources(group: &str) -> Vec<Value> {
    let scope = |namespaced: bool| if namespaced { "Namespaced" } else { "Cluster" };
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut list = Vec::new();
    for r in RESOURCES.iter().filter(|r| r.group == group) {
        let mut entry = json!({"resource": r.plural, "responseKind": kind(r.group, r.version, r.kind), "scope": scope(r.namespaced),
            "singularResource": r.singular, "verbs": r.verbs});
        for (field, names) in [("shortNames", r.short), ("categories", r.categories)] {
            if !names.is_empty() {
                entry[field] = names.into();
            }
        }
        let subs: Vec<Value> = r
            .subs
            .iter()
            .map(|s| {
                let (g, v, k) = s.kind.unwrap_or((r.group, r.version, r.kind));
                json!({"subresource": s.name, "responseKind": kind(g, v, k), "verbs": s.verbs})
            })
            .collect();
        if !subs.is_empty() {
            entry["subresources"] = subs.into();
        }
        list.push(entry);
    }
    for (_, plural, name) in CONTROLLED.iter().filter(|c| c.0 == group) {
        let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"];
        list.push(json!({"resource": plural, "responseKind": kind(group, "v1", name), "scope": "Namespaced",
            "singularResource": name.to_lowercase(), "verbs": verbs}));
    }
    list
}

/// Groups and versions that have resources, for the list of documents of OpenAPI.
pub fn versions() -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<(&str, &str)> = Id::all().map(|i| (i.row().group, i.row().version)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_is_discovered_in_both_ways() {
        let whole = [aggregated(true), aggregated(false)];
        let items: Vec<&Value> = whole.iter().flat_map(|w| w["items"].as_array().unwrap()).collect();
        for r in RESOURCES {
            let plain = version(r.group, r.version).unwrap();
            assert!(plain["resources"].as_array().unwrap().iter().any(|x| x["name"] == r.plural), "{}", r.plural);
            let group = items.iter().find(|i| i["metadata"]["name"].as_str().unwrap_or("") == r.group).unwrap();
            assert!(group["versions"][0]["resources"].as_array().unwrap().iter().any(|x| x["resource"] == r.plural), "{}", r.plural);
        }
        assert_eq!(version("none", "v1"), None);
        assert_eq!(one(""), None);
        assert_eq!(one("apps").unwrap()["kind"], "APIGroup");
    }
}
