//! Operators: the third axis, the breaker by hand, weights, and the floor they have to force.

use std::num::NonZeroU16;

use super::lab::{Lab, said, web};
use crate::{
    codes::OverrideCode,
    engine::Refused,
    event::EventKind,
    io::{Admit, Operation, Verb},
    states::{BreakerState, Effective, OperatorState},
    time::{Instant, Millis},
};

fn lab(names: &[&str]) -> Lab {
    let mut lab = Lab::new(vec![web(names)]);
    lab.until(1000);
    lab.news();
    lab
}

fn order(backend: &str, verb: Verb) -> Operation {
    Operation {
        service: "web".to_owned(),
        backend: backend.to_owned(),
        verb,
        duration: None,
        reason: Some("deploy".to_owned()),
        actor: "alice".to_owned(),
        force: false,
    }
}

#[test]
fn disabled_and_draining_get_nothing_until_enabled() {
    for (verb, state, effective, words) in [
        (Verb::Disable, OperatorState::Disabled, Effective::Disabled, "disabled by alice (deploy)"),
        (
            Verb::Drain,
            OperatorState::Draining,
            Effective::Draining,
            "draining: no new connections, by alice (deploy)",
        ),
    ] {
        let mut lab = lab(&["a", "b"]);
        assert_eq!(lab.operate(&order("a", verb)), Ok(()));
        let a = lab.backend("a");
        assert_eq!((a.operator, a.effective, a.breaker), (state, effective, BreakerState::Closed));
        assert_eq!((lab.admit("a"), a.reason.as_deref()), (Some(Admit::None), Some(words)));
        assert_eq!(lab.table(), ["b".to_owned()].into());
        let event = lab.events.last().expect("there is an event");
        assert_eq!((event.kind, event.actor.as_str()), (EventKind::Operator, "alice"));
        assert_eq!((event.from.as_str(), event.to.clone()), ("enabled", state.to_string()));
        assert_eq!(event.evidence.detail.as_deref(), Some("deploy"));
        let [over] = &a.overrides[..] else { panic!("one override") };
        assert_eq!((over.code.to_string(), over.what.as_str()), (state.to_string(), &*state.to_string()));
        assert_eq!((&*over.actor, over.since_ms, over.until_ms), ("alice", Instant(1000), None));

        assert_eq!(lab.operate(&order("a", Verb::Enable)), Ok(()));
        assert_eq!((lab.admit("a"), lab.backend("a").overrides), (Some(Admit::All), vec![]));
    }
}

#[test]
fn an_order_for_an_unknown_backend_is_refused() {
    let mut lab = lab(&["a"]);
    let refused = lab.operate(&order("z", Verb::Enable)).expect_err("no such backend");
    assert_eq!(refused.to_string(), "service `web` has no backend `z`");
    let other = Operation { service: "api".to_owned(), ..order("a", Verb::Enable) };
    assert_eq!(lab.operate(&other), Err(Refused::NoService { service: "api".to_owned() }));
    assert_eq!(lab.news(), []);
}

#[test]
fn the_floor_holds_for_operators_unless_forced() {
    for verb in [Verb::Disable, Verb::Drain, Verb::Eject] {
        let mut lab = lab(&["a", "b"]);
        lab.statuses("b", &[500; 3]);
        lab.news();
        let refused = lab.operate(&order("a", verb)).expect_err("the last one");
        assert!(matches!(refused, Refused::Floor { serving: 1, left: 0, min: 1, .. }), "{refused:?}");
        assert_eq!(lab.news(), [said(EventKind::Refused, "a", "floor")]);
        let event = lab.events.last().expect("there is an event");
        assert_eq!(event.actor, "alice");
        assert!(event.evidence.detail.as_ref().expect("why").contains("min_serving is 1"));
        assert_eq!(lab.backend("a").effective, Effective::Serving);
        // A backend that does not serve may be taken out.
        assert_eq!(lab.operate(&order("b", verb)), Ok(()));
        assert_eq!(lab.operate(&Operation { force: true, ..order("a", verb) }), Ok(()));
        assert_ne!(lab.backend("a").effective, Effective::Serving);
    }
}

#[test]
fn an_override_with_a_duration_ends_by_itself() {
    let mut lab = lab(&["a", "b"]);
    let order = Operation { duration: Some(Millis(2500)), ..order("a", Verb::Drain) };
    lab.operate(&order).expect("b serves");
    assert_eq!(lab.backend("a").overrides[0].until_ms, Some(Instant(3500)));
    lab.until(3499);
    let reason = "draining: no new connections, by alice (deploy), 1 ms left";
    assert_eq!(lab.backend("a").reason.as_deref(), Some(reason));
    lab.until(3500);
    assert_eq!(lab.backend("a").operator, OperatorState::Enabled);
    let event = lab.events.last().expect("there is an event");
    assert_eq!((event.t_ms, event.to.as_str()), (Instant(3500), "enabled"));
    assert_eq!(event.evidence.detail.as_deref(), Some("its time is over"));
    assert_eq!(lab.admit("a"), Some(Admit::All));
}

#[test]
fn an_operator_may_eject_above_the_ceiling_and_without_enforcement() {
    let mut service = web(&["a", "b", "c"]);
    service.breaker.max_ejection_percent = 0;
    service.breaker.enforce = false;
    let mut lab = Lab::new(vec![service]);
    lab.news();
    lab.operate(&order("a", Verb::Eject)).expect("two are left");
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "operator")]);
    let a = lab.backend("a");
    assert_eq!((a.breaker, a.ejection, a.until_ms), (BreakerState::Open, 1, Some(Instant(30_000))));
    let reason = "ejected 0 ms ago for an order of alice (deploy), ejection 1, 30 s left";
    assert_eq!(a.reason.as_deref(), Some(reason));
    // It lasts for the duration of the order.
    let brief = Operation { duration: Some(Millis(700)), ..order("b", Verb::Eject) };
    lab.operate(&brief).expect("one is left");
    assert_eq!(lab.backend("b").until_ms, Some(Instant(700)));
}

#[test]
fn an_operator_may_admit_at_once() {
    let mut lab = lab(&["a", "b"]);
    lab.statuses("a", &[500; 3]);
    lab.operate(&order("a", Verb::Admit)).expect("it is out");
    assert_eq!(lab.news().last(), Some(&said(EventKind::Readmit, "a", "operator")));
    assert_eq!((lab.admit("a"), lab.backend("a").ejection), (Some(Admit::All), 1));
    // The second time nothing changes, and there is no event.
    lab.operate(&order("a", Verb::Admit)).expect("it is in");
    assert_eq!(lab.news(), []);
}

#[test]
fn a_weight_holds_over_reloads_until_it_is_taken_back() {
    let mut lab = lab(&["a", "b"]);
    let weight = |weight: u16| Verb::Weight(NonZeroU16::new(weight));
    lab.operate(&order("a", weight(300))).expect("any weight");
    assert_eq!(lab.news(), [said(EventKind::Weight, "a", "operator")]);
    let event = lab.events.last().expect("there is an event");
    assert_eq!((event.from.as_str(), event.to.as_str()), ("100", "300"));
    let a = lab.backend("a");
    assert_eq!((a.weight, a.share, a.weight_percent), (300, 7500, 100));
    assert_eq!((a.overrides[0].code, a.overrides[0].what.as_str()), (OverrideCode::Weight, "weight 300"));
    let mut service = web(&["a", "b"]);
    service.backends[0].weight = 50;
    lab.reload(vec![service]);
    assert_eq!(lab.backend("a").weight, 300);
    lab.operate(&order("a", weight(0))).expect("back to what is configured");
    assert_eq!((lab.backend("a").weight, lab.backend("a").overrides), (50, vec![]));
}

#[test]
fn operators_states_do_not_count_towards_the_ceiling() {
    let mut service = web(&["a", "b", "c", "d"]);
    service.breaker.max_ejection_percent = 25;
    let mut lab = Lab::new(vec![service]);
    lab.operate(&order("a", Verb::Disable)).expect("three serve");
    lab.operate(&order("b", Verb::Drain)).expect("two serve");
    lab.news();
    lab.statuses("c", &[500; 3]);
    assert_eq!(lab.news(), [said(EventKind::Eject, "c", "consecutive_5xx")]);
}

#[test]
fn the_three_axes_are_never_merged() {
    let mut lab = lab(&["a", "b"]);
    lab.statuses("a", &[500; 3]);
    lab.operate(&order("a", Verb::Disable)).expect("it does not serve");
    let a = lab.backend("a");
    assert_eq!((a.effective, a.breaker), (Effective::Disabled, BreakerState::Open));
    lab.operate(&order("a", Verb::Enable)).expect("always");
    assert_eq!(lab.backend("a").effective, Effective::Ejected);
}

/// Fewer than `min_serving` serve already, and its order takes none of these away.
#[test]
fn a_backend_that_does_not_serve_may_go_below_the_floor() {
    let mut service = web(&["a", "b", "c"]);
    service.breaker.min_serving = 2;
    let mut lab = Lab::new(vec![service]);
    for name in ["a", "b"] {
        let forced = Operation { force: true, ..order(name, Verb::Drain) };
        assert_eq!(lab.operate(&forced), Ok(()));
    }
    for verb in [Verb::Disable, Verb::Drain] {
        assert_eq!(lab.operate(&order("a", verb)), Ok(()));
    }
    assert!(lab.operate(&order("c", Verb::Drain)).is_err(), "it is the one that serves");
}
