use super::{
    detector::Witness,
    detector::{Detection, Sample, Shown, Tally},
    limits::{BackendCounts, Refusal, allow},
    *,
};
use crate::{config::Detector, event::Run};

fn policy() -> Policy {
    Policy { max_ejection_time_jitter: Millis(0), ..Policy::default() }
}

const GOOD: Signal = Signal::Good { readmits: true };
const SWEEP: Signal = Signal::Sweep { readmits: true, offered: true };

fn closed() -> Breaker {
    Breaker::new(1, Instant(0))
}

/// Until 30 s.
fn open() -> Breaker {
    let mut breaker = closed();
    breaker.on(Signal::Detected(Detector::Consecutive5xx), &policy(), Instant(0));
    breaker
}

/// Since 30 s.
fn half_open() -> Breaker {
    let mut breaker = open();
    breaker.on(SWEEP, &policy(), Instant(30_000));
    breaker
}

/// The whole table: the next state for each state and signal.
#[test]
fn every_pair_of_state_and_signal() {
    use BreakerState::{Closed, HalfOpen, Open};
    let detected = Signal::Detected(Detector::Consecutive5xx);
    let eject = Signal::Eject { time: None };
    let refused_sweep = Signal::Sweep { readmits: false, offered: true };
    let table = [
        (closed as fn() -> Breaker, eject, Open, Some("operator")),
        (open, eject, Open, Some("operator")),
        (half_open, eject, Open, Some("operator")),
        (closed, Signal::Unejected, Closed, None),
        (open, Signal::Unejected, HalfOpen, Some("probe_uneject")),
        (half_open, Signal::Unejected, HalfOpen, None),
        (closed, Signal::Admit, Closed, None),
        (open, Signal::Admit, Closed, Some("operator")),
        (half_open, Signal::Admit, Closed, Some("operator")),
        (closed, detected, Open, Some("consecutive_5xx")),
        (closed, GOOD, Closed, None),
        (closed, Signal::Bad, Closed, None),
        (closed, Signal::BadRefused, Closed, None),
        (closed, SWEEP, Closed, None),
        (open, detected, Open, None),
        (open, GOOD, Open, None),
        (open, Signal::Bad, Open, None),
        (open, Signal::BadRefused, Open, None),
        (open, SWEEP, HalfOpen, Some("ejection_time_over")),
        (open, refused_sweep, Open, None),
        (half_open, detected, HalfOpen, None),
        (half_open, GOOD, HalfOpen, None),
        (half_open, Signal::Bad, Open, Some("half_open_failure")),
        (half_open, Signal::BadRefused, HalfOpen, None),
        (half_open, SWEEP, HalfOpen, None),
        (half_open, refused_sweep, HalfOpen, None),
    ];
    for (state, signal, to, reason) in table {
        let mut breaker = state();
        let from = breaker.state();
        let change = breaker.on(signal, &policy(), Instant(30_000));
        assert_eq!(breaker.state(), to, "{from} on {signal:?}");
        assert_eq!(
            change.map(|change| (change.from, change.to, change.reason.as_str())),
            reason.map(|r| (from, to, r))
        );
    }
}

#[test]
fn an_open_one_waits_for_its_time_to_the_millisecond() {
    let mut breaker = open();
    assert_eq!(breaker.on(SWEEP, &policy(), Instant(29_999)), None);
    assert!(breaker.on(SWEEP, &policy(), Instant(30_000)).is_some());
}

#[test]
fn good_outcomes_count_in_a_row() {
    let mut breaker = half_open();
    for signal in [GOOD, GOOD, Signal::BadRefused, GOOD, GOOD] {
        assert_eq!(breaker.on(signal, &policy(), Instant(31_000)), None);
    }
    let change = breaker.on(GOOD, &policy(), Instant(31_000)).expect("three in a row");
    assert_eq!((change.kind, change.reason.as_str()), (EventKind::Readmit, "half_open_successes"));
}

#[test]
fn a_sweep_without_an_offer_is_not_empty() {
    let mut breaker = half_open();
    let unseated = Signal::Sweep { readmits: true, offered: false };
    for signal in [SWEEP, unseated, unseated, SWEEP, unseated] {
        assert_eq!(breaker.on(signal, &policy(), Instant(31_000)), None);
    }
    assert_eq!(
        breaker.on(SWEEP, &policy(), Instant(31_000)).map(|change| change.reason),
        Some(EventReason::NoTraffic)
    );
}

#[test]
fn the_time_saturates() {
    let policy = Policy {
        base_ejection_time: Millis(u64::MAX),
        max_ejection_time: Millis(u64::MAX),
        max_ejection_time_jitter: Millis(u64::MAX),
        ..policy()
    };
    let mut breaker = closed();
    breaker.on(Signal::Detected(Detector::Consecutive5xx), &policy, Instant(5));
    assert_eq!(breaker.until(), Some(Instant(u64::MAX)));
}

#[test]
fn one_percent_of_loss_is_not_more_than_one_percent() {
    let window = |heads, lost| Window { heads, lost, ..Window::default() };
    assert!(!window(0, 0).distrusted());
    assert!(!window(99, 1).distrusted());
    assert!(window(98, 1).distrusted());
    assert!(window(0, 1).distrusted());
}

#[test]
fn limits_are_asked_in_order() {
    let policy = Policy { max_ejection_percent: 50, min_serving: 1, ..policy() };
    let counts = |out, left| BackendCounts { backends: 4, out, serving: left + 1, left };
    let whole = Window { heads: 10, ..Window::default() };
    let torn = Window { heads: 10, lost: 10, ..Window::default() };
    assert_eq!(allow(&policy, &whole, &counts(1, 1)), Ok(()));
    assert_eq!(
        allow(&policy, &whole, &counts(1, 0)),
        Err(Refusal::Floor { serving: 1, backends: 4, min: 1 })
    );
    assert_eq!(
        allow(&policy, &whole, &counts(2, 0)),
        Err(Refusal::Ceiling { out: 2, backends: 4, percent: 50 })
    );
    assert_eq!(allow(&policy, &torn, &counts(2, 0)), Err(Refusal::EvidenceLost { lost: 10, heads: 10 }));
}

#[test]
fn a_run_restarts_when_it_detects() {
    let policy = Policy { consecutive_5xx: 2, ..policy() };
    let mut tally = Tally::default();
    let mut seen = |failure| {
        let sample = Sample::Response { status: 500, failure, ttfb: None };
        tally.observe(&policy, sample, Witness::default(), Instant(0)).detections
    };
    let detection = vec![Detection {
        detector: Detector::Consecutive5xx,
        shown: Shown::Run(Run { count: 2, threshold: 2 }),
    }];
    for (failure, expected) in [
        (true, vec![]),
        (true, detection.clone()),
        (true, vec![]),
        (false, vec![]),
        (true, vec![]),
        (true, detection),
    ] {
        assert_eq!(seen(failure), expected);
    }
}

/// Of 4000 first ejections. Were two numbers added up, the ends would hardly be reached.
#[test]
fn jitter_reaches_both_ends_and_is_one_draw() {
    let policy = Policy { max_ejection_time_jitter: Millis(9), ..policy() };
    let mut seen = [0; 10];
    for key in 0..4000 {
        let mut breaker = Breaker::new(key, Instant(0));
        breaker.on(Signal::Detected(Detector::Consecutive5xx), &policy, Instant(0));
        let until = breaker.until().expect("it is open").0;
        seen[usize::try_from(until - 30_000).expect("small")] += 1;
        // No input draws again while it is open.
        for signal in [GOOD, Signal::Bad, Signal::Sweep { readmits: false, offered: false }] {
            breaker.on(signal, &policy, Instant(29_999));
        }
        assert_eq!(breaker.until(), Some(Instant(until)));
    }
    assert!(seen.iter().all(|count| (320..480).contains(count)), "{seen:?}");
}

/// While number × base < maximum + base; at the sum it has stopped.
#[test]
fn the_number_stops_growing_at_its_bound() {
    for (max, last) in [(89, 4), (90, 4), (91, 5)] {
        let policy = Policy { base_ejection_time: Millis(30), max_ejection_time: Millis(max), ..policy() };
        let mut breaker = closed();
        for _ in 0..9 {
            breaker.on(Signal::Eject { time: None }, &policy, Instant(0));
        }
        assert_eq!((breaker.ejection(), breaker.until()), (last, Some(Instant(max))), "up to {max}");
    }
}

#[test]
fn outcomes_are_of_three_kinds() {
    let window = Window { responses: 2, answers: 3, l4_failures: 5, failures: 2, ..Window::default() };
    assert_eq!(window.outcomes(), 10);
}

/// Whether evidence was lost does not depend on the state that it was lost in.
#[test]
fn a_change_of_state_forgets_all_but_what_was_lost() {
    let mut breaker = closed();
    breaker.window =
        Window { heads: 7, lost: 3, responses: 5, failures: 2, detections: 1, ..Window::default() };
    breaker.on(Signal::Detected(Detector::Consecutive5xx), &policy(), Instant(0));
    assert_eq!(breaker.window, Window { heads: 7, lost: 3, ..Window::default() });
}

#[test]
fn each_outcome_of_a_trial_brings_the_next_budget() {
    for signal in [GOOD, Signal::BadRefused] {
        let mut breaker = half_open();
        let wants = |breaker: &Breaker| breaker.wants_budget(false, &policy(), Instant(30_001));
        assert!(wants(&breaker), "it has had none");
        breaker.budget_granted(Instant(30_000));
        assert!(!wants(&breaker), "nothing came yet");
        breaker.on(signal, &Policy { half_open_successes: 9, ..policy() }, Instant(30_000));
        assert!(wants(&breaker), "{signal:?}");
        breaker.on(SWEEP, &Policy { half_open_successes: 9, ..policy() }, Instant(30_000));
        assert!(wants(&breaker), "{signal:?}, then a sweep");
    }
}
