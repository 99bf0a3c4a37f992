//! Requests that change something, and the responses to them.

use lb_core::io::Verb;
use serde::{Deserialize, Serialize};

/// `POST /v1/backends/SERVICE/BACKEND`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// `"enable"`, `"disable"`, `"drain"`, `"eject"`, `"admit"`, `{"weight": 50}`, or `{"weight": null}` for
    /// the configured weight.
    pub verb: Verb,
    /// How long the order holds. Absent: until an operator takes it back. An ejection without it lasts as long as
    /// one by the breaker.
    #[serde(default)]
    pub for_ms: Option<u64>,
    #[serde(default)]
    pub reason: Option<String>,
    /// Carry it out even if fewer than `min_serving` backends would serve.
    #[serde(default)]
    pub force: bool,
    /// The user behind an order that root gives. The daemon ignores it if another user asks.
    #[serde(default)]
    pub on_behalf_of: Option<String>,
}

/// `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The generation of the configuration that is now in force.
    pub config_generation: u64,
    /// One sentence for each change that was made, or that a dry run would make.
    pub changes: Vec<String>,
    /// Keys that changed in the file and that need a restart.
    pub needs_restart: Vec<String>,
    /// The daemon changed nothing: the request was a dry run.
    pub dry_run: bool,
}

/// The body of every response that is not 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    #[serde(default)]
    pub kind: ProblemKind,
    pub error: String,
    /// The remedy.
    pub remedy: String,
}

/// The kind of a problem, for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    UnknownService,
    UnknownBackend,
    /// Refused to protect traffic: too few backends would serve. `force` overrides this.
    Floor,
    /// The configuration is wrong; nothing has changed.
    InvalidConfig,
    /// Only root and the daemon's user may change anything.
    Forbidden,
    BadRequest,
    NoSuchPath,
    NoSuchMethod,
    /// The daemon does not answer, is stopping, or failed.
    #[default]
    Unavailable,
}
