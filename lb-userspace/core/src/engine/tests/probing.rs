//! Probes: the changes that they make, and when the engine sends them.

use super::lab::{Lab, probe, said, web};
use crate::{
    config::{self, NoBackend},
    event::EventKind,
    io::Admit,
    states::{BreakerState, Effective, ProbeState},
    time::{Instant, Millis},
};

fn probed(names: &[&str]) -> config::Service {
    config::Service { probe: Some(probe()), ..web(names) }
}

#[test]
fn an_unknown_backend_serves_only_while_nothing_better_is_there() {
    let mut lab = Lab::new(vec![probed(&["a", "b", "c"])]);
    assert_eq!(lab.table().len(), 3);
    assert_eq!(
        lab.backend("a").reason.as_deref(),
        Some("not probed yet: used because nobody is known to be up")
    );
    lab.probe("a", true);
    assert_eq!(lab.table(), ["a".to_owned()].into());
    assert_eq!(lab.backend("b").share, 0);
    assert_eq!(
        lab.backend("b").reason.as_deref(),
        Some("not probed yet: gets nothing while others are known to be up")
    );
    lab.probe("b", false);
    lab.probe("c", true);
    assert_eq!(lab.table(), ["a".to_owned(), "c".to_owned()].into());
    let b = lab.backend("b");
    assert_eq!((b.effective, b.reason.as_deref()), (Effective::Down, Some("its probe fails: status 503")));
    assert_eq!(b.last_probe.as_deref(), Some("status 503"));
}

#[test]
fn the_first_result_settles_then_rise_and_fall_count() {
    let mut lab = Lab::new(vec![probed(&["a", "b"])]);
    lab.news();
    lab.probe("a", false);
    lab.probe("b", true);
    assert_eq!(
        lab.news(),
        [said(EventKind::Probe, "a", "first_result"), said(EventKind::Probe, "b", "first_result")]
    );
    for passes in [true, false, true] {
        lab.probe("a", passes);
    }
    assert_eq!(lab.backend("a").probe, ProbeState::Down);
    lab.probe("a", true);
    assert_eq!(lab.news(), [said(EventKind::Probe, "a", "rise")]);
    for passes in [false, false, true, false, false] {
        lab.probe("a", passes);
    }
    assert_eq!((lab.backend("a").probe, lab.news()), (ProbeState::Up, vec![]));
    lab.probe("a", false);
    assert_eq!(lab.news(), [said(EventKind::Probe, "a", "fall")]);
    let event = lab.events.last().expect("just seen");
    assert_eq!((event.from.as_str(), event.to.as_str(), event.actor.as_str()), ("up", "down", "probe"));
    assert_eq!(event.evidence.detail.as_deref(), Some("status 503"));
    assert_eq!(lab.admit("a"), Some(Admit::None));
}

#[test]
fn the_floor_counts_those_that_can_serve() {
    let mut lab = Lab::new(vec![probed(&["a", "b", "c"])]);
    lab.probe("a", true);
    lab.probe("b", false);
    lab.news();
    // `b` is down and `c` unproven: `a` is the only one that serves.
    lab.statuses("a", &[500; 3]);
    assert_eq!(lab.news(), [said(EventKind::Refused, "a", "floor")]);
    lab.probe("c", true);
    lab.news();
    lab.statuses("a", &[500; 3]);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
}

#[test]
fn a_down_backend_is_not_out_for_the_ceiling() {
    let mut service = probed(&["a", "b", "c"]);
    service.breaker.max_ejection_percent = 34;
    let mut lab = Lab::new(vec![service]);
    lab.probe("a", false);
    lab.probe("b", true);
    lab.probe("c", true);
    lab.statuses("b", &[500; 3]);
    assert_eq!(lab.backend("b").breaker, BreakerState::Open);
}

#[test]
fn panic_uses_all_but_those_known_to_be_down() {
    let mut service = probed(&["a", "b", "c"]);
    service.no_backend = NoBackend::Any;
    let mut lab = Lab::new(vec![service]);
    for name in ["a", "b", "c"] {
        lab.probe(name, true);
    }
    lab.statuses("a", &[500; 3]);
    assert!(lab.service().panic.is_none());
    for name in ["b", "c"] {
        for _ in 0..3 {
            lab.probe(name, false);
        }
    }
    assert!(lab.service().panic.is_some());
    assert_eq!((lab.table(), lab.admit("a")), (["a".to_owned()].into(), Some(Admit::All)));
    let a = lab.backend("a");
    assert_eq!((a.effective, a.share), (Effective::Ejected, 10_000));
    assert!(a.reason.expect("said").starts_with("used all the same"));
    lab.probe("b", true);
    lab.probe("b", true);
    assert!(lab.service().panic.is_none());
    assert_eq!((lab.table(), lab.admit("a")), (["b".to_owned()].into(), Some(Admit::None)));
    for _ in 0..3 {
        lab.probe("b", false);
        lab.probe("a", false);
    }
    assert!(lab.service().panic.is_none(), "nobody is left to use");
    assert_eq!(lab.table(), [].into());
}

#[test]
fn without_panic_an_empty_table_is_an_empty_table() {
    let mut lab = Lab::new(vec![probed(&["a"])]);
    lab.probe("a", false);
    assert_eq!(lab.table(), [].into());
    assert_eq!(lab.admit("a"), Some(Admit::None));
}

#[test]
fn the_first_probes_are_spread_and_soon() {
    let names: Vec<String> = (0..40).map(|i| format!("b{i}")).collect();
    let mut lab = Lab::new(vec![probed(&names.iter().map(String::as_str).collect::<Vec<_>>())]);
    lab.until(200);
    assert_eq!(lab.probes.len(), 40);
    let moments: std::collections::BTreeSet<_> = lab.probes.iter().map(|(at, _)| *at).collect();
    assert!(moments.len() > 25, "{moments:?}");
}

#[test]
fn one_probe_at_a_time_an_interval_apart() {
    let mut lab = Lab::new(vec![probed(&["a"])]);
    let mut starts = Vec::new();
    for _ in 0..50 {
        while lab.probes.is_empty() {
            let next = lab.engine.next_deadline().expect("a probe is due");
            lab.until(next.0);
        }
        assert_eq!(lab.probes.len(), 1, "one in flight");
        let (at, request) = lab.probes.remove(0);
        assert_eq!((request.timeout, request.address), (Millis::secs(1), lab.backend("a").address));
        starts.push(at.0);
        lab.wait(300);
        lab.probe("a", true);
    }
    let gaps: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (1800..=2200).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().min() < gaps.iter().max());
    let mean = gaps.iter().sum::<u64>() / gaps.len() as u64;
    assert!((1900..=2100).contains(&mean), "{mean}");
}

#[test]
fn a_late_answer_is_followed_by_the_next_probe_at_once() {
    let mut lab = Lab::new(vec![probed(&["a"])]);
    lab.until(10_000);
    assert_eq!(lab.probes.len(), 1);
    lab.probe("a", true);
    assert_eq!(lab.probes.len(), 2);
    assert_eq!(lab.probes[1].0, Instant(10_000));
}

#[test]
fn without_a_probe_results_mean_nothing() {
    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    lab.news();
    for _ in 0..5 {
        lab.probe("a", false);
    }
    assert_eq!((lab.backend("a").probe, lab.news()), (ProbeState::None, vec![]));
    lab.until(20_000);
    assert!(lab.probes.is_empty());
}

#[test]
fn a_status_is_judged_by_the_probe() {
    let mut service = probed(&["a", "b"]);
    let http = config::HttpProbe { fail_fast: vec![500..=599], ..config::HttpProbe::default() };
    service.probe = Some(config::Probe { kind: config::ProbeKind::Http(http), ..probe() });
    let mut lab = Lab::new(vec![service]);
    lab.probe_status("a", 302);
    assert_eq!(lab.backend("a").probe, ProbeState::Up);
    lab.news();
    lab.probe_status("a", 503);
    assert_eq!(lab.news(), [said(EventKind::Probe, "a", "fail_fast")]);
    let a = lab.backend("a");
    assert_eq!(a.last_probe.as_deref(), Some("status 503"));
    assert_eq!(a.reason.as_deref(), Some("its probe fails: status 503"));
}

#[test]
fn a_passing_status_that_is_not_yet_enough_is_not_shown_as_a_failure() {
    let mut service = probed(&["a", "b"]);
    let http = config::ProbeKind::Http(config::HttpProbe::default());
    service.probe = Some(config::Probe { kind: http, ..probe() });
    let mut lab = Lab::new(vec![service]);
    lab.probe_status("a", 500);
    assert_eq!(lab.backend("a").reason.as_deref(), Some("its probe fails: status 500"));
    lab.probe_status("a", 200);
    let a = lab.backend("a");
    assert_eq!((a.probe, a.last_probe.as_deref()), (ProbeState::Down, Some("status 200")));
    assert_eq!(a.reason.as_deref(), Some("its probe has not yet passed often enough"));
    lab.probe_status("a", 200);
    assert_eq!(lab.backend("a").probe, ProbeState::Up);
}

/// Compares only the times of probes: after a failure the next one comes sooner.
#[test]
fn the_engine_asks_at_the_pace_of_the_state() {
    let mut service = probed(&["a"]);
    service.probe = Some(config::Probe {
        fast_interval: Millis(200),
        down_interval: Millis::secs(8),
        jitter: 0,
        ..probe()
    });
    let mut lab = Lab::new(vec![service]);
    let mut starts = Vec::new();
    for passes in [true, false, false, false, false, true, true, true] {
        while lab.probes.is_empty() {
            let next = lab.engine.next_deadline().expect("a probe is due");
            lab.until(next.0);
        }
        starts.push(lab.probes.remove(0).0.0);
        lab.probe("a", passes);
    }
    let gaps: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps, [2000, 200, 200, 8000, 8000, 200, 2000]);
}

#[test]
fn a_passing_probe_ends_an_ejection_if_so_configured() {
    for (trials, breaker, kind) in
        [(3, BreakerState::HalfOpen, EventKind::Trial), (0, BreakerState::Closed, EventKind::Readmit)]
    {
        let mut service = probed(&["a", "b"]);
        service.breaker.probe_uneject = true;
        service.breaker.half_open_trials = trials;
        let mut lab = Lab::new(vec![service]);
        lab.probe("a", true);
        lab.probe("b", true);
        lab.statuses("a", &[500; 3]);
        lab.until(1234);
        lab.news();
        lab.probe("b", true);
        lab.probe("a", false);
        assert_eq!(lab.news(), []);
        lab.probe("a", true);
        assert_eq!(lab.news(), [said(kind, "a", "probe_uneject")]);
        assert_eq!(lab.backend("a").breaker, breaker);
    }
}

#[test]
fn a_pass_that_does_not_yet_bring_it_up_ends_no_ejection() {
    let mut service = probed(&["a", "b"]);
    service.breaker.probe_uneject = true;
    let mut lab = Lab::new(vec![service]);
    lab.probe("a", false);
    lab.probe("b", true);
    lab.statuses("a", &[500; 3]);
    lab.probe("a", true);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
    lab.probe("a", true);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
}

#[test]
fn below_the_panic_threshold_all_are_used() {
    let mut service = probed(&["a", "b", "c", "d"]);
    service.breaker.panic_threshold = 51;
    let mut lab = Lab::new(vec![service]);
    for name in ["a", "b", "c", "d"] {
        lab.probe(name, true);
    }
    lab.statuses("a", &[500; 3]);
    assert!(lab.service().panic.is_none(), "3 of 4 serve");
    for _ in 0..3 {
        lab.probe("b", false);
    }
    // Half of them serve: all but the one that is down are used, the ejected one too.
    assert!(lab.service().panic.is_some());
    assert_eq!(lab.table(), ["a", "c", "d"].map(str::to_owned).into());
    assert_eq!(lab.admit("b"), Some(Admit::None));
    let reason = lab.backend("a").reason.expect("it is ejected");
    let why = "used all the same, because 2 of 4 serve and panic_threshold is 51; ejected";
    assert!(reason.starts_with(why), "{reason}");
    lab.probe("b", true);
    lab.probe("b", true);
    assert!(lab.service().panic.is_none());
    assert_eq!(lab.table(), ["b", "c", "d"].map(str::to_owned).into());
}

#[test]
fn the_panic_threshold_is_exact_and_off_at_zero() {
    for (threshold, panic) in [(0, false), (50, false), (51, true)] {
        let mut service = probed(&["a", "b"]);
        service.probe = None;
        service.breaker.panic_threshold = threshold;
        let mut lab = Lab::new(vec![service]);
        lab.statuses("a", &[500; 3]);
        assert_eq!(lab.service().panic.is_some(), panic, "{threshold} %");
    }
}
