//! Rules that hold in every history: random outcomes, probe results, reloads, losses, and failed or slow map
//! writes.
//!
//! One file because generator, player and checks belong together.

use std::{collections::BTreeMap, num::NonZeroU16};

use proptest::prelude::*;

use super::lab::{Lab, probe, web};
use crate::{
    config::{self, BackoffDecay, Breaker, Connections, HalfOpenExit, NoBackend, OnOut},
    engine::Refused,
    event::EventKind,
    ids::BackendId,
    io::{Admit, FlowReset, Operation, Step, Verb},
    snapshot::{BackendSnapshot, ServiceSnapshot},
    states::{BreakerState, Effective, OperatorState, Panic, ProbeState},
    time::{Instant, Millis},
};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const INTERVAL: u64 = 1000;

#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    /// For the backend at that place, modulo their number.
    Statuses(usize, u16, usize),
    Probe(usize, bool),
    Lose(usize, u64),
    /// The results of the next writes, in order.
    Script(Vec<bool>),
    Slow(bool),
    Answer,
    /// The configured ones of the five backends.
    Members(u8),
    Policy(Box<Breaker>),
    Operate(usize, Verb, Option<u64>, bool),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1u64..2500).prop_map(Act::Wait),
        8 => (0usize..5, prop_oneof![3 => Just(500u16), 2 => Just(200)], 1usize..5)
            .prop_map(|(backend, status, times)| Act::Statuses(backend, status, times)),
        3 => (0usize..5, any::<bool>()).prop_map(|(backend, passes)| Act::Probe(backend, passes)),
        1 => (0usize..5, 0u64..3).prop_map(|(backend, lost)| Act::Lose(backend, lost)),
        1 => prop::collection::vec(any::<bool>(), 1..6).prop_map(Act::Script),
        1 => any::<bool>().prop_map(Act::Slow),
        2 => Just(Act::Answer),
        1 => (1u8..32).prop_map(Act::Members),
        1 => policy().prop_map(|policy| Act::Policy(Box::new(policy))),
        1 => (0usize..5, verb(), prop::option::of(1u64..3000), any::<bool>())
            .prop_map(|(backend, verb, ms, force)| Act::Operate(backend, verb, ms, force)),
    ]
}

fn verb() -> impl Strategy<Value = Verb> {
    prop_oneof![
        Just(Verb::Enable),
        Just(Verb::Disable),
        Just(Verb::Drain),
        Just(Verb::Eject),
        Just(Verb::Admit),
        any::<u16>().prop_map(|weight| Verb::Weight(NonZeroU16::new(weight))),
    ]
}

fn policy() -> impl Strategy<Value = Breaker> {
    let limits = (0u8..=100, any::<bool>(), 0u32..3, prop::bool::weighted(0.9), any::<bool>());
    let times =
        (1u64..4000, 0u64..500, 0u32..4, 1u32..5, 0u64..2500, any::<bool>(), any::<bool>(), 0u64..3000);
    (limits, times).prop_map(
        |(
            (percent, always, min_serving, enforce, time),
            (base, jitter, trials, successes, timeout, readmits, waits, slow_start),
        )| {
            Breaker {
                enforce,
                consecutive_5xx: 3,
                interval: Millis(INTERVAL),
                base_ejection_time: Millis(base),
                max_ejection_time: Millis(base * 3),
                max_ejection_time_jitter: Millis(jitter),
                max_ejection_percent: percent,
                always_eject_one: always,
                min_serving,
                half_open_trials: trials,
                half_open_successes: successes,
                half_open_timeout: Millis(timeout),
                half_open_exit: if waits { HalfOpenExit::Wait } else { HalfOpenExit::Close },
                slow_start: Millis(slow_start),
                probe_readmits: readmits,
                backoff_decay: if time { BackoffDecay::Time } else { BackoffDecay::Evidence },
                ..Breaker::default()
            }
        },
    )
}

#[derive(Clone, Debug)]
struct History {
    policy: Breaker,
    probed: bool,
    no_backend: NoBackend,
    connections: Connections,
    acts: Vec<Act>,
}

fn history() -> impl Strategy<Value = History> {
    let no_backend = prop_oneof![Just(NoBackend::Reset), Just(NoBackend::Drop), Just(NoBackend::Any)];
    let on_eject = prop_oneof![Just(OnOut::Drain), Just(OnOut::Reset)];
    let on_drain = prop_oneof![Just(OnOut::Drain), Just(OnOut::Reset)];
    let connections = (on_eject, on_drain, 0u64..4000).prop_map(|(on_eject, on_drain, drain)| Connections {
        on_eject,
        on_drain,
        drain_timeout: Millis(drain),
        ..Connections::default()
    });
    (policy(), any::<bool>(), no_backend, connections, prop::collection::vec(act(), 1..120)).prop_map(
        |(policy, probed, no_backend, connections, acts)| History {
            policy,
            probed,
            no_backend,
            connections,
            acts,
        },
    )
}

/// A history that is being played.
struct Play {
    lab: Lab,
    service: config::Service,
    /// The number of events that are in `states`.
    folded: usize,
    states: BTreeMap<String, String>,
    /// The largest budget that any policy so far allows.
    trial_max: u32,
    /// The backends that get no new connections, and since when.
    out: BTreeMap<BackendId, u64>,
}

impl Play {
    fn new(history: &History) -> Self {
        let mut service = web(&NAMES);
        service.breaker = history.policy.clone();
        service.no_backend = history.no_backend;
        service.connections = history.connections;
        service.probe = history.probed.then(probe);
        let trial_max = service.breaker.half_open_trials;
        let lab = Lab::new(vec![service.clone()]);
        Self { lab, service, folded: 0, states: BTreeMap::new(), trial_max, out: BTreeMap::new() }
    }

    fn name(&self, place: usize) -> String {
        self.service.backends[place % self.service.backends.len()].name.clone()
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Wait(ms) => self.wait(*ms),
            Act::Statuses(place, status, times) => {
                let name = self.name(*place);
                for _ in 0..*times {
                    self.guarded(|lab| lab.status(&name, *status));
                }
            }
            Act::Probe(place, passes) => {
                let name = self.name(*place);
                self.guarded(|lab| lab.probe(&name, *passes));
            }
            Act::Lose(place, lost) => {
                let name = self.name(*place);
                self.guarded(|lab| lab.lose(&name, *lost));
            }
            Act::Script(fates) => self.lab.script.extend(fates),
            Act::Slow(slow) => {
                self.lab.slow = *slow;
                if !slow {
                    self.answer_all();
                }
            }
            Act::Answer => {
                if !self.lab.waiting.is_empty() {
                    self.lab.answer();
                }
            }
            Act::Members(mask) => {
                let all = web(&NAMES).backends.into_iter().enumerate();
                self.service.backends =
                    all.filter(|(place, _)| mask & (1 << place) != 0).map(|(_, backend)| backend).collect();
                self.lab.reload(vec![self.service.clone()]);
            }
            Act::Policy(policy) => {
                self.service.breaker = (**policy).clone();
                // A budget decided under the former policy may still be written.
                self.trial_max = self.trial_max.max(policy.half_open_trials);
                self.lab.reload(vec![self.service.clone()]);
            }
            Act::Operate(place, verb, ms, force) => {
                let order = self.order(*place, *verb, *ms, *force);
                self.operate(&order);
            }
        }
        self.follow();
        self.check();
    }

    /// Notes which backends get no new connections, and checks that no other one has its connections reset.
    fn follow(&mut self) {
        let (service, now) = (self.now(), self.lab.now.0);
        let out = |backend: &&BackendSnapshot| !takes(&service, backend);
        let before = std::mem::take(&mut self.out);
        let since = |backend: &BackendSnapshot| before.get(&backend.id).copied().unwrap_or(now);
        self.out = service.backends.iter().filter(out).map(|backend| (backend.id, since(backend))).collect();
        for backend in &service.backends {
            let flow_reset = backend.drain.map(|drain| drain.flow_reset).unwrap_or_default();
            self.check_flow_reset(backend, flow_reset);
        }
    }

    fn check_flow_reset(&self, backend: &BackendSnapshot, flow_reset: FlowReset) {
        let Connections { on_eject, on_drain, drain_timeout, .. } = self.service.connections;
        let has_failed = backend.breaker == BreakerState::Open || backend.probe == ProbeState::Down;
        match (self.out.get(&backend.id), if has_failed { on_eject } else { on_drain }, flow_reset) {
            (None, OnOut::Drain | OnOut::Reset, reset) => {
                assert_eq!(reset, FlowReset::Never, "{backend:?}")
            }
            (Some(since), _, FlowReset::Now) => {
                assert!(self.lab.now.0 >= since + drain_timeout.0, "{backend:?}")
            }
            (Some(_), OnOut::Drain, reset) => assert_eq!(reset, FlowReset::Never, "{backend:?}"),
            (Some(_), OnOut::Reset, reset) => assert_eq!(reset, FlowReset::AtRequest, "{backend:?}"),
        }
    }

    fn order(&self, place: usize, verb: Verb, ms: Option<u64>, force: bool) -> Operation {
        let (service, backend, actor) = ("web".to_owned(), self.name(place), "alice".to_owned());
        Operation { service, backend, verb, duration: ms.map(Millis), reason: None, actor, force }
    }

    /// Without force an operator takes no backend from a service that is at its floor.
    fn operate(&mut self, order: &Operation) {
        let before = serving(&self.now());
        let done = self.lab.operate(order);
        let after = serving(&self.now());
        let min = self.service.breaker.min_serving as usize;
        match done {
            Ok(()) => {
                // If a proven backend comes back, several unproven ones may stop serving.
                let takes_out = matches!(order.verb, Verb::Disable | Verb::Drain | Verb::Eject);
                let kept = !takes_out || order.force || after >= before.min(min);
                assert!(kept, "{order:?}: {before} to {after}");
            }
            Err(Refused::Floor { .. }) => assert!(!order.force && before == after),
            Err(refused @ (Refused::NoService { .. } | Refused::NoBackend { .. })) => panic!("{refused}"),
        }
    }

    /// One deadline at a time.
    fn wait(&mut self, ms: u64) {
        let end = self.lab.now.0 + ms;
        while let Some(due) = self.lab.engine.next_deadline().filter(|due| due.0 <= end) {
            self.guarded(|lab| lab.until(due.0.max(lab.now.0)));
        }
        self.lab.until(end);
    }

    fn answer_all(&mut self) {
        while !self.lab.waiting.is_empty() {
            self.lab.answer();
        }
    }

    fn now(&self) -> ServiceSnapshot {
        self.lab.service()
    }

    /// Plays one act, and checks the ejections that it caused.
    fn guarded(&mut self, act: impl FnOnce(&mut Lab)) {
        let before = self.now();
        act(&mut self.lab);
        self.follow();
        let after = self.now();
        let was = |id: BackendId| {
            before.backends.iter().find(|backend| backend.id == id).map(|backend| backend.breaker)
        };
        let ejected = after.backends.iter().any(|backend| {
            backend.breaker == BreakerState::Open && was(backend.id) == Some(BreakerState::Closed)
        });
        if !ejected {
            return;
        }
        let out = after.backends.iter().filter(|backend| backend.breaker != BreakerState::Closed).count();
        let policy = &self.service.breaker;
        let ceiling = 100 * out <= usize::from(policy.max_ejection_percent) * after.backends.len();
        assert!(ceiling || (out == 1 && policy.always_eject_one), "above the ceiling: {after:?}");
        assert!(policy.enforce);
        assert!(serving(&after) >= policy.min_serving as usize, "below the floor: {after:?}");
    }

    /// Checks the rules that hold at every moment.
    fn check(&self) {
        let service = self.now();
        for backend in &service.backends {
            assert_eq!(backend.until_ms.is_some(), backend.breaker == BreakerState::Open, "an end");
            let derived = Effective::of(backend.operator, backend.path, backend.probe, backend.breaker);
            assert_eq!(backend.effective, derived);
            assert!(backend.reason.is_some() || backend.effective == Effective::Serving);
        }
        self.check_budgets();
        let seqs = self.lab.events.iter().enumerate();
        assert!(seqs.into_iter().all(|(index, event)| event.seq == index as u64 + 1));
    }

    /// Never more than the trials of one sweep between two sweeps.
    fn check_budgets(&self) {
        let mut given: BTreeMap<(u64, BackendId), u32> = BTreeMap::new();
        for (at, step) in &self.lab.written {
            if let Step::Budget { id, tokens } = step {
                *given.entry((at.0 / INTERVAL, *id)).or_default() += tokens;
            }
        }
        assert!(given.values().all(|tokens| *tokens <= self.trial_max), "{given:?}");
    }

    /// From here on all writes hold. The maps agree with the decisions a little later.
    fn come_to_rest(&mut self) {
        self.lab.script.clear();
        self.lab.slow = false;
        self.answer_all();
        let mut waited = 0;
        while self.now().pending.is_some() {
            self.wait(100);
            waited += 100;
            assert!(waited <= 10_000, "{:?}", self.now());
        }
        // A removed backend leaves when its connections have ended.
        let leave = self.service.connections.drain_timeout.0 + 2000;
        self.wait(leave);
        assert_eq!(self.lab.engine.snapshot(self.lab.now).leaving, []);
    }

    /// The maps hold what follows from the axes, and the events lead to the present states.
    fn check_at_rest(&mut self) {
        let service = self.now();
        let expected: Vec<&str> = table(&service).collect();
        let held = self.lab.table();
        assert_eq!(held.iter().map(String::as_str).collect::<Vec<_>>(), expected);
        let (_, trials) = self.lab.maps.services.values().next().expect("its VIP");
        for backend in &service.backends {
            let admit = match backend.effective {
                _ if usable(&service, backend) => Admit::All,
                Effective::Serving => Admit::All,
                Effective::Trial => Admit::Trials,
                Effective::Draining
                | Effective::Ejected
                | Effective::Down
                | Effective::Unreachable
                | Effective::Disabled => Admit::None,
            };
            let held = &self.lab.maps.backends[&backend.id];
            assert_eq!(held.admit, admit, "{backend:?}");
            self.check_flow_reset(backend, held.flow_reset);
            assert!(!trials.contains(&backend.id) || backend.effective == Effective::Trial);
        }
        assert_eq!(self.lab.maps.backends.len(), service.backends.len(), "nothing is left behind");

        for event in &self.lab.events[self.folded..] {
            let Some(name) = &event.backend else { continue };
            match event.kind {
                EventKind::Membership if event.reason == "added" => {
                    assert_eq!(self.states.insert(name.clone(), "closed".to_owned()), None);
                }
                EventKind::Membership => assert!(self.states.remove(name).is_some()),
                EventKind::Eject if !event.enforced => {}
                EventKind::Eject | EventKind::Trial | EventKind::Readmit => {
                    let former = self.states.insert(name.clone(), event.to.clone());
                    assert_eq!(former.as_ref(), Some(&event.from), "{event:?}");
                }
                EventKind::Refused
                | EventKind::Suspected
                | EventKind::Probe
                | EventKind::Path
                | EventKind::Operator
                | EventKind::Weight
                | EventKind::Fallback
                | EventKind::Panic
                | EventKind::Drained
                | EventKind::Dataplane
                | EventKind::Interface
                | EventKind::Discovery
                | EventKind::Limit => {}
            }
        }
        self.folded = self.lab.events.len();
        let states: BTreeMap<String, String> = service
            .backends
            .iter()
            .map(|backend| (backend.name.clone(), backend.breaker.to_string()))
            .collect();
        assert_eq!(self.states, states);
    }
}

/// The backends that the table gives connections to, without panic. Written from the rule, not from the engine.
fn table(service: &ServiceSnapshot) -> impl Iterator<Item = &str> {
    let healthy = |state| {
        move |backend: &&BackendSnapshot| {
            (backend.breaker, backend.probe) == (BreakerState::Closed, state)
                && backend.operator == OperatorState::Enabled
        }
    };
    let of = move |state| service.backends.iter().filter(healthy(state));
    let best = [ProbeState::Up, ProbeState::None, ProbeState::Unknown]
        .into_iter()
        .find(|state| of(*state).count() > 0);
    let chosen: Vec<&str> = match best {
        Some(state) => of(state).map(|backend| backend.name.as_str()).collect(),
        None if service.panic.is_some() => service
            .backends
            .iter()
            .filter(|backend| usable(service, backend))
            .map(|backend| backend.name.as_str())
            .collect(),
        None => Vec::new(),
    };
    chosen.into_iter()
}

/// Whether a backend may get new connections, whether or not the table contains it now.
fn takes(service: &ServiceSnapshot, backend: &BackendSnapshot) -> bool {
    match backend.effective {
        _ if usable(service, backend) => true,
        Effective::Serving | Effective::Trial => true,
        Effective::Draining
        | Effective::Ejected
        | Effective::Down
        | Effective::Unreachable
        | Effective::Disabled => false,
    }
}

/// Whether a panic uses a backend.
fn usable(service: &ServiceSnapshot, backend: &BackendSnapshot) -> bool {
    match service.panic {
        Some(Panic::ProbesFail) => {
            backend.operator == OperatorState::Enabled && backend.breaker == BreakerState::Closed
        }
        Some(Panic::NobodyServes | Panic::FewServe) => {
            backend.probe != ProbeState::Down && backend.operator != OperatorState::Disabled
        }
        None => false,
    }
}

fn serving(service: &ServiceSnapshot) -> usize {
    if service.panic.is_some() { 0 } else { table(service).count() }
}

fn play(history: &History) -> Play {
    let mut play = Play::new(history);
    for act in &history.acts {
        play.act(act);
    }
    play
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn rules_hold_in_every_history(history in history()) {
        let mut play = play(&history);
        play.come_to_rest();
        play.check_at_rest();
    }

    #[test]
    fn left_alone_everything_returns(history in history()) {
        let mut play = play(&history);
        play.come_to_rest();
        let names: Vec<String> = play.service.backends.iter().map(|backend| backend.name.clone()).collect();
        for name in &names {
            for _ in 0..2 {
                play.lab.probe(name, true);
                play.follow();
            }
            let place = names.iter().position(|of| of == name).expect("its own");
            let enable = play.order(place, Verb::Enable, None, true);
            play.operate(&enable);
            // It may end a panic, and then others get no new connections from now on.
            play.follow();
        }
        // The longest ejection with its jitter, a sweep to open half, three empty ones, one of grace.
        play.wait(12_000 + 500 + 5 * INTERVAL);
        // A backend that waits for traffic gets some.
        for name in &names {
            play.lab.statuses(name, &[200; 5]);
        }
        play.check_at_rest();
        for name in &names {
            prop_assert_eq!(play.lab.backend(name).breaker, BreakerState::Closed);
        }
    }

    #[test]
    fn the_same_history_has_the_same_outcome(history in history()) {
        let (one, two) = (play(&history), play(&history));
        prop_assert_eq!(&one.lab.events, &two.lab.events);
        prop_assert_eq!(&one.lab.written, &two.lab.written);
        prop_assert_eq!(one.lab.engine.snapshot(Instant(u64::MAX)), two.lab.engine.snapshot(Instant(u64::MAX)));
    }
}
