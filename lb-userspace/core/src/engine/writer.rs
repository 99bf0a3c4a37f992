//! The state of a service in the maps, the plan under way, and the events that wait for it.
//!
//! An event that announces a change of forwarding becomes known only when the maps hold the change, so that
//! its reader can rely on it. Each change of what is wanted is a new revision. A plan carries one. When
//! nothing is left to write, the writer releases all events up to the present revision, in order.

use std::{collections::VecDeque, net::SocketAddr};

use crate::{
    codes::PendingCode,
    event::{Event, EventKind},
    ids::{BackendId, ServiceId},
    io::{Step, StepFailure},
    plan::Forwarding,
    snapshot::PendingWrite,
    time::{Instant, Millis},
};

const FIRST_RETRY: Millis = Millis(100);
const LAST_RETRY: Millis = Millis(5000);

#[derive(Default)]
pub(super) struct Writer {
    pub(super) applied: Forwarding,
    wanted: Forwarding,
    revision: u64,
    held: VecDeque<(u64, Event)>,
    flight: Option<Flight>,
    pub(super) failing: Option<PendingWrite>,
}

/// A plan that was given to the dataplane and has no result yet.
struct Flight {
    plan: u64,
    steps: Vec<Step>,
    target: Forwarding,
    revision: u64,
}

/// The next thing to do for a service.
pub(super) enum Next {
    /// A plan is under way.
    Wait,
    /// A failed write is tried again then.
    Retry(Instant),
    Write(Vec<Step>),
    /// The maps hold what is wanted.
    Done,
    /// Nothing can be written while the maps hold the VIP for another service.
    Blocked,
}

/// The result of a plan.
pub(super) enum PlanResult {
    /// The maps hold this revision.
    Held { revision: u64 },
    /// `first`: the writes before this one held.
    Failed { first: bool },
}

impl Writer {
    /// Takes the maps to hold this already.
    pub(super) fn adopting(applied: Forwarding) -> Self {
        Self { applied, ..Self::default() }
    }

    /// Sets what the maps should hold. `true`: that is new.
    pub(super) fn want(&mut self, wanted: Forwarding) -> bool {
        let new = self.wanted != wanted;
        if new {
            self.wanted = wanted;
            self.revision += 1;
        }
        new
    }

    /// Keeps an event until the maps agree with it. Returns an event that may be known at once.
    pub(super) fn hold(&mut self, event: Event, changed: bool) -> Option<Event> {
        if announces(&event) && (changed || !self.held.is_empty()) {
            self.held.push_back((self.revision, event));
            return None;
        }
        Some(event)
    }

    /// The events that may be known by now, in order.
    pub(super) fn release(&mut self, revision: u64) -> impl Iterator<Item = Event> + use<> {
        let count = self.held.partition_point(|(of, _)| *of <= revision);
        self.held.drain(..count).map(|(_, event)| event).collect::<Vec<_>>().into_iter()
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn next(&self, id: ServiceId, vip_is_free: bool, now: Instant) -> Next {
        if self.flight.is_some() {
            return Next::Wait;
        }
        let steps = self.applied.steps_to(&self.target(vip_is_free), id);
        if steps.is_empty() {
            return if vip_is_free { Next::Done } else { Next::Blocked };
        }
        match &self.failing {
            Some(pending) if now < pending.next_try_ms => Next::Retry(pending.next_try_ms),
            Some(_) | None => Next::Write(steps),
        }
    }

    /// Notes that a plan was given to the dataplane.
    pub(super) fn sent(&mut self, plan: u64, steps: Vec<Step>, vip_is_free: bool) {
        let revision = if vip_is_free { self.revision } else { 0 };
        self.flight = Some(Flight { plan, steps, target: self.target(vip_is_free), revision });
    }

    pub(super) fn awaits(&self, plan: u64) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.plan == plan)
    }

    /// Takes the result of the plan under way.
    pub(super) fn finished(&mut self, result: Result<(), StepFailure>, now: Instant) -> PlanResult {
        let flight = self.flight.take().expect("only a plan under way has a result");
        let held = match &result {
            Ok(()) => flight.steps.len(),
            Err(failure) => failure.index.min(flight.steps.len()),
        };
        for step in &flight.steps[..held] {
            self.applied.apply(step, &flight.target);
        }
        let Err(failure) = result else { return PlanResult::Held { revision: flight.revision } };
        let former = self.failing.take();
        let attempts = former.as_ref().map_or(0, |pending| pending.attempts) + 1;
        let next_try_ms = now + back_off(attempts);
        self.failing = Some(PendingWrite {
            code: PendingCode::WriteFailed,
            error: failure.error,
            attempts,
            next_try_ms,
        });
        PlanResult::Failed { first: former.is_none() }
    }

    /// Whether the maps hold what is wanted for this backend. A budget changes with each interval and does not
    /// count.
    pub(super) fn agrees_on(&self, id: BackendId) -> bool {
        self.wanted.place(id) == self.applied.place(id)
    }

    /// Whether a backend is in the maps, or may be any moment.
    pub(super) fn names_backend(&self, id: BackendId) -> bool {
        let on_its_way = self.flight.as_ref().is_some_and(|flight| flight.target.backends.contains_key(&id));
        self.applied.backends.contains_key(&id) || on_its_way
    }

    /// Whether a VIP is in the maps, or may be any moment.
    pub(super) fn names_vip(&self, vip: SocketAddr) -> bool {
        let flight = self.flight.as_ref().map(|flight| &flight.target);
        [Some(&self.applied), flight]
            .into_iter()
            .flatten()
            .filter_map(|forwarding| forwarding.service.as_ref())
            .any(|entry| entry.vip == vip)
    }

    /// Whether a budget of this backend may be written any moment. It then belongs to the interval that
    /// has just begun.
    pub(super) fn budget_in_flight(&self, id: BackendId) -> bool {
        let is_its = |step: &Step| matches!(step, Step::Budget { id: of, .. } if *of == id);
        self.flight.as_ref().is_some_and(|flight| flight.steps.iter().any(is_its))
    }

    fn target(&self, vip_is_free: bool) -> Forwarding {
        let mut target = self.wanted.clone();
        if !vip_is_free {
            target.service = None;
        }
        target
    }
}

/// Whether an event announces a change that the maps may have to carry out.
fn announces(event: &Event) -> bool {
    match event.kind {
        EventKind::Eject => event.enforced,
        EventKind::Trial
        | EventKind::Readmit
        | EventKind::Path
        | EventKind::Probe
        | EventKind::Operator
        | EventKind::Weight
        | EventKind::Membership
        | EventKind::Fallback
        | EventKind::Panic
        | EventKind::Discovery
        | EventKind::Drained => true,
        EventKind::Refused
        | EventKind::Suspected
        | EventKind::Dataplane
        | EventKind::Interface
        | EventKind::Limit => false,
    }
}

fn back_off(attempts: u32) -> Millis {
    let doublings = (attempts - 1).min(16);
    Millis((FIRST_RETRY.0 << doublings).min(LAST_RETRY.0))
}
