//! A configuration in the making: every line with the place that it came from.

use std::net::{IpAddr, SocketAddr};

use lb_core::time::Millis;
use toml::Value;

use super::{fields::Field, note::Place};

/// Where a line of the result comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A field of an input.
    Field { path: String, place: Place },
    /// The input leaves the field out, and its program has a default.
    Default { of: &'static str, field: &'static str },
    /// An option of the command line, or its absence.
    Option(&'static str),
    /// A field, and an option for the rest.
    Both { path: String, place: Place, option: &'static str },
}

impl From<&Field<'_>> for Origin {
    fn from(field: &Field<'_>) -> Self {
        Self::Field { path: field.path.clone(), place: field.place().clone() }
    }
}

impl Origin {
    /// The same, with an option that has given a part.
    pub(super) fn with(self, option: &'static str) -> Self {
        match self {
            Self::Field { path, place } => Self::Both { path, place, option },
            other => other,
        }
    }
}

/// A key of the result.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: &'static str,
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// A sentence without its full stop. Empty: the meaning is the same.
    pub(super) differs: &'static str,
}

impl Entry {
    pub(super) fn new(key: &'static str, value: impl Into<Value>, origin: impl Into<Origin>) -> Self {
        Self { key, value: value.into(), origin: origin.into(), differs: "" }
    }

    pub(super) fn differs(self, differs: &'static str) -> Self {
        Self { differs, ..self }
    }
}

/// The text that a configuration has for a span of time.
pub(super) fn span(span: Millis) -> Value {
    crate::config::shown_duration(span).into()
}

/// A backend.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    /// `None`: the default.
    pub(super) weight: Option<u16>,
    /// `None`: that of the service.
    pub(super) max_connections: Option<u32>,
    pub(super) origin: Origin,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Probe {
    pub(super) kind: &'static str,
    pub(super) entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Service {
    pub(super) name: String,
    /// Its name in the input: `the Service demo/demo-service, port 8081`.
    pub(super) about: String,
    pub(super) entries: Vec<Entry>,
    pub(super) backends: Vec<Member>,
    pub(super) fallback: Vec<Member>,
    /// The file of `[service.NAME.discovery]`, in place of backends.
    pub(super) discovery: Option<Entry>,
    pub(super) probe: Option<Probe>,
    pub(super) breaker: Vec<Entry>,
}

impl Service {
    pub(super) fn new(name: String, about: String) -> Self {
        Self {
            name,
            about,
            entries: Vec::new(),
            backends: Vec::new(),
            fallback: Vec::new(),
            discovery: None,
            probe: None,
            breaker: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Draft {
    pub(super) entries: Vec<Entry>,
    pub(super) services: Vec<Service>,
}

/// A name that a configuration can have: other characters become `-`, and a long one loses its beginning.
pub(super) fn name(text: &str) -> String {
    const LONGEST: usize = 64;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = text.chars().map(|c| if fits(c) { c } else { '-' }).collect();
    let name = &name[name.len().saturating_sub(LONGEST)..];
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

/// The name, or the name with the first number that makes it new.
pub(super) fn unused(name: &str, is_used: impl Fn(&str) -> bool) -> String {
    let numbered = |number: u32| self::name(&format!("{name}-{number}"));
    if is_used(name) {
        (2..).map(numbered).find(|name| !is_used(name)).expect("there are enough numbers")
    } else {
        name.to_owned()
    }
}

/// An address for documents (RFC 5737, RFC 3849), where nobody gave a VIP.
pub(super) fn placeholder(is_ipv6: bool) -> IpAddr {
    if is_ipv6 { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() } else { [192, 0, 2, 1].into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_a_configuration() {
        assert_eq!(name("demo-service"), "demo-service");
        assert_eq!(name("outbound|80||a b"), "outbound-80--a-b");
        assert_eq!(name("__"), "unnamed");
        assert_eq!(name(&"x".repeat(100)).len(), 64);
        assert_eq!(name(&("-".repeat(40) + &"y".repeat(40))), "y".repeat(40));
        assert_eq!(unused("a", |name| name == "a" || name == "a-2"), "a-3");
    }
}
