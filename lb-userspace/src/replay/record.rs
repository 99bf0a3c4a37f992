//! Records: the output of a replay.

use std::collections::BTreeMap;

use lb_core::{
    codes::BackendReason,
    event::Event,
    snapshot::{BreakerState, Effective, OperatorState, Panic, PathState, ProbeState, ServiceSnapshot},
    time::Instant,
};
use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Record {
    Event(Box<Event>),
    Snapshot(SnapshotRecord),
}

/// The state of one service, as an answer to `ask`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SnapshotRecord {
    pub t_ms: Instant,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub service: String,
    pub panic: Option<Panic>,
    pub backends: BTreeMap<String, BackendState>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendState {
    pub effective: Effective,
    pub operator: OperatorState,
    pub path: PathState,
    pub probe: ProbeState,
    pub breaker: BreakerState,
    pub reason: Option<String>,
    pub reason_code: Option<BackendReason>,
    pub ejection: u32,
    pub until_ms: Option<Instant>,
    pub weight_percent: u32,
}

impl SnapshotRecord {
    pub(super) fn of(t_ms: Instant, service: &ServiceSnapshot) -> Self {
        let backends = service.backends.iter().map(|backend| {
            let state = BackendState {
                effective: backend.effective,
                operator: backend.operator,
                path: backend.path,
                probe: backend.probe,
                breaker: backend.breaker,
                reason: backend.reason.clone(),
                reason_code: backend.reason_code,
                ejection: backend.ejection,
                until_ms: backend.until_ms,
                weight_percent: backend.weight_percent,
            };
            (backend.name.clone(), state)
        });
        Self {
            t_ms,
            kind: "snapshot",
            service: service.name.clone(),
            panic: service.panic,
            backends: backends.collect(),
        }
    }
}
