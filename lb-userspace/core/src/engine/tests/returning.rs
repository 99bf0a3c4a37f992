//! The return of ejected backends: sweeps, trials, budgets and trial slots.

use lb_common::abi::TRIAL_SLOTS;

use super::lab::{Lab, probe, said, web};
use crate::{
    config::HalfOpenExit,
    event::EventKind,
    io::{Admit, Step},
    states::{BreakerState, Effective, ProbeState},
    time::{Instant, Millis},
};

/// `a` of two was ejected at 1 s, until 31 s.
fn ejected(change: impl FnOnce(&mut crate::config::Service)) -> Lab {
    let mut service = web(&["a", "b"]);
    change(&mut service);
    let probed = service.probe.is_some();
    let mut lab = Lab::new(vec![service]);
    lab.until(1000);
    if probed {
        lab.probe("a", true);
        lab.probe("b", true);
    }
    lab.statuses("a", &[500; 3]);
    assert_eq!(lab.backend("a").until_ms, Some(Instant(31_000)));
    lab.news();
    lab
}

fn budgets(lab: &Lab, name: &str) -> Vec<(u64, u32)> {
    let id = lab.backend(name).id;
    let its = |(at, step): &(Instant, Step)| match step {
        Step::Budget { id: of, tokens } if *of == id => Some((at.0, *tokens)),
        Step::Budget { .. }
        | Step::Service { .. }
        | Step::RemoveService { .. }
        | Step::Backend { .. }
        | Step::RemoveBackend { .. }
        | Step::Table { .. } => None,
    };
    lab.written.iter().filter_map(its).collect()
}

#[test]
fn the_first_sweep_after_the_time_opens_half() {
    let mut lab = ejected(|_| {});
    lab.until(34_999);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
    lab.until(35_000);
    assert_eq!(lab.news(), [said(EventKind::Trial, "a", "ejection_time_over")]);
    let a = lab.backend("a");
    assert_eq!((a.effective, a.share, a.until_ms), (Effective::Trial, 0, None));
    assert_eq!((lab.admit("a"), budgets(&lab, "a")), (Some(Admit::Trials), vec![(35_000, 3)]));
    assert_eq!(lab.maps.services.values().next().expect("there").1, [a.id]);
    let reason = "half-open: 0 of 3 good outcomes in a row, at most 3 new connections a sweep";
    assert_eq!(a.reason.as_deref(), Some(reason));
}

#[test]
fn a_time_that_ends_with_the_sweep_is_over() {
    let mut service = web(&["a", "b"]);
    service.breaker.base_ejection_time = Millis::secs(10);
    let mut lab = Lab::new(vec![service]);
    lab.until(5000);
    lab.statuses("a", &[500; 3]);
    lab.until(15_000);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
}

#[test]
fn without_trials_it_returns_at_the_sweep_with_clean_runs() {
    let mut lab = ejected(|service| service.breaker.half_open_trials = 0);
    lab.statuses("a", &[500; 2]);
    lab.until(35_000);
    assert_eq!(lab.news(), [said(EventKind::Readmit, "a", "ejection_time_over")]);
    assert_eq!(lab.table(), ["a".to_owned(), "b".to_owned()].into());
    lab.statuses("a", &[500; 2]);
    assert_eq!(lab.news(), []);
}

#[test]
fn enough_good_outcomes_in_a_row_readmit_at_once() {
    let mut lab = ejected(|_| {});
    lab.until(36_000);
    lab.statuses("a", &[200, 404]);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
    lab.status("a", 200);
    let trial_and_return = [
        said(EventKind::Trial, "a", "ejection_time_over"),
        said(EventKind::Readmit, "a", "half_open_successes"),
    ];
    assert_eq!(lab.news(), trial_and_return);
    let a = lab.backend("a");
    assert_eq!((a.effective, a.ejection, a.since_ms), (Effective::Serving, 1, Instant(36_000)));
    assert_eq!(lab.maps.services.values().next().expect("there").1, []);
}

#[test]
fn one_failure_opens_it_again_with_the_next_number() {
    let mut lab = ejected(|_| {});
    lab.until(36_000);
    lab.statuses("a", &[200, 200, 500]);
    let event = lab.events.last().expect("just seen");
    assert_eq!(
        (event.kind, event.reason.as_str(), event.from.as_str()),
        (EventKind::Eject, "half_open_failure", "half-open")
    );
    assert_eq!((event.ejection, event.until_ms), (2, Some(Instant(96_000))));
    assert_eq!((lab.admit("a"), lab.backend("a").ejection), (Some(Admit::None), 2));
}

#[test]
fn neither_ceiling_nor_floor_keeps_a_half_open_one_from_opening() {
    let mut lab = ejected(|service| service.breaker.max_ejection_percent = 50);
    lab.until(36_000);
    lab.status("a", 500);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
}

#[test]
fn a_distrusted_failure_only_ends_the_good_run() {
    let mut lab = ejected(|_| {});
    lab.until(36_000);
    lab.statuses("a", &[200, 200]);
    lab.lose("a", 5);
    lab.status("a", 500);
    assert_eq!(lab.news().last(), Some(&said(EventKind::Refused, "a", "evidence_lost")));
    lab.statuses("a", &[200, 200]);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
    lab.status("a", 200);
    assert_eq!(lab.backend("a").breaker, BreakerState::Closed);
}

#[test]
fn the_number_forgives_after_half_an_interval_in_service() {
    for (returns, ejection) in [(37_400, 0), (37_600, 1)] {
        let mut lab = ejected(|_| {});
        lab.until(returns);
        lab.statuses("a", &[200; 4]);
        lab.until(40_000);
        assert_eq!(lab.backend("a").ejection, ejection, "returned at {returns}");
    }
    // Its trials are no evidence of an interval in service.
    let mut lab = ejected(|_| {});
    lab.until(36_000);
    lab.statuses("a", &[200; 3]);
    lab.until(40_000);
    assert_eq!(lab.backend("a").ejection, 1);
}

#[test]
fn a_budget_is_renewed_at_sweeps_after_an_outcome() {
    let mut lab = ejected(|service| {
        service.breaker.half_open_successes = 7;
        service.breaker.half_open_timeout = Millis::secs(60);
    });
    lab.until(36_000);
    lab.statuses("a", &[200; 3]);
    lab.until(41_000);
    lab.statuses("a", &[200; 3]);
    lab.until(49_000);
    assert_eq!(budgets(&lab, "a"), [(35_000, 3), (40_000, 3), (45_000, 3)]);
    lab.status("a", 200);
    assert_eq!(lab.backend("a").breaker, BreakerState::Closed);
}

#[test]
fn a_silent_budget_is_renewed_after_the_timeout() {
    let mut lab = ejected(|service| {
        service.breaker.half_open_timeout = Millis::secs(12);
        service.breaker.half_open_exit = HalfOpenExit::Wait;
    });
    lab.until(70_000);
    assert_eq!(budgets(&lab, "a"), [(35_000, 3), (50_000, 3), (65_000, 3)]);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
}

#[test]
fn a_silent_budget_is_not_renewed_while_the_probe_objects() {
    let mut lab = ejected(|service| {
        service.probe = Some(probe());
        service.breaker.half_open_exit = HalfOpenExit::Wait;
    });
    lab.until(36_000);
    assert_eq!(budgets(&lab, "a").len(), 1);
    for _ in 0..3 {
        lab.probe("a", false);
    }
    assert_eq!(lab.backend("a").effective, Effective::Down);
    assert_eq!(lab.maps.services.values().next().expect("there").1, []);
    lab.until(60_000);
    assert_eq!(budgets(&lab, "a").len(), 1);
    lab.probe("a", true);
    lab.probe("a", true);
    lab.until(65_000);
    assert_eq!(budgets(&lab, "a"), [(35_000, 3), (65_000, 3)]);
}

#[test]
fn without_traffic_three_empty_sweeps_close_it() {
    let mut lab = ejected(|_| {});
    lab.until(41_000);
    lab.status("a", 200);
    lab.until(59_999);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
    // The sweep at 45 s was not empty; those at 50, 55 and 60 s are.
    lab.until(60_000);
    assert_eq!(lab.news().last(), Some(&said(EventKind::Readmit, "a", "no_traffic")));

    let mut waits = ejected(|service| service.breaker.half_open_exit = HalfOpenExit::Wait);
    waits.until(200_000);
    assert_eq!(waits.backend("a").breaker, BreakerState::HalfOpen);
}

#[test]
fn a_backend_returns_only_with_its_probe_up() {
    let bad_probe = |readmits| {
        let mut lab = ejected(|service| {
            service.probe = Some(probe());
            service.breaker.probe_readmits = readmits;
        });
        for _ in 0..3 {
            lab.probe("a", false);
        }
        lab.until(40_000);
        lab
    };
    let mut lab = bad_probe(true);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
    lab.probe("a", true);
    lab.probe("a", true);
    assert_eq!(
        lab.backend("a").reason.as_deref(),
        Some("ejected 39 s ago for 3 failures in a row, ejection 1, over at the next sweep")
    );
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
    lab.until(45_000);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);

    let ignored = bad_probe(false);
    let a = ignored.backend("a");
    assert_eq!(
        (a.breaker, a.probe, a.effective),
        (BreakerState::HalfOpen, ProbeState::Down, Effective::Down)
    );
}

#[test]
fn a_passing_probe_does_not_shorten_an_ejection() {
    let mut lab = ejected(|service| service.probe = Some(probe()));
    lab.probe("a", true);
    lab.until(34_000);
    lab.probe("a", true);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
}

#[test]
fn good_outcomes_wait_for_the_probe() {
    let mut lab = ejected(|service| service.probe = Some(probe()));
    lab.until(36_000);
    for _ in 0..3 {
        lab.probe("a", false);
    }
    lab.statuses("a", &[200; 3]);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
    lab.probe("a", true);
    lab.probe("a", true);
    lab.until(40_000);
    assert_eq!(lab.news().last(), Some(&said(EventKind::Readmit, "a", "half_open_successes")));
}

#[test]
fn more_half_open_backends_than_trial_slots_take_turns() {
    let names: Vec<String> = (0..TRIAL_SLOTS + 4).map(|i| format!("b{i:02}")).collect();
    let mut service = web(&names.iter().map(String::as_str).collect::<Vec<_>>());
    service.breaker.min_serving = 0;
    service.breaker.half_open_exit = HalfOpenExit::Close;
    let mut lab = Lab::new(vec![service]);
    for name in &names {
        lab.statuses(name, &[500; 3]);
    }
    let trial_slots = |lab: &Lab| lab.maps.services.values().next().expect("there").1.clone();
    let mut turns = vec![0; names.len()];
    for sweep in 0..3 {
        lab.until(30_000 + sweep * 5000);
        assert_eq!(trial_slots(&lab).len(), TRIAL_SLOTS);
        trial_slots(&lab).iter().for_each(|id| turns[usize::from(id.0)] += 1);
    }
    // 24 trial slots for 12 backends.
    assert_eq!(turns, vec![2; names.len()]);
    assert!(names.iter().all(|name| lab.backend(name).breaker == BreakerState::HalfOpen));
    // A sweep without a trial slot is no empty sweep: each backend gets three before it closes.
    lab.until(30_000 + 4 * 5000);
    let closed = names.iter().filter(|name| lab.backend(name).breaker == BreakerState::Closed).count();
    assert_eq!(closed, TRIAL_SLOTS);
    lab.until(30_000 + 5 * 5000);
    assert!(names.iter().all(|name| lab.backend(name).breaker == BreakerState::Closed));
}

#[test]
fn trials_that_a_reload_abolished_end_at_the_next_sweep() {
    let mut lab = ejected(|_| {});
    lab.until(36_000);
    let mut service = web(&["a", "b"]);
    service.breaker.half_open_trials = 0;
    lab.reload(vec![service]);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
    lab.until(40_000);
    assert_eq!(lab.news().last(), Some(&said(EventKind::Readmit, "a", "ejection_time_over")));
}

#[test]
fn a_slow_start_raises_the_share_in_five_steps() {
    let mut lab = ejected(|service| {
        service.breaker.half_open_trials = 0;
        service.breaker.slow_start = Millis(8000);
    });
    lab.until(35_000);
    assert_eq!(lab.news(), [said(EventKind::Readmit, "a", "ejection_time_over")]);
    let mut seen = Vec::new();
    for at in (35_000..=44_000).step_by(1000) {
        lab.until(at);
        seen.push((lab.backend("a").weight_percent, lab.backend("a").share));
    }
    let expected = [
        (20, 1666),
        (20, 1666),
        (40, 2857),
        (40, 2857),
        (60, 3750),
        (60, 3750),
        (80, 4444),
        (80, 4444),
        (100, 5000),
        (100, 5000),
    ];
    assert_eq!(seen, expected);
    assert_eq!(lab.news(), vec![said(EventKind::Weight, "a", "slow_start"); 4]);
    let event = lab.events.last().expect("just seen");
    assert_eq!((event.t_ms, event.from.as_str(), event.to.as_str()), (Instant(43_000), "80 %", "100 %"));
}

#[test]
fn an_ejection_ends_a_slow_start_and_the_smallest_weight_has_one_too() {
    let mut lab = ejected(|service| {
        service.breaker.half_open_trials = 0;
        service.breaker.slow_start = Millis(8000);
        service.backends.iter_mut().for_each(|backend| backend.weight = 1);
    });
    lab.until(37_000);
    assert_eq!(lab.backend("a").share, 2857);
    lab.statuses("a", &[500; 3]);
    lab.news();
    lab.until(50_000);
    assert_eq!((lab.backend("a").weight_percent, lab.news()), (0, vec![]));
}

#[test]
fn a_slow_start_works_with_the_largest_weights() {
    let mut lab = ejected(|service| {
        service.breaker.half_open_trials = 0;
        service.breaker.slow_start = Millis(8000);
        service.backends.iter_mut().for_each(|backend| backend.weight = u16::MAX);
    });
    lab.until(35_000);
    assert_eq!(lab.backend("a").share, 1666);
}

#[test]
fn a_reload_may_abolish_a_slow_start() {
    let mut lab = ejected(|service| {
        service.breaker.half_open_trials = 0;
        service.breaker.slow_start = Millis(8000);
    });
    lab.until(36_000);
    lab.reload(vec![web(&["a", "b"])]);
    assert_eq!((lab.backend("a").weight_percent, lab.backend("a").share), (100, 5000));
}
