//! The case that Shunt was made for: half of the answers of one backend are 500, its probe says 200.

use super::lab::{Lab, probe, web};
use crate::{
    event::EventKind,
    random,
    states::{BreakerState, Effective},
    time::Millis,
};

const REQUESTS: u64 = 50 * 300;

struct Run {
    lab: Lab,
    good: u64,
    sick: u64,
}

/// 50 requests a second for five minutes, each to the backend that the maps give it to.
fn run(names: &[&str]) -> Run {
    let mut service = web(names);
    service.probe = Some(probe());
    service.breaker.min_serving = 1;
    let mut run = Run { lab: Lab::new(vec![service]), good: 0, sick: 0 };
    for request in 0..REQUESTS {
        let lab = &mut run.lab;
        lab.until(1000 + request * 20);
        for (_, request) in std::mem::take(&mut lab.probes) {
            let result = crate::outcome::ProbeResult::Pass;
            let (backend, generation) = (request.backend, request.generation);
            lab.send(crate::io::Input::Probe { backend, generation, result });
        }
        let chosen = choose(lab, request);
        let fails = chosen == "v5xx" && random::draw(99, request).is_multiple_of(2);
        run.good += u64::from(!fails);
        run.sick += u64::from(chosen == "v5xx");
        lab.status(&chosen, if fails { 500 } else { 200 });
    }
    run
}

/// First a trial slot with budget, then the table.
fn choose(lab: &mut Lab, request: u64) -> String {
    let service = lab.service();
    let (_, trials) = &lab.maps.services[&service.vip];
    let offered =
        trials.iter().copied().find(|trial| lab.maps.budgets.get(trial).is_some_and(|left| *left > 0));
    let members = &lab.maps.tables[&service.id];
    let slot = random::draw(5, request) as usize % members.len();
    let id = offered.unwrap_or(members[slot].id);
    if offered.is_some() {
        *lab.maps.budgets.get_mut(&id).expect("it had some left") -= 1;
    }
    service.backends.into_iter().find(|backend| backend.id == id).expect("known").name
}

#[test]
fn beside_a_healthy_backend_the_sick_one_is_taken_out() {
    let Run { lab, good, sick } = run(&["v200", "v5xx"]);
    // Envoy with the same configuration gave 99.5 % good answers.
    assert!(good * 1000 >= REQUESTS * 995, "{good} of {REQUESTS} good, {sick} at the sick one");
    let of = |kind| lab.events.iter().filter(|event| event.kind == kind).collect::<Vec<_>>();
    let ejections = of(EventKind::Eject);
    assert!(ejections.len() >= 3, "{ejections:?}");
    assert_eq!(ejections[0].reason, "consecutive_5xx");
    assert!(ejections.iter().all(|event| event.backend.as_deref() == Some("v5xx")));
    assert!(!of(EventKind::Trial).is_empty());
    assert!(of(EventKind::Refused).is_empty());
    assert_eq!(lab.backend("v200").breaker, BreakerState::Closed);
    assert_eq!(ejections[0].evidence.probe, Some(crate::states::ProbeState::Up));
}

#[test]
fn alone_it_is_kept_by_the_floor() {
    let Run { mut lab, good, .. } = run(&["v5xx"]);
    // Envoy with the same configuration gave 0.8 %.
    assert!(good * 100 >= REQUESTS * 48, "{good} of {REQUESTS} good");
    assert!(lab.events.iter().all(|event| event.kind != EventKind::Eject));
    let refusals = lab.events.iter().filter(|event| event.kind == EventKind::Refused);
    assert!(refusals.clone().count() > 100);
    assert!(refusals.clone().all(|event| event.reason == "floor"));
    lab.statuses("v5xx", &[200, 500, 500, 500]);
    lab.wait(4000);
    let lone = lab.backend("v5xx");
    assert_eq!((lone.effective, lone.share), (Effective::Serving, 10_000));
    let reason = "kept by the floor: 1 of 1 backends serve and min_serving is 1; \
                  3 failures in a row refused 4 s ago";
    assert_eq!(lone.reason.as_deref(), Some(reason));
    assert_eq!(lab.engine.snapshot(lab.now).t_ms, crate::time::Instant(0) + Millis(lab.now.0));
}
