//! How connections end whose backend gets no new ones.
//!
//! One file because each rule is tried on the same few drains.

use super::lab::{Lab, probe, said, web};
use crate::{
    Settings,
    config::{self, OnOut},
    event::EventKind,
    ids::BackendId,
    io::{Admit, FlowReset, Operation, Step, Verb},
    snapshot::Drain,
    states::BreakerState,
    time::{Instant, Millis},
};

fn service(on_eject: OnOut, drain_timeout: u64) -> config::Service {
    let mut service = web(&["a", "b", "c"]);
    service.connections.on_eject = on_eject;
    service.connections.on_drain = on_eject;
    service.connections.drain_timeout = Millis(drain_timeout);
    service
}

/// At 1 s, without any event yet.
fn lab(service: config::Service) -> Lab {
    let mut lab = Lab::new(vec![service]);
    lab.until(1000);
    lab.news();
    lab
}

pub(super) fn order(lab: &mut Lab, backend: &str, verb: Verb) {
    let (service, backend, actor) = ("web".to_owned(), backend.to_owned(), "alice".to_owned());
    let order = Operation { service, backend, verb, duration: None, reason: None, actor, force: true };
    lab.operate(&order).expect("it is forced and there");
}

fn drain(lab: &Lab, backend: &str) -> Option<(u64, u64, FlowReset)> {
    let drain = lab.backend(backend).drain;
    drain.map(|Drain { since_ms, until_ms, flow_reset }| (since_ms.0, until_ms.0, flow_reset))
}

#[test]
fn drained_connections_go_on_until_their_time_is_over() {
    let mut lab = lab(service(OnOut::Drain, 20_000));
    assert_eq!((lab.flow_reset("a"), drain(&lab, "a")), (FlowReset::Never, None));
    lab.statuses("a", &[500; 3]);
    assert_eq!((lab.admit("a"), lab.flow_reset("a")), (Some(Admit::None), FlowReset::Never));
    assert_eq!(drain(&lab, "a"), Some((1000, 21_000, FlowReset::Never)));
    lab.until(20_999);
    assert_eq!(lab.flow_reset("a"), FlowReset::Never);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
    lab.until(21_000);
    assert_eq!((lab.flow_reset("a"), lab.flow_reset("b")), (FlowReset::Now, FlowReset::Never));
    assert_eq!(lab.news(), [said(EventKind::Drained, "a", "drain_timeout")]);
    assert_eq!(drain(&lab, "a"), Some((1000, 21_000, FlowReset::Now)));
}

#[test]
fn reset_ends_them_at_their_next_request_in_the_write_of_the_ejection() {
    let mut lab = lab(service(OnOut::Reset, 20_000));
    lab.written.clear();
    lab.statuses("a", &[500; 3]);
    let (_, first) = &lab.written[0];
    assert!(
        matches!(first, Step::Backend { admit: Admit::None, flow_reset: FlowReset::AtRequest, .. }),
        "{first:?}"
    );
    lab.until(20_999);
    assert_eq!(lab.flow_reset("a"), FlowReset::AtRequest);
    lab.until(21_000);
    assert_eq!(lab.flow_reset("a"), FlowReset::Now);
}

#[test]
fn with_no_time_to_drain_they_end_at_once() {
    let mut lab = lab(service(OnOut::Drain, 0));
    lab.written.clear();
    lab.statuses("a", &[500; 3]);
    let (_, first) = &lab.written[0];
    assert!(
        matches!(first, Step::Backend { admit: Admit::None, flow_reset: FlowReset::Now, .. }),
        "{first:?}"
    );
    let expected =
        [said(EventKind::Eject, "a", "consecutive_5xx"), said(EventKind::Drained, "a", "drain_timeout")];
    assert_eq!(lab.news(), expected);
}

#[test]
fn it_is_the_same_for_the_breaker_the_probe_and_operators() {
    let mut service = service(OnOut::Reset, 20_000);
    service.probe = Some(probe());
    for how in 0..4 {
        let mut lab = Lab::new(vec![service.clone()]);
        ["a", "b", "c"].iter().for_each(|name| lab.probe(name, true));
        lab.until(1000);
        match how {
            0 => lab.statuses("a", &[500; 3]),
            1 => (0..3).for_each(|_| lab.probe("a", false)),
            2 => order(&mut lab, "a", Verb::Drain),
            _ => order(&mut lab, "a", Verb::Disable),
        }
        assert_eq!((lab.admit("a"), lab.flow_reset("a")), (Some(Admit::None), FlowReset::AtRequest), "{how}");
        lab.until(21_000);
        assert_eq!((lab.flow_reset("a"), lab.flow_reset("b")), (FlowReset::Now, FlowReset::Never), "{how}");
    }
}

#[test]
fn what_failed_and_what_an_operator_takes_out_may_end_differently() {
    let mut service = service(OnOut::Reset, 20_000);
    service.connections.on_drain = OnOut::Drain;
    let mut lab = lab(service.clone());
    order(&mut lab, "a", Verb::Drain);
    assert_eq!(lab.flow_reset("a"), FlowReset::Never);
    lab.statuses("b", &[500; 3]);
    assert_eq!(lab.flow_reset("b"), FlowReset::AtRequest);
    // An order makes no bad backend a good one.
    order(&mut lab, "b", Verb::Drain);
    assert_eq!(lab.flow_reset("b"), FlowReset::AtRequest);
    // Nor does a reload that removes both.
    let mut less = service;
    less.backends.retain(|backend| backend.name == "c");
    let ids = ["a", "b"].map(|name| lab.backend(name).id);
    lab.reload(vec![less]);
    let reset = ids.map(|id| lab.maps.backends[&id].flow_reset);
    assert_eq!(reset, [FlowReset::Never, FlowReset::AtRequest]);
}

#[test]
fn from_one_state_without_new_connections_into_another_the_time_runs_on() {
    let mut lab = lab(service(OnOut::Drain, 20_000));
    lab.statuses("a", &[500; 3]);
    lab.until(11_000);
    order(&mut lab, "a", Verb::Disable);
    lab.until(21_000);
    assert_eq!(lab.flow_reset("a"), FlowReset::Now);
}

#[test]
fn a_backend_on_trial_or_serving_again_is_never_reset() {
    let mut lab = lab(service(OnOut::Reset, 20_000));
    lab.statuses("a", &[500; 3]);
    lab.until(35_000);
    assert_eq!((lab.backend("a").breaker, lab.flow_reset("a")), (BreakerState::HalfOpen, FlowReset::Never));
    assert_eq!(drain(&lab, "a"), None);
    // A connection that began as a trial is reset only if the trial fails, and from then on.
    lab.status("a", 500);
    assert_eq!(lab.flow_reset("a"), FlowReset::AtRequest);
    assert_eq!(drain(&lab, "a"), Some((35_000, 55_000, FlowReset::AtRequest)));
    lab.until(100_000);
    assert_eq!((lab.backend("a").breaker, lab.flow_reset("a")), (BreakerState::HalfOpen, FlowReset::Never));
    lab.statuses("a", &[200; 3]);
    assert_eq!((lab.backend("a").breaker, lab.flow_reset("a")), (BreakerState::Closed, FlowReset::Never));
    order(&mut lab, "b", Verb::Drain);
    assert_eq!(lab.flow_reset("b"), FlowReset::AtRequest);
    order(&mut lab, "b", Verb::Enable);
    assert_eq!((lab.admit("b"), lab.flow_reset("b")), (Some(Admit::All), FlowReset::Never));
}

#[test]
fn a_backend_that_a_panic_uses_is_not_reset() {
    let mut service = service(OnOut::Reset, 20_000);
    service.breaker.panic_threshold = 60;
    let mut lab = lab(service);
    lab.statuses("a", &[500; 3]);
    assert_eq!((lab.admit("a"), lab.flow_reset("a")), (Some(Admit::None), FlowReset::AtRequest));
    lab.until(2000);
    lab.statuses("b", &[500; 3]);
    assert!(lab.service().panic.is_some());
    assert_eq!((lab.flow_reset("a"), lab.flow_reset("b")), (FlowReset::Never, FlowReset::Never));
    // When the panic is over, the drain begins again.
    lab.until(3000);
    order(&mut lab, "b", Verb::Admit);
    assert_eq!(drain(&lab, "a"), Some((3000, 23_000, FlowReset::AtRequest)));
}

#[test]
fn a_removed_backend_leaves_when_its_connections_have_ended() {
    let mut lab = lab(service(OnOut::Reset, 20_000));
    let a = lab.backend("a").id;
    let mut less = service(OnOut::Reset, 20_000);
    less.backends.remove(0);
    lab.reload(vec![less.clone()]);
    assert_eq!(lab.news(), [said(EventKind::Membership, "a", "removed")]);
    let held = |lab: &Lab| lab.maps.backends.get(&a).map(|held| (held.admit, held.flow_reset));
    assert_eq!(held(&lab), Some((Admit::None, FlowReset::AtRequest)));
    let [leaving] = &lab.engine.snapshot(lab.now).leaving[..] else { panic!("one leaves") };
    assert_eq!((leaving.id, leaving.name.as_deref(), leaving.service.as_str()), (a, Some("a"), "web"));
    assert_eq!((leaving.drain.since_ms, leaving.drain.until_ms), (Instant(1000), Instant(21_000)));
    lab.until(20_999);
    assert_eq!(held(&lab), Some((Admit::None, FlowReset::AtRequest)));
    lab.until(21_000);
    assert_eq!(held(&lab), Some((Admit::None, FlowReset::Now)));
    assert_eq!(lab.news(), [said(EventKind::Drained, "a", "drain_timeout")]);
    lab.until(22_999);
    assert_eq!(held(&lab), Some((Admit::None, FlowReset::Now)));
    lab.until(23_000);
    assert_eq!((held(&lab), lab.engine.snapshot(lab.now).leaving), (None, vec![]));
    assert_eq!(lab.news(), []);
}

#[test]
fn another_drain_timeout_holds_for_backends_that_are_removed_already() {
    let mut lab = lab(service(OnOut::Drain, 20_000));
    let a = lab.backend("a").id;
    let mut less = service(OnOut::Drain, 20_000);
    less.backends.remove(0);
    lab.reload(vec![less.clone()]);
    lab.until(2000);
    less.connections.drain_timeout = Millis(5000);
    lab.reload(vec![less]);
    lab.until(5999);
    assert_eq!(lab.maps.backends[&a].flow_reset, FlowReset::Never);
    lab.until(6000);
    assert_eq!(lab.maps.backends[&a].flow_reset, FlowReset::Now);
}

#[test]
fn removed_while_it_drains_its_time_runs_on() {
    let mut lab = lab(service(OnOut::Drain, 20_000));
    lab.statuses("a", &[500; 3]);
    let a = lab.backend("a").id;
    lab.until(15_000);
    let mut less = service(OnOut::Drain, 20_000);
    less.backends.remove(0);
    lab.reload(vec![less]);
    lab.until(21_000);
    assert_eq!(lab.maps.backends[&a].flow_reset, FlowReset::Now);
    lab.until(23_000);
    assert!(!lab.maps.backends.contains_key(&a));
}

#[test]
fn a_backend_added_again_meanwhile_is_a_new_one() {
    let mut lab = lab(service(OnOut::Drain, 20_000));
    let before = lab.backend("a").id;
    let mut less = service(OnOut::Drain, 20_000);
    less.backends.remove(0);
    lab.reload(vec![less]);
    lab.until(2000);
    lab.reload(vec![service(OnOut::Drain, 20_000)]);
    let after = lab.backend("a").id;
    assert_ne!(before, after);
    assert_eq!((lab.admit("a"), lab.maps.backends[&before].admit), (Some(Admit::All), Admit::None));
    lab.until(30_000);
    assert!(!lab.maps.backends.contains_key(&before) && lab.maps.backends.contains_key(&after));
}

#[test]
fn a_removed_service_is_gone_at_once_and_its_backends_follow() {
    let other = || {
        let vip = "203.0.113.11:80".parse().expect("literal");
        config::Service { name: "api".to_owned(), vip, ..web(&["x"]) }
    };
    let mut lab = Lab::new(vec![service(OnOut::Drain, 20_000), other()]);
    lab.reload(vec![other()]);
    assert_eq!((lab.maps.services.len(), lab.maps.backends.len()), (1, 4));
    // Its name and VIP are free, its id is not.
    lab.reload(vec![other(), service(OnOut::Drain, 20_000)]);
    assert_eq!((lab.maps.services.len(), lab.maps.backends.len()), (2, 7));
    lab.until(20_000);
    let reset =
        |lab: &Lab| lab.maps.backends.values().filter(|held| held.flow_reset == FlowReset::Now).count();
    assert_eq!(reset(&lab), 3);
    lab.until(22_000);
    assert_eq!((lab.maps.backends.len(), reset(&lab)), (4, 0));
    assert_eq!(lab.engine.snapshot(lab.now).leaving, []);
}

#[test]
fn a_removed_backend_takes_a_place_until_it_is_gone() {
    use lb_common::MAX_BACKENDS;
    let crowd = |first: u32, count: u32| {
        let mut service = service(OnOut::Drain, 20_000);
        let backend = |i| config::Backend {
            name: format!("b{i}"),
            address: (std::net::Ipv4Addr::from(0x0a00_0000 + i), 80).into(),
            weight: 1,
            probe_address: None,
            max_connections: None,
            discovered: None,
        };
        service.backends = (first..first + count).map(backend).collect();
        service
    };
    let mut lab = Lab::new(vec![crowd(0, 10)]);
    lab.reload(vec![crowd(10, 1)]);
    let fits =
        |lab: &Lab, count| lab.engine.fits(&config::Config { services: vec![crowd(10, count)] }).is_ok();
    assert!(fits(&lab, MAX_BACKENDS - 10) && !fits(&lab, MAX_BACKENDS - 9));
    lab.until(22_000);
    assert!(fits(&lab, MAX_BACKENDS));
}

#[test]
fn another_policy_holds_for_what_has_begun() {
    let mut lab = lab(service(OnOut::Drain, 20_000));
    lab.statuses("a", &[500; 3]);
    lab.until(2000);
    lab.reload(vec![service(OnOut::Reset, 5000)]);
    assert_eq!(
        (drain(&lab, "a"), lab.flow_reset("a")),
        (Some((1000, 6000, FlowReset::AtRequest)), FlowReset::AtRequest)
    );
    lab.until(6000);
    assert_eq!(lab.flow_reset("a"), FlowReset::Now);
    // A reset is not undone. The connections that are left continue.
    lab.reload(vec![service(OnOut::Drain, 10_000)]);
    assert_eq!(
        (drain(&lab, "a"), lab.flow_reset("a")),
        (Some((1000, 11_000, FlowReset::Never)), FlowReset::Never)
    );
    lab.until(11_000);
    assert_eq!(lab.flow_reset("a"), FlowReset::Now);
}

#[test]
fn a_backend_leaves_only_after_the_maps_had_its_connections_reset() {
    let mut lab = lab(service(OnOut::Drain, 1000));
    let a = lab.backend("a").id;
    let mut less = service(OnOut::Drain, 1000);
    less.backends.remove(0);
    lab.reload(vec![less]);
    // 100 ms, 200 ms, 400 ms … until the write holds.
    lab.script.extend([true; 6]);
    lab.until(8300);
    assert!(lab.script.is_empty());
    let holds =
        lab.written.iter().find(|(_, step)| matches!(step, Step::Backend { flow_reset: FlowReset::Now, .. }));
    let (at, _) = holds.expect("it was tried again");
    let at = *at;
    lab.until(at.0 + 1999);
    assert!(lab.maps.backends.contains_key(&a));
    lab.until(at.0 + 2000);
    assert!(!lab.maps.backends.contains_key(&a));
}

#[test]
fn a_backend_that_was_never_written_is_not_drained() {
    let mut lab = lab(service(OnOut::Drain, 20_000));
    lab.slow = true;
    let with =
        |names: &[&str]| config::Service { backends: web(names).backends, ..service(OnOut::Drain, 20_000) };
    // The plan for `d` is under way. `e` was never in a plan.
    lab.reload(vec![with(&["a", "b", "c", "d"])]);
    lab.reload(vec![with(&["a", "b", "c", "d", "e"])]);
    let e = lab.backend("e").id;
    lab.reload(vec![with(&["a", "b", "c", "d"])]);
    while !lab.waiting.is_empty() {
        lab.answer();
    }
    let written = |id: BackendId| {
        lab.written.iter().any(|(_, step)| matches!(step, Step::Backend { id: of, .. } if *of == id))
    };
    assert!(!written(e) && written(lab.backend("d").id));
    assert_eq!(lab.engine.snapshot(lab.now).leaving, []);
}

#[test]
fn a_restart_goes_on_with_the_time_that_is_left() {
    let mut before = lab(service(OnOut::Reset, 20_000));
    before.statuses("a", &[500; 3]);
    before.until(11_000);
    let state = before.engine.export(before.now).aged(Millis(2000));
    let mut lab = Lab::empty(Settings { seed: 7, restored: Some(state), ..Settings::default() });
    lab.reload(vec![service(OnOut::Reset, 20_000)]);
    assert_eq!(lab.flow_reset("a"), FlowReset::AtRequest);
    lab.until(7999);
    assert_eq!(lab.flow_reset("a"), FlowReset::AtRequest);
    lab.until(8000);
    assert_eq!(lab.flow_reset("a"), FlowReset::Now);

    before.until(25_000);
    let restored = Some(before.engine.export(before.now));
    let mut lab = Lab::empty(Settings { seed: 7, restored, ..Settings::default() });
    lab.reload(vec![service(OnOut::Reset, 20_000)]);
    assert_eq!(lab.flow_reset("a"), FlowReset::Now);
    assert!(lab.news().iter().all(|news| news.0 != EventKind::Drained), "its event came before");
}

#[test]
fn why_says_how_they_end() {
    let mut lab = lab(service(OnOut::Reset, 20_000));
    let why = |lab: &Lab| lab.engine.why("web", "a", lab.now).expect("it is there");
    assert_eq!(why(&lab).next, []);
    order(&mut lab, "a", Verb::Drain);
    let (out, last) = (
        "it is draining until an operator enables it",
        "its connections end at their next request or when idle, in 20 s at the latest",
    );
    assert_eq!(why(&lab).sentences(), [out, last]);
    lab.until(21_000);
    assert_eq!(why(&lab).sentences(), [out, "the connections that were left are reset"]);
}

#[test]
fn redispatch_reaches_the_maps() {
    for redispatch in [true, false] {
        let mut service = service(OnOut::Drain, 20_000);
        service.connections.redispatch = redispatch;
        let lab = lab(service);
        let (_, last) =
            lab.written.iter().rfind(|(_, step)| matches!(step, Step::Service { .. })).expect("one");
        assert!(matches!(last, Step::Service { redispatch: written, .. } if *written == redispatch));
    }
}
