//! The document in a discovery file: JSON of schema 1.
//!
//! ```json
//! { "schema": 1, "source": "shunt-kube", "generated_at": "2026-12-01T10:00:00Z", "backends": [
//!   { "name": "pod-a", "address": "10.0.0.11:8080", "weight": 100, "state": "ready", "id": "uid-1" } ] }
//! ```

use std::{collections::HashMap, fmt::Display, hash::Hash, net::SocketAddr, num::NonZeroU16};

use lb_core::{
    codes::DiscoveryCode,
    config::{Backend, Discovered},
    snapshot::Standing,
};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::fault::Fault;
use crate::{
    naming,
    printable::{printable, unprintable},
};

/// The version of the names and meanings in the document.
pub const SCHEMA: u64 = 1;

/// The largest file that the daemon reads. As many backends as the maps hold take about half of it.
pub const MAX_BYTES: u64 = 4 << 20;

/// A longer text is no identity and no name of a program.
const LONGEST_TEXT: usize = 256;

const DEFAULT_WEIGHT: NonZeroU16 = NonZeroU16::new(100).expect("a literal above 0");

/// A set of backends as a file has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// The program that wrote it.
    pub source: Option<String>,
    /// When that program made it, in its own words.
    pub generated_at: Option<String>,
    pub backends: Vec<Backend>,
}

/// Reads a document. An error says where the document is wrong.
pub fn parse(bytes: &[u8]) -> Result<Document, Fault> {
    /// The part that every schema has.
    #[derive(Deserialize)]
    struct Versioned {
        schema: Option<u64>,
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large());
    }
    let broken = |error: serde_json::Error| Fault::new(DiscoveryCode::Broken, printable(&error.to_string()));
    let Versioned { schema } = serde_json::from_slice(bytes).map_err(broken)?;
    match schema {
        Some(SCHEMA) => {}
        Some(other) => {
            let says = format!("the document has schema {other}, and this daemon reads schema {SCHEMA}");
            return Err(Fault::new(DiscoveryCode::OtherSchema, says));
        }
        None => {
            let says = format!("the document has no `schema`, which must be {SCHEMA}");
            return Err(Fault::new(DiscoveryCode::Broken, says));
        }
    }
    let Raw { schema: _, source, generated_at, backends } = serde_json::from_slice(bytes).map_err(broken)?;
    check_twice("name", backends.iter().map(|of| &of.name))?;
    check_twice("address", backends.iter().map(|of| &of.address))?;
    Ok(Document { source, generated_at, backends: backends.into_iter().map(Entry::into_backend).collect() })
}

pub(super) fn too_large() -> Fault {
    Fault::new(DiscoveryCode::TooLarge, format!("the file is larger than {} MiB", MAX_BYTES >> 20))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[expect(dead_code, reason = "it was looked at before")]
    schema: u64,
    #[serde(default, deserialize_with = "text")]
    source: Option<String>,
    #[serde(default, deserialize_with = "text")]
    generated_at: Option<String>,
    backends: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(deserialize_with = "name")]
    name: String,
    #[serde(deserialize_with = "endpoint")]
    address: SocketAddr,
    #[serde(default = "default_weight")]
    weight: NonZeroU16,
    #[serde(default)]
    state: Standing,
    #[serde(default, deserialize_with = "text")]
    id: Option<String>,
}

impl Entry {
    fn into_backend(self) -> Backend {
        let Self { name, address, weight, state, id } = self;
        let discovered = Some(Discovered { standing: state, identity: id });
        Backend {
            name,
            address,
            weight: weight.get(),
            probe_address: None,
            max_connections: None,
            discovered,
        }
    }
}

const fn default_weight() -> NonZeroU16 {
    DEFAULT_WEIGHT
}

// Errors of these functions get line and column from serde_json.

fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if naming::is_name(&text) {
        return Ok(text);
    }
    Err(D::Error::custom(format!("`{}` is not a name: {}", short(&text), naming::A_NAME)))
}

fn endpoint<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    let Ok(address) = text.parse::<SocketAddr>() else {
        let says = format!("`{}` is not an address with a port, such as 10.0.0.11:8080", short(&text));
        return Err(D::Error::custom(says));
    };
    // A zone would be lost in silence.
    if text.contains('%') {
        return Err(D::Error::custom(format!("`{}` names a zone", short(&text))));
    }
    if let Some(kind) = naming::unfit_host(address.ip()) {
        return Err(D::Error::custom(format!("{} is {kind}", address.ip())));
    }
    match address.port() {
        0 => Err(D::Error::custom("port 0 cannot be used")),
        _ => Ok(address),
    }
}

/// A text that may be shown, of a limited length.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
    if text.is_empty() || text.chars().count() > LONGEST_TEXT {
        return Err(D::Error::custom(format!("a text has 1 to {LONGEST_TEXT} characters")));
    }
    if let Some(odd) = unprintable(&text) {
        return Err(D::Error::custom(format!("a text has no character {}", odd.escape_default())));
    }
    Ok(Some(text))
}

fn check_twice<T: Eq + Hash + Display>(what: &str, values: impl Iterator<Item = T>) -> Result<(), Fault> {
    let mut seen = HashMap::new();
    for (place, value) in values.enumerate() {
        let says =
            |first| format!("backends[{place}]: the {what} `{value}` is that of backends[{first}], too");
        if let Some(first) = seen.get(&value) {
            return Err(Fault::new(DiscoveryCode::Broken, says(*first)));
        }
        seen.insert(value, place);
    }
    Ok(())
}

fn short(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    printable(&shown)
}
