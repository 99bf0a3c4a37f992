//! Events: one per change, with the evidence for it. Logs, `shunt events` and status are views of these.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{
    snapshot::{BreakerState, OperatorState, ProbeState},
    time::Instant,
};

/// Something changed, or was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 1 in the order in which events become known.
    pub seq: u64,
    /// When the decision was made.
    pub t_ms: Instant,
    #[serde(rename = "type")]
    pub kind: EventKind,
    pub service: String,
    pub backend: Option<String>,
    /// State names: of the breaker for `eject`, `trial`, `readmit`, `refused`; of the probe for `probe`.
    pub from: String,
    pub to: String,
    /// The detector or rule: `consecutive_5xx`, `ejection_time_over`, `half_open_failure`,
    /// `half_open_successes`, `no_traffic`, `ceiling`, `floor`, `first_result`, `rise`, `fall`, `added`, `removed`, …
    pub reason: String,
    /// False: reported only (`enforce = false`).
    pub enforced: bool,
    /// The backend's ejection number after this event.
    pub ejection: u32,
    pub until_ms: Option<Instant>,
    /// Who caused it: `breaker`, `probe`, `config`, an operator's name.
    pub actor: String,
    /// Of the configuration in force; grows with each reload.
    pub config_generation: u64,
    pub evidence: Evidence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    Eject,
    Trial,
    Readmit,
    /// A detection that ceiling or floor did not let act.
    Refused,
    Probe,
    Operator,
    Weight,
    /// A backend or service appeared or left.
    Membership,
    /// A map write failed, or holds again.
    Dataplane,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Eject => "eject",
            Self::Trial => "trial",
            Self::Readmit => "readmit",
            Self::Refused => "refused",
            Self::Probe => "probe",
            Self::Operator => "operator",
            Self::Weight => "weight",
            Self::Membership => "membership",
            Self::Dataplane => "dataplane",
        })
    }
}

/// The numbers that a decision was made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Failures in a row when it was made, and how many detect.
    pub consecutive_5xx: Option<Run>,
    /// The last outcomes of the backend, oldest first, at most 16.
    pub last: Vec<Seen>,
    /// Backends out of the service before the decision.
    pub out: u32,
    pub backends: u32,
    pub serving: u32,
    pub max_ejection_percent: u8,
    pub min_serving: u32,
    pub probe: Option<ProbeState>,
    /// The probe's last failure, or the error of a map write.
    pub detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub count: u32,
    pub threshold: u32,
}

/// One outcome as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub t_ms: Instant,
    pub status: u16,
    pub client: Option<SocketAddr>,
}

impl Event {
    /// One line for people: what happened and why.
    pub fn sentence(&self) -> String {
        let subject = match &self.backend {
            Some(backend) => format!("{}/{backend}", self.service),
            None => self.service.clone(),
        };
        let mut line = format!("{subject}: {} -> {} ({})", self.from, self.to, self.reason);
        if let Some(run) = self.evidence.consecutive_5xx {
            line += &format!(", {} of {} failures in a row", run.count, run.threshold);
        }
        if !self.evidence.last.is_empty() {
            let statuses: Vec<_> = self.evidence.last.iter().map(|seen| seen.status.to_string()).collect();
            line += &format!(", last {}", statuses.join(" "));
        }
        if let Some(probe) = self.evidence.probe {
            line += &format!(", probe {probe}");
        }
        if let Some(until) = self.until_ms {
            line += &format!(", for {} ms", (until - self.t_ms).0);
        }
        if let Some(detail) = &self.evidence.detail {
            line += &format!(": {detail}");
        }
        if !self.enforced {
            line += " [not enforced]";
        }
        line
    }
}

// The state names appear in events as text.
impl From<BreakerState> for String {
    fn from(state: BreakerState) -> Self {
        state.to_string()
    }
}

impl From<ProbeState> for String {
    fn from(state: ProbeState) -> Self {
        state.to_string()
    }
}

impl From<OperatorState> for String {
    fn from(state: OperatorState) -> Self {
        state.to_string()
    }
}
