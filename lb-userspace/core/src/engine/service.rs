//! One service: takes what was seen of its backends to their breakers and
//! probes, and says what changed.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    backend::{Backend, Note, Warming},
    ending::Leaving,
    writer::Writer,
};
use crate::{
    breaker::{
        Change, Signal, Window,
        detector::{Detection, Sample},
        limits::{self, FlowCounts, Refusal},
        sweep,
    },
    config::{self, ProbeKind},
    event::{Event, EventKind, Evidence, Run},
    ids::{BackendId, ServiceId},
    io::ProbeRequest,
    outcome::{L4Failure, Outcome, ProbeResult},
    plan::Grant,
    probe,
    states::{BreakerState, Effective, ProbeState},
    time::{Instant, Millis},
};

const NOTHING_ENFORCED: &str = "nothing is enforced";

pub(super) struct Service {
    pub(super) id: ServiceId,
    /// Its policy. The backends are in `backends`.
    pub(super) config: config::Service,
    pub(super) config_generation: u64,
    pub(super) probe_kind: Option<Arc<ProbeKind>>,
    pub(super) backends: Vec<Backend>,
    /// Backends that left and that the maps may still name.
    pub(super) leaving: BTreeMap<BackendId, Leaving>,
    /// It left itself and stays until the maps have let go of it.
    pub(super) retired: bool,
    pub(super) next_sweep: Instant,
    /// Half-open backends that are on offer until the next sweep.
    pub(super) seats: Vec<BackendId>,
    /// The table was last made of the fallback.
    pub(super) fell_back: bool,
    /// How often a seat was taken.
    pub(super) seatings: u64,
    pub(super) writer: Writer,
    /// Decided, but not yet given to the writer.
    pub(super) decided: Vec<Event>,
}

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
        let late = !limit.is_zero() && ttfb.is_some_and(|ttfb| ttfb >= limit);
        let outcome = match outcome {
            // Its time was over before it came.
            Outcome::Status(_) | Outcome::Answered if late => Outcome::Failure(L4Failure::ResponseTimeout),
            Outcome::Status(_) | Outcome::Answered | Outcome::Failure(_) | Outcome::Opaque => outcome,
        };
        let failed = |status| policy.errors.iter().any(|range| range.contains(&status));
        let sample = match outcome {
            Outcome::Status(status) => Sample::Response { status, failure: failed(status), ttfb },
            Outcome::Failure(_) if policy.split_l4_failures => Sample::L4Failure,
            // Nothing came of it that could have been slow.
            Outcome::Failure(l4) => {
                Sample::Response { status: l4.status(), failure: failed(l4.status()), ttfb: None }
            }
            Outcome::Answered if policy.split_l4_failures => Sample::Answer { ttfb },
            // As L4 failures count as bad ones: a good one (so does Envoy for TCP).
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

    /// Good responses of which each by itself decides nothing. `true`: something changed.
    pub(super) fn goods(&mut self, index: usize, count: u64, now: Instant) -> bool {
        let policy = &self.config.breaker;
        let backend = &mut self.backends[index];
        backend.responses.s2xx += count;
        backend.breaker.window.heads += count;
        backend.breaker.window.responses += count;
        if backend.breaker.state() == BreakerState::Closed {
            let detection = backend.tally.goods(policy, count, now);
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

    /// The answer to a probe. `true`: something changed.
    pub(super) fn probed(&mut self, index: usize, result: ProbeResult, now: Instant) -> bool {
        let Some(policy) = &self.config.probe else { return false };
        let detail = match &result {
            ProbeResult::Pass => None,
            ProbeResult::Status(_) | ProbeResult::Fail(_) => Some(result.to_string()),
        };
        let passes = probe::passes(policy, &result);
        if let Some(change) = self.backends[index].health.result(policy, result) {
            let mut event = self.event(EventKind::Probe, Some(index), now);
            event.evidence.detail = detail;
            self.backends[index].health_since = now;
            self.turned(event, change.from, change.to, change.reason, "probe");
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
            address: backend.config.address,
            kind: kind.clone(),
            timeout: policy.timeout,
        })
    }

    /// The end of an interval: returns, then what the interval showed, then the decay of those that
    /// were in throughout.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.next_sweep = now + self.config.breaker.interval.max(Millis(1));
        let (out, inside): (Vec<_>, Vec<_>) = (0..self.backends.len()).partition(|index| self.out(*index));
        for index in out {
            let event = self.event(EventKind::Trial, Some(index), now);
            if let Some(change) = self.swept(index, now) {
                self.changed(index, change, event);
            }
        }
        let windows: Vec<_> =
            inside.iter().map(|index| (*index, self.backends[*index].breaker.window)).collect();
        // Each is compared with its like.
        let (fallback, others): (Vec<_>, Vec<_>) =
            windows.into_iter().partition(|(index, _)| self.backends[*index].fallback);
        for windows in [others, fallback] {
            for (index, detection) in sweep::detect(&self.config.breaker, &windows) {
                self.detected(index, &detection, now);
            }
        }
        for index in inside.into_iter().filter(|index| !self.out(*index)).collect::<Vec<_>>() {
            self.swept(index, now);
            let backend = &mut self.backends[index];
            let window = backend.breaker.window;
            if window.told() > 0 && window.failures + window.l4_failures + window.detections == 0 {
                backend.note = None;
            }
        }
        for backend in &mut self.backends {
            backend.breaker.window = Window::default();
        }
        self.take_seats();
        self.grant_budgets(now);
    }

    fn swept(&mut self, index: usize, now: Instant) -> Option<Change> {
        let policy = &self.config.breaker;
        let offered = self.offered(index);
        let backend = &mut self.backends[index];
        let signal = Signal::Sweep { readmits: backend.readmits(policy), offered };
        backend.breaker.on(signal, policy, now)
    }

    /// A detector fired on a closed backend.
    fn detected(&mut self, index: usize, detection: &Detection, now: Instant) {
        if self.out(index) {
            // An earlier detector of the same outcome has acted.
            return;
        }
        let shadow = self.config.breaker.shadow.contains(&detection.detector);
        let mut event = self.event(EventKind::Eject, Some(index), now);
        event.enforced = self.config.breaker.enforce && !shadow;
        // What only looks on moves nothing, the decay of the number included.
        self.backends[index].breaker.window.detections += u64::from(event.enforced);
        self.record_runs(index, &mut event.evidence);
        detection.record(&mut event.evidence);

        let policy = &self.config.breaker;
        let window = self.backends[index].breaker.window;
        if let Err(refusal) = limits::allow(policy, &window, &self.census(index)) {
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

    /// Every run that could detect, as it stands.
    fn record_runs(&self, index: usize, evidence: &mut Evidence) {
        let (policy, tally) = (&self.config.breaker, &self.backends[index].tally);
        let run = |count, threshold| (threshold > 0).then_some(Run { count, threshold });
        evidence.consecutive_5xx = run(tally.run_5xx, policy.consecutive_5xx);
        evidence.consecutive_gateway_failure = run(tally.run_gateway, policy.consecutive_gateway_failure);
        if policy.split_l4_failures {
            evidence.consecutive_l4_failure = run(tally.run_l4, policy.consecutive_l4_failure);
        }
    }

    /// A half-open backend answered.
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

    /// Reports a transition; `event` was begun before it.
    fn changed(&mut self, index: usize, change: Change, event: Event) {
        self.changed_by(index, change, event, "breaker");
    }

    pub(super) fn changed_by(&mut self, index: usize, change: Change, mut event: Event, actor: &str) {
        let backend = &mut self.backends[index];
        match change.to {
            BreakerState::Closed => {
                backend.tally.reset();
                backend.note = None;
                let slow = self.config.breaker.slow_start > Millis(0);
                backend.warming = slow.then_some(Warming { since: event.t_ms, step: 1 });
            }
            BreakerState::Open => {
                event.until_ms = backend.breaker.until();
                backend.warming = None;
            }
            BreakerState::HalfOpen => {}
        }
        event.kind = change.kind;
        event.ejection = backend.breaker.ejection();
        self.ruled(index, event, change.from, change.to, change.reason, actor);
    }

    fn refused(&mut self, index: usize, refusal: Refusal, what: String, mut event: Event) {
        let state = self.backends[index].breaker.state();
        event.kind = EventKind::Refused;
        event.evidence.detail = Some(refusal.to_string());
        self.backends[index].note = Some(Note::Refused { refusal, what, at: event.t_ms });
        self.ruled(index, event, state, state, refusal.name(), "breaker");
    }

    fn unenforced(&mut self, index: usize, reason: &str, why: String, what: String, mut event: Event) {
        let state = self.backends[index].breaker.state();
        event.enforced = false;
        self.backends[index].note = Some(Note::Unenforced { why, what, at: event.t_ms });
        self.ruled(index, event, state, BreakerState::Open, reason, "breaker");
    }

    /// Completes an event about the breaker, which is the last decision until the next one, and lets it out.
    fn ruled(
        &mut self,
        index: usize,
        event: Event,
        from: BreakerState,
        to: BreakerState,
        reason: &str,
        actor: &str,
    ) {
        self.turned(event, from, to, reason, actor);
        self.backends[index].decision = self.decided.last().cloned().map(Box::new);
    }

    /// Completes an event and lets it out.
    pub(super) fn turned(
        &mut self,
        mut event: Event,
        from: impl Into<String>,
        to: impl Into<String>,
        reason: &str,
        actor: &str,
    ) {
        event.from = from.into();
        event.to = to.into();
        event.reason = reason.to_owned();
        event.actor = actor.to_owned();
        self.decided.push(event);
    }

    /// An event with the facts of this moment. What is still to be said of it is empty.
    pub(super) fn event(&self, kind: EventKind, index: Option<usize>, now: Instant) -> Event {
        let backend = index.map(|index| &self.backends[index]);
        let FlowCounts { backends, out, serving, .. } =
            self.census_of(backend.is_some_and(|backend| backend.fallback), index);
        let evidence = Evidence {
            window: backend.map(|backend| backend.breaker.window.totals()),
            last: backend.map(|backend| backend.last.iter().copied().collect()).unwrap_or_default(),
            out,
            backends,
            serving,
            max_ejection_percent: self.config.breaker.max_ejection_percent,
            min_serving: self.config.breaker.min_serving,
            probe: backend.map(|backend| backend.health.state()).filter(|state| *state != ProbeState::None),
            ..Evidence::default()
        };
        Event {
            seq: 0,
            t_ms: now,
            kind,
            service: self.config.name.clone(),
            backend: backend.map(|backend| backend.config.name.clone()),
            from: String::new(),
            to: String::new(),
            reason: String::new(),
            enforced: true,
            ejection: backend.map_or(0, |backend| backend.breaker.ejection()),
            until_ms: None,
            actor: String::new(),
            config_generation: self.config_generation,
            evidence,
        }
    }

    /// Of the backends like this one: those of the fallback and the others do not count for each other.
    pub(super) fn census(&self, index: usize) -> FlowCounts {
        self.census_of(self.backends[index].fallback, Some(index))
    }

    fn census_of(&self, fallback: bool, without: Option<usize>) -> FlowCounts {
        let serving = self.able(fallback);
        let like = || self.backends.iter().filter(|backend| backend.fallback == fallback);
        FlowCounts {
            backends: like().count() as u32,
            out: like().filter(|backend| backend.out()).count() as u32,
            serving: serving.len() as u32,
            left: serving.iter().filter(|serving| Some(**serving) != without).count() as u32,
        }
    }

    fn out(&self, index: usize) -> bool {
        self.backends[index].out()
    }

    /// Whether the maps gave new connections to a backend in the interval that ends.
    fn offered(&self, index: usize) -> bool {
        let id = self.backends[index].id;
        let applied = &self.writer.applied;
        let seated = applied.service.as_ref().is_some_and(|entry| entry.trials.contains(&id));
        let in_table = applied.table.iter().flatten().any(|member| member.id == id);
        // A fallback that nobody needs cannot be tried, and need not wait until somebody does.
        let unneeded = self.backends[index].fallback && !self.serving().is_empty();
        seated || in_table || unneeded
    }

    /// Seats for the half-open backends that have waited longest.
    fn take_seats(&mut self) {
        let fallback = self.serving().is_empty();
        let may = |backend: &&mut Backend| {
            backend.effective() == Effective::Trial && (fallback || !backend.fallback)
        };
        let mut waiting: Vec<&mut Backend> = self.backends.iter_mut().filter(may).collect();
        waiting.sort_by_key(|backend| (backend.seated, backend.id));
        waiting.truncate(lb_common::abi::TRIAL_SLOTS);
        for backend in &mut waiting {
            self.seatings += 1;
            backend.seated = self.seatings;
        }
        self.seats = waiting.iter().map(|backend| backend.id).collect();
        self.seats.sort_unstable();
    }

    fn grant_budgets(&mut self, now: Instant) {
        let policy = &self.config.breaker;
        for backend in self.backends.iter_mut().filter(|backend| self.seats.contains(&backend.id)) {
            let wants = backend.breaker.wants_budget(backend.readmits(policy), policy, now);
            if wants && !self.writer.budget_in_flight(backend.id) {
                let number = backend.grant.map_or(0, |grant| grant.number) + 1;
                backend.grant = Some(Grant { number, tokens: policy.half_open_trials });
                backend.breaker.budget_granted(now);
            }
        }
    }
}
