//! The API's description by OpenAPI 3, as far as clients look at it: fields of objects, and that patches check them.
//!
//! Made from the tables of resources and shapes. Tests: at the end of this file.

use super::discovery::versions;
use super::resource::{Id, Resource};
use super::write::shape_of;
use crate::manifest::schema::{Field, Shape};
use serde_json::{Map, Value, json};

/// `/openapi/v3`: which documents there are.
pub fn index() -> Value {
    let path = |group: &str, version: &str| if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
    let mut paths = Map::new();
    for (group, version) in versions() {
        let path = path(group, version);
        paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={}", env!("CARGO_PKG_VERSION"))}));
    }
    json!({ "paths": paths })
}

/// One group's version.
pub fn document(group: &str, version: &str) -> Option<Value> {
    let rows: Vec<Id> = Id::all().filter(|i| i.row().group == group && i.row().version == version).collect();
    if rows.is_empty() {
        return None;
    }
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for id in rows {
        let r = id.row();
        let kind = json!([{"group": r.group, "version": r.version, "kind": r.kind}]);
        let mut schema = shape_of(id).map_or_else(|| json!({"type": "object"}), object);
        schema["x-kubernetes-group-version-kind"] = kind.clone();
        schemas.insert(name(r), schema);
        let base =
            if r.namespaced { format!("{}/namespaces/{{namespace}}/{}", r.root(), r.plural) } else { format!("{}/{}", r.root(), r.plural) };
        paths.insert(base.clone(), operations(r, &[("get", "list"), ("post", "create")]));
        paths.insert(
            format!("{base}/{{name}}"),
            operations(r, &[("get", "get"), ("put", "update"), ("patch", "patch"), ("delete", "delete")]),
        );
    }
    let info = json!({"title": "Longshore", "version": crate::KUBERNETES_VERSION});
    Some(json!({"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}))
}

/// `io.k8s.api.core.v1.Pod`
fn name(r: &Resource) -> String {
    let group = r.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
    format!("io.k8s.api.{group}.{}.{}", r.version, r.kind)
}

fn operations(r: &Resource, methods: &[(&str, &str)]) -> Value {
    let mut out = Map::new();
    for (method, verb) in methods.iter().filter(|(_, verb)| r.verbs.contains(verb)) {
        let mut parameters = vec![];
        if matches!(*verb, "create" | "update" | "patch") {
            let text = json!({"type": "string", "uniqueItems": true});
            for parameter in ["dryRun", "fieldManager", "fieldValidation"] {
                parameters.push(json!({"name": parameter, "in": "query", "schema": text}));
            }
        }
        let answer = json!({"200": {"description": "OK", "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{}", name(r))}}}}});
        let action = if *verb == "create" {
            "post"
        } else if *verb == "update" {
            "put"
        } else {
            verb
        };
        out.insert(
            (*method).to_owned(),
            json!({"parameters": parameters, "responses": answer, "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": r.group, "version": r.version, "kind": r.kind}}),
        );
    }
    Value::Object(out)
}

fn object(fields: &[Field]) -> Value {
    let properties: Map<String, Value> = fields.iter().map(|(name, shape)| ((*name).to_owned(), schema(*shape))).collect();
    json!({"type": "object", "properties": properties})
}

fn schema(shape: Shape) -> Value {
    match shape.inner() {
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Int32 | Shape::Port | Shape::Mode => json!({"type": "integer", "format": "int32"}),
        Shape::Int64 => json!({"type": "integer", "format": "int64"}),
        Shape::PortRef => json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}),
        Shape::Amount => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        Shape::Time => json!({"type": "string", "format": "date-time"}),
        Shape::OneOf(values) => json!({"type": "string", "enum": values}),
        Shape::Text => json!({"type": "string"}),
        Shape::List(item) => json!({"type": "array", "items": schema(*item), "x-kubernetes-list-type": "atomic"}),
        Shape::Set(item) => {
            json!({"type": "array", "items": schema(*item), "x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge"})
        }
        Shape::Keyed(keys, item) => {
            json!({"type": "array", "items": schema(*item), "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys,
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": keys[0]})
        }
        Shape::Map(item) => json!({"type": "object", "additionalProperties": schema(*item)}),
        Shape::Object(fields) => object(fields),
        _ => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_described_and_patches_check_their_fields() {
        let document = document("", "v1").unwrap();
        let pod = &document["components"]["schemas"]["io.k8s.api.core.v1.Pod"];
        assert_eq!(pod["properties"]["spec"]["properties"]["hostNetwork"]["type"], "boolean");
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Pod");
        assert!(index()["paths"]["apis/discovery.k8s.io/v1"].is_object());
    }
}
