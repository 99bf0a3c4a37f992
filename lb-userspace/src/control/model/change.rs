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
    /// The changes that were made, or that a dry run would make.
    pub changes: Vec<Change>,
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

lb_core::codes! {
    /// Something that a reload would break, or that would not work after it. In `hazards`.
    HazardCode {
        /// Frames would not reach the backend; `path` has the cause.
        Unreachable = "unreachable",
        /// Clients of open connections are behind an interface that would be detached.
        InterfaceInUse = "interface_in_use",
    }
}

impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}

/// One change of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub code: ChangeCode,
    /// In a sentence.
    pub says: String,
}

lb_core::codes! {
    /// A change that a reload makes. In `changes`.
    ChangeCode {
        /// An interface is attached.
        InterfaceAttached = "interface_attached",
        /// An interface is detached.
        InterfaceDetached = "interface_detached",
        /// A service is added.
        ServiceAdded = "service_added",
        /// A service is removed.
        ServiceRemoved = "service_removed",
        /// A service has another VIP.
        Vip = "vip",
        /// A key or table of a service has changed; the sentence names it.
        Policy = "policy",
        /// A backend is added.
        BackendAdded = "backend_added",
        /// A backend is removed.
        BackendRemoved = "backend_removed",
        /// A backend has another address, so it is another backend.
        BackendAddress = "backend_address",
        /// A backend has another weight.
        BackendWeight = "backend_weight",
        /// A backend is of the fallback now, or no more.
        BackendFallback = "backend_fallback",
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

lb_core::codes! {
    /// The kind of a problem. In `kind` of every response that is not 200.
    ProblemKind {
        /// No service has this name.
        UnknownService = "unknown_service",
        /// No backend of the service has this name.
        UnknownBackend = "unknown_backend",
        /// Refused to protect traffic: too few backends would serve. `force` overrides this.
        Floor = "floor",
        /// Refused to protect traffic: a reload with hazards. `force` overrides this, a dry run lists them.
        Hazard = "hazard",
        /// The configuration is wrong; nothing has changed.
        InvalidConfig = "invalid_config",
        /// Only root and the daemon's user may change anything.
        Forbidden = "forbidden",
        /// The request cannot be read.
        BadRequest = "bad_request",
        /// The API has no such path.
        NoSuchPath = "no_such_path",
        /// The path does not know the method.
        NoSuchMethod = "no_such_method",
        /// The daemon does not answer, is stopping, or failed.
        Unavailable = "unavailable",
    }
}

// Of a response without a kind.
#[allow(clippy::derivable_impls)]
impl Default for ProblemKind {
    fn default() -> Self {
        Self::Unavailable
    }
}
