//! Texts to untyped documents: YAML or JSON, several per file.
//!
//! Each document is parsed by itself, so that one that is broken leaves the others whole. Follows what
//! kubectl accepts (YAML 1.1 booleans and octals, anchors within a document, streams of JSON), and is
//! stricter in one thing: a key that stands twice is refused. Tests: in this file.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess};
use serde_json::{Map, Number, Value};
use std::fmt;

/// The most that is read of one file, in bytes.
pub const MOST_BYTES: usize = 10 << 20;

/// One document as it stands in the file.
#[derive(Debug)]
pub struct Document {
    /// Of the document's first line, counted from 1.
    pub line: usize,
    pub content: Result<Value, Malformed>,
}

/// Why a text is neither YAML nor JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// In the file, counted from 1; 0: unknown.
    pub line: usize,
    pub message: String,
}

/// All documents of a text that hold something.
pub fn documents(text: &str) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{')
        && let Some(out) = json(text)
    {
        return out;
    }
    split(text)
        .into_iter()
        .map(|(line, text)| Document { line, content: yaml(text, line) })
        .filter(|d| d.content.as_ref().map_or(true, |v| !v.is_null()))
        .collect()
}

/// One document with the mark that leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Empty, or `---` to the end of its line.
    pub mark: &'a str,
    pub body: &'a str,
}

/// A text cut into its documents; put together again they are the text, every byte of it.
pub fn parts(text: &str) -> Vec<Part<'_>> {
    let mut out = Vec::new();
    let mut at = 0;
    for (_, piece) in split(text) {
        let start = piece.as_ptr() as usize - text.as_ptr() as usize;
        // What stands between the last document and this one is a mark, and goes with this one.
        let before = &text[at..start];
        let line = piece.find('\n').map_or(piece.len(), |n| n + 1);
        // A mark may have the document, or its beginning, on its own line.
        let is_mark = piece[..line].strip_prefix("---").is_some_and(|rest| rest.trim().is_empty() || rest.trim().starts_with('#'));
        let cut = if is_mark { line } else { 0 };
        let (mark, body) = if before.is_empty() { piece.split_at(cut) } else { (before, piece) };
        out.push(Part { mark, body });
        at = start + piece.len();
    }
    if at < text.len() {
        out.push(Part { mark: &text[at..], body: "" });
    }
    out
}

/// The one document of a text.
pub fn one(text: &str) -> Result<Value, String> {
    let mut all = documents(text).into_iter();
    match (all.next(), all.next()) {
        (Some(d), None) => d.content.map_err(|m| m.message),
        (None, _) => Err("there is nothing in it".into()),
        (Some(_), Some(_)) => Err("it has more than one document".into()),
    }
}

/// A stream of JSON values. None: the text is something else, perhaps YAML in flow style.
fn json(text: &str) -> Option<Vec<Document>> {
    let mut out = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Strict>();
    loop {
        let start = stream.byte_offset();
        let blank = text[start..].len() - text[start..].trim_start().len();
        let line = 1 + text[..start + blank].matches('\n').count();
        match stream.next() {
            None => return Some(out),
            Some(Ok(v)) => out.push(Document { line, content: Ok(v.0) }),
            Some(Err(e)) if e.is_data() => {
                let message = e.to_string();
                let message = message.split(" at line ").next().unwrap_or_default().to_owned();
                out.push(Document { line, content: Err(Malformed { line: e.line(), message }) });
                return Some(out);
            }
            Some(Err(_)) => return None,
        }
    }
}

/// Cuts at `---` and `...`, which YAML allows at the head of a line only as marks.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut out = Vec::new();
    let (mut start, mut first_line, mut only_directives) = (0, 1, true);
    let mut at = 0;
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let is = |mark: &str| line.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        let bare = line.trim();
        if is("---") && !only_directives {
            out.push((first_line, &text[start..at]));
            (start, first_line) = (at, i + 1);
        }
        at += line.len();
        if is("...") {
            out.push((first_line, &text[start..at - line.len()]));
            (start, first_line, only_directives) = (at, i + 2, true);
        } else if is("---") || !(bare.is_empty() || bare.starts_with('#') || line.starts_with('%')) {
            only_directives = false;
        }
    }
    out.push((first_line, &text[start..]));
    out
}

fn yaml(text: &str, line: usize) -> Result<Value, Malformed> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        strict_booleans: false,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<Option<Strict>>(text, options).map(|v| v.map_or(Value::Null, |s| s.0)).map_err(|e| {
        let at = e.location().map_or(0, |l| usize::try_from(l.line()).unwrap_or(0));
        let message = e.without_snippet().to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        Malformed { line: if at == 0 { 0 } else { line + at - 1 }, message: message.trim().to_owned() }
    })
}

/// A JSON value whose objects have every key once.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Strict, D::Error> {
        d.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> de::Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Strict, E> {
        Ok(Strict(Value::Bool(v)))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Strict, E> {
        Ok(Strict(Value::Number(v.into())))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Strict, E> {
        Ok(Strict(Value::Number(v.into())))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Strict, E> {
        Ok(Strict(Number::from_f64(v).map_or(Value::Null, Value::Number)))
    }
    fn visit_str<E>(self, v: &str) -> Result<Strict, E> {
        Ok(Strict(Value::String(v.to_owned())))
    }
    fn visit_string<E>(self, v: String) -> Result<Strict, E> {
        Ok(Strict(Value::String(v)))
    }
    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }
    fn visit_none<E>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Strict, D::Error> {
        Strict::deserialize(d)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
        let mut out = Vec::new();
        while let Some(v) = seq.next_element::<Strict>()? {
            out.push(v.0);
        }
        Ok(Strict(Value::Array(out)))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
        let mut out = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if out.contains_key(&key) {
                return Err(de::Error::custom(format!("the key {key:?} stands twice")));
            }
            out.insert(key, map.next_value::<Strict>()?.0);
        }
        Ok(Strict(Value::Object(out)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn good(text: &str) -> Vec<(usize, Value)> {
        documents(text).into_iter().map(|d| (d.line, d.content.unwrap())).collect()
    }

    fn bad(text: &str) -> Malformed {
        documents(text).into_iter().find_map(|d| d.content.err()).expect("a problem")
    }

    #[test]
    fn documents_are_told_apart_and_empty_ones_left_out() {
        assert_eq!(good("a: 1\n---\nb: 2\n"), [(1, json!({"a": 1})), (2, json!({"b": 2}))]);
        assert_eq!(good("---\n# nothing\n---\na: 1\n...\n---\n---\nb: 2\n...\n"), [(3, json!({"a": 1})), (7, json!({"b": 2}))]);
        assert_eq!(good("%YAML 1.2\n---\na: 1\n"), [(1, json!({"a": 1}))]);
        assert_eq!(good("a: 1\r\n--- # next\r\nb: 2\r\n"), [(1, json!({"a": 1})), (2, json!({"b": 2}))]);
        assert_eq!(good("\u{feff}a: |\n  ---\n  x\n"), [(1, json!({"a": "---\nx\n"}))]);
        assert_eq!(good(""), []);
        assert_eq!(good("# only a remark\n"), []);
    }

    #[test]
    fn forms_of_old_yaml_have_their_old_meaning() {
        let v = &good("mode: 0644\nyes: on\nq: \"0644\"\nn: ~\nhex: 0x1F\nf: 1.5\nbig: 18446744073709551615\n")[0].1;
        assert_eq!(v["mode"], json!(420));
        assert_eq!(v["yes"], json!(true));
        assert_eq!(v["q"], json!("0644"));
        assert_eq!(v["n"], Value::Null);
        assert_eq!(v["hex"], json!(31));
        assert_eq!(v["f"], json!(1.5));
        assert_eq!(v["big"], json!(18_446_744_073_709_551_615_u64));
    }

    #[test]
    fn anchors_and_merges_work_within_a_document() {
        let v = &good("base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\nagain: *b\n")[0].1;
        assert_eq!(v["other"], json!({"x": 1, "y": 3}));
        assert_eq!(v["again"], json!({"x": 1, "y": 2}));
        assert_eq!(documents("a: &b 1\n---\nc: *b\n")[1].content.as_ref().unwrap_err().line, 3);
    }

    #[test]
    fn json_is_taken_as_json() {
        let text = "{\"a\": \"\\ud83d\\ude00\",\n\t\"b\": [1, true, null]}\n{\"c\": 1}\n";
        assert_eq!(good(text), [(1, json!({"a": "😀", "b": [1, true, null]})), (3, json!({"c": 1}))]);
        assert_eq!(good("{a: 1, b: [x]}\n"), [(1, json!({"a": 1, "b": ["x"]}))]);
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_with_its_line() {
        assert_eq!(bad("{\"a\": 1,\n \"a\": 2}"), Malformed { line: 2, message: "the key \"a\" stands twice".into() });
        let m = bad("x: 1\n---\na: 1\nb: 2\na: 3\n");
        assert_eq!(m.line, 5);
        assert!(m.message.contains("duplicate"), "{m:?}");
    }

    #[test]
    fn one_broken_document_leaves_the_others_whole() {
        let out = documents("a: 1\n---\nb: [1\n---\nc: 3\n");
        assert_eq!(out.len(), 3);
        assert_eq!(out[0].content.as_ref().unwrap(), &json!({"a": 1}));
        assert!(out[1].content.is_err());
        assert_eq!(out[2].content.as_ref().unwrap(), &json!({"c": 3}));
    }

    #[test]
    fn a_bomb_of_anchors_is_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            text.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", ")));
        }
        assert!(documents(&text)[0].content.is_err());
    }
}
