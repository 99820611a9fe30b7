//! From documents and a command line to what holds: types, unknown fields, defaults; all that is wrong at once.

use super::fields::{Effect, FIELDS, Field, Kind, Unset};
use super::{API_VERSION, CommandLine, FieldError, KIND, validate};
use longshore_dataplane::config::duration;
use serde_json::{Map, Value};
use std::time::Duration;

/// A configuration in which every field with a default stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration(Value);

/// What documents and flags come to.
#[derive(Debug)]
pub struct Settled {
    pub config: Configuration,
    /// Unknown fields: upstream warns of them and goes on.
    pub unknown: Vec<FieldError>,
}

/// Lays one document over another, as a drop-in does: a JSON merge patch.
pub fn merge(base: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *base = patch.clone();
        return;
    };
    if !base.is_object() {
        *base = Value::Object(Map::new());
    }
    let base = base.as_object_mut().expect("it was just made one");
    for (name, value) in patch {
        if value.is_null() {
            base.remove(name);
        } else {
            merge(base.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Settles what holds. `document`: the file with its drop-ins; None: there is no file.
///
/// # Errors
/// Everything that is wrong, by field or flag.
pub fn settle(document: Option<&Value>, line: &CommandLine) -> Result<Settled, Vec<FieldError>> {
    let (mut errors, mut unknown) = (line.errors.clone(), Vec::new());
    if let Some(document) = document {
        head(document, &mut errors);
        walk(document, "", &mut errors, &mut unknown);
    }
    let mut out = Value::Object(Map::new());
    for field in FIELDS {
        let given = document.and_then(|d| at(d, field.path)).filter(|v| fits(v, field.kind).is_ok());
        let value = given.filter(|v| !(field.unset == Unset::Zero && is_zero(v))).cloned().or_else(|| default(field));
        if let Some(value) = value {
            put(&mut out, field.path, canonical(value, field.kind));
        }
    }
    for (field, value) in &line.settings {
        // Gates add up; everything else is replaced.
        let mut new = value.clone();
        if field.kind == Kind::BoolMap {
            let mut both = at(&out, field.path).cloned().unwrap_or_default();
            merge(&mut both, value);
            new = both;
        }
        put(&mut out, field.path, canonical(new, field.kind));
    }
    if let Some(pulls) = at(&out, "maxParallelImagePulls").and_then(Value::as_i64) {
        out.as_object_mut().expect("it is one").entry("serializeImagePulls").or_insert(Value::Bool(pulls < 2));
    } else {
        out.as_object_mut().expect("it is one").entry("serializeImagePulls").or_insert(Value::Bool(true));
    }
    out["apiVersion"] = API_VERSION.into();
    out["kind"] = KIND.into();
    let config = Configuration(out);
    validate::validate(&config, &mut errors);
    if errors.is_empty() { Ok(Settled { config, unknown }) } else { Err(errors) }
}

/// Everything that a reader of this document should mend: what is wrong, and what is not known.
pub fn strict(document: &Value) -> Vec<FieldError> {
    let mut unknown = Vec::new();
    walk(document, "", &mut Vec::new(), &mut unknown);
    let errors = settle(Some(document), &CommandLine::default()).err().unwrap_or_default();
    errors.into_iter().chain(unknown).collect()
}

fn head(document: &Value, errors: &mut Vec<FieldError>) {
    for (name, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        match document.get(name) {
            Some(v) if v == wanted => {}
            Some(v) => errors.push(FieldError::new(name, format!("{v} is not {wanted}"))),
            None => errors.push(FieldError::new(name, format!("is missing; {wanted} is expected"))),
        }
    }
}

fn walk(value: &Value, path: &str, errors: &mut Vec<FieldError>, unknown: &mut Vec<FieldError>) {
    let Some(map) = value.as_object() else {
        return errors.push(FieldError::new(if path.is_empty() { "(document)" } else { path }, "is not an object"));
    };
    for (name, value) in map {
        let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if value.is_null() || (path.is_empty() && (name == "apiVersion" || name == "kind")) {
            continue;
        }
        if let Some(field) = FIELDS.iter().find(|f| f.path == inner) {
            match fits(value, field.kind) {
                Ok(()) => members(value, &inner, field.kind, unknown),
                Err(what) => errors.push(FieldError::new(inner, format!("{value} is not {what}"))),
            }
        } else if FIELDS.iter().any(|f| f.path.strip_prefix(&inner).is_some_and(|rest| rest.starts_with('.'))) {
            walk(value, &inner, errors, unknown);
        } else {
            unknown.push(FieldError::new(inner, "unknown field"));
        }
    }
}

/// Unknown members of the objects of a list.
fn members(value: &Value, path: &str, kind: Kind, unknown: &mut Vec<FieldError>) {
    let Kind::Objects(known) = kind else { return };
    for (i, object) in value.as_array().into_iter().flatten().enumerate() {
        for name in object.as_object().into_iter().flat_map(Map::keys) {
            if !known.iter().any(|(n, _)| n == name) {
                unknown.push(FieldError::new(format!("{path}[{i}].{name}"), "unknown field"));
            }
        }
    }
}

/// Whether a value is of this kind; else what it should be.
fn fits(value: &Value, kind: Kind) -> Result<(), &'static str> {
    let text_or_number = |v: &Value| v.is_string() || v.is_number();
    let (ok, what) = match kind {
        Kind::Bool => (value.is_boolean(), "true or false"),
        Kind::Int32 => (value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()), "a number of 32 bits"),
        Kind::Int64 => (value.as_i64().is_some(), "a whole number"),
        Kind::Float => (value.is_number(), "a number"),
        Kind::Text => (value.is_string(), "a string"),
        Kind::Duration => (is_duration(value), "a duration such as 1m30s"),
        Kind::Flush => (is_duration(value) || value.is_u64(), "a duration such as 5s"),
        Kind::Quantity => (text_or_number(value), "a quantity"),
        Kind::Texts => (all(value, Value::is_string), "a list of strings"),
        Kind::Ints => (all(value, Value::is_i64), "a list of numbers"),
        Kind::TextMap | Kind::Thresholds => (each(value, Value::is_string), "a map of strings"),
        Kind::BoolMap => (each(value, Value::is_boolean), "a map of true and false"),
        Kind::TextsMap => (each(value, |v| all(v, Value::is_string)), "a map of lists of strings"),
        Kind::Objects(known) => {
            let fitting = |(name, v): (&String, &Value)| {
                v.is_null() || known.iter().find(|(n, _)| n == name).is_none_or(|(_, kind)| fits(v, *kind).is_ok())
            };
            (all(value, |v| v.as_object().is_some_and(|o| o.iter().all(fitting))), "a list of objects with members of the right kinds")
        }
    };
    if ok { Ok(()) } else { Err(what) }
}

fn is_duration(value: &Value) -> bool {
    value.as_str().is_some_and(|text| duration::parse_signed(text).is_some())
}

fn all(value: &Value, test: impl Fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(test))
}

fn each(value: &Value, test: impl Fn(&Value) -> bool) -> bool {
    value.as_object().is_some_and(|map| map.values().all(test))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(s) => s.is_empty() || duration::parse_signed(s).is_some_and(|(_, d)| d.is_zero()),
        Value::Number(n) => n.as_f64() == Some(0.0),
        _ => false,
    }
}

fn default(field: &Field) -> Option<Value> {
    (!field.default.is_empty()).then(|| serde_json::from_str(field.default).expect("the table's defaults are JSON"))
}

/// Durations as Go writes them, so that equal ones read alike.
fn canonical(value: Value, kind: Kind) -> Value {
    let nanos = value.as_u64().filter(|_| kind == Kind::Flush).map(Duration::from_nanos);
    let parsed = value.as_str().filter(|_| matches!(kind, Kind::Duration | Kind::Flush)).and_then(duration::parse_signed);
    match (nanos, parsed) {
        (Some(d), _) => duration::format(d).into(),
        (None, Some((minus, d))) => format!("{}{}", if minus && !d.is_zero() { "-" } else { "" }, duration::format(d)).into(),
        (None, None) => value,
    }
}

fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |v, name| v.get(name)).filter(|v| !v.is_null())
}

fn put(value: &mut Value, path: &str, new: Value) {
    let mut place = value;
    for name in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = place.as_object_mut().expect("it was just made one").entry(name).or_insert(Value::Null);
    }
    *place = new;
}

impl Configuration {
    /// The whole of it, as `/configz` shows it.
    pub fn value(&self) -> &Value {
        &self.0
    }

    pub fn get(&self, path: &str) -> Option<&Value> {
        at(&self.0, path)
    }

    /// Empty where there is none.
    pub fn text(&self, path: &str) -> &str {
        self.get(path).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn truth(&self, path: &str) -> bool {
        self.get(path).and_then(Value::as_bool).unwrap_or_default()
    }

    pub fn number(&self, path: &str) -> i64 {
        self.get(path).and_then(Value::as_i64).unwrap_or_default()
    }

    /// Negative ones count as none.
    pub fn duration(&self, path: &str) -> Duration {
        duration::parse(self.text(path)).unwrap_or_default()
    }

    pub fn texts(&self, path: &str) -> Vec<String> {
        self.get(path).and_then(Value::as_array).into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    }

    /// Fields that differ from their defaults and do nothing in this daemon.
    pub fn without_effect(&self) -> Vec<&'static str> {
        let differs = |f: &&Field| {
            let value = self.get(f.path).cloned();
            value.is_some() && value != default(f).map(|d| canonical(d, f.kind))
        };
        FIELDS.iter().filter(|f| f.effect == Effect::NotYet).filter(differs).map(|f| f.path).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(fields: Value) -> Value {
        let mut all = json!({"apiVersion": API_VERSION, "kind": KIND});
        merge(&mut all, &fields);
        all
    }

    fn settled(fields: Value) -> Result<Settled, Vec<FieldError>> {
        settle(Some(&document(fields)), &CommandLine::default())
    }

    #[test]
    fn the_defaults_are_sound_and_are_read_back_the_same() {
        let first = settle(None, &CommandLine::default()).unwrap();
        let again = settle(Some(first.config.value()), &CommandLine::default()).unwrap();
        assert_eq!((first.config.value(), again.unknown), (again.config.value(), vec![]));
        assert_eq!((first.config.number("maxPods"), first.config.text("cgroupDriver")), (110, "cgroupfs"));
        assert_eq!(first.config.without_effect(), [""; 0]);
        let port: crate::port::PortConfig = crate::typed::read(first.config.value()).unwrap();
        assert_eq!(port, crate::port::PortConfig::default());
    }

    #[test]
    fn ten_errors_are_all_named_at_once() {
        let errors = settled(json!({"port": 70000, "maxPods": "many", "healthzPort": -1, "address": "here", "syncFrequency": "soon",
            "authentication": {"webhook": {"enabled": "yes"}}, "cgroupDriver": "systemdd", "evictionHard": {"memory.available": "lots"},
            "clusterDNS": ["10.96.0.10", "dns"], "containerLogMaxFiles": 1}))
        .unwrap_err();
        let mut fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            [
                "address",
                "authentication.webhook.enabled",
                "cgroupDriver",
                "clusterDNS[1]",
                "containerLogMaxFiles",
                "evictionHard[memory.available]",
                "healthzPort",
                "maxPods",
                "port",
                "syncFrequency"
            ]
        );
    }

    #[test]
    fn unknown_fields_are_told_with_their_paths() {
        let got = settled(
            json!({"maxpods": 5, "authentication": {"x509": {"ca": "x"}}, "registerWithTaints": [{"key": "a", "efect": "x", "effect": "NoSchedule"}]}),
        );
        let unknown: Vec<String> = got.unwrap().unknown.into_iter().map(|e| e.field).collect();
        assert_eq!(unknown, ["authentication.x509.ca", "maxpods", "registerWithTaints[0].efect"]);
    }

    #[test]
    fn zero_means_the_default_where_upstream_says_so_and_null_everywhere() {
        let c = settled(
            json!({"syncFrequency": "0s", "maxPods": 0, "healthzPort": 0, "memorySwap": {}, "enableServer": null, "crashLoopBackOff": {}}),
        )
        .unwrap()
        .config;
        assert_eq!((c.duration("syncFrequency").as_secs(), c.number("maxPods"), c.number("healthzPort")), (60, 110, 0));
        assert!(c.truth("enableServer"));
    }

    #[test]
    fn a_drop_in_replaces_lists_and_joins_maps() {
        let mut base = document(json!({"clusterDNS": ["10.96.0.10"], "featureGates": {"A": true}, "maxPods": 50}));
        merge(&mut base, &json!({"clusterDNS": ["10.96.0.11"], "featureGates": {"B": false}, "maxPods": null}));
        assert_eq!((&base["clusterDNS"], &base["featureGates"]), (&json!(["10.96.0.11"]), &json!({"A": true, "B": false})));
        assert!(base.get("maxPods").is_none());
    }

    #[test]
    fn fields_that_do_nothing_yet_are_known() {
        let c = settled(json!({"maxPods": 5, "cpuManagerPolicy": "static", "hairpinMode": "none", "syncFrequency": "60s"})).unwrap().config;
        assert_eq!(c.without_effect(), ["cpuManagerPolicy"]);
    }
}
