//! Two hundred backends that flap every second, from every side at once, while map writes fail.

use std::{collections::BTreeMap, num::NonZeroU16};

use super::lab::{Lab, probe, web};
use crate::{
    codes::ProbeCode,
    config::{self, Breaker},
    event::{Event, EventKind},
    ids::{BackendId, Generation},
    io::{Admit, Input, Operation, Step, Verb},
    outcome::{Outcome, ProbeResult},
    random,
    snapshot::ServiceSnapshot,
    states::Effective,
    time::{Instant, Millis},
};

const BACKENDS: usize = 200;
const SECONDS: u64 = 60;
const INTERVAL: u64 = 1000;
const TRIALS: u32 = 2;
/// Percent that may be out.
const CEILING: usize = 40;
/// Backends that have to serve.
const FLOOR: usize = 30;

fn service() -> config::Service {
    let names: Vec<String> = (0..BACKENDS).map(|index| format!("b{index:03}")).collect();
    let mut service = web(&names.iter().map(String::as_str).collect::<Vec<_>>());
    service.probe = Some(probe());
    service.breaker = Breaker {
        consecutive_5xx: 3,
        error_rate_threshold: 60,
        error_rate_window: Millis(2000),
        interval: Millis(INTERVAL),
        base_ejection_time: Millis(500),
        max_ejection_time: Millis(1500),
        max_ejection_time_jitter: Millis(300),
        max_ejection_percent: CEILING as u8,
        min_serving: FLOOR as u32,
        half_open_trials: TRIALS,
        half_open_successes: TRIALS,
        half_open_timeout: Millis(INTERVAL),
        slow_start: Millis(800),
        ..Breaker::default()
    };
    service
}

/// Rises and falls with the numbers drawn: each second another half of the backends is sick.
fn sick(backend: usize, second: u64) -> bool {
    random::draw(second, backend as u64).is_multiple_of(2)
}

struct Storm {
    lab: Lab,
    /// The backends stay the same throughout.
    backends: Vec<(BackendId, Generation)>,
    drawn: u64,
    inputs: u64,
}

impl Storm {
    fn new() -> Self {
        let lab = Lab::new(vec![service()]);
        let backends = lab.service().backends.iter().map(|of| (of.id, of.generation)).collect();
        Self { lab, backends, drawn: 0, inputs: 0 }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.drawn += 1;
        random::draw(77, self.drawn) % below
    }

    fn send(&mut self, input: Input) {
        self.inputs += 1;
        self.lab.send(input);
    }

    fn second(&mut self, second: u64) {
        for step in 0..10 {
            self.lab.until(second * 1000 + step * 100);
            for (_, request) in std::mem::take(&mut self.lab.probes) {
                let passes = !sick(usize::from(request.backend.0), 1000 + second / 3);
                let result =
                    if passes { ProbeResult::Pass } else { ProbeResult::fail(ProbeCode::Timeout, "timeout") };
                let (backend, generation) = (request.backend, request.generation);
                self.send(Input::Probe { backend, generation, result });
            }
            for _ in 0..60 {
                let index = self.draw(BACKENDS as u64) as usize;
                let (backend, generation) = self.backends[index];
                let outcome = Outcome::Status(if sick(index, second) { 503 } else { 200 });
                for _ in 0..3 {
                    self.send(Input::outcome(backend, generation, outcome));
                }
            }
            // Once a second a write fails in the middle of a plan, now and then four times in a row.
            let times = match second % 10 {
                9 => 4,
                // Longer than the retries take.
                0 | 1 => 0,
                _ => 1,
            };
            if step == 3 && times > 0 {
                self.lab.script = std::iter::once(false).chain(std::iter::repeat_n(true, times)).collect();
            }
            let (index, verb) = (self.draw(BACKENDS as u64) as usize, self.draw(6));
            self.inputs += 1;
            // A refusal has its event.
            let _ = self.lab.operate(&order(index, verb));
        }
    }
}

/// The states of the three axes by the events, and the limits at each ejection by the breaker.
#[derive(Default)]
struct Reported {
    breaker: BTreeMap<String, String>,
    probe: BTreeMap<String, String>,
    operator: BTreeMap<String, String>,
}

impl Reported {
    fn take(&mut self, event: &Event) {
        let Some(name) = event.backend.clone() else { return };
        let axis = match event.kind {
            EventKind::Eject | EventKind::Trial | EventKind::Readmit => &mut self.breaker,
            EventKind::Probe => &mut self.probe,
            EventKind::Operator => &mut self.operator,
            EventKind::Refused
            | EventKind::Suspected
            | EventKind::Path
            | EventKind::Weight
            | EventKind::Membership
            | EventKind::Fallback
            | EventKind::Panic
            | EventKind::Drained
            | EventKind::Dataplane
            | EventKind::Interface
            | EventKind::Discovery
            | EventKind::Limit => return,
        };
        let before = axis.insert(name, event.to.clone());
        assert!(before.is_none_or(|before| before == event.from), "{event:?}");
        if (event.kind, event.from.as_str(), event.actor.as_str()) == (EventKind::Eject, "closed", "breaker")
        {
            let out = self.breaker.values().filter(|state| *state != "closed").count();
            assert!(100 * out <= CEILING * BACKENDS, "{out} are out: {event:?}");
            assert!(self.serving() >= FLOOR, "below the floor: {event:?}");
        }
    }

    fn serving(&self) -> usize {
        let is = |axis: &BTreeMap<String, String>, name: &str, state: &str, first: &str| {
            axis.get(name).map_or(first, String::as_str) == state
        };
        let serves = |name: &String| {
            is(&self.breaker, name, "closed", "closed")
                && is(&self.probe, name, "up", "unknown")
                && is(&self.operator, name, "enabled", "enabled")
        };
        (0..BACKENDS).map(name).filter(serves).count()
    }
}

fn name(index: usize) -> String {
    format!("b{index:03}")
}

fn order(index: usize, verb: u64) -> Operation {
    let verb = match verb {
        0 => Verb::Enable,
        1 => Verb::Disable,
        2 => Verb::Drain,
        3 => Verb::Eject,
        4 => Verb::Admit,
        _ => Verb::Weight(NonZeroU16::new(50)),
    };
    let (service, backend, actor) = ("web".to_owned(), name(index), "alice".to_owned());
    let duration = Some(Millis(2500));
    Operation { service, backend, verb, duration, reason: None, actor, force: false }
}

fn serving(service: &ServiceSnapshot) -> usize {
    service.backends.iter().filter(|backend| backend.effective == Effective::Serving).count()
}

#[test]
fn two_hundred_flapping_backends_break_no_rule_and_lose_no_write() {
    let mut storm = Storm::new();
    for second in 0..SECONDS {
        storm.second(second);
    }
    let Storm { mut lab, inputs, .. } = storm;
    lab.script.clear();
    lab.until((SECONDS + 6) * 1000);

    let count = |kind| lab.events.iter().filter(|event| event.kind == kind).count();
    assert!(inputs > 100_000, "{inputs}");
    for (kind, least) in [
        (EventKind::Eject, 1000),
        (EventKind::Trial, 100),
        (EventKind::Readmit, 100),
        (EventKind::Refused, 100),
        (EventKind::Probe, 500),
        (EventKind::Operator, 100),
        (EventKind::Weight, 100),
        (EventKind::Dataplane, 50),
    ] {
        assert!(count(kind) >= least, "{kind}: {}", count(kind));
    }

    // Every wanted write holds: the maps agree with the states.
    let service = lab.service();
    assert_eq!(service.pending, None);
    assert_eq!(lab.table().len(), serving(&service));
    for backend in &service.backends {
        let admit = match backend.effective {
            Effective::Serving => Admit::All,
            Effective::Trial => Admit::Trials,
            Effective::Draining
            | Effective::Ejected
            | Effective::Down
            | Effective::Unreachable
            | Effective::Disabled => Admit::None,
        };
        assert_eq!(lab.maps.backends[&backend.id].admit, admit, "{backend:?}");
    }
    // The events lead to the present states, and kept to the limits on the way.
    let mut reported = Reported::default();
    for (event, seq) in lab.events.iter().zip(1..) {
        assert_eq!(event.seq, seq);
        reported.take(event);
    }
    for backend in &service.backends {
        let breaker = reported.breaker.get(&backend.name).map_or("closed", String::as_str);
        let probe = reported.probe.get(&backend.name).map_or("unknown", String::as_str);
        let operator = reported.operator.get(&backend.name).map_or("enabled", String::as_str);
        let is = (backend.breaker.to_string(), backend.probe.to_string(), backend.operator.to_string());
        assert_eq!((breaker, probe, operator), (&*is.0, &*is.1, &*is.2), "{}", backend.name);
    }
    check_budgets(&lab.written);
}

/// Never more than the trials of one sweep between two sweeps.
fn check_budgets(written: &[(Instant, Step)]) {
    let mut given = BTreeMap::new();
    for (at, step) in written {
        if let Step::Budget { id, tokens } = step {
            *given.entry((at.0 / INTERVAL, *id)).or_insert(0) += tokens;
        }
    }
    assert!(!given.is_empty() && given.values().all(|tokens| *tokens <= TRIALS));
}
