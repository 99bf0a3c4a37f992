use super::*;
use crate::{
    codes::ProbeCode,
    config::{GrpcProbe, HttpProbe, Tls},
};

fn http() -> Policy {
    let http = HttpProbe { fail_fast: vec![500..=599], ..HttpProbe::default() };
    Policy { kind: ProbeKind::Http(http), ..policy() }
}

fn policy() -> Policy {
    Policy::default()
}

fn health() -> Health {
    Health::new(Some(&policy()), 42, Instant(0))
}

fn fail() -> ProbeResult {
    ProbeResult::fail(ProbeCode::Timeout, "timeout")
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
fn results_in_a_row_against_the_state_are_counted() {
    let slow = Policy { rise: 5, ..policy() };
    let mut health = Health::new(Some(&slow), 42, Instant(0));
    let results =
        [(fail(), 0), (ProbeResult::Pass, 1), (ProbeResult::Pass, 2), (ProbeResult::Pass, 3), (fail(), 0)];
    for (result, against) in results {
        health.result(&slow, result);
        assert_eq!(health.against(), against);
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
    assert_eq!((change.to, change.reason.as_str()), (ProbeState::Down, "fall"));
}

#[test]
fn nothing_is_due_while_one_is_under_way() {
    let mut health = health();
    let first = health.due().expect("soon");
    assert!(first <= Instant(200));
    health.begin(first);
    assert_eq!(health.due(), None);
    health.result(&policy(), ProbeResult::Pass);
    let gap = health.due().expect("later") - first;
    assert!((1800..=2200).contains(&gap.0), "{gap:?}");
}

#[test]
fn a_shorter_interval_holds_at_once() {
    let mut health = health();
    health.begin(Instant(0));
    health.result(&policy(), ProbeResult::Pass);
    let quick = Policy {
        interval: Millis(100),
        fast_interval: Millis(100),
        down_interval: Millis(100),
        timeout: Millis(50),
        ..policy()
    };
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
fn a_wrong_status_counts_like_any_failure_unless_it_is_to_fail_fast() {
    for (status, times) in [(404, 3), (499, 3), (500, 1), (599, 1)] {
        let mut health = health();
        health.result(&http(), ProbeResult::Status(204));
        assert_eq!(health.state(), ProbeState::Up, "expected");
        for _ in 1..times {
            assert_eq!(health.result(&http(), ProbeResult::Status(status)), None, "{status}");
        }
        let change = health.result(&http(), ProbeResult::Status(status)).expect("the last one");
        let reason = if times == 1 { "fail_fast" } else { "fall" };
        assert_eq!((change.to, change.reason.as_str()), (ProbeState::Down, reason));
    }
}

#[test]
fn an_expected_status_does_not_fail_fast() {
    let kind = HttpProbe { expect: vec![500..=500], fail_fast: vec![500..=599], ..HttpProbe::default() };
    let policy = Policy { kind: ProbeKind::Http(kind), ..policy() };
    let mut health = health();
    health.result(&policy, ProbeResult::Status(500));
    assert_eq!(health.state(), ProbeState::Up);
}

/// After each result, how long until the next probe.
#[test]
fn the_pace_follows_the_state() {
    let policy = Policy {
        interval: Millis(2000),
        fast_interval: Millis(100),
        down_interval: Millis(9000),
        jitter: 0,
        ..policy()
    };
    let mut health = health();
    let mut now = health.due().expect("soon");
    for (result, pace) in [
        ("+", 2000),
        ("-", 100),
        ("-", 100),
        ("+", 2000),
        ("-", 100),
        ("-", 100),
        ("-", 9000),
        ("-", 9000),
        ("+", 100),
        ("-", 9000),
        ("+", 100),
        ("+", 2000),
    ] {
        health.begin(now);
        health.result(&policy, if result == "+" { ProbeResult::Pass } else { fail() });
        assert_eq!(health.due(), Some(now + Millis(pace)));
        now = now + Millis(pace);
    }
}

#[test]
fn jitter_stays_within_its_percent_and_reaches_both_ends() {
    for (jitter, least, most) in [(0, 2000, 2000), (10, 1800, 2200), (50, 1000, 3000)] {
        let policy = Policy { jitter, ..policy() };
        let mut health = health();
        let gaps: Vec<u64> = (0..3000)
            .map(|_| {
                health.begin(Instant(0));
                health.result(&policy, ProbeResult::Pass);
                health.due().expect("later").0
            })
            .collect();
        let (low, high) = (*gaps.iter().min().expect("some"), *gaps.iter().max().expect("some"));
        assert!(least <= low && high <= most, "{jitter} %: {low} to {high}");
        assert!(low - least <= 20 && most - high <= 20, "{jitter} %: {low} to {high}");
    }
}

#[test]
fn a_policy_that_goes_and_comes_back_while_a_probe_is_under_way_probes_again() {
    let mut health = health();
    health.begin(Instant(0));
    assert_eq!(health.due(), None, "one at a time");
    health.reconfigure(Some(&policy()), None, Instant(10));
    health.reconfigure(None, Some(&policy()), Instant(20));
    assert!(health.due().is_some_and(|due| due <= Instant(20) + FIRST_SPREAD));
}

/// The state after each of these results, from unknown and from up.
#[test]
fn every_kind_of_failure_counts_alike() {
    let tls = HttpProbe { tls: Some(Tls::default()), ..HttpProbe::default() };
    let kinds = [
        ProbeKind::Tcp,
        ProbeKind::Http(HttpProbe::default()),
        ProbeKind::Http(tls),
        ProbeKind::Grpc(GrpcProbe::default()),
    ];
    let failed = |text: &str| ProbeResult::fail(ProbeCode::Unknown, text);
    for kind in kinds {
        let mut failures = vec![
            failed("timeout after 1s"),
            failed("connection refused"),
            failed("connection closed before the response"),
            failed("TLS: the certificate has expired"),
            failed("health is NOT_SERVING"),
        ];
        if !matches!(kind, ProbeKind::Tcp) {
            failures.push(ProbeResult::Status(503));
        }
        let policy = Policy { kind, ..policy() };
        for failure in failures {
            assert!(!passes(&policy, &failure));
            let mut health = health();
            assert_eq!(
                health.result(&policy, failure.clone()).map(|change| change.to),
                Some(ProbeState::Down)
            );
            let mut health = self::health();
            health.result(&policy, ProbeResult::Pass);
            let states: Vec<_> = (0..3)
                .map(|_| {
                    health.result(&policy, failure.clone());
                    health.state()
                })
                .collect();
            assert_eq!(
                states,
                [ProbeState::Up, ProbeState::Up, ProbeState::Down],
                "{:?} {failure}",
                policy.kind
            );
        }
    }
}

#[test]
fn the_defaults_are_those_that_are_written() {
    let policy = Policy::default();
    assert_eq!((policy.interval, policy.timeout), (Millis::secs(2), Millis::secs(1)));
    assert_eq!((policy.rise, policy.fall, policy.jitter), (2, 3, 10));
    let http = HttpProbe::default();
    assert_eq!((http.expect, http.fail_fast), (vec![200..=399], vec![]));
}
