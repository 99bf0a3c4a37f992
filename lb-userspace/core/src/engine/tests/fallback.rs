//! The fallback: backends that are used only while no other one serves.

use std::collections::BTreeSet;

use super::lab::{Lab, probe, said, web};
use crate::{
    codes::BackendReason,
    config::{self, NoBackend},
    engine::Refused,
    event::EventKind,
    io::{Admit, Operation, Verb},
    states::{BreakerState, Effective},
    time::Millis,
};

/// `a` and `b`, and `x` and `y` for when they do not serve. Nothing keeps the breaker from ejecting.
fn service() -> config::Service {
    let mut service = web(&["a", "b", "x", "y"]);
    service.fallback = service.backends.split_off(2);
    service.breaker.min_serving = 0;
    service
}

fn lab(service: config::Service) -> Lab {
    let mut lab = Lab::new(vec![service]);
    lab.until(1000);
    lab.news();
    lab
}

fn order(backend: &str, verb: Verb) -> Operation {
    let (service, backend, actor) = ("web".to_owned(), backend.to_owned(), "alice".to_owned());
    Operation { service, backend, verb, duration: None, reason: None, actor, force: false }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn fallback_news(lab: &mut Lab) -> Vec<String> {
    let news = lab.news().into_iter().filter(|(kind, ..)| *kind == EventKind::Fallback);
    news.map(|(_, of, reason)| format!("{of} {reason}")).collect()
}

#[test]
fn it_is_used_only_while_none_of_the_others_serves() {
    let mut lab = lab(service());
    assert_eq!(lab.table(), names(&["a", "b"]));
    let regular: Vec<_> = lab.service().regular().map(|backend| backend.name.clone()).collect();
    assert_eq!(regular, ["a", "b"]);
    lab.statuses("a", &[500; 3]);
    assert_eq!((lab.table(), lab.service().fallback), (names(&["b"]), false));
    lab.news();
    lab.statuses("b", &[500; 3]);
    assert_eq!((lab.table(), lab.service().fallback), (names(&["x", "y"]), true));
    let expected =
        [said(EventKind::Eject, "b", "consecutive_5xx"), said(EventKind::Fallback, "web", "nobody_serves")];
    assert_eq!(lab.news(), expected);
    let event = lab.events.last().expect("there is an event");
    assert_eq!((event.from.as_str(), event.to.as_str(), event.actor.as_str()), ("unused", "used", "breaker"));
    // A half-open backend does not serve yet.
    lab.until(35_000);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
    assert_eq!((lab.table(), lab.admit("a")), (names(&["x", "y"]), Some(Admit::Trials)));
    lab.news();
    lab.statuses("a", &[200; 3]);
    assert_eq!((lab.table(), lab.service().fallback), (names(&["a"]), false));
    assert_eq!(fallback_news(&mut lab), ["web others_serve"]);
    // The connections of the fallback continue.
    assert_eq!((lab.admit("x"), lab.flow_reset("x")), (Some(Admit::All), crate::io::FlowReset::Never));
}

#[test]
fn the_event_names_the_actor() {
    let mut lab = lab(service());
    lab.operate(&order("a", Verb::Drain)).expect("no floor");
    lab.operate(&order("b", Verb::Disable)).expect("no floor");
    let event = lab.events.last().expect("there is an event");
    assert_eq!((event.kind, event.actor.as_str()), (EventKind::Fallback, "alice"));
}

#[test]
fn shares_follow_the_weights() {
    let mut service = service();
    service.fallback[1].weight = 300;
    let mut lab = lab(service);
    assert_eq!((lab.backend("x").share, lab.backend("y").share), (0, 0));
    ["a", "b"].iter().for_each(|name| lab.statuses(name, &[500; 3]));
    assert_eq!((lab.backend("x").share, lab.backend("y").share), (2500, 7500));
}

#[test]
fn it_has_probe_and_breaker_of_its_own() {
    let mut service = service();
    service.probe = Some(probe());
    let mut lab = Lab::new(vec![service]);
    lab.until(200);
    assert_eq!(lab.probes.len(), 4);
    ["a", "b"].iter().for_each(|name| lab.probe(name, false));
    // Nothing is known of the fallback yet.
    assert_eq!(lab.table(), names(&["x", "y"]));
    lab.probe("x", true);
    assert_eq!(lab.table(), names(&["x"]));
    lab.probe("y", true);
    lab.statuses("x", &[500; 3]);
    assert_eq!((lab.backend("x").effective, lab.table()), (Effective::Ejected, names(&["y"])));
    lab.news();
    (0..3).for_each(|_| lab.probe("y", false));
    assert_eq!((lab.table(), lab.service().fallback), (names(&[]), false));
    assert_eq!(fallback_news(&mut lab), ["web fallback_out"]);
}

#[test]
fn it_counts_for_nothing_with_the_others() {
    // One of two is the ceiling, with two more behind them.
    let mut service = service();
    service.breaker.max_ejection_percent = 50;
    service.breaker.min_serving = 1;
    service.breaker.panic_threshold = 50;
    let mut lab = lab(service);
    lab.statuses("x", &[500; 3]);
    assert_eq!(lab.backend("x").breaker, BreakerState::Open, "it has a ceiling of its own");
    lab.statuses("a", &[500; 3]);
    assert_eq!((lab.backend("a").breaker, lab.service().panic.is_some()), (BreakerState::Open, false));
    lab.news();
    lab.statuses("b", &[500; 3]);
    assert_eq!(lab.news(), [said(EventKind::Refused, "b", "ceiling")]);
    let event = lab.events.last().expect("there is an event");
    assert_eq!((event.evidence.backends, event.evidence.out, event.evidence.serving), (2, 1, 1));
    let refused = lab.operate(&order("b", Verb::Drain)).expect_err("the last one");
    assert!(matches!(refused, Refused::Floor { serving: 1, left: 0, backends: 2, .. }), "{refused:?}");
    // Unused it may be taken out, whatever the floor.
    lab.operate(&order("y", Verb::Drain)).expect("nobody uses it");
}

#[test]
fn rates_are_compared_with_their_like() {
    let mut service = service();
    service.breaker.consecutive_5xx = 0;
    service.breaker.failure_percentage_threshold = 50;
    service.breaker.failure_percentage_min_responses = 1;
    service.breaker.failure_percentage_min_backends = 3;
    let mut lab = lab(service);
    ["a", "b", "x", "y"].iter().for_each(|name| lab.status(name, 500));
    lab.until(5000);
    assert!(
        lab.service().backends.iter().all(|of| of.breaker == BreakerState::Closed),
        "two and two, not four"
    );
}

#[test]
fn it_is_better_than_a_panic() {
    let mut service = service();
    service.no_backend = NoBackend::Any;
    service.breaker.panic_threshold = 40;
    let mut lab = lab(service);
    ["a", "b"].iter().for_each(|name| lab.statuses(name, &[500; 3]));
    assert_eq!((lab.table(), lab.service().panic.is_some()), (names(&["x", "y"]), false));
    ["x", "y"].iter().for_each(|name| lab.operate(&order(name, Verb::Disable)).expect("no floor"));
    assert_eq!((lab.table(), lab.service().panic.is_some()), (names(&["a", "b"]), true));
}

#[test]
fn unused_it_takes_no_trials_and_comes_back_without() {
    let mut lab = lab(service());
    lab.statuses("x", &[500; 3]);
    lab.until(35_000);
    assert_eq!(lab.backend("x").breaker, BreakerState::HalfOpen);
    let trial_slots = |lab: &Lab| lab.maps.services.values().next().expect("its VIP").1.clone();
    assert_eq!(trial_slots(&lab), []);
    lab.until(50_000);
    assert_eq!(lab.backend("x").breaker, BreakerState::Closed);

    // In use it has them.
    lab.statuses("x", &[500; 3]);
    ["a", "b"].iter().for_each(|name| lab.operate(&order(name, Verb::Disable)).expect("no floor"));
    lab.until(115_000);
    assert_eq!(trial_slots(&lab), [lab.backend("x").id]);
    lab.operate(&order("a", Verb::Enable)).expect("any");
    assert_eq!(trial_slots(&lab), [], "not for a moment longer");
}

#[test]
fn status_and_why_say_what_it_is() {
    let mut lab = lab(service());
    let x = lab.backend("x");
    assert!(x.fallback && !lab.backend("a").fallback);
    assert_eq!(x.reason.as_deref(), Some("a fallback: gets nothing while one of the others serves"));
    assert_eq!(lab.service().regular().count(), 2);
    ["a", "b"].iter().for_each(|name| lab.statuses(name, &[500; 3]));
    let why = lab.engine.why("web", "x", lab.now).expect("there");
    assert_eq!(why.backend.reason.as_deref(), Some("a fallback: used because none of the others serves"));
}

#[test]
fn a_reload_may_move_a_backend_into_it_and_out_again() {
    let mut lab = lab(service());
    let before = lab.backend("b");
    let mut moved = service();
    let b = moved.backends.pop().expect("two");
    moved.fallback.push(b);
    moved.breaker.slow_start = Millis(0);
    lab.reload(vec![moved]);
    let after = lab.backend("b");
    assert_eq!((after.id, after.fallback, lab.table()), (before.id, true, names(&["a"])));
    lab.reload(vec![service()]);
    assert_eq!((lab.backend("b").id, lab.table()), (before.id, names(&["a", "b"])));
}

#[test]
fn a_decision_about_the_fallback_counts_the_fallback() {
    let mut service = service();
    service.fallback.push(web(&["a", "b", "x", "y", "z"]).backends.remove(4));
    let mut lab = lab(service);
    lab.statuses("a", &[500; 3]);
    let evidence = lab.events.last().expect("one").evidence.clone();
    assert_eq!((evidence.serving, evidence.backends), (2, 2));
    lab.statuses("b", &[500; 3]);
    lab.statuses("x", &[500; 3]);
    let ejection = lab.events.iter().rfind(|event| event.backend.as_deref() == Some("x")).expect("one");
    assert_eq!((ejection.evidence.serving, ejection.evidence.backends), (3, 3));
}

#[test]
fn a_fallback_that_was_not_probed_says_whether_it_is_used() {
    let mut lab = lab(config::Service { probe: Some(probe()), ..service() });
    for name in ["a", "b"] {
        lab.probe(name, false);
    }
    let reason = |lab: &Lab, name| lab.backend(name).reason_code.map(BackendReason::as_str);
    assert_eq!(reason(&lab, "x"), Some("not_probed_used"));
    lab.probe("y", true);
    assert_eq!(reason(&lab, "x"), Some("not_probed_unused"));
}
