//! Requests that change something, and the responses to them.

use std::fmt;

use lb_core::{io::Verb, snapshot::PathState};
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
    /// Each thing that will not work after it. Without `force` nothing changes because of them.
    #[serde(default)]
    pub hazards: Vec<Hazard>,
    /// The daemon changed nothing: the request was a dry run.
    pub dry_run: bool,
}

/// Something that a reload would break, or that would not work after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hazard {
    pub code: HazardCode,
    /// `SERVICE/BACKEND`, or the name of an interface.
    pub subject: String,
    /// The path of a backend that is `unreachable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathState>,
    /// The cause and the remedy.
    pub message: String,
}

/// The kind of a hazard, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HazardCode {
    /// Frames would not reach the backend.
    Unreachable,
    /// Clients of open connections are behind an interface that would be detached.
    InterfaceInUse,
}

impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
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
    /// Refused to protect traffic: a reload with [hazards](Hazard). `force` overrides this, a dry run lists them.
    Hazard,
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
