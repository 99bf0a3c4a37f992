//! A client alone produces nothing that convicts a backend.

use super::lab::{Lab, probe, said, web};
use crate::{
    codes::ProbeCode,
    config::{Breaker, HttpProbe, Probe, ProbeKind},
    event::EventKind,
    outcome::{ClientCounts, L4Failure, Outcome, ProbeResult},
    states::BreakerState,
};

const MANY: ClientCounts = ClientCounts { prefixes: 5, addresses: 5 };
const LONE: ClientCounts = ClientCounts { prefixes: 1, addresses: 1 };
const CLIENTS: [&str; 3] = ["192.0.2.1", "198.51.100.1", "2001:db8::1"];

/// Two backends and an HTTP probe, which is up. Three failures eject.
fn probed(change: impl FnOnce(&mut Breaker)) -> Lab {
    probed_by(ProbeKind::Http(HttpProbe::default()), change)
}

/// The same with a probe of this kind.
pub(super) fn probed_by(kind: ProbeKind, change: impl FnOnce(&mut Breaker)) -> Lab {
    let mut service = web(&["a", "b"]);
    service.probe = Some(Probe { kind, ..probe() });
    change(&mut service.breaker);
    let mut lab = Lab::new(vec![service]);
    lab.probe("a", true);
    lab.probe("b", true);
    lab.news();
    lab
}

fn fails(lab: &mut Lab, failure: L4Failure, client: &str) {
    lab.seen_by("a", Outcome::Failure(failure), client, MANY);
}

fn fails_of(lab: &mut Lab, name: &str, failure: L4Failure) {
    lab.seen_by(name, Outcome::Failure(failure), CLIENTS[0], MANY);
}

fn refused() -> ProbeResult {
    ProbeResult::fail(ProbeCode::ConnectionRefused, "connection refused")
}

#[test]
fn l4_failures_of_one_client_eject_nobody_whose_probe_passes() {
    for failure in [
        L4Failure::ConnectRefused,
        L4Failure::ConnectTimeout,
        L4Failure::Reset,
        L4Failure::NoResponse,
        L4Failure::ResponseTimeout,
    ] {
        let mut lab = probed(|_| {});
        for _ in 0..50 {
            fails(&mut lab, failure, CLIENTS[0]);
            if !lab.confirmations.is_empty() {
                lab.confirm("a", ProbeResult::Status(200), false);
            }
            lab.wait(30);
        }
        let news = lab.news();
        assert_eq!(lab.backend("a").breaker, BreakerState::Closed, "{failure}");
        assert_eq!(news[0], said(EventKind::Suspected, "a", "consecutive_5xx"));
        assert!(news.len() <= 2, "one event a second: {news:?}");
        assert_eq!(lab.backend("a").responses.l4_failures, 50, "all are counted");
    }
}

#[test]
fn a_confirmed_failure_ejects_at_the_threshold_at_once() {
    let mut lab = probed(|_| {});
    for _ in 0..2 {
        fails(&mut lab, L4Failure::ConnectRefused, CLIENTS[0]);
    }
    assert_eq!(lab.confirmations.len(), 1, "one confirmation for both");
    lab.confirm("a", refused(), false);
    assert_eq!(lab.news(), []);
    assert_eq!(lab.backend("a").run_5xx, 2);
    fails(&mut lab, L4Failure::ConnectRefused, CLIENTS[0]);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
    assert!(lab.confirmations.is_empty(), "the confirmation holds for a second");
}

#[test]
fn a_backend_that_answers_a_syn_meanwhile_is_not_confirmed() {
    let mut lab = probed(|_| {});
    for _ in 0..9 {
        fails(&mut lab, L4Failure::ConnectTimeout, CLIENTS[0]);
    }
    lab.confirm("a", refused(), true);
    assert_eq!(lab.backend("a").run_5xx, 0);
    assert_eq!(lab.backend("a").breaker, BreakerState::Closed);
}

#[test]
fn a_good_answer_to_anybody_acquits() {
    let mut lab = probed(|_| {});
    for _ in 0..9 {
        fails(&mut lab, L4Failure::Reset, CLIENTS[0]);
    }
    lab.seen_by("a", Outcome::Status(200), CLIENTS[1], MANY);
    lab.confirm("a", refused(), false);
    fails(&mut lab, L4Failure::Reset, CLIENTS[1]);
    assert_eq!(lab.backend("a").run_5xx, 0, "{:?}", lab.news());
}

#[test]
fn requests_of_different_clients_that_break_eject_although_the_probe_passes() {
    let mut lab = probed(|_| {});
    fails(&mut lab, L4Failure::Reset, CLIENTS[0]);
    lab.confirm("a", ProbeResult::Status(200), false);
    fails(&mut lab, L4Failure::Reset, CLIENTS[0]);
    assert_eq!(lab.news(), []);
    let why = lab.engine.why("web", "a", lab.now).expect("it is there");
    assert_eq!(
        why.sentences(),
        ["2 L4 failures count once confirmed", "failures count once clients of 2 prefixes see them"]
    );
    fails(&mut lab, L4Failure::NoResponse, CLIENTS[1]);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
}

#[test]
fn a_lone_client_is_believed_where_no_probe_is_configured() {
    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    lab.news();
    for _ in 0..3 {
        lab.seen_by("a", Outcome::Failure(L4Failure::Reset), CLIENTS[0], LONE);
    }
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
}

#[test]
fn without_a_probe_a_handshake_confirms() {
    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    lab.seen_by("a", Outcome::Failure(L4Failure::ConnectTimeout), CLIENTS[0], LONE);
    let (_, asked) = lab.confirmations[0].clone();
    assert_eq!(*asked.kind, ProbeKind::Tcp);
    assert_eq!(asked.address, lab.backend("a").address);
    lab.confirm("a", ProbeResult::Pass, false);
    lab.news();
    lab.wait(5000);
    assert_eq!((lab.backend("a").run_5xx, lab.news()), (0, vec![]));
}

#[test]
fn a_probe_that_goes_elsewhere_says_nothing_about_the_port_of_the_clients() {
    let http = ProbeKind::Http(HttpProbe::default());
    let probed = Probe { kind: http.clone(), port: Some(9000), ..probe() };
    let mut service = web(&["a", "b", "c"]);
    let own = "192.0.2.99:7".parse().expect("literal");
    service.backends[2].probe_address = Some(own);
    let [a, _, c] = [0, 1, 2].map(|place| service.backends[place].probed_at(&probed));
    assert_eq!((a.ip(), a.port(), c), (service.backends[0].address.ip(), 9000, own));
    service.probe = Some(probed);
    let mut lab = Lab::new(vec![service]);
    for name in ["a", "b", "c"] {
        lab.probe(name, true);
    }
    lab.news();
    fails(&mut lab, L4Failure::ConnectRefused, CLIENTS[0]);
    let (_, asked) = lab.confirmations[0].clone();
    assert_eq!((asked.address, asked.kind.as_ref()), (lab.backend("a").address, &ProbeKind::Tcp));
    fails(&mut lab, L4Failure::ConnectRefused, CLIENTS[0]);
    fails(&mut lab, L4Failure::ConnectRefused, CLIENTS[0]);
    lab.confirm("a", refused(), false);
    assert_eq!(
        lab.news().last(),
        Some(&said(EventKind::Eject, "a", "consecutive_5xx")),
        "though its probe passes"
    );

    // A handshake that passes is no answer: a lone client's word about broken requests does not become more by it.
    fails_of(&mut lab, "b", L4Failure::Reset);
    lab.confirm("b", ProbeResult::Pass, false);
    assert_eq!(lab.news(), []);
}

#[test]
fn a_confirmation_follows_for_what_came_during_the_rest() {
    let mut lab = probed(|_| {});
    fails(&mut lab, L4Failure::ConnectRefused, CLIENTS[0]);
    lab.confirm("a", ProbeResult::Status(200), false);
    fails(&mut lab, L4Failure::ConnectRefused, CLIENTS[0]);
    assert!(lab.confirmations.is_empty());
    lab.wait(100);
    assert_eq!(lab.confirmations.len(), 1);
}

#[test]
fn confirmation_can_be_turned_off() {
    let mut lab = probed(|policy| policy.confirm_l4_failures = false);
    for _ in 0..3 {
        fails(&mut lab, L4Failure::ConnectTimeout, CLIENTS[0]);
    }
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
    assert!(lab.confirmations.is_empty());
}

#[test]
fn an_ejected_backend_is_not_confirmed_and_a_half_open_one_is() {
    let mut lab = probed(|policy| policy.confirm_l4_failures = true);
    for client in CLIENTS {
        lab.seen_by("a", Outcome::Status(500), client, MANY);
    }
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
    fails(&mut lab, L4Failure::ConnectTimeout, CLIENTS[0]);
    assert!(lab.confirmations.is_empty());
    lab.until(31_000);
    lab.until(35_000);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
    lab.news();
    fails(&mut lab, L4Failure::ConnectTimeout, CLIENTS[0]);
    lab.confirm("a", ProbeResult::Status(200), false);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen, "a client's SYN decides no trial");
    lab.wait(200);
    fails(&mut lab, L4Failure::ConnectTimeout, CLIENTS[0]);
    lab.confirm("a", refused(), false);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "half_open_failure")]);
}

#[test]
fn bad_responses_of_one_client_eject_nobody_where_there_are_others() {
    let mut lab = probed(|policy| {
        policy.error_rate_threshold = 50;
        policy.failure_percentage_threshold = 50;
        policy.failure_percentage_min_backends = 1;
        policy.consecutive_gateway_failure = 4;
    });
    for _ in 0..200 {
        lab.seen_by("a", Outcome::Status(503), CLIENTS[0], MANY);
    }
    lab.wait(5000);
    assert_eq!(lab.backend("a").breaker, BreakerState::Closed);
    let news = lab.news();
    assert_eq!(news[0], said(EventKind::Suspected, "a", "consecutive_5xx"));
    let detail = lab.events.last().and_then(|event| event.evidence.detail.clone()).expect("a sentence");
    assert!(detail.contains("seen by clients of 1 of 5 prefixes, and min_clients is 2"), "{detail}");
    lab.seen_by("a", Outcome::Status(503), CLIENTS[1], MANY);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open, "another client saw it too");
}

#[test]
fn bad_responses_of_a_lone_client_eject() {
    let mut lab = probed(|_| {});
    for _ in 0..3 {
        lab.seen_by("a", Outcome::Status(500), CLIENTS[0], LONE);
    }
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
}

#[test]
fn min_clients_can_be_turned_off_and_raised() {
    let mut lab = probed(|policy| policy.min_clients = 1);
    for _ in 0..3 {
        lab.seen_by("a", Outcome::Status(500), CLIENTS[0], MANY);
    }
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
    let mut lab = probed(|policy| policy.min_clients = 3);
    for client in [CLIENTS[0], CLIENTS[1], CLIENTS[0], CLIENTS[1]] {
        lab.seen_by("a", Outcome::Status(500), client, MANY);
    }
    assert_eq!(lab.backend("a").breaker, BreakerState::Closed);
    lab.seen_by("a", Outcome::Status(500), CLIENTS[2], MANY);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
}

#[test]
fn one_client_does_not_fail_the_trials_of_others() {
    let mut lab = probed(|_| {});
    for client in CLIENTS {
        lab.seen_by("a", Outcome::Status(500), client, MANY);
    }
    lab.until(35_000);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
    lab.seen_by("a", Outcome::Status(500), CLIENTS[0], MANY);
    lab.seen_by("a", Outcome::Status(500), CLIENTS[0], MANY);
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
    lab.seen_by("a", Outcome::Status(500), CLIENTS[1], MANY);
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
}

#[test]
fn spent_trials_without_an_outcome_are_no_silence() {
    let mut lab = probed(|_| {});
    for client in CLIENTS {
        lab.seen_by("a", Outcome::Status(500), client, MANY);
    }
    lab.until(35_000);
    let backend = lab.backend("a").id;
    for _ in 0..6 {
        lab.send(crate::io::Input::TrialsTaken { backend });
        lab.wait(5000);
    }
    assert_eq!(lab.backend("a").breaker, BreakerState::HalfOpen);
    lab.wait(15_000);
    assert_eq!(lab.backend("a").breaker, BreakerState::Closed, "nobody came");
}

#[test]
fn a_tcp_probe_asks_for_no_answer() {
    let mut service = web(&["a", "b"]);
    service.probe = Some(Probe { kind: ProbeKind::Tcp, ..probe() });
    let mut lab = Lab::new(vec![service]);
    lab.probe("a", true);
    lab.probe("b", true);
    for client in CLIENTS {
        fails(&mut lab, L4Failure::ResponseTimeout, client);
    }
    assert_eq!(lab.backend("a").breaker, BreakerState::Open);
}
