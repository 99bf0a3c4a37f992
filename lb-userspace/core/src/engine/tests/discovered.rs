//! Backends that discovery names: their standings, their incarnations, and who is said to have changed them.

use super::lab::{Lab, said, web};
use crate::{
    codes::{BackendReason, DiscoveryCode, EventReason},
    config::{self, Discovered},
    engine::Settings,
    event::EventKind,
    io::{Admit, Input, Operation, Verb},
    states::{BreakerState, Effective, OperatorState, Standing},
};

/// `web` with these: a name, a standing and an identity.
fn set(backends: &[(&str, Standing, &str)]) -> config::Service {
    let names: Vec<&str> = backends.iter().map(|(name, _, _)| *name).collect();
    let mut service = web(&names);
    for (backend, (_, standing, identity)) in service.backends.iter_mut().zip(backends) {
        let identity = (!identity.is_empty()).then(|| (*identity).to_owned());
        backend.discovered = Some(Discovered { standing: *standing, identity });
    }
    service
}

fn order(verb: Verb) -> Operation {
    Operation {
        service: "web".to_owned(),
        backend: "a".to_owned(),
        verb,
        duration: None,
        reason: None,
        actor: "alice".to_owned(),
        force: true,
    }
}

#[test]
fn a_standing_counts_like_an_order() {
    let ready = [("a", Standing::Ready, "1"), ("b", Standing::Ready, "2")];
    let mut lab = Lab::new(vec![set(&ready)]);
    lab.news();
    for (standing, effective, code) in [
        (Standing::Draining, Effective::Draining, BackendReason::DiscoveryDrains),
        (Standing::Out, Effective::Disabled, BackendReason::DiscoveryOut),
    ] {
        lab.reload(vec![set(&[("a", standing, "1"), ready[1]])]);
        assert_eq!(lab.news(), [said(EventKind::Discovery, "a", "discovery")]);
        let event = lab.events.last().expect("reported").clone();
        assert_eq!((event.actor.as_str(), event.to), ("discovery", standing.to_string()));
        let a = lab.backend("a");
        assert_eq!(
            (a.effective, a.operator, a.discovery),
            (effective, OperatorState::Enabled, Some(standing))
        );
        assert_eq!((a.reason_code, a.identity.as_deref()), (Some(code), Some("1")));
        assert_eq!(lab.maps.backends[&a.id].admit, Admit::None);
        assert!(a.drain.is_some());
        let why = lab.engine.why("web", "a", lab.now).expect("there");
        assert!(why.sentences()[0].ends_with("until discovery calls it ready"), "{:?}", why.sentences());
    }
    lab.reload(vec![set(&ready)]);
    let a = lab.backend("a");
    assert_eq!((a.effective, a.drain), (Effective::Serving, None));
    assert_eq!(lab.maps.backends[&a.id].admit, Admit::All);
}

#[test]
fn an_operators_order_stays_beside_it_and_wins() {
    let mut lab = Lab::new(vec![set(&[("a", Standing::Out, ""), ("b", Standing::Ready, "")])]);
    lab.operate(&order(Verb::Drain)).expect("forced");
    let a = lab.backend("a");
    assert_eq!((a.effective, a.reason_code), (Effective::Draining, Some(BackendReason::Draining)));
    lab.operate(&order(Verb::Enable)).expect("forced");
    let a = lab.backend("a");
    assert_eq!((a.effective, a.reason_code), (Effective::Disabled, Some(BackendReason::DiscoveryOut)));
    lab.operate(&order(Verb::Disable)).expect("forced");
    lab.reload(vec![set(&[("a", Standing::Ready, ""), ("b", Standing::Ready, "")])]);
    assert_eq!(lab.backend("a").effective, Effective::Disabled);
    lab.operate(&order(Verb::Enable)).expect("forced");
    assert_eq!(lab.backend("a").effective, Effective::Serving);
}

#[test]
fn a_panic_uses_the_draining_and_not_those_that_are_out() {
    let mut service = set(&[("a", Standing::Draining, ""), ("b", Standing::Out, "")]);
    service.no_backend = config::NoBackend::Any;
    let lab = Lab::new(vec![service]);
    let admit = |name: &str| lab.maps.backends[&lab.backend(name).id].admit;
    assert_eq!((admit("a"), admit("b")), (Admit::All, Admit::None));
}

#[test]
fn another_incarnation_inherits_nothing() {
    let mut lab = Lab::new(vec![set(&[("a", Standing::Ready, "1"), ("b", Standing::Ready, "2")])]);
    lab.statuses("a", &[500; 3]);
    lab.operate(&order(Verb::Weight(std::num::NonZeroU16::new(7)))).expect("there");
    let before = lab.backend("a");
    assert_eq!(before.breaker, BreakerState::Open);
    lab.news();
    let second = [("a", Standing::Ready, "9"), ("b", Standing::Ready, "2")];
    lab.reload(vec![set(&second)]);
    let news = [said(EventKind::Membership, "a", "removed"), said(EventKind::Membership, "a", "added")];
    assert_eq!(lab.news(), news);
    let last = lab.events.len() - 2;
    assert!(lab.events[last..].iter().all(|event| event.actor == "discovery"));
    let after = lab.backend("a");
    assert_eq!((after.breaker, after.ejection, after.responses.s5xx), (BreakerState::Closed, 0, 0));
    assert_eq!((after.weight, after.address), (100, before.address));
    assert_ne!((after.id, after.generation), (before.id, before.generation));
    let leaving = lab.engine.snapshot(lab.now).leaving;
    assert_eq!(leaving.iter().map(|of| of.id).collect::<Vec<_>>(), [before.id]);
    // The same incarnation is the same backend.
    lab.reload(vec![set(&second)]);
    assert_eq!(lab.backend("a").id, after.id);
}

#[test]
fn a_state_is_of_one_incarnation() {
    let first = || set(&[("a", Standing::Ready, "1"), ("b", Standing::Ready, "2")]);
    let mut lab = Lab::new(vec![first()]);
    lab.statuses("a", &[500; 3]);
    let restored = Some(lab.engine.export(lab.now));
    let again = |service| {
        let mut lab = Lab::empty(Settings { restored: restored.clone(), ..Settings::default() });
        lab.reload(vec![service]);
        lab.backend("a").breaker
    };
    assert_eq!(again(first()), BreakerState::Open);
    let second = set(&[("a", Standing::Ready, "9"), ("b", Standing::Ready, "2")]);
    assert_eq!(again(second), BreakerState::Closed);
    assert_eq!(again(set(&[("a", Standing::Ready, ""), ("b", Standing::Ready, "")])), BreakerState::Closed);
}

#[test]
fn a_service_may_be_empty_and_a_source_may_fail() {
    let mut lab = Lab::new(vec![set(&[])]);
    lab.reload(vec![set(&[("a", Standing::Ready, "")])]);
    assert_eq!(lab.backend("a").share, 10_000);
    lab.reload(vec![set(&[])]);
    lab.news();
    let (from, to) = (DiscoveryCode::Current.to_string(), DiscoveryCode::Missing.to_string());
    let (reason, detail) = (EventReason::from(DiscoveryCode::Missing), Some("why".to_owned()));
    lab.send(Input::Discovery { service: "web".to_owned(), from, to, reason, detail });
    let event = lab.events.last().expect("reported");
    assert_eq!(event.sentence(), "web: current -> missing (missing): why");
    assert_eq!((event.kind, event.actor.as_str()), (EventKind::Discovery, "discovery"));
}
