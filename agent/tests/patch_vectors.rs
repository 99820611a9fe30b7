//! Replays `vectors/patches.json`: what an API server of 1.36 makes of patches.
//!
//! A vector is `{name, kind, type, live, patch, query, want | status}`: `kind` is `v1/Pod`; `type` one of
//! `json`, `merge`, `strategic`, `apply`; `live` null where there is no object; `patch` a value, or a text
//! that is sent as it is; `query` holds `fieldManager`, `force` and `subresource`. `want` is the object
//! before defaulting, with `metadata.managedFields` only where it is compared (times are left out);
//! `status` holds the parts of the refusal that are compared.
#![allow(clippy::unwrap_used)]

use longshore::api::patch::{self, Editor, PatchKind};
use longshore::manifest::schema::shape_of;
use longshore::time::Wall;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    kind: String,
    r#type: String,
    live: Value,
    patch: Value,
    #[serde(default)]
    query: QueryPart,
    want: Option<Value>,
    status: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct QueryPart {
    field_manager: String,
    force: bool,
    subresource: String,
}

fn without_times(v: &mut Value) {
    if let Some(Value::Array(list)) = v.pointer_mut("/metadata/managedFields") {
        for e in list.iter_mut().filter_map(Value::as_object_mut) {
            e.remove("time");
        }
    }
}

/// Whether all of `part` stands in `whole`.
fn is_in(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(a), Value::Object(b)) => a.iter().all(|(k, v)| b.get(k).is_some_and(|w| is_in(v, w))),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(v, w)| is_in(v, w)),
        (a, b) => a == b,
    }
}

#[test]
fn patches_come_out_as_an_api_server_makes_them() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("vectors/patches.json")).unwrap();
    assert!(vectors.len() >= 20, "the vectors are there");
    for v in vectors {
        let (api_version, kind) = v.kind.rsplit_once('/').unwrap();
        let body = v.patch.as_str().map_or_else(|| v.patch.to_string(), str::to_owned);
        let patch_kind = match v.r#type.as_str() {
            "json" => PatchKind::Json,
            "merge" => PatchKind::Merge,
            "strategic" => PatchKind::Strategic,
            "apply" => PatchKind::Apply,
            other => panic!("{}: there is no type {other:?}", v.name),
        };
        let editor = Editor {
            manager: &v.query.field_manager,
            api_version,
            kind,
            subresource: &v.query.subresource,
            force: v.query.force,
            now: Wall::from_seconds(0),
        };
        let got = patch::apply(patch_kind, &v.live, body.as_bytes(), shape_of(api_version, kind), &editor);
        match (got, v.want, v.status) {
            (Ok(mut got), Some(mut want), None) => {
                without_times(&mut got);
                without_times(&mut want);
                if want.pointer("/metadata/managedFields").is_none()
                    && let Some(Value::Object(m)) = got.get_mut("metadata")
                {
                    m.remove("managedFields");
                }
                assert_eq!(got, want, "{}", v.name);
            }
            (Err(f), None, Some(status)) => {
                let got: Value = serde_json::from_slice(&f.body()).unwrap();
                assert!(is_in(&status, &got), "{}: {got:#}", v.name);
            }
            (got, ..) => panic!("{}: {got:?}", v.name),
        }
    }
}
