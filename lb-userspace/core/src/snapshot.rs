//! The state of everything at one moment, for status and for tests.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use crate::states::{BreakerState, Effective, OperatorState, Panic, PathState, ProbeState, Standing};
use crate::{
    codes::{BackendReason, DetectorNext, NextCode, OverrideCode, PendingCode, ProbeCode},
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
    /// Removed backends that still have connections.
    #[serde(default)]
    pub leaving: Vec<LeavingSnapshot>,
}

/// A removed backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavingSnapshot {
    pub service: String,
    /// `None`: an earlier run left it in the maps.
    pub name: Option<String>,
    pub id: BackendId,
    pub generation: Generation,
    pub address: SocketAddr,
    pub drain: Drain,
}

/// A backend gets no new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    pub since_ms: Instant,
    /// The connections that are left then are reset.
    pub until_ms: Instant,
    /// How its connections end now.
    pub flow_reset: FlowReset,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceSnapshot {
    pub name: String,
    pub id: ServiceId,
    pub vip: SocketAddr,
    /// Why the service uses more backends than serve, if it does.
    #[serde(default)]
    pub panic: Option<Panic>,
    /// New connections go to the fallback.
    #[serde(default)]
    pub fallback: bool,
    /// The error of the last map write, until a write succeeds.
    pub pending: Option<PendingWrite>,
    pub backends: Vec<BackendSnapshot>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingWrite {
    pub code: PendingCode,
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
    /// It is used only while no other backend serves.
    #[serde(default)]
    pub fallback: bool,
    pub effective: Effective,
    pub operator: OperatorState,
    /// The opinion of discovery. `None`: the configuration file names the backend.
    #[serde(default)]
    pub discovery: Option<Standing>,
    /// The identity that discovery gives it.
    #[serde(default)]
    pub identity: Option<String>,
    /// Whether the packet path can reach it: `ok`, or the code of what keeps it from that.
    #[serde(default = "reachable")]
    pub path: PathState,
    pub probe: ProbeState,
    pub breaker: BreakerState,
    /// The reason for the effective state, in one sentence. `None`: it simply serves.
    pub reason: Option<String>,
    /// The cause of that state, for programs.
    #[serde(default)]
    pub reason_code: Option<BackendReason>,
    /// When the present breaker state began.
    pub since_ms: Instant,
    pub ejection: u32,
    /// The end of the ejection.
    pub until_ms: Option<Instant>,
    /// The sweep at which it may return: the first at or after `until_ms`.
    #[serde(default)]
    pub returns_ms: Option<Instant>,
    /// The operator's weight, or else the configured one.
    pub weight: u16,
    /// The overrides that hold.
    #[serde(default)]
    pub overrides: Vec<Override>,
    /// Share of new connections that the table gives it, in hundredths of a percent of the service.
    pub share: u32,
    /// The share relative to what its weight alone would give; 100 when nothing reduces it, 0 when it is out.
    pub weight_percent: u32,
    pub run_5xx: u32,
    pub responses: Responses,
    /// The result of the last probe, `None` before the first.
    pub last_probe: Option<String>,
    #[serde(default)]
    pub last_probe_code: Option<ProbeCode>,
    /// `None`: it may get new connections.
    #[serde(default)]
    pub drain: Option<Drain>,
}

/// Of daemons that did not look.
const fn reachable() -> PathState {
    PathState::Ok
}

impl ServiceSnapshot {
    /// The backends that are no fallback. Floor and ceiling count these.
    pub fn regular(&self) -> impl Iterator<Item = &BackendSnapshot> {
        self.backends.iter().filter(|backend| !backend.fallback)
    }
}

/// One backend in depth: its states, the last decision, and the next changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    pub service: String,
    pub backend: BackendSnapshot,
    /// When the states of operator and probe began. The breaker's is in `backend`.
    pub operator_since_ms: Instant,
    pub probe_since_ms: Instant,
    /// The maps hold what was decided for it.
    pub in_maps: bool,
    /// Why the service's last map write failed, while it has not yet succeeded.
    pub pending: Option<PendingWrite>,
    /// The last outcomes, oldest first, at most 16.
    pub last_outcomes: Vec<Seen>,
    /// The breaker's last decision with its evidence. Its `seq` is 0: it may not be known yet.
    pub last_decision: Option<Event>,
    /// The detectors that are on.
    pub detectors: Vec<DetectorSnapshot>,
    /// The changes that would eject or readmit it, the nearest first.
    pub next: Vec<Next>,
    /// When the present interval ends.
    pub next_sweep_ms: Instant,
}

impl Why {
    /// The next changes in sentences.
    pub fn sentences(&self) -> Vec<&str> {
        self.next.iter().map(|next| next.says.as_str()).collect()
    }
}

/// A change that would eject a backend or readmit it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    pub code: NextCode,
    /// In a sentence.
    pub says: String,
}

/// The counts of a detector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectorSnapshot {
    pub name: String,
    /// False: it only reports.
    pub enforced: bool,
    /// The length of the run. Of a rate: failures, slow ones or, for `success_rate`, good ones.
    pub count: u64,
    /// Of a rate: all responses.
    pub total: Option<u64>,
    /// Of a rate: the least number of responses with which it can detect.
    pub least: Option<u32>,
    /// Of a run: its length. Of a rate: hundredths of a percent. `None`: too few backends can be compared so far.
    pub threshold: Option<u32>,
    /// How many more failures would make it detect, in words.
    pub next: String,
    pub next_code: DetectorNext,
}

/// An operator's order that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    pub code: OverrideCode,
    /// `disabled`, `draining`, `weight 50`.
    pub what: String,
    pub actor: String,
    pub reason: Option<String>,
    pub since_ms: Instant,
    /// `None`: until an operator takes it back.
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
    /// Response heads that were lost on the way.
    pub lost: u64,
}
