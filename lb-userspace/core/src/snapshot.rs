//! The state of everything at one moment, for status and for tests.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use crate::states::{BreakerState, Effective, OperatorState, ProbeState};
use crate::{
    event::{Event, Seen},
    ids::{BackendId, Generation, ServiceId},
    io::FlowReset,
    time::Instant,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub t_ms: Instant,
    pub config_generation: u64,
    pub services: Vec<ServiceSnapshot>,
    /// Backends that were removed and whose connections have not all come to their end.
    #[serde(default)]
    pub leaving: Vec<LeavingSnapshot>,
}

/// A backend that is not configured any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavingSnapshot {
    pub service: String,
    /// `None`: an earlier run's.
    pub name: Option<String>,
    pub id: BackendId,
    pub generation: Generation,
    pub address: SocketAddr,
    pub drain: Drain,
}

/// The end of a backend's connections: it gets no new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    pub since_ms: Instant,
    /// What is left of them then is reset.
    pub until_ms: Instant,
    /// What becomes of them now.
    pub flow_reset: FlowReset,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceSnapshot {
    pub name: String,
    pub id: ServiceId,
    pub vip: SocketAddr,
    /// All backends that may be used are used: nobody serves and `no_backend` is `any`, or fewer than
    /// `panic_threshold` percent serve.
    pub panic: bool,
    /// New connections go to the fallback.
    #[serde(default)]
    pub fallback: bool,
    /// Why the last map write failed, while it has not yet succeeded.
    pub pending: Option<PendingWrite>,
    pub backends: Vec<BackendSnapshot>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingWrite {
    pub error: String,
    pub attempts: u32,
    pub next_try_ms: Instant,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendSnapshot {
    pub name: String,
    pub id: BackendId,
    pub generation: Generation,
    pub address: SocketAddr,
    /// It is used only while none of the others serves.
    #[serde(default)]
    pub fallback: bool,
    pub effective: Effective,
    pub operator: OperatorState,
    pub probe: ProbeState,
    pub breaker: BreakerState,
    /// Why the effective state is what it is, in one sentence. `None`: it simply serves.
    pub reason: Option<String>,
    /// The state on its present breaker axis began then.
    pub since_ms: Instant,
    pub ejection: u32,
    pub until_ms: Option<Instant>,
    /// As configured, or as an operator has it.
    pub weight: u16,
    /// What operators have changed and not taken back.
    #[serde(default)]
    pub overrides: Vec<Override>,
    /// Share of new connections that the table gives it, in hundredths of a percent of the service.
    pub share: u32,
    /// The share relative to what its weight alone would give; 100 when nothing reduces it, 0 when it is out.
    pub weight_percent: u32,
    pub run_5xx: u32,
    pub responses: Responses,
    /// What the last probe said, `None` before the first.
    pub last_probe: Option<String>,
    /// `None`: it may get new connections.
    #[serde(default)]
    pub drain: Option<Drain>,
}

impl ServiceSnapshot {
    /// The backends that are no fallback: those of whom so many are to serve.
    pub fn regular(&self) -> impl Iterator<Item = &BackendSnapshot> {
        self.backends.iter().filter(|backend| !backend.fallback)
    }
}

/// One backend in depth: where it stands, what was decided last, and what would change it next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    pub service: String,
    pub backend: BackendSnapshot,
    /// Since when the operator's and the probe's axes are as they are; the breaker's is in `backend`.
    pub operator_since_ms: Instant,
    pub probe_since_ms: Instant,
    /// The maps say of it what was decided.
    pub in_maps: bool,
    /// Why the service's last map write failed, while it has not yet succeeded.
    pub pending: Option<PendingWrite>,
    /// The last outcomes, oldest first, at most 16.
    pub last_outcomes: Vec<Seen>,
    /// Of the breaker, with its evidence. Its `seq` is 0: it may not have become known yet.
    pub last_decision: Option<Event>,
    /// Those that are on.
    pub detectors: Vec<DetectorSnapshot>,
    /// What would eject or readmit it, in sentences.
    pub next: Vec<String>,
    /// When the present interval ends.
    pub next_sweep_ms: Instant,
}

/// What a detector has counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectorSnapshot {
    pub name: String,
    /// False: it would only report.
    pub enforced: bool,
    /// In a row; of a rate: failures, slow or, for `success_rate`, good ones.
    pub count: u64,
    /// Of a rate: out of how many.
    pub total: Option<u64>,
    /// Of a rate: how many it takes.
    pub least: Option<u32>,
    /// In a row; of a rate: hundredths of a percent. `None`: too few backends can be compared so far.
    pub threshold: Option<u32>,
    /// What would make it detect.
    pub next: String,
}

/// An operator's word that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// `disabled`, `draining`, `weight 50`.
    pub what: String,
    pub actor: String,
    pub reason: Option<String>,
    pub since_ms: Instant,
    /// `None`: until it is taken back.
    pub until_ms: Option<Instant>,
}

/// Responses by class since the backend was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Responses {
    pub s1xx: u64,
    pub s2xx: u64,
    pub s3xx: u64,
    pub s4xx: u64,
    pub s5xx: u64,
    pub opaque: u64,
    /// First answers on connections whose responses cannot be read.
    #[serde(default)]
    pub answered: u64,
    /// Exchanges without a response: refused, timed out, reset, closed.
    #[serde(default)]
    pub l4_failures: u64,
    /// Heads that the mirror lost.
    pub lost: u64,
}
