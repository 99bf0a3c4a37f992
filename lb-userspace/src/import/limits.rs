//! Limits of connections, and clients that stay at one backend.

use toml::Value;

use super::draft::{Entry, Origin};
use crate::config::MAX_CONNECTIONS;

/// `None`: the number limits nothing.
pub(super) fn entry(key: &'static str, most: i64, origin: impl Into<Origin>) -> Option<Entry> {
    (1..=i64::from(MAX_CONNECTIONS)).contains(&most).then(|| Entry::new(key, most, origin))
}

/// One client address, one backend.
pub(super) fn by_source(origin: impl Into<Origin>) -> Entry {
    Entry::new("affinity", Value::from("source"), origin)
}
