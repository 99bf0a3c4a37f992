//! The engine, with maps in memory that fail on script.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use lb_core::{
    Engine, Settings,
    codes::ProbeCode,
    config::{
        self, Breaker, Config, Connections, HttpProbe, Limits, Mode, NoBackend, OnOut, Probe, ProbeKind,
        Sources,
    },
    event::{Event, EventKind},
    io::{
        BackendId, Context, FlowReset, Generation, Input, Operation, Outcome, Output, ProbeResult, Step,
        StepFailure, Verb,
    },
    snapshot::{BackendSnapshot, PathState},
    time::{Instant, Millis},
};

use crate::plain::{By, Said};

pub(crate) const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// The first two are of one prefix.
const CLIENTS: [[u8; 4]; 4] = [[192, 0, 2, 1], [192, 0, 2, 2], [198, 51, 100, 1], [203, 0, 113, 1]];
pub(crate) const RISE_AND_FALL: (u32, u32) = (2, 3);

pub(crate) struct Real {
    engine: Engine,
    policy: Breaker,
    probed: bool,
    members: u8,
    ids: BTreeMap<String, (BackendId, Generation)>,
    /// Backends whose connections the maps reset, now or at the next request.
    resets: BTreeSet<BackendId>,
    /// Confirmations that are under way.
    asked: BTreeSet<(BackendId, Generation)>,
    pub(crate) said: Vec<Said>,
    /// The fate of the next plans: `true` fails. Beyond the end all hold.
    pub(crate) script: VecDeque<bool>,
}

impl Real {
    pub(crate) fn new(policy: Breaker, probed: bool) -> Self {
        let engine = Engine::new(Settings::default(), Instant(0));
        let (ids, resets) = (BTreeMap::new(), BTreeSet::new());
        let (said, script) = (Vec::new(), VecDeque::new());
        let asked = BTreeSet::new();
        Self { engine, policy, probed, members: 0, ids, resets, asked, said, script }
    }

    fn send(&mut self, input: Input, now: u64) {
        self.engine.handle(input, Instant(now));
        self.drain(now);
    }

    fn drain(&mut self, now: u64) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Dataplane(plan) => {
                    let failure = StepFailure { index: plan.steps.len() / 2, error: "no memory".to_owned() };
                    let fails = self.script.pop_front().unwrap_or(false);
                    let held = if fails { failure.index } else { plan.steps.len() };
                    plan.steps[..held].iter().for_each(|step| self.write(step));
                    let result = if fails { Err(failure) } else { Ok(()) };
                    self.engine.handle(Input::Applied { plan: plan.id, result }, Instant(now));
                }
                Output::Event(event) => self.hear(*event),
                // The history gives the result.
                Output::Probe(_) => {}
                Output::Confirm(of) => {
                    assert!(self.asked.insert((of.backend, of.generation)), "one at a time")
                }
            }
        }
    }

    fn write(&mut self, step: &Step) {
        let Step::Backend { id, flow_reset, .. } = step else { return };
        match flow_reset {
            FlowReset::Never => self.resets.remove(id),
            FlowReset::AtRequest | FlowReset::Now => self.resets.insert(*id),
        };
    }

    pub(crate) fn resets(&self, id: BackendId) -> bool {
        self.resets.contains(&id)
    }

    fn hear(&mut self, event: Event) {
        let is_compared = match event.kind {
            EventKind::Eject
            | EventKind::Trial
            | EventKind::Readmit
            | EventKind::Refused
            | EventKind::Suspected
            | EventKind::Path
            | EventKind::Probe => true,
            EventKind::Weight => event.reason == "slow_start",
            EventKind::Operator
            | EventKind::Membership
            | EventKind::Fallback
            | EventKind::Panic
            | EventKind::Drained
            | EventKind::Dataplane
            | EventKind::Interface
            | EventKind::Discovery
            | EventKind::Limit => false,
        };
        if is_compared {
            self.said.push((
                event.kind,
                event.backend.expect("of one"),
                event.reason.to_string(),
                event.enforced,
            ));
        }
    }

    pub(crate) fn configure(&mut self, members: u8, now: u64) {
        self.members = members;
        let all = NAMES.iter().enumerate().filter(|(place, _)| members & (1 << place) != 0);
        let backends = all
            .map(|(place, name)| config::Backend {
                name: (*name).to_owned(),
                address: SocketAddr::from(([10, 0, 0, place as u8 + 1], 80)),
                weight: 100,
                probe_address: None,
                max_connections: None,
                discovered: None,
            })
            .collect();
        let (rise, fall) = RISE_AND_FALL;
        let service = config::Service {
            name: "web".to_owned(),
            vip: "203.0.113.10:80".parse().expect("literal"),
            mode: Mode::Nat,
            no_backend: NoBackend::Reset,
            evidence: true,
            connections: Connections {
                on_eject: OnOut::Reset,
                on_drain: OnOut::Reset,
                drain_timeout: Millis(900),
                redispatch: false,
            },
            fallback: Vec::new(),
            sources: Sources::default(),
            limits: Limits::default(),
            affinity: None,
            backends,
            probe: self.probed.then(|| Probe {
                kind: ProbeKind::Http(HttpProbe::default()),
                rise,
                fall,
                ..Probe::default()
            }),
            breaker: self.policy.clone(),
        };
        self.send(Input::Config(Arc::new(Config { services: vec![service] })), now);
        let known = self.backends(now).into_iter().map(|of| (of.name, (of.id, of.generation)));
        self.ids = known.collect();
    }

    pub(crate) fn reload(&mut self, policy: Breaker, now: u64) {
        self.policy = policy;
        self.configure(self.members, now);
    }

    /// Another engine continues from the state of this one.
    pub(crate) fn restart(&mut self, now: u64) {
        let restored = Some(self.engine.export(Instant(now)));
        self.engine = Engine::new(Settings { restored, ..Settings::default() }, Instant(now));
        self.script.clear();
        self.resets.clear();
        self.asked.clear();
        self.configure(self.members, now);
    }

    pub(crate) fn until(&mut self, end: u64) {
        while let Some(due) = self.engine.next_deadline().filter(|due| due.0 <= end) {
            self.send(Input::Tick, due.0);
        }
        self.send(Input::Tick, end);
    }

    pub(crate) fn outcome(&mut self, name: &str, outcome: Outcome, ttfb_ms: u64, by: By, now: u64) {
        let (backend, generation) = self.ids[name];
        let ttfb = Some(Duration::from_millis(ttfb_ms));
        let client = by.client.map(|client| (CLIENTS[usize::from(client)], 4711).into());
        let context = Context { client_counts: by.client_counts, late: by.late };
        self.send(Input::Outcome { backend, generation, outcome, ttfb, client, context }, now);
    }

    /// Ends the confirmation of a backend. False: none is under way.
    pub(crate) fn confirm(&mut self, name: &str, passes: bool, answered: bool, now: u64) -> bool {
        let (backend, generation) = self.ids[name];
        if !self.asked.remove(&(backend, generation)) {
            return false;
        }
        let result =
            if passes { ProbeResult::Status(200) } else { ProbeResult::fail(ProbeCode::Timeout, "timeout") };
        self.send(Input::Confirmation { backend, generation, result, answered }, now);
        true
    }

    pub(crate) fn lose(&mut self, name: &str, lost: u64, now: u64) {
        let (backend, _) = self.ids[name];
        self.send(Input::EvidenceLost { backend, lost }, now);
    }

    pub(crate) fn probed(&mut self, name: &str, passes: bool, now: u64) {
        let (backend, generation) = self.ids[name];
        let result =
            if passes { ProbeResult::Status(200) } else { ProbeResult::fail(ProbeCode::Timeout, "timeout") };
        self.send(Input::Probe { backend, generation, result }, now);
    }

    pub(crate) fn path(&mut self, name: &str, path: PathState, now: u64) {
        let (backend, generation) = self.ids[name];
        self.send(Input::Path { backend, generation, path }, now);
    }

    pub(crate) fn operate(&mut self, name: &str, verb: Verb, now: u64) {
        let (service, backend, actor) = ("web".to_owned(), name.to_owned(), "alice".to_owned());
        let (duration, reason, force) = (None, None, true);
        let order = Operation { service, backend, verb, duration, reason, actor, force };
        self.engine.operate(&order, Instant(now)).expect("it is forced and names a member");
        self.drain(now);
    }

    /// A write failed and was not repeated yet, so events wait for it.
    pub(crate) fn behind(&self, now: u64) -> bool {
        self.engine.snapshot(Instant(now)).services[0].pending.is_some()
    }

    pub(crate) fn backends(&self, now: u64) -> Vec<BackendSnapshot> {
        self.engine.snapshot(Instant(now)).services.remove(0).backends
    }
}
