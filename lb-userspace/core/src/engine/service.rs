//! The state of one service, and the events that report its changes.
//!
//! `observe`, `probing`, `sweep`, `operator`, `memory`, `reconfigure` and `follow` change it, each for another
//! cause. They report through the methods here. No method here calls theirs.

use std::sync::Arc;

use super::{
    backend::{Backend, Note, Warming},
    leaving::Leaving,
    members,
    writer::Writer,
};
use crate::{
    breaker::{
        Change,
        limits::{BackendCounts, Refusal},
        sources::Sources,
    },
    codes::{BackendReason, EventReason},
    config::{self, ProbeKind},
    event::{Event, EventKind, Evidence},
    ids::{BackendId, ServiceId},
    outcome::ClientCounts,
    states::{BreakerState, Panic, ProbeState},
    time::{Instant, Millis},
};

pub(super) struct Service {
    pub(super) id: ServiceId,
    /// Its policy. The backends are in `backends`.
    pub(super) config: config::Service,
    pub(super) config_generation: u64,
    pub(super) probe_kind: Option<Arc<ProbeKind>>,
    pub(super) backends: Vec<Backend>,
    /// Backends that were removed and that the maps may still hold.
    pub(super) leaving: Leaving,
    /// The service was removed. It stays until the maps no longer hold it.
    pub(super) retired: bool,
    pub(super) next_sweep: Instant,
    /// Half-open backends that get trials until the next sweep.
    pub(super) trial_slots: Vec<BackendId>,
    /// The table was last built from the fallback.
    pub(super) fallback_used: bool,
    /// Why the service last panicked, if it still does.
    pub(super) panic: Option<Panic>,
    /// How often a trial slot was given.
    pub(super) trial_slots_given: u64,
    pub(super) writer: Writer,
    /// The clients of the service, as the last failure had them. `None`: not known.
    pub(super) client_counts: Option<ClientCounts>,
    /// Decided, but not yet given to the writer.
    pub(super) decided: Vec<Event>,
}

impl Service {
    /// Reports a transition of the breaker. `event` was made before it, so it has the facts of before.
    pub(super) fn changed(&mut self, index: usize, change: Change, event: Event) {
        self.changed_by(index, change, event, "breaker");
    }

    /// The same for an actor other than the breaker.
    pub(super) fn changed_by(&mut self, index: usize, change: Change, mut event: Event, actor: &str) {
        let backend = &mut self.backends[index];
        backend.suspicion = backend.suspicion.after_change();
        backend.trial_sources = Sources::default();
        match change.to {
            BreakerState::Closed => {
                backend.tally.reset();
                (backend.note, backend.ejected_by) = (None, None);
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
        self.report_breaker(index, event, change.from, change.to, change.reason, actor);
    }

    /// Reports a detection that a limit did not let act.
    pub(super) fn refused(&mut self, index: usize, refusal: Refusal, what: String, mut event: Event) {
        let state = self.backends[index].breaker.state();
        event.kind = EventKind::Refused;
        event.evidence.detail = Some(refusal.to_string());
        let reason = EventReason::from(&refusal);
        self.backends[index].note = Some(Note::Refused { refusal, what, at: event.t_ms });
        self.report_breaker(index, event, state, state, reason, "breaker");
    }

    /// Reports failures that would have ejected a backend if they were confirmed, or if more clients had seen
    /// them. At most one report a second: a client that provokes failures must not fill the log.
    pub(super) fn suspected(&mut self, index: usize, reason: EventReason, what: String, mut event: Event) {
        const APART: Millis = Millis(1000);
        let at = event.t_ms;
        let backend = &mut self.backends[index];
        backend.note = Some(Note::Suspected { what: what.clone(), at });
        if backend.suspected_at.is_some_and(|last| at - last < APART) {
            return;
        }
        backend.suspected_at = Some(at);
        let state = backend.breaker.state();
        event.kind = EventKind::Suspected;
        event.evidence.detail = Some(what);
        self.report(event, state, state, reason, "breaker");
    }

    /// Reports a detection that is not enforced.
    pub(super) fn unenforced(
        &mut self,
        index: usize,
        reason: EventReason,
        (code, why): (BackendReason, String),
        what: String,
        mut event: Event,
    ) {
        let state = self.backends[index].breaker.state();
        event.enforced = false;
        self.backends[index].note = Some(Note::Unenforced { code, why, what, at: event.t_ms });
        self.report_breaker(index, event, state, BreakerState::Open, reason, "breaker");
    }

    /// Completes and reports an event of the breaker. It is the last decision until the next one.
    fn report_breaker(
        &mut self,
        index: usize,
        event: Event,
        from: BreakerState,
        to: BreakerState,
        reason: EventReason,
        actor: &str,
    ) {
        self.report(event, from, to, reason, actor);
        self.backends[index].decision = self.decided.last().cloned().map(Box::new);
    }

    /// Completes and reports an event.
    pub(super) fn report(
        &mut self,
        mut event: Event,
        from: impl Into<String>,
        to: impl Into<String>,
        reason: EventReason,
        actor: &str,
    ) {
        event.from = from.into();
        event.to = to.into();
        event.reason = reason;
        event.actor = actor.to_owned();
        self.decided.push(event);
    }

    /// An event with the facts of this moment. [`report`](Self::report) fills in the rest.
    pub(super) fn event(&self, kind: EventKind, index: Option<usize>, now: Instant) -> Event {
        let backend = index.map(|index| &self.backends[index]);
        let BackendCounts { backends, out, serving, .. } = members::counts(
            &self.backends,
            &self.config,
            backend.is_some_and(|backend| backend.fallback),
            index,
        );
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
            reason: EventReason::Config,
            enforced: true,
            ejection: backend.map_or(0, |backend| backend.breaker.ejection()),
            until_ms: None,
            actor: String::new(),
            config_generation: self.config_generation,
            evidence,
        }
    }

    pub(super) fn out(&self, index: usize) -> bool {
        self.backends[index].out()
    }
}
