//! Every detector in the engine: when it fires, and when it does not.
//!
//! One file because each detector is tried on the same few backends.

use std::time::Duration;

use super::lab::{Lab, said, web};
use crate::{
    config::{Breaker, Detector},
    event::{EventKind, Run},
    outcome::{L4Failure, Outcome},
    states::BreakerState,
    time::Millis,
};

fn lab(names: &[&str], change: impl FnOnce(&mut Breaker)) -> Lab {
    let mut service = web(names);
    service.breaker.consecutive_5xx = 0;
    change(&mut service.breaker);
    let mut lab = Lab::new(vec![service]);
    lab.news();
    lab
}

fn state(lab: &Lab, name: &str) -> BreakerState {
    lab.backend(name).breaker
}

fn fails(lab: &mut Lab, name: &str, failure: L4Failure, times: usize) {
    for _ in 0..times {
        lab.outcome(name, Outcome::Failure(failure));
    }
}

#[test]
fn gateway_failures_in_a_row_eject() {
    let mut lab = lab(&["a", "b"], |breaker| breaker.consecutive_gateway_failure = 3);
    // Also 500 breaks the run, though it is a failure.
    lab.statuses("a", &[502, 503, 500, 504, 502, 501, 503, 504, 200, 502, 503]);
    assert_eq!(lab.news(), []);
    lab.status("a", 504);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_gateway_failure")]);
    let evidence = &lab.events.last().expect("just seen").evidence;
    assert_eq!(evidence.consecutive_gateway_failure, Some(Run { count: 3, threshold: 3 }));
    assert_eq!(evidence.consecutive_5xx, None, "it is off");
}

#[test]
fn the_gateway_run_is_evaluated_first_and_both_are_reported() {
    let mut lab = lab(&["a", "b"], |breaker| {
        breaker.consecutive_gateway_failure = 3;
        breaker.consecutive_5xx = 3;
    });
    lab.statuses("a", &[503; 3]);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_gateway_failure")]);
}

#[test]
fn a_run_goes_on_when_another_one_detects() {
    let mut lab = lab(&["a"], |breaker| {
        breaker.consecutive_gateway_failure = 2;
        breaker.consecutive_5xx = 3;
    });
    lab.statuses("a", &[503; 3]);
    assert_eq!(lab.news(), vec![said(EventKind::Refused, "a", "floor"); 2]);
    let events = &lab.events[lab.events.len() - 2..];
    let runs = |event: &crate::event::Event| {
        let count = |run: Option<Run>| run.map(|run| run.count);
        (count(event.evidence.consecutive_gateway_failure), count(event.evidence.consecutive_5xx))
    };
    assert_eq!(runs(&events[0]), (Some(2), Some(2)));
    assert_eq!(runs(&events[1]), (Some(1), Some(3)));
}

#[test]
fn a_status_that_is_no_failure_ends_both_runs() {
    let mut lab = lab(&["a", "b"], |breaker| {
        breaker.errors = vec![500..=500];
        breaker.consecutive_gateway_failure = 2;
        breaker.consecutive_5xx = 2;
    });
    // 503 is a gateway failure, but not in `errors`.
    lab.statuses("a", &[503, 503, 500, 503, 500]);
    assert_eq!(lab.news(), []);
    lab.status("a", 500);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
}

#[test]
fn l4_failures_count_as_responses_unless_split() {
    let all = [
        (L4Failure::ConnectRefused, 503),
        (L4Failure::ConnectTimeout, 503),
        (L4Failure::Reset, 503),
        (L4Failure::NoResponse, 503),
        (L4Failure::ResponseTimeout, 504),
    ];
    for (failure, status) in all {
        let mut lab = lab(&["a", "b"], |breaker| {
            breaker.consecutive_5xx = 3;
            breaker.errors = vec![status..=status];
        });
        fails(&mut lab, "a", failure, 3);
        assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")], "{failure}");
        let event = lab.events.last().expect("just seen");
        let seen = event.evidence.last[0];
        assert_eq!((seen.status, seen.failure), (status, Some(failure)));
        assert!(event.sentence().contains(&format!("last {failure} {failure} {failure}")));
        let responses = lab.backend("a").responses;
        assert_eq!((responses.l4_failures, responses.s5xx), (3, 0));
    }
}

#[test]
fn split_l4_failures_have_a_run_of_their_own() {
    let mut lab = lab(&["a", "b"], |breaker| {
        breaker.split_l4_failures = true;
        breaker.consecutive_5xx = 3;
        breaker.consecutive_l4_failure = 3;
    });
    // Neither run counts the other's, and any response ends that of L4.
    lab.statuses("a", &[500, 500]);
    fails(&mut lab, "a", L4Failure::Reset, 2);
    lab.status("a", 404);
    lab.statuses("a", &[500, 500]);
    fails(&mut lab, "a", L4Failure::ConnectTimeout, 2);
    assert_eq!(lab.news(), []);
    // Kinds do not matter, and a reset after a good connect counts.
    fails(&mut lab, "a", L4Failure::Reset, 1);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_l4_failure")]);
    let evidence = &lab.events.last().expect("just seen").evidence;
    assert_eq!(evidence.consecutive_l4_failure, Some(Run { count: 3, threshold: 3 }));
    assert_eq!(evidence.consecutive_5xx, Some(Run { count: 2, threshold: 3 }));
}

#[test]
fn an_l4_failure_does_not_touch_the_other_runs_when_split() {
    let mut lab = lab(&["a", "b"], |breaker| {
        breaker.split_l4_failures = true;
        breaker.consecutive_5xx = 3;
        breaker.consecutive_l4_failure = 0;
    });
    lab.statuses("a", &[500, 500]);
    fails(&mut lab, "a", L4Failure::NoResponse, 9);
    lab.status("a", 500);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
}

#[test]
fn any_l4_failure_ends_a_trial() {
    for split in [false, true] {
        let mut lab = lab(&["a", "b"], |breaker| {
            breaker.consecutive_5xx = 3;
            breaker.split_l4_failures = split;
        });
        lab.statuses("a", &[500; 3]);
        lab.until(30_000);
        assert_eq!(state(&lab, "a"), BreakerState::HalfOpen);
        fails(&mut lab, "a", L4Failure::ConnectRefused, 1);
        assert_eq!(lab.news().last(), Some(&said(EventKind::Eject, "a", "half_open_failure")));
    }
}

#[test]
fn opaque_is_nothing_to_any_detector() {
    let mut lab = lab(&["a", "b"], |breaker| {
        breaker.split_l4_failures = true;
        breaker.consecutive_l4_failure = 2;
        breaker.error_rate_threshold = 50;
        breaker.error_rate_min_responses = 2;
    });
    fails(&mut lab, "a", L4Failure::Reset, 1);
    lab.status("a", 500);
    fails(&mut lab, "a", L4Failure::Reset, 1);
    for _ in 0..50 {
        lab.outcome("a", Outcome::Opaque);
    }
    assert_eq!(lab.news(), []);
    fails(&mut lab, "a", L4Failure::Reset, 1);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_l4_failure")]);
}

#[test]
fn an_answer_that_cannot_be_read_breaks_runs_of_l4_failures() {
    for split in [false, true] {
        let mut lab = lab(&["a", "b"], |breaker| {
            breaker.split_l4_failures = split;
            breaker.consecutive_5xx = 3;
            breaker.consecutive_l4_failure = 3;
        });
        fails(&mut lab, "a", L4Failure::ConnectRefused, 2);
        lab.outcome("a", Outcome::Answered);
        fails(&mut lab, "a", L4Failure::ConnectRefused, 2);
        assert_eq!(lab.news(), [], "split: {split}");
        fails(&mut lab, "a", L4Failure::ConnectRefused, 1);
        assert_eq!(state(&lab, "a"), BreakerState::Open, "split: {split}");
        assert_eq!(lab.backend("a").responses.answered, 1);
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_no_verdict_on_statuses_where_l4_failures_are_split_off() {
    let mut lab = lab(&["a", "b"], |breaker| {
        breaker.split_l4_failures = true;
        breaker.consecutive_5xx = 2;
    });
    lab.status("a", 500);
    lab.outcome("a", Outcome::Answered);
    lab.status("a", 500);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
}

#[test]
fn answers_make_a_rate_of_l4_failures() {
    for (failures, split, ejected) in
        [(9, true, false), (10, true, true), (9, false, false), (10, false, true)]
    {
        let mut lab = lab(&["a", "b"], |breaker| {
            breaker.split_l4_failures = split;
            breaker.consecutive_5xx = 0;
            breaker.consecutive_l4_failure = 0;
            breaker.failure_percentage_threshold = 10;
            breaker.failure_percentage_min_backends = 1;
            breaker.failure_percentage_min_responses = 100;
        });
        for _ in 0..100 - failures {
            lab.outcome("a", Outcome::Answered);
        }
        fails(&mut lab, "a", L4Failure::Reset, failures);
        lab.until(30_000);
        assert_eq!(
            lab.events.iter().any(|event| event.kind == EventKind::Eject),
            ejected,
            "{failures} {split}"
        );
    }
}

#[test]
fn answers_on_trials_readmit() {
    let mut lab = lab(&["a", "b"], |breaker| breaker.consecutive_5xx = 1);
    fails(&mut lab, "a", L4Failure::ConnectTimeout, 1);
    lab.until(30_000);
    assert_eq!(state(&lab, "a"), BreakerState::HalfOpen);
    for _ in 0..3 {
        lab.outcome("a", Outcome::Answered);
    }
    assert_eq!(lab.news().last(), Some(&said(EventKind::Readmit, "a", "half_open_successes")));
}

#[test]
fn the_error_rate_detects_at_once_and_from_one_backend_up() {
    let mut lab = lab(&["a"], |breaker| {
        breaker.min_serving = 0;
        breaker.error_rate_threshold = 10;
    });
    lab.until(1000);
    lab.statuses("a", &[200; 18]);
    lab.status("a", 500);
    assert_eq!(lab.news(), [], "19 are too few");
    // 2 of 20 are 10 %, and at least.
    lab.status("a", 500);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "error_rate")]);
    let rate = lab.events.last().expect("just seen").evidence.rate.expect("why");
    assert_eq!((rate.count, rate.total, rate.rate, rate.threshold), (2, 20, 1000, 1000));
    assert_eq!(rate.window_ms, Millis(10_000));
}

#[test]
fn below_the_error_rate_nothing_is_detected_and_old_failures_expire() {
    let mut lab = lab(&["a", "b"], |breaker| breaker.error_rate_threshold = 10);
    lab.until(500);
    lab.statuses("a", &[500; 2]);
    lab.statuses("a", &[200; 17]);
    // The bucket of 0 to 1 s is gone at 10 s.
    lab.until(10_000);
    lab.statuses("a", &[200; 19]);
    lab.status("a", 500);
    assert_eq!(lab.news(), []);
}

#[test]
fn a_good_response_may_complete_the_minimum() {
    let mut lab = lab(&["a", "b"], |breaker| breaker.error_rate_threshold = 50);
    lab.statuses("a", &[500; 10]);
    lab.statuses("a", &[200; 9]);
    assert_eq!(lab.news(), []);
    lab.status("a", 200);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "error_rate")]);
}

#[test]
fn a_window_that_detected_starts_again() {
    let mut lab = lab(&["a"], |breaker| breaker.error_rate_threshold = 50);
    lab.statuses("a", &[500; 39]);
    assert_eq!(lab.news(), [said(EventKind::Refused, "a", "floor")]);
    lab.status("a", 500);
    assert_eq!(lab.news(), [said(EventKind::Refused, "a", "floor")]);
}

/// Runs do not find this backend: 50 requests a second, every tenth bad.
#[test]
fn one_in_ten_is_caught_within_a_window() {
    let mut lab = lab(&["a", "b"], |breaker| {
        breaker.consecutive_5xx = 5;
        breaker.error_rate_threshold = 10;
    });
    for request in 0..500 {
        lab.until(request * 20);
        lab.status("a", if request % 10 == 9 { 500 } else { 200 });
    }
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "error_rate")]);
}

#[test]
fn slow_responses_eject_by_their_share() {
    let mut lab = lab(&["a", "b"], |breaker| {
        breaker.slow_threshold = Millis(100);
        breaker.slow_rate_threshold = 25;
    });
    let answer = |lab: &mut Lab, micros, times| {
        for _ in 0..times {
            lab.timed("a", Outcome::Status(200), Some(Duration::from_micros(micros)));
        }
    };
    // A response of exactly the threshold is not slow. A response of unknown time does not count.
    answer(&mut lab, 100_000, 15);
    answer(&mut lab, 100_001, 4);
    lab.statuses("a", &[200; 50]);
    assert_eq!(lab.news(), []);
    answer(&mut lab, 900_000, 1);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "slow_rate")]);
    let rate = lab.events.last().expect("just seen").evidence.rate.expect("why");
    assert_eq!((rate.count, rate.total, rate.rate, rate.threshold), (5, 20, 2500, 2500));
}

#[test]
fn without_a_slow_threshold_nothing_is_slow() {
    let mut lab = lab(&["a", "b"], |_| {});
    for _ in 0..100 {
        lab.timed("a", Outcome::Status(200), Some(Duration::from_secs(60)));
    }
    assert_eq!(lab.news(), []);
}

const SIX: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

#[test]
fn the_success_rate_is_of_one_finished_interval() {
    let mut lab = lab(&SIX, |breaker| breaker.success_rate_stdev_factor = 1900);
    for name in &SIX[1..] {
        lab.statuses(name, &[200; 100]);
    }
    lab.statuses("a", &[500; 60]);
    lab.until(4999);
    lab.statuses("a", &[200; 40]);
    assert_eq!(lab.news(), [], "never before the sweep");
    lab.until(5000);
    // Rates 40 and five times 100: mean 90, standard deviation 22.36; 90 - 1.9 * 22.36 = 47.51.
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "success_rate")]);
    let rate = lab.events.last().expect("just seen").evidence.rate.expect("why");
    assert_eq!((rate.count, rate.total, rate.rate, rate.threshold), (40, 100, 4000, 4751));
    assert_eq!(lab.events.last().expect("just seen").evidence.window.expect("its").failures, 60);
}

#[test]
fn an_interval_does_not_add_to_the_next() {
    let mut lab = lab(&SIX, |breaker| breaker.failure_percentage_threshold = 50);
    for at in [5000, 10_000] {
        for name in SIX {
            lab.statuses(name, &[500; 49]);
        }
        lab.until(at);
    }
    assert_eq!(lab.news(), []);
    for name in SIX {
        lab.statuses(name, &[200; 25]);
    }
    lab.statuses("a", &[500; 25]);
    lab.until(15_000);
    // Six backends have outcomes, but only one has the 50 that are needed.
    assert_eq!(lab.news(), []);
}

#[test]
fn only_backends_that_are_in_take_part() {
    let mut lab = lab(&SIX, |breaker| {
        breaker.consecutive_5xx = 60;
        breaker.failure_percentage_threshold = 50;
        breaker.failure_percentage_min_backends = 6;
    });
    for name in SIX {
        lab.statuses(name, &[500; 50]);
    }
    lab.statuses("f", &[500; 10]);
    assert_eq!(lab.news(), [said(EventKind::Eject, "f", "consecutive_5xx")]);
    lab.until(5000);
    assert_eq!(lab.news(), [], "five of six are too few");
}

#[test]
fn caught_twice_in_one_sweep_is_ejected_once() {
    let mut lab = lab(&SIX, |breaker| {
        breaker.success_rate_stdev_factor = 1900;
        breaker.failure_percentage_threshold = 50;
    });
    for name in &SIX[1..] {
        lab.statuses(name, &[200; 100]);
    }
    lab.statuses("a", &[500; 100]);
    lab.until(5000);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "success_rate")]);
    assert_eq!(lab.backend("a").ejection, 1);
}

#[test]
fn a_sweep_that_detects_keeps_to_ceiling_and_floor() {
    let mut lab = lab(&SIX, |breaker| {
        breaker.failure_percentage_threshold = 50;
        breaker.min_serving = 4;
    });
    for name in SIX {
        lab.statuses(name, &[500; 50]);
    }
    lab.until(5000);
    let floor = |name| said(EventKind::Refused, name, "floor");
    let eject = |name| said(EventKind::Eject, name, "failure_percentage");
    // An ejection becomes known when the maps hold it, a refusal at once.
    assert_eq!(lab.news(), [floor("c"), floor("d"), floor("e"), floor("f"), eject("a"), eject("b")]);
}

#[test]
fn split_rates_eject_by_their_own_names() {
    let mut lab = lab(&SIX, |breaker| {
        breaker.split_l4_failures = true;
        breaker.consecutive_l4_failure = 0;
        breaker.failure_percentage_threshold = 50;
    });
    for name in SIX {
        lab.statuses(name, &[200; 100]);
    }
    fails(&mut lab, "a", L4Failure::Reset, 100);
    lab.until(5000);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "failure_percentage_l4")]);
    let window = lab.events.last().expect("just seen").evidence.window.expect("its");
    assert_eq!((window.responses, window.failures, window.l4_failures), (100, 0, 100));
}

#[test]
fn detectors_that_are_not_set_are_off() {
    let mut lab = lab(&SIX, |_| {});
    for name in &SIX[1..] {
        lab.statuses(name, &[200; 200]);
    }
    for _ in 0..200 {
        lab.timed("a", Outcome::Status(503), Some(Duration::from_secs(9)));
    }
    lab.until(20_000);
    assert_eq!(lab.news(), []);
}

#[test]
fn a_detector_in_shadow_only_reports() {
    let mut lab = lab(&["a", "b"], |breaker| {
        breaker.consecutive_5xx = 3;
        breaker.consecutive_gateway_failure = 2;
        breaker.shadow = [Detector::ConsecutiveGatewayFailure].into();
    });
    lab.statuses("a", &[503; 2]);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_gateway_failure")]);
    let event = lab.events.last().expect("just seen");
    assert_eq!((event.enforced, event.until_ms, event.ejection), (false, None, 0));
    let a = lab.backend("a");
    assert_eq!((a.breaker, a.share), (BreakerState::Closed, 5000));
    let reason =
        "kept because consecutive_gateway_failure is in shadow; 2 gateway failures in a row 0 ms ago";
    assert_eq!(a.reason.as_deref(), Some(reason));
    // The others act.
    lab.status("a", 503);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
    assert!(lab.events.last().expect("just seen").enforced);
    assert_eq!(state(&lab, "a"), BreakerState::Open);
}

#[test]
fn a_detector_in_shadow_does_not_hide_another_one_in_the_sweep() {
    let mut lab = lab(&SIX, |breaker| {
        breaker.success_rate_stdev_factor = 1900;
        breaker.failure_percentage_threshold = 50;
        breaker.shadow = [Detector::SuccessRate].into();
    });
    for name in &SIX[1..] {
        lab.statuses(name, &[200; 100]);
    }
    lab.statuses("a", &[500; 100]);
    lab.until(5000);
    let eject = |reason| said(EventKind::Eject, "a", reason);
    assert_eq!(lab.news(), [eject("success_rate"), eject("failure_percentage")]);
    assert_eq!(lab.events.iter().filter(|event| event.kind == EventKind::Eject && event.enforced).count(), 1);
}

#[test]
fn a_detector_in_shadow_does_not_keep_the_number_from_decaying() {
    for (shadow, ejection) in [([Detector::ConsecutiveGatewayFailure].into(), 0), ([].into(), 1)] {
        let mut lab = lab(&["a", "b"], |breaker| {
            breaker.consecutive_5xx = 3;
            breaker.consecutive_gateway_failure = 2;
            breaker.half_open_trials = 0;
            breaker.min_serving = 0;
            breaker.max_ejection_percent = 50;
            breaker.shadow = shadow;
        });
        lab.statuses("a", &[500; 3]);
        lab.until(30_000);
        lab.statuses("b", &[500; 3]);
        // The ceiling refuses the ejection of `a`. A shadow detection is no mark against it, another one is.
        lab.statuses("a", &[503, 503, 200]);
        lab.until(35_000);
        assert_eq!(lab.backend("a").ejection, ejection);
    }
}
