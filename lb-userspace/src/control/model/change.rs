//! What can be changed, and the answers to it.

use lb_core::io::Verb;
use serde::{Deserialize, Serialize};

/// `POST /v1/backends/SERVICE/BACKEND`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// `"enable"`, `"disable"`, `"drain"`, `"eject"`, `"admit"`, `{"weight": 50}`, or `{"weight": null}` for
    /// the configured one.
    pub verb: Verb,
    /// How long it holds. Absent: until it is taken back; of an ejection, as long as the breaker would have it.
    #[serde(default)]
    pub for_ms: Option<u64>,
    #[serde(default)]
    pub reason: Option<String>,
    /// Even if fewer than `min_serving` would serve.
    #[serde(default)]
    pub force: bool,
    /// Whose word it is, where root asks for somebody. Others speak for themselves.
    #[serde(default)]
    pub on_behalf_of: Option<String>,
}

/// `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Of the configuration that is now in force.
    pub config_generation: u64,
    /// What changed, or would: a sentence each.
    pub changes: Vec<String>,
    /// Keys that changed in the file and take effect with a restart only.
    pub needs_restart: Vec<String>,
    /// Nothing was done: it was only asked for.
    pub dry_run: bool,
}

/// The body of every answer that is not 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    #[serde(default)]
    pub kind: ProblemKind,
    pub error: String,
    /// What the caller can do about it.
    pub remedy: String,
}

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    UnknownService,
    UnknownBackend,
    /// Refused to protect traffic: too few would serve. `force` would do it.
    Floor,
    /// The configuration is wrong; nothing has changed.
    InvalidConfig,
    /// Changes are for root and the daemon's user.
    Forbidden,
    BadRequest,
    NoSuchPath,
    NoSuchMethod,
    /// The daemon does not answer, is stopping, or failed.
    #[default]
    Unavailable,
}
