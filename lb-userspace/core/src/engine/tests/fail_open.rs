//! Probes that fail everywhere at once.

use super::lab::{Lab, web};
use crate::{
    config,
    event::EventKind,
    io::{Admit, Operation, Verb},
    states::{BreakerState, Effective, Panic},
};

/// All probes of `names` have failed.
fn all_down(service: config::Service, names: &[&str]) -> Lab {
    let mut lab = Lab::new(vec![service]);
    names.iter().for_each(|name| lab.probe(name, true));
    lab.until(1000);
    lab.news();
    names.iter().for_each(|name| (0..3).for_each(|_| lab.probe(name, false)));
    lab
}

fn fail_open(names: &[&str], percent: u8) -> config::Service {
    let mut service = web(names);
    service.probe = Some(config::Probe { fail_open_percent: percent, ..config::Probe::default() });
    service
}

#[test]
fn probes_that_all_fail_at_once_are_not_believed() {
    let names = ["a", "b", "c"];
    let mut lab = all_down(fail_open(&names, 100), &names);
    assert_eq!(lab.service().panic, Some(Panic::ProbesFail));
    assert_eq!(lab.table(), names.map(str::to_owned).into());
    let panics = |lab: &mut Lab| -> Vec<_> {
        let news = lab.news();
        news.into_iter().filter(|(kind, ..)| *kind == EventKind::Panic).map(|(.., reason)| reason).collect()
    };
    assert_eq!(panics(&mut lab), ["probes_fail"]);
    let a = lab.backend("a");
    assert_eq!((a.effective, a.drain), (Effective::Down, None), "its connections go on");
    let why = "used all the same, because 3 of 3 are down at once and fail_open_percent is 100; its probe";
    assert!(a.reason.expect("said").starts_with(why));
    // Responses still decide, and the floor counts those in use.
    lab.statuses("a", &[500; 3]);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
    assert_eq!((lab.table(), lab.admit("a")), (["b".to_owned(), "c".to_owned()].into(), Some(Admit::None)));
    // One that passes again shows that the others are down indeed.
    (0..2).for_each(|_| lab.probe("b", true));
    assert_eq!((lab.service().panic, lab.table()), (None, ["b".to_owned()].into()));
    assert_eq!(panics(&mut lab), ["enough_serve"]);
}

#[test]
fn probes_that_fail_are_believed_where_that_is_set() {
    let names = ["a", "b"];
    let lab = all_down(fail_open(&names, 0), &names);
    assert_eq!((lab.service().panic, lab.table()), (None, [].into()));
}

#[test]
fn nearly_all_probes_fail_at_once_from_a_percentage_on() {
    let names = ["a", "b", "c", "d"];
    for (percent, panic) in [(75, Some(Panic::ProbesFail)), (76, None)] {
        let mut lab = all_down(fail_open(&names, percent), &["a", "b", "c"]);
        (0..2).for_each(|_| lab.probe("d", true));
        assert_eq!(lab.service().panic, panic, "{percent}");
        assert_eq!(lab.table().len(), if panic.is_some() { 4 } else { 1 });
    }
}

#[test]
fn failing_probes_use_no_backend_that_an_operator_took_out_or_the_breaker() {
    let names = ["a", "b", "c"];
    let mut lab = Lab::new(vec![fail_open(&names, 100)]);
    names.iter().for_each(|name| lab.probe(name, true));
    lab.statuses("a", &[500; 3]);
    let (service, backend, actor) = ("web".to_owned(), "b".to_owned(), "alice".to_owned());
    let order =
        Operation { service, backend, verb: Verb::Drain, duration: None, reason: None, actor, force: true };
    lab.operate(&order).expect("forced");
    names.iter().for_each(|name| (0..3).for_each(|_| lab.probe(name, false)));
    assert_eq!((lab.service().panic, lab.table()), (Some(Panic::ProbesFail), ["c".to_owned()].into()));
}

#[test]
fn a_fallback_is_better_than_probes_that_nobody_believes() {
    let names = ["a", "b"];
    let mut service = fail_open(&names, 100);
    service.fallback = web(&["a", "b", "x"]).backends.split_off(2);
    let mut lab = all_down(service, &names);
    lab.probe("x", true);
    assert_eq!((lab.service().panic, lab.table()), (None, ["x".to_owned()].into()));
}
