//! Time, order and the boundaries of every count. The other suites take these for granted.
//!
//! One file because each test is about an exact number of the rules.

use std::{net::SocketAddr, time::Duration};

use super::lab::{Lab, said, web};
use crate::{
    config::{self, BackoffDecay, Breaker, Detector, HalfOpenExit, Probe},
    event::{EventKind, Run, Seen, Totals},
    io::Input,
    outcome::{Context, L4Failure, Outcome},
    snapshot::BackendSnapshot,
    states::BreakerState,
    time::{Instant, Millis},
};

const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];

pub(super) fn lab(names: &[&str], change: impl FnOnce(&mut Breaker)) -> Lab {
    let mut service = web(names);
    change(&mut service.breaker);
    let mut lab = Lab::new(vec![service]);
    lab.news();
    lab
}

fn state(lab: &Lab, name: &str) -> BreakerState {
    lab.backend(name).breaker
}

fn fails(lab: &mut Lab, name: &str, times: usize) {
    for _ in 0..times {
        lab.outcome(name, Outcome::Failure(L4Failure::Reset));
    }
}

#[test]
fn sweeps_fall_at_multiples_of_the_interval_after_the_service_appeared() {
    let mut lab = lab(&["a", "b"], |_| {});
    lab.until(1300);
    let mut late = web(&["x", "y"]);
    (late.name, late.vip) = ("late".to_owned(), "203.0.113.11:80".parse().expect("literal"));
    lab.reload(vec![web(&["a", "b"]), late]);
    // Nothing else is due in a service without probes.
    let mut sweeps = Vec::new();
    for _ in 0..6 {
        let due = lab.engine.next_deadline().expect("a sweep").0;
        sweeps.push(due);
        lab.until(due);
    }
    assert_eq!(sweeps, [5000, 6300, 10_000, 11_300, 15_000, 16_300]);
}

#[test]
fn at_one_instant_the_sweep_comes_first() {
    // An outcome at the moment of the sweep belongs to the interval that begins.
    let mut lab = lab(&FIVE, |breaker| {
        breaker.consecutive_5xx = 0;
        breaker.failure_percentage_threshold = 50;
    });
    lab.until(4999);
    for name in FIVE {
        lab.statuses(name, &[200; 50]);
    }
    lab.statuses("a", &[500; 49]);
    lab.now = Instant(5000);
    lab.status("a", 500);
    assert_eq!(lab.news(), [], "49 of 99");
    lab.until(9999);
    for name in FIVE {
        lab.statuses(name, &[200; 50]);
    }
    lab.statuses("a", &[500; 49]);
    lab.until(10_000);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "failure_percentage")], "50 of 100");
}

#[test]
fn an_ejection_that_ends_with_a_sweep_is_over_before_the_outcomes_of_that_moment() {
    let mut lab = lab(&["a", "b"], |_| {});
    lab.statuses("a", &[500; 3]);
    lab.now = Instant(30_000);
    lab.status("a", 500);
    let expected = [
        said(EventKind::Eject, "a", "consecutive_5xx"),
        said(EventKind::Trial, "a", "ejection_time_over"),
        said(EventKind::Eject, "a", "half_open_failure"),
    ];
    assert_eq!(lab.news(), expected);
}

#[test]
fn inputs_of_one_instant_count_in_their_order() {
    for (statuses, ejects) in [([500, 500, 200, 500], false), ([200, 500, 500, 500], true)] {
        let mut lab = lab(&["a", "b"], |_| {});
        lab.statuses("a", &statuses);
        assert_eq!(state(&lab, "a") == BreakerState::Open, ejects);
    }
}

#[test]
fn a_run_has_no_window() {
    let mut lab = lab(&["a", "b"], |_| {});
    for hour in 0..3 {
        assert_eq!(state(&lab, "a"), BreakerState::Closed);
        lab.until(hour * 3_600_000 + 1);
        lab.status("a", 500);
    }
    assert_eq!(state(&lab, "a"), BreakerState::Open);
}

#[test]
fn an_l4_failure_is_judged_by_the_status_it_counts_as() {
    let mut lab = lab(&["a", "b"], |breaker| {
        breaker.errors = vec![500..=500];
        breaker.consecutive_5xx = 1;
    });
    fails(&mut lab, "a", 9);
    assert_eq!(lab.news(), []);
    // Split off it is a failure whatever `errors` says.
    let mut lab = self::lab(&["a", "b"], |breaker| {
        breaker.errors = vec![500..=500];
        breaker.split_l4_failures = true;
        breaker.consecutive_l4_failure = 1;
    });
    fails(&mut lab, "a", 1);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_l4_failure")]);
}

#[test]
fn unsplit_l4_failures_feed_every_detector_of_responses() {
    let mut gateway = lab(&["a", "b"], |breaker| breaker.consecutive_gateway_failure = 2);
    fails(&mut gateway, "a", 2);
    assert_eq!(gateway.news(), [said(EventKind::Eject, "a", "consecutive_gateway_failure")]);

    let mut rate = lab(&["a", "b"], |breaker| {
        breaker.consecutive_5xx = 0;
        breaker.error_rate_threshold = 100;
    });
    fails(&mut rate, "a", 20);
    assert_eq!(rate.news(), [said(EventKind::Eject, "a", "error_rate")]);

    let mut sweep = lab(&FIVE, |breaker| {
        breaker.consecutive_5xx = 0;
        breaker.failure_percentage_threshold = 100;
    });
    for name in &FIVE[1..] {
        sweep.statuses(name, &[200; 50]);
    }
    fails(&mut sweep, "a", 50);
    sweep.until(5000);
    assert_eq!(sweep.news(), [said(EventKind::Eject, "a", "failure_percentage")]);
}

#[test]
fn split_l4_failures_are_in_no_rate_of_responses() {
    let mut lab = lab(&FIVE, |breaker| {
        breaker.split_l4_failures = true;
        breaker.consecutive_l4_failure = 0;
        breaker.error_rate_threshold = 1;
        breaker.error_rate_min_responses = 1;
        breaker.success_rate_stdev_factor = 100;
        breaker.success_rate_min_responses = 1;
        // Of connects as well, but five are needed and four have any.
        breaker.success_rate_min_backends = 5;
    });
    for name in &FIVE[1..] {
        lab.statuses(name, &[200; 50]);
    }
    fails(&mut lab, "b", 50);
    lab.until(5000);
    assert_eq!(lab.news(), []);
}

#[test]
fn an_l4_failure_is_never_slow() {
    let mut lab = lab(&["a", "b"], |breaker| {
        breaker.consecutive_5xx = 0;
        breaker.slow_threshold = Millis(1);
        breaker.slow_rate_min_responses = 1;
    });
    lab.timed("a", Outcome::Failure(L4Failure::ResponseTimeout), Some(Duration::from_secs(9)));
    assert_eq!(lab.news(), []);
    lab.timed("a", Outcome::Status(200), Some(Duration::from_secs(9)));
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "slow_rate")]);
}

#[test]
fn a_run_restarts_whether_carried_out_refused_or_only_logged() {
    let shadow: fn(&mut Breaker) = |breaker| breaker.shadow = [Detector::Consecutive5xx].into();
    let refused: fn(&mut Breaker) = |breaker| breaker.min_serving = 2;
    let unenforced: fn(&mut Breaker) = |breaker| breaker.enforce = false;
    for change in [shadow, refused, unenforced] {
        let mut lab = lab(&["a", "b"], change);
        for at in 1..=9 {
            lab.status("a", 500);
            assert_eq!(lab.backend("a").run_5xx, at % 3);
            assert_eq!(lab.news().len(), usize::from(at % 3 == 0), "after {at}");
        }
    }
    let mut out = lab(&["a", "b"], |_| {});
    out.statuses("a", &[500; 3]);
    assert_eq!(out.backend("a").run_5xx, 0);
    // Nor does it grow while it is out.
    out.statuses("a", &[500; 2]);
    assert_eq!(out.backend("a").run_5xx, 0);
}

#[test]
fn zero_turns_every_run_off() {
    let mut lab = lab(&["a", "b"], |breaker| {
        breaker.consecutive_5xx = 0;
        breaker.consecutive_gateway_failure = 0;
        breaker.consecutive_l4_failure = 0;
        breaker.split_l4_failures = true;
    });
    lab.statuses("a", &[503; 100]);
    fails(&mut lab, "a", 100);
    lab.until(20_000);
    assert_eq!(lab.news(), []);
}

#[test]
fn an_interval_begins_again_with_a_change_of_state() {
    let mut lab = lab(&FIVE, |breaker| {
        breaker.half_open_trials = 0;
        breaker.base_ejection_time = Millis(1);
        breaker.failure_percentage_threshold = 50;
    });
    for name in FIVE {
        lab.statuses(name, &[200; 50]);
    }
    lab.statuses("a", &[500; 3]);
    lab.until(5000);
    lab.news();
    // 50 failures while it is out, then an operator readmits it: they no longer count against it.
    lab.statuses("a", &[500; 3]);
    lab.statuses("a", &[500; 50]);
    let order = crate::io::Operation {
        service: "web".to_owned(),
        backend: "a".to_owned(),
        verb: crate::io::Verb::Admit,
        duration: None,
        reason: None,
        actor: "alice".to_owned(),
        force: false,
    };
    lab.operate(&order).expect("it is out");
    for name in FIVE {
        lab.statuses(name, &[200; 50]);
    }
    lab.news();
    lab.until(10_000);
    assert_eq!(lab.news(), []);
}

#[test]
fn a_refusal_is_not_made_up_for() {
    let mut lab = lab(&["a", "b", "c"], |breaker| {
        breaker.max_ejection_percent = 34;
        breaker.half_open_trials = 0;
    });
    lab.statuses("a", &[500; 3]);
    lab.statuses("b", &[500; 3]);
    assert_eq!(lab.news().last(), Some(&said(EventKind::Refused, "b", "ceiling")));
    // `a` makes room, and `b` has to be detected again.
    lab.until(40_000);
    lab.statuses("b", &[500; 2]);
    assert_eq!(lab.news(), [said(EventKind::Readmit, "a", "ejection_time_over")]);
    lab.status("b", 500);
    assert_eq!(lab.news(), [said(EventKind::Eject, "b", "consecutive_5xx")]);
}

#[test]
fn a_half_open_backend_is_out_for_the_ceiling() {
    let mut lab = lab(&["a", "b", "c"], |breaker| {
        breaker.max_ejection_percent = 34;
        breaker.half_open_exit = HalfOpenExit::Wait;
    });
    lab.statuses("a", &[500; 3]);
    lab.until(30_000);
    assert_eq!(state(&lab, "a"), BreakerState::HalfOpen);
    lab.statuses("b", &[500; 3]);
    assert_eq!(lab.news().last(), Some(&said(EventKind::Refused, "b", "ceiling")));
}

#[test]
fn a_sweep_makes_room_before_it_detects() {
    let mut lab = lab(&FIVE, |breaker| {
        breaker.max_ejection_percent = 20;
        breaker.half_open_trials = 0;
        breaker.failure_percentage_threshold = 50;
        breaker.failure_percentage_min_backends = 4;
    });
    lab.statuses("a", &[500; 3]);
    lab.until(29_999);
    for name in &FIVE[2..] {
        lab.statuses(name, &[200; 50]);
    }
    for _ in 0..25 {
        lab.statuses("b", &[500, 500, 200]);
    }
    lab.news();
    lab.until(30_000);
    let expected = [
        said(EventKind::Readmit, "a", "ejection_time_over"),
        said(EventKind::Eject, "b", "failure_percentage"),
    ];
    assert_eq!(lab.news(), expected);
}

#[test]
fn a_group_returns_together() {
    let mut lab = lab(&FIVE, |_| {});
    for (at, name) in [(1, "a"), (1700, "b"), (4999, "c")] {
        lab.until(at);
        lab.statuses(name, &[500; 3]);
    }
    lab.until(34_999);
    assert!(FIVE[..3].iter().all(|name| state(&lab, name) == BreakerState::Open));
    lab.news();
    lab.until(35_000);
    assert_eq!(lab.news(), ["a", "b", "c"].map(|name| said(EventKind::Trial, name, "ejection_time_over")));
}

/// Back at `returns`, with an answer; the sweep at 40 s forgives or not.
#[test]
fn both_decays_take_half_an_interval_for_a_whole_one() {
    for decay in [BackoffDecay::Evidence, BackoffDecay::Time] {
        for (interval, returns, ejection) in
            [(5000, 37_500, 0), (5000, 37_501, 1), (5001, 37_507, 0), (5001, 37_508, 1)]
        {
            let mut lab = lab(&["a", "b"], |breaker| {
                breaker.backoff_decay = decay;
                breaker.interval = Millis(interval);
            });
            lab.statuses("a", &[500; 3]);
            lab.until(returns);
            lab.statuses("a", &[200; 4]);
            assert_eq!((state(&lab, "a"), lab.backend("a").ejection), (BreakerState::Closed, 1));
            lab.until(8 * interval);
            assert_eq!(lab.backend("a").ejection, ejection, "{decay:?}, back at {returns} of {interval}");
        }
    }
}

#[test]
fn one_sweep_forgives_one_ejection_and_none_below_zero() {
    let mut lab = lab(&["a", "b"], |breaker| {
        breaker.half_open_trials = 0;
        breaker.backoff_decay = BackoffDecay::Time;
        breaker.base_ejection_time = Millis(1000);
    });
    for _ in 0..3 {
        lab.statuses("a", &[500; 3]);
        lab.wait(5000);
    }
    let mut numbers = Vec::new();
    for _ in 0..5 {
        numbers.push(lab.backend("a").ejection);
        lab.wait(5000);
    }
    assert_eq!(numbers, [3, 2, 1, 0, 0]);
}

#[test]
fn evidence_of_health_is_a_response() {
    let mut lab = lab(&["a", "b"], |breaker| {
        breaker.half_open_trials = 0;
        breaker.split_l4_failures = true;
        breaker.consecutive_l4_failure = 0;
    });
    lab.statuses("a", &[500; 3]);
    lab.until(31_000);
    // Neither a split L4 failure nor an unreadable response shows health.
    fails(&mut lab, "a", 2);
    lab.outcome("a", Outcome::Opaque);
    lab.until(35_000);
    assert_eq!(lab.backend("a").ejection, 1);
    // A failure that detects nothing is a response of a backend that is in service.
    lab.status("a", 500);
    lab.until(40_000);
    assert_eq!(lab.backend("a").ejection, 0);
}

/// Unreadable answers to trials count as no traffic.
#[test]
fn trials_with_opaque_outcomes_are_no_traffic() {
    let mut lab = lab(&["a", "b"], |_| {});
    lab.statuses("a", &[500; 3]);
    for at in [30_000, 35_000, 40_000, 44_999] {
        lab.until(at);
        lab.outcome("a", Outcome::Opaque);
        assert_eq!(state(&lab, "a"), BreakerState::HalfOpen);
    }
    lab.until(45_000);
    assert_eq!(lab.news().last(), Some(&said(EventKind::Readmit, "a", "no_traffic")));
    // Later outcomes of these trials count for a backend that is in.
    fails(&mut lab, "a", 2);
    assert_eq!((state(&lab, "a"), lab.backend("a").run_5xx), (BreakerState::Closed, 2));
    fails(&mut lab, "a", 1);
    assert_eq!((state(&lab, "a"), lab.backend("a").ejection), (BreakerState::Open, 2));
}

#[test]
fn a_trial_that_fails_before_the_exit_opens_it_again() {
    let mut lab = lab(&["a", "b"], |breaker| breaker.split_l4_failures = true);
    lab.statuses("a", &[500; 3]);
    lab.until(44_999);
    lab.outcome("a", Outcome::Failure(L4Failure::ConnectTimeout));
    assert_eq!(lab.news().last(), Some(&said(EventKind::Eject, "a", "half_open_failure")));
    assert_eq!(lab.backend("a").ejection, 2);
}

#[test]
fn a_removed_backend_frees_its_slot() {
    let mut service = web(&["a", "b", "c"]);
    service.breaker.max_ejection_percent = 34;
    let mut lab = Lab::new(vec![service.clone()]);
    lab.statuses("a", &[500; 3]);
    let mut other = web(&["x", "b", "c"]);
    other.backends[0].address = "10.0.0.9:8080".parse().expect("literal");
    service.backends = other.backends;
    lab.reload(vec![service]);
    lab.news();
    lab.statuses("b", &[500; 3]);
    assert_eq!(lab.news(), [said(EventKind::Eject, "b", "consecutive_5xx")]);
}

#[test]
fn removed_and_added_again_within_one_reload_is_not_removed() {
    let mut lab = lab(&["a", "b"], |_| {});
    lab.statuses("a", &[500; 3]);
    let (before, events) = (lab.backend("a"), lab.events.len());
    let mut service = web(&["b"]);
    let again = web(&["a", "b"]).backends;
    (service.backends[0], service.breaker.min_serving) = (again[1].clone(), 0);
    service.backends.push(again[0].clone());
    lab.reload(vec![service]);
    let after = lab.backend("a");
    let known = |of: &BackendSnapshot| (of.id, of.generation, of.until_ms, of.ejection, of.responses);
    assert_eq!((known(&after), lab.events.len()), (known(&before), events));
}

#[test]
fn an_event_carries_what_was_decided_and_from_what() {
    let mut lab = lab(&["a", "b", "c"], |breaker| {
        breaker.max_ejection_percent = 70;
        breaker.consecutive_gateway_failure = 7;
    });
    lab.statuses("c", &[500; 3]);
    lab.reload(vec![{
        let mut service = web(&["a", "b", "c"]);
        service.breaker.max_ejection_percent = 70;
        service.breaker.consecutive_gateway_failure = 7;
        service
    }]);
    lab.until(700);
    lab.status("a", 204);
    lab.lose("a", 0);
    let client: SocketAddr = "192.0.2.7:4711".parse().expect("literal");
    let BackendSnapshot { id: backend, generation, .. } = lab.backend("a");
    for at in 701..=703 {
        lab.until(at);
        let outcome = Outcome::Status(503);
        lab.send(Input::Outcome {
            backend,
            generation,
            outcome,
            ttfb: None,
            client: Some(client),
            context: Context::default(),
        });
    }
    let [.., before, event] = &lab.events[..] else { panic!("two ejections") };
    assert_eq!((event.kind, event.t_ms, event.seq), (EventKind::Eject, Instant(703), before.seq + 1));
    assert_eq!((event.service.as_str(), event.backend.as_deref()), ("web", Some("a")));
    assert_eq!((event.from.as_str(), event.to.as_str()), ("closed", "open"));
    assert_eq!((event.reason.as_str(), event.actor.as_str()), ("consecutive_5xx", "breaker"));
    assert_eq!((event.enforced, event.ejection, event.until_ms), (true, 1, Some(Instant(30_703))));
    assert_eq!(event.config_generation, 2);
    let evidence = &event.evidence;
    assert_eq!(evidence.consecutive_5xx, Some(Run { count: 3, threshold: 3 }));
    assert_eq!(evidence.consecutive_gateway_failure, Some(Run { count: 3, threshold: 7 }));
    assert_eq!(evidence.window, Some(Totals { responses: 4, failures: 3, l4_failures: 0, lost: 0 }));
    let seen = |t, status, client| Seen { t_ms: Instant(t), status, failure: None, client };
    let bad = |t| seen(t, 503, Some(client));
    assert_eq!(evidence.last, [seen(700, 204, None), bad(701), bad(702), bad(703)]);
    assert_eq!((evidence.out, evidence.backends, evidence.serving), (1, 3, 2));
    assert_eq!((evidence.max_ejection_percent, evidence.min_serving), (70, 1));
    assert_eq!((evidence.rate, evidence.probe), (None, None));
}

#[test]
fn the_defaults_are_those_of_the_specification() {
    let Breaker {
        enforce,
        shadow,
        consecutive_5xx,
        consecutive_gateway_failure,
        split_l4_failures,
        consecutive_l4_failure,
        confirm_l4_failures,
        min_clients,
        connect_timeout,
        response_timeout,
        success_rate_min_responses,
        success_rate_min_backends,
        success_rate_stdev_factor,
        failure_percentage_threshold,
        failure_percentage_min_responses,
        failure_percentage_min_backends,
        error_rate_threshold,
        error_rate_window,
        error_rate_min_responses,
        slow_threshold,
        slow_rate_threshold,
        slow_rate_window,
        slow_rate_min_responses,
        errors,
        interval,
        base_ejection_time,
        max_ejection_time,
        max_ejection_time_jitter,
        max_ejection_percent,
        always_eject_one,
        min_serving,
        half_open_trials,
        half_open_successes,
        half_open_timeout,
        half_open_exit,
        probe_readmits,
        probe_uneject,
        slow_start,
        panic_threshold,
        backoff_decay,
    } = Breaker::default();
    assert!(enforce && shadow.is_empty() && !split_l4_failures && !always_eject_one);
    assert_eq!((consecutive_gateway_failure, consecutive_5xx, consecutive_l4_failure), (0, 5, 5));
    assert_eq!(connect_timeout, Millis(3000));
    assert_eq!((response_timeout, slow_threshold), (Millis(0), Millis(0)), "off");
    assert_eq!((success_rate_stdev_factor, failure_percentage_threshold, error_rate_threshold), (0, 0, 0));
    assert_eq!((success_rate_min_responses, success_rate_min_backends), (100, 5));
    assert_eq!((failure_percentage_min_responses, failure_percentage_min_backends), (50, 5));
    assert_eq!((error_rate_window, error_rate_min_responses), (Millis(10_000), 20));
    assert_eq!((slow_rate_window, slow_rate_min_responses, slow_rate_threshold), (Millis(10_000), 20, 50));
    assert_eq!(errors, [500..=500, 502..=504, 506..=599]);
    assert!(confirm_l4_failures);
    assert_eq!(min_clients, 2);
    assert_eq!((interval, base_ejection_time), (Millis(10_000), Millis(30_000)));
    assert_eq!((max_ejection_time, max_ejection_time_jitter), (Millis(300_000), Millis(0)));
    assert_eq!((max_ejection_percent, min_serving), (50, 1));
    assert_eq!((half_open_trials, half_open_successes, half_open_timeout), (3, 3, interval));
    assert_eq!(half_open_exit, HalfOpenExit::Close);
    assert!(probe_readmits && !probe_uneject);
    assert_eq!((slow_start, panic_threshold), (Millis(0), 0), "off");
    assert_eq!(backoff_decay, BackoffDecay::Evidence);

    let Probe {
        kind: _,
        port,
        interval,
        timeout,
        rise,
        fall,
        fast_interval,
        down_interval,
        jitter,
        fail_open_percent,
    } = Probe::default();
    assert_eq!((interval, timeout, rise, fall), (Millis(2000), Millis(1000), 2, 3));
    assert_eq!((fast_interval, down_interval, jitter), (interval, interval, 10));
    assert_eq!((fail_open_percent, port), (100, None));
    let http = config::HttpProbe::default();
    assert_eq!((http.expect, http.fail_fast), (vec![200..=399], vec![]));
}
