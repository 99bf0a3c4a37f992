//! Exports a [`State`], and continues from one.

use super::{
    Engine,
    backend::{Backend, Note, Override},
    drain::Drain,
    reconfigure::key,
    service::Service,
};
use crate::{
    codes::EventReason,
    config::Detector,
    event::EventKind,
    state::{BackendState, OverrideState, ServiceState, State},
    states::{BreakerState, OperatorState},
    time::{Instant, Millis},
};

const REASON: &str = "restored";

impl Engine {
    /// The state at `now`. Before the first configuration it is the restored one.
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

    /// Continues from the restored state, with the first configuration.
    pub(super) fn restore(&mut self, now: Instant) {
        let Some(state) = self.restored.take().filter(|state| state.version == State::VERSION) else {
            return;
        };
        for id in &self.order {
            let service = self.services.get_mut(id).expect("it is configured");
            let its = state.services.iter().find(|of| of.name == service.config.name);
            for of in its.into_iter().flat_map(|its| &its.backends) {
                let its_key = (of.name.as_str(), of.address, of.identity.as_deref());
                let is_its = |known: &Backend| key(&known.config) == its_key;
                if let Some(index) = service.backends.iter().position(is_its) {
                    service.restore(index, of, now);
                }
            }
            service.follow_policy(now);
        }
    }
}

impl Backend {
    fn export(&self, now: Instant) -> Option<BackendState> {
        let left = |until: Instant| until - now;
        let exported = |order: &Override| OverrideState {
            actor: order.actor.clone(),
            reason: order.reason.clone(),
            left: order.until.map(left),
        };
        let open_for = match self.breaker.state() {
            BreakerState::Closed => None,
            BreakerState::Open => self.breaker.until().map(left),
            BreakerState::HalfOpen => Some(Millis(0)),
        };
        let cause = match &self.note {
            Some(Note::Ejected { what }) => Some(what.clone()),
            Some(Note::Refused { .. } | Note::Suspected { .. } | Note::Unenforced { .. }) | None => None,
        };
        let state = BackendState {
            name: self.config.name.clone(),
            address: self.config.address,
            identity: self.config.identity().map(str::to_owned),
            ejection: self.breaker.ejection(),
            ejections: self.breaker.ejections(),
            open_for,
            cause,
            detector: self.ejected_by.map(|detector| detector.name().to_owned()),
            operator: self.operator,
            operator_override: self.operator_override.as_ref().map(exported),
            weight: self.weight.as_ref().map(|(weight, order)| (*weight, exported(order))),
            drains_for: self.drain.map(|drain| left(drain.until)),
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
        let restored = |order: &OverrideState| Override {
            actor: order.actor.clone(),
            reason: order.reason.clone(),
            since: now,
            until: order.left.map(|left| now + left),
        };
        let until = of.open_for.map(|left| now + left);
        let change = self.backends[index].breaker.restore(of.ejection, of.ejections, until, now);
        if let Some(change) = change {
            self.backends[index].note = of.cause.clone().map(|what| Note::Ejected { what });
            let event = self.event(EventKind::Eject, Some(index), now);
            self.changed_by(index, change, event, REASON);
            self.backends[index].ejected_by = of.detector.as_deref().and_then(Detector::named);
        }
        if of.operator != OperatorState::Enabled {
            let order = of.operator_override.as_ref().map(restored);
            let mut event = self.event(EventKind::Operator, Some(index), now);
            event.until_ms = order.as_ref().and_then(|order| order.until);
            let backend = &mut self.backends[index];
            backend.operator = of.operator;
            backend.operator_override = order;
            self.report(event, OperatorState::Enabled, of.operator, EventReason::Restored, REASON);
        }
        // The drain holds only if the backend is out, and that is known when everything is restored.
        let policy = &self.config.connections;
        self.backends[index].drain = of.drains_for.map(|left| Drain::resume(policy, left, now));
        if let Some((weight, order)) = &of.weight {
            let order = restored(order);
            let mut event = self.event(EventKind::Weight, Some(index), now);
            event.until_ms = order.until;
            let before = self.backends[index].weight();
            self.backends[index].weight = Some((*weight, order));
            self.report(event, before.to_string(), weight.to_string(), EventReason::Restored, REASON);
        }
    }
}
