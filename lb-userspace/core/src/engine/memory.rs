//! Exporting a [`State`], and going on from one.

use super::{
    Engine,
    backend::{Backend, Mandate, Note},
    ending::Ending,
    service::Service,
};
use crate::{
    event::EventKind,
    state::{BackendState, MandateState, ServiceState, State},
    states::{BreakerState, OperatorState},
    time::{Instant, Millis},
};

const REASON: &str = "restored";

impl Engine {
    /// What is to be remembered at `now`. Before the first configuration: what was restored.
    pub fn export(&self, now: Instant) -> State {
        if let Some(restored) = &self.restored {
            return restored.clone();
        }
        let remembered = |service: &Service| ServiceState {
            name: service.config.name.clone(),
            backends: service.backends.iter().filter_map(|backend| backend.export(now)).collect(),
        };
        let services = self.active().map(remembered).filter(|service| !service.backends.is_empty());
        State { version: State::VERSION, services: services.collect() }
    }

    /// Goes on from what was restored, with the first configuration.
    pub(super) fn restore(&mut self, now: Instant) {
        let Some(state) = self.restored.take().filter(|state| state.version == State::VERSION) else {
            return;
        };
        for id in &self.order {
            let service = self.services.get_mut(id).expect("it is configured");
            let its = state.services.iter().find(|of| of.name == service.config.name);
            for of in its.into_iter().flat_map(|its| &its.backends) {
                let is_its =
                    |known: &Backend| (&known.config.name, known.config.address) == (&of.name, of.address);
                if let Some(index) = service.backends.iter().position(is_its) {
                    service.restore(index, of, now);
                }
            }
        }
    }
}

impl Backend {
    fn export(&self, now: Instant) -> Option<BackendState> {
        let left = |until: Instant| until - now;
        let told = |mandate: &Mandate| MandateState {
            actor: mandate.actor.clone(),
            reason: mandate.reason.clone(),
            left: mandate.until.map(left),
        };
        let open_for = match self.breaker.state() {
            BreakerState::Closed => None,
            BreakerState::Open => self.breaker.until().map(left),
            BreakerState::HalfOpen => Some(Millis(0)),
        };
        let cause = match &self.note {
            Some(Note::Ejected { what }) => Some(what.clone()),
            Some(Note::Refused { .. } | Note::Unenforced { .. }) | None => None,
        };
        let state = BackendState {
            name: self.config.name.clone(),
            address: self.config.address,
            ejection: self.breaker.ejection(),
            ejections: self.breaker.ejections(),
            open_for,
            cause,
            operator: self.operator,
            mandate: self.mandate.as_ref().map(told),
            weight: self.weight.as_ref().map(|(weight, mandate)| (*weight, told(mandate))),
            drains_for: self.ending.map(|ending| left(ending.until)),
        };
        let eventful = state.ejections > 0
            || state.open_for.is_some()
            || state.operator != OperatorState::Enabled
            || state.weight.is_some();
        eventful.then_some(state)
    }
}

impl Service {
    fn restore(&mut self, index: usize, of: &BackendState, now: Instant) {
        let told = |mandate: &MandateState| Mandate {
            actor: mandate.actor.clone(),
            reason: mandate.reason.clone(),
            since: now,
            until: mandate.left.map(|left| now + left),
        };
        let until = of.open_for.map(|left| now + left);
        let change = self.backends[index].breaker.restore(of.ejection, of.ejections, until, now);
        if let Some(change) = change {
            self.backends[index].note = of.cause.clone().map(|what| Note::Ejected { what });
            let event = self.event(EventKind::Eject, Some(index), now);
            self.changed_by(index, change, event, REASON);
        }
        if of.operator != OperatorState::Enabled {
            let mandate = of.mandate.as_ref().map(told);
            let mut event = self.event(EventKind::Operator, Some(index), now);
            event.until_ms = mandate.as_ref().and_then(|mandate| mandate.until);
            let backend = &mut self.backends[index];
            backend.operator = of.operator;
            backend.mandate = mandate;
            self.turned(event, OperatorState::Enabled, of.operator, REASON, REASON);
        }
        // Whether it is out is known when all of it is restored.
        let policy = &self.config.connections;
        self.backends[index].ending = of.drains_for.map(|left| Ending::goes_on(policy, left, now));
        if let Some((weight, mandate)) = &of.weight {
            let mandate = told(mandate);
            let mut event = self.event(EventKind::Weight, Some(index), now);
            event.until_ms = mandate.until;
            let before = self.backends[index].weight();
            self.backends[index].weight = Some((*weight, mandate));
            self.turned(event, before.to_string(), weight.to_string(), REASON, REASON);
        }
    }
}
