//! Plans that wait, fail and are overtaken.

use super::lab::{Lab, said, web};
use crate::{
    codes::PendingCode,
    event::EventKind,
    io::{Admit, Input, Step, StepFailure},
    snapshot::PendingWrite,
    states::BreakerState,
    time::Instant,
};

fn three() -> Lab {
    let mut lab = Lab::new(vec![web(&["a", "b", "c"])]);
    lab.news();
    lab.written.clear();
    lab
}

#[test]
fn an_ejection_is_announced_when_the_maps_hold_it() {
    let mut lab = three();
    lab.slow = true;
    lab.until(1000);
    lab.statuses("a", &[500; 3]);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
    assert_eq!(lab.news(), []);
    let id = lab.backend("a").id;
    assert!(matches!(
        lab.waiting[0].steps[..],
        [Step::Backend { id: of, admit: Admit::None, .. }, Step::Table { .. }] if of == id
    ));
    lab.until(1500);
    lab.answer();
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
    assert_eq!(lab.events.last().expect("just seen").t_ms, Instant(1000));
}

#[test]
fn one_plan_at_a_time_and_the_rest_in_the_next() {
    let mut lab = three();
    lab.slow = true;
    lab.statuses("a", &[500; 3]);
    lab.statuses("b", &[500; 3]);
    assert_eq!(lab.waiting.len(), 1);
    lab.answer();
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
    assert_eq!(lab.waiting.len(), 1);
    lab.answer();
    assert_eq!(lab.news(), [said(EventKind::Eject, "b", "consecutive_5xx")]);
}

#[test]
fn an_event_that_changes_no_map_is_known_at_once() {
    let mut lab = three();
    lab.slow = true;
    lab.statuses("a", &[500; 3]);
    lab.statuses("b", &[500; 3]);
    lab.statuses("c", &[500; 3]);
    assert_eq!(lab.news(), [said(EventKind::Refused, "c", "floor")]);
}

#[test]
fn a_failed_write_is_tried_again_and_both_have_events() {
    let mut lab = three();
    lab.until(1000);
    lab.script.extend([true; 8]);
    lab.statuses("a", &[500; 3]);
    assert_eq!(lab.news(), [said(EventKind::Dataplane, "web", "write_failed")]);
    let event = lab.events.last().expect("just seen");
    assert_eq!(event.evidence.detail.as_deref(), Some("no memory"));
    let pending = |attempts, next: u64| {
        Some(PendingWrite {
            code: PendingCode::WriteFailed,
            error: "no memory".to_owned(),
            attempts,
            next_try_ms: Instant(next),
        })
    };
    assert_eq!(lab.service().pending, pending(1, 1100));
    assert!(lab.backend("a").reason.expect("said").ends_with("; the maps are behind: no memory"));
    // 100 ms, 200, 400, … up to 5 s.
    let mut at = 1000;
    for (attempt, delay) in [100, 200, 400, 800, 1600, 3200, 5000, 5000].into_iter().enumerate() {
        assert_eq!(lab.service().pending, pending(attempt as u32 + 1, at + delay));
        lab.until(at + delay - 1);
        assert_eq!(lab.news(), []);
        at += delay;
        lab.until(at);
    }
    assert_eq!(
        lab.news(),
        [said(EventKind::Dataplane, "web", "write_holds"), said(EventKind::Eject, "a", "consecutive_5xx")]
    );
    assert_eq!((lab.service().pending, lab.admit("a")), (None, Some(Admit::None)));
}

#[test]
fn the_steps_before_the_failure_hold() {
    let mut lab = three();
    lab.script.extend([false, true]);
    lab.statuses("a", &[500; 3]);
    assert_eq!((lab.admit("a"), lab.table().len()), (Some(Admit::None), 3));
    lab.wait(100);
    let again: Vec<&Step> = lab.written.iter().skip(1).map(|(_, step)| step).collect();
    assert!(matches!(again[..], [Step::Table { .. }]), "{again:?}");
}

#[test]
fn changes_meanwhile_only_alter_the_next_plan() {
    let mut lab = three();
    lab.until(1000);
    lab.script.push_back(true);
    lab.statuses("a", &[500; 3]);
    lab.statuses("b", &[500; 3]);
    assert_eq!(lab.written, []);
    lab.until(1100);
    assert_eq!(lab.written.len(), 3, "two backends and one table");
    let expected = [
        said(EventKind::Dataplane, "web", "write_failed"),
        said(EventKind::Dataplane, "web", "write_holds"),
        said(EventKind::Eject, "a", "consecutive_5xx"),
        said(EventKind::Eject, "b", "consecutive_5xx"),
    ];
    assert_eq!(lab.news(), expected);
}

#[test]
fn an_overtaken_ejection_is_reported_in_order() {
    let mut service = web(&["a", "b"]);
    service.breaker.half_open_trials = 0;
    service.breaker.base_ejection_time = crate::time::Millis(1);
    let mut lab = Lab::new(vec![service]);
    lab.news();
    lab.until(4990);
    lab.script.push_back(true);
    lab.statuses("a", &[500; 3]);
    lab.until(5000);
    // Ejected and readmitted before a byte was written: nothing is left to write.
    let expected = [
        said(EventKind::Dataplane, "web", "write_failed"),
        said(EventKind::Dataplane, "web", "nothing_to_write"),
        said(EventKind::Eject, "a", "consecutive_5xx"),
        said(EventKind::Readmit, "a", "ejection_time_over"),
    ];
    assert_eq!(lab.news(), expected);
    assert_eq!((lab.service().pending, lab.admit("a")), (None, Some(Admit::All)));
}

#[test]
fn half_open_is_written_before_its_trial_slot_and_returns_before_it_leaves_it() {
    let mut lab = three();
    lab.statuses("a", &[500; 3]);
    lab.written.clear();
    lab.until(30_000);
    let steps: Vec<&Step> = lab.written.iter().map(|(_, step)| step).collect();
    assert!(matches!(
        steps[..],
        [Step::Backend { admit: Admit::Trials, .. }, Step::Budget { tokens: 3, .. }, Step::Service { .. }]
    ));
    lab.written.clear();
    lab.statuses("a", &[200; 3]);
    let steps: Vec<&Step> = lab.written.iter().map(|(_, step)| step).collect();
    assert!(matches!(
        steps[..],
        [Step::Backend { admit: Admit::All, .. }, Step::Table { .. }, Step::Service { .. }]
    ));
}

#[test]
fn a_budget_on_its_way_across_a_sweep_is_that_sweeps() {
    let mut service = web(&["a", "b"]);
    service.breaker.half_open_successes = 9;
    let mut lab = Lab::new(vec![service]);
    lab.statuses("a", &[500; 3]);
    lab.slow = true;
    lab.until(30_000);
    lab.status("a", 200);
    lab.until(35_000);
    let budgets =
        |lab: &Lab| lab.written.iter().filter(|(_, step)| matches!(step, Step::Budget { .. })).count();
    lab.answer();
    assert_eq!((budgets(&lab), lab.waiting.len()), (1, 0));
    lab.status("a", 200);
    lab.until(40_000);
    lab.answer();
    assert_eq!(budgets(&lab), 2);
}

#[test]
fn a_result_of_no_plan_changes_nothing() {
    let mut lab = three();
    let before = lab.engine.snapshot(lab.now);
    let failure = StepFailure { index: 9, error: "late".to_owned() };
    lab.send(Input::Applied { plan: 77, result: Err(failure) });
    lab.send(Input::Applied { plan: 78, result: Ok(()) });
    assert_eq!((lab.engine.snapshot(lab.now), lab.news()), (before, vec![]));
}

#[test]
fn deadlines_missed_are_caught_up_in_order() {
    // One call far too late gives the same as a call at every deadline.
    let run = |late: bool| {
        let mut lab = three();
        lab.until(1000);
        lab.statuses("a", &[500; 3]);
        if late {
            lab.now = Instant(49_000);
            lab.send(Input::Tick);
        } else {
            lab.until(49_000);
        }
        lab.status("a", 200);
        let events: Vec<_> = lab.events.iter().map(|event| (event.t_ms, event.kind, event.reason)).collect();
        (events, lab.engine.snapshot(lab.now), lab.maps)
    };
    let (on_time, late) = (run(false), run(true));
    assert_eq!(on_time.0, late.0);
    assert_eq!(on_time.1.services[0].backends[0].breaker, BreakerState::HalfOpen);
    assert_eq!(late.1.services[0].backends[0].breaker, BreakerState::HalfOpen);
    assert_eq!(on_time.2.services, late.2.services);
}
