//! A reload switches a detector off while a backend is ejected by it.

use super::lab::{Lab, probe, said, web};
use crate::{
    Settings,
    codes::{BackendReason, NextCode},
    config::{Breaker, Detector, Service},
    event::EventKind,
    io::{Operation, Verb},
    states::{BreakerState, Effective},
    time::Millis,
};

fn with(change: impl FnOnce(&mut Breaker)) -> Service {
    let mut service = web(&["a", "b"]);
    change(&mut service.breaker);
    service
}

fn ejected() -> Lab {
    let mut lab = Lab::new(vec![with(|_| {})]);
    lab.statuses("a", &[500; 3]);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
    lab.news();
    lab
}

/// Each way to switch it off.
const OFF: [fn(&mut Breaker); 3] = [
    |breaker| breaker.consecutive_5xx = 0,
    |breaker| breaker.enforce = false,
    |breaker| breaker.shadow = [Detector::Consecutive5xx].into(),
];

#[test]
fn without_a_detector_that_could_have_ejected_it_a_backend_is_readmitted_at_once() {
    for off in OFF {
        let mut lab = ejected();
        lab.reload(vec![with(off)]);
        assert_eq!(lab.news(), [said(EventKind::Readmit, "a", "detectors_off")]);
        let event = lab.events.last().expect("just seen");
        assert_eq!((event.from.as_str(), event.to.as_str()), ("open", "closed"));
        assert_eq!(event.actor, "config");
        let a = lab.backend("a");
        assert_eq!((a.effective, a.share, a.reason), (Effective::Serving, 5000, None));
    }
}

#[test]
fn so_is_one_that_is_half_open() {
    for off in OFF {
        let mut lab = ejected();
        lab.until(lab.backend("a").until_ms.expect("it is open").0 + 10_000);
        assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
        lab.news();
        lab.reload(vec![with(off)]);
        assert_eq!(lab.news(), [said(EventKind::Readmit, "a", "detectors_off")]);
        assert_eq!(lab.backend("a").effective, Effective::Serving);
    }
}

#[test]
fn so_is_one_whose_last_trial_failed() {
    let mut lab = ejected();
    lab.until(lab.backend("a").until_ms.expect("it is open").0 + 10_000);
    lab.status("a", 500);
    assert_eq!((lab.backend("a").breaker, lab.backend("a").ejection), (BreakerState::Open, 2));
    lab.reload(vec![with(OFF[0])]);
    assert_eq!(lab.backend("a").effective, Effective::Serving);
}

#[test]
fn its_probe_keeps_a_backend_out_all_the_same() {
    let mut probed = with(|_| {});
    probed.probe = Some(probe());
    let mut lab = Lab::new(vec![probed.clone()]);
    for name in ["a", "b"] {
        lab.probe(name, true);
    }
    lab.statuses("a", &[500; 3]);
    (0..3).for_each(|_| lab.probe("a", false));
    probed.breaker.consecutive_5xx = 0;
    lab.reload(vec![probed]);
    let a = lab.backend("a");
    assert_eq!((a.breaker, a.effective), (BreakerState::Closed, Effective::Down));
}

#[test]
fn another_detector_of_failures_keeps_it_out_and_why_says_how_it_returns() {
    let mut lab = ejected();
    let until = lab.backend("a").until_ms;
    lab.reload(vec![with(|breaker| {
        breaker.consecutive_5xx = 0;
        breaker.error_rate_threshold = 50;
    })]);
    assert_eq!(lab.news(), []);
    assert_eq!((lab.backend("a").breaker, lab.backend("a").until_ms), (BreakerState::Open, until));
    let why = lab.engine.why("web", "a", lab.now).expect("it is there");
    let off = why.next.iter().find(|next| next.code == NextCode::DetectorOff).expect("its detector is off");
    let says = "consecutive_5xx, which ejected it, is off; `shunt backend admit web/a` readmits it at once";
    assert_eq!(off.says, says);
    assert!(why.next.iter().any(|next| next.code == NextCode::HalfOpen), "it says when");
    // Slow responses are another matter: no detector of them could have ejected it.
    lab.reload(vec![with(|breaker| {
        breaker.consecutive_5xx = 0;
        breaker.slow_threshold = Millis(20);
    })]);
    assert_eq!(lab.news(), [said(EventKind::Readmit, "a", "detectors_off")]);
}

#[test]
fn an_operators_ejection_stays() {
    let mut lab = Lab::new(vec![with(|_| {})]);
    let (service, backend, actor) = ("web".to_owned(), "a".to_owned(), "alice".to_owned());
    let (verb, duration, reason, force) = (Verb::Eject, None, None, false);
    lab.operate(&Operation { service, backend, verb, duration, reason, actor, force }).expect("it may");
    lab.news();
    for off in OFF {
        lab.reload(vec![with(off)]);
        assert_eq!(lab.news(), []);
        assert_eq!(lab.backend("a").breaker, BreakerState::Open);
    }
}

#[test]
fn a_restart_with_a_new_file_readmits_it_too() {
    let before = ejected();
    for (policy, expected) in [(with(|_| {}), BreakerState::Open), (with(OFF[0]), BreakerState::Closed)] {
        let restored = Some(before.engine.export(before.now));
        let mut lab = Lab::empty(Settings { seed: 7, restored, ..Settings::default() });
        lab.reload(vec![policy]);
        assert_eq!(lab.backend("a").breaker, expected);
    }
}

#[test]
fn what_another_policy_decided_is_not_said_any_more() {
    let mut lab = Lab::new(vec![with(|breaker| breaker.enforce = false)]);
    lab.statuses("a", &[500; 3]);
    assert_eq!(lab.backend("a").reason_code, Some(BackendReason::NotEnforced));
    lab.reload(vec![with(|_| {})]);
    assert_eq!(lab.backend("a").reason, None);
    lab.statuses("a", &[500; 3]);
    assert_eq!(lab.backend("a").effective, Effective::Ejected);
}
