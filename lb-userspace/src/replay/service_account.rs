//! The account of one service: its backends, and the results of their exchanges.

use std::collections::HashMap;

use lb_core::{
    event::{Event, EventKind},
    io::{BackendId, Generation, Outcome},
    time::Instant,
};

use super::{
    summary::Totals,
    virtual_maps::{Destination, Entry},
    yardsticks::Yardstick,
};

#[derive(Debug)]
pub(super) struct ServiceAccount {
    pub(super) name: String,
    yardstick: Yardstick,
    pub(super) has_probe: bool,
    /// There was a result of a probe.
    pub(super) probed: bool,
    /// Members of the table.
    pub(super) serving: usize,
    pub(super) backends: Vec<Backend>,
    by_name: HashMap<String, usize>,
}

#[derive(Debug)]
pub(super) struct Backend {
    pub(super) name: String,
    pub(super) entry: Entry,
    readmitted: Option<Instant>,
    pub(super) totals: Totals,
}

impl ServiceAccount {
    pub(super) fn new(name: &str, has_probe: bool, yardstick: Yardstick) -> Self {
        Self {
            name: name.to_owned(),
            yardstick,
            has_probe,
            probed: false,
            serving: 0,
            backends: Vec::new(),
            by_name: HashMap::new(),
        }
    }

    /// Whether a backend is there.
    pub(super) fn knows(&self, backend: &str) -> bool {
        self.by_name.get(backend).is_some_and(|place| self.backends[*place].entry.ids().is_some())
    }

    /// The ids of a backend that is there.
    pub(super) fn ids(&self, backend: &str) -> (BackendId, Generation) {
        self.backends[self.by_name[backend]].entry.ids().expect("it is there")
    }

    /// One exchange with a backend that is there. Returns its ids.
    pub(super) fn outcome(&mut self, backend: &str, outcome: Outcome) -> (BackendId, Generation) {
        let place = self.by_name[backend];
        let destination = self.destination(place);
        let backend = &mut self.backends[place];
        if destination == Destination::Trial {
            backend.entry.budget -= 1;
        }
        let error = match outcome {
            Outcome::Status(status) => self.yardstick.errors.iter().any(|range| range.contains(&status)),
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
    pub(super) fn successes(&mut self, backend: &str, count: u64) -> Option<BackendId> {
        let place = self.by_name[backend];
        let destination = self.destination(place);
        let backend = &mut self.backends[place];
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

    /// Counts a decision of the engine.
    pub(super) fn event(&mut self, event: &Event) {
        let Some(place) = event.backend.as_ref().and_then(|name| self.by_name.get(name)) else { return };
        let (relapse, backend) = (self.yardstick.relapse, &mut self.backends[*place]);
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
            EventKind::Suspected
            | EventKind::Trial
            | EventKind::Probe
            | EventKind::Path
            | EventKind::Operator
            | EventKind::Weight
            | EventKind::Membership
            | EventKind::Fallback
            | EventKind::Panic
            | EventKind::Drained
            | EventKind::Dataplane
            | EventKind::Interface
            | EventKind::Discovery
            | EventKind::Limit => {}
        }
    }

    /// The backends of a service that a new connection may go to: first the half-open ones with a budget,
    /// then those in the table. For drivers that play the clients.
    pub(super) fn choices(&self) -> impl Iterator<Item = (&str, Destination)> {
        let on = |wanted: Destination| {
            let all = (0..self.backends.len()).map(|place| (place, self.destination(place)));
            all.filter(move |(_, destination)| *destination == wanted)
        };
        on(Destination::Trial)
            .chain(on(Destination::Table))
            .map(|(place, destination)| (self.backends[place].name.as_str(), destination))
    }

    /// The place of a backend of this name, which is made if there is none.
    pub(super) fn place(&mut self, name: &str) -> usize {
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
