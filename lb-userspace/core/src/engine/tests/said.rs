//! The words of status and `why`: their numbers, their codes, and for how long they hold.

use super::{
    exact::lab,
    lab::{Lab, probe, said, web},
    suspects::probed_by,
};
use crate::{
    codes::{BackendReason, DetectorNext, NextCode},
    config::{self, Breaker, Detector, HttpProbe, Probe, ProbeKind},
    event::EventKind,
    io::{Admit, Input, Operation, Verb},
    outcome::{ClientCounts, L4Failure, Outcome, ProbeResult},
    snapshot::DetectorSnapshot,
    states::Panic,
};

const MANY: ClientCounts = ClientCounts { prefixes: 5, addresses: 5 };
const LONE: ClientCounts = ClientCounts { prefixes: 1, addresses: 1 };
const CLIENT: &str = "192.0.2.1";

fn http() -> ProbeKind {
    ProbeKind::Http(HttpProbe::default())
}

fn codes(lab: &Lab) -> Vec<NextCode> {
    let why = lab.engine.why("web", "a", lab.now).expect("it is there");
    why.next.iter().map(|next| next.code).collect()
}

fn detector(lab: &Lab, detector: Detector) -> DetectorSnapshot {
    let all = lab.engine.why("web", "a", lab.now).expect("it is there").detectors;
    all.into_iter().find(|of| of.name == detector.name()).expect("it is on")
}

fn reason(lab: &Lab) -> Option<BackendReason> {
    lab.backend("a").reason_code
}

#[test]
fn those_in_the_fallback_are_not_among_all() {
    let mut service = web(&["a", "b", "x"]);
    service.fallback = service.backends.split_off(2);
    service.probe = Some(Probe { fail_open_percent: 100, ..probe() });
    let mut lab = Lab::new(vec![service]);
    for name in ["a", "b", "x"] {
        lab.probe(name, true);
        (0..3).for_each(|_| lab.probe(name, false));
    }
    assert_eq!(lab.service().panic, Some(Panic::ProbesFail));
    let says = lab.backend("a").reason.expect("said");
    assert!(says.contains("because 2 of 2 are down at once"), "{says}");
}

#[test]
fn an_ejection_is_over_when_its_time_is_over() {
    let mut lab = probed_by(http(), |_| {});
    lab.until(1000);
    lab.statuses("a", &[500; 3]);
    lab.until(30_999);
    assert_eq!(reason(&lab), Some(BackendReason::Ejected));
    lab.until(31_000);
    assert_eq!(reason(&lab), Some(BackendReason::EjectedTimeOver));
    let mut unknown = Lab::new(vec![config::Service { probe: Some(probe()), ..web(&["a", "b"]) }]);
    unknown.statuses("a", &[500; 3]);
    unknown.until(31_000);
    assert_eq!(reason(&unknown), Some(BackendReason::EjectedProbeNotUp));
    let mut lab = probed_by(http(), |policy| policy.probe_readmits = true);
    lab.statuses("a", &[500; 3]);
    (0..3).for_each(|_| lab.probe("a", false));
    lab.until(29_000);
    assert_eq!(reason(&lab), Some(BackendReason::ProbeFails));
}

#[test]
fn a_suspicion_is_reported_once_a_second() {
    let mut lab = lab(&["a", "b"], |policy| policy.min_clients = 2);
    let mut reports = |at| {
        lab.until(at);
        for _ in 0..3 {
            lab.seen_by("a", Outcome::Status(500), CLIENT, MANY);
        }
        lab.news().len()
    };
    assert_eq!([reports(1000), reports(1999), reports(2000)], [1, 0, 1]);
}

#[test]
fn a_probe_that_asks_for_an_answer_says_more_than_a_handshake() {
    for (kind, waits) in [(http(), false), (ProbeKind::Tcp, true)] {
        let mut lab = probed_by(kind.clone(), |_| {});
        lab.seen_by("a", Outcome::Failure(L4Failure::ResponseTimeout), CLIENT, MANY);
        let (_, asked) = lab.confirmations[0].clone();
        assert_eq!(*asked.kind, kind);
        let passes = if waits { ProbeResult::Pass } else { ProbeResult::Status(200) };
        lab.confirm("a", passes, false);
        assert_eq!(codes(&lab).contains(&NextCode::Confirmed), waits, "{kind:?}");
    }
}

#[test]
fn unconfirmed_failures_are_reported_at_the_threshold_or_at_five() {
    for (threshold, reported) in [(0, 5), (3, 3), (1, 1)] {
        let mut lab = probed_by(http(), |policy| policy.consecutive_5xx = threshold);
        for count in 1..=reported {
            assert_eq!(lab.news(), [], "{count} of {reported}");
            lab.seen_by("a", Outcome::Failure(L4Failure::ConnectTimeout), CLIENT, MANY);
        }
        let event = lab.events.last().expect("one");
        assert_eq!((event.kind, event.reason.as_str()), (EventKind::Suspected, "consecutive_5xx"));
        let s = if reported == 1 { "" } else { "s" };
        let says = format!("{reported} L4 failure{s} in a row that nothing confirms");
        assert_eq!(event.evidence.detail.as_deref(), Some(says.as_str()));
    }
}

#[test]
fn a_decision_is_news_until_an_interval_without_a_failure() {
    let refused = |change: fn(&mut Breaker)| {
        let mut lab = lab(&["a", "b"], |policy| {
            policy.min_serving = 2;
            change(policy);
        });
        lab.statuses("a", &[500; 3]);
        assert_eq!(lab.news(), [said(EventKind::Refused, "a", "floor")]);
        lab.until(5000);
        assert_eq!(reason(&lab), Some(BackendReason::Floor), "the interval had failures");
        lab
    };
    let mut silent = refused(|_| {});
    silent.until(10_000);
    assert_eq!(reason(&silent), Some(BackendReason::Floor), "nothing came");
    silent.statuses("a", &[200; 2]);
    silent.until(15_000);
    assert_eq!(reason(&silent), None);
    let mut failing = refused(|_| {});
    failing.statuses("a", &[200, 500]);
    failing.until(10_000);
    assert_eq!(reason(&failing), Some(BackendReason::Floor));
    let mut split = refused(|policy| policy.split_l4_failures = true);
    split.status("a", 200);
    split.outcome("a", Outcome::Failure(L4Failure::Reset));
    split.until(10_000);
    assert_eq!(reason(&split), Some(BackendReason::Floor));
}

#[test]
fn one_on_trial_gets_a_slot_among_many_that_serve() {
    let names: Vec<String> = (0..20).map(|n| format!("b{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut lab = lab(&names, |_| {});
    lab.until(1000);
    lab.statuses("b19", &[500; 3]);
    lab.until(35_000);
    assert_eq!(lab.admit("b19"), Some(Admit::Trials));
    let id = lab.backend("b19").id;
    assert!(lab.maps.services.values().any(|(_, trials)| trials.contains(&id)));
}

#[test]
fn a_budget_is_counted_until_its_trials_are_taken() {
    let mut lab = lab(&["a", "b"], |policy| policy.half_open_trials = 4);
    lab.until(1000);
    lab.statuses("a", &[500; 3]);
    let budgets = |lab: &Lab| lab.engine.trial_budgets().collect::<Vec<_>>();
    assert_eq!(budgets(&lab), []);
    lab.slow = true;
    lab.until(35_000);
    let a = lab.backend("a").id;
    assert_eq!(budgets(&lab), [], "it is being written");
    while !lab.waiting.is_empty() {
        lab.answer();
    }
    assert_eq!(budgets(&lab), [(a, 4)]);
    lab.send(Input::TrialsTaken { backend: a });
    assert_eq!(budgets(&lab), []);
}

#[test]
fn detectors_say_how_many_of_how_many_and_when() {
    let mut lab = lab(&["a", "b"], |policy| {
        policy.split_l4_failures = true;
        policy.consecutive_5xx = 0;
        policy.error_rate_threshold = 10;
        policy.failure_percentage_threshold = 20;
    });
    lab.statuses("a", &[200; 3]);
    (0..2).for_each(|_| lab.outcome("a", Outcome::Answered));
    (0..4).for_each(|_| lab.outcome("a", Outcome::Failure(L4Failure::Reset)));
    let l4 = detector(&lab, Detector::FailurePercentageL4);
    assert_eq!((l4.count, l4.total, l4.threshold), (4, Some(9), Some(2000)));
    assert_eq!(l4.next_code, DetectorNext::MoreFailuresAtSweep);
    let rate = detector(&lab, Detector::ErrorRate);
    assert_eq!(
        (rate.total, rate.threshold, rate.next_code),
        (Some(3), Some(1000), DetectorNext::MoreFailures)
    );
}

#[test]
fn all_failures_are_enough_for_a_threshold_of_all() {
    let mut lab = lab(&["a", "b"], |policy| {
        (policy.consecutive_5xx, policy.error_rate_threshold) = (0, 100);
        policy.error_rate_min_responses = 5;
    });
    lab.statuses("a", &[500; 2]);
    let rate = detector(&lab, Detector::ErrorRate);
    assert_eq!((rate.next_code, rate.next.as_str()), (DetectorNext::MoreFailures, "3 more in a row"));
    lab.status("a", 200);
    assert_eq!(detector(&lab, Detector::ErrorRate).next_code, DetectorNext::NotWithThisWindow);
}

#[test]
fn the_line_of_the_success_rate_is_that_of_those_who_serve() {
    let line = |ejected: bool| {
        let mut lab = lab(&["a", "b", "c"], |policy| {
            policy.consecutive_5xx = 40;
            policy.success_rate_stdev_factor = 500;
            policy.success_rate_min_backends = 2;
            policy.success_rate_min_responses = 10;
        });
        lab.statuses("a", &[200; 10]);
        lab.statuses("b", &[200; 5]);
        lab.statuses("b", &[500; 5]);
        if ejected {
            // Clients that were connected before go on.
            lab.statuses("c", &[500; 60]);
        }
        detector(&lab, Detector::SuccessRate).threshold
    };
    assert!(line(false).is_some());
    assert_eq!(line(false), line(true));
}

#[test]
fn an_ejection_ends_with_trials_where_there_are_any() {
    let mut lab = lab(&["a", "b"], |_| {});
    lab.statuses("a", &[500; 3]);
    assert_eq!(codes(&lab)[0], NextCode::HalfOpen);
    let mut none = self::lab(&["a", "b"], |policy| policy.half_open_trials = 0);
    none.statuses("a", &[500; 3]);
    assert_eq!(codes(&none)[0], NextCode::Serving);
    let mut quiet = self::lab(&["a", "b"], |policy| policy.enforce = false);
    let (service, backend, actor) = ("web".to_owned(), "a".to_owned(), "alice".to_owned());
    let (verb, duration, reason, force) = (Verb::Eject, None, None, false);
    quiet.operate(&Operation { service, backend, verb, duration, reason, actor, force }).expect("it may");
    assert_eq!(codes(&quiet)[0], NextCode::Serving);
}

#[test]
fn more_clients_are_asked_for_only_where_there_are_more() {
    let asks = |least, client_counts| {
        let mut lab = lab(&["a", "b"], |policy| policy.min_clients = least);
        lab.seen_by("a", Outcome::Status(500), CLIENT, client_counts);
        codes(&lab).contains(&NextCode::MoreClients)
    };
    assert!(asks(2, MANY));
    assert!(!asks(1, MANY) && !asks(2, LONE));
}
