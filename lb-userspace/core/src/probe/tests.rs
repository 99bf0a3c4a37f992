use super::*;
use crate::config::ProbeKind;

fn policy() -> Policy {
    Policy { kind: ProbeKind::Tcp, interval: Millis(2000), timeout: Millis(1000), rise: 2, fall: 3 }
}

fn health() -> Health {
    Health::new(Some(&policy()), 42, Instant(0))
}

fn fail() -> ProbeResult {
    ProbeResult::Fail("timeout".to_owned())
}

/// Results and the states they lead to, `+` passing and `-` failing.
#[test]
fn rise_and_fall() {
    for (results, state) in [
        ("", ProbeState::Unknown),
        ("+", ProbeState::Up),
        ("-", ProbeState::Down),
        ("+--", ProbeState::Up),
        ("+---", ProbeState::Down),
        ("+--+--", ProbeState::Up),
        ("-+", ProbeState::Down),
        ("-++", ProbeState::Up),
        ("-+-+", ProbeState::Down),
        ("---------++", ProbeState::Up),
        ("++++++++---", ProbeState::Down),
        ("+---+", ProbeState::Down),
    ] {
        let mut health = health();
        for result in results.chars() {
            health.result(&policy(), if result == '+' { ProbeResult::Pass } else { fail() });
        }
        assert_eq!(health.state(), state, "{results}");
    }
}

#[test]
fn a_lower_fall_in_a_reload_holds_at_the_next_failure() {
    let mut health = health();
    for result in [ProbeResult::Pass, fail(), fail()] {
        health.result(&policy(), result);
    }
    let strict = Policy { fall: 1, ..policy() };
    assert_eq!(health.reconfigure(Some(&policy()), Some(&strict), Instant(0)), None);
    let change = health.result(&strict, fail()).expect("three are more than one");
    assert_eq!((change.to, change.reason), (ProbeState::Down, "fall"));
}

#[test]
fn nothing_is_due_while_one_is_under_way() {
    let mut health = health();
    let first = health.due().expect("soon");
    assert!(first <= Instant(200));
    health.begin(&policy(), first);
    assert_eq!(health.due(), None);
    health.result(&policy(), ProbeResult::Pass);
    let gap = health.due().expect("later") - first;
    assert!((1800..=2200).contains(&gap.0), "{gap:?}");
}

#[test]
fn a_shorter_interval_holds_at_once() {
    let mut health = health();
    health.begin(&policy(), Instant(0));
    health.result(&policy(), ProbeResult::Pass);
    let quick = Policy { interval: Millis(100), timeout: Millis(50), ..policy() };
    health.reconfigure(Some(&policy()), Some(&quick), Instant(10));
    assert_eq!(health.due(), Some(Instant(110)));
}

#[test]
fn without_a_policy_there_is_nothing() {
    let mut health = Health::new(None, 42, Instant(0));
    assert_eq!((health.state(), health.due()), (ProbeState::None, None));
    assert_eq!(health.result(&policy(), fail()), None);
    assert_eq!(health.last(), None);
}

#[test]
fn a_policy_that_goes_and_comes_back_while_a_probe_is_under_way_probes_again() {
    let mut health = health();
    health.begin(&policy(), Instant(0));
    assert_eq!(health.due(), None, "one at a time");
    health.reconfigure(Some(&policy()), None, Instant(10));
    health.reconfigure(None, Some(&policy()), Instant(20));
    assert!(health.due().is_some_and(|due| due <= Instant(20) + FIRST_SPREAD));
}
