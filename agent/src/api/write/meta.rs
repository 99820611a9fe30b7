//! Metadata of untyped objects: what the server owns, and small looks into them.

use crate::time::Wall;
use serde_json::{Map, Value, json};

/// What no client sets: it stays as it is.
pub const OWNED: &[&str] =
    &["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "selfLink"];

/// A field of the metadata, as text; empty where there is none.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// The metadata, made if it is missing.
pub fn of(object: &mut Value) -> &mut Map<String, Value> {
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata.as_object_mut().expect("just made")
}

pub fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    of(object).insert(field.into(), value.into());
}

pub fn is_ending(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

pub fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty())
}

/// What the server owns, from the object as it was.
pub fn keep_owned(object: &mut Value, old: &Value) {
    let metadata = of(object);
    for field in OWNED {
        match old["metadata"].get(*field) {
            Some(value) => metadata.insert((*field).to_owned(), value.clone()),
            None => metadata.remove(*field),
        };
    }
}

pub fn drop_owned(object: &mut Value) {
    let metadata = of(object);
    for field in OWNED {
        metadata.remove(*field);
    }
}

/// A random uid, version 4 of RFC 9562.
pub fn uid(seed: u64) -> String {
    let (a, b) = (mix(seed), mix(seed ^ 0x9e37_79b9_7f4a_7c15));
    let low = (b & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
    format!("{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}", a >> 32, (a >> 16) & 0xffff, a & 0xfff, low >> 48, low & 0xffff_ffff_ffff)
}

/// Five characters that spell no words.
pub fn suffix(seed: u64) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rest = mix(seed.wrapping_add(1));
    let letter = |rest: &mut u64| {
        let at = usize::try_from(*rest % 27).expect("below 27");
        *rest /= 27;
        char::from(LETTERS[at])
    };
    (0..5).map(|_| letter(&mut rest)).collect()
}

/// Spreads a seed over all bits (SplitMix64).
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub fn born(object: &mut Value, now: Wall, seed: u64) {
    set(object, "uid", uid(seed));
    set(object, "creationTimestamp", now.rfc3339());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_have_their_form() {
        let id = uid(7);
        assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&id.as_bytes()[19]));
        assert_ne!(uid(7), uid(8));
        assert_eq!(suffix(3).len(), 5);
    }

    #[test]
    fn what_the_server_owns_is_kept() {
        let old = json!({"metadata": {"uid": "1", "creationTimestamp": "t", "labels": {"a": "b"}}});
        let mut new = json!({"metadata": {"uid": "2", "deletionTimestamp": "x", "labels": {"c": "d"}}});
        keep_owned(&mut new, &old);
        assert_eq!(new, json!({"metadata": {"uid": "1", "creationTimestamp": "t", "labels": {"c": "d"}}}));
    }
}
