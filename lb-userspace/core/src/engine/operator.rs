//! Operators' orders: the operator's axis, the breaker by hand, weights.
//!
//! The floor holds for operators too, unless they use `force`. An override has an actor and may have an end.
//! It survives reloads.

use super::{
    backend::{Note, Override, STEPS},
    follow,
    members::{self, Members},
    service::Service,
};
use crate::{
    breaker::Signal,
    codes::EventReason,
    event::EventKind,
    io::{Operation, Verb},
    states::OperatorState,
    time::Instant,
};

/// Why an operation was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("there is no service `{service}`")]
    NoService { service: String },
    #[error("service `{service}` has no backend `{backend}`")]
    NoBackend { service: String, backend: String },
    /// Too few backends would be left. With `force` the engine does it all the same.
    #[error(
        "{serving} of {backends} backends of `{service}` serve, min_serving is {min}: \
         without `{backend}` there would be {left}"
    )]
    Floor { service: String, backend: String, serving: u32, left: u32, backends: u32, min: u32 },
}

impl Refused {
    pub(super) fn no_service(operation: &Operation) -> Self {
        Self::NoService { service: operation.service.clone() }
    }
}

impl Service {
    pub(super) fn operate(&mut self, operation: &Operation, now: Instant) -> Result<(), Refused> {
        let named = self.backends.iter().position(|backend| backend.config.name == operation.backend);
        let index = named.ok_or_else(|| Refused::NoBackend {
            service: operation.service.clone(),
            backend: operation.backend.clone(),
        })?;
        let takes_out = match operation.verb {
            Verb::Disable | Verb::Drain | Verb::Eject => true,
            Verb::Enable | Verb::Admit | Verb::Weight(_) => false,
        };
        if takes_out && !operation.force {
            self.keep_floor(index, operation, now)?;
        }
        let Operation { actor, reason, .. } = operation.clone();
        let until = operation.duration.map(|time| now + time);
        let order = Override { actor, reason, since: now, until };
        match operation.verb {
            Verb::Enable => self.set_operator(index, OperatorState::Enabled, order, now),
            Verb::Disable => self.set_operator(index, OperatorState::Disabled, order, now),
            Verb::Drain => self.set_operator(index, OperatorState::Draining, order, now),
            Verb::Eject => self.by_hand(index, Signal::Eject { time: operation.duration }, &order, now),
            Verb::Admit => self.by_hand(index, Signal::Admit, &order, now),
            Verb::Weight(weight) => {
                self.set_weight(index, weight.map(|weight| (weight, order.clone())), &order, now);
            }
        }
        Ok(())
    }

    /// When the next override or drain ends or share rises.
    pub(super) fn next_alarm(&self) -> Option<Instant> {
        let state = self.backends.iter().filter_map(|backend| backend.operator_override.as_ref());
        let weight = self.backends.iter().filter_map(|backend| Some(&backend.weight.as_ref()?.1));
        let slow_start = self.config.breaker.slow_start;
        let shares = self.backends.iter().filter_map(|backend| Some(backend.warming?.next(slow_start)));
        let overrides = state.chain(weight).filter_map(|order| order.until);
        overrides.chain(shares).chain(follow::due(self)).min()
    }

    /// Ends overrides whose time is over, and raises shares.
    pub(super) fn alarm(&mut self, now: Instant) {
        for index in 0..self.backends.len() {
            self.warm(index, now);
        }
        let over = |order: &Override| order.until.is_some_and(|until| until <= now);
        for index in 0..self.backends.len() {
            if let Some(order) = self.backends[index].operator_override.take_if(|order| over(order)) {
                let order = Override { reason: Some("its time is over".to_owned()), until: None, ..order };
                self.set_operator(index, OperatorState::Enabled, order, now);
            }
            let before = self.backends[index].weight();
            if let Some((_, order)) = self.backends[index].weight.take_if(|(_, order)| over(order)) {
                let order = Override { reason: Some("its time is over".to_owned()), until: None, ..order };
                self.weight_event(index, before, &order, now);
            }
        }
    }

    fn warm(&mut self, index: usize, now: Instant) {
        let slow_start = self.config.breaker.slow_start;
        let Some(mut warming) = self.backends[index].warming else { return };
        let before = warming.step;
        while warming.step < STEPS && warming.next(slow_start) <= now {
            warming.step += 1;
        }
        if warming.step == before {
            return;
        }
        let event = self.event(EventKind::Weight, Some(index), now);
        self.backends[index].warming = (warming.step < STEPS).then_some(warming);
        let percent = |step: u64| format!("{} %", step * 100 / STEPS);
        self.report(event, percent(before), percent(warming.step), EventReason::SlowStart, "breaker");
    }

    fn keep_floor(&mut self, index: usize, operation: &Operation, now: Instant) -> Result<(), Refused> {
        let fallback = self.backends[index].fallback;
        if fallback && !Members::of(&self.backends, &self.config).on_fallback() {
            return Ok(());
        }
        let counts = members::counts(&self.backends, &self.config, fallback, Some(index));
        let min = self.config.breaker.min_serving;
        if counts.left == counts.serving || counts.left >= min {
            return Ok(());
        }
        let refused = Refused::Floor {
            service: operation.service.clone(),
            backend: operation.backend.clone(),
            serving: counts.serving,
            left: counts.left,
            backends: counts.backends,
            min,
        };
        let state = self.backends[index].operator;
        let mut event = self.event(EventKind::Refused, Some(index), now);
        event.evidence.detail = Some(format!("{}: {refused}", operation.verb));
        self.report(event, state, state, EventReason::Floor, &operation.actor);
        Err(refused)
    }

    /// The same state again renews actor, reason and end. An event reports that, too.
    fn set_operator(&mut self, index: usize, state: OperatorState, order: Override, now: Instant) {
        let mut event = self.event(EventKind::Operator, Some(index), now);
        let backend = &mut self.backends[index];
        if (backend.operator, state) == (OperatorState::Enabled, OperatorState::Enabled) {
            return;
        }
        let from = std::mem::replace(&mut backend.operator, state);
        if from != state {
            backend.operator_since = now;
        }
        event.until_ms = order.until;
        event.evidence.detail.clone_from(&order.reason);
        let actor = order.actor.clone();
        backend.operator_override = (state != OperatorState::Enabled).then_some(order);
        self.report(event, from, state, EventReason::Operator, &actor);
    }

    fn by_hand(&mut self, index: usize, signal: Signal, order: &Override, now: Instant) {
        let mut event = self.event(EventKind::Eject, Some(index), now);
        event.evidence.detail.clone_from(&order.reason);
        let backend = &mut self.backends[index];
        let Some(change) = backend.breaker.on(signal, &self.config.breaker, now) else { return };
        let why = order.reason.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        backend.ejected_by = None;
        backend.note = Some(Note::Ejected { what: format!("an order of {}{why}", order.actor) });
        self.changed_by(index, change, event, &order.actor);
    }

    fn set_weight(
        &mut self,
        index: usize,
        weight: Option<(std::num::NonZeroU16, Override)>,
        order: &Override,
        now: Instant,
    ) {
        let before = self.backends[index].weight();
        self.backends[index].weight = weight;
        self.weight_event(index, before, order, now);
    }

    fn weight_event(&mut self, index: usize, before: u16, order: &Override, now: Instant) {
        let after = self.backends[index].weight();
        if before == after {
            return;
        }
        let mut event = self.event(EventKind::Weight, Some(index), now);
        event.until_ms = order.until;
        event.evidence.detail.clone_from(&order.reason);
        self.report(event, before.to_string(), after.to_string(), EventReason::Operator, &order.actor);
    }
}
