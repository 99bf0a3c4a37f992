//! One backend: its three axes and its evidence.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

use super::drain::Drain;
use crate::{
    breaker::{
        Breaker,
        detector::{Sample, Tally},
        limits::Refusal,
        sources::Sources,
        suspicion::Suspicion,
    },
    codes::BackendReason,
    config::{self, Detector, OnOut, Service as Policy},
    event::{Event, Seen},
    ids::{BackendId, Generation},
    outcome::Outcome,
    plan::Grant,
    probe::Health,
    random,
    snapshot::Responses,
    states::{BreakerState, Effective, OperatorState, PathState, ProbeState},
    time::{Instant, Millis},
};

/// Outcomes that are remembered for evidence.
const REMEMBERED: usize = 16;

pub(super) struct Backend {
    pub(super) id: BackendId,
    pub(super) generation: Generation,
    pub(super) config: config::Backend,
    /// Used only while no other backend serves.
    pub(super) fallback: bool,
    pub(super) operator: OperatorState,
    /// When the operator's axis changed last.
    pub(super) operator_since: Instant,
    /// Why the operator's axis is not `enabled`.
    pub(super) operator_override: Option<Override>,
    /// A weight that holds instead of the configured one.
    pub(super) weight: Option<(NonZeroU16, Override)>,
    pub(super) health: Health,
    /// When the probe's axis changed last.
    pub(super) health_since: Instant,
    /// Whether the packet path can reach it.
    pub(super) path: PathState,
    pub(super) breaker: Breaker,
    pub(super) tally: Tally,
    /// L4 failures that wait for confirmation.
    pub(super) suspicion: Suspicion,
    /// The clients that saw it fail while it was half-open.
    pub(super) trial_sources: Sources,
    /// Trials of the present budget were used.
    pub(super) trials_taken: bool,
    /// When it was last reported as a suspect.
    pub(super) suspected_at: Option<Instant>,
    pub(super) responses: Responses,
    pub(super) last: VecDeque<Seen>,
    /// The last trial budget it was given.
    pub(super) grant: Option<Grant>,
    /// The number of the trial slot that it got last; numbers count through all slots that the service gives.
    pub(super) last_trial_slot: u64,
    pub(super) note: Option<Note>,
    /// The detector that ejected it. `None`: its breaker is closed, or an operator ejected it.
    pub(super) ejected_by: Option<Detector>,
    /// The last event of its breaker.
    pub(super) decision: Option<Box<Event>>,
    /// Its share rises after a readmission.
    pub(super) warming: Option<Warming>,
    /// `Some`: it gets no new connections.
    pub(super) drain: Option<Drain>,
}

/// The progress of a slow start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Warming {
    pub(super) since: Instant,
    /// 1 to 4. At 5 the slow start is over.
    pub(super) step: u64,
}

/// Steps of a slow start. Each is a fifth of the share.
pub(super) const STEPS: u64 = 5;

impl Warming {
    /// When the next step is due. The last one is reached when `slow_start` is over.
    pub(super) fn next(&self, slow_start: Millis) -> Instant {
        self.since + Millis(slow_start.0.saturating_mul(self.step) / (STEPS - 1))
    }
}

/// An operator's order that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Override {
    pub(super) actor: String,
    pub(super) reason: Option<String>,
    pub(super) since: Instant,
    pub(super) until: Option<Instant>,
}

/// The last decision, for status.
pub(super) enum Note {
    /// Ejected for this cause.
    Ejected { what: String },
    /// A limit refused the ejection.
    Refused { refusal: Refusal, what: String, at: Instant },
    /// Failures that nothing confirmed, or that too few clients saw.
    Suspected { what: String, at: Instant },
    /// The ejection was not enforced.
    Unenforced { code: BackendReason, why: String, what: String, at: Instant },
}

impl Backend {
    pub(super) fn new(
        (id, generation): (BackendId, Generation),
        config: config::Backend,
        policy: &Policy,
        seed: u64,
        now: Instant,
    ) -> Self {
        let key = random::of_address(random::of_name(seed, &policy.name), config.address);
        let (breaker_key, probe_key) = (random::draw(key, 1), random::draw(key, 2));
        Self {
            id,
            generation,
            config,
            fallback: false,
            operator: OperatorState::Enabled,
            operator_since: now,
            operator_override: None,
            weight: None,
            health: Health::new(policy.probe.as_ref(), probe_key, now),
            health_since: now,
            path: PathState::Ok,
            breaker: Breaker::new(breaker_key, now),
            tally: Tally::default(),
            suspicion: Suspicion::default(),
            trial_sources: Sources::default(),
            trials_taken: false,
            suspected_at: None,
            responses: Responses::default(),
            last: VecDeque::with_capacity(REMEMBERED),
            grant: None,
            last_trial_slot: 0,
            note: None,
            ejected_by: None,
            decision: None,
            warming: None,
            drain: None,
        }
    }

    pub(super) fn effective(&self) -> Effective {
        Effective::of(self.order(), self.path, self.health.state(), self.breaker.state())
    }

    /// The operator's order, or else that of discovery.
    pub(super) fn order(&self) -> OperatorState {
        self.operator.or_discovery(self.config.standing())
    }

    /// The operator's weight, or else the configured one.
    pub(super) fn weight(&self) -> u16 {
        self.weight.as_ref().map_or(self.config.weight, |(weight, _)| weight.get())
    }

    /// Fifths of its full share that it gets now.
    pub(super) fn step(&self) -> u64 {
        self.warming.map_or(STEPS, |warming| warming.step)
    }

    /// Whether it is out in the sense of the ceiling.
    pub(super) fn out(&self) -> bool {
        self.breaker.state() != BreakerState::Closed
    }

    /// Whether its breaker or its probe has taken it out. An operator may have done so too.
    pub(super) fn has_failed(&self) -> bool {
        self.breaker.state() == BreakerState::Open || self.health.state() == ProbeState::Down
    }

    /// How its connections end while it gets no new ones.
    pub(super) fn on_out(&self, policy: &config::Connections) -> OnOut {
        if self.has_failed() { policy.on_eject } else { policy.on_drain }
    }

    /// Whether an L4 failure of it has to be confirmed: it was not confirmed a moment ago, and it matters.
    pub(super) fn is_suspicious(&self, now: Instant) -> bool {
        self.breaker.state() != BreakerState::Open && !self.suspicion.is_confirmed(now)
    }

    /// Whether its probe lets it return.
    pub(super) fn readmits(&self, policy: &config::Breaker) -> bool {
        match self.health.state() {
            ProbeState::None | ProbeState::Up => true,
            ProbeState::Unknown | ProbeState::Down => !policy.probe_readmits,
        }
    }

    /// Shows an outcome, whether or not it changes anything.
    pub(super) fn show(&mut self, outcome: Outcome, client: Option<SocketAddr>, now: Instant) {
        let responses = &mut self.responses;
        let class = match outcome {
            Outcome::Status(100..200) => Some(&mut responses.s1xx),
            Outcome::Status(200..300) => Some(&mut responses.s2xx),
            Outcome::Status(300..400) => Some(&mut responses.s3xx),
            Outcome::Status(400..500) => Some(&mut responses.s4xx),
            Outcome::Status(500..600) => Some(&mut responses.s5xx),
            // No status of HTTP, but `errors` may contain it.
            Outcome::Status(_) => None,
            Outcome::Failure(_) => Some(&mut responses.l4_failures),
            Outcome::Answered => Some(&mut responses.answered),
            Outcome::Opaque => Some(&mut responses.opaque),
        };
        if let Some(count) = class {
            *count += 1;
        }
        let seen = match outcome {
            Outcome::Status(status) => Some((status, None)),
            Outcome::Failure(failure) => Some((failure.status(), Some(failure))),
            Outcome::Answered | Outcome::Opaque => None,
        };
        if let Some((status, failure)) = seen {
            if self.last.len() == REMEMBERED {
                self.last.pop_front();
            }
            self.last.push_back(Seen { t_ms: now, status, failure, client });
        }
    }

    /// Counts an outcome in the present interval.
    pub(super) fn count(&mut self, sample: Sample, client: Option<IpAddr>) {
        let window = &mut self.breaker.window;
        match sample {
            Sample::Response { failure, .. } => {
                window.responses += 1;
                window.failures += u64::from(failure);
                if failure {
                    window.sources.add(client);
                }
            }
            Sample::Answer { .. } => window.answers += 1,
            Sample::L4Failure => window.l4_failures += 1,
        }
    }
}
