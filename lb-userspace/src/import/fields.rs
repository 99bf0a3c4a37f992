//! Reads a tree field by field, and says of each field that nobody has read that it is lost.

use std::{cell::RefCell, collections::BTreeSet, net::IpAddr, ops::RangeInclusive};

use lb_core::time::Millis;

use super::{
    note::{NoteCode, Notes, Place},
    yaml::{Node, Value},
};

/// A value, with the path at which it stands: `spec.http[0].route`.
#[derive(Clone)]
pub(super) struct Field<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
    pub(super) notes: &'n Notes,
}

impl<'n> Field<'n> {
    pub(super) fn root(node: &'n Node, notes: &'n Notes) -> Self {
        Self { node, path: String::new(), notes }
    }

    pub(super) fn place(&self) -> &'n Place {
        &self.node.place
    }

    pub(super) fn note(&self, code: NoteCode, message: impl Into<String>, help: impl Into<String>) {
        self.notes.add(code, Some(self.place()), &self.path, message, help);
    }

    /// `expected` has its article.
    fn wrong<T>(&self, expected: &str) -> Option<T> {
        let found = self.node.value.kind();
        self.note(NoteCode::WrongType, format!("expected {expected}, found {found}"), "");
        None
    }

    pub(super) fn bad<T>(&self, message: impl Into<String>) -> Option<T> {
        self.note(NoteCode::WrongValue, message, "");
        None
    }

    pub(super) fn text(&self) -> Option<&'n str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => self.wrong("a text"),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match &self.node.value {
            Value::Bool(value) => Some(*value),
            _ => self.wrong("true or false"),
        }
    }

    pub(super) fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        match &self.node.value {
            Value::Integer(value) if range.contains(value) => Some(*value),
            Value::Integer(value) => {
                self.bad(format!("{value} is not between {} and {}", range.start(), range.end()))
            }
            _ => self.wrong("an integer"),
        }
    }

    pub(super) fn port(&self) -> Option<u16> {
        self.integer(1..=65535).and_then(|port| u16::try_from(port).ok())
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        let text = self.text()?;
        text.parse().ok().or_else(|| self.bad(format!("{text:?} is not an IP address")))
    }

    /// A span of time as Go and Protobuf's JSON write it: `5s`, `1h30m`, `1.5s`, `300ms`.
    pub(super) fn duration(&self) -> Option<Millis> {
        let Value::Text(text) = &self.node.value else { return self.wrong("a duration such as 5s") };
        go_duration(text)
            .or_else(|| self.bad(format!("{text:?} is not a duration of at least 1 ms, such as 5s or 500ms")))
    }

    pub(super) fn list(&self) -> Option<Vec<Field<'n>>> {
        let Value::List(list) = &self.node.value else { return self.wrong("a list") };
        let item = |(at, node)| Field { node, path: format!("{}[{at}]", self.path), notes: self.notes };
        Some(list.iter().enumerate().map(item).collect())
    }

    pub(super) fn map(&self) -> Option<Fields<'n>> {
        match &self.node.value {
            Value::Map(map) => {
                Some(Fields { of: self.clone(), map, read: RefCell::default(), is_whole: false.into() })
            }
            _ => self.wrong("a mapping"),
        }
    }

    /// A mapping of texts, such as labels.
    pub(super) fn texts(&self) -> Option<Vec<(&'n str, &'n str)>> {
        let map = self.map()?;
        map.ignore_rest();
        map.entries().map(|(key, field)| Some((key, field.text()?))).collect()
    }
}

/// A mapping. When it goes out of scope, each field that nobody has read is a loss.
pub(super) struct Fields<'n> {
    pub(super) of: Field<'n>,
    map: &'n [(String, Node)],
    read: RefCell<BTreeSet<&'n str>>,
    is_whole: RefCell<bool>,
}

impl<'n> Fields<'n> {
    /// A field that is there and is not null.
    pub(super) fn get(&self, key: &str) -> Option<Field<'n>> {
        let (key, node) = self.map.iter().find(|(name, _)| name == key)?;
        self.read.borrow_mut().insert(key);
        (node.value != Value::Null).then(|| self.child(key, node))
    }

    pub(super) fn required(&self, key: &str) -> Option<Field<'n>> {
        let field = self.get(key);
        if field.is_none() {
            self.of.note(NoteCode::MissingField, format!("the field {key} is missing"), "");
        }
        field
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.map.iter().any(|(name, node)| name == key && node.value != Value::Null)
    }

    /// These say nothing about how traffic is served.
    pub(super) fn ignore(&self, keys: &[&str]) {
        let known = self.map.iter().filter(|(name, _)| keys.contains(&name.as_str()));
        self.read.borrow_mut().extend(known.map(|(name, _)| name.as_str()));
    }

    pub(super) fn ignore_rest(&self) {
        *self.is_whole.borrow_mut() = true;
    }

    /// Each of these that is there is noted with the same message.
    pub(super) fn refuse(&self, keys: &[&str], code: NoteCode, message: &str, help: &str) {
        for field in keys.iter().filter_map(|key| self.get(key)) {
            field.note(code, message, help);
        }
    }

    /// All of them, whether read or not.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'n str, Field<'n>)> {
        self.map.iter().map(|(key, node)| (key.as_str(), self.child(key, node)))
    }

    fn child(&self, key: &str, node: &'n Node) -> Field<'n> {
        let path = match self.of.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        Field { node, path, notes: self.of.notes }
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        if *self.is_whole.borrow() {
            return;
        }
        let read = self.read.borrow();
        for (key, node) in self.map.iter().filter(|(key, _)| !read.contains(key.as_str())) {
            let message = "the import does not know this field";
            self.child(key, node).note(NoteCode::UnknownField, message, "see whether it matters to you");
        }
    }
}

/// Numbers with a unit each, larger units first or not. `None`: it is none, or below 1 ms.
fn go_duration(text: &str) -> Option<Millis> {
    // In microseconds. `ms` comes before `m`, because the first unit that fits is used.
    const UNITS: [(&str, f64); 7] =
        [("ms", 1e3), ("us", 1.0), ("µs", 1.0), ("ns", 1e-3), ("s", 1e6), ("m", 60e6), ("h", 3600e6)];
    const LONGEST: f64 = 365.0 * 24.0 * 3600e6;
    let (mut rest, mut total) = (text, 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let (unit, scale) = UNITS.into_iter().find(|(unit, _)| rest[digits..].starts_with(unit))?;
        total += number * scale;
        rest = &rest[digits + unit.len()..];
    }
    let fits = total == 0.0 || (1e3..=LONGEST).contains(&total);
    fits.then_some(Millis((total / 1e3).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::yaml;

    #[test]
    fn durations_are_those_of_go() {
        for (text, ms) in [
            ("5s", 5000),
            ("0s", 0),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
            ("0.500s", 500),
            ("300ms", 300),
            ("1m1ms", 60_001),
            ("1500us", 2),
        ] {
            assert_eq!(go_duration(text), Some(Millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-5s", "1us", "1..5s", "5x", "99999h", "infs", "1e3s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_field_that_nobody_reads_is_lost() {
        let notes = Notes::default();
        let text = "a: 1\nb: {c: 2, d: null}\ne: x\nf: [y]\n";
        let documents = yaml::documents(&"a.yaml".into(), text, &notes).expect("YAML");
        {
            let root = Field::root(&documents[0], &notes).map().expect("a mapping");
            assert_eq!(root.get("a").and_then(|a| a.integer(0..=9)), Some(1));
            let b = root.get("b").and_then(|b| b.map()).expect("a mapping");
            assert!(b.get("d").is_none() && !b.has("d"));
            root.ignore(&["f"]);
            assert_eq!(root.get("f").and_then(|f| f.text()), None);
        }
        let said: Vec<_> = notes.into_list().iter().map(ToString::to_string).collect();
        let help = "the import does not know this field; see whether it matters to you";
        assert_eq!(
            said,
            [
                format!("a.yaml:2:8: lost: b.c: {help}"),
                format!("a.yaml:3:4: lost: e: {help}"),
                "a.yaml:4:4: error: f: expected a text, found a list".to_owned(),
            ]
        );
    }
}
