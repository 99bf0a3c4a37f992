//! Recorded or written events through the engine, in virtual time: how would this
//! configuration have behaved?
//!
//! [`Replay`] is one engine with the maps of an ideal kernel: every plan holds at
//! once. It takes lines ([`crate::journal::line`]) in the order of their time, gives
//! the engine's own events, and keeps account of what clients would have seen
//! ([`account`]). Nothing in it reads a clock or a random number, so the same lines
//! and seed give the same records. Memory does not grow with the number of lines.
//!
//! [`read`] runs one or more of them over a stream of lines.

pub mod account;
pub mod compare;
mod membership;
mod read;
mod record;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use lb_core::{
    Engine, Settings,
    config::Config,
    io::{Input, Operation, Outcome, Output},
    time::{Instant, Millis},
};

use self::account::{Account, Summary, Yardsticks};
pub use self::{
    read::{InputError, Then, read},
    record::{BackendState, Record, SnapshotRecord},
};
use crate::journal::line::{Line, Order, What, nearest};

/// Time may not jump further: sweeps fall within it, and it is a slip anyway.
const LONGEST_JUMP: Millis = Millis::secs(400 * 24 * 3600);

/// Why a line cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unfit {
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl Unfit {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// What a run begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Instead of the one of the recording, or of 0.
    pub seed: Option<u64>,
    /// Leave out what is about other services.
    pub service: Option<String>,
    pub yardsticks: Yardsticks,
}

pub struct Replay {
    engine: Engine,
    /// As in the file, and with the membership of this moment.
    original: Config,
    config: Config,
    /// Places in `config`.
    services: HashMap<String, usize>,
    options: Options,
    account: Account,
    records: VecDeque<Record>,
    now: Instant,
    /// The first line was taken.
    started: bool,
    clock: Option<Clock>,
}

/// What the time of lines is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock {
    began_unix_ms: u64,
    /// The virtual time of its 0.
    origin: Instant,
}

impl Replay {
    /// A service that `options` names and `config` lacks is unfit.
    pub fn new(mut config: Config, options: Options) -> Result<Self, Unfit> {
        if let Some(only) = &options.service {
            if !config.services.iter().any(|service| service.name == *only) {
                return Err(unknown_service(only, &config));
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
            now: Instant(0),
            started: false,
            clock: None,
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
        let at = self.moment(line.at)?;
        let service = self.service(line)?;
        if let Some(service) = service {
            self.check(service, &line.what)?;
        }
        self.pass(at);
        match (service, &line.what) {
            (Some(service), what) => self.about(service, what),
            (None, What::Ask) => self.ask(None),
            (None, What::Gap { lost }) => self.account.gap(*lost),
            (
                None,
                What::Outcome { .. }
                | What::Probe { .. }
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

    /// Lets time pass, with all that is due in it.
    pub fn pass(&mut self, at: Instant) {
        if !self.started {
            self.start(Instant(0));
        }
        // One by one, so that what follows from one is in the maps before the next.
        while let Some(deadline) = self.engine.next_deadline().filter(|deadline| *deadline <= at) {
            self.now = self.now.max(deadline);
            self.give(Input::Tick);
        }
        self.now = at;
    }

    /// The next record, in order.
    pub fn next_record(&mut self) -> Option<Record> {
        self.records.pop_front()
    }

    /// What came of it, with the time of the last line as its end.
    pub fn summary(&self) -> Summary {
        self.account.summary(self.now)
    }

    pub fn account(&self) -> &Account {
        &self.account
    }

    fn start(&mut self, at: Instant) {
        self.started = true;
        self.now = at;
        self.configure();
    }

    /// The clock of the lines that follow: at first theirs, later that of a daemon that was started anew.
    fn set_clock(&mut self, at: Instant, began_unix_ms: u64, seed: Option<u64>) -> Result<(), Unfit> {
        let seed = self.options.seed.or(seed).unwrap_or(0);
        match self.clock {
            None if !self.started => {
                self.engine = engine(seed);
                self.clock = Some(Clock { began_unix_ms, origin: Instant(0) });
                self.start(Instant(0));
                let at = self.moment(at)?;
                self.pass(at);
                self.account.began(at);
            }
            // The same run goes on in another file.
            Some(clock) if clock.began_unix_ms == began_unix_ms => {
                let at = self.moment(at)?;
                self.pass(at);
            }
            None => {
                self.restart(self.now, began_unix_ms, seed);
                let at = self.moment(at)?;
                self.pass(at);
            }
            Some(clock) => {
                let since = Millis(began_unix_ms.saturating_sub(clock.began_unix_ms));
                // Were the wall clock set back, then at least not into the past.
                let origin = (clock.origin + since).max(self.now);
                if origin - self.now > LONGEST_JUMP {
                    return Err(too_far());
                }
                self.pass(origin);
                self.restart(origin, began_unix_ms, seed);
                let at = self.moment(at)?;
                self.pass(at);
            }
        }
        Ok(())
    }

    /// A daemon that starts again goes on from what the one before remembered, with the members of its file.
    fn restart(&mut self, origin: Instant, began_unix_ms: u64, seed: u64) {
        let restored = Some(self.engine.export(self.now));
        self.engine = Engine::new(Settings { seed, restored, ..Settings::default() }, self.now);
        self.clock = Some(Clock { began_unix_ms, origin });
        self.config = self.original.clone();
        self.start(origin);
    }

    /// The virtual time of a line.
    fn moment(&self, at: Instant) -> Result<Instant, Unfit> {
        let origin = self.clock.map_or(Instant(0), |clock| clock.origin);
        let moment = origin + Millis(at.0);
        if moment < self.now {
            let message = format!("time runs back, from {} to {} ms", (self.now - origin).0, at.0);
            let help = "put the lines in the order of `t_ms`, for example by `jq -cs 'sort_by(.t_ms)[]'`";
            return Err(Unfit::new(message, help));
        }
        if moment - self.now > LONGEST_JUMP {
            return Err(too_far());
        }
        Ok(moment)
    }

    /// Whose line it is. `None`: nobody's, or one of those that are left out.
    fn service(&self, line: &Line<'_>) -> Result<Option<usize>, Unfit> {
        let needed = match line.what {
            What::Ask | What::Gap { .. } | What::Clock { .. } | What::Pass => false,
            What::Outcome { .. }
            | What::Probe { .. }
            | What::Operator { .. }
            | What::Add { .. }
            | What::Remove { .. }
            | What::Members(_)
            | What::SuccessCounts { .. }
            | What::EvidenceLost { .. } => true,
        };
        match &line.service {
            Some(name) => match self.services.get(name.as_ref()) {
                Some(index) => Ok(Some(*index)),
                None if self.options.service.is_some() => Ok(None),
                None => Err(unknown_service(name, &self.config)),
            },
            None if !needed => Ok(None),
            None if self.config.services.len() == 1 => Ok(Some(0)),
            None => {
                let names = names(self.config.services.iter().map(|service| service.name.as_str()));
                let message = format!("which service? The configuration has {names}");
                Err(Unfit::new(message, "add `service` to the line, or name one with `--service`"))
            }
        }
    }

    /// Whether the backend of a line is there, if it has to be.
    fn check(&self, service: usize, what: &What<'_>) -> Result<(), Unfit> {
        let backend = match what {
            What::Outcome { backend, .. }
            | What::Probe { backend, .. }
            | What::Operator { backend, .. }
            | What::Remove { backend }
            | What::SuccessCounts { backend, .. }
            | What::EvidenceLost { backend, .. } => backend,
            What::Add { backend, address, .. } => {
                return membership::check(&self.config, service, backend, *address);
            }
            What::Members(_) | What::Gap { .. } | What::Ask | What::Clock { .. } | What::Pass => {
                return Ok(());
            }
        };
        if self.account.knows(service, backend) {
            return Ok(());
        }
        let of = &self.config.services[service];
        let known = || of.everyone().map(|backend| backend.name.as_str());
        let message = format!("service `{}` has no backend `{backend}`; it has {}", of.name, names(known()));
        let help = match nearest(backend, known()) {
            Some(meant) => format!("did you mean `{meant}`? A line with `\"op\":\"add\"` makes one"),
            None => "a line with `\"op\":\"add\"` makes one".to_owned(),
        };
        Err(Unfit::new(message, help))
    }

    /// A backend that is on trial here, and was not in the recording, takes them one by one.
    fn goods(&mut self, service: usize, backend: &str, good: u64) {
        for told in 0..good {
            if let Some(backend) = self.account.goods(service, backend, good - told) {
                self.give(Input::Successes { backend, count: good - told });
                return;
            }
            let outcome = Outcome::Status(200);
            let (backend, generation) = self.account.outcome(service, backend, outcome);
            self.give(Input::Outcome { backend, generation, outcome, ttfb: None, client: None });
        }
    }

    fn about(&mut self, service: usize, what: &What<'_>) {
        match what {
            What::Outcome { backend, outcome, ttfb, client } => {
                let (backend, generation) = self.account.outcome(service, backend, *outcome);
                let (outcome, ttfb, client) = (*outcome, *ttfb, *client);
                self.give(Input::Outcome { backend, generation, outcome, ttfb, client });
            }
            What::Probe { backend, result } => {
                let (backend, generation) = self.account.probe(service, backend);
                self.give(Input::Probe { backend, generation, result: result.clone() });
            }
            What::SuccessCounts { backend, good } => self.goods(service, backend, *good),
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
        let _ = self.engine.operate(&operation, self.now);
        self.drain();
    }

    fn ask(&mut self, service: Option<usize>) {
        let snapshot = self.engine.snapshot(self.now);
        let wanted = service.map(|service| self.config.services[service].name.as_str());
        let asked = snapshot.services.iter().filter(|of| wanted.is_none_or(|wanted| of.name == wanted));
        self.records.extend(asked.map(|of| Record::Snapshot(SnapshotRecord::of(self.now, of))));
    }

    fn configure(&mut self) {
        self.engine.handle(Input::Config(Arc::new(self.config.clone())), self.now);
        self.account.configured(&self.config, &self.engine.snapshot(self.now), self.now);
        self.drain();
    }

    fn give(&mut self, input: Input) {
        self.engine.handle(input, self.now);
        self.drain();
    }

    /// Does what the engine wants: maps hold at once, and probes are answered by lines.
    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Dataplane(plan) => {
                    self.account.applied(&plan, self.now);
                    self.engine.handle(Input::Applied { plan: plan.id, result: Ok(()) }, self.now);
                }
                Output::Probe(_) => {}
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

fn too_far() -> Unfit {
    let help = "`t_ms` counts milliseconds from the start of the run, not from 1970; a year is the most";
    Unfit::new("time jumps by more than 400 days", help)
}

fn unknown_service(name: &str, config: &Config) -> Unfit {
    let known = || config.services.iter().map(|service| service.name.as_str());
    let message = format!("the configuration has no service `{name}`; it has {}", names(known()));
    let help = match nearest(name, known()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "`--service NAME` leaves out what is about others".to_owned(),
    };
    Unfit::new(message, help)
}

/// A list of names that is not too long for a message.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 10;
    let all: Vec<_> = names.collect();
    let shown = all.iter().take(MOST).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match all.len() {
        0 => "none".to_owned(),
        len if len > MOST => format!("{shown} and {} more", len - MOST),
        _ => shown,
    }
}
