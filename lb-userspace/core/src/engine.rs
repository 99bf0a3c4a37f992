//! The engine: one deterministic machine around all services.
//!
//! It owns every decision, and it knows what the maps hold. Nothing in it fails: a write or a probe that
//! fails outside comes back as an input.

mod backend;
mod drain;
mod follow;
mod forwarding;
mod ids;
mod leaving;
mod limit;
mod members;
mod memory;
mod observe;
mod operator;
mod outbox;
mod path;
mod probing;
mod reconfigure;
mod reload;
mod report;
mod schedule;
mod service;
mod settle;
mod suspect;
mod sweep;
mod why;
mod writer;

use std::collections::{BTreeMap, BTreeSet};

pub use ids::{Exhausted, fits};
pub use operator::Refused;

use self::{
    backend::Backend,
    ids::Ids,
    outbox::Outbox,
    schedule::{Deadline, Schedule},
    service::Service,
};
use crate::{
    event::{Event, EventKind, Evidence},
    ids::{Adopted, BackendId, Generation, ServiceId},
    io::{Input, Operation, Output},
    state::State,
    time::{Instant, Millis},
};

/// The start conditions of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// All randomness is made from it. The same seed gives the same decisions.
    pub seed: u64,
    /// The backends that the maps of an earlier run hold.
    pub adopted: Vec<Adopted>,
    /// Generations begin above this. It has to be above all generations of an earlier run, whose flows may
    /// still be in the maps. The time of the start, in seconds, is.
    pub generation_floor: u32,
    /// The state that an earlier run exported.
    pub restored: Option<State>,
    /// The program has to mirror every response. A recording needs that.
    pub mirror_all: bool,
}

/// How long a service waits. 0: without an end.
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
    /// Services that wait for a VIP which the maps still hold for another one.
    blocked: BTreeSet<ServiceId>,
    outbox: Outbox,
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
            outbox: Outbox::default(),
        }
    }

    /// Takes an input of the time `now`, after all that was due by then.
    pub fn handle(&mut self, input: Input, now: Instant) {
        let now = self.catch_up(now);
        self.take(input, now);
        self.settle(now);
    }

    /// Carries out an operator's order, as an input of its own. A refused order changes nothing.
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

    /// How long each service waits. An exchange that waits longer is an outcome.
    pub fn timeouts(&self) -> BTreeMap<ServiceId, Timeouts> {
        let of = |service: &Service| {
            let policy = &service.config.breaker;
            Timeouts { connect: policy.connect_timeout, response: policy.response_timeout }
        };
        self.active().map(|service| (service.id, of(service))).collect()
    }

    /// Half-open backends whose trial budget is in the maps, with how many new connections it has. Not those of
    /// which [`Input::TrialsTaken`] came already.
    pub fn trial_budgets(&self) -> impl Iterator<Item = (BackendId, u32)> {
        self.active().flat_map(Service::trial_budgets)
    }

    /// Removed backends that get no new connections any more: [`Input::Remaining`] may say how many each still has.
    pub fn leaving(&self) -> impl Iterator<Item = (BackendId, Generation)> {
        self.services.values().flat_map(|service| service.leaving.unused(&service.writer))
    }

    /// The next output. Call it after each `handle` until it returns `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop()
    }

    /// When `handle` has to be called next, at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.schedule.next()
    }

    fn take(&mut self, input: Input, now: Instant) {
        match input {
            Input::Config(config) => self.configure(&config, now),
            Input::Outcome { backend, generation, outcome, ttfb, client, context } => {
                let Some((service, index)) = self.owner(backend, generation) else { return };
                let changed = service.outcome(index, outcome, ttfb, client, context, now);
                let id = service.id;
                self.dirty.extend(changed.then_some(id));
                self.due_confirmation(backend, now);
            }
            Input::Confirmation { backend, generation, result, answered } => {
                let Some((service, index)) = self.owner(backend, generation) else { return };
                let (id, changed) = (service.id, service.confirmed(index, &result, answered, now));
                self.dirty.extend(changed.then_some(id));
                self.due_confirmation(backend, now);
            }
            Input::TrialsTaken { backend } => {
                let Some(&(id, index)) = self.places.get(&backend) else { return };
                self.service(id).backends[index].trials_taken = true;
            }
            Input::Probe { backend, generation, result } => {
                let Some((service, index)) = self.owner(backend, generation) else { return };
                let changed = service.probed(index, result, now);
                let (id, due) = (service.id, service.backends[index].health.due());
                self.schedule.set(Deadline::Probe(backend), due);
                self.dirty.extend(changed.then_some(id));
                // If the probe took longer than an interval, the next one is due.
                self.due_probe(backend, now);
            }
            Input::Path { backend, generation, path } => {
                let Some((service, index)) = self.owner(backend, generation) else { return };
                let (id, changed) = (service.id, service.path_changed(index, path, now));
                self.dirty.extend(changed.then_some(id));
            }
            Input::Applied { plan, result } => self.applied(plan, result, now),
            Input::Successes { backend, count } => {
                let Some(&(id, index)) = self.places.get(&backend) else { return };
                let changed = self.service(id).successes(index, count, now);
                self.dirty.extend(changed.then_some(id));
            }
            Input::EvidenceLost { backend, lost } => {
                let Some(&(id, index)) = self.places.get(&backend) else { return };
                self.service(id).evidence_lost(index, lost);
            }
            Input::Remaining { backend, generation, connections } => {
                for service in self.services.values_mut() {
                    let gone = service.leaving.counted(backend, generation, connections);
                    self.dirty.extend(gone.then_some(service.id));
                }
            }
            Input::Interface { name, from, to, reason, detail } => {
                self.interface_changed(&name, from, to, reason, detail, now)
            }
            Input::Discovery { service, from, to, reason, detail } => {
                let event = Event {
                    kind: EventKind::Discovery,
                    service,
                    from,
                    to,
                    reason,
                    actor: "discovery".to_owned(),
                    config_generation: self.config_generation,
                    evidence: Evidence { detail, ..Evidence::default() },
                    ..Event::of_the_node(now)
                };
                self.outbox.publish([event]);
            }
            Input::Full { service, refused, was_full } => self.full(service, refused, was_full, now),
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
            Deadline::Confirm(id) => self.due_confirmation(id, now),
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
        if let Some(request) = request {
            self.outbox.probe(request);
        }
    }

    /// Confirms a suspect now or when it is time for it.
    fn due_confirmation(&mut self, id: BackendId, now: Instant) {
        let Some(&(service, index)) = self.places.get(&id) else { return };
        let due = self.services[&service].backends[index].suspicion.due();
        let begins = due.is_some_and(|due| due <= now);
        self.schedule.set(Deadline::Confirm(id), due.filter(|_| !begins));
        if begins {
            let request = self.service(service).confirm(index);
            self.outbox.confirm(request);
        }
    }

    /// Computes every place and every deadline again, after the membership has changed.
    fn reindex(&mut self) {
        for id in self.places.keys() {
            self.schedule.set(Deadline::Probe(*id), None);
            self.schedule.set(Deadline::Confirm(*id), None);
        }
        self.places.clear();
        for (id, service) in &self.services {
            let sweep = (!service.retired).then_some(service.next_sweep);
            self.schedule.set(Deadline::Sweep(*id), sweep);
            for (index, backend) in service.backends.iter().enumerate() {
                self.places.insert(backend.id, (*id, index));
                self.schedule.set(Deadline::Probe(backend.id), backend.health.due());
                self.schedule.set(Deadline::Confirm(backend.id), backend.suspicion.due());
            }
        }
    }

    /// The service of a backend and its place there, if the generation is still that backend's.
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
}

#[cfg(test)]
mod tests;
