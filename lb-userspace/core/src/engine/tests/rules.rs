//! Detecting and ejecting.

use super::lab::{Lab, said, web};
use crate::{
    engine::Timeouts,
    event::{EventKind, Run},
    io::Admit,
    outcome::Outcome,
    states::{BreakerState, Effective},
    time::{Instant, Millis},
};

fn two(change: impl FnOnce(&mut crate::config::Breaker)) -> Lab {
    let mut service = web(&["a", "b"]);
    change(&mut service.breaker);
    let mut lab = Lab::new(vec![service]);
    lab.news();
    lab
}

#[test]
fn the_third_failure_in_a_row_ejects_at_once() {
    let mut lab = two(|_| {});
    lab.wait(1234);
    lab.statuses("a", &[500, 503, 200, 500, 404, 500, 599]);
    assert_eq!(lab.news(), []);
    assert_eq!(lab.backend("a").run_5xx, 2);
    lab.status("a", 502);

    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
    let event = lab.events.last().expect("just seen");
    assert_eq!((event.from.as_str(), event.to.as_str(), event.enforced), ("closed", "open", true));
    assert_eq!((event.t_ms, event.until_ms), (Instant(1234), Some(Instant(31_234))));
    assert_eq!((event.ejection, event.actor.as_str()), (1, "breaker"));
    assert_eq!(event.evidence.consecutive_5xx, Some(Run { count: 3, threshold: 3 }));
    let last: Vec<u16> = event.evidence.last.iter().map(|seen| seen.status).collect();
    assert_eq!(last, [500, 503, 200, 500, 404, 500, 599, 502]);
    assert_eq!((event.evidence.out, event.evidence.backends, event.evidence.serving), (0, 2, 2));

    assert_eq!(lab.admit("a"), Some(Admit::None));
    assert_eq!(lab.table(), ["b".to_owned()].into());
    let a = lab.backend("a");
    assert_eq!((a.effective, a.share, a.weight_percent, a.run_5xx), (Effective::Ejected, 0, 0, 0));
    assert_eq!(a.reason.as_deref(), Some("ejected 0 ms ago for 3 failures in a row, ejection 1, 33 s left"));
    assert_eq!(lab.backend("b").share, 10_000);
}

#[test]
fn only_the_last_sixteen_outcomes_are_remembered() {
    let mut lab = two(|_| {});
    for status in 200..230 {
        lab.status("a", status);
    }
    lab.statuses("a", &[500, 500, 500]);
    let last: Vec<u16> =
        lab.events.last().expect("ejected").evidence.last.iter().map(|seen| seen.status).collect();
    assert_eq!(last, (217..230).chain([500, 500, 500]).collect::<Vec<_>>());
}

#[test]
fn the_configuration_decides_which_statuses_are_failures() {
    let mut lab = two(|breaker| breaker.errors = vec![500..=500, 502..=504]);
    lab.statuses("a", &[500, 500, 501, 500, 500, 505, 502, 503]);
    assert_eq!(lab.news(), []);
    lab.status("a", 504);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
}

#[test]
fn opaque_counts_for_nothing_and_breaks_no_run() {
    let mut lab = two(|_| {});
    lab.statuses("a", &[500, 500]);
    lab.outcome("a", Outcome::Opaque);
    lab.status("a", 500);
    let a = lab.backend("a");
    assert_eq!(a.breaker, BreakerState::Open);
    assert_eq!((a.responses.opaque, a.responses.s5xx), (1, 3));
}

#[test]
fn a_threshold_of_zero_detects_nothing() {
    let mut lab = two(|breaker| breaker.consecutive_5xx = 0);
    lab.statuses("a", &[500; 50]);
    assert_eq!(lab.news(), []);
}

#[test]
fn outcomes_of_an_ejected_backend_are_counted_and_do_not_extend_its_ejection() {
    let mut lab = two(|_| {});
    lab.statuses("a", &[500; 3]);
    let until = lab.backend("a").until_ms;
    lab.wait(100);
    lab.statuses("a", &[500; 10]);
    let a = lab.backend("a");
    assert_eq!((a.until_ms, a.ejection, a.responses.s5xx), (until, 1, 13));
    assert_eq!(lab.news().len(), 1);
}

#[test]
fn an_outcome_of_a_former_generation_counts_for_no_backend() {
    let mut lab = two(|_| {});
    let a = lab.backend("a");
    let generation = crate::ids::Generation(a.generation.0 + 1);
    for _ in 0..3 {
        let outcome = Outcome::Status(500);
        lab.send(crate::io::Input::outcome(a.id, generation, outcome));
    }
    assert_eq!(lab.backend("a").responses.s5xx, 0);
}

#[test]
fn the_ceiling_refuses() {
    let mut service = web(&["a", "b", "c", "d"]);
    service.breaker.max_ejection_percent = 50;
    let mut lab = Lab::new(vec![service]);
    lab.news();
    for name in ["a", "b", "c"] {
        lab.statuses(name, &[500; 3]);
    }
    let expected = [
        said(EventKind::Eject, "a", "consecutive_5xx"),
        said(EventKind::Eject, "b", "consecutive_5xx"),
        said(EventKind::Refused, "c", "ceiling"),
    ];
    assert_eq!(lab.news(), expected);
    let event = lab.events.last().expect("refused");
    assert_eq!((event.from.as_str(), event.to.as_str()), ("closed", "closed"));
    assert_eq!((event.evidence.out, event.evidence.max_ejection_percent), (2, 50));
    // The run starts again: the next refusal takes three more.
    lab.statuses("c", &[500; 2]);
    assert_eq!(lab.news(), []);
    lab.status("c", 500);
    assert_eq!(lab.news(), [said(EventKind::Refused, "c", "ceiling")]);
    let reason = "kept by the ceiling: 2 of 4 are out and max_ejection_percent is 50; \
                  3 failures in a row refused 0 ms ago";
    assert_eq!(lab.backend("c").reason.as_deref(), Some(reason));
}

#[test]
fn the_ceiling_is_exact() {
    // 100 * (out + 1) <= percent * backends: 33 % of three backends is none, 34 % is one.
    for (percent, kind) in [(33, EventKind::Refused), (34, EventKind::Eject)] {
        let mut service = web(&["a", "b", "c"]);
        service.breaker.max_ejection_percent = percent;
        let mut lab = Lab::new(vec![service]);
        lab.news();
        lab.statuses("a", &[500; 3]);
        assert_eq!(lab.news()[0].0, kind, "{percent} %");
    }
}

#[test]
fn one_may_always_be_ejected_if_so_configured() {
    let mut service = web(&["a", "b", "c"]);
    service.breaker.max_ejection_percent = 10;
    service.breaker.always_eject_one = true;
    let mut lab = Lab::new(vec![service]);
    lab.news();
    lab.statuses("a", &[500; 3]);
    lab.statuses("b", &[500; 3]);
    let expected = [said(EventKind::Eject, "a", "consecutive_5xx"), said(EventKind::Refused, "b", "ceiling")];
    assert_eq!(lab.news(), expected);
}

#[test]
fn the_floor_refuses_to_eject_below_min_serving() {
    let mut service = web(&["a", "b", "c"]);
    service.breaker.min_serving = 2;
    let mut lab = Lab::new(vec![service]);
    lab.news();
    lab.statuses("a", &[500; 3]);
    lab.statuses("b", &[500; 3]);
    assert_eq!(
        lab.news(),
        [said(EventKind::Eject, "a", "consecutive_5xx"), said(EventKind::Refused, "b", "floor")]
    );
    lab.wait(4000);
    let b = lab.backend("b");
    let reason = "kept by the floor: 2 of 3 backends serve and min_serving is 2; \
                  3 failures in a row refused 4 s ago";
    assert_eq!((b.effective, b.reason.as_deref()), (Effective::Serving, Some(reason)));
    // After an interval of good answers the refusal is no longer shown.
    lab.until(5000);
    lab.status("b", 200);
    lab.until(10_000);
    assert_eq!(lab.backend("b").reason, None);
}

#[test]
fn always_eject_one_does_not_lift_the_floor() {
    let mut service = web(&["a"]);
    service.breaker.always_eject_one = true;
    let mut lab = Lab::new(vec![service]);
    lab.news();
    lab.statuses("a", &[500; 3]);
    assert_eq!(lab.news(), [said(EventKind::Refused, "a", "floor")]);
}

#[test]
fn a_floor_of_zero_lets_the_last_one_go() {
    let mut service = web(&["a"]);
    service.breaker.min_serving = 0;
    let mut lab = Lab::new(vec![service]);
    lab.statuses("a", &[500; 3]);
    assert_eq!(lab.backend("a").effective, Effective::Ejected);
    assert_eq!(lab.table(), [].into());
}

#[test]
fn without_enforcement_nothing_moves() {
    let mut lab = two(|breaker| breaker.enforce = false);
    let written = lab.written.len();
    lab.statuses("a", &[500; 3]);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
    let event = lab.events.last().expect("just seen");
    assert_eq!((event.enforced, event.to.as_str(), event.until_ms, event.ejection), (false, "open", None, 0));
    let a = lab.backend("a");
    assert_eq!((a.effective, a.share, lab.written.len()), (Effective::Serving, 5000, written));
    assert_eq!(a.reason.as_deref(), Some("kept because nothing is enforced; 3 failures in a row 0 ms ago"));
    // If a limit refuses the detection, the event is a refusal.
    let mut lone = web(&["a"]);
    lone.breaker.enforce = false;
    let mut lab = Lab::new(vec![lone]);
    lab.news();
    lab.statuses("a", &[500; 3]);
    assert_eq!(lab.news(), [said(EventKind::Refused, "a", "floor")]);
    assert!(!lab.events.last().expect("just seen").enforced);
}

#[test]
fn lost_evidence_is_counted_and_distrusted() {
    let mut lab = two(|_| {});
    lab.statuses("a", &[200; 96]);
    lab.statuses("a", &[500; 2]);
    // 1 of 100 is not more than 1 %, once the third failure is in.
    lab.lose("a", 1);
    lab.status("a", 500);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);

    let mut lab = two(|_| {});
    lab.statuses("a", &[200; 95]);
    lab.statuses("a", &[500; 2]);
    lab.lose("a", 1);
    lab.status("a", 500);
    assert_eq!(lab.news(), [said(EventKind::Refused, "a", "evidence_lost")]);
    assert_eq!(lab.backend("a").responses.lost, 1);
    // The run goes on into the next window, which is whole.
    lab.statuses("a", &[500; 2]);
    lab.until(5000);
    lab.status("a", 500);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
}

#[test]
fn loss_at_one_backend_says_nothing_of_another() {
    let mut lab = two(|_| {});
    lab.lose("b", 1000);
    lab.statuses("a", &[500; 3]);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
}

/// Ejects `a` now and waits until it is closed again by the sweep that ends the ejection.
fn eject_and_return(lab: &mut Lab) -> u64 {
    lab.statuses("a", &[500; 3]);
    let time = lab.backend("a").until_ms.expect("ejected") - lab.now;
    while lab.backend("a").breaker != BreakerState::Closed {
        lab.wait(1000);
    }
    time.0
}

#[test]
fn ejections_grow_up_to_the_maximum() {
    let mut lab = two(|breaker| {
        breaker.half_open_trials = 0;
        breaker.max_ejection_time = Millis::secs(100);
    });
    let times: Vec<u64> = (0..6).map(|_| eject_and_return(&mut lab)).collect();
    assert_eq!(times, [30_000, 60_000, 90_000, 100_000, 100_000, 100_000]);
    // 5 * 30 >= 100 + 30: here the number stops, because a larger one would only take longer to decay.
    assert_eq!(lab.backend("a").ejection, 5);
}

#[test]
fn jitter_is_added_within_its_bound_and_drawn_once() {
    let bound = Millis(10_000);
    let mut lab = two(|breaker| {
        breaker.half_open_trials = 0;
        breaker.max_ejection_time = Millis::secs(30);
        breaker.max_ejection_time_jitter = bound;
    });
    let times: Vec<u64> = (0..12).map(|_| eject_and_return(&mut lab)).collect();
    assert!(times.iter().all(|time| (30_000..=40_000).contains(time)), "{times:?}");
    let distinct: std::collections::BTreeSet<_> = times.iter().collect();
    assert!(distinct.len() > 8, "{times:?}");
    lab.statuses("a", &[500; 3]);
    let until = lab.backend("a").until_ms;
    lab.wait(7000);
    assert_eq!(lab.backend("a").until_ms, until);
}

#[test]
fn the_number_decays_on_evidence_only() {
    let mut lab = two(|breaker| breaker.half_open_trials = 0);
    eject_and_return(&mut lab);
    eject_and_return(&mut lab);
    assert_eq!(lab.backend("a").ejection, 2);
    // No responses: nothing is forgiven.
    lab.wait(50_000);
    assert_eq!(lab.backend("a").ejection, 2);
    lab.status("a", 200);
    lab.wait(5000);
    assert_eq!(lab.backend("a").ejection, 1);
    lab.wait(5000);
    assert_eq!(lab.backend("a").ejection, 1);
}

#[test]
fn a_sweep_with_a_detection_forgives_nothing() {
    let mut lab = two(|breaker| breaker.half_open_trials = 0);
    eject_and_return(&mut lab);
    // The floor holds `a` while `b` is out.
    lab.statuses("b", &[500; 3]);
    lab.statuses("a", &[500; 3]);
    lab.status("a", 200);
    assert_eq!(lab.news().last(), Some(&said(EventKind::Refused, "a", "floor")));
    lab.wait(5000);
    assert_eq!(lab.backend("a").ejection, 1);
}

#[test]
fn the_number_decays_with_time_alone_if_so_configured() {
    let mut lab = two(|breaker| {
        breaker.half_open_trials = 0;
        breaker.backoff_decay = crate::config::BackoffDecay::Time;
    });
    eject_and_return(&mut lab);
    eject_and_return(&mut lab);
    lab.wait(5000);
    assert_eq!(lab.backend("a").ejection, 1);
    lab.wait(5000);
    assert_eq!(lab.backend("a").ejection, 0);
}

#[test]
fn each_service_waits_as_its_breaker_says() {
    let lab = two(|breaker| {
        breaker.connect_timeout = Millis(300);
        breaker.response_timeout = Millis(700);
    });
    let waits = Timeouts { connect: Millis(300), response: Millis(700) };
    assert_eq!(lab.engine.timeouts(), [(lab.service().id, waits)].into());
}
