use super::*;

const MANY: ClientCounts = ClientCounts { prefixes: 9, addresses: 40 };
const LONE: ClientCounts = ClientCounts { prefixes: 1, addresses: 1 };
const NOW: Instant = Instant(5000);

fn suspect(failure: L4Failure, client: [u8; 4]) -> Suspect {
    Suspect { failure, client: Some((client, 4711).into()), late: false }
}

fn of(suspects: &[Suspect]) -> Suspicion {
    let mut suspicion = Suspicion::default();
    suspects.iter().for_each(|suspect| suspicion.add(*suspect));
    suspicion
}

const REFUSED: L4Failure = L4Failure::ConnectRefused;
const SILENT: L4Failure = L4Failure::ConnectTimeout;
const RESET: L4Failure = L4Failure::Reset;
const CLOSED: L4Failure = L4Failure::NoResponse;
const HANGS: L4Failure = L4Failure::ResponseTimeout;
const ALL: [L4Failure; 5] = [REFUSED, SILENT, RESET, CLOSED, HANGS];

/// One of each kind, all from one client.
fn one_client() -> Suspicion {
    of(&ALL.map(|failure| suspect(failure, [192, 0, 2, 1])))
}

fn waiting(suspicion: &Suspicion) -> Vec<L4Failure> {
    suspicion.waiting.iter().map(|suspect| suspect.failure).collect()
}

#[test]
fn a_failed_confirmation_confirms_everything() {
    let mut suspicion = one_client();
    suspicion.ask();
    assert_eq!(suspicion.due(), None, "one at a time");
    let confirmed = suspicion.ended(Confirmation::Failed, NOW);
    assert_eq!(confirmed.iter().map(|suspect| suspect.failure).collect::<Vec<_>>(), ALL);
    assert!(suspicion.is_confirmed(NOW) && suspicion.is_confirmed(Instant(5999)));
    assert!(!suspicion.is_confirmed(Instant(6000)));
    assert_eq!((waiting(&suspicion), suspicion.due()), (vec![], None));
}

#[test]
fn a_good_answer_meanwhile_acquits() {
    let mut suspicion = one_client();
    suspicion.ask();
    suspicion.acquit();
    suspicion.add(suspect(REFUSED, [192, 0, 2, 1]));
    assert_eq!(suspicion.ended(Confirmation::Failed, NOW), []);
    assert!(!suspicion.is_confirmed(NOW));
    suspicion.ask();
    suspicion.add(suspect(REFUSED, [192, 0, 2, 1]));
    assert_eq!(suspicion.ended(Confirmation::Failed, NOW).len(), 1, "nobody had an answer this time");
    suspicion.acquit();
    assert!(!suspicion.is_confirmed(NOW));
}

#[test]
fn a_handshake_speaks_for_connects_only() {
    for confirmation in [Confirmation::Accepts, Confirmation::Contradicted] {
        let mut suspicion = one_client();
        suspicion.ask();
        assert_eq!(suspicion.ended(confirmation, NOW), []);
        assert_eq!(waiting(&suspicion), [RESET, CLOSED, HANGS]);
    }
}

#[test]
fn an_answer_speaks_for_everything_but_requests_that_broke_at_once() {
    let mut suspicion = one_client();
    suspicion.add(Suspect { late: true, ..suspect(RESET, [192, 0, 2, 1]) });
    suspicion.add(Suspect { late: true, ..suspect(CLOSED, [192, 0, 2, 1]) });
    suspicion.ask();
    assert_eq!(suspicion.ended(Confirmation::Answers, NOW), []);
    assert_eq!(waiting(&suspicion), [RESET, CLOSED]);
}

#[test]
fn confirmations_are_paced() {
    let mut suspicion = one_client();
    assert_eq!(suspicion.due(), Some(Instant(0)), "the first one at once");
    suspicion.ask();
    suspicion.ended(Confirmation::Accepts, NOW);
    assert_eq!(suspicion.due(), None, "what still waits was asked about");
    suspicion.add(suspect(RESET, [192, 0, 2, 1]));
    assert_eq!(suspicion.due(), Some(Instant(5100)));
    suspicion.acquit();
    assert_eq!(suspicion.due(), None, "nothing waits");
    suspicion.add(suspect(REFUSED, [192, 0, 2, 1]));
    assert_eq!(suspicion.due(), Some(Instant(5100)), "a good answer does not shorten the rest");
}

#[test]
fn different_clients_agree() {
    let near = [suspect(RESET, [192, 0, 2, 1]), suspect(RESET, [192, 0, 2, 9])];
    let far = [suspect(RESET, [192, 0, 2, 1]), suspect(CLOSED, [198, 51, 100, 1])];
    for answers in [false, true] {
        assert_eq!(of(&near).agreed(2, MANY, answers), [], "one prefix");
        let mut suspicion = of(&far);
        suspicion.add(suspect(SILENT, [203, 0, 113, 1]));
        assert_eq!(suspicion.agreed(2, MANY, answers), far);
        assert_eq!(waiting(&suspicion), [SILENT], "a SYN proves no client");
        assert_eq!(of(&far).agreed(3, MANY, answers), []);
        suspicion.add(far[0]);
        assert_eq!(suspicion.agreed(2, MANY, answers), far[..1], "nobody had an answer since");
        suspicion.acquit();
        suspicion.add(far[0]);
        assert_eq!(suspicion.agreed(2, MANY, answers), []);
    }
}

#[test]
fn what_a_client_can_cause_by_waiting_counts_only_without_a_probe() {
    let late = |client| Suspect { late: true, ..suspect(CLOSED, client) };
    for pair in [
        [suspect(HANGS, [192, 0, 2, 1]), suspect(HANGS, [198, 51, 100, 1])],
        [late([192, 0, 2, 1]), late([198, 51, 100, 1])],
    ] {
        assert_eq!(of(&pair).agreed(2, MANY, true), []);
        assert_eq!(of(&pair).agreed(2, MANY, false), pair);
    }
}

#[test]
fn a_lone_client_is_believed_where_no_probe_can_say_better() {
    let lone = [suspect(RESET, [192, 0, 2, 1])];
    assert_eq!(of(&lone).agreed(2, LONE, true), []);
    assert_eq!(of(&lone).agreed(2, LONE, false), lone);
    assert_eq!(of(&[suspect(REFUSED, [192, 0, 2, 1])]).agreed(2, LONE, false), []);
}

#[test]
fn memory_is_bounded_and_runs_are_counted() {
    let mut suspicion = Suspicion::default();
    for _ in 0..3 * MOST {
        suspicion.add(suspect(SILENT, [192, 0, 2, 1]));
    }
    assert_eq!(waiting(&suspicion).len(), MOST);
    assert_eq!(suspicion.reached(5), Some(3 * MOST as u32));
    assert_eq!(suspicion.reached(1), None, "the row begins again");
    suspicion.add(suspect(SILENT, [192, 0, 2, 1]));
    assert_eq!((suspicion.reached(2), suspicion.reached(1)), (None, Some(1)));
}

#[test]
fn the_rest_after_a_confirmation_outlives_a_change_of_the_breaker() {
    let mut suspicion = one_client();
    suspicion.ask();
    suspicion.ended(Confirmation::Failed, NOW);
    let mut after = suspicion.after_change();
    after.add(suspect(REFUSED, [192, 0, 2, 1]));
    assert_eq!(after.due(), Some(NOW + REST));
}

#[test]
fn nothing_outlives_a_change_of_the_breaker() {
    let mut suspicion = one_client();
    suspicion.ask();
    let mut after = suspicion.after_change();
    assert_eq!((waiting(&after), after.due()), (vec![], None));
    after.add(suspect(REFUSED, [192, 0, 2, 1]));
    assert_eq!(after.due(), None, "the confirmation is still under way");
    assert_eq!(after.ended(Confirmation::Failed, NOW), [], "it began before the change");
}
