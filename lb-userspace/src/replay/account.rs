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
    event::{Event, EventKind},
    io::{BackendId, Generation, Outcome, Plan, ServiceId, Step},
    snapshot::Snapshot,
    time::Instant,
};

use super::{
    summary::{BackendSummary, Summary, Totals},
    virtual_maps::{Destination, Entry},
    yardsticks::{Yardstick, Yardsticks},
};

/// The account of one replay, with the maps of an ideal kernel.
#[derive(Debug)]
pub struct Account {
    services: Vec<Service>,
    by_service_id: HashMap<ServiceId, usize>,
    by_id: HashMap<BackendId, (usize, usize)>,
    /// The first moment of the summary.
    began: Instant,
    skipped: u64,
    missing: u64,
    unused_probes: u64,
}

#[derive(Debug)]
struct Service {
    name: String,
    yardstick: Yardstick,
    has_probe: bool,
    probed: bool,
    /// Members of the table.
    serving: usize,
    backends: Vec<Backend>,
    by_name: HashMap<String, usize>,
}

#[derive(Debug)]
struct Backend {
    name: String,
    entry: Entry,
    readmitted: Option<Instant>,
    totals: Totals,
}

impl Account {
    pub(super) fn new(config: &Config, yardsticks: &Yardsticks) -> Self {
        let own = Yardsticks::of([config]);
        let services = config.services.iter().map(|service| {
            let yardstick = yardsticks.of_service(&service.name).or_else(|| own.of_service(&service.name));
            Service {
                name: service.name.clone(),
                yardstick: yardstick.cloned().unwrap_or_default(),
                has_probe: service.probe.is_some(),
                probed: false,
                serving: 0,
                backends: Vec::new(),
                by_name: HashMap::new(),
            }
        });
        Self {
            services: services.collect(),
            by_service_id: HashMap::new(),
            by_id: HashMap::new(),
            began: Instant(0),
            skipped: 0,
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
        let service = &self.services[service];
        service.by_name.get(backend).is_some_and(|place| service.backends[*place].entry.ids().is_some())
    }

    /// The ids of a backend that is there.
    pub(super) fn ids(&self, service: usize, backend: &str) -> (BackendId, Generation) {
        let service = &self.services[service];
        service.backends[service.by_name[backend]].entry.ids().expect("it is there")
    }

    pub(super) fn outcome(
        &mut self,
        service: usize,
        backend: &str,
        outcome: Outcome,
    ) -> (BackendId, Generation) {
        let service = &mut self.services[service];
        let place = service.by_name[backend];
        let destination = service.destination(place);
        let backend = &mut service.backends[place];
        if destination == Destination::Trial {
            backend.entry.budget -= 1;
        }
        let error = match outcome {
            Outcome::Status(status) => service.yardstick.errors.iter().any(|range| range.contains(&status)),
            Outcome::Failure(_) => true,
            Outcome::Answered | Outcome::Opaque => false,
        };
        let totals = &mut backend.totals;
        totals.responses += 1;
        totals.errors += u64::from(error);
        match destination {
            Destination::Table => totals.client_errors += u64::from(error),
            Destination::Trial => {
                totals.trials += 1;
                totals.client_errors += u64::from(error);
            }
            Destination::Diverted => totals.diverted += 1,
            Destination::Unserved => {
                totals.unserved += 1;
                totals.client_errors += 1;
            }
        }
        backend.entry.ids().expect("it is there")
    }

    /// So many good responses that the program counted. `None`: the backend is on trial here. Then the
    /// program would have mirrored each.
    pub(super) fn successes(&mut self, service: usize, backend: &str, count: u64) -> Option<BackendId> {
        let service = &mut self.services[service];
        let place = service.by_name[backend];
        let destination = service.destination(place);
        let backend = &mut service.backends[place];
        let totals = &mut backend.totals;
        match destination {
            Destination::Table => {}
            Destination::Trial => return None,
            Destination::Diverted => totals.diverted += count,
            Destination::Unserved => {
                totals.unserved += count;
                totals.client_errors += count;
            }
        }
        totals.responses += count;
        Some(backend.entry.ids().expect("it is there").0)
    }

    pub(super) fn probe(&mut self, service: usize, backend: &str) -> (BackendId, Generation) {
        let of = &mut self.services[service];
        of.probed = true;
        self.unused_probes += u64::from(!of.has_probe);
        self.ids(service, backend)
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
        let Some(name) = &event.backend else { return };
        let Some(service) = self.services.iter_mut().find(|service| service.name == event.service) else {
            return;
        };
        let Some(place) = service.by_name.get(name) else { return };
        let (relapse, backend) = (service.yardstick.relapse, &mut service.backends[*place]);
        let by_breaker = event.actor == "breaker";
        match event.kind {
            EventKind::Eject if !event.enforced => backend.totals.unenforced += 1,
            EventKind::Eject => {
                let returned = backend.readmitted.take();
                if by_breaker {
                    backend.totals.ejections += 1;
                    backend.totals.failed_trials += u64::from(event.reason == "half_open_failure");
                    let relapsed = returned.is_some_and(|at| event.t_ms - at <= relapse);
                    backend.totals.false_readmissions += u64::from(relapsed);
                }
            }
            EventKind::Readmit => {
                backend.totals.readmissions += 1;
                backend.readmitted = Some(event.t_ms);
            }
            EventKind::Refused => backend.totals.refused += u64::from(by_breaker),
            EventKind::Trial
            | EventKind::Probe
            | EventKind::Operator
            | EventKind::Weight
            | EventKind::Membership
            | EventKind::Fallback
            | EventKind::Drained
            | EventKind::Dataplane => {}
        }
    }

    /// The backends of a service that a new connection may go to: first the half-open ones with a budget,
    /// then those in the table. For drivers that play the clients.
    pub fn choices(&self, service: usize) -> impl Iterator<Item = (&str, Destination)> {
        let service = &self.services[service];
        let on = |wanted: Destination| {
            let all = (0..service.backends.len()).map(|place| (place, service.destination(place)));
            all.filter(move |(_, destination)| *destination == wanted)
        };
        on(Destination::Trial)
            .chain(on(Destination::Table))
            .map(|(place, destination)| (service.backends[place].name.as_str(), destination))
    }

    pub(super) fn summary(&self, now: Instant) -> Summary {
        let mut summary = Summary {
            began_ms: self.began,
            ended_ms: now,
            skipped: self.skipped,
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

impl Service {
    /// The place of a backend of this name, which is made if there is none.
    fn place(&mut self, name: &str) -> usize {
        if let Some(place) = self.by_name.get(name) {
            return *place;
        }
        self.backends.push(Backend {
            name: name.to_owned(),
            entry: Entry::new(),
            readmitted: None,
            totals: Totals::default(),
        });
        self.by_name.insert(name.to_owned(), self.backends.len() - 1);
        self.backends.len() - 1
    }

    fn destination(&self, place: usize) -> Destination {
        self.backends[place].entry.destination(self.serving)
    }
}
