//! The engine: one deterministic machine around all services.
//!
//! Owns every decision and the account of what the maps hold. Nothing in it
//! fails: what can fail is outside, and comes back as an input.

mod backend;
mod ending;
mod fallback;
mod forwarding;
mod ids;
mod memory;
mod operator;
mod reload;
mod report;
mod schedule;
mod service;
mod why;
mod writer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use ids::{Exhausted, fits};
pub use operator::Refused;

use self::{
    backend::Backend,
    ids::Ids,
    schedule::{Deadline, Schedule},
    service::Service,
    writer::{Answer, Next},
};
use crate::{
    event::{Event, EventKind, Evidence},
    ids::{Adopted, BackendId, Generation, ServiceId},
    io::{Input, Operation, Output, Plan, StepFailure},
    state::State,
    time::{Instant, Millis},
};

/// What an engine begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What all randomness is made from. The same seed gives the same decisions.
    pub seed: u64,
    /// What the maps of an earlier run hold.
    pub adopted: Vec<Adopted>,
    /// Generations begin above this. It has to be above all that an earlier run gave, whose flows may
    /// still be in the maps; the time of the start, in seconds, is.
    pub generation_floor: u32,
    /// What an earlier run remembered.
    pub restored: Option<State>,
    /// Every response is wanted by itself, as by a recording.
    pub mirror_all: bool,
}

/// For how long a service waits. 0: as long as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the answer to a SYN.
    pub connect: Millis,
    /// For the head of a response.
    pub response: Millis,
}

pub struct Engine {
    seed: u64,
    /// Until the first configuration.
    adopted: Vec<Adopted>,
    /// Until the first configuration.
    restored: Option<State>,
    mirror_all: bool,
    now: Instant,
    config_generation: u64,
    services: BTreeMap<ServiceId, Service>,
    /// Those configured, in the order of the file.
    order: Vec<ServiceId>,
    /// Where each backend is: its service and its place there.
    places: BTreeMap<BackendId, (ServiceId, usize)>,
    ids: Ids,
    schedule: Schedule,
    /// Services whose forwarding may have changed.
    dirty: BTreeSet<ServiceId>,
    /// Services whose VIP another one has not yet let go of.
    blocked: BTreeSet<ServiceId>,
    outputs: VecDeque<Output>,
    plans: u64,
    events: u64,
}

impl Engine {
    pub fn new(settings: Settings, now: Instant) -> Self {
        let Settings { seed, adopted, generation_floor, restored, mirror_all } = settings;
        Self {
            seed,
            ids: Ids::new(&adopted, generation_floor),
            adopted,
            restored,
            mirror_all,
            now,
            config_generation: 0,
            services: BTreeMap::new(),
            order: Vec::new(),
            places: BTreeMap::new(),
            schedule: Schedule::default(),
            dirty: BTreeSet::new(),
            blocked: BTreeSet::new(),
            outputs: VecDeque::new(),
            plans: 0,
            events: 0,
        }
    }

    /// Takes what happened at `now`, after all that was due by then.
    pub fn handle(&mut self, input: Input, now: Instant) {
        let now = self.catch_up(now);
        self.take(input, now);
        self.settle(now);
    }

    /// Does what an operator wants, as an input of its own. Refused, nothing has changed.
    pub fn operate(&mut self, operation: &Operation, now: Instant) -> Result<(), Refused> {
        let now = self.catch_up(now);
        let done = self.carry_out(operation, now);
        self.settle(now);
        done
    }

    /// Does all that was due by `now`. Time does not run back.
    fn catch_up(&mut self, now: Instant) -> Instant {
        let now = now.max(self.now);
        while let Some((at, deadline)) = self.schedule.pop(now) {
            self.now = at.max(self.now);
            self.due(deadline, self.now);
            self.settle(self.now);
        }
        self.now = now;
        now
    }

    fn carry_out(&mut self, operation: &Operation, now: Instant) -> Result<(), Refused> {
        let named = self.active().find(|service| service.config.name == operation.service);
        let id = named.map(|service| service.id).ok_or_else(|| Refused::no_service(operation))?;
        self.dirty.insert(id);
        self.service(id).operate(operation, now)
    }

    /// For how long each service waits. What waits longer is an outcome.
    pub fn timeouts(&self) -> BTreeMap<ServiceId, Timeouts> {
        let of = |service: &Service| {
            let policy = &service.config.breaker;
            Timeouts { connect: policy.connect_timeout, response: policy.response_timeout }
        };
        self.active().map(|service| (service.id, of(service))).collect()
    }

    /// The next thing to do for somebody else. To be called until `None` after each `handle`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `handle` has to be called next, at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.schedule.next()
    }

    fn take(&mut self, input: Input, now: Instant) {
        match input {
            Input::Config(config) => self.configure(&config, now),
            Input::Outcome { backend, generation, outcome, ttfb, client } => {
                let Some((service, index)) = self.owner(backend, generation) else { return };
                let (id, changed) = (service.id, service.outcome(index, outcome, ttfb, client, now));
                self.dirty.extend(changed.then_some(id));
            }
            Input::Probe { backend, generation, result } => {
                let Some((service, index)) = self.owner(backend, generation) else { return };
                let changed = service.probed(index, result, now);
                let (id, due) = (service.id, service.backends[index].health.due());
                self.schedule.set(Deadline::Probe(backend), due);
                self.dirty.extend(changed.then_some(id));
                // It took longer than an interval.
                self.due_probe(backend, now);
            }
            Input::Applied { plan, result } => self.applied(plan, result, now),
            Input::Successes { backend, count } => {
                let Some(&(id, index)) = self.places.get(&backend) else { return };
                let changed = self.service(id).goods(index, count, now);
                self.dirty.extend(changed.then_some(id));
            }
            Input::EvidenceLost { backend, lost } => {
                let Some(&(id, index)) = self.places.get(&backend) else { return };
                self.service(id).evidence_lost(index, lost);
            }
            Input::Tick => {}
        }
    }

    fn due(&mut self, deadline: Deadline, now: Instant) {
        match deadline {
            Deadline::Sweep(id) => {
                let service = self.service(id);
                service.sweep(now);
                let next = service.next_sweep;
                self.schedule.set(deadline, Some(next));
                self.dirty.insert(id);
            }
            Deadline::Retry(id) => {
                self.dirty.insert(id);
            }
            Deadline::Probe(id) => self.probe(id, now),
            Deadline::Alarm(id) => {
                self.service(id).alarm(now);
                self.dirty.insert(id);
            }
        }
    }

    fn due_probe(&mut self, id: BackendId, now: Instant) {
        let due = self.places.get(&id).and_then(|(service, index)| {
            self.services.get(service).and_then(|service| service.backends[*index].health.due())
        });
        if due.is_some_and(|due| due <= now) {
            self.probe(id, now);
        }
    }

    fn probe(&mut self, id: BackendId, now: Instant) {
        let Some(&(service, index)) = self.places.get(&id) else { return };
        let request = self.service(service).probe(index, now);
        self.schedule.set(Deadline::Probe(id), None);
        self.outputs.extend(request.map(Output::Probe));
    }

    fn applied(&mut self, plan: u64, result: Result<(), StepFailure>, now: Instant) {
        let Some(service) = self.services.values_mut().find(|service| service.writer.awaits(plan)) else {
            return;
        };
        let id = service.id;
        let detail = result.as_ref().err().map(|failure| failure.error.clone());
        match service.writer.answered(result, now) {
            Answer::Held { revision } => {
                self.writes_hold(id, "write_holds", now);
                self.release(id, revision);
            }
            Answer::Failed { first: true } => {
                self.dataplane_event(id, ("in step", "behind"), "write_failed", detail, now);
            }
            Answer::Failed { first: false } => {}
        }
        self.dirty.insert(id);
        // One of them may have waited for this VIP.
        self.dirty.append(&mut self.blocked);
    }

    /// Brings what was decided on its way: events out, writes to the dataplane.
    fn settle(&mut self, now: Instant) {
        while let Some(id) = self.dirty.pop_first() {
            self.settle_service(id, now);
        }
    }

    fn settle_service(&mut self, id: ServiceId, now: Instant) {
        self.blocked.remove(&id);
        let vip_is_free = self.vip_is_free(id);
        let service = self.services.get_mut(&id).expect("a service leaves only when nothing is left to do");
        service.follow_fallback(now);
        service.follow_endings(now);
        let changed = service.writer.want(service.forwarding(self.mirror_all));
        for event in std::mem::take(&mut service.decided) {
            let known = service.writer.hold(event, changed);
            publish(&mut self.outputs, &mut self.events, known);
        }
        let retry = match service.writer.next(id, vip_is_free, now) {
            Next::Wait => None,
            Next::Retry(at) => Some(at),
            Next::Write(steps) => {
                self.plans += 1;
                service.writer.sent(self.plans, steps.clone(), vip_is_free);
                self.outputs.push_back(Output::Dataplane(Plan { id: self.plans, service: id, steps }));
                None
            }
            Next::Blocked => {
                self.blocked.insert(id);
                self.free_left(id);
                None
            }
            Next::Done => {
                let revision = service.writer.revision();
                self.writes_hold(id, "nothing_to_write", now);
                self.release(id, revision);
                self.free_left(id);
                None
            }
        };
        self.schedule.set(Deadline::Retry(id), retry);
        let alarm = self.services.get(&id).and_then(Service::next_alarm);
        self.schedule.set(Deadline::Alarm(id), alarm);
    }

    /// Gives back the ids that the maps have let go of.
    fn free_left(&mut self, id: ServiceId) {
        let service = self.services.get_mut(&id).expect("the caller has it");
        let writer = &service.writer;
        for (left, _) in service.leaving.extract_if(.., |id, _| !writer.names_backend(*id)) {
            self.ids.free_backend(left);
        }
        if service.retired && service.leaving.is_empty() && service.writer.applied.service.is_none() {
            self.services.remove(&id);
            self.ids.free_service(id);
        }
    }

    /// Whether no other service has this one's VIP in the maps.
    fn vip_is_free(&self, id: ServiceId) -> bool {
        let service = &self.services[&id];
        let vip = service.config.vip;
        if service.retired || service.writer.names_vip(vip) {
            return true;
        }
        self.services.values().all(|other| other.id == id || !other.writer.names_vip(vip))
    }

    /// Every place and every deadline anew, after the membership has changed.
    fn reindex(&mut self) {
        for id in self.places.keys() {
            self.schedule.set(Deadline::Probe(*id), None);
        }
        self.places.clear();
        for (id, service) in &self.services {
            let sweep = (!service.retired).then_some(service.next_sweep);
            self.schedule.set(Deadline::Sweep(*id), sweep);
            for (index, backend) in service.backends.iter().enumerate() {
                self.places.insert(backend.id, (*id, index));
                self.schedule.set(Deadline::Probe(backend.id), backend.health.due());
            }
        }
    }

    /// The service of a backend and its place there, if it still is that backend.
    fn owner(&mut self, id: BackendId, generation: Generation) -> Option<(&mut Service, usize)> {
        let (service, index) = *self.places.get(&id)?;
        let service = self.services.get_mut(&service)?;
        let is_its = |backend: &Backend| backend.generation == generation;
        is_its(&service.backends[index]).then_some((service, index))
    }

    fn service(&mut self, id: ServiceId) -> &mut Service {
        self.services.get_mut(&id).expect("deadlines and places name services that are there")
    }

    fn active(&self) -> impl Iterator<Item = &Service> {
        self.order.iter().map(|id| &self.services[id])
    }

    fn release(&mut self, id: ServiceId, revision: u64) {
        let known = self.service(id).writer.release(revision);
        publish(&mut self.outputs, &mut self.events, known);
    }

    /// The maps agree again after a failure, if there was one.
    fn writes_hold(&mut self, id: ServiceId, reason: &str, now: Instant) {
        if self.service(id).writer.failing.take().is_some() {
            self.dataplane_event(id, ("behind", "in step"), reason, None, now);
        }
    }

    fn dataplane_event(
        &mut self,
        id: ServiceId,
        (from, to): (&str, &str),
        reason: &str,
        detail: Option<String>,
        now: Instant,
    ) {
        let service = self.service(id);
        let mut event = service.event(EventKind::Dataplane, None, now);
        event.evidence.detail = detail;
        service.turned(event, from, to, reason, "dataplane");
        let event = service.decided.pop();
        publish(&mut self.outputs, &mut self.events, event);
    }

    fn refuse_config(&mut self, exhausted: &Exhausted, now: Instant) {
        let event = Event {
            seq: 0,
            t_ms: now,
            kind: EventKind::Membership,
            service: String::new(),
            backend: None,
            from: "loaded".to_owned(),
            to: "refused".to_owned(),
            reason: "exhausted".to_owned(),
            enforced: true,
            ejection: 0,
            until_ms: None,
            actor: "config".to_owned(),
            config_generation: self.config_generation,
            evidence: Evidence { detail: Some(exhausted.to_string()), ..Evidence::default() },
        };
        publish(&mut self.outputs, &mut self.events, [event]);
    }
}

fn publish(outputs: &mut VecDeque<Output>, count: &mut u64, events: impl IntoIterator<Item = Event>) {
    for mut event in events {
        *count += 1;
        event.seq = *count;
        outputs.push_back(Output::Event(Box::new(event)));
    }
}

#[cfg(test)]
mod tests;
