//! Takes the outcomes of exchanges to the detectors and the breaker of a backend.

use std::{net::SocketAddr, time::Duration};

use super::{backend::Note, members, service::Service};
use crate::{
    breaker::{
        Signal, Window,
        detector::{Detection, Found, Sample, Witness},
        limits::{self, Refusal},
        suspicion::Suspect,
    },
    codes::{BackendReason, EventReason},
    event::{EventKind, Evidence, Run},
    outcome::{Context, L4Failure, Outcome},
    states::BreakerState,
    time::Instant,
};

fn nothing_enforced() -> (BackendReason, String) {
    (BackendReason::NotEnforced, "nothing is enforced".to_owned())
}

impl Service {
    /// One exchange with a backend. `true`: something changed.
    pub(super) fn outcome(
        &mut self,
        index: usize,
        outcome: Outcome,
        ttfb: Option<Duration>,
        client: Option<SocketAddr>,
        context: Context,
        now: Instant,
    ) -> bool {
        self.client_counts = context.client_counts.or(self.client_counts);
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
        let client_ip = client.map(|client| client.ip());
        let sample = match outcome {
            Outcome::Failure(failure) => {
                backend.show(outcome, client, now);
                let suspect = Suspect { failure, client, late: context.late };
                match context.client_counts {
                    // The daemon has a connection of its own to try, unless one has just failed.
                    Some(_) if policy.confirm_l4_failures && backend.is_suspicious(now) => {
                        self.suspect(index, suspect, now);
                    }
                    Some(_) | None => self.l4_failure(index, failure, now),
                }
                return !self.decided.is_empty();
            }
            Outcome::Status(status) => {
                let failure = policy.errors.iter().any(|range| range.contains(&status));
                Sample::Response { status, failure, ttfb }
            }
            Outcome::Answered if policy.split_l4_failures => Sample::Answer { ttfb },
            // L4 failures count as bad responses, so this is a good one (as in Envoy for TCP).
            Outcome::Answered => Sample::Response { status: 200, failure: false, ttfb },
            Outcome::Opaque => {
                backend.responses.opaque += 1;
                backend.trials_taken = false;
                return false;
            }
        };
        backend.show(outcome, client, now);
        if policy.split_l4_failures || !sample.failure() {
            backend.suspicion.acquit();
        }
        let witness = Witness { client: client_ip, client_counts: context.client_counts };
        self.judge(index, sample, witness, now);
        !self.decided.is_empty()
    }

    /// An L4 failure that counts.
    pub(super) fn l4_failure(&mut self, index: usize, failure: L4Failure, now: Instant) {
        let policy = &self.config.breaker;
        let sample = if policy.split_l4_failures {
            Sample::L4Failure
        } else {
            let status = failure.status();
            let failure = policy.errors.iter().any(|range| range.contains(&status));
            // Without a response there is no time to first byte.
            Sample::Response { status, failure, ttfb: None }
        };
        self.judge(index, sample, Witness::default(), now);
    }

    /// Gives an outcome to whatever watches the backend in its present state.
    fn judge(&mut self, index: usize, sample: Sample, witness: Witness, now: Instant) {
        let policy = &self.config.breaker;
        let backend = &mut self.backends[index];
        backend.count(sample, witness.client);
        match backend.breaker.state() {
            BreakerState::Closed => {
                let found = backend.tally.observe(policy, sample, witness, now);
                self.found(index, found, now);
            }
            BreakerState::Open => {}
            BreakerState::HalfOpen => self.tried(index, sample.failure(), witness, now),
        }
    }

    /// Good responses that the program counted: no single one decides anything. `true`: something changed.
    pub(super) fn successes(&mut self, index: usize, count: u64, now: Instant) -> bool {
        let (policy, client_counts) = (&self.config.breaker, self.client_counts);
        let backend = &mut self.backends[index];
        backend.responses.s2xx += count;
        backend.breaker.window.heads += count;
        backend.breaker.window.responses += count;
        backend.suspicion.acquit();
        if backend.breaker.state() == BreakerState::Closed {
            let found = backend.tally.successes(policy, count, client_counts, now);
            self.found(index, found, now);
        }
        !self.decided.is_empty()
    }

    pub(super) fn evidence_lost(&mut self, index: usize, lost: u64) {
        let backend = &mut self.backends[index];
        backend.responses.lost += lost;
        backend.breaker.window.lost += lost;
    }

    fn found(&mut self, index: usize, found: Found, now: Instant) {
        for detection in found.detections {
            self.detected(index, &detection, now);
        }
        for detection in found.held {
            self.held(index, &detection, now);
        }
    }

    /// A detector fired on a closed backend.
    pub(super) fn detected(&mut self, index: usize, detection: &Detection, now: Instant) {
        if self.out(index) {
            // An earlier detector has acted on the same outcome.
            return;
        }
        let policy = &self.config.breaker;
        let shadow = policy.shadow.contains(&detection.detector);
        let enforced = policy.enforces(detection.detector);
        let mut event = self.event(EventKind::Eject, Some(index), now);
        event.enforced = enforced;
        // A shadow detector changes nothing, the decay of the ejection number included.
        self.backends[index].breaker.window.detections += u64::from(event.enforced);
        self.record_runs(index, &mut event.evidence);
        detection.record(&mut event.evidence);

        let policy = &self.config.breaker;
        let backend = &self.backends[index];
        let window = backend.breaker.window;
        let counts = members::counts(&self.backends, &self.config, backend.fallback, Some(index));
        if let Err(refusal) = limits::allow(policy, &window, &counts) {
            self.refused(index, refusal, detection.sentence(), event);
        } else if !event.enforced {
            let why = if shadow {
                (BackendReason::Shadow, format!("{} is in shadow", detection.detector))
            } else {
                nothing_enforced()
            };
            self.unenforced(index, detection.detector.into(), why, detection.sentence(), event);
        } else if let Some(change) =
            self.backends[index].breaker.on(Signal::Detected(detection.detector), policy, now)
        {
            let backend = &mut self.backends[index];
            backend.note = Some(Note::Ejected { what: detection.sentence() });
            backend.ejected_by = Some(detection.detector);
            self.changed(index, change, event);
        }
    }

    /// Writes the present length of each run that can detect into `evidence`.
    pub(super) fn record_runs(&self, index: usize, evidence: &mut Evidence) {
        let (policy, tally) = (&self.config.breaker, &self.backends[index].tally);
        let run = |count, threshold| (threshold > 0).then_some(Run { count, threshold });
        evidence.consecutive_5xx = run(tally.run_5xx, policy.consecutive_5xx);
        evidence.consecutive_gateway_failure = run(tally.run_gateway, policy.consecutive_gateway_failure);
        if policy.split_l4_failures {
            evidence.consecutive_l4_failure = run(tally.run_l4, policy.consecutive_l4_failure);
        }
    }

    /// A half-open backend had an outcome.
    fn tried(&mut self, index: usize, failure: bool, witness: Witness, now: Instant) {
        let policy = &self.config.breaker;
        let mut event = self.event(EventKind::Eject, Some(index), now);
        event.enforced = policy.enforce || !failure;
        let backend = &mut self.backends[index];
        if failure {
            backend.trial_sources.add(witness.client);
        }
        let alone = failure && !backend.trial_sources.suffice(policy.min_clients, witness.client_counts);
        let Window { lost, heads, .. } = backend.breaker.window;
        let distrusted = backend.breaker.window.distrusted();
        let what = || "a failure while half-open".to_owned();
        let signal = if !failure {
            Signal::Good { readmits: backend.readmits(policy) }
        } else if distrusted || alone {
            Signal::BadRefused
        } else if policy.enforce {
            Signal::Bad
        } else {
            Signal::BadRefused
        };
        match backend.breaker.on(signal, policy, now) {
            Some(change) => {
                if failure {
                    self.backends[index].note = Some(Note::Ejected { what: what() });
                }
                self.changed(index, change, event);
            }
            None if !failure => {}
            None if distrusted => self.refused(index, Refusal::EvidenceLost { lost, heads }, what(), event),
            None if alone => {
                let what = format!("a failure while half-open, {}", self.seen_by(index));
                self.suspected(index, EventReason::HalfOpenFailure, what, event);
            }
            None => {
                self.unenforced(index, EventReason::HalfOpenFailure, nothing_enforced(), what(), event);
            }
        }
    }
}
