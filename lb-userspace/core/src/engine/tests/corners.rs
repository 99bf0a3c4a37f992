//! Where one condition of a rule decides alone.

use std::time::Duration;

use super::{
    super::forwarding,
    drain::order,
    exact::lab,
    lab::{Lab, probe, said, web},
};
use crate::{
    config::{self, Breaker, Probe},
    event::{EventKind, Rate},
    io::{Input, Verb},
    outcome::{ClientCounts, L4Failure, Outcome},
    states::{BreakerState, Panic, PathState},
    time::Millis,
};

const MANY: ClientCounts = ClientCounts { prefixes: 5, addresses: 5 };
const CLIENTS: [&str; 2] = ["192.0.2.1", "198.51.100.1"];

/// `a` is half-open.
fn half_open(change: impl FnOnce(&mut Breaker)) -> Lab {
    let mut lab = lab(&["a", "b"], change);
    lab.statuses("a", &[500; 3]);
    lab.until(35_000);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
    lab.news();
    lab
}

#[test]
fn a_response_after_its_timeout_is_a_failure_and_one_before_it_is_none() {
    let late = |ms| {
        let mut lab = lab(&["a", "b"], |policy| policy.response_timeout = Millis(700));
        lab.timed("a", Outcome::Status(200), Some(Duration::from_millis(ms)));
        lab.backend("a").responses.l4_failures
    };
    assert_eq!((late(699), late(700)), (0, 1));
    let mut none = lab(&["a", "b"], |policy| policy.response_timeout = Millis(0));
    none.timed("a", Outcome::Status(200), Some(Duration::from_secs(9)));
    assert_eq!(none.backend("a").responses.l4_failures, 0);
}

#[test]
fn a_bad_response_acquits_of_l4_failures_only_where_they_are_split_off() {
    for split in [true, false] {
        let mut lab = lab(&["a", "b"], |policy| policy.split_l4_failures = split);
        for client in CLIENTS {
            lab.seen_by("a", Outcome::Failure(L4Failure::ConnectRefused), client, MANY);
        }
        let waits = |lab: &Lab| {
            let why = lab.engine.why("web", "a", lab.now).expect("it is there");
            why.sentences().iter().any(|says| says.contains("once confirmed"))
        };
        assert!(waits(&lab));
        lab.seen_by("a", Outcome::Status(500), CLIENTS[0], MANY);
        assert_eq!(waits(&lab), !split);
        lab.seen_by("a", Outcome::Status(200), CLIENTS[0], MANY);
        assert!(!waits(&lab));
    }
}

#[test]
fn counted_good_responses_come_first_in_a_window_too() {
    let six = ["a", "b", "c", "d", "e", "f"];
    let mut lab = lab(&six, |policy| {
        policy.consecutive_5xx = 0;
        policy.failure_percentage_threshold = 50;
    });
    for name in six {
        let backend = lab.backend(name).id;
        lab.send(Input::Successes { backend, count: 60 });
        lab.statuses(name, &[500; 40]);
    }
    lab.until(5000);
    assert_eq!(lab.news(), []);
}

#[test]
fn counted_good_responses_are_heads_that_were_not_lost() {
    let mut lab = lab(&["a", "b"], |_| {});
    let backend = lab.backend("a").id;
    lab.send(Input::Successes { backend, count: 1000 });
    lab.lose("a", 5);
    lab.statuses("a", &[500; 3]);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
}

#[test]
fn the_share_of_failures_that_ejects_is_in_the_event() {
    let six = ["a", "b", "c", "d", "e", "f"];
    let mut lab = lab(&six, |policy| {
        policy.consecutive_5xx = 0;
        policy.failure_percentage_threshold = 50;
    });
    for name in six {
        lab.statuses(name, &[200; 80]);
    }
    lab.statuses("a", &[500; 120]);
    lab.until(5000);
    let event = lab.events.last().expect("one");
    assert_eq!((event.kind, event.reason.as_str()), (EventKind::Eject, "failure_percentage"));
    assert_eq!(event.evidence.rate, Some(Rate::of(120, 200, 5000, Millis(5000))));
}

#[test]
fn nothing_is_enforced_and_a_trial_that_fails_is_only_reported() {
    let mut lab = lab(&["a", "b"], |_| {});
    order(&mut lab, "a", Verb::Eject);
    lab.until(35_000);
    let mut service = web(&["a", "b"]);
    service.breaker.enforce = false;
    lab.reload(vec![service]);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
    lab.news();
    lab.status("a", 500);
    let event = lab.events.last().expect("one").clone();
    assert_eq!((event.kind, event.enforced), (EventKind::Eject, false));
    assert_eq!(event.reason.as_str(), "half_open_failure");
    assert_eq!(lab.backend("a").reason_code.map(|code| code.as_str()), Some("half_open"));
    lab.statuses("a", &[200; 3]);
    let event = lab.events.last().expect("one");
    assert_eq!((event.kind, event.enforced), (EventKind::Readmit, true), "that it returns is no report");
}

#[test]
fn a_trial_that_one_client_fails_is_suspected_and_one_without_evidence_refused() {
    let mut lab = half_open(|policy| policy.min_clients = 2);
    lab.seen_by("a", Outcome::Status(500), CLIENTS[0], MANY);
    assert_eq!(lab.news(), [said(EventKind::Suspected, "a", "half_open_failure")]);
    let mut lab = half_open(|_| {});
    lab.lose("a", 50);
    lab.status("a", 500);
    assert_eq!(lab.news(), [said(EventKind::Refused, "a", "evidence_lost")]);
}

#[test]
fn fewer_trials_hold_for_a_budget_that_is_to_be_written() {
    let mut lab = half_open(|policy| policy.half_open_trials = 10);
    let a = lab.backend("a").id;
    let tokens = |lab: &Lab| {
        let service = lab.engine.services.values().next().expect("one");
        forwarding::wanted(service, false).backends[&a].budget.map(|grant| grant.tokens)
    };
    assert_eq!((tokens(&lab), lab.maps.budgets[&a]), (Some(10), 10));
    let mut service = web(&["a", "b"]);
    service.breaker.half_open_trials = 2;
    lab.reload(vec![service]);
    assert_eq!(tokens(&lab), Some(2));
}

fn probed(change: impl FnOnce(&mut config::Service)) -> Lab {
    let mut service = web(&["a", "b", "c"]);
    service.probe = Some(Probe { fail_open_percent: 100, ..probe() });
    change(&mut service);
    let mut lab = Lab::new(vec![service]);
    for name in ["a", "b", "c"] {
        lab.probe(name, true);
    }
    lab
}

#[test]
fn probes_fail_open_by_those_alone_that_could_serve() {
    let fail = |lab: &mut Lab, names: &[&str]| {
        names.iter().for_each(|name| (0..3).for_each(|_| lab.probe(name, false)));
        lab.service().panic
    };
    // One that is disabled or in the fallback is not asked.
    let mut lab = probed(|_| {});
    order(&mut lab, "c", Verb::Disable);
    assert_eq!(fail(&mut lab, &["a"]), None);
    assert_eq!(fail(&mut lab, &["b"]), Some(Panic::ProbesFail));
    let mut lab = probed(|service| service.fallback = service.backends.split_off(2));
    assert_eq!(fail(&mut lab, &["c", "a"]), None, "of two one");
    // Nor one that the packet path cannot reach.
    let mut lab = probed(|_| {});
    let backend = lab.backend("c");
    let path = PathState::NoRoute;
    lab.send(Input::Path { backend: backend.id, generation: backend.generation, path });
    assert_eq!(fail(&mut lab, &["a", "b"]), Some(Panic::ProbesFail));
    // With all of them disabled there is nobody to ask.
    let mut lab = probed(|_| {});
    for name in ["a", "b", "c"] {
        order(&mut lab, name, Verb::Disable);
    }
    assert_eq!(lab.service().panic, None);
}
