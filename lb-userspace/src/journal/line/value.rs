//! The values of a line's keys.

use std::{borrow::Cow, fmt, net::SocketAddr, num::NonZeroU16, time::Duration};

use lb_core::{codes::ProbeCode, io::ProbeResult};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::trouble::{Trouble, nearest};

/// A value of any type.
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Unsigned(u64),
    Number(f64),
    Bool(bool),
    Null,
    Other(&'static str),
}

pub(super) fn text<'a>(key: &str, value: Value<'a>) -> Result<Cow<'a, str>, Trouble> {
    match value {
        Value::Text(text) => Ok(text),
        other => Err(expected(key, "a string", &other)),
    }
}

pub(super) fn whole(key: &str, value: &Value<'_>, most: u64) -> Result<u64, Trouble> {
    match value {
        Value::Unsigned(number) if *number <= most => Ok(*number),
        other => Err(expected(key, "a whole number from 0 on", other)),
    }
}

pub(super) fn number(key: &str, value: &Value<'_>) -> Result<u32, Trouble> {
    whole(key, value, u64::from(u32::MAX)).map(|number| number as u32)
}

pub(super) fn status(key: &str, value: &Value<'_>) -> Result<u16, Trouble> {
    match value {
        Value::Unsigned(status @ 100..=999) => Ok(*status as u16),
        other => Err(expected(key, "an HTTP status, 100 to 999", other)),
    }
}

pub(super) fn word<T: Copy>(key: &str, value: &Value<'_>, words: &[(&'static str, T)]) -> Result<T, Trouble> {
    let list = || words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let Value::Text(text) = value else { return Err(expected(key, &format!("one of {}", list()), value)) };
    if let Some((_, value)) = words.iter().find(|(word, _)| word == text) {
        return Ok(*value);
    }
    let help = match nearest(text, words.iter().map(|(word, _)| *word)) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("write one of {}", list()),
    };
    Err(Trouble::new(format!("{} is not a value of `{key}`", quoted(text)), help))
}

pub(super) fn probe(key: &str, value: &Value<'_>) -> Result<ProbeResult, Trouble> {
    if let Value::Unsigned(_) = value {
        return status(key, value).map(ProbeResult::Status);
    }
    let words = [("pass", 0), ("fail", 1), ("timeout", 2)];
    let Value::Text(_) = value else {
        return Err(expected(key, "\"pass\", \"fail\", \"timeout\" or a status", value));
    };
    Ok(match word(key, value, &words)? {
        0 => ProbeResult::Pass,
        1 => ProbeResult::fail(ProbeCode::Unknown, "failed"),
        _ => ProbeResult::fail(ProbeCode::Timeout, "timeout"),
    })
}

pub(super) fn weight(key: &str, value: &Value<'_>) -> Result<Option<NonZeroU16>, Trouble> {
    let number = match value {
        Value::Null => return Ok(None),
        Value::Unsigned(number) => u16::try_from(*number).ok().and_then(NonZeroU16::new),
        Value::Text(_) | Value::Number(_) | Value::Bool(_) | Value::Other(_) => None,
    };
    number.map(Some).ok_or_else(|| expected(key, "a weight, 1 to 65535", value))
}

pub(super) fn only_true(key: &str, value: &Value<'_>) -> Result<bool, Trouble> {
    match value {
        Value::Bool(true) => Ok(true),
        other => Err(expected(key, "true; without it the key is left out", other)),
    }
}

pub(super) fn millis(key: &str, value: &Value<'_>) -> Result<Duration, Trouble> {
    let millis = match value {
        Value::Unsigned(number) => *number as f64,
        Value::Number(number) => *number,
        Value::Text(_) | Value::Bool(_) | Value::Null | Value::Other(_) => f64::NAN,
    };
    // A year; the nanoseconds are then still exact.
    if (0.0..=3.2e10).contains(&millis) {
        return Ok(Duration::from_nanos((millis * 1e6).round() as u64));
    }
    Err(expected(key, "milliseconds", value))
}

pub(super) fn endpoint(key: &str, value: &Value<'_>) -> Result<SocketAddr, Trouble> {
    let Value::Text(text) = value else { return Err(expected(key, "an address with a port", value)) };
    text.parse().map_err(|_| {
        let message = format!("{} is not an address with a port", quoted(text));
        Trouble::new(message, format!("write for example \"{key}\":\"192.0.2.7:40000\""))
    })
}

fn expected(key: &str, what: &str, found: &Value<'_>) -> Trouble {
    let found = match found {
        Value::Text(text) => format!("the string {}", quoted(text)),
        Value::Unsigned(number) => number.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Null => "null".to_owned(),
        Value::Other(what) => (*what).to_owned(),
    };
    Trouble::new(format!("`{key}` is {found}"), format!("write {what}"))
}

/// Text of a line as it may stand in a message: bounded, without control characters.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// Text that is borrowed where it can be.
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Borrowing;
        impl<'de> Visitor<'de> for Borrowing {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Borrowing)
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Unsigned(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other("an object"))
    }
}
