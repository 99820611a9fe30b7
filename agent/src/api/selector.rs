//! Label and field selectors of lists and watches.
//!
//! Owns their syntax, with the error texts of API servers, and which fields of a kind can be selected by.
//! Tests: in this file, and `agent/tests/fuzz_patches.rs`.

use super::Failure;
use crate::manifest::validate::names;
use serde_json::Value;
use std::collections::BTreeSet;

/// What objects have to be like; empty: everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Exists,
    Absent,
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Above(i64),
    Below(i64),
}

impl Labels {
    /// `a=b,c!=d,e in (f,g),h,!i`
    pub fn parse(text: &str) -> Result<Labels, Failure> {
        Parser { tokens: scan(text), at: 0 }.labels().map(Labels).map_err(Failure::bad_request)
    }

    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Of an object as the API serves it.
    pub fn matches(&self, object: &Value) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let labels = object.pointer("/metadata/labels");
        self.matches_labels(|k| labels.and_then(|l| l.get(k)).and_then(Value::as_str))
    }

    pub fn matches_labels<'v>(&self, label: impl Fn(&str) -> Option<&'v str>) -> bool {
        self.0.iter().all(|r| {
            let v = label(&r.key);
            match &r.rule {
                Rule::Exists => v.is_some(),
                Rule::Absent => v.is_none(),
                Rule::In(values) => v.is_some_and(|v| values.contains(v)),
                Rule::NotIn(values) => v.is_none_or(|v| !values.contains(v)),
                Rule::Above(n) => v.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *n),
                Rule::Below(n) => v.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *n),
            }
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    End,
    Open,
    Close,
    Comma,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Above,
    Below,
    In,
    NotIn,
    Name,
}

/// The text as tokens with what they are written as; the last is `End`.
fn scan(text: &str) -> Vec<(Token, &str)> {
    let bytes = text.as_bytes();
    let is_special = |b: u8| b"=!(),><".contains(&b);
    let is_space = |b: u8| b" \t\r\n".contains(&b);
    let (mut out, mut at) = (Vec::new(), 0);
    // A byte of zero ends the text, as in Go's scanner.
    while at < bytes.len() && bytes[at] != 0 {
        let start = at;
        if is_space(bytes[at]) {
            at += 1;
        } else if is_special(bytes[at]) {
            let two = matches!(bytes.get(at..at + 2), Some(b"==" | b"!="));
            at += 1 + usize::from(two);
            let token = match &text[start..at] {
                "(" => Token::Open,
                ")" => Token::Close,
                "," => Token::Comma,
                "!" => Token::Not,
                "==" => Token::DoubleEquals,
                "!=" => Token::NotEquals,
                ">" => Token::Above,
                "<" => Token::Below,
                _ => Token::Equals,
            };
            out.push((token, &text[start..at]));
        } else {
            while at < bytes.len() && !is_special(bytes[at]) && !is_space(bytes[at]) && bytes[at] != 0 {
                at += 1;
            }
            let token = match &text[start..at] {
                "in" => Token::In,
                "notin" => Token::NotIn,
                _ => Token::Name,
            };
            out.push((token, &text[start..at]));
        }
    }
    out.push((Token::End, ""));
    out
}

struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    at: usize,
}

impl<'a> Parser<'a> {
    /// Words that are operators elsewhere are names here.
    fn peek(&self) -> (Token, &'a str) {
        match self.operator() {
            (Token::In | Token::NotIn, text) => (Token::Name, text),
            other => other,
        }
    }

    fn operator(&self) -> (Token, &'a str) {
        self.tokens.get(self.at).copied().unwrap_or((Token::End, ""))
    }

    fn next(&mut self) -> (Token, &'a str) {
        let t = self.peek();
        self.at += 1;
        t
    }

    fn labels(&mut self) -> Result<Vec<Requirement>, String> {
        let mut out = Vec::new();
        loop {
            match self.peek() {
                (Token::Name | Token::Not, _) => {
                    out.push(self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?);
                    match self.next() {
                        (Token::End, _) => return Ok(out),
                        (Token::Comma, _) => match self.peek() {
                            (Token::Name | Token::Not, _) => {}
                            (_, text) => return Err(format!("found '{text}', expected: identifier after ','")),
                        },
                        (_, text) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(out),
                (_, text) => return Err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.next();
        let is_negated = token == Token::Not;
        if is_negated {
            (token, key) = self.next();
        }
        if token != Token::Name {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let faults = names::qualified(key);
        if !faults.is_empty() {
            return Err(format!("<nil>: Invalid value: {key:?}: {}", faults.join("; ")));
        }
        let rule = match (self.peek().0, is_negated) {
            (_, true) => Rule::Absent,
            (Token::End | Token::Comma, false) => Rule::Exists,
            _ => self.rule(key)?,
        };
        Ok(Requirement { key: key.to_owned(), rule })
    }

    fn rule(&mut self, key: &str) -> Result<Rule, String> {
        let (operator, text) = self.operator();
        self.at += 1;
        let values = match operator {
            Token::In | Token::NotIn => self.values()?,
            Token::Equals | Token::DoubleEquals | Token::NotEquals | Token::Above | Token::Below => BTreeSet::from([self.exact_value()?]),
            _ => return Err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        let number = || {
            let v = values.first().map_or("", String::as_str);
            let parsed = v.parse::<i64>();
            parsed.map_err(|_| format!("values[0]: Invalid value: {v:?}: for 'Gt', 'Lt' operators, the value must be an integer"))
        };
        let rule = match operator {
            Token::Above => Rule::Above(number()?),
            Token::Below => Rule::Below(number()?),
            Token::NotIn | Token::NotEquals => Rule::NotIn(values.clone()),
            _ => Rule::In(values.clone()),
        };
        let faults: Vec<String> = values
            .iter()
            .enumerate()
            .filter_map(|(i, v)| Some((i, v, names::label_value(v))).filter(|(_, _, f)| !f.is_empty()))
            .map(|(i, v, f)| format!("values[{i}][{key}]: Invalid value: {v:?}: {}", f.join("; ")))
            .collect();
        match faults.as_slice() {
            [] => Ok(rule),
            [one] => Err(one.clone()),
            more => Err(format!("[{}]", more.join(", "))),
        }
    }

    /// `(a, b)`; nothing between two commas is the empty text.
    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        let (token, text) = self.next();
        if token != Token::Open {
            return Err(format!("found '{text}' expected: '('"));
        }
        let mut out = BTreeSet::new();
        match self.peek() {
            (Token::Close, _) => {
                self.at += 1;
                return Ok(BTreeSet::from([String::new()]));
            }
            (Token::Name | Token::Comma, _) => {}
            (_, text) => return Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
        loop {
            match self.next() {
                (Token::Name, text) => {
                    out.insert(text.to_owned());
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => break,
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    let next = self.peek().0;
                    if out.is_empty() || matches!(next, Token::Comma | Token::Close) {
                        out.insert(String::new());
                    }
                    if next == Token::Close {
                        break;
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
        self.at += 1;
        Ok(out)
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            (Token::Name, text) => Ok(text.to_owned()),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }
}

/// What fields of objects have to be like; empty: everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    is_negated: bool,
}

impl Fields {
    /// `spec.nodeName=a,status.phase!=Running`; commas, equals signs and backslashes of values are escaped.
    pub fn parse(text: &str, api_version: &str, kind: &str) -> Result<Fields, Failure> {
        let mut terms = split(text);
        terms.sort_unstable();
        let parsed = terms.into_iter().filter(|t| !t.is_empty()).map(|t| term(t, text, api_version, kind));
        parsed.collect::<Result<_, _>>().map(Fields).map_err(Failure::bad_request)
    }

    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The one value that this field may have. None: any, or several.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|t| t.field == field && !t.is_negated).map(|t| t.value.as_str())
    }

    /// Of an object as the API serves it.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|t| (value_of(object, &t.field) == t.value) != t.is_negated)
    }
}

/// At commas that are not escaped.
fn split(text: &str) -> Vec<&str> {
    let (mut out, mut start, mut is_escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            ',' => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

fn term(term: &str, whole: &str, api_version: &str, kind: &str) -> Result<Term, String> {
    let operator = |i: usize| ["!=", "==", "="].into_iter().find(|op| term[i..].starts_with(op)).map(|op| (i, op));
    let found = term.match_indices(['!', '=']).find_map(|(i, _)| operator(i));
    let Some((i, op)) = found else {
        return Err(format!("invalid selector: '{whole}'; can't understand '{term}'"));
    };
    let value = unescape(&term[i + op.len()..])?;
    Ok(Term { field: selectable(&term[..i], api_version, kind)?, value, is_negated: op == "!=" })
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let other = other.map_or_else(String::new, String::from);
                    return Err(format!("invalid field selector: invalid escape sequence: \\{other}"));
                }
            },
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in value: {}", u32::from(c))),
            c => out.push(c),
        }
    }
    Ok(out)
}

/// The fields that objects of a kind can be selected by, besides their name and namespace.
fn fields_of(api_version: &str, kind: &str) -> Option<&'static [&'static str]> {
    Some(match (api_version, kind) {
        ("v1", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("v1", "Node") => &["spec.unschedulable"],
        ("v1", "Namespace") => &["status.phase"],
        ("v1", "Secret") => &["type"],
        ("v1", "Service") => &["spec.clusterIP", "spec.type"],
        ("v1", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io/v1", "Event") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("certificates.k8s.io/v1", "CertificateSigningRequest") => &["spec.signerName"],
        _ => return None,
    })
}

fn selectable(field: &str, api_version: &str, kind: &str) -> Result<String, String> {
    // Clients of old say where a pod runs in this way.
    let field = if field == "spec.host" && kind == "Pod" { "spec.nodeName" } else { field };
    let own = fields_of(api_version, kind);
    let is_cluster_wide = matches!(kind, "Node" | "Namespace" | "CertificateSigningRequest");
    let known = field == "metadata.name" || (field == "metadata.namespace" && !(own.is_some() && is_cluster_wide));
    match own {
        _ if known => Ok(field.to_owned()),
        Some(own) if own.contains(&field) => Ok(field.to_owned()),
        Some(_) => Err(format!("field label not supported: {field}")),
        None => Err(format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")),
    }
}

/// Absent is the empty text, as in the API's objects.
fn value_of(object: &Value, field: &str) -> String {
    let at = |path: &str| match path.split('.').try_fold(object, |v, name| v.get(name)) {
        Some(Value::String(s)) => s.clone(),
        Some(Value::Bool(b)) => b.to_string(),
        _ => String::new(),
    };
    let first = |a: String, b: &str| if a.is_empty() { at(b) } else { a };
    match field {
        "spec.hostNetwork" | "spec.unschedulable" => at(field).parse::<bool>().unwrap_or(false).to_string(),
        "status.podIP" => {
            let ip = object.pointer("/status/podIPs/0/ip").and_then(Value::as_str).unwrap_or_default();
            first(ip.to_owned(), field)
        }
        "source" => first(at("source.component"), "reportingComponent"),
        _ => at(field),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chosen(selector: &str, labels: Value) -> bool {
        Labels::parse(selector).unwrap().matches(&json!({"metadata": {"labels": labels}}))
    }

    fn refusal(selector: &str) -> String {
        let f = Labels::parse(selector).unwrap_err();
        assert_eq!((f.code, f.reason.as_str()), (400, "BadRequest"));
        f.message
    }

    #[test]
    fn labels_are_selected_as_an_api_server_selects_them() {
        let labels = json!({"app": "web", "tier": "front", "n": "7", "empty": "", "example.com/x": "y"});
        for (selector, want) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app!=web", false),
            ("app!=db", true),
            ("absent!=db", true),
            ("app", true),
            ("!app", false),
            ("! absent", true),
            ("absent", false),
            ("app in (web, db)", true),
            ("app in (db)", false),
            ("app notin (db)", true),
            ("absent notin (db)", true),
            ("app notin (web)", false),
            ("absent in (a)", false),
            ("empty=", true),
            ("empty in ()", true),
            ("empty in (,a)", true),
            ("empty in (a,)", true),
            ("app=", false),
            ("app=web,tier=front", true),
            ("app=web,tier=back", false),
            ("n>6", true),
            ("n>7", false),
            ("n<8", true),
            ("app>1", false),
            ("example.com/x = y", true),
            ("in in (in)", false),
            ("app in (in,web)", true),
            (" app = web ", true),
        ] {
            assert_eq!(chosen(selector, labels.clone()), want, "{selector:?}");
        }
        assert!(!Labels::parse("app").unwrap().matches(&json!({"metadata": {}})), "an object without labels");
        assert!(Labels::parse("!app").unwrap().matches(&json!({})));
    }

    #[test]
    fn a_bad_label_selector_is_told_in_gos_words() {
        for (selector, want) in [
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("a=b,", "found '', expected: identifier after ','"),
            ("a,,b", "found ',', expected: identifier after ','"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a=(", "unable to parse requirement: found '(', expected: identifier"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
            ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
            ("a in (b,=)", "unable to parse requirement: found '=', expected: ',', or identifier"),
            ("a>x", "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer"),
        ] {
            assert_eq!(refusal(selector), want, "{selector:?}");
        }
        assert!(refusal("-a=b").starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist"));
        assert!(refusal("a=b_").starts_with("unable to parse requirement: values[0][a]: Invalid value: \"b_\": a valid label"));
    }

    fn field(selector: &str, kind: &str, object: &Value) -> bool {
        Fields::parse(selector, "v1", kind).unwrap().matches(object)
    }

    #[test]
    fn fields_are_selected_by_kind() {
        let pod = json!({"metadata": {"name": "web", "namespace": "a"}, "spec": {"nodeName": "n", "hostNetwork": true},
            "status": {"phase": "Running", "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.1"}]}});
        for (selector, want) in [
            ("", true),
            (",", true),
            ("metadata.name=web", true),
            ("metadata.name==web,metadata.namespace=a", true),
            ("metadata.name!=web", false),
            ("spec.nodeName=n", true),
            ("spec.host=n", true),
            ("spec.nodeName=", false),
            ("spec.schedulerName=", true),
            ("spec.hostNetwork=true", true),
            ("status.phase!=Failed,status.phase!=Succeeded", true),
            ("status.podIP=10.0.0.1", true),
            ("status.podIP=10.0.0.9", false),
        ] {
            assert_eq!(field(selector, "Pod", &pod), want, "{selector:?}");
        }
        assert!(field("spec.hostNetwork=false", "Pod", &json!({})));
        assert!(field("spec.unschedulable=false", "Node", &json!({})));
        let event = json!({"involvedObject": {"kind": "Pod", "name": "web"}, "source": {"component": "kubelet"}, "type": "Warning"});
        assert!(field("involvedObject.name=web,type=Warning,source=kubelet", "Event", &event));
        assert!(field("type=Opaque", "Secret", &json!({"type": "Opaque"})));
        assert!(field("spec.type!=NodePort", "Service", &json!({"spec": {"type": "ClusterIP"}})));
        assert_eq!(Fields::parse("metadata.name=a,spec.nodeName=n", "v1", "Pod").unwrap().exact("metadata.name"), Some("a"));
        assert_eq!(Fields::parse("metadata.name!=a", "v1", "Pod").unwrap().exact("metadata.name"), None);
    }

    #[test]
    fn values_of_fields_may_be_escaped() {
        assert!(field(r"metadata.name=a\,b\=c\\d", "Pod", &json!({"metadata": {"name": r"a,b=c\d"}})));
        let refusal = |s: &str, kind: &str| Fields::parse(s, "v1", kind).unwrap_err().message;
        assert_eq!(refusal("metadata.name=a=b", "Pod"), "invalid field selector: unescaped character in value: 61");
        assert_eq!(refusal(r"metadata.name=\a", "Pod"), r"invalid field selector: invalid escape sequence: \a");
        assert_eq!(refusal(r"metadata.name=a\", "Pod"), r"invalid field selector: invalid escape sequence: \");
        assert_eq!(refusal("metadata.name", "Pod"), "invalid selector: 'metadata.name'; can't understand 'metadata.name'");
        assert_eq!(refusal("spec.image=x", "Pod"), "field label not supported: spec.image");
        assert_eq!(refusal("metadata.namespace=x", "Node"), "field label not supported: metadata.namespace");
        assert_eq!(
            refusal("data.x=y", "ConfigMap"),
            "\"data.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
    }
}
