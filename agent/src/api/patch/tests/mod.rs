//! Tests of patches: each rule with what becomes of an object, and laws over random values.

mod apply;
mod json;
mod laws;
mod merge;
mod strategic;

use super::{Editor, PatchKind};
use crate::api::Failure;
use crate::manifest::schema::{Field, shape_of};
use crate::time::Wall;
use serde_json::Value;

fn pod_fields() -> Option<&'static [Field]> {
    shape_of("v1", "Pod")
}

fn editor(manager: &str) -> Editor<'_> {
    Editor { manager, api_version: "v1", kind: "Pod", subresource: "", force: false, now: Wall::from_seconds(0) }
}

fn patched(kind: PatchKind, live: &Value, patch: &Value) -> Result<Value, Failure> {
    super::apply(kind, live, patch.to_string().as_bytes(), pod_fields(), &editor("me"))
}

#[test]
fn a_patch_is_known_by_its_content_type() {
    let kind = |t: &str, shaped| PatchKind::from_content_type(t, shaped);
    assert_eq!(kind("application/merge-patch+json; charset=utf-8", true), Ok(PatchKind::Merge));
    assert_eq!(kind("application/strategic-merge-patch+json", true), Ok(PatchKind::Strategic));
    let refused = kind("application/strategic-merge-patch+json", false).unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (415, "UnsupportedMediaType"));
    assert_eq!(
        refused.message,
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    );
    assert_eq!(kind("text/plain", true).unwrap_err().code, 415);
}

#[test]
fn bodies_that_are_too_large_or_too_deep_are_refused() {
    let live = Value::Null;
    let send = |kind, body: &[u8]| super::apply(kind, &live, body, pod_fields(), &editor("me")).unwrap_err();
    assert_eq!(send(PatchKind::Merge, &vec![b' '; super::MOST_BYTES + 1]).code, 413);
    let deep = "{\"a\":".repeat(110) + "1" + &"}".repeat(110);
    let abyss = "[".repeat(100_000);
    for kind in PatchKind::ALL {
        assert_eq!(send(kind, deep.as_bytes()).code, 400, "{kind:?}");
        assert_eq!(send(kind, abyss.as_bytes()).code, 400, "{kind:?}");
        assert_eq!(send(kind, b"\xff\xfe").code, 400, "{kind:?}");
        assert_eq!(send(kind, b"").code, 400, "{kind:?}");
    }
}
