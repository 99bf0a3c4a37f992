//! The inputs and the outputs of the engine.

use std::{
    fmt,
    net::SocketAddr,
    num::{NonZeroU8, NonZeroU16},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    codes::EventReason,
    config::{Config, Mode, NoBackend, ProbeKind, ServiceLimit, Sources},
    event::Event,
    states::PathState,
    time::Millis,
};
pub use crate::{
    ids::{Adopted, BackendId, Generation, ServiceId},
    outcome::{ClientCounts, Context, L4Failure, Outcome, ProbeFailure, ProbeResult},
};

#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The whole configuration: at start, and at each reload.
    Config(Arc<Config>),
    /// The outcome of one exchange with a backend. The engine ignores it if the id has another generation now.
    /// `ttfb`: from the request to the first byte of the response, where that is known.
    Outcome {
        backend: BackendId,
        generation: Generation,
        outcome: Outcome,
        ttfb: Option<Duration>,
        client: Option<SocketAddr>,
        context: Context,
    },
    /// The result of one [`Output::Confirm`]. `answered`: since then the backend has answered the SYN of a
    /// client.
    Confirmation { backend: BackendId, generation: Generation, result: ProbeResult, answered: bool },
    /// A half-open backend has used trials of its present budget.
    TrialsTaken { backend: BackendId },
    /// The result of one [`ProbeRequest`].
    Probe { backend: BackendId, generation: Generation, result: ProbeResult },
    /// Whether the packet path can reach a backend, when that changes. Until the first, it can.
    Path { backend: BackendId, generation: Generation, path: PathState },
    /// The result of one [`Plan`].
    Applied { plan: u64, result: Result<(), StepFailure> },
    /// Good responses that the program counted and did not mirror. None of them came between a failure and the
    /// next mirrored good response, so they end no run.
    Successes { backend: BackendId, count: u64 },
    /// Response heads of a backend that were lost on the way to the daemon.
    EvidenceLost { backend: BackendId, lost: u64 },
    /// How many connections of one of [`Engine::leaving`](crate::Engine::leaving) the flow tables have, half-open
    /// handshakes included.
    Remaining { backend: BackendId, generation: Generation, connections: u64 },
    /// An interface of the node has changed its condition. The engine makes an event of it, and decides nothing.
    Interface { name: String, from: String, to: String, reason: EventReason, detail: Option<String> },
    /// The source of a discovered service has failed, or works again. The engine makes an event of it, and decides
    /// nothing.
    Discovery { service: String, from: String, to: String, reason: EventReason, detail: Option<String> },
    /// SYNs of a service have found it, or all of its backends, full: so many since the last of these inputs. 0: none any
    /// more. The engine makes an event of it, and decides nothing.
    Full { service: ServiceId, refused: u64, was_full: bool },
    /// Time passes.
    Tick,
}

impl Input {
    /// An outcome of which nothing more is known.
    pub fn outcome(backend: BackendId, generation: Generation, outcome: Outcome) -> Self {
        Self::Outcome { backend, generation, outcome, ttfb: None, client: None, context: Context::default() }
    }
}

/// An operator's order for one backend.
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
    /// Name of the operator.
    pub actor: String,
    /// Carries out the order even if fewer than `min_serving` would serve.
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
    /// Opens the breaker, above the ceiling and without enforcement, too.
    Eject,
    /// Closes the breaker.
    Admit,
    /// Replaces the configured weight. `None` takes that back.
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

/// The step at which a plan failed. The steps before it hold. The steps after it were not tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFailure {
    pub index: usize,
    pub error: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Dataplane(Plan),
    Probe(ProbeRequest),
    /// A connection of Shunt's own to a suspect, beside its probes.
    Confirm(ProbeRequest),
    Event(Box<Event>),
}

/// Map writes for one service, in order. One [`Input::Applied`] reports their result. At most one plan per service is under way.
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
        /// So many bits of a client's address choose the backend.
        affinity: Option<NonZeroU8>,
        /// Its connections count.
        limit: Option<ServiceLimit>,
        sources: Sources,
        /// Half-open backends that get trials, at most `lb_common::abi::TRIAL_SLOTS`.
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
        /// The program may count its good responses instead of mirroring them.
        count_successes: bool,
        /// A handshake that it does not take continues with another backend.
        redispatch: bool,
        /// 0: no limit.
        max_connections: u32,
    },
    RemoveBackend {
        id: BackendId,
    },
    /// Sets the number of trial connections that are left.
    Budget {
        id: BackendId,
        tokens: u32,
    },
    /// Builds the Maglev table of these members and swaps it in. Empty: no backend serves.
    Table {
        service: ServiceId,
        members: Vec<Member>,
    },
}

/// The new connections that the packet path gives to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    All,
    /// Trials, as long as its budget lasts.
    Trials,
    None,
}

/// How the connections of a backend end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowReset {
    /// Shunt does not end them.
    #[default]
    Never,
    /// Each ends when its client begins the next request, or when it is idle.
    AtRequest,
    /// All of them end now.
    Now,
}

/// A backend in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: BackendId,
    pub weight: u16,
    /// Its slots in the table are computed from the address, so that they depend neither on ids nor on order.
    pub address: SocketAddr,
}

/// One probe to send now. [`Input::Probe`] has to report its result within `timeout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    pub backend: BackendId,
    pub generation: Generation,
    pub address: SocketAddr,
    pub kind: Arc<ProbeKind>,
    pub timeout: Millis,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a recording calls them, and in a column.
    #[test]
    fn orders_have_the_names_of_their_commands() {
        for verb in [Verb::Enable, Verb::Disable, Verb::Drain, Verb::Eject, Verb::Admit] {
            assert_eq!(serde_json::to_value(verb).expect("a word"), verb.to_string());
        }
        assert_eq!(format!("{:>7}", Verb::Weight(None)), " weight");
    }

    #[test]
    fn a_plan_knows_the_highest_backend_that_it_writes() {
        let backend = |id| Step::Backend {
            id: BackendId(id),
            service: ServiceId(1),
            address: "10.0.0.1:80".parse().expect("literal"),
            generation: Generation(1),
            admit: Admit::All,
            flow_reset: FlowReset::Never,
            count_successes: false,
            redispatch: false,
            max_connections: 0,
        };
        let plan = |steps| Plan { id: 1, service: ServiceId(1), steps };
        let steps = vec![backend(3), backend(7), backend(5), Step::RemoveBackend { id: BackendId(9) }];
        assert_eq!(plan(steps).highest(), Some(BackendId(7)));
        assert_eq!(plan(vec![Step::RemoveBackend { id: BackendId(9) }]).highest(), None);
    }
}
