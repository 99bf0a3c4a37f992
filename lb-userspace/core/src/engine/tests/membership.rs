//! Reloads, ids, and the maps of an earlier run.

use std::sync::Arc;

use lb_common::{MAX_BACKENDS, MAX_SERVICES};

use super::lab::{Lab, probe, said, web};
use crate::{
    Settings,
    codes::EventReason,
    config::{self, Config},
    engine::{Exhausted, fits},
    event::{Event, EventKind, Evidence},
    ids::{Adopted, BackendId, Generation, ServiceId},
    io::{Admit, FlowReset, Input, Step},
    states::{BreakerState, ProbeState},
    time::{Instant, Millis},
};

fn named(name: &str, vip: &str, backends: &[&str]) -> config::Service {
    config::Service { name: name.to_owned(), vip: vip.parse().expect("literal"), ..web(backends) }
}

#[test]
fn the_vip_comes_last_and_the_events_after_it() {
    let mut lab = Lab::empty(Settings::default());
    lab.slow = true;
    lab.reload(vec![web(&["a", "b"])]);
    assert_eq!(lab.events, []);
    let steps = &lab.waiting[0].steps;
    assert!(matches!(
        steps[..],
        [Step::Backend { .. }, Step::Backend { .. }, Step::Table { .. }, Step::Service { .. }]
    ));
    lab.answer();
    let added = |name| said(EventKind::Membership, name, "added");
    assert_eq!(lab.news(), [added("web"), added("a"), added("b")]);
    let seqs: Vec<u64> = lab.events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2, 3]);
}

#[test]
fn a_backend_that_stays_keeps_its_state_under_the_new_policy() {
    let mut lab = Lab::new(vec![web(&["a", "b", "c"])]);
    lab.until(1000);
    lab.statuses("a", &[500; 3]);
    lab.statuses("b", &[500; 2]);
    let a = lab.backend("a");
    lab.news();

    let mut service = web(&["a", "b", "c", "d"]);
    service.breaker.base_ejection_time = Millis::secs(1);
    service.breaker.consecutive_5xx = 4;
    service.backends.reverse();
    lab.reload(vec![service]);
    assert_eq!(lab.news(), [said(EventKind::Membership, "d", "added")]);
    let after = lab.backend("a");
    assert_eq!(
        (after.until_ms, after.ejection, after.id, after.generation),
        (a.until_ms, 1, a.id, a.generation)
    );
    assert_eq!((after.breaker, lab.backend("b").run_5xx), (BreakerState::Open, 2));
    lab.status("b", 500);
    assert_eq!(lab.backend("b").breaker, BreakerState::Closed);
    lab.status("b", 500);
    assert_eq!(lab.backend("b").until_ms, Some(Instant(2000)));
    assert_eq!(lab.events.last().expect("ejected").config_generation, 2);
    // The sweeps continue at the same times.
    lab.until(4999);
    assert_eq!(lab.backend("b").breaker, BreakerState::Open);
    lab.until(5000);
    assert_eq!(lab.backend("b").breaker, BreakerState::HalfOpen);
}

#[test]
fn a_lowered_threshold_detects_at_the_next_failure() {
    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    lab.statuses("a", &[500; 2]);
    let mut service = web(&["a", "b"]);
    service.breaker.consecutive_5xx = 1;
    lab.reload(vec![service]);
    assert_eq!(lab.backend("a").breaker, BreakerState::Closed);
    lab.status("a", 500);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
}

#[test]
fn another_interval_starts_the_sweeps_again() {
    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    lab.until(1000);
    lab.statuses("a", &[500; 3]);
    lab.until(33_000);
    let mut service = web(&["a", "b"]);
    service.breaker.interval = Millis::secs(7);
    lab.reload(vec![service]);
    lab.until(39_999);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
    lab.until(40_000);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
}

#[test]
fn a_backend_that_left_and_came_back_starts_clean() {
    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    lab.statuses("a", &[500; 3]);
    lab.statuses("b", &[500; 3]);
    let before = lab.backend("a");
    lab.news();
    let mut service = web(&["a", "b"]);
    let a = service.backends.remove(0);
    lab.reload(vec![service.clone()]);
    assert_eq!(lab.news(), [said(EventKind::Membership, "a", "removed")]);
    assert_eq!(lab.maps.backends[&before.id].admit, Admit::None);
    service.backends.push(a);
    lab.reload(vec![service]);
    let after = lab.backend("a");
    assert_eq!((after.breaker, after.ejection, after.responses.s5xx), (BreakerState::Closed, 0, 0));
    assert_ne!((after.id, after.generation), (before.id, before.generation));
}

#[test]
fn another_address_is_another_backend() {
    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    lab.statuses("a", &[500; 3]);
    lab.news();
    let mut service = web(&["a", "b"]);
    service.backends[0].address = "10.9.9.9:8080".parse().expect("literal");
    lab.reload(vec![service]);
    assert_eq!(
        lab.news(),
        [said(EventKind::Membership, "a", "removed"), said(EventKind::Membership, "a", "added")]
    );
    assert_eq!(lab.backend("a").breaker, BreakerState::Closed);
}

#[test]
fn a_new_weight_changes_the_shares() {
    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    lab.news();
    let mut service = web(&["a", "b"]);
    service.backends[1].weight = 300;
    lab.reload(vec![service]);
    assert_eq!(lab.news(), [said(EventKind::Weight, "b", "config")]);
    let event = lab.events.last().expect("just seen");
    assert_eq!((event.from.as_str(), event.to.as_str()), ("100", "300"));
    assert_eq!((lab.backend("a").share, lab.backend("b").share), (2500, 7500));
    assert_eq!(lab.backend("b").weight_percent, 100);
}

#[test]
fn the_same_again_writes_nothing() {
    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    lab.news();
    let written = lab.written.len();
    lab.reload(vec![web(&["a", "b"])]);
    assert_eq!((lab.written.len(), lab.news()), (written, vec![]));
    assert_eq!(lab.engine.snapshot(lab.now).config_generation, 2);
}

#[test]
fn a_service_goes_vip_first() {
    let other = || named("api", "203.0.113.11:80", &["x"]);
    let mut lab = Lab::new(vec![web(&["a"]), other()]);
    lab.news();
    lab.written.clear();
    lab.reload(vec![other()]);
    let steps: Vec<&Step> = lab.written.iter().map(|(_, step)| step).collect();
    assert!(matches!(steps[..], [Step::RemoveService { .. }, Step::Backend { admit: Admit::None, .. }]));
    assert_eq!(
        lab.news(),
        [said(EventKind::Membership, "a", "removed"), said(EventKind::Membership, "web", "removed")]
    );
    assert_eq!(lab.engine.snapshot(lab.now).services.len(), 1);
    // Only the drain of its connections continues.
    lab.until(100_000);
    assert_eq!(lab.news(), [said(EventKind::Drained, "a", "drain_timeout")]);
    assert_eq!((lab.maps.services.len(), lab.maps.backends.len()), (1, 1));
}

#[test]
fn services_may_swap_or_inherit_a_vip() {
    let (one, two) = ("203.0.113.10:80", "203.0.113.11:80");
    let mut lab = Lab::new(vec![named("a", one, &["x"]), named("b", two, &["y"])]);
    lab.statuses("x", &[500; 2]);
    for slow in [false, true] {
        lab.slow = slow;
        let (first, second) = if slow { (one, two) } else { (two, one) };
        lab.reload(vec![named("a", first, &["x"]), named("b", second, &["y"])]);
        while !lab.waiting.is_empty() {
            lab.answer();
        }
        let held = |vip: &str| lab.maps.services[&vip.parse().expect("literal")].0;
        let services = lab.engine.snapshot(lab.now).services;
        assert_eq!((held(first), held(second)), (services[0].id, services[1].id));
        assert_eq!(lab.backend("x").run_5xx, 2);
    }
    // A renamed service is another one, with the VIP of the first.
    lab.reload(vec![named("c", one, &["x"])]);
    while !lab.waiting.is_empty() {
        lab.answer();
    }
    assert_eq!(lab.maps.services.len(), 1);
    assert_eq!(lab.backend("x").run_5xx, 0);
    lab.slow = false;
    lab.wait(62_000);
    assert_eq!(lab.maps.backends.len(), 1);
}

#[test]
fn a_vip_is_inherited_even_if_its_removal_fails_first() {
    let vip = "203.0.113.10:80";
    let mut lab = Lab::new(vec![named("a", vip, &["x"])]);
    lab.script.extend([true, true]);
    lab.reload(vec![named("b", vip, &["x"])]);
    let services = lab.engine.snapshot(lab.now).services;
    let shown: Vec<_> =
        services.iter().map(|service| (service.name.as_str(), service.pending.is_some())).collect();
    assert_eq!(shown[1], ("a", true), "what does not go away is shown");
    lab.wait(1000);
    let services = lab.engine.snapshot(lab.now).services;
    assert_eq!((services.len(), services[0].name.as_str(), services[0].pending.is_some()), (1, "b", false));
    assert_eq!(lab.maps.services[&vip.parse().expect("literal")].0, services[0].id);
}

#[test]
fn a_probe_that_is_added_or_removed_has_an_event() {
    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    lab.news();
    let probed = config::Service { probe: Some(probe()), ..web(&["a", "b"]) };
    lab.reload(vec![probed]);
    assert_eq!(lab.news(), [said(EventKind::Probe, "a", "config"), said(EventKind::Probe, "b", "config")]);
    lab.wait(200);
    assert_eq!(lab.probes.len(), 2);
    lab.probe("a", false);
    assert_eq!(lab.table(), ["b".to_owned()].into());
    lab.reload(vec![web(&["a", "b"])]);
    assert_eq!((lab.table().len(), lab.backend("a").probe), (2, ProbeState::None));
    lab.until(60_000);
    assert_eq!(lab.probes.len(), 2);
}

#[test]
fn backends_of_an_earlier_run_keep_their_ids_or_go() {
    let web_vip = "203.0.113.10:80".parse().expect("literal");
    let old_vip = "203.0.113.99:80".parse().expect("literal");
    let left = |service, vip, admits, id, generation, address: &str| Adopted {
        service: ServiceId(service),
        vip,
        admits,
        id: BackendId(id),
        generation: Generation(generation),
        address: address.parse().expect("literal"),
    };
    let adopted = vec![
        left(4, Some(web_vip), true, 7, 9, "10.0.0.2:8080"),
        left(4, Some(web_vip), true, 8, 3, "10.0.0.77:8080"),
        left(0, Some(old_vip), true, 0, 5, "10.0.0.78:8080"),
        // It had been removed, and `b` added again, when the earlier run ended.
        left(4, Some(web_vip), false, 6, 9, "10.0.0.2:8080"),
        // Its service had left before.
        left(9, None, false, 11, 2, "10.0.0.79:8080"),
    ];
    let mut lab = Lab::empty(Settings { seed: 1, adopted: adopted.clone(), ..Settings::default() });
    for Adopted { service, vip, id, generation, .. } in adopted {
        lab.maps.adopt(service, vip, id, generation);
    }
    lab.reload(vec![web(&["a", "b"])]);
    let b = lab.backend("b");
    assert_eq!((lab.service().id, b.id, b.generation), (ServiceId(4), BackendId(7), Generation(9)));
    let a = lab.backend("a");
    assert!(![0, 6, 7, 8, 11].contains(&a.id.0), "an id that the maps still name");
    assert!(a.generation > Generation(9));
    assert_eq!(lab.maps.services.keys().copied().collect::<Vec<_>>(), [web_vip]);
    for id in [0, 6, 8, 11].map(BackendId) {
        assert_eq!(
            (lab.maps.backends[&id].admit, lab.maps.backends[&id].flow_reset),
            (Admit::None, FlowReset::Never)
        );
    }
    lab.until(60_000);
    for id in [0, 6, 8, 11].map(BackendId) {
        assert_eq!(lab.maps.backends[&id].flow_reset, FlowReset::Now);
    }
    lab.until(62_000);
    assert_eq!(
        lab.maps.backends.keys().copied().collect::<Vec<_>>(),
        [a.id, b.id].into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    );
    assert_eq!(lab.admit("b"), Some(Admit::All));
}

#[test]
fn an_id_that_changes_hands_has_a_new_generation() {
    let mut lab = Lab::new(vec![web(&["a"])]);
    let first = lab.backend("a");
    // As many owners as there are ids, until the first id comes again.
    for round in 1..=MAX_BACKENDS {
        let mut service = web(&["a"]);
        service.connections.drain_timeout = Millis(0);
        service.backends[0].address = (std::net::Ipv4Addr::from(0x0b00_0000 + round), 8080).into();
        lab.reload(vec![service]);
        lab.wait(2000);
        lab.written.clear();
        if lab.backend("a").id == first.id {
            assert_eq!(lab.backend("a").generation, Generation(first.generation.0 + 1));
            return;
        }
    }
    panic!("the id rested for ever");
}

fn crowd(services: usize, backends: usize) -> Config {
    let service = |index: usize| {
        let name = format!("s{index}");
        let backend = |i: usize| config::Backend {
            name: format!("b{i}"),
            address: (std::net::Ipv4Addr::from(0x0a00_0000 + (index * backends + i) as u32), 80).into(),
            weight: 1,
            probe_address: None,
            max_connections: None,
            discovered: None,
        };
        let vip = (std::net::Ipv4Addr::from(0xcb00_0000 + index as u32), 80).into();
        config::Service { name, vip, backends: (0..backends).map(backend).collect(), ..web(&[]) }
    };
    Config { services: (0..services).map(service).collect() }
}

#[test]
fn a_configuration_that_the_maps_cannot_hold_is_refused() {
    assert_eq!(fits(&crowd(MAX_SERVICES as usize, 16)), Ok(()));
    let (wanted, capacity) = (MAX_SERVICES as usize + 1, MAX_SERVICES as usize);
    assert_eq!(fits(&crowd(wanted, 1)), Err(Exhausted::Services { wanted, capacity }));
    let (wanted, capacity) = (MAX_BACKENDS as usize + 1, MAX_BACKENDS as usize);
    assert_eq!(fits(&crowd(1, wanted)), Err(Exhausted::Backends { wanted, capacity }));

    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    lab.news();
    let before = lab.engine.snapshot(lab.now);
    let config = crowd(1, MAX_BACKENDS as usize);
    assert!(fits(&config).is_ok() && lab.engine.fits(&config).is_err());
    lab.send(Input::Config(Arc::new(config)));
    assert_eq!(lab.engine.snapshot(lab.now), before);
    let event = lab.events.last().expect("refused");
    let expected = Event {
        seq: event.seq,
        kind: EventKind::Membership,
        from: "loaded".to_owned(),
        to: "refused".to_owned(),
        reason: EventReason::Exhausted,
        actor: "config".to_owned(),
        config_generation: 1,
        evidence: Evidence {
            detail: Some("16384 backends, but the maps hold at most 16382".to_owned()),
            ..Evidence::default()
        },
        ..Event::of_the_node(lab.now)
    };
    assert_eq!(*event, expected);
    // `web` is in the maps until its connections have ended.
    assert!(lab.engine.fits(&crowd(MAX_SERVICES as usize - 1, 1)).is_ok());
    assert!(lab.engine.fits(&crowd(MAX_SERVICES as usize, 1)).is_err());
}

#[test]
fn a_service_that_is_gone_leaves_its_space_when_its_backends_have_left() {
    let mut lab = Lab::new(vec![web(&["a"])]);
    let a = lab.backend("a");
    lab.reload(vec![named("other", "203.0.113.11:80", &["b"])]);
    let more = crowd(MAX_SERVICES as usize - 1, 1);
    assert!(lab.engine.fits(&more).is_err());
    for _ in 0..2 {
        lab.send(Input::Remaining { backend: a.id, generation: a.generation, connections: 0 });
    }
    assert_eq!(lab.engine.fits(&more), Ok(()));
}

#[test]
fn what_an_earlier_run_left_needs_no_more_space() {
    let config = crowd(MAX_SERVICES as usize, 1);
    let known = &config.services[7];
    let adopted = |vip| Adopted {
        service: ServiceId(4),
        vip: Some(vip),
        admits: true,
        id: BackendId(8),
        generation: Generation(3),
        address: known.backends[0].address,
    };
    let fits = |vip| {
        let settings = Settings { seed: 1, adopted: vec![adopted(vip)], ..Settings::default() };
        Lab::empty(settings).engine.fits(&config).is_ok()
    };
    assert!(fits(known.vip));
    assert!(!fits("192.0.2.1:1".parse().expect("literal")));
}
