use lb_core::{
    codes::{NextCode, OverrideCode},
    event::{Run, Totals},
    io::FlowReset,
    snapshot::{Drain, Next, Override},
};

use super::*;
use crate::control::fixture;

#[test]
fn an_ejected_backend_at_three_in_the_morning() {
    let mut view = fixture::view();
    view.connections = Some(3);
    assert_eq!(
        why(&view, &Palette::PLAIN),
        "\
web/web-2  10.0.0.12:8080  ejected by its breaker: no new connections
  ejected 12 s ago for 3 failures in a row, ejection 2, 21 s left
  3 connections are open

  AXIS      STATE    SINCE (UTC)
  operator  enabled  11:59:00.000 (1 h 02 m ago)
  probe     up       11:59:02.400 (1 h 02 m ago)  last result: pass
  breaker   open     13:00:51.400 (12 s ago)      ejection number 2, 21 s left

What comes next
  - half-open with 3 new connections a sweep in 21 s
  - `shunt backend admit web/web-2` readmits it at once
  - this interval ends in 1 s

The last decision
  eject: closed -> open by breaker, 13:00:51.400 (12 s ago)
  because of consecutive_5xx: 3 failures in a row (threshold 3); probe up
  at that moment 0 of 4 backends were ejected and 4 served; at most 50 % may be ejected, at least 1
  must serve

The last outcomes
  these led to the decision, and there were none since
  TIME (UTC)               OUTCOME          CLIENT
  13:00:51.000 (12 s ago)  200              10.1.0.7:41200
  13:00:51.200 (12 s ago)  500              10.1.0.7:41500
  13:00:51.300 (12 s ago)  connect_refused  10.1.0.7:41503
  13:00:51.400 (12 s ago)  502              10.1.0.7:41502

The detectors
  NAME                       NOW  TRIPS                    THEN          NEEDED
  consecutive_5xx     0 in a row  at 3 in a row            ejects        3 more in a row
  error_rate      3 of 4, 75.00%  at 10.00% of 20 or more  only reports  16 more in a row
  (its breaker is not closed, so the detectors do nothing)
"
    );
}

#[test]
fn a_limit_is_shown_with_its_use() {
    let mut view = fixture::view();
    let said = |view: &BackendView| {
        let text = why(view, &Palette::PLAIN);
        text.lines().nth(2).expect("a line about it").trim().to_owned()
    };
    view.traffic.limit = Some(model::LimitUse { used: 8, handshakes: 0, limit: 10 });
    assert_eq!(said(&view), "it has 8 of 10 connections; no SYN has found it full");
    view.traffic.limit = Some(model::LimitUse { used: 10, handshakes: 0, limit: 10 });
    view.traffic.counters.spilled = 1;
    let full = "it has 10 of 10 connections, so it gets no new ones; 1 SYN has found it full and looked for";
    assert_eq!(said(&view), full);
    view.traffic.limit = Some(model::LimitUse { used: 3, handshakes: 0, limit: 0 });
    view.traffic.counters.spilled = 2;
    assert_eq!(said(&view), "it has 3 connections; 2 SYNs have found it full and looked for another backend");
}

#[test]
fn an_order_says_when_the_drain_ends() {
    let mut view = fixture::view();
    let backend = &mut view.why.backend;
    (backend.breaker, backend.until_ms) = (BreakerState::Closed, None);
    (backend.operator, backend.effective) = (OperatorState::Draining, Effective::Draining);
    backend.reason = Some("draining: no new connections, by alice".to_owned());
    let since_ms = Instant(3_723_400);
    backend.drain = Some(Drain { since_ms, until_ms: Instant(3_783_400), flow_reset: FlowReset::Never });
    assert_eq!(
        changed(&view, &Palette::PLAIN),
        "web/web-2: draining: no new connections, by alice; its connections continue, and in 1 m 00 s \
         Shunt resets those still open; in force"
    );
    view.connections = Some(2);
    assert!(changed(&view, &Palette::PLAIN).contains("continue (2 left), and in"));
}

/// It has an overridden weight, is drained, and its last change is not written: the overrides come first.
#[test]
fn a_backend_with_overrides_shows_them_first() {
    let mut view = fixture::view();
    view.why.in_maps = false;
    view.why.pending = Some(fixture::pending());
    (view.why.last_decision, view.why.last_outcomes, view.why.detectors) = (None, Vec::new(), Vec::new());
    view.why.next = vec![Next {
        code: NextCode::Enable,
        says: "it is draining until an operator enables it, or by itself in 576 s".to_owned(),
    }];
    let backend = &mut view.why.backend;
    (backend.breaker, backend.until_ms, backend.ejection) = (BreakerState::Closed, None, 0);
    (backend.operator, backend.effective) = (OperatorState::Draining, Effective::Draining);
    backend.since_ms = Instant(0);
    backend.reason = Some("draining: no new connections, by alice (deploy), 9 min left".to_owned());
    let alice = |code, what: &str, reason: Option<&str>, until_ms| Override {
        code,
        what: what.to_owned(),
        actor: "alice (as root)".to_owned(),
        reason: reason.map(str::to_owned),
        since_ms: Instant(3_700_000),
        until_ms,
    };
    backend.overrides = vec![
        alice(OverrideCode::Draining, "draining", Some("deploy"), Some(Instant(4_300_000))),
        alice(OverrideCode::Weight, "weight 10", None, None),
    ];
    view.why.operator_since_ms = Instant(3_700_000);
    assert_eq!(
        why(&view, &Palette::PLAIN),
        "\
web/web-2  10.0.0.12:8080  draining: no new connections
  draining: no new connections, by alice (deploy), 9 min left
  weight 10 by alice (as root), until an operator takes it back
  the daemon cannot write the service's maps (3 failed so far, next try in 750 ms): TABLES[0]: no
  space left on device

  AXIS      STATE     SINCE (UTC)
  operator  draining  13:00:40.000 (23 s ago)      draining by alice (as root) (deploy), 9 m 36 s left
  probe     up        11:59:02.400 (1 h 02 m ago)  last result: pass
  breaker   closed    11:59:00.000 (1 h 02 m ago)  ejection number 0

What comes next
  - it is draining until an operator enables it, or by itself in 576 s
  - this interval ends in 1 s

The last decision
  none since it was added, or since the daemon started

The last outcomes
  there were none

The detectors
  all are off
"
    );
    let line = "web/web-2: draining: no new connections, by alice (deploy), 9 min left; weight 10 by alice \
                (as root), until an operator takes it back; not yet written to the maps";
    assert_eq!(changed(&view, &Palette::PLAIN), line);
    view.why.in_maps = true;
    view.connections = Some(0);
    assert!(changed(&view, &Palette::PLAIN).ends_with("; in force, it has no connection left"));
}

#[test]
fn a_backend_that_serves_says_so() {
    let mut view = fixture::view();
    let backend = &mut view.why.backend;
    (backend.breaker, backend.effective, backend.reason) = (BreakerState::Closed, Effective::Serving, None);
    (backend.until_ms, backend.share) = (None, 3333);
    (view.why.next, view.traffic.reachable) = (Vec::new(), false);
    let text = why(&view, &Palette::PLAIN);
    let begin = "\
web/web-2  10.0.0.12:8080  serving, 33% of new connections
  its next hop does not answer, so new connections go to other backends
";
    assert!(text.starts_with(begin), "{text}");
    assert!(text.contains("- nothing, unless a detector trips (see below)\n"), "{text}");
    assert!(!text.contains("its breaker is not closed"), "{text}");
}

#[test]
fn no_text_controls_the_terminal() {
    let mut view = fixture::view();
    view.why.backend.reason = Some("\x1b[2J".to_owned());
    view.why.backend.last_probe = Some("\x07".to_owned());
    if let Some(event) = &mut view.why.last_decision {
        (event.actor, event.evidence.detail) = ("\x1b[1m".to_owned(), Some("\x1b[0m".to_owned()));
    }
    let text = why(&view, &Palette::PLAIN) + &changed(&view, &Palette::PLAIN);
    assert!(!text.contains(['\x1b', '\x07']), "{text}");
}

#[test]
fn a_change_that_is_not_in_the_maps_yet_is_said() {
    let mut view = fixture::view();
    let words = "the daemon has not written the last change to the maps yet";
    assert!(!why(&view, &Palette::PLAIN).contains(words));
    view.why.in_maps = false;
    assert!(why(&view, &Palette::PLAIN).contains(words));
}

#[test]
fn nothing_is_next_only_of_one_that_serves_and_waits_for_nothing() {
    let words = "nothing, unless a detector trips";
    let mut view = fixture::view();
    view.why.backend.effective = Effective::Serving;
    assert!(!why(&view, &Palette::PLAIN).contains(words));
    (view.why.backend.effective, view.why.next) = (Effective::Ejected, Vec::new());
    assert!(!why(&view, &Palette::PLAIN).contains(words));
}

#[test]
fn the_outcomes_of_a_decision_are_shown_where_others_came_since() {
    let mut view = fixture::view();
    let words = "outcomes that led to it, oldest first:";
    assert!(!why(&view, &Palette::PLAIN).contains(words));
    view.why.last_outcomes.remove(0);
    assert!(why(&view, &Palette::PLAIN).contains(words));
    view.why.last_decision.as_mut().expect("one").evidence.last.clear();
    assert!(!why(&view, &Palette::PLAIN).contains(words));
}

#[test]
fn bad_outcomes_are_red() {
    let text = why(&fixture::view(), &Palette::COLOURED);
    let red = |outcome| text.contains(&Palette::COLOURED.paint(Paint::Bad, outcome));
    assert!(red("500") && red("502") && red("connect_refused") && !red("200"), "{text}");
}

#[test]
fn the_numbers_of_a_decision_are_those_that_there_are() {
    let run = |count| Some(Run { count, threshold: 3 });
    let with = |responses, failures, l4_failures, lost| Evidence {
        window: Some(Totals { responses, failures, l4_failures, lost }),
        ..Evidence::default()
    };
    assert_eq!(numbers(&Evidence { consecutive_5xx: run(0), ..with(0, 0, 0, 5) }), "");
    for (window, words) in [
        (with(4, 2, 0, 0), ": 2 of 4 responses since the sweep failed"),
        (with(4, 2, 4, 0), ": 2 of 4 responses since the sweep failed, 4 L4 failures"),
        (with(0, 0, 1, 0), ": 0 of 0 responses since the sweep failed, 1 L4 failures"),
        (with(1, 0, 0, 0), ": 0 of 1 responses since the sweep failed"),
        (with(9, 1, 2, 3), ": 1 of 9 responses since the sweep failed, 2 L4 failures, 3 heads lost"),
    ] {
        assert_eq!(numbers(&window), words);
    }
}

#[test]
fn a_detector_that_has_seen_nothing_says_so() {
    let mut detector = fixture::view().why.detectors.remove(1);
    assert_eq!(standing(&detector).0, "3 of 4, 75.00%");
    (detector.count, detector.total) = (0, Some(0));
    assert_eq!(standing(&detector).0, "nothing seen");
}
