//! Suspects: backends with failures that nothing has confirmed yet.

use super::service::Service;
use crate::{
    breaker::{
        detector::Detection,
        sources::Sources,
        suspicion::{Confirmation, Suspect},
    },
    config::{Detector, Probe, ProbeKind},
    event::EventKind,
    io::ProbeRequest,
    outcome::{ClientCounts, ProbeResult},
    probe,
    time::{Instant, Millis},
};

/// The timeout of a confirmation where no probe is configured: an answer to a SYN.
const HANDSHAKE: Millis = Millis(1000);

/// Without a threshold for runs, this many unconfirmed failures in a row are reported.
const REPORTED: u32 = 5;

impl Service {
    /// An L4 failure that waits for confirmation.
    pub(super) fn suspect(&mut self, index: usize, suspect: Suspect, now: Instant) {
        self.backends[index].suspicion.add(suspect);
        self.agree(index, now);
        self.report_unconfirmed(index, now);
    }

    /// Counts what enough different clients saw.
    fn agree(&mut self, index: usize, now: Instant) {
        let (least, client_counts) =
            (self.config.breaker.min_clients, self.client_counts.unwrap_or_default());
        let answers = self.probe_answers(index);
        let agreed = self.backends[index].suspicion.agreed(least, client_counts, answers);
        agreed.into_iter().for_each(|suspect| self.l4_failure(index, suspect.failure, now));
    }

    /// The end of a confirmation. `true`: something changed.
    pub(super) fn confirmed(
        &mut self,
        index: usize,
        result: &ProbeResult,
        answered: bool,
        now: Instant,
    ) -> bool {
        let passes = match self.own_probe(index) {
            Some(policy) => probe::passes(policy, result),
            None => !matches!(result, ProbeResult::Fail(_)),
        };
        let confirmation = match (passes, answered) {
            (true, _) if self.probe_answers(index) => Confirmation::Answers,
            (true, _) => Confirmation::Accepts,
            (false, true) => Confirmation::Contradicted,
            (false, false) => Confirmation::Failed,
        };
        let confirmed = self.backends[index].suspicion.ended(confirmation, now);
        confirmed.into_iter().for_each(|suspect| self.l4_failure(index, suspect.failure, now));
        self.agree(index, now);
        !self.decided.is_empty()
    }

    /// The connection that is to confirm what a backend is suspected of: its probe, or else a handshake. A probe that
    /// goes elsewhere says nothing about the port at which clients fail.
    pub(super) fn confirm(&mut self, index: usize) -> ProbeRequest {
        let (kind, timeout) = match (self.own_probe(index), &self.probe_kind) {
            (Some(policy), Some(kind)) => (kind.clone(), policy.timeout),
            (Some(_) | None, _) => (ProbeKind::Tcp.into(), HANDSHAKE),
        };
        let backend = &mut self.backends[index];
        backend.suspicion.ask();
        let (address, generation) = (backend.config.address, backend.generation);
        ProbeRequest { backend: backend.id, generation, address, kind, timeout }
    }

    /// The probe of a backend that goes to the backend's own address, as its clients do.
    fn own_probe(&self, index: usize) -> Option<&Probe> {
        let config = &self.backends[index].config;
        self.config.probe.as_ref().filter(|policy| config.probed_at(policy) == config.address)
    }

    /// Whether that probe asks for an answer, and not only for a handshake.
    fn probe_answers(&self, index: usize) -> bool {
        self.own_probe(index).is_some_and(|policy| policy.kind != ProbeKind::Tcp)
    }

    /// Reports a run of L4 failures that would have ejected the backend if they were confirmed.
    fn report_unconfirmed(&mut self, index: usize, now: Instant) {
        let policy = &self.config.breaker;
        let (detector, threshold) = if policy.split_l4_failures {
            (Detector::ConsecutiveL4Failure, policy.consecutive_l4_failure)
        } else {
            (Detector::Consecutive5xx, policy.consecutive_5xx)
        };
        let threshold = if threshold == 0 { REPORTED } else { threshold };
        let Some(run) = self.backends[index].suspicion.reached(threshold) else { return };
        let failures = if run == 1 { "failure" } else { "failures" };
        let what = format!("{run} L4 {failures} in a row that nothing confirms");
        let event = self.event(EventKind::Suspected, Some(index), now);
        self.suspected(index, detector.into(), what, event);
    }

    /// A detector fired on a closed backend, and too few different clients saw the failures.
    pub(super) fn held(&mut self, index: usize, detection: &Detection, now: Instant) {
        if self.out(index) {
            return;
        }
        let mut event = self.event(EventKind::Suspected, Some(index), now);
        self.record_runs(index, &mut event.evidence);
        detection.record(&mut event.evidence);
        let what = format!("{}, {}", detection.sentence(), self.seen_by(index));
        self.suspected(index, detection.detector.into(), what, event);
    }

    /// How few clients saw the failures.
    pub(super) fn seen_by(&self, index: usize) -> String {
        let backend = &self.backends[index];
        let mut sources: Sources = backend.breaker.window.sources;
        for more in [&backend.tally.sources_5xx, &backend.tally.sources_gateway, &backend.trial_sources] {
            sources.merge(more);
        }
        let seen = sources.count();
        let ClientCounts { prefixes, addresses } = self.client_counts.unwrap_or_default();
        let (seen, all, what) = if prefixes >= 2 {
            (seen.prefixes, prefixes, "prefixes")
        } else {
            (seen.addresses, addresses, "addresses")
        };
        let least = self.config.breaker.min_clients;
        format!("seen by clients of {seen} of {all} {what}, and min_clients is {least}")
    }
}
