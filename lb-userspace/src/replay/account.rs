//! The account of a replay: the errors that clients would have seen, and the time that backends were out.
//!
//! A recording has the outcomes of each backend under the configuration that was in force then. Under another
//! one some of these exchanges would not have happened. So the account judges each by what the maps hold at
//! its moment, as if it were a new connection. The exchange
//!
//! - *reaches its client* if the backend is in the table, or half-open in a trial slot with something left of
//!   its budget, which it takes;
//! - is *diverted* if not: another backend in the table would have answered;
//! - is *unserved* if no backend is in the table: the client would have had no answer, which is an error that
//!   it saw.
//!
//! The engine is given all of them. It counts the outcomes of a backend that is out, and does not judge them.

use std::collections::HashMap;

use lb_core::{
    config::Config,
    event::Event,
    io::{BackendId, Generation, Outcome, Plan, ServiceId, Step},
    snapshot::Snapshot,
    time::Instant,
};

use super::{
    service_account::{Backend, ServiceAccount},
    summary::{BackendSummary, Summary},
    virtual_maps::Destination,
    yardsticks::Yardsticks,
};

/// The account of one replay, with the maps of an ideal kernel.
#[derive(Debug)]
pub struct Account {
    services: Vec<ServiceAccount>,
    by_service_id: HashMap<ServiceId, usize>,
    by_id: HashMap<BackendId, (usize, usize)>,
    /// The first moment of the summary.
    began: Instant,
    skipped: u64,
    misplaced: u64,
    missing: u64,
    unused_probes: u64,
}

impl Account {
    pub(super) fn new(config: &Config, yardsticks: &Yardsticks) -> Self {
        let own = Yardsticks::of([config]);
        let services = config.services.iter().map(|service| {
            let yardstick = yardsticks.of_service(&service.name).or_else(|| own.of_service(&service.name));
            let yardstick = yardstick.cloned().unwrap_or_default();
            ServiceAccount::new(&service.name, service.probe.is_some(), yardstick)
        });
        Self {
            services: services.collect(),
            by_service_id: HashMap::new(),
            by_id: HashMap::new(),
            began: Instant(0),
            skipped: 0,
            misplaced: 0,
            missing: 0,
            unused_probes: 0,
        }
    }

    /// The names and ids of the backends, after a configuration.
    pub(super) fn configured(&mut self, config: &Config, snapshot: &Snapshot, now: Instant) {
        self.by_id.clear();
        self.by_service_id.clear();
        for (index, service) in self.services.iter_mut().enumerate() {
            let configured = &config.services[index];
            let Some(known) = snapshot.services.iter().find(|known| known.name == service.name) else {
                continue;
            };
            self.by_service_id.insert(known.id, index);
            for backend in &mut service.backends {
                if !configured.everyone().any(|of| of.name == backend.name) {
                    backend.entry.leave(now);
                }
            }
            for of in &known.backends {
                let place = service.place(&of.name);
                self.by_id.insert(of.id, (index, place));
                service.backends[place].entry.join((of.id, of.generation), now);
            }
        }
    }

    /// Whether a backend is there.
    pub(super) fn knows(&self, service: usize, backend: &str) -> bool {
        self.services[service].knows(backend)
    }

    /// The ids of a backend that is there.
    pub(super) fn ids(&self, service: usize, backend: &str) -> (BackendId, Generation) {
        self.services[service].ids(backend)
    }

    /// One exchange with a backend that is there. Returns its ids.
    pub(super) fn outcome(
        &mut self,
        service: usize,
        backend: &str,
        outcome: Outcome,
    ) -> (BackendId, Generation) {
        self.services[service].outcome(backend, outcome)
    }

    /// So many good responses that the program counted. `None`: the backend is on trial here. Then the
    /// program would have mirrored each.
    pub(super) fn successes(&mut self, service: usize, backend: &str, count: u64) -> Option<BackendId> {
        self.services[service].successes(backend, count)
    }

    pub(super) fn probe(&mut self, service: usize, backend: &str) -> (BackendId, Generation) {
        let of = &mut self.services[service];
        of.probed = true;
        self.unused_probes += u64::from(!of.has_probe);
        self.ids(service, backend)
    }

    /// An order about nobody who is there.
    pub(super) fn misplaced(&mut self) {
        self.misplaced += 1;
    }

    pub(super) fn skipped(&mut self) {
        self.skipped += 1;
    }

    pub(super) fn gap(&mut self, lost: u64) {
        self.missing += lost;
    }

    pub(super) fn began(&mut self, at: Instant) {
        self.began = at;
    }

    /// Carries a plan out.
    pub(super) fn applied(&mut self, plan: &Plan, now: Instant) {
        for step in &plan.steps {
            match step {
                Step::Service { id, trials, .. } => {
                    let Some(service) = self.by_service_id.get(id) else { continue };
                    for backend in &mut self.services[*service].backends {
                        backend.entry.in_trial_slot =
                            backend.entry.id().is_some_and(|id| trials.contains(&id));
                    }
                }
                Step::Backend { id, admit, .. } => {
                    if let Some(backend) = self.backend(*id) {
                        backend.entry.admit = *admit;
                    }
                }
                Step::Budget { id, tokens } => {
                    if let Some(backend) = self.backend(*id) {
                        backend.entry.budget = *tokens;
                    }
                }
                Step::Table { service, members } => {
                    let Some(service) = self.by_service_id.get(service) else { continue };
                    let service = &mut self.services[*service];
                    service.serving = members.len();
                    for backend in &mut service.backends {
                        let its = backend.entry.id();
                        backend.entry.set_in_table(members.iter().any(|member| Some(member.id) == its), now);
                    }
                }
                // A backend that leaves has left the names before.
                Step::RemoveService { .. } | Step::RemoveBackend { .. } => {}
            }
        }
    }

    pub(super) fn event(&mut self, event: &Event) {
        let of = self.services.iter_mut().find(|service| service.name == event.service);
        if let Some(service) = of {
            service.event(event);
        }
    }

    /// The backends of a service that a new connection may go to: first the half-open ones with a budget,
    /// then those in the table. For drivers that play the clients.
    pub fn choices(&self, service: usize) -> impl Iterator<Item = (&str, Destination)> {
        self.services[service].choices()
    }

    pub(super) fn summary(&self, now: Instant) -> Summary {
        let mut summary = Summary {
            began_ms: self.began,
            ended_ms: now,
            skipped: self.skipped,
            misplaced: self.misplaced,
            missing: self.missing,
            unused_probes: self.unused_probes,
            ..Summary::default()
        };
        for service in &self.services {
            if service.has_probe && !service.probed {
                summary.unprobed.push(service.name.clone());
            }
            for backend in &service.backends {
                let mut totals = backend.totals;
                totals.out_ms = backend.entry.out_ms(now);
                summary.total.add(&totals);
                summary.backends.push(BackendSummary {
                    service: service.name.clone(),
                    backend: backend.name.clone(),
                    totals,
                });
            }
        }
        summary
    }

    fn backend(&mut self, id: BackendId) -> Option<&mut Backend> {
        let (service, place) = *self.by_id.get(&id)?;
        Some(&mut self.services[service].backends[place])
    }
}
