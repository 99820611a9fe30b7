//! Bodies of `application/vnd.kubernetes.protobuf`, which typed clients (kubectl's `create`, `drain`, `auth`) send.
//!
//! Owns the envelope and the wire format; what the fields of a message are is data in `messages`. A body becomes
//! the JSON that the same client would have sent. Must never answer in this format: clients that send it also
//! accept JSON. Fields that the tables do not know are passed over, as in every reader of the format. Tests: in
//! this file, `agent/tests/protobuf_vectors.rs` and `agent/tests/fuzz_patches.rs`.

mod messages;

use super::Failure;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use messages::{DELETE_OPTIONS, KINDS};
use serde_json::{Map, Value};

pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

/// The fields of a message. Messages do not contain themselves: the tables bound how deep a value can be.
pub struct Message(&'static [Field]);

struct Field {
    number: u64,
    /// Empty where the message's fields stand among those of the message around it.
    json: &'static str,
    rule: Rule,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// JSON leaves out what is empty, 0 or false; the wire does not.
    One,
    /// A value that is nothing is told: a pointer, or required.
    Kept,
    Many,
    Map,
    Inline,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Bool,
    Int,
    Bytes,
    Of(&'static Message),
    // Messages that are one value in JSON:
    Quantity,
    Time,
    MicroTime,
    IntOrString,
    /// JSON in bytes.
    Raw,
    Texts,
}

/// What a field holds on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes; no field of the tables is one.
    Fixed,
}

/// Why a message cannot be read; the path of the field is put before it on the way out.
type Why = String;

/// The object in a body, with its `apiVersion` and `kind`.
pub fn decode(body: &[u8]) -> Result<Value, Failure> {
    let refused = |why: String| Failure::bad_request(format!("the object provided is unrecognized: {why}"));
    let rest = body.strip_prefix(MAGIC).ok_or_else(|| refused("it does not begin as protobuf of this API does".into()))?;
    let envelope = Envelope::read(rest).map_err(refused)?;
    let (api_version, kind) = (envelope.api_version, envelope.kind);
    let message =
        message_of(api_version, kind).ok_or_else(|| refused(format!("no kind {kind:?} is registered for version {api_version:?}")))?;
    let mut object = Map::new();
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    fill(message, envelope.raw, &mut object).map_err(refused)?;
    Ok(Value::Object(object))
}

/// Options of a deletion come under the version of what is deleted.
fn message_of(api_version: &str, kind: &str) -> Option<&'static Message> {
    if kind == "DeleteOptions" {
        return Some(&DELETE_OPTIONS);
    }
    KINDS.iter().find(|(v, k, _)| (*v, *k) == (api_version, kind)).map(|(_, _, m)| *m)
}

/// `runtime.Unknown` of an API server.
#[derive(Default)]
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Envelope<'a>, Why> {
        let mut envelope = Envelope::default();
        for field in Fields(bytes) {
            match field? {
                (1, wire) => {
                    for field in Fields(bytes_of(wire)?) {
                        match field? {
                            (1, wire) => envelope.api_version = text_of(wire)?,
                            (2, wire) => envelope.kind = text_of(wire)?,
                            _ => {}
                        }
                    }
                }
                (2, wire) => envelope.raw = bytes_of(wire)?,
                (3, wire) if !bytes_of(wire)?.is_empty() => return Err("its content is encoded in a way that is not known".into()),
                (4, wire) if !matches!(text_of(wire)?, "" | MEDIA_TYPE) => return Err("its content is of a type that is not known".into()),
                _ => {}
            }
        }
        Ok(envelope)
    }
}

/// Reads a message into the fields of an object.
fn fill(message: &'static Message, bytes: &[u8], object: &mut Map<String, Value>) -> Result<(), Why> {
    for field in Fields(bytes) {
        let (number, wire) = field?;
        if let Some(field) = message.0.iter().find(|f| f.number == number) {
            put(field, wire, object).map_err(|why| if field.json.is_empty() { why } else { format!("{}: {why}", field.json) })?;
        }
    }
    Ok(())
}

fn put(field: &Field, wire: Wire<'_>, object: &mut Map<String, Value>) -> Result<(), Why> {
    match field.rule {
        Rule::Inline => match field.kind {
            Kind::Of(message) => fill(message, bytes_of(wire)?, object),
            _ => Ok(()),
        },
        Rule::One | Rule::Kept => {
            // A message that comes in pieces is the sum of them; of values the last one counts.
            let before = object.remove(field.json).unwrap_or_default();
            let value = value(field.kind, wire, before)?;
            if !value.is_null() && (field.rule == Rule::Kept || !is_nothing(&value)) {
                object.insert(field.json.into(), value);
            }
            Ok(())
        }
        Rule::Many => {
            let Value::Array(list) = object.entry(field.json).or_insert_with(|| Value::Array(Vec::new())) else { return Ok(()) };
            match (field.kind, wire) {
                (Kind::Int, Wire::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        list.push(int(varint(&mut packed)?).into());
                    }
                }
                _ => list.push(value(field.kind, wire, Value::Null)?),
            }
            Ok(())
        }
        Rule::Map => {
            let (mut key, mut of_key) = ("", Wire::Bytes(&[]));
            for field in Fields(bytes_of(wire)?) {
                match field? {
                    (1, wire) => key = text_of(wire)?,
                    (2, wire) => of_key = wire,
                    _ => {}
                }
            }
            let value = value(field.kind, of_key, Value::Null).map_err(|why| format!("{key}: {why}"))?;
            if let Value::Object(map) = object.entry(field.json).or_insert_with(|| Value::Object(Map::new())) {
                map.insert(key.into(), value);
            }
            Ok(())
        }
    }
}

/// `before`: what an earlier piece of the same message made.
fn value(kind: Kind, wire: Wire<'_>, before: Value) -> Result<Value, Why> {
    Ok(match kind {
        Kind::Text => text_of(wire)?.into(),
        Kind::Bool => (varint_of(wire)? != 0).into(),
        Kind::Int => int(varint_of(wire)?).into(),
        Kind::Bytes => BASE64_STANDARD.encode(bytes_of(wire)?).into(),
        Kind::Of(message) => {
            let mut object = if let Value::Object(before) = before { before } else { Map::new() };
            fill(message, bytes_of(wire)?, &mut object)?;
            Value::Object(object)
        }
        Kind::Quantity => match text_of(last(bytes_of(wire)?, 1)?.unwrap_or(Wire::Bytes(&[])))? {
            "" => "0".into(),
            text => text.into(),
        },
        Kind::Time => time(bytes_of(wire)?)?.map_or(Value::Null, |t| with_seconds(t).into()),
        Kind::MicroTime => time(bytes_of(wire)?)?.map_or(Value::Null, |t| format!("{t:.6}").into()),
        Kind::IntOrString => int_or_string(bytes_of(wire)?)?,
        Kind::Raw => match last(bytes_of(wire)?, 1)?.map(bytes_of).transpose()? {
            None | Some(b"") => Value::Null,
            Some(json) => serde_json::from_slice(json).map_err(|e| e.to_string())?,
        },
        Kind::Texts => {
            let mut texts = Vec::new();
            for field in Fields(bytes_of(wire)?) {
                if let (1, wire) = field? {
                    texts.push(text_of(wire)?.into());
                }
            }
            Value::Array(texts)
        }
    })
}

/// What `omitempty` leaves out, and messages in which nothing is.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

/// Seconds and nanoseconds. None: no time at all, which is not the time 0.
fn time(bytes: &[u8]) -> Result<Option<Timestamp>, Why> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let number = |n| last(bytes, n)?.map_or(Ok(0), varint_of);
    let (seconds, nanos) = (int(number(1)?), i32::try_from(int(number(2)?)).map_err(|e| e.to_string())?);
    Timestamp::new(seconds, nanos).map(Some).map_err(|e| e.to_string())
}

/// metav1.Time has no fraction in JSON: it is cut off, towards the past.
fn with_seconds(t: Timestamp) -> String {
    let seconds = if t.subsec_nanosecond() < 0 { t.as_second() - 1 } else { t.as_second() };
    Timestamp::from_second(seconds).unwrap_or(t).to_string()
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Why> {
    match last(bytes, 1)?.map_or(Ok(0), varint_of)? {
        0 => Ok(int(last(bytes, 2)?.map_or(Ok(0), varint_of)?).into()),
        1 => Ok(text_of(last(bytes, 3)?.unwrap_or(Wire::Bytes(&[])))?.into()),
        other => Err(format!("{other} is neither the type of a number nor that of a text")),
    }
}

/// The last field of that number.
fn last(bytes: &[u8], number: u64) -> Result<Option<Wire<'_>>, Why> {
    let mut found = None;
    for field in Fields(bytes) {
        match field? {
            (n, wire) if n == number => found = Some(wire),
            _ => {}
        }
    }
    Ok(found)
}

/// Negative numbers are written as large ones.
fn int(varint: u64) -> i64 {
    varint.cast_signed()
}

fn bytes_of(wire: Wire<'_>) -> Result<&[u8], Why> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        _ => Err("a number stands where a text or a message belongs".into()),
    }
}

fn text_of(wire: Wire<'_>) -> Result<&str, Why> {
    std::str::from_utf8(bytes_of(wire)?).map_err(|e| e.to_string())
}

fn varint_of(wire: Wire<'_>) -> Result<u64, Why> {
    match wire {
        Wire::Varint(n) => Ok(n),
        _ => Err("no number stands where a number belongs".into()),
    }
}

/// The fields of a message, in the order in which they come; nothing comes after one that cannot be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), Why>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<(u64, Wire<'a>), Why> {
        let tag = varint(&mut self.0)?;
        let wire = match tag & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => self.take(8).map(|_| Wire::Fixed)?,
            2 => {
                let len = varint(&mut self.0)?;
                Wire::Bytes(self.take(usize::try_from(len).map_err(|e| e.to_string())?)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed)?,
            other => return Err(format!("there is no wire type {other}")),
        };
        match tag >> 3 {
            0 => Err("there is no field 0".into()),
            number => Ok((number, wire)),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Why> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("it breaks off")?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Seven bits a byte, the low ones first.
fn varint(bytes: &mut &[u8]) -> Result<u64, Why> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or("it breaks off")?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(number);
        }
    }
    Err("a number is longer than 64 bits".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend(content);
        out
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    fn why(body: &[u8]) -> String {
        let failure = decode(body).unwrap_err();
        assert_eq!(failure.code, 400);
        failure.message.replace("the object provided is unrecognized: ", "")
    }

    #[test]
    fn a_body_that_is_no_message_is_refused_with_the_place() {
        assert_eq!(why(b"{}"), "it does not begin as protobuf of this API does");
        assert_eq!(why(&body("v1", "Deployment", b"")), r#"no kind "Deployment" is registered for version "v1""#);
        let number = "spec: containers: name: a number stands where a text or a message belongs";
        assert_eq!(why(&body("v1", "Pod", &field(2, &field(2, &[8, 1])))), number);
        assert_eq!(why(&body("v1", "Pod", &[0x12, 9, 1])), "it breaks off");
        assert_eq!(why(&body("v1", "Pod", &[0xff; 11])), "a number is longer than 64 bits");
        assert_eq!(why(&body("v1", "Pod", &[0x0b])), "there is no wire type 3");
        assert_eq!(why(&[body("v1", "Pod", b""), field(3, b"gzip")].concat()), "its content is encoded in a way that is not known");
        assert!(why(&body("v1", "ConfigMap", &field(1, &field(1, &[0xff])))).starts_with("metadata: name: invalid utf-8"));
    }

    #[test]
    fn fields_that_are_not_known_are_passed_over() {
        let raw = [&[0x78, 5][..], &[0x7d, 1, 2, 3, 4], &[0x79, 1, 2, 3, 4, 5, 6, 7, 8], &field(15, b"x"), &[0x20, 1]].concat();
        let want = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "immutable": true});
        assert_eq!(decode(&body("v1", "ConfigMap", &raw)).unwrap(), want);
    }

    #[test]
    fn a_message_in_pieces_is_the_sum_of_them() {
        let raw = [field(1, &field(1, b"a")), field(1, &field(3, b"b")), field(1, &field(1, b"c"))].concat();
        let metadata = serde_json::json!({"name": "c", "namespace": "b"});
        assert_eq!(decode(&body("v1", "ConfigMap", &raw)).unwrap()["metadata"], metadata);
    }

    /// How many messages stand in one another below this one.
    fn depth(message: &'static Message, above: usize) -> usize {
        assert!(above < 30, "a message holds itself");
        let below = message.0.iter().map(|f| if let Kind::Of(m) = f.kind { depth(m, above + 1) } else { 0 });
        1 + below.max().unwrap_or(0)
    }

    #[test]
    fn every_message_ends_and_names_each_field_once() {
        for (_, kind, message) in KINDS {
            assert!(depth(message, 0) < 15, "{kind}");
            for f in message.0 {
                assert_eq!(message.0.iter().filter(|g| g.number == f.number || g.json == f.json).count(), 1, "{kind} {}", f.json);
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(kind in 0..KINDS.len(), raw in proptest::collection::vec(prop_oneof![any::<u8>(), 0u8..30], 0..120), whole in any::<Vec<u8>>()) {
            let (api_version, kind, _) = KINDS[kind];
            let _ = decode(&body(api_version, kind, &raw));
            let _ = decode(&[MAGIC, &whole].concat());
        }
    }
}
