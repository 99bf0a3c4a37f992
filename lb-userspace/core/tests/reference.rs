//! A second breaker, written from the rules alone and as plainly as they are, run
//! beside the engine over random histories. Whatever is cheap in the engine is
//! counted afresh here: it keeps every outcome and looks at them all.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use lb_core::{
    Engine, Settings,
    config::{self, BackoffDecay, Breaker, Config, HalfOpenExit, Mode, NoBackend},
    event::{Event, EventKind},
    io::{Input, L4Failure, Operation, Outcome, Output, Verb},
    snapshot::{BackendSnapshot, BreakerState},
    time::{Instant, Millis},
};
use proptest::prelude::*;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

#[derive(Clone, Copy, PartialEq)]
enum At {
    In,
    Out { until: u64 },
    Half { good: u32, empty: u32 },
}

#[derive(Clone)]
struct Peer {
    at: At,
    enabled: bool,
    seat: bool,
    since: u64,
    number: u64,
    gateway: u32,
    run: u32,
    l4: u32,
    /// Since the sweep or the last change: (is L4 and split, is a failure).
    interval: Vec<(bool, bool)>,
    detections: u32,
    /// For the error rate: (when, is a failure).
    ring: Vec<(u64, bool)>,
}

struct Reference {
    policy: Breaker,
    now: u64,
    sweep: u64,
    peers: BTreeMap<&'static str, Peer>,
    said: Vec<(EventKind, String, String)>,
    /// A success rate was so near its threshold that floating point may not say.
    close_call: bool,
}

impl Reference {
    fn add(&mut self, name: &'static str) {
        let (at, since) = (At::In, self.now);
        let (interval, ring) = (Vec::new(), Vec::new());
        let peer = Peer {
            at,
            enabled: true,
            seat: false,
            since,
            number: 0,
            gateway: 0,
            run: 0,
            l4: 0,
            interval,
            detections: 0,
            ring,
        };
        self.peers.insert(name, peer);
    }

    fn say(&mut self, kind: EventKind, name: &str, reason: &str) {
        self.said.push((kind, name.to_owned(), reason.to_owned()));
    }

    fn turn(&mut self, name: &str, kind: EventKind, at: At, reason: &str) {
        let now = self.now;
        let peer = self.peers.get_mut(name).expect("known");
        (peer.at, peer.since, peer.detections) = (at, now, 0);
        peer.interval.clear();
        if at == At::In {
            (peer.gateway, peer.run, peer.l4) = (0, 0, 0);
            peer.ring.clear();
        }
        self.say(kind, name, reason);
    }

    fn open(&mut self, name: &str, reason: &str) {
        let (base, max) = (self.policy.base_ejection_time.0, self.policy.max_ejection_time.0);
        let peer = self.peers.get_mut(name).expect("known");
        if peer.number * base < max + base {
            peer.number += 1;
        }
        let until = self.now + (peer.number * base).min(max);
        self.turn(name, EventKind::Eject, At::Out { until }, reason);
    }

    fn detected(&mut self, name: &str, reason: &str) {
        if self.peers[name].at != At::In {
            return;
        }
        self.peers.get_mut(name).expect("known").detections += 1;
        let all = self.peers.len();
        let out = self.peers.values().filter(|peer| peer.at != At::In).count();
        let serves = |(of, peer): &(&&str, &Peer)| peer.at == At::In && peer.enabled && **of != name;
        let left = self.peers.iter().filter(serves).count();
        let one = out == 0 && self.policy.always_eject_one;
        if 100 * (out + 1) > usize::from(self.policy.max_ejection_percent) * all && !one {
            self.say(EventKind::Refused, name, "ceiling");
        } else if left < self.policy.min_serving as usize {
            self.say(EventKind::Refused, name, "floor");
        } else {
            self.open(name, reason);
        }
    }

    fn outcome(&mut self, name: &'static str, status: u16, l4: bool) {
        let (policy, now) = (self.policy.clone(), self.now);
        let peer = self.peers.get_mut(name).expect("known");
        let split = l4 && policy.split_l4_failures;
        let failure = l4 || (500..600).contains(&status);
        peer.interval.push((split, failure));
        match peer.at {
            At::Out { .. } => return,
            At::Half { .. } if failure => return self.open(name, "half_open_failure"),
            At::Half { good, empty } => {
                peer.at = At::Half { good: good + 1, empty };
                if good + 1 >= policy.half_open_successes {
                    self.turn(name, EventKind::Readmit, At::In, "half_open_successes");
                }
                return;
            }
            At::In => {}
        }
        let mut found = Vec::new();
        let reached = |run: &mut u32, threshold: u32| {
            let reached = threshold > 0 && *run >= threshold;
            *run *= u32::from(!reached);
            reached
        };
        if split {
            peer.l4 += 1;
            found.extend(
                reached(&mut peer.l4, policy.consecutive_l4_failure).then_some("consecutive_l4_failure"),
            );
        } else {
            peer.l4 = 0;
            peer.gateway = if (502..=504).contains(&status) { peer.gateway + 1 } else { 0 };
            let gateway = reached(&mut peer.gateway, policy.consecutive_gateway_failure);
            found.extend(gateway.then_some("consecutive_gateway_failure"));
            peer.run = if failure { peer.run + 1 } else { 0 };
            found.extend(reached(&mut peer.run, policy.consecutive_5xx).then_some("consecutive_5xx"));
            peer.ring.push((now, failure));
            let bucket = |at: u64| at * 10 / policy.error_rate_window.0;
            peer.ring.retain(|(at, _)| bucket(now) - bucket(*at) < 10);
            let (total, bad) = (peer.ring.len(), peer.ring.iter().filter(|(_, bad)| *bad).count());
            let enough = policy.error_rate_threshold > 0 && total >= policy.error_rate_min_responses as usize;
            if enough && 100 * bad >= usize::from(policy.error_rate_threshold) * total {
                peer.ring.clear();
                found.push("error_rate");
            }
        }
        found.into_iter().for_each(|reason| self.detected(name, reason));
    }

    fn swept(&mut self) {
        let policy = self.policy.clone();
        let names: Vec<&str> = self.peers.keys().copied().collect();
        let inside: Vec<&str> = names.iter().copied().filter(|name| self.peers[name].at == At::In).collect();
        for name in names.iter().copied().filter(|name| !inside.contains(name)) {
            let peer = self.peers.get_mut(name).expect("known");
            match peer.at {
                At::In => {}
                At::Out { until } if self.now < until => {}
                At::Out { .. } if policy.half_open_trials == 0 => {
                    self.turn(name, EventKind::Readmit, At::In, "ejection_time_over");
                }
                At::Out { .. } => {
                    self.turn(name, EventKind::Trial, At::Half { good: 0, empty: 0 }, "ejection_time_over");
                }
                At::Half { good, empty } => {
                    let empty = if !peer.interval.is_empty() {
                        0
                    } else {
                        empty + u32::from(peer.seat && peer.enabled)
                    };
                    peer.at = At::Half { good, empty };
                    if empty >= 3 && policy.half_open_exit == HalfOpenExit::Close {
                        self.turn(name, EventKind::Readmit, At::In, "no_traffic");
                    }
                }
            }
        }
        // Per backend: all and good, of responses and of connects.
        let score = |peer: &Peer, l4: bool| -> (u32, u32) {
            let of = peer.interval.iter().filter(|(split, _)| l4 || !split);
            let all = of.clone().count() as u32;
            (all, of.filter(|(split, failure)| if l4 { !split } else { !failure }).count() as u32)
        };
        let scores = [false, true].map(|l4| -> Vec<_> {
            inside.iter().map(|name| (*name, score(&self.peers[name], l4))).collect()
        });
        for (l4, scores) in [false, true].into_iter().zip(scores) {
            if l4 && !policy.split_l4_failures {
                continue;
            }
            let at_least = |least: u32| -> Vec<(&str, f64)> {
                let enough = scores.iter().filter(|(_, (all, _))| *all > 0 && *all >= least);
                enough.map(|(name, (all, good))| (*name, f64::from(*good) / f64::from(*all))).collect()
            };
            let suffix = if l4 { "_l4" } else { "" };
            let rates = at_least(policy.success_rate_min_responses);
            if policy.success_rate_stdev_factor > 0
                && rates.len() >= policy.success_rate_min_backends as usize
            {
                let count = rates.len() as f64;
                let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
                let stdev = (rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count).sqrt();
                let threshold = mean - f64::from(policy.success_rate_stdev_factor) / 1000.0 * stdev;
                for (name, rate) in rates {
                    self.close_call |= stdev > 1e-9 && (rate - threshold).abs() < 1e-6;
                    if rate < threshold - 1e-6 {
                        self.detected(name, &format!("success_rate{suffix}"));
                    }
                }
            }
            let rates = at_least(policy.failure_percentage_min_responses);
            let percent = f64::from(policy.failure_percentage_threshold);
            if percent > 0.0 && rates.len() >= policy.failure_percentage_min_backends as usize {
                for (name, rate) in rates {
                    if 100.0 - 100.0 * rate >= percent - 1e-9 {
                        self.detected(name, &format!("failure_percentage{suffix}"));
                    }
                }
            }
        }
        for name in inside {
            let peer = self.peers.get_mut(name).expect("known");
            let half = policy.interval.0 - policy.interval.0 / 2;
            let responses = peer.interval.iter().any(|(split, _)| !split);
            let earned = policy.backoff_decay == BackoffDecay::Time || (responses && peer.detections == 0);
            if peer.at == At::In && self.now - peer.since >= half && earned {
                peer.number = peer.number.saturating_sub(1);
            }
        }
        for peer in self.peers.values_mut() {
            (peer.interval, peer.detections) = (Vec::new(), 0);
            peer.seat = matches!(peer.at, At::Half { .. }) && peer.enabled;
        }
    }

    fn until(&mut self, t: u64) {
        while self.sweep <= t {
            self.now = self.sweep;
            self.sweep += self.policy.interval.0;
            self.swept();
        }
        self.now = t;
    }
}

#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    Outcomes(usize, Kind, usize),
    Operate(usize, Verb),
    /// Which of the five are there.
    Members(u8),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Status(u16),
    L4(L4Failure),
    Opaque,
}

fn act() -> impl Strategy<Value = Act> {
    let status = prop_oneof![4 => Just(200u16), 2 => Just(500), 2 => Just(503), 1 => Just(404)];
    let l4 = prop_oneof![Just(L4Failure::Reset), Just(L4Failure::ConnectTimeout)];
    let kind =
        prop_oneof![8 => status.prop_map(Kind::Status), 2 => l4.prop_map(Kind::L4), 1 => Just(Kind::Opaque)];
    let verb = prop_oneof![
        Just(Verb::Enable),
        Just(Verb::Disable),
        Just(Verb::Drain),
        Just(Verb::Eject),
        Just(Verb::Admit)
    ];
    prop_oneof![
        6 => (1u64..2500).prop_map(Act::Wait),
        12 => (0usize..5, kind, 1usize..12).prop_map(|(place, kind, times)| Act::Outcomes(place, kind, times)),
        1 => (0usize..5, verb).prop_map(|(place, verb)| Act::Operate(place, verb)),
        1 => (1u8..32).prop_map(Act::Members),
    ]
}

fn policy() -> impl Strategy<Value = Breaker> {
    let runs = (0u32..6, 0u32..5, 0u32..4, any::<bool>());
    let rates = (
        prop_oneof![Just(0u32), 500u32..2500],
        prop_oneof![Just(0u8), 10u8..90],
        prop_oneof![Just(0u8), 10u8..90],
    );
    let limits = (0u8..=100, any::<bool>(), 0u32..3);
    let times = (1u64..4000, 0u32..4, 1u32..5, any::<bool>(), any::<bool>());
    (runs, rates, limits, times).prop_map(
        |(
            (run, gateway, l4, split),
            (factor, percent, error),
            (ceiling, one, floor),
            (base, trials, good, time, close),
        )| {
            Breaker {
                consecutive_5xx: run,
                consecutive_gateway_failure: gateway,
                consecutive_l4_failure: l4,
                split_l4_failures: split,
                success_rate_stdev_factor: factor,
                success_rate_min_responses: 5,
                success_rate_min_backends: 2,
                failure_percentage_threshold: percent,
                failure_percentage_min_responses: 7,
                failure_percentage_min_backends: 2,
                error_rate_threshold: error,
                error_rate_window: Millis(3000),
                error_rate_min_responses: 8,
                interval: Millis(1000),
                base_ejection_time: Millis(base),
                max_ejection_time: Millis(base * 3),
                max_ejection_percent: ceiling,
                always_eject_one: one,
                min_serving: floor,
                half_open_trials: trials,
                half_open_successes: good,
                half_open_timeout: Millis(1000),
                half_open_exit: if close { HalfOpenExit::Close } else { HalfOpenExit::Wait },
                backoff_decay: if time { BackoffDecay::Time } else { BackoffDecay::Evidence },
                ..Breaker::default()
            }
        },
    )
}

/// The engine with maps that always hold.
struct Real {
    engine: Engine,
    said: Vec<(EventKind, String, String)>,
}

impl Real {
    fn send(&mut self, input: Input, now: u64) {
        self.engine.handle(input, Instant(now));
        self.drain(now);
    }

    fn drain(&mut self, now: u64) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Dataplane(plan) => {
                    self.engine.handle(Input::Applied { plan: plan.id, result: Ok(()) }, Instant(now));
                }
                Output::Event(event) => self.hear(*event),
                Output::Probe(_) => unreachable!("no probe is configured"),
            }
        }
    }

    fn hear(&mut self, event: Event) {
        if let EventKind::Eject | EventKind::Trial | EventKind::Readmit | EventKind::Refused = event.kind {
            self.said.push((event.kind, event.backend.expect("of one"), event.reason));
        }
    }

    fn configure(&mut self, policy: &Breaker, members: u8, now: u64) {
        let all = NAMES.iter().enumerate().filter(|(place, _)| members & (1 << place) != 0);
        let backends = all
            .map(|(place, name)| config::Backend {
                name: (*name).to_owned(),
                address: SocketAddr::from(([10, 0, 0, place as u8 + 1], 80)),
                weight: 100,
            })
            .collect();
        let service = config::Service {
            name: "web".to_owned(),
            vip: "203.0.113.10:80".parse().expect("literal"),
            mode: Mode::Nat,
            no_backend: NoBackend::Reset,
            evidence: true,
            backends,
            probe: None,
            breaker: policy.clone(),
        };
        self.send(Input::Config(Arc::new(Config { services: vec![service] })), now);
    }

    fn backends(&self, now: u64) -> Vec<BackendSnapshot> {
        self.engine.snapshot(Instant(now)).services.remove(0).backends
    }
}

fn order(name: &str, verb: Verb) -> Operation {
    let (service, backend, actor) = ("web".to_owned(), name.to_owned(), "alice".to_owned());
    Operation { service, backend, verb, duration: None, reason: None, actor, force: true }
}

proptest! {
    // A failing history is printed whole; it is kept by making a test of it.
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_decides_what_the_rules_say(policy in policy(), acts in prop::collection::vec(act(), 1..150)) {
        let mut real = Real { engine: Engine::new(Settings::default(), Instant(0)), said: Vec::new() };
        real.configure(&policy, 31, 0);
        let sweep = policy.interval.0;
        let mut plain = Reference { policy, now: 0, sweep, peers: BTreeMap::new(), said: Vec::new(), close_call: false };
        NAMES.iter().for_each(|name| plain.add(name));

        for act in acts {
            let present: Vec<&'static str> = plain.peers.keys().copied().collect();
            match act {
                Act::Wait(ms) => {
                    let end = plain.now + ms;
                    plain.until(end);
                    while let Some(due) = real.engine.next_deadline().filter(|due| due.0 <= end) {
                        real.send(Input::Tick, due.0);
                    }
                    real.send(Input::Tick, end);
                }
                Act::Outcomes(place, kind, times) => {
                    let name = present[place % present.len()];
                    for _ in 0..times {
                        let of = real.backends(plain.now).into_iter().find(|of| of.name == name).expect("there");
                        let outcome = match kind {
                            Kind::Status(status) => Outcome::Status(status),
                            Kind::L4(failure) => Outcome::Failure(failure),
                            Kind::Opaque => Outcome::Opaque,
                        };
                        let (backend, generation) = (of.id, of.generation);
                        real.send(Input::Outcome { backend, generation, outcome, ttfb: None, client: None }, plain.now);
                        match kind {
                            Kind::Status(status) => plain.outcome(name, status, false),
                            Kind::L4(_) => plain.outcome(name, 503, true),
                            Kind::Opaque => {}
                        }
                    }
                }
                Act::Operate(place, verb) => {
                    let name = present[place % present.len()];
                    real.send(Input::Operator(order(name, verb)), plain.now);
                    match verb {
                        Verb::Enable => plain.peers.get_mut(name).expect("there").enabled = true,
                        Verb::Disable | Verb::Drain => plain.peers.get_mut(name).expect("there").enabled = false,
                        Verb::Eject => plain.open(name, "operator"),
                        Verb::Admit if plain.peers[name].at == At::In => {}
                        Verb::Admit => plain.turn(name, EventKind::Readmit, At::In, "operator"),
                        Verb::Weight(_) => {}
                    }
                }
                Act::Members(members) => {
                    real.configure(&plain.policy, members, plain.now);
                    for (place, name) in NAMES.iter().enumerate() {
                        match (members & (1 << place) != 0, plain.peers.contains_key(name)) {
                            (true, false) => plain.add(name),
                            (false, true) => drop(plain.peers.remove(name)),
                            (true, true) | (false, false) => {}
                        }
                    }
                }
            }
            if plain.close_call {
                return Ok(());
            }
            // A refusal is told at once, a change when the maps hold it.
            real.said.sort_by_key(|said| format!("{said:?}"));
            plain.said.sort_by_key(|said| format!("{said:?}"));
            prop_assert_eq!(&real.said, &plain.said);
            for backend in real.backends(plain.now) {
                let peer = &plain.peers[backend.name.as_str()];
                let (state, until) = match peer.at {
                    At::In => (BreakerState::Closed, None),
                    At::Out { until } => (BreakerState::Open, Some(Instant(until))),
                    At::Half { .. } => (BreakerState::HalfOpen, None),
                };
                prop_assert_eq!((backend.breaker, backend.until_ms), (state, until), "{}", backend.name);
                prop_assert_eq!(u64::from(backend.ejection), peer.number, "{}", backend.name);
                prop_assert_eq!((backend.run_5xx, backend.since_ms.0), (if peer.at == At::In { peer.run } else { backend.run_5xx }, peer.since));
            }
        }
    }
}
