//! The answers of `why`, and that its predictions come true.

use std::time::Duration;

use super::lab::{Lab, probe, web};
use crate::{
    config::{Breaker, Detector},
    event::EventKind,
    io::{Operation, Verb},
    outcome::Outcome,
    snapshot::{DetectorSnapshot, Why},
    states::BreakerState,
    time::{Instant, Millis},
};

fn lab(change: impl FnOnce(&mut Breaker)) -> Lab {
    let mut service = web(&["a", "b"]);
    change(&mut service.breaker);
    Lab::new(vec![service])
}

fn why(lab: &Lab, name: &str) -> Why {
    lab.engine.why("web", name, lab.now).expect("it is there")
}

fn detector(lab: &Lab, detector: Detector) -> DetectorSnapshot {
    let all = why(lab, "a").detectors;
    all.into_iter().find(|of| of.name == detector.name()).expect("it is on")
}

#[test]
fn only_detectors_that_are_on_are_shown() {
    let names = |lab: &Lab| -> Vec<String> {
        why(lab, "a").detectors.into_iter().map(|detector| detector.name).collect()
    };
    assert_eq!(names(&lab(|_| {})), ["consecutive_5xx"]);
    let all = lab(|breaker| {
        breaker.consecutive_gateway_failure = 1;
        breaker.split_l4_failures = true;
        breaker.error_rate_threshold = 1;
        breaker.slow_threshold = Millis(1);
        breaker.success_rate_stdev_factor = 1;
        breaker.failure_percentage_threshold = 1;
    });
    assert_eq!(names(&all), Detector::ALL.map(|detector| detector.to_string()));
    assert_eq!(all.engine.why("web", "z", all.now), None);
    assert_eq!(all.engine.why("z", "a", all.now), None);
}

/// For any window the shown number of failures is exactly the number that detects.
#[test]
fn the_shown_number_of_failures_is_exact() {
    for (good, bad) in [(0, 0), (0, 9), (15, 0), (19, 0), (30, 2), (50, 4), (100, 1)] {
        for percent in [1, 5, 10, 33, 50, 99] {
            let mut lab = lab(|breaker| {
                breaker.consecutive_5xx = 0;
                breaker.error_rate_threshold = percent;
            });
            lab.statuses("a", &vec![200; good]);
            lab.statuses("a", &vec![500; bad]);
            if lab.backend("a").breaker == BreakerState::Open {
                continue;
            }
            let shown = detector(&lab, Detector::ErrorRate);
            assert_eq!((shown.count, shown.total), (bad as u64, Some((good + bad) as u64)));
            let more: usize = shown.next.split(' ').next().expect("a number").parse().expect("a number");
            lab.statuses("a", &vec![500; more - 1]);
            assert_eq!(lab.backend("a").breaker, BreakerState::Closed, "{good} {bad} {percent} %: {more}");
            lab.status("a", 500);
            assert_eq!(lab.backend("a").breaker, BreakerState::Open, "{good} {bad} {percent} %: {more}");
        }
    }
}

#[test]
fn a_run_shows_the_missing_failures_and_whether_it_would_act() {
    let mut lab = lab(|breaker| breaker.shadow = [Detector::Consecutive5xx].into());
    lab.statuses("a", &[500; 2]);
    let shown = detector(&lab, Detector::Consecutive5xx);
    assert_eq!((shown.count, shown.threshold, shown.enforced), (2, Some(3), false));
    assert_eq!(shown.next, "1 more in a row");
}

#[test]
fn a_window_that_has_passed_counts_for_nothing() {
    let mut lab = lab(|breaker| {
        breaker.slow_threshold = Millis(10);
        breaker.slow_rate_threshold = 100;
    });
    lab.timed("a", Outcome::Status(200), Some(Duration::from_secs(1)));
    lab.timed("a", Outcome::Status(200), Some(Duration::ZERO));
    assert_eq!(detector(&lab, Detector::SlowRate).next, "nothing while one good response is in the window");
    lab.until(11_000);
    assert_eq!(detector(&lab, Detector::SlowRate).total, Some(0));
}

#[test]
fn the_present_line_of_the_success_rate_is_shown() {
    let mut lab = lab(|breaker| {
        breaker.consecutive_5xx = 0;
        breaker.success_rate_stdev_factor = 500;
        breaker.success_rate_min_backends = 2;
        breaker.success_rate_min_responses = 10;
    });
    lab.until(1000);
    lab.statuses("a", &[500; 10]);
    assert_eq!(detector(&lab, Detector::SuccessRate).threshold, None);
    lab.statuses("b", &[200; 10]);
    // Mean 50, deviation 50.
    let shown = detector(&lab, Detector::SuccessRate);
    assert_eq!((shown.count, shown.total, shown.threshold), (0, Some(10), Some(2500)));
    assert_eq!(shown.next, "a rate below 25.00 %, as it is now, when the interval ends in 4 s");
}

#[test]
fn the_last_decision_is_shown_with_its_evidence() {
    let mut lab = lab(|_| {});
    assert_eq!(why(&lab, "a").last_decision, None);
    lab.statuses("a", &[500; 3]);
    let decision = why(&lab, "a").last_decision.expect("it was ejected");
    assert_eq!((decision.kind, decision.reason.as_str()), (EventKind::Eject, "consecutive_5xx"));
    assert_eq!(decision.evidence.last.len(), 3);
    assert_eq!(why(&lab, "b").last_decision, None);
    lab.until(30_000);
    assert_eq!(why(&lab, "a").last_decision.expect("tried").kind, EventKind::Trial);
}

/// A refused order belongs to the operator's axis, not to the breaker's.
#[test]
fn an_order_that_was_refused_is_no_decision_of_the_breaker() {
    let mut lab = lab(|_| {});
    lab.until(1000);
    lab.statuses("a", &[500; 3]);
    lab.until(36_000);
    lab.statuses("a", &[200; 3]);
    lab.statuses("b", &[500; 3]);
    let decisions = (why(&lab, "a").last_decision, why(&lab, "b").last_decision);
    let kinds = [&decisions.0, &decisions.1].map(|one| one.as_ref().expect("decided").kind);
    assert_eq!(kinds, [EventKind::Readmit, EventKind::Eject]);
    for verb in [Verb::Drain, Verb::Disable, Verb::Eject] {
        let (service, backend, actor) = ("web".to_owned(), "a".to_owned(), "breaker".to_owned());
        let order = Operation { service, backend, verb, duration: None, reason: None, actor, force: false };
        lab.operate(&order).expect_err("the last one serves");
        let event = lab.events.last().expect("there is an event");
        assert_eq!((event.kind, event.from.as_str()), (EventKind::Refused, "enabled"));
    }
    assert_eq!((why(&lab, "a").last_decision, why(&lab, "b").last_decision), decisions);
    // A detection that a limit refused is a decision of the breaker.
    lab.statuses("a", &[500; 3]);
    let refused = why(&lab, "a").last_decision.expect("decided");
    assert_eq!((refused.kind, refused.from.as_str()), (EventKind::Refused, "closed"));
}

#[test]
fn the_time_of_return_is_exact_to_the_sweep() {
    let mut lab = lab(|_| {});
    lab.until(1000);
    lab.statuses("a", &[500; 3]);
    let continues =
        "its connections end at their next request or when idle, in 1 m 00 s at the latest".to_owned();
    let expected = [
        "half-open with 3 new connections a sweep in 34 s".to_owned(),
        "`shunt backend admit web/a` readmits it at once".to_owned(),
        continues,
    ];
    assert_eq!(why(&lab, "a").sentences(), expected);
    // Status names the same moment in the same words.
    let a = lab.backend("a");
    assert_eq!((a.until_ms, a.returns_ms), (Some(Instant(31_000)), Some(Instant(35_000))));
    assert!(a.reason.is_some_and(|reason| reason.ends_with(", 34 s left")));
    lab.until(34_999);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
    lab.until(35_000);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
    lab.status("a", 200);
    let expected = [
        "2 more good outcomes in a row readmit it",
        "one failure ejects it again, with the next number",
        "3 more sweeps without an outcome close it",
    ];
    assert_eq!(why(&lab, "a").sentences(), expected);
    assert_eq!(why(&lab, "a").next_sweep_ms, Instant(40_000));
}

#[test]
fn every_axis_shows_its_reason_to_keep_a_backend_out() {
    let mut service = web(&["a", "b"]);
    service.probe = Some(probe());
    let mut lab = Lab::new(vec![service]);
    lab.probe("a", false);
    lab.probe("b", true);
    lab.probe("a", true);
    let (service, backend, actor) = ("web".to_owned(), "a".to_owned(), "alice".to_owned());
    let (verb, duration) = (Verb::Drain, Some(Millis::secs(60)));
    let order = Operation { service, backend, verb, duration, reason: None, actor, force: false };
    lab.operate(&order).expect("it does not serve");
    let expected = [
        "it is draining until an operator enables it, or by itself in 1 m 00 s",
        "1 more passing probes in a row bring it up",
        "its connections end at their next request or when idle, in 1 m 00 s at the latest",
    ];
    assert_eq!(why(&lab, "a").sentences(), expected);
}

#[test]
fn whether_the_maps_agree_is_shown_for_each_backend_by_itself() {
    let mut lab = lab(|_| {});
    let members = |lab: &Lab| lab.engine.members("web").expect("it is there").len();
    assert_eq!((why(&lab, "a").in_maps, why(&lab, "b").in_maps, members(&lab)), (true, true, 2));
    lab.slow = true;
    lab.until(1000);
    lab.statuses("a", &[500; 3]);
    assert_eq!((why(&lab, "a").in_maps, why(&lab, "b").in_maps, members(&lab)), (false, true, 2));
    lab.answer();
    assert_eq!((why(&lab, "a").in_maps, members(&lab)), (true, 1));
    assert_eq!(lab.engine.members("z"), None);
}

#[test]
fn each_axis_shows_when_its_state_began() {
    let mut service = web(&["a", "b"]);
    service.probe = Some(probe());
    let mut lab = Lab::new(vec![service]);
    lab.until(1000);
    lab.probe("a", true);
    lab.probe("b", true);
    lab.until(1500);
    let (service, backend, actor) = ("web".to_owned(), "a".to_owned(), "alice".to_owned());
    let verb = Verb::Drain;
    let order = Operation { service, backend, verb, duration: None, reason: None, actor, force: false };
    lab.operate(&order).expect("another one serves");
    lab.until(1700);
    // The same order again does not change these times.
    lab.operate(&order).expect("another one serves");
    lab.until(2000);
    lab.statuses("a", &[200, 500, 500, 500]);
    let shown = why(&lab, "a");
    let since = (shown.operator_since_ms, shown.probe_since_ms, shown.backend.since_ms);
    assert_eq!(since, (Instant(1500), Instant(1000), Instant(2000)));
    let last: Vec<u16> = shown.last_outcomes.iter().map(|seen| seen.status).collect();
    assert_eq!(last, [200, 500, 500, 500]);
}
