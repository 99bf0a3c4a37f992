//! What goes into the engine and what comes out.

use std::{fmt, net::SocketAddr, num::NonZeroU16, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, Mode, NoBackend, ProbeKind, Sources},
    event::Event,
    time::Millis,
};
pub use crate::{
    ids::{Adopted, BackendId, Generation, ServiceId},
    outcome::{L4Failure, Outcome, ProbeResult},
};

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
        flow_reset: FlowReset,
        /// Its good responses may be counted instead of told.
        count_successes: bool,
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
