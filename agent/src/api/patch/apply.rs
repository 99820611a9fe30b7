//! Server-side apply, and the owners of fields that other writes change.
//!
//! An applier says what it wants; fields that it wanted before and does not want any more go unless
//! someone else owns them, and fields of others that it would change are a conflict. One version of each
//! kind is served, so owners in other versions are left alone. Must never ask for the time; `now` comes
//! in. Tests: `tests/apply.rs`.

use super::fields::Fields;
use super::managers::{self, Entry, Manager};
use super::merge::without_nulls;
use super::typed::{self, Comparison};
use crate::api::Failure;
use crate::api::failure::{Cause, Subject};
use crate::manifest::schema::{Field, Shape};
use crate::time::Wall;
use serde_json::{Map, Value};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager of what an object had before anyone's fields were tracked.
const BEFORE: &str = "before-first-apply";
/// The longest name of a manager, in bytes.
const LONGEST_NAME: usize = 128;

/// Fields that say what an object is, not what someone wants of it.
const NEVER_OWNED: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// Who writes, and as what.
#[derive(Clone, Copy, Debug)]
pub struct Editor<'a> {
    /// `fieldManager` of the request; [`manager_of`] finds one for writes that name none.
    pub manager: &'a str,
    pub api_version: &'a str,
    pub kind: &'a str,
    /// Empty, or `status`, ...
    pub subresource: &'a str,
    /// Takes fields from other managers.
    pub force: bool,
    pub now: Wall,
}

impl Editor<'_> {
    fn entry(&self, applies: bool) -> Manager {
        Manager {
            name: if self.manager.is_empty() { "unknown".into() } else { self.manager.into() },
            applies,
            api_version: self.api_version.into(),
            subresource: self.subresource.into(),
        }
    }

    /// Fields that this subresource cannot write.
    fn ignored(&self) -> &'static [&'static [&'static str]] {
        match self.subresource {
            "status" => &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]],
            "" => &[&["status"]],
            _ => &[],
        }
    }
}

/// The manager of a write that names none: the client's name, the first part of its user agent.
pub fn manager_of(field_manager: Option<&str>, user_agent: &str) -> String {
    if let Some(m) = field_manager.filter(|m| !m.is_empty()) {
        return m.to_owned();
    }
    let mut out = String::new();
    let name = user_agent.split('/').next().unwrap_or_default();
    for c in name.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > LONGEST_NAME {
            break;
        }
        out.push(c);
    }
    out
}

/// `live` (null: there is none yet) after `config` has been applied.
pub fn apply(live: &Value, config: &Value, fields: &'static [Field], editor: &Editor<'_>) -> Result<Value, Failure> {
    let shape = if fields.is_empty() { Shape::Any } else { Shape::Object(fields) };
    check(config, shape, editor)?;
    let mut config = config.clone();
    for path in editor.ignored() {
        remove(&mut config, path);
    }
    let stored = live.pointer("/metadata/managedFields").cloned().unwrap_or(Value::Array(Vec::new()));
    let mut entries = managers::read(&stored).ok_or_else(|| Failure::unknown("failed to decode managed fields"))?;
    let mut live = if live.is_object() { live.clone() } else { Value::Object(Map::new()) };
    remove(&mut live, &["metadata", "managedFields"]);
    if entries.is_empty() && live.as_object().is_some_and(|m| !m.is_empty()) {
        let before = Editor { manager: BEFORE, force: true, ..*editor };
        let empty = Value::Object(Map::new());
        update(&empty, &live, shape, &before, &mut entries);
    }
    let (mut new, mut entries) = settle(&live, &config, shape, editor, entries)?;
    let is_changed = new != live;
    let me = editor.entry(true);
    for e in entries.iter_mut().filter(|e| e.manager.same(&me)) {
        if is_changed {
            e.time = Some(editor.now.rfc3339());
        }
    }
    if editor.manager == "kubectl" {
        keep_annotation(&mut new, &config);
    }
    store(&mut new, entries);
    Ok(new)
}

/// Refuses what cannot be applied at all.
fn check(config: &Value, shape: Shape, editor: &Editor<'_>) -> Result<(), Failure> {
    if editor.manager.is_empty() {
        let cause = Cause {
            reason: "FieldValueRequired".into(),
            message: "Required value: is required for apply patch".into(),
            field: "fieldManager".into(),
        };
        return Err(Failure::invalid(Subject { group: "meta.k8s.io", kind: "PatchOptions", name: "" }, vec![cause]));
    }
    let text = |path: &str| config.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("/apiVersion"), text("/kind"));
    let gvk = if version.contains('/') { format!("{version}, Kind={kind}") } else { format!("/{version}, Kind={kind}") };
    if kind.is_empty() && config.is_object() {
        return Err(Failure::bad_request("Object 'Kind' is missing"));
    }
    if (version, kind) != (editor.api_version, editor.kind) {
        return Err(Failure::bad_request(format!("invalid object type: {gvk}")));
    }
    if config.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null()) {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    let mut faults = Vec::new();
    typed::faults(config, shape, "", &mut faults);
    if faults.is_empty() {
        return Ok(());
    }
    let object = format!("{}/{}; {gvk}", text("/metadata/namespace"), text("/metadata/name"));
    let told = if let [one] = faults.as_slice() { one.clone() } else { format!("errors:\n  {}", faults.join("\n  ")) };
    Err(Failure::unknown(format!("failed to create typed patch object ({object}): {told}")))
}

/// The merged object and its owners; a client that wrote with the annotation before takes its own fields.
fn settle(live: &Value, config: &Value, shape: Shape, editor: &Editor<'_>, entries: Vec<Entry>) -> Result<(Value, Vec<Entry>), Failure> {
    let (new, owners, conflicts) = merged(live, config, shape, editor, &entries);
    if editor.force || conflicts.is_empty() {
        return Ok((new, owners));
    }
    let mine = if editor.manager == "kubectl" { from_annotation(live, shape, editor) } else { Fields::default() };
    let left: Vec<Conflict> = conflicts.into_iter().map(|(m, f)| (m, f.difference(&mine))).filter(|(_, f)| !f.is_empty()).collect();
    if left.is_empty() { Ok((new, owners)) } else { Err(refused(&left)) }
}

/// Who owns what this write would change.
type Conflict = (Manager, Fields);

/// The outcome as if nobody objected, and who does.
fn merged(live: &Value, config: &Value, shape: Shape, editor: &Editor<'_>, entries: &[Entry]) -> (Value, Vec<Entry>, Vec<Conflict>) {
    let me = editor.entry(true);
    let mut owners = entries.to_vec();
    let last = owners.iter().position(|e| e.manager.same(&me)).map(|i| owners.remove(i));
    let mut fields = typed::owned(config, shape);
    NEVER_OWNED.iter().for_each(|p| fields.strip(p));
    let time = last.as_ref().and_then(|e| e.time.clone());
    // Nothing goes when the same fields are wanted as before.
    let last = last.filter(|e| e.manager.api_version == editor.api_version && e.fields != fields);
    owners.push(Entry { manager: me.clone(), time, fields });
    let mut new = typed::merge(live, config, shape);
    if let Some(last) = last {
        new = pruned(&new, &last.fields, shape, &owners, editor.api_version);
    }
    // A field that is null is one that someone wants absent.
    without_nulls(&mut new);
    let conflicts = take(live, &new, shape, editor, &me, &mut owners).0;
    (new, owners, conflicts)
}

/// Without what this applier owned, unless it wants it still or someone else owns it.
fn pruned(merged: &Value, last: &Fields, shape: Shape, owners: &[Entry], version: &str) -> Value {
    let last = typed::with_named(last, shape);
    let all = typed::with_named(&typed::owned(merged, shape), shape);
    let bare = typed::without(merged, &last, shape);
    let others = owners.iter().filter(|e| e.manager.api_version == version).fold(Fields::default(), |f, e| f.union(&e.fields));
    let kept = typed::with_named(&typed::owned(&bare, shape), shape).union(&typed::with_named(&others, shape));
    let with_owned = typed::without(merged, &all.difference(&kept), shape);
    // What lies below something that went, and was never this applier's, comes back.
    let left = typed::with_named(&typed::owned(&with_owned, shape), shape);
    typed::without(merged, &all.difference(&left).intersection(&last), shape)
}

/// Takes the changed fields from everybody but `me`. Returns what was taken, and the comparison.
fn take(old: &Value, new: &Value, shape: Shape, editor: &Editor<'_>, me: &Manager, owners: &mut Vec<Entry>) -> (Vec<Conflict>, Comparison) {
    let mut compared = typed::compare(Some(old), Some(new), shape);
    for path in editor.ignored() {
        compared.cut(path);
    }
    let changed = compared.changed();
    let mut conflicts = Vec::new();
    for e in owners.iter_mut().filter(|e| e.manager != *me && e.manager.api_version == editor.api_version) {
        let taken = e.fields.intersection(&changed);
        if !taken.is_empty() {
            e.fields = e.fields.difference(&taken);
            conflicts.push((e.manager.clone(), taken));
        }
        e.fields = e.fields.difference(&compared.removed);
    }
    owners.retain(|e| !e.fields.is_empty());
    (conflicts, compared)
}

fn refused(conflicts: &[Conflict]) -> Failure {
    let shown = |m: &Manager| {
        let mut out = format!("{:?}", m.name);
        if !m.subresource.is_empty() {
            out += &format!(" with subresource {:?}", m.subresource);
        }
        if !m.applies {
            out += &format!(" using {}", m.api_version);
        }
        out
    };
    let mut all: Vec<(String, Vec<String>)> = conflicts.iter().map(|(m, f)| (shown(m), f.paths())).collect();
    all.sort();
    let causes: Vec<Cause> = all
        .iter()
        .flat_map(|(who, paths)| paths.iter().map(move |p| (who, p)))
        .map(|(who, p)| Cause { reason: "FieldManagerConflict".into(), message: format!("conflict with {who}"), field: p.clone() })
        .collect();
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => {
            let lines: Vec<String> = all
                .iter()
                .flat_map(|(who, paths)| std::iter::once(format!("conflicts with {who}:")).chain(paths.iter().map(|p| format!("- {p}"))))
                .collect();
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    Failure::apply_conflict(message, causes)
}

/// The fields that a client-side apply set and that are as it set them.
fn from_annotation(live: &Value, shape: Shape, editor: &Editor<'_>) -> Fields {
    let annotation = live.pointer("/metadata/annotations").and_then(|a| a.get(LAST_APPLIED)).and_then(Value::as_str);
    let Some(Ok(last)) = annotation.map(serde_json::from_str::<Value>) else { return Fields::default() };
    if last.get("apiVersion").and_then(Value::as_str) != Some(editor.api_version) {
        return Fields::default();
    }
    let compared = typed::compare(Some(&last), Some(live), shape);
    typed::owned(&last, shape).difference(&compared.changed()).difference(&compared.removed)
}

/// An object that has the annotation of a client-side apply keeps a true one.
fn keep_annotation(new: &mut Value, config: &Value) {
    let Some(Value::Object(annotations)) = new.pointer_mut("/metadata/annotations") else { return };
    let Some(Value::String(last)) = annotations.get_mut(LAST_APPLIED) else { return };
    if last.is_empty() {
        return;
    }
    let mut config = config.clone();
    remove(&mut config, &["metadata", "annotations", LAST_APPLIED]);
    *last = format!("{config}\n");
}

/// The object with its owners after any write but an apply. `old`: null when it is created.
pub fn track(old: &Value, new: &Value, fields: Option<&'static [Field]>, editor: &Editor<'_>) -> Value {
    let shape = fields.map_or(Shape::Any, Shape::Object);
    let list = |v: &Value| v.pointer("/metadata/managedFields").cloned();
    let stored = || list(old).and_then(|l| managers::read(&l)).unwrap_or_default();
    let sent = list(new);
    let mut entries = match &sent {
        _ if !editor.subresource.is_empty() => stored(),
        Some(Value::Array(a)) if a.is_empty() || matches!(a.as_slice(), [Value::Object(m)] if m.is_empty()) => Vec::new(),
        Some(l) => managers::read(l).filter(|e| !e.is_empty()).unwrap_or_else(stored),
        None => stored(),
    };
    let mut out = new.clone();
    remove(&mut out, &["metadata", "managedFields"]);
    // An object whose fields have no owners keeps it so until someone applies.
    if entries.is_empty() && old.is_object() {
        return out;
    }
    let mut old = if old.is_object() { old.clone() } else { Value::Object(Map::new()) };
    remove(&mut old, &["metadata", "managedFields"]);
    update(&old, &out, shape, editor, &mut entries);
    managers::cap(&mut entries);
    store(&mut out, entries);
    out
}

/// Gives what a write changed to its manager, and takes it from the others.
fn update(old: &Value, new: &Value, shape: Shape, editor: &Editor<'_>, entries: &mut Vec<Entry>) {
    // Nobody's name: what the manager had before is taken from it too, and given back below.
    let nobody = Manager { name: "\0".into(), ..editor.entry(false) };
    let (_, compared) = take(old, new, shape, editor, &nobody, entries);
    let mut mine = compared.changed();
    NEVER_OWNED.iter().for_each(|p| mine.strip(p));
    if mine.is_empty() {
        return;
    }
    let me = editor.entry(false);
    let time = Some(editor.now.rfc3339());
    match entries.iter_mut().find(|e| e.manager.same(&me)) {
        Some(e) => (e.fields, e.time) = (e.fields.union(&mine), time),
        None => entries.push(Entry { manager: me, time, fields: mine }),
    }
}

fn store(v: &mut Value, entries: Vec<Entry>) {
    let Some(list) = managers::write(entries) else { return };
    if let Value::Object(m) = v
        && let Value::Object(meta) = m.entry("metadata").or_insert_with(|| Value::Object(Map::new()))
    {
        meta.insert("managedFields".into(), list);
    }
}

fn remove(v: &mut Value, path: &[&str]) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut at = v;
    for p in parents {
        match at.get_mut(*p) {
            Some(next) => at = next,
            None => return,
        }
    }
    if let Value::Object(m) = at {
        m.remove(*last);
    }
}
