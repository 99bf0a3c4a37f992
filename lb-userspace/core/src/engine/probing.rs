//! Probe requests and their results.

use super::service::Service;
use crate::{
    breaker::Signal, event::EventKind, io::ProbeRequest, outcome::ProbeResult, probe, states::ProbeState,
    time::Instant,
};

impl Service {
    /// The result of a probe. `true`: something changed.
    pub(super) fn probed(&mut self, index: usize, result: ProbeResult, now: Instant) -> bool {
        let Some(policy) = &self.config.probe else { return false };
        let detail = match &result {
            ProbeResult::Pass => None,
            ProbeResult::Status(_) | ProbeResult::Fail(_) => Some(result.to_string()),
        };
        let (code, passes) = (result.code(), probe::passes(policy, &result));
        if let Some(change) = self.backends[index].health.result(policy, result) {
            let mut event = self.event(EventKind::Probe, Some(index), now);
            event.evidence.detail = detail;
            event.evidence.probe_code = Some(code);
            self.backends[index].health_since = now;
            self.report(event, change.from, change.to, change.reason, "probe");
        }
        let up = self.backends[index].health.state() == ProbeState::Up;
        if self.config.breaker.probe_uneject && passes && up {
            let event = self.event(EventKind::Trial, Some(index), now);
            let signal = Signal::Unejected;
            if let Some(change) = self.backends[index].breaker.on(signal, &self.config.breaker, now) {
                self.changed_by(index, change, event, "probe");
            }
        }
        !self.decided.is_empty()
    }

    /// The request for the probe that is due.
    pub(super) fn probe(&mut self, index: usize, now: Instant) -> Option<ProbeRequest> {
        let (policy, kind) = (self.config.probe.as_ref()?, self.probe_kind.as_ref()?);
        let backend = &mut self.backends[index];
        backend.health.begin(now);
        Some(ProbeRequest {
            backend: backend.id,
            generation: backend.generation,
            address: backend.config.probed_at(policy),
            kind: kind.clone(),
            timeout: policy.timeout,
        })
    }
}
