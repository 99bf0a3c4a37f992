//! A new configuration of one service: adds and removes backends, and puts the new policy in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::SocketAddr,
    sync::Arc,
};

use super::{
    backend::{Backend, Note},
    ids::Ids,
    leaving::Leaving,
    service::Service,
    writer::Writer,
};
use crate::{
    breaker::Signal,
    codes::EventReason,
    config,
    event::EventKind,
    ids::{Adopted, ServiceId},
    io::{Admit, FlowReset},
    plan::Target,
    time::{Instant, Millis},
};

/// The two states in a membership event.
pub(super) const ABSENT: &str = "absent";
pub(super) const PRESENT: &str = "present";

impl Service {
    pub(super) fn new(id: ServiceId, config: &config::Service, now: Instant) -> Self {
        Self {
            id,
            config: policy(config),
            config_generation: 0,
            probe_kind: config.probe.as_ref().map(|probe| Arc::new(probe.kind.clone())),
            backends: Vec::new(),
            leaving: Leaving::default(),
            retired: false,
            next_sweep: now + config.breaker.interval,
            trial_slots: Vec::new(),
            fallback_used: false,
            panic: None,
            trial_slots_given: 0,
            writer: Writer::default(),
            client_counts: None,
            decided: Vec::new(),
        }
    }

    /// The maps hold a backend that the configuration does not have.
    pub(super) fn adopt_removed(&mut self, adopted: &Adopted, now: Instant) {
        let Adopted { id, address, generation, .. } = *adopted;
        let held = Target {
            address,
            generation,
            admit: Admit::All,
            flow_reset: FlowReset::Never,
            count_successes: false,
            redispatch: false,
            max_connections: 0,
            budget: None,
        };
        self.writer.applied.backends.insert(id, held);
        self.leaving.adopt(adopted, &self.config.connections, now);
    }

    /// Removes the service with all its backends.
    pub(super) fn retire(&mut self, config_generation: u64, now: Instant) {
        self.config_generation = config_generation;
        for index in 0..self.backends.len() {
            self.remove_event(index, now);
        }
        let event = self.event(EventKind::Membership, None, now);
        self.report(event, PRESENT, ABSENT, EventReason::Removed, "config");
        let policy = self.config.connections;
        for backend in self.backends.drain(..) {
            self.leaving.add(backend, &policy, now);
        }
        self.retired = true;
    }

    /// Puts a new configuration of the service in force.
    pub(super) fn reconfigure(
        &mut self,
        wanted: &config::Service,
        config_generation: u64,
        ids: &mut Ids,
        seed: u64,
        now: Instant,
    ) {
        self.config_generation = config_generation;
        let old = mem::replace(&mut self.config, policy(wanted));
        let drains = self.backends.iter_mut().filter_map(|backend| backend.drain.as_mut());
        drains.for_each(|drain| drain.adapt(&old.connections, &wanted.connections, now));
        self.leaving.adapt(&old.connections, &wanted.connections, now);
        if old.breaker.interval != wanted.breaker.interval {
            self.next_sweep = now + wanted.breaker.interval;
        }
        if wanted.breaker.slow_start == Millis(0) {
            self.backends.iter_mut().for_each(|backend| backend.warming = None);
        }
        self.reconfigure_probes(&old, now);

        let stays: BTreeSet<_> = wanted.everyone().map(key).collect();
        for index in 0..self.backends.len() {
            if !stays.contains(&key(&self.backends[index].config)) {
                self.remove_event(index, now);
            }
        }
        let mut present: BTreeMap<_, Backend> =
            self.backends.drain(..).map(|backend| (owned_key(&backend.config), backend)).collect();
        let mut added = Vec::new();
        let mut reweighted = Vec::new();
        let mut restanding = Vec::new();
        for (index, config) in wanted.everyone().enumerate() {
            let mut backend = match present.remove(&owned_key(config)) {
                Some(mut backend) => {
                    let (weight, standing) = (backend.weight(), backend.config.standing());
                    backend.config = config.clone();
                    if backend.weight() != weight {
                        reweighted.push((index, weight));
                    }
                    if backend.config.standing() != standing {
                        restanding.push((index, standing));
                    }
                    backend
                }
                None => {
                    added.push(index);
                    Backend::new(ids.backend(), config.clone(), wanted, seed, now)
                }
            };
            backend.fallback = index >= wanted.backends.len();
            self.backends.push(backend);
        }
        let policy = self.config.connections;
        for backend in present.into_values() {
            self.leaving.add(backend, &policy, now);
        }

        for index in added {
            let event = self.event(EventKind::Membership, Some(index), now);
            let actor = self.backends[index].config.actor();
            self.report(event, ABSENT, PRESENT, EventReason::Added, actor);
        }
        for (index, from) in reweighted {
            let event = self.event(EventKind::Weight, Some(index), now);
            let to = self.backends[index].weight();
            let (reason, actor) = match self.backends[index].config.discovered {
                Some(_) => (EventReason::Discovery, "discovery"),
                None => (EventReason::Config, "config"),
            };
            self.report(event, from.to_string(), to.to_string(), reason, actor);
        }
        for (index, from) in restanding {
            let event = self.event(EventKind::Discovery, Some(index), now);
            let to = self.backends[index].config.standing();
            self.report(event, from, to, EventReason::Discovery, "discovery");
        }
        if old.breaker != self.config.breaker {
            self.follow_policy(now);
        }
    }

    /// Readmits the backends that no detector of the policy could have ejected, and forgets what another policy
    /// decided about the others.
    pub(super) fn follow_policy(&mut self, now: Instant) {
        for index in 0..self.backends.len() {
            let backend = &mut self.backends[index];
            match backend.note {
                Some(Note::Refused { .. } | Note::Suspected { .. } | Note::Unenforced { .. }) => {
                    backend.note = None;
                }
                Some(Note::Ejected { .. }) | None => {}
            }
            let policy = &self.config.breaker;
            if backend.ejected_by.is_none_or(|cause| policy.could_have_ejected(cause)) {
                continue;
            }
            let event = self.event(EventKind::Readmit, Some(index), now);
            let (breaker, policy) = (&mut self.backends[index].breaker, &self.config.breaker);
            if let Some(change) = breaker.on(Signal::DetectorsOff, policy, now) {
                self.changed_by(index, change, event, "config");
            }
        }
    }

    fn reconfigure_probes(&mut self, old: &config::Service, now: Instant) {
        if old.probe == self.config.probe {
            return;
        }
        self.probe_kind = self.config.probe.as_ref().map(|probe| Arc::new(probe.kind.clone()));
        for index in 0..self.backends.len() {
            let health = &mut self.backends[index].health;
            let change = health.reconfigure(old.probe.as_ref(), self.config.probe.as_ref(), now);
            if let Some(change) = change {
                self.backends[index].health_since = now;
                let event = self.event(EventKind::Probe, Some(index), now);
                self.report(event, change.from, change.to, change.reason, "config");
            }
        }
    }

    fn remove_event(&mut self, index: usize, now: Instant) {
        let event = self.event(EventKind::Membership, Some(index), now);
        let actor = self.backends[index].config.actor();
        self.report(event, PRESENT, ABSENT, EventReason::Removed, actor);
    }
}

/// The configuration of a service without its backends.
fn policy(config: &config::Service) -> config::Service {
    config::Service { backends: Vec::new(), fallback: Vec::new(), ..config.clone() }
}

/// Identifies a backend within its service.
pub(super) fn key(config: &config::Backend) -> (&str, SocketAddr, Option<&str>) {
    (&config.name, config.address, config.identity())
}

fn owned_key(config: &config::Backend) -> (String, SocketAddr, Option<String>) {
    (config.name.clone(), config.address, config.identity().map(str::to_owned))
}
