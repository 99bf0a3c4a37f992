//! One replay: an engine with the maps of an ideal kernel, where every plan holds at once.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use lb_core::{
    Engine, Settings,
    config::Config,
    io::{Input, Operation, Outcome, Output},
    time::Instant,
};

use super::{
    account::Account,
    addressee, membership,
    record::{Record, SnapshotRecord},
    summary::Summary,
    timeline::{Clock, Timeline},
    unfit::Unfit,
    yardsticks::Yardsticks,
};
use crate::journal::line::{Line, Order, What};

/// How a replay runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Instead of the one of the recording, or of 0.
    pub seed: Option<u64>,
    /// Leave out lines that are about other services.
    pub service: Option<String>,
    pub yardsticks: Yardsticks,
}

pub struct Replay {
    engine: Engine,
    /// The configuration as in the file.
    original: Config,
    /// The configuration with the membership of this moment.
    config: Config,
    /// Places in `config`.
    services: HashMap<String, usize>,
    options: Options,
    account: Account,
    records: VecDeque<Record>,
    time: Timeline,
    /// The first line was taken.
    started: bool,
}

impl Replay {
    /// A service that `options` names and `config` lacks is unfit.
    pub fn new(mut config: Config, options: Options) -> Result<Self, Unfit> {
        if let Some(only) = &options.service {
            if !config.services.iter().any(|service| service.name == *only) {
                return Err(Unfit::unknown_service(only, &config));
            }
            config.services.retain(|service| service.name == *only);
        }
        let services = config.services.iter().enumerate();
        let services = services.map(|(index, service)| (service.name.clone(), index)).collect();
        Ok(Self {
            engine: engine(options.seed.unwrap_or(0)),
            original: config.clone(),
            services,
            account: Account::new(&config, &options.yardsticks),
            config,
            options,
            records: VecDeque::new(),
            time: Timeline::default(),
            started: false,
        })
    }

    /// Takes a line; its time is not before that of the line before.
    pub fn take(&mut self, line: &Line<'_>) -> Result<(), Unfit> {
        if let What::Clock { began_unix_ms, seed } = line.what {
            return self.set_clock(line.at, began_unix_ms, seed);
        }
        if !self.started {
            self.start(Instant(0));
        }
        let at = self.time.moment(line.at)?;
        let only = self.options.service.as_deref();
        let service = match self.addressed(line, only) {
            // The daemon has refused that order, too.
            Err(_) if matches!(line.what, What::Operator { .. }) => {
                self.account.misplaced();
                self.pass(at);
                return Ok(());
            }
            addressed => addressed?,
        };
        self.pass(at);
        match (service, &line.what) {
            (Some(service), what) => self.about(service, what),
            (None, What::Ask) => self.ask(None),
            (None, What::Gap { lost }) => self.account.gap(*lost),
            (
                None,
                What::Outcome { .. }
                | What::Confirmation { .. }
                | What::TrialsTaken { .. }
                | What::Probe { .. }
                | What::Path { .. }
                | What::Operator { .. }
                | What::Add { .. }
                | What::Remove { .. }
                | What::Members(_)
                | What::SuccessCounts { .. }
                | What::EvidenceLost { .. },
            ) => self.account.skipped(),
            (None, What::Clock { .. } | What::Pass) => {}
        }
        Ok(())
    }

    /// The service that a line is about. An error: it is about nobody who is there.
    fn addressed(&self, line: &Line<'_>, only: Option<&str>) -> Result<Option<usize>, Unfit> {
        let service = addressee::service(line, &self.config, &self.services, only)?;
        if let Some(service) = service {
            addressee::check_backend(&self.config, &self.account, service, &line.what)?;
        }
        Ok(service)
    }

    /// Lets time pass. The engine gets each of its deadlines on the way.
    pub fn pass(&mut self, at: Instant) {
        if !self.started {
            self.start(Instant(0));
        }
        // One by one: the maps hold the effect of one before the next is due.
        while let Some(deadline) = self.engine.next_deadline().filter(|deadline| *deadline <= at) {
            self.time.now = self.time.now.max(deadline);
            self.give(Input::Tick);
        }
        self.time.now = at;
    }

    /// The next record, in order.
    pub fn next_record(&mut self) -> Option<Record> {
        self.records.pop_front()
    }

    /// The summary up to the time of the last line.
    pub fn summary(&self) -> Summary {
        self.account.summary(self.time.now)
    }

    pub fn account(&self) -> &Account {
        &self.account
    }

    fn start(&mut self, at: Instant) {
        self.started = true;
        self.time.now = at;
        self.configure();
    }

    /// The clock of the lines that follow. The first one is the recording daemon's; a later one is of a
    /// daemon that was started again.
    fn set_clock(&mut self, at: Instant, began_unix_ms: u64, seed: Option<u64>) -> Result<(), Unfit> {
        let seed = self.options.seed.or(seed).unwrap_or(0);
        match self.time.clock {
            None if !self.started => {
                self.engine = engine(seed);
                self.time.clock = Some(Clock { began_unix_ms, origin: Instant(0) });
                self.start(Instant(0));
                let at = self.time.moment(at)?;
                self.pass(at);
                self.account.began(at);
            }
            // The same run continues in another file.
            Some(clock) if clock.began_unix_ms == began_unix_ms => {
                let at = self.time.moment(at)?;
                self.pass(at);
            }
            None => {
                self.restart(self.time.now, began_unix_ms, seed);
                let at = self.time.moment(at)?;
                self.pass(at);
            }
            Some(clock) => {
                let origin = self.time.restart(clock, began_unix_ms)?;
                self.pass(origin);
                self.restart(origin, began_unix_ms, seed);
                let at = self.time.moment(at)?;
                self.pass(at);
            }
        }
        Ok(())
    }

    /// A daemon that starts again continues with the state that the one before remembered, with the members in its
    /// file, and with the last good sets of discovery.
    fn restart(&mut self, origin: Instant, began_unix_ms: u64, seed: u64) {
        let restored = Some(self.engine.export(self.time.now));
        self.engine = Engine::new(Settings { seed, restored, ..Settings::default() }, self.time.now);
        self.time.clock = Some(Clock { began_unix_ms, origin });
        let discovered = self.config.clone();
        self.config = self.original.clone();
        membership::keep_discovered(&mut self.config, &discovered);
        self.start(origin);
    }

    /// The recording has counts where its backend was not on trial. Here it may be: then each response takes
    /// a trial of its own, one by one, until the backend is not on trial any more.
    fn successes(&mut self, service: usize, backend: &str, good: u64) {
        for done in 0..good {
            let rest = good - done;
            if let Some(backend) = self.account.successes(service, backend, rest) {
                self.give(Input::Successes { backend, count: rest });
                return;
            }
            let outcome = Outcome::Status(200);
            let (backend, generation) = self.account.outcome(service, backend, outcome);
            self.give(Input::outcome(backend, generation, outcome));
        }
    }

    fn about(&mut self, service: usize, what: &What<'_>) {
        match what {
            What::Outcome { backend, outcome, ttfb, client, context } => {
                let (backend, generation) = self.account.outcome(service, backend, *outcome);
                let (outcome, ttfb, client, context) = (*outcome, *ttfb, *client, *context);
                self.give(Input::Outcome { backend, generation, outcome, ttfb, client, context });
            }
            What::Confirmation { backend, result, syn_answered } => {
                let (backend, generation) = self.account.ids(service, backend);
                let (result, answered) = (result.clone(), *syn_answered);
                self.give(Input::Confirmation { backend, generation, result, answered });
            }
            What::TrialsTaken { backend } => {
                let (backend, _) = self.account.ids(service, backend);
                self.give(Input::TrialsTaken { backend });
            }
            What::Probe { backend, result } => {
                let (backend, generation) = self.account.probe(service, backend);
                self.give(Input::Probe { backend, generation, result: result.clone() });
            }
            What::Path { backend, path } => {
                let (backend, generation) = self.account.ids(service, backend);
                self.give(Input::Path { backend, generation, path: *path });
            }
            What::SuccessCounts { backend, good } => self.successes(service, backend, *good),
            What::EvidenceLost { backend, lost } => {
                let (backend, _) = self.account.ids(service, backend);
                self.give(Input::EvidenceLost { backend, lost: *lost });
            }
            What::Operator { backend, order } => self.operate(service, backend, order),
            What::Add { backend, address, weight } => {
                if membership::add(&mut self.config, &self.original, service, backend, *address, *weight) {
                    self.configure();
                }
            }
            What::Remove { backend } => {
                let of = &mut self.config.services[service];
                of.backends.retain(|known| known.name != *backend);
                of.fallback.retain(|known| known.name != *backend);
                self.configure();
            }
            What::Members(members) => {
                if membership::set(&mut self.config, service, members) {
                    self.configure();
                }
            }
            What::Ask => self.ask(Some(service)),
            What::Gap { lost } => self.account.gap(*lost),
            What::Clock { .. } | What::Pass => {}
        }
    }

    fn operate(&mut self, service: usize, backend: &str, order: &Order) {
        let operation = Operation {
            service: self.config.services[service].name.clone(),
            backend: backend.to_owned(),
            verb: order.verb,
            duration: order.duration,
            reason: order.reason.clone(),
            actor: order.actor.clone().unwrap_or_else(|| "replay".to_owned()),
            force: order.force,
        };
        // A refusal has its event.
        let _ = self.engine.operate(&operation, self.time.now);
        self.drain();
    }

    fn ask(&mut self, service: Option<usize>) {
        let snapshot = self.engine.snapshot(self.time.now);
        let wanted = service.map(|service| self.config.services[service].name.as_str());
        let asked = snapshot.services.iter().filter(|of| wanted.is_none_or(|wanted| of.name == wanted));
        self.records.extend(asked.map(|of| Record::Snapshot(SnapshotRecord::of(self.time.now, of))));
    }

    fn configure(&mut self) {
        self.engine.handle(Input::Config(Arc::new(self.config.clone())), self.time.now);
        self.account.configured(&self.config, &self.engine.snapshot(self.time.now), self.time.now);
        self.drain();
    }

    fn give(&mut self, input: Input) {
        self.engine.handle(input, self.time.now);
        self.drain();
    }

    /// Carries the outputs out: plans hold at once, and later lines answer probes and confirmations.
    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Dataplane(plan) => {
                    self.account.applied(&plan, self.time.now);
                    self.engine.handle(Input::Applied { plan: plan.id, result: Ok(()) }, self.time.now);
                }
                Output::Probe(_) | Output::Confirm(_) => {}
                Output::Event(event) => {
                    self.account.event(&event);
                    self.records.push_back(Record::Event(event));
                }
            }
        }
    }
}

fn engine(seed: u64) -> Engine {
    Engine::new(Settings { seed, ..Settings::default() }, Instant(0))
}
