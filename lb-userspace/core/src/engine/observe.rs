//! Takes the outcomes of exchanges to the detectors and the breaker of a backend.

use std::{net::SocketAddr, time::Duration};

use super::{backend::Note, members, service::Service};
use crate::{
    breaker::{
        Signal, Window,
        detector::{Detection, Sample},
        limits::{self, Refusal},
    },
    event::{EventKind, Evidence, Run},
    outcome::{L4Failure, Outcome},
    states::BreakerState,
    time::Instant,
};

const NOTHING_ENFORCED: &str = "nothing is enforced";

impl Service {
    /// One exchange with a backend. `true`: something changed.
    pub(super) fn outcome(
        &mut self,
        index: usize,
        outcome: Outcome,
        ttfb: Option<Duration>,
        client: Option<SocketAddr>,
        now: Instant,
    ) -> bool {
        let policy = &self.config.breaker;
        let backend = &mut self.backends[index];
        backend.breaker.window.heads += 1;
        let limit = Duration::from_millis(policy.response_timeout.0);
        let timed_out = !limit.is_zero() && ttfb.is_some_and(|ttfb| ttfb >= limit);
        let outcome = match outcome {
            // The response came after its timeout.
            Outcome::Status(_) | Outcome::Answered if timed_out => {
                Outcome::Failure(L4Failure::ResponseTimeout)
            }
            Outcome::Status(_) | Outcome::Answered | Outcome::Failure(_) | Outcome::Opaque => outcome,
        };
        let failed = |status| policy.errors.iter().any(|range| range.contains(&status));
        let sample = match outcome {
            Outcome::Status(status) => Sample::Response { status, failure: failed(status), ttfb },
            Outcome::Failure(_) if policy.split_l4_failures => Sample::L4Failure,
            // Without a response there is no time to first byte.
            Outcome::Failure(l4) => {
                Sample::Response { status: l4.status(), failure: failed(l4.status()), ttfb: None }
            }
            Outcome::Answered if policy.split_l4_failures => Sample::Answer { ttfb },
            // L4 failures count as bad responses, so this is a good one (as in Envoy for TCP).
            Outcome::Answered => Sample::Response { status: 200, failure: false, ttfb },
            Outcome::Opaque => {
                backend.responses.opaque += 1;
                return false;
            }
        };
        backend.count(outcome, sample, client, now);
        match backend.breaker.state() {
            BreakerState::Closed => {
                for detection in backend.tally.observe(policy, sample, now) {
                    self.detected(index, &detection, now);
                }
            }
            BreakerState::Open => {}
            BreakerState::HalfOpen => self.tried(index, sample.failure(), now),
        }
        !self.decided.is_empty()
    }

    /// Good responses that the program counted: no single one decides anything. `true`: something changed.
    pub(super) fn successes(&mut self, index: usize, count: u64, now: Instant) -> bool {
        let policy = &self.config.breaker;
        let backend = &mut self.backends[index];
        backend.responses.s2xx += count;
        backend.breaker.window.heads += count;
        backend.breaker.window.responses += count;
        if backend.breaker.state() == BreakerState::Closed {
            let detection = backend.tally.successes(policy, count, now);
            if let Some(detection) = detection {
                self.detected(index, &detection, now);
            }
        }
        !self.decided.is_empty()
    }

    pub(super) fn evidence_lost(&mut self, index: usize, lost: u64) {
        let backend = &mut self.backends[index];
        backend.responses.lost += lost;
        backend.breaker.window.lost += lost;
    }

    /// A detector fired on a closed backend.
    pub(super) fn detected(&mut self, index: usize, detection: &Detection, now: Instant) {
        if self.out(index) {
            // An earlier detector has acted on the same outcome.
            return;
        }
        let shadow = self.config.breaker.shadow.contains(&detection.detector);
        let mut event = self.event(EventKind::Eject, Some(index), now);
        event.enforced = self.config.breaker.enforce && !shadow;
        // A shadow detector changes nothing, the decay of the ejection number included.
        self.backends[index].breaker.window.detections += u64::from(event.enforced);
        self.record_runs(index, &mut event.evidence);
        detection.record(&mut event.evidence);

        let policy = &self.config.breaker;
        let backend = &self.backends[index];
        let window = backend.breaker.window;
        let counts = members::counts(&self.backends, backend.fallback, Some(index));
        if let Err(refusal) = limits::allow(policy, &window, &counts) {
            self.refused(index, refusal, detection.sentence(), event);
        } else if !event.enforced {
            let why = if shadow {
                format!("{} is in shadow", detection.detector)
            } else {
                NOTHING_ENFORCED.to_owned()
            };
            self.unenforced(index, detection.detector.name(), why, detection.sentence(), event);
        } else if let Some(change) =
            self.backends[index].breaker.on(Signal::Detected(detection.detector.name()), policy, now)
        {
            self.backends[index].note = Some(Note::Ejected { what: detection.sentence() });
            self.changed(index, change, event);
        }
    }

    /// Writes the present length of each run that can detect into `evidence`.
    fn record_runs(&self, index: usize, evidence: &mut Evidence) {
        let (policy, tally) = (&self.config.breaker, &self.backends[index].tally);
        let run = |count, threshold| (threshold > 0).then_some(Run { count, threshold });
        evidence.consecutive_5xx = run(tally.run_5xx, policy.consecutive_5xx);
        evidence.consecutive_gateway_failure = run(tally.run_gateway, policy.consecutive_gateway_failure);
        if policy.split_l4_failures {
            evidence.consecutive_l4_failure = run(tally.run_l4, policy.consecutive_l4_failure);
        }
    }

    /// A half-open backend had an outcome.
    fn tried(&mut self, index: usize, failure: bool, now: Instant) {
        let policy = &self.config.breaker;
        let mut event = self.event(EventKind::Eject, Some(index), now);
        event.enforced = policy.enforce || !failure;
        let Window { lost, heads, .. } = self.backends[index].breaker.window;
        let distrusted = self.backends[index].breaker.window.distrusted();
        let what = || "a failure while half-open".to_owned();
        let signal = if !failure {
            Signal::Good { readmits: self.backends[index].readmits(policy) }
        } else if distrusted {
            Signal::BadRefused
        } else if policy.enforce {
            Signal::Bad
        } else {
            Signal::BadRefused
        };
        match self.backends[index].breaker.on(signal, policy, now) {
            Some(change) => {
                if failure {
                    self.backends[index].note = Some(Note::Ejected { what: what() });
                }
                self.changed(index, change, event);
            }
            None if !failure => {}
            None if distrusted => self.refused(index, Refusal::EvidenceLost { lost, heads }, what(), event),
            None => {
                self.unenforced(index, "half_open_failure", NOTHING_ENFORCED.to_owned(), what(), event);
            }
        }
    }
}
