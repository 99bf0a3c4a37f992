//! Backends that the packet path cannot reach.

use super::lab::{Lab, probe, said, web};
use crate::{
    codes::EventReason,
    config::{self, NoBackend},
    event::{Event, EventKind, Evidence},
    io::{Admit, FlowReset, Input, Operation, Verb},
    snapshot::{BackendSnapshot, BreakerState, Effective, PathState},
    time::Millis,
};

impl Lab {
    fn path(&mut self, name: &str, path: PathState) {
        let BackendSnapshot { id: backend, generation, .. } = self.backend(name);
        self.send(Input::Path { backend, generation, path });
    }
}

#[test]
fn it_gets_no_connections_and_says_why() {
    for path in PathState::ALL.into_iter().filter(|path| *path != PathState::Ok) {
        let mut lab = Lab::new(vec![web(&["a", "b"])]);
        lab.news();
        lab.path("a", path);
        assert_eq!(lab.news(), [said(EventKind::Path, "a", &path.to_string())]);
        assert_eq!(lab.events.last().expect("one").evidence.detail.as_deref(), Some(path.message()));
        let backend = lab.backend("a");
        assert_eq!((backend.effective, backend.path), (Effective::Unreachable, path));
        assert_eq!((backend.reason.as_deref(), backend.share), (Some(path.message()), 0));
        assert_eq!((lab.admit("a"), lab.table()), (Some(Admit::None), ["b".to_owned()].into()));
        lab.path("a", path);
        assert_eq!(lab.news(), [], "the same again is no news");
        lab.path("a", PathState::Ok);
        assert_eq!(lab.news(), [said(EventKind::Path, "a", "reachable")]);
        assert_eq!((lab.backend("a").effective, lab.admit("a")), (Effective::Serving, Some(Admit::All)));
    }
}

#[test]
fn an_interface_that_changes_is_an_event_of_the_node() {
    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    for (detail, said) in [(None, "interface eth0"), (Some("is down"), "interface eth0: is down")] {
        let (from, to) = ("attached".to_owned(), "no_link".to_owned());
        let detail = detail.map(str::to_owned);
        let reason = EventReason::NoLink;
        lab.send(Input::Interface { name: "eth0".to_owned(), from, to, reason, detail });
        let event = lab.events.last().expect("one");
        let expected = Event {
            seq: event.seq,
            kind: EventKind::Interface,
            from: "attached".to_owned(),
            to: "no_link".to_owned(),
            reason: EventReason::NoLink,
            actor: "dataplane".to_owned(),
            config_generation: 1,
            evidence: Evidence { detail: Some(said.to_owned()), ..Evidence::default() },
            ..Event::of_the_node(lab.now)
        };
        assert_eq!(*event, expected);
    }
}

#[test]
fn it_counts_for_nothing_at_the_floor() {
    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    lab.path("b", PathState::Local);
    lab.news();
    lab.statuses("a", &[500, 500, 500]);
    assert_eq!(lab.news(), [said(EventKind::Refused, "a", "floor")]);
    assert_eq!(lab.backend("a").effective, Effective::Serving);
    let evidence = &lab.events.last().expect("one").evidence;
    assert_eq!((evidence.serving, evidence.backends), (1, 1));
    let drain = Operation {
        service: "web".to_owned(),
        backend: "a".to_owned(),
        verb: Verb::Drain,
        duration: None,
        reason: None,
        actor: "alice".to_owned(),
        force: false,
    };
    lab.operate(&drain).expect_err("the floor holds for operators too");
    lab.operate(&Operation { backend: "b".to_owned(), ..drain }).expect("it serves nobody");
}

#[test]
fn it_counts_for_nothing_at_the_ceiling() {
    let mut policy = web(&["a", "b", "c", "d"]);
    policy.breaker.max_ejection_percent = 50;
    policy.breaker.always_eject_one = false;
    let mut lab = Lab::new(vec![policy]);
    for name in ["b", "c"] {
        lab.path(name, PathState::NoRoute);
    }
    lab.statuses("a", &[500, 500, 500]);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open, "one of two");
    lab.statuses("d", &[500, 500, 500]);
    assert_eq!(lab.backend("d").breaker, BreakerState::Closed, "two of two");
    // An ejected backend that is out of reach does not count as out either.
    lab.path("a", PathState::NoRoute);
    lab.path("b", PathState::Ok);
    lab.statuses("d", &[500, 500, 500]);
    assert_eq!(lab.backend("d").breaker, BreakerState::Open, "one of two");
}

#[test]
fn nobody_reachable_is_no_panic() {
    let mut policy = web(&["a", "b"]);
    policy.no_backend = NoBackend::Any;
    policy.breaker.panic_threshold = 100;
    policy.breaker.min_serving = 0;
    let mut lab = Lab::new(vec![policy]);
    for name in ["a", "b"] {
        lab.path(name, PathState::NoNeighbour);
    }
    assert!(lab.service().panic.is_none() && lab.table().is_empty());
    lab.path("a", PathState::Ok);
    assert!(lab.service().panic.is_none(), "all that can be reached serve");
    lab.statuses("a", &[500, 500, 500]);
    assert!(lab.backend("a").share > 0, "the only one that frames reach");
}

#[test]
fn the_fallback_takes_over() {
    let mut policy = web(&["a", "sorry"]);
    policy.fallback = policy.backends.split_off(1);
    let mut lab = Lab::new(vec![policy]);
    lab.news();
    lab.path("a", PathState::NoLink);
    assert!(lab.service().fallback);
    assert_eq!(lab.table(), ["sorry".to_owned()].into());
    lab.path("sorry", PathState::NoLink);
    assert!(!lab.service().fallback && lab.table().is_empty());
}

#[test]
fn operators_come_before_the_path_and_the_path_before_probe_and_breaker() {
    let mut lab = Lab::new(vec![config::Service { probe: Some(probe()), ..web(&["a", "b", "c"]) }]);
    for name in ["a", "b", "c"] {
        lab.probe(name, true);
    }
    lab.statuses("a", &[500, 500, 500]);
    lab.path("a", PathState::NoRoute);
    assert_eq!(lab.backend("a").effective, Effective::Unreachable);
    // The other axes go on: when frames reach it again, it is where it would have been.
    lab.wait(60_000);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
    assert!(lab.maps.services.values().all(|(_, trials)| trials.is_empty()), "no trial slot is wasted");
    lab.path("a", PathState::Ok);
    assert_eq!(lab.backend("a").effective, Effective::Trial);
    lab.path("b", PathState::NoRoute);
    for _ in 0..3 {
        lab.probe("b", false);
    }
    assert_eq!(lab.backend("b").effective, Effective::Unreachable);
    lab.path("b", PathState::Ok);
    assert_eq!(lab.backend("b").effective, Effective::Down);
}

#[test]
fn its_connections_drain_unless_it_comes_back() {
    let mut policy = web(&["a", "b"]);
    policy.connections.drain_timeout = Millis::secs(10);
    let mut lab = Lab::new(vec![policy.clone()]);
    lab.path("a", PathState::NoNeighbour);
    lab.wait(9_000);
    assert_eq!(lab.flow_reset("a"), FlowReset::Never);
    lab.path("a", PathState::Ok);
    lab.wait(9_000);
    assert!(lab.backend("a").drain.is_none());
    lab.path("a", PathState::NoNeighbour);
    lab.wait(10_000);
    assert_eq!(lab.flow_reset("a"), FlowReset::Now);
    // A reload keeps what is known, and a new backend is presumed reachable.
    policy.backends.extend(web(&["-", "-", "c"]).backends.split_off(2));
    lab.reload(vec![policy]);
    assert_eq!(lab.backend("a").path, PathState::NoNeighbour);
    assert_eq!(lab.backend("c").effective, Effective::Serving);
}
