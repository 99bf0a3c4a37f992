//! An engine on a virtual clock with maps in memory. The maps check every write and fail on script.
//!
//! One file because the maps check what the engine and its clock do.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use lb_common::abi::TRIAL_SLOTS;

use crate::{
    Engine, Settings,
    codes::ProbeCode,
    config::{self, Breaker, Config, Mode, NoBackend, Probe},
    engine::Refused,
    event::{Event, EventKind},
    ids::{BackendId, Generation, ServiceId},
    io::{Admit, FlowReset, Input, Member, Operation, Output, Plan, ProbeRequest, Step, StepFailure},
    outcome::{ClientCounts, Context, Outcome, ProbeResult},
    snapshot::{BackendSnapshot, ServiceSnapshot},
    time::{Instant, Millis},
};

pub(super) struct Lab {
    pub(super) engine: Engine,
    pub(super) now: Instant,
    pub(super) maps: Maps,
    /// All events so far, and those since the last [`Lab::news`].
    pub(super) events: Vec<Event>,
    seen: usize,
    pub(super) probes: Vec<(Instant, ProbeRequest)>,
    /// Those that were not answered yet.
    pub(super) confirmations: Vec<(Instant, ProbeRequest)>,
    /// Every write that held, and when.
    pub(super) written: Vec<(Instant, Step)>,
    /// The fate of the next writes: `true` fails. Beyond the end all hold.
    pub(super) script: VecDeque<bool>,
    /// Plans wait until [`Lab::answer`].
    pub(super) slow: bool,
    pub(super) waiting: VecDeque<Plan>,
}

impl Lab {
    pub(super) fn new(services: Vec<config::Service>) -> Self {
        let mut lab = Self::empty(Settings { seed: 7, ..Settings::default() });
        lab.reload(services);
        lab
    }

    pub(super) fn empty(settings: Settings) -> Self {
        Self {
            engine: Engine::new(settings, Instant(0)),
            now: Instant(0),
            maps: Maps::default(),
            events: Vec::new(),
            seen: 0,
            probes: Vec::new(),
            confirmations: Vec::new(),
            written: Vec::new(),
            script: VecDeque::new(),
            slow: false,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn reload(&mut self, services: Vec<config::Service>) {
        self.send(Input::Config(Arc::new(Config { services })));
    }

    pub(super) fn send(&mut self, input: Input) {
        self.engine.handle(input, self.now);
        self.drain();
    }

    pub(super) fn operate(&mut self, operation: &Operation) -> Result<(), Refused> {
        let done = self.engine.operate(operation, self.now);
        self.drain();
        done
    }

    /// Lets time pass up to `t`, waking the engine exactly when it asks for it.
    pub(super) fn until(&mut self, t: u64) {
        while let Some(due) = self.engine.next_deadline().filter(|due| due.0 <= t) {
            self.now = self.now.max(due);
            self.send(Input::Tick);
        }
        assert!(t >= self.now.0, "time runs forward");
        self.now = Instant(t);
        self.send(Input::Tick);
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.until(self.now.0 + ms);
    }

    pub(super) fn status(&mut self, name: &str, status: u16) {
        self.outcome(name, Outcome::Status(status));
    }

    pub(super) fn statuses(&mut self, name: &str, statuses: &[u16]) {
        for status in statuses {
            self.status(name, *status);
        }
    }

    pub(super) fn outcome(&mut self, name: &str, outcome: Outcome) {
        self.timed(name, outcome, None);
    }

    pub(super) fn timed(&mut self, name: &str, outcome: Outcome, ttfb: Option<Duration>) {
        let BackendSnapshot { id, generation, .. } = self.backend(name);
        self.send(Input::Outcome {
            backend: id,
            generation,
            outcome,
            ttfb,
            client: None,
            context: Context::default(),
        });
    }

    /// An outcome that a client of a service with these clients saw.
    pub(super) fn seen_by(
        &mut self,
        name: &str,
        outcome: Outcome,
        client: &str,
        client_counts: ClientCounts,
    ) {
        let BackendSnapshot { id: backend, generation, .. } = self.backend(name);
        let client = Some(SocketAddr::new(client.parse().expect("literal"), 4711));
        let context = Context { client_counts: Some(client_counts), late: false };
        self.send(Input::Outcome { backend, generation, outcome, ttfb: None, client, context });
    }

    /// The result of the confirmation that is under way.
    pub(super) fn confirm(&mut self, name: &str, result: ProbeResult, answered: bool) {
        let BackendSnapshot { id: backend, generation, .. } = self.backend(name);
        let asked = self.confirmations.pop().expect("one is under way").1;
        assert_eq!((asked.backend, asked.generation), (backend, generation));
        self.send(Input::Confirmation { backend, generation, result, answered });
    }

    pub(super) fn lose(&mut self, name: &str, lost: u64) {
        let backend = self.backend(name).id;
        self.send(Input::EvidenceLost { backend, lost });
    }

    pub(super) fn probe(&mut self, name: &str, passes: bool) {
        let BackendSnapshot { id, generation, .. } = self.backend(name);
        let result =
            if passes { ProbeResult::Pass } else { ProbeResult::fail(ProbeCode::Unknown, "status 503") };
        self.send(Input::Probe { backend: id, generation, result });
    }

    pub(super) fn probe_status(&mut self, name: &str, status: u16) {
        let BackendSnapshot { id, generation, .. } = self.backend(name);
        self.send(Input::Probe { backend: id, generation, result: ProbeResult::Status(status) });
    }

    /// A backend of any service, by its name.
    pub(super) fn backend(&self, name: &str) -> BackendSnapshot {
        let services = self.engine.snapshot(self.now).services;
        let mut all = services.into_iter().flat_map(|service| service.backends);
        all.find(|backend| backend.name == name).unwrap_or_else(|| panic!("no backend {name}"))
    }

    pub(super) fn service(&self) -> ServiceSnapshot {
        self.engine.snapshot(self.now).services.swap_remove(0)
    }

    /// The events since the last call: kind, backend and reason.
    pub(super) fn news(&mut self) -> Vec<(EventKind, String, String)> {
        let news = &self.events[self.seen..];
        self.seen = self.events.len();
        let said = |event: &Event| {
            (event.kind, event.backend.clone().unwrap_or(event.service.clone()), event.reason.to_string())
        };
        news.iter().map(said).collect()
    }

    pub(super) fn admit(&self, name: &str) -> Option<Admit> {
        self.maps.backends.get(&self.backend(name).id).map(|held| held.admit)
    }

    pub(super) fn flow_reset(&self, name: &str) -> FlowReset {
        self.maps.backends[&self.backend(name).id].flow_reset
    }

    /// Names of the backends in the only table.
    pub(super) fn table(&self) -> BTreeSet<String> {
        let service = self.service();
        let named =
            |id| service.backends.iter().find(|backend| backend.id == id).expect("known").name.clone();
        self.maps.tables[&service.id].iter().map(|member| named(member.id)).collect()
    }

    /// Carries out the oldest plan that waits.
    pub(super) fn answer(&mut self) {
        let plan = self.waiting.pop_front().expect("a plan waits");
        let result = self.carry_out(&plan);
        self.send(Input::Applied { plan: plan.id, result });
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Event(event) => {
                    self.maps.check_announcement(&event, &self.engine, self.now);
                    self.events.push(*event);
                }
                Output::Probe(request) => self.probes.push((self.now, request)),
                Output::Confirm(request) => self.confirmations.push((self.now, request)),
                Output::Dataplane(plan) if self.slow => self.waiting.push_back(plan),
                Output::Dataplane(plan) => {
                    let result = self.carry_out(&plan);
                    self.engine.handle(Input::Applied { plan: plan.id, result }, self.now);
                }
            }
        }
    }

    fn carry_out(&mut self, plan: &Plan) -> Result<(), StepFailure> {
        for (index, step) in plan.steps.iter().enumerate() {
            if self.script.pop_front().unwrap_or(false) {
                return Err(StepFailure { index, error: "no memory".to_owned() });
            }
            self.maps.write(step);
            self.written.push((self.now, step.clone()));
        }
        Ok(())
    }
}

/// The maps in memory.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Maps {
    pub(super) services: BTreeMap<SocketAddr, (ServiceId, Vec<BackendId>)>,
    pub(super) tables: BTreeMap<ServiceId, Vec<Member>>,
    pub(super) backends: BTreeMap<BackendId, Held>,
    generations: BTreeMap<BackendId, Generation>,
    pub(super) budgets: BTreeMap<BackendId, u32>,
    /// A service with `no_backend = "any"`: it may use ejected backends.
    may_panic: bool,
}

#[derive(Debug, PartialEq)]
pub(super) struct Held {
    pub(super) service: ServiceId,
    pub(super) admit: Admit,
    pub(super) flow_reset: FlowReset,
}

impl Maps {
    /// Takes a write, and checks that it finds everything that it refers to.
    fn write(&mut self, step: &Step) {
        match step {
            Step::Service { id, vip, trials, no_backend, .. } => {
                self.may_panic |= *no_backend == NoBackend::Any;
                assert!(self.tables.contains_key(id), "a VIP without a table");
                assert!(trials.len() <= TRIAL_SLOTS);
                for trial in trials {
                    assert_eq!(
                        self.backends[trial].admit,
                        Admit::Trials,
                        "a trial slot for a backend that is not half-open"
                    );
                    assert!(self.budgets.contains_key(trial), "a trial slot without a budget");
                }
                let other = self.services.insert(*vip, (*id, trials.clone()));
                assert!(other.is_none_or(|(other, _)| other == *id), "a VIP taken from another service");
                let vips = self.services.values().filter(|(of, _)| of == id).count();
                assert_eq!(vips, 1, "a service under two VIPs");
            }
            Step::RemoveService { id, vip } => {
                let (of, _) = self.services.remove(vip).expect("the VIP is there");
                assert_eq!(of, *id, "another service's VIP");
                self.tables.remove(id);
            }
            Step::Backend { id, service, generation, admit, flow_reset, .. } => {
                let resets = *flow_reset != FlowReset::Never;
                assert!(!resets || *admit == Admit::None, "a backend that takes new connections is reset");
                let former = self.generations.insert(*id, *generation);
                match self
                    .backends
                    .insert(*id, Held { service: *service, admit: *admit, flow_reset: *flow_reset })
                {
                    Some(held) => {
                        assert_eq!(held.service, *service);
                        assert_eq!(former, Some(*generation), "an id changed hands while it was in use");
                    }
                    None => assert!(former.is_none_or(|former| former < *generation), "an old generation"),
                }
            }
            Step::RemoveBackend { id } => {
                assert!(self.backends.remove(id).is_some(), "it is there");
                let named = |members: &Vec<Member>| members.iter().any(|member| member.id == *id);
                assert!(!self.tables.values().any(named), "a table still names it");
                assert!(
                    !self.services.values().any(|(_, trials)| trials.contains(id)),
                    "it still has a trial slot"
                );
            }
            Step::Budget { id, tokens } => {
                assert!(self.backends.contains_key(id));
                self.budgets.insert(*id, *tokens);
            }
            Step::Table { service, members } => {
                for member in members {
                    let held = &self.backends[&member.id];
                    assert_eq!(held.service, *service);
                    assert_eq!(held.admit, Admit::All, "a table names one that takes nothing");
                }
                self.tables.insert(*service, members.clone());
            }
        }
    }

    /// Puts in a backend of an earlier run.
    pub(super) fn adopt(
        &mut self,
        service: ServiceId,
        vip: Option<SocketAddr>,
        id: BackendId,
        generation: Generation,
    ) {
        self.services.extend(vip.map(|vip| (vip, (service, Vec::new()))));
        self.backends.insert(id, Held { service, admit: Admit::All, flow_reset: FlowReset::Never });
        self.generations.insert(id, generation);
    }

    /// Once an ejection is announced, no new connection reaches the backend, unless something else was
    /// decided since.
    fn check_announcement(&self, event: &Event, engine: &Engine, now: Instant) {
        if event.kind != EventKind::Eject || !event.enforced {
            return;
        }
        // The name may belong to another backend by now, with the same decision at the same moment.
        let renews = |output: &Output| {
            matches!(output, Output::Event(later) if later.kind == EventKind::Membership
                && (&later.service, &later.backend) == (&event.service, &event.backend))
        };
        if engine.outbox.iter().any(renews) {
            return;
        }
        let services = engine.snapshot(now).services;
        let Some(service) = services.iter().find(|service| service.name == event.service) else { return };
        let its = service.backends.iter().find(|backend| Some(&backend.name) == event.backend.as_ref());
        let Some(backend) = its.filter(|backend| backend.until_ms == event.until_ms) else { return };
        if !self.may_panic
            && service.panic.is_none()
            && let Some(held) = self.backends.get(&backend.id)
        {
            assert_eq!(held.admit, Admit::None, "{event:?}");
        }
    }
}

/// A service called `web` with backends of these names, without a probe. It ejects on three failures, up
/// to all but one backend, sweeps every 5 s and ejects for 30 s.
pub(super) fn web(names: &[&str]) -> config::Service {
    let backend = |(index, name): (usize, &&str)| config::Backend {
        name: (*name).to_owned(),
        address: SocketAddr::from(([10, 0, 0, index as u8 + 1], 8080)),
        weight: 100,
        probe_address: None,
        max_connections: None,
        discovered: None,
    };
    config::Service {
        name: "web".to_owned(),
        vip: "203.0.113.10:80".parse().expect("literal"),
        mode: Mode::Nat,
        no_backend: NoBackend::Reset,
        evidence: true,
        connections: Default::default(),
        fallback: Vec::new(),
        sources: config::Sources::default(),
        limits: config::Limits::default(),
        affinity: None,
        backends: names.iter().enumerate().map(backend).collect(),
        probe: None,
        breaker: Breaker {
            consecutive_5xx: 3,
            interval: Millis::secs(5),
            base_ejection_time: Millis::secs(30),
            max_ejection_percent: 100,
            half_open_timeout: Millis::secs(5),
            ..Breaker::default()
        },
    }
}

/// A probe that is always believed.
pub(super) fn probe() -> Probe {
    Probe { fail_open_percent: 0, ..Probe::default() }
}

/// The short form of an event.
pub(super) fn said(kind: EventKind, backend: &str, reason: &str) -> (EventKind, String, String) {
    (kind, backend.to_owned(), reason.to_owned())
}
