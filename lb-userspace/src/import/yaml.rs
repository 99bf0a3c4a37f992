//! YAML, and JSON with it, as a tree in which every value has its place.
//!
//! The parser limits depth, nodes and what anchors expand to, so no input takes more time or memory than its size
//! allows.

use std::{fmt, rc::Rc};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

use super::note::{NoteCode, Notes, Place};

/// Values of one file. A thousand endpoints have a tenth of it.
const MOST_NODES: usize = 500_000;
/// Kubernetes' own objects have about twelve.
const DEEPEST: usize = 64;
const MOST_DOCUMENTS: usize = 2_000;
/// Each use of an anchor repeats its values.
const MOST_ALIASES: usize = 1_000;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file. No key stands there twice.
    Map(Vec<(String, Node)>),
}

impl Value {
    /// With its article.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number with a fraction",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// All documents of a file. The error is noted.
pub(super) fn documents(file: &Rc<str>, text: &str, notes: &Notes) -> Option<Vec<Node>> {
    let mut options = serde_saphyr::Options::default();
    options.duplicate_keys = DuplicateKeyPolicy::Error;
    options.with_snippet = false;
    options.budget = serde_saphyr::budget! {
        max_nodes: MOST_NODES,
        max_events: 3 * MOST_NODES,
        max_depth: DEEPEST,
        max_documents: MOST_DOCUMENTS,
        max_aliases: MOST_ALIASES,
        max_total_scalar_bytes: super::MAX_BYTES,
    };
    match serde_saphyr::from_multiple_with_options::<Raw>(text, options) {
        Ok(raw) => Some(raw.into_iter().map(|raw| raw.into_node(file)).collect()),
        Err(error) => {
            let place = error.location().map_or_else(|| Place::whole(file), |at| place(file, at));
            let error = error.without_snippet();
            if let serde_saphyr::Error::Budget { .. } = error {
                let message = "the file has too many values, or its anchors repeat too many";
                notes.add(NoteCode::TooLarge, Some(&place), "", message, "import the services in parts");
            } else {
                let said = error.to_string();
                let said = said.lines().next().unwrap_or_default();
                // Places and advice for programmers follow.
                let said = said.split(" at line ").next().unwrap_or(said);
                let said = said.split(", set ").next().unwrap_or(said);
                let message = format!("this is not YAML that can be read: {said}");
                let help = "is the file whole, and is it the right one?";
                notes.add(NoteCode::Syntax, Some(&place), "", message, help);
            }
            None
        }
    }
}

fn place(file: &Rc<str>, at: Location) -> Place {
    Place { file: Rc::clone(file), line: at.line(), column: at.column() }
}

/// As the parser gives it, with its own places.
struct Raw(Spanned<RawValue>);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl Raw {
    fn into_node(self, file: &Rc<str>) -> Node {
        let place = place(file, self.0.defined);
        let value = match self.0.value {
            RawValue::Scalar(value) => value,
            RawValue::List(list) => Value::List(list.into_iter().map(|raw| raw.into_node(file)).collect()),
            RawValue::Map(map) => {
                Value::Map(map.into_iter().map(|(key, raw)| (key, raw.into_node(file))).collect())
            }
        };
        Node { value, place }
    }
}

enum RawValue {
    Scalar(Value),
    List(Vec<Raw>),
    Map(Vec<(String, Raw)>),
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = RawValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<RawValue, E> {
                Ok(RawValue::Scalar(Value::Null))
            }

            fn visit_none<E>(self) -> Result<RawValue, E> {
                Ok(RawValue::Scalar(Value::Null))
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawValue, D::Error> {
                RawValue::deserialize(deserializer)
            }

            fn visit_bool<E>(self, value: bool) -> Result<RawValue, E> {
                Ok(RawValue::Scalar(Value::Bool(value)))
            }

            fn visit_i64<E>(self, value: i64) -> Result<RawValue, E> {
                Ok(RawValue::Scalar(Value::Integer(value)))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<RawValue, E> {
                i64::try_from(value)
                    .map(|value| RawValue::Scalar(Value::Integer(value)))
                    .map_err(|_| E::custom("the number is too large"))
            }

            fn visit_f64<E>(self, value: f64) -> Result<RawValue, E> {
                Ok(RawValue::Scalar(Value::Float(value)))
            }

            fn visit_str<E>(self, value: &str) -> Result<RawValue, E> {
                Ok(RawValue::Scalar(Value::Text(value.to_owned())))
            }

            fn visit_string<E>(self, value: String) -> Result<RawValue, E> {
                Ok(RawValue::Scalar(Value::Text(value)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RawValue, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = list.next_element()? {
                    all.push(item);
                }
                Ok(RawValue::List(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawValue, A::Error> {
                let mut all = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    all.push((key, map.next_value()?));
                }
                Ok(RawValue::Map(all))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Node>, String> {
        let notes = Notes::default();
        documents(&"a.yaml".into(), text, &notes)
            .ok_or_else(|| notes.into_list().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn every_value_has_its_place() {
        let documents = read("a: 1\nb:\n  - x\n  - {c: true}\n---\n- 2.5\n---\n").expect("YAML");
        let Value::Map(map) = &documents[0].value else { panic!("a mapping") };
        assert_eq!((map[0].1.value.clone(), map[0].1.place.line), (Value::Integer(1), 1));
        let Value::List(list) = &map[1].1.value else { panic!("a list") };
        assert_eq!((list[0].place.line, list[0].place.column), (3, 5));
        let Value::Map(inner) = &list[1].value else { panic!("a mapping") };
        assert_eq!((&inner[0].1.value, inner[0].1.place.line), (&Value::Bool(true), 4));
        assert_eq!(documents[1].place.line, 6);
    }

    #[test]
    fn anchors_are_followed_and_json_is_read() {
        let documents = read("a: &x {n: 5s}\nb: *x\n").expect("YAML");
        let Value::Map(map) = &documents[0].value else { panic!("a mapping") };
        assert_eq!(map[0].1.value, map[1].1.value);
        let json = read("{\"a\": [1, \"x\", null, false]}").expect("JSON");
        let Value::Map(map) = &json[0].value else { panic!("a mapping") };
        let Value::List(list) = &map[0].1.value else { panic!("a list") };
        assert_eq!(list[2].value, Value::Null);
    }

    #[test]
    fn an_error_has_its_place() {
        for (text, at) in [
            ("a: [1, 2\n", "a.yaml:"),
            ("a: 1\na: 2\n", "a.yaml:2:1: error"),
            ("a:\n\tb: 1\n", "a.yaml:2:"),
            ("a: \"x\n", "a.yaml:"),
            ("a: *nowhere\n", "a.yaml:1:4: error"),
        ] {
            let said = read(text).expect_err(text);
            assert!(said.starts_with(at) && said.lines().count() == 1, "{text:?}: {said}");
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let uses = format!("*a{},", level - 1).repeat(10);
            bomb += &format!("a{level}: &a{level} [{uses}]\n");
        }
        assert!(read(&bomb).expect_err("a bomb").contains("a.yaml:"));
        let deep = format!("a: {}{}\n", "[".repeat(500), "]".repeat(500));
        assert!(read(&deep).expect_err("too deep").contains("a.yaml:"));
    }
}
