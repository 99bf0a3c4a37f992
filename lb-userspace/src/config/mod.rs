//! The configuration file: it turns TOML into types that cannot be wrong.
//!
//! [`parse`] reports every error of a file at once, each with its place and a remedy. The checks here need the text
//! alone. The daemon finds out at its start whether an interface exists or a port range is free on the host.
//!
//! Reads the file system in [`load`], and the file of a probe's `ca` wherever a text names one: the certificates are
//! configured, not their path. `dist/shunt.toml`, which is [`EXAMPLE`], describes durations, sizes and defaults.

use std::{
    collections::BTreeMap,
    fmt,
    io::Read,
    net::IpAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use lb_core::{config::Config, time::Millis};
use toml::de::DeTable;

mod breaker;
mod diagnostic;
mod discovery;
mod file;
mod keys;
mod limits;
mod path_mtu;
mod probe;
mod reader;
mod record;
mod reference;
mod service;
mod sources;
#[cfg(test)]
mod tests;
mod timeouts;
mod value;

use diagnostic::{Class, Problem, Problems};
pub use diagnostic::{Code, Diagnostic, Diagnostics};
pub use file::{default_socket, default_state_file};
pub(crate) use limits::MAX_CONNECTIONS;
pub use reference::reference;
pub use value::{parse_duration, shown as shown_duration};

pub use crate::attach_mode::XdpMode;

/// A commented configuration with every key and its default.
pub const EXAMPLE: &str = include_str!("../../../dist/shunt.toml");

/// The largest file that is read. A thousand services with their backends take a fraction of it.
pub const MAX_BYTES: usize = 1 << 20;

/// The default of `nat_ports`.
pub const DEFAULT_NAT_PORTS: RangeInclusive<u16> = 1024..=32767;
/// The default of `max_flows`.
pub const DEFAULT_MAX_FLOWS: u32 = 131_072;

/// A valid configuration file with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Names the pinned maps, the control socket and the state file. Default `default`.
    pub instance: String,
    /// At least one, each once.
    pub interfaces: Vec<String>,
    pub xdp_mode: XdpMode,
    /// Default `/run/shunt/control.sock`; for another instance `/run/shunt/INSTANCE.sock`.
    pub control_socket: PathBuf,
    /// The state file. Default `/var/lib/shunt/state.json`; for another instance
    /// `/var/lib/shunt/INSTANCE.json`.
    pub state_file: PathBuf,
    /// Where the BPF file system is mounted. Default `/sys/fs/bpf`.
    pub bpffs: PathBuf,
    /// Source addresses in `nat` mode. Empty: the preferred source of the route to each backend.
    pub nat_addresses: Vec<IpAddr>,
    /// Source ports in `nat` mode. Default 1024-32767.
    pub nat_ports: RangeInclusive<u16>,
    /// The program handles tagged frames with these ids, 1 to 4094. Default none.
    pub vlans: Vec<u16>,
    /// Flows that the flow tables can hold. Default 131072.
    pub max_flows: u32,
    /// How many connections each CPU begins in a second at most. 0: no limit. Default 500 000.
    pub max_new_flows_per_second: u32,
    /// How much of a flow table, or of a backend's NAT ports, one source prefix may hold once they are three quarters
    /// full, in percent. 100: no limit. Default 10.
    pub max_source_share: u8,
    pub min_path_mtu: MinPathMtu,
    pub log: LogLevel,
    pub record: Option<Record>,
    pub timeouts: Timeouts,
    pub core: Config,
    /// By service: where its backends come from, if not from this file. In `core` these services have none.
    pub discovery: BTreeMap<String, Discovery>,
    /// Values that are allowed and hardly meant.
    pub warnings: Option<Diagnostics>,
}

/// `[service.NAME.discovery]`: another program keeps the backends of the service in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    pub file: PathBuf,
    /// How often its content is compared. Default 1 s.
    pub interval: Millis,
}

impl Discovery {
    const INTERVAL: Millis = Millis::secs(1);
}

/// `min_path_mtu`: the program drops ICMP errors that report a smaller path MTU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinPathMtu {
    /// Default 552.
    pub ipv4: u16,
    /// Default 1280.
    pub ipv6: u16,
}

impl Default for MinPathMtu {
    fn default() -> Self {
        Self { ipv4: 552, ipv6: 1280 }
    }
}

/// `[timeouts]`: the daemon removes a flow that was silent for this long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Default 15 minutes.
    pub established: Millis,
    /// Both ends have closed, and one of them has not acknowledged it. Default 30 s.
    pub closing: Millis,
    /// From the SYN on. Default 5 s.
    pub handshake: Millis,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { established: Millis::secs(15 * 60), closing: Millis::secs(30), handshake: Millis::secs(5) }
    }
}

/// `[record]`: the recording of the breaker's inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub path: PathBuf,
    /// The size of one file in bytes. Default 64 MiB.
    pub max_size: u64,
    /// How many files there are, with the one that is written. Default 4.
    pub files: u32,
}

/// The defaults. The path has none.
impl Default for Record {
    fn default() -> Self {
        Self { path: PathBuf::new(), max_size: 64 << 20, files: 4 }
    }
}

/// The log level of the daemon. Displays as a filter directive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read {path}")]
    Io { path: String, source: std::io::Error },
    #[error(transparent)]
    Invalid(Diagnostics),
}

/// Reads and parses the file at `path`.
pub fn load(path: &Path) -> Result<File, LoadError> {
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|source| LoadError::Io { path: name.clone(), source })?;
    read(&name, file)
}

/// The same of an open file. `name` is what the errors call it.
pub fn read(name: &str, file: impl Read) -> Result<File, LoadError> {
    let mut bytes = Vec::new();
    // One byte more than the limit shows that the file is too large.
    file.take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| LoadError::Io { path: name.to_owned(), source })?;
    parse_bytes(name, &bytes).map_err(LoadError::Invalid)
}

/// Like [`parse`], for bytes that may not be text.
pub fn parse_bytes(name: &str, bytes: &[u8]) -> Result<File, Diagnostics> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(name, text),
        Err(_) if bytes.len() > MAX_BYTES => Err(too_large(name)),
        Err(error) => {
            let text = String::from_utf8_lossy(bytes);
            let shown = without_mark(&text);
            let at = error.valid_up_to() - (text.len() - shown.len());
            let problem = Problem {
                // The replacement character in the text of the report.
                span: at..at + char::REPLACEMENT_CHARACTER.len_utf8(),
                path: String::new(),
                message: "the file is not UTF-8".to_owned(),
                help: "save it as UTF-8 text".to_owned(),
                also: None,
                class: Class::Syntax,
            };
            Err(Diagnostics::new(name, shown, vec![problem]))
        }
    }
}

/// Parses a configuration. `name` is what the errors call the file.
pub fn parse(name: &str, text: &str) -> Result<File, Diagnostics> {
    if text.len() > MAX_BYTES {
        return Err(too_large(name));
    }
    let text = without_mark(text);
    let problems = Problems::default();
    let (root, syntax) = DeTable::parse_recoverable(text);
    for error in syntax {
        problems.note(syntax_problem(text, &error));
    }
    let file = file::read(&reader::Node::root(root.get_ref(), &problems));
    let (errors, warnings) = problems.into_parts();
    match file {
        Some(file) if errors.is_empty() => {
            let warnings = (!warnings.is_empty()).then(|| Diagnostics::new(name, text, warnings));
            Ok(File { warnings, ..file })
        }
        Some(_) | None => Err(Diagnostics::new(name, text, errors)),
    }
}

/// The text without the byte order mark that some editors write. It takes no column.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn too_large(name: &str) -> Diagnostics {
    let message = format!("the file is larger than {} KiB", MAX_BYTES >> 10);
    Diagnostics::whole(name, message, "is this the right file? a configuration is a few KiB of TOML")
}

fn syntax_problem(text: &str, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..0);
    let said = error.message();
    let text = text.get(span.clone()).unwrap_or_default();
    let (message, help) = syntax_words(said, text);
    Problem { span, path: String::new(), message, help: help.to_owned(), also: None, class: Class::Syntax }
}

/// The message of the TOML parser about `text`, and the remedy.
fn syntax_words(said: &str, text: &str) -> (String, &'static str) {
    let says = |word: &str| said.contains(word);
    let asis = said.to_owned();
    if said == "duplicate key" {
        (format!("{} is defined twice", reader::quoted(text)), "remove or rename one of them")
    } else if says("must be quoted") && text.is_empty() {
        ("the value is missing".to_owned(), "write a value after `=`")
    } else if says("must be quoted") {
        (format!("{} is not a value", reader::quoted(text)), "put a string in double quotes")
    } else if says("key with no value") {
        (asis, "write `key = value`")
    } else if says("cannot extend value") {
        (asis, "write the table in one place, in braces or under a header of its own")
    } else if says(diagnostic::ARRAY_GOES_ON) || says("array") && !says("table") {
        (asis, "separate values by commas and close the array with `]`")
    } else if says("inline table") {
        (asis, "separate entries by commas and close the table with `}`")
    } else if says("unclosed") && says("table") {
        (asis, "close the header with `]`")
    } else if says("basic string") {
        (asis, "close the string with `\"` on the same line; write `\\\\` for a backslash")
    } else {
        (asis, "the file is TOML: `key = \"value\"`, tables as `[service.web]`, comments after `#`")
    }
}
