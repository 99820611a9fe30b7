//! From JSON values to our types: the one way in.
//!
//! Every deserialiser that a type is read with costs the program one more copy of the type's reader, and of those
//! of all types inside it; a pod's came five times before all went through here. This one also knows where it is:
//! what it does not understand is told with the field's path. Structures are read from objects only, as Go reads
//! them. Tests are at the end of this file.

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde_json::{Map, Value};
use std::fmt::{self, Display};

/// What is wrong, and where: `spec.containers[0].name`, empty for the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub path: String,
    pub message: String,
}

impl Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

impl std::error::Error for Wrong {}

/// What is no JSON at all.
impl From<serde_json::Error> for Wrong {
    fn from(e: serde_json::Error) -> Wrong {
        Wrong { path: String::new(), message: e.to_string() }
    }
}

pub fn read<T: DeserializeOwned>(v: &Value) -> Result<T, Wrong> {
    T::deserialize(Node(v)).map_err(|e| *e.0)
}

/// The same, from JSON text.
pub fn read_text<T: DeserializeOwned>(text: &[u8]) -> Result<T, Wrong> {
    read(&serde_json::from_slice(text)?)
}

/// Small, because every reader's answer has room for one.
#[derive(Debug)]
struct Fault(Box<Wrong>);

impl Fault {
    fn below(mut self, part: impl Display) -> Fault {
        let rest = &self.0.path;
        let dot = if rest.is_empty() || rest.starts_with('[') { "" } else { "." };
        self.0.path = format!("{part}{dot}{rest}");
        self
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Fault {
        Fault(Box::new(Wrong { path: String::new(), message: message.to_string() }))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Fault {
        match found {
            Unexpected::Unit => Fault::custom(format_args!("invalid type: null, expected {expected}")),
            found => Fault::custom(format_args!("invalid type: {found}, expected {expected}")),
        }
    }
}

#[derive(Clone, Copy)]
struct Node<'a>(&'a Value);

impl Node<'_> {
    fn unexpected(&self) -> Unexpected<'_> {
        match self.0 {
            Value::Null => Unexpected::Unit,
            Value::Bool(b) => Unexpected::Bool(*b),
            Value::Number(n) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
                (Some(n), ..) => Unexpected::Unsigned(n),
                (_, Some(n), _) => Unexpected::Signed(n),
                (.., n) => Unexpected::Float(n.unwrap_or_default()),
            },
            Value::String(s) => Unexpected::Str(s),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        }
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Number(n) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
                (Some(n), ..) => visitor.visit_u64(n),
                (_, Some(n), _) => visitor.visit_i64(n),
                (.., n) => visitor.visit_f64(n.unwrap_or_default()),
            },
            _ => Err(Fault::invalid_type(self.unexpected(), &visitor)),
        }
    }
}

macro_rules! numbers {
    ($($method:ident)*) => { $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> { self.number(visitor) })* };
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Fault;

    numbers! { deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64 }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Number(_) => self.number(visitor),
            Value::String(s) => visitor.visit_borrowed_str(s),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Bool(b) => visitor.visit_bool(*b),
            _ => Err(Fault::invalid_type(self.unexpected(), &visitor)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::String(s) => visitor.visit_borrowed_str(s),
            _ => Err(Fault::invalid_type(self.unexpected(), &visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Array(_) => self.deserialize_seq(visitor),
            _ => self.deserialize_str(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            _ => Err(Fault::invalid_type(self.unexpected(), &visitor)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Array(list) => visitor.visit_seq(Items { rest: list.iter(), at: 0 }),
            _ => Err(Fault::invalid_type(self.unexpected(), &visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Object(map) => visitor.visit_map(Fields::of(map)),
            _ => Err(Fault::invalid_type(self.unexpected(), &visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::String(s) => visitor.visit_enum(s.as_str().into_deserializer()),
            Value::Object(map) => visitor.visit_enum(de::value::MapAccessDeserializer::new(Fields::of(map))),
            _ => Err(Fault::invalid_type(self.unexpected(), &visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }
}

struct Items<'de> {
    rest: std::slice::Iter<'de, Value>,
    at: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(v) = self.rest.next() else { return Ok(None) };
        self.at += 1;
        seed.deserialize(Node(v)).map(Some).map_err(|e| e.below(format_args!("[{}]", self.at - 1)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Fields<'de> {
    rest: serde_json::map::Iter<'de>,
    value: Option<(&'de str, &'de Value)>,
}

impl<'de> Fields<'de> {
    fn of(map: &'de Map<String, Value>) -> Fields<'de> {
        Fields { rest: map.iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some((key, value));
        seed.deserialize(de::value::BorrowedStrDeserializer::new(key)).map(Some).map_err(|e: Fault| e.below(key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let Some((key, value)) = self.value.take() else { return Err(Fault::custom("a value without its key")) };
        seed.deserialize(Node(value)).map_err(|e| e.below(key))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Inner {
        name: String,
        port: Option<u16>,
        ratio: f64,
        labels: BTreeMap<String, String>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    enum Policy {
        Always,
        After { seconds: i64 },
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer {
        policy: Policy,
        #[serde(default)]
        list: Vec<Inner>,
        raw: Value,
    }

    fn wrong(v: &Value) -> String {
        read::<Outer>(v).unwrap_err().to_string()
    }

    #[test]
    fn what_is_right_is_read_as_serde_json_reads_it() {
        let v = json!({"policy": {"After": {"seconds": -3}}, "unknown": [1],
            "list": [{"name": "a", "port": 80, "ratio": 1, "labels": {"x": "y"}}, {"port": null}], "raw": {"a": [1.5, null, "x"]}});
        assert_eq!(read::<Outer>(&v).unwrap(), serde_json::from_value(v.clone()).unwrap());
        let v = json!({"policy": "Always", "raw": null});
        assert_eq!(read_text::<Outer>(v.to_string().as_bytes()).unwrap(), serde_json::from_value(v).unwrap());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_path() {
        let with = |list: Value| json!({"policy": "Always", "raw": 1, "list": list});
        assert_eq!(wrong(&with(json!([{}, {"port": "x"}]))), "list[1].port: invalid type: string \"x\", expected u16");
        assert_eq!(wrong(&with(json!([{"port": 70000}]))), "list[0].port: invalid value: integer `70000`, expected u16");
        assert_eq!(wrong(&with(json!([{"labels": {"a": 1}}]))), "list[0].labels.a: invalid type: integer `1`, expected a string");
        assert_eq!(wrong(&with(json!([{"name": null}]))), "list[0].name: invalid type: null, expected a string");
        assert_eq!(wrong(&with(json!({}))), "list: invalid type: map, expected a sequence");
        assert_eq!(wrong(&json!({"policy": "Always"})), "missing field `raw`");
        assert_eq!(wrong(&json!({"policy": "Never", "raw": 1})), "policy: unknown variant `Never`, expected `Always` or `After`");
    }

    #[test]
    fn a_structure_is_not_read_from_a_list() {
        assert_eq!(read::<Inner>(&json!(["a"])).unwrap_err().message, "invalid type: sequence, expected struct Inner");
    }
}
