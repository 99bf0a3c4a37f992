//! What clients would have seen, and what it cost.
//!
//! A recording says what each backend answered under the configuration that was in
//! force then. Under another one some of these exchanges would not have happened, so each is judged
//! by what the maps say at its moment, as if it were a new connection. It
//!
//! - *reaches its client* if the backend is in the table, or half-open with a seat
//!   and something left of its budget, which it takes;
//! - is *diverted* if not: somebody else of the table would have answered;
//! - is *unserved* if there is nobody in the table: the client would have had no
//!   answer, which is an error that it saw.
//!
//! The engine is given all of them. It counts, but does not judge, what a backend
//! that is out answers.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
};

use lb_core::{
    config::Config,
    event::{Event, EventKind},
    io::{Admit, BackendId, Generation, Outcome, Plan, ServiceId, Step},
    snapshot::Snapshot,
    time::{Instant, Millis},
};
use serde::Serialize;

/// What errors and false readmissions are measured by, by service. Two configurations are compared by the
/// same ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Yardsticks(BTreeMap<String, Yardstick>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Yardstick {
    errors: Vec<RangeInclusive<u16>>,
    /// A readmission is false when another ejection follows it within this time.
    relapse: Millis,
}

impl Yardsticks {
    /// An error is what any of the configurations calls one; a relapse is what the one with the longest
    /// `base_ejection_time` does.
    pub fn of<'a>(configs: impl IntoIterator<Item = &'a Config>) -> Self {
        let mut all: BTreeMap<String, Yardstick> = BTreeMap::new();
        for service in configs.into_iter().flat_map(|config| &config.services) {
            let yardstick = all.entry(service.name.clone()).or_default();
            yardstick.errors.extend(service.breaker.errors.iter().cloned());
            yardstick.relapse = yardstick.relapse.max(service.breaker.base_ejection_time);
        }
        Self(all)
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The first moment; 0 unless a recording begins later.
    pub began_ms: Instant,
    pub ended_ms: Instant,
    pub total: Totals,
    /// In the order in which they appeared.
    pub backends: Vec<BackendSummary>,
    /// Lines of services that were left out.
    pub skipped: u64,
    /// Lines that the recording lacks.
    pub missing: u64,
    /// Results of probes in services that have none.
    pub unused_probes: u64,
    /// Services with a probe that no result came of: what is ejected there stays out.
    pub unprobed: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BackendSummary {
    pub service: String,
    pub backend: String,
    #[serde(flatten)]
    pub totals: Totals,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Outcomes in the input, L4 failures included.
    pub responses: u64,
    /// Of these, errors.
    pub errors: u64,
    /// Errors that reached clients, and exchanges that were unserved.
    pub client_errors: u64,
    /// Outcomes that somebody else would have answered.
    pub diverted: u64,
    /// Outcomes that nobody would have.
    pub unserved: u64,
    /// Outcomes that were admitted out of a half-open budget.
    pub trials: u64,
    /// Time out of the table, half-open included.
    pub out_ms: u64,
    /// By the breaker, and in force.
    pub ejections: u64,
    /// Of these, from half-open.
    pub failed_trials: u64,
    pub readmissions: u64,
    /// Of these, followed by an ejection within one `base_ejection_time`.
    pub false_readmissions: u64,
    /// Detections that ceiling, floor or lost evidence did not let act.
    pub refused: u64,
    /// Detections that were not enforced.
    pub unenforced: u64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        let Self {
            responses,
            errors,
            client_errors,
            diverted,
            unserved,
            trials,
            out_ms,
            ejections,
            failed_trials,
            readmissions,
            false_readmissions,
            refused,
            unenforced,
        } = other;
        self.responses += responses;
        self.errors += errors;
        self.client_errors += client_errors;
        self.diverted += diverted;
        self.unserved += unserved;
        self.trials += trials;
        self.out_ms += out_ms;
        self.ejections += ejections;
        self.failed_trials += failed_trials;
        self.readmissions += readmissions;
        self.false_readmissions += false_readmissions;
        self.refused += refused;
        self.unenforced += unenforced;
    }
}

/// Keeps the account of one replay, and holds what the maps of an ideal kernel would.
#[derive(Debug)]
pub struct Account {
    services: Vec<Service>,
    by_service_id: HashMap<ServiceId, usize>,
    by_id: HashMap<BackendId, (usize, usize)>,
    /// Of the summary.
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
    /// `None`: it is not there at present.
    ids: Option<(BackendId, Generation)>,
    in_table: bool,
    /// Since when it is not in the table although it is there.
    out_since: Option<Instant>,
    admit: Admit,
    seated: bool,
    budget: u32,
    readmitted: Option<Instant>,
    totals: Totals,
}

/// Where an exchange would have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Table,
    Trial,
    Diverted,
    Unserved,
}

impl Account {
    pub(super) fn new(config: &Config, yardsticks: &Yardsticks) -> Self {
        let own = Yardsticks::of([config]);
        let services = config.services.iter().map(|service| {
            let yardstick = yardsticks.0.get(&service.name).or_else(|| own.0.get(&service.name));
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
                    backend.leave(now);
                }
            }
            for of in &known.backends {
                let place = service.place(&of.name);
                self.by_id.insert(of.id, (index, place));
                service.backends[place].join((of.id, of.generation), now);
            }
        }
    }

    /// Whether a backend is there.
    pub(super) fn knows(&self, service: usize, backend: &str) -> bool {
        let service = &self.services[service];
        service.by_name.get(backend).is_some_and(|place| service.backends[*place].ids.is_some())
    }

    /// Of a backend that is there.
    pub(super) fn ids(&self, service: usize, backend: &str) -> (BackendId, Generation) {
        let service = &self.services[service];
        service.backends[service.by_name[backend]].ids.expect("it is there")
    }

    pub(super) fn outcome(
        &mut self,
        service: usize,
        backend: &str,
        outcome: Outcome,
    ) -> (BackendId, Generation) {
        let service = &mut self.services[service];
        let place = service.by_name[backend];
        let way = service.way(place);
        let backend = &mut service.backends[place];
        if way == Way::Trial {
            backend.budget -= 1;
        }
        let error = match outcome {
            Outcome::Status(status) => service.yardstick.errors.iter().any(|range| range.contains(&status)),
            Outcome::Failure(_) => true,
            Outcome::Answered | Outcome::Opaque => false,
        };
        let totals = &mut backend.totals;
        totals.responses += 1;
        totals.errors += u64::from(error);
        match way {
            Way::Table => totals.client_errors += u64::from(error),
            Way::Trial => {
                totals.trials += 1;
                totals.client_errors += u64::from(error);
            }
            Way::Diverted => totals.diverted += 1,
            Way::Unserved => {
                totals.unserved += 1;
                totals.client_errors += 1;
            }
        }
        backend.ids.expect("it is there")
    }

    /// So many good responses that were not told one by one. `None`: its backend is on trial there, and each would be.
    pub(super) fn goods(&mut self, service: usize, backend: &str, count: u64) -> Option<BackendId> {
        let service = &mut self.services[service];
        let place = service.by_name[backend];
        let way = service.way(place);
        let backend = &mut service.backends[place];
        let totals = &mut backend.totals;
        match way {
            Way::Table => {}
            Way::Trial => return None,
            Way::Diverted => totals.diverted += count,
            Way::Unserved => {
                totals.unserved += count;
                totals.client_errors += count;
            }
        }
        totals.responses += count;
        Some(backend.ids.expect("it is there").0)
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
                        backend.seated = backend.ids.is_some_and(|(id, _)| trials.contains(&id));
                    }
                }
                Step::Backend { id, admit, .. } => {
                    if let Some(backend) = self.backend(*id) {
                        backend.admit = *admit;
                    }
                }
                Step::Budget { id, tokens } => {
                    if let Some(backend) = self.backend(*id) {
                        backend.budget = *tokens;
                    }
                }
                Step::Table { service, members } => {
                    let Some(service) = self.by_service_id.get(service) else { continue };
                    let service = &mut self.services[*service];
                    service.serving = members.len();
                    for backend in &mut service.backends {
                        let its = backend.ids.map(|(id, _)| id);
                        backend.set_in_table(members.iter().any(|member| Some(member.id) == its), now);
                    }
                }
                // Who leaves has left the names before.
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

    /// Those of a service that a new connection may go to, the half-open ones with a budget first, then those
    /// of the table. For drivers that play the clients.
    pub fn choices(&self, service: usize) -> impl Iterator<Item = (&str, Way)> {
        let service = &self.services[service];
        let on = |wanted: Way| {
            let ways = (0..service.backends.len()).map(|place| (place, service.way(place)));
            ways.filter(move |(_, way)| *way == wanted)
        };
        on(Way::Trial).chain(on(Way::Table)).map(|(place, way)| (service.backends[place].name.as_str(), way))
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
                totals.out_ms += backend.out_since.map_or(0, |since| (now - since).0);
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
            ids: None,
            in_table: false,
            out_since: None,
            admit: Admit::None,
            seated: false,
            budget: 0,
            readmitted: None,
            totals: Totals::default(),
        });
        self.by_name.insert(name.to_owned(), self.backends.len() - 1);
        self.backends.len() - 1
    }

    fn way(&self, place: usize) -> Way {
        let backend = &self.backends[place];
        let tried = backend.admit == Admit::Trials && backend.seated && backend.budget > 0;
        if backend.in_table {
            Way::Table
        } else if tried {
            Way::Trial
        } else if self.serving > 0 {
            Way::Diverted
        } else {
            Way::Unserved
        }
    }
}

impl Backend {
    fn join(&mut self, ids: (BackendId, Generation), now: Instant) {
        // Under another id it is another one, also to the maps.
        if self.ids != Some(ids) {
            self.leave(now);
            self.ids = Some(ids);
            self.out_since = Some(now);
        }
    }

    fn leave(&mut self, now: Instant) {
        self.set_in_table(false, now);
        if let Some(since) = self.out_since.take() {
            self.totals.out_ms += (now - since).0;
        }
        (self.ids, self.seated, self.budget, self.admit) = (None, false, 0, Admit::None);
    }

    fn set_in_table(&mut self, in_table: bool, now: Instant) {
        match (self.in_table, in_table) {
            (false, true) => {
                if let Some(since) = self.out_since.take() {
                    self.totals.out_ms += (now - since).0;
                }
            }
            (true, false) => self.out_since = Some(now),
            (true, true) | (false, false) => {}
        }
        self.in_table = in_table;
    }
}
