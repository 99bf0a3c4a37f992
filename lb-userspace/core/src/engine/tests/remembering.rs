//! The state that a restart keeps.

use std::num::NonZeroU16;

use super::lab::{Lab, said, web};
use crate::{
    Settings, config,
    event::EventKind,
    io::{Operation, Verb},
    state::State,
    states::{BreakerState, OperatorState},
    time::{Instant, Millis},
};

fn order(backend: &str, verb: Verb, duration: Option<Millis>) -> Operation {
    let (service, backend, actor) = ("web".to_owned(), backend.to_owned(), "alice".to_owned());
    Operation { service, backend, verb, duration, reason: None, actor, force: false }
}

/// `a` is open, `b` was open and is back, `c` drains, `d` has weight 7, `e` has no history.
fn eventful() -> Lab {
    let mut lab = Lab::new(vec![service()]);
    lab.statuses("b", &[500; 3]);
    lab.operate(&order("b", Verb::Admit, None)).expect("it is out");
    lab.until(1000);
    lab.statuses("a", &[500; 3]);
    lab.operate(&order("c", Verb::Drain, Some(Millis(9000)))).expect("others serve");
    lab.operate(&order("d", Verb::Weight(NonZeroU16::new(7)), None)).expect("any");
    lab.until(4000);
    lab
}

fn service() -> config::Service {
    web(&["a", "b", "c", "d", "e"])
}

fn after(state: State, services: Vec<config::Service>) -> Lab {
    let mut lab = Lab::empty(Settings { seed: 7, restored: Some(state), ..Settings::default() });
    lab.reload(services);
    lab
}

#[test]
fn a_restart_continues_with_the_time_that_is_left() {
    let before = eventful();
    let state = before.engine.export(before.now);
    assert_eq!(state.version, State::VERSION);
    let names: Vec<_> = state.services[0].backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);

    let mut lab = after(state, vec![service()]);
    let a = lab.backend("a");
    assert_eq!((a.breaker, a.ejection, a.until_ms), (BreakerState::Open, 1, Some(Instant(27_000))));
    let reason = "ejected 0 ms ago for 3 failures in a row, ejection 1, 30 s left";
    assert_eq!(a.reason.as_deref(), Some(reason));
    assert_eq!((lab.backend("b").breaker, lab.backend("b").ejection), (BreakerState::Closed, 1));
    assert_eq!(lab.backend("c").operator, OperatorState::Draining);
    assert_eq!(lab.backend("c").overrides[0].actor, "alice");
    assert_eq!(lab.backend("d").weight, 7);
    let news: Vec<_> = lab.news().into_iter().filter(|news| news.2 == "restored").collect();
    let expected = [
        said(EventKind::Eject, "a", "restored"),
        said(EventKind::Operator, "c", "restored"),
        said(EventKind::Weight, "d", "restored"),
    ];
    assert_eq!(news, expected);
    assert_eq!(lab.table(), ["b", "d", "e"].map(str::to_owned).into());

    lab.until(6000);
    assert_eq!(lab.backend("c").operator, OperatorState::Enabled, "its nine seconds are over");
    lab.until(30_000);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
}

#[test]
fn a_state_survives_its_text() {
    let lab = eventful();
    let state = lab.engine.export(lab.now);
    let text = serde_json::to_string(&state).expect("plain data");
    assert_eq!(serde_json::from_str::<State>(&text).expect("just written"), state);
}

/// State files of earlier versions have another word for an override.
#[test]
fn a_state_with_the_former_name_of_an_override_is_read() {
    let lab = eventful();
    let state = lab.engine.export(lab.now);
    let text = serde_json::to_string(&state).expect("plain data");
    let former = text.replace("\"override\"", concat!("\"man", "date\""));
    assert_ne!(former, text);
    assert_eq!(serde_json::from_str::<State>(&former).expect("it is one"), state);
}

#[test]
fn a_state_ages_while_it_lies() {
    let before = eventful();
    let state = before.engine.export(before.now).aged(Millis(26_500));
    let mut lab = after(state, vec![service()]);
    assert_eq!(lab.backend("a").until_ms, Some(Instant(500)));
    lab.until(1);
    assert_eq!(lab.backend("c").operator, OperatorState::Enabled);
}

#[test]
fn a_half_open_backend_goes_through_another_sweep() {
    let mut before = eventful();
    before.until(35_000);
    assert_eq!(before.backend("a").breaker, BreakerState::HalfOpen);
    let mut lab = after(before.engine.export(before.now), vec![service()]);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
    lab.until(5000);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
}

#[test]
fn another_address_service_or_version_is_another_matter() {
    let before = eventful();
    let state = before.engine.export(before.now);
    let untouched = |lab: &Lab| lab.backend("a").breaker == BreakerState::Closed;

    let mut moved = service();
    moved.backends[0].address = "10.0.0.99:8080".parse().expect("literal");
    assert!(untouched(&after(state.clone(), vec![moved])));
    let renamed = config::Service { name: "shop".to_owned(), ..service() };
    assert!(untouched(&after(state.clone(), vec![renamed])));
    assert!(untouched(&after(State { version: 2, ..state }, vec![service()])));
}

#[test]
fn before_the_first_configuration_the_state_is_kept() {
    let before = eventful();
    let state = before.engine.export(before.now);
    let lab = Lab::empty(Settings { seed: 7, restored: Some(state.clone()), ..Settings::default() });
    assert_eq!(lab.engine.export(lab.now), state);
}

#[test]
fn a_reload_keeps_ejections_numbers_and_overrides() {
    let mut lab = eventful();
    let state = lab.engine.export(lab.now);
    let mut changed = service();
    changed.breaker.base_ejection_time = Millis::secs(90);
    lab.reload(vec![changed]);
    assert_eq!(lab.engine.export(lab.now), state);
}

/// The engine continues from any state that a file can hold.
#[test]
fn the_largest_numbers_do_not_break_the_engine() {
    let mut state = eventful().engine.export(Instant(4000));
    let a = &mut state.services[0].backends[0];
    (a.ejection, a.ejections, a.open_for) = (u32::MAX, u64::MAX, Some(Millis(0)));
    let mut lab = after(state, vec![service()]);
    lab.until(5000);
    lab.status("a", 500);
    let a = lab.backend("a");
    assert_eq!((a.breaker, a.ejection, a.until_ms), (BreakerState::Open, u32::MAX, Some(Instant(305_000))));
}
