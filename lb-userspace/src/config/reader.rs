//! Reads TOML together with the place of every value.
//!
//! A reader takes a [`Node`]. It returns `Some` of a correct value, or notes an error and returns `None`. So `None`
//! always means that an error was noted. A caller reads all its keys before it uses any of them, so that one wrong
//! value hides no other.

use std::ops::RangeInclusive;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    diagnostic::{Class, Code, Problem, Problems, Span},
    keys::{Keys, Unknown},
};

/// A value with its place, or a default with the place of the table that does not have the key.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// One value of the file.
#[derive(Clone)]
pub(super) struct Node<'a> {
    value: Value<'a>,
    pub(super) span: Span,
    pub(super) path: String,
    problems: &'a Problems,
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Root(&'a DeTable<'a>),
    Inner(&'a DeValue<'a>),
}

impl<'a> Node<'a> {
    pub(super) fn root(root: &'a DeTable<'a>, problems: &'a Problems) -> Self {
        Self { value: Value::Root(root), span: 0..0, path: String::new(), problems }
    }

    fn inner(&self, value: &'a Spanned<DeValue<'a>>, path: String) -> Self {
        Node { value: Value::Inner(value.get_ref()), span: value.span(), path, problems: self.problems }
    }

    /// Notes that this value is not allowed.
    pub(super) fn reject<T>(&self, message: impl Into<String>, help: impl Into<String>) -> Option<T> {
        self.note(message.into(), help.into(), None, Class::Value)
    }

    /// The same, with a second place that is involved.
    pub(super) fn conflict<T>(
        &self,
        message: impl Into<String>,
        help: impl Into<String>,
        also: Span,
        label: &'static str,
    ) -> Option<T> {
        self.note(message.into(), help.into(), Some((also, label)), Class::Value)
    }

    /// Notes that this value is allowed and hardly meant.
    pub(super) fn warn(&self, code: Code, message: impl Into<String>, help: impl Into<String>) {
        self.note::<()>(message.into(), help.into(), None, Class::Warning(code));
    }

    /// Notes that something is missing.
    pub(super) fn absent<T>(&self, message: impl Into<String>, help: impl Into<String>) -> Option<T> {
        self.note(message.into(), help.into(), None, Class::Absence)
    }

    fn note<T>(
        &self,
        message: String,
        help: String,
        also: Option<(Span, &'static str)>,
        class: Class,
    ) -> Option<T> {
        let (span, path) = (self.span.clone(), self.path.clone());
        self.problems.note(Problem { span, path, message, help, also, class });
        None
    }

    /// `what` has its article: `a duration`. `example` is a line of the file.
    pub(super) fn expected<T>(&self, what: &str, example: &str) -> Option<T> {
        let found = match self.value {
            Value::Inner(DeValue::Array(_)) => "an array",
            Value::Inner(DeValue::Integer(_)) => "an integer",
            Value::Inner(DeValue::Boolean(_)) => "a boolean",
            Value::Inner(DeValue::Datetime(_)) => "a date",
            Value::Inner(DeValue::Float(_)) => "a number with a fraction",
            Value::Inner(DeValue::String(_)) => "a string",
            Value::Inner(DeValue::Table(_)) | Value::Root(_) => "a table",
        };
        self.reject(format!("expected {what}, found {found}"), format!("write for example `{example}`"))
    }

    /// The last segment of the path, as the file has it.
    pub(super) fn key(&self) -> &str {
        match self.value {
            Value::Root(_) => "",
            Value::Inner(_) => self.path.rsplit('.').next().unwrap_or(&self.path),
        }
    }

    pub(super) fn as_str(&self) -> Option<&'a str> {
        match self.value {
            Value::Inner(value) => value.as_str(),
            Value::Root(_) => None,
        }
    }

    pub(super) fn is_table(&self) -> bool {
        self.as_table().is_some()
    }

    fn as_table(&self) -> Option<&'a DeTable<'a>> {
        match self.value {
            Value::Root(table) => Some(table),
            Value::Inner(value) => value.as_table(),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value {
            Value::Inner(DeValue::Boolean(value)) => Some(*value),
            _ => self.expected("`true` or `false`", &format!("{} = true", self.key())),
        }
    }

    pub(super) fn integer(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let example = *range.start().max(&1);
        self.integer_such_as(example, range)
    }

    pub(super) fn integer_such_as(&self, example: u32, range: RangeInclusive<u32>) -> Option<u32> {
        let Value::Inner(DeValue::Integer(digits)) = self.value else {
            return self.expected("an integer", &format!("{} = {example}", self.key()));
        };
        match u32::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(value) if range.contains(&value) => Some(value),
            Ok(_) | Err(_) => self.reject(
                format!("{} is out of range", short(&digits.to_string())),
                format!("write a number from {} to {}", range.start(), range.end()),
            ),
        }
    }

    pub(super) fn is_integer(&self) -> bool {
        matches!(self.value, Value::Inner(DeValue::Integer(_)))
    }

    /// A number with a fraction, as the file has it.
    pub(super) fn as_float(&self) -> Option<&'a str> {
        match self.value {
            Value::Inner(DeValue::Float(digits)) => Some(digits.as_str()),
            _ => None,
        }
    }

    pub(super) fn is_empty_array(&self) -> bool {
        matches!(self.value, Value::Inner(DeValue::Array(array)) if array.is_empty())
    }

    pub(super) fn items(&self, what: &str, example: &str) -> Option<Vec<Node<'a>>> {
        let Value::Inner(DeValue::Array(array)) = self.value else { return self.expected(what, example) };
        Some(
            array
                .iter()
                .enumerate()
                .map(|(index, value)| self.inner(value, format!("{}[{index}]", self.path)))
                .collect(),
        )
    }

    /// The entries of a table with free keys, in the order of the file.
    pub(super) fn entries(&self, what: &str, example: &str) -> Option<Vec<Entry<'a>>> {
        let Some(table) = self.as_table() else { return self.expected(what, example) };
        let mut entries: Vec<_> = table
            .iter()
            .map(|(key, value)| {
                let name: &'a str = key.get_ref();
                let path = self.child(name);
                let value = self.inner(value, path.clone());
                // The key as a node of its own, so that an error can point at it.
                let key = Node { span: key.span(), path, ..self.clone() };
                Entry { name, key, value }
            })
            .collect();
        entries.sort_by_key(|entry| entry.key.span.start);
        Some(entries)
    }

    fn child(&self, key: &str) -> String {
        let bare =
            !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        let key = if bare { key.to_owned() } else { format!("\"{}\"", short(key)) };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    /// A table with these keys. Other keys are noted as problems, and the table is read all the same.
    pub(super) fn table(&self, keys: &'static Keys, example: &str) -> Option<Table<'a>> {
        let entries = self.entries("a table", example)?;
        let mut meant = Vec::new();
        for entry in entries.iter().filter(|entry| !keys.known.contains(&entry.name)) {
            let name = quoted(entry.name);
            let (message, help) = match keys.unknown(entry.name) {
                Unknown::Planned(planned) => {
                    (format!("`{planned}` is not supported yet"), "remove it".to_owned())
                }
                Unknown::Meant(known) => {
                    meant.push(known);
                    (format!("unknown key {name}"), format!("did you mean `{known}`?"))
                }
                Unknown::Misplaced => (
                    format!("{name} is a key of the top level"),
                    "move it above the first `[service.NAME]`".to_owned(),
                ),
                Unknown::NoIdea => {
                    let known = keys.known.join("`, `");
                    (format!("unknown key {name}"), format!("known here are `{known}`"))
                }
            };
            entry.key.reject::<()>(message, help);
        }
        Some(Table { node: self.clone(), entries, keys, meant })
    }
}

/// A key of a table with its value.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    /// The place of the key.
    pub(super) key: Node<'a>,
    pub(super) value: Node<'a>,
}

/// A table whose keys are known.
pub(super) struct Table<'a> {
    pub(super) node: Node<'a>,
    entries: Vec<Entry<'a>>,
    keys: &'static Keys,
    /// Known keys that unknown ones probably mean. They are not missing, but misspelt.
    meant: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn entry(&self, key: &str) -> Option<&Entry<'a>> {
        debug_assert!(self.keys.known.contains(&key), "{key} is read and hence known");
        self.entries.iter().find(|entry| entry.name == key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The key is missing, and an unknown key that probably means it was noted.
    pub(super) fn is_misspelt(&self, key: &str) -> bool {
        self.meant.contains(&key)
    }

    pub(super) fn node(&self, key: &str) -> Option<&Node<'a>> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The value of a key, or its default when the key is not there.
    pub(super) fn or<T>(
        &self,
        key: &str,
        default: T,
        read: impl FnOnce(&Node<'a>) -> Option<T>,
    ) -> Option<Placed<T>> {
        match self.node(key) {
            Some(node) => read(node).map(|value| Placed { value, span: node.span.clone() }),
            None => Some(Placed { value: default, span: self.node.span.clone() }),
        }
    }

    /// The value of a key that has no default. `example` is shown when it is missing.
    pub(super) fn required<T>(
        &self,
        key: &str,
        example: &str,
        read: impl FnOnce(&Node<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.node(key) {
            Some(node) => read(node),
            None if self.is_misspelt(key) => None,
            None => self.node.absent(format!("`{key}` is missing"), format!("add for example `{example}`")),
        }
    }
}

/// Text of the file for a message: on one line, of limited length, without control characters.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", short(text))
}

fn short(text: &str) -> String {
    const LONGEST: usize = 60;
    let escape = |c: char| if c == '"' || c == '\'' { c.to_string() } else { c.escape_debug().to_string() };
    let mut shown: String = text.chars().take(LONGEST).map(escape).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}
