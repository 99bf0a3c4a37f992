//! What goes into the engine and what comes out.

use std::{fmt, net::SocketAddr, num::NonZeroU16, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, Mode, NoBackend, ProbeKind, Sources},
    event::Event,
    time::Millis,
};

/// Index of a service in the maps. Below `lb_common::MAX_SERVICES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceId(pub u16);

/// Index of a backend in the maps. Below `lb_common::MAX_BACKENDS`. An id is
/// given again after its owner was removed; the generation tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackendId(pub u16);

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Grows with each owner of a [`BackendId`]. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

/// A backend that the maps of an earlier run still hold. The engine gives the
/// same id and generation to a configured backend with the same VIP and address,
/// so that its flows stay its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    pub service: ServiceId,
    /// `None`: the service has left already, and this backend was to follow.
    pub vip: Option<SocketAddr>,
    /// It gets new connections. Of two with one address that one goes on.
    pub admits: bool,
    pub id: BackendId,
    pub generation: Generation,
    pub address: SocketAddr,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The whole configuration: at start, and at each reload.
    Config(Arc<Config>),
    /// What one exchange with a backend showed. Ignored when the generation is not the id's present one.
    /// `ttfb`: from the request to the first byte of the response, where that is known.
    Outcome {
        backend: BackendId,
        generation: Generation,
        outcome: Outcome,
        ttfb: Option<Duration>,
        client: Option<SocketAddr>,
    },
    /// The answer to one [`ProbeRequest`].
    Probe { backend: BackendId, generation: Generation, result: ProbeResult },
    /// The answer to one [`Plan`].
    Applied { plan: u64, result: Result<(), StepFailure> },
    /// Good responses that were counted and not told one by one. None of them came between a failure and the next
    /// good response that was told: they end no run.
    Successes { backend: BackendId, count: u64 },
    /// Response heads of a backend that the mirror could not deliver.
    EvidenceLost { backend: BackendId, lost: u64 },
    /// Time passes.
    Tick,
}

/// What an operator wants of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub service: String,
    pub backend: String,
    pub verb: Verb,
    /// How long `disable`, `drain`, `weight` and `eject` hold. `None`: until taken back; for `eject`, as
    /// long as the breaker would.
    #[serde(default)]
    pub duration: Option<Millis>,
    #[serde(default)]
    pub reason: Option<String>,
    /// Whoever it is.
    pub actor: String,
    /// Even if less than `min_serving` would serve.
    #[serde(default)]
    pub force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Takes `disable` and `drain` back.
    Enable,
    /// Out, also in a panic.
    Disable,
    /// No new connections.
    Drain,
    /// Opens the breaker, whatever the ceiling says and whether or not it is enforced.
    Eject,
    /// Closes the breaker.
    Admit,
    /// Another weight than the configured one. `None` takes it back.
    Weight(Option<NonZeroU16>),
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Drain => "drain",
            Self::Eject => "eject",
            Self::Admit => "admit",
            Self::Weight(_) => "weight",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    Failure(L4Failure),
    /// The first answer on a connection whose responses cannot be read: TLS, HTTP/2, anything else.
    /// A success as far as it goes, and the only one that such a connection has to show.
    Answered,
    /// A response that cannot be read. Counts for nothing.
    Opaque,
}

/// Why an exchange had no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum L4Failure {
    /// A reset answered the SYN.
    ConnectRefused,
    /// Nothing answered the SYN.
    ConnectTimeout,
    /// A reset came before any byte of the response.
    Reset,
    /// The backend closed before any byte of the response.
    NoResponse,
    /// No head within `response_timeout`.
    ResponseTimeout,
}

impl L4Failure {
    /// The status it counts as while L4 failures are not split off.
    pub const fn status(self) -> u16 {
        match self {
            Self::ConnectRefused | Self::ConnectTimeout | Self::Reset | Self::NoResponse => 503,
            Self::ResponseTimeout => 504,
        }
    }
}

impl fmt::Display for L4Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::Reset => "reset",
            Self::NoResponse => "no_response",
            Self::ResponseTimeout => "response_timeout",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    Pass,
    /// An HTTP probe was answered with this; the probe's `expect` and `fail_fast` say what it means.
    Status(u16),
    /// What went wrong, in a few words: `status 503`, `connection refused`, `timeout`.
    Fail(String),
}

impl fmt::Display for ProbeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.pad("pass"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Fail(what) => f.pad(what),
        }
    }
}

/// The first step of a plan that failed; those before it hold, those after it were not tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFailure {
    pub index: usize,
    pub error: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Dataplane(Plan),
    Probe(ProbeRequest),
    Event(Box<Event>),
}

/// Map writes for one service, to be done in order and answered by one
/// [`Input::Applied`]. At most one plan per service is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub id: u64,
    pub service: ServiceId,
    pub steps: Vec<Step>,
}

impl Plan {
    /// The highest id of a backend that it writes.
    pub fn highest(&self) -> Option<BackendId> {
        let written = |step: &Step| match step {
            Step::Backend { id, .. } => Some(*id),
            Step::Service { .. }
            | Step::RemoveService { .. }
            | Step::RemoveBackend { .. }
            | Step::Budget { .. }
            | Step::Table { .. } => None,
        };
        self.steps.iter().filter_map(written).max()
    }
}

/// One map write. Each is absolute and may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Service {
        id: ServiceId,
        vip: SocketAddr,
        mode: Mode,
        no_backend: NoBackend,
        evidence: bool,
        redispatch: bool,
        sources: Sources,
        /// Half-open backends that are offered new connections, at most `lb_common::abi::TRIAL_SLOTS`.
        trials: Vec<BackendId>,
    },
    RemoveService {
        id: ServiceId,
        vip: SocketAddr,
    },
    Backend {
        id: BackendId,
        service: ServiceId,
        address: SocketAddr,
        generation: Generation,
        admit: Admit,
        cut: FlowReset,
        /// Its good responses may be counted instead of told.
        quiet: bool,
    },
    RemoveBackend {
        id: BackendId,
    },
    /// Sets the number of trial connections that are left.
    Budget {
        id: BackendId,
        tokens: u32,
    },
    /// Builds the Maglev table of these members and swaps it in. Empty: nobody serves.
    Table {
        service: ServiceId,
        members: Vec<Member>,
    },
}

/// Whom the packet path gives new connections to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    All,
    /// Only out of its budget.
    Trials,
    None,
}

/// What becomes of the connections that a backend has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowReset {
    /// They go on.
    #[default]
    Never,
    /// They end where their client begins its next request, or when they are idle.
    AtRequest,
    /// They end.
    Now,
}

/// A backend in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: BackendId,
    pub weight: u16,
    /// What its place in the table is computed from, so that it does not depend on ids or order.
    pub address: SocketAddr,
}

/// One probe to send now. Answered by [`Input::Probe`] within `timeout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    pub backend: BackendId,
    pub generation: Generation,
    pub address: SocketAddr,
    pub kind: Arc<ProbeKind>,
    pub timeout: Millis,
}
