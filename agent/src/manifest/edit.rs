//! Writing objects back into the texts of manifests: one document changes, all others keep every byte.
//!
//! Must never touch a file: a text comes in and a text goes out. Tests: at the end of this file.

use super::{kind, text};
use crate::api::resource::Id;
use serde_json::{Map, Value};

/// Which object is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Which<'a> {
    pub id: Id,
    pub namespace: &'a str,
    pub name: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("the object is in none of its documents")]
    Absent,
    #[error("{0}")]
    Unreadable(String),
}

impl Which<'_> {
    fn is(&self, object: &Value) -> bool {
        let row = self.id.row();
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let namespace = match text("namespace") {
            "" if row.namespaced => "default",
            given => given,
        };
        object["kind"] == row.kind && text("name") == self.name && (!row.namespaced || namespace == self.namespace)
    }

    /// The object itself, or the item of a list that it is.
    fn find<'v>(&self, document: &'v mut Value) -> Option<&'v mut Value> {
        if self.is(document) {
            return Some(document);
        }
        kind::items_named(document);
        let items = document.get_mut("items")?.as_array_mut()?;
        items.iter_mut().find_map(|item| self.find(item))
    }

    /// Takes the object out. True: nothing is left of the document.
    fn take(&self, document: &mut Value) -> bool {
        if self.is(document) {
            return true;
        }
        kind::items_named(document);
        let Some(items) = document.get_mut("items").and_then(Value::as_array_mut) else { return false };
        items.retain_mut(|item| !self.take(item));
        items.is_empty()
    }
}

/// The object as the text has it.
pub fn find(source: &str, which: &Which<'_>) -> Option<Value> {
    text::documents(source).into_iter().filter_map(|d| d.content.ok()).find_map(|mut d| which.find(&mut d).cloned())
}

/// The text with another object in the place of the one that is meant, or without it. None: nothing is left.
pub fn replace(source: &str, which: &Which<'_>, with: Option<&Value>) -> Result<Option<String>, EditError> {
    if source.trim_start().starts_with(['{', '[']) {
        return replace_json(source, which, with);
    }
    let parts = text::parts(source);
    let mut out = String::with_capacity(source.len() + 256);
    let mut found = false;
    for part in &parts {
        let document = if found { None } else { text::one(part.body).ok() };
        let Some(mut document) = document.filter(|d| which.find(&mut d.clone()).is_some()) else {
            push(&mut out, part.mark, part.body);
            continue;
        };
        found = true;
        match with {
            Some(new) => *which.find(&mut document).expect("just found") = new.clone(),
            None if which.take(&mut document) => continue,
            None => {}
        }
        push(&mut out, part.mark, &yaml(&document)?);
    }
    match found {
        true => Ok(Some(out).filter(|t| holds_something(t))),
        false => Err(EditError::Absent),
    }
}

fn push(out: &mut String, mark: &str, body: &str) {
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    // A first document that went leaves its mark to nobody.
    if !(out.is_empty() && mark.is_empty()) {
        out.push_str(mark);
    }
    out.push_str(body);
}

fn holds_something(source: &str) -> bool {
    // A document that cannot be read is something.
    !text::documents(source).is_empty()
}

fn replace_json(source: &str, which: &Which<'_>, with: Option<&Value>) -> Result<Option<String>, EditError> {
    let mut out = Vec::new();
    let mut found = false;
    for document in text::documents(source) {
        let mut document = document.content.map_err(|m| EditError::Unreadable(m.message))?;
        if !found && which.find(&mut document).is_some() {
            found = true;
            match with {
                Some(new) => *which.find(&mut document).expect("just found") = new.clone(),
                None if which.take(&mut document) => continue,
                None => {}
            }
        }
        out.push(serde_json::to_string_pretty(&document).expect("plain data serialises") + "\n");
    }
    if found { Ok(Some(out.concat()).filter(|t| !t.is_empty())) } else { Err(EditError::Absent) }
}

/// A document of one object.
pub fn yaml(object: &Value) -> Result<String, EditError> {
    serde_saphyr::to_string(object).map_err(|e| EditError::Unreadable(e.to_string()))
}

/// What to write of an object: what the client changed, and what the text said before; not what was filled in since.
/// `full` is the object as it is to be, `was` as it was, `text` as the file has it.
pub fn authored(full: &Value, was: &Value, text: &Value) -> Value {
    match (full, was, text) {
        (Value::Object(full), Value::Object(was), Value::Object(text)) => {
            let null = Value::Null;
            let mut out = Map::new();
            for (k, v) in full {
                let before = was.get(k).unwrap_or(&null);
                match text.get(k) {
                    Some(written) => {
                        out.insert(k.clone(), authored(v, before, written));
                    }
                    None if v == before => {}
                    None => {
                        out.insert(k.clone(), v.clone());
                    }
                }
            }
            Value::Object(out)
        }
        (Value::Array(full), Value::Array(was), Value::Array(text)) if full.len() == was.len() && was.len() == text.len() => {
            full.iter().zip(was).zip(text).map(|((f, w), t)| authored(f, w, t)).collect()
        }
        // The same in another spelling stays as it is written.
        (full, was, text) if full == was && !text.is_null() => text.clone(),
        (full, ..) => full.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resource::{CONFIG_MAPS, PODS};
    use serde_json::json;

    const TWO: &str = "# first\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}   # kept\ndata: {x: 'y'}\n---\n# second\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\n";

    fn map(name: &str) -> Which<'_> {
        Which { id: CONFIG_MAPS, namespace: "default", name }
    }

    #[test]
    fn other_documents_keep_their_comments() {
        let new = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"k": "v"}});
        let out = replace(TWO, &map("b"), Some(&new)).unwrap().unwrap();
        assert!(out.starts_with("# first\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}   # kept\ndata: {x: 'y'}\n---\n"), "{out}");
        assert_eq!(find(&out, &map("b")), Some(new));
        assert_eq!(find(&out, &map("a")).unwrap()["data"]["x"], "y");
    }

    #[test]
    fn a_removed_document_leaves_the_others_and_the_last_leaves_nothing() {
        let one = replace(TWO, &map("b"), None).unwrap().unwrap();
        assert!(one.contains("# kept") && find(&one, &map("b")).is_none(), "{one}");
        let other = replace(TWO, &map("a"), None).unwrap().unwrap();
        assert!(other.contains("# second") && find(&other, &map("a")).is_none(), "{other}");
        assert_eq!(replace(&one, &map("a"), None), Ok(None));
        assert_eq!(replace(TWO, &map("c"), None), Err(EditError::Absent));
    }

    #[test]
    fn items_of_lists_and_json_can_be_written_too() {
        let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n";
        let out = replace(list, &map("a"), None).unwrap().unwrap();
        assert!(find(&out, &Which { id: PODS, namespace: "default", name: "a" }).is_some() && find(&out, &map("a")).is_none());
        let typed = "apiVersion: v1\nkind: ConfigMapList\nitems:\n- {metadata: {name: a}}\n";
        assert_eq!(replace(typed, &map("a"), None), Ok(None));
        let text = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"}}"#;
        let out = replace(text, &map("a"), None).unwrap().unwrap();
        assert!(find(&out, &map("b")).is_some() && find(&out, &map("a")).is_none());
    }

    #[test]
    fn only_what_a_client_changed_is_written() {
        let text = json!({"spec": {"containers": [{"name": "c", "image": "x", "resources": {"limits": {"cpu": 1}}}]}});
        let was = json!({"spec": {"containers": [{"name": "c", "image": "x", "imagePullPolicy": "Always", "resources": {"limits": {"cpu": "1"}}}], "dnsPolicy": "ClusterFirst"}});
        let mut full = was.clone();
        full["spec"]["containers"][0]["image"] = "y".into();
        full["spec"]["activeDeadlineSeconds"] = 5.into();
        let want =
            json!({"spec": {"containers": [{"name": "c", "image": "y", "resources": {"limits": {"cpu": 1}}}], "activeDeadlineSeconds": 5}});
        assert_eq!(authored(&full, &was, &text), want);
    }
}
