//! Limits of connections, and clients that stay at one backend.

use toml::Value;

use super::draft::{Entry, Origin};

/// The largest limit that a configuration may have. A larger one is none.
const MOST: i64 = 1 << 24;

/// `None`: the number limits nothing.
pub(super) fn entry(key: &'static str, most: i64, origin: impl Into<Origin>) -> Option<Entry> {
    (1..=MOST).contains(&most).then(|| Entry::new(key, most, origin))
}

/// One client address, one backend.
pub(super) fn by_source(origin: impl Into<Origin>) -> Entry {
    Entry::new("affinity", Value::from("source"), origin)
}
